/* The proof of an audit trail: a trail that is whole passes; one record altered, taken out, put in,
 * turned around or cut off does not, nor one that was written anew from some record on when a head
 * of before was kept; heads are believed from managers of the cluster alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "api/secret/audit.h"
#include "tests/lib/pki.h"

#define RECORDS 40

struct trail {
    unsigned n;
    struct audit_link links[RECORDS];
    struct buf records[RECORDS];
};

static char cluster_id[CLUSTER_ID_SIZE + 1], node_id[NODE_ID_SIZE + 1];
static struct pki pki, other;
static struct pki_node node, worker, stranger;

static int set_up(void **state) {
    (void)state;
    assert_int_equal(crypto_start(NULL), OK);
    random_id(cluster_id);
    random_id(node_id);
    pki_new(&pki, cluster_id);
    pki_new(&other, cluster_id);
    pki_node_new(&pki, node_id, ROLE_MANAGER, cluster_id, 60, &node);
    pki_node_new(&pki, node_id, ROLE_WORKER, cluster_id, 60, &worker);
    pki_node_new(&other, node_id, ROLE_MANAGER, cluster_id, 60, &stranger);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    pki_node_free(&node);
    pki_node_free(&worker);
    pki_node_free(&stranger);
    pki_free(&pki);
    pki_free(&other);
    return 0;
}

static void link_again(struct trail *t, unsigned from) {
    for (unsigned i = from; i < t->n; i++) {
        struct audit_link *l = &t->links[i];
        if (i > 0) memcpy(l->prev, t->links[i - 1].chain, sizeof l->prev);
        audit_chain(l->prev, l->number, l->time_ns, l->record, l->chain);
    }
}

static void add(struct trail *t, const struct audit_record *a) {
    struct audit_link *l = &t->links[t->n];
    t->records[t->n] = buf_new(AUDIT_RECORD_MAX);
    assert_int_equal(audit_encode(a, &t->records[t->n]), OK);
    *l = (struct audit_link){.number = t->n + 1, .time_ns = 1000 + t->n};
    l->record = buf_span(&t->records[t->n]);
    assert_int_equal(audit_decode(l->record, &l->is), OK);
    t->n++;
    link_again(t, t->n - 1);
}

static void add_plain(struct trail *t) {
    char name[32];
    (void)snprintf(name, sizeof name, "secret-%u", t->n);
    const struct audit_record a = {.what = AUDIT_CREATE,
                                   .kind = ROW_SECRET,
                                   .name = span_str(name),
                                   .who = span_str("operator"),
                                   .from = span_str("socket")};
    add(t, &a);
}

/* The head of a record, signed. */
static struct audit_head head_of(const struct trail *t, uint64_t number, const struct pki_node *by,
                                 struct buf *memory) {
    struct audit_head h = {.number = number, .signer_pem = buf_span(&by->cert)};
    memcpy(h.cluster_id, cluster_id, sizeof h.cluster_id);
    memcpy(h.node_id, node_id, sizeof h.node_id);
    if (number > 0) memcpy(h.chain, t->links[number - 1].chain, sizeof h.chain);
    *memory = buf_new(AUDIT_SIGNATURE_MAX);
    assert_int_equal(audit_head_prove(&h, by->key, memory, NULL), OK);
    return h;
}

static void add_head(struct trail *t, uint64_t number, const struct pki_node *by) {
    struct buf memory, detail = buf_new(AUDIT_RECORD_MAX);
    struct audit_head h = head_of(t, number, by, &memory);
    assert_int_equal(audit_head_encode(&h, &detail), OK);
    const struct audit_record a = {
        .what = AUDIT_HEAD, .who = span_str("leader"), .detail = buf_span(&detail)};
    add(t, &a);
    buf_free(&memory);
    buf_free(&detail);
}

static struct trail *trail_new(unsigned n) {
    struct trail *t = calloc(1, sizeof *t);
    assert_non_null(t);
    for (unsigned i = 0; i < n; i++)
        add_plain(t);
    return t;
}

static void trail_free(struct trail *t) {
    for (unsigned i = 0; i < t->n; i++)
        buf_free(&t->records[i]);
    free(t);
}

/* Walks it from a record on; what came of it. */
static enum err walk(const struct trail *t, unsigned from, const struct audit_head *kept,
                     struct audit_walk *w, struct why *why) {
    assert_int_equal(audit_walk_start(w, buf_span(&pki.root), kept), OK);
    enum err e = OK;
    for (unsigned i = from; e == OK && i < t->n; i++)
        e = audit_walk_link(w, &t->links[i], why);
    if (e == OK) e = audit_walk_finish(w, why);
    audit_walk_end(w);
    return e;
}

static void refused(const struct trail *t, const struct audit_head *kept, const char *word) {
    struct audit_walk w;
    struct why why = {0};
    assert_int_equal(walk(t, 0, kept, &w, &why), ERR_CORRUPT);
    if (!strstr(why.text, word)) fail_msg("'%s' says nothing of '%s'", why.text, word);
}

static void a_whole_trail_passes_from_any_record_on(void **state) {
    (void)state;
    struct trail *t = trail_new(12);
    struct audit_walk w;
    for (unsigned from = 0; from < t->n; from++) {
        assert_int_equal(walk(t, from, NULL, &w, NULL), OK);
        assert_int_equal(w.first, from + 1);
        assert_int_equal(w.last, t->n);
    }
    trail_free(t);
}

static void any_altered_byte_is_found(void **state) {
    (void)state;
    struct trail *t = trail_new(5);
    struct audit_walk w;
    uint8_t *at = t->records[2].at;
    for (size_t i = 0; i < t->records[2].size; i++) {
        at[i] ^= 1;
        assert_int_equal(walk(t, 0, NULL, &w, NULL), ERR_CORRUPT);
        at[i] ^= 1;
    }
    t->links[2].time_ns++;
    refused(t, NULL, "record 3: it was altered");
    t->links[2].time_ns--;
    t->links[2].chain[7] ^= 1;
    refused(t, NULL, "record 3");
    t->links[2].chain[7] ^= 1;
    t->links[2].prev[7] ^= 1;
    refused(t, NULL, "record 3: it does not follow");
    t->links[2].prev[7] ^= 1;
    assert_int_equal(walk(t, 0, NULL, &w, NULL), OK);
    trail_free(t);
}

static void a_missing_a_doubled_and_a_moved_record_is_found(void **state) {
    (void)state;
    struct trail *t = trail_new(6);
    struct audit_link kept = t->links[3];
    t->links[3] = t->links[2];
    refused(t, NULL, "record 3: it comes twice");
    t->links[3] = t->links[4];
    refused(t, NULL, "record 4: it is missing");
    t->links[4] = kept;
    refused(t, NULL, "record 4: it is missing");
    trail_free(t);
}

/* The whole rest is linked anew, as whoever holds the state could do. */
static void a_trail_that_was_written_anew_does_not_pass_a_kept_head(void **state) {
    (void)state;
    struct trail *t = trail_new(10);
    struct buf memory;
    struct audit_walk w;
    struct audit_head kept = head_of(t, 7, &node, &memory);
    assert_int_equal(audit_head_check(&kept, buf_span(&pki.root), NULL), OK);
    assert_int_equal(walk(t, 0, &kept, &w, NULL), OK);
    assert_true(w.passed);
    assert_int_equal(walk(t, 7, &kept, &w, NULL), OK); /* it stands right before the first */
    t->links[9].time_ns++;
    link_again(t, 9);
    assert_int_equal(walk(t, 0, &kept, &w, NULL), OK); /* only what is behind it */
    t->links[4].time_ns++;
    link_again(t, 4);
    assert_int_equal(walk(t, 0, NULL, &w, NULL), OK); /* it has no fault in itself */
    refused(t, &kept, "rewritten");
    buf_free(&memory);
    trail_free(t);
}

static void a_trail_that_was_cut_does_not_pass_a_kept_head(void **state) {
    (void)state;
    struct trail *t = trail_new(10);
    struct buf memory;
    struct audit_walk w;
    struct why why = {0};
    struct audit_head kept = head_of(t, 9, &node, &memory);
    assert_int_equal(walk(t, 9, &kept, &w, &why), OK);
    buf_free(&t->records[--t->n]);
    assert_int_equal(walk(t, 0, &kept, &w, &why), OK);
    buf_free(&t->records[--t->n]);
    refused(t, &kept, "cut");
    kept.number = 3;
    assert_int_equal(walk(t, 5, &kept, &w, &why), ERR_NOT_FOUND);
    buf_free(&memory);
    trail_free(t);
}

static void heads_in_the_trail_are_counted_when_managers_signed_them(void **state) {
    (void)state;
    struct trail *t = trail_new(4);
    struct audit_walk w;
    add_head(t, 4, &node);
    add_plain(t);
    add_head(t, 5, &stranger); /* of other roots */
    add_head(t, 2, &node);
    assert_int_equal(walk(t, 0, NULL, &w, NULL), OK);
    assert_int_equal(w.heads, 2);
    assert_int_equal(w.strangers, 1);
    assert_int_equal(walk(t, 4, NULL, &w, NULL), OK); /* what a head is of may be gone */
    assert_int_equal(w.heads, 2);
    trail_free(t);
}

static void a_head_in_the_trail_that_tells_of_another_trail_is_found(void **state) {
    (void)state;
    struct trail *t = trail_new(6);
    add_head(t, 5, &node);
    add_plain(t);
    t->links[3].time_ns++;
    link_again(t, 3);
    refused(t, NULL, "record 7: the head in it is of another trail");
    trail_free(t);
    t = trail_new(3);
    add_head(t, 3, &node);
    t->links[3].record = span_of(t->links[3].record.at, t->links[3].record.size);
    uint8_t *detail = (uint8_t *)(uintptr_t)t->links[3].is.detail.at;
    detail[8 + AUDIT_CHAIN + 4 + 20] ^= 1; /* of the signature */
    link_again(t, 3);
    refused(t, NULL, "signature");
    trail_free(t);
}

static void heads_are_believed_from_managers_of_the_cluster_alone(void **state) {
    (void)state;
    struct trail *t = trail_new(3);
    struct buf memory;
    struct why why = {0};
    struct audit_head h = head_of(t, 3, &node, &memory);
    struct audit_head changed = h;
    assert_int_equal(audit_head_check(&h, buf_span(&pki.root), &why), OK);
    assert_int_equal(audit_head_check(&h, buf_span(&other.root), &why), ERR_CERTIFICATE);
    changed.number = 2;
    assert_int_equal(audit_head_check(&changed, buf_span(&pki.root), &why), ERR_CERTIFICATE);
    changed = h;
    changed.chain[0] ^= 1;
    assert_int_equal(audit_head_check(&changed, buf_span(&pki.root), &why), ERR_CERTIFICATE);
    changed = h;
    changed.cluster_id[0] ^= 1;
    assert_int_equal(audit_head_check(&changed, buf_span(&pki.root), &why), ERR_CERTIFICATE);
    changed = h;
    changed.node_id[0] ^= 1;
    assert_int_equal(audit_head_check(&changed, buf_span(&pki.root), &why), ERR_CERTIFICATE);
    buf_free(&memory);
    h = head_of(t, 3, &worker, &memory);
    assert_int_equal(audit_head_check(&h, buf_span(&pki.root), &why), ERR_CERTIFICATE);
    assert_non_null(strstr(why.text, "no manager"));
    buf_free(&memory);
    trail_free(t);
}

static void heads_and_records_are_read_back_from_json(void **state) {
    (void)state;
    struct trail *t = trail_new(2);
    struct buf memory, out = buf_new(64 * KIB), read = buf_new(32 * KIB);
    struct audit_head h = head_of(t, 2, &node, &memory), again;
    struct audit_link link;
    struct jout j;
    json_t *json;
    jout_start(&j, &out);
    audit_head_put(&j, &h);
    assert_int_equal(jout_end(&j), OK);
    assert_int_equal(jin_parse(buf_span(&out), &json, NULL), OK);
    assert_int_equal(audit_head_read(json, &again, &read, NULL), OK);
    assert_int_equal(audit_head_check(&again, buf_span(&pki.root), NULL), OK);
    assert_int_equal(again.number, 2);
    assert_int_equal(json_object_set_new(json, "chain", json_string("00")), 0);
    assert_int_equal(audit_head_read(json, &again, &read, NULL), ERR_INVALID);
    json_decref(json);
    buf_clear(&out);
    jout_start(&j, &out);
    audit_link_put(&j, &t->links[1]);
    jout_close(&j, '}');
    assert_int_equal(jout_end(&j), OK);
    assert_int_equal(jin_parse(buf_span(&out), &json, NULL), OK);
    assert_int_equal(audit_link_read(json, &link, &read, NULL), OK);
    assert_true(span_equal(link.record, t->links[1].record));
    assert_memory_equal(link.chain, t->links[1].chain, AUDIT_CHAIN);
    assert_int_equal(link.time_ns, t->links[1].time_ns);
    json_decref(json);
    buf_free(&out);
    buf_free(&read);
    buf_free(&memory);
    trail_free(t);
}

static void a_head_is_due_after_a_thousand_records_or_an_hour(void **state) {
    (void)state;
    assert_false(audit_head_due(0, 0, 0, INT64_MAX));
    assert_false(audit_head_due(7, 7, 0, INT64_MAX)); /* nothing has come since */
    assert_false(audit_head_due(999, 0, 5, 6));
    assert_true(audit_head_due(1000, 0, 5, 6));
    assert_false(audit_head_due(1999, 1000, 5, 6));
    assert_true(audit_head_due(2000, 1000, 5, 6));
    assert_false(audit_head_due(8, 7, 5, AUDIT_HEAD_NS + 4));
    assert_true(audit_head_due(8, 7, 5, AUDIT_HEAD_NS + 5));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_trail_passes_from_any_record_on),
        cmocka_unit_test(any_altered_byte_is_found),
        cmocka_unit_test(a_missing_a_doubled_and_a_moved_record_is_found),
        cmocka_unit_test(a_trail_that_was_written_anew_does_not_pass_a_kept_head),
        cmocka_unit_test(a_trail_that_was_cut_does_not_pass_a_kept_head),
        cmocka_unit_test(heads_in_the_trail_are_counted_when_managers_signed_them),
        cmocka_unit_test(a_head_in_the_trail_that_tells_of_another_trail_is_found),
        cmocka_unit_test(heads_are_believed_from_managers_of_the_cluster_alone),
        cmocka_unit_test(heads_and_records_are_read_back_from_json),
        cmocka_unit_test(a_head_is_due_after_a_thousand_records_or_an_hour),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
