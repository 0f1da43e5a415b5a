/* What nodes say of their tasks, on its way into the state. A manager that holds sessions sends it
 * as a TASKS_CALL to the leader:
 *
 *   u8 TASKS_CALL, task reports (assign_wire.h) -> kept -> one OP_ROWS of as many as fit ->
 *   applied: those calls are answered that are in it to their end
 *
 * A report changes a task only forwards, and only while it has not ended; one that changes nothing
 * is passed over, and so is one of a task that is not there. A refused command is tried again with
 * the rows as they are then. When another one leads, the callers are told so and send again. */
#include "api/service/scheduler_parts.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/service/assign_wire.h"

#define REPORTS_BATCH (ROWS_CHANGE_MAX / 2)
#define SEEN_SLOTS    2048 /* of the hash table below; a power of two, above REPORTS_BATCH */
#define NOTHING       "the node has nothing of the task any more"

/* --- taking ----------------------------------------------------------------------------------- */

static RESULT keep(struct scheduler *s, struct span request, struct reply *reply) {
    if (s->report_bytes + request.size > REPORTS_BYTES_MAX) return ERR_BUSY;
    struct sched_report *r = calloc(1, sizeof *r);
    if (!r) return ERR_NOMEM;
    r->bytes = buf_new(COMMAND_MAX);
    enum err e = buf_add(&r->bytes, request.at + 1, request.size - 1);
    if (e != OK) {
        buf_free(&r->bytes);
        free(r);
        return e;
    }
    r->reply = reply;
    *s->last = r;
    s->last = &r->next;
    s->report_bytes += request.size;
    return OK;
}

void scheduler_call(struct manager *m, struct span request, struct reply *reply) {
    enum err e = m->scheduler && sched_leads(m) ? OK : ERR_NOT_LEADER;
    if (e == OK) e = keep(m->scheduler, request, reply);
    if (e == OK)
        sched_wake(m);
    else
        reply_send(reply, e, span_str(err_text(e)));
}

static void answer_first(struct scheduler *s, enum err e) {
    struct sched_report *r = s->first;
    s->first = r->next;
    if (!s->first) s->last = &s->first;
    s->report_bytes -= r->bytes.size + 1;
    reply_send(r->reply, e, span_str(e == OK ? "" : err_text(e)));
    buf_free(&r->bytes);
    free(r);
}

void reports_drop(struct manager *m, enum err e) {
    while (m->scheduler->first)
        answer_first(m->scheduler, e);
}

/* --- one report ------------------------------------------------------------------------------- */

/* What the report makes of the task; false: nothing. */
static bool take(const struct task_report *r, int64_t now_ns, struct task_row *t) {
    enum task_state state = r->state;
    const char *error = r->error;
    if (t->state > TASK_RUNNING) return false;
    if (state == TASK_REMOVE && t->desired == TASK_RUNNING) error = NOTHING;
    if (state == TASK_REMOVE) state = t->desired == TASK_RUNNING ? TASK_FAILED : TASK_SHUTDOWN;
    bool good = state >= TASK_ACCEPTED && state <= TASK_REJECTED && state >= t->state;
    bool same = state == t->state && r->pid == t->pid && strcmp(r->message, t->message) == 0 &&
                strcmp(error, t->error) == 0;
    if (!good || same || !t->node_id[0]) return false;
    if (state != t->state) t->state_ns = now_ns;
    t->state = state;
    t->pid = r->pid;
    t->exit_code = r->exit_code;
    (void)snprintf(t->message, sizeof t->message, "%s", r->message);
    (void)snprintf(t->error, sizeof t->error, "%s", error);
    return true;
}

/* Tasks that the command has a change of: it may have one of each. */
struct seen {
    const char *ids[SEEN_SLOTS];
    char text[REPORTS_BATCH][NODE_ID_SIZE + 1];
    unsigned n; /* changes */
};

static bool see(struct seen *s, const char *id) {
    uint32_t hash = 2166136261U; /* FNV-1a; a crowded table is only slower */
    for (const char *c = id; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 16777619U;
    size_t at = hash % SEEN_SLOTS;
    while (s->ids[at]) {
        if (strcmp(s->ids[at], id) == 0) return false;
        at = (at + 1) % SEEN_SLOTS;
    }
    (void)snprintf(s->text[s->n], sizeof s->text[s->n], "%s", id);
    s->ids[at] = s->text[s->n++];
    return true;
}

/* --- a batch ---------------------------------------------------------------------------------- */

struct batch {
    struct manager *manager;
    struct buf changes;
    struct seen *seen;
    int64_t now_ns;
};

/* ERR_BUSY: the batch is full, or has a change of that task already. */
static RESULT add(struct batch *b, const struct task_report *r) {
    struct row row;
    struct task_row task;
    if (!row_get(b->manager->store, ROW_TASK, r->id, &row)) return OK;
    if (task_decode(row.body, &task) != OK || !take(r, b->now_ns, &task)) return OK;
    if (b->seen->n == REPORTS_BATCH || !see(b->seen, r->id)) return ERR_BUSY;
    enum err e = sched_change_task(&b->changes, ROW_REPLACE, r->id, row.version, &task);
    if (e != OK) b->seen->n--; /* its slot stays taken: this was the last one */
    return e == OK ? OK : ERR_BUSY;
}

/* As far as it goes; true: to its end. */
static bool add_all(struct batch *b, struct sched_report *r) {
    struct span left = span_of(r->bytes.at + r->written, r->bytes.size - r->written);
    struct cursor c = cursor_of(left);
    for (;;) {
        struct task_report report;
        bool more = false;
        struct cursor before = c;
        if (report_next(&c, &report, &more) != OK || !more) { /* what is no report ends it */
            r->batched = r->bytes.size;
            return true;
        }
        if (add(b, &report) == OK) continue;
        r->batched = r->bytes.size - before.left;
        return false;
    }
}

bool reports_flush(struct manager *m) {
    struct scheduler *s = m->scheduler;
    struct batch b = {.manager = m, .changes = buf_new(COMMAND_MAX / 2)};
    if (!s->first) return false;
    b.seen = calloc(1, sizeof *b.seen);
    if (!b.seen) return false;
    b.now_ns = m->clock.wall_ns(&m->clock);
    for (struct sched_report *r = s->first; r && add_all(&b, r); r = r->next) {
    }
    bool any = b.seen->n > 0;
    s->reported = any;
    if (any)
        sched_propose(m, &b.changes, b.seen->n);
    else
        reports_written(m, OK); /* nothing new in any of them */
    buf_free(&b.changes);
    free(b.seen);
    return any;
}

void reports_written(struct manager *m, enum err e) {
    struct scheduler *s = m->scheduler;
    for (struct sched_report *r = s->first; r; r = r->next) {
        if (e == OK && r->batched > 0) r->written = r->batched;
        r->batched = 0;
    }
    while (s->first && s->first->written == s->first->bytes.size)
        answer_first(s, OK);
}
