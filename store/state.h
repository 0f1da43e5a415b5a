/* The parts of the store, private to its files: store.c (life, reading, views), mvcc.c (one write),
 * compact.c (forgetting), range.c (questions), apply.c and txn_apply.c (commands), permit.c (who
 * may), image.c (a view as bytes) and restore.c (bytes as a state). A restore builds a struct state
 * of its own and the store takes it over whole. */
#ifndef CONCLAVE_STATE_H
#define CONCLAVE_STATE_H

#include "store/codec.h"
#include "store/command.h"
#include "store/history.h"
#include "store/rows.h"
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

/* Users, roles and permissions, the same way. */
struct auth_version {
    struct auth *auth;
    uint8_t hash[STATE_HASH_SIZE]; /* BLAKE2b of its bytes */
    unsigned refs;                 /* the state's and those of views; loop only */
};

struct raised {
    uint64_t raft_id; /* the member */
    uint8_t alarm;    /* enum alarm */
};

struct alarms {
    unsigned n;                   /* in use */
    struct raised at[ALARMS_MAX]; /* ascending by alarm, then member */
};

struct state {
    struct tree *keys;       /* newest version of each key, older ones behind them */
    struct history *history; /* all versions of revision >= compacted, perhaps older ones */
    struct cluster_version *cluster;
    struct auth_version *auth;
    struct leases leases;
    struct rows rows;
    struct alarms alarms;
    struct tokens tokens;
    uint64_t revision;   /* of the last change; 1: none yet */
    uint64_t compacted;  /* below it nothing can be read; 0: all can */
    uint64_t swept;      /* position in the history: compaction has got here */
    bool sweeping;       /* and has more to do */
    uint64_t bytes;      /* of keys and values, newest versions */
    uint64_t size;       /* memory of all versions */
    struct lanes sum;    /* hash over the newest versions but tombstones */
    struct lanes events; /* hash over all versions that there ever were */
};

/* A tree whose state was replaced by a restore; taken apart in portions once it has no views. */
struct retired {
    struct tree *tree;
    struct retired *next;
};

struct store {
    struct machine machine; /* first: a struct machine * of ours is a struct store * */
    struct state state;
    struct watch_hub *hub;    /* is told of events; NULL: nobody */
    row_changed *row_changed; /* is told of changed rows; NULL: nobody */
    void *row_changed_ctx;    /* its own */
    struct retired *retired;  /* trees that are taken apart in passing */
};

struct store_view {
    struct tree_view *keys;
    uint64_t bytes;     /* of keys and values */
    uint64_t compacted; /* as it was */
    bool deep;          /* with history */
};

static inline struct store *store_of(struct machine *m) { return (struct store *)(void *)m; }

/* store.c */
RESULT state_start(struct state *s);
void state_end(struct state *s);
void state_hash(const struct state *s, uint8_t hash[STATE_HASH_SIZE]);
RESULT cluster_version_new(struct cluster *c, struct cluster_version **out); /* takes c on OK */
void cluster_version_drop(struct cluster_version *v);                        /* NULL is fine */
RESULT auth_version_new(struct auth *a, struct auth_version **out);          /* takes a on OK */
void auth_version_drop(struct auth_version *v);                              /* NULL is fine */

/* alarms.c */
bool alarms_any(const struct alarms *a, enum alarm alarm, uint64_t raft_id); /* 0: of any member */
RESULT alarms_raise(struct alarms *a, struct raised r);                      /* ERR_BUSY: full */
void alarms_clear(struct alarms *a, struct raised r);                        /* raft_id 0: of all */
#define ALARM_SIZE 9 /* bytes of one: u8 alarm, u64 raft id */
void alarms_encode(const struct alarms *a, uint8_t out[ALARMS_MAX * ALARM_SIZE]);

/* mvcc.c: the writes of one command; they share a revision, which is taken with the first. */
struct writing {
    struct store *store;
    uint64_t revision; /* that they have */
    uint32_t sub;      /* how many there were */
};
struct writing writing_on(struct store *s);
/* The revision that reads inside the command see. */
static inline uint64_t writing_now(const struct writing *w) {
    return w->sub > 0 ? w->revision : w->revision - 1;
}
/* The newest version that is no tombstone; NULL: there is no such key. */
static inline struct item *item_live(struct item *i) {
    return i == NULL || item_tomb(i) ? NULL : i;
}
/* Key, value and lease of `kv`, whose spans may point into `old`; `path` and `old` as tree_find
 * of the key gave them. ERR_NOMEM. */
RESULT mvcc_put(struct writing *w, struct tree_path *path, struct item *old, const struct kv *kv);
RESULT mvcc_delete(struct writing *w, const struct interval *in, uint64_t *deleted); /* NOMEM */
/* A key that came from elsewhere, unless there is one; below the compaction, so it is no event. A
 * lease that is not here is left out. ERR_NOMEM. */
RESULT mvcc_import(struct state *s, const struct kv *kv);
#define KEYS_MAX 60000000ULL /* live keys; keeps a revision's subs below ITEM_SUB_MAX */
RESULT mvcc_room(const struct state *s, uint64_t puts); /* ERR_QUOTA */

/* compact.c */
enum err compact_begin(struct state *s, uint64_t revision); /* ERR_COMPACTED, _FUTURE_REVISION */
bool compact_step(struct state *s, size_t budget);          /* false: nothing can be done now */
uint64_t item_cost(const struct item *i);                   /* memory that it takes, about */

/* range.c */
#define KEYS_A_BREATH 4096 /* looked at by one command, between two calls of machine_busy */
struct range_source {
    const struct tree_node *root;
    uint64_t now;               /* revision of the newest versions in it */
    uint64_t compacted;         /* below it there is nothing to read */
    const struct machine *busy; /* is told by range_over that it goes on; NULL: nobody */
};
static inline struct range_source range_source_of(const struct state *s, uint64_t now) {
    return (struct range_source){tree_root(s->keys), now, s->compacted, NULL};
}
/* Keys and versions that an answer looks at, at most; the same on every member, however far a
 * compaction has got there. */
uint64_t range_cost(const struct state *s, const struct range *r);
/* Keys in it; a single one counts, there or not. */
uint64_t interval_live(const struct tree_node *root, const struct interval *in);
RESULT range_possible(const struct range_source *from, const struct range *r);
RESULT range_over(const struct range_source *from, const struct range *r, store_each *each,
                  void *ctx, struct range_end *end);
/* Live keys of an interval, one after the other, newest versions. */
struct interval_cursor {
    struct tree_cursor at;
    struct interval in;
};
void interval_seek(const struct tree_node *root, const struct interval *in,
                   struct interval_cursor *c);
const struct item *interval_next(struct interval_cursor *c); /* tombstones too; NULL: the end */

/* txn_apply.c */
RESULT txn_apply(struct writing *w, struct span txn, struct answering *a, enum err *outcome);
/* One put or delete with its answer; what it may not do was refused before. ERR_NOMEM. */
RESULT op_put(struct writing *w, const struct put *p, struct answering *a);
RESULT op_delete(struct writing *w, const struct del *d, struct answering *a, uint64_t *deleted);

/* permit.c */
RESULT permit(const struct state *s, const struct command *c);

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
struct lanes restore_others(const struct machine_restore *r);       /* the same, as in the tail */

/* The image's bytes, shared by image.c and restore.c; meaning: top of image.c. */
#define IMAGE_MAGIC        "CCLSTATE"
#define IMAGE_END          "CCLEND\r\n"
#define IMAGE_VERSION      3
#define IMAGE_HEAD_SIZE    88
#define IMAGE_TOKENS_SIZE  12
#define IMAGE_TOKEN_SIZE   (TOKEN_SIZE + RESULT_SIZE)
#define IMAGE_LEASE_SIZE   16
#define IMAGE_ROW_SIZE     30
#define IMAGE_ITEM_SIZE    43
#define IMAGE_TAIL_SIZE    (8 + 16 + STATE_HASH_SIZE)
#define IMAGE_ITEM_NONE    0 /* no more items */
#define IMAGE_ITEM_KEY     1 /* the newest version of the next key */
#define IMAGE_ITEM_OLDER   2 /* an older version of the same key; its key is left out */
#define IMAGE_ITEM_TOMB    4 /* or'ed: a tombstone */
#define IMAGE_ITEM_FOREIGN 8 /* or'ed: imported */

#endif
