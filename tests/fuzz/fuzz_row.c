/* Any bytes as the body of a row of each kind, as labels, as a list of addresses, and as a list of
 * changes: what decodes encodes to the same bytes and keeps its bounds; whatever lists are applied,
 * an image of the state is read back to the same state, and a refused list has changed nothing. */
#include <stdlib.h>

#include "crypto/secret.h"
#include "store/audit.h"
#include "store/join_token.h"
#include "store/service.h"
#include "store/spec.h"
#include "store/state.h"
#include "store/vault.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

/* --- bodies --- */

static void check_text(const char *text, size_t room) { require(memchr(text, 0, room) != NULL); }

static void check_labels(struct span labels) {
    struct cursor in = cursor_of(labels);
    struct span key, value;
    unsigned n = 0;
    struct buf again = buf_new(NODE_LABELS_BYTES);
    while (in.left > 0) {
        require(labels_next(&in, &key, &value));
        require(labels_add(&again, key, value) == OK);
        n++;
    }
    require(n <= NODE_LABELS_MAX && span_equal(labels, buf_span(&again)));
    buf_free(&again);
}

static void node(struct span body) {
    struct node_row n;
    struct buf again = buf_new(ROW_BODY_MAX);
    enum err e = node_row_decode(body, &n);
    require(e == OK || e == ERR_CORRUPT);
    if (e != OK) return;
    require(node_row_encode(&n, &again) == OK && span_equal(body, buf_span(&again)));
    check_text(n.hostname, sizeof n.hostname);
    check_text(n.peer_address, sizeof n.peer_address);
    check_text(n.token_id, sizeof n.token_id);
    check_labels(n.labels);
    buf_free(&again);
}

static void token(struct span body) {
    struct join_token t;
    struct buf again = buf_new(ROW_BODY_MAX);
    enum err e = join_token_decode(body, &t);
    require(e == OK || e == ERR_CORRUPT);
    if (e != OK) return;
    require(join_token_encode(&t, &again) == OK && span_equal(body, buf_span(&again)));
    require(t.uses_max == 0 || t.used <= t.uses_max);
    require(join_addresses_check(t.addresses, NULL) == OK);
    (void)!join_token_usable(&t, 1700000000, "10.1.2.3:77", NULL);
    check_labels(t.labels);
    buf_free(&again);
}

static void spec(struct span body) {
    struct spec s;
    struct buf again = buf_new(ROW_BODY_MAX);
    enum err e = spec_decode(body, &s);
    require(e == OK || e == ERR_CORRUPT);
    if (e != OK) return;
    require(spec_encode(&s, &again) == OK && span_equal(body, buf_span(&again)));
    require(s.n_external <= EXTERNAL_CAS_MAX && spec_cert_validity_s(&s) >= CERT_VALIDITY_MIN_S);
    require(spec_heartbeat_ms(&s) > 0);
    check_labels(s.labels);
    buf_free(&again);
}

static void held(struct span body) {
    struct held_row h;
    struct buf again = buf_new(ROW_BODY_MAX);
    enum err e = held_decode(body, &h);
    require(e == OK || e == ERR_CORRUPT);
    if (e != OK) return;
    require(held_encode(&h, &again) == OK && span_equal(body, buf_span(&again)));
    require(h.n <= HELD_VERSIONS_MAX && (h.n > 0 || h.driver[0] != '\0'));
    for (unsigned i = 0; i < h.n; i++) {
        check_text(h.versions[i].value_id, sizeof h.versions[i].value_id);
        require(held_version(&h, h.versions[i].number) == &h.versions[i]);
    }
    check_labels(h.labels);
    check_labels(h.driver_options);
    buf_free(&again);
}

static void value(struct span body) {
    struct value_row v;
    struct buf again = buf_new(ROW_BODY_MAX);
    enum err e = value_decode(body, &v);
    require(e == OK || e == ERR_CORRUPT);
    if (e != OK) return;
    require(value_encode(&v, &again) == OK && span_equal(body, buf_span(&again)));
    require(v.sealed.size > SEALED_OVERHEAD && v.epoch > 0 && v.version > 0);
    buf_free(&again);
}

static void service(struct span body) {
    struct service_row s;
    struct buf again = buf_new(ROW_BODY_MAX);
    enum err e = service_decode(body, &s);
    require(e == OK || e == ERR_CORRUPT);
    if (e != OK) return;
    require(service_encode(&s, &again) == OK && span_equal(body, buf_span(&again)));
    require(s.n <= SERVICE_REFS_MAX && s.replicas <= SERVICE_REPLICAS_MAX);
    for (unsigned i = 0; i < s.n; i++) {
        check_text(s.refs[i].target, sizeof s.refs[i].target);
        require(strstr(s.refs[i].target, "/../") == NULL);
        require(held_name_check(span_str(s.refs[i].name), NULL) == OK);
    }
    check_labels(s.labels);
    buf_free(&again);
}

static void task(struct span body) {
    struct task_row t;
    struct buf again = buf_new(ROW_BODY_MAX);
    enum err e = task_decode(body, &t);
    require(e == OK || e == ERR_CORRUPT);
    if (e != OK) return;
    require(task_encode(&t, &again) == OK && span_equal(body, buf_span(&again)));
    require(task_state_name(t.state) != NULL && task_state_name(t.desired) != NULL);
    check_text(t.message, sizeof t.message);
    check_text(t.error, sizeof t.error);
    buf_free(&again);
}

/* As a record, and as the body of the row of one. */
static void record(struct span body) {
    struct audit_record a;
    struct audit_link l;
    struct row r = {.kind = ROW_AUDIT, .id = "0000000000000000000000001", .body = body};
    struct buf again = buf_new(AUDIT_RECORD_MAX);
    enum err e = audit_decode(body, &a);
    require(e == OK || e == ERR_CORRUPT);
    if (e == OK) require(audit_encode(&a, &again) == OK && span_equal(body, buf_span(&again)));
    e = audit_read(&r, &l);
    require(e == OK || e == ERR_CORRUPT);
    if (e == OK) require(l.number == 1 && l.record.size + 2 * (size_t)AUDIT_CHAIN == body.size);
    buf_free(&again);
}

static void vault(struct span body) {
    struct vault_row v;
    struct buf again = buf_new(ROW_BODY_MAX);
    enum err e = vault_row_decode(body, &v);
    require(e == OK || e == ERR_CORRUPT);
    if (e != OK) return;
    require(vault_row_encode(&v, &again) == OK && span_equal(body, buf_span(&again)));
    require(v.n <= MEMBERS_MAX && v.oldest <= v.current);
    for (unsigned i = 0; i < v.n; i++)
        check_text(v.holders[i], sizeof v.holders[i]);
    buf_free(&again);
}

static void addresses(struct span bytes) {
    char text[JOIN_ADDRESSES], remote[64];
    struct join_token t = {.role = NODE_WORKER};
    size_t size = bytes.size < sizeof text ? bytes.size : sizeof text - 1;
    if (size != 0) memcpy(text, bytes.at, size);
    text[size] = '\0';
    size_t rest = size < sizeof remote ? size : sizeof remote - 1;
    memcpy(remote, text + size - rest, rest);
    remote[rest] = '\0';
    memcpy(t.addresses, "10.0.0.0/8,2001:db8::/33", sizeof "10.0.0.0/8,2001:db8::/33");
    (void)!join_token_usable(&t, 1, remote, NULL);
    if (join_addresses_check(text, NULL) != OK) return;
    memcpy(t.addresses, text, size + 1);
    (void)!join_token_usable(&t, 1, "10.1.2.3", NULL);
}

/* --- lists --- */

static enum err do_command(struct store *s, const struct command *c) {
    struct buf bytes = buf_new(COMMAND_MAX), out = buf_new(RESULT_MAX);
    struct machine *m = store_machine(s);
    struct result r;
    require(command_encode(c, &bytes) == OK);
    require(m->apply(m, 1, buf_span(&bytes), &out, NULL) == OK);
    require(result_decode(buf_span(&out), &r) == OK);
    buf_free(&bytes);
    buf_free(&out);
    return r.error;
}

static void found(struct store *s) {
    struct command c = {.op = OP_CLUSTER, .cluster = {.id = "cluster", .first = {.raft_id = 1}}};
    memcpy(c.cluster.first.id, "a", 2);
    memcpy(c.cluster.first.name, "a", 2);
    c.cluster.ca.root_pem = span_str("root");
    c.cluster.join_key = span_str("12345678901234567890123456789012");
    require(do_command(s, &c) == OK);
}

/* The list in front, as many changes as are whole. */
static void list(struct store *s, struct span *bytes) {
    struct command c = {.op = OP_ROWS};
    struct cursor in = cursor_of(*bytes);
    struct row_change one;
    unsigned most = 1 + (bytes->at[0] & 3U);
    uint8_t before[STATE_HASH_SIZE], after[STATE_HASH_SIZE];
    while (c.rows.n < most && row_change_next(&in, &one) == OK)
        c.rows.changes = span_of(bytes->at, ++c.rows.n > 0 ? (size_t)(in.at - bytes->at) : 0);
    if (c.rows.n == 0) {
        *bytes = span_of(NULL, 0);
        return;
    }
    state_hash(&s->state, before);
    enum err e = do_command(s, &c);
    state_hash(&s->state, after);
    require((memcmp(before, after, sizeof before) == 0) == (e != OK));
    *bytes = span_of(bytes->at + c.rows.changes.size, bytes->size - c.rows.changes.size);
}

static void check_image(struct store *s) {
    struct store *other;
    struct machine *m = store_machine(s), *to;
    struct machine_view *v;
    struct machine_restore *r;
    struct buf out = buf_new(64 * MIB);
    uint8_t hash[STATE_HASH_SIZE];
    bool done = false;
    require(store_new(&other) == OK);
    to = store_machine(other);
    require(m->view(m, &v) == OK && to->restore(to, &r) == OK);
    while (!done)
        require(m->view_next(v, &out, &done) == OK);
    m->view_hash(v, hash);
    m->view_free(v);
    require(to->restore_bytes(r, buf_span(&out)) == OK && to->restore_end(r, hash) == OK);
    require(other->state.rows.managers == s->state.rows.managers);
    require(tree_count(other->state.rows.tree) == tree_count(s->state.rows.tree));
    buf_free(&out);
    store_free(other);
}

static void lists(struct span bytes) {
    struct store *s;
    require(store_new(&s) == OK);
    found(s);
    while (bytes.size > 0)
        list(s, &bytes);
    check_image(s);
    store_free(s);
}

/* A byte that says what, then its bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (crypto_start(NULL) != OK || size < 1) return 0;
    struct span bytes = span_of(data + 1, size - 1);
    switch (data[0] % 16) {
    case 0: node(bytes); break;
    case 1: token(bytes); break;
    case 2: spec(bytes); break;
    case 3: addresses(bytes); break;
    case 4: held(bytes); break;
    case 5: value(bytes); break;
    case 6: service(bytes); break;
    case 7: task(bytes); break;
    case 8: record(bytes); break;
    case 9: vault(bytes); break;
    default: lists(bytes);
    }
    return 0;
}
