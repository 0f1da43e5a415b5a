/* The log: appending, truncating, compacting; and the format of its files.
 *
 * A segment is `log/<sequence as 16 hex digits>.seg`, a file of fixed size, reserved and
 * pre-written with zeros. Block 0 (BLOCK_SIZE bytes) is its header:
 *
 *     0  40  envelope (envelope.h), magic "CONCSEGM", purpose "wal segment": id, and so the key
 *    40  50  \  cluster id (25), node id (25), padded with zeros
 *    90   8   | sequence
 *    98   8   | size of the file
 *   106   8   | index of the first entry that it will hold
 *   114   8   | ballot count when it was made
 *   122   8   | the chain: records of the segment before (0 when sequence is 1)
 *   130   8   | the byte where they end (the same)
 *   138   1   | 1: a reset, nothing before this segment counts any more; otherwise 0
 *   139  16   | tag of the last record of the segment before, of its header when it has none
 *   155  16  /  all of it sealed with counter 0; associated data: the envelope
 *   171      zeros to 4096
 *
 * A first index that is not past the last entry before means: the log was truncated there.
 *
 * Records n = 1, 2, ... follow, each from the next multiple of BLOCK_SIZE on, each one batch of
 * entries:
 *
 *     0   4  \  size b of the body
 *     4   4   | entries
 *     8   8   | index of the first
 *    16   8   | n
 *    24   8   | ballot count when it was written
 *    32  16   | tag of the record before, of the segment's header for n = 1
 *    48  16  /  sealed with counter 2n - 1; associated data: segment id, n (8)
 *    64   b  \  for each entry: term (8), type (1), size (4), bytes; then zeros
 *  64+b  16  /  sealed with counter 2n; associated data: segment id, n (8), tag of the head
 *  80+b      zeros to the next multiple of BLOCK_SIZE
 *
 * The zeros inside the body make 80 + b a multiple of SECTOR_SIZE, so that sealed bytes, which are
 * never a sector of zeros, cover each sector of the record whole. 80 + b is at most RECORD_MAX.
 *
 * Appends go to the segment that this process began; each opening, truncation, reset and rolling
 * begins a new one with a new id. Nothing is written twice in one place, so no key and counter meet
 * two plaintexts.
 *
 * Torn or damaged? A record is one write; it is acknowledged when it is durable, and only then the
 * next is written. A disk writes a sector whole or not at all, over zeros. So an unfinished record
 * has lost at least one sector, which is zero, and there is nothing behind it. Where the next
 * record should be:
 *
 *   head and body authenticate          a record
 *   the head does, the body does not    torn, the end: if a sector of its sealed bytes is zero and
 *                                       nothing but zeros follows its extent; otherwise damage
 *   no head, its sector is zero         the end: if no head of this number or the next is behind,
 *                                       and only zeros further on than a largest record reaches;
 *                                       otherwise damage
 *   no head, its sector is not zero     damage
 *
 * The end of a segment that has a successor must be where the successor's header says, with that
 * tag. The end of the last one must not lie before the ballot's watermark (segment, records, tag).
 * Ballot counts must not lie above the ballot's own. Sequences have no gaps, from the watermark's
 * `first` to its segment; one more may follow, empty, begun in the moment of a crash. */
#include <stdlib.h>

#include "raft/wal_internal.h"

/* ---- opening and closing ---- */

static RESULT wal_start(struct wal *w, const struct wal_options *o) {
    w->o = *o;
    w->next = 1;
    atomic_init(&w->spare_ready, false);
    if (o->segment_size % BLOCK_SIZE != 0 || o->segment_size < 2 * BLOCK_SIZE) return ERR_INVALID;
    if (pthread_mutex_init(&w->lock, NULL) != 0) return ERR_NOMEM;
    if (pthread_mutex_init(&w->spare_lock, NULL) == 0) {
        if (pthread_mutex_init(&w->read_lock, NULL) == 0) return OK;
        (void)pthread_mutex_destroy(&w->spare_lock);
    }
    (void)pthread_mutex_destroy(&w->lock);
    return ERR_NOMEM;
}

RESULT wal_open(const struct wal_options *o, enum err (*each)(void *ctx, struct entry *e),
                void *ctx, bool *torn, struct wal **out, struct why *why) {
    struct wal *w = calloc(1, sizeof *w);
    bool ignored;
    if (w == NULL) return ERR_NOMEM;
    enum err e = wal_start(w, o);
    if (e != OK) {
        free(w);
        return e;
    }
    e = wal_load(w, each, ctx, torn != NULL ? torn : &ignored, why);
    if (e == OK)
        *out = w;
    else
        wal_close(w);
    return e;
}

void wal_close(struct wal *w) {
    if (w == NULL) return;
    struct disk *d = w->o.disk;
    wal_readers_close(w, UINT64_MAX);
    if (w->file != NULL) d->close(w->file);
    if (w->spare != NULL) d->close(w->spare);
    sealer_free(w->sealer);
    wal_list_free(&w->segments);
    wal_list_free(&w->leaving);
    free(w->buffer.at);
    free(w->read_buffer.at);
    free(w->plain.at);
    (void)pthread_mutex_destroy(&w->lock);
    (void)pthread_mutex_destroy(&w->spare_lock);
    (void)pthread_mutex_destroy(&w->read_lock);
    free(w);
}

/* ---- appending ---- */

static uint64_t record_room(const struct wal *w) {
    uint64_t room = w->o.segment_size - BLOCK_SIZE;
    return room < RECORD_MAX ? room : RECORD_MAX;
}

size_t wal_batch(const struct wal *w, struct entry *const *entries, size_t n) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += wal_entry_size(entries[i]);
        if (wal_sealed_size(wal_body_size(bytes)) > record_room(w)) return i;
    }
    return n;
}

static RESULT batch_check(struct wal *w, struct entry *const *entries, size_t n,
                          struct wal_record *r, struct why *why) {
    uint64_t payload = 0;
    if (n == 0 || n > UINT32_MAX) return fail_with(why, ERR_INVALID, "log: an empty batch");
    for (size_t i = 0; i < n; i++) {
        if (entries[i]->index != w->next + i)
            return fail_with(why, ERR_INVALID, "log: entry %llu does not follow entry %llu",
                             (unsigned long long)entries[i]->index,
                             (unsigned long long)(w->next + i - 1));
        payload += entries[i]->size;
    }
    uint64_t body = wal_body_size(payload + WAL_ENTRY_HEAD * (uint64_t)n);
    if (wal_sealed_size(body) > record_room(w))
        return fail_with(why, ERR_TOO_LARGE,
                         "log: a batch of %llu bytes is more than a record holds",
                         (unsigned long long)payload);
    *r = (struct wal_record){.first = w->next,
                             .count = (uint32_t)n,
                             .payload = (uint32_t)payload,
                             .body = (uint32_t)body};
    return OK;
}

static RESULT record_build(struct wal *w, const struct wal_segment *s, struct wal_record *r,
                           struct entry *const *entries) {
    struct wal_head head = {.body = r->body,
                            .count = r->count,
                            .first = r->first,
                            .number = s->count + 1,
                            .ballot = ballot_count(w->o.ballot)};
    memcpy(head.previous, wal_last_tag(s), SEAL_TAG);
    TRY(wal_buffer_reserve(&w->buffer, wal_extent(r->body)));
    return wal_record_seal(&s->envelope, w->sealer, &head, entries, w->buffer.at, r->tag);
}

/* From here on the record's counters are used: a failure is final. */
static RESULT record_store(struct wal *w, const struct wal_segment *s, const struct wal_record *r,
                           struct why *why) {
    struct disk *d = w->o.disk;
    w->failed = true;
    enum err e = d->write(w->file, s->end, w->buffer.at, (size_t)wal_extent(r->body), why);
    if (e == OK && !w->file->durable_writes) e = d->sync(w->file, why);
    w->failed = e != OK;
    return e == ERR_NOSPACE ? ERR_IO : e;
}

static struct wal_segment *active(const struct wal *w) {
    return w->file == NULL ? NULL : w->segments.at[w->segments.count - 1];
}

RESULT wal_append(struct wal *w, struct entry *const *entries, size_t n, struct why *why) {
    struct wal_record r;
    if (w->failed) return fail_with(why, ERR_IO, "log: an earlier write failed");
    TRY(batch_check(w, entries, n, &r, why));
    struct wal_segment *s = active(w);
    if (s == NULL || s->end + wal_extent(r.body) > s->header.size) {
        TRY(wal_segment_begin(w, w->next, false, why));
        s = active(w);
    }
    r.block = (uint32_t)(s->end / BLOCK_SIZE);
    TRY(record_build(w, s, &r, entries));
    TRY(record_store(w, s, &r, why));
    pthread_mutex_lock(&w->lock);
    s->records[s->count++] = r;
    s->end += wal_extent(r.body);
    w->next += n;
    w->bytes += r.payload;
    pthread_mutex_unlock(&w->lock);
    return OK;
}

bool wal_one_block(const struct wal *w, struct entry *const *entries, size_t n) {
    const struct wal_segment *s = active(w);
    uint64_t bytes = 0;
    for (size_t i = 0; i < n && bytes < BLOCK_SIZE; i++)
        bytes += wal_entry_size(entries[i]);
    return s != NULL && wal_extent(wal_body_size(bytes)) == BLOCK_SIZE &&
           s->end + BLOCK_SIZE <= s->header.size;
}

/* ---- shortening ---- */

RESULT wal_truncate(struct wal *w, uint64_t from_index, struct why *why) {
    if (from_index == 0) return fail_with(why, ERR_INVALID, "log: there is no entry 0");
    if (from_index >= w->next) return OK;
    return wal_segment_begin(w, from_index, false, why);
}

RESULT wal_reset(struct wal *w, uint64_t index, struct why *why) {
    TRY(wal_segment_begin(w, index + 1, true, why));
    if (w->segments.count > 1) wal_leave(w, w->segments.count - 1);
    return OK;
}

RESULT wal_roll(struct wal *w, struct why *why) {
    return wal_segment_begin(w, w->next, false, why);
}

/* Does the segment hold a live entry above `index`? */
static bool holds_above(const struct wal_segment *s, uint64_t index) {
    if (s->count == 0 || s->limit <= index + 1) return false;
    const struct wal_record *last = &s->records[s->count - 1];
    return last->first + last->count - 1 > index;
}

RESULT wal_compact(struct wal *w, uint64_t index, struct why *why) {
    size_t n = 0;
    if (w->failed) return fail_with(why, ERR_IO, "log: an earlier write failed");
    while (n + 1 < w->segments.count && !holds_above(w->segments.at[n], index))
        n++;
    if (n == 0) {
        wal_sweep(w);
        return OK;
    }
    TRY(wal_store_mark(w, w->segments.at[n]->header.sequence, why));
    wal_leave(w, n);
    pthread_mutex_lock(&w->lock);
    wal_count_bytes(w);
    pthread_mutex_unlock(&w->lock);
    return OK;
}

RESULT wal_mark(struct wal *w, struct why *why) {
    if (w->segments.count == 0) return OK;
    return wal_store_mark(w, w->segments.at[0]->header.sequence, why);
}

/* ---- answering ---- */

size_t wal_live_entries(const struct wal_segment *s, const struct wal_record *r) {
    if (r->first >= s->limit) return 0;
    uint64_t live = s->limit - r->first;
    return live < r->count ? (size_t)live : r->count;
}

uint64_t wal_first_locked(const struct wal *w) {
    for (size_t i = 0; i < w->segments.count; i++) {
        const struct wal_segment *s = w->segments.at[i];
        if (s->count != 0 && wal_live_entries(s, &s->records[0]) != 0) return s->records[0].first;
    }
    return w->next;
}

/* A record that a truncation cut counts with the share of its entries that live on. */
void wal_count_bytes(struct wal *w) {
    w->bytes = 0;
    for (size_t i = 0; i < w->segments.count; i++) {
        const struct wal_segment *s = w->segments.at[i];
        for (size_t k = 0; k < s->count; k++) {
            const struct wal_record *r = &s->records[k];
            w->bytes += r->payload * (uint64_t)wal_live_entries(s, r) / r->count;
        }
    }
}

static uint64_t ask(struct wal *w, uint64_t (*what)(const struct wal *w)) {
    pthread_mutex_lock(&w->lock);
    uint64_t v = what(w);
    pthread_mutex_unlock(&w->lock);
    return v;
}

static uint64_t last_locked(const struct wal *w) { return w->next - 1; }
static uint64_t bytes_locked(const struct wal *w) { return w->bytes; }

uint64_t wal_first(struct wal *w) { return ask(w, wal_first_locked); }
uint64_t wal_last(struct wal *w) { return ask(w, last_locked); }
uint64_t wal_bytes(struct wal *w) { return ask(w, bytes_locked); }

static uint64_t files_locked(const struct wal *w) {
    uint64_t size = 0;
    for (size_t i = 0; i < w->segments.count; i++)
        size += w->segments.at[i]->header.size;
    return size;
}

uint64_t wal_file_bytes(struct wal *w) { return ask(w, files_locked); }

static uint64_t generation_locked(const struct wal *w) {
    uint32_t oldest = keyring_generation(w->o.keys);
    const struct wal_list *lists[] = {&w->segments, &w->leaving};
    for (size_t k = 0; k < ARRAY_SIZE(lists); k++)
        for (size_t i = 0; i < lists[k]->count; i++) {
            uint32_t g = lists[k]->at[i]->envelope.generation;
            if (g < oldest) oldest = g;
        }
    return oldest;
}

uint32_t wal_oldest_generation(struct wal *w) { return (uint32_t)ask(w, generation_locked); }
