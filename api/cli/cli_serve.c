/* conclave serve: reads options and key files into an app_config, and runs the app. */
#include "api/cli/cli.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/app.h"
#include "api/cli/cli_keyfile.h"
#include "raft/loop.h"

static const struct option_spec options[] = {
    {"config", "FILE", "lines of NAME = VALUE; none unless told"},
    {"data", "DIR", "data directory; /var/lib/conclave, or ./conclave-data if not root"},
    {"name", "NAME", "this node's name; the machine's unless told"},
    {"client", "ADDR:PORT", "where clients are served; 127.0.0.1:2379 unless told"},
    {"peer", "ADDR:PORT", "where the other members are; 127.0.0.1:2377 unless told"},
    {"engine", "ADDR:PORT", "the Engine API for docker, for certificates of administrators"},
    {"advertise", "HOST", "how others reach this machine, when ADDR is 0.0.0.0 or behind NAT"},
    {"init", NULL, "found a cluster when the directory is empty"},
    {"join", "HOST:PORT", "join a cluster through this member's peer address when it is empty"},
    {"token", "TOKEN", "the join token; '-' reads it from standard input"},
    {"token-file", "FILE", "a file with the join token"},
    {"autolock", NULL, "with --init: every restart of a member needs the unlock key"},
    {"ca-cert", "FILE", "with --init: a root of your own; the signing certificate first"},
    {"ca-key", "FILE", "with --init: the signing certificate's key"},
    {"unlock-key-file", "FILE", "a file with the unlock key (SWMKEY-1-...)"},
    {"passphrase-file", "FILE", "seal this node's keys by the passphrase in FILE"},
    {"key-file", "FILE", "seal this node's keys by the bytes of FILE (32 or more)"},
    {"client-insecure", "[force]", "clients without TLS, on loopback; =force: on any address"},
    {"client-cert", "FILE", "the client port's certificate; the node's own unless told"},
    {"client-key", "FILE", "its key"},
    {"client-ca", "FILE", "who signs clients' certificates; the cluster's root unless told"},
    {"client-cert-optional", NULL, "also clients without a certificate: users by password"},
    {"quota-backend-bytes", "N", "bytes of keys and history past which writes are refused; 2 GiB"},
    {"auto-compaction-mode", "MODE", "periodic or revision"},
    {"auto-compaction-retention", "N",
     "history that is kept: hours or a duration (1h30m), or revisions; 0, the default: all"},
    {"watch-progress-interval", "MS",
     "between notices of progress to watches that ask for them; 600000 unless told"},
    {"io-loops", "N",
     "threads for clients' connections; unless told none on up to 2 processors, else up to 4"},
    {"secret-driver", "NAME=PATH[,...]",
     "programs or sockets that supply the values of secrets with a driver"},
    {"log-format", "text|json", "text on a terminal, else JSON, unless told"},
    {"log-level", "LEVEL", "error, warning, info or debug; info unless told"},
    {"verbose", NULL, "the same as --log-level debug"},
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

static RESULT read_engine(struct cli *cli, struct app_config *config, struct why *why) {
    const char *engine = cli_option(cli, "engine");
    struct address parts;
    config->peer_given = cli_option(cli, "peer") != NULL;
    if (!engine) return OK;
    TRY(copy(config->engine, ADDRESS_MAX, engine, "engine", why));
    return check_port(engine, "--engine", &parts, why);
}

/* With data there, what is not said stays as it was. */
static RESULT read_addresses(struct cli *cli, struct app_config *config, struct why *why) {
    bool known = has_data(config->manager.data);
    const char *client = cli_option(cli, "client"), *peer = cli_option(cli, "peer");
    const char *advertise = cli_option(cli, "advertise");
    struct address parts;
    if (!client) client = known ? "" : CLIENT_USUAL;
    if (!peer) peer = known ? "" : PEER_USUAL;
    TRY(copy(config->manager.client, ADDRESS_MAX, client, "client", why));
    TRY(copy(config->manager.peer, ADDRESS_MAX, peer, "peer", why));
    if (advertise) TRY(copy(config->manager.advertise, ADDRESS_MAX, advertise, "advertise", why));
    TRY(read_engine(cli, config, why));
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

static RESULT first_line(const char *path, struct buf *out, struct why *why) {
    struct secret *line;
    TRY(line_read(path, &line, why));
    enum err e = buf_add_span(out, secret_span(line));
    secret_free(line);
    return e;
}

/* The token's text: given, of a file, or of standard input. */
static RESULT read_token(const char *token, const char *file, struct app_config *config,
                         struct why *why) {
    char digest[ROOT_DIGEST_TEXT], secret[TOKEN_SECRET_SIZE + 1];
    if (token && file) return fail_with(why, ERR_USAGE, "only one of --token and --token-file");
    if (token && strcmp(token, "-") != 0) {
        TRY(copy(config->token, sizeof config->token, token, "token", why));
    } else {
        struct buf line = buf_new(PASSPHRASE_MAX);
        enum err failed = buf_reserve(&line, PASSPHRASE_MAX);
        if (failed == OK)
            failed =
                file ? first_line(file, &line, why) : cli_read_secret("join token", &line, why);
        bool fits = line.size < sizeof config->token;
        if (failed == OK && fits) memcpy(config->token, line.at, line.size);
        buf_wipe(&line);
        TRY(failed);
        if (!fits) return fail_with(why, ERR_INVALID, "the join token is too long");
    }
    enum err e = token_parse(config->token, digest, secret, why);
    sodium_memzero(secret, sizeof secret);
    return e;
}

static RESULT read_join(struct cli *cli, struct app_config *config, struct why *why) {
    const char *join = cli_option(cli, "join"), *token = cli_option(cli, "token");
    const char *file = cli_option(cli, "token-file");
    struct address parts;
    config->init = cli_option(cli, "init") != NULL;
    config->autolock = cli_option(cli, "autolock") != NULL;
    if (config->autolock && !config->init)
        return fail_with(why, ERR_USAGE, "--autolock goes with --init");
    if (!join) return token || file ? fail_with(why, ERR_USAGE, "--token goes with --join") : OK;
    if (config->init) return fail_with(why, ERR_USAGE, "--init and --join exclude each other");
    if (!token && !file) return fail_with(why, ERR_USAGE, "--join needs --token");
    TRY(copy(config->join, sizeof config->join, join, "join", why));
    TRY(check_port(join, "--join", &parts, why));
    return read_token(token, file, config, why);
}

/* The files are read where there is a cluster to be founded only. */
static RESULT read_ca(struct cli *cli, struct app_config *config, struct why *why) {
    const char *cert = cli_option(cli, "ca-cert"), *key = cli_option(cli, "ca-key");
    struct buf pem = buf_new(PEM_MAX);
    if (!cert != !key) return fail_with(why, ERR_USAGE, "--ca-cert goes with --ca-key");
    if (!cert) return OK;
    if (!config->init) return fail_with(why, ERR_USAGE, "--ca-cert goes with --init");
    if (has_data(config->manager.data)) return OK;
    config->ca_chain = buf_new(PEM_MAX);
    TRY(cli_read_file(cert, &config->ca_chain, why));
    enum err e = buf_reserve(&pem, PEM_MAX); /* at once: growing would leave copies behind */
    if (e == OK) e = cli_read_file(key, &pem, why);
    if (e == OK && pem.size == 0) e = fail_with(why, ERR_INVALID, "%s: there is no key in it", key);
    if (e == OK) e = secret_new(pem.at, pem.size, &config->ca_key);
    buf_wipe(&pem);
    return e;
}

static RESULT read_quota(struct cli *cli, struct app_config *config, struct why *why) {
    const char *text = cli_option(cli, "quota-backend-bytes");
    char *end = NULL;
    config->quota = QUOTA_DEFAULT;
    if (!text) return OK;
    config->quota = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || config->quota == 0)
        return fail_with(why, ERR_USAGE, "--quota-backend-bytes takes a number of bytes above 0");
    return OK;
}

static RESULT read_progress(struct cli *cli, struct app_config *config, struct why *why) {
    const char *text = cli_option(cli, "watch-progress-interval");
    char *end = NULL;
    config->progress_ms = PROGRESS_MS;
    if (!text) return OK;
    config->progress_ms = strtoull(text, &end, 10);
    bool number = text[0] >= '0' && text[0] <= '9' && *end == '\0';
    if (number && config->progress_ms >= PROGRESS_MIN_MS && config->progress_ms <= UINT32_MAX)
        return OK;
    return fail_with(why, ERR_USAGE, "--watch-progress-interval takes %u milliseconds or more",
                     PROGRESS_MIN_MS);
}

/* On two processors, which the replica keeps busy, a thread more is one more to switch to. */
static unsigned usual_io_loops(void) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (processors <= 2) return 0;
    return processors > IO_LOOPS_USUAL ? IO_LOOPS_USUAL : (unsigned)processors - 1;
}

static RESULT read_io_loops(struct cli *cli, struct app_config *config, struct why *why) {
    const char *text = cli_option(cli, "io-loops");
    char *end = NULL;
    config->io_loops = usual_io_loops();
    if (!text) return OK;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || n > IO_LOOPS_MAX)
        return fail_with(why, ERR_USAGE, "--io-loops takes a number up to %d", IO_LOOPS_MAX);
    config->io_loops = (unsigned)n;
    return OK;
}

static RESULT read_log(struct cli *cli, struct app_config *config, struct why *why) {
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    const char *level = cli_option(cli, "log-level"), *format = cli_option(cli, "log-format");
    bool known = level == NULL;
    config->level = LOG_INFO;
    for (unsigned i = 0; level && i < ARRAY_SIZE(levels); i++) {
        if (strcmp(level, levels[i]) != 0) continue;
        config->level = (enum log_level)i;
        known = true;
    }
    if (!known) return fail_with(why, ERR_USAGE, "--log-level takes error, warning, info or debug");
    if (cli_option(cli, "verbose")) config->level = LOG_DEBUG;
    if (!format) return OK;
    config->log_format = strcmp(format, "json") == 0 ? LOG_AS_JSON : LOG_AS_TEXT;
    if (config->log_format == LOG_AS_JSON || strcmp(format, "text") == 0) return OK;
    return fail_with(why, ERR_USAGE, "--log-format takes text or json");
}

static RESULT read_tls(struct cli *cli, struct app_config *config, struct why *why) {
    config->tls =
        (struct client_tls_config){.cert = cli_option(cli, "client-cert"),
                                   .key = cli_option(cli, "client-key"),
                                   .ca = cli_option(cli, "client-ca"),
                                   .optional = cli_option(cli, "client-cert-optional") != NULL};
    if (!config->tls.cert != !config->tls.key)
        return fail_with(why, ERR_USAGE, "--client-cert goes with --client-key");
    bool any = config->tls.cert || config->tls.ca || config->tls.optional;
    if (any && config->insecure)
        return fail_with(why, ERR_USAGE, "--client-insecure has no certificates");
    return OK;
}

/* A credential of systemd (systemd.exec(5), LoadCredential=) opens what is locked by the unlock
 * key, where no option names another key. It may be of before a rotation, or of after one that this
 * node has not seen: a key that does not fit leaves the node locked, as without it. */
static RESULT read_credential(struct app_config *config, struct why *why) {
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    char path[4096];
    if (!dir || config->manager.kek_kind != KEK_PLAIN || !has_data(config->manager.data)) return OK;
    (void)snprintf(path, sizeof path, "%s/conclave-unlock-key", dir);
    if (access(path, F_OK) != 0) return OK;
    TRY(unlock_key_read(path, &config->manager.kek, why));
    config->manager.kek_kind = KEK_UNLOCK_KEY;
    config->manager.kek_offered = true;
    return OK;
}

static RESULT read_options(struct cli *cli, struct app_config *config, struct why *why) {
    const char *insecure = cli_option(cli, "client-insecure");
    config->manager.data = cli_data(cli);
    config->insecure = insecure != NULL;
    config->force_insecure = insecure && strcmp(insecure, "force") == 0;
    if (config->insecure && insecure[0] && !config->force_insecure)
        return fail_with(why, ERR_USAGE, "--client-insecure takes nothing, or =force");
    TRY(read_log(cli, config, why));
    TRY(read_tls(cli, config, why));
    TRY(read_quota(cli, config, why));
    TRY(read_progress(cli, config, why));
    TRY(read_io_loops(cli, config, why));
    TRY(compact_options_parse(cli_option(cli, "auto-compaction-mode"),
                              cli_option(cli, "auto-compaction-retention"), &config->compact, why));
    const char *drivers = cli_option(cli, "secret-driver");
    if (drivers) TRY(driver_table_read(&config->manager.drivers, drivers, why));
    TRY(read_name(cli, config, why));
    TRY(read_addresses(cli, config, why));
    TRY(read_join(cli, config, why));
    TRY(read_ca(cli, config, why));
    TRY(cli_kek(cli, &config->manager.kek_kind, &config->manager.kek, why));
    return read_credential(config, why);
}

static enum err run(struct cli *cli, struct why *why) {
    struct app_config config = {0};
    struct buf file = buf_new(CONFIG_FILE_MAX + 1);
    enum err e = app_harden(why);
    if (e == OK) e = cli_configure(cli, &file, why);
    if (e == OK) e = read_options(cli, &config, why);
    if (e == OK) e = app_run(&config, why);
    buf_free(&file);
    buf_free(&config.ca_chain);
    secret_free(config.ca_key);
    sodium_memzero(config.token, sizeof config.token);
    return e;
}

const struct verb verb_serve = {
    .name = "serve",
    .words = "--data DIR --name NAME --client ADDR:PORT --peer ADDR:PORT",
    .about = "run a manager",
    .help =
        "With data in DIR it goes on where it stopped; --init and --join are ignored then. "
        "With an empty\n"
        "directory and neither of them it waits for `conclave init` or `conclave join`. A "
        "token or a key\n"
        "on the command line can be seen by other users of the machine: files and '-' can't.\n\n"
        "Each option can also stand in the environment, as CONCLAVE_NAME with '_' for '-', and "
        "in the file\n"
        "of --config, as a line `NAME = VALUE`; switches are true or false there. The command "
        "line goes\n"
        "before the environment, and that before the file.\n\n"
        "Over TLS members, users and roles are changed with an administrator's certificate; "
        "with\n--client-insecure by whoever reaches the port, as with etcd, until etcd's auth is "
        "on.\n\n"
        "Under systemd a credential conclave-unlock-key (LoadCredentialEncrypted=) opens a locked "
        "node; if it\n"
        "does not fit, the node waits for `conclave unlock`.",
    .run = run,
    .options = options,
    .local = true,
};
