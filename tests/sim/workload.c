/* The clients. An operation is a write with a number of its own inside (model.h), proposed once, or
 * more often when it has a token; or a linearizable read at some member. Each attempt's outcome is
 * held against the history:
 *
 *  - applied at most as often as it was proposed without being refused for certain;
 *  - an acknowledged index holds the operation, with the answer that was given;
 *  - `floor` is the highest index that anybody was told of, by a write or by a read. What begins
 *    later must come later: a write gets a higher index, a read sees at least as much. The log's
 *    order is thus a witness that the whole history is linearizable;
 *  - a read's value is that of the history at the index that the member has applied. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/model.h"
#include "tests/sim/node.h"
#include "tests/sim/sim.h"

#define OPS_MAX         100000
#define ATTEMPTS_MAX    4
#define LEASE_PM        15
#define TXN_PM          100
#define COMPACT_PM      10  /* per mille of the operations */
#define OUTSTANDING_MAX 400 /* attempts at once; more is not asked for */
#define PLACES_MAX      8   /* times that one operation is applied, repeats counted */

struct place {
    uint64_t index;   /* of the entry */
    uint32_t ordinal; /* in it */
};

struct operation {
    uint64_t number;                 /* from 1 */
    bool token;                      /* may be tried again */
    bool acked;                      /* somebody was told that it is done */
    uint32_t attempts, refused;      /* proposed; refused for certain */
    uint32_t waiting;                /* attempts without an outcome */
    uint32_t n;                      /* places */
    struct place places[PLACES_MAX]; /* where it was applied */
    uint64_t effective;              /* index of the place that counts; 0: none yet */
    uint64_t floor;                  /* when it was first proposed */
    struct buf command;              /* its bytes, while they may be needed */
};

/* One proposal or read that waits for its outcome. */
struct attempt {
    struct proposal proposal; /* of a write */
    struct read read;         /* of a read */
    struct world *world;
    struct sim_node *node;         /* where */
    struct operation *op;          /* NULL: a read */
    uint64_t term;                 /* of a write that is to happen here: of its leader */
    uint64_t floor;                /* of a read: when it began */
    unsigned key;                  /* of a read */
    bool last;                     /* one of load_finish */
    struct attempt *next, *before; /* all that wait */
};

enum finish { FINISH_TODO, FINISH_WAITS, FINISH_DONE };

struct load {
    struct operation **ops;                          /* by number - 1 */
    size_t n, room;                                  /* in use, allocated */
    struct attempt *waiting;                         /* all */
    unsigned waits;                                  /* how many */
    uint64_t floor;                                  /* see above */
    uint64_t retry[64];                              /* operations to try again, a ring */
    unsigned retry_at, retry_n;                      /* its first, its size */
    enum finish write[NODES_ROOM], read[NODES_ROOM]; /* by node: load_finish */
};

struct load *load_new(struct world *w) {
    (void)w;
    return sim_alloc(sizeof(struct load));
}

static void unlink_attempt(struct load *l, struct attempt *a) {
    if (a->before != NULL)
        a->before->next = a->next;
    else
        l->waiting = a->next;
    if (a->next != NULL) a->next->before = a->before;
    l->waits--;
    free(a);
}

void load_free(struct load *l) {
    while (l->waiting != NULL)
        unlink_attempt(l, l->waiting);
    for (size_t i = 0; i < l->n; i++) {
        buf_free(&l->ops[i]->command);
        free(l->ops[i]);
    }
    free(l->ops);
    free(l);
}

/* ---- making operations ---- */

static struct operation *op_new(struct load *l) {
    if (l->n == l->room) {
        l->room = l->room == 0 ? 256 : l->room * 2;
        l->ops = realloc(l->ops, l->room * sizeof *l->ops);
        if (l->ops == NULL) abort();
    }
    struct operation *op = sim_alloc(sizeof *op);
    op->number = l->n + 1;
    op->command = buf_new(COMMAND_MAX);
    l->ops[l->n++] = op;
    return op;
}

static struct span key_name(unsigned key, char room[16]) {
    return span_of(room, (size_t)snprintf(room, 16, "k%02u", key));
}

static void must(enum err e) {
    if (e != OK) abort();
}

/* What follows the number is as random as it is dull. */
static void fill_value(struct world *w, struct operation *op, struct buf *value) {
    must(buf_u64(value, op->number));
    for (size_t size = rng_below(&w->rng, w->plan.value_max + 1); value->size < size;)
        must(buf_u64(value, rng_chance(&w->rng, 500) ? rng_next(&w->rng) : op->number));
}

static void condition(struct world *w, struct command *c) {
    if (!rng_chance(&w->rng, w->plan.condition_pm)) return;
    struct model_key k = model_get(check_model(w->check), c->put.key, UINT64_MAX);
    c->put.must_not_exist = rng_chance(&w->rng, 400);
    if (!c->put.must_not_exist)
        c->put.mod_revision = k.there ? k.mod_revision : rng_between(&w->rng, 1, 50);
}

static void make_delete(struct operation *op, struct command *c, struct span key, struct buf *end) {
    c->op = OP_DELETE;
    c->del.in.key = key;
    if (op->token) return; /* the token has the number */
    must(buf_add_span(end, key));
    must(buf_u8(end, 0));
    must(buf_u64(end, op->number));
    c->del.in.end = buf_span(end);
}

static void make_batch(struct world *w, struct command *c, struct span value, struct buf *items) {
    unsigned first = (unsigned)rng_below(&w->rng, w->plan.keys);
    for (unsigned i = 0; i < 3 && i < w->plan.keys; i++) {
        char room[16];
        struct span key = key_name((first + i) % w->plan.keys, room);
        struct command item = {.op = OP_PUT, .put = {.key = key, .value = value}};
        if (i != 0 && rng_chance(&w->rng, 300))
            item = (struct command){.op = OP_DELETE, .del = {.in = {.key = key}}};
        must(command_batch_add(items, &item));
        c->batch.n++;
    }
    c->op = OP_BATCH;
    c->batch.items = buf_span(items);
}

/* Mostly of what is long past, now and then of all or of what is still to come. */
static void make_compact(struct world *w, struct command *c) {
    uint64_t now = model_revision(check_model(w->check)), back = rng_below(&w->rng, 200);
    c->op = OP_COMPACT;
    c->has_token = true;
    c->compact_revision = back < now ? now - back : now + back;
}

static void make_lease(struct world *w, struct command *c) {
    c->op = rng_chance(&w->rng, 700) ? OP_LEASE_GRANT : OP_LEASE_REVOKE;
    c->has_token = true;
    c->lease.id = rng_between(&w->rng, 1, MODEL_LEASES - 1);
    c->lease.ttl_ms = 1000;
}

static void add_op(struct buf *ops, struct world *w, unsigned at, struct span value) {
    char room[16];
    struct span key = key_name(at % w->plan.keys, room);
    struct txn_op op = {.kind = TXN_PUT, .put = {.key = key, .value = value}};
    if (rng_chance(&w->rng, 200)) op.put.lease = rng_between(&w->rng, 1, MODEL_LEASES - 1);
    if (rng_chance(&w->rng, 300))
        op = (struct txn_op){.kind = TXN_RANGE, .range = {.in = {.key = key}}};
    if (rng_chance(&w->rng, 300))
        op = (struct txn_op){.kind = TXN_DELETE, .del = {.in = {.key = key}}};
    must(txn_op_add(ops, &op));
}

/* If a key is as the history has it, some keys change; else others. */
static void make_txn(struct world *w, struct command *c, struct span value, struct buf *txn) {
    unsigned first = (unsigned)rng_below(&w->rng, w->plan.keys);
    struct buf compares = buf_new(COMMAND_MAX), success = buf_new(COMMAND_MAX),
               failure = buf_new(COMMAND_MAX);
    char room[16];
    struct compare compare = {.in = {.key = key_name(first, room)}, .target = COMPARE_MOD};
    compare.number =
        (int64_t)model_get(check_model(w->check), compare.in.key, UINT64_MAX).mod_revision;
    if (rng_chance(&w->rng, 200)) compare.number++;
    must(txn_compare_add(&compares, &compare));
    for (unsigned i = 0; i < 3 && i < w->plan.keys; i++) {
        add_op(&success, w, first + i, value);
        add_op(&failure, w, first + w->plan.keys - i, value);
    }
    must(txn_add(txn, buf_span(&compares), buf_span(&success), buf_span(&failure)));
    c->op = OP_TXN;
    c->has_token = true;
    c->txn = buf_span(txn);
    buf_free(&compares);
    buf_free(&success);
    buf_free(&failure);
}

/* What is known by its token alone; false: none of these this time. */
static bool make_other(struct world *w, struct command *c, struct span value, struct buf *other) {
    if (rng_chance(&w->rng, COMPACT_PM))
        make_compact(w, c);
    else if (rng_chance(&w->rng, LEASE_PM))
        make_lease(w, c);
    else if (rng_chance(&w->rng, TXN_PM))
        make_txn(w, c, value, other);
    else
        return false;
    return true;
}

static struct operation *make_op(struct world *w) {
    struct operation *op = op_new(w->load);
    struct command c = {.op = OP_PUT};
    struct buf value = buf_new(VALUE_MAX), other = buf_new(COMMAND_MAX);
    char room[16];
    struct span key = key_name((unsigned)rng_below(&w->rng, w->plan.keys), room);
    op->token = c.has_token = rng_chance(&w->rng, w->plan.token_pm);
    op->floor = w->load->floor;
    put_u64(c.token, op->number);
    put_u64(c.token + 8, w->seed);
    fill_value(w, op, &value);
    if (make_other(w, &c, buf_span(&value), &other)) {
        op->token = true;
    } else if (rng_chance(&w->rng, w->plan.delete_pm)) {
        make_delete(op, &c, key, &other);
    } else if (rng_chance(&w->rng, w->plan.batch_pm)) {
        make_batch(w, &c, buf_span(&value), &other);
    } else {
        c.put.key = key;
        c.put.value = buf_span(&value);
        condition(w, &c);
    }
    must(command_encode(&c, &op->command));
    buf_free(&value);
    buf_free(&other);
    return op;
}

/* ---- outcomes ---- */

static unsigned long long ull(uint64_t v) { return (unsigned long long)v; }

static void count_applied(struct world *w, struct operation *op) {
    uint32_t may = op->attempts - op->refused;
    if (op->n > may)
        sim_violate(w,
                    "operation %llu is applied %u times, at %llu last, but only %u of %u proposals "
                    "may have been",
                    ull(op->number), op->n, ull(op->places[(op->n - 1) % PLACES_MAX].index), may,
                    op->attempts);
}

void load_applied(struct world *w, uint64_t number, uint64_t index, uint32_t ordinal,
                  struct span answer, bool effective) {
    (void)answer;
    struct load *l = w->load;
    if (number == 0 || number > l->n) {
        sim_violate(w, "index %llu has a command that nobody proposed", ull(index));
        return;
    }
    struct operation *op = l->ops[number - 1];
    op->places[op->n++ % PLACES_MAX] = (struct place){.index = index, .ordinal = ordinal};
    count_applied(w, op);
    if (!effective) return;
    op->effective = index;
    if (index <= op->floor)
        sim_violate(w, "operation %llu began after index %llu was known, but is at %llu",
                    ull(number), ull(op->floor), ull(index));
}

static void acknowledged(struct world *w, struct operation *op, uint64_t index,
                         struct span answer) {
    bool found = false;
    for (uint32_t i = 0; i < op->n && i < PLACES_MAX; i++)
        found = found || (op->places[i].index == index &&
                          check_said(w->check, index, op->places[i].ordinal, answer));
    if (!found)
        sim_violate(w,
                    "operation %llu is acknowledged at index %llu, but it is not there, or with "
                    "another answer",
                    ull(op->number), ull(index));
    op->acked = true;
    if (index > w->load->floor) w->load->floor = index;
    w->figures.acknowledged++;
}

/* Outcomes that promise that nothing happened. */
static bool is_refusal(enum err e) {
    return e == ERR_NOT_LEADER || e == ERR_BUSY || e == ERR_NO_LEADER;
}

static void refuse(struct world *w, struct operation *op) {
    op->refused++;
    w->figures.refused++;
    count_applied(w, op);
}

static void try_again(struct world *w, struct operation *op) {
    struct load *l = w->load;
    if (!op->token || op->acked || op->attempts >= ATTEMPTS_MAX || w->heal_us != 0) return;
    if (l->retry_n == ARRAY_SIZE(l->retry)) return;
    l->retry[(l->retry_at + l->retry_n++) % ARRAY_SIZE(l->retry)] = op->number;
}

static void settle_write(struct world *w, struct operation *op, enum err e, uint64_t index,
                         struct span answer) {
    op->waiting--;
    if (e == OK) {
        acknowledged(w, op, index, answer);
    } else if (is_refusal(e)) {
        refuse(w, op);
        try_again(w, op);
    } else {
        if (e == ERR_NOSPACE) w->figures.full_disk++;
        w->figures.unknown++;
        try_again(w, op);
    }
    if (op->waiting == 0 && (!op->token || op->acked || op->attempts >= ATTEMPTS_MAX))
        buf_free(&op->command);
}

static void not_inside(struct attempt *a) {
    if (a->node->submitting == a)
        sim_violate(a->world, "n%llu calls back inside the call that submitted", ull(a->node->id));
}

/* Who is told that a write is done finds it on the member that told. */
static void must_have_applied(struct attempt *a, uint64_t index) {
    struct replica_status s;
    replica_status(a->node->replica, &s);
    if (s.applied < index)
        sim_violate(a->world, "n%llu answers a write at index %llu, but has applied %llu only",
                    ull(a->node->id), ull(index), ull(s.applied));
}

static void write_done(struct proposal *p, enum err e, uint64_t index, struct span answer) {
    struct attempt *a = p->ctx;
    struct world *w = a->world;
    sim_trace(w, "n%llu: operation %llu ends: %s, index %llu", ull(a->node->id), ull(a->op->number),
              err_name(e), ull(index));
    sim_mix(w, a->op->number << 8 | (unsigned)e);
    not_inside(a);
    if (e == OK) must_have_applied(a, index);
    if (p->here && p->index != 0 && p->term != a->term)
        sim_violate(w, "operation %llu was to happen in term %llu only, but went on in %llu",
                    ull(a->op->number), ull(a->term), ull(p->term));
    if (a->last) w->load->write[a->node->id - 1] = e == OK ? FINISH_DONE : FINISH_TODO;
    settle_write(w, a->op, e, index, answer);
    unlink_attempt(w->load, a);
}

static void judge_read(struct world *w, struct attempt *a) {
    struct replica_status s;
    replica_status(a->node->replica, &s);
    if (s.applied < a->floor)
        sim_violate(w, "n%llu reads at index %llu, but %llu was known before the read began",
                    ull(a->node->id), ull(s.applied), ull(a->floor));
    if (s.applied > w->load->floor) w->load->floor = s.applied;
    char room[16];
    struct span key = key_name(a->key, room);
    struct model_key k = model_get(check_model(w->check), key, s.applied);
    struct kv kv;
    bool there = store_get(a->node->store, key, &kv);
    if (there != k.there || (there && model_digest(kv.value) != k.value))
        sim_violate(w, "n%llu reads a value of key %u that it never had at index %llu",
                    ull(a->node->id), a->key, ull(s.applied));
    w->figures.reads++;
}

static void read_done(struct read *rd, enum err e) {
    struct attempt *a = rd->ctx;
    struct world *w = a->world;
    sim_trace(w, "n%llu: read ends: %s", ull(a->node->id), err_name(e));
    not_inside(a);
    if (a->last) w->load->read[a->node->id - 1] = e == OK ? FINISH_DONE : FINISH_TODO;
    if (e == OK) judge_read(w, a);
    unlink_attempt(w->load, a);
}

/* ---- proposing ---- */

static struct attempt *attempt_new(struct world *w, struct sim_node *n, struct operation *op) {
    struct load *l = w->load;
    struct attempt *a = sim_alloc(sizeof *a);
    *a = (struct attempt){.world = w, .node = n, .op = op};
    a->next = l->waiting;
    if (l->waiting != NULL) l->waiting->before = a;
    l->waiting = a;
    l->waits++;
    return a;
}

static uint64_t deadline(struct world *w, struct sim_node *n) {
    if (rng_chance(&w->rng, 300)) return 0;
    return node_now_ms(n) + rng_between(&w->rng, 20, 4000);
}

static uint64_t term_of(struct sim_node *n) {
    struct replica_status s;
    replica_status(n->replica, &s);
    return s.term;
}

static void propose(struct world *w, struct sim_node *n, struct operation *op, bool last) {
    struct attempt *a = attempt_new(w, n, op);
    a->last = last;
    a->proposal =
        (struct proposal){.command = buf_span(&op->command), .done = write_done, .ctx = a};
    a->proposal.deadline_ms = last ? 0 : deadline(w, n);
    a->proposal.here = !last && op->number % 16 == 7;
    if (a->proposal.here) a->term = term_of(n);
    op->attempts++;
    op->waiting++;
    w->figures.proposed++;
    if (last) w->load->write[n->id - 1] = FINISH_WAITS;
    n->submitting = a;
    enum err e = replica_propose(n->replica, &a->proposal);
    n->submitting = NULL;
    sim_trace(w, "n%llu: operation %llu begins: %s", ull(n->id), ull(op->number), err_name(e));
    if (e != OK) {
        op->waiting--;
        if (last) w->load->write[n->id - 1] = FINISH_TODO;
        refuse(w, op);
        try_again(w, op);
        unlink_attempt(w->load, a);
    }
    node_leave(n);
}

static void look(struct world *w, struct sim_node *n, bool last) {
    struct attempt *a = attempt_new(w, n, NULL);
    a->last = last;
    a->floor = w->load->floor;
    a->key = (unsigned)rng_below(&w->rng, w->plan.keys);
    a->read = (struct read){.done = read_done, .ctx = a, .deadline_ms = last ? 0 : deadline(w, n)};
    if (last) w->load->read[n->id - 1] = FINISH_WAITS;
    n->submitting = a;
    enum err e = replica_read(n->replica, &a->read);
    n->submitting = NULL;
    sim_trace(w, "n%llu: read begins: %s", ull(n->id), err_name(e));
    if (e != OK) {
        if (last) w->load->read[n->id - 1] = FINISH_TODO;
        unlink_attempt(w->load, a);
    }
    node_leave(n);
}

static struct sim_node *some_node(struct world *w) {
    struct sim_node *up[NODES_ROOM];
    unsigned n = 0;
    for (unsigned i = 0; i < w->n; i++)
        if (node_up(w->nodes[i])) up[n++] = w->nodes[i];
    struct sim_node *leader = rng_chance(&w->rng, 400) ? admin_leader(w) : NULL;
    if (leader != NULL && node_up(leader)) return leader;
    return n == 0 ? NULL : up[rng_below(&w->rng, n)];
}

static struct operation *retried(struct load *l) {
    if (l->retry_n == 0) return NULL;
    struct operation *op = l->ops[l->retry[l->retry_at] - 1];
    l->retry_at = (l->retry_at + 1) % ARRAY_SIZE(l->retry);
    l->retry_n--;
    bool of_use = !op->acked && op->attempts < ATTEMPTS_MAX && op->command.size != 0;
    return of_use ? op : NULL;
}

static void act(struct world *w) {
    struct load *l = w->load;
    struct sim_node *n = some_node(w);
    if (n == NULL || l->waits >= OUTSTANDING_MAX || l->n >= OPS_MAX) return;
    if (rng_chance(&w->rng, w->plan.read_pm)) {
        look(w, n, false);
        return;
    }
    struct operation *op = rng_chance(&w->rng, 500) ? retried(l) : NULL;
    if (op == NULL) op = make_op(w);
    propose(w, n, op, false);
    struct sim_node *other = some_node(w);
    bool twice = op->token && other != NULL && rng_chance(&w->rng, 50);
    if (twice && op->command.size != 0 && op->attempts < ATTEMPTS_MAX) propose(w, other, op, false);
}

void load_client(struct world *w, uint64_t client) {
    if (w->heal_us != 0) return;
    for (uint64_t i = rng_between(&w->rng, 1, w->plan.burst); i != 0 && !sim_bad(w); i--)
        act(w);
    sim_after(w, rng_around(&w->rng, w->plan.think_us),
              (struct event){.kind = EV_CLIENT, .arg = client});
}

/* ---- ends ---- */

void load_node_gone(struct world *w, struct sim_node *n) {
    struct load *l = w->load;
    for (struct attempt *a = l->waiting, *next; a != NULL; a = next) {
        next = a->next;
        if (a->node != n) continue;
        if (a->op != NULL) settle_write(w, a->op, ERR_MAYBE_APPLIED, 0, span_of(NULL, 0));
        unlink_attempt(l, a);
    }
    l->write[n->id - 1] = l->read[n->id - 1] = FINISH_TODO;
}

unsigned load_waits(const struct world *w, const struct sim_node *n) {
    unsigned waits = 0;
    if (n == NULL) return w->load->waits;
    for (const struct attempt *a = w->load->waiting; a != NULL; a = a->next)
        waits += a->node == n;
    return waits;
}

void load_finish(struct world *w) {
    struct load *l = w->load;
    for (unsigned i = 0; i < w->n && !sim_bad(w); i++) {
        if (w->nodes[i]->member && l->write[i] == FINISH_TODO && node_up(w->nodes[i]))
            propose(w, w->nodes[i], make_op(w), true);
        if (w->nodes[i]->member && l->read[i] == FINISH_TODO && node_up(w->nodes[i]))
            look(w, w->nodes[i], true);
    }
}

bool load_finished(struct world *w) {
    for (unsigned i = 0; i < w->n; i++)
        if (w->nodes[i]->member &&
            (w->load->write[i] != FINISH_DONE || w->load->read[i] != FINISH_DONE))
            return false;
    return true;
}
