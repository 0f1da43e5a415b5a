/* A real supervisor with a real task in real namespaces, and the agent's side of its connection by
 * hand. Needs root. The test's program is its own supervisor: room_main starts it again with the
 * verb. Everything asserts with cmocka. */
#ifndef CONCLAVE_TESTS_TASK_ROOM_H
#define CONCLAVE_TESTS_TASK_ROOM_H

#include <poll.h>
#include <sys/types.h>

#include "api/task/supervisor.h"

#define ROOM_WAIT_MS 20000
#define ROOM_TASK    "task0000000000000000000id"
#define ROOM_VALUE   "the-value-of-db"

struct room {
    char data[64];          /* of the node */
    int fd;                 /* the connection to the supervisor; -1: none any more */
    struct sup_state state; /* the last one */
    struct buf text;        /* what the task wrote */
    pid_t supervisor;       /* of room_find_supervisor */
    char device[16];        /* the test's own */
};

int room_set_up(void **state); /* a room with a supervisor that waits for its order */
int room_tear_down(void **state);
bool room_main(int argc, char **argv, int *code); /* true: nothing to test, end with *code */

void room_say(struct room *r, enum sup_kind kind, struct span body);
enum sup_kind room_hear(struct room *r); /* one frame; a STATE and an OUTPUT are kept */
/* Fails on an error, and on another end. */
void room_wait(struct room *r, enum sup_phase phase);
const char *room_output(struct room *r);
void room_wait_text(struct room *r, const char *text); /* until the task has written it */

void room_words(struct buf *out, const char *const list[]);
struct sup_order room_order(const struct room *r);
void room_send_order(struct room *r, const struct sup_order *o);
void room_add_mount(struct buf *mounts, bool read_only, const char *source, const char *target);
struct sup_file room_file(const char *target, const char *value, uint32_t version);
void room_send_file(struct room *r, const struct sup_file *f, const char *value);
void room_send_shell(struct room *r, struct sup_order *o, const char *script);
void room_start_shell(struct room *r, const char *script); /* with a secret, ROOM_VALUE as "db" */
const char *room_run_shell(struct room *r, const char *script); /* to its end: what it wrote */
void room_go(const struct room *r);                             /* makes /tmp/go for the task */
void room_stop(struct room *r, uint64_t grace_ms);

/* The bytes that the task's files take, in the file system that they are in. */
uint64_t room_bytes(const struct room *r);
/* As the task sees it: all that is in it, and what is first in it. */
bool room_reads(const struct room *r, const char *path, const char *text);
bool room_begins(const struct room *r, const char *path, const char *text);
void room_expect_rejected(struct room *r, const char *text);
/* The one behind the connection, which is made anew so that the kernel tells. */
void room_find_supervisor(struct room *r);

#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        int tries_ = 0;                                                                            \
        while (!(condition)) {                                                                     \
            if (++tries_ > ROOM_WAIT_MS / 10) fail_msg("never: %s", #condition);                   \
            (void)poll(NULL, 0, 10);                                                               \
        }                                                                                          \
    } while (0)

#endif
