/* Long division by 36, digit by digit. The sizes are small (32 bytes at most). */
#include "crypto/base36.h"

/* Divides the number in place and returns the remainder. */
static unsigned divide(uint8_t *raw, size_t size) {
    unsigned rest = 0;
    for (size_t i = 0; i < size; i++) {
        rest = rest << 8 | raw[i];
        raw[i] = (uint8_t)(rest / 36);
        rest %= 36;
    }
    return rest;
}

void base36_text(uint8_t *raw, size_t size, char *out, size_t digits) {
    out[digits] = '\0';
    for (size_t i = digits; i > 0; i--)
        out[i - 1] = "0123456789abcdefghijklmnopqrstuvwxyz"[divide(raw, size)];
}
