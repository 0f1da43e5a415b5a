/* Typed fields of a JSON object, for the decoders of request.h only. An absent or null field leaves
 * the output as it is; another type is ERR_INVALID with the field's name. `object` NULL: no fields.
 */
#ifndef CONCLAVE_ENGINE_REQUEST_FIELDS_H
#define CONCLAVE_ENGINE_REQUEST_FIELDS_H

#include "api/json.h"

const json_t *field_of(const json_t *object, const char *name); /* NULL: absent or null */
RESULT field_object(const json_t *object, const char *name, const json_t **out, struct why *why);
RESULT field_array(const json_t *object, const char *name, const json_t **out, struct why *why);
RESULT field_bool(const json_t *object, const char *name, bool *out, struct why *why);
RESULT field_number(const json_t *object, const char *name, int64_t least, int64_t most,
                    int64_t *out, struct why *why);
RESULT field_span(const json_t *object, const char *name, struct span *out, struct why *why);
RESULT field_text(const json_t *object, const char *name, char *out, size_t room, struct why *why);
/* Texts by name, encoded as labels (store/node.h) into a new buffer of the caller's. */
RESULT field_labels(const json_t *object, const char *name, struct buf *out, struct why *why);

#endif
