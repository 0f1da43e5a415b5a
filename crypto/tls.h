/* TLS 1.3 over memory, so that any loop can carry it: encrypted bytes go in and out through
 * buffers, the caller moves them. ECDSA P-256 certificates, ALPN, no session tickets, no
 * renegotiation, no key log. A context is made from PEM and can be replaced while connections of
 * the old one live on.
 *
 * One connection (struct tls) belongs to one thread. States: handshake -> open -> closed. Nothing
 * is readable or writable before `open`; a verification failure ends in closed, with a sentence. */
#ifndef CONCLAVE_TLS_H
#define CONCLAVE_TLS_H

#include "crypto/base.h"
#include "crypto/limits.h"
#include "crypto/secret.h"
#include "crypto/x509.h"

struct tls_context; /* reference-counted */
struct tls;

enum tls_verify {
    TLS_VERIFY_NONE,     /* the joiner: the caller checks the root's digest itself */
    TLS_VERIFY_OPTIONAL, /* a server that also takes joiners: a certificate, when given, must verify
                          */
    TLS_VERIFY_REQUIRED,
};

struct tls_config {
    bool server;
    enum tls_verify verify;
    struct span root_pem;         /* trust; empty with TLS_VERIFY_NONE */
    struct span cert_pem;         /* own certificate chain; empty: none */
    const struct secret *key_pem; /* its key; NULL: none */
    const char *const *alpn;      /* NULL-terminated list, by preference; others are refused, and so
                                     is none at all, unless "http/1.1" is listed; NULL: no ALPN */
    bool tls12;                   /* also TLS 1.2 with AEAD (client port only) */
    bool foreign_cert;            /* own certificate is of another PKI: a key of any kind */
    bool foreign_root;            /* the trust is: of a peer only the CN is believed */
};

/* Copies everything. ERR_CERTIFICATE when key and certificate don't match. */
RESULT tls_context_new(const struct tls_config *config, struct tls_context **out, struct why *why);
struct tls_context *tls_context_share(struct tls_context *c); /* one more to be released */
void tls_context_release(struct tls_context *c);

/* `server_name`: for a client, SNI and the DNS name (or just the IP address) to verify; NULL: none.
 */
RESULT tls_new(struct tls_context *c, const char *server_name, struct tls **out, struct why *why);
void tls_free(struct tls *t);

/* Feeds encrypted bytes from the wire; all are taken, up to twice PEER_QUEUE_MAX unread. */
RESULT tls_feed(struct tls *t, struct span wire, struct why *why);
/* Goes on with the handshake; *open tells when it is done. After `open`, reads decrypted bytes into
 * `plain` (append) until the wire bytes are used up or plain is full. ERR_CERTIFICATE, ERR_PROTOCOL
 * with the reason; ERR_CLOSED after a clean close_notify, in a call that has no bytes to give.
 * After an error there may still be an alert in tls_pending: sending it tells the other side why.
 * A client starts by a call of this. */
RESULT tls_read(struct tls *t, struct buf *plain, bool *open, struct why *why);
/* Encrypts. Only after open. ERR_BUSY when too much waits to be sent (twice PEER_QUEUE_MAX). */
RESULT tls_write(struct tls *t, struct span plain, struct why *why);
RESULT tls_shutdown(struct tls *t); /* queues close_notify */
/* Encrypted bytes to be sent: a view on what waits, then tell how many of them are gone. */
struct span tls_pending(struct tls *t);
void tls_sent(struct tls *t, size_t size);

const char *tls_alpn(const struct tls *t); /* "" before open or when none */
/* The subject of the verified peer certificate (of another PKI: its CN, or nothing);
 * ERR_NOT_FOUND when the peer gave none,
 * ERR_UNAUTHENTICATED under TLS_VERIFY_NONE, ERR_PRECONDITION before open. */
RESULT tls_peer(const struct tls *t, struct x509_subject *out);
/* Would `by`, a server's context, take the peer's certificate now? OK; ERR_NOT_FOUND: it gave none;
 * ERR_CERTIFICATE, ERR_NOMEM. */
RESULT tls_review(const struct tls *t, const struct tls_context *by);
/* Of a verified peer certificate: SHA-256 of its public key and of the key that signed it, each as
 * SubjectPublicKeyInfo in DER. Errors as tls_peer; outputs are written on OK only. */
RESULT tls_peer_digests(const struct tls *t, uint8_t key[32], uint8_t issuer[32]);
/* The PEM of the last (root-most) certificate that the peer sent; for the joiner's digest check.
 * The digest says that this root is the right one, not that the peer is of it: anyone can show it.
 * So nothing secret is said on such a connection; the next one trusts this root and verifies. */
RESULT tls_peer_root(const struct tls *t, struct buf *out_pem);

#endif
