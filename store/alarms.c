/* The alarms that members have raised: a handful, in order, so that their bytes are the same on
 * every member. */
#include "store/state.h"

static int raised_order(struct raised a, struct raised b) {
    if (a.alarm != b.alarm) return a.alarm < b.alarm ? -1 : 1;
    return (a.raft_id > b.raft_id) - (a.raft_id < b.raft_id);
}

bool alarms_any(const struct alarms *a, enum alarm alarm, uint64_t raft_id) {
    for (unsigned i = 0; i < a->n; i++)
        if (a->at[i].alarm == alarm && (raft_id == 0 || a->at[i].raft_id == raft_id)) return true;
    return false;
}

RESULT alarms_raise(struct alarms *a, struct raised r) {
    unsigned at = 0;
    while (at < a->n && raised_order(a->at[at], r) < 0)
        at++;
    if (at < a->n && raised_order(a->at[at], r) == 0) return OK;
    if (a->n == ALARMS_MAX) return ERR_BUSY;
    memmove(a->at + at + 1, a->at + at, (a->n - at) * sizeof a->at[0]);
    a->at[at] = r;
    a->n++;
    return OK;
}

void alarms_clear(struct alarms *a, struct raised r) {
    unsigned kept = 0;
    for (unsigned i = 0; i < a->n; i++) {
        struct raised x = a->at[i];
        if (x.alarm != r.alarm || (r.raft_id != 0 && x.raft_id != r.raft_id)) a->at[kept++] = x;
    }
    a->n = kept;
}

void alarms_encode(const struct alarms *a, uint8_t out[ALARMS_MAX * ALARM_SIZE]) {
    for (unsigned i = 0; i < a->n; i++) {
        out[i * ALARM_SIZE] = a->at[i].alarm;
        put_u64(out + i * ALARM_SIZE + 1, a->at[i].raft_id);
    }
}
