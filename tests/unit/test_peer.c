/* Members that talk to each other: frames arrive whole and in order, connections come back, tables
 * and certificates change under way, nothing grows without a bound, and closing at any moment
 * leaves nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "raft/peer_internal.h"
#include "tests/lib/fault.h"
#include "tests/lib/peer_net.h"

static struct net net;

static bool both_connected(struct net_node *a, struct net_node *b) {
    return peers_is_connected(a->peers, b->id) && peers_is_connected(b->peers, a->id);
}

/* Two nodes that know each other and are connected both ways. */
static void open_two(struct net_node **a, struct net_node **b) {
    net_open(&net);
    *a = net_node_open(&net, 1, NULL);
    *b = net_node_open(&net, 2, NULL);
    net_meet(*a, *b);
    UNTIL(&net, both_connected(*a, *b));
}

static size_t size_of(uint64_t seq) {
    if (seq % 1000 == 999) return 3 * MIB;
    if (seq % 100 == 50) return 100 * KIB + seq;
    if (seq % 10 == 3) return 12 * KIB + seq % 5000;
    return 13 + seq * 7919 % 400;
}

static void send_some(struct net_node *from, struct net_node *to, uint64_t *sent, uint64_t all) {
    while (*sent < all && peers_queued(from->peers, to->id) < MIB) {
        net_send(from, to, *sent, size_of(*sent));
        (*sent)++;
    }
}

/* Sends on wherever there is room. */
static bool all_exchanged(uint64_t sent[3][3], uint64_t all) {
    uint64_t done = 0;
    for (int i = 0; i < 9; i++) {
        if (i / 3 == i % 3) continue;
        send_some(&net.nodes[i / 3], &net.nodes[i % 3], &sent[i / 3][i % 3], all);
        done += net.nodes[i % 3].got[i / 3 + 1];
    }
    return done == 6 * all;
}

static void three_members_exchange_10000_frames_of_mixed_sizes_in_order(void **state) {
    (void)state;
    net_open(&net);
    const uint64_t all = 10000 / 6 + 1;
    uint64_t sent[3][3] = {{0}};
    for (uint64_t id = 1; id <= 3; id++)
        (void)net_node_open(&net, id, NULL);
    for (int i = 0; i < 3; i++)
        net_meet(&net.nodes[i], &net.nodes[(i + 1) % 3]);
    for (int i = 0; i < 3; i++)
        UNTIL(&net, both_connected(&net.nodes[i], &net.nodes[(i + 1) % 3]));
    UNTIL(&net, all_exchanged(sent, all));
    for (int i = 0; i < 3; i++) {
        struct peers_figures f;
        peers_figures(net.nodes[i].peers, &f);
        assert_false(net.nodes[i].disorder);
        assert_int_equal(f.frames_out, 2 * all);
        assert_int_equal(f.frames_in, 2 * all);
        assert_int_equal(f.dropped, 0);
        assert_int_equal(f.refused, 0);
        assert_int_equal(f.connected, 2);
    }
    net_close(&net);
}

static void the_largest_frame_arrives(void **state) {
    (void)state;
    struct net_node *a, *b;
    open_two(&a, &b);
    net_send(a, b, 0, FRAME_MAX);
    net_send(a, b, 1, 13);
    UNTIL(&net, b->got[a->id] == 2);
    assert_false(b->disorder);
    net_close(&net);
}

static void frames_of_one_turn_leave_without_waiting_for_the_next_event(void **state) {
    (void)state;
    struct net_node *a, *b;
    open_two(&a, &b);
    for (uint64_t round = 0; round < 200; round++) {
        net_send(a, b, round, 100);
        int turns = 0;
        UNTIL(&net, ++turns > 20 || b->got[a->id] == round + 1);
        assert_true(turns <= 20);
    }
    net_close(&net);
}

static void a_frame_for_a_member_that_is_away_is_dropped_and_counted(void **state) {
    (void)state;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct peers_figures f;
    assert_int_equal(peers_set(a->peers, 2, "node2", ""), OK);
    struct buf frame;
    net_frame(0, 100, &frame);
    peers_send(a->peers, 2, &frame);
    net_frame(0, 100, &frame);
    peers_send(a->peers, 77, &frame);
    peers_figures(a->peers, &f);
    assert_int_equal(f.dropped, 2);
    assert_true(peers_queued(a->peers, 2) == SIZE_MAX);
    assert_true(peers_queued(a->peers, 77) == SIZE_MAX);
    assert_false(peers_is_connected(a->peers, 2));
    net_close(&net);
}

static void a_member_that_comes_back_is_connected_again(void **state) {
    (void)state;
    struct net_node *a, *b;
    char address[ADDRESS_MAX];
    open_two(&a, &b);
    net_send(a, b, 0, 100);
    UNTIL(&net, b->got[a->id] == 1);
    (void)snprintf(address, sizeof address, "%s", b->address);
    net_node_close(b);
    UNTIL(&net, !peers_is_connected(a->peers, 2));
    UNTIL(&net, net_logged(a, "can't connect: connection refused"));
    b = net_node_open(&net, 2, &(struct net_fault){.address = address});
    net_know(b, a);
    UNTIL(&net, both_connected(a, b));
    assert_int_equal(a->connected[2], 2);
    net_send(a, b, 0, 100);
    net_send(b, a, 0, 100);
    UNTIL(&net, b->got[1] == 1 && a->got[2] == 1);
    net_close(&net);
}

static void a_member_that_dials_us_is_dialed_without_waiting(void **state) {
    (void)state;
    struct net_node *a, *b;
    char address[ADDRESS_MAX];
    open_two(&a, &b);
    (void)snprintf(address, sizeof address, "%s", b->address);
    net_node_close(b);
    UNTIL(&net, peers_find(a->peers, 2)->state == LINK_WAIT);
    (void)uv_timer_stop(&peers_find(a->peers, 2)->timer); /* it would wait for ever */
    b = net_node_open(&net, 2, &(struct net_fault){.address = address});
    net_know(b, a);
    UNTIL(&net, both_connected(a, b));
    net_close(&net);
}

static void a_changed_address_is_dialed_at_once(void **state) {
    (void)state;
    struct net_node *a, *b;
    open_two(&a, &b);
    net_node_close(b);
    b = net_node_open(&net, 2, NULL);
    net_know(b, a);
    UNTIL(&net, a->moved_id == 2); /* it tells its new address when it dials us */
    assert_string_equal(a->moved, b->address);
    assert_int_equal(peers_set(a->peers, 2, b->node_id, a->moved), OK);
    UNTIL(&net, both_connected(a, b));
    net_send(a, b, 0, 100);
    UNTIL(&net, b->got[1] == 1);
    net_close(&net);
}

static void setting_the_same_again_changes_nothing(void **state) {
    (void)state;
    struct net_node *a, *b;
    open_two(&a, &b);
    for (int i = 0; i < 10; i++)
        net_meet(a, b);
    assert_int_equal(peers_set(a->peers, a->id, a->node_id, a->address), OK);
    assert_true(both_connected(a, b));
    net_send(a, b, 0, 100);
    UNTIL(&net, b->got[1] == 1);
    assert_int_equal(a->connected[2], 1);
    net_close(&net);
}

static void a_removed_member_is_cut_at_once_and_not_let_in_again(void **state) {
    (void)state;
    struct net_node *a, *b;
    open_two(&a, &b);
    net_send(b, a, 0, 100);
    UNTIL(&net, a->got[2] == 1);
    peers_remove(a->peers, 2);
    assert_false(peers_is_connected(a->peers, 2));
    net_send(b, a, 1, 100);
    UNTIL(&net, !peers_is_connected(b->peers, 1));
    UNTIL(&net, net_logged(a, "refused: node node2 is no member known here"));
    assert_int_equal(a->got[2], 1);
    net_know(a, b);
    UNTIL(&net, both_connected(a, b));
    net_close(&net);
}

static void another_node_under_the_same_raft_id_replaces_the_first(void **state) {
    (void)state;
    struct net_node *a, *b;
    open_two(&a, &b);
    assert_int_equal(peers_set(a->peers, 2, "othernode", b->address), OK);
    assert_false(peers_is_connected(a->peers, 2));
    UNTIL(&net, net_logged(a, "its certificate is of node node2"));
    UNTIL(&net, !peers_is_connected(b->peers, 1));
    net_close(&net);
}

static void the_table_is_bounded_and_checked(void **state) {
    (void)state;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    assert_int_equal(peers_set(a->peers, 0, "x", ""), ERR_INVALID);
    assert_int_equal(peers_set(a->peers, 2, "", ""), ERR_INVALID);
    assert_int_equal(peers_set(a->peers, 2, "x", "nonsense"), ERR_INVALID);
    assert_int_equal(peers_set(a->peers, 2, "12345678901234567890123456", ""), ERR_INVALID);
    for (uint64_t id = 2; id < 2 + MEMBERS_MAX; id++)
        assert_int_equal(peers_set(a->peers, id, "x", ""), OK);
    assert_int_equal(peers_set(a->peers, 100, "x", ""), ERR_TOO_LARGE);
    peers_remove(a->peers, 5);
    peers_remove(a->peers, 5);
    assert_int_equal(peers_set(a->peers, 100, "x", ""), OK);
    net_close(&net);
}

static void a_reader_that_stops_holds_no_more_than_the_bound(void **state) {
    (void)state;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct pki_node cert;
    struct stranger s;
    struct peers_figures f = {0};
    pki_node_new(&net.pki, "node2", ROLE_MANAGER, NET_CLUSTER, 0, &cert);
    stranger_new(&s, &net, true, ALPN_PEER, &cert);
    s.deaf = true;
    stranger_hello(&s, 2, "node2", NET_CLUSTER, WIRE_VERSION);
    stranger_listen(&s);
    assert_int_equal(peers_set(a->peers, 2, "node2", s.address), OK);
    stranger_answer(&s);
    UNTIL(&net, peers_is_connected(a->peers, 2));
    for (uint64_t seq = 0; f.dropped < 100; seq++) {
        struct buf frame;
        net_frame(seq, seq % 2 == 0 ? MIB : 200, &frame);
        peers_send(a->peers, 2, &frame);
        assert_true(peers_queued(a->peers, 2) <= PEER_QUEUE_MAX);
        (void)uv_run(&net.loop, UV_RUN_NOWAIT);
        peers_figures(a->peers, &f);
    }
    assert_true(peers_queued(a->peers, 2) > PEER_QUEUE_MAX - 2 * MIB);
    stranger_hang_up(&s);
    UNTIL(&net, !peers_is_connected(a->peers, 2));
    assert_true(peers_queued(a->peers, 2) == SIZE_MAX);
    stranger_free(&s);
    pki_node_free(&cert);
    net_close(&net);
}

static void a_stuck_connection_is_cut_in_the_end(void **state) {
    (void)state;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct pki_node cert;
    struct stranger s;
    pki_node_new(&net.pki, "node2", ROLE_MANAGER, NET_CLUSTER, 0, &cert);
    stranger_new(&s, &net, true, ALPN_PEER, &cert);
    s.deaf = true;
    stranger_hello(&s, 2, "node2", NET_CLUSTER, WIRE_VERSION);
    stranger_listen(&s);
    assert_int_equal(peers_set(a->peers, 2, "node2", s.address), OK);
    stranger_answer(&s);
    UNTIL(&net, peers_is_connected(a->peers, 2));
    for (uint64_t seq = 0; seq < 20; seq++) {
        struct buf frame;
        net_frame(seq, MIB, &frame);
        peers_send(a->peers, 2, &frame);
    }
    UNTIL(&net, !peers_is_connected(a->peers, 2)); /* PEER_STALL_MS, by the kernel */
    stranger_free(&s);
    pki_node_free(&cert);
    net_close(&net);
}

static void a_name_is_looked_up_and_all_its_addresses_are_tried(void **state) {
    (void)state;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct net_node *b = net_node_open(&net, 2, &(struct net_fault){.address = "localhost:0"});
    char by_name[ADDRESS_MAX];
    (void)snprintf(by_name, sizeof by_name, "localhost:%s", strrchr(b->address, ':') + 1);
    assert_string_equal(b->address, by_name);
    net_know(b, a);
    assert_int_equal(peers_set(a->peers, 2, b->node_id, by_name), OK);
    UNTIL(&net, both_connected(a, b));
    net_close(&net);
}

static void an_announced_address_is_told_to_the_other_side(void **state) {
    (void)state;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct net_fault f = {.advertise = "manager-2.example.org:2377"};
    struct net_node *b = net_node_open(&net, 2, &f);
    net_meet(a, b);
    UNTIL(&net, a->moved_id == 2);
    assert_string_equal(a->moved, f.advertise);
    assert_int_equal(b->moved_id, 0);
    net_close(&net);
}

static void an_address_that_is_taken_or_none_is_refused_with_a_sentence(void **state) {
    (void)state;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct peers_config config = {.loop = &net.loop,
                                  .root_pem = buf_span(&net.pki.root),
                                  .cert_pem = buf_span(&a->cert.cert),
                                  .key_pem = a->cert.key};
    struct peers *p = NULL;
    struct why why = {0};
    (void)snprintf(config.address, sizeof config.address, "%s", a->address);
    assert_int_equal(peers_open(&config, &p, &why), ERR_IN_USE);
    assert_non_null(strstr(why.text, a->address));
    (void)snprintf(config.address, sizeof config.address, "here");
    assert_int_equal(peers_open(&config, &p, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "\"here\""));
    assert_null(p);
    net_close(&net);
}

static void a_new_certificate_is_for_new_connections(void **state) {
    (void)state;
    struct pki_node fresh;
    struct why why = {0};
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct net_node *b =
        net_node_open(&net, 2, &(struct net_fault){.age_s = NODE_VALIDITY_S + 7200});
    net_meet(a, b);
    UNTIL(&net, net_logged(a, "connection from 127.0.0.1") && net_logged(a, "expired"));
    assert_false(peers_is_connected(b->peers, 1));
    pki_node_new(&net.pki, b->node_id, ROLE_MANAGER, NET_CLUSTER, 0, &fresh);
    assert_int_equal(peers_credentials(b->peers, buf_span(&net.pki.root), buf_span(&fresh.cert),
                                       fresh.key, &why),
                     OK);
    UNTIL(&net, both_connected(a, b));
    assert_int_equal(peers_credentials(b->peers, buf_span(&net.pki.root), buf_span(&fresh.cert),
                                       a->cert.key, &why),
                     ERR_CERTIFICATE); /* another's key: refused, the old ones stay */
    net_send(a, b, 0, 100);
    net_send(b, a, 0, 100);
    UNTIL(&net, b->got[1] == 1 && a->got[2] == 1);
    pki_node_free(&fresh);
    net_close(&net);
}

static void closing_at_any_moment_leaves_nothing_behind(void **state) {
    (void)state;
    bool connected = false;
    for (int turns = 0; turns < 400 && !connected; turns++) {
        net_open(&net);
        struct net_node *a = net_node_open(&net, 1, NULL);
        struct net_node *b = net_node_open(&net, 2, NULL);
        assert_int_equal(peers_set(a->peers, 3, "node3", "localhost:1"), OK);
        net_meet(a, b);
        net_begin(&net);
        for (int i = 0; i < turns; i++) {
            if (peers_is_connected(a->peers, 2)) net_send(a, b, a->connected[4]++, 50000);
            net_turn(&net, "closing");
        }
        net_end(&net);
        connected = a->connected[4] > 3;
        net_close(&net); /* checks that the loop has nothing left */
    }
    assert_true(connected);
}

/* ---- failing allocations ---- */

static bool met(struct net_node *a, struct net_node *b) {
    enum err e = peers_set(a->peers, b->id, b->node_id, b->address);
    enum err f = peers_set(b->peers, a->id, a->node_id, a->address);
    assert_true((e == OK || e == ERR_NOMEM) && (f == OK || f == ERR_NOMEM));
    return e == OK && f == OK;
}

/* One allocation fails somewhere between the first call and the last frame. */
static void connect_and_talk(void *ctx) {
    (void)ctx;
    struct net_node *a = &net.nodes[0], *b = &net.nodes[1];
    while (!met(a, b)) {
    }
    UNTIL(&net, both_connected(a, b));
    uint64_t seq = a->got[2];
    struct buf frame = buf_new(FRAME_MAX);
    fault_alloc_pause();
    net_frame(seq, 9000, &frame);
    fault_alloc_resume();
    peers_send(b->peers, 1, &frame);
    for (int i = 0; i < 20; i++)
        (void)uv_run(&net.loop, UV_RUN_NOWAIT);
}

static void still_talks(void *ctx, bool fired) {
    (void)ctx;
    (void)fired;
    struct net_node *a = &net.nodes[0], *b = &net.nodes[1];
    UNTIL(&net, both_connected(a, b));
    net_send(b, a, a->got[2], 9000);
    uint64_t want = a->got[2] + 1;
    UNTIL(&net, a->got[2] >= want);
    assert_false(a->disorder);
    peers_remove(a->peers, 2);
    peers_remove(b->peers, 1);
}

static void an_allocation_that_fails_costs_a_connection_at_most(void **state) {
    (void)state;
    net_open(&net);
    (void)net_node_open(&net, 1, &(struct net_fault){.handshake_ms = 300});
    (void)net_node_open(&net, 2, &(struct net_fault){.handshake_ms = 300});
    unsigned fired = fault_sweep_alloc(connect_and_talk, still_talks, NULL);
    print_message("%u allocations failed in turn\n", fired);
    assert_true(fired > 20);
    net_close(&net);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_members_exchange_10000_frames_of_mixed_sizes_in_order),
        cmocka_unit_test(the_largest_frame_arrives),
        cmocka_unit_test(frames_of_one_turn_leave_without_waiting_for_the_next_event),
        cmocka_unit_test(a_frame_for_a_member_that_is_away_is_dropped_and_counted),
        cmocka_unit_test(a_member_that_comes_back_is_connected_again),
        cmocka_unit_test(a_member_that_dials_us_is_dialed_without_waiting),
        cmocka_unit_test(a_changed_address_is_dialed_at_once),
        cmocka_unit_test(setting_the_same_again_changes_nothing),
        cmocka_unit_test(a_removed_member_is_cut_at_once_and_not_let_in_again),
        cmocka_unit_test(another_node_under_the_same_raft_id_replaces_the_first),
        cmocka_unit_test(the_table_is_bounded_and_checked),
        cmocka_unit_test(a_reader_that_stops_holds_no_more_than_the_bound),
        cmocka_unit_test(a_stuck_connection_is_cut_in_the_end),
        cmocka_unit_test(a_name_is_looked_up_and_all_its_addresses_are_tried),
        cmocka_unit_test(an_announced_address_is_told_to_the_other_side),
        cmocka_unit_test(an_address_that_is_taken_or_none_is_refused_with_a_sentence),
        cmocka_unit_test(a_new_certificate_is_for_new_connections),
        cmocka_unit_test(closing_at_any_moment_leaves_nothing_behind),
        cmocka_unit_test(an_allocation_that_fails_costs_a_connection_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
