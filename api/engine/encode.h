/* The objects of the Engine API as JSON, field by field as docker's own types are: names, order and
 * what is left out when it is empty. Pure: what is shown comes in as structs, so that a test needs
 * no cluster. The signing CA's certificate and key have no place here. */
#ifndef CONCLAVE_ENGINE_ENCODE_H
#define CONCLAVE_ENGINE_ENCODE_H

#include "api/json.h"
#include "store/node.h"
#include "store/spec.h"

#define ENGINE_TASK_HISTORY      5 /* what stands for a setting that nobody has made */
#define ENGINE_SNAPSHOT_INTERVAL 10000
#define ENGINE_LOG_ENTRIES       500
#define ENGINE_ELECTION_TICK     10
#define ENGINE_HEARTBEAT_TICK    1
#define ENGINE_SUBNET_SIZE       24
#define ENGINE_DATA_PATH_PORT    4789
#define ENGINE_ADDRESS_POOL      "10.0.0.0/8"

struct engine_tls {         /* whose certificates are good, as docker's TLSInfo */
    struct span trust_root; /* PEM */
    struct span subject;    /* of the issuer, DER */
    struct span public_key; /* of the issuer, SubjectPublicKeyInfo, DER */
};

struct engine_cluster { /* what /swarm and /info tell of the cluster */
    const char *id;
    const struct row *row; /* of the settings: version and times */
    const struct spec *spec;
    bool autolock;         /* managers start locked */
    bool rotating;         /* the root is being rotated */
    struct engine_tls tls; /* of certificates that are issued now */
};

struct engine_node { /* a node, as /nodes tells of it */
    const struct row *row;
    const struct node_row *node;
    struct engine_tls tls;          /* of the certificate that it has */
    bool member, leader, reachable; /* of the quorum */
};

struct engine_peer { /* a manager */
    const char *id, *address;
};

struct engine_info { /* Swarm in /info */
    const char *node_id;
    char address[ADDRESS_MAX]; /* of this node, the host; "" none */
    const char *state;         /* inactive, pending, active, error, locked */
    bool control;              /* a manager that runs */
    const char *error;         /* "" none */
    unsigned n_peers;          /* managers that this node knows */
    struct engine_peer peers[MEMBERS_MAX];
    uint64_t nodes, managers;
    const struct engine_cluster *cluster; /* NULL: not known here */
};

struct engine_machine { /* the machine under it */
    char id[64];        /* of the machine or this start; stable while it runs */
    char name[256];
    char kernel[256], system[256], arch[256];
    unsigned cpus;
    uint64_t memory;
    const char *data; /* the data directory */
    int64_t now_ns;
};

void engine_put_time(struct jout *j, const char *key, int64_t ns); /* RFC 3339, UTC */
void engine_put_signed(struct jout *j, const char *key, int64_t value);
void engine_put_labels(struct jout *j, const char *key, struct span labels); /* store/node.h */
void engine_put_cluster(struct jout *j, const struct engine_cluster *c);     /* an object */
/* The same with the join tokens. */
void engine_put_swarm(struct jout *j, const struct engine_cluster *c, const char *worker_token,
                      const char *manager_token);
void engine_put_node(struct jout *j, const struct engine_node *n);
void engine_put_info(struct jout *j, const struct engine_machine *m, const struct engine_info *i);
void engine_put_version(struct jout *j, const struct engine_machine *m);

const char *engine_role(enum node_role role); /* docker's words */
const char *engine_availability(enum node_availability a);
const char *engine_state(enum node_state s);

#endif
