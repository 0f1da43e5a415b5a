/* The key that seals a node's keyring, as the command line gives it: --unlock-key-file,
 * --passphrase-file or --key-file. Keys come from files and standard input, never from
 * arguments. */
#ifndef CONCLAVE_CLI_KEYFILE_H
#define CONCLAVE_CLI_KEYFILE_H

#include "api/cli/cli.h"
#include "crypto/keyring.h"

/* KEK_PLAIN and NULL when no option says otherwise; the caller frees *out. */
RESULT cli_kek(const struct cli *cli, enum kek_kind *kind, struct secret **out, struct why *why);

/* A key file: 32 bytes or more, hashed (BLAKE2b-256) to the key. */
RESULT keyfile_read(const char *path, struct secret **out, struct why *why);
/* The first line of a file ("-": standard input), without its newline. */
RESULT line_read(const char *path, struct secret **out, struct why *why);
/* The unlock key in a file's first line. */
RESULT unlock_key_read(const char *path, struct secret **out, struct why *why);

#endif
