/* See request.h: the body that makes or changes a secret or config. The value comes as base64; it
 * is decoded into secret memory at once, and goes on as that. */
#include <sodium.h>

#include "api/engine/request.h"
#include "api/engine/request_fields.h"

static size_t size_max(enum row_kind kind) {
    return kind == ROW_SECRET ? SECRET_SIZE_MAX : CONFIG_SIZE_MAX;
}

static RESULT refuse_size(enum row_kind kind, struct why *why) {
    return fail_with(why, ERR_TOO_LARGE, "%s data must be larger than 0 and less than %zu bytes",
                     kind == ROW_SECRET ? "secret" : "config", size_max(kind) + 1);
}

static bool is_blank(char c) { return c == '\r' || c == '\n'; }

/* Bytes that a base64 text stands for, by its length alone; the text itself is judged below. */
static size_t decoded_size(struct span text) {
    size_t size = 0, pads = 0;
    for (size_t i = 0; i < text.size; i++) {
        size += !is_blank((char)text.at[i]);
        pads += text.at[i] == '=';
    }
    return size % 4 != 0 || pads > 2 ? 0 : size / 4 * 3 - (size > 0 ? pads : 0);
}

static enum err fill_decoded(void *ctx, uint8_t *at, size_t size) {
    const struct span *text = ctx;
    size_t got = 0;
    int bad = sodium_base642bin(at, size, (const char *)text->at, text->size, "\r\n", &got, NULL,
                                sodium_base64_VARIANT_ORIGINAL);
    return bad != 0 || got != size ? ERR_INVALID : OK;
}

static RESULT decode_data(const json_t *object, enum row_kind kind, struct engine_held_spec *out,
                          struct why *why) {
    const json_t *value = field_of(object, "Data");
    struct span text = span_of("", 0);
    out->has_data = value != NULL;
    TRY(field_span(object, "Data", &text, why));
    if (text.size == 0) return OK;
    size_t size = decoded_size(text);
    if (size > size_max(kind)) return refuse_size(kind, why);
    enum err e = size == 0 ? ERR_INVALID : secret_fill(size, fill_decoded, &text, &out->data);
    return e == ERR_INVALID ? fail_with(why, e, "field Data is not base64") : e;
}

/* A driver, of values or of templates: {Name, Options}. */
static RESULT decode_driver(const json_t *object, const char *name, char word[HELD_WORD_MAX + 1],
                            struct buf *options, struct why *why) {
    const json_t *driver;
    TRY(field_object(object, name, &driver, why));
    if (!driver) return OK;
    TRY(field_text(driver, "Name", word, HELD_WORD_MAX + 1, why));
    TRY(field_labels(driver, "Options", options, why));
    if (word[0]) return OK;
    return fail_with(why, ERR_INVALID, "driver must have a name: field %s", name);
}

static RESULT decode(const json_t *object, enum row_kind kind, struct engine_held_spec *out,
                     struct why *why) {
    TRY(field_span(object, "Name", &out->name, why));
    TRY(field_labels(object, "Labels", &out->labels, why));
    TRY(decode_driver(object, "Templating", out->templating, &out->templating_options, why));
    if (kind == ROW_SECRET)
        TRY(decode_driver(object, "Driver", out->driver, &out->driver_options, why));
    return decode_data(object, kind, out, why);
}

RESULT engine_held_decode(const json_t *object, enum row_kind kind, struct engine_held_spec *out,
                          struct why *why) {
    *out = (struct engine_held_spec){.name = span_of("", 0)};
    enum err e = decode(object, kind, out, why);
    if (e != OK) engine_held_free(out);
    return e;
}

void engine_held_free(struct engine_held_spec *s) {
    secret_free(s->data);
    s->data = NULL;
    buf_free(&s->labels);
    buf_free(&s->templating_options);
    buf_free(&s->driver_options);
}
