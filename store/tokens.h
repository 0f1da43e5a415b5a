/* The idempotency tokens of the last TOKENS_MAX commands that carried one, with their results: a
 * part of the state, the same on every member. First in, first out; a token's number counts all
 * tokens ever.
 *
 * They lie in chunks in the order of their numbers. A chunk is only ever appended to, so a view is
 * the list of the chunks and two numbers; its reader, on any thread, looks at nothing that is still
 * written. The chunks' reference counts are touched on the loop alone. A hash table finds a token;
 * views do without. */
#ifndef CONCLAVE_TOKENS_H
#define CONCLAVE_TOKENS_H

#include "store/command.h"
#include "store/item.h"

#define TOKENS_CHUNK  1024
#define TOKENS_CHUNKS (TOKENS_MAX / TOKENS_CHUNK + 1) /* the oldest may be half forgotten */

struct tokens_entry {
    uint8_t token[TOKEN_SIZE];
    uint8_t result[RESULT_SIZE]; /* result_pack, never `repeated` */
};

struct tokens_chunk {
    unsigned refs; /* the table's and those of views */
    struct tokens_entry at[TOKENS_CHUNK];
};

struct tokens {
    uint64_t next;    /* number of the next token, from 0 */
    uint64_t first;   /* number of the oldest remembered one */
    struct lanes sum; /* hash of numbers, tokens and results */
    struct tokens_chunk
        *chunks[TOKENS_CHUNKS]; /* number / TOKENS_CHUNK, modulo; NULL: not in use */
    uint32_t *slots;            /* open addressing: place + 1; 0: free */
    uint32_t n_slots;           /* a power of two, at least twice the tokens */
    uint8_t key[16];            /* of the hash table, random: nobody can choose collisions */
};

struct tokens_view {
    uint64_t first, next;
    struct tokens_chunk *chunks[TOKENS_CHUNKS];
};

void tokens_start(struct tokens *t); /* empty, numbers from 0 */
void tokens_end(struct tokens *t);
/* Makes sure that one tokens_add can't fail. ERR_NOMEM. */
RESULT tokens_reserve(struct tokens *t);
bool tokens_find(const struct tokens *t, const uint8_t token[TOKEN_SIZE], struct result *out);
/* Remembers one that is not there, after tokens_reserve; forgets the oldest when full. */
void tokens_add(struct tokens *t, const uint8_t token[TOKEN_SIZE], const struct result *r);

void tokens_view_start(const struct tokens *t, struct tokens_view *v);
void tokens_view_end(struct tokens_view *v);
const struct tokens_entry *tokens_view_at(const struct tokens_view *v, uint64_t number);

#endif
