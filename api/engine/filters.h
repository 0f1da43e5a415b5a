/* The `filters` of a list or of events: JSON as clients send it, {"name": {"x": true, ...}}, and
 * the older {"name": ["x", ...]}. A key without values filters nothing. */
#ifndef CONCLAVE_ENGINE_FILTERS_H
#define CONCLAVE_ENGINE_FILTERS_H

#include "api/json.h"

#define FILTERS_TEXT_MAX HTTP_HEAD_MAX /* of the query, decoded */

struct filters {
    json_t *json; /* an object; NULL: nothing is filtered */
};

/* Of a query string. ERR_INVALID. Free with filters_free. */
RESULT filters_parse(struct span query, struct filters *out, struct why *why);
void filters_free(struct filters *f);
/* ERR_INVALID with docker's sentence when there is a key that is not in the list, which ends with
 * NULL. */
RESULT filters_accept(const struct filters *f, const char *const *keys, struct why *why);
/* Calls `each` for the values of a key until it says false, which is then the answer. */
typedef bool filters_each(void *ctx, const char *value);
bool filters_walk(const struct filters *f, const char *key, filters_each *each, void *ctx);
bool filters_has(const struct filters *f, const char *key); /* any value at all */
/* True as well when the key has no value. */
bool filters_exact(const struct filters *f, const char *key, const char *text);
bool filters_prefix(const struct filters *f, const char *key, const char *text);
/* Whether all the values, "key" or "key=value", are among the labels, by `find` (NULL: no label).
 */
typedef bool filters_find(void *ctx, struct span key, struct span *value);
bool filters_labels(const struct filters *f, const char *key, filters_find *find, void *ctx);

#endif
