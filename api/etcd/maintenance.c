/* The Maintenance service: alarms, status, hashes, handing over the leadership. Defragmenting gives
 * freed memory back to the system, since there is no file with holes; downgrades there are none.
 * Snapshot is in snapshot.c. */
#include <malloc.h>
#include <stdlib.h>

#include "api/etcd/kv.h"

#define MOVE_MS 5000 /* that another member has for taking the leadership over */

static struct store *store_of_rpc(const struct rpc *r) { return r->api->manager->store; }

/* --- alarms ---------------------------------------------------------------------------------- */

struct alarm_list {
    size_t n;
    Etcdserverpb__AlarmMember rows[ALARMS_MAX];
    Etcdserverpb__AlarmMember *all[ALARMS_MAX]; /* of the message */
};

static void list_alarm(struct alarm_list *list, uint64_t raft_id, enum alarm alarm) {
    Etcdserverpb__AlarmMember *row = &list->rows[list->n];
    *row = (Etcdserverpb__AlarmMember)ETCDSERVERPB__ALARM_MEMBER__INIT;
    row->memberid = raft_id;
    row->alarm = (Etcdserverpb__AlarmType)alarm;
    list->all[list->n++] = row;
}

static void list_alarms(const struct rpc *r, unsigned alarm, struct alarm_list *list) {
    enum alarm raised;
    uint64_t raft_id;
    list->n = 0;
    for (unsigned i = 0; store_alarm_at(store_of_rpc(r), i, &raised, &raft_id); i++)
        if (alarm == 0 || alarm == (unsigned)raised) list_alarm(list, raft_id, raised);
}

static void answer_alarms(struct rpc *r, struct alarm_list *list) {
    Etcdserverpb__ResponseHeader header;
    Etcdserverpb__AlarmResponse answer = ETCDSERVERPB__ALARM_RESPONSE__INIT;
    etcd_header_of(r->api, &header);
    answer.header = &header;
    answer.n_alarms = list->n;
    answer.alarms = list->all;
    rpc_answer(r, &answer.base);
}

/* Answered with the alarm that was raised or cleared. */
static void on_alarm(struct rpc *r, const struct result *result, void *data) {
    const Etcdserverpb__AlarmRequest *m = data;
    struct alarm_list list = {0};
    (void)result;
    if (r == NULL) return;
    list_alarm(&list, m->memberid, (enum alarm)m->alarm);
    answer_alarms(r, &list);
}

/* As all members have it, whichever is asked: a list that lags would hide an alarm. */
static void alarm_current(struct rpc *r, void *data) {
    const Etcdserverpb__AlarmRequest *m = data; /* the call's */
    struct alarm_list list;
    if (r == NULL) return;
    unsigned alarm = (unsigned)m->alarm;
    bool raise = m->action == ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE;
    struct command c = {
        .op = OP_ALARM,
        .alarm = {.alarm = (enum alarm)alarm, .raft_id = m->memberid, .raise = raise}};
    list_alarms(r, alarm, &list);
    bool there = alarm != 0 && store_alarm(store_of_rpc(r), (enum alarm)alarm, m->memberid);
    if (m->action == ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET)
        answer_alarms(r, &list);
    else if (alarm == 0 || alarm > ALARM_CORRUPT || (!raise && !there))
        answer_alarms(r, &(struct alarm_list){0}); /* nothing to do */
    else
        etcd_write(r, &c, on_alarm, data);
}

static void read_alarms(struct rpc *r, const ProtobufCMessage *message) {
    etcd_read(r, alarm_current, (void *)(uintptr_t)message);
}

static void change_alarm(struct rpc *r, const ProtobufCMessage *message) {
    enum err e = caller_root(r->api, &r->caller);
    if (e == OK)
        read_alarms(r, message);
    else
        etcd_fail(r, e, NULL);
}

/* Everybody may look. */
static void maintenance_alarm(struct rpc *r, const ProtobufCMessage *message) {
    const Etcdserverpb__AlarmRequest *m = (const Etcdserverpb__AlarmRequest *)message;
    if (m->action == ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET)
        read_alarms(r, message);
    else
        etcd_manage(r, message, change_alarm);
}

/* --- status ---------------------------------------------------------------------------------- */

static void fill_errors(const struct rpc *r, const struct replica_status *s,
                        Etcdserverpb__StatusResponse *answer, char *errors[4]) {
    static char no_leader[] = "etcdserver: no leader", quota[] = "NOSPACE", corrupt[] = "CORRUPT";
    if (s->leader == 0) errors[answer->n_errors++] = no_leader;
    if (store_alarm(store_of_rpc(r), ALARM_NOSPACE, 0)) errors[answer->n_errors++] = quota;
    if (store_alarm(store_of_rpc(r), ALARM_CORRUPT, 0)) errors[answer->n_errors++] = corrupt;
    answer->errors = errors;
}

static void maintenance_status(struct rpc *r, const ProtobufCMessage *m) {
    static char version[] = ETCD_VERSION, storage[] = "3.5.0";
    struct replica_status s;
    char *errors[4];
    Etcdserverpb__ResponseHeader header;
    Etcdserverpb__StatusResponse answer = ETCDSERVERPB__STATUS_RESPONSE__INIT;
    (void)m;
    replica_status(r->api->manager->replica, &s);
    etcd_header_of(r->api, &header);
    answer.header = &header;
    answer.version = version;
    answer.storageversion = storage;
    answer.dbsize = (int64_t)store_memory(store_of_rpc(r));
    answer.dbsizeinuse = (int64_t)store_memory(store_of_rpc(r));
    answer.dbsizequota = (int64_t)r->api->quota;
    answer.leader = s.leader;
    answer.raftindex = s.commit;
    answer.raftterm = s.term;
    answer.raftappliedindex = s.applied;
    for (unsigned i = 0; i < s.n; i++)
        if (s.members[i].raft_id == s.raft_id)
            answer.islearner = s.members[i].role != REPLICA_VOTER;
    fill_errors(r, &s, &answer, errors);
    rpc_answer(r, &answer.base);
}

/* --- hashes ---------------------------------------------------------------------------------- */

/* Of no version at all, which is what etcd hashes up to a revision below zero: CRC-32C of "key". */
#define HASH_OF_NOTHING 0x40a4756dU

struct hashing {
    struct store_view *view;
    int64_t revision;   /* asked for; 0: now */
    uint64_t compacted; /* out */
    uint32_t hash;      /* out */
    enum err error;     /* out */
};

static void hash_work(void *data) {
    struct hashing *h = data;
    uint64_t revision = h->revision > 0 ? (uint64_t)h->revision : 0;
    h->error = store_view_hash_kv(h->view, revision, &h->hash, &h->compacted);
    if (h->revision < 0) h->hash = HASH_OF_NOTHING;
}

static void answer_hash(struct rpc *r, const struct hashing *h) {
    Etcdserverpb__ResponseHeader header;
    Etcdserverpb__HashKVResponse answer = ETCDSERVERPB__HASH_KVRESPONSE__INIT;
    etcd_header_of(r->api, &header);
    header.revision = (int64_t)store_view_revision(h->view);
    answer.header = &header;
    answer.hash = h->hash;
    answer.compact_revision = h->compacted ? (int64_t)h->compacted : -1; /* as etcd: none yet */
    answer.hash_revision = h->revision ? h->revision : (int64_t)store_view_revision(h->view);
    rpc_answer(r, &answer.base);
}

static void hash_done(struct rpc *r, void *data) {
    struct hashing *h = data;
    if (r != NULL && h->error == OK)
        answer_hash(r, h);
    else if (r != NULL)
        etcd_fail(r, h->error, NULL);
    store_view_free(h->view);
    free(h);
}

static void maintenance_hash_kv(struct rpc *r, const ProtobufCMessage *m) {
    const Etcdserverpb__HashKVRequest *request = (const Etcdserverpb__HashKVRequest *)m;
    struct hashing *h = calloc(1, sizeof *h);
    enum err e = caller_root(r->api, &r->caller);
    if (e == OK && h == NULL) e = ERR_NOMEM;
    if (e == OK) e = store_view_new_with_history(store_of_rpc(r), &h->view);
    if (e != OK) {
        free(h);
        etcd_fail(r, e, NULL);
        return;
    }
    h->revision = request->revision;
    etcd_do(r, hash_work, hash_done, h);
}

/* The running hash of the state, folded: equal on members that are equal, and nothing more. */
static void maintenance_hash(struct rpc *r, const ProtobufCMessage *m) {
    struct replica_status s;
    Etcdserverpb__ResponseHeader header;
    Etcdserverpb__HashResponse answer = ETCDSERVERPB__HASH_RESPONSE__INIT;
    enum err e = caller_root(r->api, &r->caller);
    (void)m;
    if (e != OK) {
        etcd_fail(r, e, NULL);
        return;
    }
    replica_status(r->api->manager->replica, &s);
    etcd_header_of(r->api, &header);
    answer.header = &header;
    answer.hash = get_u32(s.hash);
    rpc_answer(r, &answer.base);
}

/* --- memory ---------------------------------------------------------------------------------- */

static void trim_work(void *data) {
    (void)data;
    (void)malloc_trim(0);
}

/* Without a header, as etcd answers. */
static void trim_done(struct rpc *r, void *data) {
    (void)data;
    if (r == NULL) return;
    Etcdserverpb__DefragmentResponse answer = ETCDSERVERPB__DEFRAGMENT_RESPONSE__INIT;
    rpc_answer(r, &answer.base);
}

static void maintenance_defragment(struct rpc *r, const ProtobufCMessage *m) {
    enum err e = caller_root(r->api, &r->caller);
    (void)m;
    if (e == OK)
        etcd_do(r, trim_work, trim_done, NULL);
    else
        etcd_fail(r, e, NULL);
}

/* --- leadership ------------------------------------------------------------------------------ */

/* The old leader's answer to a hand-over may get lost with its leadership: who leads tells. */
struct move {
    struct chore chore;
    struct rpc *r;        /* NULL: the client has left */
    uint64_t target;      /* raft id */
    uint64_t deadline_ms; /* on the manager's clock */
};

static void move_gone(struct rpc *r) {
    struct move *move = r->data;
    move->r = NULL;
    rpc_fail(r, ERR_CLOSED, NULL);
}

static void answer_move(struct rpc *r) {
    Etcdserverpb__ResponseHeader header;
    Etcdserverpb__MoveLeaderResponse answer = ETCDSERVERPB__MOVE_LEADER_RESPONSE__INIT;
    etcd_header_of(r->api, &header);
    answer.header = &header;
    rpc_answer(r, &answer.base);
}

static bool move_step(struct chore *chore) {
    struct move *move = (struct move *)(void *)chore;
    struct rpc *r = move->r;
    if (r != NULL) {
        struct manager *m = r->api->manager;
        bool moved = m->leader == move->target;
        if (!moved && m->clock.now_ms(&m->clock) < move->deadline_ms) return true;
        r->gone = NULL;
        if (moved)
            answer_move(r);
        else
            etcd_fail(r, ERR_TIMEOUT, NULL);
    }
    free(move);
    return false;
}

static void maintenance_move_leader(struct rpc *r, const ProtobufCMessage *message) {
    const Etcdserverpb__MoveLeaderRequest *m = (const Etcdserverpb__MoveLeaderRequest *)message;
    struct manager *manager = r->api->manager;
    struct why why = {0};
    enum err e = caller_root(r->api, &r->caller);
    if (e == OK && manager->leader != manager->self.raft_id) e = ERR_NOT_LEADER;
    if (e == OK && replica_transfer(manager->replica, m->targetid, &why) != OK) {
        rpc_fail(r, ERR_PRECONDITION, "etcdserver: bad leader transferee");
        return;
    }
    struct move *move = e == OK ? calloc(1, sizeof *move) : NULL;
    if (move == NULL) {
        etcd_fail(r, e == OK ? ERR_NOMEM : e, NULL);
        return;
    }
    *move = (struct move){.chore = {.step = move_step},
                          .r = r,
                          .target = m->targetid,
                          .deadline_ms = manager->clock.now_ms(&manager->clock) + MOVE_MS};
    r->data = move;
    r->gone = move_gone;
    manager_chore(manager, &move->chore);
}

static void maintenance_downgrade(struct rpc *r, const ProtobufCMessage *m) {
    (void)m;
    rpc_fail(r, ERR_UNSUPPORTED, "etcdserver: there is no older version to go back to");
}

const struct method maintenance_methods[] = {
    {"/etcdserverpb.Maintenance/Alarm", "/v3/maintenance/alarm", METHOD_UNARY, false, false,
     &etcdserverpb__alarm_request__descriptor, &etcdserverpb__alarm_response__descriptor,
     maintenance_alarm, NULL, false},
    {"/etcdserverpb.Maintenance/Status", "/v3/maintenance/status", METHOD_UNARY, true, false,
     &etcdserverpb__status_request__descriptor, &etcdserverpb__status_response__descriptor,
     maintenance_status, NULL, false},
    {"/etcdserverpb.Maintenance/Defragment", "/v3/maintenance/defragment", METHOD_UNARY, true,
     false, &etcdserverpb__defragment_request__descriptor,
     &etcdserverpb__defragment_response__descriptor, maintenance_defragment, NULL, false},
    {"/etcdserverpb.Maintenance/Hash", "/v3/maintenance/hash", METHOD_UNARY, true, false,
     &etcdserverpb__hash_request__descriptor, &etcdserverpb__hash_response__descriptor,
     maintenance_hash, NULL, false},
    {"/etcdserverpb.Maintenance/HashKV", "/v3/maintenance/hashkv", METHOD_UNARY, true, false,
     &etcdserverpb__hash_kvrequest__descriptor, &etcdserverpb__hash_kvresponse__descriptor,
     maintenance_hash_kv, NULL, false},
    {"/etcdserverpb.Maintenance/Snapshot", "/v3/maintenance/snapshot", METHOD_SERVER_STREAM, false,
     false, &etcdserverpb__snapshot_request__descriptor,
     &etcdserverpb__snapshot_response__descriptor, maintenance_snapshot, NULL, false},
    {"/etcdserverpb.Maintenance/MoveLeader", "/v3/maintenance/transfer-leadership", METHOD_UNARY,
     false, false, &etcdserverpb__move_leader_request__descriptor,
     &etcdserverpb__move_leader_response__descriptor, maintenance_move_leader, NULL, true},
    {"/etcdserverpb.Maintenance/Downgrade", "/v3/maintenance/downgrade", METHOD_UNARY, false, false,
     &etcdserverpb__downgrade_request__descriptor, &etcdserverpb__downgrade_response__descriptor,
     maintenance_downgrade, NULL, false},
    {.path = NULL},
};
