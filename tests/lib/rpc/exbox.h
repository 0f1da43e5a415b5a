/* An exchange without a connection: api/http/server.h's functions, which here note what the RPC
 * layer answers. For what has to be driven byte by byte, failed on demand or fuzzed; the real
 * server is under it in the tests over sockets. Whoever links this has no server.
 *
 * Aborts when an exchange is answered twice, or touched after. */
#ifndef CONCLAVE_TEST_EXBOX_H
#define CONCLAVE_TEST_EXBOX_H

#include "api/rpc/rpcs.h"

struct exbox {
    struct exchange x;  /* first: what the layer is given */
    struct buf body;    /* all that was answered */
    unsigned status;    /* HTTP's; 0: none yet */
    char type[64];      /* the content-type */
    int code;           /* grpc-status; -1: none */
    char message[1100]; /* grpc-message, as sent */
    char accepts[32];   /* grpc-accept-encoding */
    bool streaming;     /* exchange_stream was called */
    bool done;          /* answered */
    bool whole;         /* and not cut */
    bool full;          /* writes are taken, but ERR_BUSY */
    bool resumed;       /* exchange_resume was called */
};

/* A request that is about to be handed over. `body` is for routes that do not stream. */
void exbox_open(struct exbox *b, struct api *api, const char *path, struct span body);
void exbox_header(struct exbox *b, const char *name, const char *value);
void exbox_free(struct exbox *b);

/* Drives gRPC: hands the head over, then bytes. */
void exbox_grpc(struct exbox *b);
bool exbox_data(struct exbox *b, struct span bytes, bool last); /* what `data` says */
void exbox_leave(struct exbox *b);                              /* the client goes */
void exbox_drain(struct exbox *b);                              /* it takes what it has */
RESULT exbox_frame(struct buf *out, struct span message);       /* appends it with its prefix */
/* The n-th message (from 0) of a gRPC answer. */
bool exbox_answer(const struct exbox *b, unsigned n, struct span *out);
/* The same path through the gateway; false: no such route. */
bool exbox_json(struct exbox *b, const struct rpcs *rpcs);

#endif
