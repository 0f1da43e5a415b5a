/* Verbs that work on a data directory while no server runs on it: recover and check. They open
 * the keyring with the key that the options give. */
#include <stdio.h>
#include <stdlib.h>

#include "api/app.h"
#include "api/cli/cli_keyfile.h"
#include "api/offline.h"

static const struct option_spec options[] = {
    {"data", "DIR", "the data directory (CONCLAVE_DATA)"},
    {"unlock-key-file", "FILE", "the unlock key, when the node is locked ('-': standard input)"},
    {"passphrase-file", "FILE", "the passphrase that seals its keys"},
    {"key-file", "FILE", "the key file that seals its keys"},
    {"json", NULL, "print JSON"},
    {NULL, NULL, NULL},
};

static const struct option_spec recover_options[] = {
    {"force-new-cluster", NULL,
     "make this node the only member; needed, since the others are cut off by it"},
    {"data", "DIR", "the data directory (CONCLAVE_DATA)"},
    {"unlock-key-file", "FILE", "the unlock key, when the node is locked ('-': standard input)"},
    {"passphrase-file", "FILE", "the passphrase that seals its keys"},
    {"key-file", "FILE", "the key file that seals its keys"},
    {NULL, NULL, NULL},
};

static enum err run_recover(struct cli *cli, struct why *why) {
    enum kek_kind kind;
    struct secret *key = NULL;
    if (!cli_option(cli, "force-new-cluster"))
        return fail_with(
            why, ERR_USAGE,
            "say --force-new-cluster: the node becomes the only member, and what the others "
            "have that this one has not is lost");
    TRY(app_harden(why));
    TRY(cli_kek(cli, &kind, &key, why));
    enum err e = offline_recover(cli_data(cli), (struct kek){.kind = kind, .key = key}, why);
    secret_free(key);
    if (e != OK) return e;
    printf("This node is the only member now. Start it, then let the others join again on empty "
           "directories.\n");
    return cli_flush(why);
}

const struct verb verb_recover = {
    .name = "recover",
    .words = "--force-new-cluster",
    .about = "after a lost quorum: make a stopped node the only member",
    .help = "Take the member that is the most up to date (`conclave check` shows how far each is).",
    .run = run_recover,
    .options = recover_options,
    .local = true,
};

static enum err run_check(struct cli *cli, struct why *why) {
    enum kek_kind kind;
    struct secret *key = NULL;
    struct offline_report report;
    TRY(app_harden(why));
    TRY(cli_kek(cli, &kind, &key, why));
    enum err e = offline_check(cli_data(cli), (struct kek){.kind = kind, .key = key}, &report, why);
    secret_free(key);
    if (e != OK) return e;
    const char *format = cli_json(cli) ? "{\"name\": \"%s\", \"id\": \"%s\", \"snapshot\": %llu, "
                                         "\"first\": %llu, \"last\": %llu, "
                                         "\"term\": %llu}\n"
                                       : "%s (id %s): all files are whole; snapshot at %llu, log "
                                         "from %llu to %llu, term %llu\n";
    printf(format, report.name, report.id, (unsigned long long)report.snapshot,
           (unsigned long long)report.first, (unsigned long long)report.last,
           (unsigned long long)report.term);
    return cli_flush(why);
}

const struct verb verb_check = {
    .name = "check",
    .words = "",
    .about = "verify all files of a stopped node, as a start would",
    .run = run_check,
    .options = options,
    .local = true,
};
