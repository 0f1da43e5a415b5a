/* The cluster's settings, as `docker swarm update` and `conclave ca` change them: the body of the
 * one ROW_SPEC. A member of it that is zero stands for its default, which is in the getters. */
#ifndef CONCLAVE_SPEC_H
#define CONCLAVE_SPEC_H

#include "store/node.h"

#define CERT_VALIDITY_MIN_S 60LL /* minutes at the least; docker's API allows 1 h */
#define CERT_VALIDITY_S     (90LL * 86400)
#define CERT_VALIDITY_MAX_S (100LL * 365 * 86400)
#define HEARTBEAT_PERIOD_NS 5000000000LL
#define HEARTBEAT_MIN_NS    100000000LL
#define HEARTBEAT_MAX_NS    3600000000000LL
#define TASK_HISTORY        5
#define EXTERNAL_CAS_MAX    8
#define URL_MAX             1024

/* Nodes whose certificate ran out and who prove their old key. */
enum readmit { READMIT_APPROVAL = 0, READMIT_AUTOMATIC = 1, READMIT_NEVER = 2 };

struct external_ca {
    char url[URL_MAX];   /* https, CFSSL's sign endpoint */
    struct span ca_pem;  /* whom to trust there; empty: the cluster's root */
    struct span options; /* labels' form (node.h), kept for docker */
};

struct spec {
    struct span labels;
    int64_t task_history;                                        /* docker's; -1 and 0: default 5 */
    uint64_t snapshot_interval, keep_old_snapshots, log_entries; /* docker's words, kept */
    uint32_t election_tick, heartbeat_tick;
    int64_t heartbeat_ns; /* of node sessions */
    int64_t cert_validity_s;
    uint64_t force_rotate; /* as docker counts it */
    enum readmit readmit;
    int64_t readmit_within_s; /* after the certificate's end; 0: any time */
    unsigned n_external;
    struct external_ca external[EXTERNAL_CAS_MAX];
};

RESULT spec_encode(const struct spec *s, struct buf *out); /* ERR_INVALID */
RESULT spec_decode(struct span body, struct spec *out);    /* ERR_CORRUPT */
/* The settings as they are; defaults where there is no row yet, and row->version is 0. */
void spec_get(const struct store *s, struct row *row, struct spec *out);
int64_t spec_cert_validity_s(const struct spec *s); /* CERT_VALIDITY_S by default */
int64_t spec_heartbeat_ms(const struct spec *s);    /* HEARTBEAT_PERIOD_NS by default */
int64_t spec_task_history(const struct spec *s);    /* 5 by default, as docker's */

#endif
