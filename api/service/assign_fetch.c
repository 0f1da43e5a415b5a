/* `conclave run`: a node asks for secrets and configs by name, for a command of its operator. A
 * manager may have any; a worker those whose label `conclave.run` names it. What is there and may
 * not be had, and what is not there, are answered alike, and written down as denied; what is given
 * is written down before. All or nothing. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/node/roles.h"
#include "api/secret/secrets.h"
#include "api/service/assign_parts.h"
#include "store/audit.h"

#define FETCHES_MAX 16 /* of one node under way */

/* One question; its memory lives until its record is written, whatever becomes of the session. */
struct fetching {
    struct fetching *next;
    struct assigns *all;
    struct assigned *a; /* NULL: it is gone */
    struct fetch fetch;
    char ids[SERVICE_REFS_MAX][NODE_ID_SIZE + 1]; /* of what is wanted */
    enum err verdict;
    struct why why;
    bool writing; /* the record is on its way */
    struct write write;
};

/* --- who may ---------------------------------------------------------------------------------- */

/* Not by its host name, which is the node's own word (run_label.c). */
static bool list_names(struct span list, const struct row *row) {
    struct span word;
    while (run_label_next(&list, &word))
        if (span_equal(word, span_str("*")) || span_equal(word, span_str(row->id)) ||
            span_equal(word, row->name))
            return true;
    return false;
}

static bool may_have(struct span labels, const struct row *row, const struct node_row *node) {
    struct span value;
    if (node->granted == NODE_MANAGER) return true;
    return labels_find(labels, span_str(RUN_LABEL), &value) && list_names(value, row);
}

/* --- the records ------------------------------------------------------------------------------ */

static RESULT add_record(struct fetching *f, unsigned i, struct buf *changes) {
    struct assigned *a = f->a;
    char who[8 + NODE_ID_SIZE];
    struct audit_record r = {.what = f->verdict == OK ? AUDIT_READ : AUDIT_DENY,
                             .kind = f->fetch.want[i].kind,
                             .version = f->fetch.want[i].version};
    (void)snprintf(who, sizeof who, "node %s", a->link->id);
    memcpy(r.id, f->ids[i], sizeof r.id);
    memcpy(r.node_id, a->link->id, sizeof r.node_id);
    r.name = span_str(f->fetch.want[i].name);
    r.who = span_str(who);
    r.from = span_str(session_caller(a->link->session)->remote);
    r.detail = span_str("conclave run");
    return audit_add(changes, &r);
}

/* A driver's value is made for a task of a service. */
static RESULT judge_held(struct fetching *f, unsigned i, const struct row *row,
                         struct held_row *held) {
    uint32_t version = f->fetch.want[i].version;
    const char *name = f->fetch.want[i].name;
    if (held->driver[0] != '\0')
        return fail_with(&f->why, ERR_UNSUPPORTED,
                         "the secret %s comes from a driver, which gives it to services only",
                         name);
    const struct held_version *v = held_version(held, version);
    if (!v)
        return fail_with(&f->why, ERR_NOT_FOUND, "the %s %s has no version %u",
                         held_word(row->kind), name, version);
    f->fetch.want[i].version = v->number;
    memcpy(f->ids[i], row->id, sizeof f->ids[i]);
    return OK;
}

static RESULT judge(struct fetching *f, unsigned i, const struct row *row,
                    const struct node_row *node) {
    struct held_row *held = &f->all->held;
    const char *name = f->fetch.want[i].name;
    enum row_kind kind = f->fetch.want[i].kind;
    struct row wanted;
    bool there = row_named(f->all->manager->store, kind, span_str(name), &wanted) &&
                 held_decode(wanted.body, held) == OK;
    if (there && may_have(held->labels, row, node)) return judge_held(f, i, &wanted, held);
    if (node->granted == NODE_MANAGER)
        return fail_with(&f->why, ERR_NOT_FOUND, "there is no %s %s", held_word(kind), name);
    return fail_with(&f->why, ERR_PERMISSION,
                     "there is no %s %s that this node may have; its label " RUN_LABEL
                     " says which nodes may",
                     held_word(kind), name);
}

/* The verdict, and the records that tell of it: all that are given, or the one that is not. */
static RESULT judge_all(struct fetching *f, struct buf *changes, unsigned *n) {
    struct row row;
    struct node_row node;
    unsigned i = 0;
    *n = 0;
    TRY(node_row_get(f->all->manager->store, f->a->link->id, &row, &node));
    for (f->verdict = OK; i < f->fetch.n; i++) {
        f->verdict = judge(f, i, &row, &node);
        if (f->verdict != OK) break;
    }
    unsigned from = f->verdict == OK ? 0 : i, to = f->verdict == OK ? f->fetch.n : i + 1;
    for (i = from; i < to; i++, (*n)++)
        TRY(add_record(f, i, changes));
    return OK;
}

/* --- the answer ------------------------------------------------------------------------------- */

static RESULT open_all(struct fetching *f, struct fetched *out, struct secret **opened) {
    for (unsigned i = 0; i < f->fetch.n; i++) {
        struct assign_value *v = &out->values[i];
        *v = (struct assign_value){.kind = f->fetch.want[i].kind};
        TRY(secrets_value(f->all->manager, v->kind, f->ids[i], f->fetch.want[i].version, &opened[i],
                          &v->version, &f->why));
        memcpy(v->id, f->ids[i], sizeof v->id);
        v->bytes = secret_span(opened[i]);
        out->n = i + 1;
    }
    return OK;
}

static void say(struct fetching *f, struct fetched *out) {
    struct buf *part = &f->all->part;
    if (fetched_encode(out, part) != OK) {
        out->error = ERR_TOO_LARGE;
        out->n = 0;
        (void)snprintf(out->text, sizeof out->text, "together they are more than one answer holds");
        if (fetched_encode(out, part) != OK) return;
    }
    session_send(f->a->link->session, NODE_FETCHED, buf_span(part));
    sodium_memzero(part->at, part->size);
    buf_clear(part);
}

static void answer(struct fetching *f) {
    struct secret *opened[SERVICE_REFS_MAX] = {NULL};
    struct fetched *out = calloc(1, sizeof *out);
    if (!f->a || !f->a->link->session || !out) {
        free(out);
        return;
    }
    out->number = f->fetch.number;
    if (f->verdict == OK) f->verdict = open_all(f, out, opened);
    out->error = f->verdict;
    if (f->verdict != OK) {
        out->n = 0;
        (void)snprintf(out->text, sizeof out->text, "%s",
                       f->why.text[0] ? f->why.text : err_text(f->verdict));
    }
    say(f, out);
    for (unsigned i = 0; i < SERVICE_REFS_MAX; i++)
        secret_free(opened[i]);
    free(out);
    manager_wipe_stack(f->all->manager);
}

static void drop(struct fetching *f) {
    struct fetching **at = &f->all->fetches;
    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    if (f->a) f->a->fetches--;
    free(f);
}

static void fail(struct fetching *f, enum err e, const char *text) {
    f->verdict = e;
    (void)fail_with(&f->why, e, "it can't be recorded: %s", text[0] ? text : err_text(e));
    answer(f);
    drop(f);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct fetching *f = w->ctx;
    if (e == OK) e = r->error;
    if (e != OK) {
        fail(f, e, text);
        return;
    }
    answer(f);
    drop(f);
}

/* --- the way ---------------------------------------------------------------------------------- */

/* At once, and without a record. */
static void refuse(struct assigned *a, uint64_t number) {
    struct buf body = buf_new(SESSION_BODY_MAX);
    struct fetched *out = calloc(1, sizeof *out);
    if (out) {
        out->number = number;
        out->error = ERR_BUSY;
        (void)snprintf(out->text, sizeof out->text,
                       "this node asks for secrets too often; try again later");
        if (fetched_encode(out, &body) == OK)
            session_send(a->link->session, NODE_FETCHED, buf_span(&body));
    }
    free(out);
    buf_free(&body);
}

RESULT assign_fetch_take(struct assigned *a, struct span body, struct why *why) {
    struct fetching *f = calloc(1, sizeof *f);
    if (!f) return fail_with(why, ERR_NOMEM, "no memory for a question of the node");
    if (fetch_decode(body, &f->fetch) != OK || f->fetch.n == 0) {
        free(f);
        return fail_with(why, ERR_PROTOCOL, "the node's question for secrets is not understood");
    }
    if (a->fetches == FETCHES_MAX || assign_pace(a->all, a->link->id, PACE_FETCH) != 0) {
        refuse(a, f->fetch.number);
        free(f);
        return OK;
    }
    a->fetches++;
    f->all = a->all;
    f->a = a;
    f->next = a->all->fetches;
    a->all->fetches = f;
    assign_wake(a->all);
    return OK;
}

static void propose(struct fetching *f) {
    struct assigns *all = f->all;
    struct buf changes = buf_new(COMMAND_MAX / 2);
    unsigned n = 0;
    f->write = (struct write){.done = on_written, .ctx = f};
    enum err e = judge_all(f, &changes, &n);
    if (e == OK) e = rows_command(all->manager, &changes, n, &f->write);
    if (e == OK) e = manager_write(all->manager, &f->write);
    buf_free(&changes);
    f->writing = e == OK;
    if (e != OK) fail(f, e, "");
}

void assign_fetch_step(struct assigns *all) {
    for (struct fetching *f = all->fetches, *next; f; f = next) {
        next = f->next;
        if (f->writing) continue;
        if (f->a)
            propose(f);
        else
            drop(f);
    }
}

void assign_fetch_gone(struct assigned *a) {
    for (struct fetching *f = a->all->fetches; f; f = f->next)
        if (f->a == a) f->a = NULL;
}

void assign_fetch_close(struct assigns *all) {
    for (struct fetching *f = all->fetches, *next; f; f = next) {
        next = f->next;
        free(f);
    }
    all->fetches = NULL;
}
