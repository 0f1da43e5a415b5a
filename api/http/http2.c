/* A session of HTTP/2 (RFC 9113) over nghttp2: frames in and out, and the bounds that a client
 * meets. One request is a stream, http2_stream.c. What a turn of the loop has to say leaves in one
 * write: answers go to nghttp2 when they are given, and become frames at the turn's end.
 *
 * Floods and their ends: more than STREAMS_MAX requests at once, requests dropped faster than
 * RESETS_PER_S, heads in more than CONTINUATIONS_MAX pieces, more than ACKS_MAX waiting answers to
 * PING and SETTINGS, and CONTROL_FRAMES_MAX frames a second that move nothing all end the
 * connection. Past LIVE_MAX requests at work (those that the client has dropped, but not their
 * handlers) further ones are refused. A client that takes no answers is not read from, and cut
 * after times.stall; so is a single stream of which it takes none. One with open streams that is
 * silent is asked by PING; one without is sent away after times.idle. */
#include <stdlib.h>

#include "api/http/http2_internal.h"

static uint64_t now_of(const struct http2 *h) { return uv_now(h->session->lane->loop); }

void http2_maybe_free(struct http2 *h) {
    struct session *s = h->session;
    if (s->conn || h->leaving || h->first) return;
    free(h);
    session_free(s);
}

/* --- what nghttp2 tells --------------------------------------------------------------------- */

static struct stream *find(const struct http2 *h, int32_t id) {
    return nghttp2_session_get_stream_user_data(h->frames, id);
}

/* A frame that is no request and no answer; too many of them are a flood. */
static void count_control(struct http2 *h) {
    uint64_t now = now_of(h);
    if (now - h->control_ms >= 1000) {
        h->control_ms = now;
        h->control = 0;
    }
    if (++h->control <= CONTROL_FRAMES_MAX || h->calm) return;
    h->calm = true;
    (void)nghttp2_session_terminate_session(h->frames, NGHTTP2_ENHANCE_YOUR_CALM);
}

static int on_begin_headers(nghttp2_session *frames, const nghttp2_frame *frame, void *ctx) {
    struct http2 *h = ctx;
    int32_t id = frame->hd.stream_id;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct stream *st = h->live < LIVE_MAX ? stream_new(h, id) : NULL;
    if (!st)
        return nghttp2_submit_rst_stream(frames, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
    return nghttp2_session_set_stream_user_data(frames, id, st);
}

static int on_header(nghttp2_session *frames, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value, uint8_t flags, void *ctx) {
    (void)frames;
    (void)flags;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct stream *st = find(ctx, frame->hd.stream_id);
    if (st) stream_header(st, name, value);
    return 0;
}

static int on_bytes(nghttp2_session *frames, uint8_t flags, int32_t id, const uint8_t *at,
                    size_t size, void *ctx) {
    struct stream *st = find(ctx, id);
    (void)flags;
    if (!st) return nghttp2_session_consume(frames, id, size);
    (void)nghttp2_session_consume_connection(frames, size);
    stream_bytes(st, span_of(at, size));
    return 0;
}

/* A head or a piece of a body is whole. */
static void on_part(struct http2 *h, const nghttp2_frame *frame) {
    struct stream *st = find(h, frame->hd.stream_id);
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (st && frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        h->control = 0;
        stream_head_end(st);
        st = find(h, frame->hd.stream_id);
    } else if (frame->hd.type == NGHTTP2_DATA ? frame->hd.length == 0 && !end : !end) {
        count_control(h);
    }
    if (st && end) stream_end(st);
}

static int on_frame(nghttp2_session *frames, const nghttp2_frame *frame, void *ctx) {
    struct http2 *h = ctx;
    (void)frames;
    if (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA)
        on_part(h, frame);
    else
        count_control(h);
    return h->session->conn->closing ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_stream_close(nghttp2_session *frames, int32_t id, uint32_t code, void *ctx) {
    struct stream *st = find(ctx, id);
    (void)code;
    if (!st) return 0;
    (void)nghttp2_session_set_stream_user_data(frames, id, NULL);
    stream_closed(st);
    return 0;
}

/* An answer that is complete before its request is: the rest is not wanted (RFC 9113 8.1). */
static int on_sent(nghttp2_session *frames, const nghttp2_frame *frame, void *ctx) {
    bool part = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (!part || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    const struct stream *st = find(ctx, frame->hd.stream_id);
    if (!st || st->ended) return 0;
    return nghttp2_submit_rst_stream(frames, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                     NGHTTP2_NO_ERROR);
}

static ssize_t on_send(nghttp2_session *frames, const uint8_t *at, size_t size, int flags,
                       void *ctx) {
    struct http2 *h = ctx;
    struct conn *c = h->session->conn;
    (void)frames;
    (void)flags;
    h->blocked = conn_queued(c) > CONN_SEND_MAX;
    if (h->blocked) return NGHTTP2_ERR_WOULDBLOCK;
    return conn_write(c, span_of(at, size)) == OK ? (ssize_t)size : NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* --- what all sessions share ---------------------------------------------------------------- */

static void set_callbacks(nghttp2_session_callbacks *to) {
    nghttp2_session_callbacks_set_on_begin_headers_callback(to, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(to, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(to, on_bytes);
    nghttp2_session_callbacks_set_on_frame_recv_callback(to, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(to, on_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(to, on_stream_close);
    nghttp2_session_callbacks_set_send_callback(to, on_send);
    nghttp2_session_callbacks_set_send_data_callback(to, stream_send);
}

static void set_options(nghttp2_option *to) {
    nghttp2_option_set_no_auto_window_update(to, 1);
    nghttp2_option_set_no_closed_streams(to, 1);
    nghttp2_option_set_no_http_messaging(to, 1); /* http2_stream.c checks heads */
    nghttp2_option_set_stream_reset_rate_limit(to, RESETS_BURST, RESETS_PER_S);
    nghttp2_option_set_max_continuations(to, CONTINUATIONS_MAX);
    nghttp2_option_set_max_settings(to, SETTINGS_MAX);
    nghttp2_option_set_max_outbound_ack(to, ACKS_MAX);
}

RESULT http2_setup_new(struct http2_setup **out, struct why *why) {
    struct http2_setup *setup = calloc(1, sizeof *setup);
    if (setup) setup->kept = memory_pool_new(&setup->memory);
    if (setup && setup->kept && nghttp2_session_callbacks_new(&setup->callbacks) == 0 &&
        nghttp2_option_new(&setup->options) == 0) {
        set_callbacks(setup->callbacks);
        set_options(setup->options);
        *out = setup;
        return OK;
    }
    http2_setup_free(setup);
    return fail_with(why, ERR_NOMEM, "no memory for HTTP/2");
}

void http2_setup_free(struct http2_setup *setup) {
    if (!setup) return;
    stream_free_pool(setup);
    nghttp2_session_callbacks_del(setup->callbacks);
    nghttp2_option_del(setup->options);
    memory_pool_free(setup->kept);
    free(setup);
}

/* --- the session ---------------------------------------------------------------------------- */

/* How often time is looked at: nothing here is precise. */
static uint64_t tick_ms(const struct http2 *h) {
    const struct server_times *t = &h->session->server->config.times;
    const uint64_t all[] = {t->request, t->idle, t->ping, t->pong, t->stall};
    uint64_t least = all[0];
    for (size_t i = 1; i < ARRAY_SIZE(all); i++)
        if (all[i] < least) least = all[i];
    return least / 4 + 1;
}

/* Not SETTINGS_NO_RFC7540_PRIORITIES: without the tree of priorities nghttp2 1.52 frees an answer
 * twice when memory fails while it is queued. */
static int send_settings(nghttp2_session *frames) {
    static const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HTTP_HEAD_MAX},
    };
    int rc = nghttp2_submit_settings(frames, NGHTTP2_FLAG_NONE, entries, ARRAY_SIZE(entries));
    if (rc != 0) return rc;
    return nghttp2_session_set_local_window_size(frames, NGHTTP2_FLAG_NONE, 0, CONN_WINDOW);
}

static RESULT start(struct session *s) {
    struct http2_setup *setup = s->lane->http2;
    struct http2 *h = calloc(1, sizeof *h);
    if (!h) return ERR_NOMEM;
    h->session = s;
    h->end = &h->first;
    if (nghttp2_session_server_new3(&h->frames, setup->callbacks, h, setup->options,
                                    &setup->memory) != 0 ||
        send_settings(h->frames) != 0) {
        nghttp2_session_del(h->frames);
        free(h);
        return ERR_NOMEM;
    }
    h->heard_ms = h->used_ms = h->moved_ms = h->control_ms = now_of(h);
    s->state = h;
    conn_timeout(s->conn, tick_ms(h));
    conn_touch(s->conn);
    return OK;
}

static void on_data(struct session *s) {
    struct http2 *h = s->state;
    struct conn *c = s->conn;
    h->heard_ms = now_of(h);
    h->asked_ms = 0;
    if (h->calm) {
        conn_consume(c, c->in.size);
        return;
    }
    ssize_t n = nghttp2_session_mem_recv(h->frames, c->in.at, c->in.size);
    if (c->closing) return;
    if (n < 0) {
        conn_close(c, nghttp2_strerror((int)n));
        return;
    }
    conn_consume(c, c->in.size);
    h->starved = conn_queued(c) > CONN_SEND_MAX;
    if (h->starved) conn_pause(c);
    conn_touch(c);
}

static void on_fill(struct session *s) {
    struct http2 *h = s->state;
    h->blocked = false;
    int rc = nghttp2_session_send(h->frames);
    if (rc != 0)
        conn_close(s->conn, nghttp2_strerror(rc));
    else if (!nghttp2_session_want_read(h->frames) && !nghttp2_session_want_write(h->frames))
        conn_finish(s->conn);
}

/* Each call clears a stream's wish or fills up its room, so this ends. */
static void wake_sources(struct http2 *h) {
    for (struct stream *st = h->first; st && h->waiting > 0;) {
        if (st->waits && stream_has_room(st)) {
            stream_wake(st);
            st = h->first;
        } else {
            st = st->next;
        }
    }
}

static void on_drained(struct session *s) {
    struct http2 *h = s->state;
    wake_sources(h);
    if (h->blocked) conn_touch(s->conn);
    if (h->starved) conn_resume(s->conn);
    h->starved = false;
}

/* --- time ----------------------------------------------------------------------------------- */

static void cut_slow_streams(struct http2 *h, uint64_t now) {
    uint64_t limit = h->session->server->config.times.request;
    uint64_t stall = h->session->server->config.times.stall;
    for (struct stream *st = h->first, *next; st; st = next) {
        next = st->next;
        bool late = now - st->started_ms >= limit;
        if (now - st->moved_ms >= stall && stream_stalls(st))
            stream_reset(st, NGHTTP2_ENHANCE_YOUR_CALM);
        else if (late && !st->ended && !st->finished && !st->closed && (!st->headed || !st->feeds))
            stream_too_slow(st);
    }
}

static void say_goodbye(struct http2 *h) {
    if (h->stopping) return;
    h->stopping = true;
    int32_t last = nghttp2_session_get_last_proc_stream_id(h->frames);
    (void)nghttp2_submit_goaway(h->frames, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
    conn_touch(h->session->conn);
}

/* Is it still there? Asked where there are streams to keep for it. */
static void ask(struct http2 *h, uint64_t now) {
    const struct server_times *t = &h->session->server->config.times;
    if (h->asked_ms && now - h->asked_ms >= t->pong) {
        conn_close(h->session->conn, "it does not answer");
    } else if (!h->asked_ms && now - h->heard_ms >= t->ping) {
        h->asked_ms = now;
        (void)nghttp2_submit_ping(h->frames, NGHTTP2_FLAG_NONE, NULL);
        conn_touch(h->session->conn);
    }
}

static void on_expired(struct session *s) {
    struct http2 *h = s->state;
    const struct server_times *t = &s->server->config.times;
    uint64_t now = now_of(h);
    if (h->answers > 0 && now - h->moved_ms >= t->stall) {
        conn_close(s->conn, "it takes nothing of its answers");
        return;
    }
    cut_slow_streams(h, now);
    if (h->first)
        ask(h, now);
    else if (h->stopping && now - h->used_ms >= t->idle + t->request)
        conn_close(s->conn, "timed out");
    else if (now - h->used_ms >= t->idle)
        say_goodbye(h);
    if (!s->conn->closing) conn_timeout(s->conn, tick_ms(h));
}

/* --- the end -------------------------------------------------------------------------------- */

static void on_stop(struct session *s) { say_goodbye(s->state); }

static struct stream *first_open(const struct http2 *h) {
    struct stream *st = h->first;
    while (st && st->closed)
        st = st->next;
    return st;
}

static void on_left(struct session *s, struct buf *in) {
    struct http2 *h = s->state;
    (void)in;
    nghttp2_session_del(h->frames);
    h->frames = NULL;
    h->leaving = true;
    for (struct stream *st = first_open(h); st; st = first_open(h))
        stream_closed(st);
    h->leaving = false;
    http2_maybe_free(h);
}

const struct protocol http2_protocol = {.start = start,
                                        .data = on_data,
                                        .fill = on_fill,
                                        .drained = on_drained,
                                        .expired = on_expired,
                                        .stop = on_stop,
                                        .left = on_left,
                                        .answer = stream_answer,
                                        .stream = stream_begin,
                                        .write = stream_write,
                                        .room = stream_room,
                                        .end = stream_finish,
                                        .resume = stream_resume,
                                        .trailers = stream_trailers};
