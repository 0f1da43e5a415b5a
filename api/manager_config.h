/* What a manager is told by whoever runs it (manager.h): the loop, the data directory, addresses,
 * the key of the keyring, and whom to tell of what happens. */
#ifndef CONCLAVE_MANAGER_CONFIG_H
#define CONCLAVE_MANAGER_CONFIG_H

#include <uv.h>

#include "api/log.h"
#include "api/service/driver.h"
#include "crypto/keyring.h"
#include "store/node.h"

#define CLIENT_USUAL "127.0.0.1:2379" /* where nobody chose an address */
#define PEER_USUAL   "127.0.0.1:2377"

struct manager_config {
    uv_loop_t *loop;
    const struct log *log;        /* outlives the manager */
    const char *data;             /* the directory; as long as the manager lives */
    char name[NAME_MAX_SIZE + 1]; /* of this node; "" with existing data: as before */
    char client[ADDRESS_MAX];     /* HOST:PORT to listen on for clients; "" as before */
    char peer[ADDRESS_MAX];       /* HOST:PORT to listen on for peers; "" as before */
    char advertise[ADDRESS_MAX];  /* HOST announced to others; "": the one of the addresses */
    enum node_availability availability; /* that a join asks for; 0: active */
    struct driver_table drivers;         /* programs that supply secrets' values */
    bool alone;                          /* no peers at all: one embedded node */
    bool null_cipher;                    /* the benchmark's only: nothing is sealed at rest */
    enum kek_kind kek_kind;              /* what seals the keyring, unless autolock's key does */
    struct secret *kek; /* passphrase or key; the manager's from manager_open on; NULL: none */
    bool kek_offered;   /* it may be an old one: then the manager waits, locked, for another */
    void *ctx;          /* for the functions below */
    void (*changed)(void *ctx); /* the state, the identity or its certificate is another one */
    void (*led)(void *ctx);     /* another member leads, or nobody; may be NULL */
    row_changed *rows;          /* a row has changed, see row.h; may be NULL */
    void (*failed)(void *ctx, enum err e, const char *text); /* once: close it */
};

#endif
