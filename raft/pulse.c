/* A member that applies a long command, such as the deletion of a million keys, neither reads nor
 * writes meanwhile, and must not be taken for dead:
 *
 *   - from within the command (machine_busy) it says again what it said last: the leader an
 *     AppendEntries without entries to each member, a follower its acknowledgement to the leader.
 *     Raft allows for messages that come twice, so a pulse is nothing new to anybody, and it resets
 *     the timers of those who hear it;
 *   - after a stall, of this or any other kind, silence proves nothing before what has come in
 *     meanwhile is read: a timer that is seen late has a part of an election time-out to go.
 *
 * Both only put off an election, and not for long: who really is gone sends no pulse, and the next
 * excuse is given only when somebody was heard after the last one. */
#include "raft/replica_internal.h"

static uint64_t interval_ms(const struct replica *r) { return r->config.election_ms / PULSES; }

void pulse_acked(struct replica *r, uint64_t to, const struct raft_append_entries_result *said) {
    if (said->rejected != 0) return;
    r->pulse.said = *said;
    r->pulse.to = to;
}

static void pulse_leader(struct replica *r) {
    for (unsigned i = 0; i < r->peers_n; i++) {
        const struct peer_state *p = &r->peers[i];
        if (p->said.term == r->term)
            replica_send(r, p->id, &(struct wire_message){.type = WIRE_APPEND, .append = p->said});
    }
}

static void pulse_follower(struct replica *r) {
    struct wire_message m = {.type = WIRE_APPEND_RESULT, .append_result = r->pulse.said};
    if (r->pulse.said.term == r->term && r->pulse.to == r->leader) replica_send(r, r->leader, &m);
}

static void on_busy(void *ctx) {
    struct replica *r = ctx;
    uint64_t now = r->env.clock->now_ms(r->env.clock);
    if (r->pulse.last_ms < r->now_ms) r->pulse.last_ms = r->now_ms;
    if (now < r->pulse.last_ms + interval_ms(r) || r->env.flush == NULL) return;
    r->pulse.last_ms = now;
    if (r->leading)
        pulse_leader(r);
    else
        pulse_follower(r);
    r->env.flush(r->env.ctx);
}

void pulse_start(struct replica *r) {
    r->env.machine->busy = on_busy;
    r->env.machine->busy_ctx = r;
}

void pulse_late(struct replica *r, uint64_t due_ms) {
    if (due_ms != 0 && r->now_ms > due_ms + r->config.heartbeat_ms)
        guard_excuse(r->guard, r->now_ms, interval_ms(r));
}
