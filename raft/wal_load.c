/* Opening the log: finds the segment files, opens all headers (a later one says where an earlier
 * one was truncated), then reads each segment whole, record by record, and says of each place where
 * no record is whether the log ends there or is damaged; the rules stand at the top of wal.c.
 * Nothing on the disk is changed until all of it was found good. */
#include <stdlib.h>

#include "raft/wal_internal.h"

#define NAME_SIZE 20 /* of "0123456789abcdef.seg" */

struct loader {
    struct wal *w;                                /* being opened */
    enum err (*each)(void *ctx, struct entry *e); /* the caller's */
    void *ctx;                                    /* the caller's */
    struct watermark mark;                        /* of the ballot */
    struct wal_buffer raw;                        /* one segment file */
    struct wal_buffer plain;                      /* one body */
    uint64_t next;                                /* index that the next record must begin with */
    bool torn;                                    /* a torn record was found in the last segment */
    struct why *why;                              /* the caller's */
};

/* One segment while it is read. */
struct scan {
    struct loader *l;
    struct wal_segment *s; /* filled as records are found */
    struct sealer *sealer; /* its own */
    char path[PATH_ROOM];  /* its file */
    const uint8_t *raw;    /* its bytes */
    uint64_t ballot;       /* highest ballot count seen */
    bool torn;             /* it ends with a torn record */
};

/* ---- finding the files ---- */

struct names {
    uint64_t *at; /* sequences, ascending as names are */
    size_t count; /* of them */
    size_t room;  /* allocated */
    enum err e;   /* what went wrong */
};

static bool name_parse(const char *name, uint64_t *out) {
    uint64_t v = 0;
    if (strlen(name) != NAME_SIZE || strcmp(name + 16, ".seg") != 0) return false;
    for (int i = 0; i < 16; i++) {
        const char *digit = strchr("0123456789abcdef", name[i]);
        if (digit == NULL) return false;
        v = v << 4 | (uint64_t)(digit - "0123456789abcdef");
    }
    *out = v;
    return true;
}

static void name_take(void *ctx, const char *name) {
    struct names *n = ctx;
    uint64_t sequence;
    if (!name_parse(name, &sequence) || n->e != OK) return;
    if (n->count == n->room) {
        size_t room = n->room == 0 ? 64 : n->room * 2;
        uint64_t *at = realloc(n->at, room * sizeof *at);
        if (at == NULL) {
            n->e = ERR_NOMEM;
            return;
        }
        n->at = at;
        n->room = room;
    }
    n->at[n->count++] = sequence;
}

static RESULT missing(struct loader *l, uint64_t sequence, uint64_t there) {
    char path[PATH_ROOM], other[PATH_ROOM];
    wal_path(sequence, path);
    if (there == 0)
        return fail_with(l->why, ERR_CORRUPT, "%s: byte 0: the segment is missing", path);
    wal_path(there, other);
    return fail_with(l->why, ERR_CORRUPT, "%s: byte 0: the segment is missing, though %s is there",
                     path, other);
}

/* No gaps, from the watermark's first on; one segment may lie past the watermark: the crash came
 * between its beginning and the mark. */
static RESULT names_check(struct loader *l, const struct names *n) {
    uint64_t want = l->mark.segment == 0 ? 1 : l->mark.first;
    for (size_t i = 0; i < n->count; i++) {
        if (n->at[i] < want) continue;
        if (n->at[i] != want) return missing(l, want, n->at[i]);
        want++;
    }
    if (want <= l->mark.segment) return missing(l, want, 0);
    if (want <= l->mark.segment + 2) return OK;
    return fail_with(l->why, ERR_CORRUPT,
                     "ballot: byte 0: an older copy: it knows of %llu segments, the log has %llu",
                     (unsigned long long)l->mark.segment, (unsigned long long)want - 1);
}

/* ---- headers ---- */

static RESULT read_fully(struct loader *l, struct file *f, const char *path, uint64_t size) {
    size_t got = 0;
    TRY(wal_buffer_reserve(&l->raw, size));
    TRY(l->w->o.disk->read(f, 0, l->raw.at, (size_t)size, &got, l->why));
    if (got == size) return OK;
    return fail_with(l->why, ERR_CORRUPT, "%s: byte %zu: the file ends too early", path, got);
}

static RESULT header_check(struct loader *l, const struct wal_segment *s, uint64_t sequence,
                           uint64_t size, const char *path) {
    if (s->header.sequence != sequence)
        return fail_with(l->why, ERR_CORRUPT, "%s: byte 0: this is segment %llu under another name",
                         path, (unsigned long long)s->header.sequence);
    if (s->header.size != size)
        return fail_with(l->why, ERR_CORRUPT, "%s: byte %llu: the file has %llu bytes, not %llu",
                         path, (unsigned long long)size, (unsigned long long)size,
                         (unsigned long long)s->header.size);
    return ballot_require(l->w->o.ballot, s->header.ballot, path, l->why);
}

static RESULT header_open(struct loader *l, struct wal_segment *s, const char *path) {
    struct sealer *sealer = NULL;
    TRY(envelope_read(span_of(l->raw.at, BLOCK_SIZE), &wal_kind, path, 0, &s->envelope, l->why));
    TRY(envelope_sealer(&s->envelope, &wal_kind, l->w->o.keys, path, 0, &sealer, l->why));
    enum err e =
        wal_header_open(sealer, &l->w->o.identity, l->raw.at, path, &s->header, s->tag, l->why);
    sealer_free(sealer);
    return e;
}

static RESULT header_load(struct loader *l, uint64_t sequence, struct wal_segment *s) {
    struct disk *d = l->w->o.disk;
    struct file *f = NULL;
    char path[PATH_ROOM];
    uint64_t size = 0;
    wal_path(sequence, path);
    TRY(d->open(d, path, DISK_READ, &f, l->why));
    enum err e = d->size(f, &size, l->why);
    if (e == OK) e = read_fully(l, f, path, BLOCK_SIZE);
    d->close(f);
    TRY(e);
    TRY(header_open(l, s, path));
    return header_check(l, s, sequence, size, path);
}

static RESULT segment_load(struct loader *l, uint64_t sequence) {
    struct wal *w = l->w;
    struct wal_segment *s = calloc(1, sizeof *s);
    if (s == NULL) return ERR_NOMEM;
    s->limit = UINT64_MAX;
    s->end = BLOCK_SIZE;
    enum err e = header_load(l, sequence, s);
    bool live = l->mark.segment == 0 || sequence >= l->mark.first;
    struct wal_list *list = live ? &w->segments : &w->leaving;
    if (e == OK) e = wal_list_reserve(list, 1);
    if (e == OK)
        list->at[list->count++] = s;
    else
        wal_segment_free(s);
    return e;
}

static RESULT headers_load(struct loader *l) {
    struct names n = {0};
    struct disk *d = l->w->o.disk;
    enum err e = d->list(d, "log", name_take, &n, l->why);
    if (e == OK) e = n.e;
    if (e == OK) e = names_check(l, &n);
    for (size_t i = 0; i < n.count && e == OK; i++)
        e = segment_load(l, n.at[i]);
    free(n.at);
    TRY(e);
    return wal_list_reserve(&l->w->leaving, l->w->segments.count);
}

/* What each segment holds in vain, because a later one begins below its end. */
static void set_limits(struct wal_list *list) {
    uint64_t limit = UINT64_MAX;
    for (size_t i = list->count; i-- > 0;) {
        struct wal_segment *s = list->at[i];
        s->limit = limit;
        if (s->header.first < limit) limit = s->header.first;
        if (s->header.reset) limit = 0;
    }
}

/* ---- records ---- */

static RESULT damage(const struct scan *c, uint64_t at, const char *what) {
    return fail_with(c->l->why, ERR_CORRUPT, "%s: byte %llu: %s", c->path, (unsigned long long)at,
                     what);
}

/* The first byte that is not zero in [from, to), or `to`. */
static uint64_t first_set(const uint8_t *raw, uint64_t from, uint64_t to) {
    while (from < to) {
        uint64_t part = to - from < BLOCK_SIZE ? to - from : BLOCK_SIZE;
        if (!wal_is_zero(raw + from, part)) break;
        from += part;
    }
    while (from < to && raw[from] == 0)
        from++;
    return from;
}

static bool lost_sector(const uint8_t *raw, uint64_t from, uint64_t to) {
    for (; from < to; from += SECTOR_SIZE)
        if (wal_is_zero(raw + from, SECTOR_SIZE)) return true;
    return false;
}

/* Is a head of this number or the next one behind `at`? Then what is missing here was once durable.
 */
static RESULT head_behind(const struct scan *c, uint64_t at, uint64_t number, bool *found) {
    struct wal_head head;
    *found = false;
    for (at += BLOCK_SIZE; at < c->s->header.size && !*found; at += BLOCK_SIZE) {
        if (wal_is_zero(c->raw + at, SECTOR_SIZE)) continue;
        for (uint64_t n = number; n <= number + 1 && !*found; n++) {
            enum err e = wal_head_open(&c->s->envelope, c->sealer, n, c->raw + at, &head);
            if (e != OK && e != ERR_CORRUPT) return e;
            *found = e == OK;
        }
    }
    return OK;
}

/* No head authenticates at `at`. */
static RESULT end_without_head(struct scan *c, uint64_t at, uint64_t number) {
    uint64_t size = c->s->header.size;
    if (!wal_is_zero(c->raw + at, SECTOR_SIZE))
        return damage(c, at, "the record does not authenticate");
    if (first_set(c->raw, at, size) == size) return OK;
    uint64_t reach = size - at < RECORD_MAX ? size : at + RECORD_MAX;
    uint64_t stray = first_set(c->raw, reach, size);
    if (stray != size) return damage(c, stray, "not zero behind the end of the log");
    bool found;
    TRY(head_behind(c, at, number, &found));
    if (found) return damage(c, at, "a record is missing, though a later one is there");
    c->torn = true;
    return OK;
}

/* The head authenticates, the body does not. */
static RESULT end_without_body(struct scan *c, uint64_t at, const struct wal_head *head) {
    uint64_t sealed = at + wal_sealed_size(head->body);
    if (!lost_sector(c->raw, at, sealed))
        return damage(c, at + WAL_HEAD, "the record's body does not authenticate");
    uint64_t stray = first_set(c->raw, sealed, c->s->header.size);
    if (stray != c->s->header.size) return damage(c, stray, "not zero behind the end of the log");
    c->torn = true;
    return OK;
}

static RESULT head_check(struct scan *c, uint64_t at, const struct wal_head *head) {
    if (head->first != c->l->next)
        return damage(c, at, "the record does not follow the one before");
    if (memcmp(head->previous, wal_last_tag(c->s), SEAL_TAG) != 0)
        return damage(c, at, "the record follows another one than the one before");
    if (wal_extent(head->body) > c->s->header.size - at)
        return damage(c, at, "the record is longer than the file");
    if (head->ballot > c->ballot) c->ballot = head->ballot;
    return OK;
}

struct giver {
    struct loader *l;
    uint64_t limit; /* entries from here on don't count */
};

static enum err give(void *ctx, struct entry *e) {
    struct giver *g = ctx;
    enum err err = e->index < g->limit ? g->l->each(g->l->ctx, e) : OK;
    entry_drop(e);
    return err;
}

static RESULT record_take(struct scan *c, uint64_t at, const struct wal_head *head,
                          const uint8_t tag[SEAL_TAG]) {
    struct loader *l = c->l;
    struct span body = span_of(l->plain.at, head->body);
    struct giver giver = {.l = l, .limit = c->s->limit};
    uint64_t payload = 0, sealed = at + wal_sealed_size(head->body);
    uint64_t end = at + wal_extent(head->body), stray = first_set(c->raw, sealed, end);
    if (stray != end) return damage(c, stray, "not zero behind the record");
    if (wal_body_check(head, body, &payload) != OK)
        return damage(c, at + WAL_HEAD, "the record contradicts itself");
    if (head->first < c->s->limit) TRY(wal_body_read(head, body, give, &giver));
    struct wal_record r = {.first = head->first,
                           .count = head->count,
                           .payload = (uint32_t)payload,
                           .block = (uint32_t)(at / BLOCK_SIZE),
                           .body = head->body};
    memcpy(r.tag, tag, SEAL_TAG);
    TRY(wal_record_add(c->s, &r));
    c->s->end = end;
    l->next += head->count;
    return OK;
}

/* Reads the record at the end of those read so far; *more is false where there is none. */
static RESULT scan_record(struct scan *c, bool *more) {
    struct wal_segment *s = c->s;
    struct wal_head head;
    uint8_t tag[SEAL_TAG];
    uint64_t at = s->end, number = s->count + 1;
    *more = false;
    enum err e = wal_head_open(&s->envelope, c->sealer, number, c->raw + at, &head);
    if (e == ERR_CORRUPT) return end_without_head(c, at, number);
    TRY(e);
    TRY(head_check(c, at, &head));
    TRY(wal_buffer_reserve(&c->l->plain, head.body));
    e = wal_body_open(&s->envelope, c->sealer, &head, c->raw + at, c->l->plain.at, tag);
    if (e == ERR_CORRUPT) return end_without_body(c, at, &head);
    TRY(e);
    *more = true;
    return record_take(c, at, &head, tag);
}

static RESULT mark_check(const struct scan *c) {
    const struct watermark *m = &c->l->mark;
    const struct wal_segment *s = c->s;
    if (s->header.sequence > m->segment && s->count != 0)
        return fail_with(c->l->why, ERR_CORRUPT,
                         "ballot: byte 0: an older copy: it does not know of %s", c->path);
    if (s->header.sequence != m->segment) return OK;
    if (s->count < m->records)
        return fail_with(
            c->l->why, ERR_CORRUPT,
            "%s: byte %llu: an older copy or a lost end: the ballot knows of %llu records, "
            "%zu are here",
            c->path, (unsigned long long)s->end, (unsigned long long)m->records, s->count);
    const uint8_t *tag = m->records == 0 ? s->tag : s->records[m->records - 1].tag;
    if (memcmp(tag, m->tag, SEAL_TAG) != 0)
        return damage(c, m->records == 0 ? 0 : s->records[m->records - 1].block * BLOCK_SIZE,
                      "another record than the one that the ballot knows of");
    return OK;
}

/* What was read may never have reached the disk: a sync failed, or was never made, and a cache gave
 * it. The last record is the only one of which that can be so. Written again with the same bytes,
 * it is durable. */
static RESULT make_durable(const struct scan *c, struct file *f) {
    const struct wal_segment *s = c->s;
    const struct watermark *m = &c->l->mark;
    struct disk *d = c->l->w->o.disk;
    if (s->count == 0 || (s->header.sequence == m->segment && s->count == m->records)) return OK;
    const struct wal_record *r = &s->records[s->count - 1];
    uint64_t at = r->block * BLOCK_SIZE;
    TRY(d->write(f, at, c->raw + at, (size_t)wal_extent(r->body), c->l->why));
    return f->durable_writes ? OK : d->sync(f, c->l->why);
}

static RESULT scan_file(struct scan *c, struct file *f, bool last) {
    bool more = true;
    TRY(read_fully(c->l, f, c->path, c->s->header.size));
    c->raw = c->l->raw.at;
    while (more && c->s->end < c->s->header.size)
        TRY(scan_record(c, &more));
    TRY(ballot_require(c->l->w->o.ballot, c->ballot, c->path, c->l->why));
    TRY(mark_check(c));
    return last ? make_durable(c, f) : OK;
}

static RESULT segment_scan(struct loader *l, struct wal_segment *s, bool last) {
    struct disk *d = l->w->o.disk;
    struct scan c = {.l = l, .s = s};
    struct file *f = NULL;
    wal_path(s->header.sequence, c.path);
    TRY(envelope_sealer(&s->envelope, &wal_kind, l->w->o.keys, c.path, 0, &c.sealer, l->why));
    enum err e = d->open(d, c.path, last ? DISK_WRITE | DISK_DIRECT : DISK_READ, &f, l->why);
    if (e == OK) {
        e = scan_file(&c, f, last);
        d->close(f);
    }
    sealer_free(c.sealer);
    if (last) l->torn = c.torn;
    return e;
}

/* ---- the chain ---- */

static RESULT chain_check(struct loader *l, const struct wal_segment *before,
                          const struct wal_segment *s) {
    char path[PATH_ROOM], other[PATH_ROOM];
    wal_path(s->header.sequence, path);
    if (before == NULL) return OK;
    wal_path(before->header.sequence, other);
    if (s->header.previous_records != before->count || s->header.previous_end != before->end ||
        memcmp(s->header.previous_tag, wal_last_tag(before), SEAL_TAG) != 0)
        return fail_with(
            l->why, ERR_CORRUPT,
            "%s: byte %llu: the segment ends with record %zu, but %s follows record %llu", other,
            (unsigned long long)before->end, before->count, path,
            (unsigned long long)s->header.previous_records);
    if (s->header.first > l->next && !s->header.reset)
        return fail_with(l->why, ERR_CORRUPT, "%s: byte %d: entries %llu to %llu are missing", path,
                         ENVELOPE_SIZE, (unsigned long long)l->next,
                         (unsigned long long)s->header.first - 1);
    return OK;
}

static RESULT segments_scan(struct loader *l) {
    const struct wal_list *list = &l->w->segments;
    for (size_t i = 0; i < list->count; i++) {
        struct wal_segment *s = list->at[i];
        TRY(chain_check(l, i == 0 ? NULL : list->at[i - 1], s));
        l->next = s->header.first;
        TRY(segment_scan(l, s, i + 1 == list->count));
    }
    return OK;
}

/* Leaves behind what a reset made void, and says how far the log has come. */
static RESULT settle(struct loader *l) {
    struct wal *w = l->w;
    size_t dead = 0;
    w->next = l->next;
    wal_count_bytes(w);
    if (w->segments.count == 0) return OK;
    for (size_t i = 0; i < w->segments.count; i++)
        if (w->segments.at[i]->header.reset) dead = i;
    TRY(w->o.disk->sync_dir(w->o.disk, "log", l->why));
    TRY(wal_store_mark(w, w->segments.at[dead]->header.sequence, l->why));
    if (dead != 0)
        wal_leave(w, dead);
    else
        wal_sweep(w);
    return OK;
}

RESULT wal_load(struct wal *w, enum err (*each)(void *ctx, struct entry *e), void *ctx, bool *torn,
                struct why *why) {
    struct disk *d = w->o.disk;
    struct loader l = {.w = w, .each = each, .ctx = ctx, .next = 1, .why = why};
    l.mark = ballot_watermark(w->o.ballot);
    TRY(d->make_dir(d, "log", why));
    TRY(d->sync_dir(d, "", why));
    enum err e = headers_load(&l);
    if (e == OK) {
        set_limits(&w->segments);
        e = segments_scan(&l);
    }
    if (e == OK) e = settle(&l);
    free(l.raw.at);
    free(l.plain.at);
    *torn = l.torn;
    return e;
}
