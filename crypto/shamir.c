/* Shamir's secret sharing, byte by byte over GF(256) with the polynomial of AES (FIPS 197, 4.2):
 * each byte of the key is the value at 0 of a random polynomial of degree k - 1, a share is the
 * values at its x. In the arithmetic no table and no branch depends on a secret.
 *
 * A share, big-endian in base36 with leading zeros, 73 digits:
 *
 *   offset  size  what
 *   0       1     version, 1
 *   1       8     set: random, the same in all shares of one splitting
 *   9       1     k, 2..255
 *   10      1     x, 1..255
 *   11      32    y
 *   43      4     BLAKE2b of all before, the first 4 bytes
 *
 * More shares than k are taken as well; they must lie on the polynomial of the others. */
#include "crypto/shamir.h"

#include "crypto/base36.h"

#include <stdio.h>

#include <sodium.h>

#define PREFIX      "CCLSHARE-1-"
#define PREFIX_SIZE (sizeof PREFIX - 1)
#define DIGITS      73 /* 36^73 > 256^47 */
#define TEXT_SIZE   (PREFIX_SIZE + DIGITS)

#define VERSION 1
#define AT_SET  1
#define SET     8
#define AT_K    9
#define AT_X    10
#define AT_Y    11
#define AT_SUM  43
#define SUM     4
#define RAW     47

/* --- the field --- */

static uint8_t gf_mul(uint8_t a, uint8_t b) {
    unsigned x = a, y = b, product = 0;
    for (int i = 0; i < 8; i++) {
        product ^= (0U - (y & 1U)) & x;
        x = (x << 1) ^ ((0U - (x >> 7)) & 0x11bU);
        y >>= 1;
    }
    return (uint8_t)product;
}

/* a^254, which is 1/a; 0 for 0. */
static uint8_t gf_inverse(uint8_t a) {
    uint8_t power = a, out = 1;
    for (int i = 0; i < 7; i++) {
        power = gf_mul(power, power);
        out = gf_mul(out, power);
    }
    return out;
}

/* --- text --- */

static void sum_of(const uint8_t raw[RAW], uint8_t sum[SUM]) {
    uint8_t whole[crypto_generichash_BYTES];
    (void)crypto_generichash(whole, sizeof whole, raw, AT_SUM, NULL, 0);
    memcpy(sum, whole, SUM);
    sodium_memzero(whole, sizeof whole);
}

/* Uses up `raw`. */
static void share_format(uint8_t raw[RAW], char out[SHARE_TEXT]) {
    sum_of(raw, raw + AT_SUM);
    memcpy(out, PREFIX, PREFIX_SIZE);
    base36_text(raw, RAW, out + PREFIX_SIZE, DIGITS);
    sodium_memzero(raw, RAW);
}

static enum err share_parse(const char *text, uint8_t raw[RAW], struct why *why) {
    uint8_t sum[SUM];
    if (strnlen(text, SHARE_TEXT) != TEXT_SIZE || memcmp(text, PREFIX, PREFIX_SIZE) != 0 ||
        !base36_parse(text + PREFIX_SIZE, DIGITS, raw, RAW))
        return fail_with(why, ERR_INVALID,
                         "not a share: it is " PREFIX " and %d digits and small letters", DIGITS);
    sum_of(raw, sum);
    if (sodium_memcmp(sum, raw + AT_SUM, SUM) != 0)
        return fail_with(why, ERR_INVALID, "this share is mistyped");
    if (raw[0] != VERSION || raw[AT_K] < 2 || raw[AT_X] == 0)
        return fail_with(why, ERR_INVALID, "a share of an unknown kind");
    return OK;
}

RESULT shamir_look(const char *share, unsigned *k, unsigned *x, struct why *why) {
    uint8_t raw[RAW];
    enum err e = share_parse(share, raw, why);
    if (e == OK) {
        *k = raw[AT_K];
        *x = raw[AT_X];
    }
    sodium_memzero(raw, sizeof raw);
    return e;
}

/* --- splitting --- */

/* The values at x: Horner's rule, from the highest coefficient down to the key. */
static void values_at(uint8_t x, unsigned k, const uint8_t *key, const uint8_t *coefficients,
                      uint8_t y[KEY_SIZE]) {
    memset(y, 0, KEY_SIZE); /* to be filled */
    for (unsigned i = k; i-- > 1;)
        for (unsigned b = 0; b < KEY_SIZE; b++)
            y[b] = gf_mul(y[b], x) ^ coefficients[(size_t)(i - 1) * KEY_SIZE + b];
    for (unsigned b = 0; b < KEY_SIZE; b++)
        y[b] = gf_mul(y[b], x) ^ key[b];
}

RESULT shamir_split(const struct secret *key, unsigned k, unsigned n, char (*out)[SHARE_TEXT],
                    struct why *why) {
    struct secret *coefficients;
    uint8_t set[SET], raw[RAW] = {0};
    if (secret_span(key).size != KEY_SIZE)
        return fail_with(why, ERR_INVALID, "the key is not of %d bytes", KEY_SIZE);
    if (k < 2 || k > n || n > SHARES_MAX)
        return fail_with(why, ERR_INVALID, "2 to %d shares, of which 2 to all are needed",
                         SHARES_MAX);
    if (secret_random((size_t)(k - 1) * KEY_SIZE, &coefficients) != OK)
        return fail_with(why, ERR_NOMEM, "shares: out of memory");
    random_bytes(set, sizeof set);
    for (unsigned i = 0; i < n; i++) {
        raw[0] = VERSION;
        memcpy(raw + AT_SET, set, SET);
        raw[AT_K] = (uint8_t)k;
        raw[AT_X] = (uint8_t)(i + 1);
        values_at(raw[AT_X], k, secret_span(key).at, secret_span(coefficients).at, raw + AT_Y);
        share_format(raw, out[i]);
    }
    secret_free(coefficients);
    return OK;
}

/* --- combining --- */

struct shares {
    unsigned n, k;             /* given; needed */
    const uint8_t (*raw)[RAW]; /* n of them, in a secret */
};

/* The factor of share i in the value at x0 of the polynomial through the first k (Lagrange). In
 * this field minus is plus. */
static uint8_t factor(const struct shares *s, unsigned i, uint8_t x0) {
    uint8_t above = 1, below = 1;
    for (unsigned j = 0; j < s->k; j++) {
        if (j == i) continue;
        above = gf_mul(above, s->raw[j][AT_X] ^ x0);
        below = gf_mul(below, s->raw[j][AT_X] ^ s->raw[i][AT_X]);
    }
    return gf_mul(above, gf_inverse(below));
}

static void interpolate(const struct shares *s, uint8_t x0, uint8_t out[KEY_SIZE]) {
    memset(out, 0, KEY_SIZE); /* to be filled */
    for (unsigned i = 0; i < s->k; i++) {
        uint8_t f = factor(s, i, x0);
        for (unsigned b = 0; b < KEY_SIZE; b++)
            out[b] ^= gf_mul(s->raw[i][AT_Y + b], f);
    }
}

static enum err check_set(const struct shares *s, struct why *why) {
    for (unsigned i = 0; i < s->n; i++) {
        if (memcmp(s->raw[i] + AT_SET, s->raw[0] + AT_SET, SET + 1) != 0)
            return fail_with(why, ERR_INVALID, "share %u is not of the same set as share %u",
                             s->raw[i][AT_X], s->raw[0][AT_X]);
        for (unsigned j = 0; j < i; j++)
            if (s->raw[i][AT_X] == s->raw[j][AT_X])
                return fail_with(why, ERR_INVALID, "share %u is given twice", s->raw[i][AT_X]);
    }
    if (s->n < s->k) return fail_with(why, ERR_PRECONDITION, "%u of %u shares", s->n, s->k);
    return OK;
}

static enum err check_rest(const struct shares *s, struct why *why) {
    uint8_t y[KEY_SIZE];
    enum err e = OK;
    for (unsigned i = s->k; e == OK && i < s->n; i++) {
        interpolate(s, s->raw[i][AT_X], y);
        if (sodium_memcmp(y, s->raw[i] + AT_Y, KEY_SIZE) != 0)
            e = fail_with(why, ERR_INVALID, "share %u does not fit the others", s->raw[i][AT_X]);
    }
    sodium_memzero(y, sizeof y);
    return e;
}

static enum err fill_key(void *ctx, uint8_t *at, size_t size) {
    if (size != KEY_SIZE) return ERR_INVALID;
    interpolate(ctx, 0, at);
    return OK;
}

/* Parsed shares are as secret as the key. */
struct parsing {
    const char *const *texts; /* n */
    unsigned n;
    struct why *why; /* may be NULL */
};

static enum err fill_shares(void *ctx, uint8_t *at, size_t size) {
    const struct parsing *p = ctx;
    for (unsigned i = 0; i < p->n && (size_t)(i + 1) * RAW <= size; i++)
        TRY(share_parse(p->texts[i], at + (size_t)i * RAW, p->why));
    return OK;
}

RESULT shamir_combine(const char *const *shares, unsigned n, struct secret **out, struct why *why) {
    struct parsing p = {.texts = shares, .n = n, .why = why};
    struct secret *all;
    if (n == 0) return fail_with(why, ERR_PRECONDITION, "no share is given");
    if (n > SHARES_MAX)
        return fail_with(why, ERR_INVALID, "a key has at most %d shares", SHARES_MAX);
    enum err e = secret_fill((size_t)n * RAW, fill_shares, &p, &all);
    if (e == ERR_NOMEM) return fail_with(why, e, "shares: out of memory");
    TRY(e);
    struct shares s = {.n = n, .raw = (const uint8_t(*)[RAW])(const void *)secret_span(all).at};
    s.k = s.raw[0][AT_K];
    e = check_set(&s, why);
    if (e == OK) e = check_rest(&s, why);
    if (e == OK) e = secret_fill(KEY_SIZE, fill_key, &s, out);
    secret_free(all);
    return e;
}
