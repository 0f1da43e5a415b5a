/* The state machine without log, disk and network: what one command and one read cost on one core,
 * how much memory a key takes, and what a change of a row costs among many. Keys are scattered
 * (worst case of a tree), of a fixed size. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bench/bench.h"
#include "store/command.h"
#include "store/node.h"
#include "store/store.h"

struct world {
    struct store *store;
    uint64_t keys;     /* number */
    size_t key_size;   /* bytes, >= 24 */
    size_t value_size; /* bytes */
    struct buf command, result;
    uint8_t key[KEY_MAX], *value;
};

/* CPU time: there is no waiting in what is measured, and other programs disturb it less. */
static double now_s(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The i-th key of a scattered order: every i < keys gives another one. */
static struct span key_at(struct world *w, uint64_t i) {
    uint64_t number = (i * 0x9e3779b97f4a7c15ULL) >> 11;
    memset(w->key, 'k', w->key_size);
    for (size_t d = 0; d < 16; d++)
        w->key[w->key_size - 1 - d] = (uint8_t) "0123456789abcdef"[number >> (4 * d) & 15];
    return span_of(w->key, w->key_size);
}

static RESULT put(struct world *w, uint64_t i) {
    struct machine *m = store_machine(w->store);
    struct command c = {.op = OP_PUT};
    c.put.key = key_at(w, i);
    c.put.value = span_of(w->value, w->value_size);
    buf_clear(&w->command);
    buf_clear(&w->result);
    TRY(command_encode(&c, &w->command));
    return m->apply(m, 1, buf_span(&w->command), &w->result, NULL);
}

static void report(const char *what, double seconds, uint64_t n) {
    double per_s = (double)n / seconds;
    (void)printf("%-28s %8.0f ns   %10.0f /s\n", what, 1e9 / per_s, per_s);
}

static RESULT measure_puts(struct world *w, const char *what) {
    double start = now_s();
    for (uint64_t i = 0; i < w->keys; i++)
        TRY(put(w, i));
    report(what, now_s() - start, w->keys);
    return OK;
}

static RESULT measure_gets(struct world *w) {
    double start = now_s();
    uint64_t found = 0;
    for (uint64_t i = 0; i < w->keys; i++) {
        struct kv kv;
        found += store_get(w->store, key_at(w, i * 7919 % w->keys), &kv);
    }
    report("get", now_s() - start, w->keys);
    return found == w->keys ? OK : ERR_INTERNAL;
}

static bool count(void *ctx, const struct kv *kv) {
    uint64_t *bytes = ctx;
    *bytes += kv->value.at[0] + kv->value.size;
    return true;
}

static void measure_scan(struct world *w) {
    double start = now_s();
    uint64_t bytes = 0;
    store_range(w->store, span_of(NULL, 0), span_of(NULL, 0), count, &bytes);
    report("scan, a key", now_s() - start, w->keys);
}

static RESULT copy_image(struct machine_view *v, struct machine *from, struct machine_restore *r,
                         struct machine *to, uint64_t *bytes) {
    struct buf piece = buf_new(SNAPSHOT_CHUNK);
    enum err e = OK;
    for (bool done = false; e == OK && !done;) {
        buf_clear(&piece);
        e = from->view_next(v, &piece, &done);
        if (e == OK) e = to->restore_bytes(r, buf_span(&piece));
        *bytes += piece.size;
    }
    buf_free(&piece);
    return e;
}

/* Writes the image of the store and builds another state from it at the same time. */
static RESULT measure_image(struct world *w) {
    struct store *other;
    struct machine_view *v;
    struct machine_restore *r;
    uint8_t hash[STATE_HASH_SIZE];
    uint64_t bytes = 0;
    TRY(store_new(&other));
    struct machine *from = store_machine(w->store), *to = store_machine(other);
    double start = now_s();
    TRY(from->view(from, &v));
    TRY(to->restore(to, &r));
    TRY(copy_image(v, from, r, to, &bytes));
    from->view_hash(v, hash);
    from->view_free(v);
    TRY(to->restore_end(r, hash));
    double seconds = now_s() - start;
    (void)printf("%-28s %8.2f s    %10.0f MiB/s\n", "image out and in", seconds,
                 (double)bytes / (double)MIB / seconds);
    store_free(other);
    return OK;
}

/* All but the newest versions are forgotten, in steps; the longest one is what a write may wait. */
static RESULT measure_compaction(struct world *w) {
    struct machine *m = store_machine(w->store);
    struct command c = {.op = OP_COMPACT, .compact_revision = store_revision(w->store)};
    double start = now_s(), last = start, longest = 0;
    buf_clear(&w->command);
    TRY(command_encode(&c, &w->command));
    TRY(m->apply(m, 1, buf_span(&w->command), NULL, NULL));
    for (bool more = true; more;) {
        more = store_work(w->store);
        double now = now_s();
        if (now - last > longest) longest = now - last;
        last = now;
    }
    (void)printf("%-28s %8.2f s    %10.2f ms, the longest step\n", "compaction", last - start,
                 longest * 1e3);
    return OK;
}

/* Every key is put again while a view holds the old state; then what the view held is freed. */
static RESULT measure_view(struct world *w) {
    struct store_view *v;
    TRY(store_view_new(w->store, &v));
    TRY(measure_puts(w, "put over, under a view"));
    double start = now_s();
    store_view_free(v);
    (void)printf("%-28s %8.2f ms\n", "freeing that view", (now_s() - start) * 1e3);
    return OK;
}

/* --- rows --- */

#define ROWS 10000 /* nodes */

static RESULT do_command(struct world *w, const struct command *c) {
    struct machine *m = store_machine(w->store);
    struct result r;
    buf_clear(&w->command);
    buf_clear(&w->result);
    TRY(command_encode(c, &w->command));
    TRY(m->apply(m, 1, buf_span(&w->command), &w->result, NULL));
    TRY(result_decode(buf_span(&w->result), &r));
    return r.error;
}

static RESULT found(struct world *w) {
    struct command c = {.op = OP_CLUSTER, .cluster = {.id = "bench", .first = {.raft_id = 1}}};
    (void)snprintf(c.cluster.first.id, sizeof c.cluster.first.id, "node");
    (void)snprintf(c.cluster.first.name, sizeof c.cluster.first.name, "node");
    c.cluster.ca.root_pem = span_str("root");
    c.cluster.join_key = span_str("12345678901234567890123456789012");
    return do_command(w, &c);
}

/* The i-th node, whose key is another one with another `key`. */
static RESULT write_node(struct world *w, enum row_action action, uint32_t i, uint32_t key) {
    struct node_row n = {.desired = NODE_WORKER,
                         .granted = NODE_WORKER,
                         .availability = NODE_ACTIVE,
                         .state = NODE_READY,
                         .certificate = NODE_CERT_ISSUED,
                         .hostname = "a-host-of-the-cluster",
                         .address = "10.0.0.1"};
    struct row_change change = {.action = action, .kind = ROW_NODE};
    struct command c = {.op = OP_ROWS, .rows = {.n = 1}};
    struct buf body = buf_new(ROW_BODY_MAX), changes = buf_new(COMMAND_MAX);
    memcpy(n.key_digest, &i, sizeof i);
    memcpy(n.key_digest + sizeof i, &key, sizeof key);
    (void)snprintf(change.id, sizeof change.id, "%025u", i * 2654435761U);
    enum err e = node_row_encode(&n, &body);
    change.body = buf_span(&body);
    if (e == OK) e = row_change_add(&changes, &change);
    c.rows.changes = buf_span(&changes);
    if (e == OK) e = do_command(w, &c);
    buf_free(&body);
    buf_free(&changes);
    return e;
}

static RESULT measure_nodes(struct world *w, const char *what, enum row_action action,
                            uint32_t key) {
    double start = now_s();
    for (uint32_t i = 0; i < ROWS; i++)
        TRY(write_node(w, action, i, key));
    report(what, now_s() - start, ROWS);
    return OK;
}

static RESULT measure_rows(struct world *w) {
    TRY(found(w));
    TRY(measure_nodes(w, "10,000 nodes, created", ROW_CREATE, 1));
    TRY(measure_nodes(w, "10,000 nodes, replaced", ROW_REPLACE, 1));
    return measure_nodes(w, "10,000 nodes, with new keys", ROW_REPLACE, 2);
}

static RESULT run(struct world *w) {
    TRY(store_new(&w->store));
    size_t before = mallinfo2().uordblks;
    TRY(measure_puts(w, "put, new key"));
    double used = (double)(mallinfo2().uordblks - before), keys = (double)w->keys;
    (void)printf("%-28s %8.0f B    %10.1f MiB in all; payload %zu B\n", "memory, a key",
                 used / keys, used / (double)MIB, w->key_size + w->value_size);
    TRY(measure_gets(w));
    measure_scan(w);
    TRY(measure_puts(w, "put over"));
    TRY(measure_view(w));
    TRY(measure_image(w));
    TRY(measure_compaction(w));
    TRY(measure_image(w));
    return measure_rows(w);
}

static int usage(FILE *out, enum err e) {
    (void)fputs("usage: conclave-bench store [--keys N] [--key-size BYTES] [--value-size BYTES]\n\n"
                "Puts, gets and scans scattered keys in the state machine alone; one thread.\n"
                "Defaults: 1000000 keys of 46 bytes, values of 128.\n",
                out);
    return err_exit(e);
}

static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *out) {
    char *end;
    *out = strtoull(text, &end, 10);
    return *text != '\0' && *end == '\0' && *out >= min && *out <= max;
}

static bool option(struct world *w, const char *name, const char *text) {
    uint64_t n;
    if (strcmp(name, "--keys") == 0 && number(text, 1, 1ULL << 32, &n))
        w->keys = n;
    else if (strcmp(name, "--key-size") == 0 && number(text, 16, KEY_MAX, &n))
        w->key_size = n;
    else if (strcmp(name, "--value-size") == 0 && number(text, 1, VALUE_MAX, &n))
        w->value_size = n;
    else
        return false;
    return true;
}

int bench_store(int argc, char **argv) {
    struct world w = {.keys = 1000000, .key_size = 46, .value_size = 128};
    w.command = buf_new(COMMAND_MAX);
    w.result = buf_new(RESULT_MAX);
    if (argc > 1 && strcmp(argv[1], "--help") == 0) return usage(stdout, OK);
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !option(&w, argv[i], argv[i + 1])) return usage(stderr, ERR_USAGE);
    w.value = calloc(1, w.value_size);
    enum err e = w.value == NULL ? ERR_NOMEM : run(&w);
    if (e != OK) (void)fprintf(stderr, "conclave-bench store: %s\n", err_text(e));
    store_free(w.store);
    free(w.value);
    buf_free(&w.command);
    buf_free(&w.result);
    return err_exit(e);
}
