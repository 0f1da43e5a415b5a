/* The cluster keys on real managers, alone and three of them on one loop: what is sealed under
 * them, their rotation with what was off meanwhile; and that no key and no value is in the log, in
 * the state, or in a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/node/nodes.h"
#include "api/node/roles.h"
#include "api/secret/secrets_parts.h"
#include "api/secret/vault.h"
#include "tests/lib/scratch.h"
#include "tests/lib/vault_world.h"

static const char value[] = "correct horse battery staple";

/* The stored row of a secret's newest value; its spans are copied. */
static void value_of(const struct manager *m, const char *id, char value_id[NODE_ID_SIZE + 1],
                     struct value_row *out, struct buf *sealed) {
    struct row row;
    struct held_row *h = calloc(1, sizeof *h);
    assert_true(row_get(m->store, ROW_SECRET, id, &row));
    assert_int_equal(held_decode(row.body, h), OK);
    memcpy(value_id, held_version(h, 0)->value_id, NODE_ID_SIZE + 1);
    free(h);
    assert_true(row_get(m->store, ROW_VALUE, value_id, &row));
    assert_int_equal(value_decode(row.body, out), OK);
    *sealed = buf_new(SECRET_MAX + SEALED_OVERHEAD);
    assert_int_equal(buf_add_span(sealed, out->sealed), OK);
    out->sealed = buf_span(sealed);
}

/* --- sealing ---------------------------------------------------------------------------------- */

static void refuse(const struct manager *m, const char *value_id, const struct value_row *v,
                   enum err want) {
    struct secret *out = NULL;
    struct why why = {0};
    assert_int_equal(vault_unseal(m, value_id, v, &out, &why), want);
    assert_null(out);
    assert_true(why.text[0] != 0);
    assert_null(strstr(why.text, value));
}

static void a_sealed_value_altered_anywhere_is_refused(void **state) {
    (void)state;
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    struct value_row v;
    struct buf sealed;
    char id[NODE_ID_SIZE + 1];
    value_of(m, create(m, "db", span_str(value)), id, &v, &sealed);
    assert_true(opens(m, made_id, value));
    for (size_t i = 0; i < sealed.size; i++) {
        sealed.at[i] ^= 1;
        refuse(m, id, &v, ERR_CORRUPT);
        sealed.at[i] ^= 1;
    }
    for (size_t i = 0; i < sizeof v.wrapped; i++) {
        v.wrapped[i] ^= 0x80;
        refuse(m, id, &v, ERR_CORRUPT);
        v.wrapped[i] ^= 0x80;
    }
    v.sealed.size--; /* cut off */
    refuse(m, id, &v, ERR_CORRUPT);
    v.sealed.size = SEALED_OVERHEAD;
    refuse(m, id, &v, ERR_CORRUPT);
    v.sealed.size = sealed.size;
    v.version++; /* in the place of another version, another secret, another row */
    refuse(m, id, &v, ERR_CORRUPT);
    v.version--;
    v.held_id[0] ^= 1;
    refuse(m, id, &v, ERR_CORRUPT);
    v.held_id[0] ^= 1;
    id[3] ^= 1;
    refuse(m, id, &v, ERR_CORRUPT);
    id[3] ^= 1;
    v.epoch++; /* no such key */
    refuse(m, id, &v, ERR_PRECONDITION);
    v.epoch--;
    struct secret *out = NULL;
    assert_int_equal(vault_unseal(m, id, &v, &out, NULL), OK);
    secret_free(out);
    buf_free(&sealed);
    loners_end(&all);
}

static void the_largest_and_the_smallest_value_come_back(void **state) {
    (void)state;
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    char *large = malloc(SECRET_SIZE_MAX + 1);
    memset(large, 'x', SECRET_SIZE_MAX);
    large[SECRET_SIZE_MAX] = 0;
    (void)create(m, "large", span_str(large));
    assert_true(opens(m, made_id, large));
    (void)create(m, "small", span_str("x"));
    assert_true(opens(m, made_id, "x"));
    free(large);
    loners_end(&all);
}

/* --- where keys and values are not ------------------------------------------------------------ */

static struct buf commands; /* all that was applied: what the log holds, in clear */
static RESULT (*apply)(struct machine *, uint64_t, struct span, struct buf *, struct why *);

static RESULT spy(struct machine *m, uint64_t index, struct span command, struct buf *result,
                  struct why *why) {
    assert_int_equal(buf_add_span(&commands, command), OK);
    return apply(m, index, command, result, why);
}

/* All of the state in clear: what snapshots and backups are made of. */
static void state_of(struct manager *m, struct buf *out) {
    struct machine_view *view;
    bool done = false;
    assert_int_equal(m->machine.view(&m->machine, &view), OK);
    while (!done)
        assert_int_equal(m->machine.view_next(view, out, &done), OK);
    m->machine.view_free(view);
}

static void is_nowhere(const struct buf *bytes, const struct manager *m) {
    assert_true(bytes->size > 0);
    assert_false(loners_found(bytes, span_str(value)));
    for (unsigned i = 0; i < m->self.vault_n; i++)
        assert_false(loners_found(bytes, secret_span(m->self.vault[i].key)));
}

static void no_key_and_no_value_is_in_log_state_or_files(void **state) {
    (void)state;
    struct buf held = buf_new(64 * MIB), files = buf_new(256 * MIB);
    commands = buf_new(64 * MIB);
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    apply = m->machine.apply;
    m->machine.apply = spy;
    (void)create(m, "db", span_str(value));
    rotate(m);
    (void)create(m, "other", span_str(value));
    assert_true(loners_found(&commands, span_str("other"))); /* the spy does see names */
    is_nowhere(&commands, m);
    state_of(m, &held);
    assert_true(loners_found(&held, span_str("other")));
    is_nowhere(&held, m);
    loners_files(all.at[0].root, &files);
    is_nowhere(&files, m);
    m->machine.apply = apply;
    buf_free(&held);
    buf_free(&files);
    buf_free(&commands);
    loners_end(&all);
}

/* --- rotation --------------------------------------------------------------------------------- */

static void a_rotation_wraps_all_values_and_destroys_the_key(void **state) {
    (void)state;
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    struct value_row old;
    struct buf sealed;
    char id[NODE_ID_SIZE + 1], ids[3 * VAULT_WRAP_STEP][NODE_ID_SIZE + 1];
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "s%zu", i);
        (void)snprintf(ids[i], sizeof ids[i], "%s", create(m, name, span_str(name)));
    }
    value_of(m, ids[0], id, &old, &sealed);
    assert_int_equal(old.epoch, 1);
    rotate(m);
    assert_int_equal(vault_of(m).current, 2);
    assert_int_equal(vault_of(m).oldest, 2);
    assert_false(vault_values_below(m->store, 2));
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "s%zu", i);
        assert_true(opens(m, ids[i], name));
    }
    refuse(m, id, &old, ERR_PRECONDITION); /* an older copy of the row */
    assert_int_equal(m->self.vault_n, 1);
    loner_stop(&all.at[0]);
    loner_again(&all.at[0]);
    m = all.at[0].manager;
    assert_int_equal(m->self.vault_n, 1); /* the keyring has no other either */
    assert_int_equal(m->self.vault[0].epoch, 2);
    assert_true(opens(m, ids[7], "s7"));
    buf_free(&sealed);
    loners_end(&all);
}

static void copy_file(const char *from, const char *name, const char *to) {
    char path[512], bytes[64 * KIB];
    (void)snprintf(path, sizeof path, "%s/%s", from, name);
    int in = open(path, O_RDONLY | O_CLOEXEC);
    (void)snprintf(path, sizeof path, "%s/%s", to, name);
    int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(in >= 0 && out >= 0);
    ssize_t size = read(in, bytes, sizeof bytes);
    assert_true(size > 0);
    assert_int_equal(write(out, bytes, (size_t)size), size);
    (void)close(in);
    (void)close(out);
}

static void the_key_of_today_opens_no_keyring_of_yesterday(void **state) {
    (void)state;
    char from[512], to[512];
    struct buf old = buf_new(4 * KIB);
    struct scratch copy;
    struct disk *disk;
    struct keyring *keys;
    struct kek plain = {.kind = KEK_PLAIN};
    scratch_new(&copy);
    loners_start(&all, true);
    copy_file(all.at[0].root, "keyring", copy.path);
    copy_file(all.at[0].root, "kek", copy.path);
    assert_int_equal(disk_real_open(copy.path, &disk, NULL), OK);
    assert_int_equal(keyring_open(disk, plain, &keys, NULL), OK); /* with its own it opens */
    keyring_close(keys);
    (void)snprintf(from, sizeof from, "%s/kek", all.at[0].root);
    (void)snprintf(to, sizeof to, "%s/old", copy.path);
    assert_int_equal(link(from, to), 0); /* the file as it lies on the disk */
    rotate(all.at[0].manager);
    scratch_get(&copy, "old", &old);
    assert_true(old.size > 0 && sodium_is_zero(old.at, old.size));
    buf_free(&old);
    copy_file(all.at[0].root, "kek", copy.path);
    assert_int_equal(keyring_open(disk, plain, &keys, NULL), ERR_WRONG_KEY);
    disk_real_close(disk);
    scratch_free(&copy);
    loners_end(&all);
}

static void one_rotation_at_a_time(void **state) {
    (void)state;
    struct why why = {0};
    struct loners second = {0};
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    (void)create(m, "db", span_str(value));
    all.done = false;
    must(vault_rotate(m, NULL, loners_done, &all, &why), &why);
    must(vault_rotate(m, NULL, loners_done, &second, &why), &why);
    await_done(OK);
    assert_true(second.done); /* whichever was asked first */
    assert_true((second.error == ERR_BUSY) != (all.error == ERR_BUSY) || second.error == OK);
    assert_int_equal(vault_of(m).current, 2);
    loners_end(&all);
}

/* --- several managers ------------------------------------------------------------------------- */

struct holding {
    const struct manager *manager;
    uint32_t epoch;
};

static bool holds_alone(void *ctx) {
    const struct holding *h = ctx;
    const struct node_identity *self = &h->manager->self;
    return self->vault_n == 1 && self->vault[0].epoch == h->epoch &&
           vault_of(h->manager).oldest == h->epoch;
}

static void a_new_manager_has_the_keys_with_its_admission(void **state) {
    (void)state;
    loners_start(&all, false);
    const char *id = create(all.at[0].manager, "db", span_str(value));
    struct loner *n = loners_join(&all, NODE_MANAGER);
    assert_int_equal(n->manager->self.vault_n, 1);
    assert_true(opens(n->manager, id, value));
    loners_end(&all);
}

static void a_worker_is_given_no_key(void **state) {
    (void)state;
    loners_start(&all, false);
    struct loner *n = loners_join(&all, NODE_WORKER);
    assert_int_equal(n->manager->state, MANAGER_WORKER);
    assert_int_equal(n->manager->self.vault_n, 0);
    loners_end(&all);
}

static void a_manager_that_was_off_catches_up(void **state) {
    (void)state;
    start_three();
    const char *id = create(loners_leader(&all)->manager, "db", span_str(value));
    struct loner *off = loners_leader(&all) == &all.at[2] ? &all.at[1] : &all.at[2];
    loner_stop(off);
    rotate(loners_leader(&all)->manager);
    assert_int_equal(vault_of(loners_leader(&all)->manager).current, 2);
    loner_again(off);
    struct holding h = {.manager = off->manager, .epoch = 2};
    loners_until(&all, holds_alone, &h);
    assert_true(opens(off->manager, id, value));
    loners_until(&all, three_voters, &all); /* it is written down as a holder again */
    loners_end(&all);
}

static void any_manager_may_be_asked_for_a_rotation(void **state) {
    (void)state;
    start_three();
    struct loner *asked = loners_leader(&all) == &all.at[0] ? &all.at[1] : &all.at[0];
    rotate(asked->manager);
    for (unsigned i = 0; i < all.n; i++) {
        struct holding h = {.manager = all.at[i].manager, .epoch = 2};
        assert_true(holds_alone(&h)); /* all of them have dropped the first one by then */
    }
    loners_end(&all);
}

static bool is_worker(void *ctx) { return ((struct manager *)ctx)->state == MANAGER_WORKER; }

static void a_demoted_manager_has_no_key_left(void **state) {
    (void)state;
    struct why why = {0};
    start_three();
    struct loner *leader = loners_leader(&all);
    struct loner *out = leader == &all.at[2] ? &all.at[1] : &all.at[2];
    assert_int_equal(out->manager->self.vault_n, 1);
    all.done = false;
    must(nodes_role(leader->manager, out->manager->self.node_id, NODE_WORKER, false, loners_done,
                    &all, &why),
         &why);
    await_done(OK);
    loners_until(&all, is_worker, out->manager);
    assert_int_equal(out->manager->self.vault_n, 0);
    loner_stop(out);
    loner_again(out);
    assert_int_equal(out->manager->self.vault_n, 0);
    loners_end(&all);
}

/* --- calls by whom they are not meant for ----------------------------------------------------- */

static enum err call_error;
static bool called;

static void on_called(struct call *c, enum err e, struct span answer) {
    (void)c;
    call_error = e;
    called = true;
    if (e != OK) assert_true(answer.size > 0);
}

static void call(struct manager *m, struct span request) {
    struct call c = {.request = request, .done = on_called};
    called = false;
    assert_int_equal(replica_call(m->replica, &c), OK);
    while (!called)
        (void)uv_run(&all.loop, UV_RUN_ONCE);
}

static void calls_that_are_not_understood_are_refused(void **state) {
    (void)state;
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    const uint8_t odd[][40] = {
        {VAULT_CALL}, {VAULT_CALL, 9}, {VAULT_CALL, 1, 2, 3}, {VAULT_CALL, 2}};
    const size_t sizes[] = {1, 2, 4, 2};
    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        call(m, span_of(odd[i], sizes[i]));
        assert_int_equal(call_error, ERR_PROTOCOL);
    }
    loners_end(&all);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    loners_done(w->ctx, e == OK ? r->error : e, text);
}

static void write_desired(struct manager *m, const char *node_id, enum node_role role) {
    struct buf changes = buf_new(COMMAND_MAX / 2);
    struct write w = {.done = on_written, .ctx = &all};
    struct row row;
    struct node_row node;
    assert_int_equal(node_row_get(m->store, node_id, &row, &node), OK);
    node.desired = role;
    assert_int_equal(node_change_add(&changes, ROW_REPLACE, &row, &node), OK);
    all.done = false;
    assert_int_equal(rows_command(m, &changes, 1, &w), OK);
    assert_int_equal(manager_write(m, &w), OK);
    await_done(OK);
    buf_free(&changes);
}

static void keys_go_to_managers_only(void **state) {
    (void)state;
    start_three();
    struct loner *leader = loners_leader(&all);
    struct loner *out = leader == &all.at[2] ? &all.at[1] : &all.at[2];
    struct buf request = buf_new(64);
    uint8_t key[crypto_box_PUBLICKEYBYTES], private_key[crypto_box_SECRETKEYBYTES];
    (void)crypto_box_keypair(key, private_key);
    assert_int_equal(buf_u8(&request, VAULT_CALL), OK);
    assert_int_equal(buf_u8(&request, 1), OK);
    assert_int_equal(buf_add(&request, key, sizeof key), OK);
    call(out->manager, buf_span(&request));
    assert_int_equal(call_error, OK);
    write_desired(leader->manager, out->manager->self.node_id, NODE_WORKER);
    call(out->manager, buf_span(&request)); /* it may be out of the quorum by now */
    assert_int_not_equal(call_error, OK);
    buf_free(&request);
    loners_end(&all);
}

/* --- shredding -------------------------------------------------------------------------------- */

struct counted {
    unsigned n;
    enum audit_what what;
};

static bool count_audit(void *ctx, const struct row *row) {
    struct counted *c = ctx;
    struct audit_link link;
    assert_int_equal(audit_read(row, &link), OK);
    c->n += link.is.what == c->what;
    return true;
}

static void shredding_destroys_what_ever_opened_it(void **state) {
    (void)state;
    struct why why = {0};
    struct value_row old;
    struct buf sealed;
    char id[NODE_ID_SIZE + 1], other[NODE_ID_SIZE + 1], value_id[NODE_ID_SIZE + 1];
    struct counted shreds = {.what = AUDIT_SHRED};
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    (void)snprintf(other, sizeof other, "%s", create(m, "other", span_str("stays")));
    (void)snprintf(id, sizeof id, "%s", create(m, "db", span_str(value)));
    value_of(m, id, value_id, &old, &sealed);
    all.done = false;
    must(secrets_shred(m, id, &tester, on_held, &all, &why), &why);
    await_done(OK);
    assert_non_null(strstr(all.text, "epoch 1"));
    refuse(m, value_id, &old, ERR_PRECONDITION);
    assert_true(opens(m, other, "stays"));
    audit_each(m->store, 0, count_audit, &shreds);
    assert_int_equal(shreds.n, 1);
    assert_int_equal(secrets_shred(m, id, &tester, on_held, &all, &why), ERR_NOT_FOUND);
    buf_free(&sealed);
    loners_end(&all);
}

/* The manager that shreds dies behind the removal: its record in the audit is enough. */
static void a_shredding_that_was_cut_short_is_finished(void **state) {
    (void)state;
    struct why why = {0};
    struct held_op *op;
    loners_start(&all, true);
    struct manager *m = all.at[0].manager;
    (void)create(m, "other", span_str("stays"));
    char other[NODE_ID_SIZE + 1];
    memcpy(other, made_id, sizeof other);
    (void)create(m, "db", span_str(value));
    all.done = false;
    must(held_op_new(m, ROW_SECRET, on_held, &all, &op, &why), &why);
    must(held_op_send(op, held_op_remove(op, made_id, AUDIT_SHRED, &tester, &why), &why), &why);
    await_done(OK);
    loner_stop(&all.at[0]);
    loner_again(&all.at[0]);
    m = all.at[0].manager;
    struct holding h = {.manager = m, .epoch = 2};
    loners_until(&all, holds_alone, &h);
    assert_true(opens(m, other, "stays"));
    loners_end(&all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sealed_value_altered_anywhere_is_refused),
        cmocka_unit_test(the_largest_and_the_smallest_value_come_back),
        cmocka_unit_test(no_key_and_no_value_is_in_log_state_or_files),
        cmocka_unit_test(a_rotation_wraps_all_values_and_destroys_the_key),
        cmocka_unit_test(the_key_of_today_opens_no_keyring_of_yesterday),
        cmocka_unit_test(one_rotation_at_a_time),
        cmocka_unit_test(a_new_manager_has_the_keys_with_its_admission),
        cmocka_unit_test(a_worker_is_given_no_key),
        cmocka_unit_test(a_manager_that_was_off_catches_up),
        cmocka_unit_test(any_manager_may_be_asked_for_a_rotation),
        cmocka_unit_test(a_demoted_manager_has_no_key_left),
        cmocka_unit_test(calls_that_are_not_understood_are_refused),
        cmocka_unit_test(keys_go_to_managers_only),
        cmocka_unit_test(shredding_destroys_what_ever_opened_it),
        cmocka_unit_test(a_shredding_that_was_cut_short_is_finished),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
