/* Join tokens: made, listed, revoked, rotated, shown. The secret of one that is made here exists in
 * the answer and as a hash in its row, nowhere else; the two standing ones are derived from the
 * cluster's join key whenever they are shown. */
#include "api/api.h"
#include "api/words.h"
#include "crypto/base36.h"
#include "store/join_token.h"

#include <stdio.h>

#define FORGET_S   (30LL * 86400) /* a token that is over is forgotten so long after */
#define FORGET_MAX 64             /* of them in one command */

static int64_t wall(const struct exchange *x) {
    const struct api *api = x->ctx;
    return api->manager->clock.wall_s(&api->manager->clock);
}

/* What a list says of it: "standing", "good", "expired", "used up", "revoked". */
static const char *state_of(const struct join_token *t, int64_t now_s) {
    if (t->revoked) return "revoked";
    if (t->expires_s > 0 && now_s >= t->expires_s) return "expired";
    if (t->uses_max > 0 && t->used >= t->uses_max) return "used up";
    return t->epoch > 0 ? "standing" : "good";
}

static bool is_over(const struct join_token *t, int64_t now_s) {
    return t->revoked || (t->expires_s > 0 && now_s >= t->expires_s) ||
           (t->uses_max > 0 && t->used >= t->uses_max);
}

/* --- the token's text ----------------------------------------------------------------------- */

/* Pins the root that is trusted now. Whenever a secret goes out the log says so, without it. */
static void answer_token(struct exchange *x, const char *id, enum node_role role,
                         const char secret[JOIN_SECRET_SIZE + 1]) {
    const struct api *api = x->ctx;
    log_event(api->log, LOG_INFO, "tokens", "the join token %s of %ss is shown to an administrator",
              id, words_of_role(role));
    const struct cluster *c = store_cluster(api->manager->store);
    char digest[ROOT_DIGEST_TEXT], text[JOIN_TOKEN_TEXT];
    struct buf out = buf_new(4 * KIB);
    struct jout j;
    enum err e = x509_digest(buf_span(&c->ca.root_pem), digest);
    if (e == OK) e = buf_reserve(&out, 4 * KIB); /* at once: growing would leave copies behind */
    if (e != OK) {
        exchange_error(x, e, NULL);
        return;
    }
    (void)snprintf(text, sizeof text, "SWMTKN-1-%s-%s", digest, secret);
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_put_text(&j, "id", id);
    jout_put_text(&j, "role", words_of_role(role));
    jout_put_text(&j, "token", text);
    jout_close(&j, '}');
    api_answer(x, &j, &out);
    sodium_memzero(text, sizeof text);
}

/* --- create --------------------------------------------------------------------------------- */

/* What is kept until the row is written. */
struct made {
    char id[NODE_ID_SIZE + 1];
    char secret[JOIN_SECRET_SIZE + 1];
    uint8_t role;
};

static void answer_made(struct exchange *x, const struct result *r, const struct secret *kept) {
    struct made made;
    (void)r;
    memcpy(&made, secret_span(kept).at, sizeof made);
    answer_token(x, made.id, (enum node_role)made.role, made.secret);
    sodium_memzero(&made, sizeof made);
}

static RESULT read_times(const json_t *body, int64_t now_s, struct join_token *t, struct why *why) {
    uint64_t expires_in_s = 0, uses = 0;
    TRY(jin_u64(body, "expires_in_s", &expires_in_s, why));
    TRY(jin_u64(body, "uses", &uses, why));
    if (expires_in_s > DURATION_MAX_S)
        return fail_with(why, ERR_INVALID, "a token lives for a hundred years at most");
    if (uses > UINT32_MAX) return fail_with(why, ERR_INVALID, "uses is too large");
    t->expires_s = expires_in_s > 0 ? now_s + (int64_t)expires_in_s : 0;
    t->uses_max = (uint32_t)uses;
    return OK;
}

static RESULT read_token(const json_t *body, int64_t now_s, struct join_token *t,
                         struct buf *labels, struct why *why) {
    TRY(words_role(jin_string(body, "role"), &t->role, why));
    TRY(read_times(body, now_s, t, why));
    TRY(jin_text(body, "from", t->addresses, sizeof t->addresses, why));
    if (t->addresses[0]) TRY(join_addresses_check(t->addresses, why));
    TRY(labels_change(span_of(NULL, 0), json_object_get(body, "labels"), NULL, labels, why));
    t->labels = buf_span(labels);
    return OK;
}

/* A name is free text for people. */
static RESULT read_name(const json_t *body, char name[ROW_NAME_MAX + 1], struct why *why) {
    name[0] = '\0';
    TRY(jin_text(body, "name", name, ROW_NAME_MAX + 1, why));
    for (const char *c = name; *c != '\0'; c++)
        if ((uint8_t)*c < ' ' || *c == 127)
            return fail_with(why, ERR_INVALID, "a name has no control characters");
    return OK;
}

/* Tokens that were over long ago go when another one is made, so that they don't pile up. */
struct forgotten {
    struct row_change changes[FORGET_MAX + 1];
    unsigned n;
    int64_t now_s;
};

static bool forget(void *ctx, const struct row *r) {
    struct forgotten *f = ctx;
    struct join_token t;
    if (join_token_decode(r->body, &t) != OK || t.epoch > 0 || !is_over(&t, f->now_s)) return true;
    int64_t since_s = r->updated_ns / 1000000000;
    if (t.expires_s > since_s && t.expires_s <= f->now_s) since_s = t.expires_s;
    if (f->now_s - since_s < FORGET_S) return true;
    struct row_change *c = &f->changes[f->n++];
    *c = (struct row_change){.action = ROW_REMOVE, .kind = ROW_TOKEN, .version = r->version};
    memcpy(c->id, r->id, sizeof c->id);
    return f->n < FORGET_MAX;
}

static RESULT make(struct exchange *x, const json_t *body, struct why *why) {
    const struct api *api = x->ctx;
    struct forgotten f = {.now_s = wall(x)};
    struct made made = {0};
    struct join_token t = {0};
    struct buf labels = buf_new(2 * NODE_LABELS_BYTES), bytes = buf_new(ROW_BODY_MAX);
    char name[ROW_NAME_MAX + 1];
    struct secret *kept = NULL;
    enum err e = read_token(body, f.now_s, &t, &labels, why);
    if (e == OK) e = read_name(body, name, why);
    random_id(made.id);
    random_id(made.secret); /* the same form: 25 characters of base36 */
    made.role = (uint8_t)t.role;
    join_token_hash(made.secret, t.hash);
    if (e == OK) e = join_token_encode(&t, &bytes);
    if (e == OK) e = secret_new(&made, sizeof made, &kept);
    if (e == OK) {
        row_all(api->manager->store, ROW_TOKEN, forget, &f);
        struct row_change *c = &f.changes[f.n++];
        *c = (struct row_change){.action = ROW_CREATE,
                                 .kind = ROW_TOKEN,
                                 .name = span_str(name),
                                 .body = buf_span(&bytes)};
        memcpy(c->id, made.id, sizeof c->id);
        api_rows(x, f.changes, f.n, answer_made, kept);
    }
    sodium_memzero(&made, sizeof made);
    buf_free(&labels);
    buf_free(&bytes);
    return e;
}

static void with_body(struct exchange *x,
                      enum err (*act)(struct exchange *x, const json_t *body, struct why *why)) {
    json_t *body;
    struct why why = {0};
    if (!api_body(x, &body)) return;
    enum err e = act(x, body, &why);
    if (e != OK) api_fail(x, e, &why);
    json_decref(body);
}

static void create(struct exchange *x) { with_body(x, make); }

/* {"role", "expires_in_s", "uses", "from", "labels": {}, "name"} -> {"id", "role", "token"} */
void handle_token_create(struct exchange *x) { api_current(x, create); }

/* --- list ----------------------------------------------------------------------------------- */

struct listing {
    struct jout j;
    int64_t now_s;
};

static bool put_token(void *ctx, const struct row *r) {
    struct listing *l = ctx;
    struct jout *j = &l->j;
    struct join_token t;
    if (join_token_decode(r->body, &t) != OK) return true;
    jout_open(j, '{');
    jout_put_text(j, "id", r->id);
    jout_key(j, "name");
    jout_text(j, r->name);
    jout_put_text(j, "role", words_of_role(t.role));
    jout_put_text(j, "state", state_of(&t, l->now_s));
    jout_put_bool(j, "standing", t.epoch > 0);
    jout_put_number(j, "created_s", (uint64_t)(r->created_ns / 1000000000));
    jout_put_number(j, "expires_s", (uint64_t)t.expires_s);
    jout_put_number(j, "uses_max", t.uses_max);
    jout_put_number(j, "used", t.used);
    jout_put_text(j, "from", t.addresses);
    labels_put(j, "labels", t.labels);
    jout_close(j, '}');
    return true;
}

static void list(struct exchange *x) {
    const struct api *api = x->ctx;
    struct buf out = buf_new(64 * MIB);
    struct listing l = {.now_s = wall(x)};
    jout_start(&l.j, &out);
    jout_open(&l.j, '{');
    jout_key(&l.j, "tokens");
    jout_open(&l.j, '[');
    row_all(api->manager->store, ROW_TOKEN, put_token, &l);
    jout_close(&l.j, ']');
    jout_close(&l.j, '}');
    api_answer(x, &l.j, &out);
}

void handle_tokens(struct exchange *x) { api_current(x, list); }

/* --- remove --------------------------------------------------------------------------------- */

/* One that is good is kept as revoked, so that whoever comes with it is told; one that is over
 * goes. */
static RESULT remove_one(struct exchange *x, const json_t *body, struct why *why) {
    const struct api *api = x->ctx;
    struct row row;
    struct join_token t;
    struct buf bytes = buf_new(ROW_BODY_MAX);
    TRY(row_find(api->manager->store, ROW_TOKEN, jin_string(body, "token"), &row, why));
    TRY(join_token_decode(row.body, &t));
    if (t.epoch > 0)
        return fail_with(why, ERR_PRECONDITION,
                         "this is the standing token of a role: `conclave token rotate --role %s` "
                         "makes it worthless",
                         words_of_role(t.role));
    struct row_change c = {.action = is_over(&t, wall(x)) ? ROW_REMOVE : ROW_REPLACE,
                           .kind = ROW_TOKEN,
                           .version = row.version,
                           .name = row.name};
    memcpy(c.id, row.id, sizeof c.id);
    t.revoked = true;
    enum err e = join_token_encode(&t, &bytes);
    c.body = buf_span(&bytes);
    if (e == OK)
        log_event(api->log, LOG_INFO, "tokens", "the join token %s is to be %s", row.id,
                  c.action == ROW_REMOVE ? "forgotten" : "revoked");
    if (e == OK) api_rows(x, &c, 1, api_empty, NULL);
    buf_free(&bytes);
    return e;
}

static void removal(struct exchange *x) { with_body(x, remove_one); }

void handle_token_remove(struct exchange *x) { api_current(x, removal); }

/* --- the standing ones ---------------------------------------------------------------------- */

static RESULT standing(struct exchange *x, enum node_role role, struct row *row,
                       struct join_token *t, struct why *why) {
    const struct api *api = x->ctx;
    if (join_token_standing(api->manager->store, role, row, t)) return OK;
    return fail_with(why, ERR_BUSY, "the cluster is being founded; try again");
}

static RESULT show_one(struct exchange *x, struct why *why) {
    const struct api *api = x->ctx;
    const struct cluster *c = store_cluster(api->manager->store);
    char text[16], secret[JOIN_SECRET_SIZE + 1];
    enum node_role role;
    struct row row;
    struct join_token t;
    if (http_query(x->head.query, "role", text, sizeof text) != OK)
        return fail_with(why, ERR_INVALID, "role: worker or manager");
    TRY(words_role(text, &role, why));
    TRY(standing(x, role, &row, &t, why));
    TRY(join_token_derive(c->join_key, role, t.epoch, secret));
    answer_token(x, row.id, role, secret);
    sodium_memzero(secret, sizeof secret);
    return OK;
}

static void show(struct exchange *x) {
    struct why why = {0};
    enum err e = show_one(x, &why);
    if (e != OK) api_fail(x, e, &why);
}

/* ?role= -> {"id", "role", "token"} */
void handle_token_show(struct exchange *x) { api_current(x, show); }

static RESULT rotate_one(struct exchange *x, const json_t *body, struct why *why) {
    const struct api *api = x->ctx;
    const struct cluster *cluster = store_cluster(api->manager->store);
    struct made made = {0};
    struct row row;
    struct join_token t;
    struct secret *kept = NULL;
    struct buf bytes = buf_new(ROW_BODY_MAX);
    enum node_role role;
    TRY(words_role(jin_string(body, "role"), &role, why));
    TRY(standing(x, role, &row, &t, why));
    t.epoch++;
    t.used = 0;
    TRY(join_token_derive(cluster->join_key, role, t.epoch, made.secret));
    join_token_hash(made.secret, t.hash);
    memcpy(made.id, row.id, sizeof made.id);
    made.role = (uint8_t)role;
    enum err e = join_token_encode(&t, &bytes);
    if (e == OK) e = secret_new(&made, sizeof made, &kept);
    struct row_change c = {.action = ROW_REPLACE,
                           .kind = ROW_TOKEN,
                           .version = row.version,
                           .name = row.name,
                           .body = buf_span(&bytes)};
    memcpy(c.id, row.id, sizeof c.id);
    if (e == OK) api_rows(x, &c, 1, answer_made, kept);
    sodium_memzero(&made, sizeof made);
    buf_free(&bytes);
    return e;
}

static void rotate(struct exchange *x) { with_body(x, rotate_one); }

/* {"role"} -> {"id", "role", "token"} */
void handle_token_rotate(struct exchange *x) { api_current(x, rotate); }
