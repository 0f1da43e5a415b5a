/* See rpc_world.h. One test at a time: what the methods have seen is one variable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/rpc/rpc_world.h"

#include <stdlib.h>

#include "api/etcd/rpc.pb-c.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/fault.h"

/* --- methods of the test ---------------------------------------------------------------------- */

struct seen seen;

static void note_message(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__RangeRequest *request = (const void *)m;
    seen.r = r;
    seen.kept = *r;
    seen.messages++;
    fault_alloc_pause();
    assert_int_equal(buf_add(&seen.keys, request->key.data, request->key.len), OK);
    fault_alloc_resume();
}

static void on_gone(struct rpc *r) {
    assert_ptr_equal(r, seen.r);
    seen.gone++;
    rpc_fail(r, ERR_CLOSED, NULL);
}

static void answer_large(struct rpc *r) {
    Etcdserverpb__RangeResponse answer = ETCDSERVERPB__RANGE_RESPONSE__INIT;
    Mvccpb__KeyValue kv = MVCCPB__KEY_VALUE__INIT, *kvs[] = {&kv};
    answer.n_kvs = 1;
    answer.kvs = kvs;
    fault_alloc_pause();
    kv.value = (ProtobufCBinaryData){.len = LARGE, .data = calloc(1, LARGE)};
    fault_alloc_resume();
    rpc_answer(r, &answer.base);
    free(kv.value.data);
}

static void echo(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__RangeRequest *request = (const void *)m;
    Etcdserverpb__RangeResponse answer = ETCDSERVERPB__RANGE_RESPONSE__INIT;
    Mvccpb__KeyValue kv = MVCCPB__KEY_VALUE__INIT, *kvs[] = {&kv};
    note_message(r, m);
    kv.key = request->key;
    answer.n_kvs = 1;
    answer.kvs = kvs;
    if (request->key.len == 5 && memcmp(request->key.data, "later", 5) == 0)
        r->gone = on_gone;
    else if (request->key.len == 3 && memcmp(request->key.data, "bad", 3) == 0)
        rpc_fail(r, ERR_FUTURE_REVISION, NULL);
    else if (request->key.len == 3 && memcmp(request->key.data, "own", 3) == 0)
        rpc_fail(r, ERR_INVALID, "50% of \"\xc3\xa9\"\n");
    else if (request->key.len == 5 && memcmp(request->key.data, "large", 5) == 0)
        answer_large(r);
    else
        rpc_answer(r, &answer.base);
}

static void on_drained(struct rpc *r) {
    (void)r;
    seen.drained++;
}

static void stream_message(struct rpc *r, const ProtobufCMessage *m) {
    Etcdserverpb__RangeResponse answer = ETCDSERVERPB__RANGE_RESPONSE__INIT;
    note_message(r, m);
    r->gone = on_gone;
    r->drained = on_drained;
    answer.count = seen.messages;
    seen.sent = rpc_send(r, &answer.base);
}

static void stream_ended(struct rpc *r) {
    seen.ended++;
    rpc_end(r);
}

#define TYPES                                                                                      \
    .request = &etcdserverpb__range_request__descriptor,                                           \
    .answer = &etcdserverpb__range_response__descriptor

static const struct method test_methods[] = {
    {.path = "/t.T/Echo", .json = "/v3/t/echo", TYPES, .message = echo},
    {.path = "/t.T/Standby", .standby = true, TYPES, .message = echo},
    {.path = "/t.T/Always", .standby = true, .open = true, TYPES, .message = echo},
    {.path = "/t.T/Talk",
     .json = "/v3/t/talk",
     .kind = METHOD_BIDI,
     TYPES,
     .message = stream_message,
     .ended = stream_ended},
    {.path = "/t.T/Hear", .kind = METHOD_BIDI, TYPES, .message = stream_message},
    {.path = "/t.T/Feed",
     .json = "/v3/t/feed",
     .kind = METHOD_SERVER_STREAM,
     TYPES,
     .message = stream_message},
    {.path = NULL},
};
const struct method *const world_services[] = {test_methods, NULL};

/* --- the node under it ------------------------------------------------------------------------ */

const struct route world_routes[] = {{.path = NULL}};

int world_set_up(void **state) {
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->lone.disk = disk_sim_new(1);
    w->lone.now_ms = 1000;
    lone_found(&w->lone);
    lone_reopen(&w->lone);
    w->manager = calloc(1, sizeof *w->manager);
    assert_non_null(w->manager);
    w->manager->state = MANAGER_RUNNING;
    w->manager->leader = 1;
    w->manager->replica = w->lone.r;
    w->manager->store = w->lone.store;
    log_open(&w->log, 2, LOG_ERROR);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    assert_int_equal(uv_timer_init(&w->loop, &w->patience), 0);
    w->api = (struct api){.log = &w->log, .manager = w->manager};
    assert_int_equal(rpcs_new(&w->api, &w->loop, world_services, world_routes, &w->api.rpcs), OK);
    *state = w;
    return 0;
}

int world_tear_down(void **state) {
    struct world *w = *state;
    rpcs_close(w->api.rpcs);
    uv_close((uv_handle_t *)&w->patience, NULL);
    assert_int_equal(uv_run(&w->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    lone_stop(&w->lone);
    lone_free(&w->lone);
    disk_sim_free(w->lone.disk);
    free(w->manager);
    free(w);
    return 0;
}

void world_forget(void) {
    buf_free(&seen.keys);
    seen = (struct seen){.keys = buf_new(8 * MIB)};
}

/* A RangeRequest of this key, with its prefix, at the end of `out`. */
void world_request(struct buf *out, const char *key) {
    uint8_t message[128];
    size_t size = strlen(key);
    message[0] = 1 << 3 | 2;
    message[1] = (uint8_t)size;
    memcpy(&message[2], key, size);
    assert_int_equal(exbox_frame(out, span_of(message, 2 + size)), OK);
}

void world_open(struct world *w, struct exbox *b, const char *path) {
    world_forget();
    uv_update_time(&w->loop);
    exbox_open(b, &w->api, path, span_of(NULL, 0));
}

/* One unary call with one message. */
void world_call(struct world *w, struct exbox *b, const char *path, const char *key) {
    struct buf bytes = buf_new(1 * KIB);
    world_open(w, b, path);
    world_request(&bytes, key);
    exbox_grpc(b);
    assert_true(exbox_data(b, buf_span(&bytes), true));
    buf_free(&bytes);
}

void world_failed(const struct exbox *b, int code, const char *message) {
    assert_true(b->done);
    assert_int_equal(b->status, 200);
    assert_string_equal(b->type, "application/grpc");
    assert_int_equal(b->code, code);
    assert_string_equal(b->message, message);
}

unsigned world_calls(const struct world *w) {
    unsigned n = 0;
    for (const struct rpc_call *c = w->api.rpcs->calls; c; c = c->next)
        n++;
    return n;
}

static void on_patience(uv_timer_t *timer) { (void)timer; }

void world_run(struct world *w, uint64_t ms) {
    uv_update_time(&w->loop);
    assert_int_equal(uv_timer_start(&w->patience, on_patience, ms, 0), 0);
    assert_int_equal(uv_run(&w->loop, UV_RUN_DEFAULT), 0);
}
