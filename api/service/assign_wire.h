/* The bodies of NODE_ASSIGN, NODE_TASKS, NODE_FETCH and NODE_FETCHED (assign.h): fields in the
 * order of their structs, little-endian, blocks as u32 length + bytes. A decoder verifies
 * everything into locals and bounds every count; fuzzed (tests/fuzz/fuzz_assign.c).
 *
 * NODE_ASSIGN: u8 type, u64 applies_to, u64 results_in, u8 last part, then items to the end, each
 * u8 kind, u32 length, bytes:
 *   1 task (assign_task)    2 value (assign_value)    3 remove task (id 25)
 *   4 remove value (u8 row kind, id 25, u32 version)
 * NODE_TASKS: items to the end, each a task_report.
 *
 * Of parts of one assignment all have the same applies_to and results_in; a removal stands before
 * what takes its place. A COMPLETE leaves nothing of before: what it does not name is removed.
 * A value that is for one task goes with that task, unasked. */
#ifndef CONCLAVE_ASSIGN_WIRE_H
#define CONCLAVE_ASSIGN_WIRE_H

#include "store/service.h"

enum assign_type { ASSIGN_COMPLETE = 1, ASSIGN_INCREMENTAL = 2 };
enum assign_item {
    ASSIGN_TASK = 1,
    ASSIGN_VALUE = 2,
    ASSIGN_REMOVE_TASK = 3,
    ASSIGN_REMOVE_VALUE = 4
};

struct assign_head {
    enum assign_type type;
    uint64_t applies_to, results_in;
    bool last; /* part */
};

/* A file of a task: as in service_ref, with the version that it is to have now. */
struct assign_file {
    enum row_kind kind;
    char id[NODE_ID_SIZE + 1];
    char name[HELD_NAME_MAX + 1];
    char target[TARGET_MAX + 1];
    uint32_t uid, gid, mode;
    uint32_t version; /* of the value: assign_value of (kind, id, version); of a driver's: 0 */
    bool follows;     /* it may change while the task runs */
    bool templated;   /* expanded on the node (template.h) */
};

struct assign_task {
    char id[NODE_ID_SIZE + 1];
    char name[256]; /* NAME.SLOT.ID */
    char service_id[NODE_ID_SIZE + 1];
    char service_name[SERVICE_NAME_MAX + 1];
    uint32_t slot;
    enum task_state desired; /* RUNNING, SHUTDOWN */
    int64_t not_before_ns;   /* UTC; 0: at once */
    char image[1024];
    struct span command, env, mounts, labels; /* as in service_row */
    char user[64];
    char dir[1024];
    char hostname[64];
    uint32_t stop_signal, reload_signal; /* never 0 */
    int64_t stop_grace_ns;               /* 0, to end: as it was told before */
    unsigned n;
    struct assign_file files[SERVICE_REFS_MAX];
};

struct assign_value {
    enum row_kind kind;
    char id[NODE_ID_SIZE + 1];
    char task_id[NODE_ID_SIZE + 1]; /* of a driver's value that is for one task only; else "" */
    uint32_t version;
    struct span bytes; /* the value itself; wiped by whoever holds the buffer */
};

struct task_report {
    char id[NODE_ID_SIZE + 1];
    enum task_state state; /* ACCEPTED to FAILED, REJECTED; REMOVE: the node has nothing of it */
    int32_t exit_code;
    uint32_t pid;
    char message[NODE_TEXT_MAX + 1], error[NODE_TEXT_MAX + 1];
};

/* Whatever fails (ERR_INVALID, ERR_TOO_LARGE, ERR_NOMEM) leaves `out` as it was. A buffer that is
 * to hold values is reserved in full before the first: growing would leave a copy behind. */
#define ASSIGN_VALUE_OVERHEAD 80 /* of a value item, at most, beside the bytes */
RESULT assign_begin(struct buf *out, const struct assign_head *h);
void assign_set_last(struct buf *body); /* of a part that was begun: it is the last one */
RESULT assign_add_task(struct buf *out, const struct assign_task *t);
RESULT assign_add_value(struct buf *out, const struct assign_value *v);
RESULT assign_remove_task(struct buf *out, const char *id);
RESULT assign_remove_value(struct buf *out, enum row_kind kind, const char *id, uint32_t version);
RESULT assign_head(struct cursor *in, struct assign_head *out); /* ERR_PROTOCOL, as all below */

struct assign_one { /* an item */
    enum assign_item item;
    union {
        struct assign_task *task; /* the caller's memory, set before: it is large */
        struct assign_value value;
    };
    enum row_kind kind;        /* REMOVE_VALUE */
    char id[NODE_ID_SIZE + 1]; /* REMOVE_* */
    uint32_t version;
};
/* The next one; *more false: that was all. `task` is filled for ASSIGN_TASK, and anything after an
 * error; spans point into the input. */
RESULT assign_next(struct cursor *in, struct assign_task *task, struct assign_one *out, bool *more);

RESULT report_add(struct buf *out, const struct task_report *r);
RESULT report_next(struct cursor *in, struct task_report *out, bool *more);

/* `conclave run` on a node: which secrets and configs, and the values in the same order. */
struct fetch {
    uint64_t number; /* the node's, sent back */
    unsigned n;      /* <= SERVICE_REFS_MAX */
    struct {
        enum row_kind kind; /* ROW_SECRET, ROW_CONFIG */
        char name[HELD_NAME_MAX + 1];
        uint32_t version; /* 0: the newest */
    } want[SERVICE_REFS_MAX];
};
struct fetched {
    uint64_t number;
    enum err error; /* OK: n values follow */
    char text[WHY_MAX];
    unsigned n;
    struct assign_value values[SERVICE_REFS_MAX];
};
RESULT fetch_encode(const struct fetch *f, struct buf *out);
RESULT fetch_decode(struct span body, struct fetch *out);
RESULT fetched_encode(const struct fetched *f, struct buf *out);
RESULT fetched_decode(struct span body, struct fetched *out);

#endif
