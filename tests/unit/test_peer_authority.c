/* Live authority on the members' connections: a certificate says who somebody is, the cluster's
 * state says whether that is a manager now. Whoever is none is refused when it comes, and cut from
 * both directions at the next review; the others go on undisturbed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/peer_net.h"

static struct net net;
static struct net_node *a, *b, *c;

/* What the state says, as a sees it. */
static struct {
    const char *demoted;         /* node id; NULL: all are managers */
    uint8_t key[32], issuer[32]; /* of node3, when recorded */
    bool recorded;
    unsigned asked;
} authority;

static bool is_member(void *ctx, const char *node_id, const uint8_t key[32],
                      const uint8_t issuer[32]) {
    assert_ptr_equal(ctx, a);
    authority.asked++;
    if (authority.demoted != NULL && strcmp(authority.demoted, node_id) == 0) return false;
    if (!authority.recorded || strcmp(node_id, "node3") != 0) return true;
    return memcmp(key, authority.key, 32) == 0 && memcmp(issuer, authority.issuer, 32) == 0;
}

static bool connected(struct net_node *x, struct net_node *y) {
    return peers_is_connected(x->peers, y->id) && peers_is_connected(y->peers, x->id);
}

/* Members a and b, and node 3, which has its address in nobody's table yet. */
static void open_three(void) {
    memset(&authority, 0, sizeof authority);
    net_open(&net);
    a = net_node_open(&net, 1, &(struct net_fault){.is_member = is_member});
    b = net_node_open(&net, 2, NULL);
    c = net_node_open(&net, 3, NULL);
    net_meet(a, b);
    UNTIL(&net, connected(a, b));
}

static void assert_others_go_on(void) {
    for (int i = 0; i < 50; i++) {
        net_send(a, b, b->got[1] + (uint64_t)i, 1000);
        net_send(b, a, a->got[2] + (uint64_t)i, 1000);
    }
    uint64_t want_a = a->got[2] + 50, want_b = b->got[1] + 50;
    UNTIL(&net, a->got[2] == want_a && b->got[1] == want_b);
    assert_false(a->disorder || b->disorder);
    assert_int_equal(a->connected[2], 1);
    assert_int_equal(b->connected[1], 1);
}

static void who_is_no_manager_now_is_refused_with_a_good_certificate(void **state) {
    (void)state;
    struct peers_figures f;
    open_three();
    authority.demoted = "node3";
    assert_int_equal(peers_set(a->peers, 3, "node3", ""), OK);
    net_know(c, a);
    UNTIL(&net, net_logged(a, "refused: the cluster does not take node node3"));
    UNTIL(&net, net_logged(c, "1 member node1 at "));
    assert_int_equal(c->connected[1], 0);
    peers_figures(a->peers, &f);
    assert_true(f.refused > 0);
    assert_others_go_on();
    net_close(&net);
}

static void who_is_no_manager_now_is_not_dialed_for_long(void **state) {
    (void)state;
    open_three();
    authority.demoted = "node3";
    assert_int_equal(peers_set(c->peers, 1, "node1", ""), OK);
    net_know(a, c);
    UNTIL(&net, net_logged(a, "can't connect: the cluster does not take node node3"));
    assert_int_equal(a->connected[3], 0);
    net_send(a, c, 0, 100); /* dropped: nothing leaves for it */
    assert_others_go_on();
    assert_int_equal(c->got[1], 0);
    net_close(&net);
}

static void a_demoted_managers_open_connections_are_cut_and_come_back_with_the_role(void **state) {
    (void)state;
    open_three();
    net_meet(a, c);
    UNTIL(&net, connected(a, c));
    net_send(c, a, 0, 100);
    net_send(a, c, 0, 100);
    UNTIL(&net, a->got[3] == 1 && c->got[1] == 1);
    peers_review(a->peers); /* all are managers */
    assert_true(connected(a, c));
    authority.demoted = "node3";
    net_send(c, a, 1, 100);
    peers_review(a->peers);
    assert_false(peers_is_connected(a->peers, 3)); /* at once */
    UNTIL(&net, !peers_is_connected(c->peers, 1));
    assert_true(net_logged(a, "member node3 at "));
    assert_true(net_logged(a, "its connection ended: the cluster does not take node node3") ||
                net_logged(a, "connection lost: the cluster does not take node node3"));
    UNTIL(&net,
          net_logged(a, "refused: the cluster does not take node node3")); /* it tries again */
    assert_int_equal(a->got[3], 1); /* what it said meanwhile was not heard */
    assert_others_go_on();
    authority.demoted = NULL;
    UNTIL(&net, connected(a, c));
    assert_others_go_on();
    net_close(&net);
}

static void a_review_asks_for_every_open_connection_both_ways(void **state) {
    (void)state;
    open_three();
    net_meet(a, c);
    UNTIL(&net, connected(a, c));
    authority.asked = 0;
    peers_review(a->peers);
    assert_int_equal(authority.asked, 4);
    net_close(&net);
}

/* Somebody has a certificate of node 3 that the cluster did not issue last. */
static void another_key_than_the_recorded_one_is_refused(void **state) {
    (void)state;
    struct pki_node stolen;
    struct stranger s;
    open_three();
    assert_int_equal(x509_key_digest(buf_span(&c->cert.cert), authority.key), OK);
    assert_int_equal(x509_key_digest(buf_span(&net.pki.root), authority.issuer), OK);
    authority.recorded = true;
    assert_int_equal(peers_set(a->peers, 3, "node3", ""), OK);
    pki_node_new(&net.pki, "node3", ROLE_MANAGER, NET_CLUSTER, 0, &stolen);
    stranger_new(&s, &net, false, ALPN_PEER, &stolen);
    stranger_hello(&s, 3, "node3", NET_CLUSTER, WIRE_VERSION);
    stranger_dial(&s, a->address);
    UNTIL(&net,
          s.ended && net_logged(a, "refused: the cluster does not take node node3 with this"));
    stranger_free(&s);
    pki_node_free(&stolen);
    net_meet(a, c); /* the real one is let in */
    UNTIL(&net, connected(a, c));
    assert_others_go_on();
    net_close(&net);
}

/* The same node of another issuer, after that one was given up. */
static void a_certificate_of_a_former_root_is_cut_by_a_review(void **state) {
    (void)state;
    open_three();
    net_meet(a, c);
    UNTIL(&net, connected(a, c));
    assert_int_equal(x509_key_digest(buf_span(&c->cert.cert), authority.key), OK);
    memset(authority.issuer, 7, sizeof authority.issuer);
    authority.recorded = true;
    peers_review(a->peers);
    assert_false(peers_is_connected(a->peers, 3));
    UNTIL(&net, !peers_is_connected(c->peers, 1));
    assert_others_go_on();
    net_close(&net);
}

static void a_workers_certificate_opens_no_members_connection(void **state) {
    (void)state;
    struct pki_node worker;
    struct stranger s;
    open_three();
    assert_int_equal(peers_set(a->peers, 3, "node3", ""), OK);
    pki_node_new(&net.pki, "node3", ROLE_WORKER, NET_CLUSTER, 0, &worker);
    stranger_new(&s, &net, false, ALPN_PEER, &worker);
    stranger_hello(&s, 3, "node3", NET_CLUSTER, WIRE_VERSION);
    stranger_dial(&s, a->address);
    UNTIL(&net,
          s.ended && net_logged(a, "its certificate is a \"swarm-worker\"'s, not a manager's"));
    stranger_free(&s);
    pki_node_free(&worker);
    assert_others_go_on();
    net_close(&net);
}

/* All that a member has put on the wire, once more: every connection has keys of its own. */
static void what_was_recorded_on_the_wire_is_of_no_use(void **state) {
    (void)state;
    struct stranger real, again;
    struct buf frame;
    open_three();
    assert_int_equal(peers_set(a->peers, 3, "node3", ""), OK);
    stranger_new(&real, &net, false, ALPN_PEER, &c->cert);
    stranger_hello(&real, 3, "node3", NET_CLUSTER, WIRE_VERSION);
    net_frame(0, 500, &frame);
    assert_int_equal(buf_add_span(&real.say, buf_span(&frame)), OK);
    buf_free(&frame);
    stranger_dial(&real, a->address);
    UNTIL(&net, a->got[3] == 1);
    stranger_plain(&again, &net);
    assert_int_equal(buf_add_span(&again.say, buf_span(&real.wire)), OK);
    stranger_hang_up(&real);
    stranger_dial(&again, a->address);
    UNTIL(&net, again.ended && net_logged(a, "refused: "));
    assert_int_equal(a->got[3], 1);
    stranger_free(&real);
    stranger_free(&again);
    assert_others_go_on();
    net_close(&net);
}

/* A member with a good certificate says in its hello that it is another one. */
static void a_member_does_not_speak_as_another_member(void **state) {
    (void)state;
    struct stranger s;
    struct buf frame;
    open_three();
    assert_int_equal(peers_set(a->peers, 3, "node3", ""), OK);
    for (int i = 0; i < 2; i++) {
        stranger_new(&s, &net, false, ALPN_PEER, &c->cert);
        stranger_hello(&s, 2, i == 0 ? "node2" : "node3", NET_CLUSTER, WIRE_VERSION);
        net_frame(0, 500, &frame);
        assert_int_equal(buf_add_span(&s.say, buf_span(&frame)), OK);
        buf_free(&frame);
        stranger_dial(&s, a->address);
        UNTIL(&net, s.ended);
        stranger_free(&s);
    }
    assert_true(net_logged(a, "its certificate says node node3, its hello another one"));
    assert_int_equal(a->got[2] + a->got[3], 0);
    assert_others_go_on();
    net_close(&net);
}

/* ---- while the root changes ---- */

/* a has its certificate of the next root already, b still of the present one; both trust both. */
static void members_meet_across_a_rotation(void **state) {
    (void)state;
    struct pki next;
    struct why why = {0};
    struct buf cross = buf_new(PEM_MAX), both = buf_new(PEM_MAX);
    net_open(&net);
    pki_new(&next, NET_CLUSTER);
    assert_int_equal(
        x509_cross(net.pki.key, buf_span(&net.pki.root), buf_span(&next.root), &cross, &why), OK);
    assert_int_equal(buf_add_span(&both, buf_span(&net.pki.root)), OK);
    assert_int_equal(buf_add_span(&both, buf_span(&next.root)), OK);
    a = net_node_open(
        &net, 1,
        &(struct net_fault){.pki = &next, .more = buf_span(&cross), .roots = buf_span(&both)});
    b = net_node_open(&net, 2, &(struct net_fault){.roots = buf_span(&both)});
    c = net_node_open(&net, 3, NULL); /* has not heard of the next root */
    net_meet(a, b);
    net_meet(a, c);
    UNTIL(&net, connected(a, b) && connected(a, c));
    assert_others_go_on();
    /* The present root is given up: c's certificate is of no use with a any more. */
    assert_int_equal(peers_credentials(a->peers, buf_span(&next.root), buf_span(&a->cert.cert),
                                       a->cert.key, &why),
                     OK);
    char address[ADDRESS_MAX];
    (void)snprintf(address, sizeof address, "%s", c->address);
    net_node_close(c);
    c = net_node_open(&net, 3, &(struct net_fault){.address = address});
    net_meet(a, c);
    UNTIL(&net, net_logged(a, "refused: "));
    assert_int_equal(c->connected[1], 0);
    net_close(&net);
    pki_free(&next);
    buf_free(&cross);
    buf_free(&both);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_no_manager_now_is_refused_with_a_good_certificate),
        cmocka_unit_test(who_is_no_manager_now_is_not_dialed_for_long),
        cmocka_unit_test(a_demoted_managers_open_connections_are_cut_and_come_back_with_the_role),
        cmocka_unit_test(a_review_asks_for_every_open_connection_both_ways),
        cmocka_unit_test(another_key_than_the_recorded_one_is_refused),
        cmocka_unit_test(a_certificate_of_a_former_root_is_cut_by_a_review),
        cmocka_unit_test(a_workers_certificate_opens_no_members_connection),
        cmocka_unit_test(what_was_recorded_on_the_wire_is_of_no_use),
        cmocka_unit_test(a_member_does_not_speak_as_another_member),
        cmocka_unit_test(members_meet_across_a_rotation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
