/* A client of HTTP/2 that sends whatever frames a test wants, good or bad, and notes what comes
 * back. It runs on the loop of a struct web. By itself it acknowledges SETTINGS and PING and gives
 * windows back, unless told not to. */
#ifndef CONCLAVE_TEST_H2_H
#define CONCLAVE_TEST_H2_H

#include <nghttp2/nghttp2.h>

#include "crypto/tls.h"
#include "tests/lib/web.h"

#define H2_STREAMS 8192

enum h2_type {
    H2_DATA,
    H2_HEADERS,
    H2_PRIORITY,
    H2_RST,
    H2_SETTINGS,
    H2_PUSH,
    H2_PING,
    H2_GOAWAY,
    H2_WINDOW,
    H2_CONTINUATION
};
enum { H2_END_STREAM = 1, H2_ACK = 1, H2_END_HEADERS = 4 };

struct h2_stream {
    unsigned status;     /* of the answer; 0: none yet */
    size_t size;         /* of its body */
    char text[64];       /* its beginning */
    char type[64];       /* content-type */
    char grpc_status[8]; /* wherever it came */
    unsigned heads;      /* HEADERS frames: 2 with trailers */
    bool ended, reset;
    uint32_t code; /* of RST_STREAM */
};

struct h2 {
    struct web *web;
    int fd;
    uv_poll_t poll;
    struct tls *tls; /* NULL: plain */
    bool tls_open;
    struct buf plain;   /* to be sent once TLS is open */
    struct buf in, out; /* bytes of frames; bytes for the socket */
    nghttp2_hd_deflater *packer;
    nghttp2_hd_inflater *unpacker;
    struct h2_stream streams[H2_STREAMS];           /* by id / 2 */
    bool deaf;                                      /* does not read */
    bool mute;                                      /* answers no PING */
    bool stingy;                                    /* gives no window back */
    bool closed;                                    /* the server has hung up */
    bool goaway;                                    /* it said so before */
    uint32_t code;                                  /* why */
    int32_t last;                                   /* its last stream */
    unsigned settings, acks, pings, pongs, windows; /* frames that came */
    unsigned answered;                              /* streams that have ended */
};

/* Takes over fd. `tls` NULL: plain; else a client's context. Sends the preface. */
void h2_open(struct h2 *c, struct web *w, int fd, struct tls_context *tls);
void h2_close(struct h2 *c); /* at once; also when the server has */
void h2_bytes(struct h2 *c, const void *at, size_t size);
void h2_frame(struct h2 *c, enum h2_type type, uint8_t flags, int32_t id, const void *at,
              size_t size);
/* HEADERS; `more` are further names and values, NULL-terminated, or NULL. */
void h2_request(struct h2 *c, int32_t id, const char *method, const char *path,
                const char *const *more, bool end);
void h2_data(struct h2 *c, int32_t id, const void *at, size_t size, bool end);
void h2_window(struct h2 *c, int32_t id, uint32_t more);
void h2_listen(struct h2 *c, bool deaf); /* does it read? */
const struct h2_stream *h2_stream(const struct h2 *c, int32_t id);

#endif
