/* What a seed draws before it starts: how big, how slow, how broken. A profile is a story that the
 * random faults are bent towards, so that each guard of the engine meets the trouble it is for. */
#ifndef CONCLAVE_TESTS_SIM_PLAN_H
#define CONCLAVE_TESTS_SIM_PLAN_H

#include "tests/sim/rng.h"

enum profile {
    PROFILE_MIXED,    /* a random subset of all faults */
    PROFILE_CALM,     /* no faults at all: the ground must be firm */
    PROFILE_SOLE,     /* one voter with a standby, promoted and demoted, crashing */
    PROFILE_RESIZE,   /* members come and go all the time */
    PROFILE_DIVERGE,  /* long partitions with writes to the cut-off leader */
    PROFILE_SNAPSHOT, /* small logs, big state, members that were away */
    PROFILE_SLOW,     /* disks that stall, processes that pause */
    PROFILE_POWER,    /* crashes, all at once too, in the middle of writes */
    PROFILE_ECHO,     /* messages come twice, late and out of order */
    PROFILE_LATE,     /* slow writes of what a new leader cuts off, and then all power goes */
    PROFILE_BUSY,     /* all is well, but commands take long: nobody else may be elected */
    PROFILE_COUNT
};

enum fault {
    FAULT_KILL,      /* the process ends; its disk is as it was */
    FAULT_POWER,     /* the machine ends; un-synced sectors and names are lost */
    FAULT_POWER_ALL, /* all machines at once */
    FAULT_CUT,       /* the machine ends in the middle of a change of its disk */
    FAULT_STOP,      /* a clean stop: transfer, close, start again */
    FAULT_PAUSE,     /* a process stands still for a while, then goes on */
    FAULT_CLOCK,     /* a node's clock jumps forward */
    FAULT_PARTITION, /* links are blocked, both ways or one */
    FAULT_BREAK,     /* connections break */
    FAULT_SLOW,      /* all disks are slow for a while */
    FAULT_FULL,      /* a disk is full for a while */
    FAULT_ERROR,     /* a call of the disk fails */
    FAULT_LEADER,    /* the leader is killed, paused or cut off: aimed, not random */
    FAULT_COUNT
};

struct plan {
    enum profile profile;
    unsigned voters; /* how many it grows to: 1, 3, 5 (2 in PROFILE_SOLE) */
    unsigned election_ms, heartbeat_ms;
    uint64_t segment_size, snapshot_log_min, trailing_bytes;
    bool auto_promote;  /* the leader makes standbys voters by itself */
    bool early;         /* faults from the first moment, else when it has grown */
    uint64_t active_us; /* with faults */
    uint64_t bound_us;  /* healing must be done within */
    /* network */
    bool ordered; /* as TCP: in order, loss breaks the connection */
    uint64_t delay_min_us, delay_max_us;
    unsigned loss_pm, double_pm, stray_pm; /* per mille: lost; sent twice; a long time under way */
    uint64_t stray_us;                     /* how long at most */
    unsigned zombie_pm;                    /* a removed member goes on running */
    /* disk and process */
    uint64_t sync_min_us, sync_max_us; /* a job's time */
    uint64_t turn_max_us;              /* a loop's latency */
    unsigned late_ms;                  /* timers are late by up to */
    unsigned busy_pm;                  /* per mille of the commands take long to apply */
    /* faults */
    unsigned weight[FAULT_COUNT]; /* relative; 0: never */
    uint64_t fault_us;            /* mean time between; 0: none */
    uint64_t down_us;             /* mean time that a node stays down, a partition lasts */
    uint64_t blackout_us;         /* after a partition all power goes within that time; 0: no */
    unsigned ambush_pm;           /* a change of members is followed by a blow at the leader */
    /* clients */
    unsigned clients, burst, keys; /* how many; proposals at once; keys */
    uint64_t think_us;             /* mean time between a client's bursts */
    size_t value_max;              /* bytes */
    unsigned read_pm, delete_pm, batch_pm, condition_pm, token_pm; /* per mille of the operations */
    /* the operator */
    uint64_t admin_us; /* mean time between acts; 0: none but growing */
    unsigned change_pm, transfer_pm, snapshot_pm, rotate_pm; /* per mille of the acts */
};

const char *profile_name(enum profile p);
const char *fault_name(enum fault f);

/* A profile that gives the guard (enum guard_id) its work; `round` goes through several. */
enum profile plan_for_guard(unsigned guard, uint64_t round);
/* `nodes` 0 and `profile` 0 leave it to the seed; profile is enum profile + 1. */
void plan_draw(struct plan *p, struct rng *r, unsigned nodes, unsigned profile);

#endif
