/* The life of a segment file: pre-written as `log/spare`, begun (header, rename, watermark), left
 * behind and removed.
 *
 * Beginning one, each step durable before the next:
 *   1. log/spare, reserved, all zeros     crash: the next spare replaces it
 *   2. its header block                   crash: the same
 *   3. renamed, the directory synced      crash: it is there, empty, or not; the same log
 *   4. the ballot's watermark             crash: found one beyond the watermark, empty
 * Leaving some behind: the watermark's `first` moves on, then the files go, then the directory is
 * synced. Files below `first` are remains, and the next opening removes them. */
#include <stdlib.h>

#include "raft/wal_internal.h"

void wal_segment_free(struct wal_segment *s) {
    if (s == NULL) return;
    free(s->records);
    free(s);
}

RESULT wal_list_reserve(struct wal_list *l, size_t more) {
    if (l->count + more <= l->room) return OK;
    size_t room = l->room * 2 > l->count + more ? l->room * 2 : l->count + more;
    struct wal_segment **at = realloc(l->at, room * sizeof *at);
    if (at == NULL) return ERR_NOMEM;
    l->at = at;
    l->room = room;
    return OK;
}

void wal_list_free(struct wal_list *l) {
    for (size_t i = 0; i < l->count; i++)
        wal_segment_free(l->at[i]);
    free(l->at);
    *l = (struct wal_list){0};
}

RESULT wal_buffer_reserve(struct wal_buffer *b, uint64_t size) {
    if (size <= b->size) return OK;
    size_t room = b->size < WAL_BUFFER_MIN ? WAL_BUFFER_MIN : b->size;
    while (room < size)
        room *= 2;
    uint8_t *at = aligned_alloc(BLOCK_SIZE, room);
    if (at == NULL) return ERR_NOMEM;
    free(b->at);
    b->at = at;
    b->size = room;
    return OK;
}

RESULT wal_record_add(struct wal_segment *s, const struct wal_record *r) {
    if (s->count == s->room) {
        size_t room = s->room < 16 ? 16 : s->room * 2;
        struct wal_record *records = realloc(s->records, room * sizeof *records);
        if (records == NULL) return ERR_NOMEM;
        s->records = records;
        s->room = room;
    }
    s->records[s->count++] = *r;
    return OK;
}

const uint8_t *wal_last_tag(const struct wal_segment *s) {
    return s->count == 0 ? s->tag : s->records[s->count - 1].tag;
}

/* ---- the spare ---- */

/* Synced piece by piece, so that no append's sync has to wait for the whole. */
static RESULT write_zeros(struct wal *w, struct file *f, struct why *why) {
    struct disk *d = w->o.disk;
    uint64_t piece = w->o.segment_size < WAL_PIECE ? w->o.segment_size : WAL_PIECE;
    uint8_t *zeros = aligned_alloc(BLOCK_SIZE, (size_t)piece);
    if (zeros == NULL) return ERR_NOMEM;
    memset(zeros, 0, (size_t)piece);
    enum err e = d->allocate(f, w->o.segment_size, why);
    for (uint64_t at = 0; at < w->o.segment_size && e == OK; at += piece) {
        uint64_t left = w->o.segment_size - at;
        e = d->write(f, at, zeros, (size_t)(left < piece ? left : piece), why);
        if (e == OK && !f->durable_writes) e = d->sync(f, why);
    }
    if (e == OK) e = d->sync(f, why);
    free(zeros);
    return e;
}

static RESULT spare_make(struct wal *w, struct why *why) {
    struct disk *d = w->o.disk;
    struct file *f = NULL;
    enum err e = d->remove(d, WAL_SPARE, NULL);
    if (e != OK && e != ERR_NOT_FOUND) return fail_with(why, e, WAL_SPARE ": can't be removed");
    TRY(d->open(d, WAL_SPARE, DISK_CREATE | DISK_DIRECT, &f, why));
    e = write_zeros(w, f, why);
    if (e == OK) {
        w->spare = f;
        atomic_store(&w->spare_ready, true);
        return OK;
    }
    d->close(f);
    enum err ignored = d->remove(d, WAL_SPARE, NULL);
    (void)ignored; /* the next attempt removes it too */
    return e;
}

RESULT wal_prepare(struct wal *w, struct why *why) {
    pthread_mutex_lock(&w->spare_lock);
    enum err e = w->spare == NULL ? spare_make(w, why) : OK;
    pthread_mutex_unlock(&w->spare_lock);
    return e;
}

bool wal_wants_prepare(struct wal *w) { return !atomic_load(&w->spare_ready); }

/* Hands the spare over; makes it now when nobody did before. spare_lock is held until it has its
 * new name: nobody makes another one in its place. */
static RESULT spare_take(struct wal *w, struct file **out, struct why *why) {
    if (w->spare == NULL) TRY(spare_make(w, why));
    *out = w->spare;
    w->spare = NULL;
    atomic_store(&w->spare_ready, false);
    return OK;
}

/* ---- beginning ---- */

static void header_make(const struct wal *w, uint64_t first, bool reset, struct wal_header *h) {
    const struct wal_list *l = &w->segments;
    *h = (struct wal_header){
        .sequence = 1, .size = w->o.segment_size, .first = first, .reset = reset};
    h->ballot = ballot_count(w->o.ballot);
    if (l->count == 0) return;
    const struct wal_segment *last = l->at[l->count - 1];
    h->sequence = last->header.sequence + 1;
    h->previous_records = last->count;
    h->previous_end = last->end;
    memcpy(h->previous_tag, wal_last_tag(last), SEAL_TAG);
}

static RESULT segment_new(struct wal *w, uint64_t first, bool reset, struct wal_segment **out) {
    struct wal_segment *s = calloc(1, sizeof *s);
    if (s == NULL) return ERR_NOMEM;
    s->limit = UINT64_MAX;
    s->end = BLOCK_SIZE;
    s->room =
        (size_t)(w->o.segment_size / BLOCK_SIZE) - 1; /* so that appending allocates nothing */
    s->records = malloc(s->room * sizeof *s->records);
    header_make(w, first, reset, &s->header);
    envelope_new(&s->envelope, w->o.keys, w->o.alg);
    if (s->records == NULL) {
        wal_segment_free(s);
        return ERR_NOMEM;
    }
    *out = s;
    return OK;
}

/* Steps 2 and 3. */
static RESULT header_store(struct wal *w, struct file *f, const char *path, struct why *why) {
    struct disk *d = w->o.disk;
    TRY(d->write(f, 0, w->buffer.at, BLOCK_SIZE, why));
    if (!f->durable_writes) TRY(d->sync(f, why));
    TRY(d->rename(d, WAL_SPARE, path, why));
    return d->sync_dir(d, "log", why);
}

/* Makes the spare the segment's file. Once something may have been written, a failure is final. */
static RESULT file_begin(struct wal *w, const char *path, struct file **f, struct why *why) {
    pthread_mutex_lock(&w->spare_lock);
    enum err e = spare_take(w, f, why);
    if (e == OK) {
        w->failed = true;
        e = header_store(w, *f, path, why);
        if (e == ERR_NOSPACE) e = ERR_IO;
    }
    pthread_mutex_unlock(&w->spare_lock);
    return e;
}

static void publish(struct wal *w, struct wal_segment *s, struct file *f, struct sealer *sealer) {
    if (w->file != NULL) w->o.disk->close(w->file);
    sealer_free(w->sealer);
    w->file = f;
    w->sealer = sealer;
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < w->segments.count; i++) {
        uint64_t limit = s->header.reset ? 0 : s->header.first;
        if (w->segments.at[i]->limit > limit) w->segments.at[i]->limit = limit;
    }
    w->segments.at[w->segments.count++] = s;
    w->next = s->header.first;
    wal_count_bytes(w);
    pthread_mutex_unlock(&w->lock);
}

/* All that can fail without a trace is done before anything is written. */
static RESULT begin_ready(struct wal *w, struct wal_segment *s, struct sealer **sealer,
                          const char *path, struct why *why) {
    TRY(envelope_sealer(&s->envelope, &wal_kind, w->o.keys, path, 0, sealer, why));
    TRY(wal_buffer_reserve(&w->buffer, BLOCK_SIZE));
    TRY(wal_header_seal(&s->envelope, *sealer, &w->o.identity, &s->header, w->buffer.at, s->tag));
    pthread_mutex_lock(&w->lock);
    enum err e = wal_list_reserve(&w->segments, 1);
    if (e == OK) e = wal_list_reserve(&w->leaving, w->segments.count + 1);
    pthread_mutex_unlock(&w->lock);
    return e;
}

RESULT wal_segment_begin(struct wal *w, uint64_t first, bool reset, struct why *why) {
    struct wal_segment *s = NULL;
    struct sealer *sealer = NULL;
    struct file *f = NULL;
    char path[PATH_ROOM];
    if (w->failed) return fail_with(why, ERR_IO, "log: an earlier write failed");
    TRY(segment_new(w, first, reset, &s));
    wal_path(s->header.sequence, path);
    enum err e = begin_ready(w, s, &sealer, path, why);
    if (e == OK) e = file_begin(w, path, &f, why);
    if (e != OK) {
        if (f != NULL) w->o.disk->close(f);
        sealer_free(sealer);
        wal_segment_free(s);
        return e;
    }
    publish(w, s, f, sealer);
    e = wal_store_mark(w, reset ? s->header.sequence : w->segments.at[0]->header.sequence, why);
    w->failed = e != OK;
    return e == ERR_NOSPACE ? ERR_IO : e;
}

RESULT wal_store_mark(struct wal *w, uint64_t first_segment, struct why *why) {
    if (w->segments.count == 0) return OK;
    const struct wal_segment *last = w->segments.at[w->segments.count - 1];
    struct watermark m = {
        .segment = last->header.sequence, .records = last->count, .first = first_segment};
    memcpy(m.tag, wal_last_tag(last), SEAL_TAG);
    return ballot_mark(w->o.ballot, &m, why);
}

/* ---- leaving behind ---- */

void wal_sweep(struct wal *w) {
    struct disk *d = w->o.disk;
    size_t gone = 0;
    for (; gone < w->leaving.count; gone++) {
        char path[PATH_ROOM];
        wal_path(w->leaving.at[gone]->header.sequence, path);
        enum err e = d->remove(d, path, NULL);
        if (e != OK && e != ERR_NOT_FOUND) return;
    }
    if (gone == 0 || d->sync_dir(d, "log", NULL) != OK) return;
    pthread_mutex_lock(&w->lock);
    struct wal_list old = w->leaving;
    w->leaving.count = 0;
    for (size_t i = 0; i < old.count; i++)
        wal_segment_free(old.at[i]);
    pthread_mutex_unlock(&w->lock);
}

void wal_leave(struct wal *w, size_t n) {
    pthread_mutex_lock(&w->lock);
    struct wal_list *s = &w->segments;
    for (size_t i = 0; i < n; i++)
        w->leaving.at[w->leaving.count++] = s->at[i]; /* room was reserved when the segment began */
    memmove(s->at, s->at + n, (s->count - n) * sizeof *s->at);
    s->count -= n;
    uint64_t below = s->at[0]->header.sequence;
    pthread_mutex_unlock(&w->lock);
    wal_readers_close(w, below);
    wal_sweep(w);
}
