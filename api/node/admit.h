/* The leader's gate: newcomers with a token, nodes that renew, nodes whose certificate ran out
 * (raft/wire.h, enum join_kind), and members of the quorum to be. Who asks is what the token, the
 * connection's certificate or the proof say; what he gets is what the rows say; from his request
 * comes only his new key. A certificate leaves this file when its key is in the node's row, in the
 * same command that counts the token's use.
 *
 *   JUDGE -> ROWS -> answered                                            a worker, a renewal
 *   JUDGE -> (REMOVING -> CLEARING -> JUDGE) -> ROWS -> ADDING -> CHANGE -> CHANGING -> answered
 *                                                                        a member of the quorum
 *
 * Where an external CA signs, a JUDGE that comes to that point asks it, and judges anew when it has
 * answered. All that wait are judged together and written by one command; while it is under way the
 * next ones gather. Members are added one at a time: JUDGE takes away what an earlier attempt of
 * the same node has left behind; ADDING puts it on the roll; CHANGE and CHANGING make it a standby.
 * A failure behind ROWS takes back a newcomer's row (UNDOING). Steps are taken in the loop's check
 * phase, never in a callback of the replica. */
#ifndef CONCLAVE_ADMIT_H
#define CONCLAVE_ADMIT_H

#include "api/manager.h"

struct asking;

/* The leader's own renewal. Takes over `a` on OK, and gives it to `done`, filled like any other
 * answer when e is OK. */
typedef void admit_done(void *ctx, enum err e, const char *text, struct asking *a);
RESULT admit_own(struct manager *m, struct asking *a, admit_done *done, void *ctx, struct why *why);
bool admit_has_own(const struct manager *m); /* one is under way */
bool admit_is_about(const struct manager *m, const char *node_id);

/* --- between admit.c, admit_judge.c and admit_member.c ---------------------------------------- */

enum admit_stage { JUDGE, ROWS, REMOVING, CLEARING, ADDING, CHANGE, CHANGING, UNDOING };

struct admission {
    struct manager *manager;
    struct join_connection *connection; /* NULL: answered already, or the leader's own */
    struct asking *own;                 /* the leader's own; NULL: over the wire */
    admit_done *own_done;
    void *own_ctx;
    bool over;                /* answered; only a callback is awaited */
    struct wire_join request; /* its spans are the buffers below */
    struct buf csr, old_cert, proof;
    struct node_caller who;
    struct buf cert, roots;          /* the answer's */
    struct buf vault;                /* the same: cluster keys; wiped */
    struct buf foreign;              /* what an external CA has signed; empty: it was not asked */
    struct x509_subject foreign_for; /* for whom it was asked */
    char node_id[NODE_ID_SIZE + 1];  /* "" not known yet */
    char token_id[NODE_ID_SIZE + 1]; /* the token that lets it in */
    enum node_role role;             /* that the certificate says */
    bool member;                     /* becomes one of the quorum */
    bool newcomer;                   /* has no row yet */
    struct node row;                 /* on the roll */
    enum admit_stage stage;
    bool waiting;   /* a write or change has not come back */
    bool batched;   /* its rows are in the batch under way */
    bool apart;     /* a batch with others failed: it goes in one of its own */
    bool pending;   /* what is written says that it waits for an approval */
    enum err error; /* of what came back */
    struct why why;
    enum err undo_error; /* what it ends with when all is taken back */
    struct why undo_why;
    uint64_t deadline_ms;
    struct write write;
    struct change change;
    struct admission *next;
};

#define ADMIT_BATCH_MAX  32 /* admissions in one command */
#define ADMIT_TOKENS_MAX 8  /* tokens used in one command */

/* Rows of several admissions on their way into one command. */
struct admit_batch {
    struct manager *manager;
    struct buf changes;
    unsigned n;      /* changes */
    unsigned admits; /* admissions */
    unsigned tokens_n;
    struct admit_token {
        struct row row;          /* as seen; valid until the command is encoded */
        struct join_token token; /* with the uses of this batch */
    } tokens[ADMIT_TOKENS_MAX];
    struct write write;
};

/* admit_judge.c: who it is and what he gets: signs, and adds the rows to the batch, or sets pending
 * and adds what says so. ERR_BUSY: not in this batch. ERR_PENDING: he waits still. */
RESULT admit_judge(struct admission *a, struct admit_batch *b);
RESULT admit_pending(struct why *why);      /* ERR_PENDING, with the sentence */
RESULT admit_tokens(struct admit_batch *b); /* the tokens' rows, last of all */

/* admit_member.c */
/* Nothing of an earlier attempt or of somebody else is in the way. ERR_BUSY: something is, or
 * another member is being added; a->waiting: it is being taken away. */
RESULT admit_make_way(struct admission *a);
RESULT admit_member_step(struct admission *a); /* from ADDING on */
RESULT admit_undo(struct admission *a);
void admit_resume(struct admission *a, enum err e, const char *text); /* a callback has come back */

#endif
