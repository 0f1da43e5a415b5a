/* Frames: whatever is encoded is decoded to the same message, whatever is cut, too long or out of
 * range is refused, and a refused frame changes nothing. Random messages come from a fixed seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "raft/wire.h"

#define ENTRIES_MAX 40

struct sample {
    struct wire_message m;              /* what is encoded */
    struct entry *entries[ENTRIES_MAX]; /* of an append */
    uint8_t bytes[4096];                /* what the spans point into */
    uint64_t rng;                       /* xorshift state */
};

static uint64_t next(struct sample *s) {
    s->rng ^= s->rng << 13;
    s->rng ^= s->rng >> 7;
    s->rng ^= s->rng << 17;
    return s->rng;
}

static uint64_t below(struct sample *s, uint64_t n) { return next(s) % n; }
static bool coin(struct sample *s) { return below(s, 2) == 1; }

static void text(struct sample *s, char *at, size_t room) {
    size_t size = coin(s) ? room - 1 : below(s, room);
    for (size_t i = 0; i < size; i++)
        at[i] = (char)(1 + below(s, 255));
    at[size] = '\0';
}

static struct span block(struct sample *s, size_t max) {
    return span_of(s->bytes, below(s, (max < sizeof s->bytes ? max : sizeof s->bytes) + 1));
}

static struct entry *entry_make(struct sample *s, uint64_t size) {
    struct entry *e = calloc(1, sizeof *e + size);
    assert_non_null(e);
    e->term = next(s);
    e->size = (uint32_t)size;
    e->type = (uint8_t)(ENTRY_COMMAND + below(s, 3));
    for (uint64_t i = 0; i < size; i++)
        e->data[i] = (uint8_t)next(s);
    return e;
}

static void fill_append(struct sample *s) {
    struct wire_append *a = &s->m.append;
    *a = (struct wire_append){.term = next(s), .prev_index = next(s) >> 1, .prev_term = next(s)};
    a->commit = next(s);
    a->n = (uint32_t)below(s, ENTRIES_MAX);
    a->entries = s->entries;
    for (uint32_t i = 0; i < a->n; i++)
        s->entries[i] = entry_make(s, below(s, 200));
}

static void fill_joined(struct sample *s) {
    struct wire_joined *j = &s->m.joined;
    j->error = (uint16_t)below(s, ERR_COUNT);
    text(s, j->text, sizeof j->text);
    text(s, j->leader, sizeof j->leader);
    j->role = (uint8_t)below(s, 3);
    j->raft_id = next(s);
    text(s, j->cluster_id, sizeof j->cluster_id);
    text(s, j->node_id, sizeof j->node_id);
    j->cert = block(s, PEM_MAX);
    j->root = block(s, PEM_MAX);
    j->unlock_key = span_of(s->bytes, coin(s) ? 32 : 0);
    j->vault = block(s, 1024);
    j->n = (uint32_t)below(s, MEMBERS_MAX + 1);
    for (uint32_t i = 0; i < j->n; i++) {
        j->members[i].raft_id = next(s);
        text(s, j->members[i].node_id, sizeof j->members[i].node_id);
        text(s, j->members[i].peer_address, sizeof j->members[i].peer_address);
    }
}

static void fill_raft(struct sample *s) {
    switch ((int)s->m.type) {
    case WIRE_APPEND_RESULT:
        s->m.append_result = (struct raft_append_entries_result){
            .version = 2,
            .term = next(s),
            .rejected = next(s),
            .last_log_index = next(s),
            .features = (unsigned short)next(s),
            .capacity = (unsigned short)next(s),
        };
        break;
    case WIRE_VOTE:
        s->m.vote = (struct raft_request_vote){
            .version = 2,
            .term = next(s),
            .candidate_id = next(s),
            .last_log_index = next(s),
            .last_log_term = next(s),
            .disrupt_leader = coin(s),
            .pre_vote = coin(s),
        };
        break;
    case WIRE_VOTE_RESULT:
        s->m.vote_result = (struct raft_request_vote_result){
            .version = 2,
            .term = next(s),
            .vote_granted = coin(s),
            .pre_vote = coin(s),
            .features = (unsigned short)next(s),
            .capacity = (unsigned short)next(s),
        };
        break;
    case WIRE_TIMEOUT_NOW:
        s->m.timeout_now = (struct raft_timeout_now){
            .term = next(s), .last_log_index = next(s), .last_log_term = next(s)};
        break;
    default: fail();
    }
}

static void fill_snapshot(struct sample *s) {
    switch ((int)s->m.type) {
    case WIRE_SNAPSHOT_OFFER:
        s->m.offer =
            (struct wire_offer){next(s), next(s), next(s), next(s), block(s, 4000), next(s)};
        break;
    case WIRE_SNAPSHOT_WANT:
        s->m.want = (struct wire_want){next(s), next(s), next(s), (uint8_t)(1 + below(s, 2))};
        break;
    case WIRE_SNAPSHOT_CHUNK:
        s->m.chunk.term = next(s);
        s->m.chunk.index = next(s);
        s->m.chunk.chunk = (struct snapshot_chunk){
            .number = next(s),
            .raw_size = (uint32_t)below(s, SNAPSHOT_CHUNK + 1),
            .compressed = coin(s),
            .last = coin(s),
            .data = block(s, SIZE_MAX),
        };
        break;
    default: fail();
    }
}

static void fill_talk(struct sample *s) {
    switch ((int)s->m.type) {
    case WIRE_HELLO:
        s->m.hello.version = (uint16_t)next(s);
        s->m.hello.raft_id = next(s);
        text(s, s->m.hello.cluster_id, sizeof s->m.hello.cluster_id);
        text(s, s->m.hello.node_id, sizeof s->m.hello.node_id);
        text(s, s->m.hello.peer_address, sizeof s->m.hello.peer_address);
        break;
    case WIRE_PING:
        s->m.ping = (struct wire_ping){.term = next(s), .seq = next(s), .hash_index = next(s)};
        memcpy(s->m.ping.hash, s->bytes, sizeof s->m.ping.hash);
        break;
    case WIRE_PONG: s->m.pong = (struct wire_pong){next(s), next(s), next(s), coin(s)}; break;
    case WIRE_FORWARD:
        s->m.forward = (struct wire_forward){next(s), (uint8_t)(1 + below(s, 3)), block(s, 4096)};
        break;
    case WIRE_FORWARDED:
        s->m.forwarded = (struct wire_forwarded){next(s), (uint16_t)below(s, ERR_COUNT), next(s),
                                                 block(s, 4096)};
        break;
    case WIRE_NODE: s->m.node = (struct wire_node){(uint8_t)next(s), block(s, 4096)}; break;
    case WIRE_JOIN:
        s->m.join.kind = (uint8_t)(1 + below(s, 3));
        s->m.join.member = coin(s);
        text(s, s->m.join.token, sizeof s->m.join.token);
        text(s, s->m.join.name, sizeof s->m.join.name);
        text(s, s->m.join.client_address, sizeof s->m.join.client_address);
        text(s, s->m.join.peer_address, sizeof s->m.join.peer_address);
        s->m.join.request = block(s, PEM_MAX);
        s->m.join.old_cert = block(s, PEM_MAX);
        s->m.join.proof = block(s, PROOF_MAX);
        text(s, s->m.join.hostname, sizeof s->m.join.hostname);
        s->m.join.availability = (uint8_t)below(s, 4);
        break;
    default: fail();
    }
}

static void sample_make(struct sample *s, enum wire_type type, uint64_t seed) {
    memset(s, 0, sizeof *s);
    s->rng = seed * 0x9e3779b97f4a7c15ULL + 1;
    for (size_t i = 0; i < sizeof s->bytes; i++)
        s->bytes[i] = (uint8_t)next(s);
    s->m.type = type;
    switch ((int)type) {
    case WIRE_APPEND: fill_append(s); break;
    case WIRE_JOINED: fill_joined(s); break;
    case WIRE_APPEND_RESULT:
    case WIRE_VOTE:
    case WIRE_VOTE_RESULT:
    case WIRE_TIMEOUT_NOW: fill_raft(s); break;
    case WIRE_SNAPSHOT_OFFER:
    case WIRE_SNAPSHOT_WANT:
    case WIRE_SNAPSHOT_CHUNK: fill_snapshot(s); break;
    default: fill_talk(s); break;
    }
}

static void sample_free(struct sample *s) {
    for (size_t i = 0; i < ENTRIES_MAX; i++)
        free(s->entries[i]);
}

static struct buf encode(const struct sample *s) {
    struct buf out = buf_new(FRAME_MAX);
    assert_int_equal(wire_encode(&s->m, &out), OK);
    return out;
}

static void assert_span(struct span got, struct span want) { assert_true(span_equal(got, want)); }

static void assert_same_entries(const struct wire_append *got, const struct sample *s) {
    struct cursor raw = cursor_of(got->raw);
    assert_int_equal(got->n, s->m.append.n);
    for (uint32_t i = 0; i < got->n; i++) {
        struct wire_entry e;
        assert_int_equal(wire_next_entry(&raw, &e), OK);
        assert_int_equal(e.term, s->entries[i]->term);
        assert_int_equal(e.type, s->entries[i]->type);
        assert_span(e.data, span_of(s->entries[i]->data, s->entries[i]->size));
    }
    assert_int_equal(cursor_end(&raw), OK);
}

/* Spans are compared by what they hold and then made the same, so that memory can be compared. */
static void same_span(struct span *got, const struct span *want) {
    assert_span(*got, *want);
    *got = *want;
}

static void assert_same(struct wire_message *got, const struct sample *s) {
    const struct wire_message *want = &s->m;
    assert_int_equal(got->type, want->type);
    if (got->type == WIRE_APPEND) {
        assert_same_entries(&got->append, s);
        got->append.entries = want->append.entries;
        got->append.raw = want->append.raw;
    }
    if (got->type == WIRE_FORWARD) same_span(&got->forward.body, &want->forward.body);
    if (got->type == WIRE_FORWARDED) same_span(&got->forwarded.body, &want->forwarded.body);
    if (got->type == WIRE_SNAPSHOT_OFFER) same_span(&got->offer.conf, &want->offer.conf);
    if (got->type == WIRE_SNAPSHOT_CHUNK)
        same_span(&got->chunk.chunk.data, &want->chunk.chunk.data);
    if (got->type == WIRE_NODE) same_span(&got->node.body, &want->node.body);
    if (got->type == WIRE_JOIN) {
        same_span(&got->join.request, &want->join.request);
        same_span(&got->join.old_cert, &want->join.old_cert);
        same_span(&got->join.proof, &want->join.proof);
    }
    if (got->type == WIRE_JOINED) {
        same_span(&got->joined.cert, &want->joined.cert);
        same_span(&got->joined.root, &want->joined.root);
        same_span(&got->joined.unlock_key, &want->joined.unlock_key);
        same_span(&got->joined.vault, &want->joined.vault);
    }
    struct buf a = buf_new(FRAME_MAX);
    struct buf b = buf_new(FRAME_MAX);
    assert_int_equal(wire_encode(got, &a), OK);
    assert_int_equal(wire_encode(want, &b), OK);
    assert_span(buf_span(&a), buf_span(&b));
    buf_free(&a);
    buf_free(&b);
}

static void every_random_message_comes_back_as_it_was(void **state) {
    (void)state;
    static struct sample s;
    for (int type = WIRE_HELLO; type < WIRE_TYPE_COUNT; type++) {
        for (uint64_t seed = 1; seed <= 200; seed++) {
            sample_make(&s, (enum wire_type)type, seed);
            struct buf frame = encode(&s);
            struct wire_message got = {0};
            assert_int_equal(wire_decode(buf_span(&frame), &got), OK);
            assert_same(&got, &s);
            buf_free(&frame);
            sample_free(&s);
        }
    }
}

static void single_fields_land_where_they_belong(void **state) {
    (void)state;
    static struct sample s;
    struct wire_message got;
    sample_make(&s, WIRE_VOTE, 7);
    struct buf frame = encode(&s);
    assert_int_equal(wire_decode(buf_span(&frame), &got), OK);
    assert_int_equal(got.vote.version, 2);
    assert_int_equal(got.vote.term, s.m.vote.term);
    assert_int_equal(got.vote.candidate_id, s.m.vote.candidate_id);
    assert_int_equal(got.vote.last_log_index, s.m.vote.last_log_index);
    assert_int_equal(got.vote.last_log_term, s.m.vote.last_log_term);
    assert_int_equal(got.vote.disrupt_leader, s.m.vote.disrupt_leader);
    assert_int_equal(got.vote.pre_vote, s.m.vote.pre_vote);
    buf_free(&frame);
    sample_make(&s, WIRE_APPEND_RESULT, 8);
    frame = encode(&s);
    assert_int_equal(wire_decode(buf_span(&frame), &got), OK);
    assert_int_equal(got.append_result.version, 2);
    assert_int_equal(got.append_result.rejected, s.m.append_result.rejected);
    assert_int_equal(got.append_result.features, s.m.append_result.features);
    assert_int_equal(got.append_result.capacity, s.m.append_result.capacity);
    buf_free(&frame);
}

static void a_frame_cut_at_any_byte_is_refused_and_changes_nothing(void **state) {
    (void)state;
    static struct sample s;
    for (int type = WIRE_HELLO; type < WIRE_TYPE_COUNT; type++) {
        sample_make(&s, (enum wire_type)type, 3);
        struct buf frame = encode(&s);
        struct wire_message got;
        memset(&got, 0x5a, sizeof got);
        const struct wire_message before = got;
        for (size_t size = 0; size < frame.size; size++) {
            uint8_t *cut =
                malloc(size == 0 ? 1 : size); /* exact, so that the sanitizer sees an overrun */
            assert_non_null(cut);
            memcpy(cut, frame.at, size);
            assert_int_equal(wire_decode(span_of(cut, size), &got), ERR_PROTOCOL);
            if (size >= WIRE_HEADER) {
                put_u32(cut, (uint32_t)(size - 4));
                assert_int_equal(wire_decode(span_of(cut, size), &got), ERR_PROTOCOL);
            }
            free(cut);
            assert_memory_equal(&got, &before, sizeof got);
        }
        buf_free(&frame);
        sample_free(&s);
    }
}

static void a_byte_too_many_is_refused(void **state) {
    (void)state;
    static struct sample s;
    for (int type = WIRE_HELLO; type < WIRE_TYPE_COUNT; type++) {
        sample_make(&s, (enum wire_type)type, 4);
        struct buf frame = encode(&s);
        struct wire_message got;
        assert_int_equal(buf_u8(&frame, 0), OK);
        assert_int_equal(wire_decode(buf_span(&frame), &got), ERR_PROTOCOL);
        put_u32(frame.at, (uint32_t)(frame.size - 4));
        assert_int_equal(wire_decode(buf_span(&frame), &got), ERR_PROTOCOL);
        buf_free(&frame);
        sample_free(&s);
    }
}

/* Any one changed byte: refused, or a message whose encoding is these very bytes. */
static void a_changed_byte_never_decodes_to_something_else(void **state) {
    (void)state;
    static struct sample s;
    for (int type = WIRE_HELLO; type < WIRE_TYPE_COUNT; type++) {
        sample_make(&s, (enum wire_type)type, 5);
        struct buf frame = encode(&s);
        size_t end = frame.size < 600 ? frame.size : 600;
        for (size_t i = 0; i < end; i++) {
            struct wire_message got;
            struct buf again = buf_new(FRAME_MAX);
            frame.at[i] ^= 0x81;
            if (wire_decode(buf_span(&frame), &got) == OK) {
                assert_int_equal(wire_encode(&got, &again), OK);
                assert_span(buf_span(&again), buf_span(&frame));
            }
            frame.at[i] ^= 0x81;
            buf_free(&again);
        }
        buf_free(&frame);
        sample_free(&s);
    }
}

static void assert_byte_refused(struct buf *frame, size_t at, uint8_t value) {
    struct wire_message got;
    uint8_t old = frame->at[at];
    frame->at[at] = value;
    assert_int_equal(wire_decode(buf_span(frame), &got), ERR_PROTOCOL);
    frame->at[at] = old;
    assert_int_equal(wire_decode(buf_span(frame), &got), OK);
}

static void unknown_types_booleans_and_enums_are_refused(void **state) {
    (void)state;
    static struct sample s;
    sample_make(&s, WIRE_VOTE, 1);
    struct buf frame = encode(&s);
    assert_byte_refused(&frame, 4, 0);
    assert_byte_refused(&frame, 4, WIRE_TYPE_COUNT);
    assert_byte_refused(&frame, frame.size - 1, 2);
    assert_byte_refused(&frame, frame.size - 2, 255);
    buf_free(&frame);
    sample_make(&s, WIRE_FORWARD, 1);
    frame = encode(&s);
    assert_byte_refused(&frame, WIRE_HEADER + 8, 0);
    assert_byte_refused(&frame, WIRE_HEADER + 8, 4);
    buf_free(&frame);
    sample_make(&s, WIRE_SNAPSHOT_WANT, 1);
    frame = encode(&s);
    assert_byte_refused(&frame, frame.size - 1, 0);
    assert_byte_refused(&frame, frame.size - 1, 3);
    buf_free(&frame);
    sample_make(&s, WIRE_JOIN, 1);
    frame = encode(&s);
    assert_byte_refused(&frame, WIRE_HEADER, 0);
    assert_byte_refused(&frame, WIRE_HEADER, JOIN_EXPIRED + 1);
    assert_byte_refused(&frame, WIRE_HEADER + 1, 2);
    buf_free(&frame);
    sample_make(&s, WIRE_FORWARDED, 1);
    frame = encode(&s);
    assert_byte_refused(&frame, WIRE_HEADER + 8, ERR_COUNT);
    buf_free(&frame);
}

static void entry_types_are_one_to_three_and_counts_are_bounded(void **state) {
    (void)state;
    static struct sample s;
    sample_make(&s, WIRE_APPEND, 2);
    assert_true(s.m.append.n > 0);
    struct buf frame = encode(&s);
    size_t type_at = wire_append_overhead() + 8;
    assert_byte_refused(&frame, type_at, 0);
    assert_byte_refused(&frame, type_at, 4);
    size_t count_at = wire_append_overhead() - 4;
    assert_byte_refused(&frame, count_at + 3, 1);
    assert_byte_refused(&frame, count_at, (uint8_t)(s.m.append.n - 1));
    buf_free(&frame);
    sample_free(&s);
    sample_make(&s, WIRE_JOINED, 2);
    s.m.joined.n = 0;
    frame = encode(&s);
    assert_byte_refused(&frame, frame.size - 4, MEMBERS_MAX + 1);
    buf_free(&frame);
}

static void the_encoder_refuses_what_the_decoder_would(void **state) {
    (void)state;
    static struct sample s;
    struct buf out = buf_new(FRAME_MAX);
    assert_int_equal(buf_add(&out, "before", 6), OK);
    static uint8_t big[COMMAND_MAX + 1];
    sample_make(&s, WIRE_FORWARD, 1);
    s.m.forward.body = span_of(big, sizeof big);
    assert_int_equal(wire_encode(&s.m, &out), ERR_TOO_LARGE);
    s.m.forward.body.size--;
    assert_int_equal(wire_encode(&s.m, &out), OK);
    out.size = 6;
    s.m.forward.kind = 9;
    assert_int_equal(wire_encode(&s.m, &out), ERR_INVALID);
    sample_make(&s, WIRE_HELLO, 1);
    memset(s.m.hello.node_id, 'x', sizeof s.m.hello.node_id);
    assert_int_equal(wire_encode(&s.m, &out), ERR_INVALID);
    sample_make(&s, WIRE_JOINED, 1);
    s.m.joined.n = MEMBERS_MAX + 1;
    assert_int_equal(wire_encode(&s.m, &out), ERR_TOO_LARGE);
    s.m.joined.n = 0;
    s.m.joined.unlock_key = span_of(big, 31);
    assert_int_equal(wire_encode(&s.m, &out), ERR_INVALID);
    s.m.joined.unlock_key = span_of(NULL, 0);
    s.m.joined.vault = span_of(big, 1025);
    assert_int_equal(wire_encode(&s.m, &out), ERR_TOO_LARGE);
    s.m.type = (enum wire_type)WIRE_TYPE_COUNT;
    assert_int_equal(wire_encode(&s.m, &out), ERR_INVALID);
    assert_span(buf_span(&out), span_str("before"));
    buf_free(&out);
}

static void the_overheads_are_what_a_frame_has(void **state) {
    (void)state;
    static struct sample s;
    sample_make(&s, WIRE_APPEND, 1);
    size_t want = wire_append_overhead();
    for (uint32_t i = 0; i < s.m.append.n; i++)
        want += wire_entry_overhead() + s.entries[i]->size;
    struct buf frame = encode(&s);
    assert_int_equal(frame.size, want);
    buf_free(&frame);
    sample_free(&s);
}

static void the_largest_entry_fits_into_a_frame(void **state) {
    (void)state;
    static struct sample s;
    sample_make(&s, WIRE_TIMEOUT_NOW, 1);
    s.m.type = WIRE_APPEND;
    s.m.append = (struct wire_append){.term = 1, .n = 1, .entries = s.entries};
    s.entries[0] = calloc(1, sizeof(struct entry) + ENTRY_MAX + 1);
    assert_non_null(s.entries[0]);
    s.entries[0]->type = ENTRY_COMMAND;
    s.entries[0]->size = ENTRY_MAX;
    struct buf frame = encode(&s);
    struct wire_message got;
    assert_int_equal(wire_decode(buf_span(&frame), &got), OK);
    frame.size = 0;
    s.entries[0]->size = ENTRY_MAX + 1;
    assert_int_equal(wire_encode(&s.m, &frame), ERR_TOO_LARGE);
    buf_free(&frame);
    sample_free(&s);
}

static void the_frame_size_is_known_from_four_bytes_and_bounded(void **state) {
    (void)state;
    uint8_t raw[4];
    size_t size = 99;
    put_u32(raw, FRAME_MAX - 4);
    for (size_t have = 0; have < 4; have++) {
        assert_int_equal(wire_frame_size(span_of(raw, have), &size), OK);
        assert_int_equal(size, 0);
    }
    assert_int_equal(wire_frame_size(span_of(raw, 4), &size), OK);
    assert_int_equal(size, FRAME_MAX);
    put_u32(raw, FRAME_MAX - 3);
    assert_int_equal(wire_frame_size(span_of(raw, 4), &size), ERR_PROTOCOL);
    put_u32(raw, UINT32_MAX);
    assert_int_equal(wire_frame_size(span_of(raw, 4), &size), ERR_PROTOCOL);
    put_u32(raw, 0);
    assert_int_equal(wire_frame_size(span_of(raw, 4), &size), ERR_PROTOCOL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_random_message_comes_back_as_it_was),
        cmocka_unit_test(single_fields_land_where_they_belong),
        cmocka_unit_test(a_frame_cut_at_any_byte_is_refused_and_changes_nothing),
        cmocka_unit_test(a_byte_too_many_is_refused),
        cmocka_unit_test(a_changed_byte_never_decodes_to_something_else),
        cmocka_unit_test(unknown_types_booleans_and_enums_are_refused),
        cmocka_unit_test(entry_types_are_one_to_three_and_counts_are_bounded),
        cmocka_unit_test(the_encoder_refuses_what_the_decoder_would),
        cmocka_unit_test(the_overheads_are_what_a_frame_has),
        cmocka_unit_test(the_largest_entry_fits_into_a_frame),
        cmocka_unit_test(the_frame_size_is_known_from_four_bytes_and_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
