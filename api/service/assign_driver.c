/* Values that an outside program supplies (driver.h). A use of such a secret has no version; its
 * value is in the session's table once it has come: for all tasks of the node, or, when the driver
 * says so, for the one that it was asked for. A driver that fails has its task rejected. */
#include <stdio.h>
#include <stdlib.h>

#include "api/service/assign_parts.h"
#include "api/service/driver.h"

/* One question; lives until its answer has come, whatever becomes of the session. */
struct driving {
    struct driving *next;
    struct assigns *all;    /* NULL: this is no manager any more */
    struct assigned *a;     /* NULL: it is gone, or knows nothing of it any more */
    struct known_value key; /* with the task's id */
};

static void unlink_driving(struct driving *d) {
    if (!d->all) return;
    struct driving **at = &d->all->drivings;
    while (*at != d)
        at = &(*at)->next;
    *at = d->next;
}

static void reject(struct assigned *a, const char *task_id, const char *text) {
    struct task_report r = {.state = TASK_REJECTED};
    memcpy(r.id, task_id, sizeof r.id);
    (void)snprintf(r.message, sizeof r.message, "rejected");
    (void)snprintf(r.error, sizeof r.error, "%.*s", NODE_TEXT_MAX, text);
    assign_report_add(a, &r);
}

/* The value is for all tasks of the node, unless there is one already. */
static void share(struct assigned *a, const struct known_value *key, struct secret *value) {
    struct known_value shared = *key;
    struct known_value *own = known_value(a, key);
    if (own) known_value_drop(a, own);
    shared.task_id[0] = '\0';
    shared.driven = DRIVEN_HERE;
    shared.bytes = value;
    if (known_value(a, &shared) || !known_value_add(a, &shared)) secret_free(value);
}

static void on_answer(void *ctx, enum err e, const char *text, struct secret *value, bool reuse) {
    struct driving *d = ctx;
    struct assigned *a = d->a;
    struct known_value *v = a ? known_value(a, &d->key) : NULL;
    if (!v) {
        secret_free(value);
    } else if (e != OK) {
        reject(a, d->key.task_id, text[0] ? text : err_text(e));
        known_value_drop(a, v);
    } else if (reuse) {
        share(a, &d->key, value);
    } else {
        v->driven = DRIVEN_HERE;
        v->bytes = value;
    }
    if (a) assign_dirty(a);
    if (a) assign_wake(a->all);
    unlink_driving(d);
    free(d);
}

/* --- the question ----------------------------------------------------------------------------- */

static RESULT question(struct assigned *a, const struct known_task *t, const struct row *held,
                       struct buf *out) {
    struct assigns *all = a->all;
    struct row service, node;
    struct node_row about;
    if (!assign_task_build(a, t)) return ERR_NOT_FOUND;
    if (!row_get(all->manager->store, ROW_SERVICE, all->task.service_id, &service))
        return ERR_NOT_FOUND;
    TRY(node_row_get(all->manager->store, a->link->id, &node, &about));
    TRY(held_decode(held->body, &all->held)); /* building has used it */
    const struct driver_question q = {.secret_name = held->name,
                                      .secret_labels = all->held.labels,
                                      .secret_options = all->held.driver_options,
                                      .service_id = all->task.service_id,
                                      .service_name = service.name,
                                      .service_labels = all->task.labels,
                                      .service_hostname = all->task.hostname,
                                      .task_id = all->task.id,
                                      .task_name = all->task.name,
                                      .task_image = all->task.image,
                                      .node_id = a->link->id,
                                      .node_hostname = about.hostname};
    return driver_question_encode(&q, out);
}

static RESULT start(struct assigned *a, const struct known_task *t, const struct use *u,
                    struct driving *d, struct why *why) {
    struct assigns *all = a->all;
    struct manager *m = all->manager;
    struct row held;
    struct buf text = buf_new(512 * KIB);
    if (!row_get(m->store, u->kind, u->id, &held) || held_decode(held.body, &all->held) != OK)
        return fail_with(why, ERR_NOT_FOUND, "the secret is not there any more");
    const struct driver *driver = driver_find(&m->config.drivers, all->held.driver);
    if (!driver)
        return fail_with(why, ERR_PRECONDITION,
                         "driver %s: this manager was not told of it (serve --secret-driver)",
                         all->held.driver);
    enum err e = question(a, t, &held, &text);
    if (e == OK) e = driver_start(m, driver, buf_span(&text), on_answer, d, why);
    buf_free(&text);
    return e;
}

void assign_drive(struct assigned *a, const struct known_task *t, const struct use *u) {
    struct why why = {0};
    if (assign_report_rejected(a, t->id)) return; /* the leader hears of it */
    struct driving *d = calloc(1, sizeof *d);
    if (!d) return;
    *d = (struct driving){.next = a->all->drivings, .all = a->all, .a = a};
    d->key = (struct known_value){.kind = u->kind, .driven = DRIVEN_ASKED};
    memcpy(d->key.id, u->id, sizeof u->id);
    memcpy(d->key.task_id, t->id, sizeof t->id);
    enum err e = start(a, t, u, d, &why);
    if (e == OK && !known_value_add(a, &d->key)) d->a = NULL;
    if (e == OK) {
        a->all->drivings = d;
        return;
    }
    free(d);
    if (e == ERR_BUSY || e == ERR_NOMEM)
        a->retry_ms = assign_now(a->all) + ASSIGN_RETRY_MS;
    else
        reject(a, t->id, why.text[0] ? why.text : err_text(e));
}

void assign_drive_gone(struct assigned *a) {
    for (struct driving *d = a->all->drivings; d; d = d->next)
        if (d->a == a) d->a = NULL;
}

void assign_drive_close(struct assigns *all) {
    for (struct driving *d = all->drivings; d; d = d->next)
        d->all = NULL;
}
