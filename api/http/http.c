/* The parser walks lines with one cursor of its own (struct text) that never passes the head's end,
 * which is found first. Each check stands where RFC 9112 demands it; the section is named. */
#include "api/http/http.h"

#include <inttypes.h>
#include <strings.h>

struct text {
    const uint8_t *at;  /* next byte */
    const uint8_t *end; /* behind the last */
};

#define VALUE (HTTP_FIELD)
#define NAME  (HTTP_FIELD | HTTP_TOKEN)
#define LOWER (HTTP_FIELD | HTTP_TOKEN | HTTP_LOWER)

const uint8_t http_chars[256] = {
    ['\t'] = VALUE,         [' '] = VALUE,         ['!'] = LOWER,         ['"'] = VALUE,
    ['#' ... '\''] = LOWER, ['(' ... ')'] = VALUE, ['*' ... '+'] = LOWER, [','] = VALUE,
    ['-' ... '.'] = LOWER,  ['/'] = VALUE,         ['0' ... '9'] = LOWER, [':' ... '@'] = VALUE,
    ['A' ... 'Z'] = NAME,   ['[' ... ']'] = VALUE, ['^' ... 'z'] = LOWER, ['{'] = VALUE,
    ['|'] = LOWER,          ['}'] = VALUE,         ['~'] = LOWER,         [0x80 ... 0xff] = VALUE,
};

bool http_is(struct span text, const char *literal) {
    return text.size == strlen(literal) &&
           strncasecmp((const char *)text.at, literal, text.size) == 0;
}

const struct http_header *http_find(const struct http_head *head, const char *name) {
    for (unsigned i = 0; i < head->n; i++)
        if (http_is(head->headers[i].name, name)) return &head->headers[i];
    return NULL;
}

/* Bytes up to `stop`, which is passed over. */
static RESULT take_until(struct text *t, uint8_t stop, struct span *out) {
    const uint8_t *found = memchr(t->at, stop, (size_t)(t->end - t->at));
    if (!found) return ERR_PROTOCOL;
    *out = span_of(t->at, (size_t)(found - t->at));
    t->at = found + 1;
    return OK;
}

/* One line without its CRLF. A bare CR or LF is refused (RFC 9112 2.2). */
static RESULT take_line(struct text *t, struct span *out) {
    struct span line;
    TRY(take_until(t, '\n', &line));
    if (line.size == 0 || line.at[line.size - 1] != '\r') return ERR_PROTOCOL;
    line.size--;
    if (memchr(line.at, '\r', line.size)) return ERR_PROTOCOL;
    *out = line;
    return OK;
}

RESULT http_parse_decimal(struct span text, uint64_t *out) {
    uint64_t value = 0;
    if (text.size == 0 || text.size > 18) return ERR_PROTOCOL;
    for (size_t i = 0; i < text.size; i++) {
        if (text.at[i] < '0' || text.at[i] > '9') return ERR_PROTOCOL;
        value = value * 10 + (uint64_t)(text.at[i] - '0');
    }
    *out = value;
    return OK;
}

static struct span trim(struct span s) {
    while (s.size > 0 && (s.at[0] == ' ' || s.at[0] == '\t')) {
        s.at++;
        s.size--;
    }
    while (s.size > 0 && (s.at[s.size - 1] == ' ' || s.at[s.size - 1] == '\t'))
        s.size--;
    return s;
}

static RESULT parse_header(struct span line, struct http_header *out, struct why *why) {
    struct text t = {.at = line.at, .end = line.at + line.size};
    struct span name;
    if (take_until(&t, ':', &name) != OK || name.size == 0)
        return fail_with(why, ERR_PROTOCOL, "a header line has no name and colon");
    if (!http_all(name, HTTP_TOKEN))
        return fail_with(why, ERR_PROTOCOL, "a header's name is malformed");
    struct span value = trim(span_of(t.at, (size_t)(t.end - t.at)));
    if (!http_all(value, HTTP_FIELD))
        return fail_with(why, ERR_PROTOCOL, "a header's value is malformed");
    *out = (struct http_header){.name = name, .value = value};
    return OK;
}

/* What the framing headers say (RFC 9112 6); the others are only kept. */
static RESULT note_header(struct http_head *head, const struct http_header *h, struct why *why) {
    if (http_is(h->name, "content-length")) {
        if (head->has_length || http_parse_decimal(h->value, &head->length) != OK)
            return fail_with(why, ERR_PROTOCOL, "Content-Length is repeated or no number");
        head->has_length = true;
    } else if (http_is(h->name, "transfer-encoding")) {
        if (head->chunked || !http_is(h->value, "chunked"))
            return fail_with(why, ERR_PROTOCOL, "Transfer-Encoding can only be chunked, once");
        head->chunked = true;
    } else if (http_is(h->name, "connection")) {
        if (http_is(h->value, "close")) head->keep_alive = false;
    } else if (http_is(h->name, "expect")) {
        head->expect = http_is(h->value, "100-continue");
    }
    return OK;
}

static RESULT parse_headers(struct text *t, struct http_head *head, struct why *why) {
    for (;;) {
        struct span line;
        if (take_line(t, &line) != OK)
            return fail_with(why, ERR_PROTOCOL, "a line does not end in CR LF");
        if (line.size == 0) break;
        if (head->n == HTTP_HEADERS_MAX)
            return fail_with(why, ERR_TOO_LARGE, "more than %d headers", HTTP_HEADERS_MAX);
        TRY(parse_header(line, &head->headers[head->n], why));
        TRY(note_header(head, &head->headers[head->n], why));
        head->n++;
    }
    if (head->chunked && head->has_length)
        return fail_with(why, ERR_PROTOCOL, "both Content-Length and Transfer-Encoding");
    return OK;
}

RESULT http_parse_method(struct span text, enum http_method *out, struct why *why) {
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "DELETE"};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (!span_equal(text, span_str(names[i]))) continue;
        *out = (enum http_method)i;
        return OK;
    }
    return fail_with(why, ERR_UNSUPPORTED, "the method is not supported");
}

RESULT http_parse_target(struct span target, struct http_head *out, struct why *why) {
    if (target.size == 0 || target.at[0] != '/')
        return fail_with(why, ERR_PROTOCOL, "the request's target does not begin with '/'");
    for (size_t i = 0; i < target.size; i++)
        if (target.at[i] <= 0x20 || target.at[i] >= 0x7f || target.at[i] == '#')
            return fail_with(why, ERR_PROTOCOL, "the request's target is malformed");
    const uint8_t *mark = memchr(target.at, '?', target.size);
    size_t path_size = mark ? (size_t)(mark - target.at) : target.size;
    out->path = span_of(target.at, path_size);
    out->query = mark ? span_of(mark + 1, target.size - path_size - 1) : span_of(NULL, 0);
    return OK;
}

/* "HTTP/1.0" or "HTTP/1.1"; 1.0 never keeps the connection here. */
static RESULT parse_version(struct span text, struct http_head *out, bool *modern,
                            struct why *why) {
    *modern = span_equal(text, span_str("HTTP/1.1"));
    if (!*modern && !span_equal(text, span_str("HTTP/1.0")))
        return fail_with(why, ERR_PROTOCOL, "not HTTP/1.1");
    out->keep_alive = *modern;
    return OK;
}

static unsigned count_headers(const struct http_head *head, const char *name) {
    unsigned count = 0;
    for (unsigned i = 0; i < head->n; i++)
        count += http_is(head->headers[i].name, name);
    return count;
}

/* Finds the head's end: the first empty line. */
static RESULT find_head(struct span in, size_t *size, struct why *why) {
    struct span window = span_of(in.at, in.size < HTTP_HEAD_MAX ? in.size : HTTP_HEAD_MAX);
    const uint8_t *end = window.size < 4 ? NULL : memmem(window.at, window.size, "\r\n\r\n", 4);
    *size = end ? (size_t)(end - in.at) + 4 : 0;
    if (!end && in.size >= HTTP_HEAD_MAX)
        return fail_with(why, ERR_TOO_LARGE, "the head passes %llu bytes", HTTP_HEAD_MAX);
    return OK;
}

RESULT http_parse_request(struct span in, struct http_head *out, size_t *used, struct why *why) {
    size_t size;
    TRY(find_head(in, &size, why));
    *used = 0;
    if (size == 0) return OK;
    struct text t = {.at = in.at, .end = in.at + size};
    struct http_head head = {0};
    struct span line, method, target;
    if (take_line(&t, &line) != OK)
        return fail_with(why, ERR_PROTOCOL, "the first line is malformed");
    struct text first = {.at = line.at, .end = line.at + line.size};
    if (take_until(&first, ' ', &method) != OK || take_until(&first, ' ', &target) != OK)
        return fail_with(why, ERR_PROTOCOL, "the first line is not METHOD TARGET VERSION");
    bool modern;
    TRY(parse_version(span_of(first.at, (size_t)(first.end - first.at)), &head, &modern, why));
    TRY(http_parse_method(method, &head.method, why));
    TRY(http_parse_target(target, &head, why));
    TRY(parse_headers(&t, &head, why));
    unsigned hosts = count_headers(&head, "host");
    if (hosts > 1 || (modern && hosts == 0)) /* RFC 9112 3.2 */
        return fail_with(why, ERR_PROTOCOL, "there must be one Host header");
    if (!modern && head.chunked) return fail_with(why, ERR_PROTOCOL, "chunked in HTTP/1.0");
    *out = head;
    *used = size;
    return OK;
}

RESULT http_parse_response(struct span in, struct http_head *out, size_t *used, struct why *why) {
    size_t size;
    TRY(find_head(in, &size, why));
    *used = 0;
    if (size == 0) return OK;
    struct text t = {.at = in.at, .end = in.at + size};
    struct http_head head = {0};
    struct span line, version;
    uint64_t status;
    bool modern;
    if (take_line(&t, &line) != OK)
        return fail_with(why, ERR_PROTOCOL, "the first line is malformed");
    struct text first = {.at = line.at, .end = line.at + line.size};
    if (take_until(&first, ' ', &version) != OK || first.end - first.at < 3 ||
        http_parse_decimal(span_of(first.at, 3), &status) != OK || status < 100)
        return fail_with(why, ERR_PROTOCOL, "the first line is not VERSION STATUS");
    TRY(parse_version(version, &head, &modern, why));
    head.status = (unsigned)status;
    TRY(parse_headers(&t, &head, why));
    *out = head;
    *used = size;
    return OK;
}

/* size line -> data -> the CRLF behind it -> size line ... -> the CRLF behind the last -> done */
enum chunk_state {
    CHUNK_SIZE,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_CR,
    CHUNK_LF,
    CHUNK_END_CR,
    CHUNK_END_LF,
    CHUNK_DONE
};

static RESULT chunk_digit(struct http_chunks *c, uint8_t byte) {
    if (byte == '\r' && c->digits > 0) {
        c->state = CHUNK_SIZE_LF;
        return OK;
    }
    unsigned value;
    if (byte >= '0' && byte <= '9')
        value = byte - (unsigned)'0';
    else if (byte >= 'a' && byte <= 'f')
        value = byte - (unsigned)'a' + 10;
    else if (byte >= 'A' && byte <= 'F')
        value = byte - (unsigned)'A' + 10;
    else
        return ERR_PROTOCOL;
    if (++c->digits > 8) return ERR_PROTOCOL;
    c->left = c->left * 16 + value;
    return OK;
}

/* A byte of the framing around the data. */
static RESULT chunk_frame(struct http_chunks *c, uint8_t byte) {
    static const struct {
        uint8_t byte;
        enum chunk_state next;
    } steps[] = {
        [CHUNK_CR] = {'\r', CHUNK_LF},
        [CHUNK_LF] = {'\n', CHUNK_SIZE},
        [CHUNK_END_CR] = {'\r', CHUNK_END_LF},
        [CHUNK_END_LF] = {'\n', CHUNK_DONE},
    };
    if (c->state == CHUNK_SIZE) return chunk_digit(c, byte);
    if (c->state == CHUNK_SIZE_LF) {
        if (byte != '\n') return ERR_PROTOCOL;
        c->state = c->left > 0 ? CHUNK_DATA : CHUNK_END_CR;
        c->digits = 0;
        return OK;
    }
    if (byte != steps[c->state].byte) return ERR_PROTOCOL;
    c->state = (unsigned)steps[c->state].next;
    return OK;
}

RESULT http_chunks_read(struct http_chunks *c, struct cursor *in, struct buf *body, bool *done) {
    while (in->left > 0 && c->state != CHUNK_DONE) {
        if (c->state != CHUNK_DATA) {
            uint8_t byte;
            TRY(cursor_u8(in, &byte));
            TRY(chunk_frame(c, byte));
            continue;
        }
        struct span data;
        TRY(cursor_bytes(in, c->left < in->left ? (size_t)c->left : in->left, &data));
        if (data.size > body->max - body->size) return ERR_TOO_LARGE;
        TRY(buf_add_span(body, data));
        c->left -= data.size;
        if (c->left == 0) c->state = CHUNK_CR;
    }
    *done = c->state == CHUNK_DONE;
    return OK;
}

static int hex_value(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static RESULT percent_decode(struct span in, char *out, size_t room) {
    size_t size = 0;
    for (size_t i = 0; i < in.size; i++) {
        int byte = in.at[i] == '+' ? ' ' : in.at[i];
        if (byte == '%') {
            if (i + 2 >= in.size) return ERR_INVALID;
            int high = hex_value(in.at[i + 1]), low = hex_value(in.at[i + 2]);
            if (high < 0 || low < 0) return ERR_INVALID;
            byte = high * 16 + low;
            i += 2;
        }
        if (byte == 0 || size + 1 >= room) return ERR_INVALID;
        out[size++] = (char)byte;
    }
    out[size] = 0;
    return OK;
}

RESULT http_query(struct span query, const char *name, char *out, size_t room) {
    size_t name_size = strlen(name);
    while (query.size > 0) {
        const uint8_t *mark = memchr(query.at, '&', query.size);
        size_t size = mark ? (size_t)(mark - query.at) : query.size;
        if (size >= name_size && memcmp(query.at, name, name_size) == 0 &&
            (size == name_size || query.at[name_size] == '=')) {
            size_t skip = size == name_size ? size : name_size + 1;
            return percent_decode(span_of(query.at + skip, size - skip), out, room);
        }
        if (!mark) break;
        query = span_of(mark + 1, query.size - size - 1);
    }
    return ERR_NOT_FOUND;
}

const char *http_reason(unsigned status) {
    static const struct {
        unsigned status;
        const char *reason;
    } table[] = {
        {200, "OK"},
        {201, "Created"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (table[i].status == status) return table[i].reason;
    return "Status";
}

RESULT http_write_answer(struct buf *out, const struct http_answer *a) {
    TRY(buf_format(out, "HTTP/1.1 %u %s\r\n", a->status, http_reason(a->status)));
    if (a->content_type) TRY(buf_format(out, "Content-Type: %s\r\n", a->content_type));
    if (a->chunked)
        TRY(buf_format(out, "Transfer-Encoding: chunked\r\n"));
    else
        TRY(buf_format(out, "Content-Length: %" PRIu64 "\r\n", a->length));
    if (a->close) TRY(buf_format(out, "Connection: close\r\n"));
    if (a->extra) TRY(buf_add(out, a->extra, strlen(a->extra)));
    for (unsigned i = 0; i < a->n_headers; i++) {
        TRY(buf_add_span(out, a->headers[i].name));
        TRY(buf_add(out, ": ", 2));
        TRY(buf_add_span(out, a->headers[i].value));
        TRY(buf_add(out, "\r\n", 2));
    }
    return buf_add(out, "\r\n", 2);
}

RESULT http_write_chunk(struct buf *out, struct span data) {
    TRY(buf_format(out, "%zx\r\n", data.size));
    TRY(buf_add_span(out, data));
    return buf_add(out, "\r\n", 2);
}
