/* What the files of the vault have of each other: its life, and what every manager does about the
 * keys (vault.c), sealing (vault_seal.c), the leader's duties (vault_lead.c), rotations as somebody
 * asked for them (vault_rotate.c), escrow (vault_escrow.c). */
#ifndef CONCLAVE_VAULT_PARTS_H
#define CONCLAVE_VAULT_PARTS_H

#include "api/secret/vault.h"

/* A call on the member connections: u8 VAULT_CALL, u8 kind, then
 *   ASK:     32 bytes X25519 key, made for this question. The answer is a sealed box for it
 *            (crypto_box_seal), so that no buffer on the way holds a key: the leader's keys as in
 *            identity.h. ERR_PRECONDITION: the leader has lost the current one.
 *   HOLD:    u32 lowest epoch held, u8 those held (bit i: that one + i), u32 epoch, 16 bytes id of
 *            its key: the caller holds them. "".
 *   START:   u32 current epoch as the caller has seen it, u8 asked before: rotate. ""
 *   SETTLED: nothing. OK when all members that are connected have dropped what is destroyed. */
enum vault_call_kind { VAULT_ASK = 1, VAULT_HOLD = 2, VAULT_START = 3, VAULT_SETTLED = 4 };

/* What a manager holds, as it says. */
struct vault_holding {
    uint64_t raft_id;         /* whose it is; 0: nobody's */
    uint32_t lowest;          /* epoch held */
    uint8_t held;             /* bit i: epoch lowest + i */
    uint32_t epoch;           /* held, too */
    uint8_t id[VAULT_KEY_ID]; /* of its key */
};

struct vault_op;

struct vault {
    /* everyone's */
    struct call call;                /* ASK or HOLD */
    bool calling;                    /* it is under way */
    bool asking;                     /* it is ASK */
    struct buf request;              /* its bytes */
    uint8_t public_key[32];          /* ASK's */
    struct secret *private_key;      /* the same; NULL: none is under way */
    uint64_t call_ms;                /* the next one not before */
    struct vault_holding told, says; /* what the leader knows of us; what it is being told */
    bool unsaved;                    /* the keyring has not what is held here */
    uint64_t save_ms;                /* the keyring failed; no other attempt before */
    uint64_t deny_ms;                /* no other warning before */
    bool rekey;                      /* the keyring is to get another KEK */
    bool lost;                       /* the current key, with everybody who can be asked */
    /* the leader's, of its own time only */
    struct vault_holding holdings[MEMBERS_MAX]; /* of the others */
    struct write write;                         /* a step */
    bool writing;                               /* it is under way */
    bool start;                                 /* a rotation was asked for */
    uint64_t hand_over_ms;                      /* the next attempt */
    uint64_t spread_ms;                         /* since when the next key spreads... */
    uint32_t spread_epoch;                      /* ...this one; 0: none */
    uint64_t audit_seen;                        /* records looked at, up to this number */
    uint64_t shred_number, spread_number;       /* of the last shredding; the last rotation */
    uint64_t shred_ms;                          /* it is not left alone any longer; 0: none is */
    char wrapped_to[NODE_ID_SIZE + 1];          /* values up to this one are looked through */
    uint64_t wrap_ms;                           /* no other pass over all values before */
    unsigned stuck;                             /* values seen since whose key is not held */
    /* of those who asked for something here */
    struct vault_op *ops;  /* rotations (vault_rotate.c) */
    struct shred *shreds;  /* secrets_shred.c */
    struct escrow *escrow; /* under way on its thread; NULL: none */
    char text[WHY_MAX];    /* what the leader waits for */
};

uint64_t vault_now(const struct manager *m);
bool vault_leads(const struct manager *m);
/* The key of the row's current or next epoch, if it is the very one; NULL. */
const struct vault_key *vault_held(const struct manager *m, const struct vault_row *v,
                                   uint32_t epoch);
/* Puts a key and makes it durable; nothing is changed on failure. */
RESULT vault_keep(struct manager *m, uint32_t epoch, const struct secret *key, struct why *why);
RESULT vault_wrap(const struct vault_key *key, const char *value_id, const struct value_row *v,
                  struct span data_key, uint8_t out[WRAPPED_SIZE]);
RESULT vault_unwrap(const struct vault_key *key, const char *value_id, const struct value_row *v,
                    struct secret **out); /* ERR_CORRUPT */
bool vault_is_on_roll(const struct manager *m, uint64_t raft_id);
void vault_lead(struct manager *m);       /* one step of the leader */
void vault_lead_again(struct manager *m); /* another time of leading, or of none */
bool vault_is_settled(struct manager *m); /* as leader */
RESULT vault_may_start(struct manager *m, struct why *why);
void vault_ops_step(struct manager *m);
void vault_ops_end(struct manager *m);      /* the vault closes */
void vault_ops_progress(struct manager *m); /* something has moved */
void vault_escrow_end(struct manager *m);   /* the same; its thread's answer goes nowhere */

#endif
