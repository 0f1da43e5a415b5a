/* What the files of the verbs about secrets and configs share (cli_held.c: changes,
 * cli_held_show.c: what is shown, cli_vault.c: shred). */
#ifndef CONCLAVE_CLI_HELD_H
#define CONCLAVE_CLI_HELD_H

#include "api/cli/cli.h"

/* "secret" or "config", as the verb's name begins. */
const char *cli_kind(const struct cli *cli);

#endif
