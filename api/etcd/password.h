/* Passwords become Argon2id strings, and are held against them, on worker threads: each takes tens
 * of milliseconds and PASSWORD_MEMORY bytes, whatever comes out. PASSWORD_WORKERS work at once and
 * PASSWORD_QUEUE_MAX wait, so that guessing takes no more of the machine than that; and a user's
 * name has PASSWORD_BURST wrong guesses and one more each PASSWORD_PAUSE_MS, from wherever they
 * come.
 *
 * A user that is not there, or has no password, is checked against a string that no password has,
 * so that time tells nothing. A password is wiped as soon as it has been used. All on the loop, but
 * for the work itself. */
#ifndef CONCLAVE_PASSWORD_H
#define CONCLAVE_PASSWORD_H

#include <uv.h>

#include "crypto/secret.h"
#include "store/auth.h"

#define PASSWORD_PASSES    2          /* Argon2id's time cost ... */
#define PASSWORD_MEMORY    (19 * MIB) /* ... and memory: some 30 ms */
#define PASSWORD_WORKERS   2          /* at work at once */
#define PASSWORD_QUEUE_MAX 256        /* waiting; past it ERR_BUSY */
#define PASSWORD_BURST     10         /* wrong guesses of a user's password */
#define PASSWORD_PAUSE_MS  1000       /* for each further one */
#define PASSWORD_NAMES     1024       /* counters of them; names share by chance */

struct passwords;

RESULT passwords_new(uv_loop_t *loop, struct passwords **out);
/* Jobs that wait are over (`done` with ERR_CLOSED); those at work end, unheard, before the memory
 * goes. NULL is fine. */
void passwords_free(struct passwords *p);

struct password_job {
    char hash[PASSWORD_HASH_MAX + 1];     /* made; or checked against, "" for nobody's */
    bool check;                           /* else it is made */
    uint64_t name;                        /* counter of a check's user */
    struct secret *password;              /* with a zero behind it */
    enum err error;                       /* what came of it: OK, ERR_AUTH_FAILED, ERR_NOMEM */
    void (*done)(struct password_job *j); /* on the loop; frees the job */
    void *ctx;                            /* of whoever asked */
    struct passwords *passwords;          /* the owner */
    struct password_job *next;            /* waiting */
    uv_work_t work;
};

/* A job, taken over in both cases; on an error `done` is not called and the job is gone.
 * ERR_BUSY, ERR_NOMEM, ERR_TOO_LARGE (PASSPHRASE_MAX). */
RESULT password_make(struct passwords *p, struct span password, struct password_job *j);
/* `hash` empty: nobody's. ERR_BUSY also: too many wrong guesses for this user lately. */
RESULT password_check(struct passwords *p, struct span user, struct span password, struct span hash,
                      uint64_t now_ms, struct password_job *j);
void password_job_free(struct password_job *j);

#endif
