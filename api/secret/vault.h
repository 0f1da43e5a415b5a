/* The cluster keys, by epoch: 32 random bytes each, in the managers' keyrings (node_identity) and
 * nowhere else: not in the log, not in snapshots, not in backups. They wrap the data keys of values
 * (store/held.h). States and rules: store/vault.h.
 *
 * How a manager comes by them:
 *   - with its admission (wire_joined.vault, over the peer connection), all that the leader holds;
 *   - it misses the epoch that is current or spread: it asks the leader (VAULT_CALL on the member
 *     connections), and says by another that it holds it, which the leader writes as a holder;
 *   - the leader misses the one that is spread: it drops it and spreads another;
 *   - the leader misses the current one: it hands over to a holder that is connected; when there is
 *     none, the key is lost until an escrow is imported, and sealing and opening say so. A rotation
 *     leaves it behind: what it had sealed stays closed until it is removed, or the escrow comes
 *     to some manager, which leads then and wraps it anew. A key that is older than the current one
 *     is known by what it opens.
 * A leader without a row (a new cluster) makes epoch 1 at once.
 *
 * Rotation: next key made and kept -> row (next) -> all connected members hold it -> row (current)
 * -> values are wrapped anew, VAULT_WRAP_STEP in one OP_ROWS -> none is left below -> row (oldest)
 * -> every manager drops the older keys and, when its KEK lies beside the keyring, makes another
 * one, so that an older copy of the keyring is not opened by the keys of today.
 *
 * Escrow: the keys of all epochs held, in a file sealed under a passphrase of the operator's
 * (Argon2id, XChaCha20-Poly1305); format at the top of escrow.c. It is to be kept apart from
 * the backups; a restore into a new cluster needs both.
 *
 * All on the manager's loop. `done` is called once, later, when the function gave OK. */
#ifndef CONCLAVE_API_VAULT_H
#define CONCLAVE_API_VAULT_H

#include "api/manager.h"
#include "api/secret/escrow.h"
#include "store/held.h"
#include "store/vault.h"

#define VAULT_WRAP_STEP 64 /* values wrapped anew in one command */
#define ESCROW_MAX      (64 * KIB)

RESULT vault_open(struct manager *m); /* with the store; ERR_NOMEM */
void vault_close(struct manager *m);
void vault_beat(struct manager *m); /* every BEAT_MS */
void vault_step(struct manager *m); /* in the check phase: the leader's duties, and everyone's */
void vault_led(struct manager *m);  /* who leads has changed */
void vault_row_changed(struct manager *m, const struct row *before, const struct row *after);
void vault_call(struct manager *m, uint64_t from, struct span request, struct reply *reply);

void vault_wake(struct manager *m);
bool vault_is_made(const struct manager *m); /* there is a first key: the cluster stands */

/* Can values be sealed and opened here now? ERR_UNAVAILABLE-like errors with a sentence: ERR_BUSY
 * (not ready yet), ERR_PRECONDITION (the key is lost: an escrow is needed). */
RESULT vault_ready(const struct manager *m, struct why *why);
/* Seals under a fresh data key and the current epoch: fills epoch and wrapped; `sealed` gets the
 * bytes that v->sealed then points to. v's ids and version are set. Wipes nothing of `value`. */
RESULT vault_seal(const struct manager *m, const char *value_id, struct span value,
                  struct value_row *v, struct buf *sealed, struct why *why);
/* Opens it. ERR_PRECONDITION: its epoch's key is not held. ERR_CORRUPT: altered. */
RESULT vault_unseal(const struct manager *m, const char *value_id, const struct value_row *v,
                    struct secret **out, struct why *why);

/* Starts a rotation; done when the older epochs are destroyed here (as leader: everywhere that is
 * connected). Asks the leader when this is not it. ERR_BUSY: one is under way. */
struct actor; /* secrets.h */
RESULT vault_rotate(struct manager *m, const struct actor *actor, manager_done *done, void *ctx,
                    struct why *why);
#define ESCROW_EXPORTED "exported" /* details of AUDIT_ESCROW; the version is the highest epoch */
#define ESCROW_IMPORTED "imported"
/* The escrow of all keys held, sealed under the passphrase. On a worker thread (Argon2id). */
typedef void vault_escrowed(void *ctx, enum err e, const char *text, struct span file);
RESULT vault_escrow(struct manager *m, const struct secret *passphrase, const struct actor *actor,
                    vault_escrowed *done, void *ctx, struct why *why);
/* Opens one and keeps the keys that are missing here; `done` with a sentence that says how many.
 * ERR_WRONG_KEY. */
RESULT vault_import(struct manager *m, struct span file, const struct secret *passphrase,
                    const struct actor *actor, manager_done *done, void *ctx, struct why *why);

struct vault_status {
    uint32_t current, next, oldest;
    uint32_t held[VAULT_EPOCHS_MAX]; /* epochs, ascending; 0 behind the last */
    bool ready;
    char text[WHY_MAX]; /* what it is doing or waiting for; "" */
};
void vault_status(const struct manager *m, struct vault_status *out);

#endif
