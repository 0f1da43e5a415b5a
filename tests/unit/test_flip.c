/* A whole node on a disk where something was changed while it was stopped: the keyring, the ballot,
 * the log, a snapshot, opened through the replica with the real store. Whatever is flipped, cut,
 * swapped, doubled, taken away or put back from an earlier day: either it is refused with a text
 * that names a file, or the node runs, has every acknowledged write and the same state hash, and
 * still has it after one more life. Never wrong data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "raft/replica.h"
#include "store/command.h"
#include "store/store.h"
#include "tests/lib/disk_sim.h"

#define SEGMENT     (32 * KIB)
#define STEPS_MAX   100000
#define ELECTION_MS 100
#define STRIDE      64 /* bytes between two flips in a file */

/* ---- a lone voter ---- */

struct lone {
    struct disk *disk;    /* owned */
    struct keyring *keys; /* open between node_open and node_stop */
    struct store *store;  /* the same */
    struct replica *r;    /* NULL after a failed opening */
    struct clock clock;   /* of now_ms */
    uint64_t now_ms;      /* simulated */
    uint64_t armed_ms;    /* 0: not armed */
    struct exec exec;     /* both of the replica's */
    struct job *head;     /* submitted, in order */
    struct job **tail;    /* where the next one goes */
    bool turn, closed;    /* env.wake was called; replica_close is over */
    enum err failed;      /* env.failed's */
    char text[WHY_MAX];   /* its reason */
    struct replica_env env;
    struct replica_config config;
};

static struct lone *node_of_clock(struct clock *c) {
    return (struct lone *)(void *)((char *)c - offsetof(struct lone, clock));
}
static struct lone *node_of_exec(struct exec *e) {
    return (struct lone *)(void *)((char *)e - offsetof(struct lone, exec));
}

static uint64_t now_ms(struct clock *c) { return node_of_clock(c)->now_ms; }
static uint64_t now_us(struct clock *c) { return node_of_clock(c)->now_ms * 1000; }
static int64_t wall_s(struct clock *c) { return (int64_t)node_of_clock(c)->now_ms / 1000; }

static void submit(struct exec *e, struct job *j) {
    struct lone *n = node_of_exec(e);
    j->next = NULL;
    *n->tail = j;
    n->tail = &j->next;
}

static void env_send(void *ctx, uint64_t to, struct buf *frame) {
    (void)ctx;
    (void)to;
    buf_free(frame);
}
static size_t env_queued(void *ctx, uint64_t to) {
    (void)ctx;
    (void)to;
    return 0;
}
static void env_wake(void *ctx) { ((struct lone *)ctx)->turn = true; }
static void env_arm(void *ctx, uint64_t at_ms) { ((struct lone *)ctx)->armed_ms = at_ms; }
static void env_leader(void *ctx, uint64_t term, uint64_t leader) {
    (void)ctx;
    (void)term;
    (void)leader;
}
static void env_members(void *ctx) { (void)ctx; }
static void env_failed(void *ctx, enum err e, const char *text) {
    struct lone *n = ctx;
    n->failed = e;
    (void)snprintf(n->text, sizeof n->text, "%s", text);
}
static void env_call(void *ctx, uint64_t from, struct span request, struct reply *reply) {
    (void)ctx;
    (void)from;
    (void)request;
    reply_send(reply, ERR_CLOSED, span_of(NULL, 0));
}
static void env_log(void *ctx, int level, const char *text) {
    (void)ctx;
    (void)level;
    (void)text;
}

static void fill(struct lone *n) {
    n->clock = (struct clock){.now_ms = now_ms, .wall_s = wall_s, .now_us = now_us};
    n->exec.submit = submit;
    n->head = NULL;
    n->tail = &n->head;
    n->env = (struct replica_env){.ctx = n,
                                  .clock = &n->clock,
                                  .disk = n->disk,
                                  .keys = n->keys,
                                  .log_exec = &n->exec,
                                  .snapshot_exec = &n->exec,
                                  .machine = store_machine(n->store),
                                  .send = env_send,
                                  .queued = env_queued,
                                  .wake = env_wake,
                                  .arm = env_arm,
                                  .leader = env_leader,
                                  .members = env_members,
                                  .failed = env_failed,
                                  .call = env_call,
                                  .log = env_log};
    n->config = (struct replica_config){
        .raft_id = 1,
        .identity = {"flippedcluster00000000000", "flippednode00000000000000"},
        .alg = SEAL_XCHACHA20,
        .election_ms = ELECTION_MS,
        .heartbeat_ms = ELECTION_MS / 5,
        .seed = 1,
        .segment_size = SEGMENT,
        .snapshot_log_min = 4 * MIB,
        .trailing_bytes = 4 * KIB};
}

/* One thing that is due: a job, a turn, or the timer. */
static bool step(struct lone *n) {
    struct job *j = n->head;
    n->now_ms++;
    if (j != NULL) {
        n->head = j->next;
        if (n->head == NULL) n->tail = &n->head;
        j->run(j);
        j->done(j);
    } else if (n->turn) {
        n->turn = false;
        replica_turn(n->r);
    } else if (n->armed_ms != 0) {
        if (n->now_ms < n->armed_ms) n->now_ms = n->armed_ms;
        replica_tick(n->r);
    } else {
        return false;
    }
    return true;
}

static bool caught_up(struct lone *n) {
    struct replica_status s;
    replica_status(n->r, &s);
    return s.leading && s.applied == s.last && s.persisted == s.last;
}

static RESULT settle(struct lone *n, struct why *why) {
    for (unsigned i = 0; i < STEPS_MAX; i++) {
        if (n->failed != OK) return fail_with(why, n->failed, "%s", n->text);
        if (caught_up(n) && n->head == NULL && !n->turn) return OK;
        if (!step(n)) break;
    }
    return fail_with(why, ERR_TIMEOUT, "the node opens but does not come to rest");
}

static void node_free(struct lone *n) {
    if (n->r != NULL) replica_drop(n->r);
    if (n->store != NULL) store_free(n->store);
    if (n->keys != NULL) keyring_close(n->keys);
    n->r = NULL;
    n->store = NULL;
    n->keys = NULL;
}

/* Opens it and lets it apply all that it has. After a failure only node_free. */
static RESULT node_open(struct lone *n, struct why *why) {
    struct disk *disk = n->disk;
    *n = (struct lone){.disk = disk, .now_ms = 1000};
    TRY(keyring_open(disk, (struct kek){.kind = KEK_PLAIN}, &n->keys, why));
    if (keyring_identity(n->keys) == NULL)
        return fail_with(why, ERR_CORRUPT, "keyring: the identity is gone");
    assert_int_equal(store_new(&n->store), OK);
    fill(n);
    TRY(replica_open(&n->env, &n->config, &n->r, why));
    return settle(n, why);
}

static void on_closed(void *ctx) { ((struct lone *)ctx)->closed = true; }

static void node_stop(struct lone *n) {
    replica_close(n->r, on_closed, n);
    while (!n->closed)
        assert_true(step(n));
    n->r = NULL;
    node_free(n);
}

/* ---- its life before ---- */

struct write {
    struct proposal p;
    struct buf bytes; /* of the command */
    bool done;
};

static void on_written(struct proposal *p, enum err e, uint64_t index, struct span result) {
    struct write *w = p->ctx;
    (void)index;
    (void)result;
    assert_int_equal(e, OK);
    w->done = true;
}

/* A key with bytes that nothing can compress; acknowledged on return. */
static void put(struct lone *n, unsigned number, size_t size) {
    char key[32];
    uint8_t value[8 * KIB];
    struct write w = {.bytes = buf_new(COMMAND_MAX)};
    assert_true(size <= sizeof value);
    random_bytes(value, size);
    (void)snprintf(key, sizeof key, "key%04u", number);
    struct command c = {.op = OP_PUT};
    c.put.key = span_str(key);
    c.put.value = span_of(value, size);
    assert_int_equal(command_encode(&c, &w.bytes), OK);
    w.p = (struct proposal){.command = buf_span(&w.bytes), .done = on_written, .ctx = &w};
    assert_int_equal(replica_propose(n->r, &w.p), OK);
    for (unsigned i = 0; i < STEPS_MAX && !w.done; i++)
        assert_true(step(n));
    assert_true(w.done);
    buf_free(&w.bytes);
}

static void on_snapshot(void *ctx, enum err e, uint64_t index) {
    assert_int_equal(e, OK);
    *(uint64_t *)ctx = index;
}

static void snapshot(struct lone *n) {
    uint64_t index = 0;
    replica_snapshot(n->r, on_snapshot, &index);
    for (unsigned i = 0; i < STEPS_MAX && index == 0; i++)
        assert_true(step(n));
    assert_int_not_equal(index, 0);
}

static void reopen(struct lone *n) {
    struct why why = {0};
    enum err e = node_open(n, &why);
    if (e != OK) print_error("%s: %s\n", err_name(e), why.text);
    assert_int_equal(e, OK);
}

static void found(struct lone *n) {
    struct secret *identity;
    struct why why = {0};
    assert_int_equal(keyring_create(n->disk, (struct kek){.kind = KEK_PLAIN}, &n->keys, &why), OK);
    assert_int_equal(secret_new("this node's own", 15, &identity), OK);
    assert_int_equal(keyring_set_identity(n->keys, identity, &why), OK);
    secret_free(identity);
    assert_int_equal(store_new(&n->store), OK);
    fill(n);
    assert_int_equal(replica_bootstrap(&n->env, &n->config, &why), OK);
    node_free(n);
}

/* What a stopped node had, and copies of its disk from earlier: from two days before, when it was
 * stopped, and from its last life, while it ran. */
struct past {
    struct disk *now, *early, *middle, *late;
    uint8_t hash[STATE_HASH_SIZE];
    uint64_t keys;
};

static void write_some(struct lone *n, unsigned from, unsigned until) {
    for (unsigned i = from; i < until; i++)
        put(n, i % 40, 100 + i * 397 % 3000);
}

static void remember(struct lone *n, struct past *p) {
    struct machine *m = store_machine(n->store);
    m->hash(m, p->hash);
    p->keys = store_keys(n->store);
}

static void make_past(struct past *p) {
    struct lone n = {.disk = disk_sim_new(1), .now_ms = 1000};
    struct why why = {0};
    found(&n);
    reopen(&n);
    write_some(&n, 0, 10);
    node_stop(&n);
    p->early = disk_sim_clone(n.disk, 2);
    reopen(&n);
    write_some(&n, 10, 30);
    snapshot(&n);
    write_some(&n, 30, 40);
    assert_int_equal(keyring_rotate(n.keys, &why), OK);
    node_stop(&n);
    p->middle = disk_sim_clone(n.disk, 3);
    reopen(&n);
    write_some(&n, 40, 60);
    snapshot(&n);
    write_some(&n, 60, 65);
    p->late = disk_sim_clone(n.disk, 4);
    write_some(&n, 65, 70);
    remember(&n, p);
    node_stop(&n);
    p->now = n.disk;
}

static void free_past(struct past *p) {
    disk_sim_free(p->now);
    disk_sim_free(p->early);
    disk_sim_free(p->middle);
    disk_sim_free(p->late);
}

/* ---- the question ---- */

struct tally {
    unsigned refused, harmless;
};

static bool same_state(struct lone *n, const struct past *p) {
    struct machine *m = store_machine(n->store);
    uint8_t hash[STATE_HASH_SIZE];
    m->hash(m, hash);
    return memcmp(hash, p->hash, sizeof hash) == 0 && store_keys(n->store) == p->keys;
}

static bool names_a_file(const char *text) {
    static const char *const files[] = {"keyring", "kek", "ballot", "log/", "snapshots/"};
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (strstr(text, files[i]) != NULL) return true;
    return false;
}

/* It runs with the change: it goes on, and has all of that in its next life too. */
static void one_more_life(struct lone *n, const char *what) {
    struct past after = {0};
    struct why why = {0};
    put(n, 99, 100);
    remember(n, &after);
    node_stop(n);
    enum err e = node_open(n, &why);
    if (e != OK) fail_msg("%s: found only in the next life: %s: %s", what, err_name(e), why.text);
    if (!same_state(n, &after)) fail_msg("%s: another state in the next life", what);
}

/* Takes the disk over. `file`: must stand in the refusal; NULL: any file. */
static void ask(struct disk *disk, const struct past *p, const char *file, const char *what,
                struct tally *t) {
    struct lone n = {.disk = disk};
    struct why why = {0};
    enum err e = node_open(&n, &why);
    if (e == OK) {
        t->harmless++;
        if (!same_state(&n, p)) fail_msg("%s: wrong data", what);
        one_more_life(&n, what);
    } else {
        t->refused++;
        bool named = file != NULL ? strstr(why.text, file) != NULL : names_a_file(why.text);
        if (!named) fail_msg("%s: refused without its name: %s: %s", what, err_name(e), why.text);
    }
    node_free(&n);
    disk_sim_free(disk);
}

static struct past past;

static int set_up(void **state) {
    (void)state;
    assert_int_equal(crypto_start(NULL), OK);
    make_past(&past);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    free_past(&past);
    return 0;
}

/* ---- the cases ---- */

static void an_untouched_disk_opens(void **state) {
    struct tally t = {0};
    (void)state;
    ask(disk_sim_clone(past.now, 5), &past, NULL, "nothing", &t);
    assert_int_equal(t.harmless, 1);
}

static void flip_all(const char *name, uint64_t shift) {
    struct tally t = {0};
    uint64_t size = disk_sim_size(past.now, name);
    for (uint64_t at = shift; at < size; at += STRIDE) {
        char what[PATH_ROOM + 64];
        struct disk *d = disk_sim_clone(past.now, at);
        (void)snprintf(what, sizeof what, "%s flipped at byte %llu", name, (unsigned long long)at);
        assert_true(disk_sim_flip(d, name, at, (uint8_t)(1U << at / STRIDE % 8)));
        ask(d, &past, name, what, &t);
    }
    print_message("%s, %llu bytes: %u flips refused, %u harmless\n", name, (unsigned long long)size,
                  t.refused, t.harmless);
}

static void every_64th_byte_of_every_file(void **state) {
    char name[PATH_ROOM];
    (void)state;
    for (size_t i = 0; disk_sim_name(past.now, i) != NULL; i++) {
        (void)snprintf(name, sizeof name, "%s", disk_sim_name(past.now, i));
        flip_all(name, i * 5 % STRIDE);
    }
}

static void every_file_cut_anywhere(void **state) {
    struct tally t = {0};
    char name[PATH_ROOM], what[PATH_ROOM + 64];
    (void)state;
    for (size_t i = 0; disk_sim_name(past.now, i) != NULL; i++) {
        (void)snprintf(name, sizeof name, "%s", disk_sim_name(past.now, i));
        uint64_t size = disk_sim_size(past.now, name);
        uint64_t piece = size / 16 > 0 ? size / 16 : 1;
        for (uint64_t to = 0; to < size; to += piece) {
            uint64_t at = to == 0 ? 0 : size - to;
            struct disk *d = disk_sim_clone(past.now, at);
            (void)snprintf(what, sizeof what, "%s cut to %llu bytes", name, (unsigned long long)at);
            assert_true(disk_sim_resize(d, name, at));
            ask(d, &past, NULL, what, &t);
        }
    }
    print_message("%u cuts refused, %u harmless\n", t.refused, t.harmless);
}

static void every_file_missing(void **state) {
    struct tally t = {0};
    char what[PATH_ROOM + 64];
    (void)state;
    for (size_t i = 0; disk_sim_name(past.now, i) != NULL; i++) {
        const char *name = disk_sim_name(past.now, i);
        (void)snprintf(what, sizeof what, "%s missing", name);
        struct disk *d = disk_sim_clone(past.now, i);
        assert_true(disk_sim_erase(d, name));
        ask(d, &past, NULL, what, &t);
    }
    print_message("%u missing files refused, %u harmless\n", t.refused, t.harmless);
}

/* Two files exchanged, and one file in the place of another. */
static void every_file_in_the_place_of_another(void **state) {
    struct tally t = {0};
    char a[PATH_ROOM], b[PATH_ROOM], what[2 * PATH_ROOM + 64];
    (void)state;
    for (size_t i = 0; disk_sim_name(past.now, i) != NULL; i++) {
        (void)snprintf(a, sizeof a, "%s", disk_sim_name(past.now, i));
        for (size_t k = 0; disk_sim_name(past.now, k) != NULL; k++) {
            if (k == i) continue;
            (void)snprintf(b, sizeof b, "%s", disk_sim_name(past.now, k));
            struct disk *copied = disk_sim_clone(past.now, 7), *swapped;
            (void)snprintf(what, sizeof what, "%s copied over %s", a, b);
            assert_true(disk_sim_copy(copied, a, b));
            ask(copied, &past, NULL, what, &t);
            if (k < i) continue;
            swapped = disk_sim_clone(past.now, 8);
            (void)snprintf(what, sizeof what, "%s exchanged with %s", a, b);
            assert_true(disk_sim_move(swapped, a, "log/aside"));
            assert_true(disk_sim_move(swapped, b, a));
            assert_true(disk_sim_move(swapped, "log/aside", b));
            ask(swapped, &past, NULL, what, &t);
        }
    }
    print_message("%u exchanges refused, %u harmless\n", t.refused, t.harmless);
}

static void put_back(struct disk *from, const char *day, struct tally *t) {
    char name[PATH_ROOM], what[PATH_ROOM + 64];
    for (size_t i = 0; disk_sim_name(from, i) != NULL; i++) {
        (void)snprintf(name, sizeof name, "%s", disk_sim_name(from, i));
        struct disk *d = disk_sim_clone(past.now, i);
        (void)snprintf(what, sizeof what, "%s of an earlier day (%s)", name, day);
        assert_true(disk_sim_import(d, from, name));
        ask(d, &past, NULL, what, t);
    }
}

static void every_older_copy_put_back(void **state) {
    struct tally t = {0};
    (void)state;
    put_back(past.early, "early", &t);
    put_back(past.middle, "middle", &t);
    put_back(past.late, "late", &t);
    print_message("%u older copies refused, %u harmless\n", t.refused, t.harmless);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_untouched_disk_opens),
        cmocka_unit_test(every_64th_byte_of_every_file),
        cmocka_unit_test(every_file_cut_anywhere),
        cmocka_unit_test(every_file_missing),
        cmocka_unit_test(every_file_in_the_place_of_another),
        cmocka_unit_test(every_older_copy_put_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
