/* A state as bytes and back: any cutting, every damage, another thread, and a long life after. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "crypto/secret.h"
#include "tests/lib/fault.h"
#include "tests/lib/row_lists.h"

static struct store *random_state(uint64_t seed, unsigned commands) {
    struct store *s = store_for_test();
    struct buf command = buf_new(COMMAND_MAX);
    for (unsigned i = 0; i < commands; i++) {
        buf_clear(&command);
        random_command(&seed, false, &command);
        (void)apply_bytes(s, buf_span(&command));
    }
    buf_free(&command);
    return s;
}

static void must_apply(struct store *s, struct command c) {
    assert_int_equal(apply(s, &c).error, OK);
}

/* Versions before and behind a compaction, a tombstone at it, leases, an alarm, a user. */
static void add_history(struct store *s) {
    must_apply(s, (struct command){.op = OP_LEASE_GRANT, .lease = {.id = 7, .ttl_ms = 1000}});
    must_apply(s, (struct command){.op = OP_LEASE_GRANT, .lease = {.id = 9, .ttl_ms = 2000}});
    must_apply(s, (struct command){.op = OP_PUT, .put = {.key = span_str("leased"), .lease = 9}});
    (void)put(s, "gone", "before");
    (void)put(s, "back", "before");
    (void)delete_key(s, "back");
    (void)delete_key(s, "gone");
    must_apply(s, (struct command){.op = OP_COMPACT, .compact_revision = store_revision(s)});
    (void)put(s, "back", "again");
    (void)put(s, "back", "and again");
    (void)delete_key(s, "c");
    must_apply(
        s, (struct command){.op = OP_ALARM, .alarm = {ALARM_NOSPACE, .raft_id = 3, .raise = true}});
    must_apply(
        s, (struct command){.op = OP_AUTH, .auth = {.op = AUTH_ROLE_ADD, .role = span_str("r")}});
}

/* Rows of every kind, with and without names, old and new; a rotation of the root. */
static void add_rows(struct store *s) {
    struct row_list l = row_list();
    struct spec spec = {.task_history = 3};
    struct node_row n = some_node(NODE_MANAGER, 1), other = some_node(NODE_WORKER, 2);
    struct join_token t = some_token(NODE_WORKER, 1, "secret");
    list_spec(&l, ROW_CREATE, "cluster", &spec);
    list_node(&l, ROW_CREATE, "id-1", 0, "First", &n);
    list_node(&l, ROW_CREATE, "id-2", 0, "", &other);
    list_token(&l, ROW_CREATE, "t", 0, "worker", &t);
    assert_int_equal(list_apply(s, &l).error, OK);
    assert_int_equal(replace_node(s, "id-2", &other), OK);
    struct command c = {.op = OP_CA};
    c.ca.action = CA_START;
    c.ca.next.root_pem = c.ca.next.key = c.ca.cross_pem = span_str("pem");
    must_apply(s, c);
}

/* Few and small, but one of everything. */
static struct store *small_state(void) {
    static const uint8_t key[KEY_SIZE] = "12345678901234567890123456789012";
    struct store *s = store_for_test();
    struct command lock = {.op = OP_LOCK, .unlock_key = span_of(key, sizeof key)};
    struct command with_token = {
        .op = OP_PUT, .has_token = true, .put = {.key = span_str("c"), .value = span_str("3")}};
    (void)make_cluster(s);
    (void)apply(s, &lock);
    (void)put(s, "a", "1");
    (void)put(s, "a", "11");
    (void)put(s, "bb", "");
    (void)apply(s, &with_token);
    with_token.token[0] = 1;
    (void)apply(s, &with_token);
    add_rows(s);
    add_history(s);
    return s;
}

static void check_equal(struct store *a, struct store *b) {
    uint8_t left[STATE_HASH_SIZE], right[STATE_HASH_SIZE];
    hash_of(a, left);
    hash_of(b, right);
    assert_memory_equal(left, right, STATE_HASH_SIZE);
    assert_int_equal(store_revision(a), store_revision(b));
    assert_int_equal(store_keys(a), store_keys(b));
    assert_int_equal(store_bytes(a), store_bytes(b));
    struct buf one = image_of(a), other = image_of(b);
    assert_true(span_equal(buf_span(&one), buf_span(&other)));
    buf_free(&one);
    buf_free(&other);
}

/* Both go on with the same commands and stay the same: tokens, revisions, cluster and all. */
static void check_go_on_equal(struct store *a, struct store *b, uint64_t seed) {
    struct buf command = buf_new(COMMAND_MAX);
    for (unsigned i = 0; i < 2000; i++) {
        buf_clear(&command);
        random_command(&seed, true, &command);
        struct result left = apply_bytes(a, buf_span(&command));
        struct result right = apply_bytes(b, buf_span(&command));
        assert_int_equal(left.error, right.error);
        assert_int_equal(left.revision, right.revision);
        assert_int_equal(left.repeated, right.repeated);
    }
    buf_free(&command);
    check_equal(a, b);
}

static void a_restored_state_is_the_same_and_goes_on_the_same(void **state) {
    (void)state;
    uint64_t cuts = 5;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct store *a = random_state(seed, 3000), *b = random_state(seed + 100, 500);
        uint8_t hash[STATE_HASH_SIZE];
        struct buf image = image_of(a);
        hash_of(a, hash);
        assert_int_equal(restore_from(b, buf_span(&image), 0, &cuts, hash), OK);
        check_equal(a, b);
        check_go_on_equal(a, b, seed);
        buf_free(&image);
        store_free(a);
        store_free(b);
    }
}

static void an_image_may_be_cut_anywhere(void **state) {
    (void)state;
    struct store *a = small_state();
    uint8_t hash[STATE_HASH_SIZE];
    struct buf image = image_of(a);
    hash_of(a, hash);
    for (size_t piece = 1; piece <= image.size; piece++) {
        struct store *b = store_for_test();
        assert_int_equal(restore_from(b, buf_span(&image), piece, NULL, hash), OK);
        check_equal(a, b);
        store_free(b);
    }
    buf_free(&image);
    store_free(a);
}

static void an_empty_state_has_an_image(void **state) {
    (void)state;
    struct store *a = store_for_test(), *b = small_state();
    uint8_t hash[STATE_HASH_SIZE];
    struct buf image = image_of(a);
    hash_of(a, hash);
    assert_int_equal(restore_from(b, buf_span(&image), 7, NULL, hash), OK);
    check_equal(a, b);
    assert_false(store_cluster(b)->initialised);
    buf_free(&image);
    store_free(a);
    store_free(b);
}

static void damage_at_every_byte_is_found_and_the_state_stays(void **state) {
    (void)state;
    struct store *a = small_state(), *b = small_state();
    struct command clear = {.op = OP_ALARM};
    clear.alarm.alarm = ALARM_NOSPACE;
    must_apply(b, clear);
    (void)put(b, "mine", "kept");
    uint8_t hash[STATE_HASH_SIZE];
    struct buf image = image_of(a);
    hash_of(a, hash);
    for (size_t i = 0; i < image.size; i++) {
        for (unsigned flip = 1; flip < 256; flip = flip * 3 + 1) {
            image.at[i] ^= (uint8_t)flip;
            enum err e = restore_from(b, buf_span(&image), 64, NULL, hash);
            image.at[i] ^= (uint8_t)flip;
            if (e != ERR_CORRUPT) fail_msg("byte %zu flipped by %u: %s", i, flip, err_name(e));
        }
    }
    struct kv kv;
    assert_true(store_get(b, span_str("mine"), &kv));
    assert_int_equal(restore_from(b, buf_span(&image), 64, NULL, hash), OK);
    buf_free(&image);
    store_free(a);
    store_free(b);
}

static void a_part_or_more_than_an_image_is_refused(void **state) {
    (void)state;
    struct store *a = small_state(), *b = store_for_test();
    uint8_t hash[STATE_HASH_SIZE];
    struct buf image = image_of(a);
    hash_of(a, hash);
    for (size_t size = 0; size < image.size; size++)
        assert_int_equal(restore_from(b, span_of(image.at, size), 4096, NULL, hash), ERR_CORRUPT);
    assert_int_equal(buf_u8(&image, 0), OK);
    assert_int_equal(restore_from(b, buf_span(&image), 4096, NULL, hash), ERR_CORRUPT);
    image.size--;
    hash[0] ^= 1;
    assert_int_equal(restore_from(b, buf_span(&image), 4096, NULL, hash), ERR_CORRUPT);
    buf_free(&image);
    store_free(a);
    store_free(b);
}

/* The bytes of an image up to `end`, which is before its hash: the rows' own checks. */
static enum err feed(struct store *s, const uint8_t *from, const uint8_t *end) {
    struct machine *m = store_machine(s);
    struct machine_restore *r;
    assert_int_equal(m->restore(m, &r), OK);
    enum err e = m->restore_bytes(r, span_of(from, (size_t)(end - from)));
    m->restore_abort(r);
    return e;
}

static uint8_t *find(const struct buf *image, const void *what, size_t size) {
    uint8_t *at = memmem(image->at, image->size, what, size);
    assert_non_null(at);
    return at;
}

static void rows_that_no_state_has_are_refused(void **state) {
    (void)state;
    struct store *a = small_state(), *b = store_for_test();
    struct buf image = image_of(a);
    uint8_t digest[NODE_DIGEST_SIZE];
    memset(digest, 2, sizeof digest);
    /* The second node: its row's head is the 30 bytes before its key, its body begins 24 behind. */
    uint8_t *key = find(&image, "\x02id-2", 5), *head = key - 30;
    const uint8_t *end = find(&image, "\x03t", 2);
    const struct {
        uint8_t *at, to;
    } bad[] = {
        {key, 9},       {key, 0},         {key + 4, '1'}, /* no kind; the first one's id */
        {key + 4, '0'}, {key + 1, ' '},                   /* below the first one's; no id */
        {head, 1},      {head + 1, 0x7f}, {head + 5, 1},  /* sizes */
        {head + 21, 1}, {head + 6, 0},    {head + 6, 9},  /* the future; created never, or later */
        {head + 22, 0}, {head + 22, 1},                   /* changes */
        {key + 21, 7},  {key + 29, 7},                    /* name; its role */
    };
    assert_int_equal(feed(b, image.at, end), OK);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        uint8_t kept = *bad[i].at;
        assert_int_not_equal(kept, bad[i].to);
        *bad[i].at = bad[i].to;
        if (feed(b, image.at, end + 64) != ERR_CORRUPT) fail_msg("change %u was taken", i);
        *bad[i].at = kept;
    }
    memset(find(&image, digest, sizeof digest), 1, sizeof digest); /* another one has this key */
    assert_int_equal(feed(b, image.at, end), ERR_CORRUPT);
    buf_free(&image);
    store_free(a);
    store_free(b);
}

/* One join token more than there may be, behind the last one: its row again, with another id and
 * hash. */
static void more_rows_than_there_may_be_are_refused(void **state) {
    (void)state;
    struct store *a = store_for_test(), *b = store_for_test();
    struct row_list l = row_list();
    (void)make_cluster(a);
    for (unsigned i = 0; i < ROW_TOKENS_MAX; i++) {
        char text[16];
        (void)snprintf(text, sizeof text, "t-%04u", i);
        struct join_token t = some_token(NODE_WORKER, 0, text);
        list_token(&l, ROW_CREATE, text, 0, "", &t);
        if (l.n == ROWS_CHANGE_MAX) assert_int_equal(list_apply(a, &l).error, OK);
    }
    struct buf image = image_of(a);
    uint8_t *last = find(&image, "\x03t-4095", 7) - 30;
    size_t size = 30 + 7 + get_u32(last + 2), before = (size_t)(last - image.at) + size;
    assert_int_equal(feed(b, image.at, image.at + before), OK);
    struct buf more = buf_new(1 * GIB);
    assert_int_equal(buf_add(&more, image.at, before), OK);
    assert_int_equal(buf_add(&more, last, size), OK);
    put_u64(more.at + 72, ROW_TOKENS_MAX + 1);
    more.at[before + 30 + 6] = '6';
    more.at[before + 30 + 7 + 24 + 1] ^= 1;
    assert_int_equal(feed(b, more.at, more.at + before), OK);
    assert_int_equal(feed(b, more.at, more.at + more.size), ERR_CORRUPT);
    buf_free(&image);
    buf_free(&more);
    buf_free(&l.changes);
    store_free(a);
    store_free(b);
}

static void a_full_token_table_survives_in_order(void **state) {
    (void)state;
    struct store *a = store_for_test(), *b = store_for_test();
    uint8_t hash[STATE_HASH_SIZE];
    struct command c = {.op = OP_PUT, .has_token = true, .put = {.key = span_str("k")}};
    for (uint32_t i = 0; i < TOKENS_MAX + 700; i++) {
        memcpy(c.token, &i, sizeof i);
        (void)apply(a, &c);
    }
    struct buf image = image_of(a);
    hash_of(a, hash);
    assert_int_equal(restore_from(b, buf_span(&image), 100000, NULL, hash), OK);
    for (uint32_t i = 0; i < 1500; i++) {
        uint32_t token = i * 97;
        memcpy(c.token, &token, sizeof token);
        struct result left = apply(a, &c), right = apply(b, &c);
        assert_int_equal(left.repeated, right.repeated);
        assert_int_equal(left.revision, right.revision);
    }
    check_equal(a, b);
    buf_free(&image);
    store_free(a);
    store_free(b);
}

/* --- another thread --- */

struct writer {
    struct machine *machine;
    struct machine_view *view;
    struct buf bytes;
    enum err e;
};

static void *write_image(void *arg) {
    struct writer *w = arg;
    bool done = false;
    while (w->e == OK && !done)
        w->e = w->machine->view_next(w->view, &w->bytes, &done);
    return NULL;
}

static void a_thread_writes_the_image_while_commands_go_on(void **state) {
    (void)state;
    struct store *a = random_state(77, 3000), *b = store_for_test();
    uint64_t seed = 99;
    struct buf command = buf_new(COMMAND_MAX);
    for (unsigned round = 0; round < 10; round++) {
        struct writer w = {.machine = store_machine(a), .bytes = buf_new(1 * GIB)};
        uint8_t hash[STATE_HASH_SIZE];
        pthread_t thread;
        assert_int_equal(w.machine->view(w.machine, &w.view), OK);
        assert_int_equal(pthread_create(&thread, NULL, write_image, &w), 0);
        for (unsigned i = 0; i < 1000; i++) {
            buf_clear(&command);
            random_command(&seed, true, &command);
            (void)apply_bytes(a, buf_span(&command));
        }
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(w.e, OK);
        w.machine->view_hash(w.view, hash);
        w.machine->view_free(w.view);
        assert_int_equal(restore_from(b, buf_span(&w.bytes), 10000, NULL, hash), OK);
        buf_free(&w.bytes);
    }
    buf_free(&command);
    store_free(a);
    store_free(b);
}

/* --- out of memory
 * -------------------------------------------------------------------------------- */

struct sweep {
    struct store *from, *to;
    struct buf image;
    uint8_t hash[STATE_HASH_SIZE];
    enum err e;
};

static enum err write_out(struct sweep *w) {
    struct machine *m = store_machine(w->from);
    struct machine_view *v;
    bool done = false;
    buf_free(&w->image);
    enum err e = m->view(m, &v);
    if (e != OK) return e;
    while (e == OK && !done)
        e = m->view_next(v, &w->image, &done);
    m->view_free(v);
    return e;
}

static enum err read_in(struct sweep *w) {
    struct machine *m = store_machine(w->to);
    struct machine_restore *r;
    enum err e = m->restore(m, &r);
    if (e != OK) return e;
    e = m->restore_bytes(r, buf_span(&w->image));
    if (e == OK) return m->restore_end(r, w->hash);
    m->restore_abort(r);
    return e;
}

static void out_and_in(void *ctx) {
    struct sweep *w = ctx;
    w->e = write_out(w);
    if (w->e == OK) w->e = read_in(w);
}

static void all_or_no_memory(void *ctx, bool fired) {
    struct sweep *w = ctx;
    assert_int_equal(w->e, fired ? ERR_NOMEM : OK);
}

static void every_failing_allocation_is_reported(void **state) {
    (void)state;
    struct sweep w = {.from = small_state(), .to = store_for_test(), .image = buf_new(1 * GIB)};
    hash_of(w.from, w.hash);
    assert_true(fault_sweep_alloc(out_and_in, all_or_no_memory, &w) > 10);
    check_equal(w.from, w.to);
    buf_free(&w.image);
    store_free(w.from);
    store_free(w.to);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restored_state_is_the_same_and_goes_on_the_same),
        cmocka_unit_test(an_image_may_be_cut_anywhere),
        cmocka_unit_test(an_empty_state_has_an_image),
        cmocka_unit_test(damage_at_every_byte_is_found_and_the_state_stays),
        cmocka_unit_test(a_part_or_more_than_an_image_is_refused),
        cmocka_unit_test(rows_that_no_state_has_are_refused),
        cmocka_unit_test(more_rows_than_there_may_be_are_refused),
        cmocka_unit_test(a_full_token_table_survives_in_order),
        cmocka_unit_test(a_thread_writes_the_image_while_commands_go_on),
        cmocka_unit_test(every_failing_allocation_is_reported),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
