/* A quorum that is lost for ever, in the running process: this manager stops, becomes the only
 * member of what its log has, and starts again; offline.c does the same to a stopped node. The rows
 * of the other managers go once it leads (table.c), and whoever asked is told then. A crash in
 * between is finished by the next start. */
#include <stdio.h>

#include "api/manager_parts.h"

static RESULT become_sole(struct manager *m, struct why *why) {
    const struct replica_env env = {.disk = m->disk, .keys = m->keys};
    TRY(replica_recover(&env, &m->raft, why));
    m->self.state = IDENTITY_RECOVERED;
    m->self.n = 0; /* nobody else is dialled */
    TRY(identity_store(&m->self, m->keys, why));
    return manager_start(m, why);
}

static void on_down(struct manager *m) {
    struct why why = {0};
    enum err e = become_sole(m, &why);
    if (e == OK) return; /* table.c finishes it */
    manager_finish(m, e, why.text);
    manager_fail(m, e, why.text);
}

RESULT manager_recover(struct manager *m, manager_done *done, void *ctx, struct why *why) {
    TRY(manager_ready(m, why));
    if (m->done) return fail_with(why, ERR_BUSY, "this node is busy with another request");
    log_event(m->config.log, LOG_WARNING, "node",
              "this node becomes the only manager; what the others have that it has not is lost");
    m->done = done;
    m->done_ctx = ctx;
    manager_set_state(m, MANAGER_LEAVING);
    manager_stop(m, on_down);
    return OK;
}
