/* See reseal.h. The data key is rotated first, so that whatever is written from then on is under
 * the new one; the old one is destroyed by the replica, when none of its files needs it. */
#include "api/manager.h"

#define RETRY_MS 60000

static void on_resealed(void *ctx, enum err e) {
    struct manager *m = ctx;
    struct reseal r = m->reseal;
    m->reseal = (struct reseal){0};
    if (e != OK) m->reseal.after_ms = m->clock.now_ms(&m->clock) + RETRY_MS;
    if (r.done)
        r.done(r.ctx, e);
    else if (e == OK)
        log_event(m->config.log, LOG_INFO, "keys", "all files are sealed by data key %u",
                  keyring_generation(m->keys));
}

static void start(struct manager *m, void (*done)(void *ctx, enum err e), void *ctx) {
    m->reseal = (struct reseal){.running = true, .done = done, .ctx = ctx};
    replica_reseal(m->replica, on_resealed, m);
}

RESULT reseal_start(struct manager *m, void (*done)(void *ctx, enum err e), void *ctx,
                    struct why *why) {
    TRY(manager_ready(m, why));
    if (m->reseal.running)
        return fail_with(why, ERR_BUSY, "the files are being sealed anew already");
    TRY(keyring_rotate(m->keys, why));
    start(m, done, ctx);
    return OK;
}

void reseal_again(struct manager *m) {
    if (m->reseal.running) replica_reseal(m->replica, on_resealed, m);
}

void reseal_beat(struct manager *m) {
    if (m->reseal.running || m->state != MANAGER_RUNNING) return;
    if (keyring_oldest(m->keys) == keyring_generation(m->keys)) return;
    if (m->clock.now_ms(&m->clock) >= m->reseal.after_ms) start(m, NULL, NULL);
}

void reseal_stop(struct manager *m) {
    struct reseal r = m->reseal;
    m->reseal = (struct reseal){0};
    if (r.done) r.done(r.ctx, ERR_CLOSED);
}
