/* Members on loopback in one loop, for the tests of peer.c and join.c: nodes with real sockets and
 * certificates, and strangers, which speak TLS but not by the rules. Nothing sleeps: UNTIL runs the
 * loop until its condition holds, and fails the test when that takes longer than 20 seconds. */
#ifndef CONCLAVE_TEST_PEER_NET_H
#define CONCLAVE_TEST_PEER_NET_H

#include "raft/peer.h"
#include "tests/lib/pki.h"

#define NET_NODES   5
#define NET_CLUSTER "cluster0000000000000000aa"

struct net;

struct net_node {
    struct net *net;
    struct peers *peers; /* NULL: not open */
    struct pki_node cert;
    uint64_t id; /* raft id: 1.. */
    char node_id[NODE_ID_SIZE + 1];
    char address[ADDRESS_MAX];         /* as bound */
    unsigned connected[NET_NODES + 1]; /* by raft id: `connected` callbacks */
    uint64_t got[NET_NODES + 1];       /* by sender: frames, which came in order */
    bool disorder;                     /* a frame came out of order or damaged */
    char moved[ADDRESS_MAX];           /* the last address that someone announced */
    uint64_t moved_id;                 /* who */
    struct join_connection *joiner;    /* the last that asked */
    struct wire_join request;          /* what it asked; its spans are in `asked` */
    struct buf asked[3];               /* request, old_cert, proof */
    struct node_caller asker;          /* who asked */
    void *sessions;                    /* the test's own, for its node_events */
    unsigned joins;                    /* how many asked */
    const struct wire_joined *answer;  /* given at once; NULL: `joiner` waits */
    unsigned sentences;                /* in `log` */
    char log[32768];                   /* all sentences, a line each */
    size_t log_size;
    bool closed;
};

struct net {
    uv_loop_t loop;
    uv_timer_t guard; /* ends a test that hangs */
    bool late;
    struct pki pki;
    struct net_node nodes[NET_NODES];
};

/* What is wrong with a node; zero: nothing. */
struct net_fault {
    const struct pki *pki;   /* who signed its certificate */
    const char *cn, *ou, *o; /* of its certificate */
    int64_t age_s;           /* of its certificate */
    struct span more;        /* what follows its certificate in its chain */
    struct span roots;       /* that it trusts; empty: the net's */
    const char *node_id;     /* of its hello */
    uint64_t raft_id;        /* of its hello */
    const char *address;     /* to listen at; default 127.0.0.1:0 */
    const char *advertise;
    unsigned handshake_ms;
    bool (*is_member)(void *ctx, const char *node_id, const uint8_t key[32],
                      const uint8_t issuer[32]); /* ctx: the net_node */
    const struct node_events *sessions;          /* the same ctx */
};

void net_open(struct net *n);
void net_close(struct net *n); /* closes what is open, checks that the loop ends */
struct net_node *net_node_open(struct net *n, uint64_t id, const struct net_fault *f);
void net_node_close(struct net_node *node);
void net_meet(struct net_node *a, struct net_node *b); /* each gets the other into its table */
void net_know(struct net_node *a, struct net_node *b); /* a gets b into its table */

/* Frame number `seq` of `size` bytes; its receiver checks number and content. */
void net_frame(uint64_t seq, size_t size, struct buf *out);
void net_send(struct net_node *from, struct net_node *to, uint64_t seq, size_t size);
bool net_logged(const struct net_node *node, const char *part);

void net_turn(struct net *n, const char *what); /* one turn of the loop */
void net_begin(struct net *n);
void net_end(struct net *n);
#define UNTIL(net, condition)                                                                      \
    do {                                                                                           \
        net_begin(net);                                                                            \
        while (!(condition))                                                                       \
            net_turn(net, #condition);                                                             \
        net_end(net);                                                                              \
    } while (0)

/* A TLS endpoint that does what it is told. */
struct stranger {
    struct net *net;
    uv_poll_t poll;
    bool polling; /* the handle is open */
    bool gone;    /* the handle is closed */
    int fd;
    int listener; /* -1: it dials */
    struct tls_context *context;
    struct tls *tls;  /* NULL: it speaks no TLS */
    struct buf plain; /* what it has heard */
    struct buf say;   /* said once, when TLS is open (a server: when it has heard something) */
    bool said;
    bool deaf;                 /* after it has spoken it reads no more */
    struct buf wire;           /* all that it has put on the wire */
    bool ended;                /* the other side cut it, or TLS failed */
    char address[ADDRESS_MAX]; /* where it listens */
};

/* `alpn` NULL: none; `cert` NULL: none. Then fill `say` and call stranger_dial. */
void stranger_new(struct stranger *s, struct net *n, bool server, const char *alpn,
                  const struct pki_node *cert);
void stranger_plain(struct stranger *s, struct net *n); /* no TLS: `say` goes out as it is */
void stranger_dial(struct stranger *s, const char *address);
void stranger_listen(struct stranger *s);
void stranger_answer(struct stranger *s);  /* waits for one caller, then talks to it */
void stranger_hang_up(struct stranger *s); /* closes the socket */
void stranger_free(struct stranger *s);
void stranger_hello(struct stranger *s, uint64_t raft_id, const char *node_id,
                    const char *cluster_id, uint16_t version); /* appends one to `say` */

#endif
