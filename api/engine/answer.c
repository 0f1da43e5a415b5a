/* What all handlers of the Engine API use: answers with docker's headers, errors with its statuses
 * and sentences, reads that are current. */
#include "api/engine/engine.h"

#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>

static const char type_json[] = "application/json";

/* --- answers ---------------------------------------------------------------------------------- */

#define HEADER(name, value)                                                                        \
    { span_of(name, sizeof(name) - 1), span_of(value, sizeof(value) - 1) }

static unsigned headers_of(struct http_header *out) {
    const struct http_header own[] = {HEADER("api-version", ENGINE_API), HEADER("ostype", "linux"),
                                      HEADER("docker-experimental", "false"),
                                      HEADER("server", "Conclave/" CONCLAVE_VERSION)};
    memcpy(out, own, sizeof own);
    return ARRAY_SIZE(own);
}

void engine_answer(struct exchange *x, unsigned status, const char *type, struct span body,
                   const struct http_header *more, unsigned n) {
    struct http_header list[ANSWER_HEADERS_MAX];
    unsigned at = headers_of(list);
    for (unsigned i = 0; i < n && at < ANSWER_HEADERS_MAX; i++)
        list[at++] = more[i];
    x->headers = list; /* cppcheck-suppress autoVariables ; see below */
    x->n_headers = at;
    exchange_answer(x, status, type, body); /* the head is written before this returns */
}

void engine_empty(struct exchange *x, unsigned status) {
    engine_answer(x, status, NULL, span_of(NULL, 0), NULL, 0);
}

RESULT engine_stream(struct exchange *x) {
    struct http_header list[ANSWER_HEADERS_MAX];
    x->headers = list;
    x->n_headers = headers_of(list);
    enum err e = exchange_stream(x, type_json);
    x->headers = NULL;
    x->n_headers = 0;
    return e;
}

void engine_json_begin(struct jout *j, struct buf *out) {
    *out = buf_new(ENGINE_ANSWER_MAX);
    jout_start(j, out);
}

void engine_json(struct exchange *x, struct jout *j) { engine_json_as(x, 200, j); }

void engine_json_as(struct exchange *x, unsigned status, struct jout *j) {
    struct buf *out = j->out;
    enum err e = jout_end(j);
    if (e == OK) e = buf_add(out, "\n", 1);
    if (e == OK)
        engine_answer(x, status, type_json, buf_span(out), NULL, 0);
    else
        engine_error(x, e, NULL);
    buf_wipe(out);
}

/* --- errors ----------------------------------------------------------------------------------- */

void engine_fail(struct exchange *x, unsigned status, const char *text) {
    struct buf body = buf_new(4 * KIB);
    struct jout j;
    jout_start(&j, &body);
    jout_open(&j, '{');
    jout_put_text(&j, "message", text);
    jout_close(&j, '}');
    if (jout_end(&j) != OK || buf_add(&body, "\n", 1) != OK) buf_clear(&body);
    engine_answer(x, status, type_json, buf_span(&body), NULL, 0);
    buf_free(&body);
}

/* docker makes statuses of gRPC's codes; what it has no sentence for stays what it is here. */
static unsigned status_of(enum err e) {
    switch (err_grpc(e)) {
    case 3:
    case 9:
    case 11: return 400;
    case 5: return 404;
    case 6: return 409;
    case 7: return 403;
    case 12: return 501;
    case 8:
    case 14: return 503;
    case 16: return 401;
    default: return 500;
    }
}

static const char *code_name(enum err e) {
    static const char *const names[] = {
        "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
        "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
        "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
        "DataLoss", "Unauthenticated"};
    unsigned code = (unsigned)err_grpc(e);
    return names[code < ARRAY_SIZE(names) ? code : 2];
}

const char engine_no_leader[] =
    "The swarm does not have a leader. It's possible that too few managers are online. Make sure "
    "more than half of the managers are online.";

void engine_error(struct exchange *x, enum err e, const char *text) {
    if (e == ERR_NO_LEADER) text = engine_no_leader;
    engine_fail(x, status_of(e), text && text[0] ? text : err_text(e));
}

void engine_rpc_error(struct exchange *x, enum err e, const char *text) {
    char whole[WHY_MAX + 64];
    if (e == ERR_CONFLICT) {
        engine_fail(x, 500, "rpc error: code = Unknown desc = update out of sequence");
        return;
    }
    if (e == ERR_NO_LEADER) text = engine_no_leader;
    (void)snprintf(whole, sizeof whole, "rpc error: code = %s desc = %s", code_name(e),
                   text && text[0] ? text : err_text(e));
    engine_fail(x, status_of(e), whole);
}

/* --- states ----------------------------------------------------------------------------------- */

bool engine_is_worker(const struct manager *m) { return m->state == MANAGER_WORKER; }

const char *engine_local_state(const struct engine *e) {
    const struct manager *m = e->api->manager;
    switch (m->state) {
    case MANAGER_EMPTY: return e->joining ? "pending" : "inactive";
    case MANAGER_JOINING: return "pending";
    case MANAGER_LOCKED: return "locked";
    case MANAGER_RUNNING:
    case MANAGER_WORKER: return "active";
    case MANAGER_LEAVING: return "inactive";
    case MANAGER_STOPPING:
    case MANAGER_FAILED: break;
    }
    return "error";
}

static const char *not_ready(const struct manager *m) {
    switch (m->state) {
    case MANAGER_LOCKED:
        return "Swarm is encrypted and needs to be unlocked before it can be used. Please use "
               "\"docker swarm unlock\" to unlock it.";
    case MANAGER_WORKER:
        return "This node is not a swarm manager. Worker nodes can't be used to view or modify "
               "cluster state. Please run this command on a manager node or promote the current "
               "node to a manager.";
    case MANAGER_JOINING:
        return "This node is not a swarm manager. Manager is being prepared or has trouble "
               "connecting to the cluster.";
    case MANAGER_EMPTY:
    case MANAGER_LEAVING:
        return "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm "
               "join\" to connect this node to swarm and try again.";
    case MANAGER_RUNNING:
    case MANAGER_STOPPING:
    case MANAGER_FAILED: break;
    }
    return m->reason[0] ? m->reason : "this node is stopping";
}

bool engine_ready(struct exchange *x) {
    const struct manager *m = engine_manager(x);
    if (m && m->state == MANAGER_RUNNING) return true;
    engine_fail(x, 503, m ? not_ready(m) : "this node is stopping");
    return false;
}

/* --- reads ------------------------------------------------------------------------------------ */

struct asking {
    struct read read;
    struct exchange *x;
    engine_asked *asked;
    void (*then)(struct exchange *x);
};

static void on_confirmed(struct read *read, enum err e) {
    struct asking a = *(struct asking *)read->ctx;
    free(read->ctx);
    if (a.asked)
        a.asked(a.x, e);
    else if (e != OK)
        engine_rpc_error(a.x, e == ERR_TIMEOUT ? ERR_NO_LEADER : e, NULL);
    else if (engine_ready(a.x))
        a.then(a.x);
}

static RESULT ask(struct exchange *x, unsigned wait_ms, engine_asked *asked,
                  void (*then)(struct exchange *x)) {
    struct clock *clock = &engine_manager(x)->clock;
    struct asking *a = calloc(1, sizeof *a);
    if (!a) return ERR_NOMEM;
    *a = (struct asking){.x = x, .asked = asked, .then = then};
    a->read = (struct read){
        .done = on_confirmed, .ctx = a, .deadline_ms = clock->now_ms(clock) + wait_ms};
    enum err e = replica_read(engine_manager(x)->replica, &a->read);
    if (e != OK) free(a);
    return e;
}

RESULT engine_ask(struct exchange *x, unsigned wait_ms, engine_asked *then) {
    return ask(x, wait_ms, then, NULL);
}

void engine_current(struct exchange *x, void (*then)(struct exchange *x)) {
    if (!engine_ready(x)) return;
    enum err e = ask(x, PROPOSAL_TIMEOUT_MS, NULL, then);
    if (e != OK) engine_rpc_error(x, e, NULL);
}

void engine_filtered(struct exchange *x, engine_filters *parse, void (*then)(struct exchange *x)) {
    struct filters filters;
    struct why why = {0};
    enum err e = parse(x, &filters, &why);
    if (e != OK) {
        engine_error(x, e, why.text);
        return;
    }
    filters_free(&filters);
    engine_current(x, then);
}

/* --- requests --------------------------------------------------------------------------------- */

bool engine_json_body(struct exchange *x, json_t **out) {
    struct why why = {0};
    enum err e = engine_body(&x->head, x->body, out, &why);
    if (e != OK) engine_error(x, e, why.text);
    return e == OK;
}
