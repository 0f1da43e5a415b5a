/* Any text: a template is expanded within its bound or refused; one without an action comes out as
 * it is, and what is refused is refused with a sentence that has nothing of it. */
#include <stdlib.h>

#include "api/task/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) abort();
}

static bool value_of(void *ctx, enum row_kind kind, struct span target, struct span *out) {
    (void)ctx;
    *out = span_str("the value {{.Task.ID}}");
    return kind == ROW_SECRET && target.size == 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t env[] = {4, 0, 0, 0, 'A', '=', 'b', 'c'};
    const struct template_scope scope = {.node = {"node", "host", "linux", "x86_64"},
                                         .service_id = "sid",
                                         .service_name = "service",
                                         .task_id = "tid",
                                         .task_name = "service.1.tid",
                                         .slot = 1,
                                         .env = {env, sizeof env},
                                         .value = value_of};
    struct span text = span_of(data, size);
    struct buf out = buf_new_wiped(4096);
    struct why why = {0};
    enum err e = template_expand(text, &scope, &out, &why);
    check(e == OK || e == ERR_INVALID || e == ERR_TOO_LARGE);
    check(out.size <= 4096);
    if (e == OK && template_is_plain(text)) check(span_equal(buf_span(&out), text));
    check((e == ERR_INVALID) == (why.text[0] != '\0'));
    buf_wipe(&out);
    return 0;
}
