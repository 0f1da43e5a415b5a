/* The implementation of session_net.h: callbacks that note what came, and assert its order. */
#include "tests/lib/session_net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "tests/lib/fault.h"

struct session_net t;

/* ---- the manager's side ---- */

/* Message number `seq` is of that kind, begins with it, and is filled with it. */
struct span body_of(uint64_t seq, size_t size, struct buf *b) {
    buf_clear(b);
    assert_int_equal(buf_u64(b, seq), OK);
    while (b->size < size)
        assert_int_equal(buf_u8(b, (uint8_t)seq), OK);
    return buf_span(b);
}

static bool is_message(uint64_t seq, uint8_t kind, struct span body) {
    if (kind != 1 + seq % 255 || body.size < 8 || get_u64(body.at) != seq) return false;
    for (size_t i = 8; i < body.size; i++)
        if (body.at[i] != (uint8_t)seq) return false;
    return true;
}

static RESULT take_opened(void *ctx, struct node_session *s, const struct node_caller *who,
                          struct why *why) {
    assert_ptr_equal(ctx, t.a);
    if (t.manager.greet) session_send(s, 1, span_of("\0\0\0\0\0\0\0\0", 8));
    if (t.manager.refuse != OK) {
        t.manager.refused++;
        return fail_with(why, t.manager.refuse, "node %s is not wanted", who->subject.cn);
    }
    assert_true(t.manager.n < NODES);
    struct seen *seen = &t.manager.seen[t.manager.n++];
    *seen = (struct seen){.session = s, .who = *who, .last = buf_new(SESSION_FRAME_MAX)};
    session_set(s, seen);
    assert_ptr_equal(session_get(s), seen);
    assert_string_equal(session_caller(s)->subject.cn, who->subject.cn);
    return OK;
}

static RESULT take_message(void *ctx, struct node_session *s, uint8_t kind, struct span body,
                           struct why *why) {
    struct seen *seen = session_get(s);
    assert_ptr_equal(ctx, t.a);
    assert_false(seen->closed);
    if (t.manager.object != OK) return fail_with(why, t.manager.object, "this makes no sense");
    if (!is_message(seen->messages, kind, body)) seen->disorder = true;
    seen->messages++;
    buf_clear(&seen->last);
    fault_alloc_pause();
    assert_int_equal(buf_add_span(&seen->last, body), OK);
    fault_alloc_resume();
    if (t.manager.echo) session_send(s, kind, body);
    return OK;
}

static RESULT take_stays(void *ctx, struct node_session *s, const struct node_caller *who,
                         struct why *why) {
    (void)ctx;
    (void)s;
    if (t.manager.unwanted == NULL || strcmp(t.manager.unwanted, who->subject.cn) != 0) return OK;
    return fail_with(why, ERR_PERMISSION, "node %s was removed", who->subject.cn);
}

static void take_closed(void *ctx, struct node_session *s) {
    struct seen *seen = session_get(s);
    assert_ptr_equal(ctx, t.a);
    assert_false(seen->closed);
    seen->closed = true;
    seen->session = NULL;
    buf_free(&seen->last);
}

static const struct node_events events = {
    .opened = take_opened, .message = take_message, .stays = take_stays, .closed = take_closed};

/* ---- the node's side ---- */

static void node_freed(void *ctx) { ((struct node *)ctx)->freed++; }

void node_free(struct node *n) {
    if (n->uplink != NULL) uplink_free(n->uplink, node_freed, n);
    n->uplink = NULL;
}

static void node_opened(void *ctx, struct uplink *u) {
    struct node *n = ctx;
    assert_ptr_equal(u, n->uplink);
    n->opened++;
    if (n->free_in_opened) node_free(n);
}

static RESULT node_message(void *ctx, struct uplink *u, uint8_t kind, struct span body,
                           struct why *why) {
    struct node *n = ctx;
    assert_ptr_equal(u, n->uplink);
    assert_int_equal(n->closed, 0);
    if (n->object != OK) return fail_with(why, n->object, "the manager talks nonsense");
    if (!is_message(n->messages, kind, body)) n->disorder = true;
    n->messages++;
    if (n->free_in_message) node_free(n);
    return OK;
}

static void node_closed(void *ctx, struct uplink *u, enum err e, const char *text) {
    struct node *n = ctx;
    assert_ptr_equal(u, n->uplink);
    n->closed++;
    n->error = e;
    (void)snprintf(n->text, sizeof n->text, "%s", text);
}

struct uplink_config node_config(struct node *n) {
    struct uplink_config c = {.loop = &t.net.loop,
                              .ctx = n,
                              .root_pem = buf_span(&t.net.pki.root),
                              .cert_pem = buf_span(&n->cert.cert),
                              .key_pem = n->cert.key,
                              .opened = node_opened,
                              .message = node_message,
                              .closed = node_closed};
    (void)snprintf(c.address, sizeof c.address, "%s", t.a->address);
    (void)snprintf(c.cluster_id, sizeof c.cluster_id, NET_CLUSTER);
    return c;
}

void node_dial(struct node *n, const struct uplink_config *c) {
    struct why why = {0};
    if (uplink_open(c, &n->uplink, &why) != OK) fail_msg("%s", why.text);
    assert_int_equal(n->opened + n->closed, 0); /* no callback inside the call */
}

void node_new(struct node *n, const char *id, const char *role) {
    *n = (struct node){0};
    pki_node_new(&t.net.pki, id, role, NET_CLUSTER, 0, &n->cert);
}

/* With a good certificate, and all the way. */
void node_connect(struct node *n, const char *id) {
    node_new(n, id, ROLE_WORKER);
    struct uplink_config c = node_config(n);
    unsigned before = t.manager.n;
    node_dial(n, &c);
    UNTIL(&t.net, n->opened == 1 && t.manager.n == before + 1);
}

void node_end(struct node *n) {
    bool had = n->uplink != NULL;
    node_free(n);
    if (had) assert_int_equal(n->freed, 0); /* no callback inside the call */
    UNTIL(&t.net, n->freed == 1);
    assert_true(n->closed <= 1);
    pki_node_free(&n->cert);
}

void begin_with(const struct net_fault *fault) {
    struct net_fault f = *fault;
    memset(&t.manager, 0, sizeof t.manager);
    net_open(&t.net);
    f.sessions = &events;
    t.a = net_node_open(&t.net, 1, &f);
}

void begin(void) { begin_with(&(struct net_fault){0}); }

void end(void) {
    net_close(&t.net);
    for (unsigned i = 0; i < t.manager.n; i++)
        assert_true(t.manager.seen[i].closed);
}

/* ---- talking ---- */

void say_to_manager(struct node *n, uint64_t seq, size_t size, struct buf *b) {
    uplink_say(n->uplink, (uint8_t)(1 + seq % 255), body_of(seq, size, b));
}

void say_to_node(struct seen *seen, uint64_t seq, size_t size, struct buf *b) {
    session_send(seen->session, (uint8_t)(1 + seq % 255), body_of(seq, size, b));
}

void assert_closed(struct node *n, enum err e, const char *part) {
    UNTIL(&t.net, n->closed == 1);
    if (n->error != e || strstr(n->text, part) == NULL)
        fail_msg("closed with %s: %s", err_name(n->error), n->text);
    node_end(n);
    assert_int_equal(n->closed, 1);
}

/* The manager never heard of it. */
void assert_not_seen(void) {
    assert_int_equal(t.manager.n, 0);
    end();
}

void open_stranger(struct stranger *s, bool with_certificate) {
    struct pki_node cert;
    begin();
    pki_node_new(&t.net.pki, "workernode1", ROLE_WORKER, NET_CLUSTER, 0, &cert);
    stranger_new(s, &t.net, false, ALPN_NODE, with_certificate ? &cert : NULL);
    pki_node_free(&cert);
}

void stranger_says(struct stranger *s, const struct wire_message *m) {
    assert_int_equal(wire_encode(m, &s->say), OK);
}
