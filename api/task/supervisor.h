/* The supervisor: a process of its own beside each task, so that an agent can be restarted, killed
 * or upgraded while tasks go on. It makes the task's namespaces and root (supervisor_root.c), keeps
 * its files in memory (supervisor_files.c), starts it (supervisor_task.c), stops it, and knows how
 * it ended until somebody has heard it. When the supervisor dies, the task dies with it, and the
 * mounts with both: they are in no other mount namespace.
 *
 *   WAITING -> READY -> RUNNING -> STOPPING -> ENDED      order, files and START; STOP; the end
 *      \---------\-> REJECTED                             it can't be run: `error` says why
 *
 * Its agent talks to it over frames, u32 length of what follows, u8 kind, body; little-endian. The
 * first connection is file 0, a socket pair made by supervisor_spawn; later ones come to a unix
 * socket, <data>/tasks/<task id>, mode 0600, of the same user only (SO_PEERCRED). Nothing of an
 * order is ever an argument or a variable of the supervisor.
 *
 *   agent -> supervisor
 *     ORDER   struct sup_order; once
 *     FILE    struct sup_file: begins a file; its bytes follow
 *     DATA    bytes of it, <= SUP_DATA_MAX each; written to the file at once and wiped
 *     START   all files are there: the task is started
 *     COMMIT  files since the last one are put in place of older ones, each by one rename; then
 *             the task gets its reload signal, once, if it has a handler for it. When one of them
 *             has failed, STATE has told why, and none is
 *     STOP    u64 grace in ms: stop signal, then SIGKILL
 *     HELLO   nothing; asks for STATE
 *     BYE     nothing: how it ended is known; the supervisor ends (after the task has)
 *     LOGS    nothing; asks for OUTPUT
 *   supervisor -> agent
 *     STATE   struct sup_state: an answer to HELLO, and to all connections whenever it changes
 *     OUTPUT  the last SUP_OUTPUT_MAX bytes that the task wrote on stdout and stderr */
#ifndef CONCLAVE_SUPERVISOR_H
#define CONCLAVE_SUPERVISOR_H

#include "store/service.h"

#define SUP_FRAME_MAX  (2 * MIB)  /* an order is the longest one */
#define SUP_DATA_MAX   (32 * KIB) /* bytes of a file in one frame */
#define SUP_OUTPUT_MAX (64 * KIB) /* of the task's output, in memory */
#define SUP_CONNS_MAX  4          /* connections to one supervisor */
#define SUP_PATH_MAX   1024
#define SUP_ID_MAX     64      /* a task's id, or "run." and one */
#define SUP_HEAD       5       /* length and kind of a frame */
#define SUP_TASKS      "tasks" /* the directory of the sockets, below the data directory */
#define SUP_RUN_PREFIX "run."

enum sup_kind {
    SUP_ORDER = 1,
    SUP_FILE = 2,
    SUP_DATA = 3,
    SUP_START = 4,
    SUP_COMMIT = 5,
    SUP_STOP = 6,
    SUP_HELLO = 7,
    SUP_BYE = 8,
    SUP_LOGS = 9,
    SUP_STATE = 16,
    SUP_OUTPUT = 17
};

struct sup_order {
    char id[SUP_ID_MAX];
    char data[SUP_PATH_MAX];          /* the data directory, a real path: hidden from the task */
    char image[SUP_PATH_MAX];         /* "host", or an absolute path */
    struct span command, env, mounts; /* lists of blocks, as in service_row */
    char user[64];
    char dir[SUP_PATH_MAX]; /* "" "/" */
    char hostname[64];      /* "" the node's */
    uint32_t stop_signal, reload_signal;
};

struct sup_file {
    enum row_kind kind;
    char id[NODE_ID_SIZE + 1];
    uint32_t version;
    char target[TARGET_MAX + 1]; /* the key: "db" is /run/secrets/db, "/x/y" that path */
    uint32_t uid, gid, mode;
    uint32_t size;
};

enum sup_phase {
    SUP_WAITING = 0,
    SUP_READY = 1,
    SUP_RUNNING = 2,
    SUP_STOPPING = 3,
    SUP_ENDED = 4,
    SUP_REJECTED = 5
};

struct sup_state {
    char id[SUP_ID_MAX];
    enum sup_phase phase;
    bool asked;        /* it was told to stop */
    uint32_t pid;      /* of the task on this node; 0: none */
    int32_t exit_code; /* of ENDED; 128 and the signal's number when one ended it */
    char error[NODE_TEXT_MAX + 1];
    unsigned n;
    struct {
        char target[TARGET_MAX + 1];
        uint32_t version;
    } files[SERVICE_REFS_MAX];
};

/* --- frames: supervisor_wire.c; decoders verify into locals; ERR_PROTOCOL; spans point in --- */

RESULT sup_frame(struct buf *out, enum sup_kind kind, struct span body);
RESULT sup_order_encode(const struct sup_order *o, struct buf *out);
RESULT sup_order_decode(struct span body, struct sup_order *out);
RESULT sup_file_encode(const struct sup_file *f, struct buf *out);
RESULT sup_file_decode(struct span body, struct sup_file *out);
RESULT sup_state_encode(const struct sup_state *s, struct buf *out);
RESULT sup_state_decode(struct span body, struct sup_state *out);
/* ERR_INVALID: a file's name that is none: empty, with empty parts, "." or "..". */
RESULT sup_target_check(const char *target, struct why *why);

/* --- the agent's part ------------------------------------------------------------------------ */

/* Starts one; *fd is the agent's end of the socket pair, the caller's to close. */
RESULT supervisor_spawn(int *fd, struct why *why);
/* Connects to the one of this id, non-blocking. ERR_NOT_FOUND: no socket; ERR_CLOSED: a socket, but
 * nobody behind it any more. */
RESULT supervisor_dial(const char *data, const char *id, int *fd, struct why *why);
void supervisor_forget(const char *data, const char *id); /* removes a socket without anybody */

/* --- the process ------------------------------------------------------------------------------ */

/* `conclave task-supervisor`: detaches, serves file 0. */
RESULT supervisor_serve(struct why *why);
/* `conclave run`: this process is the supervisor, the task has its stdin, stdout and stderr.
 * Listens first; `ready` then asks the agent to feed it, and ERR_TIMEOUT without that. */
RESULT supervisor_run(const struct sup_order *order, enum err (*ready)(void *ctx, struct why *why),
                      void *ctx, int *exit_code, struct why *why);

#endif
