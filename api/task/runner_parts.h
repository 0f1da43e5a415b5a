/* What the files of the runner have of each other; private to runner*.c. A job is one task as this
 * node has it; a link is a connection to its supervisor; a held is a value in guarded memory,
 * shared by the runner and what is on its way to supervisors. */
#ifndef CONCLAVE_RUNNER_PARTS_H
#define CONCLAVE_RUNNER_PARTS_H

#include "api/task/runner.h"
#include "api/task/supervisor.h"

#define RUNNER_JOBS_MAX   1024        /* tasks of one node */
#define RUNNER_VALUES_MAX 8192        /* values of one node */
#define RUNNER_BYTES_MAX  (64 * MIB)  /* of them */
#define RUNNER_FETCH_MAX  16          /* of `conclave run` at once */
#define LINK_IN_MAX       (256 * KIB) /* one frame of a supervisor */

/* --- values: runner_values.c ------------------------------------------------------------------ */

struct held {
    enum row_kind kind; /* and id, version: of whose value it is */
    char id[NODE_ID_SIZE + 1];
    char task_id[NODE_ID_SIZE + 1]; /* for this task alone; "" for all */
    uint32_t version;
    struct secret *bytes; /* NULL: empty */
    unsigned refs;        /* the runner's, and one for each piece under way */
    struct held *next;
};

struct values {
    struct held *first;
    unsigned n;
    uint64_t bytes; /* of all */
    bool refused;   /* there was no room for one, since the last COMPLETE */
};

RESULT held_new(const struct assign_value *v, struct held **out);
/* The text made of a template is a value, too. */
RESULT held_of(struct span text, struct held **out);
struct held *held_keep(struct held *h);
void held_drop(struct held *h); /* NULL is fine; the last one wipes it */
static inline uint32_t held_size(const struct held *h) {
    return h->bytes ? (uint32_t)secret_span(h->bytes).size : 0;
}

/* Takes the value in, instead of the one that it replaces. ERR_TOO_LARGE, ERR_NOMEM. */
RESULT values_put(struct values *v, const struct assign_value *value);
void values_remove(struct values *v, enum row_kind kind, const char *id, uint32_t version);
void values_remove_task(struct values *v, const char *task_id); /* what is for this task alone */
struct held *values_find(const struct values *v, const struct assign_file *f, const char *task_id);
void values_clear(struct values *v);

/* --- links: runner_link.c --------------------------------------------------------------------- */

struct link_end;
struct link_events { /* both on the loop; take note only */
    void (*frame)(void *ctx, uint8_t kind, struct span body);
    void (*closed)(void *ctx); /* once; the link is gone after */
};
/* Takes over `fd`, on failure too. */
RESULT link_open(uv_loop_t *loop, int fd, const struct link_events *on, void *ctx,
                 struct link_end **out);
void link_say(struct link_end *l, enum sup_kind kind, struct span body); /* copies */
/* A file with its bytes, which are not copied: `value` is kept while they are on their way. */
void link_put(struct link_end *l, const struct assign_file *f, struct held *value);
void link_close(struct link_end *l); /* what was said is sent first; no event comes any more */

/* --- jobs: runner_job.c ----------------------------------------------------------------------- */

enum job_state {
    JOB_NEW,      /* nothing is there of it */
    JOB_ASKED,    /* a supervisor was found; what it has is not known yet */
    JOB_STARTING, /* a supervisor was given all; it has not said RUNNING */
    JOB_RUNNING,
    JOB_OVER, /* the report says how */
};

#define STOP_GRACE_MS 10000 /* of a task that nothing is known of any more */

struct run_task {
    struct runner *runner;
    char id[NODE_ID_SIZE + 1];
    enum job_state state;
    struct assign_task *task;   /* NULL: found here, and not (yet) assigned */
    struct buf bytes;           /* what the spans of `task` point into */
    struct assign_task *staged; /* of the assignment that is under way; NULL: not in it */
    struct buf staged_bytes;    /* the same for it */
    bool assigned;              /* it is in the last assignment */
    bool mentioned;             /* in the COMPLETE that is under way */
    bool stopping;              /* the supervisor was told to stop it */
    bool gone;                  /* the connection has ended */
    bool tried;                 /* to make it again, since the last beat */
    bool heard;                 /* `told` is news */
    bool unsaid;                /* the report is to be sent */
    bool stuck;                 /* an update has failed: none until the next assignment */
    struct link_end *link;      /* to its supervisor; NULL: none */
    struct sup_state *told;     /* its last STATE; NULL: none yet */
    struct task_report report;  /* what the manager is told */
    struct run_task *next;
};

struct runner {
    struct manager *manager;
    char data[SUP_PATH_MAX];          /* the data directory, a real path */
    struct run_task *first;           /* all that is known here */
    unsigned n;                       /* of them; <= RUNNER_JOBS_MAX */
    struct values values;             /* that this node was given */
    struct buf turned_away;           /* reports of tasks that there was no room for */
    bool complete;                    /* a COMPLETE has come since the agent started */
    bool staging;                     /* parts of an assignment have come, the last one has not */
    struct assign_head head;          /* of it */
    bool synced;                      /* `at` is what we have, in the session there is */
    uint64_t at;                      /* results_in of the last assignment */
    bool due;                         /* runner_step has something to do */
    void (*ended)(struct manager *m); /* of runner_end; NULL: it was not called */
    uint64_t end_ms;                  /* the end of its patience */
    struct feed *feeds;               /* what was asked of a manager, runner_fetch.c */
    uint64_t fetches;                 /* numbers given to it */
};

void runner_sweep(struct runner *r); /* sockets of commands that are gone */
struct run_task *job_find(const struct runner *r, const char *id);
struct run_task *job_new(struct runner *r, const char *id); /* NULL: no memory, too many */
void job_free(struct runner *r, struct run_task *j);        /* not its supervisor */
RESULT job_stage(struct run_task *j, const struct assign_task *t);
void job_take(struct run_task *j); /* what is staged is it now */
void job_step(struct runner *r, struct run_task *j);
void job_report(struct runner *r, struct run_task *j, enum task_state state, const char *message,
                const char *error);
RESULT job_adopt(struct runner *r, const char *id); /* one whose socket is there */

/* What a template of a task is about; see template.h. */
struct template_node;
void runner_node(const struct manager *m, struct template_node *out);

/* --- what was asked of a manager: runner_fetch.c ---------------------------------------------- */

RESULT feeds_answer(struct runner *r, struct span body, struct why *why); /* NODE_FETCHED */
void feeds_lost(struct runner *r, const char *text); /* none of those asked for will come */
void feeds_beat(struct runner *r);

#endif
