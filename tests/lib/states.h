/* States and commands for tests of the store: small ones by hand, many at random. Everything
 * asserts with cmocka; random means: from the seed. */
#ifndef CONCLAVE_TEST_STATES_H
#define CONCLAVE_TEST_STATES_H

#include "store/command.h"
#include "store/store.h"

uint64_t random_next(uint64_t *seed); /* splitmix64 */

/* A command of any kind over a small world of keys, nodes and tokens; some of them are refused. The
 * bytes are appended to `out`; with `garbage`, one in 16 is not a command at all. */
void random_command(uint64_t *seed, bool garbage, struct buf *out);

/* A transaction's bytes, nested at most `depth` deep; txn_check may refuse it. */
void random_txn(uint64_t *seed, unsigned depth, struct buf *out);

/* A transaction being built: add to the first three, and `joined` makes its bytes, in `txn`. */
struct parts {
    struct buf compares, success, failure, txn;
};
struct parts parts_new(void);
void parts_free(struct parts *p);
struct span joined(struct parts *p);

/* Encodes, applies at index 1, decodes the result. */
struct result apply(struct store *s, const struct command *c);
struct result apply_bytes(struct store *s, struct span bytes);
struct result put(struct store *s, const char *key, const char *value);
struct result delete_key(struct store *s, const char *key);
/* OP_CLUSTER with one node ("id-1", "first"). */
struct result make_cluster(struct store *s);
struct node make_node(uint64_t raft_id, const char *id, const char *name);

struct store *store_for_test(void);
/* The whole image of the present state; free with buf_free. */
struct buf image_of(struct store *s);
/* A restore of `bytes` cut into pieces of `piece` bytes (0: at random by *seed), then the end with
 * `hash`. */
enum err restore_from(struct store *s, struct span bytes, size_t piece, uint64_t *seed,
                      const uint8_t hash[STATE_HASH_SIZE]);
void hash_of(struct store *s, uint8_t hash[STATE_HASH_SIZE]);

#endif
