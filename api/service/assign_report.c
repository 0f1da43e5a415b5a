/* What nodes say of their tasks. A report of a task that is another node's is dropped; the others
 * are handed to the leader, many in one call, and again until the task's row shows them. */
#include <stdio.h>
#include <stdlib.h>

#include "api/node/roles.h"
#include "api/service/assign_parts.h"

#define REPORTS_CALL    512  /* reports in one call to the leader */
#define REPORTS_MAX     4096 /* of one node that no row shows yet; further ones wait for the node */
#define REPORT_RETRY_MS 100
#define REPORT_AGAIN_MS 2000 /* a report that no row shows yet is handed on again */

/* Does the row say so already, or something later? */
static bool is_shown(const struct task_row *row, const struct task_report *r) {
    return row->state >= (r->state == TASK_REMOVE ? TASK_COMPLETE : r->state);
}

/* The task, if it is the node's. */
static bool own_task(const struct assigned *a, const char *id, struct task_row *out) {
    struct row row;
    return row_get(a->all->manager->store, ROW_TASK, id, &row) &&
           task_decode(row.body, out) == OK && strcmp(out->node_id, a->link->id) == 0;
}

static struct known_report *report_place(struct assigned *a, const char *id) {
    for (size_t i = 0; i < a->n_reports; i++)
        if (strcmp(a->reports[i].is.id, id) == 0) return &a->reports[i];
    if (a->n_reports == REPORTS_MAX) return NULL;
    if (a->n_reports == a->room_reports) {
        size_t room = a->room_reports == 0 ? 8 : a->room_reports * 2;
        void *more = realloc(a->reports, room * sizeof *a->reports);
        if (!more) return NULL;
        a->reports = more;
        a->room_reports = room;
    }
    struct known_report *r = &a->reports[a->n_reports++];
    *r = (struct known_report){0};
    return r;
}

bool assign_report_rejected(const struct assigned *a, const char *task_id) {
    for (size_t i = 0; i < a->n_reports; i++)
        if (strcmp(a->reports[i].is.id, task_id) == 0)
            return a->reports[i].is.state == TASK_REJECTED;
    return false;
}

/* One that can't be kept comes again: the node repeats what it does not see come true. */
void assign_report_add(struct assigned *a, const struct task_report *report) {
    struct task_row task;
    if (!own_task(a, report->id, &task) || is_shown(&task, report)) return;
    struct known_report *r = report_place(a, report->id);
    if (!r || (r->is.id[0] != '\0' && r->is.state > report->state)) return;
    *r = (struct known_report){.is = *report};
    assign_wake(a->all);
}

RESULT assign_report_take(struct assigned *a, struct span body, struct why *why) {
    struct cursor in = cursor_of(body);
    struct task_report report;
    bool more = true;
    while (more) {
        if (report_next(&in, &report, &more) != OK)
            return fail_with(why, ERR_PROTOCOL, "the node's report on its tasks is not understood");
        if (more) assign_report_add(a, &report);
    }
    return OK;
}

void assign_report_prune(struct assigned *a) {
    for (size_t i = 0; i < a->n_reports;) {
        struct task_row task;
        const struct task_report *r = &a->reports[i].is;
        if (own_task(a, r->id, &task) && !is_shown(&task, r))
            i++;
        else
            a->reports[i] = a->reports[--a->n_reports];
    }
}

/* --- to the leader ---------------------------------------------------------------------------- */

static void on_called(struct call *c, enum err e, struct span answer) {
    struct assigns *all = c->ctx;
    uint64_t now = assign_now(all);
    (void)answer;
    all->calling = false;
    if (e != OK) all->call_ms = now + REPORT_RETRY_MS;
    for (struct assigned *a = all->first; a; a = a->next)
        for (size_t i = 0; i < a->n_reports; i++) {
            struct known_report *r = &a->reports[i];
            if (r->calling) r->due_ms = e == OK ? now + REPORT_AGAIN_MS : all->call_ms;
            r->calling = false;
        }
    assign_wake(all);
}

static unsigned collect(struct assigns *all, uint64_t now) {
    unsigned n = 0;
    buf_clear(&all->request);
    if (buf_u8(&all->request, TASKS_CALL) != OK) return 0;
    for (struct assigned *a = all->first; a; a = a->next)
        for (size_t i = 0; i < a->n_reports && n < REPORTS_CALL; i++) {
            struct known_report *r = &a->reports[i];
            if (now < r->due_ms || report_add(&all->request, &r->is) != OK) continue;
            r->calling = true;
            n++;
        }
    return n;
}

void assign_report_step(struct assigns *all) {
    struct manager *m = all->manager;
    uint64_t now = assign_now(all);
    if (all->calling || m->leader == 0 || now < all->call_ms || collect(all, now) == 0) return;
    all->call = (struct call){.request = buf_span(&all->request), .done = on_called, .ctx = all};
    all->calling = true;
    struct call *c = &all->call;
    enum err e = replica_call(m->replica, c);
    if (e != OK) on_called(c, e, span_of(NULL, 0));
}
