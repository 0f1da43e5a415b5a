/* The certificate authority on a real manager that is alone, on its loop, with further nodes that
 * are rows only: rotations from their start to their end, what holds them up, aborting, forcing, a
 * CA that is brought; and what is believed of an external CA's signatures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "api/ca/authority.h"
#include "api/node/roles.h"
#include "store/join_token.h"
#include "tests/lib/scratch.h"

#define NOTHING span_of(NULL, 0)

struct loner {
    char root[256]; /* its directory */
    uv_loop_t loop;
    struct log log;
    struct manager *manager;
    bool founded, closed;
    bool done; /* of the last call to the authority */
    enum err error;
    char text[WHY_MAX];
};

static void on_changed(void *ctx) { (void)ctx; }
static void on_failed(void *ctx, enum err e, const char *text) {
    (void)ctx;
    fail_msg("%s: %s", err_name(e), text);
}

static void on_founded(void *ctx, enum err e, const char *text) {
    struct loner *n = ctx;
    if (e != OK) fail_msg("%s: %s", err_name(e), text);
    n->founded = true;
}

static void on_closed(void *ctx) { ((struct loner *)ctx)->closed = true; }

static void on_done(void *ctx, enum err e, const char *text) {
    struct loner *n = ctx;
    n->done = true;
    n->error = e;
    (void)snprintf(n->text, sizeof n->text, "%s", text);
}

static void run_until(struct loner *n, const bool *over) {
    while (!*over)
        (void)uv_run(&n->loop, UV_RUN_ONCE);
}

static struct loner *start(void) {
    struct loner *n = calloc(1, sizeof *n);
    struct why why = {0};
    const char *tmp = getenv("TMPDIR");
    assert_non_null(n);
    (void)snprintf(n->root, sizeof n->root, "%s/conclave-authority-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(n->root));
    assert_int_equal(uv_loop_init(&n->loop), 0);
    log_open(&n->log, open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_ERROR);
    struct manager_config config = {.loop = &n->loop,
                                    .log = &n->log,
                                    .data = n->root,
                                    .name = "alone",
                                    .client = "127.0.0.1:2379",
                                    .peer = "127.0.0.1:2377",
                                    .alone = true,
                                    .ctx = n,
                                    .changed = on_changed,
                                    .failed = on_failed};
    assert_int_equal(manager_new(&config, &n->manager, &why), OK);
    assert_int_equal(manager_open(n->manager, &why), OK);
    assert_int_equal(manager_init(n->manager, false, on_founded, n, &why), OK);
    run_until(n, &n->founded);
    return n;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s;
    (void)type;
    (void)at;
    return remove(path);
}

static void stop(struct loner *n) {
    manager_close(n->manager, on_closed, n);
    run_until(n, &n->closed);
    (void)uv_run(&n->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&n->loop), 0);
    (void)nftw(n->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    (void)close(n->log.fd);
    free(n);
}

/* --- short forms --- */

static const struct cluster *cluster_of(const struct loner *n) {
    return store_cluster(n->manager->store);
}

static struct buf root_of(const struct loner *n) {
    struct buf out = buf_new(PEM_MAX);
    assert_int_equal(buf_add_span(&out, buf_span(&cluster_of(n)->ca.root_pem)), OK);
    return out;
}

struct doing {
    struct write write;
    bool over;
    enum err error;
};

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct doing *d = w->ctx;
    (void)text;
    d->error = e != OK ? e : r->error;
    d->over = true;
}

/* One change of a row, as anybody may propose it. */
static void write_row(struct loner *n, struct buf *changes) {
    struct doing d = {.write = {.done = on_written}};
    d.write.ctx = &d;
    assert_int_equal(rows_command(n->manager, changes, 1, &d.write), OK);
    assert_int_equal(manager_write(n->manager, &d.write), OK);
    run_until(n, &d.over);
    assert_int_equal(d.error, OK);
    buf_free(changes);
}

/* Heartbeats as short as can be, for what waits for some of them. */
static void quicken(struct loner *n) {
    struct buf changes = buf_new(COMMAND_MAX / 2), body = buf_new(ROW_BODY_MAX);
    struct row row;
    struct spec spec;
    spec_get(n->manager->store, &row, &spec);
    spec.heartbeat_ns = HEARTBEAT_MIN_NS;
    assert_int_equal(spec_encode(&spec, &body), OK);
    struct row_change c = {.action = ROW_REPLACE,
                           .kind = ROW_SPEC,
                           .version = row.version,
                           .name = row.name,
                           .body = buf_span(&body)};
    memcpy(c.id, row.id, sizeof c.id);
    assert_int_equal(row_change_add(&changes, &c), OK);
    write_row(n, &changes);
    buf_free(&body);
}

static const char other_id[] = "0123456789012345678901234";

/* A worker that is not there: its row alone. */
static void add_worker(struct loner *n, enum node_state state) {
    struct buf changes = buf_new(COMMAND_MAX / 2);
    struct row row = {.kind = ROW_NODE};
    struct node_row node = {.desired = NODE_WORKER,
                            .granted = NODE_WORKER,
                            .availability = NODE_ACTIVE,
                            .state = state,
                            .certificate = NODE_CERT_ISSUED,
                            .key_digest = {7}};
    memcpy(row.id, other_id, sizeof row.id);
    assert_int_equal(authority_issuer(cluster_of(n), node.issuer_digest), OK);
    assert_int_equal(node_change_add(&changes, ROW_CREATE, &row, &node), OK);
    write_row(n, &changes);
}

/* It has a certificate of what signs now; `seen` with it, or not yet. */
static void renew_worker(struct loner *n, bool seen) {
    struct buf changes = buf_new(COMMAND_MAX / 2);
    struct row row;
    struct node_row node;
    assert_int_equal(node_row_get(n->manager->store, other_id, &row, &node), OK);
    assert_int_equal(authority_issuer(cluster_of(n), node.issuer_digest), OK);
    node.key_digest[0] = 8;
    node.previous_digest[0] = seen ? 0 : 7;
    assert_int_equal(node_change_add(&changes, ROW_REPLACE, &row, &node), OK);
    write_row(n, &changes);
}

static struct rotation_status status_of(const struct loner *n) {
    struct rotation_status s;
    authority_status(n->manager, &s);
    return s;
}

/* Lets the loop turn, with the manager's own beat, until the phase is so. */
static void wait_phase(struct loner *n, enum rotation phase) {
    while (status_of(n).phase != phase)
        (void)uv_run(&n->loop, UV_RUN_ONCE);
}

static void wait_converged(struct loner *n, unsigned count) {
    while (status_of(n).converged != count)
        (void)uv_run(&n->loop, UV_RUN_ONCE);
}

static void must(struct loner *n, enum err e, const struct why *why) {
    if (e != OK) fail_msg("%s: %s", err_name(e), why->text);
    run_until(n, &n->done);
    if (n->error != OK) fail_msg("%s: %s", err_name(n->error), n->text);
    n->done = false;
}

static void rotate(struct loner *n, struct span chain, const struct secret *key) {
    struct why why = {0};
    must(n, authority_rotate(n->manager, chain, key, on_done, n, &why), &why);
}

static void refused(struct loner *n, struct span chain, const struct secret *key, enum err expected,
                    const char *words) {
    struct why why = {0};
    assert_int_equal(authority_rotate(n->manager, chain, key, on_done, n, &why), expected);
    if (!strstr(why.text, words)) fail_msg("%s", why.text);
}

static uint64_t epoch_of(const struct loner *n, enum node_role role) {
    struct row row;
    struct join_token t;
    assert_true(join_token_standing(n->manager->store, role, &row, &t));
    return t.epoch;
}

static void assert_own_certificate_is_of(struct loner *n, struct span root) {
    struct x509_subject seen;
    struct why why = {0};
    if (x509_verify(root, buf_span(&n->manager->self.cert_pem), (int64_t)time(NULL), &seen, &why) !=
        OK)
        fail_msg("%s", why.text);
    assert_string_equal(seen.cn, n->manager->self.node_id);
    assert_string_equal(seen.ou, ROLE_MANAGER);
}

/* --- rotations --- */

static void a_rotation_ends_when_all_have_renewed(void **state) {
    (void)state;
    struct loner *n = start();
    struct buf old = root_of(n);
    uint64_t worker = epoch_of(n, NODE_WORKER), manager = epoch_of(n, NODE_MANAGER);
    assert_int_equal(status_of(n).phase, ROTATION_STEADY);
    rotate(n, NOTHING, NULL);
    assert_int_equal(status_of(n).phase, ROTATION_ROTATING);
    assert_true(span_equal(buf_span(&cluster_of(n)->ca.root_pem), buf_span(&old)));
    wait_phase(n, ROTATION_STEADY);
    struct buf new = root_of(n);
    assert_false(span_equal(buf_span(&new), buf_span(&old)));
    assert_int_equal(cluster_of(n)->retired_pem.size, 0);
    assert_int_equal(cluster_of(n)->cross_pem.size, 0);
    assert_int_equal(epoch_of(n, NODE_WORKER), worker + 1);
    assert_int_equal(epoch_of(n, NODE_MANAGER), manager + 1);
    assert_own_certificate_is_of(n, buf_span(&new));
    assert_own_certificate_is_of(n, buf_span(&old)); /* by the bridge that it still shows */
    while (!span_equal(buf_span(&n->manager->self.root_pem), buf_span(&new)))
        (void)uv_run(&n->loop, UV_RUN_ONCE);
    buf_free(&old);
    buf_free(&new);
    stop(n);
}

static void a_node_that_is_up_holds_it_up_until_it_was_seen_with_its_certificate(void **state) {
    (void)state;
    struct loner *n = start();
    add_worker(n, NODE_READY);
    rotate(n, NOTHING, NULL);
    wait_converged(n, 1);
    renew_worker(n, false);
    assert_int_equal(status_of(n).converged, 1);
    assert_int_equal(status_of(n).phase, ROTATION_ROTATING);
    renew_worker(n, true);
    wait_phase(n, ROTATION_STEADY);
    assert_int_equal(status_of(n).converged, 2);
    stop(n);
}

static void a_node_that_is_down_is_finished_when_it_comes_back(void **state) {
    (void)state;
    struct loner *n = start();
    struct buf old = root_of(n), roots = buf_new(PEM_MAX);
    add_worker(n, NODE_DOWN);
    rotate(n, NOTHING, NULL);
    wait_phase(n, ROTATION_FINISHING);
    assert_int_equal(status_of(n).waiting_down, 1);
    assert_true(span_equal(buf_span(&cluster_of(n)->retired_pem), buf_span(&old)));
    assert_true(cluster_of(n)->cross_pem.size > 0); /* by which it finds its way */
    assert_int_equal(authority_roots(cluster_of(n), &roots), OK);
    assert_true(roots.size == cluster_of(n)->ca.root_pem.size + old.size);
    renew_worker(n, true);
    wait_phase(n, ROTATION_STEADY);
    assert_int_equal(cluster_of(n)->retired_pem.size, 0);
    buf_free(&old);
    buf_free(&roots);
    stop(n);
}

static void a_node_that_stays_away_is_given_up_by_force(void **state) {
    (void)state;
    struct loner *n = start();
    struct why why = {0};
    add_worker(n, NODE_DOWN);
    assert_int_equal(authority_force(n->manager, on_done, n, &why), ERR_PRECONDITION);
    rotate(n, NOTHING, NULL);
    assert_int_equal(authority_force(n->manager, on_done, n, &why), ERR_PRECONDITION);
    assert_non_null(strstr(why.text, "a manager has no certificate"));
    wait_phase(n, ROTATION_FINISHING);
    must(n, authority_force(n->manager, on_done, n, &why), &why);
    assert_int_equal(status_of(n).phase, ROTATION_STEADY);
    assert_int_equal(status_of(n).converged, 1);
    stop(n);
}

static void force_ends_a_rotation_that_a_node_holds_up(void **state) {
    (void)state;
    struct loner *n = start();
    struct why why = {0};
    struct buf old = root_of(n);
    add_worker(n, NODE_READY);
    rotate(n, NOTHING, NULL);
    wait_converged(n, 1);
    must(n, authority_force(n->manager, on_done, n, &why), &why);
    assert_int_equal(status_of(n).phase, ROTATION_STEADY);
    assert_false(span_equal(buf_span(&cluster_of(n)->ca.root_pem), buf_span(&old)));
    assert_int_equal(cluster_of(n)->retired_pem.size, 0);
    buf_free(&old);
    stop(n);
}

static void an_aborted_rotation_leaves_all_as_it_was(void **state) {
    (void)state;
    struct loner *n = start();
    struct why why = {0};
    struct buf old = root_of(n);
    uint8_t before[NODE_DIGEST_SIZE], now[NODE_DIGEST_SIZE];
    uint64_t epoch = epoch_of(n, NODE_WORKER);
    assert_int_equal(authority_issuer(cluster_of(n), before), OK);
    assert_int_equal(authority_abort(n->manager, on_done, n, &why), ERR_PRECONDITION);
    add_worker(n, NODE_READY);
    for (int by_root = 0; by_root < 2; by_root++) {
        rotate(n, NOTHING, NULL);
        wait_converged(n, 1);
        assert_int_equal(authority_issuer(cluster_of(n), now), OK);
        assert_memory_not_equal(now, before, sizeof now);
        if (by_root) /* the present CA again */
            rotate(n, buf_span(&old), NULL);
        else
            must(n, authority_abort(n->manager, on_done, n, &why), &why);
        assert_int_equal(status_of(n).phase, ROTATION_STEADY);
        assert_int_equal(authority_issuer(cluster_of(n), now), OK);
        assert_memory_equal(now, before, sizeof now);
        wait_converged(n, 2);
    }
    assert_true(span_equal(buf_span(&cluster_of(n)->ca.root_pem), buf_span(&old)));
    assert_int_equal(cluster_of(n)->cross_pem.size, 0);
    assert_int_equal(epoch_of(n, NODE_WORKER), epoch);
    buf_free(&old);
    stop(n);
}

static void another_rotation_takes_the_place_of_one_under_way(void **state) {
    (void)state;
    struct loner *n = start();
    struct buf first = buf_new(PEM_MAX);
    add_worker(n, NODE_READY);
    rotate(n, NOTHING, NULL);
    assert_int_equal(buf_add_span(&first, buf_span(&cluster_of(n)->next.root_pem)), OK);
    wait_converged(n, 1);
    rotate(n, NOTHING, NULL);
    wait_converged(n, 1);
    renew_worker(n, true);
    wait_phase(n, ROTATION_STEADY);
    assert_false(span_equal(buf_span(&cluster_of(n)->ca.root_pem), buf_span(&first)));
    assert_own_certificate_is_of(n, buf_span(&cluster_of(n)->ca.root_pem));
    buf_free(&first);
    stop(n);
}

static void rotations_may_follow_while_a_node_is_away_but_not_for_ever(void **state) {
    (void)state;
    struct loner *n = start();
    struct buf oldest = root_of(n);
    add_worker(n, NODE_DOWN);
    for (int i = 0; i < 4; i++) {
        rotate(n, NOTHING, NULL);
        wait_phase(n, ROTATION_FINISHING);
    }
    refused(n, NOTHING, NULL, ERR_PRECONDITION, "old roots");
    /* whoever trusts the oldest one finds the newest still */
    assert_own_certificate_is_of(n, buf_span(&oldest));
    renew_worker(n, true);
    wait_phase(n, ROTATION_STEADY);
    buf_free(&oldest);
    stop(n);
}

/* --- what is brought --- */

static const char config[] = "[req]\ndistinguished_name=dn\n[dn]\n"
                             "[ca]\nbasicConstraints=critical,CA:TRUE\n"
                             "keyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
                             "[below]\nbasicConstraints=critical,CA:TRUE,pathlen:0\n"
                             "keyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
                             "authorityKeyIdentifier=keyid\n";

/* A CA below a root, by the openssl command: its chain and its key. */
struct brought {
    struct buf chain;
    struct buf root; /* the last of it */
    struct secret *key;
};

static void run(const struct scratch *s, const char *line) {
    struct buf said = buf_new(8 * KIB);
    if (scratch_run(s, &said, "%s", line) != 0)
        fail_msg("%s: %.*s", line, (int)said.size, (const char *)said.at);
    buf_free(&said);
}

static struct brought bring(void) {
    struct brought b = {.chain = buf_new(PEM_MAX), .root = buf_new(PEM_MAX)};
    struct buf key = buf_new(PEM_MAX);
    struct scratch s;
    scratch_new(&s);
    scratch_put(&s, "conf", span_str(config));
    run(&s, "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out root.key");
    run(&s, "openssl req -x509 -config conf -extensions ca -key root.key -out root -days 4000 "
            "-subj /CN=above");
    run(&s, "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key");
    run(&s, "openssl req -new -config conf -key key -out csr -subj /CN=below");
    run(&s, "openssl x509 -req -in csr -CA root -CAkey root.key -set_serial 5 -days 1000 -extfile "
            "conf -extensions below -out below");
    scratch_get(&s, "below", &b.chain);
    scratch_get(&s, "root", &b.chain);
    scratch_get(&s, "root", &b.root);
    scratch_get(&s, "key", &key);
    assert_int_equal(secret_new(key.at, key.size, &b.key), OK);
    buf_free(&key);
    scratch_free(&s);
    return b;
}

static void brought_free(struct brought *b) {
    buf_free(&b->chain);
    buf_free(&b->root);
    secret_free(b->key);
}

static void a_ca_below_an_offline_root_takes_over_and_can_not_hand_over(void **state) {
    (void)state;
    struct loner *n = start();
    struct brought b = bring();
    quicken(n);
    rotate(n, buf_span(&b.chain), b.key);
    wait_phase(n, ROTATION_STEADY);
    assert_own_certificate_is_of(n, buf_span(&b.root));
    refused(n, buf_span(&b.chain), b.key, ERR_INVALID, "uses now");
    /* its path length is 0, so there is no bridge: nothing is issued until all have heard */
    add_worker(n, NODE_DOWN);
    rotate(n, NOTHING, NULL);
    assert_int_equal(status_of(n).phase, ROTATION_ROTATING);
    assert_int_equal(cluster_of(n)->cross_pem.size, 0);
    assert_int_equal(status_of(n).converged, 0);
    assert_own_certificate_is_of(n, buf_span(&b.root));
    wait_phase(n, ROTATION_FINISHING);
    wait_converged(n, 1);
    assert_own_certificate_is_of(n, buf_span(&cluster_of(n)->ca.root_pem));
    brought_free(&b);
    stop(n);
}

static void what_can_be_no_ca_changes_nothing(void **state) {
    (void)state;
    struct loner *n = start();
    struct brought b = bring();
    struct buf own = root_of(n);
    refused(n, span_str("x"), NULL, ERR_INVALID, "key is needed");
    refused(n, span_str("x"), b.key, ERR_INVALID, "CA certificate");
    refused(n, buf_span(&b.root), b.key, ERR_INVALID, "not the CA certificate's");
    refused(n, buf_span(&own), b.key, ERR_INVALID, "uses now");
    refused(n, buf_span(&b.chain), NULL, ERR_INVALID, "key is needed");
    assert_int_equal(status_of(n).phase, ROTATION_STEADY);
    assert_int_equal(cluster_of(n)->rotation, 0);
    buf_free(&own);
    brought_free(&b);
    stop(n);
}

/* --- an external CA --- */

/* Certificates as an external CA could send them. */
struct outside {
    struct cluster cluster; /* knows no key */
    struct secret *ca_key, *key, *other_key;
    struct buf request, other_request; /* of key and other_key */
};

static const struct x509_subject asked = {
    .cn = "node-1", .ou = ROLE_WORKER, .o = "cluster", .hosts = "127.0.0.1"};

static struct buf signed_by(const struct secret *ca_key, const struct buf *ca,
                            const struct buf *request, const struct x509_subject *s) {
    struct buf out = buf_new(PEM_MAX);
    assert_int_equal(x509_issue(ca_key, buf_span(ca), buf_span(request), s, (int64_t)time(NULL),
                                86400, &out, NULL),
                     OK);
    return out;
}

/* Its verdict on a certificate; frees it. */
static enum err verdict(const struct outside *o, struct buf cert, const char *words) {
    struct buf chain = buf_new(PEM_MAX);
    struct why why = {0};
    enum err e = authority_accept(&o->cluster, buf_span(&cert), buf_span(&o->request), &asked,
                                  (int64_t)time(NULL), &chain, &why);
    if (!strstr(why.text, words)) fail_msg("%s", why.text);
    assert_int_equal(chain.size > 0, e == OK);
    buf_free(&chain);
    buf_free(&cert);
    return e;
}

static struct outside outside_new(void) {
    struct outside o = {.cluster = {.initialised = true},
                        .request = buf_new(PEM_MAX),
                        .other_request = buf_new(PEM_MAX)};
    struct secret **keys[] = {&o.ca_key, &o.key, &o.other_key};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        assert_int_equal(x509_key_new(keys[i], NULL), OK);
    o.cluster.ca.root_pem = buf_new(PEM_MAX);
    assert_int_equal(x509_root(o.ca_key, "cluster", &o.cluster.ca.root_pem, NULL), OK);
    assert_int_equal(x509_request(o.key, "any", &o.request, NULL), OK);
    assert_int_equal(x509_request(o.other_key, "any", &o.other_request, NULL), OK);
    return o;
}

static void outside_free(struct outside *o) {
    secret_free(o->ca_key);
    secret_free(o->key);
    secret_free(o->other_key);
    buf_free(&o->cluster.ca.root_pem);
    buf_free(&o->request);
    buf_free(&o->other_request);
}

static void of_an_external_ca_only_what_was_asked_for_is_believed(void **state) {
    (void)state;
    struct outside o = outside_new();
    const struct buf *root = &o.cluster.ca.root_pem;
    struct x509_subject s = asked;
    assert_int_equal(verdict(&o, signed_by(o.ca_key, root, &o.request, &s), ""), OK);
    assert_int_equal(verdict(&o, signed_by(o.ca_key, root, &o.other_request, &s), "another key"),
                     ERR_CERTIFICATE);
    (void)snprintf(s.ou, sizeof s.ou, "%s", ROLE_MANAGER);
    assert_int_equal(verdict(&o, signed_by(o.ca_key, root, &o.request, &s), "another subject"),
                     ERR_CERTIFICATE);
    s = asked;
    (void)snprintf(s.cn, sizeof s.cn, "node-2");
    assert_int_equal(verdict(&o, signed_by(o.ca_key, root, &o.request, &s), "another subject"),
                     ERR_CERTIFICATE);
    s = asked;
    s.hosts[0] = '\0';
    assert_int_equal(verdict(&o, signed_by(o.ca_key, root, &o.request, &s), "not all names"),
                     ERR_CERTIFICATE);
    struct buf other = buf_new(PEM_MAX);
    assert_int_equal(x509_root(o.other_key, "cluster", &other, NULL), OK);
    assert_int_equal(
        verdict(&o, signed_by(o.other_key, &other, &o.request, &asked), "another cluster's root"),
        ERR_CERTIFICATE);
    struct buf junk = buf_new(100);
    assert_int_equal(buf_add_span(&junk, span_str("junk")), OK);
    assert_int_equal(verdict(&o, junk, "certificate"), ERR_CERTIFICATE);
    buf_free(&other);
    outside_free(&o);
}

/* A CA of the same root may sign for others; for nodes the one that was named must. */
static void a_sibling_of_the_external_ca_is_not_believed(void **state) {
    (void)state;
    struct outside o = outside_new();
    struct secret *keys[2];
    struct buf roots[2], below[2];
    for (int i = 0; i < 2; i++) { /* a root certified by ours is a CA below ours */
        roots[i] = buf_new(PEM_MAX);
        below[i] = buf_new(PEM_MAX);
        assert_int_equal(x509_key_new(&keys[i], NULL), OK);
        assert_int_equal(x509_root(keys[i], i == 0 ? "one" : "two", &roots[i], NULL), OK);
        assert_int_equal(x509_cross(o.ca_key, buf_span(&o.cluster.ca.root_pem), buf_span(&roots[i]),
                                    &below[i], NULL),
                         OK);
    }
    o.cluster.ca.issuer_pem = below[0];
    assert_int_equal(verdict(&o, signed_by(keys[0], &below[0], &o.request, &asked), ""), OK);
    assert_int_equal(verdict(&o, signed_by(keys[1], &below[1], &o.request, &asked), ""),
                     ERR_CERTIFICATE);
    assert_int_equal(
        verdict(&o, signed_by(o.ca_key, &o.cluster.ca.root_pem, &o.request, &asked), "signer"),
        ERR_CERTIFICATE);
    for (int i = 0; i < 2; i++) {
        secret_free(keys[i]);
        buf_free(&roots[i]);
        buf_free(&below[i]);
    }
    outside_free(&o);
}

static void without_a_key_nothing_is_signed_here(void **state) {
    (void)state;
    struct outside o = outside_new();
    struct spec spec = {0};
    struct buf out = buf_new(PEM_MAX);
    struct why why = {0};
    assert_false(authority_is_external(&o.cluster, &spec));
    spec.n_external = 1;
    assert_true(authority_is_external(&o.cluster, &spec));
    assert_int_equal(
        authority_sign(&o.cluster, &spec, buf_span(&o.request), &asked, 1000, &out, &why),
        ERR_UNSUPPORTED);
    o.cluster.ca.key = o.ca_key;
    assert_false(authority_is_external(&o.cluster, &spec));
    assert_int_equal(authority_sign(&o.cluster, &spec, buf_span(&o.request), &asked,
                                    (int64_t)time(NULL), &out, &why),
                     OK);
    buf_free(&out);
    outside_free(&o);
}

static int begin(void **state) {
    (void)state;
    return crypto_start(NULL) == OK ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(a_rotation_ends_when_all_have_renewed),
        cmocka_unit_test(a_node_that_is_up_holds_it_up_until_it_was_seen_with_its_certificate),
        cmocka_unit_test(a_node_that_is_down_is_finished_when_it_comes_back),
        cmocka_unit_test(a_node_that_stays_away_is_given_up_by_force),
        cmocka_unit_test(force_ends_a_rotation_that_a_node_holds_up),
        cmocka_unit_test(an_aborted_rotation_leaves_all_as_it_was),
        cmocka_unit_test(another_rotation_takes_the_place_of_one_under_way),
        cmocka_unit_test(rotations_may_follow_while_a_node_is_away_but_not_for_ever),
        cmocka_unit_test(a_ca_below_an_offline_root_takes_over_and_can_not_hand_over),
        cmocka_unit_test(what_can_be_no_ca_changes_nothing),
        cmocka_unit_test(of_an_external_ca_only_what_was_asked_for_is_believed),
        cmocka_unit_test(a_sibling_of_the_external_ca_is_not_believed),
        cmocka_unit_test(without_a_key_nothing_is_signed_here),
    };
    return cmocka_run_group_tests_name("authority", cases, begin, NULL);
}
