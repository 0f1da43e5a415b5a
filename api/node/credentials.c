/* See credentials.h. A key and its certificate are made together and put into the identity only
 * when both are there. */
#include "api/node/credentials.h"

#include <net/if.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "raft/loop.h"
#include "store/spec.h"

/* --- addresses ------------------------------------------------------------------------------ */

static bool is_wildcard(const char *host) {
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

/* The first address of this machine that others can reach. */
static void machine_host(char out[ADDRESS_MAX]) {
    uv_interface_address_t *all;
    int n = 0;
    (void)snprintf(out, ADDRESS_MAX, "127.0.0.1");
    if (uv_interface_addresses(&all, &n) != 0) return;
    for (int i = 0; i < n; i++) {
        if (all[i].is_internal || all[i].address.address4.sin_family != AF_INET) continue;
        (void)uv_ip4_name(&all[i].address.address4, out, ADDRESS_MAX);
        break;
    }
    uv_free_interface_addresses(all, n);
}

void credentials_advertised(const char *advertise, const char *listen, char out[ADDRESS_MAX]) {
    struct address parts;
    char host[ADDRESS_MAX];
    (void)snprintf(out, ADDRESS_MAX, "%s", listen);
    if (address_split(listen, &parts, NULL) != OK) return;
    if (!advertise[0] && !is_wildcard(parts.host)) return;
    if (advertise[0])
        (void)snprintf(host, sizeof host, "%s", advertise);
    else
        machine_host(host);
    address_join(host, (unsigned)strtoul(parts.port, NULL, 10), out);
}

/* Adds the host of an address, unless it is in the list. */
static void add_host(char *out, size_t room, const char *address) {
    struct address parts;
    char both[HOSTS_ROOM + 2], one[ADDRESS_MAX + 2];
    if (address_split(address, &parts, NULL) != OK) return;
    (void)snprintf(both, sizeof both, ",%s,", out);
    (void)snprintf(one, sizeof one, ",%s,", parts.host);
    if (strstr(both, one)) return;
    size_t size = strlen(out);
    (void)snprintf(out + size, room - size, ",%s", parts.host);
}

void credentials_hosts(const char *client_address, const char *peer_address, char out[HOSTS_ROOM]) {
    (void)snprintf(out, HOSTS_ROOM, "localhost,127.0.0.1,::1");
    add_host(out, HOSTS_ROOM, client_address);
    add_host(out, HOSTS_ROOM, peer_address);
}

/* --- certificates --------------------------------------------------------------------------- */

static RESULT issue(const struct node_identity *id, const struct secret *root_key,
                    const struct secret *key, int64_t now_s, struct buf *cert, struct why *why) {
    struct x509_subject subject = {0};
    struct buf request = buf_new(PEM_MAX);
    (void)snprintf(subject.cn, sizeof subject.cn, "%s", id->node_id);
    (void)snprintf(subject.ou, sizeof subject.ou, "%s", ROLE_MANAGER);
    (void)snprintf(subject.o, sizeof subject.o, "%s", id->cluster_id);
    credentials_hosts(id->client_address, id->peer_address, subject.hosts);
    struct buf leaf = buf_new(PEM_MAX);
    struct span issuer = buf_span(&id->issuer_pem);
    enum err e = x509_request(key, id->node_id, &request, why);
    if (e == OK)
        e = x509_issue(root_key, issuer.size > 0 ? issuer : buf_span(&id->root_pem),
                       buf_span(&request), &subject, now_s, NODE_VALIDITY_S, &leaf, why);
    if (e == OK) e = x509_chain(buf_span(&leaf), issuer, span_of(NULL, 0), cert);
    buf_free(&leaf);
    buf_free(&request);
    return e;
}

RESULT credentials_extend(struct node_identity *id, int64_t now_s, struct why *why) {
    struct buf cert = buf_new(PEM_MAX);
    enum err e = issue(id, id->root_key, id->key_pem, now_s, &cert, why);
    if (e != OK) {
        buf_free(&cert);
        return e;
    }
    buf_free(&id->cert_pem);
    id->cert_pem = cert;
    return OK;
}

RESULT credentials_issue(struct node_identity *id, const struct secret *root_key, int64_t now_s,
                         struct why *why) {
    struct secret *key = NULL;
    struct buf cert = buf_new(PEM_MAX);
    enum err e = x509_key_new(&key, why);
    if (e == OK) e = issue(id, root_key, key, now_s, &cert, why);
    if (e != OK) {
        secret_free(key);
        buf_free(&cert);
        return e;
    }
    secret_free(id->key_pem);
    buf_free(&id->cert_pem);
    id->key_pem = key;
    id->cert_pem = cert;
    return OK;
}

/* --- founding ------------------------------------------------------------------------------- */

/* The join key, and the manager token that follows from it. */
static RESULT found_token(struct node_identity *id) {
    char text[JOIN_SECRET_SIZE + 1];
    TRY(secret_random(KEY_SIZE, &id->join_key));
    enum err e = join_token_derive(id->join_key, NODE_MANAGER, 1, text);
    if (e == OK) e = secret_new(text, JOIN_SECRET_SIZE, &id->token);
    sodium_memzero(text, sizeof text);
    return e;
}

RESULT credentials_found(struct node_identity *id, bool autolock, int64_t now_s, struct why *why) {
    enum err e = found_token(id);
    if (e == OK && autolock) e = secret_random(KEY_SIZE, &id->unlock_key);
    if (e != OK) return fail_with(why, e, "no memory for keys: %s", err_text(e));
    random_id(id->cluster_id);
    random_id(id->node_id);
    id->raft_id = 1;
    id->role = NODE_MANAGER;
    id->state = IDENTITY_MADE;
    if (!id->root_key) {
        TRY(x509_key_new(&id->root_key, why));
        TRY(x509_root(id->root_key, id->cluster_id, &id->root_pem, why));
    }
    return credentials_issue(id, id->root_key, now_s, why);
}

void credentials_row(const struct node_identity *id, int64_t now_s, struct node *out) {
    *out = (struct node){.raft_id = id->raft_id, .joined_s = now_s};
    memcpy(out->id, id->node_id, sizeof out->id);
    memcpy(out->name, id->name, sizeof out->name);
    memcpy(out->client_address, id->client_address, sizeof out->client_address);
    memcpy(out->peer_address, id->peer_address, sizeof out->peer_address);
}

void credentials_cluster(const struct node_identity *id, int64_t now_s, struct command *out) {
    *out = (struct command){.op = OP_CLUSTER};
    memcpy(out->cluster.id, id->cluster_id, sizeof out->cluster.id);
    out->cluster.now_s = now_s;
    out->cluster.ca.root_pem = buf_span(&id->root_pem);
    out->cluster.ca.issuer_pem = buf_span(&id->issuer_pem);
    out->cluster.ca.key = secret_span(id->root_key);
    out->cluster.join_key = secret_span(id->join_key);
    credentials_row(id, now_s, &out->cluster.first);
}

/* --- the first rows ------------------------------------------------------------------------- */

/* The founder's own: with the key of the certificate that it has given itself. */
static RESULT fill_node(const struct node_identity *id, struct node_row *out) {
    int64_t from_s;
    struct span cert = buf_span(&id->cert_pem);
    *out = (struct node_row){.desired = NODE_MANAGER,
                             .granted = NODE_MANAGER,
                             .availability = NODE_ACTIVE,
                             .state = NODE_READY,
                             .raft_id = id->raft_id,
                             .certificate = NODE_CERT_ISSUED};
    (void)snprintf(out->hostname, sizeof out->hostname, "%s", id->name);
    (void)snprintf(out->client_address, sizeof out->client_address, "%s", id->client_address);
    (void)snprintf(out->peer_address, sizeof out->peer_address, "%s", id->peer_address);
    TRY(x509_dates(cert, &from_s, &out->not_after_s));
    TRY(x509_key_digest(cert, out->key_digest));
    return x509_issuer_digest(cert, buf_span(&id->root_pem), out->issuer_digest);
}

static RESULT add_node(const struct node_identity *id, struct buf *changes) {
    struct buf body = buf_new(ROW_BODY_MAX);
    struct row_change c = {.action = ROW_CREATE, .kind = ROW_NODE};
    struct node_row row;
    memcpy(c.id, id->node_id, sizeof c.id);
    enum err e = fill_node(id, &row);
    if (e == OK) e = node_row_encode(&row, &body);
    c.body = buf_span(&body);
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

static RESULT add_settings(const struct node_identity *id, struct buf *changes) {
    static const struct spec defaults;
    struct buf body = buf_new(ROW_BODY_MAX);
    struct row_change c = {.action = ROW_CREATE, .kind = ROW_SPEC, .name = span_str("default")};
    memcpy(c.id, id->cluster_id, sizeof c.id);
    enum err e = spec_encode(&defaults, &body);
    c.body = buf_span(&body);
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

RESULT credentials_token(const struct secret *join_key, enum node_role role, uint64_t epoch,
                         struct buf *body) {
    char text[JOIN_SECRET_SIZE + 1];
    struct join_token t = {.role = role, .epoch = epoch};
    TRY(join_token_derive(join_key, role, epoch, text));
    join_token_hash(text, t.hash);
    sodium_memzero(text, sizeof text);
    return join_token_encode(&t, body);
}

static RESULT add_token(const struct node_identity *id, enum node_role role, const char *name,
                        struct buf *changes) {
    struct buf body = buf_new(ROW_BODY_MAX);
    struct row_change c = {.action = ROW_CREATE, .kind = ROW_TOKEN, .name = span_str(name)};
    random_id(c.id);
    enum err e = credentials_token(id->join_key, role, 1, &body);
    c.body = buf_span(&body);
    if (e == OK) e = row_change_add(changes, &c);
    buf_free(&body);
    return e;
}

RESULT credentials_rows(const struct node_identity *id, int64_t now_s, struct buf *changes,
                        struct command *out) {
    TRY(add_settings(id, changes));
    TRY(add_token(id, NODE_WORKER, "worker", changes));
    TRY(add_token(id, NODE_MANAGER, "manager", changes));
    TRY(add_node(id, changes));
    *out = (struct command){.op = OP_ROWS};
    out->rows.n = 4;
    out->rows.changes = buf_span(changes);
    out->rows.now_ns = now_s * 1000000000;
    return OK;
}
