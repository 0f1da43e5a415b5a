/* The implementation of states.h: how random commands are chosen, and the machine's functions
 * called the way the replica calls them. Most random commands are puts and deletes of few keys, so
 * that they meet each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/states.h"

#include <stdio.h>
#include <stdlib.h>

uint64_t random_next(uint64_t *seed) {
    uint64_t z = *seed += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

static bool one_in(uint64_t *seed, unsigned n) { return random_next(seed) % n == 0; }

#define WORLD 64 /* keys */

static struct span random_key(uint64_t *seed, char room[16]) {
    (void)snprintf(room, 16, "key-%02u", (unsigned)(random_next(seed) % WORLD));
    return span_str(room);
}

/* Mostly small; now and then longer than a snapshot chunk. */
static struct span random_value(uint64_t *seed) {
    static const uint8_t long_value[300 * 1024] = {1, 2, 3};
    if (one_in(seed, 200)) return span_of(long_value, random_next(seed) % sizeof long_value);
    return span_of(long_value, random_next(seed) % 40);
}

static void random_put(uint64_t *seed, struct command *c, char room[16]) {
    c->op = OP_PUT;
    c->put.key = random_key(seed, room);
    c->put.value = random_value(seed);
    c->put.must_not_exist = one_in(seed, 8);
    c->put.mod_revision =
        !c->put.must_not_exist && one_in(seed, 8) ? 1 + random_next(seed) % 50 : 0;
}

static void random_delete(uint64_t *seed, struct command *c, char room[16], char end[16]) {
    c->op = OP_DELETE;
    c->del.key = random_key(seed, room);
    c->del.end = one_in(seed, 4) ? random_key(seed, end) : span_of(NULL, 0);
    c->del.mod_revision = c->del.end.size == 0 && one_in(seed, 8) ? 1 + random_next(seed) % 50 : 0;
}

static void random_item(uint64_t *seed, struct command *c, char room[16], char end[16]) {
    if (one_in(seed, 3))
        random_delete(seed, c, room, end);
    else
        random_put(seed, c, room);
}

static void random_batch(uint64_t *seed, struct command *c, struct buf *items) {
    char room[16], end[16];
    c->op = OP_BATCH;
    c->batch.n = (uint32_t)(random_next(seed) % 8);
    for (uint32_t i = 0; i < c->batch.n; i++) {
        struct command item = {0};
        random_item(seed, &item, room, end);
        assert_int_equal(command_batch_add(items, &item), OK);
    }
    c->batch.items = buf_span(items);
}

struct node make_node(uint64_t raft_id, const char *id, const char *name) {
    struct node n = {.raft_id = raft_id, .joined_s = 1700000000};
    (void)snprintf(n.id, sizeof n.id, "%s", id);
    (void)snprintf(n.name, sizeof n.name, "%s", name);
    (void)snprintf(n.client_address, sizeof n.client_address, "127.0.0.1:2379");
    (void)snprintf(n.peer_address, sizeof n.peer_address, "127.0.0.1:2377");
    return n;
}

static void cluster_command(struct command *c) {
    c->op = OP_CLUSTER;
    (void)snprintf(c->cluster.id, sizeof c->cluster.id, "cluster");
    c->cluster.now_s = 1700000000;
    c->cluster.root_pem = span_str("the root certificate");
    c->cluster.root_key = span_str("the root key");
    memset(c->cluster.token_hash, 7, TOKEN_HASH_SIZE);
    c->cluster.first = make_node(1, "id-1", "first");
}

static void random_cluster(uint64_t *seed, struct command *c) {
    static const uint8_t key[KEY_SIZE] = "12345678901234567890123456789012";
    char id[16], name[16];
    unsigned k = (unsigned)(random_next(seed) % 40);
    (void)snprintf(id, sizeof id, "id-%u", k);
    (void)snprintf(name, sizeof name, "name-%u", (unsigned)(random_next(seed) % 40));
    c->op = (enum op)(OP_CLUSTER + random_next(seed) % 6);
    switch (c->op) {
    case OP_CLUSTER: cluster_command(c); break;
    case OP_NODE_ADD: c->node = make_node(1 + random_next(seed) % 1000, id, name); break;
    case OP_NODE_UPDATE: c->node = make_node(1 + random_next(seed) % 1000, id, name); break;
    case OP_NODE_REMOVE: c->raft_id = 1 + random_next(seed) % 1000; break;
    case OP_TOKEN: memset(c->token_hash, (int)k, TOKEN_HASH_SIZE); break;
    case OP_LOCK:
        c->unlock_key = one_in(seed, 2) ? span_of(key, sizeof key) : span_of(NULL, 0);
        break;
    case OP_PUT:
    case OP_DELETE:
    case OP_BATCH: break;
    }
}

static void garbage_command(uint64_t *seed, struct buf *out) {
    size_t n = random_next(seed) % 30;
    for (size_t i = 0; i < n; i++)
        assert_int_equal(buf_u8(out, (uint8_t)(random_next(seed) % 64)), OK);
}

void random_command(uint64_t *seed, bool garbage, struct buf *out) {
    struct command c = {0};
    char room[16], end[16];
    struct buf items = buf_new(COMMAND_MAX);
    if (garbage && one_in(seed, 16)) {
        garbage_command(seed, out);
        return;
    }
    switch (random_next(seed) % 16) {
    case 0: random_cluster(seed, &c); break;
    case 1:
    case 2: random_batch(seed, &c, &items); break;
    default: random_item(seed, &c, room, end);
    }
    c.has_token = one_in(seed, 3);
    uint64_t token = random_next(seed) % 500;
    memcpy(c.token, &token, sizeof token);
    assert_int_equal(command_encode(&c, out), OK);
    buf_free(&items);
}

struct result apply_bytes(struct store *s, struct span bytes) {
    struct buf out = buf_new(RESULT_MAX);
    struct machine *m = store_machine(s);
    struct result r;
    assert_int_equal(m->apply(m, 1, bytes, &out, NULL), OK);
    assert_int_equal(result_decode(buf_span(&out), &r), OK);
    m->applied(m, 1);
    buf_free(&out);
    return r;
}

struct result apply(struct store *s, const struct command *c) {
    struct buf bytes = buf_new(COMMAND_MAX);
    assert_int_equal(command_encode(c, &bytes), OK);
    struct result r = apply_bytes(s, buf_span(&bytes));
    buf_free(&bytes);
    return r;
}

struct result put(struct store *s, const char *key, const char *value) {
    struct command c = {.op = OP_PUT, .put = {.key = span_str(key), .value = span_str(value)}};
    return apply(s, &c);
}

struct result delete_key(struct store *s, const char *key) {
    struct command c = {.op = OP_DELETE, .del = {.key = span_str(key)}};
    return apply(s, &c);
}

struct result make_cluster(struct store *s) {
    struct command c = {0};
    cluster_command(&c);
    return apply(s, &c);
}

struct store *store_for_test(void) {
    struct store *s;
    assert_int_equal(store_new(&s), OK);
    return s;
}

struct buf image_of(struct store *s) {
    struct machine *m = store_machine(s);
    struct machine_view *v;
    struct buf all = buf_new(1 * GIB);
    bool done = false;
    assert_int_equal(m->view(m, &v), OK);
    while (!done) {
        size_t before = all.size;
        assert_int_equal(m->view_next(v, &all, &done), OK);
        assert_true(all.size - before <= SNAPSHOT_CHUNK);
    }
    m->view_free(v);
    return all;
}

enum err restore_from(struct store *s, struct span bytes, size_t piece, uint64_t *seed,
                      const uint8_t hash[STATE_HASH_SIZE]) {
    struct machine *m = store_machine(s);
    struct machine_restore *r;
    assert_int_equal(m->restore(m, &r), OK);
    while (bytes.size > 0) {
        size_t size = piece != 0 ? piece : 1 + random_next(seed) % 5000;
        if (size > bytes.size) size = bytes.size;
        enum err e = m->restore_bytes(r, span_of(bytes.at, size));
        if (e != OK) {
            m->restore_abort(r);
            return e;
        }
        bytes = span_of(bytes.at + size, bytes.size - size);
    }
    return m->restore_end(r, hash);
}

void hash_of(struct store *s, uint8_t hash[STATE_HASH_SIZE]) {
    struct machine *m = store_machine(s);
    m->hash(m, hash);
}
