/* Keys of another store on their way into this one, as bytes: what `conclave import` sends to
 * /conclave/v1/import and what OP_IMPORT carries (store/command.h). One key, integers
 * little-endian: u64 create revision, u64 mod revision, u64 version, u64 lease, then key and value,
 * each u32 length + bytes. */
#ifndef CONCLAVE_IMPORT_H
#define CONCLAVE_IMPORT_H

#include "store/store.h"

RESULT import_add(struct buf *rows, const struct kv *kv);
RESULT import_next(struct cursor *rows, struct kv *out); /* ERR_INVALID */

#endif
