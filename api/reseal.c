/* See reseal.h. The data key is rotated first, so that whatever is written from then on is under
 * the new one; the old one is destroyed by the replica, when none of its files needs it. */
#include "api/manager.h"

static void on_resealed(void *ctx, enum err e) {
    struct manager *m = ctx;
    struct reseal r = m->reseal;
    m->reseal = (struct reseal){.due = r.due};
    if (r.done)
        r.done(r.ctx, e);
    else if (e == OK)
        log_event(m->config.log, LOG_INFO, "keys", "all files are sealed by data key %u",
                  keyring_generation(m->keys));
}

RESULT reseal_start(struct manager *m, void (*done)(void *ctx, enum err e), void *ctx,
                    struct why *why) {
    TRY(manager_ready(m, why));
    if (m->reseal.running)
        return fail_with(why, ERR_BUSY, "the files are being sealed anew already");
    TRY(keyring_rotate(m->keys, why));
    m->reseal = (struct reseal){.running = true, .done = done, .ctx = ctx};
    replica_reseal(m->replica, on_resealed, m);
    return OK;
}

void reseal_beat(struct manager *m) {
    struct why why = {0};
    if (!m->reseal.due || m->reseal.running || m->state != MANAGER_RUNNING) return;
    m->reseal.due = false;
    if (reseal_start(m, NULL, NULL, &why) != OK)
        log_event(m->config.log, LOG_ERROR, "keys", "no other data key: %s", why.text);
}
