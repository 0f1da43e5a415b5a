/* JSON out and in. Out (jout): a streaming writer over a bounded buffer; the first error sticks and
 * is told by jout_end, so that callers write without checking each step. Texts that are not UTF-8
 * get U+FFFD in their bad places. In (jin): jansson with limits; the getters take fields as etcd's
 * gateway sends them: bytes as base64, 64-bit integers as strings or numbers, absent means zero. */
#ifndef CONCLAVE_JSON_H
#define CONCLAVE_JSON_H

#include <jansson.h>

#include "crypto/base.h"

#define JOUT_DEPTH_MAX 128

struct jout {
    struct buf *out;           /* the caller's */
    enum err error;            /* the first one */
    unsigned depth;            /* open objects and arrays */
    bool more[JOUT_DEPTH_MAX]; /* something was written at this depth: a comma is due */
    bool keyed;                /* a key was just written: its value follows */
};

void jout_start(struct jout *j, struct buf *out);
RESULT jout_end(struct jout *j);               /* ERR_INTERNAL when something is still open */
void jout_open(struct jout *j, char bracket);  /* '{' or '[' */
void jout_close(struct jout *j, char bracket); /* '}' or ']' */
void jout_key(struct jout *j, const char *key);
void jout_key_span(struct jout *j, struct span key);
void jout_text(struct jout *j, struct span text);
void jout_base64(struct jout *j, struct span bytes); /* standard, padded */
void jout_number(struct jout *j, uint64_t value);
void jout_quoted(struct jout *j, uint64_t value); /* a 64-bit integer as etcd's gateway writes it */
void jout_bool(struct jout *j, bool value);
void jout_raw(struct jout *j, struct span json); /* one whole value, already JSON */

/* Key and value at once. */
void jout_put_text(struct jout *j, const char *key, const char *text);
void jout_put_number(struct jout *j, const char *key, uint64_t value);
void jout_put_quoted(struct jout *j, const char *key, uint64_t value); /* nothing when 0 */
void jout_put_bool(struct jout *j, const char *key, bool value);
void jout_put_hex(struct jout *j, const char *key, struct span bytes);

/* Parses one object (no bytes at all: an empty one). Free with json_decref. ERR_INVALID with line
 * and column. */
RESULT jin_parse(struct span text, json_t **out, struct why *why);
/* Getters: an absent or null field leaves the output as it is. ERR_INVALID names the field. */
RESULT jin_bytes(const json_t *object, const char *key, struct buf *out, struct why *why);
RESULT jin_text(const json_t *object, const char *key, char *out, size_t room, struct why *why);
RESULT jin_u64(const json_t *object, const char *key, uint64_t *out, struct why *why);
RESULT jin_bool(const json_t *object, const char *key, bool *out, struct why *why);
const char *jin_string(const json_t *object, const char *key); /* "" when absent or no text */
void jin_wipe(json_t *object); /* zeroes the texts in it, for bodies that carry keys */

#endif
