/* See cli_columns.h. A character is a UTF-8 sequence; its width is taken for one. */
#include "api/cli/cli_columns.h"

#include <stdarg.h>
#include <stdio.h>

#include "api/cli/cli.h"

#define CELL_MAX 1024

static bool begins_character(uint8_t c) { return (c & 0xc0) != 0x80; }

static void add(struct columns *c, const char *text) {
    uint8_t clean[CELL_MAX] = {0};
    size_t size = 0, width = 0;
    for (; size < CELL_MAX && text[size] != '\0'; size++) {
        uint8_t byte = (uint8_t)text[size];
        clean[size] = byte < ' ' || byte == 127 ? '?' : byte;
        width += begins_character(byte);
    }
    if (width > c->width[c->at]) c->width[c->at] = width;
    c->at = (c->at + 1) % c->n;
    enum err e = c->error == OK ? buf_block(&c->cells, span_of(clean, size)) : c->error;
    if (c->error == OK) c->error = e;
}

void columns_start(struct columns *c, const char *const *titles) {
    *c = (struct columns){.cells = buf_new(COLUMNS_BYTES)};
    while (titles[c->n] != NULL && c->n < COLUMNS_MAX)
        c->n++;
    unsigned n = c->n;
    for (unsigned i = 0; i < n; i++)
        add(c, titles[i]);
}

void columns_cell(struct columns *c, const char *format, ...) {
    char text[CELL_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add(c, text);
}

static RESULT pad(struct buf *out, size_t n) {
    static const char blanks[] = "                                ";
    while (n > 0) {
        size_t some = n < sizeof blanks - 1 ? n : sizeof blanks - 1;
        TRY(buf_add(out, blanks, some));
        n -= some;
    }
    return OK;
}

RESULT columns_text(struct columns *c, struct buf *out) {
    struct cursor in = cursor_of(buf_span(&c->cells));
    struct span cell;
    TRY(c->error);
    size_t due = 0; /* blanks before the next cell: none at a line's end */
    for (unsigned at = 0; in.left > 0; at = (at + 1) % c->n) {
        TRY(cursor_block(&in, CELL_MAX, &cell));
        size_t width = 0;
        for (size_t i = 0; i < cell.size; i++)
            width += begins_character(cell.at[i]);
        if (cell.size > 0) {
            TRY(pad(out, due));
            TRY(buf_add_span(out, cell));
            due = 0;
        }
        due += c->width[at] - width + 2;
        if (at + 1 < c->n) continue;
        TRY(buf_u8(out, '\n'));
        due = 0;
    }
    return OK;
}

RESULT columns_print(struct columns *c, struct why *why) {
    struct buf out = buf_new(COLUMNS_BYTES);
    enum err e = columns_text(c, &out);
    if (e == OK) (void)fwrite(out.at, 1, out.size, stdout);
    buf_free(&out);
    buf_free(&c->cells);
    return e == OK ? cli_flush(why) : e;
}
