/* What happens between a call's beginning and its end, on a node by hand: a client leaves, a
 * password or a role changes, auth comes on. The services are the real ones, on a real replica and
 * store; the test steps both the replica and what the loop would do once a turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>
#include <stdlib.h>

#include "api/etcd/caller.h"
#include "api/etcd/election.pb-c.h"
#include "api/etcd/messages.h"
#include "api/etcd/methods.h"
#include "api/etcd/watch_stream.h"
#include "tests/lib/rpc/rpc_world.h"

#define STEPS_MAX 10000

/* --- a node with etcd's services -------------------------------------------------------------- */

static uint64_t now_ms(struct clock *c) {
    (void)c;
    return 1000;
}
static int64_t wall_s(struct clock *c) {
    (void)c;
    return 1;
}

static void serve(struct world *w, const struct method *const *services) {
    assert_int_equal(rpcs_new(&w->api, &w->loop, services, world_routes, &w->api.rpcs), OK);
}

static int set_up(void **state) {
    assert_int_equal(world_set_up(state), 0);
    struct world *w = *state;
    struct manager *m = w->manager;
    rpcs_close(w->api.rpcs);
    serve(w, api_services);
    m->config.loop = &w->loop;
    m->clock = (struct clock){.now_ms = now_ms, .wall_s = wall_s};
    assert_int_equal(uv_idle_init(&w->loop, &m->idle), 0);
    assert_int_equal(callers_new(&w->loop, &w->api.callers), OK);
    assert_int_equal(watches_start(&w->api), OK);
    return 0;
}

static int tear_down(void **state) {
    struct world *w = *state;
    callers_free(w->api.callers);
    watches_stop(&w->api);
    uv_close((uv_handle_t *)&w->api.watches->beat, NULL);
    uv_close((uv_handle_t *)&w->manager->idle, NULL);
    struct watches *watches = w->api.watches;
    assert_int_equal(world_tear_down(state), 0);
    free(watches);
    return 0;
}

static void step_chores(struct manager *m) {
    struct chore *all = m->chores, *next;
    m->chores = NULL;
    for (struct chore *j = all; j; j = next) {
        next = j->next;
        if (j->step(j)) manager_chore(m, j);
    }
    (void)uv_idle_stop(&m->idle);
}

/* Until nothing is to be done that needs no time. */
static void drive(struct world *w) {
    for (unsigned i = 0; i < STEPS_MAX; i++) {
        if (w->lone.head != NULL || w->lone.turn)
            (void)lone_step(&w->lone);
        else if (w->manager->chores != NULL)
            step_chores(w->manager);
        else
            return;
    }
    fail_msg("the node does not come to rest");
}

/* --- calls and commands ----------------------------------------------------------------------- */

static const struct caller nobody = {.admin = false}, boss = {.admin = true};

static struct caller certified(const char *name) {
    struct caller c = {.tls = true, .by_certificate = true};
    (void)snprintf(c.name, sizeof c.name, "%s", name);
    return c;
}

static void begin(struct world *w, struct exbox *b, const struct caller *caller, const char *path,
                  const ProtobufCMessage *m, bool last) {
    uint8_t message[512];
    struct buf bytes = buf_new(1 * KIB);
    assert_true(protobuf_c_message_get_packed_size(m) <= sizeof message);
    size_t size = protobuf_c_message_pack(m, message);
    assert_int_equal(exbox_frame(&bytes, span_of(message, size)), OK);
    world_open(w, b, path);
    b->x.caller = *caller;
    exbox_grpc(b);
    assert_true(exbox_data(b, buf_span(&bytes), last));
    buf_free(&bytes);
}

static void on_written(struct write *write, enum err e, const char *text,
                       const struct result *result) {
    bool *done = write->ctx;
    (void)text;
    assert_int_equal(e, OK);
    assert_int_equal(result->error, OK);
    *done = true;
}

static void command(struct world *w, const struct command *c) {
    bool done = false;
    struct write write = {.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = &done};
    assert_int_equal(command_encode(c, &write.command), OK);
    assert_int_equal(manager_write(w->manager, &write), OK);
    for (unsigned i = 0; i < STEPS_MAX && !done; i++)
        assert_true(lone_step(&w->lone));
    assert_true(done);
}

static void put(struct world *w, const char *key, const char *value) {
    command(w, &(struct command){.op = OP_PUT,
                                 .put = {.key = span_str(key), .value = span_str(value)}});
}

static void change(struct world *w, enum auth_op op, const char *user, const char *role,
                   const char *password) {
    static const uint8_t key[AUTH_KEY_SIZE] = "a token key, which has 32 bytes ";
    char hash[PASSWORD_HASH_MAX + 1] = "";
    if (password != NULL)
        assert_int_equal(crypto_pwhash_str(hash, password, strlen(password),
                                           crypto_pwhash_OPSLIMIT_MIN, crypto_pwhash_MEMLIMIT_MIN),
                         0);
    struct auth_change c = {
        .op = op, .user = span_str(user), .role = span_str(role), .password_hash = span_str(hash)};
    if (op == AUTH_ENABLE) c.token_key = span_of(key, sizeof key);
    if (op == AUTH_ROLE_GRANT) c.permission = PERMISSION_READ;
    if (op == AUTH_ROLE_GRANT) c.in = (struct interval){.key = span_str("e"), .end = span_str("f")};
    command(w, &(struct command){.op = OP_AUTH, .auth = c});
}

/* root, and alice, who may read all that begins with "e"; both by certificate or password. */
static void make_users(struct world *w) {
    change(w, AUTH_USER_ADD, "root", "", "rootpw");
    change(w, AUTH_USER_GRANT, "root", "root", NULL);
    change(w, AUTH_USER_ADD, "alice", "", "old");
    change(w, AUTH_ROLE_ADD, "", "reader", NULL);
    change(w, AUTH_ROLE_GRANT, "", "reader", NULL);
    change(w, AUTH_USER_GRANT, "alice", "reader", NULL);
}

/* --- a client that leaves --------------------------------------------------------------------- */

/* Its memory goes back to the system, so that whoever reads it is caught. */
static void forget_calls(struct rpcs *r) {
    while (r->pool) {
        struct rpc_call *c = r->pool;
        r->pool = c->next;
        free(c);
    }
    r->pooled = 0;
}

static void nobody_reads_the_request_of_a_client_that_has_left(void **state) {
    struct world *w = *state;
    struct exbox b;
    Etcdserverpb__AlarmRequest get = ETCDSERVERPB__ALARM_REQUEST__INIT;
    begin(w, &b, &boss, "/etcdserverpb.Maintenance/Alarm", &get.base, true);
    exbox_leave(&b);
    assert_int_equal(world_calls(w), 0);
    forget_calls(w->api.rpcs);
    drive(w);
    exbox_free(&b);
}

/* --- transactions ----------------------------------------------------------------------------- */

static bool is_serializable(const Etcdserverpb__TxnRequest *m) {
    struct buf bytes = buf_new(4 * KIB);
    struct why why = {0};
    bool serializable;
    assert_int_equal(txn_of(m, &bytes, &serializable, &why), OK);
    buf_free(&bytes);
    return serializable;
}

static void only_reads_that_all_allow_it_make_a_transaction_serializable(void **state) {
    (void)state;
    uint8_t key[] = "k";
    Etcdserverpb__Compare compare = ETCDSERVERPB__COMPARE__INIT, *compares[] = {&compare};
    Etcdserverpb__RangeRequest old = ETCDSERVERPB__RANGE_REQUEST__INIT, fresh = old;
    Etcdserverpb__RequestOp ops[2] = {ETCDSERVERPB__REQUEST_OP__INIT,
                                      ETCDSERVERPB__REQUEST_OP__INIT};
    Etcdserverpb__RequestOp *success[] = {&ops[0], &ops[1]};
    Etcdserverpb__TxnRequest m = ETCDSERVERPB__TXN_REQUEST__INIT;
    assert_false(is_serializable(&m));
    compare.key = old.key = fresh.key = (ProtobufCBinaryData){.len = 1, .data = key};
    m.n_compare = 1;
    m.compare = compares;
    assert_false(is_serializable(&m));
    old.serializable = true;
    ops[0].request_case = ops[1].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    ops[0].request_range = &old;
    ops[1].request_range = &fresh;
    m.success = success;
    m.n_success = 1;
    assert_true(is_serializable(&m));
    m.n_success = 2;
    assert_false(is_serializable(&m));
}

/* --- who manages ------------------------------------------------------------------------------ */

/* gRPC's code of a unary call. */
static int plain_call(struct world *w, const struct caller *caller, const char *path,
                      const ProtobufCMessage *m) {
    struct exbox b;
    begin(w, &b, caller, path, m, true);
    drive(w);
    while (!b.done)
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    int code = b.code;
    exbox_free(&b);
    return code;
}

static int add_role(struct world *w, const struct caller *caller, const char *name) {
    Etcdserverpb__AuthRoleAddRequest m = ETCDSERVERPB__AUTH_ROLE_ADD_REQUEST__INIT;
    m.name = (char *)(uintptr_t)name;
    return plain_call(w, caller, "/etcdserverpb.Auth/RoleAdd", &m.base);
}

static void over_tls_clients_manage_nothing_while_auth_is_off(void **state) {
    struct world *w = *state;
    const int denied = err_grpc(ERR_PERMISSION);
    const struct caller plain = {0}, over_tls = {.tls = true}, alice = certified("alice"),
                        root = certified("root"), admin = {.tls = true, .admin = true};
    Etcdserverpb__MemberRemoveRequest remove = ETCDSERVERPB__MEMBER_REMOVE_REQUEST__INIT;
    Etcdserverpb__MoveLeaderRequest move = ETCDSERVERPB__MOVE_LEADER_REQUEST__INIT;
    Etcdserverpb__AlarmRequest alarm = ETCDSERVERPB__ALARM_REQUEST__INIT;
    Etcdserverpb__AuthEnableRequest enable = ETCDSERVERPB__AUTH_ENABLE_REQUEST__INIT;
    make_users(w);
    assert_int_equal(add_role(w, &over_tls, "a"), denied);
    assert_int_equal(add_role(w, &root, "a"), denied);
    assert_int_equal(add_role(w, &admin, "a"), 0);
    assert_int_equal(add_role(w, &plain, "b"), 0);
    assert_int_equal(plain_call(w, &alice, "/etcdserverpb.Cluster/MemberRemove", &remove.base),
                     denied);
    assert_int_equal(plain_call(w, &alice, "/etcdserverpb.Maintenance/MoveLeader", &move.base),
                     denied);
    assert_int_equal(plain_call(w, &alice, "/etcdserverpb.Maintenance/Alarm", &alarm.base), 0);
    alarm.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE;
    assert_int_equal(plain_call(w, &alice, "/etcdserverpb.Maintenance/Alarm", &alarm.base), denied);
    assert_int_equal(plain_call(w, &alice, "/etcdserverpb.Auth/AuthEnable", &enable.base), denied);
    assert_int_equal(plain_call(w, &admin, "/etcdserverpb.Auth/AuthEnable", &enable.base), 0);
    assert_int_equal(add_role(w, &over_tls, "c"), err_grpc(ERR_USER_EMPTY));
    assert_int_equal(add_role(w, &alice, "c"), err_grpc(ERR_AUTH_DENIED));
    assert_int_equal(add_role(w, &root, "c"), 0);
}

static void who_is_barred_gets_no_call_at_all(void **state) {
    struct world *w = *state;
    struct caller worker = certified("works");
    Etcdserverpb__StatusRequest ask = ETCDSERVERPB__STATUS_REQUEST__INIT;
    struct exbox b;
    worker.barred = "no client";
    begin(w, &b, &worker, "/etcdserverpb.Maintenance/Status", &ask.base, true);
    world_failed(&b, err_grpc(ERR_PERMISSION), "no client");
    exbox_free(&b);
}

/* --- passwords -------------------------------------------------------------------------------- */

static enum err sign_in(struct world *w, const char *after, enum auth_op op) {
    struct exbox b;
    char name[] = "alice", password[] = "old";
    Etcdserverpb__AuthenticateRequest m = ETCDSERVERPB__AUTHENTICATE_REQUEST__INIT;
    m.name = name;
    m.password = password;
    begin(w, &b, &nobody, "/etcdserverpb.Auth/Authenticate", &m.base, true);
    drive(w); /* the worker has it */
    if (op != 0) change(w, op, "alice", "", after);
    while (!b.done)
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    int code = b.code;
    exbox_free(&b);
    return code == 0 ? OK : code == err_grpc(ERR_AUTH_FAILED) ? ERR_AUTH_FAILED : ERR_INTERNAL;
}

static void a_password_that_is_replaced_while_it_is_checked_buys_nothing(void **state) {
    struct world *w = *state;
    make_users(w);
    change(w, AUTH_ENABLE, "", "", NULL);
    assert_int_equal(sign_in(w, NULL, 0), OK);
    assert_int_equal(sign_in(w, "new", AUTH_USER_PASSWORD), ERR_AUTH_FAILED);
    change(w, AUTH_USER_PASSWORD, "alice", "", "old");
    assert_int_equal(sign_in(w, NULL, 0), OK);
    assert_int_equal(sign_in(w, NULL, AUTH_USER_DELETE), ERR_AUTH_FAILED);
}

/* --- streams ---------------------------------------------------------------------------------- */

static void watch(struct world *w, struct exbox *b, const struct caller *caller, const char *key) {
    Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    Etcdserverpb__WatchRequest m = ETCDSERVERPB__WATCH_REQUEST__INIT;
    create.key = (ProtobufCBinaryData){.len = strlen(key), .data = (uint8_t *)(uintptr_t)key};
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    m.create_request = &create;
    begin(w, b, caller, "/etcdserverpb.Watch/Watch", &m.base, false);
    drive(w);
}

/* The n-th answer of the stream, from 0 on. */
static Etcdserverpb__WatchResponse *heard(const struct exbox *b, unsigned n) {
    struct span message;
    assert_true(exbox_answer(b, n, &message));
    Etcdserverpb__WatchResponse *m =
        etcdserverpb__watch_response__unpack(NULL, message.size, message.at);
    assert_non_null(m);
    return m;
}

static void expect_canceled(const struct exbox *b, unsigned n, const char *reason) {
    struct span more;
    Etcdserverpb__WatchResponse *m = heard(b, n);
    assert_true(m->canceled);
    assert_int_equal(m->n_events, 0);
    assert_non_null(strstr(m->cancel_reason, reason));
    etcdserverpb__watch_response__free_unpacked(m, NULL);
    assert_false(exbox_answer(b, n + 1, &more));
}

static void a_watch_of_nobody_ends_when_auth_comes_on(void **state) {
    struct world *w = *state;
    struct exbox anonymous, alice, admin;
    const struct caller user = certified("alice");
    make_users(w);
    watch(w, &anonymous, &nobody, "e");
    watch(w, &alice, &user, "e");
    watch(w, &admin, &boss, "e");
    change(w, AUTH_ENABLE, "", "", NULL);
    put(w, "e", "1");
    drive(w);
    expect_canceled(&anonymous, 1, "user name is empty");
    Etcdserverpb__WatchResponse *m = heard(&alice, 1);
    assert_int_equal(m->n_events, 1);
    etcdserverpb__watch_response__free_unpacked(m, NULL);
    m = heard(&admin, 1);
    assert_int_equal(m->n_events, 1);
    etcdserverpb__watch_response__free_unpacked(m, NULL);
    rpcs_stop(w->api.rpcs);
    exbox_free(&anonymous);
    exbox_free(&alice);
    exbox_free(&admin);
}

static void a_watch_ends_when_its_user_may_not_read_any_more(void **state) {
    struct world *w = *state;
    struct exbox b;
    const struct caller user = certified("alice");
    make_users(w);
    change(w, AUTH_ENABLE, "", "", NULL);
    watch(w, &b, &user, "e");
    change(w, AUTH_USER_REVOKE, "alice", "reader", NULL);
    put(w, "e", "1");
    drive(w);
    expect_canceled(&b, 1, "permission denied");
    rpcs_stop(w->api.rpcs);
    exbox_free(&b);
}

static void observe(struct world *w, struct exbox *b, const struct caller *caller) {
    uint8_t name[] = "e";
    V3electionpb__LeaderRequest m = V3ELECTIONPB__LEADER_REQUEST__INIT;
    m.name = (ProtobufCBinaryData){.len = 1, .data = name};
    begin(w, b, caller, "/v3electionpb.Election/Observe", &m.base, true);
    drive(w);
}

static void an_observer_hears_nothing_once_he_may_not(void **state) {
    struct world *w = *state;
    struct exbox alice, anonymous;
    struct span message;
    const struct caller user = certified("alice");
    make_users(w);
    put(w, "e/1", "first");
    observe(w, &anonymous, &nobody);
    change(w, AUTH_ENABLE, "", "", NULL);
    observe(w, &alice, &user);
    put(w, "e/1", "second");
    drive(w);
    assert_true(anonymous.done);
    assert_string_equal(anonymous.message, err_text(ERR_USER_EMPTY));
    assert_false(exbox_answer(&anonymous, 1, &message));
    assert_true(exbox_answer(&alice, 1, &message));
    change(w, AUTH_USER_REVOKE, "alice", "reader", NULL);
    put(w, "e/1", "third");
    drive(w);
    assert_true(alice.done);
    assert_int_equal(alice.code, err_grpc(ERR_AUTH_DENIED));
    assert_false(exbox_answer(&alice, 2, &message));
    exbox_free(&anonymous);
    exbox_free(&alice);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(nobody_reads_the_request_of_a_client_that_has_left),
        TEST(only_reads_that_all_allow_it_make_a_transaction_serializable),
        TEST(over_tls_clients_manage_nothing_while_auth_is_off),
        TEST(who_is_barred_gets_no_call_at_all),
        TEST(a_password_that_is_replaced_while_it_is_checked_buys_nothing),
        TEST(a_watch_of_nobody_ends_when_auth_comes_on),
        TEST(a_watch_ends_when_its_user_may_not_read_any_more),
        TEST(an_observer_hears_nothing_once_he_may_not),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
