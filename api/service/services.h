/* Services as an operator changes them. docker's JSON is read into a service_row by service_spec.c
 * (fuzzed), used by the Engine API and our own; the scheduler (scheduler.h) does the rest. Every
 * manager proposes; versions guard; audited. Errors as in secrets.h; ERR_INVALID says which member
 * of the spec. */
#ifndef CONCLAVE_SERVICES_H
#define CONCLAVE_SERVICES_H

#include <jansson.h>

#include "api/secret/secrets.h"
#include "store/service.h"

#define SERVICE_SPEC_MEMORY (5 * SERVICE_SPEC_MAX)
#define SERVICE_WARNINGS    (16 * KIB)

/* Reads a ServiceSpec. Spans of *out, and the name, point into `memory`, which is the caller's:
 * buf_new(SERVICE_SPEC_MEMORY); warnings: buf_new(SERVICE_WARNINGS). A spec without a name gets
 * one. Names of secrets and configs are checked against the state (ID and name must match). What
 * docker's spec may say that has no meaning here (networks, ports, resources, update config) is
 * kept in spec_json and named in *warnings, one sentence a line. ERR_INVALID. */
RESULT service_spec(const struct manager *m, const json_t *json, struct buf *memory,
                    struct service_row *out, struct span *name, struct buf *warnings,
                    struct why *why);

typedef void service_done(void *ctx, enum err e, const char *text, const char *id);
RESULT services_create(struct manager *m, struct span name, const struct service_row *spec,
                       const struct actor *actor, service_done *done, void *ctx, struct why *why);
/* Puts it in place of the one in the row's `version`. spec_version goes up when what a task depends
 * on (all but replicas, labels, mode) has changed: its tasks are then replaced one by one.
 * `rollback`: to previous_json (the caller has read it into `spec`). */
RESULT services_update(struct manager *m, const char *id, uint64_t version, struct span name,
                       const struct service_row *spec, const struct actor *actor,
                       service_done *done, void *ctx, struct why *why);
RESULT services_remove(struct manager *m, const char *id, const struct actor *actor,
                       service_done *done, void *ctx, struct why *why);

/* By id, name, beginning of an id, as docker looks things up. ERR_NOT_FOUND with docker's
 * sentence. */
RESULT service_find(const struct store *s, const char *text, struct row *row,
                    struct service_row *out, struct why *why);

/* What a task is called: NAME.SLOT.ID, of a global service NAME.NODE.ID. */
void task_name(const struct store *s, const struct row *row, const struct task_row *t, char *out,
               size_t room);

#endif
