/* What the client port shows and whom it trusts. Without files: the manager's own certificate, and
 * clients with certificates of the cluster's roots. With --client-cert and --client-key another
 * certificate; with --client-ca another root for the clients, whose certificates make nobody an
 * administrator, whatever they say: of them only the CN counts, as a user's name. Files are PEM,
 * and are looked at again on SIGHUP, by `conclave reload` and when they have changed; what can't be
 * used leaves things as they were. */
#ifndef CONCLAVE_CLIENT_TLS_H
#define CONCLAVE_CLIENT_TLS_H

#include <uv.h>

#include "api/node/identity.h"
#include "crypto/tls.h"

#define CLIENT_TLS_FILES   3
#define CLIENT_TLS_POLL_MS 10000 /* between two looks at the files */

struct client_tls_config {
    const char *cert, *key; /* both or neither; NULL: the manager's own */
    const char *ca;         /* NULL: the cluster's roots */
    bool optional;          /* clients without a certificate are let in, too */
};

/* `roots`: the cluster's, for its clients. */
RESULT client_tls_context(const struct client_tls_config *config, const struct node_identity *self,
                          struct span roots, struct tls_context **out, struct why *why);

/* Tells of changes of the files. */
struct client_tls_watch {
    uv_fs_poll_t polls[CLIENT_TLS_FILES];
    unsigned n; /* files that there are */
    void (*changed)(void *ctx);
    void *ctx;
};
void client_tls_watch(struct client_tls_watch *w, uv_loop_t *loop,
                      const struct client_tls_config *config, void (*changed)(void *ctx),
                      void *ctx);

#endif
