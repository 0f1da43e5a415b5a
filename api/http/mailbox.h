/* Notes from the loop of one thread to the loop of another, in order. What one turn of the sender's
 * loop says is handed over at once, right before that loop could sleep: one lock and at most one
 * wake-up a turn, whatever there is to say. Notes that came are given to `arrived` on the
 * receiver's loop, and go back to the sender with its next batch, so that a note in use all the
 * time is allocated once.
 *
 *   sender: mail_note, mail_post ... (the turn's end) -> ready -> (wake-up) receiver: arrived
 *     ^------------------------ spent <---------------------- mail_spend <----------'
 *
 * Who owns what: `out` and `kept` are the sender's, `spent_here` is the receiver's, `ready`, `size`
 * and `spent` are whoever's holds the lock. A note belongs to the sender until it is posted, and to
 * the receiver from `arrived` until it is spent; what it is about is settled by the two. A note
 * that is part of something larger is never allocated, so that what must be said always can be; it
 * may be posted again when its receiver has answered it.
 *
 * The box bounds nothing: its users do, by `backlog`. Close: both sides have stopped posting and
 * taking; mail_close_sender on the sender's loop, mail_close_receiver on the receiver's, then
 * mail_free when both handles' loops have run. */
#ifndef CONCLAVE_MAILBOX_H
#define CONCLAVE_MAILBOX_H

#include <uv.h>

#include "crypto/base.h"
#include "crypto/limits.h"

struct note {
    struct note *next; /* in whichever list it is */
    void *about;       /* what it is about; its users' */
    unsigned kind;     /* their word for what it says */
    unsigned number;   /* a status, or how many of something */
    bool flag;         /* one more thing that it says */
    bool kept;         /* it has NOTE_BYTES, and goes round */
    bool part;         /* of something larger: not the box's memory */
    size_t size;       /* of its bytes */
};

struct notes {
    struct note *first, **end; /* in the order in which they were posted */
};

struct mailbox {
    uv_loop_t *from;         /* the sender's; NULL: the box is not open */
    uv_prepare_t prepare;    /* the sender's turn's end; runs while there is something in `out` */
    uv_idle_t idle;          /* keeps the sender's loop from sleeping before that */
    struct notes out;        /* posted, not handed over */
    size_t out_size;         /* bytes of them */
    struct note *kept;       /* to be used again */
    unsigned n_kept;         /* their number */
    size_t backlog;          /* bytes that the receiver had not taken, when last handed over */
    uv_mutex_t lock;         /* of the next three */
    struct notes ready;      /* handed over */
    size_t size;             /* bytes of them */
    struct notes spent;      /* on their way back */
    uv_async_t async;        /* wakes the receiver's loop */
    struct notes spent_here; /* by the receiver, not yet on their way */
    void (*arrived)(struct mailbox *box, struct note *note);  /* on the receiver's loop */
    void (*returned)(struct mailbox *box, struct note *note); /* a part was spent; the sender's */
    void *ctx;                                                /* of both */
};

/* Before the receiver's loop runs on another thread. */
RESULT mail_open(struct mailbox *box, uv_loop_t *from, uv_loop_t *to);
struct note *mail_note(struct mailbox *box, size_t size); /* NULL: no memory */
static inline uint8_t *note_bytes(struct note *note) { return (uint8_t *)(note + 1); }
void mail_post(struct mailbox *box, struct note *note);
void mail_flush(struct mailbox *box); /* hands over at once */
void mail_spend(struct mailbox *box, struct note *note);
void mail_close_sender(struct mailbox *box, uv_close_cb closed); /* called twice */
void mail_close_receiver(struct mailbox *box, uv_close_cb closed);
/* What is still in it is freed, or given to `returned`. */
void mail_free(struct mailbox *box);

#endif
