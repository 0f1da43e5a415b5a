/* A connection to a supervisor, on the loop. Frames go out in the order in which they were said;
 * the bytes of a file are written from the guarded memory that they are in. A frame that comes is
 * handed on whole.
 *
 * Failure: whatever goes wrong closes the link, once, told by `closed`, from the loop. Close:
 * link_close lets what was said go out first; a supervisor that doesn't read ends it after
 * CLOSE_MS. / */
#include "api/task/runner_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLOSE_MS 5000

struct link_end {
    uv_pipe_t pipe;
    uv_timer_t timer;
    const struct link_events *on;
    void *ctx;
    unsigned handles, writes;
    bool deaf;    /* no event comes any more */
    bool closing; /* the handles are */
    bool failed;  /* to be closed in the next turn */
    struct buf in;
    char read[4096];
};

struct piece {
    uv_write_t write;
    struct link_end *link;
    struct held *value; /* its bytes are part of it; NULL */
    size_t size;
    uint8_t bytes[];
};

static void on_handle_closed(uv_handle_t *handle) {
    struct link_end *l = handle->data;
    if (--l->handles > 0) return;
    buf_wipe(&l->in);
    free(l);
}

static void close_now(struct link_end *l) {
    if (l->closing) return;
    l->closing = true;
    uv_close((uv_handle_t *)&l->pipe, on_handle_closed);
    uv_close((uv_handle_t *)&l->timer, on_handle_closed);
}

static void broken(struct link_end *l) {
    if (l->closing) return;
    bool deaf = l->deaf;
    l->deaf = true;
    close_now(l);
    if (!deaf) l->on->closed(l->ctx);
}

static void on_failed(uv_timer_t *timer) { broken(timer->data); }

/* From a call: told in the next turn. */
static void fail_soon(struct link_end *l) {
    if (l->failed || l->closing) return;
    l->failed = true;
    (void)uv_timer_start(&l->timer, on_failed, 0, 0);
}

/* --- in --------------------------------------------------------------------------------------- */

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    struct link_end *l = handle->data;
    (void)suggested;
    *out = uv_buf_init(l->read, sizeof l->read);
}

/* One frame of what has come; false: there is none. */
static bool take_frame(struct link_end *l) {
    if (l->in.size < SUP_HEAD || l->deaf) return false;
    size_t size = get_u32(l->in.at);
    if (size == 0 || size > LINK_IN_MAX - 4) {
        broken(l);
        return false;
    }
    if (l->in.size < 4 + size) return false;
    l->on->frame(l->ctx, l->in.at[4], span_of(l->in.at + SUP_HEAD, size - 1));
    l->in.size -= 4 + size;
    memmove(l->in.at, l->in.at + 4 + size, l->in.size);
    return true;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes) {
    struct link_end *l = stream->data;
    if (n == 0) return;
    if (n < 0 || buf_add(&l->in, bytes->base, (size_t)n) != OK) {
        broken(l);
        return;
    }
    while (take_frame(l))
        continue;
}

RESULT link_open(uv_loop_t *loop, int fd, const struct link_events *on, void *ctx,
                 struct link_end **out) {
    struct link_end *l = calloc(1, sizeof *l);
    if (!l) {
        (void)close(fd);
        return ERR_NOMEM;
    }
    *l = (struct link_end){.on = on, .ctx = ctx, .in = buf_new(2 * LINK_IN_MAX)};
    (void)uv_pipe_init(loop, &l->pipe, 0); /* neither can fail */
    (void)uv_timer_init(loop, &l->timer);
    l->pipe.data = l->timer.data = l;
    l->handles = 2;
    if (uv_pipe_open(&l->pipe, fd) != 0) {
        (void)close(fd);
        l->deaf = true;
        close_now(l);
        return ERR_IO;
    }
    if (uv_read_start((uv_stream_t *)&l->pipe, on_room, on_read) != 0) fail_soon(l);
    *out = l;
    return OK;
}

/* --- out -------------------------------------------------------------------------------------- */

static void on_written(uv_write_t *write, int status) {
    struct piece *p = write->data;
    struct link_end *l = p->link;
    held_drop(p->value);
    free(p);
    l->writes--;
    if (l->closing) return;
    if (l->deaf && l->writes == 0)
        close_now(l);
    else if (status != 0)
        broken(l);
}

/* The frame's head and `body`, then `shared`, which is of `value`. */
static void say(struct link_end *l, enum sup_kind kind, struct span body, struct span shared,
                struct held *value) {
    size_t size = SUP_HEAD + body.size;
    struct piece *p = l->closing || l->failed ? NULL : malloc(sizeof *p + size);
    if (!p) {
        fail_soon(l);
        return;
    }
    *p = (struct piece){.link = l, .size = size};
    p->write.data = p;
    put_u32(p->bytes, (uint32_t)(1 + body.size + shared.size));
    p->bytes[4] = (uint8_t)kind;
    if (body.size > 0) memcpy(p->bytes + SUP_HEAD, body.at, body.size);
    uv_buf_t out[2] = {uv_buf_init((char *)p->bytes, (unsigned)size),
                       uv_buf_init((char *)(uintptr_t)shared.at, (unsigned)shared.size)};
    if (uv_write(&p->write, (uv_stream_t *)&l->pipe, out, shared.size > 0 ? 2 : 1, on_written) !=
        0) {
        free(p);
        fail_soon(l);
        return;
    }
    if (value) p->value = held_keep(value);
    l->writes++;
}

void link_say(struct link_end *l, enum sup_kind kind, struct span body) {
    say(l, kind, body, (struct span){0}, NULL);
}

static void say_file(struct link_end *l, const struct sup_file *f) {
    struct buf head = buf_new(4 * KIB);
    if (sup_file_encode(f, &head) != OK)
        fail_soon(l);
    else
        link_say(l, SUP_FILE, buf_span(&head));
    buf_free(&head);
}

/* A config's "app" is "/app". */
void link_put(struct link_end *l, const struct assign_file *f, struct held *value) {
    struct sup_file file = {.kind = f->kind,
                            .version = f->version,
                            .uid = f->uid,
                            .gid = f->gid,
                            .mode = f->mode,
                            .size = held_size(value)};
    bool config = f->kind == ROW_CONFIG && f->target[0] != '/';
    memcpy(file.id, f->id, sizeof file.id);
    (void)snprintf(file.target, sizeof file.target, "%s%.*s", config ? "/" : "", TARGET_MAX - 1,
                   f->target);
    say_file(l, &file);
    struct span left = value->bytes ? secret_span(value->bytes) : (struct span){0};
    while (left.size > 0) {
        size_t n = left.size < SUP_DATA_MAX ? left.size : SUP_DATA_MAX;
        say(l, SUP_DATA, (struct span){0}, span_of(left.at, n), value);
        left = span_of(left.at + n, left.size - n);
    }
}

void link_close(struct link_end *l) {
    if (!l || l->closing) return;
    l->deaf = true;
    (void)uv_read_stop((uv_stream_t *)&l->pipe);
    if (l->writes == 0 || l->failed)
        close_now(l);
    else
        (void)uv_timer_start(&l->timer, on_failed, CLOSE_MS, 0);
}
