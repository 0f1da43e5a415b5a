/* See assign.h. The sessions by node, the notes of what has changed, and the step that looks at
 * those concerned. */
#include "api/service/assign_parts.h"

#include <stdio.h>
#include <stdlib.h>

#define ASSIGN_STEP 64 /* sessions looked at in one step */

uint64_t assign_now(const struct assigns *all) {
    struct manager *m = all->manager;
    return m->clock.now_ms(&m->clock);
}

void assign_wake(struct assigns *all) {
    all->manager->ops = true;
    all->manager->env.wake(all->manager);
}

void assign_dirty(struct assigned *a) { a->dirty = a->all->dirty = true; }

void assign_unable(struct assigned *a, const char *what, const struct why *why) {
    a->retry_ms = assign_now(a->all) + ASSIGN_RETRY_MS;
    if (a->failed) return;
    a->failed = true;
    log_event(a->all->manager->config.log, LOG_WARNING, "assign", "%s: %s: %s", a->link->id, what,
              why->text);
}

/* --- sessions by node ------------------------------------------------------------------------- */

unsigned assign_bucket(const char *node_id) {
    uint32_t hash = 2166136261; /* FNV-1a; ids are random */
    for (const char *c = node_id; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 16777619;
    return hash % ASSIGN_BUCKETS;
}

static struct assigned **bucket_of(struct assigns *all, const char *node_id) {
    return &all->buckets[assign_bucket(node_id)];
}

/* The node's newest session; older ones are being cut. */
struct assigned *assign_of_node(const struct assigns *all, const char *node_id) {
    struct assigned *a = *bucket_of((struct assigns *)(uintptr_t)all, node_id);
    while (a && strcmp(a->link->id, node_id) != 0)
        a = a->in_bucket;
    return a;
}

static void dirty_task(struct assigns *all, const char *node_id, const char *task_id) {
    struct assigned *a = node_id[0] ? assign_of_node(all, node_id) : NULL;
    struct known_task *t = a ? known_task(a, task_id) : NULL;
    if (t) t->stale = true;
    if (a) assign_dirty(a);
}

void assign_proven(struct node_link *h) {
    struct assigns *all = h->manager->assigns;
    if (!all || h->assigned) return;
    struct assigned *a = calloc(1, sizeof *a);
    if (!a) {
        session_cut(h->session, ERR_NOMEM, "no memory for its tasks");
        return;
    }
    struct assigned **bucket = bucket_of(all, h->id);
    *a = (struct assigned){.all = all, .link = h, .next = all->first, .in_bucket = *bucket};
    all->first = *bucket = h->assigned = a;
    assign_dirty(a);
    assign_wake(all);
}

void assign_gone(struct node_link *h) {
    struct assigned *a = h->assigned;
    if (!a) return;
    struct assigned **at = &a->all->first;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    at = bucket_of(a->all, h->id);
    while (*at != a)
        at = &(*at)->in_bucket;
    *at = a->in_bucket;
    assign_fetch_gone(a);
    assign_drive_gone(a);
    assign_clear(a);
    free(a->reports);
    free(a);
    h->assigned = NULL;
}

/* --- what a node says ------------------------------------------------------------------------- */

/* As if nothing had been told. */
static void begin_anew(struct assigned *a) {
    a->sequence += a->open; /* what was begun is not gone on with */
    a->anew = a->complete = a->open = a->begun = false;
    assign_forget(a);
    assign_dirty(a);
    assign_wake(a->all);
}

/* False: the node has come too often, and waits. */
static bool may_begin(struct assigned *a) {
    if (a->begun) return true;
    uint64_t wait_ms = assign_pace(a->all, a->link->id, PACE_BEGIN);
    a->begun = wait_ms == 0;
    if (!a->begun) a->retry_ms = assign_now(a->all) + wait_ms;
    return a->begun;
}

RESULT assign_message(struct node_link *h, uint8_t kind, struct span body, struct why *why) {
    struct assigned *a = h->assigned;
    if (!a) return OK;
    switch (kind) {
    case NODE_TASKS: return assign_report_take(a, body, why);
    case NODE_FETCH: return assign_fetch_take(a, body, why);
    case NODE_RESYNC: a->anew = true; break;
    default: return OK;
    }
    assign_dirty(a);
    assign_wake(a->all);
    return OK;
}

void assign_drained(struct node_link *h) {
    struct assigned *a = h->assigned;
    if (!a || !a->paused) return;
    a->paused = false;
    assign_dirty(a);
    assign_wake(a->all);
}

/* --- changes of rows -------------------------------------------------------------------------- */

static void note(struct assigns *all, const struct row *row) {
    assign_wake(all);
    if (all->n_noted == ASSIGN_NOTED) {
        all->anything = true;
        return;
    }
    struct noted *n = &all->noted[all->n_noted++];
    n->kind = row->kind;
    memcpy(n->id, row->id, sizeof n->id);
}

static void note_task(struct assigns *all, const struct row *row) {
    struct task_row t;
    if (!row || task_decode(row->body, &t) != OK) return;
    dirty_task(all, t.node_id, row->id);
    assign_wake(all);
}

/* The newest version; labels alone concern nobody. */
static uint32_t newest(struct assigns *all, const struct row *row) {
    if (!row || held_decode(row->body, &all->held) != OK || all->held.n == 0) return 0;
    return all->held.versions[all->held.n - 1].number;
}

/* A removed node's session is cut by sessions.c; where tasks may be is the scheduler's to say. So
 * nothing follows from nodes here. */
void assign_row(struct manager *m, const struct row *before, const struct row *after) {
    struct assigns *all = m->assigns;
    const struct row *any = after ? after : before;
    if (!all || !all->first) return;
    if (!any) {
        for (struct assigned *a = all->first; a; a = a->next)
            begin_anew(a);
    } else if (any->kind == ROW_TASK) {
        note_task(all, before);
        note_task(all, after);
    } else if (any->kind == ROW_SERVICE) {
        note(all, any);
    } else if (any->kind == ROW_SECRET || any->kind == ROW_CONFIG) {
        if (newest(all, before) != newest(all, after)) note(all, any);
    }
}

static bool on_task(void *ctx, const struct row *row) {
    struct task_row t;
    if (task_decode(row->body, &t) == OK) dirty_task(ctx, t.node_id, row->id);
    return true;
}

static bool on_service(void *ctx, const struct row *row) {
    struct assigns *all = ctx;
    task_each_of_service(all->manager->store, row->id, on_task, all);
    return true;
}

static void everything_is_stale(struct assigns *all) {
    for (struct assigned *a = all->first; a; a = a->next) {
        for (size_t i = 0; i < a->n_tasks; i++)
            a->tasks[i].stale = true;
        assign_dirty(a);
    }
}

static void resolve_notes(struct assigns *all) {
    const struct store *s = all->manager->store;
    for (unsigned i = 0; i < all->n_noted && !all->anything; i++) {
        const struct noted *n = &all->noted[i];
        if (n->kind == ROW_SERVICE)
            task_each_of_service(s, n->id, on_task, all);
        else
            service_each_of_held(s, n->id, on_service, all);
    }
    if (all->anything) everything_is_stale(all);
    all->n_noted = 0;
    all->anything = false;
}

/* --- the step --------------------------------------------------------------------------------- */

static void work(struct assigned *a) {
    a->dirty = false;
    if (!a->link->session || a->link->cut || !a->link->proven) return;
    if (a->anew) begin_anew(a);
    if (!may_begin(a)) return;
    if (assign_look(a) != OK) { /* half of it would end the node's other tasks */
        a->retry_ms = assign_now(a->all) + ASSIGN_RETRY_MS;
        return;
    }
    assign_record(a);
    if (!a->paused) assign_give(a);
    assign_report_prune(a);
}

static void work_all(struct assigns *all) {
    unsigned n = 0;
    if (!all->dirty) return;
    all->dirty = false;
    for (struct assigned *a = all->first; a; a = a->next) {
        if (!a->dirty) continue;
        if (n++ < ASSIGN_STEP)
            work(a);
        else
            all->dirty = true;
    }
    if (all->dirty) assign_wake(all);
}

void assign_step(struct manager *m) {
    struct assigns *all = m->assigns;
    if (!all) return;
    resolve_notes(all);
    work_all(all);
    assign_close_opened(all);
    assign_audit_step(all);
    assign_report_step(all);
    assign_fetch_step(all);
}

void assign_beat(struct manager *m) {
    struct assigns *all = m->assigns;
    if (!all || !all->first) return;
    uint64_t now = assign_now(all);
    for (struct assigned *a = all->first; a; a = a->next) {
        if (a->retry_ms == 0 || now < a->retry_ms) continue;
        a->retry_ms = 0;
        assign_dirty(a);
    }
    assign_wake(all);
}

/* --- life ------------------------------------------------------------------------------------- */

/* All values pass through here: guarded, locked, left out of core dumps. */
static bool part_open(struct buf *part) {
    uint8_t *at = sodium_malloc(SESSION_BODY_MAX);
    *part = (struct buf){.at = at, .room = SESSION_BODY_MAX, .max = SESSION_BODY_MAX};
    return at != NULL;
}

RESULT assign_open(struct manager *m) {
    struct assigns *all = calloc(1, sizeof *all);
    if (!all) return ERR_NOMEM;
    if (!part_open(&all->part)) {
        free(all);
        return ERR_NOMEM;
    }
    all->manager = m;
    all->item = buf_new(SESSION_BODY_MAX);
    all->records = buf_new(COMMAND_MAX / 2);
    all->request = buf_new(COMMAND_MAX);
    all->batch = 1;
    m->assigns = all;
    return OK;
}

void assign_close(struct manager *m) {
    struct assigns *all = m->assigns;
    if (!all) return;
    while (all->first)
        assign_gone(all->first->link);
    assign_fetch_close(all);
    assign_drive_close(all);
    sodium_free(all->part.at);
    buf_free(&all->item);
    buf_free(&all->records);
    buf_free(&all->request);
    free(all);
    m->assigns = NULL;
}
