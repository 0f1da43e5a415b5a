/* Time as an interface. The replica lives on monotonic milliseconds that never go back and that go
 * on through a suspend (CLOCK_BOOTTIME); wall time is only ever put into commands by a leader. Real
 * side: loop.c (libuv). Simulated side: tests/sim. */
#ifndef CONCLAVE_CLOCK_H
#define CONCLAVE_CLOCK_H

#include "crypto/base.h"

struct clock {
    uint64_t (*now_ms)(struct clock *c);
    int64_t (*wall_s)(struct clock *c);  /* UTC seconds */
    int64_t (*wall_ns)(struct clock *c); /* UTC nanoseconds, for rows; simulated clocks have none */
    uint64_t (*now_us)(struct clock *c); /* for figures and for pacing, never for decisions */
};

/* One timer: fires once, on the loop, never inside timer_arm. Arming again replaces the time. */
struct timer {
    void (*fire)(struct timer *t, void *ctx);
    void *ctx;
};

#endif
