/* The tables of the cluster: nodes, join tokens, settings, secrets, services, tasks, the audit
 * trail, as rows of one kind of thing. A row has an id, a name (unique within its kind where it is
 * not empty; letters compare without case), a version, two times, and a body that only the module
 * of its kind reads (node.h, held.h, service.h, ...). All rows stand in one copy-on-write tree of
 * their own, so that a view costs nothing and a change costs its own size, however many rows there
 * are.
 *
 * They are changed by one command, OP_ROWS: a list of changes, all or nothing. Each names the
 * version of the row that its proposer has seen, so that nobody writes over what he has not read
 * (ERR_CONFLICT: the proposer reads and decides again). What must hold between rows, whoever
 * proposes, is judged when the command is applied (row_rules.c).
 *
 * A version is a number that each OP_ROWS takes one higher; all its changes share it. */
#ifndef CONCLAVE_ROW_H
#define CONCLAVE_ROW_H

#include "crypto/base.h"
#include "crypto/limits.h"

enum row_kind {
    ROW_SPEC = 1,    /* the cluster's settings; one, its id is the cluster's (spec.h) */
    ROW_NODE = 2,    /* a node (node.h); name: the one that its operator gave it, often none */
    ROW_TOKEN = 3,   /* a join token (join_token.h); name: what it is for */
    ROW_SECRET = 4,  /* a secret (held.h); its name is unique among secrets */
    ROW_CONFIG = 5,  /* a config (held.h) */
    ROW_VALUE = 6,   /* a version of either, sealed (held.h); no name */
    ROW_SERVICE = 7, /* a service (service.h) */
    ROW_TASK = 8,    /* a task of one (service.h); no name */
    ROW_AUDIT = 9,   /* a record of the audit trail (audit.h); no name */
    ROW_VAULT = 10,  /* the epochs of the cluster key; one, its id is the cluster's (vault.h) */
    ROW_KIND_MAX = 10
};

struct row {
    enum row_kind kind;
    char id[NODE_ID_SIZE + 1];
    struct span name;
    uint64_t version;         /* of the last change */
    uint64_t created_version; /* of the first one */
    int64_t created_ns;       /* UTC, nanoseconds */
    int64_t updated_ns;       /* the same */
    struct span body;
};

/* --- reading: spans point into the store, until the next apply ------------------------------- */

struct store;
bool row_get(const struct store *s, enum row_kind kind, const char *id, struct row *out);
bool row_named(const struct store *s, enum row_kind kind, struct span name, struct row *out);
/* All of a kind, ascending by id, until `each` says false. */
typedef bool row_each(void *ctx, const struct row *r);
void row_all(const struct store *s, enum row_kind kind, row_each *each, void *ctx);
/* The same for those whose id is not below `from`. */
void row_from(const struct store *s, enum row_kind kind, const char *from, row_each *each,
              void *ctx);
uint64_t row_count(const struct store *s, enum row_kind kind);
uint64_t row_version(const struct store *s); /* the highest there was */
/* By id, by name, by the beginning of an id (>= 1 character): in this order, as Swarm looks things
 * up. ERR_NOT_FOUND; ERR_INVALID: the beginning of more than one. */
RESULT row_find(const struct store *s, enum row_kind kind, const char *text, struct row *out,
                struct why *why);

/* Is told of every change, on the loop, inside apply: only takes note. before NULL: created; after
 * NULL: removed. Both NULL: the whole state was replaced by a restore. */
typedef void row_changed(void *ctx, const struct row *before, const struct row *after);
void row_watch(struct store *s, row_changed *changed, void *ctx); /* one; NULL: nobody */

/* --- proposing ------------------------------------------------------------------------------- */

enum row_action { ROW_CREATE = 1, ROW_REPLACE = 2, ROW_REMOVE = 3, ROW_CHECK = 4 };

/* One change. Version 0: whatever it is (CREATE: always 0). CHECK changes nothing, but asks that
 * the row is there, with that version. REPLACE takes name and body, and keeps the creation. */
struct row_change {
    enum row_action action;
    enum row_kind kind;
    char id[NODE_ID_SIZE + 1];
    uint64_t version; /* as seen; 0: any */
    struct span name; /* CREATE, REPLACE */
    struct span body; /* the same; <= ROW_BODY_MAX */
};

#define ROW_BODY_MAX    (1 * MIB) /* all of one command: COMMAND_MAX */
#define ROW_NAME_MAX    128
#define ROWS_CHANGE_MAX 1024 /* changes of one command */

/* Appends a change to the list of an OP_ROWS (command.rows), which changes a row once at the most.
 * ERR_INVALID: a field out of its bounds, a body that its kind's module does not read.
 * ERR_TOO_LARGE, ERR_NOMEM: what was appended before it stays. */
RESULT row_change_add(struct buf *changes, const struct row_change *c);
RESULT row_change_next(struct cursor *changes, struct row_change *out); /* ERR_INVALID */

#endif
