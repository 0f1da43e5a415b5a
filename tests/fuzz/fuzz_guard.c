/* A guard among peers that say anything: made-up messages of all types with small terms and
 * indexes, so that they meet the state they are sent to, between real ones, time-outs, writes,
 * snapshots, changes and restarts. Agreement can't be asked for where peers lie; that nothing
 * breaks in memory can. */
#include <stdlib.h>

#include "tests/lib/guard_cluster.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t next(struct cursor *c) {
    uint8_t v = 0;
    return cursor_u8(c, &v) == OK ? v : 0;
}

static unsigned lie_entries(struct guards *c, struct cursor *in, uint64_t prev,
                            struct entry *entries[4]) {
    unsigned n = next(in) % 5;
    for (unsigned i = 0; i < n; i++) {
        uint8_t what = next(in);
        enum entry_type type = what % 8 == 0 ? ENTRY_CHANGE : ENTRY_COMMAND;
        struct span conf = span_of(c->nodes[1].disk[1]->data, c->nodes[1].disk[1]->size);
        struct span bytes = type == ENTRY_CHANGE && what < 128 ? conf : span_of(&what, 1);
        entries[i] = guards_entry(c, prev + 1 + i + (what == 255), next(in) % 16, type, bytes);
    }
    return n;
}

static void lie(struct guards *c, struct cursor *in) {
    struct raft_message m = {.type = (enum raft_message_type)(next(in) % 8)};
    struct entry *entries[4] = {NULL};
    uint64_t from = 2 + next(in) % 3, term = next(in) % 16, index = next(in) % 32;
    uint64_t other = next(in) % 16;
    unsigned n = 0;
    uint8_t flags = next(in);
    if (m.type == RAFT_APPEND_ENTRIES) {
        m.append_entries = (struct raft_append_entries){0, term, index, other, flags, NULL, 0};
        n = lie_entries(c, in, index, entries);
    } else if (m.type == RAFT_APPEND_ENTRIES_RESULT) {
        m.append_entries_result.term = term;
        m.append_entries_result.rejected = flags % 2 ? other : 0;
        m.append_entries_result.last_log_index = index;
    } else if (m.type == RAFT_REQUEST_VOTE) {
        m.request_vote =
            (struct raft_request_vote){0, term, from, index, other, flags & 1, flags & 2};
    } else if (m.type == RAFT_REQUEST_VOTE_RESULT) {
        m.request_vote_result.term = term;
        m.request_vote_result.vote_granted = flags & 1;
        m.request_vote_result.pre_vote = flags & 2;
    } else if (m.type == RAFT_INSTALL_SNAPSHOT) {
        m.install_snapshot.term = term;
        m.install_snapshot.last_index = index;
        m.install_snapshot.last_term = other;
        m.install_snapshot.conf_index = flags;
    } else if (m.type == RAFT_TIMEOUT_NOW) {
        m.timeout_now = (struct raft_timeout_now){0, term, index, other};
    }
    guards_push(c, from, 1, &m, entries, n);
    struct gc_message *q = c->queue[c->n_queue - 1];
    q->conf_size = c->nodes[1].disk[1] != NULL ? c->nodes[1].disk[1]->size : 0;
    if (q->conf_size > 0) memcpy(q->conf, c->nodes[1].disk[1]->data, q->conf_size);
    guards_deliver_at(c, c->n_queue - 1);
}

static void act(struct guards *c, struct cursor *in) {
    struct gc_node *n = &c->nodes[1];
    uint8_t op = next(in);
    switch (op % 10) {
    case 0: guards_timeout(c, 1); break;
    case 1: (void)guards_submit(c, 1); break;
    case 2: (void)guards_write(c, 1); break;
    case 3: guards_snapshot(c, 1, op / 10 % 4); break;
    case 4: (void)guards_change(c, 1, 1 + op / 10 % 5, op / 50 % 4 - 1); break;
    case 5: (void)!guard_transfer(n->g, c->now, op / 10 % 5); break;
    case 6: (void)!guard_catch_up(n->g, c->now, op / 10 % 5); break;
    default: lie(c, in); break;
    }
    while (c->n_queue > 0)
        guards_drop_at(c, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct cursor in = cursor_of(span_of(data, size));
    struct guards *c = guards_new(4, 1 + next(&in) % 3, 0, 1);
    c->lazy_disk = true;
    guards_start(c, 1);
    while (in.left > 0 && c->violation[0] == '\0' && c->nodes[1].n_writes < GC_WRITES - 1)
        act(c, &in);
    guards_free(c);
    return 0;
}
