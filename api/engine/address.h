/* Which addresses a node takes when a docker client says `swarm init` or `swarm join`. The server
 * was started with addresses of its own, and a client always sends a ListenAddr, mostly the one
 * that it says by itself. So, the first that there is:
 *
 *   listen     ListenAddr, if it is not 0.0.0.0:2377, which nobody chose; --peer; ListenAddr
 *   advertise  AdvertiseAddr; --advertise; the host of the listening address, if it is no wildcard;
 *              init: the machine's only address, and an error when there are several;
 *              join: the address from which the manager is reached
 *
 * A host is an IP address or the name of an interface. Port 2377 where there is none. The port that
 * is advertised is always the one that is listened on. Looks at the machine's interfaces; blocks
 * nowhere. */
#ifndef CONCLAVE_ENGINE_ADDRESS_H
#define CONCLAVE_ENGINE_ADDRESS_H

#include "crypto/base.h"
#include "crypto/limits.h"

#define ENGINE_LISTEN_DEFAULT "0.0.0.0:2377"

struct engine_wish {
    const char *listen, *advertise; /* of the request; "" nothing */
    const char *peer;               /* --peer; "" when it was not given */
    const char *own_advertise;      /* --advertise; "" */
    const char *remote;             /* of a join: the manager, HOST:PORT; NULL: an init */
};

struct engine_place {
    char listen[ADDRESS_MAX]; /* HOST:PORT */
    char host[ADDRESS_MAX];   /* to advertise; "": the listening one */
};

/* ERR_INVALID, with docker's sentences where it has one. */
RESULT engine_place(const struct engine_wish *wish, struct engine_place *out, struct why *why);
/* HOST:PORT of an address whose port, or host, may be missing. */
RESULT engine_full_address(const char *text, char out[ADDRESS_MAX], struct why *why);

#endif
