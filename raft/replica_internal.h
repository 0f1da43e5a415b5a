/* What the files of the replica give each other; the state that they share is in replica_state.h.
 *
 *     replica.c    life, the step loop, apply
 *     appends.c    entries to the other members
 *     propose.c    writes: inbox, batches, forwarding
 *     reads.c      linearizable reads
 *     calls.c      questions to the leader
 *     members.c    configuration, promotion, transfer
 *     snapshots.c  taking, sending
 *     install.c    receiving
 *     pulse.c      a busy member is alive
 *
 * Every public entry point ends in replica_settle, which drains the consequences of the steps
 * taken: new configurations to the engine, committed entries to the machine, gathered entries to
 * the log, the timer. The engine's update hook only records; it never steps. */
#ifndef CONCLAVE_REPLICA_INTERNAL_H
#define CONCLAVE_REPLICA_INTERNAL_H

#include "raft/replica_state.h"

/* replica.c */
void replica_fail(struct replica *r, enum err e, const char *text);
void replica_enter(struct replica *r);      /* takes the time; first in every entry point */
uint64_t replica_now_us(struct replica *r); /* finer, and of this very moment */
void replica_settle(struct replica *r);     /* last in every entry point */
void replica_send(struct replica *r, uint64_t to, const struct wire_message *m);
void replica_say(struct replica *r, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool replica_step(struct replica *r, enum err e); /* after a guard call: false when it was fatal */
bool replica_way_to_leader(const struct replica *r); /* another one leads, and can be sent to */
struct peer_state *replica_peer(struct replica *r, uint64_t id); /* NULL: no room */
const struct conf_item *replica_conf_at(const struct replica *r,
                                        uint64_t index); /* newest <= index */
bool replica_note_conf(struct replica *r, uint64_t index, struct span bytes);

/* pulse.c */
void pulse_start(struct replica *r);
void pulse_acked(struct replica *r, uint64_t to, const struct raft_append_entries_result *said);
void pulse_late(struct replica *r, uint64_t due_ms); /* a tick that was due then happens now */

/* appends.c */
void appends_send(struct replica *r, uint64_t to, const struct raft_append_entries *args);
void appends_connected(struct replica *r, uint64_t peer); /* what was under way may be lost */
/* A client of `peer` waits until it has applied `index`. */
void appends_await(struct replica *r, uint64_t peer, uint64_t index);
void appends_settle(struct replica *r); /* tells the others what is committed, when it is time */

/* propose.c */
void propose_start(struct replica *r);
void propose_turn(struct replica *r); /* inbox -> entries, or to the leader */
void propose_applied(struct replica *r,
                     const struct entry *e);            /* applies a COMMAND entry, answers ours */
void propose_passed(struct replica *r, uint64_t index); /* a snapshot took us past it */
void propose_truncated(struct replica *r, uint64_t from);
void propose_settle(struct replica *r); /* answers what we have now applied too */
void propose_deadlines(struct replica *r);
void propose_leader_changed(struct replica *r);
void propose_end(struct replica *r,
                 bool tell);                 /* everything that waits ends; tell: with callbacks */
bool propose_ready(const struct replica *r); /* the leader has something to make an entry of */
bool propose_waiting(const struct replica *r);
void forward_receive(struct replica *r, uint64_t from, const struct wire_forward *f);
void forwarded_receive(struct replica *r, uint64_t from, const struct wire_forwarded *f);

/* calls.c */
void calls_turn(struct replica *r);
void calls_receive(struct replica *r, uint64_t from, const struct wire_forward *f);
bool calls_forwarded(struct replica *r, uint64_t from, const struct wire_forwarded *f);
void calls_deadlines(struct replica *r);
void calls_leader_changed(struct replica *r);
void calls_end(struct replica *r, bool tell);

/* reads.c */
void reads_start(struct replica *r);
void reads_turn(struct replica *r);
void reads_tick(struct replica *r);   /* deadlines, PINGs again */
void reads_settle(struct replica *r); /* answers what is confirmed and applied */
void reads_leader_changed(struct replica *r);
void reads_ping(struct replica *r, uint64_t from, const struct wire_ping *m);
void reads_pong(struct replica *r, uint64_t from, const struct wire_pong *m);
void reads_forward(struct replica *r, uint64_t from, const struct wire_forward *f);
bool reads_forwarded(struct replica *r, uint64_t from, const struct wire_forwarded *f);
void reads_end(struct replica *r, bool tell);
bool reads_waiting(const struct replica *r);

/* members.c */
void members_tick(struct replica *r); /* catch-up, promotion, the outcome of a change */
void members_leader_changed(struct replica *r);
void members_end(struct replica *r, bool tell);
const struct raft_server *members_find(const struct replica *r, uint64_t id); /* NULL: none */
RESULT members_only(uint64_t raft_id, struct buf *out); /* an encoded configuration of one voter */

/* snapshots.c */
void snapshots_tick(struct replica *r); /* starts one when it is time; streams; reseal */
void snapshots_offer(struct replica *r,
                     uint64_t to); /* the engine wants `to` to get our snapshot */
void snapshots_want(struct replica *r, uint64_t from, const struct wire_want *m);
void snapshots_leader_changed(struct replica *r);
uint64_t snapshots_due_ms(const struct replica *r); /* the next chunk may go then; 0: none waits */
bool snapshots_busy(const struct replica *r);
bool snapshots_job(const struct replica *r); /* a job is under way */
void snapshots_close(struct replica *r);     /* ends what no job holds */
void snapshots_drop(struct replica *r);      /* frees everything; no job may be under way */

/* install.c */
void install_offer(struct replica *r, uint64_t from, const struct wire_offer *m);
void install_chunk(struct replica *r, uint64_t from, const struct wire_chunk *m);
void install_tick(struct replica *r); /* gives up what nobody sends or needs any more */
bool install_busy(const struct replica *r);
void install_drop(struct replica *r);
bool install_job(const struct replica *r); /* a job is under way */
void install_close(struct replica *r);     /* ends what no job holds */

#endif
