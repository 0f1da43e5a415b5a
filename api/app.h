/* The server program: a loop with a manager, the HTTP server before it, signals and the log. */
#ifndef CONCLAVE_APP_H
#define CONCLAVE_APP_H

#include "api/api.h"
#include "api/client_tls.h"
#include "api/compactor.h"

enum log_format { LOG_AS_FITS, LOG_AS_TEXT, LOG_AS_JSON }; /* fits: text on a terminal */

struct app_config {
    struct manager_config manager;  /* loop, log and callbacks are the app's to fill */
    bool insecure;                  /* plaintext client port */
    bool force_insecure;            /* even on addresses that others reach */
    bool init, autolock;            /* --init */
    char join[ADDRESS_MAX];         /* --join; "": no */
    char token[JOIN_TOKEN_TEXT];    /* with it */
    struct buf ca_chain;            /* --ca-cert with --init, PEM; empty: a root is made */
    struct secret *ca_key;          /* its key */
    uint64_t quota;                 /* bytes of the store */
    uint64_t progress_ms;           /* between notices of progress to watches */
    struct compact_options compact; /* auto-compaction */
    struct client_tls_config tls;   /* the client port's own certificates */
    char engine[ADDRESS_MAX];       /* --engine; "": the socket only */
    bool peer_given;                /* --peer was said, not only meant */
    unsigned io_loops;              /* threads for clients' connections */
    enum log_level level;
    enum log_format log_format;
};

/* Runs until SIGTERM or SIGINT, or until the node fails. Takes over config->manager.kek. */
RESULT app_run(const struct app_config *config, struct why *why);

/* No core dumps, no debugger, files for the owner only. For every process that handles keys. */
RESULT app_harden(struct why *why);

#endif
