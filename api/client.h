/* The HTTP client of the command line and of whoever asks others: blocking, one request at a time,
 * over the server's unix socket, TLS with both certificates, or plaintext where the server was told
 * to allow it. It keeps its connection and makes a new one when the old one is gone. One thread a
 * client. */
#ifndef CONCLAVE_CLIENT_H
#define CONCLAVE_CLIENT_H

#include "api/http/http.h"
#include "crypto/tls.h"

struct client;

struct client_config {
    const char *socket_path; /* the unix socket; NULL: the endpoint */
    const char *endpoint;    /* HOST:PORT */
    const char *cacert;      /* PEM file for the endpoint; NULL: plaintext */
    const char *cert, *key;  /* the same, both or none */
    /* The same in memory, in place of files, and a server of another PKI. */
    struct span root_pem, cert_pem;
    const struct secret *key_pem;
};

struct client_request {
    enum http_method method;
    const char *path;
    const char *headers; /* further lines, each with CRLF; NULL: none */
    struct span body;
    unsigned *status; /* takes the status of any answer, whose body goes to *answer then; or NULL */
    uint64_t timeout_ms; /* for the whole answer; for a streamed one, between pieces */
    /* Takes the pieces of a 200 answer as they come, instead of *answer; an error of its ends the
     * request. */
    enum err (*piece)(void *ctx, struct span data);
    void *ctx;
};

/* Reads the files; connects at the first request. */
RESULT client_open(const struct client_config *config, struct client **out, struct why *why);
void client_close(struct client *c);

/* OK: a 2xx answer, its body appended to *answer (which may be NULL). Otherwise the server's own
 * error with its message; or ERR_UNREACHABLE: nothing was sent; or ERR_MAYBE_APPLIED: the
 * connection broke or time was up after that. */
RESULT client_call(struct client *c, const struct client_request *request, struct buf *answer,
                   struct why *why);

#endif
