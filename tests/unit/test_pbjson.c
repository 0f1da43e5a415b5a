/* JSON and the wire form of protobuf: every spelling that etcd's gateway takes means the same
 * bytes, answers are written as etcd writes them, and what one side writes the other reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "api/etcd/kv.pb-c.h"
#include "api/etcd/rpc.pb-c.h"
#include "api/rpc/pbjson.h"
#include "tests/lib/etcd_methods.h"
#include "tests/lib/fault.h"

#define D(name) (&etcdserverpb__##name##__descriptor)

/* JSON -> wire -> message; NULL: refused. */
static ProtobufCMessage *read_message(const ProtobufCMessageDescriptor *type, const char *text) {
    json_t *object;
    struct why why = {0};
    struct buf wire = buf_new(1 * MIB);
    assert_int_equal(jin_parse(span_str(text), &object, &why), OK);
    enum err e = pbjson_read(type, object, &wire, &why);
    json_decref(object);
    ProtobufCMessage *m =
        e == OK ? protobuf_c_message_unpack(type, NULL, wire.size, wire.at) : NULL;
    assert_true(e != OK || m);
    assert_true(e == OK || e == ERR_INVALID);
    assert_true(e == OK || why.text[0]);
    buf_free(&wire);
    return m;
}

static void write_bytes(const ProtobufCMessageDescriptor *type, struct span wire, struct buf *out) {
    struct jout j;
    buf_clear(out);
    jout_start(&j, out);
    assert_int_equal(pbjson_write(type, wire, &j), OK);
    assert_int_equal(jout_end(&j), OK);
    assert_int_equal(buf_u8(out, 0), OK);
}

static void assert_json(const ProtobufCMessage *m, const char *want) {
    struct buf wire = buf_new(1 * MIB), out = buf_new(1 * MIB);
    assert_int_equal(buf_reserve(&wire, protobuf_c_message_get_packed_size(m) + 1), OK);
    wire.size = protobuf_c_message_pack(m, wire.at);
    write_bytes(m->descriptor, buf_span(&wire), &out);
    assert_string_equal((char *)out.at, want);
    buf_free(&wire);
    buf_free(&out);
}

/* What is read from `text` is written as `want`. */
static void assert_same(const ProtobufCMessageDescriptor *type, const char *text,
                        const char *want) {
    ProtobufCMessage *m = read_message(type, text);
    assert_non_null(m);
    assert_json(m, want);
    protobuf_c_message_free_unpacked(m, NULL);
}

static void assert_refused(const ProtobufCMessageDescriptor *type, const char *text) {
    assert_null(read_message(type, text));
}

static void every_spelling_of_a_field_means_the_same(void **state) {
    (void)state;
    static const char *const same[] = {
        "{\"key\":\"Zm9v\",\"range_end\":\"+/8=\",\"limit\":\"7\",\"sort_order\":\"DESCEND\"}",
        "{\"key\":\"Zm9v\",\"rangeEnd\":\"-_\\r\\n8=\\n\",\"limit\":7,\"sortOrder\":2}",
        "{\"key\":\"Zm9v\",\"rangeEnd\":\"-_8\",\"limit\":7.0,\"sortOrder\":\"2\"}",
        "{\"key\":\"Zm9v\",\"range_end\":\"+/8\",\"limit\":7e0,\"sort_order\":\"DESCEND\"}",
        "{\"key\":\"Zm9v\",\"range_end\":\"+/8\",\"limit\":7,\"sort_order\":2,\"not_known\":[{}]}",
        "{\"key\":\"Zm9v\",\"range_end\":\"+/8\",\"limit\":7,\"sort_order\":2,\"revision\":null}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(same); i++)
        assert_same(D(range_request), same[i],
                    "{\"key\":\"Zm9v\",\"range_end\":\"+/8=\",\"limit\":\"7\","
                    "\"sort_order\":\"DESCEND\"}");
    assert_same(D(lease_grant_request), "{\"TTL\":\"60\",\"ID\":7}",
                "{\"TTL\":\"60\",\"ID\":\"7\"}");
    assert_same(D(member_add_request), "{\"peerURLs\":[\"http://a\",\"\"],\"isLearner\":true}",
                "{\"peerURLs\":[\"http://a\",\"\"],\"isLearner\":true}");
    assert_same(D(put_request), "{\"mustNotExist\":true,\"mod_revision\":\"18446744073709551615\"}",
                "{\"must_not_exist\":true,\"mod_revision\":\"18446744073709551615\"}");
}

static void what_is_no_such_value_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"{\"key\":5}",
                                        "{\"key\":\"!!\"}",
                                        "{\"key\":\"Z\"}",
                                        "{\"key\":{}}",
                                        "{\"limit\":\"abc\"}",
                                        "{\"limit\":\"\"}",
                                        "{\"limit\":\"1 \"}",
                                        "{\"limit\":1.5}",
                                        "{\"limit\":1e300}",
                                        "{\"limit\":true}",
                                        "{\"limit\":[]}",
                                        "{\"limit\":\"9223372036854775808\"}",
                                        "{\"limit\":\"--1\"}",
                                        "{\"sort_order\":\"UP\"}",
                                        "{\"sort_order\":99999999999}",
                                        "{\"serializable\":1}",
                                        "{\"serializable\":\"true\"}"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_refused(D(range_request), wrong[i]);
    assert_refused(D(txn_request), "{\"compare\":{}}");
    assert_refused(D(txn_request), "{\"compare\":[5]}");
    assert_refused(D(txn_request), "{\"compare\":[null]}");
    assert_refused(D(txn_request), "{\"success\":[{\"request_put\":\"x\"}]}");
    assert_refused(D(txn_request), "{\"success\":[{\"request_txn\":\"Zm9v\"}]}");
    assert_refused(D(member_add_request), "{\"peerURLs\":[5]}");
    assert_refused(D(member_remove_request), "{\"ID\":-1}");
    assert_refused(D(member_remove_request), "{\"ID\":\"-1\"}");
    assert_refused(D(member_remove_request), "{\"ID\":\"18446744073709551616\"}");
}

static void integers_keep_their_ends(void **state) {
    (void)state;
    assert_same(D(range_request), "{\"limit\":\"-9223372036854775808\"}",
                "{\"limit\":\"-9223372036854775808\"}");
    assert_same(D(range_request), "{\"limit\":9223372036854775807}",
                "{\"limit\":\"9223372036854775807\"}");
    assert_same(D(hash_kvresponse), "{\"hash\":4294967295}", "{\"hash\":4294967295}");
    assert_refused(D(hash_kvresponse), "{\"hash\":4294967296}");
    assert_same(D(range_request), "{\"sort_order\":-5}", "{\"sort_order\":-5}");
}

static void a_member_of_a_oneof_is_written_even_when_zero(void **state) {
    (void)state;
    assert_same(D(compare), "{\"key\":\"eA==\",\"version\":\"0\"}",
                "{\"key\":\"eA==\",\"version\":\"0\"}");
    assert_same(D(watch_request), "{\"cancel_request\":{}}", "{\"cancel_request\":{}}");
    assert_same(D(watch_request), "{\"create_request\":{\"key\":\"\",\"filters\":[\"NOPUT\",1]}}",
                "{\"create_request\":{\"filters\":[\"NOPUT\",\"NODELETE\"]}}");
}

static void a_range_is_written_as_etcd_writes_it(void **state) {
    (void)state;
    Etcdserverpb__RangeResponse answer = ETCDSERVERPB__RANGE_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Mvccpb__KeyValue kv = MVCCPB__KEY_VALUE__INIT, *kvs[] = {&kv};
    header.cluster_id = 6930805681439470907ULL;
    header.member_id = 9265619892315062708ULL;
    header.revision = 2;
    header.raft_term = 2;
    kv.key = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)(uintptr_t) "foo"};
    kv.value = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)(uintptr_t) "bar"};
    kv.create_revision = kv.mod_revision = 2;
    kv.version = 1;
    answer.header = &header;
    answer.n_kvs = 1;
    answer.kvs = kvs;
    answer.count = 1;
    assert_json(&answer.base,
                "{\"header\":{\"cluster_id\":\"6930805681439470907\","
                "\"member_id\":\"9265619892315062708\",\"revision\":\"2\",\"raft_term\":\"2\"},"
                "\"kvs\":[{\"key\":\"Zm9v\",\"create_revision\":\"2\",\"mod_revision\":\"2\","
                "\"version\":\"1\",\"value\":\"YmFy\"}],\"count\":\"1\"}");
}

static void a_transaction_in_a_transaction_is_an_object(void **state) {
    (void)state;
    static const char text[] =
        "{\"compare\":[{\"target\":\"MOD\",\"key\":\"Zm9v\",\"mod_revision\":\"0\"}],"
        "\"success\":[{\"request_txn\":{\"failure\":[{\"request_txn\":{}},"
        "{\"request_put\":{\"key\":\"eA==\",\"value\":\"eQ==\"}}]}}]}";
    assert_same(D(txn_request), text, text);
    static const char answer[] =
        "{\"responses\":[{\"response_txn\":{\"succeeded\":true,\"responses\":[{\"response_range\":{"
        "\"kvs\":[{\"key\":\"eA==\"},{\"key\":\"eQ==\"}],\"count\":\"2\"}}]}}]}";
    assert_same(D(txn_response), answer, answer);
}

/* {"success":[{"request_txn": ... {} ... }]} */
static char *nested(unsigned depth) {
    static const char open[] = "{\"success\":[{\"request_txn\":", close[] = "}]}";
    char *text = malloc(depth * sizeof open + depth * sizeof close + 3), *at = text;
    assert_non_null(text);
    for (unsigned i = 0; i < depth; i++, at += sizeof open - 1)
        memcpy(at, open, sizeof open - 1);
    memcpy(at, "{}", 2);
    at += 2;
    for (unsigned i = 0; i < depth; i++, at += sizeof close - 1)
        memcpy(at, close, sizeof close - 1);
    *at = 0;
    return text;
}

static void depth_is_bounded_both_ways(void **state) {
    (void)state;
    char *deep = nested(GATEWAY_DEPTH_MAX / 2 - 1), *deeper = nested(GATEWAY_DEPTH_MAX / 2 + 1);
    assert_same(D(txn_request), deep, deep);
    assert_refused(D(txn_request), deeper);
    free(deep);
    free(deeper);
    struct buf wire = buf_new(64 * KIB), out = buf_new(64 * KIB);
    for (unsigned i = 0; i < 40; i++) { /* from the inside out: TxnRequest{success: op{txn}} */
        struct buf outer = buf_new(64 * KIB), op = buf_new(64 * KIB);
        assert_int_equal(buf_u8(&op, 4 << 3 | 2), OK);
        assert_int_equal(buf_u8(&op, (uint8_t)(wire.size | 0x80)), OK);
        assert_int_equal(buf_u8(&op, (uint8_t)(wire.size >> 7)), OK);
        assert_int_equal(buf_add_span(&op, buf_span(&wire)), OK);
        assert_int_equal(buf_u8(&outer, 2 << 3 | 2), OK);
        assert_int_equal(buf_u8(&outer, (uint8_t)(op.size | 0x80)), OK);
        assert_int_equal(buf_u8(&outer, (uint8_t)(op.size >> 7)), OK);
        assert_int_equal(buf_add_span(&outer, buf_span(&op)), OK);
        buf_free(&op);
        buf_free(&wire);
        wire = outer;
    }
    struct jout j;
    jout_start(&j, &out);
    assert_int_equal(pbjson_write(D(txn_request), buf_span(&wire), &j), ERR_PROTOCOL);
    buf_free(&wire);
    buf_free(&out);
}

static void bytes_that_are_no_message_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } wrong[] = {
        {"\x0a", 1},                                              /* a block without its length */
        {"\x0a\x05xx", 4},                                        /* shorter than it says */
        {"\x18", 1},                                              /* a number without bytes */
        {"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* a number without end */
        {"\x08\x01", 2},                                          /* bytes as a number */
        {"\x1a\x01x", 3},                                         /* a number as bytes */
        {"\x0b", 1},                                              /* a group */
    };
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct buf out = buf_new(1 * KIB);
        struct jout j;
        jout_start(&j, &out);
        assert_int_equal(pbjson_write(D(range_request), span_of(wrong[i].bytes, wrong[i].size), &j),
                         ERR_PROTOCOL);
        buf_free(&out);
    }
}

static void fields_that_are_not_known_are_passed_over(void **state) {
    (void)state;
    struct buf out = buf_new(1 * KIB);
    write_bytes(D(range_request), span_of("\xf8\x06\x05\xfd\x06....\xf9\x06........\x0a\x01x", 22),
                &out);
    assert_string_equal((char *)out.at, "{\"key\":\"eA==\"}");
    buf_free(&out);
}

/* --- every message ---------------------------------------------------------------------------- */

static RESULT value_of(const ProtobufCFieldDescriptor *field, struct jout *j) {
    const ProtobufCEnumDescriptor *names = field->descriptor;
    switch ((unsigned)field->type) {
    case PROTOBUF_C_TYPE_STRING: jout_text(j, span_str("t\xc3\xa9xt")); return OK;
    case PROTOBUF_C_TYPE_BYTES: jout_base64(j, span_of("\x00\xff\x80", 3)); return OK;
    case PROTOBUF_C_TYPE_BOOL: jout_bool(j, true); return OK;
    case PROTOBUF_C_TYPE_ENUM:
        jout_text(j, span_str(names->values[names->n_values - 1].name));
        return OK;
    case PROTOBUF_C_TYPE_UINT32: jout_number(j, 77); return OK;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64: jout_quoted(j, 1234567890123ULL); return OK;
    default: return ERR_UNSUPPORTED; /* pbjson does not know it either */
    }
}

struct level {
    const ProtobufCMessageDescriptor *type;
    unsigned field;
};

/* An object with every field of the message set, messages within it too; of a oneof the first. */
static void full_object(const ProtobufCMessageDescriptor *type, struct buf *out) {
    struct level levels[16] = {{type, 0}};
    unsigned depth = 1;
    struct jout j;
    buf_clear(out);
    jout_start(&j, out);
    jout_open(&j, '{');
    while (depth > 0) {
        struct level *l = &levels[depth - 1];
        if (l->field == l->type->n_fields) {
            jout_close(&j, '}');
            depth--;
            if (depth > 0 && levels[depth - 1].type->fields[levels[depth - 1].field - 1].label ==
                                 PROTOBUF_C_LABEL_REPEATED)
                jout_close(&j, ']');
            continue;
        }
        unsigned i = l->field++;
        const ProtobufCFieldDescriptor *field = &l->type->fields[i];
        bool oneof = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
        if (oneof && i > 0 && l->type->fields[i - 1].quantifier_offset == field->quantifier_offset)
            continue;
        bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
        const ProtobufCMessageDescriptor *inner = pbjson_inner(l->type, field);
        if (inner && depth == ARRAY_SIZE(levels)) continue;
        jout_key(&j, field->name);
        if (repeated) jout_open(&j, '[');
        if (inner) {
            jout_open(&j, '{');
            levels[depth++] = (struct level){inner, 0};
            continue;
        }
        assert_int_equal(value_of(field, &j), OK);
        if (repeated) assert_int_equal(value_of(field, &j), OK);
        if (repeated) jout_close(&j, ']');
    }
    assert_int_equal(jout_end(&j), OK);
    assert_int_equal(buf_u8(out, 0), OK);
}

static void every_message_goes_there_and_back(void **state) {
    (void)state;
    struct method methods[ETCD_METHODS_MAX];
    struct buf text = buf_new(1 * MIB);
    unsigned n = etcd_methods(methods, NULL, NULL);
    assert_int_equal(n, 52);
    for (unsigned i = 0; i < n; i++) {
        full_object(methods[i].request, &text);
        assert_same(methods[i].request, (char *)text.at, (char *)text.at);
        full_object(methods[i].answer, &text);
        assert_same(methods[i].answer, (char *)text.at, (char *)text.at);
    }
    buf_free(&text);
}

/* --- memory ----------------------------------------------------------------------------------- */

struct sweep {
    json_t *object;
    enum err read, write;
};

static void run(void *ctx) {
    struct sweep *s = ctx;
    struct buf wire = buf_new(64 * KIB), out = buf_new(64 * KIB);
    struct jout j;
    s->write = OK;
    s->read = pbjson_read(D(txn_request), s->object, &wire, NULL);
    jout_start(&j, &out);
    if (s->read == OK) s->write = pbjson_write(D(txn_request), buf_span(&wire), &j);
    buf_free(&wire);
    buf_free(&out);
}

static void check(void *ctx, bool fired) {
    const struct sweep *s = ctx;
    if (fired)
        assert_true(s->read == ERR_NOMEM || s->write == ERR_NOMEM);
    else
        assert_true(s->read == OK && s->write == OK);
}

static void no_memory_is_an_error(void **state) {
    (void)state;
    struct sweep s = {0};
    static const char text[] =
        "{\"compare\":[{\"key\":\"Zm9v\",\"value\":\"YmFy\"}],\"success\":[{"
        "\"request_put\":{\"key\":\"Zm9v\",\"value\":\"YmFyYmFyYmFyYmFyYmFyYmFyYmFy"
        "YmFyYmFyYmFyYmFyYmFyYmFyYmFyYmFyYmFyYmFyYmFy\"}}]}";
    assert_int_equal(jin_parse(span_str(text), &s.object, NULL), OK);
    assert_true(fault_sweep_alloc(run, check, &s) > 2);
    json_decref(s.object);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling_of_a_field_means_the_same),
        cmocka_unit_test(what_is_no_such_value_is_refused),
        cmocka_unit_test(integers_keep_their_ends),
        cmocka_unit_test(a_member_of_a_oneof_is_written_even_when_zero),
        cmocka_unit_test(a_range_is_written_as_etcd_writes_it),
        cmocka_unit_test(a_transaction_in_a_transaction_is_an_object),
        cmocka_unit_test(depth_is_bounded_both_ways),
        cmocka_unit_test(bytes_that_are_no_message_are_refused),
        cmocka_unit_test(fields_that_are_not_known_are_passed_over),
        cmocka_unit_test(every_message_goes_there_and_back),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
