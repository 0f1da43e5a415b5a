/* What the files of the supervisor have of each other; private to supervisor*.c.
 *
 * Namespaces: the supervisor is in a mount namespace of its own from its first file on, with the
 * memory file system `fs` attached where only it sees it. The task's init (supervisor_task.c) is in
 * namespaces below that; it gets single mounts of `fs`, read-only, and gives the rest up with its
 * old root. */
#ifndef CONCLAVE_SUPERVISOR_PARTS_H
#define CONCLAVE_SUPERVISOR_PARTS_H

#include <sys/types.h>

#include "api/task/supervisor.h"

struct why;

/* One file of the task. */
struct sup_slot {
    struct sup_file now;  /* as it is; version and size of the one in place */
    bool placed;          /* it has been committed once */
    bool pending;         /* `next` is written, whole, and waits for COMMIT */
    struct sup_file next; /* the one that is pending, or was last */
    unsigned generation;  /* of an absolute target: its name below files/ */
    int old;              /* the one before, which somebody still reads; -1: none */
};

struct sup_files {
    int fs;         /* the memory file system, writable; -1: none */
    int home;       /* the mount namespace that we came from; -1: still in it */
    bool ram;       /* ramfs: no noswap here; it has no limit */
    uint64_t limit; /* of its size, bytes */
    unsigned n;     /* slots */
    struct sup_slot slots[SERVICE_REFS_MAX];
    int writing;   /* the file that DATA goes to; -1: none */
    unsigned at;   /* its slot */
    uint32_t left; /* bytes that it still needs */
    bool failed;   /* one has, since the last COMMIT: those with it are let pass */
};

RESULT sup_files_open(struct sup_files *f, struct why *why);
RESULT sup_files_begin(struct sup_files *f, const struct sup_file *file, struct why *why);
RESULT sup_files_data(struct sup_files *f, struct span bytes, struct why *why);
/* Puts what is pending in place; *changed: something was. `init` > 0: the task's init, in whose
 * mount namespace absolute targets are replaced. ERR_PROTOCOL: a file is not whole. */
RESULT sup_files_commit(struct sup_files *f, pid_t init, bool *changed, struct why *why);
void sup_files_forget(struct sup_files *f); /* what is not in place yet */
/* The same, and what comes before the next COMMIT: no part of an update is in place alone. */
void sup_files_fail(struct sup_files *f);
/* Overwrites older versions that nobody reads any more; false: nothing is left of any. */
bool sup_files_tidy(struct sup_files *f);
/* Overwrites and removes all; the mounts are gone after. At any time, more than once. */
void sup_files_close(struct sup_files *f);
void sup_files_path(const struct sup_slot *s, unsigned at, char out[32]); /* of an absolute one */

/* In the init, in its own namespaces: makes the root and enters it. */
RESULT sup_root_enter(const struct sup_order *o, const struct sup_files *f, struct why *why);
/* Mounts. */
RESULT sup_mount_new(const char *type, const char *const options[], unsigned attributes, int *out,
                     struct why *why);
/* A copy of what is mounted at `path`, detached, with these attributes added. */
RESULT sup_mount_copy(int dir, const char *path, bool whole, uint64_t attributes, int *out,
                      struct why *why);
RESULT sup_mount_place(int mount, int dir, const char *path, struct why *why);
/* The file or directory is there after, to be mounted on. */
RESULT sup_mount_point(const char *path, bool directory, struct why *why);

bool sup_is_below(const char *path, const char *dir); /* or the same */

/* The directory that the task may not see, whatever it is mounted at: supervisor_hidden.c. */
struct sup_hidden {
    char device[32];           /* of its file system, as mountinfo has it */
    char inside[SUP_PATH_MAX]; /* its path there */
};
RESULT sup_hidden_find(const char *path, struct sup_hidden *out, struct why *why);
/* In the new root: covers each place where it, or a part of it, shows, and each proc file system
 * but the task's own. */
RESULT sup_hidden_cover(const struct sup_hidden *h, struct why *why);

/* User, groups, capabilities, limits: from root to what the task is. Inside the root. */
struct sup_user {
    uid_t uid;
    gid_t gid;
    unsigned n;       /* groups beside it */
    gid_t groups[64]; /* what is in more is in these */
    char home[256];   /* "/" where no one is known */
};
RESULT sup_user_find(const char *text, struct sup_user *out, struct why *why);
RESULT sup_user_become(const struct sup_user *u, struct why *why);

/* The task's processes. */
struct sup_task {
    pid_t init;                    /* ours; 0: none */
    int init_fd;                   /* pidfd of it; -1 */
    pid_t pid;                     /* of the task on this node; 0: not known */
    int pid_fd;                    /* pidfd of it; -1 */
    int status;                    /* what they say until the task is started; -1: said */
    bool started;                  /* exec has been done */
    char error[NODE_TEXT_MAX + 1]; /* why it could not be */
};
/* Forks the init. `out`: for stdout and stderr; NULL: the task inherits ours and stdin. */
RESULT sup_task_start(struct sup_task *t, const struct sup_order *o, const struct sup_files *f,
                      const int out[2], struct why *why);
bool sup_task_hear(struct sup_task *t); /* one message of `status`; is there more to come? */
void sup_task_signal(const struct sup_task *t, int number); /* to the task alone */
void sup_task_kill(const struct sup_task *t);               /* all of it, at once */
void sup_task_close(struct sup_task *t);

#endif
