/* Writes. A proposal waits in the inbox until the loop's turn; then the leader makes one entry of
 * all that waits (u32 length + bytes a command), and a follower sends each to the leader. Outcomes
 * are exact:
 *
 *     inbox --entry--> batch --applied, same term--> OK
 *       |                |------ applied, other term --> ERR_NOT_LEADER (certainly not)
 *       |                `------ truncated, deadline, snapshot --> ERR_MAYBE_APPLIED
 *       `--WIRE_FORWARD--> forwarded --answer--> its outcome, once this member has applied it
 *                             |                  too; NOT_LEADER: back into the inbox
 *                             `--deadline, leader gone--> ERR_MAYBE_APPLIED
 *
 * A proposal in the inbox past its deadline ends with ERR_NO_LEADER: certainly not applied. It
 * stays there while there is no way to the leader. */
#include "raft/replica_internal.h"

#include <assert.h>
#include <stdlib.h>

#define COMMAND_OVERHEAD 4 /* its length in the entry */

static void queue_init(struct queue *q) { *q = (struct queue){.tail = &q->head}; }

static void queue_push(struct queue *q, struct proposal *p) {
    p->next = NULL;
    *q->tail = p;
    q->tail = &p->next;
    q->n++;
    q->bytes += p->command.size;
}

static struct proposal *queue_pop(struct queue *q) {
    struct proposal *p = q->head;
    if (p == NULL) return NULL;
    q->head = p->next;
    if (q->head == NULL) q->tail = &q->head;
    q->n--;
    q->bytes -= p->command.size;
    return p;
}

static void queue_take(struct queue *q, struct queue *out) {
    queue_init(out);
    struct proposal *p;
    while ((p = queue_pop(q)) != NULL)
        queue_push(out, p);
}

void propose_start(struct replica *r) {
    queue_init(&r->inbox);
    queue_init(&r->forwarded);
    r->batches_tail = &r->batches;
    r->answered_tail = &r->answered;
}

bool propose_waiting(const struct replica *r) {
    return r->inbox.n > 0 || r->forwarded.n > 0 || r->answered != NULL || r->batches != NULL ||
           r->calls != NULL;
}

static void answer(struct proposal *p, enum err e, uint64_t index, struct span result) {
    p->done(p, e, index, result);
}

static void answer_all(struct proposal *p, enum err e) {
    for (struct proposal *next; p != NULL; p = next) {
        next = p->next;
        answer(p, e, 0, span_of(NULL, 0));
    }
}

RESULT replica_propose(struct replica *r, struct proposal *p) {
    if (r->failed != OK || r->closing) return ERR_CLOSED;
    if (p->command.size > COMMAND_MAX) return ERR_TOO_LARGE;
    if (p->here && !r->leading) return ERR_NOT_LEADER;
    if (r->log.full) return ERR_NOSPACE;
    if (r->inbox.n >= INBOX_MAX || r->inbox.bytes + p->command.size > INBOX_BYTES_MAX)
        return ERR_BUSY;
    if (p->deadline_ms == 0)
        p->deadline_ms = r->env.clock->now_ms(r->env.clock) + PROPOSAL_TIMEOUT_MS;
    p->index = p->term = 0;
    queue_push(&r->inbox, p);
    r->env.wake(r->env.ctx);
    return OK;
}

/* --- the leader's side: entries --- */

/* A record of the log must hold the entry, also where segments are small. */
static size_t entry_max(const struct replica *r) {
    uint64_t most = r->config.segment_size / 4;
    return most < ENTRY_MAX ? (size_t)most : (size_t)ENTRY_MAX;
}

static size_t count_commands(const struct replica *r, size_t *bytes) {
    size_t n = 0, most = entry_max(r);
    *bytes = 0;
    for (const struct proposal *p = r->inbox.head; p != NULL; p = p->next) {
        size_t more = p->command.size + COMMAND_OVERHEAD;
        if (n > 0 && (*bytes + more > most || n == ENTRY_COMMANDS_MAX)) break;
        *bytes += more;
        n++;
    }
    return n;
}

static void fill_entry(const struct replica *r, struct entry *e, size_t n) {
    uint8_t *at = e->data;
    const struct proposal *p = r->inbox.head;
    for (size_t i = 0; i < n; i++, p = p->next) {
        put_u32(at, (uint32_t)p->command.size);
        if (p->command.size > 0) memcpy(at + COMMAND_OVERHEAD, p->command.at, p->command.size);
        at += COMMAND_OVERHEAD + p->command.size;
    }
}

static void move_to_batch(struct replica *r, struct batch *b, size_t n) {
    struct proposal **tail = &b->head;
    for (size_t i = 0; i < n; i++) {
        struct proposal *p = queue_pop(&r->inbox);
        p->index = b->index;
        p->term = b->term;
        p->next = NULL;
        *tail = p;
        tail = &p->next;
    }
    *r->batches_tail = b;
    r->batches_tail = &b->next;
    r->inflight_bytes += b->bytes;
    r->submitted_ms = r->now_ms;
}

/* One entry of what waits. The batch is known before the step, since the step may commit it at
 * once. */
static RESULT submit_entry(struct replica *r) {
    size_t bytes;
    uint64_t began_us = replica_now_us(r);
    size_t n = count_commands(r, &bytes);
    struct entry *e;
    struct batch *b = calloc(1, sizeof *b);
    if (b == NULL) return ERR_NOMEM;
    enum err outcome = entry_new(r->log.last + 1, raft_current_term(guard_raft(r->guard)),
                                 ENTRY_COMMAND, bytes, &e);
    if (outcome != OK) {
        free(b);
        return outcome;
    }
    fill_entry(r, e, n);
    r->step.entries = &e;
    r->step.first = e->index;
    r->step.n = 1;
    outcome = guard_submit(r->guard, r->now_ms, e);
    (void)replica_step(r, outcome);
    if (outcome == OK) {
        *b = (struct batch){
            .index = e->index, .term = e->term, .began_us = began_us, .bytes = bytes};
        move_to_batch(r, b, n);
    } else {
        free(b);
    }
    entry_drop(e);
    return outcome;
}

bool propose_ready(const struct replica *r) {
    const struct raft *raft = guard_raft(r->guard);
    return r->leading && raft_state((struct raft *)(uintptr_t)raft) == RAFT_LEADER &&
           raft_transferee(raft) == 0 && r->inbox.n > 0 && !r->log.full &&
           r->inflight_bytes < INFLIGHT_BYTES_MAX && r->log.lagging_bytes < INFLIGHT_BYTES_MAX &&
           r->log.last - r->commit < INFLIGHT_ENTRIES_MAX / 2;
}

/* --- the follower's side: forwarding --- */

static void forward_one(struct replica *r, struct proposal *p) {
    struct wire_message m = {
        .type = WIRE_FORWARD,
        .forward = {.id = ++r->next_id, .kind = FORWARD_COMMAND, .body = p->command}};
    p->index = r->next_id;
    p->term = r->leader;
    queue_push(&r->forwarded, p);
    replica_send(r, r->leader, &m);
}

/* The disk has filled up since they were taken; they would wait for their deadline, and then hear
 * something else. */
static void refuse_waiting(struct replica *r) {
    struct queue all;
    struct proposal *p;
    queue_take(&r->inbox, &all);
    while ((p = queue_pop(&all)) != NULL)
        answer(p, ERR_NOSPACE, 0, span_of(NULL, 0));
}

void propose_turn(struct replica *r) {
    if (r->leading && r->log.full && r->inbox.n > 0) refuse_waiting(r);
    while (propose_ready(r) && r->failed == OK)
        if (submit_entry(r) != OK) break;
    if (r->failed != OK) return;
    while (r->inbox.head != NULL && r->forwarded.n + r->answered_n < INBOX_MAX &&
           replica_way_to_leader(r))
        forward_one(r, queue_pop(&r->inbox));
}

/* A write that another member forwarded to us. */
struct remote_proposal {
    struct proposal proposal; /* first: freed as one */
    struct replica *r;        /* the replica */
    uint64_t from, id;        /* whom to answer */
    uint8_t bytes[];          /* the command */
};

static void remote_answer(struct replica *r, uint64_t to, uint64_t id, enum err e, uint64_t index,
                          struct span body) {
    struct wire_message m = {
        .type = WIRE_FORWARDED,
        .forwarded = {.id = id, .error = (uint16_t)e, .index = index, .body = body}};
    replica_send(r, to, &m);
}

static void remote_done(struct proposal *p, enum err e, uint64_t index, struct span result) {
    struct remote_proposal *remote = p->ctx;
    if (remote->r->failed == OK)
        remote_answer(remote->r, remote->from, remote->id, e == ERR_NO_LEADER ? ERR_NOT_LEADER : e,
                      index, result);
    if (e == OK) appends_await(remote->r, remote->from, index);
    free(remote);
}

void forward_receive(struct replica *r, uint64_t from, const struct wire_forward *f) {
    if (f->kind == FORWARD_READ) {
        reads_forward(r, from, f);
        return;
    }
    if (f->kind == FORWARD_CALL) {
        calls_receive(r, from, f);
        return;
    }
    enum err e = r->leading ? OK : ERR_NOT_LEADER;
    struct remote_proposal *remote = NULL;
    if (e == OK) {
        remote = calloc(1, sizeof *remote + f->body.size);
        if (remote == NULL) e = ERR_NOMEM;
    }
    if (e == OK) {
        *remote = (struct remote_proposal){.r = r, .from = from, .id = f->id};
        if (f->body.size > 0) memcpy(remote->bytes, f->body.at, f->body.size);
        remote->proposal = (struct proposal){
            .command = span_of(remote->bytes, f->body.size), .done = remote_done, .ctx = remote};
        e = replica_propose(r, &remote->proposal);
    }
    if (e == OK) return;
    free(remote);
    remote_answer(r, from, f->id, e, 0, span_of(NULL, 0));
}

static struct proposal *forwarded_remove(struct replica *r, uint64_t id, uint64_t from) {
    for (struct proposal **at = &r->forwarded.head; *at != NULL; at = &(*at)->next) {
        struct proposal *p = *at;
        if (p->index != id || p->term != from) continue;
        *at = p->next;
        if (*at == NULL) r->forwarded.tail = at;
        r->forwarded.n--;
        r->forwarded.bytes -= p->command.size;
        return p;
    }
    return NULL;
}

/* The leader has applied it, we have not: a client that read here would not find its write, or
 * would see revisions go back. The answer waits. */
struct answered {
    struct proposal *proposal; /* whose it is */
    uint64_t index;            /* of its entry */
    struct answered *next;     /* came later */
    size_t size;               /* of the result */
    uint8_t result[];          /* a copy */
};

static void keep_answer(struct replica *r, struct proposal *p, const struct wire_forwarded *f) {
    struct answered *a = calloc(1, sizeof *a + f->body.size);
    if (a == NULL) {
        answer(p, ERR_MAYBE_APPLIED, 0, span_of(NULL, 0));
        return;
    }
    *a = (struct answered){.proposal = p, .index = f->index, .size = f->body.size};
    if (f->body.size > 0) memcpy(a->result, f->body.at, f->body.size);
    *r->answered_tail = a;
    r->answered_tail = &a->next;
    r->answered_n++;
}

void forwarded_receive(struct replica *r, uint64_t from, const struct wire_forwarded *f) {
    if (reads_forwarded(r, from, f) || calls_forwarded(r, from, f)) return;
    struct proposal *p = forwarded_remove(r, f->id, from);
    if (p == NULL) return;
    if (f->error == ERR_NOT_LEADER && p->deadline_ms > r->now_ms)
        queue_push(&r->inbox,
                   p); /* certainly not applied: again, to whoever leads; on the next tick */
    else if (f->error == OK && f->index > r->applied)
        keep_answer(r, p, f);
    else
        answer(p, (enum err)f->error, f->index, f->body);
}

/* Unlinks and answers the one that `at` points to; everything may have changed after. */
static void answer_kept(struct replica *r, struct answered **at, enum err e) {
    struct answered *a = *at;
    *at = a->next;
    if (*at == NULL) r->answered_tail = at;
    r->answered_n--;
    answer(a->proposal, e, a->index, span_of(a->result, a->size));
    free(a);
}

/* A leader answers in the order in which it applies. */
void propose_settle(struct replica *r) {
    while (r->answered != NULL && r->answered->index <= r->applied)
        answer_kept(r, &r->answered, OK);
}

static void expire_answered(struct replica *r) {
    struct answered **at = &r->answered;
    while (*at != NULL)
        if ((*at)->proposal->deadline_ms <= r->now_ms) {
            answer_kept(r, at, ERR_MAYBE_APPLIED);
            at = &r->answered;
        } else {
            at = &(*at)->next;
        }
}

/* --- outcomes --- */

static void pop_batch(struct replica *r) {
    struct batch *b = r->batches;
    r->batches = b->next;
    if (r->batches == NULL) r->batches_tail = &r->batches;
    r->inflight_bytes -= b->bytes;
    free(b);
}

/* What the streams of snapshots go by. */
static void note_committed(struct replica *r, const struct batch *b) {
    uint64_t now = replica_now_us(r);
    if (now > b->began_us) pace_note(&r->pace, now - b->began_us);
}

/* Applies one command; answers the proposal that it came from, if it is one of ours. */
static bool apply_command(struct replica *r, const struct entry *e, struct span command,
                          struct proposal *p) {
    struct why why = {0};
    struct buf *result = p != NULL ? &r->result : NULL;
    buf_clear(&r->result);
    enum err outcome = OK;
    if (command.size > 0)
        outcome = r->env.machine->apply(r->env.machine, e->index, command, result, &why);
    if (outcome != OK) {
        replica_fail(r, outcome, why.text);
        return false;
    }
    if (p != NULL) answer(p, OK, e->index, buf_span(&r->result));
    return true;
}

static void apply_commands(struct replica *r, const struct entry *held, struct proposal *p) {
    struct cursor c = cursor_of(span_of(held->data, held->size));
    while (c.left > 0) {
        struct span command;
        struct proposal *next = p != NULL ? p->next : NULL;
        if (cursor_block(&c, COMMAND_MAX, &command) != OK) {
            replica_fail(r, ERR_CORRUPT, "an entry of the log can't be read");
            answer_all(p, ERR_MAYBE_APPLIED);
            return;
        }
        if (!apply_command(r, held, command, p)) {
            answer_all(p, ERR_MAYBE_APPLIED);
            return;
        }
        p = next;
    }
}

void propose_applied(struct replica *r, const struct entry *e) {
    struct proposal *p = NULL;
    if (r->batches != NULL && r->batches->index == e->index) {
        struct proposal *head = r->batches->head;
        bool same = r->batches->term == e->term;
        note_committed(r, r->batches);
        pop_batch(r);
        if (same)
            p = head;
        else
            answer_all(head, ERR_NOT_LEADER);
    }
    if (e->type != ENTRY_COMMAND) return;
    struct entry *held = entry_hold((struct entry *)(uintptr_t)e);
    apply_commands(r, held, p);
    entry_drop(held);
}

void propose_passed(struct replica *r, uint64_t index) {
    while (r->batches != NULL && r->batches->index <= index) {
        struct proposal *head = r->batches->head;
        pop_batch(r);
        answer_all(head, ERR_MAYBE_APPLIED);
    }
}

/* A new leader's entries take their place. Another member may still hold ours, win a later election
 * with them and commit them, so nothing is certain. */
void propose_truncated(struct replica *r, uint64_t from) {
    struct batch **at = &r->batches;
    while (*at != NULL && (*at)->index < from)
        at = &(*at)->next;
    struct batch *rest = *at;
    *at = NULL;
    r->batches_tail = at;
    for (struct batch *b = rest, *next; b != NULL; b = next) {
        next = b->next;
        r->inflight_bytes -= b->bytes;
        answer_all(b->head, ERR_MAYBE_APPLIED);
        free(b);
    }
}

static void expire(struct replica *r, struct queue *q, enum err e) {
    struct queue all;
    queue_take(q, &all);
    struct proposal *p;
    while ((p = queue_pop(&all)) != NULL)
        if (p->deadline_ms <= r->now_ms)
            answer(p, e, 0, span_of(NULL, 0));
        else
            queue_push(q, p);
}

static void expire_batches(struct replica *r) {
    for (struct batch *b = r->batches; b != NULL; b = b->next) {
        if (b->head == NULL || b->head->deadline_ms > r->now_ms) continue;
        struct proposal *head =
            b->head; /* one entry's proposals share their fate: the first one's deadline */
        b->head = NULL;
        answer_all(head, ERR_MAYBE_APPLIED);
    }
}

static bool any_due(const struct queue *q, uint64_t now_ms) {
    for (const struct proposal *p = q->head; p != NULL; p = p->next)
        if (p->deadline_ms <= now_ms) return true;
    return false;
}

void propose_deadlines(struct replica *r) {
    if (any_due(&r->inbox, r->now_ms)) expire(r, &r->inbox, ERR_NO_LEADER);
    if (any_due(&r->forwarded, r->now_ms)) expire(r, &r->forwarded, ERR_MAYBE_APPLIED);
    expire_answered(r);
    expire_batches(r);
}

/* What only the leader of then was to do, and is not in its log, is not done by the next one. */
static void drop_here(struct replica *r) {
    struct queue all;
    queue_take(&r->inbox, &all);
    struct proposal *p;
    while ((p = queue_pop(&all)) != NULL)
        if (p->here)
            answer(p, ERR_NOT_LEADER, 0, span_of(NULL, 0));
        else
            queue_push(&r->inbox, p);
}

/* What was sent to the old leader may or may not come back; it will not be waited for past a while.
 */
void propose_leader_changed(struct replica *r) {
    drop_here(r);
    if (r->forwarded.n > 0) {
        struct queue all;
        queue_take(&r->forwarded, &all);
        answer_all(all.head, ERR_MAYBE_APPLIED);
    }
    r->env.wake(r->env.ctx);
}

/* A crash: callers get no answer, but what we made for other members is ours to free. */
static void drop(struct proposal *p) {
    if (p->done == remote_done) free(p->ctx);
}

static void drop_all(struct proposal *p) {
    for (struct proposal *next; p != NULL; p = next) {
        next = p->next;
        drop(p);
    }
}

static void end_answered(struct replica *r, bool tell) {
    struct answered *all = r->answered;
    r->answered = NULL;
    r->answered_tail = &r->answered;
    r->answered_n = 0;
    for (struct answered *a = all, *next; a != NULL; a = next) {
        next = a->next;
        if (tell)
            answer(a->proposal, ERR_MAYBE_APPLIED, 0, span_of(NULL, 0));
        else
            drop(a->proposal);
        free(a);
    }
}

/* The engine is going away: nothing says any more what becomes of what it had. */
void propose_end(struct replica *r, bool tell) {
    struct queue inbox, forwarded;
    queue_take(&r->inbox, &inbox);
    queue_take(&r->forwarded, &forwarded);
    struct batch *batches = r->batches;
    propose_start(r);
    r->batches = NULL;
    r->batches_tail = &r->batches;
    r->inflight_bytes = 0;
    end_answered(r, tell);
    if (tell) {
        answer_all(inbox.head, ERR_CLOSED);
        answer_all(forwarded.head, ERR_MAYBE_APPLIED);
    } else {
        drop_all(inbox.head);
        drop_all(forwarded.head);
    }
    for (struct batch *b = batches, *next; b != NULL; b = next) {
        next = b->next;
        if (tell)
            answer_all(b->head, ERR_MAYBE_APPLIED);
        else
            drop_all(b->head);
        free(b);
    }
}
