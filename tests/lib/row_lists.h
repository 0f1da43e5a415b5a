/* Lists of changes of rows for tests of the store: put together, applied at once, and made at
 * random over a small world of nodes and tokens, so that they meet each other. Everything asserts
 * with cmocka. */
#ifndef CONCLAVE_TEST_ROW_LISTS_H
#define CONCLAVE_TEST_ROW_LISTS_H

#include "store/join_token.h"
#include "store/spec.h"
#include "tests/lib/states.h"

struct row_list {
    uint32_t n;
    struct buf changes;
};

struct row_list row_list(void);
/* Version 0: any. Names may be "". */
void list_node(struct row_list *l, enum row_action action, const char *id, uint64_t version,
               const char *name, const struct node_row *n);
void list_token(struct row_list *l, enum row_action action, const char *id, uint64_t version,
                const char *name, const struct join_token *t);
void list_spec(struct row_list *l, enum row_action action, const char *id, const struct spec *s);
/* REMOVE or CHECK. */
void list_plain(struct row_list *l, enum row_action action, enum row_kind kind, const char *id,
                uint64_t version);
struct command list_command(const struct row_list *l, int64_t now_ns); /* spans point into it */
struct result list_apply(struct store *s, struct row_list *l);         /* and frees it */

/* A node with the digest of key number `key` (0: none); desired = granted = role. */
struct node_row some_node(enum node_role role, unsigned key);
/* A token without end; of a standing one, the epoch. */
struct join_token some_token(enum node_role role, uint64_t epoch, const char *secret);

/* One list by itself. */
enum err create_node(struct store *s, const char *id, const struct node_row *n);
enum err replace_node(struct store *s, const char *id, const struct node_row *n);
enum err remove_row(struct store *s, enum row_kind kind, const char *id);

/* A list at random; its cluster is the one of make_cluster. */
void random_rows(uint64_t *seed, struct row_list *out);

#endif
