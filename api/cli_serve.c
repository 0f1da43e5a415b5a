/* conclave serve: reads options and key files into an app_config, and runs the app. */
#include "api/cli.h"

#include <sodium.h>
#include <stdio.h>
#include <unistd.h>

#include "api/app.h"
#include "api/cli_keyfile.h"
#include "raft/loop.h"

static const struct option_spec options[] = {
    {"data", "DIR",
     "data directory (CONCLAVE_DATA); /var/lib/conclave, or ./conclave-data if not root"},
    {"name", "NAME", "this node's name; the machine's unless told"},
    {"client", "ADDR:PORT", "where clients are served; 127.0.0.1:2379 unless told"},
    {"peer", "ADDR:PORT", "where the other members are; 127.0.0.1:2377 unless told"},
    {"advertise", "HOST", "how others reach this machine, when ADDR is 0.0.0.0 or behind NAT"},
    {"init", NULL, "found a cluster when the directory is empty"},
    {"join", "HOST:PORT", "join a cluster through this member's peer address when it is empty"},
    {"token", "TOKEN", "the join token; '-' reads it from standard input"},
    {"autolock", NULL, "with --init: every restart of a member needs the unlock key"},
    {"unlock-key-file", "FILE", "a file with the unlock key (SWMKEY-1-...)"},
    {"passphrase-file", "FILE", "seal this node's keys by the passphrase in FILE"},
    {"key-file", "FILE", "seal this node's keys by the bytes of FILE (32 or more)"},
    {"client-insecure", "[force]", "clients without TLS, on loopback; =force: on any address"},
    {"verbose", NULL, "log more"},
    {NULL, NULL, NULL},
};

static RESULT copy(char *out, size_t room, const char *text, const char *what, struct why *why) {
    if (strlen(text) >= room) return fail_with(why, ERR_USAGE, "--%s is too long", what);
    memcpy(out, text, strlen(text) + 1);
    return OK;
}

static RESULT check_port(const char *text, const char *what, struct address *parts,
                         struct why *why) {
    enum err e = address_split(text, parts, why);
    if (e == OK && strcmp(parts->port, "0") == 0)
        e = fail_with(why, ERR_USAGE, "port 0 can't be announced to others");
    return e == OK ? OK : fail_in(why, ERR_USAGE, what);
}

static bool is_loopback(const char *host) {
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "localhost") == 0;
}

static bool has_data(const char *data) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/keyring", data);
    return access(path, F_OK) == 0;
}

/* With data there, what is not said stays as it was. */
static RESULT read_addresses(struct cli *cli, struct app_config *config, struct why *why) {
    bool known = has_data(config->manager.data);
    const char *client = cli_option(cli, "client"), *peer = cli_option(cli, "peer");
    const char *advertise = cli_option(cli, "advertise");
    struct address parts;
    if (!client) client = known ? "" : "127.0.0.1:2379";
    if (!peer) peer = known ? "" : "127.0.0.1:2377";
    TRY(copy(config->manager.client, ADDRESS_MAX, client, "client", why));
    TRY(copy(config->manager.peer, ADDRESS_MAX, peer, "peer", why));
    if (advertise) TRY(copy(config->manager.advertise, ADDRESS_MAX, advertise, "advertise", why));
    if (peer[0] || cli_option(cli, "peer")) TRY(check_port(peer, "--peer", &parts, why));
    if (!client[0] && !cli_option(cli, "client")) return OK;
    TRY(check_port(client, "--client", &parts, why));
    if (config->insecure && !config->force_insecure && !is_loopback(parts.host))
        return fail_with(
            why, ERR_USAGE,
            "--client-insecure is for loopback addresses; --client-insecure=force insists");
    return OK;
}

static RESULT read_name(struct cli *cli, struct app_config *config, struct why *why) {
    const char *name = cli_option(cli, "name");
    char host[NAME_MAX_SIZE + 1] = "";
    if (!name && has_data(config->manager.data)) return OK;
    if (!name && gethostname(host, sizeof host) != 0) host[0] = 0;
    host[NAME_MAX_SIZE] = 0;
    TRY(copy(config->manager.name, sizeof config->manager.name, name ? name : host, "name", why));
    enum err e = name_check(config->manager.name, why);
    return e == OK ? OK : fail_in(why, e, "--name");
}

static RESULT read_join(struct cli *cli, struct app_config *config, struct why *why) {
    const char *join = cli_option(cli, "join"), *token = cli_option(cli, "token");
    struct address parts;
    config->init = cli_option(cli, "init") != NULL;
    config->autolock = cli_option(cli, "autolock") != NULL;
    if (config->autolock && !config->init)
        return fail_with(why, ERR_USAGE, "--autolock goes with --init");
    if (!join) return token ? fail_with(why, ERR_USAGE, "--token goes with --join") : OK;
    if (config->init) return fail_with(why, ERR_USAGE, "--init and --join exclude each other");
    if (!token) return fail_with(why, ERR_USAGE, "--join needs --token");
    TRY(copy(config->join, sizeof config->join, join, "join", why));
    TRY(check_port(join, "--join", &parts, why));
    struct buf line = buf_new(PASSPHRASE_MAX);
    enum err e = OK;
    if (strcmp(token, "-") == 0) {
        e = cli_read_secret("join token", &line, why);
        if (e == OK) e = buf_u8(&line, 0);
        token = e == OK ? (const char *)line.at : "";
    }
    char digest[ROOT_DIGEST_TEXT], secret[TOKEN_SECRET_SIZE + 1];
    if (e == OK) e = token_parse(token, digest, secret, why);
    if (e == OK) e = copy(config->token, sizeof config->token, token, "token", why);
    sodium_memzero(secret, sizeof secret);
    buf_wipe(&line);
    return e;
}

static RESULT read_options(struct cli *cli, struct app_config *config, struct why *why) {
    const char *insecure = cli_option(cli, "client-insecure");
    config->manager.data = cli_data(cli);
    config->level = cli_option(cli, "verbose") ? LOG_DEBUG : LOG_INFO;
    config->insecure = insecure != NULL;
    config->force_insecure = insecure && strcmp(insecure, "force") == 0;
    if (config->insecure && insecure[0] && !config->force_insecure)
        return fail_with(why, ERR_USAGE, "--client-insecure takes nothing, or =force");
    TRY(read_name(cli, config, why));
    TRY(read_addresses(cli, config, why));
    TRY(read_join(cli, config, why));
    return cli_kek(cli, &config->manager.kek_kind, &config->manager.kek, why);
}

static enum err run(struct cli *cli, struct why *why) {
    struct app_config config = {0};
    TRY(app_harden(why));
    TRY(read_options(cli, &config, why));
    return app_run(&config, why);
}

const struct verb verb_serve = {
    .name = "serve",
    .words = "--data DIR --name NAME --client ADDR:PORT --peer ADDR:PORT",
    .about = "run a manager",
    .help = "With data in DIR it goes on where it stopped; --init and --join are ignored then. "
            "With an empty\n"
            "directory and neither of them it waits for `conclave init` or `conclave join`. A "
            "token or a key\n"
            "on the command line can be seen by other users of the machine: files and '-' can't.",
    .run = run,
    .options = options,
    .local = true,
};
