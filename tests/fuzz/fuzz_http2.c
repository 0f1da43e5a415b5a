/* Any bytes from a client of HTTP/2, on the real server over a real socket: no fault, nothing left
 * behind once the client has hung up, whatever the handlers do meanwhile. The first byte says how
 * the rest is read: as bytes on the wire, or as a script of frames whose lengths and heads are
 * good, mixed with what handlers do (answer what is late, let a body go on) and with turns of the
 * loop, so that the fuzzer gets past the first checks. */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/http/http2_internal.h"
#include "tests/lib/web.h"

enum { TURNS_MAX = 2000 };

static struct web web;

static void turn(int fd) {
    static uint8_t sink[65536];
    (void)uv_run(&web.loop, UV_RUN_NOWAIT);
    while (recv(fd, sink, sizeof sink, MSG_DONTWAIT) > 0) {
    }
}

static void say(int fd, const void *at, size_t size) {
    (void)!send(fd, at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void frame(int fd, uint8_t type, uint8_t flags, uint8_t id, struct span payload) {
    uint8_t head[9] = {0, (uint8_t)(payload.size >> 8), (uint8_t)payload.size, type, flags, 0, 0, 0,
                       id};
    say(fd, head, sizeof head);
    say(fd, payload.at, payload.size);
}

/* A head for each route: pseudo-headers from the static table, the path as a literal. */
static void request(int fd, uint8_t which, uint8_t flags, uint8_t id, struct span more) {
    static const char *const paths[] = {"/small", "/echo",    "/late",
                                        "/flow",  "/feed",    "/big?size=99999",
                                        "/admin", "/refused", "/any/Method"};
    const char *path = paths[which % ARRAY_SIZE(paths)];
    bool get = which % ARRAY_SIZE(paths) == 0 || path[1] == 'b' || path[2] == 'l';
    struct buf block = buf_new(4 * KIB);
    const uint8_t start[] = {get ? 0x82 : 0x83, 0x86, 0x04, (uint8_t)strlen(path)};
    (void)!buf_add(&block, start, sizeof start);
    (void)!buf_add(&block, path, strlen(path));
    if (which % ARRAY_SIZE(paths) >= 7) /* 31: content-type */
        (void)!buf_add(&block,
                       "\x0f\x10\x10"
                       "application/grpc",
                       19);
    (void)!buf_add_span(&block, more);
    frame(fd, 1, flags, id, buf_span(&block));
    buf_free(&block);
}

/* One step: two bytes what, one how many bytes of the input belong to it, then those. */
static void step(int fd, struct cursor *in) {
    uint8_t what = 0, how = 0, size = 0;
    struct span payload = {0};
    if (cursor_u8(in, &what) != OK || cursor_u8(in, &how) != OK || cursor_u8(in, &size) != OK)
        return;
    (void)!cursor_bytes(in, size < in->left ? size : in->left, &payload);
    uint8_t id = (uint8_t)(how & 0x0f);
    switch (what % 8) {
    case 0: request(fd, (uint8_t)(what >> 3), 0x04 | (how >> 7), id | 1, payload); break;
    case 1: request(fd, (uint8_t)(what >> 3), 0x04, id | 1, span_of(NULL, 0)); break;
    case 2: frame(fd, 0, how >> 7, id | 1, payload); break;
    case 3: frame(fd, what >> 3, how & 0xf0, id, payload); break;
    case 4: turn(fd); break;
    case 5: web_answer_late(&web); break;
    case 6: web.hold = how & 1; break;
    default:
        if (web.fed_by && !web.hold) exchange_resume(web.fed_by);
        break;
    }
}

static void open_web(void) {
    if (web.server) return;
    web_open(&web, NULL);
    web.flow = 200000;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    open_web();
    if (size == 0) return 0;
    int fd = web_connect_unix(&web);
    if (!(data[0] & 2)) say(fd, preface, sizeof preface - 1);
    if (data[0] & 1) {
        say(fd, data + 1, size / 2);
        turn(fd);
        say(fd, data + 1 + size / 2, size - 1 - size / 2);
    } else {
        struct cursor in = cursor_of(span_of(data + 1, size - 1));
        while (in.left > 3)
            step(fd, &in);
    }
    turn(fd);
    turn(fd);
    (void)close(fd);
    for (int i = 0; i < TURNS_MAX && (i < 2 || web.server->own.n > 0); i++) {
        (void)uv_run(&web.loop, UV_RUN_NOWAIT);
        web_answer_late(&web);
    }
    if (web.server->own.n > 0 || web.server->own.http2->pooled > STREAM_POOL_MAX) abort();
    web.hold = false;
    web.fed_by = NULL;
    return 0;
}
