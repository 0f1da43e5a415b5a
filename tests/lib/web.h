/* A server of HTTP on this process's loop, for the tests and the fuzzer of api/http/server.h, with
 * handlers that do what a test tells them. Nothing sleeps: WEB_UNTIL runs the loop until its
 * condition holds, and fails the test when that takes longer than 20 seconds. */
#ifndef CONCLAVE_TEST_WEB_H
#define CONCLAVE_TEST_WEB_H

#include <stdio.h>

#include "api/http/server.h"
#include "tests/lib/pki.h"

#define WEB_CLUSTER "cluster0000000000000000aa"
#define WEB_LATE    4096 /* exchanges that wait to be answered */

/* What the routes do:
 *   GET /small     answers "small" at once
 *   GET /headed    answers with a header of its own; ?streamed: piece by piece
 *   POST /echo     answers with the body
 *   POST /late     keeps the exchange in `late`; web_answer_late answers all
 *   GET /big?size= answers so many bytes at once
 *   GET /flow      streams `flow` bytes as there is room, then ends
 *   POST /feed     takes its body as it comes: counts it in `fed`, wants it to wait while `hold`,
 *                  answers at its end with the number
 *   POST /admin    for administrators only; says who asks
 *   any /rest/...  found by no table; answers with the path, with headers grpc-status and x-more
 * and RPC (POST with application/grpc): a streamed echo that ends with trailers. */
struct web {
    uv_loop_t loop;
    uv_timer_t guard; /* ends a test that hangs */
    bool hung;        /* it did */
    struct log log;
    struct server *server;
    char path[100]; /* of the unix socket */
    struct exchange *late[WEB_LATE];
    unsigned n_late;
    struct exchange *fed_by;             /* the last that was fed */
    size_t fed;                          /* bytes given to /feed */
    unsigned ends;                       /* times that it was told of an end */
    bool hold;                           /* see /feed */
    size_t flow;                         /* bytes of an answer of /flow */
    size_t flowed;                       /* bytes written by it */
    unsigned busy;                       /* times that a write said ERR_BUSY */
    unsigned gone;                       /* streamed exchanges whose client left */
    unsigned late_gone;                  /* the same of /late */
    unsigned handled;                    /* requests that reached a handler */
    bool removed;                        /* no node is a member */
    uint8_t member_key[KEY_DIGEST_SIZE]; /* that the server asked about last */
    bool closed;
};

extern unsigned web_io_loops; /* of the servers that are opened; 0 at first */
/* Bytes of an answer that may be between its handler and its session. */
static inline size_t web_on_the_way(void) { return web_io_loops > 0 ? IO_WRITTEN_MAX : 0; }

void web_open(struct web *w, const struct server_times *times); /* NULL: the usual ones */
void web_listen(struct web *w);                                 /* plaintext on loopback as well */
void web_listen_tls(struct web *w, const struct pki *pki, const struct pki_node *node);
void web_credentials(struct web *w, const struct pki *pki, const struct pki_node *node);
void web_stop(struct web *w);  /* server_close has been called; goes on in the loop */
void web_close(struct web *w); /* answers what is late, waits for the end */
void web_answer_late(struct web *w);
int web_connect_unix(struct web *w); /* a descriptor, not blocking */
int web_connect_tcp(struct web *w);
void web_turn(struct web *w); /* waits for something to happen, at most 20 ms */

#define WEB_UNTIL(w, condition)                                                                    \
    do {                                                                                           \
        uint64_t until_ = uv_hrtime() + 20000000000ULL;                                            \
        while (!(condition)) {                                                                     \
            if (uv_hrtime() > until_) fail_msg("waited 20 s for: %s", #condition);                 \
            web_turn(w);                                                                           \
        }                                                                                          \
    } while (0)

#endif
