/* One call of a method of the API, whichever way it came: gRPC over HTTP/2 (grpc.c), or JSON
 * over either HTTP (gateway.c). A method is a row in a table; its handler sees messages and
 * never bytes, frames or JSON. Messages are protobuf-c's, generated from the .proto files of
 * api/etcd.
 *
 *   begun -> message ... -> (BIDI: ended) -> answered | failed | gone
 *
 * A UNARY or SERVER_STREAM method gets exactly one message; a BIDI method any number. The
 * handler finishes each call exactly once: rpc_answer, rpc_end or rpc_fail; after that the call
 * is freed and its pointer dead. When the client leaves or its deadline passes, `gone` is called
 * (once, unless the call was finished before); the handler lets go of what it has and finishes
 * the call, whose answer goes nowhere. `gone` may be NULL only for handlers that finish inside
 * `message`.
 *
 * Requests live in an arena of the call until it is finished (BIDI: until `message` returns).
 * All on the loop; no callback fires inside rpc_send. Answers of one loop turn leave in one
 * write. */
#ifndef CONCLAVE_RPC_H
#define CONCLAVE_RPC_H

#include <protobuf-c/protobuf-c.h>

#include "api/api.h"

enum method_kind { METHOD_UNARY, METHOD_SERVER_STREAM, METHOD_BIDI };

struct rpc;
struct method {
    const char *path; /* "/etcdserverpb.KV/Range", gRPC */
    const char *json; /* "/v3/kv/range", the gateway; NULL: gRPC only. Also served under /v3beta */
    enum method_kind kind;
    bool standby; /* a member that is no voter serves it too; else ERR_STANDBY */
    bool open;    /* needs no user even when auth is on (Authenticate); with `standby`: served in
                     every state of the manager, even when there is no store */
    const ProtobufCMessageDescriptor *request, *answer;
    void (*message)(struct rpc *r, const ProtobufCMessage *m);
    void (*ended)(struct rpc *r); /* BIDI: the client sends no more; NULL: the call ends OK */
    bool manages; /* UNARY: it changes the quorum, or who may do what: see caller_manages */
};

struct rpc {
    const struct method *method;
    struct api *api;
    void *data;                     /* the handler's */
    void (*gone)(struct rpc *r);    /* see above; set by the handler */
    void (*drained)(struct rpc *r); /* after ERR_BUSY: room again; set by the handler */
    struct caller caller;           /* who asks */
    uint64_t deadline_ms;           /* on the loop's clock, from grpc-timeout; 0: none */
    bool has_leader;                /* metadata hasleader: true: fail when there is no leader */
    bool has_token;                 /* an idempotency key was sent */
    uint8_t token[TOKEN_SIZE];      /* it */
    bool left;                      /* the client is gone: what is sent goes nowhere */
};

/* Did the request show a user's token? */
bool rpc_shows_token(const struct rpc *r);
/* Who calls (caller_identify), once more: from what the request showed, on the state of now. */
RESULT rpc_identify(struct rpc *r);

/* The methods that exist: api/etcd/methods.c gathers the services' tables. */
extern const struct method *const api_services[]; /* each ends with path NULL; NULL at the end */

/* UNARY: the answer, then OK. */
void rpc_answer(struct rpc *r, const ProtobufCMessage *answer);
/* The same with bytes that are an encoded method->answer (hot paths make them directly). */
void rpc_answer_bytes(struct rpc *r, struct span answer);
/* UNARY, before an answer that may be large is made: OK; ERR_BUSY: so much waits for this client
 * that it is to be made when `drained` comes; ERR_CLOSED: gone. */
RESULT rpc_room(struct rpc *r);
/* Streams: OK, or ERR_BUSY: sent, but wait for `drained` before sending more; ERR_CLOSED: gone. */
RESULT rpc_send(struct rpc *r, const ProtobufCMessage *answer);
RESULT rpc_send_bytes(struct rpc *r, struct span answer);
void rpc_end(struct rpc *r); /* OK */
/* `text` NULL: the error's own. Codes and texts: the table in crypto/base.h. */
void rpc_fail(struct rpc *r, enum err e, const char *text);

/* On every stream that asked for it (has_leader): called by api_led when the leader was lost. */
void rpcs_no_leader(struct api *api);

#endif
