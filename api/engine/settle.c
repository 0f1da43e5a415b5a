/* See settle.h. Happy path: a confirmed read, so that the rows are there -> one OP_ROWS with the
 * settings and the node's own row. Another one's change in between (ERR_CONFLICT) is read again, a
 * few times. */
#include "api/engine/settle.h"

#include <stdlib.h>

#define TRIES_MAX 8

struct settling {
    struct manager *manager;
    struct read read;
    struct write write;
    struct buf spec; /* encoded; empty: stays */
    enum node_availability availability;
    unsigned tries;
    manager_done *done;
    void *ctx;
};

static void finish(struct settling *s, enum err e, const char *text) {
    manager_done *done = s->done;
    void *ctx = s->ctx;
    buf_free(&s->spec);
    free(s);
    done(ctx, e, text);
}

static RESULT add_spec(const struct settling *s, struct buf *changes, uint32_t *n) {
    struct row row;
    struct spec now;
    if (s->spec.size == 0) return OK;
    spec_get(s->manager->store, &row, &now);
    struct row_change c = {.action = ROW_REPLACE,
                           .kind = ROW_SPEC,
                           .version = row.version,
                           .name = row.name,
                           .body = buf_span(&s->spec)};
    memcpy(c.id, row.id, sizeof c.id);
    ++*n;
    return row_change_add(changes, &c);
}

static RESULT add_node(const struct settling *s, struct buf *changes, uint32_t *n) {
    const struct manager *m = s->manager;
    struct row row;
    struct node_row node;
    struct buf body = buf_new(ROW_BODY_MAX);
    if (s->availability == NODE_ACTIVE) return OK;
    TRY(node_row_get(m->store, m->self.node_id, &row, &node));
    node.availability = s->availability;
    enum err e = node_row_encode(&node, &body);
    struct row_change c = {.action = ROW_REPLACE,
                           .kind = ROW_NODE,
                           .version = row.version,
                           .name = row.name,
                           .body = buf_span(&body)};
    memcpy(c.id, row.id, sizeof c.id);
    ++*n;
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

static void on_read(struct read *read, enum err e);

static RESULT read_again(struct settling *s) {
    s->tries++;
    s->read = (struct read){.done = on_read, .ctx = s};
    return replica_read(s->manager->replica, &s->read);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct settling *s = w->ctx;
    if (e == OK) e = r->error;
    bool again = e == ERR_CONFLICT && s->tries < TRIES_MAX && manager_ready(s->manager, NULL) == OK;
    if (again && read_again(s) == OK) return;
    finish(s, e, e == OK || !text[0] ? err_text(e) : text);
}

static RESULT write_rows(struct settling *s) {
    struct buf changes = buf_new(COMMAND_MAX);
    struct command c = {.op = OP_ROWS};
    c.rows.now_ns = s->manager->clock.wall_ns(&s->manager->clock);
    s->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = s};
    enum err e = add_spec(s, &changes, &c.rows.n);
    if (e == OK) e = add_node(s, &changes, &c.rows.n);
    c.rows.changes = buf_span(&changes);
    if (e == OK) e = command_encode(&c, &s->write.command);
    buf_free(&changes);
    if (e == OK) return manager_write(s->manager, &s->write); /* wipes the command */
    buf_wipe(&s->write.command);
    return e;
}

static void on_read(struct read *read, enum err e) {
    struct settling *s = read->ctx;
    if (e == OK) e = manager_ready(s->manager, NULL);
    if (e == OK) e = write_rows(s);
    if (e != OK) finish(s, e, err_text(e));
}

/* Is there anything that differs from what a founded cluster has? */
static RESULT take_spec(struct settling *s, const struct engine_spec *said) {
    static const struct spec defaults;
    struct buf usual = buf_new(ROW_BODY_MAX);
    enum err e = spec_encode(&defaults, &usual);
    if (e == OK) e = spec_encode(&said->spec, &s->spec);
    if (e == OK && span_equal(buf_span(&usual), buf_span(&s->spec))) buf_clear(&s->spec);
    buf_free(&usual);
    return e;
}

RESULT engine_settle(struct manager *m, const struct engine_settle *wish, manager_done *done,
                     void *ctx) {
    struct settling *s = m->state == MANAGER_RUNNING ? calloc(1, sizeof *s) : NULL;
    if (!s) return m->state == MANAGER_RUNNING ? ERR_NOMEM : ERR_NOT_FOUND;
    *s = (struct settling){.manager = m,
                           .availability = wish->availability,
                           .spec = buf_new(ROW_BODY_MAX),
                           .done = done,
                           .ctx = ctx};
    enum err e = wish->spec ? take_spec(s, wish->spec) : OK;
    if (e == OK && s->spec.size == 0 && s->availability == NODE_ACTIVE) e = ERR_NOT_FOUND;
    if (e == OK) e = read_again(s);
    if (e == OK) return OK;
    buf_free(&s->spec);
    free(s);
    return e;
}
