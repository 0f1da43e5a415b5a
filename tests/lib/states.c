/* The implementation of states.h: how random commands are chosen, and the machine's functions
 * called the way the replica calls them. Most random commands are puts and deletes of few keys, so
 * that they meet each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/row_lists.h"
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

#define WORLD  64 /* keys */
#define LEASES 10

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
    c->put.lease = one_in(seed, 6) ? 1 + random_next(seed) % LEASES : 0;
    c->put.prev_kv = one_in(seed, 10);
    c->put.mod_revision =
        !c->put.must_not_exist && one_in(seed, 8) ? 1 + random_next(seed) % 50 : 0;
}

static void random_delete(uint64_t *seed, struct command *c, char room[16], char end[16]) {
    c->op = OP_DELETE;
    c->del.in.key = random_key(seed, room);
    c->del.in.end = one_in(seed, 4) ? random_key(seed, end) : span_of(NULL, 0);
    c->del.mod_revision =
        c->del.in.end.size == 0 && one_in(seed, 8) ? 1 + random_next(seed) % 50 : 0;
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

static struct interval random_interval(uint64_t *seed, char room[16], char end[16]) {
    struct interval in = {.key = random_key(seed, room)};
    if (one_in(seed, 8)) in.key = span_of("", 1);
    if (one_in(seed, 2)) in.end = random_key(seed, end);
    if (one_in(seed, 8)) in.end = span_of("", 1);
    return in;
}

static void random_range(uint64_t *seed, struct range *r, char room[16], char end[16]) {
    *r = (struct range){.in = random_interval(seed, room, end)};
    if (one_in(seed, 3)) r->limit = 1 + random_next(seed) % 10;
    if (one_in(seed, 6)) r->revision = 1 + random_next(seed) % 3000;
    if (one_in(seed, 3)) r->order = (enum sort_order)(random_next(seed) % 3);
    if (one_in(seed, 3)) r->target = (enum sort_target)(random_next(seed) % 5);
    if (one_in(seed, 8)) r->min_mod_revision = 1 + random_next(seed) % 3000;
    if (one_in(seed, 8)) r->max_create_revision = 1 + random_next(seed) % 3000;
    r->keys_only = one_in(seed, 8);
    r->count_only = one_in(seed, 8);
}

static void random_compares(uint64_t *seed, struct buf *out) {
    for (unsigned n = (unsigned)(random_next(seed) % 3); n > 0; n--) {
        char room[16], end[16];
        struct compare c = {.in = random_interval(seed, room, end)};
        if (!one_in(seed, 4)) c.in.end = span_of(NULL, 0);
        c.target = (enum compare_target)(random_next(seed) % 5);
        c.result = (enum compare_result)(random_next(seed) % 4);
        c.number = (int64_t)(random_next(seed) % 4);
        c.value = random_value(seed);
        assert_int_equal(txn_compare_add(out, &c), OK);
    }
}

static void random_op(uint64_t *seed, unsigned depth, struct buf *out);

static void random_ops(uint64_t *seed, unsigned depth, struct buf *out) {
    for (unsigned n = (unsigned)(random_next(seed) % 4); n > 0; n--)
        random_op(seed, depth, out);
}

void random_txn(uint64_t *seed, unsigned depth, struct buf *out) {
    struct buf part[3];
    for (unsigned i = 0; i < 3; i++)
        part[i] = buf_new(COMMAND_MAX);
    random_compares(seed, &part[0]);
    random_ops(seed, depth, &part[1]);
    random_ops(seed, depth, &part[2]);
    assert_int_equal(txn_add(out, buf_span(&part[0]), buf_span(&part[1]), buf_span(&part[2])), OK);
    for (unsigned i = 0; i < 3; i++)
        buf_free(&part[i]);
}

static void random_op(uint64_t *seed, unsigned depth, struct buf *out) {
    struct txn_op op = {.kind = TXN_RANGE};
    struct buf txn = buf_new(COMMAND_MAX);
    char room[16], end[16];
    switch (random_next(seed) % 8) {
    case 0:
    case 1: random_range(seed, &op.range, room, end); break;
    case 2:
        op = (struct txn_op){.kind = TXN_DELETE, .del = {.prev_kv = one_in(seed, 2)}};
        op.del.in = random_interval(seed, room, end);
        break;
    case 3:
        if (depth > 0) {
            random_txn(seed, depth - 1, &txn);
            op = (struct txn_op){.kind = TXN_NESTED, .txn = buf_span(&txn)};
            break;
        } /* fall through */
    default:
        op = (struct txn_op){.kind = TXN_PUT, .put = {.key = random_key(seed, room)}};
        op.put.ignore_value = one_in(seed, 20);
        if (!op.put.ignore_value) op.put.value = random_value(seed);
        op.put.lease = one_in(seed, 6) ? 1 + random_next(seed) % LEASES : 0;
        op.put.prev_kv = one_in(seed, 4);
    }
    assert_int_equal(txn_op_add(out, &op), OK);
    buf_free(&txn);
}

/* Everything else that a user may want. */
static void random_other(uint64_t *seed, struct command *c) {
    switch (random_next(seed) % 8) {
    case 0:
        c->op = OP_COMPACT;
        c->compact_revision = 1 + random_next(seed) % 3000;
        break;
    case 1:
        c->op = OP_LEASE_REVOKE;
        c->lease.id = 1 + random_next(seed) % LEASES;
        break;
    case 2:
        c->op = OP_ALARM;
        c->alarm.alarm = one_in(seed, 2) ? ALARM_NOSPACE : ALARM_CORRUPT;
        c->alarm.raise = one_in(seed, 8);
        c->alarm.raft_id = c->alarm.raise ? 1 + random_next(seed) % 3 : 0;
        break;
    case 3:
        c->op = OP_AUTH;
        c->auth = (struct auth_change){.op = AUTH_ROLE_ADD, .role = span_str("role")};
        if (one_in(seed, 2)) c->auth.op = AUTH_ROLE_DELETE;
        break;
    default:
        c->op = OP_LEASE_GRANT;
        c->lease.id = 1 + random_next(seed) % LEASES;
        c->lease.ttl_ms = 1 + random_next(seed) % 100000;
    }
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
    c->cluster.ca.root_pem = span_str("the root certificate");
    c->cluster.ca.key = span_str("the root key");
    c->cluster.join_key = span_str("the key of all the join tokens!!");
    c->cluster.first = make_node(1, "id-1", "first");
}

static void random_ca(uint64_t *seed, struct command *c) {
    c->ca.action = (enum ca_action)(CA_START + random_next(seed) % 4);
    c->ca.rotation = random_next(seed) % 3;
    c->ca.retire = c->ca.action == CA_FINISH && one_in(seed, 2);
    if (c->ca.action != CA_START) return;
    c->ca.next.root_pem = span_str("another root");
    c->ca.next.issuer_pem = one_in(seed, 2) ? span_str("its issuer") : span_of(NULL, 0);
    c->ca.next.key = one_in(seed, 2) ? span_str("its key") : span_of(NULL, 0);
    c->ca.cross_pem = one_in(seed, 2) ? span_str("the cross") : span_of(NULL, 0);
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
    case OP_CA: random_ca(seed, c); break;
    case OP_LOCK:
        c->unlock_key = one_in(seed, 2) ? span_of(key, sizeof key) : span_of(NULL, 0);
        break;
    case OP_PUT:
    case OP_DELETE:
    case OP_BATCH:
    case OP_TXN:
    case OP_COMPACT:
    case OP_IMPORT:
    case OP_LEASE_GRANT:
    case OP_LEASE_REVOKE:
    case OP_ALARM:
    case OP_ROWS:
    case OP_AUTH: break;
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
    struct row_list rows = row_list();
    if (garbage && one_in(seed, 16)) {
        garbage_command(seed, out);
        return;
    }
    switch (random_next(seed) % 20) {
    case 0:
        if (one_in(seed, 3)) {
            random_cluster(seed, &c);
            break;
        }
        random_rows(seed, &rows);
        c = list_command(&rows, (int64_t)(random_next(seed) % 1000));
        break;
    case 1:
    case 2: random_batch(seed, &c, &items); break;
    case 3:
    case 4: random_other(seed, &c); break;
    case 5:
    case 6:
    case 7:
        do {
            buf_clear(&items);
            random_txn(seed, 3, &items);
        } while (txn_check(buf_span(&items), NULL) != OK);
        c.op = OP_TXN;
        c.txn = buf_span(&items);
        break;
    default: random_item(seed, &c, room, end);
    }
    c.has_token = one_in(seed, 3);
    uint64_t token = random_next(seed) % 500;
    memcpy(c.token, &token, sizeof token);
    assert_int_equal(command_encode(&c, out), OK);
    buf_free(&items);
    buf_free(&rows.changes);
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

struct parts parts_new(void) {
    return (struct parts){buf_new(COMMAND_MAX), buf_new(COMMAND_MAX), buf_new(COMMAND_MAX),
                          buf_new(COMMAND_MAX)};
}

void parts_free(struct parts *p) {
    buf_free(&p->compares);
    buf_free(&p->success);
    buf_free(&p->failure);
    buf_free(&p->txn);
}

struct span joined(struct parts *p) {
    buf_clear(&p->txn);
    assert_int_equal(
        txn_add(&p->txn, buf_span(&p->compares), buf_span(&p->success), buf_span(&p->failure)), OK);
    return buf_span(&p->txn);
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
    struct command c = {.op = OP_DELETE, .del = {.in = {.key = span_str(key)}}};
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
