/* backup and restore: see backup.h for the file. */
#include "api/cli.h"

#include "api/backup.h"

static enum err run_backup(struct cli *cli, struct why *why) {
    (void)cli;
    return fail_with(why, ERR_UNSUPPORTED, "not there yet");
}

const struct verb verb_backup = {.name = "backup",
                                 .words = "FILE",
                                 .about = "write the whole state, sealed, while the cluster runs",
                                 .run = run_backup,
                                 .words_min = 1,
                                 .words_max = 1};

const struct verb verb_restore = {.name = "restore",
                                  .words = "FILE",
                                  .about = "make a new cluster of one from a backup",
                                  .run = run_backup,
                                  .words_min = 1,
                                  .words_max = 1,
                                  .local = true};
