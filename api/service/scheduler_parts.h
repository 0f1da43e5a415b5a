/* What the files of the scheduler have of each other: scheduler.c (its life, the dirty set, one
 * command at a time), scheduler_reports.c (the nodes' words on their tasks). */
#ifndef CONCLAVE_SCHEDULER_PARTS_H
#define CONCLAVE_SCHEDULER_PARTS_H

#include "api/service/scheduler.h"
#include "api/service/scheduler_tasks.h"

#define REPORTS_BYTES_MAX (16 * MIB) /* of reports that wait; past it ERR_BUSY */

/* A service that is there, or of which tasks are. */
struct sched_service {
    char id[NODE_ID_SIZE + 1];
    bool dirty;   /* to be looked at */
    bool batched; /* part of the command under way */
    bool stuck;   /* its changes alone were refused: again, but later */
    bool global;  /* as it was seen last: every node concerns it */
    bool waiting; /* some task of it waits for a node */
};

/* A list of reports that another manager, or this one, has sent. */
struct sched_report {
    struct reply *reply;
    struct buf bytes;
    size_t written; /* bytes of it that are in the state */
    size_t batched; /* the same, once the command under way is applied; 0: not part of it */
    struct sched_report *next;
};

struct scheduler {
    bool known;               /* the tables below are there: this one leads */
    bool current;             /* the state was known to be current since this one leads */
    bool reading;             /* the read below is under way */
    struct read read;         /* that makes sure of it */
    uint64_t read_term;       /* when it was asked for */
    struct places places;     /* the nodes */
    struct sched_service *at; /* services, ascending by id */
    size_t n, room;           /* <= ROW_SERVICES_MAX and those that still have tasks */
    size_t dirty;             /* how many are */
    size_t next;              /* where the next look begins */
    bool nodes_changed;       /* some place is `changed` */
    unsigned alone;           /* looks of one service a command, since one of several was refused */
    bool writing;             /* the write below is under way */
    bool reported;            /* it is of reports; else of decisions */
    struct write write;       /* one at a time */
    struct sched_report *first, **last; /* reports that wait, oldest first */
    size_t report_bytes;                /* of all of them */
    unsigned beats;                     /* counts to the next try of what is stuck */
};

void sched_wake(struct manager *m);
bool sched_leads(const struct manager *m);
/* An OP_ROWS of these; the outcome comes to sched_written. */
void sched_propose(struct manager *m, const struct buf *changes, unsigned n);
RESULT sched_change_task(struct buf *changes, enum row_action action, const char *id,
                         uint64_t version, const struct task_row *task);

/* scheduler_reports.c */
bool reports_flush(struct manager *m); /* false: there was nothing to write */
void reports_written(struct manager *m, enum err e);
void reports_drop(struct manager *m, enum err e); /* answers all with the error */

#endif
