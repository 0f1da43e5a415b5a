/* The parts of the store, private to store.c (reading, views), apply.c (commands), image.c (a view
 * as bytes) and restore.c (bytes as a state). A restore builds a struct state of its own and the
 * store takes it over whole. */
#ifndef CONCLAVE_STATE_H
#define CONCLAVE_STATE_H

#include "store/command.h"
#include "store/store.h"
#include "store/tokens.h"
#include "store/tree.h"

/* The cluster's state as of one command; never changed, only replaced, so that a view can keep it.
 */
struct cluster_version {
    struct cluster *cluster;
    uint8_t hash[STATE_HASH_SIZE]; /* BLAKE2b of its bytes */
    unsigned refs;                 /* the state's and those of views; loop only */
};

struct state {
    struct tree *keys;
    struct cluster_version *cluster;
    struct tokens tokens;
    uint64_t revision; /* of the last change; 1: none yet */
    uint64_t bytes;    /* of keys and values */
    struct lanes sum;  /* hash over all items */
};

/* A tree whose state was replaced by a restore; taken apart in portions once it has no views. */
struct retired {
    struct tree *tree;
    struct retired *next;
};

struct store {
    struct machine machine; /* first: a struct machine * of ours is a struct store * */
    struct state state;
    struct retired *retired;
};

struct store_view {
    struct tree_view *keys;
    uint64_t bytes; /* of keys and values */
};

static inline struct store *store_of(struct machine *m) { return (struct store *)(void *)m; }

/* store.c */
RESULT state_start(struct state *s);
void state_end(struct state *s);
void state_hash(const struct state *s, uint8_t hash[STATE_HASH_SIZE]);
RESULT cluster_version_new(struct cluster *c, struct cluster_version **out); /* takes c on OK */
void cluster_version_drop(struct cluster_version *v);                        /* NULL is fine */

/* apply.c, image.c, restore.c: the functions of the machine */
enum err store_apply(struct machine *m, uint64_t index, struct span command, struct buf *result,
                     struct why *why);
void store_applied(struct machine *m, uint64_t index);
enum err store_image(struct machine *m, struct machine_view **out);
enum err image_next(struct machine_view *v, struct buf *out, bool *done);
void image_hash(const struct machine_view *v, uint8_t hash[STATE_HASH_SIZE]);
void image_free(struct machine_view *v);
enum err store_restore(struct machine *m, struct machine_restore **out);
enum err restore_bytes(struct machine_restore *r, struct span bytes);
enum err restore_end(struct machine_restore *r, const uint8_t hash[STATE_HASH_SIZE]);
void restore_abort(struct machine_restore *r);
const struct state *restore_state(const struct machine_restore *r); /* as far as it is built */

/* The image's bytes, shared by image.c and restore.c; meaning: top of image.c. */
#define IMAGE_MAGIC       "CCLSTATE"
#define IMAGE_END         "CCLEND\r\n"
#define IMAGE_VERSION     1
#define IMAGE_HEAD_SIZE   32
#define IMAGE_TOKENS_SIZE 12
#define IMAGE_TOKEN_SIZE  (TOKEN_SIZE + RESULT_SIZE)
#define IMAGE_ITEM_SIZE   38
#define IMAGE_TAIL_SIZE   (8 + STATE_HASH_SIZE)

#endif
