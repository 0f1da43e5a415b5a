/* The cluster keys: what is held of them, their rotation, their escrow, and the shredding of a
 * secret, which ends with the keys of before destroyed. Passphrases come in bodies, which are
 * wiped. The newest escrow is named wherever it matters, as the audit has it: by it what was
 * destroyed here can still be opened. */
#include "api/api.h"
#include "api/node/nodes.h"
#include "api/secret/escrow.h"
#include "api/secret/secrets.h"
#include "api/secret/vault.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

/* --- what there is -------------------------------------------------------------------------- */

struct escrow {
    uint64_t number; /* of its record; 0: none is in the trail */
    int64_t time_ns; /* when it was made */
    uint32_t epoch;  /* the highest in it */
};

static bool look_for_escrow(void *ctx, const struct row *r) {
    struct escrow *newest = ctx;
    struct audit_link link;
    if (audit_read(r, &link) != OK || link.is.what != AUDIT_ESCROW) return true;
    if (!span_equal(link.is.detail, span_str(ESCROW_EXPORTED))) return true;
    *newest =
        (struct escrow){.number = link.number, .time_ns = link.time_ns, .epoch = link.is.version};
    return true;
}

static struct escrow newest_escrow(const struct manager *m) {
    struct escrow e = {0};
    audit_each(m->store, 0, look_for_escrow, &e);
    return e;
}

static void put_escrow(struct jout *j, const struct escrow *e) {
    if (e->number == 0) return;
    jout_key(j, "escrow");
    jout_open(j, '{');
    jout_put_number(j, "record", e->number);
    jout_put_number(j, "time_ns", (uint64_t)e->time_ns);
    jout_put_number(j, "epoch", e->epoch);
    jout_close(j, '}');
}

static bool holds(const struct vault_row *v, const char *id) {
    for (unsigned i = 0; i < v->n; i++)
        if (strcmp(v->holders[i], id) == 0) return true;
    return false;
}

static struct vault_row vault_row(const struct manager *m) {
    struct row row;
    struct vault_row v;
    (void)vault_row_get(m->store, &row, &v);
    return v;
}

struct listing {
    struct jout *j;
    const struct manager *manager;
    struct vault_row vault;
};

static bool put_manager(void *ctx, const struct row *r) {
    struct listing *l = ctx;
    struct node_row n;
    struct node_member member;
    if (node_row_decode(r->body, &n) != OK || n.granted != NODE_MANAGER) return true;
    nodes_member(l->manager, &n, &member);
    const struct node *named = cluster_node(store_cluster(l->manager->store), n.raft_id);
    jout_open(l->j, '{');
    jout_put_text(l->j, "id", r->id);
    jout_key(l->j, "name");
    jout_text(l->j, r->name.size > 0 || !named ? r->name : span_str(named->name));
    jout_put_bool(l->j, "holds", holds(&l->vault, r->id));
    jout_put_bool(l->j, "reachable", member.reachable);
    jout_close(l->j, '}');
    return true;
}

/* `holds`: the newest key. One that can't be reached destroys older keys when it is back. */
static void put_managers(struct jout *j, const struct manager *m) {
    struct listing l = {.j = j, .manager = m, .vault = vault_row(m)};
    jout_key(j, "managers");
    jout_open(j, '[');
    row_all(m->store, ROW_NODE, put_manager, &l);
    jout_close(j, ']');
}

static void put_vault(struct jout *j, const struct manager *m) {
    struct vault_status s;
    struct vault_row v = vault_row(m);
    vault_status(m, &s);
    jout_put_bool(j, "ready", s.ready);
    jout_put_text(j, "text", s.text);
    jout_put_number(j, "current", s.current);
    jout_put_number(j, "next", s.next);
    jout_put_number(j, "oldest", s.oldest);
    jout_put_number(j, "rotated_ns", (uint64_t)v.rotated_ns);
    jout_key(j, "held");
    jout_open(j, '[');
    for (unsigned i = 0; i < VAULT_EPOCHS_MAX && s.held[i] > 0; i++)
        jout_number(j, s.held[i]);
    jout_close(j, ']');
}

/* `said`: what came of what was asked; may be NULL. */
static void answer_vault(struct exchange *x, const char *said) {
    const struct api *api = x->ctx;
    struct escrow escrow = newest_escrow(api->manager);
    struct buf out = buf_new(64 * KIB);
    struct jout j;
    jout_start(&j, &out);
    jout_open(&j, '{');
    put_vault(&j, api->manager);
    put_managers(&j, api->manager);
    put_escrow(&j, &escrow);
    if (said && said[0]) jout_put_text(&j, "said", said);
    jout_close(&j, '}');
    api_answer(x, &j, &out);
}

static void show(struct exchange *x) { answer_vault(x, NULL); }

/* -> {"ready", "text", "current", "next", "oldest", "rotated_ns", "held": [], "managers": [],
 * "escrow": {}} */
void handle_vault(struct exchange *x) { api_current(x, show); }

/* --- rotating ------------------------------------------------------------------------------- */

/* Rotated, or imported. */
static void on_changed(void *ctx, enum err e, const char *text) {
    struct exchange *x = ctx;
    const struct api *api = x->ctx;
    if (e == OK && api->manager->store)
        answer_vault(x, text);
    else
        exchange_error(x, e == OK ? ERR_CLOSED : e, text);
}

static void rotate(struct exchange *x) {
    const struct api *api = x->ctx;
    struct actor actor;
    struct why why = {0};
    actor_of(x, &actor);
    enum err e = vault_ready(api->manager, &why);
    if (e == OK) e = vault_rotate(api->manager, &actor, on_changed, x, &why);
    if (e != OK) api_fail(x, e, &why);
}

void handle_vault_rotate(struct exchange *x) { api_current(x, rotate); }

/* --- escrow --------------------------------------------------------------------------------- */

static void on_escrowed(void *ctx, enum err e, const char *text, struct span file) {
    struct exchange *x = ctx;
    const struct api *api = x->ctx;
    struct buf out = buf_new(2 * ESCROW_MAX);
    struct jout j;
    if (e != OK || !api->manager->store) {
        exchange_error(x, e == OK ? ERR_CLOSED : e, text);
        return;
    }
    jout_start(&j, &out);
    jout_open(&j, '{');
    put_vault(&j, api->manager);
    jout_key(&j, "file");
    jout_base64(&j, file);
    jout_close(&j, '}');
    api_answer(x, &j, &out);
}

static RESULT read_passphrase(const json_t *body, struct secret **out, struct why *why) {
    const char *text = jin_string(body, "passphrase");
    size_t size = strlen(text);
    if (size == 0 || size > PASSPHRASE_MAX)
        return fail_with(why, ERR_INVALID, "a passphrase has 1 to %d bytes", (int)PASSPHRASE_MAX);
    return secret_new(text, size, out);
}

typedef enum err with_phrase(struct exchange *x, const json_t *body, const struct secret *phrase,
                             struct why *why);

static void with_body(struct exchange *x, with_phrase *act) {
    json_t *body;
    struct why why = {0};
    struct secret *phrase = NULL;
    if (!api_body(x, &body)) return;
    sodium_memzero((uint8_t *)(uintptr_t)x->body.at, x->body.size); /* the connection's own */
    enum err e = read_passphrase(body, &phrase, &why);
    if (e == OK) e = act(x, body, phrase, &why);
    manager_wipe_stack(((const struct api *)x->ctx)->manager);
    secret_free(phrase);
    jin_wipe(body);
    json_decref(body);
    if (e != OK) api_fail(x, e, &why);
}

static enum err escrow_now(struct exchange *x, const json_t *body, const struct secret *phrase,
                           struct why *why) {
    const struct api *api = x->ctx;
    struct actor actor;
    (void)body;
    TRY(vault_ready(api->manager, why));
    actor_of(x, &actor);
    return vault_escrow(api->manager, phrase, &actor, on_escrowed, x, why);
}

static void escrow(struct exchange *x) { with_body(x, escrow_now); }

/* {"passphrase"} -> {"file": base64, and as of GET} */
void handle_vault_escrow(struct exchange *x) { api_current(x, escrow); }

static enum err import_now(struct exchange *x, const json_t *body, const struct secret *phrase,
                           struct why *why) {
    const struct api *api = x->ctx;
    struct actor actor;
    struct buf file = buf_new(ESCROW_MAX);
    actor_of(x, &actor);
    enum err e = jin_bytes(body, "file", &file, why);
    if (e == OK && file.size == 0)
        e = fail_with(why, ERR_INVALID, "there is no escrow in the body");
    if (e == OK)
        e = vault_import(api->manager, buf_span(&file), phrase, &actor, on_changed, x, why);
    buf_free(&file);
    return e;
}

static void import(struct exchange *x) { with_body(x, import_now); }

/* {"file": base64, "passphrase"} */
void handle_vault_import(struct exchange *x) { api_current(x, import); }

/* --- shred ---------------------------------------------------------------------------------- */

struct shred {
    struct exchange *x;
    struct escrow escrow; /* the newest one before */
    uint32_t oldest;      /* epoch that there was before */
};

static void put_shredded(struct jout *j, const struct shred *s, const struct manager *m) {
    struct vault_row v = vault_row(m);
    jout_key(j, "destroyed");
    jout_open(j, '[');
    for (uint32_t epoch = s->oldest; epoch > 0 && epoch < v.oldest; epoch++)
        jout_number(j, epoch);
    jout_close(j, ']');
    jout_put_number(j, "current", v.current);
    jout_put_bool(j, "autolock", store_cluster(m->store)->unlock_key != NULL);
    put_managers(j, m);
    put_escrow(j, &s->escrow);
}

static void on_shredded(void *ctx, enum err e, const char *text, const char *id, uint32_t version) {
    struct shred *s = ctx;
    struct exchange *x = s->x;
    const struct api *api = x->ctx;
    (void)version;
    if (e == OK && !api->manager->store) e = ERR_CLOSED;
    if (e == OK) {
        struct buf out = buf_new(64 * KIB);
        struct jout j;
        jout_start(&j, &out);
        jout_open(&j, '{');
        jout_put_text(&j, "id", id ? id : "");
        jout_put_text(&j, "said", text ? text : "");
        put_shredded(&j, s, api->manager);
        jout_close(&j, '}');
        api_answer(x, &j, &out);
    } else {
        exchange_error(x, e, text);
    }
    free(s);
}

static RESULT begin_shred(struct exchange *x, const json_t *body, struct why *why) {
    const struct api *api = x->ctx;
    struct row row;
    struct actor actor;
    TRY(row_find(api->manager->store, ROW_SECRET, jin_string(body, "secret"), &row, why));
    struct shred *s = calloc(1, sizeof *s);
    if (!s) return ERR_NOMEM;
    *s = (struct shred){
        .x = x, .escrow = newest_escrow(api->manager), .oldest = vault_row(api->manager).oldest};
    actor_of(x, &actor);
    enum err e = secrets_shred(api->manager, row.id, &actor, on_shredded, s, why);
    if (e != OK) free(s);
    return e;
}

static void shred(struct exchange *x) {
    json_t *body;
    struct why why = {0};
    if (!api_body(x, &body)) return;
    enum err e = begin_shred(x, body, &why);
    json_decref(body);
    if (e != OK) api_fail(x, e, &why);
}

/* {"secret"} -> {"id", "destroyed": [epochs], "current", "autolock", "managers": [], "escrow":
 * {}} */
void handle_secret_shred(struct exchange *x) { api_current(x, shred); }
