/* See cli_keyfile.h: files are read into buffers that never move, so that no copy of a key is left
 * behind, and wiped. */
#include "api/cli/cli_keyfile.h"

#include <sodium.h>

#define KEY_FILE_MAX (1 * MIB)

RESULT keyfile_read(const char *path, struct secret **out, struct why *why) {
    struct buf bytes = buf_new(KEY_FILE_MAX);
    uint8_t key[KEY_SIZE];
    enum err e = buf_reserve(&bytes, 4 * KIB);
    if (e == OK) e = cli_read_file(path, &bytes, why);
    if (e == OK && bytes.size < KEY_SIZE)
        e = fail_with(why, ERR_INVALID, "%s: a key file has at least %d bytes", path, KEY_SIZE);
    if (e == OK) {
        (void)crypto_generichash(key, sizeof key, bytes.at, bytes.size, NULL, 0);
        e = secret_new(key, sizeof key, out);
    }
    sodium_memzero(key, sizeof key);
    buf_wipe(&bytes);
    return e;
}

RESULT line_read(const char *path, struct secret **out, struct why *why) {
    struct buf bytes = buf_new(PASSPHRASE_MAX + 2);
    enum err e = buf_reserve(&bytes, PASSPHRASE_MAX + 2);
    if (e == OK) e = cli_read_file(path, &bytes, why);
    const uint8_t *end = e == OK && bytes.size > 0 ? memchr(bytes.at, '\n', bytes.size) : NULL;
    size_t size = end ? (size_t)(end - bytes.at) : bytes.size;
    if (size > 0 && bytes.at[size - 1] == '\r') size--;
    if (e == OK && size == 0) e = fail_with(why, ERR_INVALID, "%s: its first line is empty", path);
    if (e == OK) e = secret_new(bytes.at, size, out);
    buf_wipe(&bytes);
    return e;
}

RESULT unlock_key_read(const char *path, struct secret **out, struct why *why) {
    struct secret *line = NULL;
    char text[PASSPHRASE_MAX + 1] = "";
    TRY(line_read(path, &line, why));
    struct span bytes = secret_span(line);
    if (bytes.size < sizeof text) memcpy(text, bytes.at, bytes.size);
    secret_free(line);
    enum err e = unlock_key_parse(text, out, why);
    sodium_memzero(text, sizeof text);
    return e == OK ? OK : fail_in(why, e, path);
}

RESULT cli_kek(const struct cli *cli, enum kek_kind *kind, struct secret **out, struct why *why) {
    const char *key = cli_option(cli, "unlock-key-file"),
               *phrase = cli_option(cli, "passphrase-file");
    const char *file = cli_option(cli, "key-file");
    *kind = KEK_PLAIN;
    *out = NULL;
    if ((key != NULL) + (phrase != NULL) + (file != NULL) > 1)
        return fail_with(why, ERR_USAGE,
                         "only one of --unlock-key-file, --passphrase-file and --key-file");
    *kind = key ? KEK_UNLOCK_KEY : phrase ? KEK_PASSPHRASE : file ? KEK_FILE : KEK_PLAIN;
    if (key) return unlock_key_read(key, out, why);
    if (phrase) return line_read(phrase, out, why);
    return file ? keyfile_read(file, out, why) : OK;
}
