/* Tells the service manager how things are (sd_notify): one datagram of NAME=VALUE lines to the
 * socket that $NOTIFY_SOCKET names; without one nothing happens. Source: sd_notify(3). */
#ifndef CONCLAVE_NOTIFY_H
#define CONCLAVE_NOTIFY_H

#include "crypto/base.h"

void notify(const char *state);    /* "READY=1", "STOPPING=1", "WATCHDOG=1", ... */
void notify_reloading(void);       /* READY=1 ends it */
uint64_t notify_watchdog_ms(void); /* how often WATCHDOG=1 is wanted; 0: it is not */

#endif
