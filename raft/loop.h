/* The real side of clock.h, and addresses as people write them: HOST:PORT, where HOST is a name, an
 * IPv4 address or an IPv6 address in brackets, and PORT is 0..65535. Used by whoever opens sockets.
 * Nothing here keeps state; thread-safe. */
#ifndef CONCLAVE_LOOP_H
#define CONCLAVE_LOOP_H

#include <sys/socket.h>

#include "crypto/base.h"
#include "crypto/limits.h"
#include "raft/clock.h"

/* Milliseconds and microseconds of CLOCK_BOOTTIME, wall seconds of CLOCK_REALTIME. */
void clock_real(struct clock *out);

/* A write to a connection that the other side has closed raises SIGPIPE, which would end the
 * process. Blocks it for the calling thread, which must be the one that runs the loop; nothing else
 * of the process changes, so that a library may do it. */
void loop_block_sigpipe(void);

struct address {
    char host[ADDRESS_MAX]; /* without brackets */
    char port[6];           /* decimal digits */
};

/* Takes the text apart; looks nothing up. ERR_INVALID with a sentence that names the text. */
RESULT address_split(const char *text, struct address *out, struct why *why);
/* A numeric host only; never blocks. ERR_NOT_FOUND: it is a name. */
RESULT address_numeric(const struct address *a, struct sockaddr_storage *out);
/* Numeric or a name; a name is looked up, which may block for seconds. ERR_INVALID, or
 * ERR_UNREACHABLE when the name is not known. */
RESULT address_parse(const char *text, struct sockaddr_storage *out, struct why *why);
/* HOST:PORT text of a socket address, numeric; "?" for a family that is not IP. */
void address_format(const struct sockaddr *a, char out[ADDRESS_MAX]);
/* HOST:PORT text of its parts, with brackets where needed. */
void address_join(const char *host, unsigned port, char out[ADDRESS_MAX]);

#endif
