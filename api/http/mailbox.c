/* See mailbox.h. An idle handle runs from the first note of a turn until all is handed over: so the
 * sender's loop can't fall asleep over a note that was posted after its turn's end. */
#include "api/http/mailbox.h"

#include <sodium.h>
#include <stdlib.h>

static void empty(struct notes *list) {
    list->first = NULL;
    list->end = &list->first;
}

static void add(struct notes *list, struct note *note) {
    note->next = NULL;
    *list->end = note;
    list->end = &note->next;
}

static void move(struct notes *from, struct notes *to) {
    if (!from->first) return;
    *to->end = from->first;
    to->end = from->end;
    empty(from);
}

/* Of the sender again. */
static void take_back(struct mailbox *box, struct note *list) {
    while (list) {
        struct note *note = list;
        list = note->next;
        if (note->part) {
            if (box->returned) box->returned(box, note);
        } else if (!note->kept || box->n_kept == NOTES_KEPT_MAX) {
            free(note);
        } else {
            note->next = box->kept;
            box->kept = note;
            box->n_kept++;
        }
    }
}

void mail_flush(struct mailbox *box) {
    (void)uv_prepare_stop(&box->prepare);
    (void)uv_idle_stop(&box->idle);
    if (!box->out.first) return;
    uv_mutex_lock(&box->lock);
    bool sleeping = !box->ready.first;
    move(&box->out, &box->ready);
    box->size += box->out_size;
    box->backlog = box->size;
    struct note *spent = box->spent.first;
    empty(&box->spent);
    uv_mutex_unlock(&box->lock);
    box->out_size = 0;
    if (sleeping) (void)uv_async_send(&box->async);
    take_back(box, spent);
}

static void on_prepare(uv_prepare_t *prepare) { mail_flush(prepare->data); }
static void on_idle(uv_idle_t *idle) { (void)idle; }

void mail_post(struct mailbox *box, struct note *note) {
    if (!box->out.first) {
        (void)uv_prepare_start(&box->prepare, on_prepare);
        (void)uv_idle_start(&box->idle, on_idle);
    }
    add(&box->out, note);
    box->out_size += note->size;
}

struct note *mail_note(struct mailbox *box, size_t size) {
    struct note *note = box->kept;
    bool kept = size <= NOTE_BYTES;
    if (kept && note) {
        box->kept = note->next;
        box->n_kept--;
    } else {
        if (size > SIZE_MAX - sizeof *note) return NULL;
        note = malloc(sizeof *note + (kept ? NOTE_BYTES : size));
    }
    if (note) *note = (struct note){.kept = kept, .size = size};
    return note;
}

/* Requests and answers carry values: what is kept holds none. */
void mail_spend(struct mailbox *box, struct note *note) {
    if (!note->part) sodium_memzero(note_bytes(note), note->size);
    if (note->part || note->kept)
        add(&box->spent_here, note);
    else
        free(note);
}

/* What was spent goes back with the taking of what is new. */
static void on_async(uv_async_t *async) {
    struct mailbox *box = async->data;
    uv_mutex_lock(&box->lock);
    struct note *note = box->ready.first, *next;
    empty(&box->ready);
    box->size = 0;
    move(&box->spent_here, &box->spent);
    uv_mutex_unlock(&box->lock);
    for (; note; note = next) {
        next = note->next;
        box->arrived(box, note);
    }
}

RESULT mail_open(struct mailbox *box, uv_loop_t *from, uv_loop_t *to) {
    if (uv_mutex_init(&box->lock) != 0) return ERR_NOMEM;
    if (uv_async_init(to, &box->async, on_async) != 0) {
        uv_mutex_destroy(&box->lock);
        return ERR_NOMEM;
    }
    (void)uv_prepare_init(from, &box->prepare);
    (void)uv_idle_init(from, &box->idle);
    box->prepare.data = box->idle.data = box->async.data = box;
    box->from = from;
    empty(&box->out);
    empty(&box->ready);
    empty(&box->spent);
    empty(&box->spent_here);
    return OK;
}

void mail_close_sender(struct mailbox *box, uv_close_cb closed) {
    mail_flush(box);
    uv_close((uv_handle_t *)&box->prepare, closed);
    uv_close((uv_handle_t *)&box->idle, closed);
}

void mail_close_receiver(struct mailbox *box, uv_close_cb closed) {
    uv_close((uv_handle_t *)&box->async, closed);
}

void mail_free(struct mailbox *box) {
    if (!box->from) return;
    take_back(box, box->out.first);
    take_back(box, box->ready.first);
    take_back(box, box->spent.first);
    take_back(box, box->spent_here.first);
    while (box->kept) {
        struct note *note = box->kept;
        box->kept = note->next;
        free(note);
    }
    uv_mutex_destroy(&box->lock);
    box->from = NULL;
}
