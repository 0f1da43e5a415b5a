/* Any bytes: the decoders of what an agent and a supervisor say to each other refuse them, or give
 * what encodes to the same bytes again, within what the header promises. */
#include <stdlib.h>

#include "api/task/supervisor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) abort();
}

static struct sup_order order; /* large, as the state */
static struct sup_state state;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct span body = span_of(data, size);
    struct buf again = buf_new(2 * SUP_FRAME_MAX);
    struct sup_file file;
    if (sup_order_decode(body, &order) == OK) {
        check(order.data[0] == '/' && order.command.size > 0 && !strchr(order.id, '/'));
        check(sup_order_encode(&order, &again) == OK && span_equal(buf_span(&again), body));
    }
    buf_clear(&again);
    if (sup_file_decode(body, &file) == OK) {
        check(file.size <= CONFIG_SIZE_MAX && !strstr(file.target, "..//"));
        check(strcmp(file.target, "..") != 0 && strncmp(file.target, "../", 3) != 0);
        check(!strstr(file.target, "/../"));
        check(sup_file_encode(&file, &again) == OK && span_equal(buf_span(&again), body));
    }
    buf_clear(&again);
    if (sup_state_decode(body, &state) == OK) {
        check(state.n <= SERVICE_REFS_MAX);
        check(sup_state_encode(&state, &again) == OK && span_equal(buf_span(&again), body));
    }
    buf_free(&again);
    return 0;
}
