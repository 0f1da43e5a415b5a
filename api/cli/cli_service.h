/* What the files of the verbs about services share: cli_service.c (changes), cli_service_show.c
 * (what is shown), cli_service_spec.c (what is to run, as docker's ServiceSpec). */
#ifndef CONCLAVE_CLI_SERVICE_H
#define CONCLAVE_CLI_SERVICE_H

#include "api/cli/cli.h"

/* Options that say what a service is to be; the first ones are those of `create` and `update`, the
 * others of `update` alone. */
extern const struct option_spec service_create_options[], service_update_options[];

/* The spec of a new service: words[0] is its name, the others its command. Free with
 * json_decref. */
RESULT service_spec_new(const struct cli *cli, json_t **out, struct why *why);
/* Changes a spec as the options and the words behind the first one say. ERR_USAGE. */
RESULT service_spec_change(const struct cli *cli, json_t *spec, struct why *why);

#endif
