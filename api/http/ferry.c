/* See ferry.h: first what both halves need, then the near half (a handler on the I/O loop's
 * thread), then the far one (a protocol on the handlers' loop). */
#include "api/http/ferry.h"

#include <assert.h>
#include <stdlib.h>

/* --- answers as bytes ------------------------------------------------------------------------ */

/* u8 count, so many times a name and a value as blocks; the content type with its NUL; the body. */
struct carried {
    const struct http_header *headers; /* or trailers */
    unsigned n;                        /* their number */
    const char *type;                  /* content type; NULL: none */
    struct span body;
};

static size_t size_of(const struct carried *a) {
    size_t size = 1 + (a->type ? strlen(a->type) : 0) + 1 + a->body.size;
    for (unsigned i = 0; i < a->n; i++)
        size += 8 + a->headers[i].name.size + a->headers[i].value.size;
    return size;
}

static uint8_t *put(uint8_t *at, const void *from, size_t size) {
    if (size > 0) memcpy(at, from, size);
    return at + size;
}

static uint8_t *put_block(uint8_t *at, struct span s) {
    put_u32(at, (uint32_t)s.size);
    return put(at + 4, s.at, s.size);
}

static struct note *pack(struct mailbox *box, const struct carried *a) {
    struct note *note = mail_note(box, size_of(a));
    if (!note) return NULL;
    uint8_t *at = note_bytes(note);
    *at++ = (uint8_t)a->n;
    for (unsigned i = 0; i < a->n; i++)
        at = put_block(put_block(at, a->headers[i].name), a->headers[i].value);
    note->flag = a->type != NULL;
    at = put(at, a->type ? a->type : "", (a->type ? strlen(a->type) : 0) + 1);
    (void)put(at, a->body.at, a->body.size);
    return note;
}

/* Of our own making, so that it can't be malformed. */
static struct carried unpack(struct note *note, struct http_header headers[IO_HEADERS_MAX]) {
    struct carried a = {.headers = headers};
    struct cursor c = cursor_of(span_of(note_bytes(note), note->size));
    uint8_t n = 0;
    bool good = cursor_u8(&c, &n) == OK && n <= IO_HEADERS_MAX;
    for (; good && a.n < n; a.n++)
        good = cursor_block(&c, c.left, &headers[a.n].name) == OK &&
               cursor_block(&c, c.left, &headers[a.n].value) == OK;
    assert(good);
    if (note->flag) a.type = (const char *)c.at;
    size_t skip = strlen((const char *)c.at) + 1;
    a.body = span_of(c.at + skip, c.left - skip);
    return a;
}

/* --- the near half --------------------------------------------------------------------------- */

static struct note part(struct crossing *c, enum note_kind kind) {
    return (struct note){.part = true, .kind = kind, .about = c};
}

static struct crossing *crossing_new(struct io_loop *io) {
    struct crossing *c = io->pool;
    if (c) {
        io->pool = c->next;
        io->pooled--;
    } else {
        c = malloc(sizeof *c);
        if (!c) return NULL;
    }
    c->near = (struct near_half){.io = io,
                                 .open = part(c, NOTE_OPEN),
                                 .full_note = part(c, NOTE_FULL),
                                 .room = part(c, NOTE_ROOM),
                                 .gone = part(c, NOTE_GONE),
                                 .release = part(c, NOTE_RELEASE)};
    return c;
}

void ferry_returned(struct io_loop *io, struct crossing *c) {
    if (io->pooled == STREAM_POOL_MAX) {
        free(c);
        return;
    }
    c->next = io->pool;
    io->pool = c;
    io->pooled++;
}

void ferry_free_pool(struct io_loop *io) {
    while (io->pool) {
        struct crossing *c = io->pool;
        io->pool = c->next;
        free(c);
    }
}

static void tell(struct crossing *c, struct note *note) { mail_post(&c->near.io->out, note); }

/* Once: the handler need not go on. */
static void tell_gone(struct crossing *c) {
    if (!c->near.told) tell(c, &c->near.gone);
    c->near.told = true;
}

static void broken(struct crossing *c) {
    c->near.broken = true;
    tell_gone(c);
}

static bool near_data(struct exchange *x, struct span bytes, bool end) {
    struct crossing *c = x->stream;
    struct near_half *near = &c->near;
    struct note *note = near->broken ? NULL : mail_note(&near->io->out, bytes.size);
    if (!note) {
        broken(c);
        return true; /* the rest of it is of no use */
    }
    note->about = c;
    note->kind = NOTE_DATA;
    note->flag = end;
    (void)put(note_bytes(note), bytes.at, bytes.size);
    tell(c, note);
    near->given += bytes.size;
    near->full = !end && (near->given >= IO_GIVEN_MAX || near->io->out.backlog > IO_BACKLOG_MAX);
    if (near->full) tell(c, &near->full_note);
    return !near->full;
}

static void near_drained(struct exchange *x) {
    struct crossing *c = x->stream;
    c->near.busy = false;
    if (x->gone) {
        tell_gone(c);
    } else if (c->near.asked) {
        c->near.asked = false;
        tell(c, &c->near.room);
    }
}

void ferry_take(struct request *r) {
    struct exchange *x = &r->exchange;
    struct crossing *c = crossing_new(r->session->lane->io);
    if (!c) {
        exchange_error(x, ERR_NOMEM, NULL);
        return;
    }
    c->near.x = x;
    c->seen = x;
    c->standing = r->session->standing;
    c->far.connection = r->session->far;
    x->stream = c;
    x->drained = near_drained;
    if (x->route->streams) x->data = near_data;
    tell(c, &c->near.open);
}

static void near_ask(struct crossing *c) {
    enum err e = c->near.busy ? ERR_BUSY : exchange_room(c->near.x);
    if (e == OK)
        tell(c, &c->near.room);
    else if (e == ERR_BUSY)
        c->near.asked = true;
    else
        tell_gone(c);
}

static void near_write(struct crossing *c, struct span data) {
    if (c->near.broken) return;
    enum err e = exchange_write(c->near.x, data);
    c->near.busy = e == ERR_BUSY;
    if (e != OK && e != ERR_BUSY) broken(c);
}

static void near_taken(struct crossing *c) {
    c->near.given = c->near.io->out.backlog = 0;
    c->near.full = false;
    exchange_resume(c->near.x);
}

/* The last of the answer. */
static void near_finish(struct crossing *c, struct note *note) {
    struct exchange *x = c->near.x;
    struct http_header headers[IO_HEADERS_MAX];
    c->near.x = NULL;
    if (c->near.broken || note->kind == NOTE_END) {
        exchange_end(x, note->flag && !c->near.broken);
    } else {
        const struct carried a = unpack(note, headers);
        x->headers = a.headers;
        x->n_headers = note->kind == NOTE_ANSWER ? a.n : 0;
        if (note->kind == NOTE_ANSWER)
            exchange_answer(x, note->number, a.type, a.body);
        else
            exchange_trailers(x, a.headers, a.n);
    }
    tell(c, &c->near.release);
}

static void near_begin(struct crossing *c, struct note *note) {
    struct exchange *x = c->near.x;
    struct http_header headers[IO_HEADERS_MAX];
    const struct carried a = unpack(note, headers);
    x->headers = a.headers;
    x->n_headers = a.n;
    if (exchange_stream(x, a.type) != OK) broken(c);
    x->n_headers = 0; /* they lie in the note */
}

void ferry_near(struct crossing *c, struct note *note) {
    switch (note->kind) {
    case NOTE_BEGIN: near_begin(c, note); break;
    case NOTE_WRITE: near_write(c, span_of(note_bytes(note), note->size)); break;
    case NOTE_ASK: near_ask(c); break;
    case NOTE_TAKEN: near_taken(c); break;
    default: near_finish(c, note); break;
    }
}

/* --- the far half: what comes ---------------------------------------------------------------- */

static struct crossing *crossing_of(struct exchange *x) {
    return (struct crossing *)(void *)((uint8_t *)x - offsetof(struct crossing, far.request));
}

static void say(struct crossing *c, struct note *note) {
    mail_post(&c->far.connection->io->in, note);
}

static void copy_head(const struct http_head *from, struct http_head *to) {
    memcpy(to, from, offsetof(struct http_head, headers));
    memcpy(to->headers, from->headers, from->n * sizeof from->headers[0]);
}

static void far_open(struct crossing *c) {
    struct far_half *far = &c->far;
    struct exchange *x = &far->request.exchange;
    struct session *session = &far->connection->session;
    far->written = 0;
    far->asking = far->held = far->last_waits = far->owes = far->finished = false;
    far->waiting = buf_new(CONN_BODIES_MAX);
    far->ask = part(c, NOTE_ASK);
    far->taken = part(c, NOTE_TAKEN);
    far->end = part(c, NOTE_END);
    session->standing = c->standing;
    session->caller = c->seen->caller;
    far->request.session = session;
    request_reset(&far->request);
    copy_head(&c->seen->head, &x->head);
    x->route = c->seen->route;
    x->body = c->seen->body;
    x->http2 = c->seen->http2;
    request_handle(&far->request);
}

static void far_gone(struct crossing *c) {
    struct exchange *x = &c->far.request.exchange;
    x->gone = true;
    x->data = NULL;
    buf_wipe(&c->far.waiting);
    if (x->drained) x->drained(x);
}

static void give(struct crossing *c, struct span bytes, bool end) {
    struct exchange *x = &c->far.request.exchange;
    bool more = !x->data || x->data(x, bytes, end) || end;
    c->far.held = !more && !c->far.finished;
}

static void far_data(struct crossing *c, struct span bytes, bool end) {
    struct far_half *far = &c->far;
    if (far->request.exchange.gone) return;
    if (!far->held) {
        give(c, bytes, end);
        return;
    }
    far->last_waits |= end;
    if (buf_add_span(&far->waiting, bytes) != OK) far_gone(c);
}

static void pay(struct crossing *c) {
    if (!c->far.owes || c->far.held || c->far.finished) return;
    c->far.owes = false;
    say(c, &c->far.taken);
}

static void far_room(struct crossing *c) {
    struct exchange *x = &c->far.request.exchange;
    struct far *connection = c->far.connection;
    c->far.asking = false;
    c->far.written = connection->io->in.backlog = 0;
    if (connection->known < c->far.asked_at) connection->known = c->far.asked_at;
    if (x->drained) x->drained(x);
}

/* The handler may have finished meanwhile: then it is too late for all of these. */
void ferry_far(struct crossing *c, struct note *note) {
    if (note->kind == NOTE_OPEN) {
        far_open(c);
        return;
    }
    if (c->far.finished) return;
    switch (note->kind) {
    case NOTE_DATA: far_data(c, span_of(note_bytes(note), note->size), note->flag); break;
    case NOTE_FULL:
        c->far.owes = true;
        pay(c);
        break;
    case NOTE_ROOM: far_room(c); break;
    default: far_gone(c); break;
    }
}

static void resume(struct exchange *x) {
    struct crossing *c = crossing_of(x);
    struct far_half *far = &c->far;
    if (!far->held || x->gone) return;
    struct buf waiting = far->waiting;
    bool last = far->last_waits;
    far->held = far->last_waits = false;
    far->waiting = buf_new(CONN_BODIES_MAX);
    if (waiting.size > 0 || last) give(c, buf_span(&waiting), last);
    buf_wipe(&waiting);
    pay(c);
}

/* --- the far half: what is answered ---------------------------------------------------------- */

static void finish(struct crossing *c, struct note *note) {
    struct far_half *far = &c->far;
    far->finished = true;
    far->request.exchange.data = NULL;
    far->request.exchange.drained = NULL;
    buf_wipe(&far->waiting);
    say(c, note);
}

/* Without an answer: the client learns that it gets none, or not all of it. */
static void finish_short(struct crossing *c) {
    c->far.end.flag = false;
    finish(c, &c->far.end);
}

static void finish_with(struct crossing *c, enum note_kind kind, unsigned status,
                        const struct carried *a) {
    bool gone = c->far.request.exchange.gone;
    struct note *note = gone ? NULL : pack(&c->far.connection->io->in, a);
    if (!note) {
        finish_short(c);
        return;
    }
    note->kind = kind;
    note->about = c;
    note->number = status;
    c->far.connection->written += note->size;
    finish(c, note);
}

static void answer(struct exchange *x, unsigned status, const char *content_type,
                   struct span body) {
    const struct carried a = {
        .headers = x->headers, .n = x->n_headers, .type = content_type, .body = body};
    finish_with(crossing_of(x), NOTE_ANSWER, status, &a);
}

static void trailers(struct exchange *x, const struct http_header *list, unsigned n) {
    const struct carried a = {.headers = list, .n = n < IO_HEADERS_MAX ? n : IO_HEADERS_MAX};
    finish_with(crossing_of(x), NOTE_TRAILERS, 0, &a);
}

static void end(struct exchange *x, bool whole) {
    struct crossing *c = crossing_of(x);
    c->far.end.flag = whole && !x->gone;
    finish(c, &c->far.end);
}

static RESULT begin_stream(struct exchange *x, const char *content_type) {
    struct crossing *c = crossing_of(x);
    const struct carried a = {.headers = x->headers, .n = x->n_headers, .type = content_type};
    if (x->gone) return ERR_CLOSED;
    struct note *note = pack(&c->far.connection->io->in, &a);
    if (!note) return ERR_NOMEM;
    note->kind = NOTE_BEGIN;
    note->about = c;
    say(c, note);
    return OK;
}

/* ERR_BUSY: it will be told by NOTE_ROOM. */
static RESULT room(struct exchange *x) {
    struct crossing *c = crossing_of(x);
    const struct far *connection = c->far.connection;
    if (x->gone) return ERR_CLOSED;
    if (!c->far.asking && c->far.written <= IO_WRITTEN_MAX && connection->written <= CONN_OUT_MAX &&
        connection->io->in.backlog <= IO_BACKLOG_MAX)
        return OK;
    if (!c->far.asking) say(c, &c->far.ask);
    c->far.asking = true;
    return ERR_BUSY;
}

static RESULT write_piece(struct exchange *x, struct span data) {
    struct crossing *c = crossing_of(x);
    if (x->gone) return ERR_CLOSED;
    struct note *note = mail_note(&c->far.connection->io->in, data.size);
    if (!note) return ERR_NOMEM;
    note->kind = NOTE_WRITE;
    note->about = c;
    (void)put(note_bytes(note), data.at, data.size);
    say(c, note);
    c->far.written += data.size;
    c->far.connection->written += data.size;
    return room(x);
}

const struct protocol ferry_protocol = {.answer = answer,
                                        .stream = begin_stream,
                                        .write = write_piece,
                                        .room = room,
                                        .end = end,
                                        .resume = resume,
                                        .trailers = trailers};
