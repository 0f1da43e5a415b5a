/* What the files of assign.h have of each other.
 *
 * - assign.c: life, which sessions a change of rows concerns, the step
 * - assign_look.c: a node's tasks and what they use, read from the rows
 * - assign_give.c: the difference to what was told, into messages
 * - assign_audit.c: deliveries written down before they are made
 * - assign_report.c: what nodes say of their tasks, handed to the leader
 * - assign_fetch.c: `conclave run`
 * - assign_driver.c: values that an outside program supplies
 * - assign_pace.c: how often a node may cause what is written down
 *
 * A session's table of tasks and values says what the rows want and what has been told; both are
 * compared whenever something has changed, so what a full queue has cut short, or could not be
 * recorded or opened, is made up for by the next look. */
#ifndef CONCLAVE_ASSIGN_PARTS_H
#define CONCLAVE_ASSIGN_PARTS_H

#include "api/node/sessions_parts.h"
#include "api/service/assign.h"
#include "api/service/assign_wire.h"

#define ASSIGN_NOTED    1024 /* changed rows noted between two steps; past it: all sessions */
#define ASSIGN_BUCKETS  1024 /* of sessions by node */
#define ASSIGN_RETRY_MS 1000 /* until a value that could not be had is tried again */
#define USE_RECORDED    UINT64_MAX

/* A value that a task is given. */
struct use {
    enum row_kind kind;
    char id[NODE_ID_SIZE + 1];
    uint32_t version; /* 0: a driver's */
    uint64_t batch;   /* of records that tells of it; 0: none yet; USE_RECORDED */
    bool told;        /* the task as the node knows it has the value */
    bool past;        /* as it is to be told it has not; kept until then. They come last */
};

struct known_task {
    char id[NODE_ID_SIZE + 1];
    bool there;       /* the rows want the node to know it */
    bool stale;       /* a row that it is made of has changed since it was looked at */
    bool wanted;      /* to run: it gets its values */
    bool started;     /* the node has begun with it */
    bool blocked;     /* something that it names is not there */
    bool changed;     /* `hash` is not what was told */
    bool told;        /* the node knows it */
    uint8_t hash[16]; /* of the item */
    uint8_t said[16]; /* of the one that was told */
    unsigned n;
    struct use *uses; /* n of them; owned */
};

enum driven { DRIVEN_NOT, DRIVEN_ASKED, DRIVEN_HERE };

struct known_value {
    enum row_kind kind;
    char id[NODE_ID_SIZE + 1];
    uint32_t version;               /* 0: a driver's */
    char task_id[NODE_ID_SIZE + 1]; /* of a driver's that is for one task; "" */
    bool needed;                    /* a task that is wanted uses it, and that is recorded */
    bool told;                      /* the node has it */
    enum driven driven;             /* of a driver's: where it stands */
    struct secret *bytes;           /* of a driver's that is here; owned */
};

struct known_report {
    struct task_report is;
    uint64_t due_ms; /* handed on then */
    bool calling;    /* it is in the call under way */
};

/* A session. */
struct assigned {
    struct assigns *all;
    struct node_link *link;     /* the session itself */
    struct assigned *next;      /* of all->first */
    struct assigned *in_bucket; /* the next one there */
    bool dirty;                 /* to be looked at */
    bool complete;              /* a COMPLETE was told: differences follow */
    bool anew;                  /* the node has asked for a beginning anew */
    bool begun;                 /* its pace allows what it is told now */
    bool open;                  /* parts were sent, and not yet the last one */
    bool paused;                /* its queue is full; it goes on when it has drained */
    uint64_t sequence;          /* results_in of what was told last */
    uint64_t retry_ms;          /* looked at again then; 0: not */
    uint64_t batch;             /* the last batch with a record of its; 0: none */
    bool crowded;               /* a record of its did not fit into the batch */
    bool failed;                /* something can't be given; it was logged */
    bool blind;                 /* there was no memory to see it all */
    size_t n_tasks, n_values, n_reports, room_tasks, room_values, room_reports;
    struct known_task *tasks;     /* ascending by id */
    struct known_value *values;   /* ascending by kind, id, version, task */
    struct known_report *reports; /* no row shows yet */
    unsigned fetches;             /* under way */
};

/* A node causes records of the audit when it comes, when it asks for a beginning anew, and when it
 * asks for secrets. One that is up to no good must not push older records out with them. */
enum paced { PACE_BEGIN, PACE_FETCH, PACED };
struct allowance {
    uint64_t full_ms[PACED]; /* when its allowance is whole again */
};

struct noted {
    enum row_kind kind; /* ROW_SERVICE, ROW_SECRET, ROW_CONFIG */
    char id[NODE_ID_SIZE + 1];
};

/* A value that was opened last. */
struct opened {
    enum row_kind kind;
    char id[NODE_ID_SIZE + 1];
    uint32_t version;
    struct secret *bytes; /* owned; NULL: none */
};

struct assigns {
    struct manager *manager;
    struct assigned *first;                   /* all sessions */
    struct assigned *buckets[ASSIGN_BUCKETS]; /* the same by node id */
    bool dirty;                               /* some session is */
    bool anything;                            /* more has changed than is noted: all is stale */
    unsigned n_noted;
    struct noted noted[ASSIGN_NOTED]; /* rows that have changed since the last step */
    struct buf part;                  /* the message being made, in locked memory; never grows */
    struct service_row service;       /* one at a time of each, too large for the stack */
    struct held_row held;
    struct assign_task task;
    struct buf item;        /* of the task, to be hashed */
    struct opened opened;   /* until the step's end: many nodes are often given the same */
    struct buf records;     /* of the next batch */
    unsigned n_records;     /* in it */
    uint64_t batch;         /* its number, from 1 */
    bool writing;           /* one is under way */
    uint64_t writing_batch; /* its number */
    uint64_t write_ms;      /* no write before */
    struct write write;
    bool calling;       /* reports are on their way */
    uint64_t call_ms;   /* no call before */
    struct buf request; /* of the call */
    struct call call;
    struct fetching *fetches;                 /* under way */
    struct driving *drivings;                 /* the same */
    struct allowance allowed[ASSIGN_BUCKETS]; /* by node id; nodes may share one */
};

/* assign.c */
uint64_t assign_now(const struct assigns *all);
void assign_wake(struct assigns *all);
void assign_dirty(struct assigned *a);
struct assigned *assign_of_node(const struct assigns *all, const char *node_id);
void assign_unable(struct assigned *a, const char *what, const struct why *why); /* again later */

unsigned assign_bucket(const char *node_id);

/* assign_pace.c: takes one of the node's allowance. 0: it may; else milliseconds to wait. */
uint64_t assign_pace(struct assigns *all, const char *node_id, enum paced what);

/* assign_look.c: the tables. */
RESULT assign_look(struct assigned *a); /* ERR_NOMEM: the tables are not whole */
void assign_task_told(struct assigned *a, struct known_task *t); /* as it is to be told */
void assign_forget(struct assigned *a);                          /* nothing was told */
void assign_clear(struct assigned *a);                           /* frees the tables */
struct known_task *known_task(const struct assigned *a, const char *id);
struct known_value *known_value(const struct assigned *a, const struct known_value *key);
struct known_value *known_value_add(struct assigned *a, const struct known_value *key);
void known_value_drop(struct assigned *a, struct known_value *v);
/* The value of a use by a task as the table has it; NULL: it has none. */
struct known_value *assign_value_of(const struct assigned *a, const struct known_task *t,
                                    const struct use *u);
/* Reads a task again, into all->task. False: it is not to be told now. */
bool assign_task_build(struct assigned *a, const struct known_task *t);

/* assign_give.c */
void assign_give(struct assigned *a);
void assign_close_opened(struct assigns *all); /* what the step has opened */

/* assign_audit.c */
void assign_record(struct assigned *a); /* what is not yet recorded, into the next batch */
bool assign_recorded(const struct assigned *a);
void assign_audit_step(struct assigns *all);

/* assign_report.c */
RESULT assign_report_take(struct assigned *a, struct span body, struct why *why);
void assign_report_add(struct assigned *a, const struct task_report *r);
bool assign_report_rejected(const struct assigned *a, const char *task_id); /* not yet shown */
void assign_report_prune(struct assigned *a); /* those that a row shows */
void assign_report_step(struct assigns *all);

/* assign_fetch.c */
RESULT assign_fetch_take(struct assigned *a, struct span body, struct why *why);
void assign_fetch_step(struct assigns *all);
void assign_fetch_gone(struct assigned *a);
void assign_fetch_close(struct assigns *all);

/* assign_driver.c: asks for the value unless it is asked for already. */
void assign_drive(struct assigned *a, const struct known_task *t, const struct use *u);
void assign_drive_gone(struct assigned *a);
void assign_drive_close(struct assigns *all);

#endif
