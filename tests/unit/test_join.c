/* A newcomer and the members: it gets its answer, follows to the leader, and says its secret to
 * nobody but a manager of the cluster whose root it knows. The newcomer blocks, so it has a thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdio.h>

#include "raft/peer_internal.h"
#include "tests/lib/peer_net.h"

static struct net net;

struct newcomer {
    uv_thread_t thread;
    char address[ADDRESS_MAX];
    char digest[ROOT_DIGEST_TEXT];
    uint64_t timeout_ms;
    const struct join_credentials *known;
    struct wire_join request;
    struct buf memory;
    struct wire_joined joined;
    enum err result;
    struct why why;
    atomic_bool done;
};

static void newcomer_run(void *arg) {
    struct newcomer *n = arg;
    n->result = join_request(n->address, n->digest, n->known, &n->request, n->timeout_ms,
                             &n->memory, &n->joined, &n->why);
    atomic_store(&n->done, true);
}

static void newcomer_start(struct newcomer *n, const char *address, const char *digest) {
    memset(n, 0, sizeof *n);
    n->memory = buf_new(FRAME_MAX);
    n->timeout_ms = 10000;
    (void)snprintf(n->address, sizeof n->address, "%s", address);
    (void)snprintf(n->digest, sizeof n->digest, "%s", digest);
    n->request.kind = JOIN_TOKEN;
    n->request.member = 1;
    (void)snprintf(n->request.token, sizeof n->request.token, "thesecretpartofthetoken00");
    (void)snprintf(n->request.name, sizeof n->request.name, "new");
    (void)snprintf(n->request.peer_address, sizeof n->request.peer_address, "127.0.0.1:7");
    n->request.request = span_str("the certificate request");
}

static void tick(uv_timer_t *t) { (void)t; } /* makes the loop turn, so that UNTIL sees `done` */

/* Runs the newcomer to its end while the members' loop goes on. */
static void newcomer_finish(struct newcomer *n) {
    uv_timer_t ticks;
    assert_int_equal(uv_timer_init(&net.loop, &ticks), 0);
    assert_int_equal(uv_timer_start(&ticks, tick, 1, 1), 0);
    assert_int_equal(uv_thread_create(&n->thread, newcomer_run, n), 0);
    UNTIL(&net, atomic_load(&n->done));
    assert_int_equal(uv_thread_join(&n->thread), 0);
    uv_close((uv_handle_t *)&ticks, NULL);
    (void)uv_run(&net.loop, UV_RUN_NOWAIT);
    assert_int_equal(n->memory.size == 0, n->result != OK);
}

static void newcomer_free(struct newcomer *n) { buf_wipe(&n->memory); }

static void grant(struct wire_joined *j, const struct pki *pki) {
    static const uint8_t key[32] = "0123456789abcdef0123456789abcde";
    *j = (struct wire_joined){.role = JOIN_MANAGER, .raft_id = 7, .n = 2};
    (void)snprintf(j->cluster_id, sizeof j->cluster_id, "%s", pki->cluster_id);
    (void)snprintf(j->node_id, sizeof j->node_id, "node7");
    j->cert = span_str("the certificate");
    j->root = buf_span(&pki->root);
    j->unlock_key = span_of(key, sizeof key);
    for (uint32_t i = 0; i < j->n; i++) {
        j->members[i].raft_id = i + 1;
        (void)snprintf(j->members[i].node_id, sizeof j->members[i].node_id, "node%u", i + 1);
    }
}

static void assert_asked(const struct net_node *node) {
    assert_int_equal(node->joins, 1);
    assert_string_equal(node->request.token, "thesecretpartofthetoken00");
    assert_string_equal(node->request.name, "new");
    assert_string_equal(node->request.peer_address, "127.0.0.1:7");
}

static void a_newcomer_gets_its_answer(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined answer;
    net_open(&net);
    grant(&answer, &net.pki);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &answer;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_string_equal(n.why.text, "");
    assert_int_equal(n.result, OK);
    assert_asked(a);
    assert_int_equal(n.joined.raft_id, 7);
    assert_string_equal(n.joined.node_id, "node7");
    assert_true(span_equal(n.joined.cert, answer.cert));
    assert_true(span_equal(n.joined.root, answer.root));
    assert_true(span_equal(n.joined.unlock_key, answer.unlock_key));
    assert_int_equal(n.joined.n, 2);
    assert_string_equal(n.joined.members[1].node_id, "node2");
    newcomer_free(&n);
    net_close(&net);
}

static void a_newcomer_follows_to_the_leader(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined answer, elsewhere = {.error = ERR_NOT_LEADER};
    net_open(&net);
    grant(&answer, &net.pki);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct net_node *b = net_node_open(&net, 2, NULL);
    (void)snprintf(elsewhere.leader, sizeof elsewhere.leader, "%s", b->address);
    a->answer = &elsewhere;
    b->answer = &answer;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, OK);
    assert_asked(a);
    assert_asked(b);
    newcomer_free(&n);
    net_close(&net);
}

static void a_circle_of_leaders_ends(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined elsewhere = {.error = ERR_NOT_LEADER};
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    (void)snprintf(elsewhere.leader, sizeof elsewhere.leader, "%s", a->address);
    a->answer = &elsewhere;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_NO_LEADER);
    assert_int_equal(a->joins, 9);
    net_close(&net);
}

static void a_refusal_comes_with_its_sentence(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined no = {.error = ERR_UNAUTHENTICATED, .text = "this token is not valid"};
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &no;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_UNAUTHENTICATED);
    assert_non_null(strstr(n.why.text, "this token is not valid"));
    assert_null(strstr(n.why.text, n.request.token));
    net_close(&net);
}

static void a_root_that_is_not_the_tokens_gets_no_secret(void **state) {
    (void)state;
    struct newcomer n;
    struct pki other;
    net_open(&net);
    pki_new(&other, NET_CLUSTER);
    struct net_node *a = net_node_open(&net, 1, NULL);
    newcomer_start(&n, a->address, other.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_CERTIFICATE);
    assert_non_null(strstr(n.why.text, "another root certificate than the one of the token"));
    assert_int_equal(a->joins, 0);
    pki_free(&other);
    net_close(&net);
}

/* It shows the right root, which is public, but its own certificate is not signed by it. */
static void a_liar_with_the_right_root_gets_no_secret(void **state) {
    (void)state;
    struct newcomer n;
    struct pki other;
    net_open(&net);
    pki_new(&other, NET_CLUSTER);
    struct net_node *a = net_node_open(&net, 1, &(struct net_fault){.pki = &other});
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_CERTIFICATE);
    assert_int_equal(a->joins, 0);
    pki_free(&other);
    net_close(&net);
}

static void a_node_that_is_no_manager_gets_no_secret(void **state) {
    (void)state;
    struct newcomer n;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, &(struct net_fault){.ou = ROLE_CLIENT});
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_CERTIFICATE);
    assert_non_null(strstr(n.why.text, "not a manager's"));
    assert_int_equal(a->joins, 0);
    net_close(&net);
}

static void an_answer_of_another_cluster_is_not_taken(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined answer;
    struct pki other;
    net_open(&net);
    pki_new(&other, "othercluster");
    grant(&answer, &other);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &answer;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_CERTIFICATE);
    grant(&answer, &net.pki);
    (void)snprintf(answer.cluster_id, sizeof answer.cluster_id, "othercluster");
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_PROTOCOL);
    pki_free(&other);
    net_close(&net);
}

static void no_answer_is_a_timeout_and_a_late_one_harms_nobody(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined answer;
    net_open(&net);
    grant(&answer, &net.pki);
    struct net_node *a = net_node_open(&net, 1, NULL);
    newcomer_start(&n, a->address, net.pki.digest);
    n.timeout_ms = 300;
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_TIMEOUT);
    assert_non_null(strstr(n.why.text, a->address));
    assert_non_null(a->joiner);
    join_answer(a->joiner, &answer); /* the newcomer has gone */
    newcomer_start(&n, a->address, net.pki.digest);
    n.timeout_ms = 300;
    newcomer_finish(&n);
    struct join_connection *c = a->joiner;
    net_node_close(a);
    join_answer(c, &answer); /* so have the peers */
    net_close(&net);
}

static void nobody_there_is_unreachable(void **state) {
    (void)state;
    struct newcomer n;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    newcomer_start(&n, a->address, net.pki.digest);
    net_node_close(a);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_UNREACHABLE);
    assert_non_null(strstr(n.why.text, "Connection refused"));
    newcomer_start(&n, "nonsense", net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_INVALID);
    net_close(&net);
}

static void a_newcomer_shows_no_certificate(void **state) {
    (void)state;
    static const struct x509_subject nobody;
    static const uint8_t zero[32];
    struct newcomer n;
    struct wire_joined answer;
    net_open(&net);
    grant(&answer, &net.pki);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &answer;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, OK);
    assert_memory_equal(&a->asker.subject, &nobody, sizeof nobody);
    assert_memory_equal(a->asker.key_digest, zero, 32);
    assert_memory_equal(a->asker.issuer_digest, zero, 32);
    assert_string_equal(a->asker.remote, "127.0.0.1");
    newcomer_free(&n);
    net_close(&net);
}

static void to_wait_for_an_approval_is_an_answer(void **state) {
    (void)state;
    struct newcomer n;
    struct wire_joined wait = {.error = ERR_PENDING, .text = "a manager has to approve it"};
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &wait;
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_PENDING);
    assert_non_null(strstr(n.why.text, "a manager has to approve it"));
    net_close(&net);
}

/* ---- nodes that know the roots already ---- */

struct holder {
    struct pki_node cert;
    struct join_credentials known; /* of the net's root and the certificate */
};

static void holder_new(struct holder *h, const struct pki *pki, const char *cluster,
                       int64_t age_s) {
    pki_node_new(pki, "workernode1", ROLE_WORKER, cluster, age_s, &h->cert);
    h->known = (struct join_credentials){.root_pem = buf_span(&net.pki.root),
                                         .cert_pem = buf_span(&h->cert.cert),
                                         .key_pem = h->cert.key};
}

static void renewal_start(struct newcomer *n, const char *address,
                          const struct join_credentials *known) {
    newcomer_start(n, address, "");
    n->request.token[0] = 0;
    n->request.kind = JOIN_RENEW;
    n->request.member = 0;
    n->known = known;
}

static void a_node_renews_with_its_certificate(void **state) {
    (void)state;
    struct newcomer n;
    struct holder h;
    uint8_t key[32], issuer[32];
    net_open(&net);
    holder_new(&h, &net.pki, NET_CLUSTER, 0);
    struct wire_joined answer = {.role = JOIN_WORKER, .root = buf_span(&net.pki.root)};
    (void)snprintf(answer.cluster_id, sizeof answer.cluster_id, NET_CLUSTER);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &answer;
    renewal_start(&n, a->address, &h.known);
    newcomer_finish(&n);
    assert_string_equal(n.why.text, "");
    assert_int_equal(n.result, OK);
    assert_int_equal(n.joined.role, JOIN_WORKER);
    assert_int_equal(n.joined.raft_id, 0);
    assert_int_equal(a->joins, 1);
    assert_int_equal(a->request.kind, JOIN_RENEW);
    assert_string_equal(a->asker.subject.cn, "workernode1");
    assert_string_equal(a->asker.subject.ou, ROLE_WORKER);
    assert_int_equal(x509_key_digest(buf_span(&h.cert.cert), key), OK);
    assert_int_equal(x509_key_digest(buf_span(&net.pki.root), issuer), OK);
    assert_memory_equal(a->asker.key_digest, key, 32);
    assert_memory_equal(a->asker.issuer_digest, issuer, 32);
    newcomer_free(&n);
    pki_node_free(&h.cert);
    net_close(&net);
}

static void a_renewal_follows_to_the_leader_as_the_same_node(void **state) {
    (void)state;
    struct newcomer n;
    struct holder h;
    struct wire_joined answer, elsewhere = {.error = ERR_NOT_LEADER};
    net_open(&net);
    holder_new(&h, &net.pki, NET_CLUSTER, 0);
    grant(&answer, &net.pki);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct net_node *b = net_node_open(&net, 2, NULL);
    (void)snprintf(elsewhere.leader, sizeof elsewhere.leader, "%s", b->address);
    a->answer = &elsewhere;
    b->answer = &answer;
    renewal_start(&n, a->address, &h.known);
    newcomer_finish(&n);
    assert_int_equal(n.result, OK);
    assert_string_equal(a->asker.subject.cn, "workernode1");
    assert_string_equal(b->asker.subject.cn, "workernode1");
    newcomer_free(&n);
    pki_node_free(&h.cert);
    net_close(&net);
}

/* It shows no certificate; what it says of the old one goes through as it is. */
static void a_node_whose_certificate_ran_out_says_so_with_its_proof(void **state) {
    (void)state;
    struct newcomer n;
    struct holder h;
    struct wire_joined answer;
    net_open(&net);
    holder_new(&h, &net.pki, NET_CLUSTER, NODE_VALIDITY_S + 7200);
    grant(&answer, &net.pki);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &answer;
    struct join_credentials roots = {.root_pem = buf_span(&net.pki.root)};
    renewal_start(&n, a->address, &roots);
    n.request.kind = JOIN_EXPIRED;
    n.request.old_cert = buf_span(&h.cert.cert);
    n.request.proof = span_str("signed by the old key");
    (void)snprintf(n.request.hostname, sizeof n.request.hostname, "host1");
    newcomer_finish(&n);
    assert_int_equal(n.result, OK);
    assert_int_equal(a->request.kind, JOIN_EXPIRED);
    assert_string_equal(a->request.hostname, "host1");
    assert_string_equal(a->asker.subject.cn, "");
    assert_true(span_equal(buf_span(&a->asked[0]), span_str("the certificate request")));
    assert_true(span_equal(buf_span(&a->asked[1]), buf_span(&h.cert.cert)));
    assert_true(span_equal(buf_span(&a->asked[2]), span_str("signed by the old key")));
    newcomer_free(&n);
    pki_node_free(&h.cert);
    net_close(&net);
}

static void assert_holder_refused(const struct pki *pki, const char *cluster, int64_t age_s,
                                  enum err e, const char *logged) {
    struct newcomer n;
    struct holder h;
    net_open(&net);
    holder_new(&h, pki != NULL ? pki : &net.pki, cluster, age_s);
    struct net_node *a = net_node_open(&net, 1, NULL);
    renewal_start(&n, a->address, &h.known);
    newcomer_finish(&n);
    assert_int_equal(n.result, e);
    assert_true(net_logged(a, logged));
    assert_int_equal(a->joins, 0);
    pki_node_free(&h.cert);
    net_close(&net);
}

static void certificates_that_are_not_good_renew_nothing(void **state) {
    (void)state;
    struct pki other;
    pki_new(&other, NET_CLUSTER);
    assert_holder_refused(&other, NET_CLUSTER, 0, ERR_CERTIFICATE, "another cluster's root");
    assert_holder_refused(NULL, NET_CLUSTER, NODE_VALIDITY_S + 7200, ERR_CERTIFICATE, "expired");
    assert_holder_refused(NULL, "othercluster", 0, ERR_UNREACHABLE,
                          "refused: its certificate is of cluster \"othercluster\"");
    pki_free(&other);
}

/* A man in the middle has a root of his own. */
static void a_renewal_says_nothing_to_another_roots_server(void **state) {
    (void)state;
    struct newcomer n;
    struct holder h;
    struct pki other;
    net_open(&net);
    pki_new(&other, NET_CLUSTER);
    holder_new(&h, &net.pki, NET_CLUSTER, 0);
    struct net_node *a =
        net_node_open(&net, 1, &(struct net_fault){.pki = &other, .roots = buf_span(&other.root)});
    renewal_start(&n, a->address, &h.known);
    newcomer_finish(&n);
    assert_int_equal(n.result, ERR_CERTIFICATE);
    assert_int_equal(a->joins, 0);
    pki_free(&other);
    pki_node_free(&h.cert);
    net_close(&net);
}

/* ---- while the root changes ---- */

struct rotation {
    struct pki next;
    struct buf cross; /* the next root, certified by the present one */
    struct buf both;  /* both roots, the present one first */
    struct wire_joined answer;
};

static void rotation_new(struct rotation *r) {
    struct why why = {0};
    pki_new(&r->next, NET_CLUSTER);
    r->cross = buf_new(PEM_MAX);
    r->both = buf_new(PEM_MAX);
    if (x509_cross(net.pki.key, buf_span(&net.pki.root), buf_span(&r->next.root), &r->cross,
                   &why) != OK)
        fail_msg("%s", why.text);
    assert_int_equal(buf_add_span(&r->both, buf_span(&net.pki.root)), OK);
    assert_int_equal(buf_add_span(&r->both, buf_span(&r->next.root)), OK);
    grant(&r->answer, &net.pki);
}

static void rotation_free(struct rotation *r) {
    pki_free(&r->next);
    buf_free(&r->cross);
    buf_free(&r->both);
}

/* A manager with a certificate of the next root, that trusts `roots`. */
static struct net_node *rotated(struct rotation *r, struct span roots) {
    struct net_fault f = {.pki = &r->next, .more = buf_span(&r->cross), .roots = roots};
    struct net_node *a = net_node_open(&net, 1, &f);
    a->answer = &r->answer;
    return a;
}

static void assert_joins(struct net_node *a, const char *digest, enum err e) {
    struct newcomer n;
    unsigned before = a->joins;
    newcomer_start(&n, a->address, digest);
    newcomer_finish(&n);
    if (n.result != e) fail_msg("%s: %s", err_name(n.result), n.why.text);
    assert_int_equal(a->joins, before + (e == OK));
    newcomer_free(&n);
}

static void the_token_pins_the_first_root_while_two_are_trusted(void **state) {
    (void)state;
    struct rotation r;
    net_open(&net);
    rotation_new(&r);
    struct net_node *a = rotated(&r, buf_span(&r.both));
    r.answer.root = buf_span(&r.both);
    assert_joins(a, net.pki.digest, OK);
    assert_joins(a, r.next.digest, ERR_CERTIFICATE);
    net_close(&net);
    rotation_free(&r);
}

static void the_token_pins_the_new_root_after(void **state) {
    (void)state;
    struct rotation r;
    net_open(&net);
    rotation_new(&r);
    struct net_node *a = rotated(&r, buf_span(&r.next.root));
    r.answer.root = buf_span(&r.next.root);
    assert_joins(a, net.pki.digest, ERR_CERTIFICATE);
    assert_joins(a, r.next.digest, OK);
    net_close(&net);
    rotation_free(&r);
}

/* The old root is all that it knows: the cross-signed certificate leads it on. The managers trust
 * the old root for its sake. */
static void a_node_of_the_old_root_renews_in_the_end(void **state) {
    (void)state;
    struct rotation r;
    struct newcomer n;
    struct holder h;
    uint8_t issuer[32];
    net_open(&net);
    rotation_new(&r);
    holder_new(&h, &net.pki, NET_CLUSTER, 0);
    struct buf trusted = buf_new(PEM_MAX);
    assert_int_equal(buf_add_span(&trusted, buf_span(&r.next.root)), OK);
    assert_int_equal(buf_add_span(&trusted, buf_span(&net.pki.root)), OK);
    struct net_node *a = rotated(&r, buf_span(&trusted));
    renewal_start(&n, a->address, &h.known);
    newcomer_finish(&n);
    if (n.result != OK) fail_msg("%s", n.why.text);
    assert_int_equal(x509_key_digest(buf_span(&net.pki.root), issuer), OK);
    assert_memory_equal(a->asker.issuer_digest, issuer, 32);
    newcomer_free(&n);
    pki_node_free(&h.cert);
    net_close(&net);
    rotation_free(&r);
    buf_free(&trusted);
}

/* ---- newcomers that do not keep to the rules ---- */

static void ask_twice(struct stranger *s) {
    struct wire_message m = {.type = WIRE_JOIN, .join = {.kind = JOIN_TOKEN}};
    (void)snprintf(m.join.token, sizeof m.join.token, "token");
    m.join.request = span_str("request");
    assert_int_equal(wire_encode(&m, &s->say), OK);
    assert_int_equal(wire_encode(&m, &s->say), OK);
}

static void a_newcomer_asks_once(void **state) {
    (void)state;
    struct stranger s;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    stranger_new(&s, &net, false, ALPN_JOIN, NULL);
    ask_twice(&s);
    stranger_dial(&s, a->address);
    UNTIL(&net, s.ended && net_logged(a, "refused: a frame out of turn"));
    assert_int_equal(a->joins, 1);
    join_answer(a->joiner, &(struct wire_joined){.error = ERR_INTERNAL});
    stranger_free(&s);
    net_close(&net);
}

static void a_newcomer_may_say_nothing_else(void **state) {
    (void)state;
    struct stranger s;
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    stranger_new(&s, &net, false, ALPN_JOIN, NULL);
    stranger_hello(&s, 1, "node2", NET_CLUSTER, WIRE_VERSION);
    stranger_dial(&s, a->address);
    UNTIL(&net, s.ended && net_logged(a, "which newcomers don't send"));
    stranger_free(&s);
    stranger_new(&s, &net, false, ALPN_JOIN, NULL);
    assert_int_equal(buf_u32(&s.say, JOIN_FRAME_MAX), OK);
    stranger_dial(&s, a->address);
    UNTIL(&net, s.ended);
    stranger_free(&s);
    assert_int_equal(a->joins, 0);
    net_close(&net);
}

static void newcomers_at_once_are_bounded(void **state) {
    (void)state;
    static struct stranger s[JOINS_MAX + 5];
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(s); i++) {
        stranger_new(&s[i], &net, false, ALPN_JOIN, NULL);
        stranger_dial(&s[i], a->address);
        UNTIL(&net, s[i].said || s[i].ended);
    }
    UNTIL(&net, net_logged(a, "refused: too many newcomers that ask nothing"));
    struct peers_figures f = {0};
    net_begin(&net);
    while (f.refused < 5) {
        net_turn(&net, "five are refused");
        peers_figures(a->peers, &f);
    }
    net_end(&net);
    assert_int_equal(f.refused, 5);
    for (size_t i = 0; i < ARRAY_SIZE(s); i++)
        stranger_free(&s[i]);
    net_close(&net);
}

static void newcomers_that_ask_nothing_keep_nobody_out(void **state) {
    (void)state;
    static struct stranger s[JOINS_MAX];
    struct newcomer n;
    struct holder h;
    struct wire_joined answer;
    net_open(&net);
    grant(&answer, &net.pki);
    holder_new(&h, &net.pki, NET_CLUSTER, 0);
    struct net_node *a = net_node_open(&net, 1, NULL);
    a->answer = &answer;
    for (size_t i = 0; i < ARRAY_SIZE(s); i++) {
        stranger_new(&s[i], &net, false, ALPN_JOIN, NULL);
        stranger_dial(&s[i], a->address);
        UNTIL(&net, s[i].said || s[i].ended);
    }
    UNTIL(&net, a->peers->joins == JOINS_MAX);
    renewal_start(&n, a->address, &h.known);
    newcomer_finish(&n);
    assert_int_equal(n.result, OK); /* beside them */
    newcomer_free(&n);
    assert_int_equal(a->peers->joins, JOINS_MAX);
    newcomer_start(&n, a->address, net.pki.digest);
    newcomer_finish(&n);
    assert_int_equal(n.result, OK); /* in the place of the oldest ones */
    newcomer_free(&n);
    for (size_t i = 0; i < ARRAY_SIZE(s); i++)
        stranger_free(&s[i]);
    pki_node_free(&h.cert);
    net_close(&net);
}

/* Certificates of many nodes, or many connections of one, that ask nothing. */
static void renewals_that_ask_nothing_keep_nobody_out(void **state) {
    (void)state;
    static struct stranger s[RENEWALS_MAX + 1];
    static struct pki_node certs[RENEWALS_MAX / RENEWALS_EACH_MAX];
    struct newcomer n;
    struct holder h;
    struct wire_joined answer;
    net_open(&net);
    grant(&answer, &net.pki);
    holder_new(&h, &net.pki, NET_CLUSTER, 0);
    struct net_node *a = net_node_open(&net, 1, &(struct net_fault){.handshake_ms = 60000});
    a->answer = &answer;
    for (unsigned i = 0; i < RENEWALS_MAX; i++) {
        unsigned who = i / RENEWALS_EACH_MAX;
        char cn[NODE_ID_SIZE];
        (void)snprintf(cn, sizeof cn, "silent%u", who);
        if (i % RENEWALS_EACH_MAX == 0)
            pki_node_new(&net.pki, cn, ROLE_WORKER, NET_CLUSTER, 0, &certs[who]);
        stranger_new(&s[i], &net, false, ALPN_JOIN, &certs[who]);
        stranger_dial(&s[i], a->address);
        UNTIL(&net, a->peers->renewals == i + 1);
    }
    stranger_new(&s[RENEWALS_MAX], &net, false, ALPN_JOIN, &certs[1]);
    stranger_dial(&s[RENEWALS_MAX], a->address);
    UNTIL(&net, s[RENEWALS_EACH_MAX].ended); /* the same node's first one */
    assert_false(s[0].ended);
    assert_int_equal(a->peers->renewals, RENEWALS_MAX);
    renewal_start(&n, a->address, &h.known);
    newcomer_finish(&n);
    assert_int_equal(n.result, OK); /* in the place of the oldest one */
    newcomer_free(&n);
    UNTIL(&net, s[0].ended);
    for (size_t i = 0; i < ARRAY_SIZE(s); i++)
        stranger_free(&s[i]);
    for (size_t i = 0; i < ARRAY_SIZE(certs); i++)
        pki_node_free(&certs[i]);
    pki_node_free(&h.cert);
    net_close(&net);
}

static void questions_at_once_are_bounded(void **state) {
    (void)state;
    static struct stranger s[JOINS_MAX + 1];
    net_open(&net);
    struct net_node *a = net_node_open(&net, 1, NULL);
    struct wire_message m = {.type = WIRE_JOIN, .join = {.kind = JOIN_TOKEN}};
    struct join_connection *asked[ARRAY_SIZE(s)];
    for (unsigned i = 0; i < ARRAY_SIZE(s); i++) {
        stranger_new(&s[i], &net, false, ALPN_JOIN, NULL);
        assert_int_equal(wire_encode(&m, &s[i].say), OK);
        stranger_dial(&s[i], a->address);
        UNTIL(&net, a->joins == i + 1 || s[i].ended);
        asked[i] = a->joiner;
    }
    UNTIL(&net, net_logged(a, "refused: more than 64 newcomers at once"));
    assert_int_equal(a->joins, JOINS_MAX);
    for (unsigned i = 0; i < JOINS_MAX; i++)
        join_answer(asked[i], &(struct wire_joined){.error = ERR_BUSY});
    for (unsigned i = 0; i < ARRAY_SIZE(s); i++)
        stranger_free(&s[i]);
    net_close(&net);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_newcomer_gets_its_answer),
        cmocka_unit_test(a_newcomer_follows_to_the_leader),
        cmocka_unit_test(a_circle_of_leaders_ends),
        cmocka_unit_test(a_refusal_comes_with_its_sentence),
        cmocka_unit_test(a_root_that_is_not_the_tokens_gets_no_secret),
        cmocka_unit_test(a_liar_with_the_right_root_gets_no_secret),
        cmocka_unit_test(a_node_that_is_no_manager_gets_no_secret),
        cmocka_unit_test(an_answer_of_another_cluster_is_not_taken),
        cmocka_unit_test(no_answer_is_a_timeout_and_a_late_one_harms_nobody),
        cmocka_unit_test(nobody_there_is_unreachable),
        cmocka_unit_test(a_newcomer_shows_no_certificate),
        cmocka_unit_test(to_wait_for_an_approval_is_an_answer),
        cmocka_unit_test(a_node_renews_with_its_certificate),
        cmocka_unit_test(a_renewal_follows_to_the_leader_as_the_same_node),
        cmocka_unit_test(a_node_whose_certificate_ran_out_says_so_with_its_proof),
        cmocka_unit_test(certificates_that_are_not_good_renew_nothing),
        cmocka_unit_test(a_renewal_says_nothing_to_another_roots_server),
        cmocka_unit_test(the_token_pins_the_first_root_while_two_are_trusted),
        cmocka_unit_test(the_token_pins_the_new_root_after),
        cmocka_unit_test(a_node_of_the_old_root_renews_in_the_end),
        cmocka_unit_test(a_newcomer_asks_once),
        cmocka_unit_test(a_newcomer_may_say_nothing_else),
        cmocka_unit_test(newcomers_at_once_are_bounded),
        cmocka_unit_test(newcomers_that_ask_nothing_keep_nobody_out),
        cmocka_unit_test(renewals_that_ask_nothing_keep_nobody_out),
        cmocka_unit_test(questions_at_once_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
