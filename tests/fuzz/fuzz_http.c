/* Any bytes as a request, a response, a chunked body cut in two, and a query: no fault, and what
 * was parsed lies within the input. */
#include <stdlib.h>

#include "api/http/http.h"

static void inside(struct span part, struct span whole) {
    if (part.size > 0 && (part.at < whole.at || part.at + part.size > whole.at + whole.size))
        abort();
}

static void check_head(struct span in, const struct http_head *head, size_t used) {
    if (used > in.size || head->n > HTTP_HEADERS_MAX) abort();
    if (used == 0) return;
    struct span whole = span_of(in.at, used);
    inside(head->path, whole);
    inside(head->query, whole);
    for (unsigned i = 0; i < head->n; i++) {
        inside(head->headers[i].name, whole);
        inside(head->headers[i].value, whole);
    }
    if (head->chunked && head->has_length) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct span in = span_of(data, size);
    struct http_head head = {0};
    struct why why;
    size_t used = 0;
    if (http_parse_request(in, &head, &used, &why) == OK) check_head(in, &head, used);
    if (http_parse_response(in, &head, &used, &why) == OK) check_head(in, &head, used);
    char value[32];
    (void)!http_query(in, "a", value, sizeof value);
    struct http_chunks chunks = {0};
    struct buf body = buf_new(64 * KIB);
    bool done = false;
    struct cursor first = cursor_of(span_of(data, size / 2));
    struct cursor rest = cursor_of(span_of(data + size / 2, size - size / 2));
    if (http_chunks_read(&chunks, &first, &body, &done) == OK && !done)
        (void)!http_chunks_read(&chunks, &rest, &body, &done);
    buf_free(&body);
    return 0;
}
