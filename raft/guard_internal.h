/* What the parts of the guard share: the one struct, the step that all events go through, and the
 * helpers that the library keeps to itself. guard.c has the events, guard_start.c loads the core,
 * guard_receive.c mends what comes in, guard_send.c what goes out, guard_conf.c reads
 * configurations, guard_trail.c reads the trail of terms. */
#ifndef CONCLAVE_GUARD_INTERNAL_H
#define CONCLAVE_GUARD_INTERNAL_H

#include "crypto/limits.h"
#include "raft/guard.h"

#define GUARD_CONF_MAX (16 * KIB) /* an encoded configuration of MEMBERS_MAX servers */

/* A CHANGE held back until it is on the own disk: what one peer should then be sent. */
struct held {
    uint64_t peer; /* 0: free */
    uint64_t upto; /* last index that the core believes to have sent */
};

struct guard {
    struct raft r;                 /* the engine */
    struct guard_hooks hooks;      /* the caller */
    uint32_t away;                 /* guards taken away, 1u << id */
    enum err failed;               /* not OK: the node has to stop, and this is why */
    bool open;                     /* r is initialised and has to be closed */
    bool in_hook;                  /* a hook runs: no event may come in */
    const char *reason;            /* of the last soft error */
    uint64_t now;                  /* ms, never decreasing */
    uint64_t timeout_at;           /* ms, last time the core was given TIMEOUT */
    uint64_t contact_at;           /* ms, last word from the leader of the term */
    uint64_t excused;              /* where guard_excuse last put the start of the engine's timer */
    uint64_t term, vote;           /* as persisted */
    uint64_t commit;               /* own maximum */
    uint64_t epoch;                /* counts truncations of the tail */
    uint64_t given_last;           /* last index handed to the update hook */
    bool stale;                    /* the message being received is of an older term */
    bool disrupt_now;              /* the message being received is TIMEOUT_NOW */
    struct snapshot_meta snapshot; /* newest known; index 0: none; conf is snapshot_conf */
    struct buf snapshot_conf;      /* its bytes */
    struct raft_entry *shells;     /* for RECEIVE and SUBMIT, grown as needed */
    size_t shells_room;            /* how many there are */
    void *batch;                   /* one raft_malloc'ed byte that owns shells; NULL: given away */
    uint64_t flying[MEMBERS_MAX];  /* peers with a snapshot stream in flight; 0: free */
    struct held held[MEMBERS_MAX]; /* see above */
    uint64_t held_term;            /* the term in which they were held */
    struct raft_message resend[MEMBERS_MAX]; /* what held messages become */
    unsigned election_ms;                    /* as configured, for a restart */
    unsigned heartbeat_ms;                   /* as configured */
    unsigned inflight_max;                   /* as configured */
    unsigned seed;                           /* as configured, until the first start */
    uint64_t id;                             /* own */
};

RESULT guard_enter(struct guard *g, uint64_t now_ms); /* every event begins so */
/* One step of the core: persist, mend, hand on, free. Not for callers that need guard_follow after.
 */
RESULT guard_step(struct guard *g, struct raft_event *event);
/* What has to come after a step: the own-term barrier, the committed configuration. */
RESULT guard_follow(struct guard *g);
RESULT guard_deliver(struct guard *g,
                     uint64_t upto); /* an uncommitted configuration is committed */
RESULT guard_settle(struct guard *g, struct raft_update *u); /* the second half of guard_step */
enum err guard_fail(struct guard *g, enum err e);            /* the node stops */
enum err guard_soft(struct guard *g, enum err e, const char *reason);
enum err guard_map(int raft_error);
RESULT guard_shells(struct guard *g, size_t n); /* room for n shells, and a batch */
RESULT guard_remember(struct guard *g, const struct snapshot_meta *meta);

/* guard_start.c */
RESULT guard_load(struct guard *g, uint64_t first, uint64_t last, struct why *why);
RESULT guard_restart(struct guard *g);
bool guard_sole_voter(const struct raft_configuration *c, uint64_t id);

/* guard_send.c */
void guard_mend(struct guard *g, struct raft_update *u);
RESULT guard_release_held(struct guard *g);
bool guard_flying(const struct guard *g, uint64_t peer);

/* guard_conf.c */
struct conf_server {
    uint64_t id;         /* > 0 */
    const char *address; /* points into the bytes */
    int role;            /* RAFT_STANDBY, RAFT_VOTER, RAFT_SPARE */
};
struct conf {
    unsigned n;                              /* servers */
    struct conf_server servers[MEMBERS_MAX]; /* in order */
};
RESULT conf_parse(struct span bytes, struct conf *out);
RESULT conf_decode(struct span bytes, struct raft_configuration *out); /* checked first */
RESULT conf_copy(const struct raft_configuration *from, struct raft_configuration *to);
bool conf_one_delta(const struct raft_configuration *from, const struct conf *to);
bool conf_is_voter(const struct conf *c, uint64_t id);
const struct raft_server *conf_find(const struct raft_configuration *c, uint64_t id);

/* guard_trail.c */
uint64_t trail_last(const struct raft_trail *t);
uint64_t trail_term(const struct raft_trail *t, uint64_t index);      /* 0: not known */
uint64_t trail_run_start(const struct raft_trail *t, uint64_t index); /* first index of its term */

#endif
