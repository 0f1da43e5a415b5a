/* See log.h. A line that can't be written is lost: the log is for people, the node does not depend
 * on it. */
#include "api/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "api/json.h"

#define LINE_MAX_SIZE 4096

void log_open(struct log *log, int fd, enum log_level level) {
    *log = (struct log){.fd = fd, .json = isatty(fd) == 0, .level = level};
}

static void stamp(char *out, size_t room) {
    struct timespec now;
    struct tm utc;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    size_t size = strftime(out, room, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(out + size, room - size, ".%03ldZ", now.tv_nsec / 1000000);
}

static const char *const names[] = {"error", "warning", "info", "debug"};

static RESULT line_json(struct buf *line, enum log_level level, const char *area,
                        const char *text) {
    char time[40];
    stamp(time, sizeof time);
    struct jout j;
    jout_start(&j, line);
    jout_open(&j, '{');
    jout_put_text(&j, "time", time);
    jout_put_text(&j, "level", names[level]);
    jout_put_text(&j, "area", area);
    jout_put_text(&j, "text", text);
    jout_close(&j, '}');
    TRY(jout_end(&j));
    return buf_u8(line, '\n');
}

static RESULT line_text(struct buf *line, enum log_level level, const char *area,
                        const char *text) {
    char time[40];
    stamp(time, sizeof time);
    return buf_format(line, "%.8s %-7s %s: %s\n", time + 11, names[level], area, text);
}

void log_event(const struct log *log, enum log_level level, const char *area, const char *format,
               ...) {
    if (level > log->level) return;
    char text[LINE_MAX_SIZE / 2];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    struct buf line = buf_new(LINE_MAX_SIZE * 4);
    enum err e =
        log->json ? line_json(&line, level, area, text) : line_text(&line, level, area, text);
    if (e == OK) {
        ssize_t written = write(log->fd, line.at, line.size);
        (void)written; /* who could be told? */
    }
    buf_free(&line);
}
