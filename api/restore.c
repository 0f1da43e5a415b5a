/* A backup becomes a cluster of one. First all of it is read into a state in memory and verified;
 * then that state gets a new cluster in place of its old one, by the same command that founds any
 * cluster; only then is the directory written: keyring, log, and the state as its snapshot. A
 * failure takes the keyring away again, without which nothing is there. */
#include "api/backup.h"
#include "api/node/credentials.h"
#include "api/node/directory.h"
#include "api/offline.h"
#include "api/offline_env.h"
#include "raft/loop.h"
#include "raft/replica.h"
#include "store/held.h"
#include "store/store.h"
#include "store/vault.h"

#include <sodium.h>

struct restoring {
    struct machine *machine;
    struct machine_restore *restore; /* NULL: ended */
};

static enum err take(void *ctx, struct span state) {
    struct restoring *r = ctx;
    return r->machine->restore_bytes(r->restore, state);
}

static RESULT load(FILE *file, const char *name, const struct secret *key, struct store *store,
                   struct why *why) {
    struct restoring r = {.machine = store_machine(store)};
    struct backup_head head;
    TRY(r.machine->restore(r.machine, &r.restore));
    enum err e = backup_read(file, name, key, &head, take, &r, why);
    if (e != OK) {
        r.machine->restore_abort(r.restore);
        return e;
    }
    e = r.machine->restore_end(r.restore, head.hash);
    return e == OK ? OK
                   : fail_with(why, e, "%s: the state in it does not have the hash that it names",
                               name);
}

static RESULT apply(struct store *store, const struct command *c, struct why *why) {
    struct machine *m = store_machine(store);
    struct buf command = buf_new(COMMAND_MAX), answer = buf_new(RESULT_MAX);
    struct result result = {0};
    enum err e = buf_reserve(&command, 4 * PEM_MAX); /* at once: growing would leave copies */
    if (e == OK) e = command_encode(c, &command);
    if (e == OK) e = m->apply(m, 1, buf_span(&command), &answer, why);
    if (e == OK) e = result_decode(buf_span(&answer), &result);
    if (e == OK) e = result.error;
    m->applied(m, 1);
    buf_wipe(&command);
    buf_free(&answer);
    return e;
}

/* The state's own cluster gives way to the new one, and so do its nodes, tokens and settings. */
static RESULT replace_cluster(struct store *store, const struct node_identity *id, int64_t now_s,
                              struct why *why) {
    struct command c;
    struct buf changes = buf_new(COMMAND_MAX);
    credentials_cluster(id, now_s, &c);
    c.cluster.replace = true;
    TRY(apply(store, &c, why));
    enum err e = credentials_rows(id, now_s, &changes, &c);
    if (e == OK) e = apply(store, &c, why);
    buf_free(&changes);
    return e;
}

static RESULT found(struct node_identity *id, const struct offline_place *place, int64_t now_s,
                    struct why *why) {
    memcpy(id->name, place->name, sizeof id->name);
    memcpy(id->client_listen, place->client, ADDRESS_MAX);
    memcpy(id->peer_listen, place->peer, ADDRESS_MAX);
    credentials_advertised("", id->client_listen, id->client_address);
    credentials_advertised("", id->peer_listen, id->peer_address);
    return credentials_found(id, false, now_s, why);
}

/* --- the vault ------------------------------------------------------------------------------ */

struct counting {
    const struct node_identity *id;
    struct offline_restored *out;
};

static bool count_value(void *ctx, const struct row *row) {
    const struct counting *c = ctx;
    struct value_row v;
    c->out->values++;
    if (value_decode(row->body, &v) != OK || !vault_key_of(c->id, v.epoch)) c->out->sealed++;
    return true;
}

/* Keys of epochs that the state has; one that is not the very one is left out. */
static RESULT take_vault(struct offline *o, const struct secret *keys,
                         struct offline_restored *out) {
    struct node_identity *id = &o->self;
    struct counting c = {.id = id, .out = out};
    struct row row;
    struct vault_row v;
    if (keys) TRY(vault_keys_take(id, secret_span(keys)));
    bool there = vault_row_get(o->store, &row, &v);
    for (unsigned i = id->vault_n; i-- > 0;) {
        const struct vault_key *k = &id->vault[i];
        bool fits = there && k->epoch >= v.oldest && k->epoch <= v.current;
        if (fits && k->epoch == v.current) fits = memcmp(k->id, v.key_ids[0], VAULT_KEY_ID) == 0;
        if (!fits) vault_key_drop(id, k->epoch);
    }
    row_all(o->store, ROW_VALUE, count_value, &c);
    return OK;
}

/* --- the node ------------------------------------------------------------------------------- */

static RESULT write_node(struct offline *o, struct why *why) {
    struct kek plain = {.kind = KEK_PLAIN};
    TRY(keyring_create(o->disk, plain, &o->keys, why));
    offline_env(o);
    TRY(replica_seed(&o->env, &o->raft, why));
    identity_forget_founding(&o->self);
    o->self.state = IDENTITY_MEMBER;
    return identity_store(&o->self, o->keys, why); /* last: before it there is no node here */
}

static RESULT check_empty(struct offline *o, const char *data, struct why *why) {
    enum kek_kind kind;
    TRY(disk_real_open(data, &o->disk, why));
    enum err e = keyring_kind(o->disk, &kind, why);
    if (e == ERR_NOT_FOUND) return directory_check_empty(o->disk, data, why);
    return fail_with(why, ERR_EXISTS, "%s: there is a node's data here already", data);
}

static RESULT restore(struct offline *o, FILE *file, const char *file_name,
                      const struct secret *key, const struct offline_place *place,
                      struct offline_restored *out, struct why *why) {
    clock_real(&o->clock);
    int64_t now_s = o->clock.wall_s(&o->clock);
    if (store_new(&o->store) != OK) return fail_with(why, ERR_NOMEM, "no memory for the state");
    TRY(load(file, file_name, key, o->store, why));
    TRY(found(&o->self, place, now_s, why));
    TRY(replace_cluster(o->store, &o->self, now_s, why));
    enum err e = take_vault(o, place->vault, out);
    if (e != OK) return fail_with(why, e, "the cluster keys of the escrow: %s", err_text(e));
    out->keys = store_keys(o->store);
    out->revision = store_revision(o->store);
    TRY(token_format(buf_span(&o->self.root_pem), o->self.token, out->token));
    e = write_node(o, why);
    if (e != OK) directory_wipe(o->disk);
    return e;
}

RESULT offline_restore(FILE *file, const char *file_name, const struct secret *key,
                       const char *data, const struct offline_place *place,
                       struct offline_restored *out, struct why *why) {
    struct offline o = {0};
    identity_init(&o.self);
    enum err e = check_empty(&o, data, why);
    if (e == OK) e = restore(&o, file, file_name, key, place, out, why);
    offline_close(&o);
    return e;
}
