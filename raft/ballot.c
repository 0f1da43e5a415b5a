/* Term, vote and watermark in the file `ballot`: two blocks of 4096 bytes, one slot each, used in
 * turn. A slot's bytes lie in the block's first sector, which a disk writes whole or not at all, so
 * that a crash leaves the old slot or the new one, never a mixture: a slot that does not
 * authenticate is damage, always.
 *
 * A slot (block `s` of the file, s = count mod 2):
 *
 *     0  40  envelope (envelope.h), magic "CONCBALT", purpose "ballot slot"; a new id each write
 *    40  50  \  cluster id (25), node id (25), padded with zeros
 *    90   8   | count: 1, 2, 3, ... one a change
 *    98   8   | term
 *   106   8   | vote: raft id, 0 when none
 *   114   8   | watermark: segment
 *   122   8   | watermark: records
 *   130   8   | watermark: first segment
 *   138  16   | watermark: tag
 *   154  16  /  all of it sealed with counter 0; associated data: the envelope, then s as one byte
 *   170      zeros to 4096
 *
 * The file is made whole (counts 1 and 2) and renamed into place, so both slots always authenticate
 * and their counts are neighbours. The higher one holds. Opening writes it once more in its place,
 * with the same count: what was read may come from a cache whose sync failed before a restart, and
 * must not be acted upon before it is certainly durable; and an older copy of the file must not
 * grow younger by being opened. */
#include "raft/ballot.h"

#include <pthread.h>
#include <stdlib.h>

#include "raft/envelope.h"

#define FILE_NAME  "ballot"
#define PLAIN_SIZE (IDENTITY_SIZE + 6 * 8 + SEAL_TAG)
#define SLOT_SIZE  (ENVELOPE_SIZE + PLAIN_SIZE + SEAL_TAG)
_Static_assert(SLOT_SIZE == 170 && SLOT_SIZE <= SECTOR_SIZE, "a slot is one sector");

static const struct envelope_kind kind = {"CONCBALT", 1, "ballot slot"};

/* What a slot says. */
struct slot {
    uint64_t count;        /* of writes */
    uint64_t term;         /* current term */
    uint64_t vote;         /* in that term; 0: none */
    struct watermark mark; /* of the log */
};

struct ballot {
    struct disk *disk;        /* the caller's */
    struct keyring *keys;     /* the caller's */
    struct identity identity; /* bound into each slot */
    enum seal_alg alg;        /* of new slots */
    pthread_mutex_t mutex;    /* everything below */
    struct file *file;        /* open for writing */
    struct slot now;          /* durable */
    uint32_t generations[2];  /* of the two slots */
    uint8_t *block;           /* BLOCK_SIZE aligned bytes for writes */
    bool failed;              /* a write failed: nothing is written any more */
};

static void slot_encode(const struct ballot *b, const struct slot *s, uint8_t *at) {
    identity_write(&b->identity, at);
    at += IDENTITY_SIZE;
    const uint64_t numbers[] = {s->count,        s->term,         s->vote,
                                s->mark.segment, s->mark.records, s->mark.first};
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        put_u64(at + 8 * i, numbers[i]);
    memcpy(at + 48, s->mark.tag, SEAL_TAG);
}

static void slot_decode(const uint8_t *at, struct slot *s) {
    at += IDENTITY_SIZE;
    uint64_t *const numbers[] = {&s->count,        &s->term,         &s->vote,
                                 &s->mark.segment, &s->mark.records, &s->mark.first};
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        *numbers[i] = get_u64(at + 8 * i);
    memcpy(s->mark.tag, at + 48, SEAL_TAG);
}

static void slot_ad(const uint8_t *block, uint64_t number, uint8_t ad[ENVELOPE_SIZE + 1]) {
    memcpy(ad, block, ENVELOPE_SIZE);
    ad[ENVELOPE_SIZE] = (uint8_t)number;
}

/* Fills `block` with the sealed slot. */
static RESULT slot_seal(const struct ballot *b, const struct slot *s, uint8_t *block,
                        uint32_t *generation, struct why *why) {
    struct envelope e;
    struct sealer *sealer = NULL;
    uint8_t ad[ENVELOPE_SIZE + 1];
    memset(block, 0, BLOCK_SIZE);
    envelope_new(&e, b->keys, b->alg);
    TRY(envelope_sealer(&e, &kind, b->keys, FILE_NAME, 0, &sealer, why));
    envelope_write(&e, &kind, block);
    slot_ad(block, s->count % 2, ad);
    slot_encode(b, s, block + ENVELOPE_SIZE);
    enum err err = seal(sealer, 0, span_of(ad, sizeof ad),
                        span_of(block + ENVELOPE_SIZE, PLAIN_SIZE), block + ENVELOPE_SIZE);
    sealer_free(sealer);
    *generation = e.generation;
    return err;
}

static RESULT damaged(struct why *why, uint64_t at, const char *what) {
    return fail_with(why, ERR_CORRUPT, FILE_NAME ": byte %llu: %s", (unsigned long long)at, what);
}

static bool is_zero(const uint8_t *at, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (at[i] != 0) return false;
    return true;
}

static RESULT slot_open(struct ballot *b, const uint8_t *block, uint64_t number, struct slot *s,
                        struct why *why) {
    struct envelope e;
    struct sealer *sealer = NULL;
    uint8_t ad[ENVELOPE_SIZE + 1], plain[PLAIN_SIZE];
    uint64_t at = number * BLOCK_SIZE;
    TRY(envelope_read(span_of(block, BLOCK_SIZE), &kind, FILE_NAME, at, &e, why));
    TRY(envelope_sealer(&e, &kind, b->keys, FILE_NAME, at, &sealer, why));
    slot_ad(block, number, ad);
    enum err err = unseal(sealer, 0, span_of(ad, sizeof ad),
                          span_of(block + ENVELOPE_SIZE, PLAIN_SIZE + SEAL_TAG), plain);
    sealer_free(sealer);
    if (err == ERR_CORRUPT) return damaged(why, at, "the slot does not authenticate");
    TRY(err);
    if (!identity_matches(&b->identity, plain))
        return damaged(why, at, "the slot belongs to another node or cluster");
    slot_decode(plain, s);
    if (s->count % 2 != number) return damaged(why, at, "the slot stands in the other's place");
    if (!is_zero(block + SLOT_SIZE, BLOCK_SIZE - SLOT_SIZE))
        return damaged(why, at + SLOT_SIZE, "not zero after the slot");
    b->generations[number] = e.generation;
    return OK;
}

static RESULT load(struct ballot *b, struct why *why) {
    struct slot slots[2] = {0};
    uint64_t size;
    size_t got;
    TRY(b->disk->size(b->file, &size, why));
    if (size != 2 * BLOCK_SIZE)
        return fail_with(why, ERR_CORRUPT, FILE_NAME ": it has %llu bytes, not %llu",
                         (unsigned long long)size, 2 * BLOCK_SIZE + 0ULL);
    for (uint64_t i = 0; i < 2; i++) {
        TRY(b->disk->read(b->file, i * BLOCK_SIZE, b->block, BLOCK_SIZE, &got, why));
        if (got != BLOCK_SIZE) return damaged(why, i * BLOCK_SIZE, "the file ends too early");
        TRY(slot_open(b, b->block, i, &slots[i], why));
    }
    const struct slot *newer = slots[0].count > slots[1].count ? &slots[0] : &slots[1];
    const struct slot *older = newer == &slots[0] ? &slots[1] : &slots[0];
    if (newer->count != older->count + 1)
        return damaged(why, older->count % 2 * BLOCK_SIZE, "an older copy of the slot");
    b->now = *newer;
    return OK;
}

static RESULT store(struct ballot *b, const struct slot *next, struct why *why) {
    uint32_t generation;
    if (b->failed) return fail_with(why, ERR_IO, FILE_NAME ": an earlier write failed");
    TRY(slot_seal(b, next, b->block, &generation, why));
    b->failed = true;
    enum err e = b->disk->write(b->file, next->count % 2 * BLOCK_SIZE, b->block, BLOCK_SIZE, why);
    if (e == OK && !b->file->durable_writes) e = b->disk->sync(b->file, why);
    if (e != OK) return e == ERR_NOSPACE ? ERR_IO : e;
    b->failed = false;
    b->generations[next->count % 2] = generation;
    b->now = *next;
    return OK;
}

static RESULT store_next(struct ballot *b, struct slot *next, struct why *why) {
    next->count = b->now.count + 1;
    return store(b, next, why);
}

struct finding {
    bool found;    /* a file that can't be without a ballot */
    char name[64]; /* its name */
};

static void look(void *ctx, const char *name) {
    struct finding *f = ctx;
    size_t size = strlen(name);
    bool log = size > 4 && strcmp(name + size - 4, ".seg") == 0;
    bool snapshot = size > 5 && strcmp(name + size - 5, ".snap") == 0;
    if ((!log && !snapshot) || size >= sizeof f->name) return;
    memcpy(f->name, name, size + 1);
    f->found = true;
}

/* A log or a snapshot without a ballot means that the ballot was lost, not that it was never there.
 */
static RESULT must_be_new(struct disk *d, struct why *why) {
    static const char *const dirs[] = {"log", "snapshots"};
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        struct finding f = {0};
        enum err e = d->list(d, dirs[i], look, &f, why);
        if (e != OK && e != ERR_NOT_FOUND) return e;
        if (f.found)
            return fail_with(why, ERR_CORRUPT,
                             FILE_NAME ": the file is missing, though %s/%s is there", dirs[i],
                             f.name);
    }
    return OK;
}

static RESULT create(struct ballot *b, struct why *why) {
    struct buf both = buf_new(2 * BLOCK_SIZE);
    TRY(must_be_new(b->disk, why));
    TRY(buf_reserve(&both, 2 * BLOCK_SIZE));
    both.size = 2 * BLOCK_SIZE;
    enum err e = OK;
    for (uint64_t count = 1; count <= 2 && e == OK; count++) {
        uint32_t generation;
        struct slot s = {.count = count};
        e = slot_seal(b, &s, both.at + count % 2 * BLOCK_SIZE, &generation, why);
    }
    if (e == OK) e = disk_write_file(b->disk, FILE_NAME, buf_span(&both), why);
    buf_free(&both);
    return e;
}

static RESULT open_file(struct ballot *b, struct why *why) {
    const unsigned flags = DISK_WRITE | DISK_DIRECT;
    enum err e = b->disk->open(b->disk, FILE_NAME, flags, &b->file, why);
    if (e != ERR_NOT_FOUND) return e;
    TRY(create(b, why));
    return b->disk->open(b->disk, FILE_NAME, flags, &b->file, why);
}

static RESULT start(struct ballot *b, struct why *why) {
    TRY(open_file(b, why));
    TRY(load(b, why));
    TRY(b->disk->sync_dir(b->disk, "", why));
    struct slot same = b->now;
    return store(b, &same, why);
}

RESULT ballot_open(struct disk *disk, struct keyring *keys, const struct identity *identity,
                   enum seal_alg alg, struct ballot **out, struct why *why) {
    struct ballot *b = calloc(1, sizeof *b);
    if (b == NULL) return ERR_NOMEM;
    b->disk = disk;
    b->keys = keys;
    b->identity = *identity;
    b->alg = alg;
    b->block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
    if (b->block == NULL || pthread_mutex_init(&b->mutex, NULL) != 0) {
        free(b->block);
        free(b);
        return ERR_NOMEM;
    }
    enum err e = start(b, why);
    if (e == OK)
        *out = b;
    else
        ballot_close(b);
    return e;
}

void ballot_close(struct ballot *b) {
    if (b == NULL) return;
    if (b->file != NULL) b->disk->close(b->file);
    (void)pthread_mutex_destroy(&b->mutex);
    free(b->block);
    free(b);
}

static struct slot current(struct ballot *b) {
    pthread_mutex_lock(&b->mutex);
    struct slot s = b->now;
    pthread_mutex_unlock(&b->mutex);
    return s;
}

void ballot_get(struct ballot *b, uint64_t *term, uint64_t *vote) {
    struct slot s = current(b);
    *term = s.term;
    *vote = s.vote;
}

struct watermark ballot_watermark(struct ballot *b) {
    return current(b).mark;
}
uint64_t ballot_count(struct ballot *b) { return current(b).count; }

static RESULT vote_locked(struct ballot *b, uint64_t term, uint64_t vote, struct why *why) {
    struct slot next = b->now;
    if (term == next.term && vote == next.vote) return OK;
    if (term < next.term || (term == next.term && next.vote != 0))
        return fail_with(why, ERR_INTERNAL, FILE_NAME ": term and vote can't be taken back");
    next.term = term;
    next.vote = vote;
    return store_next(b, &next, why);
}

RESULT ballot_vote(struct ballot *b, uint64_t term, uint64_t vote, struct why *why) {
    pthread_mutex_lock(&b->mutex);
    enum err e = vote_locked(b, term, vote, why);
    pthread_mutex_unlock(&b->mutex);
    return e;
}

static RESULT mark_locked(struct ballot *b, const struct watermark *w, struct why *why) {
    struct slot next = b->now;
    const struct watermark *old = &b->now.mark;
    if (w->segment == old->segment && w->records == old->records && w->first == old->first)
        return OK;
    if (w->first < old->first || w->segment < old->segment ||
        (w->segment == old->segment && w->records < old->records))
        return fail_with(why, ERR_INTERNAL, FILE_NAME ": the watermark can't go back");
    next.mark = *w;
    return store_next(b, &next, why);
}

RESULT ballot_mark(struct ballot *b, const struct watermark *w, struct why *why) {
    pthread_mutex_lock(&b->mutex);
    enum err e = mark_locked(b, w, why);
    pthread_mutex_unlock(&b->mutex);
    return e;
}

RESULT ballot_require(struct ballot *b, uint64_t count, const char *path, struct why *why) {
    uint64_t own = ballot_count(b);
    if (own >= count) return OK;
    return fail_with(why, ERR_CORRUPT,
                     FILE_NAME
                     ": byte 0: an older copy: it was written %llu times, but %s saw %llu",
                     (unsigned long long)own, path, (unsigned long long)count);
}

RESULT ballot_reseal(struct ballot *b, struct why *why) {
    enum err e = OK;
    pthread_mutex_lock(&b->mutex);
    for (int i = 0; i < 2 && e == OK; i++) {
        struct slot again = b->now;
        e = store_next(b, &again, why);
    }
    pthread_mutex_unlock(&b->mutex);
    return e;
}

uint32_t ballot_oldest_generation(struct ballot *b) {
    pthread_mutex_lock(&b->mutex);
    uint32_t a = b->generations[0], c = b->generations[1];
    pthread_mutex_unlock(&b->mutex);
    return a < c ? a : c;
}
