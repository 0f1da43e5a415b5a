/* The implementation of tls.h over OpenSSL. Between OpenSSL and the caller stand two byte queues,
 * each a BIO of our own: `in` holds what came from the wire, `out` what is to be sent. They move no
 * byte twice, grow by doubling and give big memory back when they run empty.
 *
 *   handshake --(done, ALPN agreed)--> open --(close_notify)--> closed
 *        `------(any failure: sentence kept, alert in `out`)------^
 *
 * Invariants: OpenSSL's queue of errors is empty before and after each function; a closed
 * connection answers every call with how it came to be closed. What is in `out` may still be sent
 * then. */
#include "crypto/tls.h"

#include "crypto/x509_internal.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sodium.h>

#define QUEUE_MAX       (2 * PEER_QUEUE_MAX) /* bytes waiting in one direction */
#define QUEUE_KEEP      (2 * MIB)            /* an empty queue gives back what is more */
#define RECORD_PLAIN    16384                /* RFC 8446 5.1: plaintext of one record */
#define RECORD_EXTRA    64                   /* header, type and tag of one, with room to spare */
#define ALPN_MAX        256                  /* the list on the wire */
#define SERVER_NAME_MAX 255
#define ALERT_REASON    1000 /* OpenSSL's reason of a received alert is 1000 + its number */

/* Bytes that come in at the end and go out at the start. */
struct queue {
    struct buf bytes; /* from `start` on they wait */
    size_t start;     /* bytes that are gone already */
};

struct tls_context {
    atomic_uint refs;       /* one for the maker, one a connection */
    SSL_CTX *ctx;           /* owned */
    bool server;            /* accepts */
    enum tls_verify verify; /* of the other side */
    bool foreign_root;      /* only its CN is believed */
    uint8_t alpn[ALPN_MAX]; /* length byte and name, each */
    unsigned alpn_size;     /* bytes in use; 0: no ALPN */
    bool alpn_optional;     /* "http/1.1" is among them: none at all means it */
};

enum tls_state { TLS_HANDSHAKE, TLS_OPEN, TLS_CLOSED };

struct tls {
    struct tls_context *context; /* a reference */
    SSL *ssl;                    /* owned, with both BIOs */
    struct queue in;             /* from the wire */
    struct queue out;            /* to the wire */
    enum tls_state state;        /* see the diagram */
    bool shut;                   /* close_notify was queued: nothing more is written */
    enum err error;              /* when closed: how it came to be */
    struct why reason;           /* when closed: the sentence */
    char alpn[ALPN_MAX];         /* agreed upon; "" for none */
};

/* --- queues and their BIOs --- */

static struct span queue_span(const struct queue *q) {
    if (q->bytes.at == NULL) return span_of(NULL, 0);
    return span_of(q->bytes.at + q->start, q->bytes.size - q->start);
}

static void queue_take(struct queue *q, size_t size) {
    q->start += size;
    if (q->start < q->bytes.size) return;
    q->start = 0;
    buf_clear(&q->bytes);
    if (q->bytes.room > QUEUE_KEEP) buf_free(&q->bytes);
}

/* Room for more; what is gone makes room first when it is the greater part. */
static enum err queue_reserve(struct queue *q, size_t more) {
    struct buf *b = &q->bytes;
    if (q->start > b->size / 2 && b->room - b->size < more) {
        memmove(b->at, b->at + q->start, b->size - q->start);
        b->size -= q->start;
        q->start = 0;
    }
    return buf_reserve(b, more);
}

static enum err queue_add(struct queue *q, const void *at, size_t size) {
    TRY(queue_reserve(q, size));
    return buf_add(&q->bytes, at, size);
}

static int bio_write(BIO *bio, const char *at, size_t size, size_t *done) {
    BIO_clear_retry_flags(bio);
    if (queue_add(BIO_get_data(bio), at, size) != OK) return 0;
    *done = size;
    return 1;
}

static int bio_read(BIO *bio, char *at, size_t room, size_t *done) {
    struct queue *q = BIO_get_data(bio);
    struct span s = queue_span(q);
    BIO_clear_retry_flags(bio);
    if (s.at == NULL || s.size == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    *done = s.size < room ? s.size : room;
    memcpy(at, s.at, *done);
    queue_take(q, *done);
    return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *ctx) {
    (void)bio;
    (void)number;
    (void)ctx;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static pthread_once_t method_once = PTHREAD_ONCE_INIT;
static BIO_METHOD *method; /* made once, under method_once; lives as long as the process */

static void method_make(void) {
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "queue");
    if (m != NULL && BIO_meth_set_write_ex(m, bio_write) == 1 &&
        BIO_meth_set_read_ex(m, bio_read) == 1 && BIO_meth_set_ctrl(m, bio_ctrl) == 1)
        method = m;
}

static BIO *bio_new(struct queue *q) {
    BIO *bio = BIO_new(method);
    if (bio == NULL) return NULL;
    BIO_set_data(bio, q);
    BIO_set_init(bio, 1);
    return bio;
}

/* --- the context --- */

static enum err alpn_set(struct tls_context *c, const char *const *names, struct why *why) {
    for (size_t i = 0; names != NULL && names[i] != NULL; i++) {
        size_t size = strnlen(names[i], ALPN_MAX);
        if (size == 0 || size > UINT8_MAX || c->alpn_size + 1 + size > ALPN_MAX)
            return fail_with(why, ERR_INVALID, "TLS: the list of protocols is too long");
        c->alpn[c->alpn_size] = (uint8_t)size;
        memcpy(c->alpn + c->alpn_size + 1, names[i], size);
        c->alpn_size += 1 + (unsigned)size;
        if (strcmp(names[i], "http/1.1") == 0) c->alpn_optional = true;
    }
    return OK;
}

/* Early refusal of a client that names no protocol at all. */
static int on_hello(SSL *ssl, int *alert, void *ctx) {
    const struct tls_context *c = ctx;
    const unsigned char *at;
    size_t size;
    if (c->alpn_size == 0 || c->alpn_optional ||
        SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &at,
                                  &size) == 1)
        return SSL_CLIENT_HELLO_SUCCESS;
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    ERR_raise(ERR_LIB_SSL, SSL_R_NO_APPLICATION_PROTOCOL);
    return SSL_CLIENT_HELLO_ERROR;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                   const unsigned char *in, unsigned in_size, void *ctx) {
    const struct tls_context *c = ctx;
    unsigned char *chosen;
    (void)ssl;
    if (SSL_select_next_proto(&chosen, out_size, c->alpn, c->alpn_size, in, in_size) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static bool context_alpn(struct tls_context *c) {
    if (c->server) {
        SSL_CTX_set_client_hello_cb(c->ctx, on_hello, c);
        if (c->alpn_size != 0) SSL_CTX_set_alpn_select_cb(c->ctx, on_alpn, c);
        return true;
    }
    return c->alpn_size == 0 || SSL_CTX_set_alpn_protos(c->ctx, c->alpn, c->alpn_size) == 0;
}

static bool context_protocol(SSL_CTX *ctx, bool tls12) {
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 SSL_OP_CLEANSE_PLAINTEXT); /* secrets come this way */
    SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_security_level(ctx, 2);
    SSL_CTX_set_read_ahead(ctx, 1);
    return SSL_CTX_set_num_tickets(ctx, 0) == 1 &&
           SSL_CTX_set_min_proto_version(ctx, tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set1_groups_list(ctx, "X25519:P-256") == 1 &&
           SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                         "TLS_CHACHA20_POLY1305_SHA256") == 1 &&
           (!tls12 || SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-AES128-GCM-SHA256:"
                                                   "ECDHE-ECDSA-AES256-GCM-SHA384:"
                                                   "ECDHE-ECDSA-CHACHA20-POLY1305:"
                                                   "ECDHE-RSA-AES128-GCM-SHA256:"
                                                   "ECDHE-RSA-AES256-GCM-SHA384:"
                                                   "ECDHE-RSA-CHACHA20-POLY1305") == 1);
}

static enum err context_trust(struct tls_context *c, struct span root_pem, struct why *why) {
    int mode = SSL_VERIFY_NONE;
    if (c->verify != TLS_VERIFY_NONE) mode = SSL_VERIFY_PEER;
    if (c->verify == TLS_VERIFY_REQUIRED) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(c->ctx, mode, NULL);
    if (c->verify == TLS_VERIFY_NONE) return OK;
    X509_STORE *store;
    TRY(trust_new(root_pem, !c->foreign_root, &store, why));
    SSL_CTX_set_cert_store(c->ctx, store); /* takes it */
    return OK;
}

static enum err context_chain(SSL_CTX *ctx, struct span cert_pem, struct why *why) {
    STACK_OF(X509) * certs;
    TRY(certs_parse(cert_pem, "own certificate", &certs, why));
    bool fine = SSL_CTX_use_certificate(ctx, sk_X509_value(certs, 0)) == 1;
    for (int i = 1; fine && i < sk_X509_num(certs); i++)
        fine = SSL_CTX_add1_chain_cert(ctx, sk_X509_value(certs, i)) == 1;
    certs_free(certs);
    return fine ? OK : openssl_fail(why, ERR_CERTIFICATE, "own certificate");
}

static enum err context_identity(SSL_CTX *ctx, const struct tls_config *config, struct why *why) {
    if (config->cert_pem.size == 0 && config->key_pem == NULL) return OK;
    if (config->cert_pem.size == 0 || config->key_pem == NULL)
        return fail_with(why, ERR_INVALID, "TLS: a certificate goes with its key");
    EVP_PKEY *key;
    TRY(context_chain(ctx, config->cert_pem, why));
    TRY(config->foreign_cert ? pkey_parse_any(config->key_pem, &key, why)
                             : pkey_parse(config->key_pem, &key, why));
    bool fine = SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;
    EVP_PKEY_free(key);
    return fine ? OK : openssl_fail(why, ERR_CERTIFICATE, "own certificate");
}

static enum err context_fill(struct tls_context *c, const struct tls_config *config,
                             struct why *why) {
    TRY(alpn_set(c, config->alpn, why));
    if (pthread_once(&method_once, method_make) != 0 || method == NULL) return ERR_NOMEM;
    c->ctx = SSL_CTX_new(c->server ? TLS_server_method() : TLS_client_method());
    if (c->ctx == NULL || !context_protocol(c->ctx, config->tls12) || !context_alpn(c))
        return openssl_fail(why, ERR_INTERNAL, "TLS");
    TRY(context_trust(c, config->root_pem, why));
    return context_identity(c->ctx, config, why);
}

RESULT tls_context_new(const struct tls_config *config, struct tls_context **out, struct why *why) {
    struct tls_context *c = calloc(1, sizeof *c);
    if (c == NULL) return fail_with(why, ERR_NOMEM, "TLS: out of memory");
    atomic_init(&c->refs, 1);
    c->server = config->server;
    c->verify = config->verify;
    c->foreign_root = config->foreign_root;
    ERR_clear_error();
    enum err e = context_fill(c, config, why);
    ERR_clear_error();
    if (e == OK)
        *out = c;
    else
        tls_context_release(c);
    return e;
}

struct tls_context *tls_context_share(struct tls_context *c) {
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void tls_context_release(struct tls_context *c) {
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) != 1) return;
    SSL_CTX_free(c->ctx);
    free(c);
}

/* --- a connection --- */

static bool name_set(struct tls *t, const char *server_name) {
    if (t->context->server || server_name == NULL) return true;
    if (strnlen(server_name, SERVER_NAME_MAX + 1) > SERVER_NAME_MAX) return false;
    bool verify = t->context->verify != TLS_VERIFY_NONE;
    uint8_t ip[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, server_name, ip) == 1 || inet_pton(AF_INET6, server_name, ip) == 1)
        return !verify || X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), server_name) == 1;
    return SSL_set_tlsext_host_name(t->ssl, server_name) == 1 &&
           (!verify || SSL_set1_host(t->ssl, server_name) == 1);
}

static bool bios_set(struct tls *t) {
    BIO *in = bio_new(&t->in);
    BIO *out = bio_new(&t->out);
    if (in == NULL || out == NULL) {
        BIO_free(in);
        BIO_free(out);
        return false;
    }
    SSL_set_bio(t->ssl, in, out); /* takes both */
    return true;
}

RESULT tls_new(struct tls_context *c, const char *server_name, struct tls **out, struct why *why) {
    struct tls *t = calloc(1, sizeof *t);
    if (t == NULL) return fail_with(why, ERR_NOMEM, "TLS: out of memory");
    t->context = tls_context_share(c);
    t->in.bytes = buf_new(QUEUE_MAX);
    t->out.bytes = buf_new(QUEUE_MAX);
    ERR_clear_error();
    t->ssl = SSL_new(c->ctx);
    if (t->ssl == NULL || !bios_set(t) || !name_set(t, server_name)) {
        tls_free(t);
        return openssl_fail(why, ERR_NOMEM, "TLS");
    }
    if (c->server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    *out = t;
    return OK;
}

void tls_free(struct tls *t) {
    if (t == NULL) return;
    SSL_free(t->ssl);
    buf_free(&t->in.bytes);
    buf_free(&t->out.bytes);
    tls_context_release(t->context);
    free(t);
}

/* Ends the connection; keeps the sentence and gives it out. */
static enum err close_with(struct tls *t, enum err e, const char *sentence, struct why *why) {
    t->state = TLS_CLOSED;
    t->error = e;
    (void)fail_with(&t->reason, e, "%s", sentence);
    ERR_clear_error();
    return fail_with(why, e, "%s", sentence);
}

static enum err closed(const struct tls *t, struct why *why) {
    return fail_with(why, t->error, "%s", t->reason.text);
}

/* An alert from the other side: the numbers are of RFC 8446, section 6. */
static enum err alert_text(int alert, const char **text) {
    *text = NULL;
    switch (alert) {
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_UNKNOWN: *text = "the other side refused our certificate"; break;
    case SSL_AD_CERTIFICATE_EXPIRED:
        *text = "the other side says our certificate has expired";
        break;
    case SSL_AD_UNKNOWN_CA:
        *text = "the other side says our certificate was issued by another cluster's root";
        break;
    case SSL_AD_CERTIFICATE_REQUIRED: *text = "the other side asks for a certificate"; break;
    default: return ERR_PROTOCOL;
    }
    return ERR_CERTIFICATE;
}

/* Why OpenSSL gave up. */
static enum err failed(struct tls *t, struct why *why) {
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    const char *text = ERR_reason_error_string(code);
    if (code == 0) return close_with(t, ERR_PROTOCOL, "TLS: cut off", why);
    if (reason == ERR_R_MALLOC_FAILURE) return close_with(t, ERR_NOMEM, "TLS: out of memory", why);
    if (ERR_GET_LIB(code) != ERR_LIB_SSL) reason = 0;
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        struct why said;
        enum err e = cert_refused((int)SSL_get_verify_result(t->ssl), &said);
        return close_with(t, e, said.text, why);
    }
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        return close_with(t, ERR_CERTIFICATE, "the other side gave no certificate", why);
    const char *alert;
    enum err e = alert_text(reason - ALERT_REASON, &alert);
    struct why said;
    (void)fail_with(&said, e, "TLS: %s", text != NULL ? text : "failed");
    return close_with(t, e, alert != NULL ? alert : said.text, why);
}

RESULT tls_feed(struct tls *t, struct span wire, struct why *why) {
    if (t->state == TLS_CLOSED) return closed(t, why);
    enum err e = queue_add(&t->in, wire.at, wire.size);
    if (e == OK) return OK;
    return close_with(t, e, e == ERR_NOMEM ? "TLS: out of memory" : "TLS: too much unread", why);
}

static enum err opened(struct tls *t, struct why *why) {
    const unsigned char *name;
    unsigned size;
    SSL_get0_alpn_selected(t->ssl, &name, &size);
    if (size == 0 && t->context->alpn_size != 0 && !t->context->alpn_optional)
        return close_with(t, ERR_PROTOCOL, "TLS: the other side agreed on no protocol", why);
    if (size != 0 && size < sizeof t->alpn) memcpy(t->alpn, name, size);
    t->state = TLS_OPEN;
    return OK;
}

static enum err handshake(struct tls *t, struct why *why) {
    int done = SSL_do_handshake(t->ssl);
    if (done == 1) return opened(t, why);
    int error = SSL_get_error(t->ssl, done);
    if (error == SSL_ERROR_WANT_READ) return OK;
    if (error == SSL_ERROR_ZERO_RETURN)
        return close_with(t, ERR_CLOSED, "TLS: closed by the other side", why);
    return failed(t, why);
}

/* One piece; *more when there may be another. */
static enum err read_some(struct tls *t, struct buf *plain, bool *more, struct why *why) {
    size_t want = queue_span(&t->in).size;
    if (want < RECORD_PLAIN) want = RECORD_PLAIN;
    if (want > plain->max - plain->size) want = plain->max - plain->size;
    *more = false;
    if (want == 0) return OK;
    if (buf_reserve(plain, want) != OK) return close_with(t, ERR_NOMEM, "TLS: out of memory", why);
    size_t got;
    if (SSL_read_ex(t->ssl, plain->at + plain->size, plain->room - plain->size, &got) == 1) {
        plain->size += got;
        *more = true;
        return OK;
    }
    int error = SSL_get_error(t->ssl, 0);
    if (error == SSL_ERROR_WANT_READ) return OK;
    if (error == SSL_ERROR_ZERO_RETURN)
        return close_with(t, ERR_CLOSED, "TLS: closed by the other side", why);
    return failed(t, why);
}

RESULT tls_read(struct tls *t, struct buf *plain, bool *open, struct why *why) {
    size_t before = plain->size;
    enum err e = OK;
    *open = t->state == TLS_OPEN;
    if (t->state == TLS_CLOSED) return closed(t, why);
    ERR_clear_error();
    if (t->state == TLS_HANDSHAKE) TRY(handshake(t, why));
    *open = t->state == TLS_OPEN;
    for (bool more = *open; more && e == OK;)
        e = read_some(t, plain, &more, why);
    if (e == ERR_CLOSED && plain->size != before) return OK; /* told by the next call */
    return e;
}

RESULT tls_write(struct tls *t, struct span plain, struct why *why) {
    if (t->state == TLS_CLOSED) return closed(t, why);
    if (t->state != TLS_OPEN || t->shut)
        return fail_with(why, t->shut ? ERR_CLOSED : ERR_PRECONDITION, "TLS: not open for writing");
    if (plain.size == 0) return OK;
    size_t done;
    size_t records = plain.size / RECORD_PLAIN + 1;
    enum err e = queue_reserve(&t->out, plain.size + records * RECORD_EXTRA);
    if (e == ERR_TOO_LARGE) return fail_with(why, ERR_BUSY, "TLS: too much waits to be sent");
    if (e != OK) return fail_with(why, e, "TLS: out of memory");
    ERR_clear_error();
    if (SSL_write_ex(t->ssl, plain.at, plain.size, &done) == 1) return OK;
    return failed(t, why);
}

RESULT tls_shutdown(struct tls *t) {
    if (t->state != TLS_OPEN) return ERR_PRECONDITION;
    if (t->shut) return OK;
    t->shut = true;
    ERR_clear_error();
    int done = SSL_shutdown(t->ssl);
    ERR_clear_error();
    return done >= 0 ? OK : ERR_NOMEM;
}

struct span tls_pending(struct tls *t) {
    return queue_span(&t->out);
}

void tls_sent(struct tls *t, size_t size) { queue_take(&t->out, size); }

const char *tls_alpn(const struct tls *t) { return t->alpn; }

RESULT tls_peer(const struct tls *t, struct x509_subject *out) {
    X509 *cert = SSL_get0_peer_certificate(t->ssl);
    if (t->state == TLS_HANDSHAKE) return ERR_PRECONDITION;
    if (cert == NULL) return ERR_NOT_FOUND;
    if (t->context->verify == TLS_VERIFY_NONE || SSL_get_verify_result(t->ssl) != X509_V_OK)
        return ERR_UNAUTHENTICATED;
    return t->context->foreign_root ? subject_read_foreign(cert, out)
                                    : subject_read(cert, out, NULL);
}

RESULT tls_review(const struct tls *t, const struct tls_context *by) {
    X509 *cert = SSL_get0_peer_certificate(t->ssl);
    if (t->state == TLS_HANDSHAKE) return ERR_PRECONDITION;
    if (cert == NULL) return ERR_NOT_FOUND;
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    if (ctx == NULL) return ERR_NOMEM;
    bool good = X509_STORE_CTX_init(ctx, SSL_CTX_get_cert_store(by->ctx), cert,
                                    SSL_get_peer_cert_chain(t->ssl)) == 1 &&
                X509_STORE_CTX_set_default(ctx, "ssl_client") == 1 && X509_verify_cert(ctx) == 1;
    X509_STORE_CTX_free(ctx);
    ERR_clear_error();
    return good ? OK : ERR_CERTIFICATE;
}

static enum err key_digest(X509 *cert, uint8_t digest[32]) {
    unsigned char *der = NULL;
    int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    if (size <= 0) return ERR_NOMEM;
    int fail = crypto_hash_sha256(digest, der, (unsigned)size);
    OPENSSL_free(der);
    return fail != 0 ? ERR_INTERNAL : OK;
}

/* The signer is the next one of the chain as it was verified, whatever the peer has sent. */
RESULT tls_peer_digests(const struct tls *t, uint8_t key[32], uint8_t issuer[32]) {
    uint8_t own[32], signer[32];
    X509 *cert = SSL_get0_peer_certificate(t->ssl);
    if (t->state == TLS_HANDSHAKE) return ERR_PRECONDITION;
    if (cert == NULL) return ERR_NOT_FOUND;
    STACK_OF(X509) *chain = SSL_get0_verified_chain(t->ssl);
    if (t->context->verify == TLS_VERIFY_NONE || SSL_get_verify_result(t->ssl) != X509_V_OK ||
        chain == NULL || sk_X509_num(chain) == 0)
        return ERR_UNAUTHENTICATED;
    ERR_clear_error();
    TRY(key_digest(cert, own));
    TRY(key_digest(sk_X509_value(chain, sk_X509_num(chain) > 1 ? 1 : 0), signer));
    memcpy(key, own, sizeof own);
    memcpy(issuer, signer, sizeof signer);
    return OK;
}

RESULT tls_peer_root(const struct tls *t, struct buf *out_pem) {
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(t->ssl);
    X509 *last = SSL_get0_peer_certificate(t->ssl);
    if (t->state == TLS_HANDSHAKE) return ERR_PRECONDITION;
    if (chain != NULL && sk_X509_num(chain) > 0)
        last = sk_X509_value(chain, sk_X509_num(chain) - 1);
    return last == NULL ? ERR_NOT_FOUND : cert_write(last, out_pem);
}
