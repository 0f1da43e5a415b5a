/* Deadlines of calls, on a wheel: a slot is a list of the calls whose time comes in its tick, this
 * round or a later one. To add and to remove is two pointers; one timer serves all, and only runs
 * while there are any. A deadline is kept to a tick. */
#include "api/rpc/call.h"

void deadline_add(struct rpc_call *c) {
    struct rpcs *r = c->rpcs;
    if (c->rpc.deadline_ms == 0) return;
    uint64_t tick = c->rpc.deadline_ms / WHEEL_TICK_MS;
    struct rpc_call **slot = &r->wheel[(tick + 1) % WHEEL_SLOTS];
    c->later = *slot;
    c->sooner = slot;
    if (*slot) (*slot)->sooner = &c->later;
    *slot = c;
    if (r->timed++ > 0 || uv_is_active((uv_handle_t *)&r->timer)) return;
    r->wheel_tick = uv_now(r->loop) / WHEEL_TICK_MS;
    (void)uv_timer_start(&r->timer, deadline_tick, WHEEL_TICK_MS, WHEEL_TICK_MS);
}

void deadline_remove(struct rpc_call *c) {
    if (!c->sooner) return;
    *c->sooner = c->later;
    if (c->later) c->later->sooner = c->sooner;
    c->sooner = NULL;
    c->rpcs->timed--;
}

/* The first in the slot whose time has come. Asked again after each, since a method may end other
 * calls as well. */
static struct rpc_call *due(const struct rpcs *r, uint64_t tick, uint64_t now_ms) {
    struct rpc_call *c = r->wheel[tick % WHEEL_SLOTS];
    while (c && c->rpc.deadline_ms > now_ms)
        c = c->later;
    return c;
}

void deadline_tick(uv_timer_t *timer) {
    static const struct outcome late = {.code = CODE_DEADLINE, .text = "context deadline exceeded"};
    struct rpcs *r = timer->data;
    uint64_t now_ms = uv_now(r->loop), last = now_ms / WHEEL_TICK_MS;
    if (last - r->wheel_tick > WHEEL_SLOTS) r->wheel_tick = last - WHEEL_SLOTS;
    while (r->wheel_tick < last) {
        r->wheel_tick++;
        for (struct rpc_call *c; (c = due(r, r->wheel_tick, now_ms)) != NULL;)
            (void)call_abort(c, &late);
    }
    if (r->timed == 0) (void)uv_timer_stop(timer);
}
