/* Whoever is not a member by certificate, hello and table is refused with a sentence that says why,
 * and the members go on undisturbed. Every case: two members, one intruder, and after it frames
 * between the members still arrive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raft/loop.h"
#include "tests/lib/peer_net.h"

static struct net net;
static struct net_node *a, *b;

static bool both_connected(void) {
    return peers_is_connected(a->peers, b->id) && peers_is_connected(b->peers, a->id);
}

static void open_two(unsigned handshake_ms) {
    net_open(&net);
    a = net_node_open(&net, 1, &(struct net_fault){.handshake_ms = handshake_ms});
    b = net_node_open(&net, 2, NULL);
    net_meet(a, b);
    UNTIL(&net, both_connected());
}

static void assert_members_go_on(void) {
    assert_true(both_connected());
    for (int i = 0; i < 100; i++) {
        net_send(a, b, b->got[1] + (uint64_t)i, 1000);
        net_send(b, a, a->got[2] + (uint64_t)i, 1000);
    }
    uint64_t want_a = a->got[2] + 100, want_b = b->got[1] + 100;
    UNTIL(&net, a->got[2] == want_a && b->got[1] == want_b);
    assert_false(a->disorder || b->disorder);
    assert_int_equal(a->connected[2], 1);
    assert_int_equal(b->connected[1], 1);
}

static void assert_counted(void) {
    struct peers_figures f;
    peers_figures(a->peers, &f);
    assert_true(f.refused > 0);
}

/* ---- nodes with something wrong ---- */

/* Node 3 dials a, which has it in its table as it should be. */
static void assert_node_refused(const struct net_fault *fault, const char *sentence) {
    open_two(0);
    assert_int_equal(peers_set(a->peers, 3, "node3", ""), OK);
    struct net_node *c = net_node_open(&net, 3, fault);
    net_know(c, a);
    UNTIL(&net, net_logged(a, sentence));
    assert_true(net_logged(a, "1 connection from 127.0.0.1:"));
    UNTIL(&net, net_logged(c, "1 member node1 at "));
    assert_false(peers_is_connected(c->peers, 1));
    assert_int_equal(c->connected[1], 0);
    assert_counted();
    assert_members_go_on();
    net_close(&net);
}

static void a_certificate_of_a_foreign_root_is_refused(void **state) {
    (void)state;
    struct pki other;
    pki_new(&other, NET_CLUSTER);
    assert_node_refused(&(struct net_fault){.pki = &other}, "refused: ");
    pki_free(&other);
}

static void an_expired_certificate_is_refused(void **state) {
    (void)state;
    assert_node_refused(&(struct net_fault){.age_s = NODE_VALIDITY_S + 7200}, "expired");
}

static void a_certificate_that_is_not_valid_yet_is_refused(void **state) {
    (void)state;
    assert_node_refused(&(struct net_fault){.age_s = -86400}, "not yet valid");
}

static void a_certificate_of_another_role_is_refused(void **state) {
    (void)state;
    assert_node_refused(&(struct net_fault){.ou = ROLE_CLIENT},
                        "its certificate is a \"conclave-client\"'s, not a manager's");
}

static void a_certificate_of_another_cluster_is_refused(void **state) {
    (void)state;
    assert_node_refused(&(struct net_fault){.o = "othercluster"},
                        "its certificate is of cluster \"othercluster\"");
}

static void a_hello_with_another_node_than_the_certificates_is_refused(void **state) {
    (void)state;
    assert_node_refused(&(struct net_fault){.node_id = "node2"},
                        "its certificate says node node3, its hello another one");
}

static void another_raft_id_than_the_tables_is_refused(void **state) {
    (void)state;
    assert_node_refused(&(struct net_fault){.raft_id = 4},
                        "node node3 says raft id 4, the members have 3");
}

static void a_node_that_is_no_member_is_refused(void **state) {
    (void)state;
    assert_node_refused(&(struct net_fault){.cn = "node9", .node_id = "node9"},
                        "node node9 is no member known here");
}

/* The dialer looks as closely: a dials node 3, whose certificate is somebody else's. */
static void an_acceptor_with_another_certificate_is_left(void **state) {
    (void)state;
    open_two(0);
    struct net_node *c = net_node_open(&net, 3, &(struct net_fault){.cn = "node4"});
    net_know(a, c);
    UNTIL(&net, net_logged(a, "can't connect: its certificate is of node node4"));
    assert_false(peers_is_connected(a->peers, 3));
    assert_members_go_on();
    net_close(&net);
}

static void an_acceptor_with_a_foreign_certificate_is_left(void **state) {
    (void)state;
    struct pki other;
    pki_new(&other, NET_CLUSTER);
    open_two(0);
    struct net_node *c = net_node_open(&net, 3, &(struct net_fault){.pki = &other});
    net_know(a, c);
    UNTIL(&net, net_logged(a, "1 member node3 at "));
    assert_false(peers_is_connected(a->peers, 3));
    assert_members_go_on();
    net_close(&net);
    pki_free(&other);
}

/* ---- strangers that speak as they like ---- */

static void dial_a_until(struct stranger *s, const char *sentence) {
    stranger_dial(s, a->address);
    UNTIL(&net, s->ended && net_logged(a, sentence));
    assert_counted();
    stranger_free(s);
    assert_members_go_on();
    net_close(&net);
}

/* With node 3's good certificate; what it says is in s->say. */
static void open_stranger(struct stranger *s, const char *alpn) {
    static struct pki_node cert;
    open_two(0);
    assert_int_equal(peers_set(a->peers, 3, "node3", ""), OK);
    pki_node_new(&net.pki, "node3", ROLE_MANAGER, NET_CLUSTER, 0, &cert);
    stranger_new(s, &net, false, alpn, &cert);
    pki_node_free(&cert);
}

static void a_hello_of_another_cluster_is_refused(void **state) {
    (void)state;
    struct stranger s;
    open_stranger(&s, ALPN_PEER);
    stranger_hello(&s, 3, "node3", "othercluster", WIRE_VERSION);
    dial_a_until(&s, "refused: its hello is of another cluster");
}

static void a_hello_of_another_version_is_refused(void **state) {
    (void)state;
    struct stranger s;
    open_stranger(&s, ALPN_PEER);
    stranger_hello(&s, 3, "node3", NET_CLUSTER, 9);
    dial_a_until(&s, "refused: it speaks version 9, we speak 1");
}

static void a_frame_before_the_hello_is_refused(void **state) {
    (void)state;
    struct stranger s;
    struct buf frame;
    open_stranger(&s, ALPN_PEER);
    net_frame(0, 100, &frame);
    assert_int_equal(buf_add_span(&s.say, buf_span(&frame)), OK);
    buf_free(&frame);
    dial_a_until(&s, "refused: it does not begin with a hello");
}

static void a_first_frame_longer_than_a_hello_is_refused_before_it_is_there(void **state) {
    (void)state;
    struct stranger s;
    open_stranger(&s, ALPN_PEER);
    assert_int_equal(buf_u32(&s.say, HELLO_FRAME_MAX), OK);
    dial_a_until(&s, "refused: a frame that is longer than 1024 bytes");
}

static void a_frame_longer_than_the_limit_cuts_a_member(void **state) {
    (void)state;
    struct stranger s;
    open_stranger(&s, ALPN_PEER);
    stranger_hello(&s, 3, "node3", NET_CLUSTER, WIRE_VERSION);
    assert_int_equal(buf_u32(&s.say, FRAME_MAX), OK);
    stranger_dial(&s, a->address);
    UNTIL(&net, s.ended && net_logged(a, "its connection ended: a frame that is longer"));
    stranger_free(&s);
    assert_members_go_on();
    net_close(&net);
}

static void a_second_hello_cuts_a_member(void **state) {
    (void)state;
    struct stranger s;
    open_stranger(&s, ALPN_PEER);
    stranger_hello(&s, 3, "node3", NET_CLUSTER, WIRE_VERSION);
    stranger_hello(&s, 3, "node3", NET_CLUSTER, WIRE_VERSION);
    stranger_dial(&s, a->address);
    UNTIL(&net, s.ended && net_logged(a, "a frame of type 1, which members don't send"));
    stranger_free(&s);
    assert_members_go_on();
    net_close(&net);
}

static void a_newer_connection_of_a_member_ends_its_older(void **state) {
    (void)state;
    struct stranger s, t;
    struct pki_node cert;
    open_stranger(&s, ALPN_PEER);
    pki_node_new(&net.pki, "node3", ROLE_MANAGER, NET_CLUSTER, 0, &cert);
    stranger_new(&t, &net, false, ALPN_PEER, &cert);
    stranger_hello(&s, 3, "node3", NET_CLUSTER, WIRE_VERSION);
    stranger_hello(&t, 3, "node3", NET_CLUSTER, WIRE_VERSION);
    stranger_dial(&s, a->address);
    UNTIL(&net, s.plain.size > 0); /* a's hello: it is taken */
    stranger_dial(&t, a->address);
    UNTIL(&net, t.plain.size > 0 && s.ended);
    assert_false(t.ended);
    stranger_free(&s);
    stranger_free(&t);
    pki_node_free(&cert);
    assert_members_go_on();
    net_close(&net);
}

static void a_member_without_a_certificate_is_refused(void **state) {
    (void)state;
    struct stranger s;
    open_two(0);
    stranger_new(&s, &net, false, ALPN_PEER, NULL);
    dial_a_until(&s, "refused: it shows no certificate");
}

static void an_unknown_or_missing_protocol_is_refused(void **state) {
    (void)state;
    struct stranger s;
    open_stranger(&s, "h2");
    dial_a_until(&s, "refused: ");
    open_stranger(&s, NULL);
    dial_a_until(&s, "refused: ");
}

static void garbage_is_refused(void **state) {
    (void)state;
    struct stranger s;
    open_two(0);
    stranger_plain(&s, &net);
    assert_int_equal(buf_format(&s.say, "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"), OK);
    dial_a_until(&s, "refused: ");
    open_two(0);
    stranger_plain(&s, &net);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(buf_u64(&s.say, random_u64()), OK);
    dial_a_until(&s, "refused: ");
}

static void who_says_nothing_is_cut_after_a_while(void **state) {
    (void)state;
    struct stranger s;
    open_two(100);
    stranger_plain(&s, &net);
    dial_a_until(&s, "refused: nothing was said in time");
    open_two(100);
    stranger_new(&s, &net, false, ALPN_JOIN, NULL);
    dial_a_until(&s, "refused: nothing was said in time");
}

static void strangers_can_not_keep_members_out(void **state) {
    (void)state;
    static struct stranger s[STRANGERS_MAX + 20];
    open_two(0);
    for (size_t i = 0; i < ARRAY_SIZE(s); i++) {
        stranger_plain(&s[i], &net);
        stranger_dial(&s[i], a->address);
        if (i % 16 == 0) net_turn(&net, "accept");
    }
    struct net_node *c = net_node_open(&net, 3, NULL);
    net_meet(a, c);
    UNTIL(&net, peers_is_connected(c->peers, 1) && s[0].ended);
    unsigned ended = 0;
    for (size_t i = 0; i < ARRAY_SIZE(s); i++)
        ended += s[i].ended;
    assert_in_range(ended, 20, 60);
    for (size_t i = 0; i < ARRAY_SIZE(s); i++)
        stranger_free(&s[i]);
    assert_members_go_on();
    net_close(&net);
}

static void refusals_are_told_once_a_second_and_counted(void **state) {
    (void)state;
    open_two(0);
    unsigned before = a->sentences;
    for (int i = 0; i < 30; i++) {
        struct stranger s;
        stranger_plain(&s, &net);
        assert_int_equal(buf_format(&s.say, "no TLS at all, just text that goes on and on"), OK);
        stranger_dial(&s, a->address);
        UNTIL(&net, s.ended);
        stranger_free(&s);
    }
    struct peers_figures f;
    peers_figures(a->peers, &f);
    assert_int_equal(f.refused, 30);
    assert_in_range(a->sentences - before, 1, 10);
    net_close(&net);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_certificate_of_a_foreign_root_is_refused),
        cmocka_unit_test(an_expired_certificate_is_refused),
        cmocka_unit_test(a_certificate_that_is_not_valid_yet_is_refused),
        cmocka_unit_test(a_certificate_of_another_role_is_refused),
        cmocka_unit_test(a_certificate_of_another_cluster_is_refused),
        cmocka_unit_test(a_hello_with_another_node_than_the_certificates_is_refused),
        cmocka_unit_test(another_raft_id_than_the_tables_is_refused),
        cmocka_unit_test(a_node_that_is_no_member_is_refused),
        cmocka_unit_test(an_acceptor_with_another_certificate_is_left),
        cmocka_unit_test(an_acceptor_with_a_foreign_certificate_is_left),
        cmocka_unit_test(a_hello_of_another_cluster_is_refused),
        cmocka_unit_test(a_hello_of_another_version_is_refused),
        cmocka_unit_test(a_frame_before_the_hello_is_refused),
        cmocka_unit_test(a_first_frame_longer_than_a_hello_is_refused_before_it_is_there),
        cmocka_unit_test(a_frame_longer_than_the_limit_cuts_a_member),
        cmocka_unit_test(a_second_hello_cuts_a_member),
        cmocka_unit_test(a_newer_connection_of_a_member_ends_its_older),
        cmocka_unit_test(a_member_without_a_certificate_is_refused),
        cmocka_unit_test(an_unknown_or_missing_protocol_is_refused),
        cmocka_unit_test(garbage_is_refused),
        cmocka_unit_test(who_says_nothing_is_cut_after_a_while),
        cmocka_unit_test(strangers_can_not_keep_members_out),
        cmocka_unit_test(refusals_are_told_once_a_second_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
