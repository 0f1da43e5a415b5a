/* One session of a node as its manager keeps it; private to sessions.c and assign*.c. */
#ifndef CONCLAVE_SESSIONS_PARTS_H
#define CONCLAVE_SESSIONS_PARTS_H

#include "api/node/node_wire.h"
#include "api/node/sessions.h"

/* One session. */
struct node_link {
    struct manager *manager;
    struct node_session *session;   /* NULL: closed, only a write is awaited */
    char id[NODE_ID_SIZE + 1];      /* of the node */
    bool proven;                    /* by a state as new as the session */
    bool asked;                     /* the read under way is for it, too */
    bool dirty;                     /* something of it has changed */
    bool described;                 /* `hello` is there */
    bool cut;                       /* nothing more to be said */
    bool leaving;                   /* the node has said that it leaves */
    bool writing;                   /* the write below is under way */
    bool behind;                    /* its row is to be written, but not yet */
    struct node_hello hello;        /* what it says of itself */
    uint64_t heard_ms;              /* its last word */
    uint64_t write_ms;              /* no write before */
    uint64_t sequence;              /* of wants */
    uint8_t said[NODE_DIGEST_SIZE]; /* hash of the last want */
    struct write write;
    struct buf early;          /* said of its tasks before it was proven: u8 kind, block body */
    struct assigned *assigned; /* what it was told to run (assign.c); NULL until it is proven */
    struct node_link *next;
};

struct sessions {
    struct node_link *first; /* newest first */
    unsigned n;              /* <= SESSIONS_MAX */
    unsigned writing;        /* descriptions being written */
    bool dirty;              /* some held one is */
    bool unproven;           /* some is, and no read is under way for it */
    bool reading;
    struct read read;
    bool calling; /* the report below is under way */
    struct call call;
    struct buf report;  /* its request */
    uint64_t report_ms; /* when the next one is due */
    bool review;        /* rows have changed: peers are judged again */
    unsigned unseen_n;  /* keys of peers let in without a look at the rows ... */
    bool unseen_more;   /* ... and more of them than there is room for */
    uint8_t unseen[MEMBERS_MAX][NODE_DIGEST_SIZE];
    uint8_t cluster[NODE_DIGEST_SIZE]; /* hash of what wants have of the cluster itself */
};

#endif
