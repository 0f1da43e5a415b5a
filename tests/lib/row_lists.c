/* The implementation of row_lists.h: a list is a buffer of encoded changes and their number; random
 * ones are mostly of nodes, few enough that they meet each other's ids, names and keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/held_lists.h"

struct row_list row_list(void) {
    return (struct row_list){.n = 0, .changes = buf_new(COMMAND_MAX)};
}

static void add(struct row_list *l, enum row_action action, enum row_kind kind, const char *id,
                uint64_t version, const char *name, const struct buf *body) {
    struct row_change c = {.action = action, .kind = kind, .version = version};
    (void)snprintf(c.id, sizeof c.id, "%s", id);
    c.name = span_str(name);
    if (body != NULL) c.body = buf_span(body);
    assert_int_equal(row_change_add(&l->changes, &c), OK);
    l->n++;
}

void list_node(struct row_list *l, enum row_action action, const char *id, uint64_t version,
               const char *name, const struct node_row *n) {
    struct buf body = buf_new(ROW_BODY_MAX);
    assert_int_equal(node_row_encode(n, &body), OK);
    add(l, action, ROW_NODE, id, version, name, &body);
    buf_free(&body);
}

void list_token(struct row_list *l, enum row_action action, const char *id, uint64_t version,
                const char *name, const struct join_token *t) {
    struct buf body = buf_new(ROW_BODY_MAX);
    assert_int_equal(join_token_encode(t, &body), OK);
    add(l, action, ROW_TOKEN, id, version, name, &body);
    buf_free(&body);
}

void list_spec(struct row_list *l, enum row_action action, const char *id, const struct spec *s) {
    struct buf body = buf_new(ROW_BODY_MAX);
    assert_int_equal(spec_encode(s, &body), OK);
    add(l, action, ROW_SPEC, id, 0, "default", &body);
    buf_free(&body);
}

void list_plain(struct row_list *l, enum row_action action, enum row_kind kind, const char *id,
                uint64_t version) {
    add(l, action, kind, id, version, "", NULL);
}

struct command list_command(const struct row_list *l, int64_t now_ns) {
    struct command c = {.op = OP_ROWS};
    c.rows.n = l->n;
    c.rows.changes = buf_span(&l->changes);
    c.rows.now_ns = now_ns;
    return c;
}

struct result list_apply(struct store *s, struct row_list *l) {
    struct command c = list_command(l, 1700000000000000000);
    struct result r = apply(s, &c);
    buf_free(&l->changes);
    *l = row_list();
    return r;
}

struct node_row some_node(enum node_role role, unsigned key) {
    struct node_row n = {.desired = role,
                         .availability = NODE_ACTIVE,
                         .hostname = "host",
                         .os = "linux",
                         .arch = "x86_64",
                         .engine = "1.0",
                         .nano_cpus = 2000000000,
                         .memory_bytes = 1 << 30,
                         .state = NODE_READY,
                         .granted = role,
                         .certificate = NODE_CERT_ISSUED,
                         .not_after_s = 1800000000};
    if (key != 0) memset(n.key_digest, (int)key, sizeof n.key_digest);
    return n;
}

struct join_token some_token(enum node_role role, uint64_t epoch, const char *secret) {
    struct join_token t = {.role = role, .epoch = epoch};
    join_token_hash(secret, t.hash);
    return t;
}

enum err create_node(struct store *s, const char *id, const struct node_row *n) {
    struct row_list l = row_list();
    list_node(&l, ROW_CREATE, id, 0, "", n);
    return list_apply(s, &l).error;
}

enum err replace_node(struct store *s, const char *id, const struct node_row *n) {
    struct row_list l = row_list();
    list_node(&l, ROW_REPLACE, id, 0, "", n);
    return list_apply(s, &l).error;
}

enum err remove_row(struct store *s, enum row_kind kind, const char *id) {
    struct row_list l = row_list();
    list_plain(&l, ROW_REMOVE, kind, id, 0);
    return list_apply(s, &l).error;
}

/* --- at random --- */

static unsigned below(uint64_t *seed, unsigned n) { return (unsigned)(random_next(seed) % n); }

static void random_node(uint64_t *seed, struct row_list *l, enum row_action action,
                        uint64_t version, const char *name) {
    char id[16];
    struct node_row n = some_node(NODE_WORKER, below(seed, 3) == 0 ? 0 : below(seed, 200));
    struct buf labels = buf_new(NODE_LABELS_BYTES);
    if (below(seed, 3) == 0) n.desired = NODE_MANAGER;
    if (below(seed, 3) == 0) n.granted = NODE_MANAGER;
    n.raft_id = below(seed, 8);
    n.state = (enum node_state)(NODE_UNKNOWN + below(seed, 4));
    if (below(seed, 2) == 0)
        assert_int_equal(labels_add(&labels, span_str("zone"), span_str(name)), OK);
    n.labels = buf_span(&labels);
    (void)snprintf(id, sizeof id, "id-%u", below(seed, 90));
    list_node(l, action, id, version, name, &n);
    buf_free(&labels);
}

static void random_token(uint64_t *seed, struct row_list *l, enum row_action action,
                         uint64_t version, const char *name) {
    char id[16], secret[16];
    (void)snprintf(id, sizeof id, "token-%u", below(seed, 8));
    (void)snprintf(secret, sizeof secret, "secret-%u", below(seed, 8));
    struct join_token t =
        some_token(below(seed, 2) == 0 ? NODE_WORKER : NODE_MANAGER, below(seed, 4), secret);
    t.used = below(seed, 3);
    t.uses_max = below(seed, 2) == 0 ? 0 : t.used + below(seed, 2);
    t.revoked = below(seed, 4) == 0;
    list_token(l, action, id, version, name, &t);
}

static void random_change(uint64_t *seed, struct row_list *l) {
    char name[16] = "", id[16];
    enum row_action action = (enum row_action)(ROW_CREATE + below(seed, 4));
    uint64_t version = action != ROW_CREATE && below(seed, 8) == 0 ? below(seed, 200) : 0;
    if (below(seed, 2) == 0) (void)snprintf(name, sizeof name, "Name-%u", below(seed, 40));
    if (action > ROW_REPLACE) {
        (void)snprintf(id, sizeof id, "id-%u", below(seed, 90));
        list_plain(l, action, ROW_NODE, id, version);
        return;
    }
    struct spec spec = {.task_history = (int64_t)below(seed, 9)};
    switch (below(seed, 12)) {
    case 0: list_spec(l, action, "cluster", &spec); break;
    case 1:
    case 2: random_token(seed, l, action, version, name); break;
    case 3:
    case 4:
    case 5:
    case 6: random_held(seed, l); break;
    default: random_node(seed, l, action, version, name);
    }
}

void random_rows(uint64_t *seed, struct row_list *out) {
    *out = row_list();
    unsigned n = 1 + (below(seed, 3) == 0 ? below(seed, 6) : 0);
    while (out->n < n)
        random_change(seed, out);
}
