/* Numbers as the text that Swarm's ids, root digests and join tokens are made of. */
#ifndef CONCLAVE_BASE36_H
#define CONCLAVE_BASE36_H

#include "crypto/base.h"

/* Writes the low `digits` base36 digits of the big-endian number in `raw`, padded with '0' at the
 * front, and a NUL. `raw` is used up: zeros afterwards when the number fits. */
void base36_text(uint8_t *raw, size_t size, char *out, size_t digits);
/* The number of these digits, big-endian in `raw`; false: another character, or too large. */
bool base36_parse(const char *text, size_t digits, uint8_t *raw, size_t size);

#endif
