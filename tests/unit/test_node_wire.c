/* What nodes and managers say to each other: what is encoded comes back as it was, what is cut,
 * too long or out of range is refused and changes nothing. Random ones come from a fixed seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "api/node/node_wire.h"

static uint64_t rng; /* xorshift state */

static uint64_t next(void) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static void text(char *at, size_t room) {
    size_t size = next() % 2 == 0 ? room - 1 : next() % room;
    for (size_t i = 0; i < size; i++)
        at[i] = (char)(' ' + next() % 95);
    at[size] = '\0';
}

static void hello_make(struct node_hello *h, uint64_t seed) {
    memset(h, 0, sizeof *h);
    rng = seed * 0x9e3779b97f4a7c15ULL + 1;
    text(h->name, sizeof h->name);
    text(h->hostname, sizeof h->hostname);
    text(h->os, sizeof h->os);
    text(h->arch, sizeof h->arch);
    text(h->engine, sizeof h->engine);
    h->nano_cpus = next();
    h->memory_bytes = next();
    text(h->client_address, sizeof h->client_address);
    text(h->peer_address, sizeof h->peer_address);
}

static uint8_t pem[PEM_MAX + 1]; /* what root_pem points into */

static void want_make(struct node_want *w, uint64_t seed) {
    memset(w, 0, sizeof *w);
    rng = seed * 0x9e3779b97f4a7c15ULL + 1;
    w->sequence = next();
    w->role = next() % 2 == 0 ? NODE_WORKER : NODE_MANAGER;
    w->granted = next() % 2 == 0 ? NODE_WORKER : NODE_MANAGER;
    w->heartbeat_ms = (uint32_t)next();
    for (size_t i = 0; i < sizeof w->issuer; i++)
        w->issuer[i] = (uint8_t)next();
    w->renew = next() % 2 == 0;
    w->cert_validity_s = next();
    for (size_t i = 0; i < sizeof pem; i++)
        pem[i] = (uint8_t)next();
    w->root_pem = span_of(pem, next() % 3000);
    w->n = (unsigned)(next() % (MEMBERS_MAX + 1));
    for (unsigned i = 0; i < w->n; i++) {
        w->managers[i].raft_id = next();
        text(w->managers[i].node_id, sizeof w->managers[i].node_id);
        text(w->managers[i].peer_address, sizeof w->managers[i].peer_address);
    }
}

/* By their bytes: texts are followed by whatever was there before. */
static void assert_same_hello(const struct node_hello *a, const struct node_hello *b) {
    assert_string_equal(a->name, b->name);
    assert_string_equal(a->hostname, b->hostname);
    assert_string_equal(a->os, b->os);
    assert_string_equal(a->arch, b->arch);
    assert_string_equal(a->engine, b->engine);
    assert_true(a->nano_cpus == b->nano_cpus && a->memory_bytes == b->memory_bytes);
    assert_string_equal(a->client_address, b->client_address);
    assert_string_equal(a->peer_address, b->peer_address);
}

static void assert_same_want(const struct node_want *a, const struct node_want *b) {
    assert_true(a->sequence == b->sequence);
    assert_true(a->role == b->role && a->granted == b->granted && a->renew == b->renew);
    assert_int_equal(a->heartbeat_ms, b->heartbeat_ms);
    assert_memory_equal(a->issuer, b->issuer, sizeof a->issuer);
    assert_true(a->cert_validity_s == b->cert_validity_s);
    assert_true(span_equal(a->root_pem, b->root_pem));
    assert_int_equal(a->n, b->n);
    for (unsigned i = 0; i < a->n; i++) {
        assert_true(a->managers[i].raft_id == b->managers[i].raft_id);
        assert_string_equal(a->managers[i].node_id, b->managers[i].node_id);
        assert_string_equal(a->managers[i].peer_address, b->managers[i].peer_address);
    }
}

static void whatever_is_said_comes_back_as_it_was(void **state) {
    (void)state;
    static struct node_hello h, h2;
    static struct node_want w, w2;
    struct buf b = buf_new(FRAME_MAX);
    for (uint64_t seed = 1; seed <= 300; seed++) {
        hello_make(&h, seed);
        buf_clear(&b);
        assert_int_equal(node_hello_encode(&h, &b), OK);
        assert_int_equal(node_hello_decode(buf_span(&b), &h2), OK);
        assert_same_hello(&h2, &h);
        want_make(&w, seed);
        buf_clear(&b);
        assert_int_equal(node_want_encode(&w, &b), OK);
        assert_int_equal(node_want_decode(buf_span(&b), &w2), OK);
        assert_same_want(&w2, &w);
    }
    buf_free(&b);
}

/* Each prefix in memory of exactly its size, so that the sanitizer sees an overrun. */
static void what_is_cut_or_too_long_is_refused_and_changes_nothing(void **state) {
    (void)state;
    static struct node_hello h, got_h, before_h;
    static struct node_want w, got_w, before_w;
    struct buf hello = buf_new(FRAME_MAX), want = buf_new(FRAME_MAX);
    hello_make(&h, 3);
    want_make(&w, 3);
    assert_int_equal(node_hello_encode(&h, &hello), OK);
    assert_int_equal(node_want_encode(&w, &want), OK);
    memset(&got_h, 0x5a, sizeof got_h);
    memset(&got_w, 0x5a, sizeof got_w);
    before_h = got_h;
    before_w = got_w;
    for (size_t size = 0; size < hello.size || size < want.size; size++) {
        uint8_t *cut = malloc(size == 0 ? 1 : size);
        assert_non_null(cut);
        if (size < hello.size) {
            memcpy(cut, hello.at, size);
            assert_int_equal(node_hello_decode(span_of(cut, size), &got_h), ERR_PROTOCOL);
        }
        if (size < want.size) {
            memcpy(cut, want.at, size);
            assert_int_equal(node_want_decode(span_of(cut, size), &got_w), ERR_PROTOCOL);
        }
        free(cut);
    }
    assert_int_equal(buf_u8(&hello, 0), OK);
    assert_int_equal(buf_u8(&want, 0), OK);
    assert_int_equal(node_hello_decode(buf_span(&hello), &got_h), ERR_PROTOCOL);
    assert_int_equal(node_want_decode(buf_span(&want), &got_w), ERR_PROTOCOL);
    assert_memory_equal(&got_h, &before_h, sizeof got_h);
    assert_memory_equal(&got_w, &before_w, sizeof got_w);
    buf_free(&hello);
    buf_free(&want);
}

static void assert_byte_refused(struct buf *b, size_t at, uint8_t value) {
    static struct node_want w;
    uint8_t old = b->at[at];
    b->at[at] = value;
    assert_int_equal(node_want_decode(buf_span(b), &w), ERR_PROTOCOL);
    b->at[at] = old;
    assert_int_equal(node_want_decode(buf_span(b), &w), OK);
}

static void roles_flags_and_counts_are_bounded(void **state) {
    (void)state;
    static struct node_want w;
    struct buf b = buf_new(FRAME_MAX);
    want_make(&w, 5);
    w.n = 0;
    assert_int_equal(node_want_encode(&w, &b), OK);
    assert_byte_refused(&b, 8, 0);
    assert_byte_refused(&b, 8, 3);
    assert_byte_refused(&b, 9, 0);
    assert_byte_refused(&b, 9, 3);
    assert_byte_refused(&b, 14 + NODE_DIGEST_SIZE, 2);
    assert_byte_refused(&b, b.size - 4, MEMBERS_MAX + 1);
    assert_byte_refused(&b, b.size - 1, 255);
    buf_free(&b);
}

static void the_encoder_refuses_what_the_decoder_would(void **state) {
    (void)state;
    static struct node_hello h;
    static struct node_want w;
    struct buf b = buf_new(FRAME_MAX);
    assert_int_equal(buf_add(&b, "before", 6), OK);
    hello_make(&h, 7);
    memset(h.peer_address, 'x', sizeof h.peer_address);
    assert_int_equal(node_hello_encode(&h, &b), ERR_INVALID);
    want_make(&w, 7);
    w.granted = (enum node_role)0;
    assert_int_equal(node_want_encode(&w, &b), ERR_INVALID);
    want_make(&w, 7);
    w.n = MEMBERS_MAX + 1;
    assert_int_equal(node_want_encode(&w, &b), ERR_TOO_LARGE);
    w.n = 0;
    w.root_pem = span_of(pem, PEM_MAX + 1);
    assert_int_equal(node_want_encode(&w, &b), ERR_TOO_LARGE);
    w.root_pem.size--;
    assert_true(span_equal(buf_span(&b), span_str("before")));
    assert_int_equal(node_want_encode(&w, &b), OK);
    buf_free(&b);
}

static void control_characters_are_refused(void **state) {
    (void)state;
    static struct node_hello h, got;
    struct buf b = buf_new(FRAME_MAX);
    for (int c = 1; c < 256; c++) {
        memset(&h, 0, sizeof h);
        (void)snprintf(h.hostname, sizeof h.hostname, "host");
        buf_clear(&b);
        assert_int_equal(node_hello_encode(&h, &b), OK);
        b.at[4 + 4 + 1] = (uint8_t)c; /* behind an empty name: the host name's second byte */
        enum err want = c < ' ' || c == 127 ? ERR_PROTOCOL : OK;
        assert_int_equal(node_hello_decode(buf_span(&b), &got), want);
        h.hostname[1] = (char)c;
        assert_int_equal(node_hello_encode(&h, &b), want == OK ? OK : ERR_INVALID);
    }
    buf_free(&b);
}

/* The largest of both fit into a message of a session. */
static void the_largest_fits_into_a_message(void **state) {
    (void)state;
    static struct node_want w;
    struct buf b = buf_new(SESSION_BODY_MAX);
    want_make(&w, 9);
    w.root_pem = span_of(pem, PEM_MAX);
    w.n = MEMBERS_MAX;
    for (unsigned i = 0; i < w.n; i++) {
        memset(&w.managers[i], 'x', sizeof w.managers[i]);
        w.managers[i].node_id[NODE_ID_SIZE] = '\0';
        w.managers[i].peer_address[ADDRESS_MAX - 1] = '\0';
    }
    assert_int_equal(node_want_encode(&w, &b), OK);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_is_said_comes_back_as_it_was),
        cmocka_unit_test(what_is_cut_or_too_long_is_refused_and_changes_nothing),
        cmocka_unit_test(roles_flags_and_counts_are_bounded),
        cmocka_unit_test(the_encoder_refuses_what_the_decoder_would),
        cmocka_unit_test(control_characters_are_refused),
        cmocka_unit_test(the_largest_fits_into_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
