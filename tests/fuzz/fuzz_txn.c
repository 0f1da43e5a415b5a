/* Any bytes as the three parts of a transaction: what txn_check takes is carried out, on a state
 * with keys of one letter, takes one revision at most, and its answer can be read to its end. */
#include <stdlib.h>

#include "crypto/secret.h"
#include "store/command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static void run(struct store *s, const struct command *c, struct result *r, struct buf *out) {
    struct buf bytes = buf_new(COMMAND_MAX);
    struct machine *m = store_machine(s);
    buf_clear(out);
    require(command_encode(c, &bytes) == OK);
    require(m->apply(m, 1, buf_span(&bytes), out, NULL) == OK);
    require(result_decode(buf_span(out), r) == OK);
    m->applied(m, 1);
    buf_free(&bytes);
}

static struct store *some_state(struct buf *out) {
    struct store *s;
    struct result r;
    require(store_new(&s) == OK);
    for (uint8_t key = 'a'; key < 'f'; key++) {
        struct command c = {.op = OP_PUT, .put = {.key = span_of(&key, 1)}};
        run(s, &c, &r, out);
    }
    struct command compact = {.op = OP_COMPACT, .compact_revision = 3};
    run(s, &compact, &r, out);
    return s;
}

/* Every answer, in order; a transaction's own follow it. */
static void read_answer(struct span answer) {
    struct cursor in = cursor_of(answer);
    uint64_t expected = 1;
    while (expected > 0) {
        struct answer a;
        struct kv kv;
        require(answer_next(&in, &a) == OK);
        for (uint64_t i = 0; i < a.n_kvs; i++)
            require(answer_kv(&in, &kv) == OK);
        expected += a.n_answers - 1;
    }
    require(in.left == 0);
}

static void carry_out(struct span txn) {
    struct buf out = buf_new(RESULT_MAX), read = buf_new(RESULT_MAX);
    struct store *s = some_state(&out);
    struct command c = {.op = OP_TXN, .txn = txn};
    struct result r;
    uint64_t before = store_revision(s);
    enum err e = txn_writes(txn) ? ERR_INVALID : txn_read(s, txn, &read);
    run(s, &c, &r, &out);
    require(store_revision(s) - before <= (txn_writes(txn) ? 1 : 0));
    if (r.error == OK) read_answer(r.answer);
    if (!txn_writes(txn)) require(e == r.error && span_equal(r.answer, buf_span(&read)));
    buf_free(&out);
    buf_free(&read);
    store_free(s);
}

/* Two bytes that say where to cut, then compares, success, failure. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (crypto_start(NULL) != OK || size < 2) return 0;
    struct span rest = span_of(data + 2, size - 2);
    size_t one = data[0] % (rest.size + 1), two = data[1] % (rest.size - one + 1);
    struct buf txn = buf_new(COMMAND_MAX);
    require(txn_add(&txn, span_of(rest.at, one), span_of(rest.at + one, two),
                    span_of(rest.at + one + two, rest.size - one - two)) == OK);
    if (txn_check(buf_span(&txn), NULL) == OK) carry_out(buf_span(&txn));
    buf_free(&txn);
    return 0;
}
