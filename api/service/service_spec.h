/* What the two files that read a ServiceSpec (service_spec.c, service_refs.c) have of each other.
 * All texts that a row is to keep stand in one piece of memory that is reserved before, so that
 * spans into it stay good. */
#ifndef CONCLAVE_SERVICE_SPEC_H
#define CONCLAVE_SERVICE_SPEC_H

#include "api/service/services.h"

#define SPEC_NS_MAX         (365LL * 86400 * 1000000000) /* of a delay, window or grace */
#define SPEC_ATTEMPTS_MAX   1000                         /* of restarts that are counted */
#define SPEC_LABEL_VERSION  "conclave.version." /* + name of a secret or config: its version */
#define SPEC_LABEL_RELOAD   "conclave.reload-signal"
#define SPEC_SECRETS_FOLDER "/run/secrets/"

struct spec_reading {
    const struct store *store;
    struct buf *memory;      /* SERVICE_SPEC_MEMORY of room beyond what it holds */
    struct service_row *out; /* being filled */
    struct buf *warnings;    /* one sentence a line */
    struct why *why;
};

/* Where the next list of blocks begins, and the list when all of it is there. */
static inline size_t spec_mark(const struct spec_reading *r) { return r->memory->size; }
static inline struct span spec_since(const struct spec_reading *r, size_t mark) {
    return span_of(r->memory->at + mark, r->memory->size - mark);
}
RESULT spec_warn(struct spec_reading *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* An absolute path without "." and ".." and empty parts. */
bool spec_good_path(struct span path);

/* service_refs.c: what the container is given of secrets and configs. Writes the references, with
 * defaults filled in, to new arrays of the container (a copy that the caller owns). */
RESULT spec_refs(struct spec_reading *r, json_t *container);
/* After all else: that they are there, and which version each is to have (labels). */
RESULT spec_refs_check(struct spec_reading *r);

#endif
