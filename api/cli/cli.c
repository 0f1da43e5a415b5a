/* See cli.h. Options stand anywhere behind the verb, as --name VALUE or --name=VALUE; "--" ends
 * them. Whatever goes wrong is one line on stderr, "conclave: VERB: reason", and the exit code of
 * the error's row in the table. */
#include "api/cli/cli.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "raft/loop.h"
#include "store/command.h"

static enum err run_help(struct cli *cli, struct why *why);
static enum err run_version(struct cli *cli, struct why *why);

static const struct verb verb_version = {.name = "version",
                                         .words = "",
                                         .about = "print the version",
                                         .run = run_version,
                                         .local = true};
static const struct verb verb_help = {.name = "help",
                                      .words = "[COMMAND]",
                                      .about = "tell about a command",
                                      .run = run_help,
                                      .words_max = 2,
                                      .local = true};

static const struct verb *const verbs[] = {
    &verb_serve,
    &verb_init,
    &verb_join,
    &verb_leave,
    &verb_status,
    &verb_members,
    &verb_promote,
    &verb_demote,
    &verb_remove,
    &verb_transfer,
    &verb_node_ls,
    &verb_node_inspect,
    &verb_node_update,
    &verb_node_promote,
    &verb_node_demote,
    &verb_node_rm,
    &verb_node_pending,
    &verb_node_approve,
    &verb_node_deny,
    &verb_token_create,
    &verb_token_ls,
    &verb_token_rm,
    &verb_token_show,
    &verb_token_rotate,
    &verb_ca_show,
    &verb_ca_status,
    &verb_ca_rotate,
    &verb_ca_abort,
    &verb_ca_force,
    &verb_ca_set,
    &verb_cert,
    &verb_lock,
    &verb_unlock,
    &verb_unlock_key,
    &verb_unlock_key_rotate,
    &verb_key_rotate,
    &verb_key_status,
    &verb_key_escrow,
    &verb_key_import_escrow,
    &verb_secret_create,
    &verb_secret_ls,
    &verb_secret_inspect,
    &verb_secret_update,
    &verb_secret_put,
    &verb_secret_rm,
    &verb_secret_shred,
    &verb_config_create,
    &verb_config_ls,
    &verb_config_inspect,
    &verb_config_update,
    &verb_config_put,
    &verb_config_rm,
    &verb_service_create,
    &verb_service_ls,
    &verb_service_ps,
    &verb_service_inspect,
    &verb_service_scale,
    &verb_service_update,
    &verb_service_rm,
    &verb_audit_tail,
    &verb_audit_verify,
    &verb_audit_head,
    &verb_audit_dump,
    &verb_put,
    &verb_get,
    &verb_del,
    &verb_ls,
    &verb_reload,
    &verb_backup,
    &verb_backup_key,
    &verb_restore,
    &verb_import,
    &verb_recover,
    &verb_check,
    &verb_task_supervisor,
    &verb_run,
    &verb_version,
    &verb_help,
};

static const struct option_spec client_options[] = {
    {"data", "DIR", "the server's data directory; its socket is used (CONCLAVE_DATA)"},
    {"endpoint", "HOST:PORT", "a server's client port instead (CONCLAVE_ENDPOINT)"},
    {"cacert", "FILE", "the cluster's root, for --endpoint (CONCLAVE_CACERT)"},
    {"cert", "FILE", "a client certificate, for --endpoint (CONCLAVE_CERT)"},
    {"key", "FILE", "its key (CONCLAVE_KEY)"},
    {"insecure-plaintext", NULL, "no TLS, for a server that runs with --client-insecure"},
    {"timeout", "SECONDS", "how long to try; 10 unless told"},
    {"json", NULL, "print JSON"},
    {NULL, NULL, NULL},
};

/* --- help ----------------------------------------------------------------------------------- */

#define HELP_COLUMN 29 /* of what an option does; below it if the option is longer */

static void print_options(const struct option_spec *options) {
    for (; options && options->name; options++) {
        const char *value = options->value ? options->value : "";
        const char *between = value[0] == '\0' ? "" : value[0] == '[' ? "=" : " ";
        int used = printf("  --%s%s%s", options->name, between, value);
        if (used >= HELP_COLUMN) used = printf("\n") - 1;
        printf("%*s%s\n", HELP_COLUMN - used, "", options->help);
    }
}

static void print_help(const struct verb *v) {
    printf("usage: conclave %s%s%s%s\n\n%s.\n", v->name, v->words[0] ? " " : "", v->words,
           v->options || !v->local ? " [OPTIONS]" : "", v->about);
    if (v->help) printf("%s\n", v->help);
    if (v->options) printf("\n");
    print_options(v->options);
    if (v->local) return;
    printf("\nwhich server:\n");
    print_options(client_options);
}

static void print_list(FILE *to) {
    (void)fprintf(
        to, "usage: conclave COMMAND [ARGUMENTS]        conclave COMMAND --help tells more\n\n");
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        if (!verbs[i]->hidden) (void)fprintf(to, "  %-20s %s\n", verbs[i]->name, verbs[i]->about);
}

static enum err run_version(struct cli *cli, struct why *why) {
    (void)cli;
    printf("conclave %s\n", CONCLAVE_VERSION);
    return cli_flush(why);
}

/* The verb that the words begin with: two words before one. *used: how many. */
static const struct verb *find_verb(const char *first, const char *second, int *used) {
    char both[64];
    (void)snprintf(both, sizeof both, "%s %s", first, second ? second : "");
    for (*used = 2; *used >= 1; (*used)--)
        for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
            if (strcmp(verbs[i]->name, *used == 2 ? both : first) == 0) return verbs[i];
    return NULL;
}

static enum err run_help(struct cli *cli, struct why *why) {
    int used;
    const struct verb *v =
        cli->n > 0 ? find_verb(cli->words[0], cli->n > 1 ? cli->words[1] : NULL, &used) : NULL;
    if (cli->n > 0 && !v)
        return fail_with(why, ERR_USAGE, "there is no command '%s'", cli->words[0]);
    if (v)
        print_help(v);
    else
        print_list(stdout);
    return cli_flush(why);
}

/* --- parsing -------------------------------------------------------------------------------- */

static const struct option_spec *find_option(const struct verb *v, const char *name, size_t size) {
    const struct option_spec *lists[] = {v->options, v->local ? NULL : client_options};
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        for (const struct option_spec *o = lists[i]; o && o->name; o++)
            if (strlen(o->name) == size && memcmp(o->name, name, size) == 0) return o;
    return NULL;
}

/* argv[*at] begins with "--". */
static RESULT parse_option(struct cli *cli, int argc, char **argv, int *at, struct why *why) {
    const char *name = argv[*at] + 2, *equals = strchr(name, '=');
    size_t size = equals ? (size_t)(equals - name) : strlen(name);
    const struct option_spec *o = find_option(cli->verb, name, size);
    if (!o) return fail_with(why, ERR_USAGE, "there is no option --%.*s", (int)size, name);
    if (!o->value && equals) return fail_with(why, ERR_USAGE, "--%s takes no value", o->name);
    if (cli->given_n == OPTIONS_MAX) return fail_with(why, ERR_USAGE, "too many options");
    const char *value = "";
    if (o->value && equals)
        value = equals + 1;
    else if (o->value && o->value[0] == '[') /* only ever behind '=' */
        value = "";
    else if (o->value && ++*at < argc)
        value = argv[*at];
    else if (o->value)
        return fail_with(why, ERR_USAGE, "--%s needs a value: %s", o->name, o->value);
    cli->given[cli->given_n].name = o->name;
    cli->given[cli->given_n++].value = value;
    return OK;
}

static RESULT parse(struct cli *cli, int argc, char **argv, bool *help, struct why *why) {
    bool plain = false; /* behind "--" */
    *help = false;
    for (int at = 0; at < argc; at++) {
        const char *word = argv[at];
        if (!plain && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
            *help = true;
            return OK;
        }
        if (!plain && strcmp(word, "--") == 0) {
            plain = true;
        } else if (!plain && word[0] == '-' && word[1] == '-') {
            TRY(parse_option(cli, argc, argv, &at, why));
        } else if (cli->n == cli->verb->words_max) {
            return fail_with(why, ERR_USAGE, "what is '%s'? usage: conclave %s %s", word,
                             cli->verb->name, cli->verb->words);
        } else {
            cli->words[cli->n++] = word;
        }
    }
    if (cli->n < cli->verb->words_min)
        return fail_with(why, ERR_USAGE, "something is missing; usage: conclave %s %s",
                         cli->verb->name, cli->verb->words);
    return OK;
}

const char *cli_option(const struct cli *cli, const char *name) {
    for (unsigned i = cli->given_n; i-- > 0;)
        if (strcmp(cli->given[i].name, name) == 0) return cli->given[i].value;
    return NULL;
}

const char *cli_option_next(const struct cli *cli, const char *name, unsigned *at) {
    while (*at < cli->given_n) {
        unsigned i = (*at)++;
        if (strcmp(cli->given[i].name, name) == 0) return cli->given[i].value;
    }
    return NULL;
}

RESULT cli_number(const struct cli *cli, const char *name, uint64_t least, uint64_t most,
                  uint64_t *out, struct why *why) {
    const char *text = cli_option(cli, name);
    uint64_t n = 0;
    if (!text) return OK;
    const char *c = text;
    for (; *c >= '0' && *c <= '9' && n <= most; c++)
        n = n * 10 + (uint64_t)(*c - '0');
    if (c == text || *c != '\0' || n < least || n > most)
        return fail_with(why, ERR_USAGE, "--%s takes a number from %llu to %llu", name,
                         (unsigned long long)least, (unsigned long long)most);
    *out = n;
    return OK;
}

bool cli_json(const struct cli *cli) { return cli_option(cli, "json") != NULL; }

static const char *option_or_env(const struct cli *cli, const char *name, const char *variable) {
    const char *value = cli_option(cli, name);
    if (!value) value = getenv(variable);
    return value && value[0] ? value : NULL;
}

const char *cli_data(const struct cli *cli) {
    const char *data = option_or_env(cli, "data", "CONCLAVE_DATA");
    return data ? data : geteuid() == 0 ? "/var/lib/conclave" : "./conclave-data";
}

/* --- requests ------------------------------------------------------------------------------- */

RESULT cli_client_config(const struct cli *cli, struct client_config *out, char *path, size_t room,
                         struct why *why) {
    *out = (struct client_config){0};
    const char *endpoint = cli_option(cli, "endpoint");
    if (!endpoint && !cli_option(cli, "data")) endpoint = getenv("CONCLAVE_ENDPOINT");
    if (!endpoint || !endpoint[0]) {
        (void)snprintf(path, room, "%s/conclave.sock", cli_data(cli));
        out->socket_path = path;
        return OK;
    }
    out->endpoint = endpoint;
    if (cli_option(cli, "insecure-plaintext")) return OK;
    out->cacert = option_or_env(cli, "cacert", "CONCLAVE_CACERT");
    out->cert = option_or_env(cli, "cert", "CONCLAVE_CERT");
    out->key = option_or_env(cli, "key", "CONCLAVE_KEY");
    if (!out->cacert || !out->cert || !out->key)
        return fail_with(
            why, ERR_USAGE,
            "--endpoint needs --cacert, --cert and --key (`conclave cert` makes them), "
            "or --insecure-plaintext");
    return OK;
}

static RESULT own_client(struct cli *cli, struct why *why) {
    static char path[4096]; /* lives as long as the client */
    struct client_config config;
    if (cli->client) return OK;
    TRY(cli_client_config(cli, &config, path, sizeof path, why));
    return client_open(&config, &cli->client, why);
}

static bool did_nothing(enum err e) {
    return e == ERR_NOT_LEADER || e == ERR_NO_LEADER || e == ERR_BUSY || e == ERR_TIMEOUT ||
           e == ERR_CLOSED || e == ERR_CONFLICT;
}

void cli_pause(unsigned ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    (void)nanosleep(&t, NULL);
}

RESULT cli_call(struct cli *cli, struct client *client, const struct cli_call *call,
                struct buf *answer, struct why *why) {
    struct clock clock;
    clock_real(&clock);
    uint64_t deadline = clock.now_ms(&clock) + cli->timeout_ms;
    bool reads = call->method == HTTP_GET || strcmp(call->path, "/v3/kv/range") == 0;
    bool unknown = false; /* an earlier attempt may have been applied */
    for (unsigned wait_ms = 20;; wait_ms = wait_ms < 320 ? wait_ms * 2 : wait_ms) {
        uint64_t now = clock.now_ms(&clock);
        struct client_request r = {.method = call->method,
                                   .path = call->path,
                                   .headers = call->headers,
                                   .body = call->body ? buf_span(call->body) : span_of(NULL, 0),
                                   .timeout_ms = deadline > now ? deadline - now : 1};
        enum err e = client_call(client, &r, answer, why);
        if (e == ERR_MAYBE_APPLIED && reads) e = ERR_TIMEOUT;
        unknown |= e == ERR_MAYBE_APPLIED;
        if (cli->client == client) cli->unknown = unknown; /* else other threads share cli */
        bool final = e == ERR_BUSY && call->busy_is_final;
        bool again = (did_nothing(e) && !final) ||
                     (e == ERR_MAYBE_APPLIED && call->again_is_safe) ||
                     (e == ERR_UNREACHABLE && unknown);
        if (e == OK || !again) return e;
        if (clock.now_ms(&clock) + (uint64_t)wait_ms >= deadline)
            return unknown ? fail_in(why, ERR_MAYBE_APPLIED, "the outcome is unknown") : e;
        cli_pause(wait_ms);
    }
}

RESULT cli_json_call(struct cli *cli, const struct cli_call *call, json_t **out, struct why *why) {
    struct buf answer = buf_new(32 * MIB);
    TRY(own_client(cli, why));
    enum err e = cli_call(cli, cli->client, call, &answer, why);
    if (e == OK && out) e = jin_parse(buf_span(&answer), out, why);
    buf_wipe(&answer);
    return e;
}

RESULT cli_get(struct cli *cli, const char *path, json_t **out, struct why *why) {
    struct cli_call call = {.method = HTTP_GET, .path = path, .again_is_safe = true};
    return cli_json_call(cli, &call, out, why);
}

RESULT cli_post(struct cli *cli, const char *path, struct buf *body, bool again_is_safe,
                json_t **out, struct why *why) {
    struct cli_call call = {
        .method = HTTP_POST, .path = path, .body = body, .again_is_safe = again_is_safe};
    enum err e = cli_json_call(cli, &call, out, why);
    if (body) buf_wipe(body);
    return e;
}

RESULT cli_get_named(struct cli *cli, const char *path, const char *what, const char *name,
                     json_t **out, struct why *why) {
    struct buf whole = buf_new(4 * KIB);
    enum err e = cli_query(&whole, path, what, name);
    if (e == OK) e = cli_get(cli, (const char *)whole.at, out, why);
    buf_free(&whole);
    return e;
}

RESULT cli_post_named(struct cli *cli, const char *path, const char *what, const char *name,
                      enum err done, struct why *why) {
    struct buf body = buf_new(4 * KIB);
    struct jout j;
    jout_start(&j, &body);
    jout_open(&j, '{');
    jout_put_text(&j, what, name);
    if (cli_option(cli, "force")) jout_put_bool(&j, "force", true);
    jout_close(&j, '}');
    enum err e = jout_end(&j);
    if (e != OK) {
        buf_free(&body);
        return e;
    }
    e = cli_post(cli, path, &body, true, NULL, why);
    return e == done && cli->unknown ? OK : e;
}

RESULT cli_remove_each(struct cli *cli, cli_remover *remove_one, struct why *why) {
    enum err first = OK;
    for (unsigned i = 0; i < cli->n; i++) {
        struct why one = {0};
        enum err e = remove_one(cli, cli->words[i], &one);
        if (e == OK && !cli_json(cli)) printf("%s\n", cli->words[i]);
        if (e != OK && first == OK)
            first =
                fail_with(why, e, "%.64s: %s", cli->words[i], one.text[0] ? one.text : err_text(e));
    }
    return first == OK ? cli_flush(why) : first;
}

/* --- output and input ----------------------------------------------------------------------- */

RESULT cli_flush(struct why *why) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return OK;
    return fail_with(why, ERR_IO, "standard output: %s", strerror(errno));
}

RESULT cli_print_json(const json_t *json) {
    char *text = json_dumps(json, JSON_INDENT(2));
    if (!text) return ERR_NOMEM;
    (void)puts(text);
    sodium_memzero(text, strlen(text));
    free(text);
    return cli_flush(NULL);
}

RESULT cli_print_answer(const struct cli *cli, json_t *answer, cli_printer *print,
                        struct why *why) {
    enum err e = cli_json(cli) ? cli_print_json(answer) : print(answer, why);
    json_decref(answer);
    return e;
}

void cli_token_header(char out[TOKEN_HEADER_ROOM]) {
    uint8_t token[TOKEN_SIZE];
    char text[2 * TOKEN_SIZE + 1];
    random_bytes(token, sizeof token);
    (void)sodium_bin2hex(text, sizeof text, token, sizeof token);
    (void)snprintf(out, TOKEN_HEADER_ROOM, "Idempotency-Key: %s\r\n", text);
}

RESULT cli_read_file(const char *path, struct buf *out, struct why *why) {
    bool standard = strcmp(path, "-") == 0;
    FILE *f = standard ? stdin : fopen(path, "re");
    if (!f) return fail_with(why, err_from_errno(errno), "%s: %s", path, strerror(errno));
    uint8_t bytes[16 * 1024];
    enum err e = OK;
    while (e == OK && !feof(f) && !ferror(f)) {
        size_t n = fread(bytes, 1, sizeof bytes, f);
        if (n > out->max - out->size)
            e = fail_with(why, ERR_TOO_LARGE, "%s: more than %zu bytes", path, out->max);
        else
            e = buf_add(out, bytes, n);
    }
    if (e == OK && ferror(f)) e = fail_with(why, ERR_IO, "%s: %s", path, strerror(errno));
    sodium_memzero(bytes, sizeof bytes);
    if (!standard) (void)fclose(f);
    return e;
}

RESULT cli_read_secret(const char *prompt, struct buf *out, struct why *why) {
    struct termios before, quiet;
    bool terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
    if (terminal) {
        quiet = before;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet); /* drops what was typed before */
        (void)fprintf(stderr, "%s: ", prompt);
    }
    enum err e = buf_reserve(out, PASSPHRASE_MAX);
    char c;
    while (e == OK && read(STDIN_FILENO, &c, 1) == 1 && c != '\n') {
        if (out->size == PASSPHRASE_MAX)
            e = fail_with(why, ERR_TOO_LARGE, "the input is too long");
        else
            e = buf_u8(out, (uint8_t)c);
    }
    if (terminal) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        (void)fprintf(stderr, "\n");
    }
    if (e == OK && out->size > 0 && out->at[out->size - 1] == '\r') out->size--;
    if (e == OK && out->size == 0)
        e = fail_with(why, ERR_INVALID, "nothing was given on standard input");
    return e;
}

/* For a first word that only goes with a second one, the commands that begin with it. */
static RESULT no_verb(const char *first, const char *second, struct why *why) {
    struct buf all = buf_new(1 * KIB);
    size_t size = strlen(first);
    enum err e = OK;
    if (second && second[0] == '-') second = NULL;
    for (size_t i = 0; e == OK && i < ARRAY_SIZE(verbs); i++)
        if (strncmp(verbs[i]->name, first, size) == 0 && verbs[i]->name[size] == ' ')
            e = buf_format(&all, "%s%s", all.size > 0 ? ", " : "", verbs[i]->name);
    if (all.size == 0 || e != OK)
        e = fail_with(why, ERR_USAGE, "there is no command '%s'; conclave --help lists them",
                      first);
    else
        e = fail_with(why, ERR_USAGE, "there is no command '%s%s%s'; there are: %.*s", first,
                      second ? " " : "", second ? second : "", (int)all.size, (const char *)all.at);
    buf_free(&all);
    return e;
}

/* --- main ----------------------------------------------------------------------------------- */

static RESULT parse_timeout(struct cli *cli, struct why *why) {
    const char *text = cli_option(cli, "timeout");
    cli->timeout_ms = 10000;
    if (!text) return OK;
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end || !(seconds > 0) || seconds > 86400)
        return fail_with(why, ERR_USAGE, "--timeout: '%s' is no number of seconds", text);
    cli->timeout_ms = (uint64_t)(seconds * 1000);
    return OK;
}

static int run_verb(const struct verb *verb, int argc, char **argv) {
    struct cli cli = {.verb = verb};
    struct why why = {0};
    bool help;
    enum err e = parse(&cli, argc, argv, &help, &why);
    if (e == OK && help) {
        print_help(verb);
        return cli_flush(NULL) == OK ? 0 : err_exit(ERR_IO);
    }
    if (e == OK) e = parse_timeout(&cli, &why);
    if (e == OK) e = crypto_start(&why);
    if (e == OK) e = verb->run(&cli, &why);
    client_close(cli.client);
    if (e != OK)
        (void)fprintf(stderr, "conclave: %s: %s\n", verb->name,
                      why.text[0] ? why.text : err_text(e));
    return e == OK ? cli.exit_code : err_exit(e);
}

int cli_main(int argc, char **argv) {
    int used;
    if (argc < 2) {
        print_list(stderr);
        return err_exit(ERR_USAGE);
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_list(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) argv[1] = (char *)(uintptr_t) "version";
    const struct verb *verb = find_verb(argv[1], argc > 2 ? argv[2] : NULL, &used);
    if (!verb) {
        struct why why = {0};
        enum err e = no_verb(argv[1], argc > 2 ? argv[2] : NULL, &why);
        (void)fprintf(stderr, "conclave: %s\n", why.text);
        return err_exit(e);
    }
    return run_verb(verb, argc - 1 - used, argv + 1 + used);
}
