/* A table for people on standard output: titles, then rows of cells, each column as wide as its
 * widest cell, two blanks between. What is not printable in a cell becomes '?', so that a name or a
 * label can't move the cursor. Cells are kept until columns_print; the first error (no memory, too
 * much) sticks and is told by it. */
#ifndef CONCLAVE_CLI_COLUMNS_H
#define CONCLAVE_CLI_COLUMNS_H

#include "crypto/base.h"
#include "crypto/limits.h"

#define COLUMNS_MAX   12
#define COLUMNS_BYTES (64 * MIB) /* of one table */

struct columns {
    unsigned n;                /* columns */
    size_t width[COLUMNS_MAX]; /* characters of the widest cell so far */
    unsigned at;               /* column of the next cell */
    struct buf cells;          /* u32 size and bytes each, row by row */
    enum err error;            /* the first one */
};

/* `titles` ends with NULL. */
void columns_start(struct columns *c, const char *const *titles);
void columns_cell(struct columns *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints and frees. The text alone, for tests: columns_text. */
RESULT columns_print(struct columns *c, struct why *why);
RESULT columns_text(struct columns *c, struct buf *out);

#endif
