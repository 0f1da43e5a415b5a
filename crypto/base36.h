/* Private to crypto/: numbers as the text that Swarm's ids and join tokens are made of. */
#ifndef CONCLAVE_BASE36_H
#define CONCLAVE_BASE36_H

#include "crypto/base.h"

/* Writes the low `digits` base36 digits of the big-endian number in `raw`, padded with '0' at the
 * front, and a NUL. `raw` is used up: zeros afterwards when the number fits. */
void base36_text(uint8_t *raw, size_t size, char *out, size_t digits);

#endif
