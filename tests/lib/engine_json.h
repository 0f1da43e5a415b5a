/* What the encoders of the Engine API write, looked into: read back as JSON, its members found by
 * their path, "Spec.Raft.ElectionTick". Everything asserts with cmocka. */
#ifndef CONCLAVE_TEST_ENGINE_JSON_H
#define CONCLAVE_TEST_ENGINE_JSON_H

#include "api/json.h"

json_t *json_of(struct jout *j);                             /* ends and frees it; json_decref */
const json_t *json_at(const json_t *json, const char *path); /* NULL: there is none */
const char *text_at(const json_t *json, const char *path);
int64_t number_at(const json_t *json, const char *path);

#endif
