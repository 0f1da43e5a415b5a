/* The leader's gate on a real manager that is alone: what is judged together does not fail
 * together, and a node whose certificate ran out comes back with the key that was approved, and by
 * no other way than the settings allow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "api/ca/authority.h"
#include "api/node/admit.h"
#include "api/node/ask.h"
#include "api/node/nodes.h"
#include "api/node/roles.h"
#include "store/join_token.h"
#include "tests/lib/loners.h"

#define DAY_S 86400
#define AGO_S 60 /* the certificate ran out: within the life of the root */

static struct loners all; /* of the test that runs */
static struct manager *m;

/* --- keys and certificates -------------------------------------------------------------------- */

/* A key, a request for a certificate of it, and its digest. */
struct holder {
    struct secret *key;
    struct buf csr;
    uint8_t digest[NODE_DIGEST_SIZE];
};

static struct holder holder_new(void) {
    struct holder h = {.csr = buf_new(PEM_MAX)};
    assert_int_equal(x509_key_new(&h.key, NULL), OK);
    assert_int_equal(x509_request(h.key, "any", &h.csr, NULL), OK);
    assert_int_equal(x509_request_digest(buf_span(&h.csr), h.digest, NULL), OK);
    return h;
}

static void holder_free(struct holder *h) {
    secret_free(h->key);
    buf_free(&h->csr);
}

static const char away_id[] = "0123456789012345678901234";

/* A certificate of the cluster for the node that is away; it ran out `ago_s` ago. */
static struct buf expired(const struct holder *h, int64_t ago_s) {
    const struct cluster *c = store_cluster(m->store);
    struct x509_subject s = {.ou = ROLE_WORKER};
    struct buf out = buf_new(PEM_MAX);
    (void)snprintf(s.cn, sizeof s.cn, "%s", away_id);
    (void)snprintf(s.o, sizeof s.o, "%s", c->id);
    assert_int_equal(x509_issue(c->ca.key, buf_span(&c->ca.root_pem), buf_span(&h->csr), &s,
                                (int64_t)time(NULL) - ago_s - DAY_S, DAY_S, &out, NULL),
                     OK);
    return out;
}

/* --- rows ------------------------------------------------------------------------------------- */

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    loners_done(w->ctx, e == OK ? r->error : e, text);
}

static void write_rows(struct buf *changes) {
    static struct write w;
    w = (struct write){.done = on_written, .ctx = &all};
    all.done = false;
    assert_int_equal(rows_command(m, changes, 1, &w), OK);
    assert_int_equal(manager_write(m, &w), OK);
    loners_wait(&all);
    assert_int_equal(all.error, OK);
    buf_free(changes);
}

static struct node_row row_of(const char *id, struct row *row) {
    struct node_row node;
    assert_int_equal(node_row_get(m->store, id, row, &node), OK);
    return node;
}

/* The node that is away: its row, as long as its certificate of that key is over. */
static void add_away(const struct holder *h) {
    struct buf changes = buf_new(COMMAND_MAX / 2);
    struct row row = {.kind = ROW_NODE};
    struct node_row node = {.desired = NODE_WORKER,
                            .granted = NODE_WORKER,
                            .availability = NODE_ACTIVE,
                            .state = NODE_DOWN,
                            .certificate = NODE_CERT_ISSUED,
                            .not_after_s = (int64_t)time(NULL) - DAY_S};
    memcpy(row.id, away_id, sizeof row.id);
    memcpy(node.key_digest, h->digest, sizeof node.key_digest);
    assert_int_equal(authority_issuer(store_cluster(m->store), node.issuer_digest), OK);
    assert_int_equal(node_change_add(&changes, ROW_CREATE, &row, &node), OK);
    write_rows(&changes);
}

/* The certificate that it was given last is over as well. */
static void end_away(void) {
    struct buf changes = buf_new(COMMAND_MAX / 2);
    struct row row;
    struct node_row node = row_of(away_id, &row);
    node.not_after_s = (int64_t)time(NULL) - 1;
    assert_int_equal(node_change_add(&changes, ROW_REPLACE, &row, &node), OK);
    write_rows(&changes);
}

static void set_readmit(enum readmit readmit, int64_t within_s) {
    struct buf changes = buf_new(COMMAND_MAX / 2), body = buf_new(ROW_BODY_MAX);
    struct row row;
    struct spec spec;
    spec_get(m->store, &row, &spec);
    spec.readmit = readmit;
    spec.readmit_within_s = within_s;
    assert_int_equal(spec_encode(&spec, &body), OK);
    struct row_change c = {.action = ROW_REPLACE,
                           .kind = ROW_SPEC,
                           .version = row.version,
                           .name = row.name,
                           .body = buf_span(&body)};
    memcpy(c.id, row.id, sizeof c.id);
    assert_int_equal(row_change_add(&changes, &c), OK);
    write_rows(&changes);
    buf_free(&body);
}

/* --- admissions ------------------------------------------------------------------------------- */

struct question {
    bool over;
    enum err error;
    char text[WHY_MAX];
    char node_id[NODE_ID_SIZE + 1]; /* of the answer */
};

static void on_answer(void *ctx, enum err e, const char *text, struct asking *a) {
    struct question *q = ctx;
    q->over = true;
    q->error = e;
    (void)snprintf(q->text, sizeof q->text, "%s", text);
    if (e == OK) memcpy(q->node_id, a->answer.node_id, sizeof q->node_id);
    ask_free(a);
}

static bool is_over(void *ctx) { return ((struct question *)ctx)->over; }

/* What admit_request makes of a question, but for its connection. */
static struct admission *put(struct question *q, enum join_kind kind, const struct holder *h) {
    struct admission *a = calloc(1, sizeof *a), **last = &m->admissions;
    *q = (struct question){0};
    *a = (struct admission){.manager = m, .own_done = on_answer, .own_ctx = q};
    a->own = calloc(1, sizeof *a->own);
    a->own->memory = buf_new(FRAME_MAX);
    a->csr = a->old_cert = a->cert = a->roots = a->foreign = buf_new(PEM_MAX);
    a->proof = buf_new(PROOF_MAX);
    a->deadline_ms = m->clock.now_ms(&m->clock) + 15000;
    a->request.kind = (uint8_t)kind;
    (void)snprintf(a->request.name, sizeof a->request.name, "node");
    assert_int_equal(buf_add_span(&a->csr, buf_span(&h->csr)), OK);
    while (*last)
        last = &(*last)->next;
    *last = a;
    m->ops = true;
    m->env.wake(m);
    return a;
}

static void put_join(struct question *q, const struct holder *h) {
    struct admission *a = put(q, JOIN_TOKEN, h);
    struct row row;
    struct join_token t;
    assert_true(join_token_standing(m->store, NODE_WORKER, &row, &t));
    assert_int_equal(join_token_derive(store_cluster(m->store)->join_key, NODE_WORKER, t.epoch,
                                       a->request.token),
                     OK);
}

static void put_renewal(struct question *q, const char *id, const struct holder *old,
                        const struct holder *h) {
    struct admission *a = put(q, JOIN_RENEW, h);
    (void)snprintf(a->who.subject.cn, sizeof a->who.subject.cn, "%s", id);
    memcpy(a->who.key_digest, old->digest, sizeof a->who.key_digest);
}

/* The verdict on a node that asks to come back, with the key of `h`; it has `old`'s. */
static enum err come_back(const struct holder *old, const struct holder *h, const char *words) {
    struct question q;
    struct admission *a = put(&q, JOIN_EXPIRED, h);
    struct buf cert = expired(old, AGO_S);
    assert_int_equal(buf_add_span(&a->old_cert, buf_span(&cert)), OK);
    assert_int_equal(x509_prove(old->key, buf_span(&a->csr), &a->proof, NULL), OK);
    buf_free(&cert);
    loners_until(&all, is_over, &q);
    if (!strstr(q.text, words)) fail_msg("%s: %s", err_name(q.error), q.text);
    return q.error;
}

static void approve(void) {
    struct why why = {0};
    all.done = false;
    assert_int_equal(nodes_approve(m, away_id, loners_done, &all, &why), OK);
    loners_wait(&all);
    assert_int_equal(all.error, OK);
}

static int start(void **state) {
    (void)state;
    loners_start(&all, true);
    m = all.at[0].manager;
    return 0;
}

static int stop(void **state) {
    (void)state;
    loners_end(&all);
    return 0;
}

/* --- cases ------------------------------------------------------------------------------------ */

static void one_that_can_not_be_written_fails_alone(void **state) {
    (void)state;
    struct question q[3];
    struct holder first = holder_new(), second = holder_new(), third = holder_new();
    put_join(&q[0], &first);
    loners_until(&all, is_over, &q[0]);
    assert_int_equal(q[0].error, OK);
    char id[NODE_ID_SIZE + 1];
    memcpy(id, q[0].node_id, sizeof id);
    put_join(&q[0], &first); /* another node has this key */
    put_renewal(&q[1], id, &first, &second);
    put_join(&q[2], &third);
    for (unsigned i = 0; i < ARRAY_SIZE(q); i++)
        loners_until(&all, is_over, &q[i]);
    assert_int_equal(q[0].error, ERR_PRECONDITION);
    assert_int_equal(q[1].error, OK);
    assert_int_equal(q[2].error, OK);
    assert_string_equal(q[1].node_id, id);
    holder_free(&first);
    holder_free(&second);
    holder_free(&third);
}

static void an_approval_is_for_the_key_that_was_shown(void **state) {
    (void)state;
    struct row row;
    struct holder old = holder_new(), own = holder_new(), other = holder_new();
    add_away(&old);
    assert_int_equal(come_back(&old, &other, "approve"), ERR_PENDING);
    assert_int_equal(come_back(&old, &own, "approve"), ERR_PENDING); /* it was restarted */
    assert_memory_equal(row_of(away_id, &row).wanted_digest, own.digest, NODE_DIGEST_SIZE);
    approve();
    assert_int_equal(come_back(&old, &other, "another key"), ERR_PENDING);
    assert_memory_equal(row_of(away_id, &row).wanted_digest, own.digest, NODE_DIGEST_SIZE);
    assert_int_equal(come_back(&old, &own, ""), OK);
    assert_false(row_of(away_id, &row).approved);
    assert_int_equal(come_back(&old, &own, ""), OK); /* the answer was lost */
    assert_int_equal(come_back(&old, &other, "approve"), ERR_PENDING);
    holder_free(&old);
    holder_free(&own);
    holder_free(&other);
}

static void who_was_let_in_once_is_not_let_in_for_ever(void **state) {
    (void)state;
    struct holder old = holder_new(), own = holder_new();
    add_away(&old);
    set_readmit(READMIT_AUTOMATIC, 0);
    assert_int_equal(come_back(&old, &own, ""), OK);
    set_readmit(READMIT_NEVER, 0);
    assert_int_equal(come_back(&old, &own, ""), OK); /* the answer was lost */
    end_away();
    assert_int_equal(come_back(&old, &own, "lets nobody come back"), ERR_PERMISSION);
    set_readmit(READMIT_AUTOMATIC, AGO_S / 2);
    assert_int_equal(come_back(&old, &own, "too long ago"), ERR_PERMISSION);
    holder_free(&old);
    holder_free(&own);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_that_can_not_be_written_fails_alone, start, stop),
        cmocka_unit_test_setup_teardown(an_approval_is_for_the_key_that_was_shown, start, stop),
        cmocka_unit_test_setup_teardown(who_was_let_in_once_is_not_let_in_for_ever, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
