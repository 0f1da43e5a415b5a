/* The program `conclave`: server and command line. All of it is behind cli_main. */
#include <malloc.h>
#include <stdlib.h>

#include <jansson.h>
#include <sodium.h>

#include "api/cli/cli.h"

/* Requests bring secrets as texts in JSON, which its parser copies about: nothing of them is left
 * in memory that it gives back. */
static void wipe_and_free(void *at) {
    if (at) sodium_memzero(at, malloc_usable_size(at));
    free(at);
}

int main(int argc, char **argv) {
    json_set_alloc_funcs(malloc, wipe_and_free);
    return cli_main(argc, argv);
}
