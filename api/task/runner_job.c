/* A job: from an assigned task to a supervisor that has all it needs, and what is heard from that
 * to the reports that go up. What can't be run is REJECTED, with the reason, and nothing is left of
 * it.
 *
 *   NEW --supervisor started, fed--> STARTING --> RUNNING --> OVER
 *    ^--- socket found at start ---> ASKED ----------^ */
#include "api/task/runner_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "api/task/template.h"

#define COMMAND_ROOM (1 * MIB) /* words of an order, templates expanded */

struct run_task *job_find(const struct runner *r, const char *id) {
    for (struct run_task *j = r->first; j; j = j->next)
        if (strcmp(j->id, id) == 0) return j;
    return NULL;
}

struct run_task *job_new(struct runner *r, const char *id) {
    struct run_task *j = r->n < RUNNER_JOBS_MAX ? calloc(1, sizeof *j) : NULL;
    if (!j) return NULL;
    (void)snprintf(j->id, sizeof j->id, "%s", id);
    memcpy(j->report.id, j->id, sizeof j->id);
    j->bytes = j->staged_bytes = buf_new(SESSION_BODY_MAX);
    j->next = r->first;
    r->first = j;
    r->n++;
    return j;
}

void job_free(struct runner *r, struct run_task *j) {
    for (struct run_task **at = &r->first; *at; at = &(*at)->next)
        if (*at == j) {
            *at = j->next;
            break;
        }
    r->n--;
    link_close(j->link);
    buf_free(&j->bytes);
    buf_free(&j->staged_bytes);
    free(j->task);
    free(j->staged);
    free(j->told);
    free(j);
}

/* --- what is assigned ------------------------------------------------------------------------- */

static RESULT copy_span(struct buf *to, struct span *s) {
    size_t at = to->size;
    TRY(buf_add_span(to, *s));
    *s = span_of(to->at + at, s->size);
    return OK;
}

RESULT job_stage(struct run_task *j, const struct assign_task *t) {
    const size_t size = t->command.size + t->env.size + t->mounts.size + t->labels.size;
    if (!j->staged) j->staged = malloc(sizeof *j->staged);
    if (!j->staged) return ERR_NOMEM;
    *j->staged = *t;
    buf_clear(&j->staged_bytes);
    TRY(buf_reserve(&j->staged_bytes, size)); /* so that spans into it stay */
    TRY(copy_span(&j->staged_bytes, &j->staged->command));
    TRY(copy_span(&j->staged_bytes, &j->staged->env));
    TRY(copy_span(&j->staged_bytes, &j->staged->mounts));
    return copy_span(&j->staged_bytes, &j->staged->labels);
}

void job_take(struct run_task *j) {
    if (!j->staged) return;
    if (j->staged->stop_grace_ns == 0 && j->task) /* its service is gone */
        j->staged->stop_grace_ns = j->task->stop_grace_ns;
    buf_free(&j->bytes);
    free(j->task);
    j->task = j->staged;
    j->bytes = j->staged_bytes;
    j->staged = NULL;
    j->staged_bytes = buf_new(SESSION_BODY_MAX);
    j->assigned = true;
    j->stuck = false;
}

/* --- reports ---------------------------------------------------------------------------------- */

void job_report(struct runner *r, struct run_task *j, enum task_state state, const char *message,
                const char *error) {
    struct task_report *t = &j->report;
    t->state = state;
    t->pid = state == TASK_RUNNING && j->told ? j->told->pid : 0;
    t->exit_code = state >= TASK_COMPLETE && j->told ? j->told->exit_code : 0;
    (void)snprintf(t->message, sizeof t->message, "%s", message);
    (void)snprintf(t->error, sizeof t->error, "%s", error);
    j->unsaid = true;
    r->due = true;
}

static void over(struct runner *r, struct run_task *j, enum task_state state, const char *message,
                 const char *error) {
    const struct log *log = r->manager->config.log;
    j->state = JOB_OVER;
    values_remove_task(&r->values, j->id);
    job_report(r, j, state, message, error);
    log_event(log, state == TASK_REJECTED || state == TASK_FAILED ? LOG_WARNING : LOG_INFO, "tasks",
              "%s (%s): %s%s%s", j->task ? j->task->name : "a task", j->id, message,
              error[0] ? ": " : "", error);
}

static void reject(struct runner *r, struct run_task *j, const char *why) {
    static const uint8_t at_once[8] = {0};
    if (j->link) link_say(j->link, SUP_STOP, span_of(at_once, sizeof at_once));
    if (j->link) link_say(j->link, SUP_BYE, span_of(NULL, 0));
    link_close(j->link);
    j->link = NULL;
    over(r, j, TASK_REJECTED, "it can't be run", why);
}

/* --- templates -------------------------------------------------------------------------------- */

struct sources {
    const struct runner *runner;
    const struct run_task *job;
};

static bool value_of(void *ctx, enum row_kind kind, struct span target, struct span *out) {
    const struct sources *s = ctx;
    for (unsigned i = 0; i < s->job->task->n; i++) {
        const struct assign_file *f = &s->job->task->files[i];
        if (f->kind != kind || !span_equal(span_str(f->target), target)) continue;
        const struct held *h = values_find(&s->runner->values, f, s->job->id);
        if (!h) return false;
        *out = h->bytes ? secret_span(h->bytes) : (struct span){0};
        return true;
    }
    return false;
}

static void scope_of(const struct runner *r, const struct run_task *j, struct template_scope *out) {
    const struct assign_task *t = j->task;
    *out = (struct template_scope){.service_id = t->service_id,
                                   .service_name = t->service_name,
                                   .service_labels = t->labels,
                                   .task_id = t->id,
                                   .task_name = t->name,
                                   .slot = t->slot,
                                   .env = t->env};
    runner_node(r->manager, &out->node);
}

/* A list of blocks, each expanded. */
static RESULT expand_list(struct span list, const struct template_scope *scope, struct buf *out,
                          struct why *why) {
    struct cursor c = cursor_of(list);
    struct buf one = buf_new(SERVICE_TEXT_MAX);
    struct span block;
    enum err e = OK;
    while (e == OK && c.left > 0) {
        e = cursor_block(&c, SERVICE_TEXT_MAX, &block);
        buf_clear(&one);
        if (e == OK) e = template_expand(block, scope, &one, why);
        if (e == OK) e = buf_block(out, buf_span(&one));
    }
    buf_free(&one);
    return e;
}

/* The value as the task is to see it; *out is the caller's to drop. */
static RESULT value_for(const struct runner *r, const struct run_task *j,
                        const struct assign_file *f, struct held **out, struct why *why) {
    struct held *h = values_find(&r->values, f, j->id);
    if (!h)
        return fail_with(why, ERR_NOT_FOUND, "%s: %s", f->name,
                         r->values.refused ? "no room for another secret on this node"
                                           : "the value has not come");
    struct span bytes = h->bytes ? secret_span(h->bytes) : (struct span){0};
    if (!f->templated || template_is_plain(bytes)) {
        *out = held_keep(h);
        return OK;
    }
    struct sources sources = {.runner = r, .job = j};
    struct template_scope scope;
    struct buf text = buf_new_wiped(TEMPLATE_RESULT_MAX);
    scope_of(r, j, &scope);
    scope.value = value_of;
    scope.ctx = &sources;
    enum err e = template_expand(bytes, &scope, &text, why);
    if (e == OK) e = held_of(buf_span(&text), out);
    buf_wipe(&text);
    return e == OK ? OK : fail_in(why, e, f->name);
}

/* --- feeding ---------------------------------------------------------------------------------- */

static bool is_target(const char *target, const struct assign_file *f) {
    bool config = f->kind == ROW_CONFIG && f->target[0] != '/';
    return strcmp(target + (config && target[0] == '/'), f->target) == 0;
}

static RESULT send_order(const struct runner *r, struct run_task *j, struct why *why) {
    const struct assign_task *t = j->task;
    struct buf body = buf_new(SUP_FRAME_MAX), env = buf_new(COMMAND_ROOM),
               mounts = buf_new(COMMAND_ROOM), host = buf_new(64);
    struct template_scope scope;
    struct sup_order *o = calloc(1, sizeof *o);
    scope_of(r, j, &scope);
    enum err e = o ? expand_list(t->env, &scope, &env, why) : ERR_NOMEM;
    if (e == OK) e = template_expand(span_str(t->hostname), &scope, &host, why);
    if (e == OK) e = buf_u8(&host, 0);
    if (e == OK) e = buf_add_span(&mounts, t->mounts);
    if (e == OK) {
        *o = (struct sup_order){.command = t->command,
                                .env = buf_span(&env),
                                .mounts = buf_span(&mounts),
                                .stop_signal = t->stop_signal,
                                .reload_signal = t->reload_signal};
        (void)snprintf(o->id, sizeof o->id, "%s", t->id);
        (void)snprintf(o->data, sizeof o->data, "%s", r->data);
        (void)snprintf(o->image, sizeof o->image, "%s", t->image);
        (void)snprintf(o->user, sizeof o->user, "%s", t->user);
        (void)snprintf(o->dir, sizeof o->dir, "%s", t->dir);
        (void)snprintf(o->hostname, sizeof o->hostname, "%s", (const char *)host.at);
        e = sup_order_encode(o, &body);
    }
    if (e == OK) link_say(j->link, SUP_ORDER, buf_span(&body));
    free(o);
    buf_free(&host);
    buf_free(&mounts);
    buf_free(&env);
    buf_free(&body);
    return e;
}

static RESULT send_files(const struct runner *r, struct run_task *j, struct why *why) {
    for (unsigned i = 0; i < j->task->n; i++) {
        struct held *value;
        TRY(value_for(r, j, &j->task->files[i], &value, why));
        link_put(j->link, &j->task->files[i], value);
        held_drop(value);
    }
    return OK;
}

/* --- the link --------------------------------------------------------------------------------- */

static void on_frame(void *ctx, uint8_t kind, struct span body) {
    struct run_task *j = ctx;
    if (kind != SUP_STATE) return;
    if (!j->told) j->told = malloc(sizeof *j->told);
    j->heard |= j->told && sup_state_decode(body, j->told) == OK;
    j->runner->due = true;
    j->runner->manager->env.wake(j->runner->manager);
}

static void on_closed(void *ctx) {
    struct run_task *j = ctx;
    j->link = NULL;
    j->gone = true;
    j->runner->due = true;
    j->runner->manager->env.wake(j->runner->manager);
}

static const struct link_events events = {.frame = on_frame, .closed = on_closed};

static RESULT connect_to(struct runner *r, struct run_task *j, int fd) {
    j->runner = r;
    j->gone = false;
    return link_open(r->manager->config.loop, fd, &events, j, &j->link);
}

RESULT job_adopt(struct runner *r, const char *id) {
    struct why why = {0};
    int fd;
    enum err e = supervisor_dial(r->data, id, &fd, &why);
    struct run_task *j = e == OK || e == ERR_CLOSED ? job_new(r, id) : NULL;
    if (e == OK && !j) (void)close(fd);
    if (!j) return e == OK || e == ERR_CLOSED ? ERR_NOMEM : e;
    j->runner = r;
    if (e == ERR_CLOSED) {
        supervisor_forget(r->data, id);
        over(r, j, TASK_FAILED, "its supervisor is gone", "the supervisor was ended, or the node");
        return OK;
    }
    e = connect_to(r, j, fd);
    if (e == OK) link_say(j->link, SUP_HELLO, span_of(NULL, 0));
    j->state = JOB_ASKED;
    if (e != OK) job_free(r, j);
    return e;
}

/* --- steps ------------------------------------------------------------------------------------ */

static int64_t utc_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool has_values(const struct runner *r, const struct run_task *j) {
    for (unsigned i = 0; i < j->task->n; i++)
        if (!values_find(&r->values, &j->task->files[i], j->id)) return false;
    return true;
}

static void start(struct runner *r, struct run_task *j) {
    struct why why = {0};
    int fd;
    if (j->report.state < TASK_ACCEPTED) job_report(r, j, TASK_ACCEPTED, "accepted", "");
    if (j->task->not_before_ns > utc_ns()) return;               /* looked at again by the beat */
    if ((!r->synced || r->staging) && !has_values(r, j)) return; /* they come */
    enum err e = supervisor_spawn(&fd, &why);
    if (e == OK) e = connect_to(r, j, fd);
    if (e == OK) e = send_order(r, j, &why);
    if (e == OK) e = send_files(r, j, &why);
    manager_wipe_stack(r->manager);
    if (e != OK) {
        reject(r, j, why.text[0] ? why.text : err_text(e));
        return;
    }
    link_say(j->link, SUP_START, span_of(NULL, 0));
    j->state = JOB_STARTING;
    job_report(r, j, TASK_STARTING, "starting", "");
}

static void stop(struct runner *r, struct run_task *j) {
    uint8_t grace[8];
    if (j->state == JOB_NEW) {
        over(r, j, TASK_SHUTDOWN, "it was not started", "");
        return;
    }
    if (!j->link || j->stopping) return;
    int64_t ns = j->task ? j->task->stop_grace_ns : 0;
    put_u64(grace, ns > 0 ? (uint64_t)ns / 1000000 : STOP_GRACE_MS);
    link_say(j->link, SUP_STOP, span_of(grace, sizeof grace));
    j->stopping = true;
}

static bool is_wanted(const struct runner *r, const struct run_task *j) {
    if (!j->assigned) return !r->complete; /* it waits for the first COMPLETE */
    return j->task->desired == TASK_RUNNING;
}

/* How it ended. The supervisor stays until the manager has seen that (job_free, by its removal). */
static void ended(struct runner *r, struct run_task *j) {
    const struct sup_state *s = j->told;
    bool asked = s->asked && !is_wanted(r, j); /* and not by somebody else */
    char text[64];
    (void)snprintf(text, sizeof text, "task: non-zero exit (%d)", s->exit_code);
    if (asked)
        over(r, j, TASK_SHUTDOWN, "shutdown", "");
    else if (s->phase == SUP_REJECTED)
        over(r, j, s->asked ? TASK_FAILED : TASK_REJECTED, "it can't be run", s->error);
    else if (s->exit_code == 0)
        over(r, j, TASK_COMPLETE, "finished", "");
    else
        over(r, j, TASK_FAILED, "started", text);
}

static void hear(struct runner *r, struct run_task *j) {
    const struct sup_state *s = j->told;
    j->heard = false;
    if (j->state == JOB_OVER) return;
    if (s->phase == SUP_ENDED || s->phase == SUP_REJECTED) {
        ended(r, j);
        return;
    }
    if (s->phase == SUP_RUNNING || s->phase == SUP_STOPPING) {
        if (s->error[0] && !j->stuck)
            log_event(r->manager->config.log, LOG_WARNING, "tasks", "%s: %s", j->id, s->error);
        j->stuck = s->error[0] != 0;
        if (j->state != JOB_RUNNING) job_report(r, j, TASK_RUNNING, "started", "");
        j->state = JOB_RUNNING;
    } else if (j->state == JOB_ASKED) {
        /* Its agent went away in the middle of it: it is done again from the start. */
        stop(r, j);
    }
}

/* The connection has ended. Only where nobody listens any more the task is gone, too; otherwise it
 * is made again, once a beat. What is so by now, the next STATE says. */
static void lost(struct runner *r, struct run_task *j) {
    struct why why = {0};
    int fd;
    if (j->tried) return;
    j->tried = true;
    enum err e = supervisor_dial(r->data, j->id, &fd, &why);
    if (e == OK) e = connect_to(r, j, fd);
    if (e == OK) {
        log_event(r->manager->config.log, LOG_WARNING, "tasks",
                  "%s: its supervisor has hung up, and was called again", j->id);
        link_say(j->link, SUP_HELLO, span_of(NULL, 0));
        free(j->told);
        j->told = NULL;
        j->heard = j->stopping = false;
        if (j->state == JOB_STARTING) j->state = JOB_ASKED;
        return;
    }
    j->gone = e != ERR_CLOSED && e != ERR_NOT_FOUND;
    if (j->gone) return;
    supervisor_forget(r->data, j->id);
    if (j->state != JOB_OVER)
        over(r, j, TASK_FAILED, "its supervisor is gone", "the task's supervisor was ended");
}

/* The version in the task's hands; false: the file is not there. */
static bool has_version(const struct sup_state *s, const struct assign_file *f, uint32_t *out) {
    for (unsigned i = 0; i < s->n; i++) {
        if (!is_target(s->files[i].target, f)) continue;
        *out = s->files[i].version;
        return true;
    }
    return false;
}

/* Followed files that have another version now. What was sent is taken as told, so that it is not
 * sent twice; the supervisor's next STATE says what is so. */
static void update(struct runner *r, struct run_task *j) {
    struct why why = {0};
    bool any = false;
    uint32_t version;
    for (unsigned i = 0; i < j->task->n; i++) {
        const struct assign_file *f = &j->task->files[i];
        struct held *value;
        if (!f->follows || !has_version(j->told, f, &version) || version == f->version) continue;
        if (!values_find(&r->values, f, j->id)) continue; /* it comes */
        if (value_for(r, j, f, &value, &why) != OK) {
            log_event(r->manager->config.log, LOG_WARNING, "tasks", "%s keeps what it has: %s",
                      j->id, why.text);
            continue;
        }
        link_put(j->link, f, value);
        held_drop(value);
        any = true;
        for (unsigned k = 0; k < j->told->n; k++)
            if (is_target(j->told->files[k].target, f)) j->told->files[k].version = f->version;
    }
    if (any) link_say(j->link, SUP_COMMIT, span_of(NULL, 0));
    if (any) manager_wipe_stack(r->manager);
}

void job_step(struct runner *r, struct run_task *j) {
    if (j->gone) lost(r, j);
    if (j->heard) hear(r, j);
    if (j->state == JOB_OVER) return;
    if (j->staged && !j->assigned) return; /* the last part says that it is wanted */
    if (!is_wanted(r, j))
        stop(r, j);
    else if (j->state == JOB_NEW && j->task)
        start(r, j);
    else if (j->state == JOB_RUNNING && j->task && j->told && j->link && !j->stopping && !j->stuck)
        update(r, j);
}
