/* Whoever is not of the cluster, no manager where one is due, or no longer wanted is refused or
 * left, with a sentence on both sides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/fault.h"
#include "tests/lib/session_net.h"

/* ---- refusals ---- */

static void a_server_of_another_root_is_not_believed(void **state) {
    (void)state;
    struct node n;
    struct pki other;
    begin();
    pki_new(&other, NET_CLUSTER);
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    c.root_pem = buf_span(&other.root);
    node_dial(&n, &c);
    assert_closed(&n, ERR_CERTIFICATE, "issued by another cluster's root");
    assert_int_equal(n.opened, 0);
    pki_free(&other);
    assert_not_seen();
}

/* A man in the middle who shows the right root, which is public, with a certificate of his own. */
static void a_liar_with_the_right_root_is_not_believed(void **state) {
    (void)state;
    struct node n;
    struct pki other;
    pki_new(&other, NET_CLUSTER);
    begin_with(&(struct net_fault){.pki = &other});
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    node_dial(&n, &c);
    assert_closed(&n, ERR_CERTIFICATE, "");
    assert_int_equal(n.opened, 0);
    pki_free(&other);
    assert_not_seen();
}

static void assert_server_refused(const struct net_fault *fault, const char *sentence) {
    struct node n;
    begin_with(fault);
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    node_dial(&n, &c);
    assert_closed(&n, ERR_CERTIFICATE, sentence);
    assert_int_equal(n.opened, 0);
    end();
}

static void a_server_that_is_no_manager_is_not_believed(void **state) {
    (void)state;
    assert_server_refused(&(struct net_fault){.ou = ROLE_WORKER}, "not a manager's");
}

static void a_server_of_another_cluster_is_not_believed(void **state) {
    (void)state;
    assert_server_refused(&(struct net_fault){.o = "othercluster"},
                          "its certificate is of cluster \"othercluster\"");
}

static void a_server_whose_certificate_ran_out_is_not_believed(void **state) {
    (void)state;
    assert_server_refused(&(struct net_fault){.age_s = NODE_VALIDITY_S + 7200}, "expired");
}

/* A manager that was demoted may still have a certificate that says manager. */
static void a_manager_that_is_not_the_one_meant_is_not_believed(void **state) {
    (void)state;
    struct node n = {0};
    begin();
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    (void)snprintf(c.node_id, sizeof c.node_id, "anothermanager");
    node_dial(&n, &c);
    assert_closed(&n, ERR_CERTIFICATE, ", not anothermanager");
    assert_int_equal(n.opened, 0);
    end();
}

/* Of the node's certificate: who signed it, for which cluster, and how long ago. */
static void assert_node_refused(const struct pki *pki, const char *cluster, int64_t age_s,
                                enum err e, const char *here, const char *there) {
    struct node n = {0};
    begin();
    pki_node_new(pki != NULL ? pki : &t.net.pki, "workernode1", ROLE_WORKER, cluster, age_s,
                 &n.cert);
    struct uplink_config c = node_config(&n);
    node_dial(&n, &c);
    assert_closed(&n, e, here);
    assert_true(net_logged(t.a, there));
    assert_not_seen();
}

static void a_node_of_another_root_is_refused(void **state) {
    (void)state;
    struct pki other;
    pki_new(&other, NET_CLUSTER);
    assert_node_refused(&other, NET_CLUSTER, 0, ERR_CERTIFICATE, "issued by another cluster's root",
                        "refused: ");
    pki_free(&other);
}

static void a_node_of_another_cluster_is_refused(void **state) {
    (void)state;
    assert_node_refused(NULL, "othercluster", 0, ERR_CLOSED, "",
                        "refused: its certificate is of cluster \"othercluster\"");
}

static void a_node_whose_certificate_ran_out_is_refused(void **state) {
    (void)state;
    assert_node_refused(NULL, NET_CLUSTER, NODE_VALIDITY_S + 7200, ERR_CERTIFICATE,
                        "our certificate has expired", "expired");
}

static void a_node_that_is_not_wanted_hears_why(void **state) {
    (void)state;
    struct node n;
    struct peers_figures f;
    begin();
    t.manager.refuse = ERR_PERMISSION;
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    node_dial(&n, &c);
    assert_closed(&n, ERR_PERMISSION, "node workernode1 is not wanted");
    peers_figures(t.a->peers, &f);
    assert_int_equal(f.refused, 1);
    assert_int_equal(t.manager.refused, 1);
    assert_not_seen();
}

static void a_node_that_is_cut_hears_why_and_is_heard_no_more(void **state) {
    (void)state;
    struct node n;
    struct buf b = buf_new(SESSION_FRAME_MAX);
    begin();
    node_connect(&n, "workernode1");
    struct seen *seen = &t.manager.seen[0];
    say_to_node(seen, 0, 100, &b);
    session_cut(seen->session, ERR_PERMISSION, "this node was removed");
    session_cut(seen->session, ERR_PERMISSION, "again");
    say_to_node(seen, 1, 100, &b); /* without effect */
    assert_false(seen->closed);
    for (uint64_t i = 0; i < 10; i++)
        say_to_manager(&n, i, 1000, &b);
    UNTIL(&t.net, seen->closed);
    assert_int_equal(seen->messages, 0);
    assert_closed(&n, ERR_PERMISSION, "this node was removed");
    assert_int_equal(n.messages, 1);
    assert_true(net_logged(t.a, "session of node workernode1 at 127.0.0.1:"));
    assert_true(net_logged(t.a, "cut: this node was removed"));
    buf_free(&b);
    end();
}

static void a_message_that_makes_no_sense_ends_the_session(void **state) {
    (void)state;
    struct node n;
    struct buf b = buf_new(SESSION_FRAME_MAX);
    begin();
    node_connect(&n, "workernode1");
    t.manager.object = ERR_PROTOCOL;
    for (uint64_t i = 0; i < 3; i++)
        say_to_manager(&n, i, 100, &b);
    assert_closed(&n, ERR_PROTOCOL, "this makes no sense");
    UNTIL(&t.net, t.manager.seen[0].closed);
    t.manager.object = OK;
    node_connect(&n, "workernode2");
    n.object = ERR_PROTOCOL;
    say_to_node(&t.manager.seen[1], 0, 100, &b);
    assert_closed(&n, ERR_PROTOCOL, "the manager talks nonsense");
    UNTIL(&t.net, t.manager.seen[1].closed);
    buf_free(&b);
    end();
}

static void a_review_cuts_who_may_not_stay(void **state) {
    (void)state;
    struct node n[3];
    struct buf b = buf_new(SESSION_FRAME_MAX);
    begin();
    for (unsigned i = 0; i < 3; i++) {
        char id[24];
        (void)snprintf(id, sizeof id, "workernode%u", i);
        node_connect(&n[i], id);
    }
    peers_review(t.a->peers);
    t.manager.unwanted = "workernode1";
    peers_review(t.a->peers);
    peers_review(t.a->peers);
    assert_closed(&n[1], ERR_PERMISSION, "node workernode1 was removed");
    assert_true(net_logged(t.a, "cut: node workernode1 was removed"));
    for (unsigned i = 0; i < 3; i += 2) {
        say_to_node(&t.manager.seen[i], 0, 100, &b);
        say_to_manager(&n[i], 0, 100, &b);
        UNTIL(&t.net, n[i].messages == 1 && t.manager.seen[i].messages == 1);
        node_end(&n[i]);
        assert_int_equal(n[i].closed, 0);
    }
    buf_free(&b);
    end();
}

static void nodes_at_once_are_bounded(void **state) {
    (void)state;
    struct node n;
    begin();
    t.a->peers->sessions += SESSIONS_MAX; /* as if they were there */
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    node_dial(&n, &c);
    assert_closed(&n, ERR_CLOSED, "");
    assert_true(net_logged(t.a, "refused: more than 4096 nodes at once"));
    t.a->peers->sessions -= SESSIONS_MAX;
    node_connect(&n, "workernode1");
    node_end(&n);
    end();
}

static void without_events_sessions_are_refused(void **state) {
    (void)state;
    struct node n;
    net_open(&t.net);
    memset(&t.manager, 0, sizeof t.manager);
    t.a = net_node_open(&t.net, 1, NULL);
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    node_dial(&n, &c);
    assert_closed(&n, ERR_CLOSED, "");
    assert_true(net_logged(t.a, "refused: sessions of nodes are not taken here"));
    assert_not_seen();
}

/* ---- strangers ---- */

static void assert_stranger_cut(struct stranger *s, const char *sentence) {
    stranger_dial(s, t.a->address);
    UNTIL(&t.net, s->ended && net_logged(t.a, sentence));
    stranger_free(s);
    end();
}

static void a_node_without_a_certificate_is_refused(void **state) {
    (void)state;
    struct stranger s;
    open_stranger(&s, false);
    assert_stranger_cut(&s, "refused: it shows no certificate");
    assert_int_equal(t.manager.n, 0);
}

static void frames_that_nodes_do_not_send_end_a_session(void **state) {
    (void)state;
    struct stranger s;
    struct wire_message last = {.type = WIRE_NODE, .node = {.body = span_str("last word")}};
    struct wire_message join = {.type = WIRE_JOIN, .join = {.kind = JOIN_RENEW}};
    open_stranger(&s, true);
    stranger_says(&s, &last);
    assert_stranger_cut(&s, "cut: a frame that nodes don't send");
    open_stranger(&s, true);
    stranger_says(&s, &join);
    assert_stranger_cut(&s, "cut: a frame that nodes don't send");
    open_stranger(&s, true);
    stranger_hello(&s, 3, "node3", NET_CLUSTER, WIRE_VERSION);
    assert_stranger_cut(&s, "cut: a frame that nodes don't send");
    assert_int_equal(t.manager.seen[0].messages, 0);
}

static void a_frame_longer_than_a_message_ends_a_session_before_it_is_there(void **state) {
    (void)state;
    struct stranger s;
    open_stranger(&s, true);
    assert_int_equal(buf_u32(&s.say, SESSION_FRAME_MAX), OK);
    stranger_dial(&s, t.a->address);
    UNTIL(&t.net, s.ended);
    assert_int_equal(t.manager.n, 1);
    stranger_free(&s);
    end();
}

/* With a member's certificate: a raft frame on a session is no member's frame. */
static void a_session_is_no_way_in_for_raft_frames(void **state) {
    (void)state;
    struct stranger s;
    struct pki_node cert;
    struct buf frame;
    begin();
    assert_int_equal(peers_set(t.a->peers, 2, "node2", ""), OK);
    pki_node_new(&t.net.pki, "node2", ROLE_MANAGER, NET_CLUSTER, 0, &cert);
    stranger_new(&s, &t.net, false, ALPN_NODE, &cert);
    pki_node_free(&cert);
    net_frame(0, 100, &frame);
    assert_int_equal(buf_add_span(&s.say, buf_span(&frame)), OK);
    buf_free(&frame);
    assert_stranger_cut(&s, "cut: a frame that nodes don't send");
    assert_int_equal(t.a->got[2], 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_of_another_root_is_not_believed),
        cmocka_unit_test(a_liar_with_the_right_root_is_not_believed),
        cmocka_unit_test(a_server_that_is_no_manager_is_not_believed),
        cmocka_unit_test(a_server_of_another_cluster_is_not_believed),
        cmocka_unit_test(a_server_whose_certificate_ran_out_is_not_believed),
        cmocka_unit_test(a_manager_that_is_not_the_one_meant_is_not_believed),
        cmocka_unit_test(a_node_of_another_root_is_refused),
        cmocka_unit_test(a_node_of_another_cluster_is_refused),
        cmocka_unit_test(a_node_whose_certificate_ran_out_is_refused),
        cmocka_unit_test(a_node_that_is_not_wanted_hears_why),
        cmocka_unit_test(a_node_that_is_cut_hears_why_and_is_heard_no_more),
        cmocka_unit_test(a_message_that_makes_no_sense_ends_the_session),
        cmocka_unit_test(a_review_cuts_who_may_not_stay),
        cmocka_unit_test(nodes_at_once_are_bounded),
        cmocka_unit_test(without_events_sessions_are_refused),
        cmocka_unit_test(a_node_without_a_certificate_is_refused),
        cmocka_unit_test(frames_that_nodes_do_not_send_end_a_session),
        cmocka_unit_test(a_frame_longer_than_a_message_ends_a_session_before_it_is_there),
        cmocka_unit_test(a_session_is_no_way_in_for_raft_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
