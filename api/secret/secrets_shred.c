/* Shredding a secret: it is removed, then the cluster key is rotated until the epochs that ever
 * wrapped it are destroyed, then, where the managers' keyrings are locked by the cluster's unlock
 * key, that key is replaced, too, so that the one of today opens no keyring of yesterday.
 *
 *   REMOVING -> ROTATING -(busy: another rotation is under way, whose outcome may still have
 *      wrapped it: once more when that is over)-> LOCKING -> done
 *
 * A failure behind REMOVING leaves the secret removed; what is left to do is said to whoever asked.
 * If this manager does not come to ROTATING, whoever leads sees it in the audit, and rotates. */
#include "api/secret/secrets_parts.h"

#include <stdlib.h>

#include "api/secret/vault_parts.h"

#define AGAIN_MS   500
#define BUSY_MS    60000 /* for other rotations */
#define LOCKING_MS 10000 /* until the keyring has the other unlock key */

enum shred_stage { REMOVING, ROTATING, LOCKING };

struct shred {
    struct manager *manager;
    enum shred_stage stage;
    bool waiting; /* for a callback */
    bool locked;  /* the other unlock key is in the state */
    bool over;
    uint64_t again_ms; /* no step before */
    uint64_t limit_ms; /* of the stage */
    uint32_t last;     /* epochs up to this one are destroyed by it */
    enum err error;    /* it ends with this */
    struct why why;
    char id[NODE_ID_SIZE + 1];
    struct write write; /* of the unlock key */
    held_done *done;
    void *ctx; /* of done */
    struct shred *next;
};

static void finish(struct shred *s, enum err e, const char *text) {
    s->over = true;
    s->error = e;
    if (text != s->why.text) (void)snprintf(s->why.text, sizeof s->why.text, "%s", text);
}

static void resume(struct shred *s) {
    s->waiting = false;
    vault_wake(s->manager);
}

/* --- the cluster key -------------------------------------------------------------------------- */

static void on_rotated(void *ctx, enum err e, const char *text) {
    struct shred *s = ctx;
    uint64_t now = vault_now(s->manager);
    if (e == OK) {
        s->stage = LOCKING;
        s->limit_ms = now + LOCKING_MS;
        (void)snprintf(s->why.text, sizeof s->why.text, "%s", text); /* who has not said so yet */
    } else if (e == ERR_BUSY && now < s->limit_ms) {
        s->again_ms = now + AGAIN_MS;
    } else {
        struct why why;
        (void)fail_with(&why, e,
                        "the secret is removed, but the cluster key is not rotated yet: %s", text);
        finish(s, e, why.text);
    }
    resume(s);
}

static void rotate(struct shred *s) {
    struct manager *m = s->manager;
    struct row row;
    struct vault_row v;
    struct why why = {0};
    if (vault_now(m) < s->again_ms) return;
    if (vault_row_get(m->store, &row, &v)) s->last = v.next != 0 ? v.next : v.current;
    enum err e = vault_rotate(m, NULL, on_rotated, s, &why);
    s->waiting = e == OK;
    if (e != OK) on_rotated(s, e, why.text);
}

/* --- the unlock key --------------------------------------------------------------------------- */

static void on_locked(struct write *w, enum err e, const char *text, const struct result *r) {
    struct shred *s = w->ctx;
    if (e == OK) e = r->error;
    s->locked = e == OK;
    if (e != OK) {
        struct why why;
        (void)fail_with(&why, e,
                        "the secret is shredded, but the unlock key is still the old one: "
                        "conclave unlock-key --rotate (%s)",
                        text[0] ? text : err_text(e));
        finish(s, e, why.text);
    }
    resume(s);
}

static void propose_lock(struct shred *s) {
    struct secret *key = NULL;
    struct command c = {.op = OP_LOCK};
    s->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_locked, .ctx = s};
    enum err e = secret_random(KEY_SIZE, &key);
    if (e == OK) {
        c.unlock_key = secret_span(key);
        e = command_encode(&c, &s->write.command);
    }
    if (e == OK) e = manager_write(s->manager, &s->write);
    secret_free(key);
    s->waiting = e == OK;
    if (e == OK) return;
    buf_wipe(&s->write.command);
    struct result none = {.error = OK};
    on_locked(&s->write, e, "", &none);
}

/* What whoever asked has to know: nothing of today opens what was sealed before, but... */
static void report(struct shred *s, bool locked) {
    const struct manager *m = s->manager;
    char rest[WHY_MAX];
    (void)snprintf(rest, sizeof rest, "%s", s->why.text);
    const char *own = m->config.kek_kind == KEK_PASSPHRASE ? "passphrase"
                      : m->config.kek_kind == KEK_FILE     ? "key file"
                                                           : NULL;
    (void)snprintf(s->why.text, sizeof s->why.text,
                   "the cluster keys up to epoch %u are destroyed; an escrow of them, if you keep "
                   "one, still opens older backups%s%s%s%s%.120s",
                   s->last, locked ? "; the unlock key is another one: conclave unlock-key" : "",
                   own ? "; an older keyring of this node is still opened by its " : "",
                   own ? own : "", rest[0] ? "; " : "", rest);
    finish(s, OK, s->why.text);
}

static void lock(struct shred *s) {
    struct manager *m = s->manager;
    const struct cluster *c = store_cluster(m->store);
    bool follows = m->config.kek_kind != KEK_PASSPHRASE && m->config.kek_kind != KEK_FILE;
    if (!c->unlock_key) {
        report(s, false);
    } else if (!s->locked) {
        propose_lock(s);
    } else if (!follows || (m->unlock_key && secret_equal(m->unlock_key, c->unlock_key)) ||
               vault_now(m) >= s->limit_ms) {
        report(s, true);
    }
}

/* --- all -------------------------------------------------------------------------------------- */

static void on_removed(void *ctx, enum err e, const char *text, const char *id, uint32_t version) {
    struct shred *s = ctx;
    (void)version;
    (void)snprintf(s->id, sizeof s->id, "%s", id);
    s->stage = ROTATING;
    s->limit_ms = vault_now(s->manager) + BUSY_MS;
    if (e == ERR_MAYBE_APPLIED)
        finish(s, e,
               "the outcome is unknown; if the secret is gone, the cluster key is rotated soon");
    else if (e != OK)
        finish(s, e, text);
    resume(s);
}

static void tell_those_over(struct manager *m) {
    for (struct shred **at = &m->vault->shreds; *at;) {
        struct shred *s = *at;
        if (!s->over || s->waiting) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        s->done(s->ctx, s->error, s->why.text, s->id, 0);
        free(s);
        at = &m->vault->shreds; /* `done` may have begun another one */
    }
}

void shred_step(struct manager *m) {
    for (struct shred *s = m->vault->shreds; s; s = s->next) {
        if (s->waiting || s->over) continue;
        if (s->stage == ROTATING)
            rotate(s);
        else if (s->stage == LOCKING)
            lock(s);
    }
    tell_those_over(m);
}

void shred_end(struct manager *m) {
    for (struct shred *s = m->vault->shreds; s; s = s->next) {
        s->waiting = false;
        if (!s->over) finish(s, ERR_CLOSED, "the node is stopping");
    }
    tell_those_over(m);
}

RESULT secrets_shred(struct manager *m, const char *id, const struct actor *actor, held_done *done,
                     void *ctx, struct why *why) {
    struct held_op *op;
    struct shred *s = calloc(1, sizeof *s);
    if (!s) return fail_with(why, ERR_NOMEM, "no memory to shred a secret");
    *s = (struct shred){.manager = m, .waiting = true, .done = done, .ctx = ctx};
    enum err e = held_op_new(m, ROW_SECRET, on_removed, s, &op, why);
    if (e == OK) e = held_op_send(op, held_op_remove(op, id, AUDIT_SHRED, actor, why), why);
    if (e != OK) {
        free(s);
        return e;
    }
    s->next = m->vault->shreds;
    m->vault->shreds = s;
    return OK;
}
