/* The node's log: one line an event on one file descriptor. On a terminal a line is text for a
 * person; else one JSON object {"time","level","area","text"}. Never given a key, a value or a
 * token. Thread-safe: a line is one write. */
#ifndef CONCLAVE_LOG_H
#define CONCLAVE_LOG_H

#include "crypto/base.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG }; /* replica.h's numbers */

struct log {
    int fd;               /* stderr, as a rule */
    bool json;            /* lines of JSON */
    enum log_level level; /* the most that is written */
};

void log_open(struct log *log, int fd, enum log_level level); /* JSON unless fd is a terminal */
void log_event(const struct log *log, enum log_level level, const char *area, const char *format,
               ...) __attribute__((format(printf, 4, 5)));

#endif
