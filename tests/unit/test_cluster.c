/* The cluster's own state: made once, nodes unique and never a raft id twice, found by id, prefix
 * or name; its CA through rotations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "crypto/secret.h"
#include "tests/lib/states.h"

static enum err add(struct store *s, uint64_t raft_id, const char *id, const char *name) {
    struct command c = {.op = OP_NODE_ADD, .node = make_node(raft_id, id, name)};
    return apply(s, &c).error;
}

static enum err remove_node(struct store *s, uint64_t raft_id) {
    struct command c = {.op = OP_NODE_REMOVE, .raft_id = raft_id};
    return apply(s, &c).error;
}

static void a_cluster_is_made_once(void **state) {
    (void)state;
    struct store *s = store_for_test();
    assert_false(store_cluster(s)->initialised);
    assert_int_equal(add(s, 1, "id", "name"), ERR_PRECONDITION);
    assert_int_equal(make_cluster(s).error, OK);
    const struct cluster *c = store_cluster(s);
    assert_true(c->initialised);
    assert_string_equal(c->id, "cluster");
    assert_true(span_equal(buf_span(&c->ca.root_pem), span_str("the root certificate")));
    assert_true(span_equal(secret_span(c->ca.key), span_str("the root key")));
    assert_int_equal(c->n, 1);
    assert_int_equal(c->next_raft_id, 2);
    assert_int_equal(make_cluster(s).error, ERR_EXISTS);
    assert_int_equal(store_revision(s), 1);
    store_free(s);
}

static void a_raft_id_is_never_used_again(void **state) {
    (void)state;
    struct store *s = store_for_test();
    (void)make_cluster(s);
    assert_int_equal(add(s, 1, "id-2", "second"), ERR_PRECONDITION);
    assert_int_equal(add(s, 2, "id-2", "second"), OK);
    assert_int_equal(remove_node(s, 2), OK);
    assert_int_equal(remove_node(s, 2), ERR_NOT_FOUND);
    assert_int_equal(add(s, 2, "id-3", "third"), ERR_PRECONDITION);
    assert_int_equal(add(s, 9, "id-3", "third"), OK);
    assert_int_equal(add(s, UINT64_MAX, "id-4", "fourth"), ERR_PRECONDITION);
    assert_int_equal(store_cluster(s)->next_raft_id, 10);
    store_free(s);
}

static void ids_and_names_are_unique(void **state) {
    (void)state;
    struct store *s = store_for_test();
    (void)make_cluster(s);
    assert_int_equal(add(s, 2, "id-1", "second"), ERR_EXISTS);
    assert_int_equal(add(s, 2, "id-2", "first"), ERR_EXISTS);
    assert_int_equal(add(s, 2, "id-2", "second"), OK);
    struct command c = {.op = OP_NODE_UPDATE, .node = make_node(2, "ignored", "first")};
    assert_int_equal(apply(s, &c).error, ERR_EXISTS);
    c.node = make_node(2, "ignored", "renamed");
    (void)snprintf(c.node.peer_address, sizeof c.node.peer_address, "10.0.0.1:1");
    assert_int_equal(apply(s, &c).error, OK);
    const struct node *n = cluster_node(store_cluster(s), 2);
    assert_string_equal(n->id, "id-2");
    assert_string_equal(n->name, "renamed");
    assert_string_equal(n->peer_address, "10.0.0.1:1");
    c.node.raft_id = 77;
    assert_int_equal(apply(s, &c).error, ERR_NOT_FOUND);
    store_free(s);
}

static void there_is_room_for_so_many_nodes(void **state) {
    (void)state;
    struct store *s = store_for_test();
    char id[16];
    (void)make_cluster(s);
    for (unsigned i = 2; i <= NODES_MAX; i++) {
        (void)snprintf(id, sizeof id, "id-%u", i);
        assert_int_equal(add(s, i, id, id), OK);
    }
    assert_int_equal(add(s, NODES_MAX + 1, "more", "more"), ERR_TOO_LARGE);
    assert_int_equal(remove_node(s, 5), OK);
    assert_int_equal(add(s, NODES_MAX + 1, "more", "more"), OK);
    assert_null(cluster_node(store_cluster(s), 5));
    assert_non_null(cluster_node_by_id(store_cluster(s), "more"));
    store_free(s);
}

static void a_node_is_found_by_id_by_prefix_and_by_name(void **state) {
    (void)state;
    struct store *s = store_for_test();
    struct why why;
    const struct node *n;
    (void)make_cluster(s);
    assert_int_equal(add(s, 2, "abcdef1", "second"), OK);
    assert_int_equal(add(s, 3, "abcxyz2", "third"), OK);
    assert_int_equal(add(s, 4, "fourth-id", "abcdef"), OK);
    const struct cluster *c = store_cluster(s);
    assert_int_equal(cluster_find(c, "abcdef1", &n, &why), OK);
    assert_int_equal(n->raft_id, 2);
    assert_int_equal(cluster_find(c, "abcx", &n, &why), OK);
    assert_int_equal(n->raft_id, 3);
    assert_int_equal(cluster_find(c, "abcdef", &n, &why), OK); /* a name goes before a prefix */
    assert_int_equal(n->raft_id, 4);
    assert_int_equal(cluster_find(c, "abc", &n, &why), ERR_INVALID);
    assert_int_equal(cluster_find(c, "ab", &n, &why), ERR_NOT_FOUND);
    assert_int_equal(cluster_find(c, "nobody", &n, &why), ERR_NOT_FOUND);
    assert_string_equal(why.text, "there is no node \"nobody\"");
    store_free(s);
}

static void the_lock_changes(void **state) {
    (void)state;
    static const uint8_t key[KEY_SIZE] = "12345678901234567890123456789012";
    struct store *s = store_for_test();
    struct command lock = {.op = OP_LOCK, .unlock_key = span_of(key, sizeof key)};
    (void)make_cluster(s);
    assert_null(store_cluster(s)->unlock_key);
    assert_int_equal(apply(s, &lock).error, OK);
    assert_true(span_equal(secret_span(store_cluster(s)->unlock_key), lock.unlock_key));
    lock.unlock_key.size = 0;
    assert_int_equal(apply(s, &lock).error, OK);
    assert_null(store_cluster(s)->unlock_key);
    store_free(s);
}

static void a_lock_that_was_changed_meanwhile_stays(void **state) {
    (void)state;
    static const uint8_t keys[2][KEY_SIZE] = {{1}, {2}};
    uint8_t none[LOCK_DIGEST_SIZE], first[LOCK_DIGEST_SIZE];
    struct store *s = store_for_test();
    struct command lock = {.op = OP_LOCK, .unlock_key = span_of(keys[0], KEY_SIZE)};
    (void)make_cluster(s);
    cluster_lock_digest(store_cluster(s), none);
    lock.lock_replaces = span_of(none, sizeof none);
    assert_int_equal(apply(s, &lock).error, OK);
    lock.unlock_key.at = keys[1];
    assert_int_equal(apply(s, &lock).error, ERR_CONFLICT);
    assert_memory_equal(secret_span(store_cluster(s)->unlock_key).at, keys[0], KEY_SIZE);
    cluster_lock_digest(store_cluster(s), first);
    lock.lock_replaces.at = first;
    assert_int_equal(apply(s, &lock).error, OK);
    assert_memory_equal(secret_span(store_cluster(s)->unlock_key).at, keys[1], KEY_SIZE);
    store_free(s);
}

/* --- rotating the root --- */

static enum err start_ca(struct store *s, uint64_t rotation, const char *root, const char *cross) {
    struct command c = {.op = OP_CA};
    c.ca.action = CA_START;
    c.ca.rotation = rotation;
    c.ca.next.root_pem = span_str(root);
    c.ca.next.issuer_pem = span_str("an issuer");
    c.ca.next.key = span_str("its key");
    c.ca.cross_pem = span_str(cross);
    return apply(s, &c).error;
}

static enum err ca(struct store *s, enum ca_action action, uint64_t rotation, bool retire) {
    struct command c = {.op = OP_CA};
    c.ca.action = action;
    c.ca.rotation = rotation;
    c.ca.retire = retire;
    return apply(s, &c).error;
}

static void assert_pem(const struct buf *pem, const char *expected) {
    assert_true(span_equal(buf_span(pem), span_str(expected)));
}

static struct store *founded(void) {
    struct store *s = store_for_test();
    assert_int_equal(make_cluster(s).error, OK);
    return s;
}

static void a_rotation_is_started_and_finished(void **state) {
    (void)state;
    struct store *s = founded();
    assert_false(cluster_rotating(store_cluster(s)));
    assert_int_equal(ca(s, CA_FINISH, 0, false), ERR_PRECONDITION);
    assert_int_equal(ca(s, CA_ABORT, 0, false), ERR_PRECONDITION);
    assert_int_equal(start_ca(s, 0, "root 1", "cross 1"), OK);
    const struct cluster *c = store_cluster(s);
    assert_true(cluster_rotating(c));
    assert_int_equal(c->rotation, 1);
    assert_pem(&c->ca.root_pem, "the root certificate");
    assert_pem(&c->next.root_pem, "root 1");
    assert_pem(&c->next.issuer_pem, "an issuer");
    assert_true(span_equal(secret_span(c->next.key), span_str("its key")));
    assert_pem(&c->cross_pem, "cross 1");
    assert_int_equal(ca(s, CA_FINISH, 0, false), ERR_CONFLICT); /* seen before it was started */
    assert_int_equal(ca(s, CA_FINISH, 1, false), OK);
    c = store_cluster(s);
    assert_false(cluster_rotating(c));
    assert_pem(&c->ca.root_pem, "root 1");
    assert_pem(&c->ca.issuer_pem, "an issuer");
    assert_true(span_equal(secret_span(c->ca.key), span_str("its key")));
    assert_null(c->next.key);
    assert_pem(&c->cross_pem, "");
    assert_pem(&c->retired_pem, "");
    assert_int_equal(c->rotation, 1);
    store_free(s);
}

static void a_rotation_is_aborted_or_gives_way_to_another(void **state) {
    (void)state;
    struct store *s = founded();
    assert_int_equal(start_ca(s, 0, "root 1", "cross 1"), OK);
    assert_int_equal(start_ca(s, 0, "root 2", "cross 2"), ERR_CONFLICT);
    assert_int_equal(start_ca(s, 1, "root 2", "cross 2"), OK);
    assert_pem(&store_cluster(s)->next.root_pem, "root 2");
    assert_pem(&store_cluster(s)->cross_pem, "cross 2");
    assert_int_equal(ca(s, CA_ABORT, 2, false), OK);
    const struct cluster *c = store_cluster(s);
    assert_false(cluster_rotating(c));
    assert_pem(&c->ca.root_pem, "the root certificate");
    assert_true(span_equal(secret_span(c->ca.key), span_str("the root key")));
    assert_pem(&c->cross_pem, "");
    assert_int_equal(c->rotation, 2);
    store_free(s);
}

static void old_roots_and_their_crosses_are_kept_until_they_are_forgotten(void **state) {
    (void)state;
    struct store *s = founded();
    assert_int_equal(start_ca(s, 0, "root 1 ", "cross 1 "), OK);
    assert_int_equal(ca(s, CA_FINISH, 1, true), OK);
    assert_pem(&store_cluster(s)->retired_pem, "the root certificate");
    assert_pem(&store_cluster(s)->cross_pem, "cross 1 ");
    assert_int_equal(start_ca(s, 1, "root 2 ", "cross 2 "), OK);
    assert_pem(&store_cluster(s)->cross_pem, "cross 2 cross 1 ");
    assert_int_equal(ca(s, CA_ABORT, 2, false), OK);
    assert_pem(&store_cluster(s)->cross_pem, "cross 1 ");
    assert_int_equal(start_ca(s, 2, "root 3 ", "cross 3 "), OK);
    assert_int_equal(ca(s, CA_FINISH, 3, true), OK);
    assert_pem(&store_cluster(s)->retired_pem, "the root certificateroot 1 ");
    assert_pem(&store_cluster(s)->cross_pem, "cross 3 cross 1 ");
    assert_int_equal(start_ca(s, 3, "root 4 ", "cross 4 "), OK);
    assert_int_equal(ca(s, CA_FORGET, 4, false), OK);
    assert_pem(&store_cluster(s)->retired_pem, "");
    assert_pem(&store_cluster(s)->cross_pem, "cross 4 "); /* a rotation runs */
    assert_int_equal(ca(s, CA_FINISH, 4, false), OK);
    assert_pem(&store_cluster(s)->cross_pem, "");
    store_free(s);
}

static void there_is_room_for_so_many_old_roots(void **state) {
    (void)state;
    static char large[PEM_MAX / 2 + 1];
    memset(large, 'r', PEM_MAX / 2);
    struct store *s = founded();
    uint64_t rotation = 0;
    for (; rotation < 2; rotation++) {
        assert_int_equal(start_ca(s, rotation, large, ""), OK);
        assert_int_equal(ca(s, CA_FINISH, rotation + 1, true), OK);
    }
    assert_int_equal(start_ca(s, rotation++, large, ""), OK);
    assert_int_equal(ca(s, CA_FINISH, rotation, true), ERR_TOO_LARGE);
    assert_true(cluster_rotating(store_cluster(s)));
    assert_int_equal(ca(s, CA_FINISH, rotation, false), OK);
    store_free(s);
}

static void another_cluster_has_nothing_of_a_rotation(void **state) {
    (void)state;
    struct store *s = founded();
    assert_int_equal(start_ca(s, 0, "root 1", "cross 1"), OK);
    assert_int_equal(ca(s, CA_FINISH, 1, true), OK);
    assert_int_equal(start_ca(s, 1, "root 2", "cross 2"), OK);
    struct command c = {.op = OP_CLUSTER};
    (void)snprintf(c.cluster.id, sizeof c.cluster.id, "another");
    c.cluster.ca.root_pem = span_str("its root"); /* and no key: it is elsewhere */
    c.cluster.join_key = span_str("another key of all join tokens!!");
    c.cluster.first = make_node(9, "z", "zeta");
    c.cluster.replace = true;
    assert_int_equal(apply(s, &c).error, OK);
    const struct cluster *now = store_cluster(s);
    assert_false(cluster_rotating(now));
    assert_int_equal(now->rotation, 0);
    assert_null(now->ca.key);
    assert_pem(&now->ca.root_pem, "its root");
    assert_pem(&now->cross_pem, "");
    assert_pem(&now->retired_pem, "");
    assert_true(span_equal(secret_span(now->join_key), c.cluster.join_key));
    store_free(s);
}

static void the_bytes_of_a_cluster_are_read_back_or_refused(void **state) {
    (void)state;
    struct store *s = founded();
    struct buf bytes = buf_new(CLUSTER_BYTES_MAX), again = buf_new(CLUSTER_BYTES_MAX);
    struct cluster *c;
    assert_int_equal(start_ca(s, 0, "root 1", "cross 1"), OK);
    assert_int_equal(ca(s, CA_FINISH, 1, true), OK);
    assert_int_equal(start_ca(s, 1, "root 2", "cross 2"), OK);
    assert_int_equal(add(s, 2, "id-2", "second"), OK);
    assert_int_equal(cluster_encode(store_cluster(s), &bytes), OK);
    assert_int_equal(cluster_decode(buf_span(&bytes), &c), OK);
    assert_int_equal(cluster_encode(c, &again), OK);
    assert_true(span_equal(buf_span(&bytes), buf_span(&again)));
    cluster_free(c);
    for (size_t size = 0; size < bytes.size; size++)
        assert_int_equal(cluster_decode(span_of(bytes.at, size), &c), ERR_CORRUPT);
    bytes.at[0] = 0; /* not initialised, and yet with all that makes a cluster */
    assert_int_equal(cluster_decode(buf_span(&bytes), &c), ERR_CORRUPT);
    buf_wipe(&bytes);
    buf_wipe(&again);
    store_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cluster_is_made_once),
        cmocka_unit_test(a_raft_id_is_never_used_again),
        cmocka_unit_test(ids_and_names_are_unique),
        cmocka_unit_test(there_is_room_for_so_many_nodes),
        cmocka_unit_test(a_node_is_found_by_id_by_prefix_and_by_name),
        cmocka_unit_test(the_lock_changes),
        cmocka_unit_test(a_lock_that_was_changed_meanwhile_stays),
        cmocka_unit_test(a_rotation_is_started_and_finished),
        cmocka_unit_test(a_rotation_is_aborted_or_gives_way_to_another),
        cmocka_unit_test(old_roots_and_their_crosses_are_kept_until_they_are_forgotten),
        cmocka_unit_test(there_is_room_for_so_many_old_roots),
        cmocka_unit_test(another_cluster_has_nothing_of_a_rotation),
        cmocka_unit_test(the_bytes_of_a_cluster_are_read_back_or_refused),
    };
    if (crypto_start(NULL) != OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
