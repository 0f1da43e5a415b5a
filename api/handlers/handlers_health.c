/* How this node is, for those who watch over it, as etcd tells it: /health for old probes, /livez
 * (does the process serve?) and /readyz (does it serve clients well?) with a path for each check of
 * theirs. ?verbose tells of each check, ?exclude=NAME leaves one out; for /health the names are of
 * alarms, and ?serializable=true asks of this node alone. 200 or 503, in any state of the manager.
 *
 * A check that needs the others waits for a confirmed read; all else is known at once. Source of
 * names and texts: etcd's etcdhttp/health.go. */
#include "api/api.h"

#include <stdio.h>
#include <stdlib.h>

enum check {
    CHECK_CORRUPTION = 1,
    CHECK_LOCAL_READ = 2,
    CHECK_QUORUM_READ = 4,
    CHECK_VOTER = 8,
    CHECK_READY = CHECK_CORRUPTION | CHECK_LOCAL_READ | CHECK_QUORUM_READ | CHECK_VOTER,
};

static const struct {
    enum check check;
    const char *name;
} checks[] = {
    {CHECK_CORRUPTION, "data_corruption"},
    {CHECK_LOCAL_READ, "serializable_read"},
    {CHECK_QUORUM_READ, "linearizable_read"},
    {CHECK_VOTER, "non_learner"},
};

struct probe {
    struct read read; /* under way */
    struct exchange *x;
    unsigned checks; /* those that are asked for; 0: /health */
};

/* Is it in the query, as NAME or NAME=..., or, with `value`, just NAME=VALUE? */
static bool asked(const struct exchange *x, const char *name, const char *value) {
    struct span rest = x->head.query;
    while (rest.size > 0) {
        const uint8_t *end = memchr(rest.at, '&', rest.size);
        size_t size = end ? (size_t)(end - rest.at) : rest.size;
        const uint8_t *equals = memchr(rest.at, '=', size);
        struct span key = span_of(rest.at, equals ? (size_t)(equals - rest.at) : size);
        struct span said = span_of(rest.at + key.size, size - key.size);
        if (said.size > 0) said = span_of(said.at + 1, said.size - 1);
        if (span_equal(key, span_str(name)) && (!value || span_equal(said, span_str(value))))
            return true;
        size += end != NULL;
        rest = span_of(rest.at + size, rest.size - size);
    }
    return false;
}

static bool running(const struct api *api) {
    return api->manager != NULL && api->manager->state == MANAGER_RUNNING;
}

/* Starts a confirmed read; false: it can't be had, *e says why. */
static bool start_read(struct exchange *x, unsigned wanted,
                       void (*done)(struct read *read, enum err e), enum err *e) {
    const struct api *api = x->ctx;
    struct probe *p = calloc(1, sizeof *p);
    *e = ERR_NOMEM;
    if (p == NULL) return false;
    *p = (struct probe){.read = {.done = done, .ctx = p}, .x = x, .checks = wanted};
    *e = replica_read(api->manager->replica, &p->read);
    if (*e == OK) return true;
    free(p);
    return false;
}

/* --- /health --------------------------------------------------------------------------------- */

static void answer_health(struct exchange *x, const char *reason) {
    struct api *api = x->ctx;
    char body[WHY_MAX];
    bool good = reason[0] == '\0';
    if (good)
        api->figures.health_good++;
    else
        api->figures.health_bad++;
    (void)snprintf(body, sizeof body, "{\"health\":\"%s\",\"reason\":\"%s\"}",
                   good ? "true" : "false", reason);
    exchange_answer(x, good ? 200 : 503, "application/json", span_str(body));
}

static void answer_range_error(struct exchange *x, enum err e) {
    char reason[WHY_MAX / 2];
    (void)snprintf(reason, sizeof reason, "RANGE ERROR:%s", err_text(e));
    answer_health(x, e == OK ? "" : reason);
}

static void on_health_read(struct read *read, enum err e) {
    struct probe *p = read->ctx;
    struct exchange *x = p->x;
    free(p);
    answer_range_error(x, e);
}

static const char *alarm_of(const struct exchange *x) {
    const struct api *api = x->ctx;
    const struct store *s = api->manager->store;
    if (store_alarm(s, ALARM_NOSPACE, 0) && !asked(x, "exclude", "NOSPACE")) return "ALARM NOSPACE";
    if (store_alarm(s, ALARM_CORRUPT, 0) && !asked(x, "exclude", "CORRUPT")) return "ALARM CORRUPT";
    return "";
}

void handle_health(struct exchange *x) {
    const struct api *api = x->ctx;
    bool local = asked(x, "serializable", "true");
    enum err e;
    if (!running(api))
        answer_health(x, "NOT RUNNING");
    else if (alarm_of(x)[0])
        answer_health(x, alarm_of(x));
    else if (local)
        answer_health(x, "");
    else if (api->manager->leader == 0)
        answer_health(x, "RAFT NO LEADER");
    else if (!start_read(x, 0, on_health_read, &e))
        answer_range_error(x, e);
}

/* --- /livez, /readyz -------------------------------------------------------------------------- */

static bool is_voter(const struct api *api) {
    struct replica_status s;
    replica_status(api->manager->replica, &s);
    for (unsigned i = 0; i < s.n; i++)
        if (s.members[i].raft_id == s.raft_id) return s.members[i].role == REPLICA_VOTER;
    return false;
}

/* A worker lives, but there is nothing that it could be asked. */
static bool is_worker(const struct api *api) {
    return api->manager != NULL && api->manager->state == MANAGER_WORKER;
}

/* NULL: it is well. */
static const char *failure(const struct api *api, enum check check, enum err read) {
    if (is_worker(api)) return check == CHECK_LOCAL_READ ? NULL : err_text(ERR_NOT_MANAGER);
    if (!running(api)) return "the node is not running";
    switch (check) {
    case CHECK_CORRUPTION:
        return store_alarm(api->manager->store, ALARM_CORRUPT, 0) ? "alarm activated: CORRUPT"
                                                                  : NULL;
    case CHECK_QUORUM_READ: return read == OK ? NULL : err_text(read);
    case CHECK_VOTER: return is_voter(api) ? NULL : "not supported for learner";
    case CHECK_LOCAL_READ:
    case CHECK_READY: break;
    }
    return NULL;
}

/* `read`: what came of the confirmed read, when it is among them. */
static void answer_checks(struct exchange *x, unsigned wanted, enum err read) {
    struct buf out = buf_new(4 * KIB);
    bool good = true;
    enum err e = OK;
    for (size_t i = 0; i < ARRAY_SIZE(checks) && e == OK; i++) {
        if ((wanted & checks[i].check) == 0) continue;
        const char *why = failure(x->ctx, checks[i].check, read);
        good &= why == NULL;
        e = why ? buf_format(&out, "[-]%s failed: %s\n", checks[i].name, why)
                : buf_format(&out, "[+]%s ok\n", checks[i].name);
    }
    if (good && !asked(x, "verbose", NULL)) buf_clear(&out);
    if (e == OK) e = buf_add_span(&out, span_str(good ? "ok\n" : "\n"));
    if (e == OK)
        exchange_answer(x, good ? 200 : 503, "text/plain; charset=utf-8", buf_span(&out));
    else
        exchange_error(x, e, NULL);
    buf_free(&out);
}

static void on_checks_read(struct read *read, enum err e) {
    struct probe *p = read->ctx;
    struct exchange *x = p->x;
    unsigned wanted = p->checks;
    free(p);
    answer_checks(x, wanted, e);
}

static void run_checks(struct exchange *x, unsigned wanted) {
    enum err e = OK;
    for (size_t i = 0; i < ARRAY_SIZE(checks); i++)
        if (asked(x, "exclude", checks[i].name)) wanted &= ~(unsigned)checks[i].check;
    if ((wanted & CHECK_QUORUM_READ) != 0 && running(x->ctx) &&
        start_read(x, wanted, on_checks_read, &e))
        return;
    answer_checks(x, wanted, e);
}

void handle_livez(struct exchange *x) { run_checks(x, CHECK_LOCAL_READ); }
void handle_readyz(struct exchange *x) { run_checks(x, CHECK_READY); }

/* A check by itself: the last part of the path. */
void handle_check(struct exchange *x) {
    struct span path = x->head.path;
    for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
        struct span name = span_str(checks[i].name);
        if (path.size > name.size &&
            memcmp(path.at + path.size - name.size, name.at, name.size) == 0)
            run_checks(x, checks[i].check);
        else
            continue;
        return;
    }
    exchange_error(x, ERR_NOT_FOUND, NULL);
}
