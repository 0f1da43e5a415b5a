/* Reading entries back, for followers that lag behind what is kept in memory. The place of the
 * record is looked up under `lock`; the reading itself runs under `read_lock` alone, so that an
 * append never waits for it. A few segments are kept open, each with the entries of the record that
 * was read last: a follower asks for one entry after the other. What was found in the index stays
 * true while it is read: files are never changed, only removed, and then the entry was on its way
 * out. */
#include <stdlib.h>

#include "raft/wal_internal.h"

/* A copy of all that is needed to read one record without the lock. */
struct place {
    uint64_t sequence;        /* of the segment */
    struct envelope envelope; /* its */
    struct wal_record record; /* where */
    uint64_t number;          /* of the record */
};

/* The record that holds `index`, by halving. */
static size_t record_of(const struct wal_segment *s, uint64_t index) {
    size_t low = 0, high = s->count;
    while (high - low > 1) {
        size_t mid = (low + high) / 2;
        if (s->records[mid].first <= index)
            low = mid;
        else
            high = mid;
    }
    return low;
}

static bool find_locked(const struct wal *w, uint64_t index, struct place *p) {
    for (size_t i = w->segments.count; i-- > 0;) {
        const struct wal_segment *s = w->segments.at[i];
        if (s->count == 0 || index < s->header.first || index >= s->limit) continue;
        size_t n = record_of(s, index);
        if (index >= s->records[n].first + s->records[n].count) continue;
        p->sequence = s->header.sequence;
        p->envelope = s->envelope;
        p->record = s->records[n];
        p->number = n + 1;
        return true;
    }
    return false;
}

static void entries_drop(struct wal_reader *r) {
    for (size_t i = 0; i < r->count; i++)
        entry_drop(r->entries[i]);
    free(r->entries);
    r->entries = NULL;
    r->count = 0;
    r->number = 0;
}

static void reader_close(struct wal *w, struct wal_reader *r) {
    entries_drop(r);
    if (r->file != NULL) w->o.disk->close(r->file);
    sealer_free(r->sealer);
    *r = (struct wal_reader){0};
}

void wal_readers_close(struct wal *w, uint64_t below) {
    pthread_mutex_lock(&w->read_lock);
    for (size_t i = 0; i < WAL_READERS; i++)
        if (w->readers[i].sequence < below) reader_close(w, &w->readers[i]);
    pthread_mutex_unlock(&w->read_lock);
}

/* The reader of the segment: one that has it open, or the one that was not used for longest. */
static RESULT reader_of(struct wal *w, const struct place *p, const char *path,
                        struct wal_reader **out, struct why *why) {
    struct wal_reader *r = &w->readers[0];
    for (size_t i = 0; i < WAL_READERS; i++) {
        if (w->readers[i].sequence == p->sequence) r = &w->readers[i];
        if (w->readers[i].used < r->used && r->sequence != p->sequence) r = &w->readers[i];
    }
    if (r->sequence != p->sequence) {
        reader_close(w, r);
        enum err e = envelope_sealer(&p->envelope, &wal_kind, w->o.keys, path, 0, &r->sealer, why);
        if (e == OK) e = w->o.disk->open(w->o.disk, path, DISK_READ, &r->file, why);
        if (e != OK) {
            reader_close(w, r);
            return e;
        }
        r->sequence = p->sequence;
    }
    r->used = ++w->clock;
    *out = r;
    return OK;
}

static enum err take(void *ctx, struct entry *e) {
    struct wal_reader *r = ctx;
    r->entries[r->count++] = e;
    return OK;
}

static RESULT record_open(struct wal *w, struct wal_reader *r, const struct place *p) {
    struct wal_head head;
    uint8_t tag[SEAL_TAG];
    TRY(wal_head_open(&p->envelope, r->sealer, p->number, w->read_buffer.at, &head));
    if (head.body != p->record.body || head.first != p->record.first ||
        head.count != p->record.count)
        return ERR_CORRUPT;
    TRY(wal_body_open(&p->envelope, r->sealer, &head, w->read_buffer.at, w->plain.at, tag));
    if (memcmp(tag, p->record.tag, SEAL_TAG) != 0) return ERR_CORRUPT;
    r->entries = calloc(head.count, sizeof(struct entry *));
    if (r->entries == NULL) return ERR_NOMEM;
    return wal_body_read(&head, span_of(w->plain.at, head.body), take, r);
}

static RESULT record_load(struct wal *w, struct wal_reader *r, const struct place *p,
                          const char *path, struct why *why) {
    uint64_t at = p->record.block * BLOCK_SIZE, size = wal_sealed_size(p->record.body);
    size_t got = 0;
    entries_drop(r);
    TRY(wal_buffer_reserve(&w->read_buffer, size));
    TRY(wal_buffer_reserve(&w->plain, p->record.body));
    TRY(w->o.disk->read(r->file, at, w->read_buffer.at, (size_t)size, &got, why));
    enum err e = got == size ? record_open(w, r, p) : ERR_CORRUPT;
    if (e == OK) {
        r->number = p->number;
        return OK;
    }
    entries_drop(r);
    if (e != ERR_CORRUPT) return e;
    return fail_with(why, e, "%s: byte %llu: the record does not authenticate", path,
                     (unsigned long long)at);
}

static RESULT read_locked(struct wal *w, uint64_t index, struct entry **out, struct why *why) {
    struct place p;
    struct wal_reader *r = NULL;
    char path[PATH_ROOM];
    pthread_mutex_lock(&w->lock);
    bool found = find_locked(w, index, &p);
    pthread_mutex_unlock(&w->lock);
    if (!found)
        return fail_with(why, ERR_NOT_FOUND, "log: entry %llu is not there",
                         (unsigned long long)index);
    wal_path(p.sequence, path);
    TRY(reader_of(w, &p, path, &r, why));
    if (r->number != p.number) TRY(record_load(w, r, &p, path, why));
    *out = entry_hold(r->entries[index - p.record.first]);
    return OK;
}

RESULT wal_read(struct wal *w, uint64_t index, struct entry **out, struct why *why) {
    pthread_mutex_lock(&w->read_lock);
    enum err e = read_locked(w, index, out, why);
    pthread_mutex_unlock(&w->read_lock);
    return e;
}
