/* The pure half of the scheduler, by hand: which node a task gets, and what a service wants of its
 * tasks when nodes come and go, tasks end, and the service is changed. After each event the wishes
 * are carried out until there are none. At random: test_scheduler_random.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/sched_world.h"
#include "tests/lib/states.h"

/* --- constraints ------------------------------------------------------------------------------ */

static bool meets(const struct place *p, const char *text) {
    struct buf list = buf_new(KIB);
    assert_int_equal(buf_block(&list, span_str(text)), OK);
    bool out = place_meets(p, buf_span(&list));
    buf_free(&list);
    return out;
}

static void constraints_are_those_of_docker(void **state) {
    (void)state;
    struct places places = {0};
    struct node_row n = sched_world_node(7);
    struct buf labels = buf_new(KIB);
    assert_int_equal(labels_add(&labels, span_str("rack"), span_str("Red")), OK);
    n.labels = buf_span(&labels);
    assert_int_equal(places_put(&places, "abc", &n), OK);
    const struct place *p = places_find(&places, "abc");
    assert_true(place_meets(p, span_of(NULL, 0)));
    assert_true(meets(p, "node.id == abc"));
    assert_false(meets(p, "node.id != abc"));
    assert_false(meets(p, "node.id == ab"));
    assert_true(meets(p, "NODE.Hostname == HOST-7"));
    assert_true(meets(p, "node.role == worker"));
    assert_true(meets(p, "node.role != manager"));
    assert_true(meets(p, "node.platform.os == linux"));
    assert_true(meets(p, "node.platform.arch != arm64"));
    assert_true(meets(p, "node.labels.rack == red"));
    assert_false(meets(p, "node.labels.Rack == red"));
    assert_true(meets(p, "node.labels.disk != ssd"));
    assert_false(meets(p, "node.labels.disk == ssd"));
    assert_false(meets(p, "node.color == red"));
    assert_false(meets(p, "node.color != red"));
    assert_false(meets(p, "node.id==abc")); /* not as it is kept */
    assert_false(place_meets(p, span_str("xx")));
    buf_free(&labels);
    places_free(&places);
}

static void all_constraints_have_to_be_met(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 4, 3);
    sched_world_constrain(&w, "node.hostname != host-0");
    assert_int_equal(buf_block(&w.constraints, span_str("node.hostname != host-3")), OK);
    w.service.constraints = buf_span(&w.constraints);
    sched_world_settle(&w);
    assert_int_equal(sched_world_live(&w, NULL), 3);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(0)) +
                         sched_world_live(&w, sched_world_node_id(3)),
                     0);
    sched_world_check_spread(&w);
    sched_world_close(&w);
}

/* --- replicas --------------------------------------------------------------------------------- */

static void replicas_are_spread(void **state) {
    (void)state;
    for (unsigned nodes = 1; nodes <= 5; nodes++) {
        for (uint64_t replicas = 0; replicas <= 11; replicas++) {
            struct world w;
            sched_world_open(&w, nodes, replicas);
            sched_world_settle_and_run(&w);
            assert_int_equal(sched_world_live(&w, NULL), replicas);
            sched_world_check_spread(&w);
            for (uint32_t slot = 1; slot <= replicas; slot++)
                assert_non_null(sched_world_live_of_slot(&w, slot));
            sched_world_close(&w);
        }
    }
}

static void the_emptier_node_is_taken_among_equals(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 3, 1);
    w.places.at[0].tasks = w.places.at[2].tasks = 9;
    sched_world_settle(&w);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(1)), 1);
    sched_world_close(&w);
}

static void scaling_goes_up_and_down_evenly(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 4, 3);
    uint64_t seed = 7;
    for (unsigned i = 0; i < 60; i++) {
        w.service.replicas = random_next(&seed) % 15;
        sched_world_settle_and_run(&w);
        assert_int_equal(sched_world_live(&w, NULL), w.service.replicas);
        assert_int_equal(w.tasks.n, w.service.replicas); /* what is removed leaves no row */
        sched_world_check_spread(&w);
    }
    sched_world_close(&w);
}

/* Slots and nodes do not go together any more once a node was away. */
static void scaling_down_takes_from_the_fullest_nodes(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 3, 6);
    sched_world_put_node(&w, 2, NODE_READY, NODE_PAUSE);
    sched_world_settle_and_run(&w);
    sched_world_put_node(&w, 2, NODE_READY, NODE_ACTIVE);
    w.service.replicas = 9;
    sched_world_settle_and_run(&w);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(2)), 3);
    for (w.service.replicas = 8; w.service.replicas > 0; w.service.replicas--) {
        sched_world_settle_and_run(&w);
        assert_int_equal(sched_world_live(&w, NULL), w.service.replicas);
        sched_world_check_spread(&w);
    }
    sched_world_close(&w);
}

/* As two leaders might have made them. */
static void of_two_tasks_of_one_line_the_newer_stays(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 2, 1);
    sched_world_settle_and_run(&w);
    struct sched_task twin = w.tasks.at[0];
    (void)snprintf(twin.id, sizeof twin.id, "twin");
    twin.created_version++;
    assert_int_equal(sched_tasks_add(&w.tasks, &twin), OK);
    sched_world_settle(&w);
    assert_int_equal(w.made, 0);
    assert_int_equal(w.stopped, 1);
    assert_int_equal(sched_world_live(&w, NULL), 1);
    assert_string_equal(sched_world_live_of_slot(&w, 1)->id, "twin");
    sched_world_close(&w);
}

static void without_a_node_tasks_wait_and_say_why(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 2, 2);
    sched_world_put_node(&w, 0, NODE_READY, NODE_PAUSE);
    sched_world_constrain(&w, "node.hostname == host-9");
    sched_world_settle(&w);
    assert_true(w.waiting);
    assert_int_equal(w.tasks.n, 2);
    assert_int_equal(w.tasks.at[0].row.state, TASK_PENDING);
    assert_string_equal(w.tasks.at[0].row.error,
                        "no suitable node (scheduling constraints not satisfied on 1 node; 1 node "
                        "not available for new tasks)");
    sched_world_put_node(&w, 9, NODE_READY, NODE_ACTIVE);
    sched_world_settle(&w);
    assert_false(w.waiting);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(9)), 2);
    assert_string_equal(w.tasks.at[0].row.error, "");
    assert_int_equal(w.tasks.n, 2);
    sched_world_close(&w);
}

/* --- nodes come and go ------------------------------------------------------------------------ */

static void tasks_of_a_dead_node_are_replaced_at_once(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 3, 3);
    sched_world_settle_and_run(&w);
    sched_world_put_node(&w, 1, NODE_DOWN, NODE_ACTIVE);
    sched_world_settle(&w);
    assert_int_equal(w.made, 1);
    assert_int_equal(sched_world_live(&w, NULL), 3);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(1)), 0);
    unsigned left = 0;
    for (size_t i = 0; i < w.tasks.n; i++) {
        const struct task_row *t = &w.tasks.at[i].row;
        if (strcmp(t->node_id, sched_world_node_id(1)) != 0) continue;
        left++;
        assert_int_equal(t->desired, TASK_SHUTDOWN);
        assert_int_equal(t->state, TASK_RUNNING); /* nobody has said otherwise */
    }
    assert_int_equal(left, 1);
    sched_world_put_node(&w, 1, NODE_READY, NODE_ACTIVE);
    sched_world_settle_and_run(&w); /* it is back, and ends its task */
    assert_int_equal(sched_world_live(&w, NULL), 3);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(1)),
                     0); /* nothing is moved for the sake of balance */
    sched_world_close(&w);
}

static void tasks_of_a_removed_node_are_orphaned(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 3, 3);
    sched_world_settle_and_run(&w);
    sched_world_put_node(&w, 2, NODE_DOWN, NODE_ACTIVE);
    sched_world_settle(&w);
    sched_world_drop_node(&w, 2);
    sched_world_settle(&w);
    assert_int_equal(sched_world_live(&w, NULL), 3);
    sched_world_drop_node(&w, 1); /* without having been down */
    sched_world_settle(&w);
    assert_int_equal(sched_world_live(&w, NULL), 3);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(0)), 3);
    for (size_t i = 0; i < w.tasks.n; i++)
        if (strcmp(w.tasks.at[i].row.node_id, sched_world_node_id(0)) != 0)
            assert_int_equal(w.tasks.at[i].row.state, TASK_ORPHANED);
    sched_world_close(&w);
}

static void a_drained_node_is_left_and_a_paused_one_keeps_what_it_has(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 3, 6);
    sched_world_settle_and_run(&w);
    sched_world_put_node(&w, 0, NODE_READY, NODE_PAUSE);
    sched_world_put_node(&w, 1, NODE_READY, NODE_DRAIN);
    sched_world_settle_and_run(&w);
    assert_int_equal(sched_world_live(&w, NULL), 6);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(0)), 2);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(1)), 0);
    w.service.replicas = 9;
    sched_world_settle_and_run(&w);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(0)), 2);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(2)), 7);
    sched_world_close(&w);
}

static void a_node_that_lost_its_label_is_left(void **state) {
    (void)state;
    struct world w;
    struct node_row n = sched_world_node(1);
    struct buf labels = buf_new(KIB);
    sched_world_open(&w, 1, 1);
    assert_int_equal(labels_add(&labels, span_str("zone"), span_str("a")), OK);
    n.labels = buf_span(&labels);
    assert_int_equal(places_put(&w.places, sched_world_node_id(1), &n), OK);
    sched_world_constrain(&w, "node.labels.zone == a");
    sched_world_settle_and_run(&w);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(1)), 1);
    sched_world_put_node(&w, 1, NODE_READY, NODE_ACTIVE); /* without labels */
    sched_world_settle_and_run(&w);
    assert_true(w.waiting);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(1)), 0);
    buf_free(&labels);
    sched_world_close(&w);
}

/* --- restarts --------------------------------------------------------------------------------- */

static void what_ends_is_started_again_after_the_delay(void **state) {
    (void)state;
    static const struct {
        enum restart_condition condition;
        enum task_state ends;
        bool again;
    } cases[] = {
        {RESTART_ANY, TASK_COMPLETE, true},         {RESTART_ANY, TASK_FAILED, true},
        {RESTART_ON_FAILURE, TASK_COMPLETE, false}, {RESTART_ON_FAILURE, TASK_FAILED, true},
        {RESTART_ON_FAILURE, TASK_REJECTED, true},  {RESTART_NONE, TASK_COMPLETE, false},
        {RESTART_NONE, TASK_FAILED, false},         {RESTART_NONE, TASK_REJECTED, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct world w;
        sched_world_open(&w, 2, 2);
        w.service.restart = cases[i].condition;
        w.service.restart_delay_ns = 3 * SECOND;
        sched_world_settle_and_run(&w);
        sched_world_end_task(&w, sched_world_live_of_slot(&w, 1), cases[i].ends);
        sched_world_settle(&w);
        assert_int_equal(w.made, cases[i].again);
        assert_int_equal(sched_world_live(&w, NULL), cases[i].again ? 2 : 1);
        if (cases[i].again)
            assert_int_equal(sched_world_live_of_slot(&w, 1)->row.not_before_ns,
                             w.now_ns + 3 * SECOND);
        assert_int_equal(w.tasks.n, cases[i].again ? 3 : 2);
        w.service.replicas = 3; /* a line that is done is one of them */
        sched_world_settle(&w);
        assert_int_equal(w.made, 1);
        sched_world_close(&w);
    }
}

static void attempts_are_counted_within_the_window(void **state) {
    (void)state;
    for (int windowed = 0; windowed <= 1; windowed++) {
        struct world w;
        sched_world_open(&w, 1, 1);
        w.service.restart_max = 7; /* more than the history would keep */
        w.service.restart_window_ns = windowed ? 60 * SECOND : 0;
        sched_world_settle_and_run(&w);
        for (unsigned i = 0; i < 7; i++) {
            w.now_ns += 6 * SECOND;
            sched_world_end_task(&w, sched_world_live_of_slot(&w, 1), TASK_FAILED);
            sched_world_settle_and_run(&w);
            assert_int_equal(sched_world_live(&w, NULL), 1);
        }
        w.now_ns += windowed ? 30 * SECOND : 3600 * SECOND;
        sched_world_end_task(&w, sched_world_live_of_slot(&w, 1), TASK_FAILED);
        sched_world_settle_and_run(&w);
        assert_int_equal(sched_world_live(&w, NULL), windowed ? 1 : 0);
        w.now_ns += 3600 * SECOND;
        sched_world_settle(&w); /* time alone changes nothing */
        assert_int_equal(w.made, 0);
        w.service.spec_version++;
        sched_world_settle_and_run(&w); /* another spec has all attempts again */
        assert_int_equal(sched_world_live(&w, NULL), 1);
        sched_world_close(&w);
    }
}

static void a_rejected_task_goes_to_another_node_and_waits_longer_each_time(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 3, 1);
    sched_world_settle(&w);
    char first[NODE_ID_SIZE + 1], second[NODE_ID_SIZE + 1];
    memcpy(first, sched_world_live_of_slot(&w, 1)->row.node_id, sizeof first);
    sched_world_end_task(&w, sched_world_live_of_slot(&w, 1), TASK_REJECTED);
    sched_world_settle(&w);
    memcpy(second, sched_world_live_of_slot(&w, 1)->row.node_id, sizeof second);
    assert_string_not_equal(first, second);
    assert_int_equal(sched_world_live_of_slot(&w, 1)->row.not_before_ns, w.now_ns + 5 * SECOND);
    sched_world_end_task(&w, sched_world_live_of_slot(&w, 1), TASK_REJECTED);
    sched_world_settle(&w);
    assert_string_not_equal(sched_world_live_of_slot(&w, 1)->row.node_id, first);
    assert_string_not_equal(sched_world_live_of_slot(&w, 1)->row.node_id, second);
    assert_int_equal(sched_world_live_of_slot(&w, 1)->row.not_before_ns, w.now_ns + 10 * SECOND);
    for (unsigned i = 0; i < 10; i++) {
        sched_world_end_task(&w, sched_world_live_of_slot(&w, 1), TASK_REJECTED);
        sched_world_settle(&w);
    }
    assert_int_equal(sched_world_live_of_slot(&w, 1)->row.not_before_ns, w.now_ns + 60 * SECOND);
    assert_int_equal(w.tasks.n, w.history);
    sched_world_close(&w);
}

/* --- updates ---------------------------------------------------------------------------------- */

static size_t running(const struct world *w, uint64_t spec) {
    size_t n = 0;
    for (size_t i = 0; i < w->tasks.n; i++)
        n += w->tasks.at[i].row.state == TASK_RUNNING &&
             w->tasks.at[i].row.desired == TASK_RUNNING &&
             (spec == 0 || w->tasks.at[i].row.spec_version == spec);
    return n;
}

static void an_update_replaces_one_task_after_the_other(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 2, 5);
    sched_world_settle_and_run(&w);
    w.service.spec_version = 2;
    for (unsigned done = 0; done < 5; done++) {
        sched_world_settle(&w);
        assert_int_equal(w.stopped, 1); /* the next old one is told to stop */
        assert_int_equal(w.made, 0);
        sched_world_settle(&w); /* and until it has, nothing happens */
        assert_int_equal(w.stopped + w.made, 0);
        sched_world_run(&w);
        sched_world_settle(&w);
        assert_int_equal(w.made, 1);
        assert_int_equal(w.stopped, 0);
        sched_world_settle(&w); /* until the new one runs, nothing happens */
        assert_int_equal(w.stopped + w.made, 0);
        assert_int_equal(running(&w, 2), done);
        sched_world_run(&w);
        assert_int_equal(running(&w, 2), done + 1);
        assert_int_equal(running(&w, 0), 5);
    }
    sched_world_settle(&w);
    assert_int_equal(w.stopped + w.made, 0);
    sched_world_close(&w);
}

static void an_update_that_can_not_run_stops_with_one_task(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 3, 3);
    sched_world_settle_and_run(&w);
    w.service.spec_version = 2;
    sched_world_constrain(&w, "node.hostname == nowhere");
    sched_world_settle_and_run(&w);
    sched_world_settle_and_run(&w);
    assert_int_equal(running(&w, 1), 2);
    assert_true(w.waiting);
    w.service.spec_version = 3; /* it is taken back */
    sched_world_constrain(&w, "");
    for (unsigned i = 0; i < 8; i++)
        sched_world_settle_and_run(&w);
    assert_int_equal(running(&w, 3), 3);
    sched_world_close(&w);
}

static void a_broken_old_task_does_not_hold_the_update_up(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 1, 2);
    sched_world_settle(&w); /* assigned, and never to run */
    w.service.spec_version = 2;
    for (unsigned i = 0; i < 8; i++)
        sched_world_settle_and_run(&w);
    assert_int_equal(running(&w, 2), 2);
    sched_world_close(&w);
}

/* --- global ----------------------------------------------------------------------------------- */

static void a_global_service_has_one_task_on_each_open_node(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 4, 0);
    w.service.mode = SERVICE_GLOBAL;
    sched_world_settle_and_run(&w);
    assert_int_equal(sched_world_live(&w, NULL), 4);
    sched_world_put_node(&w, 0, NODE_DOWN, NODE_ACTIVE);
    sched_world_put_node(&w, 1, NODE_READY, NODE_DRAIN);
    sched_world_put_node(&w, 2, NODE_READY, NODE_PAUSE);
    sched_world_put_node(&w, 4, NODE_READY, NODE_ACTIVE);
    sched_world_put_node(&w, 5, NODE_READY, NODE_PAUSE);
    sched_world_settle_and_run(&w);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(0)),
                     1); /* it goes on when it is back */
    assert_int_equal(sched_world_live(&w, sched_world_node_id(1)), 0);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(2)), 1);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(4)), 1);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(5)), 0);
    sched_world_drop_node(&w, 0);
    sched_world_put_node(&w, 1, NODE_READY, NODE_ACTIVE);
    sched_world_settle_and_run(&w);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(1)), 1);
    assert_int_equal(sched_world_live(&w, NULL), 4);
    for (size_t i = 0; i < w.tasks.n; i++)
        assert_string_not_equal(w.tasks.at[i].row.node_id, sched_world_node_id(0));
    sched_world_end_task(&w, sched_world_task_on(&w, sched_world_node_id(4)), TASK_FAILED);
    sched_world_settle(&w);
    assert_int_equal(sched_world_live(&w, sched_world_node_id(4)), 1);
    w.service.spec_version = 2;
    for (unsigned i = 0; i < 8; i++)
        sched_world_settle_and_run(&w);
    assert_int_equal(running(&w, 1), 1); /* the paused node's */
    assert_int_equal(sched_world_live(&w, NULL), 4);
    sched_world_close(&w);
}

/* --- removal ---------------------------------------------------------------------------------- */

static void a_removed_service_leaves_nothing(void **state) {
    (void)state;
    struct world w;
    sched_world_open(&w, 3, 6);
    sched_world_settle_and_run(&w);
    sched_world_end_task(&w, sched_world_live_of_slot(&w, 1), TASK_FAILED);
    sched_world_settle_and_run(&w);
    sched_world_put_node(&w, 0, NODE_DOWN, NODE_ACTIVE);
    w.removed = true;
    sched_world_settle(&w);
    for (size_t i = 0; i < w.tasks.n; i++) {
        assert_int_equal(w.tasks.at[i].row.desired, TASK_REMOVE);
        assert_string_not_equal(w.tasks.at[i].row.node_id, sched_world_node_id(0));
    }
    assert_true(w.tasks.n > 0);
    sched_world_run(&w);
    sched_world_settle(&w);
    assert_int_equal(w.tasks.n, 0);
    sched_world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constraints_are_those_of_docker),
        cmocka_unit_test(all_constraints_have_to_be_met),
        cmocka_unit_test(replicas_are_spread),
        cmocka_unit_test(the_emptier_node_is_taken_among_equals),
        cmocka_unit_test(scaling_goes_up_and_down_evenly),
        cmocka_unit_test(scaling_down_takes_from_the_fullest_nodes),
        cmocka_unit_test(of_two_tasks_of_one_line_the_newer_stays),
        cmocka_unit_test(without_a_node_tasks_wait_and_say_why),
        cmocka_unit_test(tasks_of_a_dead_node_are_replaced_at_once),
        cmocka_unit_test(tasks_of_a_removed_node_are_orphaned),
        cmocka_unit_test(a_drained_node_is_left_and_a_paused_one_keeps_what_it_has),
        cmocka_unit_test(a_node_that_lost_its_label_is_left),
        cmocka_unit_test(what_ends_is_started_again_after_the_delay),
        cmocka_unit_test(attempts_are_counted_within_the_window),
        cmocka_unit_test(a_rejected_task_goes_to_another_node_and_waits_longer_each_time),
        cmocka_unit_test(an_update_replaces_one_task_after_the_other),
        cmocka_unit_test(an_update_that_can_not_run_stops_with_one_task),
        cmocka_unit_test(a_broken_old_task_does_not_hold_the_update_up),
        cmocka_unit_test(a_global_service_has_one_task_on_each_open_node),
        cmocka_unit_test(a_removed_service_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
