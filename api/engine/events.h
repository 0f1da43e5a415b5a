/* One event of /events: what happened to a node, a service, a secret or a config, as JSON, and
 * whether a reader wants it. Pure: what changed comes in as rows; the streams are in
 * event_stream.c. */
#ifndef CONCLAVE_ENGINE_EVENTS_H
#define CONCLAVE_ENGINE_EVENTS_H

#include "api/engine/filters.h"
#include "store/node.h"

#define EVENT_ATTRIBUTES_MAX 12

struct event_attribute {
    const char *name;
    char value[NODE_TEXT_MAX + 1];
};

struct event {
    const char *type;   /* "node", "service", "secret", "config" */
    const char *action; /* create, update, remove */
    char id[NODE_ID_SIZE + 1];
    int64_t time_ns; /* UTC */
    unsigned n;      /* attributes; the first is the name */
    struct event_attribute attributes[EVENT_ATTRIBUTES_MAX];
};

/* What becomes of a change (row.h); before NULL: created, after NULL: removed. A node's update
 * tells of what has changed of availability, role and state, a service's of image and replicas, old
 * and new. False: it is no event. */
bool event_of_row(const struct row *before, const struct row *after, struct event *out);
void event_put(struct jout *j, const struct event *e);
bool event_wanted(const struct filters *f, const struct event *e);

#endif
