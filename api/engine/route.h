/* Where a request of the Engine API goes: /vX.Y/path or /path, by method and a pattern in which
 * {id} stands for one segment. Pure: no sockets, nothing kept. A version outside of what is served
 * is refused with the sentence that docker's clients know. */
#ifndef CONCLAVE_ENGINE_ROUTE_H
#define CONCLAVE_ENGINE_ROUTE_H

#include "api/http/server.h"

#define ENGINE_API     "1.51" /* the highest version that is served, and the one without any */
#define ENGINE_API_MIN "1.24"
#define ENGINE_ID_MAX  256 /* bytes of an {id}, decoded, with the NUL */

struct engine_route {
    enum http_method method; /* HEAD goes wherever GET does */
    const char *pattern;     /* "/nodes/{id}/update"; a star at the end: whatever follows */
    void (*handle)(struct exchange *x);
};

struct engine_target {
    struct span version;    /* "1.51"; empty: none was said */
    struct span path;       /* what follows it: begins with '/' */
    char id[ENGINE_ID_MAX]; /* what {id} or the end stood for, percent-decoded; "" none */
};

/* The path without its version. ERR_INVALID with docker's sentence: a version that is not served.
 */
RESULT engine_target(struct span path, struct engine_target *out, struct why *why);
/* The route in a table that ends with pattern NULL; fills out->id. ERR_NOT_FOUND: no such path;
 * ERR_UNSUPPORTED: not with this method. */
RESULT engine_route(const struct engine_route *table, enum http_method method,
                    struct engine_target *target, const struct engine_route **out);

#endif
