/* Sessions of nodes on loopback, both sides in one loop (peer_net.h), for the tests of session_in.c
 * and session_out.c: a manager whose node_events note what comes, and nodes with an uplink each. */
#ifndef CONCLAVE_TEST_SESSION_NET_H
#define CONCLAVE_TEST_SESSION_NET_H

#include "raft/peer_internal.h"
#include "tests/lib/peer_net.h"

#define NODES 4 /* sessions that a test may open */

/* What the manager has seen; by the order in which the sessions came. */
struct seen {
    struct node_session *session; /* NULL: closed */
    struct node_caller who;
    uint64_t messages; /* in order, each with its number */
    struct buf last;   /* body of the last one */
    bool disorder;
    bool closed;
};

struct session_manager {
    struct seen seen[NODES];
    unsigned n;           /* that were opened */
    unsigned refused;     /* by `refuse` */
    enum err refuse;      /* what `opened` says */
    enum err object;      /* what `message` says */
    const char *unwanted; /* node id that does not stay */
    bool echo;            /* what comes goes back */
    bool greet;           /* a message from within `opened` */
};

struct session_net {
    struct net net;
    struct net_node *a;             /* the manager */
    struct session_manager manager; /* what it does and has seen */
};
extern struct session_net t;

struct node {
    struct uplink *uplink; /* NULL: freed */
    struct pki_node cert;
    unsigned opened, closed, freed; /* callbacks */
    uint64_t messages;
    bool disorder;
    enum err object; /* what `message` says */
    bool free_in_message, free_in_opened;
    enum err error; /* of closed */
    char text[WHY_MAX];
};

void begin(void); /* the loop and the manager */
void begin_with(const struct net_fault *fault);
void end(void); /* all must have been closed */

/* A node with a certificate of that role; what it needs to dial the manager; all the way. */
void node_new(struct node *n, const char *id, const char *role);
struct uplink_config node_config(struct node *n);
void node_dial(struct node *n, const struct uplink_config *c);
void node_connect(struct node *n, const char *id);
void node_free(struct node *n); /* the uplink */
void node_end(struct node *n);  /* the same, to its end, and all else */

/* Message number `seq` of `size` bytes, made in b; its receiver checks both. */
void say_to_manager(struct node *n, uint64_t seq, size_t size, struct buf *b);
void say_to_node(struct seen *seen, uint64_t seq, size_t size, struct buf *b);
struct span body_of(uint64_t seq, size_t size, struct buf *b);

void assert_closed(struct node *n, enum err e, const char *part); /* then it is ended */
void assert_not_seen(void); /* the manager never heard of a node; ends */

/* Begins; `s` speaks the protocol with a node's certificate or without one. */
void open_stranger(struct stranger *s, bool with_certificate);
void stranger_says(struct stranger *s, const struct wire_message *m);

#endif
