/* Any bytes: the decoders of what nodes are told to run, of what they say of it and of what they
 * fetch refuse them, or give what encodes to the same bytes again. */
#include <stdlib.h>

#include "api/service/assign_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) abort();
}

static struct assign_task task; /* large */
static struct fetched fetched;

static void put_again(struct buf *again, const struct assign_one *one) {
    switch (one->item) {
    case ASSIGN_TASK: check(assign_add_task(again, one->task) == OK); break;
    case ASSIGN_VALUE: check(assign_add_value(again, &one->value) == OK); break;
    case ASSIGN_REMOVE_TASK: check(assign_remove_task(again, one->id) == OK); break;
    case ASSIGN_REMOVE_VALUE:
        check(assign_remove_value(again, one->kind, one->id, one->version) == OK);
        break;
    default: abort();
    }
}

static void assignment(struct span body) {
    struct assign_head head;
    struct assign_one one;
    struct cursor in = cursor_of(body);
    struct buf again = buf_new(2 * SESSION_FRAME_MAX);
    bool more = true;
    if (assign_head(&in, &head) == OK) check(assign_begin(&again, &head) == OK);
    while (more && again.size > 0 && assign_next(&in, &task, &one, &more) == OK)
        if (more) put_again(&again, &one);
    check(again.size + in.left == body.size);
    check(again.size == 0 || memcmp(again.at, body.at, again.size) == 0);
    buf_free(&again);
}

static void reports(struct span body) {
    struct task_report r;
    struct cursor in = cursor_of(body);
    struct buf again = buf_new(2 * SESSION_FRAME_MAX);
    bool more = true;
    while (more && report_next(&in, &r, &more) == OK)
        if (more) check(report_add(&again, &r) == OK);
    check(again.size + in.left == body.size);
    check(again.size == 0 || memcmp(again.at, body.at, again.size) == 0);
    buf_free(&again);
}

static void fetches(struct span body) {
    struct fetch f;
    struct buf again = buf_new(2 * SESSION_FRAME_MAX);
    if (fetch_decode(body, &f) == OK) {
        check(fetch_encode(&f, &again) == OK);
        check(span_equal(buf_span(&again), body));
    }
    buf_clear(&again);
    if (fetched_decode(body, &fetched) == OK) {
        check(fetched_encode(&fetched, &again) == OK);
        check(span_equal(buf_span(&again), body));
    }
    buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    assignment(span_of(data, size));
    reports(span_of(data, size));
    fetches(span_of(data, size));
    return 0;
}
