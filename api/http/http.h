/* HTTP/1.1 (RFC 9112) as bytes: heads of requests and responses, chunked bodies, query strings.
 * Pure: no sockets, no memory of its own; spans in a parsed head point into the input.
 *
 * Strict where lenience is how requests get smuggled: lines end in CRLF, no folding, no space
 * before a colon, one Content-Length or `Transfer-Encoding: chunked` but never both, no chunk
 * extensions, no trailers, exactly one Host in 1.1, targets in origin form. Anything else is
 * ERR_PROTOCOL with a sentence; a head past HTTP_HEAD_MAX is ERR_TOO_LARGE. Called by http1.c,
 * http2_head.c, client.c and the fuzzer. */
#ifndef CONCLAVE_HTTP_H
#define CONCLAVE_HTTP_H

#include "crypto/base.h"
#include "crypto/limits.h"

#define HTTP_HEADERS_MAX 64

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_DELETE };

struct http_header {
    struct span name;  /* as sent; compare without case */
    struct span value; /* without the blanks around it */
};

struct http_head {
    enum http_method method; /* of a request */
    unsigned status;         /* of a response */
    struct span path;        /* of a request: begins with '/', not percent-decoded */
    struct span query;       /* of a request: after '?', may be empty */
    bool keep_alive;         /* the connection may go on after this message */
    bool chunked;            /* the body comes in chunks */
    bool has_length;         /* Content-Length was given */
    bool expect;             /* Expect: 100-continue */
    uint64_t length;         /* its value */
    unsigned n;              /* headers */
    struct http_header headers[HTTP_HEADERS_MAX];
};

/* *used becomes the head's size with its empty line, or 0 when more bytes are needed. */
RESULT http_parse_request(struct span in, struct http_head *out, size_t *used, struct why *why);
RESULT http_parse_response(struct span in, struct http_head *out, size_t *used, struct why *why);
/* Parts of a head, by the same rules, for HTTP/2, whose heads come in parts. */
RESULT http_parse_method(struct span text, enum http_method *out, struct why *why);
RESULT http_parse_target(struct span target, struct http_head *out, struct why *why);
RESULT http_parse_decimal(struct span text, uint64_t *out);

/* What a byte may be part of (RFC 9110 5.5 and 5.6.2, RFC 9113 8.2.1). */
enum http_char { HTTP_FIELD = 1, HTTP_TOKEN = 2, HTTP_LOWER = 4 }; /* a value; a name; and in h2 */
extern const uint8_t http_chars[256];
static inline bool http_all(struct span text, enum http_char kind) {
    unsigned all = kind;
    for (size_t i = 0; i < text.size; i++)
        all &= http_chars[text.at[i]];
    return all != 0;
}

const struct http_header *http_find(const struct http_head *head,
                                    const char *name); /* NULL: none */
bool http_is(struct span text, const char *literal);   /* equal without case */

/* A chunked body under way; starts zeroed. */
struct http_chunks {
    unsigned state;  /* enum chunk_state of http.c */
    unsigned digits; /* of the size line so far */
    uint64_t left;   /* bytes of this chunk still to come */
};

/* Takes what it can from `in` and appends data to `body`, whose max bounds it (ERR_TOO_LARGE). */
RESULT http_chunks_read(struct http_chunks *c, struct cursor *in, struct buf *body, bool *done);

/* The value of `name` in a query string, percent-decoded as a C string. ERR_NOT_FOUND; ERR_INVALID
 * when it does not fit or does not decode. */
RESULT http_query(struct span query, const char *name, char *out, size_t room);

struct http_answer {
    unsigned status;                   /* 200, ... */
    const char *content_type;          /* NULL: none */
    const char *extra;                 /* further header lines, each with CRLF; may be NULL */
    const struct http_header *headers; /* further headers */
    unsigned n_headers;                /* their number */
    uint64_t length;                   /* of the body, when not chunked */
    bool chunked;                      /* the body follows in chunks */
    bool close;                        /* Connection: close */
};
RESULT http_write_answer(struct buf *out, const struct http_answer *a);
RESULT http_write_chunk(struct buf *out, struct span data); /* no data: the last chunk */
const char *http_reason(unsigned status);

#endif
