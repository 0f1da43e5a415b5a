/* See io_loop.h. Handles are set up before the thread runs, on both loops; from then on each thread
 * touches its own ones. */
#include "api/http/io_loop.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/http/ferry.h"
#include "raft/loop.h"

/* --- the thread ------------------------------------------------------------------------------ */

static struct io_loop *io_of(struct lane *lane) { return lane->io; }

static void adopt(struct io_loop *io, struct far *far) {
    struct why why = {0};
    struct arrival a = {.fd = far->fd,
                        .pipe = far->pipe,
                        .started = far->tls,
                        .cluster_id = far->session.cluster_id,
                        .far = far};
    if (lane_take(&io->lane, &a, &why) == OK) return;
    log_event(io->server->config.log, LOG_WARNING, "api", "%s", why.text);
    io_loop_left(far);
}

static void review(struct io_loop *io, struct tls_context *by) {
    lane_review(&io->lane, by);
    tls_context_release(by);
}

void io_loop_left(struct far *far) { mail_post(&far->io->out, &far->left); }

/* Its last act: with these handles gone the loop ends. */
static void on_lane_gone(struct lane *lane) {
    struct io_loop *io = io_of(lane);
    mail_post(&io->out, &io->done);
    mail_close_sender(&io->out, NULL);
    mail_close_receiver(&io->in, NULL);
}

static void on_thread_note(struct mailbox *box, struct note *note) {
    struct io_loop *io = box->ctx;
    switch (note->kind) {
    case NOTE_ADOPT: adopt(io, note->about); break;
    case NOTE_REVIEW: review(io, note->about); break;
    case NOTE_STOP: lane_stop(&io->lane); break;
    case NOTE_ABANDON: uv_stop(&io->loop); break;
    default: ferry_near(note->about, note); break;
    }
    if (!note->part) mail_spend(box, note);
}

static void run(void *ctx) {
    struct io_loop *io = ctx;
    loop_block_sigpipe();
    (void)uv_run(&io->loop, UV_RUN_DEFAULT);
}

/* --- the main loop --------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle) {
    struct mailbox *box = handle->data;
    struct io_loop *io = box->ctx;
    struct server *s = io->server;
    if (--io->handles > 0) return;
    mail_free(&io->in);
    mail_free(&io->out);
    ferry_free_pool(io);
    (void)uv_loop_close(&io->loop);
    s->io[io->number] = NULL;
    s->io_live--;
    free(io);
    server_maybe_closed(s);
}

static void end(struct io_loop *io) {
    if (!io->ended) (void)uv_thread_join(&io->thread);
    io->ended = true;
    io->handles = 3;
    mail_close_receiver(&io->out, on_handle_closed);
    mail_close_sender(&io->in, on_handle_closed);
}

static void forget(struct far *far) {
    far->io->connections--;
    free(far);
}

static void on_main_note(struct mailbox *box, struct note *note) {
    struct io_loop *io = box->ctx;
    switch (note->kind) {
    case NOTE_LEFT: forget(note->about); return;
    case NOTE_DONE: end(io); return;
    case NOTE_RELEASE: mail_spend(box, note); return;
    case NOTE_OPEN: io->requests++; break;
    default: break;
    }
    ferry_far(note->about, note);
    if (!note->part) mail_spend(box, note);
}

static void on_returned(struct mailbox *box, struct note *note) {
    ferry_returned(box->ctx, note->about);
}

static RESULT open_boxes(struct io_loop *io) {
    uv_loop_t *main_loop = io->server->config.loop;
    io->in.arrived = on_thread_note;
    io->out.arrived = on_main_note;
    io->out.returned = on_returned;
    io->in.ctx = io->out.ctx = io;
    TRY(mail_open(&io->in, main_loop, &io->loop));
    return mail_open(&io->out, &io->loop, main_loop);
}

static RESULT open_all(struct io_loop *io, struct why *why) {
    if (uv_loop_init(&io->loop) != 0) return fail_with(why, ERR_NOMEM, "no event loop");
    TRY(lane_open(&io->lane, io->server, &io->loop, io, why));
    io->lane.gone = on_lane_gone;
    return open_boxes(io) == OK ? OK : fail_with(why, ERR_NOMEM, "no event loop");
}

/* What could not even be set up stays with the main loop, which some of its handles are in: the
 * program does not go on without it. */
RESULT io_loop_start(struct server *s, unsigned number, struct io_loop **out, struct why *why) {
    struct io_loop *io = calloc(1, sizeof *io);
    if (!io) return fail_with(why, ERR_NOMEM, "no memory for a loop of clients");
    io->server = s;
    io->number = number;
    io->stop = (struct note){.part = true, .kind = NOTE_STOP};
    io->done = (struct note){.part = true, .kind = NOTE_DONE};
    TRY(open_all(io, why));
    s->io_live++;
    if (uv_thread_create(&io->thread, run, io) == 0) {
        *out = io;
        return OK;
    }
    io->ended = true; /* its loop is run to its end here */
    lane_stop(&io->lane);
    run(io);
    return fail_with(why, ERR_NOMEM, "no thread for clients");
}

union accepted {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
};

static void on_accepted_closed(uv_handle_t *handle) { free(handle); }

/* libuv accepts into a handle of the listener's loop; what is wanted of it is the descriptor. */
static int take_descriptor(uv_stream_t *listener, union accepted *at) {
    uv_os_fd_t fd;
    int copy = -1;
    if (listener->type == UV_NAMED_PIPE)
        (void)uv_pipe_init(listener->loop, &at->pipe, 0);
    else
        (void)uv_tcp_init(listener->loop, &at->tcp);
    if (uv_accept(listener, &at->stream) == 0 && uv_fileno(&at->handle, &fd) == 0)
        copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    uv_close(&at->handle, on_accepted_closed);
    return copy;
}

static RESULT fill(struct far *far, const struct arrival *a, union accepted *at, struct why *why) {
    far->fd = take_descriptor(a->listener, at);
    if (far->fd < 0) return fail_with(why, ERR_IO, "it has no descriptor");
    enum err e = a->tls ? tls_new(a->tls, NULL, &far->tls, why) : OK;
    if (e != OK) (void)close(far->fd);
    return e;
}

RESULT io_loop_give(struct io_loop *io, const struct arrival *a, struct why *why) {
    struct far *far = calloc(1, sizeof *far);
    union accepted *at = malloc(sizeof *at);
    if (!far || !at) {
        free(far);
        free(at);
        conn_refuse(&io->server->own.conns, a->listener);
        return fail_with(why, ERR_NOMEM, "no memory for a connection");
    }
    enum err e = fill(far, a, at, why);
    if (e != OK) {
        free(far);
        return e;
    }
    far->io = io;
    far->pipe = a->pipe;
    far->session.server = io->server;
    far->session.protocol = &ferry_protocol;
    (void)snprintf(far->session.cluster_id, sizeof far->session.cluster_id, "%s", a->cluster_id);
    far->adopt = (struct note){.part = true, .kind = NOTE_ADOPT, .about = far};
    far->left = (struct note){.part = true, .kind = NOTE_LEFT, .about = far};
    io->connections++;
    mail_post(&io->in, &far->adopt);
    return OK;
}

RESULT io_loop_review(struct io_loop *io, struct tls_context *by) {
    struct note *note = mail_note(&io->in, 0);
    if (!note) return ERR_NOMEM;
    note->kind = NOTE_REVIEW;
    note->about = tls_context_share(by);
    mail_post(&io->in, note);
    return OK;
}

void io_loop_stop(struct io_loop *io) { mail_post(&io->in, &io->stop); }

void io_loop_abandon(struct io_loop *io) {
    if (io->ended) return;
    struct note *note = mail_note(&io->in, 0);
    if (!note) return;
    note->kind = NOTE_ABANDON;
    mail_post(&io->in, note);
    mail_flush(&io->in);
    (void)uv_thread_join(&io->thread);
    io->ended = true;
}
