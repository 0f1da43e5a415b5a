/* See runner.h. Messages of the session and of supervisors only change what is kept here;
 * runner_step, in the check phase, starts, stops and updates what differs, and says what is new. */
#include "api/task/runner_parts.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "api/task/template.h"

#define END_MS 15000 /* that tasks have when the node leaves; then it leaves anyway */

static void wake(struct runner *r) {
    r->due = true;
    r->manager->env.wake(r->manager);
}

void runner_node(const struct manager *m, struct template_node *out) {
    static struct utsname name; /* of this machine: it does not change */
    if (!name.machine[0]) (void)uname(&name);
    *out = (struct template_node){
        .id = m->self.node_id, .hostname = m->self.name, .os = "linux", .arch = name.machine};
}

/* --- assignments ------------------------------------------------------------------------------ */

static void resync(struct runner *r) {
    r->synced = r->staging = false;
    if (r->manager->agent.open) uplink_say(r->manager->agent.uplink, NODE_RESYNC, span_of(NULL, 0));
}

static void unstage(struct run_task *j) {
    free(j->staged);
    j->staged = NULL;
}

/* There is nothing of it here, not even a report that is kept: the next COMPLETE has it again. */
static void turn_away(struct runner *r, const char *id) {
    static const char text[] = "no room for another task on this node";
    struct task_report report = {.state = TASK_REJECTED, .message = "it can't be run"};
    memcpy(report.id, id, sizeof report.id);
    (void)snprintf(report.error, sizeof report.error, "%s", text);
    if (report_add(&r->turned_away, &report) == OK) r->due = true;
    log_event(r->manager->config.log, LOG_ERROR, "tasks", "%s: %s", id, text);
}

/* ERR_NOMEM: what it is to do now is not known here; it is said again in another session. */
static RESULT take_task(struct runner *r, const struct assign_task *t, struct why *why) {
    struct run_task *j = job_find(r, t->id);
    bool known = j != NULL;
    if (!known) j = job_new(r, t->id);
    if (j && job_stage(j, t) == OK) {
        j->mentioned = true;
        return OK;
    }
    if (j) unstage(j);
    if (known) return fail_with(why, ERR_NOMEM, "no memory for what a task is to do");
    if (j) job_free(r, j);
    turn_away(r, t->id);
    return OK;
}

/* Tasks that want it are told why it has not come. */
static void take_value(struct runner *r, const struct assign_value *value) {
    enum err e = values_put(&r->values, value);
    if (e == OK) return;
    r->values.refused = true;
    log_event(r->manager->config.log, LOG_ERROR, "tasks",
              "no room for another secret on this node: %s", err_text(e));
}

static void remove_task(struct runner *r, const char *id) {
    struct run_task *j = job_find(r, id);
    if (!j) return;
    j->assigned = j->mentioned = false;
    unstage(j);
    values_remove_task(&r->values, id);
}

static RESULT take_item(struct runner *r, const struct assign_one *one, struct why *why) {
    switch (one->item) {
    case ASSIGN_TASK: return take_task(r, one->task, why);
    case ASSIGN_VALUE: take_value(r, &one->value); return OK;
    case ASSIGN_REMOVE_TASK: remove_task(r, one->id); return OK;
    case ASSIGN_REMOVE_VALUE:
        values_remove(&r->values, one->kind, one->id, one->version);
        return OK;
    }
    return ERR_PROTOCOL;
}

static RESULT take_items(struct runner *r, struct cursor *in, struct why *why) {
    struct assign_task *task = malloc(sizeof *task); /* large */
    struct assign_one one;
    bool more = true;
    enum err e = task ? OK : ERR_NOMEM;
    while (e == OK) {
        e = assign_next(in, task, &one, &more);
        if (e != OK || !more) break;
        e = take_item(r, &one, why);
    }
    free(task);
    return e;
}

/* A first part. COMPLETE takes the place of all that we knew. */
static RESULT begin(struct runner *r, const struct assign_head *head, bool *stale) {
    *stale = head->type == ASSIGN_INCREMENTAL && (!r->synced || head->applies_to != r->at);
    if (*stale) return OK;
    r->head = *head;
    r->staging = true;
    if (head->type == ASSIGN_INCREMENTAL) return OK;
    values_clear(&r->values);
    buf_clear(&r->turned_away);
    for (struct run_task *j = r->first; j; j = j->next)
        j->mentioned = false;
    return OK;
}

/* The last part has come: it takes effect as a whole. */
static void finish(struct runner *r) {
    bool complete = r->head.type == ASSIGN_COMPLETE;
    for (struct run_task *j = r->first; j; j = j->next) {
        if (complete && !j->mentioned) unstage(j); /* an assignment before that was cut off */
        if (complete && !j->mentioned) j->assigned = false;
        /* What was said before the manager had proven the session, nobody has heard. */
        if (complete) j->unsaid = j->report.state != 0;
        job_take(j);
    }
    r->staging = false;
    r->synced = true;
    r->complete |= complete;
    r->at = r->head.results_in;
    wake(r);
}

static RESULT take_assignment(struct runner *r, struct span body, struct why *why) {
    struct cursor in = cursor_of(body);
    struct assign_head head;
    bool stale = false;
    TRY(assign_head(&in, &head));
    bool same = r->staging && head.type == r->head.type && head.results_in == r->head.results_in;
    if (!same) TRY(begin(r, &head, &stale));
    if (stale) {
        resync(r);
        return OK;
    }
    r->head.last = head.last;
    enum err e = take_items(r, &in, why);
    manager_wipe_stack(r->manager);
    TRY(e);
    if (head.last) finish(r);
    return OK;
}

RESULT runner_message(struct manager *m, uint8_t kind, struct span body, struct why *why) {
    struct why own = {0};
    if (!m->runner) return OK;
    enum err e = kind == NODE_ASSIGN ? take_assignment(m->runner, body, &own)
                                     : feeds_answer(m->runner, body, &own);
    if (e == OK) return OK;
    m->runner->synced = m->runner->staging = false;
    return fail_with(why, e, "%s",
                     own.text[0] ? own.text : "what the node is to run is not understood");
}

/* --- the session ------------------------------------------------------------------------------ */

void runner_session(struct manager *m) {
    struct runner *r = m->runner;
    if (!r) return;
    r->synced = r->staging = false;
    for (struct run_task *j = r->first; j; j = j->next)
        j->unsaid = j->report.state != 0;
    wake(r);
}

/* Of a cluster that we are not in nothing is assigned to us. */
static void unassign(struct runner *r) {
    for (struct run_task *j = r->first; j; j = j->next) {
        j->assigned = false;
        unstage(j);
    }
    r->complete = true;
    values_clear(&r->values);
    wake(r);
}

void runner_lost(struct manager *m, bool removed) {
    struct runner *r = m->runner;
    r->synced = r->staging = false;
    feeds_lost(r, "the session with the manager has ended");
    if (!removed) return;
    if (r->n > 0)
        log_event(m->config.log, LOG_WARNING, "tasks",
                  "this node was removed from its cluster: its tasks are ended");
    unassign(r);
}

/* As many in one message as go in. */
static void say_reports(struct runner *r) {
    struct buf body = buf_new(SESSION_BODY_MAX);
    const struct manager *m = r->manager;
    for (struct run_task *j = r->first; j && m->agent.open; j = j->next) {
        if (!j->unsaid) continue;
        if (report_add(&body, &j->report) == OK) {
            j->unsaid = false;
            continue;
        }
        if (body.size == 0) break; /* no memory: another time */
        uplink_say(m->agent.uplink, NODE_TASKS, buf_span(&body));
        buf_clear(&body);
        j->unsaid = report_add(&body, &j->report) != OK;
    }
    if (body.size > 0) uplink_say(m->agent.uplink, NODE_TASKS, buf_span(&body));
    buf_free(&body);
    if (!m->agent.open || r->turned_away.size == 0) return;
    uplink_say(m->agent.uplink, NODE_TASKS, buf_span(&r->turned_away));
    buf_clear(&r->turned_away);
}

/* --- steps ------------------------------------------------------------------------------------ */

/* All of them have ended, or are given up. */
static void end_if_all_ended(struct runner *r) {
    uint64_t now = r->manager->clock.now_ms(&r->manager->clock);
    if (r->first && now < r->end_ms) return;
    void (*ended)(struct manager * m) = r->ended;
    r->ended = NULL;
    ended(r->manager);
}

/* What is over and was removed by the manager is known there. */
static void forget(struct runner *r, struct run_task *j) {
    if (j->link) link_say(j->link, SUP_BYE, span_of(NULL, 0));
    job_free(r, j);
}

void runner_step(struct manager *m) {
    struct runner *r = m->runner;
    if (!r->due) return;
    r->due = false;
    for (struct run_task *j = r->first, *next; j; j = next) {
        next = j->next;
        job_step(r, j);
        bool known = j->state == JOB_OVER && !j->assigned && r->complete && !j->staged;
        if (known && !j->gone) forget(r, j);
    }
    say_reports(r);
    if (r->ended) end_if_all_ended(r);
}

void runner_beat(struct manager *m) {
    feeds_beat(m->runner);
    for (struct run_task *j = m->runner->first; j; j = j->next)
        j->tried = false;
    wake(m->runner);
}

void runner_end(struct manager *m, void (*ended)(struct manager *m)) {
    struct runner *r = m->runner;
    if (!r) {
        ended(m);
        return;
    }
    r->ended = ended;
    r->end_ms = m->clock.now_ms(&m->clock) + END_MS;
    runner_sweep(r);
    unassign(r);
}

/* --- life ------------------------------------------------------------------------------------- */

static DIR *open_tasks(const struct runner *r) {
    char path[SUP_PATH_MAX + 16];
    (void)snprintf(path, sizeof path, "%s/" SUP_TASKS, r->data);
    (void)mkdir(path, 0700);
    return opendir(path);
}

static bool is_command(const char *name) {
    return strncmp(name, SUP_RUN_PREFIX, sizeof SUP_RUN_PREFIX - 1) == 0;
}

void runner_sweep(struct runner *r) {
    DIR *dir = open_tasks(r);
    for (const struct dirent *d; dir && (d = readdir(dir));) {
        int fd;
        if (!is_command(d->d_name)) continue;
        enum err e = supervisor_dial(r->data, d->d_name, &fd, NULL);
        if (e == OK) (void)close(fd);
        if (e == ERR_CLOSED) supervisor_forget(r->data, d->d_name);
    }
    if (dir) (void)closedir(dir);
}

static void adopt_all(struct runner *r) {
    DIR *dir = open_tasks(r);
    for (const struct dirent *d; dir && (d = readdir(dir));) {
        if (strlen(d->d_name) != NODE_ID_SIZE || d->d_name[0] == '.') continue;
        enum err e = job_adopt(r, d->d_name);
        if (e != OK)
            log_event(r->manager->config.log, LOG_ERROR, "tasks",
                      "a task that runs here can't be taken over: %s", err_text(e));
    }
    if (dir) (void)closedir(dir);
    if (r->n > 0)
        log_event(r->manager->config.log, LOG_INFO, "tasks", "tasks found on this node: %u", r->n);
}

RESULT runner_open(struct manager *m, struct why *why) {
    char real[PATH_MAX];
    if (m->runner || m->config.alone) return OK;
    struct runner *r = calloc(1, sizeof *r);
    if (!r) return fail_with(why, ERR_NOMEM, "no memory");
    r->manager = m;
    r->turned_away = buf_new(SESSION_BODY_MAX);
    enum err e = OK;
    if (!realpath(m->config.data, real))
        e = fail_with(why, ERR_IO, "%s: %s", m->config.data, strerror(errno));
    else if (strlen(real) >= sizeof r->data)
        e = fail_with(why, ERR_TOO_LARGE, "the path of the data directory is too long");
    if (e != OK) {
        free(r);
        return e;
    }
    (void)snprintf(r->data, sizeof r->data, "%.*s", SUP_PATH_MAX - 1, real);
    m->runner = r;
    runner_sweep(r);
    adopt_all(r);
    wake(r);
    return OK;
}

void runner_close(struct manager *m) {
    struct runner *r = m->runner;
    if (!r) return;
    feeds_lost(r, "the node is stopping");
    while (r->first)
        job_free(r, r->first);
    values_clear(&r->values);
    buf_free(&r->turned_away);
    m->runner = NULL;
    free(r);
}
