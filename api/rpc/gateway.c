/* etcd's JSON gateway: every method that has a JSON path, as POST with one JSON object as its
 * request (pbjson.h tells the form).
 *
 *   unary     200 and the answer's object; an error is its HTTP status and
 *             {"error":TEXT,"message":TEXT,"code":GRPC CODE}; for our own command line also "name"
 *   streams   200 and a line {"result":OBJECT} for each message; an error is a last line
 *             {"error":{"grpc_code":N,"http_code":N,"message":TEXT,"http_status":TEXT}}, with the
 *             HTTP status if nothing was sent before it
 *   requests of BIDI methods: objects one after the other; the body's end is a half-close
 *
 * Where an object of a body that still comes ends is found by its brackets; what lies between is
 * jansson's to judge. */
#include "api/rpc/call.h"
#include "api/rpc/pbjson.h"

static const char content_type[] = "application/json";

/* As grpc-gateway maps gRPC's codes. */
static const unsigned http_codes[RPC_CODES] = {200, 408, 500, 400, 504, 404, 409, 403, 429,
                                               400, 409, 400, 501, 500, 503, 500, 401};

static unsigned http_code(const struct outcome *o) {
    return o->code < RPC_CODES ? http_codes[o->code] : 500;
}

/* --- answers ---------------------------------------------------------------------------------- */

static struct buf *clean(struct rpc_call *c) {
    struct buf *out = &c->rpcs->json;
    if (out->room > 1 * MIB) buf_wipe(out);
    buf_clear(out);
    return out;
}

static RESULT begin(struct rpc_call *c) {
    if (c->streaming) return OK;
    c->streaming = true;
    return exchange_stream(c->x, content_type);
}

static void write_error(struct jout *j, const struct outcome *o, bool named) {
    jout_open(j, '{');
    jout_put_text(j, "error", o->text);
    jout_put_text(j, "message", o->text);
    jout_put_number(j, "code", o->code);
    if (named && o->name) jout_put_text(j, "name", o->name);
    jout_close(j, '}');
}

static void write_stream_error(struct jout *j, const struct outcome *o) {
    jout_open(j, '{');
    jout_key(j, "error");
    jout_open(j, '{');
    jout_put_number(j, "grpc_code", o->code);
    jout_put_number(j, "http_code", http_code(o));
    jout_put_text(j, "message", o->text);
    jout_put_text(j, "http_status", http_reason(http_code(o)));
    jout_close(j, '}');
    jout_close(j, '}');
}

static void carry_finish(struct rpc_call *c, const struct outcome *o) {
    struct buf *out = clean(c);
    struct jout j;
    bool stream = c->rpc.method->kind != METHOD_UNARY;
    jout_start(&j, out);
    if (o->code != CODE_OK) stream ? write_stream_error(&j, o) : write_error(&j, o, c->named);
    enum err e = jout_end(&j);
    if (e == OK && stream && out->size > 0) e = buf_u8(out, '\n');
    if (e != OK) buf_clear(out);
    if (o->code != CODE_OK && !c->streaming) {
        exchange_answer(c->x, http_code(o), content_type, buf_span(out));
        return;
    }
    e = begin(c);
    if (e == OK && out->size > 0) e = exchange_write(c->x, buf_span(out));
    exchange_end(c->x, e == OK || e == ERR_BUSY);
}

static RESULT write_answer(const struct rpc_call *c, struct span message, struct buf *out) {
    struct jout j;
    jout_start(&j, out);
    TRY(pbjson_write(c->rpc.method->answer, message, &j));
    return jout_end(&j);
}

static void carry_answer(struct rpc_call *c, struct span message) {
    struct buf *out = clean(c);
    enum err e = write_answer(c, message, out);
    if (e == OK && out->size > ANSWER_QUEUE_MAX) {
        e = call_tail(c, buf_span(out));
        if (e == OK) e = begin(c);
        if (e == OK) return;
        buf_wipe(&c->tail);
    }
    if (c->streaming)
        exchange_end(c->x, false);
    else if (e == OK)
        exchange_answer(c->x, 200, content_type, buf_span(out));
    else
        exchange_error(c->x, e, NULL);
}

static RESULT carry_send(struct rpc_call *c, struct span message) {
    struct buf *out = clean(c);
    struct jout j;
    jout_start(&j, out);
    jout_open(&j, '{');
    jout_key(&j, "result");
    TRY(pbjson_write(c->rpc.method->answer, message, &j));
    jout_close(&j, '}');
    TRY(jout_end(&j));
    TRY(buf_u8(out, '\n'));
    TRY(begin(c));
    return exchange_write(c->x, buf_span(out));
}

/* --- requests --------------------------------------------------------------------------------- */

/* As etcd's decoder: what lies behind the object is not looked at, no bytes are an empty one. */
static RESULT parse(struct span text, json_t **out, struct why *why) {
    json_error_t error;
    if (text.size == 0) return jin_parse(text, out, why);
    *out = json_loadb((const char *)text.at, text.size,
                      JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &error);
    if (!*out)
        return fail_with(why, ERR_INVALID, "not JSON: line %d, column %d: %s", error.line,
                         error.column, error.text);
    if (json_is_object(*out)) return OK;
    json_decref(*out);
    return fail_with(why, ERR_INVALID, "not a JSON object");
}

static bool take_object(struct rpc_call *c, struct span text) {
    json_t *object = NULL;
    struct why why = {0};
    struct buf wire = buf_new(RPC_MESSAGE_MAX);
    enum err e = parse(text, &object, &why);
    if (e == OK) {
        e = pbjson_read(c->rpc.method->request, object, &wire, &why);
        jin_wipe(object);
        json_decref(object);
    }
    bool lives =
        e == OK ? call_message(c, buf_span(&wire))
                : call_refuse(c, (unsigned)err_grpc(e), "%s", why.text[0] ? why.text : err_text(e));
    buf_wipe(&wire);
    return lives;
}

/* Looks at one more byte: does an object end with it? */
static bool object_ends(struct rpc_call *c, uint8_t byte) {
    if (c->in_text) {
        if (c->escaped)
            c->escaped = false;
        else if (byte == '\\')
            c->escaped = true;
        else if (byte == '"')
            c->in_text = false;
        return false;
    }
    if (byte == '"') c->in_text = true;
    if (byte == '{' || byte == '[') c->depth++;
    if ((byte == '}' || byte == ']') && c->depth > 0) return --c->depth == 0;
    return false;
}

static bool is_space(uint8_t byte) {
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* Moves the bytes of at most one object to c->in; *whole: it is all there. */
static RESULT gather(struct rpc_call *c, struct cursor *in, bool *whole) {
    struct span piece;
    size_t n = 0;
    *whole = false;
    while (c->in.size == 0 && in->left > 0 && is_space(in->at[0]))
        TRY(cursor_bytes(in, 1, &piece));
    while (n < in->left && !*whole)
        *whole = object_ends(c, in->at[n++]);
    TRY(cursor_bytes(in, n, &piece));
    TRY(buf_add_span(&c->in, piece));
    if (c->in.size > 0 && c->in.at[0] != '{') return ERR_INVALID;
    return OK;
}

static bool process(struct rpc_call *c, struct span bytes) {
    struct cursor in = cursor_of(bytes);
    enum err e = OK;
    while (e == OK && c->x && !c->blocked && in.left > 0) {
        bool whole;
        e = gather(c, &in, &whole);
        if (e != OK || !whole) break;
        struct buf object = c->in;
        c->in = buf_new(HTTP_BODY_MAX);
        bool lives = take_object(c, buf_span(&object));
        buf_wipe(&object);
        if (!lives) return false;
    }
    if (e == OK && c->x) e = buf_add(&c->in, in.at, in.left);
    return e == OK ? true : call_refuse(c, (unsigned)err_grpc(e), "the body is not JSON objects");
}

static bool request_ended(struct rpc_call *c) {
    if (c->in.size > 0) return call_refuse(c, (unsigned)err_grpc(ERR_INVALID), "unexpected EOF");
    return call_ended(c);
}

static bool on_data(struct exchange *x, struct span bytes, bool last) {
    struct rpc_call *c = x->stream;
    c->ending |= last;
    if (!process(c, bytes) || !c->x) return true;
    if (c->blocked) return false;
    if (last) (void)request_ended(c);
    return true;
}

static void carry_room(struct rpc_call *c) {
    struct buf held = c->in;
    c->in = buf_new(HTTP_BODY_MAX);
    c->depth = 0; /* it is looked at from its beginning */
    c->in_text = c->escaped = false;
    bool lives = process(c, buf_span(&held));
    buf_wipe(&held);
    if (!lives || !c->x || c->blocked) return;
    if (c->ending)
        (void)request_ended(c);
    else
        exchange_resume(c->x);
}

static void on_drained(struct exchange *x) {
    struct rpc_call *c = x->stream;
    if (x->gone)
        (void)call_gone(c);
    else
        call_room(c);
}

static const struct carrier carrier = {
    .answer = carry_answer, .send = carry_send, .finish = carry_finish, .room = carry_room};

void gateway_handle(struct exchange *x) {
    const struct api *api = x->ctx;
    struct rpc_call *c = call_begin(x, served_of(api->rpcs, x->route), &carrier);
    if (!c) {
        exchange_error(x, ERR_BUSY, NULL);
        return;
    }
    c->in = buf_new(HTTP_BODY_MAX);
    x->stream = c;
    x->drained = on_drained;
    if (!metadata_read(c) || !call_admit(c)) return;
    if (c->rpc.method->kind != METHOD_BIDI)
        (void)take_object(c, x->body);
    else if (x->body.size > 0) /* HTTP/1.1 gives it whole */
        (void)on_data(x, x->body, true);
    else
        x->data = on_data;
}
