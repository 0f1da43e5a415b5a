/* What a node should run and know, read from the rows: its tasks from their marks, each task's
 * items from its service, the versions from the secrets. Nothing is told here.
 *
 * A task whose service has meanwhile got another spec runs on as it was told, until the scheduler
 * replaces it: what it was told is kept. To a session that does not know it yet it is shown as it
 * is now when its node has not begun with it, else without files: it has them, and follows no
 * versions any more. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/service/assign_parts.h"
#include "api/service/services.h"

#define STOP_SIGNAL   15 /* SIGTERM */
#define RELOAD_SIGNAL 1  /* SIGHUP */
#define STOP_GRACE_NS 10000000000

/* --- tables ----------------------------------------------------------------------------------- */

/* Room for one more; NULL: no memory. `*rows` is the array, now with room. */
static void *grown(void *rows, size_t n, size_t *room, size_t size) {
    if (n < *room) return rows;
    size_t more = *room == 0 ? 8 : *room * 2;
    void *at = realloc(rows, more * size);
    if (at) *room = more;
    return at;
}

static size_t task_at(const struct assigned *a, const char *id) {
    size_t low = 0, high = a->n_tasks;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(a->tasks[middle].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct known_task *known_task(const struct assigned *a, const char *id) {
    size_t at = task_at(a, id);
    return at < a->n_tasks && strcmp(a->tasks[at].id, id) == 0 ? &a->tasks[at] : NULL;
}

static struct known_task *task_place(struct assigned *a, const char *id) {
    struct known_task *t = known_task(a, id);
    if (t) return t;
    size_t at = task_at(a, id);
    void *more = grown(a->tasks, a->n_tasks, &a->room_tasks, sizeof *t);
    if (!more) return NULL;
    a->tasks = more;
    t = &a->tasks[at];
    memmove(t + 1, t, (a->n_tasks++ - at) * sizeof *t);
    *t = (struct known_task){.stale = true};
    (void)snprintf(t->id, sizeof t->id, "%s", id);
    return t;
}

static int compare_values(const struct known_value *a, const struct known_value *b) {
    int by_id = strcmp(a->id, b->id);
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    if (by_id != 0) return by_id;
    if (a->version != b->version) return a->version < b->version ? -1 : 1;
    return strcmp(a->task_id, b->task_id);
}

static size_t value_at(const struct assigned *a, const struct known_value *key) {
    size_t low = 0, high = a->n_values;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare_values(&a->values[middle], key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct known_value *known_value(const struct assigned *a, const struct known_value *key) {
    size_t at = value_at(a, key);
    return at < a->n_values && compare_values(&a->values[at], key) == 0 ? &a->values[at] : NULL;
}

struct known_value *known_value_add(struct assigned *a, const struct known_value *key) {
    size_t at = value_at(a, key);
    void *more = grown(a->values, a->n_values, &a->room_values, sizeof *a->values);
    if (!more) return NULL;
    a->values = more;
    struct known_value *v = &a->values[at];
    memmove(v + 1, v, (a->n_values++ - at) * sizeof *v);
    *v = *key;
    return v;
}

void known_value_drop(struct assigned *a, struct known_value *v) {
    size_t at = (size_t)(v - a->values);
    secret_free(v->bytes);
    memmove(v, v + 1, (--a->n_values - at) * sizeof *v);
}

void assign_clear(struct assigned *a) {
    for (size_t i = 0; i < a->n_tasks; i++)
        free(a->tasks[i].uses);
    for (size_t i = 0; i < a->n_values; i++)
        secret_free(a->values[i].bytes);
    free(a->tasks);
    free(a->values);
    a->tasks = NULL;
    a->values = NULL;
    a->n_tasks = a->room_tasks = a->n_values = a->room_values = 0;
}

void assign_forget(struct assigned *a) {
    assign_drive_gone(a);
    assign_clear(a);
}

/* --- a task as it is to be told --------------------------------------------------------------- */

/* What a task says of itself, whatever becomes of its service. */
static void set_task(struct assigned *a, const struct row *row, const struct task_row *t) {
    struct assign_task *out = &a->all->task;
    const struct store *s = a->all->manager->store;
    *out = (struct assign_task){.slot = t->slot,
                                .desired = TASK_SHUTDOWN,
                                .not_before_ns = t->not_before_ns > 0 ? t->not_before_ns : 0,
                                .stop_signal = STOP_SIGNAL,
                                .reload_signal = RELOAD_SIGNAL};
    (void)snprintf(out->id, sizeof out->id, "%s", row->id);
    (void)snprintf(out->service_id, sizeof out->service_id, "%s", t->service_id);
    task_name(s, row, t, out->name, sizeof out->name);
}

static void set_service(struct assign_task *out, const struct row *row,
                        const struct service_row *s) {
    (void)snprintf(out->service_name, sizeof out->service_name, "%.*s", (int)row->name.size,
                   (const char *)row->name.at);
    (void)snprintf(out->image, sizeof out->image, "%s", s->image);
    (void)snprintf(out->user, sizeof out->user, "%s", s->user);
    (void)snprintf(out->dir, sizeof out->dir, "%s", s->dir);
    (void)snprintf(out->hostname, sizeof out->hostname, "%s", s->hostname);
    out->command = s->command;
    out->env = s->env;
    out->mounts = s->mounts;
    out->labels = s->labels;
    if (s->stop_signal > 0) out->stop_signal = s->stop_signal;
    if (s->reload_signal > 0) out->reload_signal = s->reload_signal;
    out->stop_grace_ns = s->stop_grace_ns > 0 ? s->stop_grace_ns : STOP_GRACE_NS;
}

/* False: what it names is not there. */
static bool set_file(struct assigns *all, const struct service_ref *ref, struct assign_file *out) {
    struct row row;
    if (!row_get(all->manager->store, ref->kind, ref->id, &row) ||
        held_decode(row.body, &all->held) != OK)
        return false;
    const struct held_version *v = held_version(&all->held, ref->version);
    bool driven = all->held.driver[0] != '\0';
    if (!v && !driven) return false;
    *out = (struct assign_file){.kind = ref->kind,
                                .uid = ref->uid,
                                .gid = ref->gid,
                                .mode = ref->mode,
                                .version = driven ? 0 : v->number,
                                .follows = ref->version == 0 && !driven,
                                .templated = all->held.templating[0] != '\0'};
    memcpy(out->id, ref->id, sizeof out->id);
    memcpy(out->name, ref->name, sizeof out->name);
    memcpy(out->target, ref->target, sizeof out->target);
    return true;
}

static bool set_files(struct assigns *all) {
    struct assign_task *out = &all->task;
    for (out->n = 0; out->n < all->service.n; out->n++)
        if (!set_file(all, &all->service.refs[out->n], &out->files[out->n])) return false;
    return true;
}

enum built { BUILT, BUILT_BLOCKED, BUILT_KEEP };

/* Into all->task. */
static enum built build(struct assigned *a, const struct known_task *known, const struct row *row,
                        const struct task_row *t) {
    struct assigns *all = a->all;
    struct row of;
    set_task(a, row, t);
    if (!row_get(all->manager->store, ROW_SERVICE, t->service_id, &of) ||
        service_decode(of.body, &all->service) != OK)
        return BUILT;
    set_service(&all->task, &of, &all->service);
    if (t->desired != TASK_RUNNING) return BUILT;
    bool older = t->spec_version != all->service.spec_version;
    if (older && known->told && known->wanted) return BUILT_KEEP;
    all->task.desired = TASK_RUNNING;
    if (older && t->state >= TASK_STARTING) return BUILT;
    if (set_files(all)) return BUILT;
    all->task.n = 0;
    return t->state >= TASK_STARTING ? BUILT : BUILT_BLOCKED; /* what runs is not ended for it */
}

bool assign_task_build(struct assigned *a, const struct known_task *t) {
    struct row row;
    struct task_row task;
    return row_get(a->all->manager->store, ROW_TASK, t->id, &row) &&
           task_decode(row.body, &task) == OK && build(a, t, &row, &task) == BUILT;
}

/* --- the look --------------------------------------------------------------------------------- */

static const struct use *use_of(const struct use *uses, unsigned n, enum row_kind kind,
                                const char *id, uint32_t version) {
    for (unsigned i = 0; i < n; i++)
        if (uses[i].kind == kind && uses[i].version == version && strcmp(uses[i].id, id) == 0)
            return &uses[i];
    return NULL;
}

/* One use of a value for all files of it. What was recorded stays so; what the task has on its node
 * stays there until it is told what comes instead, since it may start in between. */
static RESULT take_uses(struct known_task *t, const struct assign_task *from) {
    size_t room = (size_t)from->n + t->n + 1; /* not none */
    struct use *uses = calloc(room, sizeof *uses);
    unsigned n = 0;
    if (!uses) return ERR_NOMEM;
    for (unsigned i = 0; i < from->n; i++) {
        const struct assign_file *f = &from->files[i];
        if (use_of(uses, n, f->kind, f->id, f->version)) continue;
        const struct use *before = use_of(t->uses, t->n, f->kind, f->id, f->version);
        struct use *u = &uses[n++];
        *u = (struct use){.kind = f->kind, .version = f->version};
        memcpy(u->id, f->id, sizeof u->id);
        if (before) u->batch = before->batch;
        if (before) u->told = before->told;
    }
    for (unsigned i = 0; i < t->n; i++) {
        const struct use *u = &t->uses[i];
        if (!u->told || u->batch != USE_RECORDED) continue;
        if (use_of(uses, n, u->kind, u->id, u->version)) continue;
        uses[n] = *u;
        uses[n++].past = true;
    }
    free(t->uses);
    t->uses = uses;
    t->n = n;
    return OK;
}

void assign_task_told(struct assigned *a, struct known_task *t) {
    unsigned kept = 0;
    for (unsigned i = 0; i < t->n; i++) {
        struct use u = t->uses[i];
        const struct known_value *v = assign_value_of(a, t, &u);
        if (u.past) continue;
        u.told = v && v->told;
        t->uses[kept++] = u;
    }
    if (kept < t->n) assign_dirty(a); /* the next look takes their values away */
    t->n = kept;
    memcpy(t->said, t->hash, sizeof t->said);
    t->changed = false;
    t->told = true;
}

/* What the spec lets through and the wire does not; the scheduler hears of it. */
static void reject(struct assigned *a, const struct known_task *t) {
    struct task_report r = {.state = TASK_REJECTED,
                            .message = "rejected",
                            .error = "a field of the service is longer than a node takes"};
    memcpy(r.id, t->id, sizeof r.id);
    assign_report_add(a, &r);
}

static void take_build(struct assigned *a, struct known_task *t, enum built built) {
    struct assigns *all = a->all;
    struct why why;
    t->blocked = true; /* looked at again the next time */
    if (built == BUILT_BLOCKED) {
        (void)fail_with(&why, ERR_NOT_FOUND, "a secret or config that it names is not there");
        assign_unable(a, t->id, &why);
        return;
    }
    buf_clear(&all->item);
    enum err e = assign_add_task(&all->item, &all->task);
    if (e == OK) e = take_uses(t, &all->task);
    if (e == ERR_INVALID) reject(a, t);
    if (e != OK && e != ERR_INVALID) a->blind = true;
    if (e != OK) return;
    (void)crypto_generichash(t->hash, sizeof t->hash, all->item.at, all->item.size, NULL, 0);
    t->wanted = all->task.desired == TASK_RUNNING;
    t->changed = !t->told || memcmp(t->hash, t->said, sizeof t->hash) != 0;
    t->blocked = false;
}

static bool look_at(void *ctx, const struct row *row) {
    struct assigned *a = ctx;
    struct task_row task;
    if (task_decode(row->body, &task) != OK) return true;
    if (task.state < TASK_ASSIGNED || task.state >= TASK_COMPLETE) return true; /* not yet, over */
    struct known_task *t = task_place(a, row->id);
    if (!t) {
        a->blind = true;
        return false;
    }
    t->there = true;
    t->started = task.state >= TASK_STARTING;
    if (!t->stale && !t->blocked) return true;
    t->stale = false;
    enum built built = build(a, t, row, &task);
    if (built != BUILT_KEEP) take_build(a, t, built);
    return true;
}

struct known_value *assign_value_of(const struct assigned *a, const struct known_task *t,
                                    const struct use *u) {
    struct known_value key = {.kind = u->kind, .version = u->version};
    memcpy(key.id, u->id, sizeof key.id);
    struct known_value *v = known_value(a, &key);
    if (v || u->version != 0) return v;
    memcpy(key.task_id, t->id, sizeof key.task_id);
    return known_value(a, &key);
}

static void need(struct assigned *a, const struct known_task *t, const struct use *u) {
    struct known_value *v = assign_value_of(a, t, u);
    struct known_value key = {.kind = u->kind, .version = u->version};
    if (u->past) {
        if (v) v->needed = true;
        return;
    }
    if (!v && u->version == 0) {
        assign_drive(a, t, u);
        v = assign_value_of(a, t, u);
    } else if (!v) {
        memcpy(key.id, u->id, sizeof key.id);
        v = known_value_add(a, &key);
    }
    if (v) v->needed = true;
    if (!v && u->version != 0) a->blind = true;
}

RESULT assign_look(struct assigned *a) {
    const char *node_id = a->link->id;
    a->failed = a->failed && a->retry_ms != 0;
    a->blind = false;
    for (size_t i = 0; i < a->n_tasks; i++)
        a->tasks[i].there = false;
    for (size_t i = 0; i < a->n_values; i++)
        a->values[i].needed = false;
    task_each_of_node(a->all->manager->store, node_id, look_at, a);
    if (a->blind) return ERR_NOMEM;
    for (size_t i = 0; i < a->n_tasks; i++) {
        const struct known_task *t = &a->tasks[i];
        for (unsigned k = 0; k < t->n && t->there && t->wanted; k++)
            if (t->uses[k].batch == USE_RECORDED) need(a, t, &t->uses[k]);
    }
    return a->blind ? ERR_NOMEM : OK;
}
