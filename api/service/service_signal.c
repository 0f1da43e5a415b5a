/* See service_signal.h. Names are those of the C library; numbers are Linux's, 1 to 64. */
#include "api/service/service_signal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LAST       64
#define REAL_TIME  34 /* SIGRTMIN as programs see it */
#define NAMED_LAST 31

/* A whole number of at most `most`; UINT32_MAX: it is none. */
static uint32_t number_of(const char *text, uint32_t most) {
    char *end;
    if (text[0] < '0' || text[0] > '9') return UINT32_MAX;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    return errno == 0 && *end == 0 && number <= most ? (uint32_t)number : UINT32_MAX;
}

static uint32_t real_time(const char *word) {
    if (strcasecmp(word, "RTMIN") == 0) return REAL_TIME;
    if (strcasecmp(word, "RTMAX") == 0) return LAST;
    uint32_t steps = strlen(word) > 6 ? number_of(word + 6, LAST - REAL_TIME) : UINT32_MAX;
    if (steps == UINT32_MAX) return 0;
    if (strncasecmp(word, "RTMIN+", 6) == 0) return REAL_TIME + steps;
    return strncasecmp(word, "RTMAX-", 6) == 0 ? LAST - steps : 0;
}

uint32_t signal_number(const char *text) {
    uint32_t number = number_of(text, LAST);
    if (number != UINT32_MAX) return number;
    const char *word = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
    for (int i = 1; i <= NAMED_LAST; i++) {
        const char *name = sigabbrev_np(i);
        if (name && strcasecmp(name, word) == 0) return (uint32_t)i;
    }
    return real_time(word);
}
