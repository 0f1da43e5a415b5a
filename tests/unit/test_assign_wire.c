/* What nodes are told to run, say of it and fetch: what is encoded comes back as it was, what is
 * cut, too long or out of range is refused and changes nothing. Random ones come from a fixed
 * seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "api/service/assign_wire.h"

static uint64_t rng; /* xorshift state */

static uint64_t next(void) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static void text(char *at, size_t room) {
    size_t size = next() % 2 == 0 ? room - 1 : next() % room;
    for (size_t i = 0; i < size; i++)
        at[i] = (char)(' ' + next() % 95);
    at[size] = '\0';
}

static void id(char *at) {
    for (size_t i = 0; i < NODE_ID_SIZE; i++)
        at[i] = "0123456789abcdefghijklmnopqrstuvwxyz"[next() % 36];
    at[NODE_ID_SIZE] = '\0';
}

static enum row_kind kind(void) { return next() % 2 == 0 ? ROW_SECRET : ROW_CONFIG; }

static struct buf command, env, mounts, labels; /* what tasks made here point into */

static void words(struct buf *out, unsigned n) {
    char word[200];
    *out = buf_new(64 * KIB);
    for (unsigned i = 0; i < n; i++) {
        text(word, sizeof word);
        assert_int_equal(buf_block(out, span_str(word)), OK);
    }
}

static void mounts_make(unsigned n) {
    mounts = buf_new(64 * KIB);
    for (unsigned i = 0; i < n; i++) {
        uint8_t bytes[] = {1, 2, 0, 0, 0, '/', 'a', 3, 0, 0, 0, '/', 'b', 'c'};
        assert_int_equal(buf_block(&mounts, span_of(bytes, sizeof bytes)), OK);
    }
}

static void file_make(struct assign_file *f) {
    f->kind = kind();
    id(f->id);
    text(f->name, sizeof f->name);
    text(f->target, sizeof f->target);
    f->uid = (uint32_t)next();
    f->gid = (uint32_t)next();
    f->mode = (uint32_t)next() & 07777;
    f->version = (uint32_t)next();
    f->follows = next() % 2 == 0;
    f->templated = next() % 2 == 0;
}

static void task_make(struct assign_task *t, uint64_t seed, unsigned n) {
    memset(t, 0, sizeof *t);
    rng = seed * 0x9e3779b97f4a7c15ULL + 1;
    id(t->id);
    text(t->name, sizeof t->name);
    id(t->service_id);
    text(t->service_name, sizeof t->service_name);
    t->slot = (uint32_t)next();
    t->desired = next() % 2 == 0 ? TASK_RUNNING : TASK_SHUTDOWN;
    t->not_before_ns = (int64_t)(next() >> 1);
    text(t->image, sizeof t->image);
    words(&command, (unsigned)(next() % 20));
    words(&env, (unsigned)(next() % 20));
    mounts_make((unsigned)(next() % 5));
    labels = buf_new(NODE_LABELS_BYTES);
    assert_int_equal(labels_add(&labels, span_str("a"), span_str("1")), OK);
    assert_int_equal(labels_add(&labels, span_str("b"), span_str("")), OK);
    t->command = buf_span(&command);
    t->env = buf_span(&env);
    t->mounts = buf_span(&mounts);
    t->labels = buf_span(&labels);
    text(t->user, sizeof t->user);
    text(t->dir, sizeof t->dir);
    text(t->hostname, sizeof t->hostname);
    t->stop_signal = 1 + (uint32_t)(next() % 64);
    t->reload_signal = 1 + (uint32_t)(next() % 64);
    t->stop_grace_ns = (int64_t)(next() >> 2) + (t->desired == TASK_RUNNING);
    for (t->n = 0; t->n < n; t->n++)
        file_make(&t->files[t->n]);
}

static void task_free(void) {
    buf_free(&command);
    buf_free(&env);
    buf_free(&mounts);
    buf_free(&labels);
}

static void assert_same_file(const struct assign_file *a, const struct assign_file *b) {
    assert_int_equal(a->kind, b->kind);
    assert_string_equal(a->id, b->id);
    assert_string_equal(a->name, b->name);
    assert_string_equal(a->target, b->target);
    assert_true(a->uid == b->uid && a->gid == b->gid && a->mode == b->mode);
    assert_true(a->version == b->version && a->follows == b->follows);
    assert_true(a->templated == b->templated);
}

static void assert_same_task(const struct assign_task *a, const struct assign_task *b) {
    assert_string_equal(a->id, b->id);
    assert_string_equal(a->name, b->name);
    assert_string_equal(a->service_id, b->service_id);
    assert_string_equal(a->service_name, b->service_name);
    assert_true(a->slot == b->slot && a->desired == b->desired);
    assert_true(a->not_before_ns == b->not_before_ns && a->stop_grace_ns == b->stop_grace_ns);
    assert_string_equal(a->image, b->image);
    assert_true(span_equal(a->command, b->command) && span_equal(a->env, b->env));
    assert_true(span_equal(a->mounts, b->mounts) && span_equal(a->labels, b->labels));
    assert_string_equal(a->user, b->user);
    assert_string_equal(a->dir, b->dir);
    assert_string_equal(a->hostname, b->hostname);
    assert_true(a->stop_signal == b->stop_signal && a->reload_signal == b->reload_signal);
    assert_int_equal(a->n, b->n);
    for (unsigned i = 0; i < a->n; i++)
        assert_same_file(&a->files[i], &b->files[i]);
}

static struct assign_task task, got; /* large */

static uint8_t bytes[CONFIG_SIZE_MAX + 1]; /* of values */

static void value_make(struct assign_value *v, size_t size) {
    *v = (struct assign_value){.kind = kind(), .version = (uint32_t)next()};
    id(v->id);
    if (next() % 2 == 0) id(v->task_id);
    v->bytes = span_of(bytes, size);
}

static void report_make(struct task_report *r) {
    static const enum task_state states[] = {TASK_ACCEPTED, TASK_RUNNING,  TASK_COMPLETE,
                                             TASK_FAILED,   TASK_REJECTED, TASK_REMOVE};
    *r = (struct task_report){.state = states[next() % ARRAY_SIZE(states)],
                              .exit_code = (int32_t)next(),
                              .pid = (uint32_t)next()};
    id(r->id);
    text(r->message, sizeof r->message);
    text(r->error, sizeof r->error);
}

static void one_assignment(struct buf *b, uint64_t seed) {
    struct assign_head h = {.type = ASSIGN_INCREMENTAL, .applies_to = seed, .results_in = seed + 1};
    struct assign_value v;
    buf_clear(b);
    h.last = seed % 2 == 0;
    assert_int_equal(assign_begin(b, &h), OK);
    task_make(&task, seed, (unsigned)(seed % 7));
    assert_int_equal(assign_remove_task(b, task.id), OK);
    assert_int_equal(assign_remove_value(b, ROW_CONFIG, task.service_id, 7), OK);
    value_make(&v, seed * 10);
    assert_int_equal(assign_add_value(b, &v), OK);
    assert_int_equal(assign_add_task(b, &task), OK);
}

static void item_is(struct cursor *in, enum assign_item item, struct assign_one *one) {
    bool more = false;
    assert_int_equal(assign_next(in, &got, one, &more), OK);
    assert_true(more);
    assert_int_equal(one->item, item);
}

static void an_assignment_comes_back_as_it_was(void **state) {
    (void)state;
    struct buf b = buf_new(SESSION_BODY_MAX);
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct assign_head h;
        struct assign_one one;
        bool more = true;
        one_assignment(&b, seed);
        struct cursor in = cursor_of(buf_span(&b));
        assert_int_equal(assign_head(&in, &h), OK);
        assert_int_equal(h.type, ASSIGN_INCREMENTAL);
        assert_true(h.applies_to == seed && h.results_in == seed + 1);
        assert_true(h.last == (seed % 2 == 0));
        item_is(&in, ASSIGN_REMOVE_TASK, &one);
        assert_string_equal(one.id, task.id);
        item_is(&in, ASSIGN_REMOVE_VALUE, &one);
        assert_string_equal(one.id, task.service_id);
        assert_true(one.kind == ROW_CONFIG && one.version == 7);
        item_is(&in, ASSIGN_VALUE, &one);
        assert_int_equal(one.value.bytes.size, seed * 10);
        item_is(&in, ASSIGN_TASK, &one);
        assert_same_task(one.task, &task);
        assert_int_equal(assign_next(&in, &got, &one, &more), OK);
        assert_false(more);
        task_free();
    }
    buf_free(&b);
}

/* All prefixes in memory of exactly their size, so that the sanitizer sees an overrun. */
static void what_is_cut_is_refused(void **state) {
    (void)state;
    struct buf b = buf_new(SESSION_BODY_MAX);
    one_assignment(&b, 4);
    for (size_t size = 0; size < b.size; size++) {
        struct assign_head h;
        struct assign_one one;
        uint8_t *cut = malloc(size == 0 ? 1 : size);
        unsigned items = 0;
        bool more = true;
        assert_non_null(cut);
        memcpy(cut, b.at, size);
        struct cursor in = cursor_of(span_of(cut, size));
        enum err e = assign_head(&in, &h);
        while (e == OK && more) {
            e = assign_next(&in, &got, &one, &more);
            items += e == OK && more;
        }
        assert_true(e == OK || e == ERR_PROTOCOL);
        assert_true(items < 4);
        free(cut);
    }
    task_free();
    buf_free(&b);
}

static void reports_come_back_as_they_were(void **state) {
    (void)state;
    struct task_report r[5], got_one;
    struct buf b = buf_new(SESSION_BODY_MAX);
    bool more = true;
    rng = 77;
    for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
        report_make(&r[i]);
        assert_int_equal(report_add(&b, &r[i]), OK);
    }
    struct cursor in = cursor_of(buf_span(&b));
    for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
        assert_int_equal(report_next(&in, &got_one, &more), OK);
        assert_true(more);
        assert_string_equal(got_one.id, r[i].id);
        assert_true(got_one.state == r[i].state && got_one.exit_code == r[i].exit_code);
        assert_int_equal(got_one.pid, r[i].pid);
        assert_string_equal(got_one.message, r[i].message);
        assert_string_equal(got_one.error, r[i].error);
    }
    assert_int_equal(report_next(&in, &got_one, &more), OK);
    assert_false(more);
    in = cursor_of(span_of(b.at, b.size - 1));
    for (unsigned i = 0; i < ARRAY_SIZE(r) - 1; i++)
        assert_int_equal(report_next(&in, &got_one, &more), OK);
    assert_int_equal(report_next(&in, &got_one, &more), ERR_PROTOCOL);
    buf_free(&b);
}

/* They will stand in tables and logs. */
static void control_characters_of_a_report_become_spaces(void **state) {
    (void)state;
    struct task_report r, back;
    struct buf b = buf_new(SESSION_BODY_MAX);
    bool more = true;
    rng = 5;
    report_make(&r);
    (void)snprintf(r.error, sizeof r.error, "no\nsuch\x1b[2Jfile\x7f");
    assert_int_equal(report_add(&b, &r), OK);
    struct cursor in = cursor_of(buf_span(&b));
    assert_int_equal(report_next(&in, &back, &more), OK);
    assert_string_equal(back.error, "no such [2Jfile ");
    b.at[b.size - 1] = 7;
    in = cursor_of(buf_span(&b));
    assert_int_equal(report_next(&in, &back, &more), ERR_PROTOCOL);
    buf_free(&b);
}

static void a_fetch_and_its_answer_come_back_as_they_were(void **state) {
    (void)state;
    static struct fetch f, f2;
    static struct fetched a, a2;
    struct buf b = buf_new(SESSION_BODY_MAX);
    rng = 9;
    f.number = next();
    for (f.n = 0; f.n < 3; f.n++) {
        f.want[f.n].kind = f.n == 1 ? ROW_CONFIG : ROW_SECRET;
        text(f.want[f.n].name, sizeof f.want[f.n].name);
        f.want[f.n].version = (uint32_t)next();
    }
    assert_int_equal(fetch_encode(&f, &b), OK);
    assert_int_equal(fetch_decode(buf_span(&b), &f2), OK);
    assert_memory_equal(&f.number, &f2.number, sizeof f.number);
    assert_int_equal(f2.n, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(f2.want[i].kind, f.want[i].kind);
        assert_string_equal(f2.want[i].name, f.want[i].name);
        assert_int_equal(f2.want[i].version, f.want[i].version);
    }
    assert_int_equal(fetch_decode(span_of(b.at, b.size - 1), &f2), ERR_PROTOCOL);
    f.want[2].kind = ROW_VALUE;
    assert_int_equal(fetch_encode(&f, &b), ERR_INVALID);
    buf_clear(&b);
    a.number = f.number;
    for (a.n = 0; a.n < 3; a.n++)
        value_make(&a.values[a.n], 100 + a.n);
    assert_int_equal(fetched_encode(&a, &b), OK);
    assert_int_equal(fetched_decode(buf_span(&b), &a2), OK);
    assert_true(a2.n == 3 && a2.number == f.number && a2.error == OK);
    assert_int_equal(a2.values[2].bytes.size, 102);
    assert_string_equal(a2.values[1].id, a.values[1].id);
    a.error = ERR_PERMISSION;
    assert_int_equal(fetched_encode(&a, &b), ERR_INVALID);
    a.n = 0;
    buf_clear(&b);
    assert_int_equal(fetched_encode(&a, &b), OK);
    assert_int_equal(fetched_decode(buf_span(&b), &a2), OK);
    assert_int_equal(a2.error, ERR_PERMISSION);
    buf_free(&b);
}

static void refused_task(struct buf *b) {
    size_t before = b->size;
    assert_int_equal(assign_add_task(b, &task), ERR_INVALID);
    assert_int_equal(b->size, before);
    task_free();
    task_make(&task, 3, 2);
}

static void the_encoder_refuses_what_the_decoder_would(void **state) {
    (void)state;
    struct buf b = buf_new(SESSION_BODY_MAX);
    uint8_t odd[] = {3, 0, 0, 0, 'a', 0, 'b'};
    assert_int_equal(buf_add(&b, "before", 6), OK);
    task_make(&task, 3, 2);
    task.id[3] = '/';
    refused_task(&b);
    task.id[NODE_ID_SIZE - 1] = '\0';
    refused_task(&b);
    memset(task.image, 'x', sizeof task.image);
    refused_task(&b);
    task.desired = TASK_PENDING;
    refused_task(&b);
    task.desired = TASK_RUNNING;
    task.stop_grace_ns = 0; /* how is it to be stopped? */
    refused_task(&b);
    task.stop_grace_ns = -1;
    refused_task(&b);
    task.stop_signal = 0;
    refused_task(&b);
    task.reload_signal = 65;
    refused_task(&b);
    task.n = SERVICE_REFS_MAX + 1;
    refused_task(&b);
    task.command = span_of(odd, sizeof odd); /* a NUL within a word */
    refused_task(&b);
    task.env = span_of(odd, sizeof odd - 1); /* cut */
    refused_task(&b);
    task.mounts = span_of(odd, sizeof odd);
    refused_task(&b);
    task.labels = span_of(odd, sizeof odd);
    refused_task(&b);
    task.files[1].mode = 010000;
    refused_task(&b);
    task.files[0].kind = ROW_NODE;
    refused_task(&b);
    assert_int_equal(assign_add_task(&b, &task), OK);
    task_free();
    buf_free(&b);
}

static void flags_kinds_and_states_are_bounded(void **state) {
    (void)state;
    struct assign_head h = {.type = ASSIGN_COMPLETE, .last = true};
    struct task_report r = {.state = TASK_ASSIGNED};
    struct buf b = buf_new(SESSION_BODY_MAX);
    struct assign_one one;
    bool more = true;
    assert_int_equal(assign_begin(&b, &h), OK);
    static const uint8_t places[] = {0, 17};
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        uint8_t was = b.at[places[i]];
        b.at[places[i]] = 3;
        struct cursor in = cursor_of(buf_span(&b));
        assert_int_equal(assign_head(&in, &h), ERR_PROTOCOL);
        b.at[places[i]] = was;
    }
    rng = 1;
    id(r.id);
    assert_int_equal(report_add(&b, &r), ERR_INVALID);
    assert_int_equal(assign_remove_value(&b, ROW_TASK, r.id, 1), ERR_INVALID);
    buf_clear(&b);
    assert_int_equal(assign_remove_task(&b, r.id), OK);
    b.at[0] = 5; /* no such item */
    struct cursor in = cursor_of(buf_span(&b));
    assert_int_equal(assign_next(&in, &got, &one, &more), ERR_PROTOCOL);
    buf_free(&b);
}

/* A config of its greatest size fits into a message; one more byte is refused; a secret's bound is
 * its own. */
static void the_largest_value_fits_into_a_message(void **state) {
    (void)state;
    struct assign_head h = {.type = ASSIGN_COMPLETE};
    struct buf b = buf_new(SESSION_BODY_MAX);
    struct assign_value v;
    rng = 8;
    value_make(&v, CONFIG_SIZE_MAX);
    v.kind = ROW_CONFIG;
    id(v.task_id);
    assert_int_equal(assign_begin(&b, &h), OK);
    assert_int_equal(assign_add_value(&b, &v), OK);
    assert_true(b.size <= 18 + ASSIGN_VALUE_OVERHEAD + CONFIG_SIZE_MAX);
    v.bytes.size++;
    assert_int_equal(assign_add_value(&b, &v), ERR_TOO_LARGE);
    buf_clear(&b);
    assert_int_equal(assign_add_value(&b, &v), ERR_INVALID);
    v.kind = ROW_SECRET;
    v.bytes.size = SECRET_SIZE_MAX + 1;
    assert_int_equal(assign_add_value(&b, &v), ERR_INVALID);
    v.bytes.size--;
    assert_int_equal(assign_add_value(&b, &v), OK);
    buf_free(&b);
}

static void the_largest_task_fits_into_a_message(void **state) {
    (void)state;
    struct buf b = buf_new(SESSION_BODY_MAX);
    static char word[SERVICE_TEXT_MAX];
    task_make(&task, 2, SERVICE_REFS_MAX);
    memset(word, 'x', sizeof word);
    buf_clear(&command);
    command.max = 2 * SERVICE_SPEC_MAX;
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(buf_block(&command, span_of(word, sizeof word)), OK);
    task.command = task.env = buf_span(&command);
    assert_int_equal(assign_add_task(&b, &task), OK);
    task_free();
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_assignment_comes_back_as_it_was),
        cmocka_unit_test(what_is_cut_is_refused),
        cmocka_unit_test(reports_come_back_as_they_were),
        cmocka_unit_test(control_characters_of_a_report_become_spaces),
        cmocka_unit_test(a_fetch_and_its_answer_come_back_as_they_were),
        cmocka_unit_test(the_encoder_refuses_what_the_decoder_would),
        cmocka_unit_test(flags_kinds_and_states_are_bounded),
        cmocka_unit_test(the_largest_value_fits_into_a_message),
        cmocka_unit_test(the_largest_task_fits_into_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
