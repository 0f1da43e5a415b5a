/* Verbs about secrets and configs: the same for both, but that a config's value can be seen, and a
 * secret's can come from a driver and be shredded. Values come by files and standard input, never
 * as arguments; from a terminal without echo. */
#include "api/cli/cli_held.h"

#include <sodium.h>
#include <stdio.h>
#include <unistd.h>

#include "api/app.h"
#include "api/cli/cli_columns.h"
#include "api/words.h"
#include "store/held.h"

#define BODY_MAX (2 * CONFIG_SIZE_MAX)

const char *cli_kind(const struct cli *cli) {
    return strncmp(cli->verb->name, "config", 6) == 0 ? "config" : "secret";
}

static bool is_config(const struct cli *cli) { return cli_kind(cli)[0] == 'c'; }

static const char *path_of(const struct cli *cli, const char *rest, char out[64]) {
    (void)snprintf(out, 64, "/conclave/v1/%ss%s", cli_kind(cli), rest);
    return out;
}

static int64_t number(const json_t *object, const char *key) {
    return (int64_t)json_integer_value(json_object_get(object, key));
}

/* --- values that go ------------------------------------------------------------------------- */

/* From FILE, "-", standard input; typed, when that is a terminal and nothing else was told. */
static RESULT read_value(const struct cli *cli, const char *path, struct buf *out,
                         struct why *why) {
    TRY(buf_reserve(out, out->max)); /* at once: growing would leave copies behind */
    if (!path && isatty(STDIN_FILENO)) {
        char prompt[96];
        (void)snprintf(prompt, sizeof prompt, "value of %.64s", cli->words[0]);
        return cli_read_secret(prompt, out, why);
    }
    TRY(cli_read_file(path ? path : "-", out, why));
    if (out->size == 0)
        return fail_with(why, ERR_INVALID, "%s: there is no value in it",
                         path && strcmp(path, "-") != 0 ? path : "standard input");
    return OK;
}

static RESULT put_value(const struct cli *cli, const char *path, struct jout *j, struct why *why) {
    struct buf value = buf_new(is_config(cli) ? CONFIG_SIZE_MAX : SECRET_SIZE_MAX);
    enum err e = read_value(cli, path, &value, why);
    if (e == OK) {
        jout_key(j, "value");
        jout_base64(j, buf_span(&value));
    }
    buf_wipe(&value);
    return e;
}

static void start_body(struct jout *j, struct buf *body) {
    jout_start(j, body);
    jout_open(j, '{');
}

/* What a change answers: the id, and the version that it made. */
static RESULT print_change(struct cli *cli, json_t *answer, const char *text, struct why *why) {
    enum err e = OK;
    if (cli_json(cli))
        e = cli_print_json(answer);
    else
        printf("%s\n", text);
    json_decref(answer);
    return e == OK ? cli_flush(why) : e;
}

/* --- create --------------------------------------------------------------------------------- */

static const struct option_spec secret_create_options[] = {
    {"label", "KEY=VALUE", "a label; may be given several times"},
    {"driver", "NAME", "a program outside supplies the value at each delivery"},
    {"driver-opt", "KEY=VALUE", "is told to the driver; may be given several times"},
    {"template", "golang", "the value is a template, expanded on the node"},
    {NULL, NULL, NULL},
};
static const struct option_spec config_create_options[] = {
    {"label", "KEY=VALUE", "a label; may be given several times"},
    {"template", "golang", "the value is a template, expanded on the node"},
    {NULL, NULL, NULL},
};

static RESULT create_body(const struct cli *cli, struct buf *body, struct why *why) {
    const char *driver = cli_option(cli, "driver"), *template = cli_option(cli, "template");
    struct jout j;
    TRY(held_name_check(span_str(cli->words[0]), why));
    if (template && strcmp(template, "golang") != 0)
        return fail_with(why, ERR_USAGE, "--template: there is golang, and no other");
    if (driver && cli->n > 1)
        return fail_with(why, ERR_USAGE, "--driver: the driver has the value; there is no file");
    if (!driver && cli_option(cli, "driver-opt"))
        return fail_with(why, ERR_USAGE, "--driver-opt goes with --driver");
    TRY(buf_reserve(body, body->max)); /* at once, as above */
    start_body(&j, body);
    jout_put_text(&j, "name", cli->words[0]);
    TRY(cli_put_labels(cli, "label", "labels", &j, why));
    if (template) jout_put_text(&j, "templating", template);
    if (driver) {
        jout_put_text(&j, "driver", driver);
        TRY(cli_put_labels(cli, "driver-opt", "driver_options", &j, why));
    } else {
        TRY(put_value(cli, cli->n > 1 ? cli->words[1] : NULL, &j, why));
    }
    jout_close(&j, '}');
    return jout_end(&j);
}

static enum err run_create(struct cli *cli, struct why *why) {
    char path[64];
    struct buf body = buf_new(BODY_MAX);
    json_t *answer = NULL;
    enum err e = app_harden(why);
    if (e == OK) e = create_body(cli, &body, why);
    if (e == OK)
        e = cli_post(cli, path_of(cli, "/create", path), &body, false, &answer, why);
    else
        buf_wipe(&body);
    return e == OK ? print_change(cli, answer, jin_string(answer, "id"), why) : e;
}

#define VALUE_HELP                                                                                 \
    "The value is what FILE has, byte for byte; `-` or no FILE: standard input, or what is typed " \
    "without echo\nat a terminal. "

const struct verb verb_secret_create = {
    .name = "secret create",
    .words = "NAME [FILE|-]",
    .about = "keep a secret; its value is never shown again",
    .help = VALUE_HELP "It is sealed under a key of its own before it leaves the manager that is "
                       "asked. Prints the id.\nThe label conclave.run=NODE,... lets commands of "
                       "these nodes have it by `conclave run`; a host name\nbecomes the id of the "
                       "node that has it now.",
    .run = run_create,
    .options = secret_create_options,
    .words_min = 1,
    .words_max = 2,
};
const struct verb verb_config_create = {
    .name = "config create",
    .words = "NAME [FILE|-]",
    .about = "keep a config: what tasks get as a file, and administrators may see",
    .help = VALUE_HELP "Prints the id.",
    .run = run_create,
    .options = config_create_options,
    .words_min = 1,
    .words_max = 2,
};

/* --- put ------------------------------------------------------------------------------------ */

static RESULT put_body(const struct cli *cli, struct buf *body, struct why *why) {
    struct jout j;
    TRY(buf_reserve(body, body->max));
    start_body(&j, body);
    jout_put_text(&j, cli_kind(cli), cli->words[0]);
    TRY(put_value(cli, cli->n > 1 ? cli->words[1] : NULL, &j, why));
    jout_close(&j, '}');
    return jout_end(&j);
}

static enum err run_put(struct cli *cli, struct why *why) {
    char path[64], text[128];
    struct buf body = buf_new(BODY_MAX);
    json_t *answer = NULL;
    enum err e = app_harden(why);
    if (e == OK) e = put_body(cli, &body, why);
    if (e == OK)
        e = cli_post(cli, path_of(cli, "/put", path), &body, false, &answer, why);
    else
        buf_wipe(&body);
    if (e != OK) return e;
    (void)snprintf(text, sizeof text, "%.64s: version %lld", cli->words[0],
                   (long long)number(answer, "version"));
    return print_change(cli, answer, text, why);
}

#define PUT_HELP                                                                                   \
    VALUE_HELP "Tasks that follow the newest version get it at once, and a signal; those of a "    \
               "service that names\na version keep theirs. Of 64 versions that nobody names the "  \
               "oldest goes."

const struct verb verb_secret_put = {
    .name = "secret put",
    .words = "NAME [FILE|-]",
    .about = "give a secret a new version of its value",
    .help = PUT_HELP,
    .run = run_put,
    .words_min = 1,
    .words_max = 2,
};
const struct verb verb_config_put = {
    .name = "config put",
    .words = "NAME [FILE|-]",
    .about = "give a config a new version of its value",
    .help = PUT_HELP,
    .run = run_put,
    .words_min = 1,
    .words_max = 2,
};

/* --- update --------------------------------------------------------------------------------- */

static const struct option_spec update_options[] = {
    LABEL_CHANGE_OPTIONS,
    {NULL, NULL, NULL},
};

static RESULT update_body(const struct cli *cli, struct buf *body, struct why *why) {
    struct jout j;
    if (!cli_option(cli, "label-add") && !cli_option(cli, "label-rm"))
        return fail_with(why, ERR_USAGE, "nothing is to be changed; --help lists what can be");
    start_body(&j, body);
    jout_put_text(&j, cli_kind(cli), cli->words[0]);
    TRY(cli_put_label_changes(cli, &j, why));
    jout_close(&j, '}');
    return jout_end(&j);
}

static enum err run_update(struct cli *cli, struct why *why) {
    char path[64], text[128];
    struct buf body = buf_new(256 * KIB);
    json_t *answer = NULL;
    enum err e = update_body(cli, &body, why);
    if (e == OK)
        e = cli_post(cli, path_of(cli, "/update", path), &body, true, &answer, why);
    else
        buf_free(&body);
    if (e != OK) return e;
    (void)snprintf(text, sizeof text, "%.64s is updated", cli->words[0]);
    return print_change(cli, answer, text, why);
}

const struct verb verb_secret_update = {
    .name = "secret update",
    .words = "NAME",
    .about = "change a secret's labels (another value: secret put)",
    .run = run_update,
    .options = update_options,
    .words_min = 1,
    .words_max = 1,
};
const struct verb verb_config_update = {
    .name = "config update",
    .words = "NAME",
    .about = "change a config's labels (another value: config put)",
    .run = run_update,
    .options = update_options,
    .words_min = 1,
    .words_max = 1,
};

/* --- rm ------------------------------------------------------------------------------------- */

static const struct option_spec rm_options[] = {
    {"version", "N", "only this version of its value"},
    {NULL, NULL, NULL},
};

static RESULT remove_one(struct cli *cli, const char *name, struct why *why) {
    uint64_t version = 0;
    char path[64];
    TRY(cli_number(cli, "version", 1, UINT32_MAX, &version, why));
    struct buf body = buf_new(4 * KIB);
    struct jout j;
    start_body(&j, &body);
    jout_put_text(&j, cli_kind(cli), name);
    jout_put_number(&j, "version", version);
    jout_close(&j, '}');
    enum err e = jout_end(&j);
    if (e != OK) {
        buf_free(&body);
        return e;
    }
    e = cli_post(cli, path_of(cli, "/remove", path), &body, true, NULL, why);
    if (e == ERR_NOT_FOUND && cli->unknown) e = OK; /* the lost answer of an earlier attempt */
    return e;
}

static enum err run_rm(struct cli *cli, struct why *why) {
    uint64_t version = 0;
    TRY(cli_number(cli, "version", 1, UINT32_MAX, &version, why));
    if (version > 0 && cli->n > 1)
        return fail_with(why, ERR_USAGE, "--version is of one %s", cli_kind(cli));
    return cli_remove_each(cli, remove_one, why);
}

const struct verb verb_secret_rm = {
    .name = "secret rm",
    .words = "NAME...",
    .about = "remove secrets that no service uses, and the keys of their values",
    .help = "Older logs, snapshots and backups still have what was sealed, and the cluster key of "
            "today opens it:\n`conclave secret shred` sees to that.",
    .run = run_rm,
    .options = rm_options,
    .words_min = 1,
    .words_max = WORDS_MAX,
};
const struct verb verb_config_rm = {
    .name = "config rm",
    .words = "NAME...",
    .about = "remove configs that no service uses",
    .run = run_rm,
    .options = rm_options,
    .words_min = 1,
    .words_max = WORDS_MAX,
};
