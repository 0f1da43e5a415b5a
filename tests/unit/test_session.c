/* Sessions of nodes, both sides in one loop: what is said arrives in order, and neither a slow
 * side, a close at any moment nor a failing allocation leaves anything behind. Who is refused is in
 * test_session_refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/fault.h"
#include "tests/lib/session_net.h"

static void messages_go_both_ways_in_order(void **state) {
    (void)state;
    struct node n;
    struct buf b = buf_new(SESSION_FRAME_MAX);
    begin();
    node_connect(&n, "workernode1");
    struct seen *seen = &t.manager.seen[0];
    uint64_t sent = 0;
    while (sent < 2000) {
        for (int i = 0; i < 20; i++, sent++) {
            size_t size = 8 + (sent * 7919) % (sent % 50 == 0 ? 100000 : 300);
            say_to_manager(&n, sent, size, &b);
            say_to_node(seen, sent, size, &b);
        }
        UNTIL(&t.net, seen->messages == sent && n.messages == sent);
    }
    assert_false(seen->disorder || n.disorder);
    assert_int_equal(n.closed, 0);
    node_end(&n);
    UNTIL(&t.net, seen->closed);
    buf_free(&b);
    end();
}

static void the_manager_knows_who_it_is(void **state) {
    (void)state;
    struct node n;
    uint8_t zero[32] = {0};
    struct peers_figures f;
    begin();
    node_connect(&n, "workernode1");
    const struct node_caller *who = &t.manager.seen[0].who;
    assert_string_equal(who->subject.cn, "workernode1");
    assert_string_equal(who->subject.ou, ROLE_WORKER);
    assert_string_equal(who->subject.o, NET_CLUSTER);
    assert_string_equal(who->remote, "127.0.0.1");
    assert_memory_not_equal(who->key_digest, zero, 32);
    assert_memory_not_equal(who->issuer_digest, zero, 32);
    assert_memory_not_equal(who->key_digest, who->issuer_digest, 32);
    peers_figures(t.a->peers, &f);
    assert_int_equal(f.sessions, 1);
    assert_int_equal(f.refused, 0);
    node_end(&n);
    UNTIL(&t.net, t.manager.seen[0].closed);
    peers_figures(t.a->peers, &f);
    assert_int_equal(f.sessions, 0);
    end();
}

static void the_longest_and_the_shortest_message_arrive(void **state) {
    (void)state;
    struct node n;
    struct buf b = buf_new(SESSION_FRAME_MAX);
    begin();
    t.manager.echo = true;
    node_connect(&n, "workernode1");
    say_to_manager(&n, 0, SESSION_BODY_MAX, &b);
    say_to_manager(&n, 1, 8, &b);
    UNTIL(&t.net, n.messages == 2);
    assert_false(n.disorder || t.manager.seen[0].disorder);
    t.manager.echo = false;
    uplink_say(n.uplink, 3, (struct span){0});
    UNTIL(&t.net, t.manager.seen[0].messages == 3);
    assert_int_equal(t.manager.seen[0].last.size, 0);
    node_end(&n);
    buf_free(&b);
    end();
}

/* ---- slow sides ---- */

static void a_node_that_takes_nothing_is_cut(void **state) {
    (void)state;
    struct stranger s;
    struct wire_message m = {.type = WIRE_NODE, .node = {.kind = 1}};
    struct buf b = buf_new(SESSION_FRAME_MAX);
    struct span first = body_of(0, 8, &b);
    open_stranger(&s, true);
    m.node.body = first;
    stranger_says(&s, &m);
    s.deaf = true;
    stranger_dial(&s, t.a->address);
    UNTIL(&t.net, t.manager.n == 1 && t.manager.seen[0].messages == 1);
    for (uint64_t i = 0; !net_logged(t.a, "cut: it does not take what is said to it"); i++) {
        assert_true(i < 1000);
        struct inbound *in = t.a->peers->in_first;
        assert_true(channel_waiting(&in->channel) <= SESSION_QUEUE_MAX + SESSION_FRAME_MAX);
        say_to_node(&t.manager.seen[0], i, 500000, &b);
        assert_int_equal(t.manager.seen[0].closed, false); /* not inside the call */
        (void)uv_run(&t.net.loop, UV_RUN_NOWAIT);
    }
    UNTIL(&t.net, t.manager.seen[0].closed);
    stranger_free(&s);
    buf_free(&b);
    end();
}

static void a_manager_that_takes_nothing_is_left(void **state) {
    (void)state;
    struct stranger s;
    struct node n;
    struct pki_node cert;
    struct buf b = buf_new(SESSION_FRAME_MAX);
    begin();
    pki_node_new(&t.net.pki, "node2", ROLE_MANAGER, NET_CLUSTER, 0, &cert);
    stranger_new(&s, &t.net, true, ALPN_NODE, &cert);
    pki_node_free(&cert);
    stranger_listen(&s);
    s.deaf = true;
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    (void)snprintf(c.address, sizeof c.address, "%s", s.address);
    node_dial(&n, &c);
    stranger_answer(&s);
    UNTIL(&t.net, n.opened == 1);
    for (uint64_t i = 0; n.closed == 0; i++) {
        assert_true(i < 1000);
        say_to_manager(&n, i, 500000, &b);
        assert_true(i != 0 || n.closed == 0);
        (void)uv_run(&t.net.loop, UV_RUN_NOWAIT);
    }
    assert_closed(&n, ERR_BUSY, "does not take what is said");
    stranger_free(&s);
    buf_free(&b);
    end();
}

static void a_manager_that_says_nothing_is_left_in_time(void **state) {
    (void)state;
    struct stranger s;
    struct node n;
    begin();
    stranger_plain(&s, &t.net);
    stranger_listen(&s);
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    (void)snprintf(c.address, sizeof c.address, "%s", s.address);
    c.handshake_ms = 200;
    node_dial(&n, &c);
    assert_closed(&n, ERR_TIMEOUT, s.address);
    stranger_free(&s);
    assert_not_seen();
}

/* ---- addresses ---- */

static void a_name_is_looked_up_and_nobody_there_is_told(void **state) {
    (void)state;
    struct node n;
    struct why why = {0};
    begin();
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    const char *port = strrchr(t.a->address, ':');
    (void)snprintf(c.address, sizeof c.address, "localhost%s", port); /* ::1 may be tried first */
    node_dial(&n, &c);
    UNTIL(&t.net, n.opened == 1 && t.manager.n == 1);
    node_end(&n);
    node_new(&n, "workernode1", ROLE_WORKER);
    c = node_config(&n);
    (void)snprintf(c.address, sizeof c.address, "nonsense");
    assert_int_equal(uplink_open(&c, &n.uplink, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "nonsense"));
    (void)snprintf(c.address, sizeof c.address, "no-such-name.invalid:1");
    node_dial(&n, &c);
    assert_closed(&n, ERR_UNREACHABLE, "no-such-name.invalid:1");
    node_new(&n, "workernode1", ROLE_WORKER);
    c = node_config(&n);
    net_node_close(t.a);
    node_dial(&n, &c);
    assert_closed(&n, ERR_UNREACHABLE, "connection refused");
    end();
}

static void a_key_of_another_certificate_is_refused_at_once(void **state) {
    (void)state;
    struct node n, other;
    struct why why = {0};
    begin();
    node_new(&n, "workernode1", ROLE_WORKER);
    node_new(&other, "workernode2", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    c.key_pem = other.cert.key;
    assert_int_equal(uplink_open(&c, &n.uplink, &why), ERR_CERTIFICATE);
    assert_null(n.uplink);
    pki_node_free(&n.cert);
    pki_node_free(&other.cert);
    assert_not_seen();
}

/* ---- the end ---- */

static void a_manager_that_stops_ends_its_sessions(void **state) {
    (void)state;
    struct node n;
    begin();
    node_connect(&n, "workernode1");
    net_node_close(t.a);
    assert_true(t.manager.seen[0].closed);
    assert_closed(&n, ERR_CLOSED, "");
    end();
}

static void an_uplink_is_freed_from_its_own_callbacks(void **state) {
    (void)state;
    struct node n;
    struct buf b = buf_new(SESSION_FRAME_MAX);
    begin();
    node_connect(&n, "workernode1");
    n.free_in_message = true;
    for (uint64_t i = 0; i < 3; i++)
        say_to_node(&t.manager.seen[0], i, 100, &b);
    UNTIL(&t.net, n.freed == 1);
    assert_int_equal(n.messages, 1);
    node_end(&n);
    node_new(&n, "workernode2", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    n.free_in_opened = true;
    node_dial(&n, &c);
    UNTIL(&t.net, n.freed == 1);
    assert_int_equal(n.closed, 0);
    node_end(&n);
    UNTIL(&t.net, t.a->peers->sessions == 0);
    buf_free(&b);
    end();
}

/* Turn by turn further: what has been opened is closed from whichever state it is in. */
static void turn_and_end(int turns, bool name, bool manager_first, bool *talked) {
    struct node n;
    struct buf b = buf_new(SESSION_FRAME_MAX);
    begin();
    t.manager.echo = true;
    node_new(&n, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    const char *port = strrchr(t.a->address, ':');
    if (name) (void)snprintf(c.address, sizeof c.address, "localhost%s", port);
    node_dial(&n, &c);
    net_begin(&t.net);
    for (int i = 0; i < turns; i++) {
        if (n.opened == 1) say_to_manager(&n, (uint64_t)i, 20000, &b);
        net_turn(&t.net, "closing");
    }
    net_end(&t.net);
    *talked = n.messages > 3;
    if (manager_first) net_node_close(t.a);
    node_end(&n);
    buf_free(&b);
    end(); /* checks that the loop has nothing left */
}

static void freeing_at_any_moment_leaves_nothing_behind(void **state) {
    (void)state;
    for (int how = 0; how < 4; how++) {
        bool talked = false;
        for (int turns = 0; turns < 400 && !talked; turns++)
            turn_and_end(turns, how & 1, how & 2, &talked);
        assert_true(talked);
    }
}

/* ---- failing allocations ---- */

static struct node swept;

static void connect_and_talk(void *ctx) {
    struct uplink_config *c = ctx;
    uint8_t body[8000] = {0};
    struct why why;
    swept.uplink = NULL;
    swept.opened = swept.closed = swept.freed = 0;
    swept.messages = 0;
    t.manager.n = 0;
    if (uplink_open(c, &swept.uplink, &why) != OK) return;
    UNTIL(&t.net, swept.opened + swept.closed >= 1);
    uplink_say(swept.uplink, 1, span_of(body, sizeof body));
    UNTIL(&t.net, swept.messages + swept.closed >= 1);
    for (unsigned i = 0; i < t.manager.n; i++)
        if (t.manager.seen[i].session != NULL)
            session_cut(t.manager.seen[i].session, ERR_PERMISSION, "enough");
    UNTIL(&t.net, swept.closed == 1);
}

static void is_closed_and_works_again(void *ctx, bool fired) {
    struct uplink_config *c = ctx;
    if (swept.uplink != NULL) {
        assert_int_equal(swept.closed, 1);
        if (!fired) assert_int_equal(swept.error, ERR_PERMISSION);
        node_free(&swept);
        UNTIL(&t.net, swept.freed == 1);
    }
    UNTIL(&t.net, t.a->peers->sessions == 0 && t.a->peers->strangers == 0);
    for (unsigned i = 0; i < t.manager.n; i++)
        assert_true(t.manager.seen[i].closed);
    if (fired) connect_and_talk(c);
    if (fired) is_closed_and_works_again(c, false);
}

static void tick(uv_timer_t *h) {
    (void)h;
} /* makes the loop turn, so that UNTIL sees a timer's doing */

static void an_allocation_that_fails_costs_the_session_at_most(void **state) {
    (void)state;
    begin_with(&(struct net_fault){.handshake_ms = 300});
    t.manager.echo = true;
    t.manager.greet = false;
    node_new(&swept, "workernode1", ROLE_WORKER);
    struct uplink_config c = node_config(&swept);
    c.handshake_ms = 300;
    uv_timer_t ticks;
    assert_int_equal(uv_timer_init(&t.net.loop, &ticks), 0);
    assert_int_equal(uv_timer_start(&ticks, tick, 5, 5), 0);
    unsigned fired = fault_sweep_alloc(connect_and_talk, is_closed_and_works_again, &c);
    print_message("%u allocations failed in turn\n", fired);
    assert_true(fired > 20);
    uv_close((uv_handle_t *)&ticks, NULL);
    pki_node_free(&swept.cert);
    end();
}

static void what_is_said_while_a_session_opens_arrives(void **state) {
    (void)state;
    struct node n;
    begin();
    t.manager.greet = true;
    node_connect(&n, "workernode1");
    UNTIL(&t.net, n.messages == 1);
    assert_false(n.disorder);
    node_end(&n);
    t.manager.refuse = ERR_BUSY;
    node_new(&n, "workernode2", ROLE_WORKER);
    struct uplink_config c = node_config(&n);
    node_dial(&n, &c);
    assert_closed(&n, ERR_BUSY, "node workernode2 is not wanted");
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_go_both_ways_in_order),
        cmocka_unit_test(the_manager_knows_who_it_is),
        cmocka_unit_test(the_longest_and_the_shortest_message_arrive),
        cmocka_unit_test(a_node_that_takes_nothing_is_cut),
        cmocka_unit_test(a_manager_that_takes_nothing_is_left),
        cmocka_unit_test(a_manager_that_says_nothing_is_left_in_time),
        cmocka_unit_test(a_name_is_looked_up_and_nobody_there_is_told),
        cmocka_unit_test(a_key_of_another_certificate_is_refused_at_once),
        cmocka_unit_test(a_manager_that_stops_ends_its_sessions),
        cmocka_unit_test(an_uplink_is_freed_from_its_own_callbacks),
        cmocka_unit_test(freeing_at_any_moment_leaves_nothing_behind),
        cmocka_unit_test(an_allocation_that_fails_costs_the_session_at_most),
        cmocka_unit_test(what_is_said_while_a_session_opens_arrives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
