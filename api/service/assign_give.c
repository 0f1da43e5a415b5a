/* The difference between what a node should have and what it was told, as parts of one assignment.
 *
 * Order: tasks that go, values that go, values that come, tasks that come or have changed; so a
 * task never comes before its values. One exception: a node that has just come is told of a task
 * that it runs already even if a value can't be had now, since it ends what a COMPLETE does not
 * name. The table is changed with each item that is put into a part, and each part that was begun
 * is sent: what does not fit into the queue follows in further parts when it has drained, made of
 * the difference that there is then.
 *
 * A COMPLETE waits until all deliveries that it will make are recorded. */
#include <sodium.h>
#include <stdlib.h>

#include "api/secret/secrets.h"
#include "api/service/assign_parts.h"

#define ASSIGN_AHEAD (2 * MIB) /* waiting for one node; past it the rest waits here */

/* --- parts ------------------------------------------------------------------------------------ */

static RESULT begin(struct assigned *a) {
    const struct assign_head head = {.type = a->complete ? ASSIGN_INCREMENTAL : ASSIGN_COMPLETE,
                                     .applies_to = a->sequence,
                                     .results_in = a->sequence + 1};
    return assign_begin(&a->all->part, &head);
}

static void send_part(struct assigned *a) {
    struct buf *part = &a->all->part;
    session_send(a->link->session, NODE_ASSIGN, buf_span(part));
    sodium_memzero(part->at, part->size);
    buf_clear(part);
    a->open = true;
}

static RESULT add(struct buf *out, const struct assign_one *one) {
    switch (one->item) {
    case ASSIGN_TASK: return assign_add_task(out, one->task);
    case ASSIGN_VALUE: return assign_add_value(out, &one->value);
    case ASSIGN_REMOVE_TASK: return assign_remove_task(out, one->id);
    case ASSIGN_REMOVE_VALUE: return assign_remove_value(out, one->kind, one->id, one->version);
    }
    return ERR_INTERNAL;
}

/* ERR_BUSY: the queue is full; all goes on when it has drained. */
static RESULT put(struct assigned *a, const struct assign_one *one) {
    struct buf *part = &a->all->part;
    if (session_waiting(a->link->session) > ASSIGN_AHEAD) return ERR_BUSY;
    if (part->size == 0) TRY(begin(a));
    enum err e = add(part, one);
    if (e != ERR_TOO_LARGE) return e;
    send_part(a);
    if (session_waiting(a->link->session) > ASSIGN_AHEAD) return ERR_BUSY;
    TRY(begin(a));
    return add(part, one);
}

/* --- what goes -------------------------------------------------------------------------------- */

static RESULT remove_tasks(struct assigned *a) {
    for (size_t i = 0; i < a->n_tasks;) {
        struct known_task *t = &a->tasks[i];
        struct assign_one one = {.item = ASSIGN_REMOVE_TASK};
        memcpy(one.id, t->id, sizeof one.id);
        if (t->there) {
            i++;
            continue;
        }
        if (t->told) TRY(put(a, &one));
        free(t->uses);
        memmove(t, t + 1, (--a->n_tasks - i) * sizeof *t);
    }
    return OK;
}

/* One that is for a task alone goes with its task. */
static RESULT remove_values(struct assigned *a) {
    for (size_t i = 0; i < a->n_values;) {
        struct known_value *v = &a->values[i];
        struct assign_one one = {
            .item = ASSIGN_REMOVE_VALUE, .kind = v->kind, .version = v->version};
        memcpy(one.id, v->id, sizeof one.id);
        if (v->needed || v->driven == DRIVEN_ASKED) {
            i++;
            continue;
        }
        if (v->told && v->task_id[0] == '\0') TRY(put(a, &one));
        known_value_drop(a, v);
    }
    return OK;
}

/* --- what comes ------------------------------------------------------------------------------- */

static RESULT put_value(struct assigned *a, struct known_value *v, struct span bytes) {
    struct assign_one one = {.item = ASSIGN_VALUE};
    one.value = (struct assign_value){.kind = v->kind, .version = v->version, .bytes = bytes};
    memcpy(one.value.id, v->id, sizeof v->id);
    memcpy(one.value.task_id, v->task_id, sizeof v->task_id);
    TRY(put(a, &one));
    v->told = true;
    return OK;
}

void assign_close_opened(struct assigns *all) {
    if (!all->opened.bytes) return;
    secret_free(all->opened.bytes);
    all->opened.bytes = NULL;
    manager_wipe_stack(all->manager);
}

static RESULT open_value(struct assigns *all, const struct known_value *v, struct why *why) {
    struct opened *o = &all->opened;
    uint32_t version = 0;
    if (o->bytes && o->kind == v->kind && o->version == v->version && strcmp(o->id, v->id) == 0)
        return OK;
    assign_close_opened(all);
    o->kind = v->kind;
    o->version = v->version;
    memcpy(o->id, v->id, sizeof o->id);
    return secrets_value(all->manager, v->kind, v->id, v->version, &o->bytes, &version, why);
}

static RESULT give_value(struct assigned *a, struct known_value *v) {
    struct why why = {0};
    if (v->driven == DRIVEN_HERE) return put_value(a, v, secret_span(v->bytes));
    if (v->driven == DRIVEN_ASKED) return OK;
    enum err e = open_value(a->all, v, &why);
    if (e == OK) return put_value(a, v, secret_span(a->all->opened.bytes));
    a->all->opened.bytes = NULL;
    if (why.text[0] == '\0') (void)fail_with(&why, e, "%s", err_text(e));
    assign_unable(a, "a value can't be opened", &why);
    return OK;
}

static RESULT give_values(struct assigned *a) {
    for (size_t i = 0; i < a->n_values; i++)
        if (a->values[i].needed && !a->values[i].told) TRY(give_value(a, &a->values[i]));
    return OK;
}

static bool has_values(const struct assigned *a, const struct known_task *t) {
    for (unsigned i = 0; i < t->n && t->wanted && !t->uses[i].past; i++) {
        const struct known_value *v = assign_value_of(a, t, &t->uses[i]);
        if (t->uses[i].batch != USE_RECORDED || !v || !v->told) return false;
    }
    return true;
}

static RESULT give_tasks(struct assigned *a) {
    for (size_t i = 0; i < a->n_tasks; i++) {
        struct known_task *t = &a->tasks[i];
        struct assign_one one = {.item = ASSIGN_TASK, .task = &a->all->task};
        bool runs = !a->complete && t->started;
        if (!t->changed || t->blocked || (!has_values(a, t) && !runs)) continue;
        if (!assign_task_build(a, t)) continue;
        TRY(put(a, &one));
        assign_task_told(a, t);
    }
    return OK;
}

/* --- an assignment ---------------------------------------------------------------------------- */

static RESULT finish(struct assigned *a) {
    struct buf *part = &a->all->part;
    if (part->size == 0 && !a->open && a->complete) return OK;
    if (part->size == 0) TRY(begin(a));
    assign_set_last(part);
    send_part(a);
    a->sequence++;
    a->complete = true;
    a->open = false;
    return OK;
}

static RESULT give(struct assigned *a) {
    TRY(remove_tasks(a));
    TRY(remove_values(a));
    TRY(give_values(a));
    TRY(give_tasks(a));
    return finish(a);
}

void assign_give(struct assigned *a) {
    if (!a->complete && !assign_recorded(a)) return;
    enum err e = give(a);
    if (a->all->part.size > 0) send_part(a);
    if (e == ERR_BUSY) {
        a->paused = true;
    } else if (e != OK) {
        struct why why;
        (void)fail_with(&why, e, "%s", err_text(e));
        assign_unable(a, "it can't be told what to run", &why);
    }
}
