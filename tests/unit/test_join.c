/* A newcomer and the members: it gets its answer, follows to the leader, and says its secret to
 * nobody but a manager of the cluster whose root it knows. The newcomer blocks, so it has a thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdio.h>

#include "tests/lib/peer_net.h"

static struct net net;

struct newcomer {
    uv_thread_t thread;
    char address[ADDRESS_MAX];
    char digest[ROOT_DIGEST_TEXT];
    uint64_t timeout_ms;
    struct wire_join request;
    struct buf memory;
    struct wire_joined joined;
    enum err result;
    struct why why;
    atomic_bool done;
};

static void newcomer_run(void *arg) {
    struct newcomer *n = arg;
    n->result = join_request(n->address, n->digest, &n->request, n->timeout_ms, &n->memory,
                             &n->joined, &n->why);
    atomic_store(&n->done, true);
}

static void newcomer_start(struct newcomer *n, const char *address, const char *digest) {
    memset(n, 0, sizeof *n);
    n->memory = buf_new(FRAME_MAX);
    n->timeout_ms = 10000;
    (void)snprintf(n->address, sizeof n->address, "%s", address);
    (void)snprintf(n->digest, sizeof n->digest, "%s", digest);
    (void)snprintf(n->request.token, sizeof n->request.token, "thesecretpartofthetoken00");
    (void)snprintf(n->request.name, sizeof n->request.name, "new");
    (void)snprintf(n->request.peer_address, sizeof n->request.peer_address, "127.0.0.1:7");
    n->request.request = span_str("the certificate request");
}

static void tick(uv_timer_t *t) { (void)t; } /* makes the loop turn, so that UNTIL sees `done` */

/* Runs the newcomer to its end while the members' loop goes on. */
static void newcomer_finish(struct newcomer *n) {
    uv_timer_t ticks;
    assert_int_equal(uv_timer_init(&net.loop, &ticks), 0);
    assert_int_equal(uv_timer_start(&ticks, tick, 1, 1), 0);
    assert_int_equal(uv_thread_create(&n->thread, newcomer_run, n), 0);
    UNTIL(&net, atomic_load(&n->done));
    assert_int_equal(uv_thread_join(&n->thread), 0);
    uv_close((uv_handle_t *)&ticks, NULL);
    (void)uv_run(&net.loop, UV_RUN_NOWAIT);
    assert_int_equal(n->memory.size == 0, n->result != OK);
}

static void newcomer_free(struct newcomer *n) { buf_wipe(&n->memory); }

static void grant(struct wire_joined *j, const struct pki *pki) {
    static const uint8_t key[32] = "0123456789abcdef0123456789abcde";
    *j = (struct wire_joined){.raft_id = 7, .n = 2};
    (void)snprintf(j->cluster_id, sizeof j->cluster_id, "%s", pki->cluster_id);
    (void)snprintf(j->node_id, sizeof j->node_id, "node7");
    j->cert = span_str("the certificate");
    j->root = buf_span(&pki->root);
    j->unlock_key = span_of(key, sizeof key);
    for (uint32_t i = 0; i < j->n; i++) {
        j->members[i].raft_id = i + 1;
        (void)snprintf(j->members[i].node_id, sizeof j->members[i].node_id, "node%u", i + 1);
    }
}

static void assert_asked(const struct net_node *node) {
    assert_int_equal(node->joins, 1);
    assert_string_equal(node->request.token, "thesecretpartofthetoken00");
    assert_string_equal(node->request.name, "new");
    assert_string_equal(node->request.peer_address, "127.0.0.1:7");
}

static void a_newcomer_gets_its_answer(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined answer;
    net_open(&net);
    grant(&answer, &net.pki);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &answer;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_string_equal(n.why.text, "");
    assert_int_equal(n.result, OK);
    assert_asked(a);
    assert_int_equal(n.joined.raft_id, 7);
    assert_string_equal(n.joined.node_id, "node7");
    assert_true(span_equal(n.joined.cert, answer.cert));
    assert_true(span_equal(n.joined.root, answer.root));
    assert_true(span_equal(n.joined.unlock_key, answer.unlock_key));
    assert_int_equal(n.joined.n, 2);
    assert_string_equal(n.joined.members[1].node_id, "node2");
    newcomer_free(&n);
    net_close(&net);
}

static void a_newcomer_follows_to_the_leader(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined answer, elsewhere = {.error = ERR_NOT_LEADER};
    net_open(&net);
    grant(&answer, &net.pki);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct net_node *b = net_node_open(&net, 2, NULL);
    (void)snprintf(elsewhere.leader, sizeof elsewhere.leader, "%s", b->address);
    a->answer = &elsewhere;
    b->answer = &answer;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, OK);
    assert_asked(a);
    assert_asked(b);
    newcomer_free(&n);
    net_close(&net);
}

static void a_circle_of_leaders_ends(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined elsewhere = {.error = ERR_NOT_LEADER};
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    (void)snprintf(elsewhere.leader, sizeof elsewhere.leader, "%s", a->address);
    a->answer = &elsewhere;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_NO_LEADER);
    assert_int_equal(a->joins, 9);
    net_close(&net);
}

static void a_refusal_comes_with_its_sentence(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined no = {.error = ERR_UNAUTHENTICATED, .text = "this token is not valid"};
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &no;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_UNAUTHENTICATED);
    assert_non_null(strstr(n.why.text, "this token is not valid"));
    assert_null(strstr(n.why.text, n.request.token));
    net_close(&net);
}

static void a_root_that_is_not_the_tokens_gets_no_secret(void **state) {
    (void)state;
    struct newcomer n;
    struct pki other;
    net_open(&net);
    pki_new(&other, NET_CLUSTER);
    struct net_node *a = net_node_open(&net, 1, NULL);
    newcomer_start(&n, a->address, other.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_CERTIFICATE);
    assert_non_null(strstr(n.why.text, "another root certificate than the one of the token"));
    assert_int_equal(a->joins, 0);
    pki_free(&other);
    net_close(&net);
}

/* It shows the right root, which is public, but its own certificate is not signed by it. */
static void a_liar_with_the_right_root_gets_no_secret(void **state) {
    (void)state;
    struct newcomer n;
    struct pki other;
    net_open(&net);
    pki_new(&other, NET_CLUSTER);
    struct net_node *a = net_node_open(&net, 1, &(struct net_fault){.pki = &other});
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_CERTIFICATE);
    assert_int_equal(a->joins, 0);
    pki_free(&other);
    net_close(&net);
}

static void a_node_that_is_no_manager_gets_no_secret(void **state) {
    (void)state;
    struct newcomer n;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, &(struct net_fault){.ou = ROLE_CLIENT});
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_CERTIFICATE);
    assert_non_null(strstr(n.why.text, "not a manager's"));
    assert_int_equal(a->joins, 0);
    net_close(&net);
}

static void an_answer_of_another_cluster_is_not_taken(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined answer;
    struct pki other;
    net_open(&net);
    pki_new(&other, "othercluster");
    grant(&answer, &other);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &answer;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_CERTIFICATE);
    grant(&answer, &net.pki);
    (void)snprintf(answer.cluster_id, sizeof answer.cluster_id, "othercluster");
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_PROTOCOL);
    pki_free(&other);
    net_close(&net);
}

static void no_answer_is_a_timeout_and_a_late_one_harms_nobody(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined answer;
    net_open(&net);
    grant(&answer, &net.pki);
    struct net_node *a = net_node_open(&net, 1, NULL);
    newcomer_start(&n, a->address, net.pki.digest);
    n.timeout_ms = 300;
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_TIMEOUT);
    assert_non_null(strstr(n.why.text, a->address));
    assert_non_null(a->joiner);
    join_answer(a->joiner, &answer); /* the newcomer has gone */
    newcomer_start(&n, a->address, net.pki.digest);
    n.timeout_ms = 300;
    newcomer_finish(&n);
    struct join_connection *c = a->joiner;
    net_node_close(a);
    join_answer(c, &answer); /* so have the peers */
    net_close(&net);
}

static void nobody_there_is_unreachable(void **state) {
    (void)state;
    struct newcomer n;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    newcomer_start(&n, a->address, net.pki.digest);
    net_node_close(a);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_UNREACHABLE);
    assert_non_null(strstr(n.why.text, "Connection refused"));
    newcomer_start(&n, "nonsense", net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_INVALID);
    net_close(&net);
}

/* ---- newcomers that do not keep to the rules ---- */

static void ask_twice(struct stranger *s) {
    struct wire_message m = {.type = WIRE_JOIN};
    (void)snprintf(m.join.token, sizeof m.join.token, "token");
    m.join.request = span_str("request");
    assert_int_equal(wire_encode(&m, &s->say), OK);
    assert_int_equal(wire_encode(&m, &s->say), OK);
}

static void a_newcomer_asks_once(void **state) {
    (void)state;
    struct stranger s;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    stranger_new(&s, &net, false, ALPN_JOIN, NULL);
    ask_twice(&s);
    stranger_dial(&s, a->address);
    UNTIL(&net, s.ended && net_logged(a, "refused: a frame out of turn"));
    assert_int_equal(a->joins, 1);
    join_answer(a->joiner, &(struct wire_joined){.error = ERR_INTERNAL});
    stranger_free(&s);
    net_close(&net);
}

static void a_newcomer_may_say_nothing_else(void **state) {
    (void)state;
    struct stranger s;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    stranger_new(&s, &net, false, ALPN_JOIN, NULL);
    stranger_hello(&s, 1, "node2", NET_CLUSTER, WIRE_VERSION);
    stranger_dial(&s, a->address);
    UNTIL(&net, s.ended && net_logged(a, "which newcomers don't send"));
    stranger_free(&s);
    stranger_new(&s, &net, false, ALPN_JOIN, NULL);
    assert_int_equal(buf_u32(&s.say, JOIN_FRAME_MAX), OK);
    stranger_dial(&s, a->address);
    UNTIL(&net, s.ended);
    stranger_free(&s);
    assert_int_equal(a->joins, 0);
    net_close(&net);
}

static void newcomers_at_once_are_bounded(void **state) {
    (void)state;
    static struct stranger s[JOINS_MAX + 5];
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(s); i++) {
        stranger_new(&s[i], &net, false, ALPN_JOIN, NULL);
        stranger_dial(&s[i], a->address);
        UNTIL(&net, s[i].said || s[i].ended);
    }
    UNTIL(&net, net_logged(a, "refused: more than 64 newcomers at once"));
    struct peers_figures f = {0};
    net_begin(&net);
    while (f.refused < 5) {
        net_turn(&net, "five are refused");
        peers_figures(a->peers, &f);
    }
    net_end(&net);
    assert_int_equal(f.refused, 5);
    for (size_t i = 0; i < ARRAY_SIZE(s); i++)
        stranger_free(&s[i]);
    net_close(&net);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_newcomer_gets_its_answer),
        cmocka_unit_test(a_newcomer_follows_to_the_leader),
        cmocka_unit_test(a_circle_of_leaders_ends),
        cmocka_unit_test(a_refusal_comes_with_its_sentence),
        cmocka_unit_test(a_root_that_is_not_the_tokens_gets_no_secret),
        cmocka_unit_test(a_liar_with_the_right_root_gets_no_secret),
        cmocka_unit_test(a_node_that_is_no_manager_gets_no_secret),
        cmocka_unit_test(an_answer_of_another_cluster_is_not_taken),
        cmocka_unit_test(no_answer_is_a_timeout_and_a_late_one_harms_nobody),
        cmocka_unit_test(nobody_there_is_unreachable),
        cmocka_unit_test(a_newcomer_asks_once),
        cmocka_unit_test(a_newcomer_may_say_nothing_else),
        cmocka_unit_test(newcomers_at_once_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
