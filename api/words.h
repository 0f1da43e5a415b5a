/* The words that people and programs use for what the cluster keeps of nodes, tokens and the
 * authority, and what is meant by them: durations ("90d", "1h30m"), labels ("KEY=VALUE"), roles,
 * availabilities, states, readmission. One table each, used by the command line, which turns words
 * into JSON and back, and by the handlers, which check what came. */
#ifndef CONCLAVE_WORDS_H
#define CONCLAVE_WORDS_H

#include "api/json.h"
#include "store/node.h"
#include "store/spec.h"

/* Whole numbers with units d, h, m, s, the larger one first, each at most once: "2h", "1h30m",
 * "2160h0m0s". Nothing else: no bare number, sign, blank or fraction. ERR_INVALID; more than
 * DURATION_MAX_S also. */
#define DURATION_MAX_S (100LL * 365 * 86400)
RESULT words_duration(const char *text, int64_t *out_s, struct why *why);
/* The same back, of what is not negative: "1h30m"; "0s". */
#define DURATION_TEXT 48
const char *words_duration_text(int64_t s, char out[DURATION_TEXT]);
/* A moment for people: "2026-11-29 16:08 UTC"; "never" for 0. */
#define MOMENT_TEXT 32
const char *words_moment(int64_t utc_s, char out[MOMENT_TEXT]);

/* A word of a table; ERR_INVALID lists the words that there are. `what` names it in the error. */
RESULT words_role(const char *text, enum node_role *out, struct why *why);
RESULT words_availability(const char *text, enum node_availability *out, struct why *why);
RESULT words_readmit(const char *text, enum readmit *out, struct why *why);
const char *words_of_role(enum node_role role); /* "?" for what is in no table, as all of these */
const char *words_of_availability(enum node_availability a);
const char *words_of_state(enum node_state s);
const char *words_of_certificate(enum node_certificate c);
const char *words_of_readmit(enum readmit r);

/* Splits KEY=VALUE; a key alone has an empty value. ERR_INVALID: label_check. */
#define LABEL_KEY_MAX   128
#define LABEL_VALUE_MAX 1024
RESULT words_label(const char *text, struct span *key, struct span *value, struct why *why);
/* Keys: 1..LABEL_KEY_MAX letters, digits, '.', '_', '-', '/'; values: UTF-8 without control
 * characters. */
RESULT label_check(struct span key, struct span value, struct why *why);
/* The labels of a row, changed by a JSON object {KEY: VALUE} of new ones and an array [KEY] of
 * those that go (either may be NULL); `out` is the result in a row's form. ERR_INVALID, also for
 * what is too many. */
RESULT labels_change(struct span before, const json_t *add, const json_t *remove, struct buf *out,
                     struct why *why);
void labels_put(struct jout *j, const char *key, struct span labels); /* a JSON object */

#endif
