/* See scheduler.h.
 *
 *   rows change -> services marked dirty -> (in the check phase) each is looked at: its tasks are
 *   read, sched_decide says what is to be written -> one OP_ROWS for as many as fit -> applied: the
 *   rows have changed, so they are looked at once more, and nothing is left to do
 *
 * Nodes are kept in a table with the number of tasks that are wanted on each, so that a change
 * costs the tasks of its service. What a leader keeps follows from rows: a new one builds the
 * tables, after a read that makes sure that its state is current, and looks at all services once.
 *
 * A refused command: ERR_CONFLICT, the rows were others: looked at again. An unknown outcome: a
 * read makes sure before the next look. Anything else: one service a command, until the one whose
 * changes are refused is found; that one waits for a while. */
#include "api/service/scheduler_parts.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/node/roles.h"
#include "store/spec.h"

#define LOOKS_MAX   256 /* services of one command */
#define STUCK_BEATS 20  /* between two tries of what was refused */

bool sched_leads(const struct manager *m) {
    return m->state == MANAGER_RUNNING && m->leader == m->self.raft_id &&
           m->self.state == IDENTITY_MEMBER;
}

void sched_wake(struct manager *m) {
    m->ops = true;
    m->env.wake(m);
}

/* --- the table of services -------------------------------------------------------------------- */

static size_t place_of(const struct scheduler *s, const char *id) {
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(s->at[middle].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool grow(struct scheduler *s) {
    if (s->n < s->room) return true;
    size_t room = s->room == 0 ? 64 : s->room * 2;
    struct sched_service *more = realloc(s->at, room * sizeof *more);
    if (!more) return false;
    s->at = more;
    s->room = room;
    return true;
}

/* Its entry, made if need be; NULL: no memory, then all is built anew. */
static struct sched_service *entry_of(struct scheduler *s, const char *id) {
    size_t at = place_of(s, id);
    if (at < s->n && strcmp(s->at[at].id, id) == 0) return &s->at[at];
    if (!grow(s)) {
        s->known = false;
        return NULL;
    }
    memmove(&s->at[at + 1], &s->at[at], (s->n - at) * sizeof s->at[0]);
    s->n++;
    s->at[at] = (struct sched_service){0};
    (void)snprintf(s->at[at].id, sizeof s->at[at].id, "%s", id);
    return &s->at[at];
}

static void set_dirty(struct scheduler *s, struct sched_service *e) {
    if (!e->dirty) s->dirty++;
    e->dirty = true;
}

static void mark(struct scheduler *s, const char *id) {
    struct sched_service *e = entry_of(s, id);
    if (e) set_dirty(s, e);
}

static void drop_entry(struct scheduler *s, struct sched_service *e) {
    size_t at = (size_t)(e - s->at);
    if (e->dirty) s->dirty--;
    memmove(e, e + 1, (s->n - at - 1) * sizeof *e);
    s->n--;
}

/* --- following rows --------------------------------------------------------------------------- */

/* The task as it was or is, in the counts. */
static bool take_task(struct scheduler *s, const struct row *row, bool there) {
    struct task_row t;
    if (task_decode(row->body, &t) != OK) return true;
    mark(s, t.service_id);
    if (t.desired != TASK_RUNNING || t.state > TASK_RUNNING || !t.node_id[0]) return true;
    struct place *p = places_any(&s->places, t.node_id);
    if (p && there) p->tasks++;
    if (p && !there && p->tasks > 0) p->tasks--;
    return true;
}

static void take_node(struct scheduler *s, const char *id, const struct row *after) {
    struct node_row node;
    struct place *gone = after ? NULL : places_any(&s->places, id);
    if (gone) gone->gone = gone->changed = true;
    if (after && node_row_decode(after->body, &node) == OK &&
        places_put(&s->places, id, &node) != OK)
        s->known = false;
    s->nodes_changed = true;
}

void scheduler_row(struct manager *m, const struct row *before, const struct row *after) {
    struct scheduler *s = m->scheduler;
    const struct row *any = after ? after : before;
    if (!s || !s->known) return;
    if (!any) {
        s->known = false;
    } else if (any->kind == ROW_SERVICE) {
        mark(s, any->id);
    } else if (any->kind == ROW_TASK) {
        if (before) (void)take_task(s, before, false);
        if (after) (void)take_task(s, after, true);
    } else if (any->kind == ROW_NODE) {
        take_node(s, any->id, after);
    } else {
        return;
    }
    sched_wake(m);
}

/* --- building --------------------------------------------------------------------------------- */

static void forget_all(struct scheduler *s) {
    places_free(&s->places);
    free(s->at);
    s->at = NULL;
    s->n = s->room = s->dirty = s->next = 0;
    s->known = s->nodes_changed = false;
    s->alone = 0;
}

static bool build_node(void *ctx, const struct row *row) {
    take_node(ctx, row->id, row);
    return true;
}

static bool build_service(void *ctx, const struct row *row) {
    mark(ctx, row->id);
    return true;
}

static bool build_task(void *ctx, const struct row *row) { return take_task(ctx, row, true); }

static void build(struct manager *m) {
    struct scheduler *s = m->scheduler;
    forget_all(s);
    s->known = true; /* taken back when memory runs out */
    row_all(m->store, ROW_NODE, build_node, s);
    row_all(m->store, ROW_SERVICE, build_service, s);
    row_all(m->store, ROW_TASK, build_task, s);
    for (size_t i = 0; i < s->places.n; i++)
        s->places.at[i].changed = false; /* all services are dirty */
    s->nodes_changed = false;
}

static void on_read(struct read *rd, enum err e) {
    struct manager *m = rd->ctx;
    struct scheduler *s = m->scheduler;
    s->reading = false;
    s->current |= e == OK && s->read_term == m->term;
    if (e == OK) sched_wake(m); /* else with the next beat again */
}

static void make_current(struct manager *m) {
    struct scheduler *s = m->scheduler;
    if (s->reading) return;
    s->read = (struct read){.done = on_read, .ctx = m};
    s->read_term = m->term;
    s->reading = replica_read(m->replica, &s->read) == OK;
}

/* --- changes of nodes ------------------------------------------------------------------------- */

static bool mark_task(void *ctx, const struct row *row) {
    struct task_row t;
    if (task_decode(row->body, &t) == OK) mark(ctx, t.service_id);
    return true;
}

/* What runs there, what is on every node, and what waits for one. */
static void follow_nodes(struct manager *m) {
    struct scheduler *s = m->scheduler;
    bool any = false;
    if (!s->nodes_changed) return;
    s->nodes_changed = false;
    for (size_t i = 0; i < s->places.n; i++) {
        struct place *p = &s->places.at[i];
        if (!p->changed) continue;
        p->changed = false;
        any = true;
        task_each_of_node(m->store, p->id, mark_task, s);
    }
    for (size_t i = 0; any && i < s->n; i++)
        if (s->at[i].global || s->at[i].waiting) set_dirty(s, &s->at[i]);
    places_sweep(&s->places);
}

/* --- proposing -------------------------------------------------------------------------------- */

RESULT sched_change_task(struct buf *changes, enum row_action action, const char *id,
                         uint64_t version, const struct task_row *task) {
    struct buf body = buf_new(ROW_BODY_MAX);
    struct row_change c = {.action = action, .kind = ROW_TASK, .version = version};
    enum err e = OK;
    (void)snprintf(c.id, sizeof c.id, "%s", id);
    if (action != ROW_REMOVE) e = task_encode(task, &body);
    c.body = buf_span(&body);
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

/* Those of the batch are looked at again; a single one that was refused waits. */
static void redo(struct scheduler *s, bool refused) {
    for (size_t i = 0; i < s->n; i++) {
        struct sched_service *e = &s->at[i];
        if (!e->batched) continue;
        if (refused && s->alone > 0)
            e->stuck = true;
        else
            set_dirty(s, e);
    }
    s->alone = refused && s->alone == 0 ? LOOKS_MAX : 0;
}

/* Not for a reason that is gone with the next look. */
static bool is_refused(enum err e) {
    switch ((int)e) {
    case OK:
    case ERR_CONFLICT:
    case ERR_NOT_FOUND:
    case ERR_CLOSED:
    case ERR_NOT_LEADER:
    case ERR_NO_LEADER:
    case ERR_BUSY:
    case ERR_MAYBE_APPLIED:
    case ERR_TIMEOUT: return false;
    default: return true;
    }
}

static void settle(struct manager *m, enum err e, const char *text) {
    struct scheduler *s = m->scheduler;
    bool unknown = e == ERR_MAYBE_APPLIED || e == ERR_TIMEOUT;
    bool refused = is_refused(e);
    if (unknown) s->current = false;
    if (refused && (s->alone > 0 || s->reported))
        log_event(m->config.log, LOG_WARNING, "services", "a change of tasks: %s",
                  text[0] ? text : err_text(e));
    if (s->reported)
        reports_written(m, e);
    else if (e != OK)
        redo(s, refused);
    for (size_t i = 0; i < s->n; i++)
        s->at[i].batched = false;
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct manager *m = w->ctx;
    m->scheduler->writing = false;
    if (e == OK) e = r->error;
    settle(m, e, text);
    sched_wake(m);
}

void sched_propose(struct manager *m, const struct buf *changes, unsigned n) {
    struct scheduler *s = m->scheduler;
    s->write = (struct write){.done = on_written, .ctx = m, .proposal = {.here = true}};
    enum err e = rows_command(m, changes, n, &s->write);
    if (e == OK) e = manager_write(m, &s->write);
    s->writing = e == OK;
    if (e != OK) settle(m, e, ""); /* the next beat goes on */
}

/* --- looking ---------------------------------------------------------------------------------- */

/* One look at one service. */
struct look {
    struct manager *manager;
    struct sched_service *entry;
    struct service_row *service; /* large: of the batch */
    struct sched_tasks tasks;
    struct row row;
    bool there; /* the service is */
    enum err error;
};

struct batch {
    struct buf changes;
    unsigned n;
    int64_t history;
    int64_t now_ns;
};

static bool read_task(void *ctx, const struct row *row) {
    struct look *l = ctx;
    struct sched_task t = {.version = row->version, .created_version = row->created_version};
    (void)snprintf(t.id, sizeof t.id, "%s", row->id);
    if (task_decode(row->body, &t.row) != OK) return true;
    l->error = sched_tasks_add(&l->tasks, &t);
    return l->error == OK;
}

/* Those that are made come first: what they replace ends no sooner than they are there. */
static RESULT add_actions(struct batch *b, const struct sched_tasks *tasks, bool made) {
    for (size_t i = 0; i < tasks->n; i++) {
        const struct sched_task *t = &tasks->at[i];
        if (t->action == SCHED_KEEP || (t->action == SCHED_CREATE) != made) continue;
        if (t->action == SCHED_DROP && t->version == 0) continue;
        if (b->n == ROWS_CHANGE_MAX) return ERR_TOO_LARGE;
        enum row_action action = t->action == SCHED_CREATE  ? ROW_CREATE
                                 : t->action == SCHED_WRITE ? ROW_REPLACE
                                                            : ROW_REMOVE;
        TRY(sched_change_task(&b->changes, action, t->id, t->version, &t->row));
        b->n++;
    }
    return OK;
}

/* Whatever is decided rests on the service as it was seen. */
static RESULT add_check(struct batch *b, const struct look *l) {
    struct row_change c = {.action = ROW_CHECK, .kind = ROW_SERVICE, .version = l->row.version};
    if (!l->there) return OK;
    if (b->n == ROWS_CHANGE_MAX) return ERR_TOO_LARGE;
    (void)snprintf(c.id, sizeof c.id, "%s", l->row.id);
    TRY(row_change_add(&b->changes, &c));
    b->n++;
    return OK;
}

static bool has_actions(const struct sched_tasks *tasks) {
    for (size_t i = 0; i < tasks->n; i++)
        if (tasks->at[i].action != SCHED_KEEP) return true;
    return false;
}

/* False: the batch is full; what did not fit has its turn later. */
static bool add_look(struct batch *b, struct look *l) {
    if (!has_actions(&l->tasks)) return true;
    l->entry->batched = true;
    enum err e = add_check(b, l);
    if (e == OK) e = add_actions(b, &l->tasks, true);
    if (e == OK) e = add_actions(b, &l->tasks, false);
    return e == OK;
}

static RESULT decide(struct look *l, const struct batch *b) {
    struct manager *m = l->manager;
    struct sched_service *e = l->entry;
    l->there = row_get(m->store, ROW_SERVICE, e->id, &l->row) &&
               service_decode(l->row.body, l->service) == OK;
    task_each_of_service(m->store, e->id, read_task, l);
    TRY(l->error);
    struct sched_world w = {.service_id = e->id,
                            .service = l->there ? l->service : NULL,
                            .places = &m->scheduler->places,
                            .now_ns = b->now_ns,
                            .history = b->history};
    e->global = l->there && l->service->mode == SERVICE_GLOBAL;
    return sched_decide(&w, &l->tasks, &e->waiting);
}

/* True: there is room for the next one. */
static bool look_at(struct manager *m, struct sched_service *e, struct service_row *memory,
                    struct batch *b) {
    struct scheduler *s = m->scheduler;
    struct look l = {.manager = m, .entry = e, .service = memory};
    e->dirty = e->stuck = false;
    s->dirty--;
    enum err error = decide(&l, b);
    bool room = error == OK && add_look(b, &l);
    if (!room) set_dirty(s, e);
    if (room && !l.there && l.tasks.n == 0) drop_entry(s, e);
    sched_tasks_free(&l.tasks);
    return room;
}

static void look_at_all(struct manager *m, struct service_row *memory, struct batch *b) {
    struct scheduler *s = m->scheduler;
    unsigned looks = 0, most = s->alone > 0 ? 1 : LOOKS_MAX;
    if (s->alone > 0) s->alone--;
    for (size_t i = 0; i < s->places.n; i++)
        s->places.at[i].planned = 0;
    for (size_t turns = s->n; turns > 0 && s->dirty > 0 && s->n > 0 && looks < most; turns--) {
        if (s->next >= s->n) s->next = 0;
        struct sched_service *e = &s->at[s->next];
        size_t before = s->n;
        if (e->dirty) {
            looks++;
            if (!look_at(m, e, memory, b)) return;
        }
        if (s->n == before) s->next++;
    }
}

/* False: nothing is to be written. */
static bool decide_all(struct manager *m) {
    struct scheduler *s = m->scheduler;
    struct batch b = {.changes = buf_new(COMMAND_MAX / 2), .now_ns = m->clock.wall_ns(&m->clock)};
    struct row row;
    struct spec spec;
    struct service_row *memory = malloc(sizeof *memory);
    if (!memory) return false;
    spec_get(m->store, &row, &spec);
    b.history = spec_task_history(&spec);
    look_at_all(m, memory, &b);
    free(memory);
    s->reported = false;
    if (b.n > 0) sched_propose(m, &b.changes, b.n);
    buf_free(&b.changes);
    if (b.n == 0 && s->dirty > 0) sched_wake(m);
    return b.n > 0;
}

/* Reports and decisions take turns when there are both. */
void scheduler_step(struct manager *m) {
    struct scheduler *s = m->scheduler;
    if (!s || !sched_leads(m) || s->writing) return;
    if (!s->current) {
        make_current(m);
        return;
    }
    if (!s->known) build(m);
    if (!s->known) return;
    follow_nodes(m);
    if (s->reported && s->dirty > 0 && decide_all(m)) return;
    if (reports_flush(m)) return;
    if (s->dirty > 0) (void)decide_all(m);
}

/* --- life ------------------------------------------------------------------------------------- */

void scheduler_beat(struct manager *m) {
    struct scheduler *s = m->scheduler;
    if (!s || !sched_leads(m)) return;
    bool again = ++s->beats % STUCK_BEATS == 0;
    for (size_t i = 0; again && i < s->n; i++)
        if (s->at[i].stuck) set_dirty(s, &s->at[i]);
    if (!s->known || !s->current || s->dirty > 0 || s->first) sched_wake(m);
}

void scheduler_led(struct manager *m) {
    struct scheduler *s = m->scheduler;
    if (!s) return;
    forget_all(s);
    s->current = false;
    if (!sched_leads(m)) reports_drop(m, ERR_NOT_LEADER);
    if (sched_leads(m)) sched_wake(m);
}

bool scheduler_idle(const struct manager *m) {
    const struct scheduler *s = m->scheduler;
    return s && sched_leads(m) && s->current && s->known && !s->writing && s->dirty == 0 &&
           !s->nodes_changed && !s->first;
}

RESULT scheduler_open(struct manager *m) {
    m->scheduler = calloc(1, sizeof *m->scheduler);
    if (!m->scheduler) return ERR_NOMEM;
    m->scheduler->last = &m->scheduler->first;
    return OK;
}

void scheduler_close(struct manager *m) {
    if (!m->scheduler) return;
    reports_drop(m, ERR_CLOSED);
    forget_all(m->scheduler);
    free(m->scheduler);
    m->scheduler = NULL;
}
