/* The table of idempotency tokens (tokens.h). */
#include "store/tokens.h"

#include <assert.h>
#include <stdlib.h>

#include <sodium.h>

#define PLACES      (TOKENS_CHUNKS * TOKENS_CHUNK) /* a number's place is number % PLACES */
#define SLOTS_FIRST 256

void tokens_start(struct tokens *t) {
    memset(t, 0, sizeof *t);
    randombytes_buf(t->key, sizeof t->key);
}

static void chunk_drop(struct tokens_chunk *c) {
    if (c != NULL && --c->refs == 0) free(c);
}

void tokens_end(struct tokens *t) {
    for (unsigned i = 0; i < TOKENS_CHUNKS; i++)
        chunk_drop(t->chunks[i]);
    free(t->slots);
    t->slots = NULL;
}

static unsigned chunk_of(uint64_t number) {
    return (unsigned)(number / TOKENS_CHUNK % TOKENS_CHUNKS);
}

static struct tokens_entry *entry_at(const struct tokens *t, uint64_t place) {
    return &t->chunks[chunk_of(place)]->at[place % TOKENS_CHUNK];
}

/* --- the hash table --- */

static uint32_t home_of(const struct tokens *t, const uint8_t token[TOKEN_SIZE]) {
    uint8_t raw[crypto_shorthash_BYTES];
    (void)crypto_shorthash(raw, token, TOKEN_SIZE, t->key);
    return get_u32(raw) & (t->n_slots - 1);
}

static void slot_fill(struct tokens *t, uint32_t place) {
    uint32_t i = home_of(t, entry_at(t, place)->token);
    while (t->slots[i] != 0)
        i = (i + 1) & (t->n_slots - 1);
    t->slots[i] = place + 1;
}

/* Empties slot i and moves back what had to step over it. */
static void slot_clear(struct tokens *t, uint32_t i) {
    uint32_t mask = t->n_slots - 1;
    t->slots[i] = 0;
    for (uint32_t k = (i + 1) & mask; t->slots[k] != 0; k = (k + 1) & mask) {
        uint32_t home = home_of(t, entry_at(t, t->slots[k] - 1)->token);
        if (((k - home) & mask) < ((k - i) & mask)) continue;
        t->slots[i] = t->slots[k];
        t->slots[k] = 0;
        i = k;
    }
}

static bool slot_find(const struct tokens *t, const uint8_t token[TOKEN_SIZE], uint32_t *out) {
    if (t->n_slots == 0) return false;
    for (uint32_t i = home_of(t, token); t->slots[i] != 0; i = (i + 1) & (t->n_slots - 1)) {
        if (memcmp(entry_at(t, t->slots[i] - 1)->token, token, TOKEN_SIZE) != 0) continue;
        *out = i;
        return true;
    }
    return false;
}

static RESULT slots_grow(struct tokens *t) {
    uint32_t n = t->n_slots == 0 ? SLOTS_FIRST : 2 * t->n_slots;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (slots == NULL) return ERR_NOMEM;
    free(t->slots);
    t->slots = slots;
    t->n_slots = n;
    for (uint64_t number = t->first; number < t->next; number++)
        slot_fill(t, (uint32_t)(number % PLACES));
    return OK;
}

/* --- remembering --- */

RESULT tokens_reserve(struct tokens *t) {
    struct tokens_chunk **c = &t->chunks[chunk_of(t->next)];
    if (*c == NULL) {
        *c = calloc(1, sizeof **c);
        if (*c == NULL) return ERR_NOMEM;
        (*c)->refs = 1;
    }
    uint64_t count = t->next - t->first;
    if (count < TOKENS_MAX && 2 * (count + 1) > t->n_slots) return slots_grow(t);
    return OK;
}

bool tokens_find(const struct tokens *t, const uint8_t token[TOKEN_SIZE], struct result *out) {
    uint32_t slot;
    if (!slot_find(t, token, &slot)) return false;
    enum err e = result_decode(span_of(entry_at(t, t->slots[slot] - 1)->result, RESULT_SIZE), out);
    assert(e == OK); /* it was packed, or checked when restored */
    return true;
}

static struct lanes entry_lanes(const struct tokens_entry *e, uint64_t number) {
    uint8_t raw[8 + TOKEN_SIZE + RESULT_SIZE];
    put_u64(raw, number);
    memcpy(raw + 8, e->token, TOKEN_SIZE);
    memcpy(raw + 8 + TOKEN_SIZE, e->result, RESULT_SIZE);
    return lanes_of(span_of(raw, sizeof raw));
}

static void forget_oldest(struct tokens *t) {
    const struct tokens_entry *e = entry_at(t, t->first % PLACES);
    uint32_t slot;
    bool found = slot_find(t, e->token, &slot);
    assert(found);
    slot_clear(t, slot);
    lanes_subtract(&t->sum, entry_lanes(e, t->first));
    unsigned chunk = chunk_of(t->first++);
    if (t->first % TOKENS_CHUNK != 0) return;
    chunk_drop(t->chunks[chunk]);
    t->chunks[chunk] = NULL;
}

void tokens_add(struct tokens *t, const uint8_t token[TOKEN_SIZE], const struct result *r) {
    if (t->next - t->first == TOKENS_MAX) forget_oldest(t);
    struct tokens_entry *e = entry_at(t, t->next % PLACES);
    memcpy(e->token, token, TOKEN_SIZE);
    result_pack(r, e->result);
    lanes_add(&t->sum, entry_lanes(e, t->next));
    slot_fill(t, (uint32_t)(t->next % PLACES));
    t->next++;
}

/* --- views --- */

void tokens_view_start(const struct tokens *t, struct tokens_view *v) {
    v->first = t->first;
    v->next = t->next;
    for (unsigned i = 0; i < TOKENS_CHUNKS; i++) {
        v->chunks[i] = t->chunks[i];
        if (v->chunks[i] != NULL) v->chunks[i]->refs++;
    }
}

void tokens_view_end(struct tokens_view *v) {
    for (unsigned i = 0; i < TOKENS_CHUNKS; i++)
        chunk_drop(v->chunks[i]);
}

const struct tokens_entry *tokens_view_at(const struct tokens_view *v, uint64_t number) {
    return &v->chunks[chunk_of(number)]->at[number % TOKENS_CHUNK];
}
