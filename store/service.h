/* Services and their tasks: the bodies of ROW_SERVICE and ROW_TASK. A service says what is to run
 * and which secrets and configs it gets; a task is one process of it on one node. The leader makes
 * tasks and places them (api/service/scheduler.h); the node says what became of them.
 *
 *   NEW PENDING ASSIGNED ACCEPTED PREPARING READY STARTING RUNNING | COMPLETE SHUTDOWN FAILED
 *   REJECTED REMOVE ORPHANED: docker's states, in their order; a state never goes back.
 *   desired: RUNNING, then SHUTDOWN or REMOVE (docker's READY is not needed: tasks start at once).
 *
 * Marks (row_marks.c) let the rows of a kind be walked by what they belong to:
 * task_each_of_service, task_each_of_node, service_each_of_held. */
#ifndef CONCLAVE_SERVICE_H
#define CONCLAVE_SERVICE_H

#include "store/held.h"

#define SERVICE_NAME_MAX        63
#define SERVICE_SPEC_MAX        (64 * KIB) /* docker's JSON of it */
#define SERVICE_ARGS_MAX        256        /* words of command and arguments */
#define SERVICE_ENV_MAX         256        /* NAME=VALUE */
#define SERVICE_REFS_MAX        128        /* secrets and configs of a service */
#define SERVICE_MOUNTS_MAX      64
#define SERVICE_CONSTRAINTS_MAX 64
#define SERVICE_REPLICAS_MAX    16384
#define SERVICE_TEXT_MAX        (16 * KIB) /* one argument, one variable */
#define TARGET_MAX              255        /* name of the file below /run/secrets, or a path */

/* A secret or config as a file of a task. */
struct service_ref {
    enum row_kind kind; /* ROW_SECRET, ROW_CONFIG */
    char id[NODE_ID_SIZE + 1];
    char name[HELD_NAME_MAX + 1];
    char target[TARGET_MAX + 1]; /* "db" is /run/secrets/db (a config: /db); "/x/y" is that */
    uint32_t uid, gid, mode;     /* mode: permission bits */
    uint32_t version;            /* 0: follows the newest */
};

enum service_mode { SERVICE_REPLICATED = 1, SERVICE_GLOBAL = 2 };
enum restart_condition { RESTART_ANY = 1, RESTART_ON_FAILURE = 2, RESTART_NONE = 3 };

/* Lists of blocks: u32 length + bytes each, to the end; read with cursor_block. */
struct service_row {
    struct span spec_json;     /* docker's ServiceSpec as given, normalised; <= SERVICE_SPEC_MAX */
    struct span previous_json; /* of the one before the last update; empty: none */
    uint64_t spec_version;     /* of the row when what its tasks depend on was changed last */
    struct span labels;        /* node.h */
    char image[1024];          /* "host", or the absolute path of a root file system on the node */
    struct span command;       /* blocks: command, then its arguments */
    struct span env;           /* blocks NAME=VALUE */
    struct span constraints;   /* blocks "node.labels.x == y", node.id, node.hostname, node.role,
                                node.platform.os, node.platform.arch; "==" and "!=" */
    struct span mounts;        /* blocks, each: u8 read-only, block source, block target (bind) */
    char user[64];             /* "uid", "uid:gid", a name of the root file system; "" root */
    char dir[1024];            /* working directory; "" "/" */
    char hostname[64];
    uint32_t stop_signal;   /* 0: SIGTERM */
    uint32_t reload_signal; /* sent when the file of a followed version has changed; 0: SIGHUP;
                                label conclave.reload-signal */
    int64_t stop_grace_ns;  /* 0: 10 s */
    enum service_mode mode;
    uint64_t replicas; /* of SERVICE_REPLICATED */
    enum restart_condition restart;
    int64_t restart_delay_ns;  /* 0: 5 s */
    uint64_t restart_max;      /* attempts; 0: any number */
    int64_t restart_window_ns; /* in which they count; 0: ever */
    unsigned n;                /* refs; targets are unique */
    struct service_ref refs[SERVICE_REFS_MAX];
};

RESULT service_encode(const struct service_row *s, struct buf *out); /* ERR_INVALID */
RESULT service_decode(struct span body, struct service_row *out);    /* ERR_CORRUPT */

/* Docker's numbers. */
enum task_state {
    TASK_NEW = 0,
    TASK_PENDING = 64,
    TASK_ASSIGNED = 192,
    TASK_ACCEPTED = 256,
    TASK_PREPARING = 320,
    TASK_READY = 384,
    TASK_STARTING = 448,
    TASK_RUNNING = 512,
    TASK_COMPLETE = 576,
    TASK_SHUTDOWN = 640,
    TASK_FAILED = 704,
    TASK_REJECTED = 768,
    TASK_REMOVE = 800,
    TASK_ORPHANED = 832,
};
const char *task_state_name(enum task_state s); /* docker's: "new", "pending", ..., "orphaned" */

struct task_row {
    char service_id[NODE_ID_SIZE + 1];
    char node_id[NODE_ID_SIZE + 1]; /* "" until it is assigned */
    uint32_t slot;                  /* from 1; 0 of a global service */
    enum task_state desired;        /* RUNNING, SHUTDOWN, REMOVE */
    enum task_state state;
    int64_t state_ns;                /* UTC, when that became so, by the leader's clock */
    uint64_t spec_version;           /* of the service that it was made of */
    int64_t not_before_ns;           /* UTC: a restarted one starts then; 0: at once */
    char message[NODE_TEXT_MAX + 1]; /* as docker's Status.Message */
    char error[NODE_TEXT_MAX + 1];   /* docker's Status.Err */
    int32_t exit_code;
    uint32_t pid; /* on its node; 0 */
};

RESULT task_encode(const struct task_row *t, struct buf *out); /* ERR_INVALID */
RESULT task_decode(struct span body, struct task_row *out);    /* ERR_CORRUPT */

/* Walks by marks, ascending by id, until `each` says false. */
void task_each_of_service(const struct store *s, const char *service_id, row_each *each, void *ctx);
void task_each_of_node(const struct store *s, const char *node_id, row_each *each, void *ctx);
/* The services that name the secret or config. */
void service_each_of_held(const struct store *s, const char *held_id, row_each *each, void *ctx);

/* Rules (row_rules.c, row_between.c), whoever proposes; ERR_PRECONDITION:
 *   1. What a service names is there, with that name, and with the version that it names.
 *   2. A service that has tasks left may be removed (the scheduler ends them); a task is made for a
 *      service that is there, and placed on a node that is there.
 *   3. A task's service and slot never change, nor its node once it has one. Its state never goes
 *      back, nor does what is desired of it. */

#endif
