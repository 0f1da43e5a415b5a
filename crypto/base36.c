/* Long division by 36, digit by digit, and its reverse. The sizes are small (64 bytes at most). */
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

/* Multiplies the number in place and adds; what overflows is given back. */
static unsigned multiply(uint8_t *raw, size_t size, unsigned add) {
    for (size_t i = size; i > 0; i--) {
        unsigned sum = raw[i - 1] * 36U + add;
        raw[i - 1] = (uint8_t)sum;
        add = sum >> 8;
    }
    return add;
}

bool base36_parse(const char *text, size_t digits, uint8_t *raw, size_t size) {
    unsigned over = 0;
    for (size_t i = 0; i < size; i++)
        raw[i] = 0;
    for (size_t i = 0; i < digits; i++) {
        char c = text[i];
        bool digit = c >= '0' && c <= '9', letter = c >= 'a' && c <= 'z';
        if (!digit && !letter) return false;
        over |= multiply(raw, size, (unsigned)(digit ? c - '0' : c - 'a' + 10));
    }
    return over == 0;
}
