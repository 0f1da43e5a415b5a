/* Deliveries are written down before they are made: the uses that no record tells of yet go into
 * the next batch, one command for all sessions; when it is applied they are recorded, and the
 * sessions go on. One command is under way at a time. What can't be recorded is not given. */
#include <stdio.h>

#include "api/node/roles.h"
#include "api/service/assign_parts.h"
#include "store/audit.h"

#define AUDIT_BATCH    512 /* records in one command; <= ROWS_CHANGE_MAX */
#define AUDIT_RETRY_MS 100

static RESULT add_record(struct assigned *a, const struct known_task *t, const struct use *u) {
    struct assigns *all = a->all;
    const struct store *s = all->manager->store;
    struct row held, task;
    struct task_row of;
    char who[8 + NODE_ID_SIZE];
    struct audit_record r = {.what = AUDIT_DELIVER, .kind = u->kind, .version = u->version};
    if (!row_get(s, u->kind, u->id, &held) || !row_get(s, ROW_TASK, t->id, &task) ||
        task_decode(task.body, &of) != OK)
        return ERR_NOT_FOUND;
    struct row service = {0};
    (void)row_get(s, ROW_SERVICE, of.service_id, &service);
    (void)snprintf(who, sizeof who, "node %s", a->link->id);
    memcpy(r.id, u->id, sizeof r.id);
    memcpy(r.task_id, t->id, sizeof r.task_id);
    memcpy(r.node_id, a->link->id, sizeof r.node_id);
    r.name = held.name;
    r.who = span_str(who);
    r.from = span_str(session_caller(a->link->session)->remote);
    r.detail = service.name;
    return audit_add(&all->records, &r);
}

static void record_task(struct assigned *a, struct known_task *t) {
    struct assigns *all = a->all;
    for (unsigned i = 0; i < t->n; i++) {
        struct use *u = &t->uses[i];
        if (u->batch != 0) continue;
        enum err e = all->n_records < AUDIT_BATCH ? add_record(a, t, u) : ERR_TOO_LARGE;
        if (e == ERR_TOO_LARGE) {
            a->crowded = true;
            return;
        }
        if (e != OK) a->retry_ms = assign_now(all) + ASSIGN_RETRY_MS;
        if (e != OK) continue;
        all->n_records++;
        u->batch = a->batch = all->batch;
    }
}

void assign_record(struct assigned *a) {
    for (size_t i = 0; i < a->n_tasks && !a->crowded; i++)
        if (a->tasks[i].there && a->tasks[i].wanted && !a->tasks[i].blocked)
            record_task(a, &a->tasks[i]);
}

bool assign_recorded(const struct assigned *a) {
    for (size_t i = 0; i < a->n_tasks; i++) {
        const struct known_task *t = &a->tasks[i];
        for (unsigned k = 0; k < t->n && t->there && t->wanted && !t->blocked; k++)
            if (t->uses[k].batch != USE_RECORDED) return false;
    }
    return true;
}

/* The uses of a batch are recorded, or are to be recorded again. */
static void settle(struct assigned *a, uint64_t batch, bool recorded) {
    for (size_t i = 0; i < a->n_tasks; i++)
        for (unsigned k = 0; k < a->tasks[i].n; k++)
            if (a->tasks[i].uses[k].batch == batch)
                a->tasks[i].uses[k].batch = recorded ? USE_RECORDED : 0;
}

static void settle_all(struct assigns *all, uint64_t batch, bool recorded) {
    for (struct assigned *a = all->first; a; a = a->next) {
        bool concerned = a->batch >= batch || a->crowded;
        if (a->batch >= batch) settle(a, batch, recorded);
        a->crowded = false;
        if (concerned) assign_dirty(a);
    }
    assign_wake(all);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct assigns *all = w->ctx;
    all->writing = false;
    if (e == OK) e = r->error;
    if (e != OK) {
        all->write_ms = assign_now(all) + AUDIT_RETRY_MS;
        if (e != ERR_CLOSED)
            log_event(all->manager->config.log, LOG_WARNING, "assign",
                      "deliveries can't be recorded: %s", text[0] ? text : err_text(e));
    }
    settle_all(all, all->writing_batch, e == OK);
}

/* An attempt that fails at once leaves the records: they go with the next one. */
void assign_audit_step(struct assigns *all) {
    struct manager *m = all->manager;
    if (all->writing || all->n_records == 0 || m->leader == 0 || assign_now(all) < all->write_ms)
        return;
    all->write = (struct write){.done = on_written, .ctx = all};
    enum err e = rows_command(m, &all->records, all->n_records, &all->write);
    if (e == OK) e = manager_write(m, &all->write);
    if (e != OK) {
        all->write_ms = assign_now(all) + AUDIT_RETRY_MS;
        return;
    }
    all->writing = true;
    all->writing_batch = all->batch++;
    all->n_records = 0;
    buf_clear(&all->records);
}
