/* Signals by name, as docker takes them: "TERM", "SIGTERM", "15", "SIGRTMIN+3". */
#ifndef CONCLAVE_SERVICE_SIGNAL_H
#define CONCLAVE_SERVICE_SIGNAL_H

#include <stdint.h>

uint32_t signal_number(const char *text); /* 0: there is none of that name */

#endif
