/* The server program: a loop with a manager, the HTTP server before it, signals and the log. */
#ifndef CONCLAVE_APP_H
#define CONCLAVE_APP_H

#include "api/api.h"

struct app_config {
    struct manager_config manager; /* loop, log and callbacks are the app's to fill */
    bool insecure;                 /* plaintext client port */
    bool force_insecure;           /* even on addresses that others reach */
    bool init, autolock;           /* --init */
    char join[ADDRESS_MAX];        /* --join; "": no */
    char token[JOIN_TOKEN_TEXT];   /* with it */
    enum log_level level;
};

/* Runs until SIGTERM or SIGINT, or until the node fails. Takes over config->manager.kek. */
RESULT app_run(const struct app_config *config, struct why *why);

/* No core dumps, no debugger, files for the owner only. For every process that handles keys. */
RESULT app_harden(struct why *why);

#endif
