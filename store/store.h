/* The replicated state: keys and values with revisions, and what the cluster knows of itself. It
 * is the state machine behind the log (raft/machine.h): commands come in in log order, the same
 * on every member, and everything that is read is a consequence of them. One thread (the loop),
 * but for views, which another thread may serialise, and restores, which another thread may
 * build.
 *
 * Revisions (reference: etcd v3): an empty store is at revision 1; each command that changes a
 * key takes revision + 1; a delete of nothing and a read take none. create/mod revision and
 * version as in etcd.
 *
 * Each version of a key stays readable until a compaction: the key tree (tree.h) is copy-on-write
 * and holds the newest version of each key, deletions included; older ones hang behind it, newest
 * first (item.h), and the history (history.h) has all of them in order of revision. A view is
 * O(1). */
#ifndef CONCLAVE_STORE_H
#define CONCLAVE_STORE_H

#include "crypto/base.h"
#include "crypto/limits.h"
#include "raft/machine.h"
#include "store/cluster.h"

struct store;

RESULT store_new(struct store **out);
void store_free(struct store *s);
struct machine *store_machine(struct store *s);

/* One key with its value. Spans point into the store: valid until the next apply, or while the view
 * lives. */
struct kv {
    struct span key, value;
    uint64_t create_revision; /* revision that made the key */
    uint64_t mod_revision;    /* revision of the last put */
    uint64_t version;         /* puts since it was made */
    uint64_t lease;           /* 0: none */
};

enum alarm { ALARM_NOSPACE = 1, ALARM_CORRUPT = 2 }; /* etcd's numbers */

uint64_t store_revision(const struct store *s);
uint64_t store_keys(const struct store *s);      /* number of keys */
uint64_t store_bytes(const struct store *s);     /* key and value bytes of the newest versions */
uint64_t store_size(const struct store *s);      /* memory of all versions; what a quota bounds */
uint64_t store_memory(const struct store *s);    /* the same and the store's own: never 0 */
uint64_t store_compacted(const struct store *s); /* revision of the last compaction; 0: none */
bool store_compacting(const struct store *s);    /* its versions are not all gone yet */
const struct leases *store_leases(const struct store *s);
const struct auth *store_auth(const struct store *s); /* never NULL; until the next apply */
bool store_alarm(const struct store *s, enum alarm alarm, uint64_t raft_id); /* 0: of any member */
/* The at-th alarm that is raised, of a member that may be gone, or of 0; false: so many are not. */
bool store_alarm_at(const struct store *s, unsigned at, enum alarm *alarm, uint64_t *raft_id);
/* A step of what goes on in the background (compaction, freeing); false: nothing can be done now.
 * Called by the loop when it has time, some COMPACT_STEP versions at a time. */
bool store_work(struct store *s);
struct history *store_history(const struct store *s);
struct watch_hub;
void store_watched(struct store *s, struct watch_hub *h); /* is told of each event; NULL: nobody */
bool store_get(const struct store *s, struct span key, struct kv *out);
const struct cluster *
store_cluster(const struct store *s); /* never NULL; valid until the next apply */

/* Calls `each` for the keys in [from, end), ascending, until it returns false. end.size 0: no upper
 * end. A prefix's end: store_prefix_end. */
typedef bool store_each(void *ctx, const struct kv *kv);
void store_range(const struct store *s, struct span from, struct span end, store_each *each,
                 void *ctx);
/* The smallest key after all that begin with prefix; 0: none. `out` has KEY_MAX bytes of room. */
size_t store_prefix_end(struct span prefix, uint8_t *out);

/* A question as etcd asks it (range.h), whole; `each` may end it, and then `end` means nothing.
 * ERR_COMPACTED, ERR_FUTURE_REVISION, ERR_NOMEM. */
struct range;
struct range_end;
RESULT store_range_read(const struct store *s, const struct range *r, store_each *each, void *ctx,
                        struct range_end *end);
/* The same in steps of about `keys` keys looked at, over a view of its own, so that an answer of
 * any size does not hold up the loop. Copies nothing of `r`: it must stay, and its spans. Spans of
 * kvs live as long as the walk. `each` says false to end the step, having taken the kv. *done:
 * `end` is filled. */
struct range_walk;
RESULT range_walk_new(const struct store *s, const struct range *r, struct range_walk **out);
RESULT range_walk_step(struct range_walk *w, size_t keys, store_each *each, void *ctx, bool *done,
                       struct range_end *end);
void range_walk_free(struct range_walk *w); /* NULL is fine */

/* etcd's HashKV of all versions up to `revision` (0: now): CRC-32C over the bytes that etcd's
 * backend would hold. The view must have been taken with history; any thread. *compacted: 0: never
 * (there etcd says -1). ERR_COMPACTED, ERR_FUTURE_REVISION, ERR_NOMEM. */
struct store_view;
RESULT store_view_hash_kv(const struct store_view *v, uint64_t revision, uint32_t *hash,
                          uint64_t *compacted);

/* A view of the keys for readers that last longer than one loop turn (iterators, other threads).
 * Taken and freed on the loop; read from any one thread. */
struct store_view;
RESULT store_view_new(const struct store *s, struct store_view **out);
/* With history: older revisions can be read too; compaction waits while it is there. */
RESULT store_view_new_with_history(const struct store *s, struct store_view **out);
void store_view_free(struct store_view *v);
uint64_t store_view_revision(const struct store_view *v);
bool store_view_get(const struct store_view *v, struct span key, struct kv *out);
void store_view_range(const struct store_view *v, struct span from, struct span end,
                      store_each *each, void *ctx);

/* Walks the keys of a view in [from, end), ascending, one at a time; end.size 0: no upper end. The
 * spans of a key live as long as the view; `end` must stay as long as the cursor. One thread at a
 * time. */
struct store_cursor;
RESULT store_cursor_new(const struct store_view *v, struct span from, struct span end,
                        struct store_cursor **out);
bool store_cursor_next(struct store_cursor *c, struct kv *out); /* false at the end */
void store_cursor_free(struct store_cursor *c);                 /* NULL is fine */

#endif
