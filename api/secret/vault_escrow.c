/* See vault.h. Escrow on a running manager: Argon2id has a thread for the time it takes, to which
 * all that it needs is given; nothing of the manager is touched there. One at a time. An export is
 * in the audit trail before the file is given out; an import after its keys are in the keyring.
 *
 *   export: keys copied -> sealed (thread) -> audit -> done with the file
 *   import: file copied -> opened (thread) -> keys that fit are kept -> audit -> done
 *
 * Close: the thread can't be called back. The vault tells whoever asked that it closes, and the
 * answer goes nowhere; the manager lives until then (m->signings). */
#include "api/secret/vault_parts.h"

#include <stdlib.h>

#include "api/manager_parts.h"
#include "api/node/roles.h"
#include "api/secret/escrow.h"
#include "api/secret/secrets.h"

#define TRIES_MAX 16 /* values that a key is tried on; one may be damaged */

struct escrow {
    struct job job; /* first: the one of exec */
    struct exec *exec;
    struct manager *manager;
    struct secret *passphrase, *keys; /* keys: to be sealed, or opened */
    struct buf file;
    struct actor actor;
    bool import, dropped; /* dropped: the vault has closed */
    enum err error;
    struct why why;
    struct write write;       /* of the audit */
    vault_escrowed *escrowed; /* either of both */
    manager_done *imported;
    void *ctx; /* of it */
};

static void escrow_free(struct escrow *x) {
    secret_free(x->passphrase);
    secret_free(x->keys);
    buf_free(&x->file);
    free(x);
}

static void tell(struct escrow *x) {
    bool good = x->error == OK;
    if (x->import)
        x->imported(x->ctx, x->error, x->why.text);
    else
        x->escrowed(x->ctx, x->error, x->why.text, good ? buf_span(&x->file) : span_of(NULL, 0));
}

static void finish(struct escrow *x) {
    if (!x->dropped) {
        x->manager->vault->escrow = NULL;
        tell(x);
    }
    escrow_free(x);
}

/* --- away from the loop ----------------------------------------------------------------------- */

static void run(struct job *job) {
    struct escrow *x = (struct escrow *)(void *)job;
    x->error = x->import
                   ? escrow_open(buf_span(&x->file), x->passphrase, &x->keys, &x->why)
                   : escrow_seal(secret_span(x->keys), x->passphrase, KEK_COST, &x->file, &x->why);
}

/* --- the audit -------------------------------------------------------------------------------- */

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct escrow *x = w->ctx;
    if (e == OK) e = r->error;
    if (e != OK) {
        x->error = e;
        (void)fail_with(&x->why, e, "the audit can't be written: %s", text[0] ? text : err_text(e));
    }
    finish(x);
}

/* Its version is the highest epoch of the keys that are held. */
static void write_audit(struct escrow *x, const char *detail) {
    struct manager *m = x->manager;
    const struct node_identity *self = &m->self;
    struct buf changes = buf_new(64 * KIB);
    struct audit_record a = {.what = AUDIT_ESCROW,
                             .kind = ROW_VAULT,
                             .who = span_str(x->actor.who),
                             .from = span_str(x->actor.from),
                             .version =
                                 self->vault_n > 0 ? self->vault[self->vault_n - 1].epoch : 0,
                             .detail = span_str(detail)};
    memcpy(a.id, store_cluster(m->store)->id, sizeof a.id);
    x->write = (struct write){.done = on_written, .ctx = x};
    enum err e = audit_add(&changes, &a);
    if (e == OK) e = rows_command(m, &changes, 1, &x->write);
    if (e == OK) e = manager_write(m, &x->write);
    buf_free(&changes);
    if (e == OK) return;
    x->error = fail_with(&x->why, e, "the audit can't be written: %s", err_text(e));
    finish(x);
}

/* --- imports ---------------------------------------------------------------------------------- */

struct trial {
    const struct vault_key *key;
    unsigned n; /* values that it was tried on */
    bool opens; /* the last one */
};

static bool try_value(void *ctx, const struct row *row) {
    struct trial *t = ctx;
    struct value_row v;
    struct secret *data_key = NULL;
    if (value_decode(row->body, &v) != OK || v.epoch != t->key->epoch) return true;
    t->n++;
    t->opens = vault_unwrap(t->key, row->id, &v, &data_key) == OK;
    secret_free(data_key);
    return !t->opens && t->n < TRIES_MAX;
}

static struct trial try_key(const struct manager *m, const struct vault_key *key) {
    struct trial t = {.key = key};
    if (key) row_all(m->store, ROW_VALUE, try_value, &t);
    return t;
}

enum fit { NOT_MISSING, FITS, WRONG };

/* The state has no id of an older key: what that sealed tells. */
static enum fit fit_older(const struct manager *m, const struct vault_key *k) {
    if (try_key(m, vault_key_of(&m->self, k->epoch)).opens) return NOT_MISSING;
    struct trial t = try_key(m, k);
    if (t.n == 0) return NOT_MISSING; /* nothing needs it */
    return t.opens ? FITS : WRONG;
}

/* Is it of use here, and the very one? */
static enum fit fit(const struct manager *m, const struct vault_row *v, const struct vault_key *k) {
    const uint8_t *id = k->epoch == v->current ? v->key_ids[0] : v->key_ids[1];
    uint32_t highest = v->next > v->current ? v->next : v->current;
    if (k->epoch < v->oldest || k->epoch > highest) return NOT_MISSING;
    if (k->epoch != v->current && k->epoch != v->next) return fit_older(m, k);
    if (vault_held(m, v, k->epoch)) return NOT_MISSING;
    return memcmp(k->id, id, VAULT_KEY_ID) == 0 ? FITS : WRONG;
}

static RESULT take(struct escrow *x, unsigned *n, bool *wrong) {
    struct manager *m = x->manager;
    struct node_identity brought;
    struct row row;
    struct vault_row v;
    identity_init(&brought);
    enum err e = vault_row_get(m->store, &row, &v)
                     ? OK
                     : fail_with(&x->why, ERR_BUSY, "the cluster is being founded; try again");
    if (e == OK) e = vault_keys_take(&brought, secret_span(x->keys));
    for (unsigned i = 0; e == OK && i < brought.vault_n; i++) {
        enum fit is = fit(m, &v, &brought.vault[i]);
        *wrong |= is == WRONG;
        if (is != FITS) continue;
        e = vault_keep(m, brought.vault[i].epoch, brought.vault[i].key, &x->why);
        *n += e == OK;
    }
    identity_clear(&brought);
    manager_wipe_stack(m);
    return e;
}

static void go_on_import(struct escrow *x) {
    struct manager *m = x->manager;
    struct why none;
    unsigned n = 0;
    bool wrong = false;
    manager_wipe_stack(m);
    x->error = take(x, &n, &wrong);
    if (x->error == OK && n == 0 && (wrong || vault_ready(m, &none) != OK))
        x->error = fail_with(&x->why, ERR_PRECONDITION,
                             "none of the keys in the escrow is one that is missing here");
    if (x->error != OK) {
        if (!x->why.text[0]) (void)fail_with(&x->why, x->error, "%s", err_text(x->error));
        finish(x);
        return;
    }
    (void)snprintf(x->why.text, sizeof x->why.text,
                   n == 1 ? "%u key was missing here, and is held "
                            "now"
                          : "%u keys were missing here, and are held now",
                   n);
    vault_wake(m);
    write_audit(x, ESCROW_IMPORTED);
}

/* --- on the loop ------------------------------------------------------------------------------ */

static void on_run(struct job *job) {
    struct escrow *x = (struct escrow *)(void *)job;
    struct manager *m = x->manager;
    exec_real_close(x->exec, NULL, NULL);
    m->signings--;
    if (x->dropped || x->error != OK || manager_ready(m, &x->why) != OK) {
        if (!x->dropped && x->error == OK) x->error = ERR_CLOSED;
        finish(x);
    } else if (x->import) {
        go_on_import(x);
    } else {
        write_audit(x, ESCROW_EXPORTED);
    }
}

static RESULT escrow_new(struct manager *m, const struct secret *passphrase,
                         const struct actor *actor, struct escrow **out, struct why *why) {
    TRY(manager_ready(m, why));
    if (m->vault->escrow) return fail_with(why, ERR_BUSY, "another escrow is under way; try again");
    struct escrow *x = calloc(1, sizeof *x);
    if (!x) return fail_with(why, ERR_NOMEM, "no memory for an escrow");
    *x = (struct escrow){.manager = m, .file = buf_new(ESCROW_MAX), .actor = *actor};
    x->job = (struct job){.run = run, .done = on_run};
    if (secret_copy(passphrase, &x->passphrase) != OK) {
        escrow_free(x);
        return fail_with(why, ERR_NOMEM, "no memory for an escrow");
    }
    *out = x;
    return OK;
}

static RESULT start(struct escrow *x, enum err e, struct why *why) {
    struct manager *m = x->manager;
    if (e == OK) e = exec_real_start(m->config.loop, "escrow", 0, &x->exec, why);
    if (e != OK) {
        escrow_free(x);
        return e;
    }
    m->vault->escrow = x;
    m->signings++;
    x->exec->submit(x->exec, &x->job);
    return OK;
}

static RESULT copy_keys(struct manager *m, struct secret **out) {
    struct buf keys = buf_new(VAULT_KEYS_SIZE);
    enum err e = buf_reserve(&keys, VAULT_KEYS_SIZE);
    if (e == OK) e = vault_keys_encode(&m->self, &keys);
    if (e == OK) e = secret_new(keys.at, keys.size, out);
    buf_wipe(&keys);
    return e;
}

RESULT vault_escrow(struct manager *m, const struct secret *passphrase, const struct actor *actor,
                    vault_escrowed *done, void *ctx, struct why *why) {
    struct escrow *x;
    TRY(escrow_new(m, passphrase, actor, &x, why));
    enum err e = vault_ready(m, why);
    if (e == OK) e = copy_keys(m, &x->keys);
    x->escrowed = done;
    x->ctx = ctx;
    return start(x, e, why);
}

RESULT vault_import(struct manager *m, struct span file, const struct secret *passphrase,
                    const struct actor *actor, manager_done *done, void *ctx, struct why *why) {
    struct escrow *x;
    struct escrow_outer outer;
    TRY(escrow_new(m, passphrase, actor, &x, why));
    enum err e = escrow_decode(file, &outer, why);
    if (e == OK) e = buf_add_span(&x->file, file);
    x->import = true;
    x->imported = done;
    x->ctx = ctx;
    return start(x, e, why);
}

void vault_escrow_end(struct manager *m) {
    struct escrow *x = m->vault->escrow;
    if (!x) return;
    x->dropped = true;
    x->error = fail_with(&x->why, ERR_CLOSED, "the node is stopping");
    tell(x);
}
