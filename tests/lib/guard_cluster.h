/* A tiny cluster of guards in memory, for scenarios that are told step by step: every message waits
 * in one queue until the test delivers or drops it, every write waits until the test lets it be
 * durable, time goes on when the test says so. Nodes are numbered from 1. A node's state machine is
 * the number of the last entry applied; its snapshots are markers of (index, term, configuration).
 *
 * It watches on its own, and keeps the first violation as a sentence: two leaders in a term, a
 * committed entry that differs or is missing from a later leader's log, commit going back, an entry
 * applied that is not there. Used by tests/unit/test_guard*.c only. */
#ifndef CONCLAVE_TESTS_GUARD_CLUSTER_H
#define CONCLAVE_TESTS_GUARD_CLUSTER_H

#include "raft/guard.h"

#define GC_NODES        6    /* ids 1 .. GC_NODES - 1 */
#define GC_LOG          1024 /* highest index, + 1 */
#define GC_TERMS        1024 /* highest term watched, + 1 */
#define GC_QUEUE        4096 /* messages under way */
#define GC_WRITES       256  /* writes under way on a node */
#define GC_CONF         1024 /* bytes of an encoded configuration */
#define GC_ELECTION_MS  300
#define GC_HEARTBEAT_MS 30

struct gc_snapshot {
    struct snapshot_meta meta; /* conf points to conf below; index 0: none */
    uint8_t conf[GC_CONF];     /* its bytes */
};

/* A write to the log, or (entries NULL, n 0) an installed snapshot. */
struct gc_write {
    uint64_t index;         /* of the first entry; what was there and after is cut */
    struct entry **entries; /* n of them */
    size_t n;               /* 0: install */
    uint64_t epoch;         /* guard_epoch when it was given */
};

struct gc_node {
    struct guard *g;                   /* NULL: down */
    struct guards *c;                  /* of */
    uint64_t id;                       /* own */
    struct entry *log[GC_LOG];         /* in memory, by index */
    uint64_t first, last;              /* of log */
    struct entry *disk[GC_LOG];        /* durable */
    uint64_t disk_first, disk_last;    /* of disk */
    uint64_t term, vote;               /* durable */
    struct gc_snapshot snapshot;       /* durable */
    struct gc_snapshot installing;     /* index 0: none */
    struct gc_write writes[GC_WRITES]; /* in order */
    size_t n_writes;                   /* under way */
    uint64_t applied;                  /* last index */
    uint64_t told;                     /* CHANGEs up to here were told to the guard as committed */
    uint64_t conf_index;               /* of conf */
    uint8_t conf[GC_CONF];             /* configuration as of applied */
    size_t conf_size;                  /* its bytes */
    struct entry *const *in;           /* entries of the event that is running */
    size_t n_in;                       /* how many */
    unsigned steps;                    /* updates seen */
};

struct gc_message {
    uint64_t from, to;      /* node ids */
    struct raft_message m;  /* address and entries not used */
    struct entry **entries; /* of AppendEntries */
    uint8_t conf[GC_CONF];  /* of InstallSnapshot */
    size_t conf_size;       /* its bytes */
};

struct guards {
    struct gc_node nodes[GC_NODES];        /* 0 is not used */
    uint64_t now;                          /* ms */
    uint32_t away;                         /* guards taken away */
    unsigned seed;                         /* of the engines */
    bool lazy_disk;                        /* writes wait for the test */
    bool cut[GC_NODES][GC_NODES];          /* no messages from, to */
    struct gc_message *queue[GC_QUEUE];    /* in order */
    size_t n_queue;                        /* under way */
    uint64_t leader[GC_TERMS];             /* of a term; 0: none seen */
    uint64_t committed[GC_LOG];            /* term of the committed entry; 0: none */
    struct entry *committed_entry[GC_LOG]; /* the entry */
    uint64_t committed_max;                /* highest index */
    uint64_t payload;                      /* counts entries */
    void **garbage;                        /* freed at the end */
    size_t n_garbage, garbage_room;        /* of garbage */
    char violation[512];                   /* the first; empty: none */
};

/* `voters` of `nodes` servers vote, the rest are standbys; all know the first configuration. `away`
 * is a mask of guards. Nothing is started. */
struct guards *guards_new(unsigned nodes, unsigned voters, uint32_t away, unsigned seed);
void guards_free(struct guards *c);
void guards_forget(struct guards *c, uint64_t id); /* the node is to be a joiner: it has nothing */

void guards_start(struct guards *c, uint64_t id); /* from its disk */
void guards_start_all(struct guards *c);
void guards_crash(struct guards *c, uint64_t id); /* loses writes under way */

bool guards_write(struct guards *c, uint64_t id); /* the oldest write becomes durable */
void guards_write_all(struct guards *c, uint64_t id);
void guards_deliver_at(struct guards *c, size_t i); /* message i of the queue */
void guards_copy_at(struct guards *c, size_t i);    /* the same again, at the end of the queue */
void guards_drop_at(struct guards *c, size_t i);
/* The first message of this type from, to (0: any), or -1. */
int guards_find(const struct guards *c, int type, uint64_t from, uint64_t to);
bool guards_deliver(struct guards *c, int type, uint64_t from, uint64_t to);
/* Puts a made-up message at the end of the queue: n entries, copied; server_id is not looked at. */
void guards_push(struct guards *c, uint64_t from, uint64_t to, const struct raft_message *m,
                 struct entry *const *entries, unsigned n);
size_t guards_drop(struct guards *c, int type, uint64_t from, uint64_t to); /* all; type 0: any */
void guards_quiet(struct guards *c); /* delivers and writes until nothing is left */
void guards_cut(struct guards *c, uint64_t id, bool cut); /* a node off, on the network */

/* Waits for the node's timer and lets it expire. */
void guards_timeout(struct guards *c, uint64_t id);
void guards_run(struct guards *c, uint64_t ms); /* timers, writes and messages for so long */
/* Lets the node win an election: times out, all messages delivered. */
bool guards_elect(struct guards *c, uint64_t id);
struct gc_node *guards_leader(struct guards *c); /* in the highest term, NULL: none */

enum err guards_submit(struct guards *c, uint64_t id);
/* Role of one server as the leader `id` sees it; -1 removes it, an unknown one is added. */
enum err guards_change(struct guards *c, uint64_t id, uint64_t server, int role);
struct span guards_conf(struct guards *c, const struct raft_configuration *conf); /* lives with c */
struct entry *guards_entry(struct guards *c, uint64_t index, uint64_t term, enum entry_type type,
                           struct span data);
void guards_snapshot(struct guards *c, uint64_t id, unsigned trailing); /* as of applied */
bool guards_same(struct guards *c); /* all nodes that are up have applied all that is committed */

#endif
