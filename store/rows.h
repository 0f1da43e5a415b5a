/* The rows' state, private to store/: row.c (reading, changes as bytes), row_apply.c (changes
 * carried out), row_rules.c and row_between.c (what must hold), image.c and restore.c. Beside the
 * rows their tree holds marks: keys that one row only may have, or that say what a row belongs to,
 * each with the id of that row (row_marks.c). Marks and counts follow from the rows, so images and
 * hash have the rows alone.
 *
 *   tree key:   u8 kind, id                          -> the row
 *               u8 kind | 128, name in lower case    -> id
 *               u8 kind | 64, what else is unique    -> id
 *               u8 kind | 64, what it belongs to, id -> id
 *   of a row:   mod revision = version, create revision = first version, version = changes so far;
 *               value: i64 created_ns, i64 updated_ns, block name, block body */
#ifndef CONCLAVE_ROWS_H
#define CONCLAVE_ROWS_H

#include "store/audit.h"
#include "store/command.h"
#include "store/row.h"
#include "store/service.h"
#include "store/tree.h"

#define ROW_KEY_MAX  (1 + ROW_NAME_MAX)
#define ROW_HEAD_MAX 24  /* bytes of a row's value but for name and body */
#define ROW_MARK     64  /* or'ed to the kind: of a mark */
#define ROW_NAMED    128 /* the same: the mark is its name */

struct rows {
    struct tree *tree;                /* rows and marks */
    uint64_t version;                 /* of the last change; 0: none yet */
    uint64_t n[ROW_KIND_MAX + 1];     /* rows of each kind; [0]: of all */
    uint64_t bytes;                   /* of names and bodies */
    uint64_t managers;                /* nodes that are granted manager */
    uint64_t staying;                 /* of them, those that shall stay it */
    struct lanes sum;                 /* hash over the rows */
    uint64_t audit_last;              /* number of the last audit record; 0: none */
    uint8_t audit_chain[AUDIT_CHAIN]; /* its chain; zeros */
};

struct row_key {
    uint8_t bytes[ROW_KEY_MAX];
    size_t size;
};

/* Large for the sake of a service that names many secrets: don't initialise one, row_marks_of sets
 * what is in use. */
#define ROW_MARKS_MAX (1 + SERVICE_REFS_MAX)
struct row_marks {
    unsigned n;                       /* in use */
    struct row_key at[ROW_MARKS_MAX]; /* each once */
};

/* row.c */
struct row_key row_key(enum row_kind kind, const char *id);
static inline struct span row_key_span(const struct row_key *k) {
    return span_of(k->bytes, k->size);
}
void row_read(const struct item *i, struct row *out);
bool row_look(const struct tree_node *root, enum row_kind kind, const char *id, struct row *out);
/* The rows of a kind whose marks begin with `mark`, ascending by mark. */
void row_each_marked(const struct tree_node *root, enum row_kind kind, const struct row_key *mark,
                     row_each *each, void *ctx);
const struct item *row_next(struct tree_cursor *c); /* the next row, marks left out; NULL: none */
bool row_name_mark(const struct row *r, struct row_key *out); /* false: it has no name */
bool row_good_letters(struct span text);                      /* letters, digits, '-', '_', '.' */
bool row_good_id(struct span id);
bool row_good_name(struct span name);

/* row_apply.c */
struct store;
RESULT rows_start(struct rows *r);
void rows_end(struct rows *r); /* good after a failed start */
/* Carries out an OP_ROWS, all of it or nothing: what was wrong with it, or ERR_NOMEM. */
RESULT rows_apply(struct store *s, const struct command *c);
/* A restored state becomes another cluster's: nodes, tokens, settings and tasks go, the vault's row
 * follows the id (its holders are of the old cluster: none), all else stays. ERR_NOMEM: the tree is
 * only good for a rollback. */
RESULT rows_inherit(struct rows *r, const char *old_id, const char *new_id);
/* Puts a row of an image, whose tree key is above all before; the item is taken on OK. ERR_CORRUPT,
 * ERR_NOMEM. */
RESULT rows_restore(struct rows *r, struct item *i);

/* row_marks.c */
RESULT row_body_check(enum row_kind kind, struct span body); /* ERR_INVALID */
RESULT row_name_check(enum row_kind kind, struct span name); /* ERR_INVALID */
/* What no other row of the kind may have, its name first, if there is one; and what it belongs to.
 */
void row_marks_of(const struct row *r, struct row_marks *out);
struct row_key mark_of_service(const char *service_id); /* that all its tasks' marks begin with */
struct row_key mark_of_node(const char *node_id);       /* the same for the tasks on it */
struct row_key mark_of_held(const char *held_id);       /* the same for services that name it */
uint32_t value_epoch_lowest(const struct tree_node *root); /* UINT32_MAX: there is no value */

/* row_rules.c */
/* The row is one more, or one less, in the counts. */
void row_counted(struct rows *r, const struct row *row, bool there);
/* May this become that? NULL: is not there. ERR_PRECONDITION, ERR_TOO_LARGE. */
RESULT row_rules_one(const struct cluster *c, const struct row *before, const struct row *after);
/* Does what holds of all rows still do so? */
RESULT row_rules_all(const struct rows *before, const struct rows *after);

/* row_between.c: at the end of a command, for each row that it has changed. */
struct row_trees {
    const struct tree_node *before, *now;
    const struct cluster *cluster;
};
/* Does the row agree with those of other kinds? ERR_PRECONDITION. */
RESULT row_rules_between(const struct row_trees *t, enum row_kind kind, const char *id);

/* audit.c */
struct audit_next { /* the row of the next record */
    char id[NODE_ID_SIZE + 1];
    uint8_t body[2 * AUDIT_CHAIN + AUDIT_RECORD_MAX];
    size_t size; /* of the body */
};
void audit_id(uint64_t number, char id[NODE_ID_SIZE + 1]);
/* The record that follows number `last`, whose chain is `prev`. */
void audit_link_next(uint64_t last, const uint8_t prev[AUDIT_CHAIN], int64_t time_ns,
                     struct span record, struct audit_next *out);
/* Is it made so? `last` 0: it is the first that is left. */
bool audit_follows(const struct audit_link *l, uint64_t last, const uint8_t prev[AUDIT_CHAIN]);

#endif
