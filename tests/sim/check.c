/* What must hold in every history, held against what the nodes do. Terms and votes are read off the
 * frames that nodes send, for what was never said harms nobody. The history of the log is whatever
 * was applied first at each index; every other node must do the same there, command by command,
 * answer by answer, and have the same state hash after it. */
#include <stdlib.h>

#include "tests/sim/model.h"
#include "tests/sim/node.h"
#include "tests/sim/sim.h"

#define TERMS_MAX 65536

struct said {
    uint64_t command, answer; /* digests */
};

struct seen {
    uint32_t first, n;             /* its commands in `said` */
    bool closed;                   /* somebody has applied all of it */
    uint8_t hash[STATE_HASH_SIZE]; /* after it */
};

struct check {
    uint64_t *leaders;           /* by term: who led; 0: nobody seen */
    uint64_t *votes[NODES_ROOM]; /* by node and term: for whom; 0: none seen */
    uint64_t term;               /* highest with a leader */
    struct seen *entries;        /* by index; [0] unused */
    size_t entries_room;         /* allocated */
    uint64_t last;               /* newest index that was applied */
    struct said *said;           /* all commands in order */
    size_t n, room;              /* in use, allocated */
    struct model *model;         /* what they must answer */
};

struct check *check_new(void) {
    struct check *c = sim_alloc(sizeof *c);
    c->model = model_new();
    c->leaders = sim_alloc(TERMS_MAX * sizeof *c->leaders);
    return c;
}

void check_free(struct check *c) {
    for (unsigned i = 0; i < NODES_ROOM; i++)
        free(c->votes[i]);
    free(c->leaders);
    free(c->entries);
    free(c->said);
    model_free(c->model);
    free(c);
}

uint64_t check_last(const struct check *c) { return c->last; }
uint64_t check_term(const struct check *c) { return c->term; }
const struct model *check_model(const struct check *c) { return c->model; }

/* ---- terms and votes ---- */

static bool term_fits(struct world *w, uint64_t term) {
    if (term < TERMS_MAX) return true;
    sim_violate(w, "term %llu: they run away", (unsigned long long)term);
    return false;
}

void check_leader(struct world *w, uint64_t term, uint64_t leader) {
    struct check *c = w->check;
    if (!term_fits(w, term)) return;
    if (c->leaders[term] != 0 && c->leaders[term] != leader)
        sim_violate(w, "two leaders in term %llu: n%llu and n%llu", (unsigned long long)term,
                    (unsigned long long)c->leaders[term], (unsigned long long)leader);
    c->leaders[term] = leader;
    if (term > c->term) c->term = term;
}

static void check_vote(struct world *w, struct sim_node *n, uint64_t term, uint64_t candidate) {
    struct check *c = w->check;
    if (!term_fits(w, term)) return;
    uint64_t **votes = &c->votes[n->id - 1];
    if (*votes == NULL) *votes = sim_alloc(TERMS_MAX * sizeof **votes);
    if ((*votes)[term] != 0 && (*votes)[term] != candidate)
        sim_violate(w, "n%llu votes twice in term %llu: for n%llu and n%llu",
                    (unsigned long long)n->id, (unsigned long long)term,
                    (unsigned long long)(*votes)[term], (unsigned long long)candidate);
    (*votes)[term] = candidate;
}

void check_frame(struct world *w, struct sim_node *from, uint64_t to, struct span frame) {
    struct wire_message m;
    enum err e = wire_decode(frame, &m);
    if (e != OK) {
        sim_violate(w, "n%llu sends a frame that does not decode: %s", (unsigned long long)from->id,
                    err_name(e));
        return;
    }
    if (m.type == WIRE_APPEND) check_leader(w, m.append.term, from->id);
    if (m.type == WIRE_PING) check_leader(w, m.ping.term, from->id);
    if (m.type == WIRE_SNAPSHOT_OFFER) check_leader(w, m.offer.term, from->id);
    if (m.type == WIRE_TIMEOUT_NOW) check_leader(w, m.timeout_now.term, from->id);
    if (m.type == WIRE_VOTE && !m.vote.pre_vote)
        check_vote(w, from, m.vote.term, m.vote.candidate_id);
    if (m.type == WIRE_VOTE_RESULT && m.vote_result.vote_granted && !m.vote_result.pre_vote)
        check_vote(w, from, m.vote_result.term, to);
}

/* ---- the history ---- */

static struct seen *entry_at(struct check *c, uint64_t index) {
    if (index >= c->entries_room) {
        size_t more = c->entries_room == 0 ? 1024 : c->entries_room * 2;
        if (more <= index) more = index + 1;
        c->entries = realloc(c->entries, more * sizeof *c->entries);
        if (c->entries == NULL) abort();
        memset(c->entries + c->entries_room, 0, (more - c->entries_room) * sizeof *c->entries);
        c->entries_room = more;
    }
    return &c->entries[index];
}

static bool same_result(const struct command *c, const struct result *a, const struct result *b) {
    bool same = a->error == b->error && a->revision == b->revision && a->repeated == b->repeated;
    if (c->op == OP_DELETE || c->op == OP_BATCH || c->op == OP_LEASE_REVOKE)
        same = same && a->deleted == b->deleted;
    if (c->op != OP_PUT || a->error != OK) return same;
    return same && a->previous.existed == b->previous.existed &&
           a->previous.mod_revision == b->previous.mod_revision &&
           a->previous.version == b->previous.version;
}

/* The answer of a transaction begins with the branch that it took. */
static void check_branch(struct world *w, uint64_t index, struct span answer) {
    struct cursor in = cursor_of(answer);
    struct answer a;
    bool good = answer_next(&in, &a) == OK && a.kind == ANSWER_TXN &&
                a.succeeded == model_succeeded(w->check->model);
    if (!good)
        sim_violate(w, "the transaction at index %llu took the other branch, or does not say which",
                    (unsigned long long)index);
}

static void first_time(struct world *w, uint64_t index, uint32_t ordinal, struct span command,
                       struct span answer) {
    struct command c;
    struct result got, expected;
    if (command_decode(command, &c) != OK || result_decode(answer, &got) != OK) {
        sim_violate(w, "command %u of index %llu or its answer does not decode", ordinal,
                    (unsigned long long)index);
        return;
    }
    uint64_t op;
    bool effective;
    model_apply(w->check->model, index, &c, &expected, &op, &effective);
    if (!same_result(&c, &expected, &got))
        sim_violate(
            w,
            "command %u of index %llu answers %s, revision %llu%s, %llu deleted; it must be "
            "%s, revision %llu%s, %llu deleted",
            ordinal, (unsigned long long)index, err_name(got.error),
            (unsigned long long)got.revision, got.repeated ? " (repeated)" : "",
            (unsigned long long)got.deleted, err_name(expected.error),
            (unsigned long long)expected.revision, expected.repeated ? " (repeated)" : "",
            (unsigned long long)expected.deleted);
    if (c.op == OP_TXN && got.error == OK && !got.repeated) check_branch(w, index, got.answer);
    load_applied(w, op, index, ordinal, answer, effective);
}

static void add_said(struct check *c, struct said s) {
    if (c->n == c->room) {
        c->room = c->room == 0 ? 1024 : c->room * 2;
        c->said = realloc(c->said, c->room * sizeof *c->said);
        if (c->said == NULL) abort();
    }
    c->said[c->n++] = s;
}

void check_command(struct world *w, struct sim_node *n, uint64_t index, uint32_t ordinal,
                   struct span command, struct span answer) {
    struct check *c = w->check;
    struct seen *s = entry_at(c, index);
    sim_trace(w, "n%llu applies command %u of index %llu", (unsigned long long)n->id, ordinal,
              (unsigned long long)index);
    struct said now = {.command = model_digest(command), .answer = model_digest(answer)};
    if (ordinal < s->n) {
        const struct said *before = &c->said[s->first + ordinal];
        if (before->command != now.command)
            sim_violate(w, "n%llu applies another command %u at index %llu",
                        (unsigned long long)n->id, ordinal, (unsigned long long)index);
        else if (answer.size != 0 && before->answer != now.answer)
            sim_violate(w, "n%llu has another answer to command %u at index %llu",
                        (unsigned long long)n->id, ordinal, (unsigned long long)index);
        return;
    }
    if (s->closed || ordinal != s->n || index < c->last || (index > c->last + 1 && c->last != 0)) {
        sim_violate(w, "n%llu applies command %u at index %llu, where the history has %u",
                    (unsigned long long)n->id, ordinal, (unsigned long long)index, s->n);
        return;
    }
    if (ordinal == 0) s->first = (uint32_t)c->n;
    s->n++;
    add_said(c, now);
    w->figures.commands++;
    first_time(w, index, ordinal, command, answer);
}

void check_applied(struct world *w, struct sim_node *n, uint64_t index, uint32_t commands,
                   const uint8_t hash[STATE_HASH_SIZE]) {
    struct check *c = w->check;
    struct seen *s = entry_at(c, index);
    sim_mix(w, get_u64(hash));
    if (!s->closed && index == c->last + 1) {
        s->closed = true;
        memcpy(s->hash, hash, STATE_HASH_SIZE);
        c->last = index;
    }
    if (!s->closed)
        sim_violate(w, "n%llu applies index %llu, but %llu was the last", (unsigned long long)n->id,
                    (unsigned long long)index, (unsigned long long)c->last);
    else if (commands != COMMANDS_UNKNOWN && s->n != commands)
        sim_violate(w, "n%llu applies %u commands at index %llu, where there are %u",
                    (unsigned long long)n->id, commands, (unsigned long long)index, s->n);
    else if (memcmp(s->hash, hash, STATE_HASH_SIZE) != 0)
        sim_violate(w, "n%llu has another state hash after index %llu", (unsigned long long)n->id,
                    (unsigned long long)index);
}

bool check_said(const struct check *c, uint64_t index, uint32_t ordinal, struct span answer) {
    if (index >= c->entries_room || ordinal >= c->entries[index].n) return false;
    return c->said[c->entries[index].first + ordinal].answer == model_digest(answer);
}

/* ---- a node's status ---- */

static void not_back(struct world *w, struct sim_node *n, const char *what, uint64_t now,
                     uint64_t *before) {
    if (now < *before)
        sim_violate(w, "n%llu: %s goes back from %llu to %llu", (unsigned long long)n->id, what,
                    (unsigned long long)*before, (unsigned long long)now);
    *before = now;
}

void check_status(struct world *w, struct sim_node *n) {
    struct replica_status s;
    replica_status(n->replica, &s);
    bool moved = s.applied != n->seen_applied;
    not_back(w, n, "commit", s.commit, &n->seen_commit);
    not_back(w, n, "applied", s.applied, &n->seen_applied);
    not_back(w, n, "term", s.term, &n->seen_term);
    if (s.leading) check_leader(w, s.term, n->id);
    if (s.failed != OK && n->state == NODE_UP)
        sim_violate(w, "n%llu has failed in silence: %s", (unsigned long long)n->id, s.text);
    if (s.applied > w->check->last)
        sim_violate(w, "n%llu says that it applied %llu, but %llu was the last",
                    (unsigned long long)n->id, (unsigned long long)s.applied,
                    (unsigned long long)w->check->last);
    if (!moved || s.applied == 0 || s.installing || sim_bad(w)) return;
    if (memcmp(s.hash, w->check->entries[s.applied].hash, STATE_HASH_SIZE) != 0)
        sim_violate(w, "n%llu says another state hash for index %llu", (unsigned long long)n->id,
                    (unsigned long long)s.applied);
}

struct audit {
    struct world *world; /* to complain to */
    uint64_t index;      /* of the store's state */
    uint64_t keys;       /* seen */
};

static bool audit_key(void *ctx, const struct kv *kv) {
    struct audit *a = ctx;
    struct model_key k = model_get(a->world->check->model, kv->key, a->index);
    a->keys++;
    bool same = k.there && k.value == model_digest(kv->value) &&
                k.create_revision == kv->create_revision && k.mod_revision == kv->mod_revision &&
                k.version == kv->version && k.lease == kv->lease;
    if (!same)
        sim_violate(a->world, "key %.*s is not what the history made of it", (int)kv->key.size,
                    (const char *)kv->key.at);
    return same;
}

void check_state(struct world *w, struct sim_node *n) {
    struct audit a = {.world = w, .index = w->check->last};
    store_range(n->store, span_of(NULL, 0), span_of(NULL, 0), audit_key, &a);
    if (!sim_bad(w) && a.keys != model_keys(w->check->model))
        sim_violate(w, "n%llu has %llu keys, the history left %llu", (unsigned long long)n->id,
                    (unsigned long long)a.keys, (unsigned long long)model_keys(w->check->model));
}
