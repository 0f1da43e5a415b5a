/* Who asks, in the words of the audit trail (store/audit.h). */
#include "api/secret/secrets.h"

#include <stdio.h>

#include "api/http/server.h"

void actor_of(const struct exchange *x, struct actor *out) {
    const struct caller *c = &x->caller;
    *out = (struct actor){0};
    if (c->by_certificate)
        (void)snprintf(out->who, sizeof out->who, "%s %s", c->admin ? "admin" : "client", c->name);
    else
        (void)snprintf(out->who, sizeof out->who, "%s", c->admin ? "operator" : "anybody");
    (void)snprintf(out->from, sizeof out->from, "%s", c->from);
}
