/* Keys of another store, from `conclave import`, a step a request: `begin` takes its revision over
 * when this one is empty, then come `keys` with their revisions; `puts` are ordinary ones. Bytes of
 * both: store/import.h. */
#include "api/api.h"

#include <stdlib.h>

#include "store/import.h"

static RESULT add_puts(struct span rows, struct command *c, struct buf *items) {
    struct cursor in = cursor_of(rows);
    c->op = OP_BATCH;
    while (in.left > 0) {
        struct kv kv;
        struct command put = {.op = OP_PUT};
        TRY(import_next(&in, &kv));
        put.put = (struct put){.key = kv.key, .value = kv.value, .lease = kv.lease};
        TRY(command_batch_add(items, &put));
        c->batch.n++;
    }
    c->batch.items = buf_span(items);
    return OK;
}

static RESULT parse(const struct exchange *x, struct command *c, struct buf *items,
                    struct why *why) {
    char step[16], revision[24], *end;
    TRY(http_query(x->head.query, "step", step, sizeof step));
    TRY(api_token(x, c, why));
    if (strcmp(step, "puts") == 0) return add_puts(x->body, c, items);
    c->op = OP_IMPORT;
    if (strcmp(step, "keys") == 0) {
        c->import.rows = x->body;
        return OK;
    }
    if (strcmp(step, "begin") != 0) return fail_with(why, ERR_INVALID, "step: begin, keys or puts");
    TRY(http_query(x->head.query, "revision", revision, sizeof revision));
    c->import.begin = strtoull(revision, &end, 10);
    if (*end == '\0' && c->import.begin > 1 && c->import.begin <= INT64_MAX) return OK;
    return fail_with(why, ERR_INVALID, "revision is not a number above 1");
}

void handle_import(struct exchange *x) {
    struct command c = {0};
    struct buf items = buf_new(COMMAND_MAX);
    struct why why = {0};
    enum err e = parse(x, &c, &items, &why);
    if (e == OK)
        api_write(x, &c, api_empty, NULL);
    else
        api_fail(x, e, &why);
    buf_wipe(&items);
}
