/* The parser of shares on any text, and the combining of any shares. The first byte chooses: lines
 * are shares as they stand; or each 43 bytes are one, with its checksum made to fit (or the fuzzer
 * never gets past it). What is taken as a share must say sensible things of itself, and what
 * combines gives a whole key. */
#include "crypto/base36.h"
#include "crypto/shamir.h"

#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>

#define LIST_MAX 8
#define RAW      47 /* bytes of a share */
#define SUM_AT   43

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(const char *text) {
    unsigned k, x;
    struct why why;
    if (shamir_look(text, &k, &x, &why) != OK) return;
    if (k < 2 || k > SHARES_MAX || x < 1 || x > SHARES_MAX) abort();
}

static size_t line(const uint8_t *at, size_t left, char out[2 * SHARE_TEXT]) {
    const uint8_t *end = memchr(at, '\n', left);
    size_t size = end != NULL ? (size_t)(end - at) : left;
    (void)snprintf(out, 2 * (size_t)SHARE_TEXT, "%.*s", (int)(size < 500 ? size : 500),
                   (const char *)at);
    return size + 1;
}

static size_t mended(const uint8_t *at, size_t left, char out[2 * SHARE_TEXT]) {
    uint8_t raw[RAW] = {0}, sum[crypto_generichash_BYTES];
    size_t size = left < SUM_AT ? left : SUM_AT;
    memcpy(raw, at, size);
    raw[0] = 1; /* the one version */
    (void)crypto_generichash(sum, sizeof sum, raw, SUM_AT, NULL, 0);
    memcpy(raw + SUM_AT, sum, RAW - SUM_AT);
    (void)snprintf(out, 2 * (size_t)SHARE_TEXT, "CCLSHARE-1-");
    base36_text(raw, sizeof raw, out + strlen(out), 73);
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char texts[LIST_MAX][2 * SHARE_TEXT] = {{0}};
    const char *list[LIST_MAX];
    unsigned n = 0;
    struct secret *key = NULL;
    struct why why;
    if (size == 0 || crypto_start(NULL) != OK) return 0;
    for (size_t at = 1; at < size && n < LIST_MAX; n++) {
        at += (data[0] & 1) != 0 ? mended(data + at, size - at, texts[n])
                                 : line(data + at, size - at, texts[n]);
        list[n] = texts[n];
        look(texts[n]);
    }
    enum err e = shamir_combine(list, n, &key, &why);
    if (e == OK && secret_span(key).size != KEY_SIZE) abort();
    secret_free(key);
    return 0;
}
