/* See credentials.h. A key and its certificate are made together and put into the identity only
 * when both are there. */
#include "api/credentials.h"

#include <net/if.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "raft/loop.h"

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
    enum err e = x509_request(key, id->node_id, &request, why);
    if (e == OK)
        e = x509_issue(root_key, buf_span(&id->root_pem), buf_span(&request), &subject, now_s,
                       NODE_VALIDITY_S, cert, why);
    buf_free(&request);
    return e;
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

RESULT credentials_found(struct node_identity *id, bool autolock, int64_t now_s, struct why *why) {
    char text[NODE_ID_SIZE + 1]; /* a join token's secret has the form of an id */
    random_id(text);
    enum err e = secret_new(text, TOKEN_SECRET_SIZE, &id->token);
    sodium_memzero(text, sizeof text);
    if (e == OK && autolock) e = secret_random(KEY_SIZE, &id->unlock_key);
    if (e != OK) return fail_with(why, e, "no memory for keys: %s", err_text(e));
    random_id(id->cluster_id);
    random_id(id->node_id);
    id->raft_id = 1;
    id->state = IDENTITY_MADE;
    TRY(x509_key_new(&id->root_key, why));
    TRY(x509_root(id->root_key, id->cluster_id, &id->root_pem, why));
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
    char secret[TOKEN_SECRET_SIZE + 1] = {0};
    struct span token = secret_span(id->token);
    *out = (struct command){.op = OP_CLUSTER};
    memcpy(out->cluster.id, id->cluster_id, sizeof out->cluster.id);
    out->cluster.now_s = now_s;
    out->cluster.root_pem = buf_span(&id->root_pem);
    out->cluster.root_key = secret_span(id->root_key);
    memcpy(secret, token.at, token.size < sizeof secret ? token.size : sizeof secret - 1);
    token_hash(secret, out->cluster.token_hash);
    sodium_memzero(secret, sizeof secret);
    credentials_row(id, now_s, &out->cluster.first);
}
