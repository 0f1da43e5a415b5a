/* The replicated state: keys and values with revisions, and what the cluster knows of itself. It is
 * the state machine behind the log (raft/machine.h): commands come in in log order, the same on
 * every member, and everything that is read is a consequence of them. One thread (the loop), but
 * for views, which another thread may serialise, and restores, which another thread may build.
 *
 * Revisions (reference: etcd v3): an empty store is at revision 1; each command that changes a key
 * takes revision + 1; a delete of nothing and a read take none. create/mod revision and version as
 * in etcd.
 *
 * Laid out for the MVCC to come: the key tree is copy-on-write (tree.h), a view is O(1), and the
 * newest version of a key is one item; history will hang beside it. */
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

uint64_t store_revision(const struct store *s);
uint64_t store_keys(const struct store *s);  /* number of keys */
uint64_t store_bytes(const struct store *s); /* key and value bytes held */
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

/* A view of the keys for readers that last longer than one loop turn (iterators, other threads).
 * Taken and freed on the loop; read from any one thread. */
struct store_view;
RESULT store_view_new(const struct store *s, struct store_view **out);
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
