/* Verbs that show secrets and configs: lists, one by one, and a config's value. Of a secret there
 * is nothing to see but what is known of it. */
#include <sodium.h>
#include <stdio.h>

#include "api/cli/cli_columns.h"
#include "api/cli/cli_held.h"
#include "api/words.h"
#include "store/held.h"

static int64_t number(const json_t *object, const char *key) {
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static const char *moment(const json_t *object, const char *key, char out[MOMENT_TEXT]) {
    return words_moment(number(object, key) / 1000000000, out);
}

static const json_t *newest(const json_t *held) {
    const json_t *versions = json_object_get(held, "versions");
    size_t n = json_array_size(versions);
    return n > 0 ? json_array_get(versions, n - 1) : NULL;
}

/* --- filters -------------------------------------------------------------------------------- */

static bool begins(const char *text, const char *with) {
    return strncasecmp(text, with, strlen(with)) == 0;
}

/* KEY or KEY=VALUE of the labels. */
static bool has_label(const json_t *held, const char *wanted) {
    const json_t *labels = json_object_get(held, "labels");
    const char *equals = strchr(wanted, '=');
    char key[LABEL_KEY_MAX + 1];
    if (!equals) return json_object_get(labels, wanted) != NULL;
    if ((size_t)(equals - wanted) >= sizeof key) return false;
    (void)snprintf(key, sizeof key, "%.*s", (int)(equals - wanted), wanted);
    const char *value = json_string_value(json_object_get(labels, key));
    return value && strcmp(value, equals + 1) == 0;
}

static bool meets(const json_t *held, const char *filter) {
    if (begins(filter, "name=")) return begins(jin_string(held, "name"), filter + 5);
    if (begins(filter, "id=")) return begins(jin_string(held, "id"), filter + 3);
    return has_label(held, filter + strlen("label="));
}

static RESULT check_filters(const struct cli *cli, struct why *why) {
    unsigned at = 0;
    const char *filter;
    while ((filter = cli_option_next(cli, "filter", &at)) != NULL)
        if (!begins(filter, "name=") && !begins(filter, "id=") && !begins(filter, "label="))
            return fail_with(why, ERR_USAGE,
                             "--filter takes name=BEGINNING, id=BEGINNING or label=KEY[=VALUE]");
    return OK;
}

/* Takes out of the answer what one of the filters does not want. */
static void filter_list(const struct cli *cli, json_t *list) {
    for (size_t i = json_array_size(list); i-- > 0;) {
        unsigned at = 0;
        const char *filter;
        bool wanted = true;
        while (wanted && (filter = cli_option_next(cli, "filter", &at)) != NULL)
            wanted = meets(json_array_get(list, i), filter);
        if (!wanted) (void)json_array_remove(list, i);
    }
}

/* --- ls ------------------------------------------------------------------------------------- */

static RESULT print_list(const json_t *list, bool secrets, struct why *why) {
    static const char *const of_secrets[] = {"ID",      "NAME",   "VERSION", "BYTES", "CREATED",
                                             "UPDATED", "DRIVER", "LABELS",  NULL};
    static const char *const of_configs[] = {"ID",      "NAME",    "VERSION", "BYTES",
                                             "CREATED", "UPDATED", "LABELS",  NULL};
    struct columns c;
    size_t i;
    const json_t *h;
    columns_start(&c, secrets ? of_secrets : of_configs);
    json_array_foreach(list, i, h) {
        char created[MOMENT_TEXT], updated[MOMENT_TEXT], labels[512];
        columns_cell(&c, "%s", jin_string(h, "id"));
        columns_cell(&c, "%s", jin_string(h, "name"));
        columns_cell(&c, "%lld", (long long)number(newest(h), "version"));
        columns_cell(&c, "%lld", (long long)number(newest(h), "size"));
        columns_cell(&c, "%s", moment(h, "created_ns", created));
        columns_cell(&c, "%s", moment(h, "updated_ns", updated));
        if (secrets) columns_cell(&c, "%s", jin_string(h, "driver"));
        columns_cell(&c, "%s",
                     cli_labels_text(json_object_get(h, "labels"), labels, sizeof labels));
    }
    return columns_print(&c, why);
}

static const struct option_spec ls_options[] = {
    {"filter", "KEY=VALUE", "name=, id= (their beginnings), label=KEY[=VALUE]; all must be met"},
    {NULL, NULL, NULL},
};

static enum err run_ls(struct cli *cli, struct why *why) {
    bool secrets = strcmp(cli_kind(cli), "secret") == 0;
    json_t *answer = NULL;
    TRY(check_filters(cli, why));
    TRY(cli_get(cli, secrets ? "/conclave/v1/secrets" : "/conclave/v1/configs", &answer, why));
    json_t *list = json_object_get(answer, secrets ? "secrets" : "configs");
    filter_list(cli, list);
    enum err e = cli_json(cli) ? cli_print_json(answer) : print_list(list, secrets, why);
    json_decref(answer);
    return e;
}

const struct verb verb_secret_ls = {.name = "secret ls",
                                    .words = "",
                                    .about = "list the secrets, without their values",
                                    .run = run_ls,
                                    .options = ls_options};
const struct verb verb_config_ls = {.name = "config ls",
                                    .words = "",
                                    .about = "list the configs",
                                    .run = run_ls,
                                    .options = ls_options};

/* --- inspect -------------------------------------------------------------------------------- */

static void line(const char *label, const char *text) {
    if (text[0]) printf("%-14s %s\n", label, text);
}

static void print_versions(const json_t *held) {
    size_t i;
    const json_t *v;
    json_array_foreach(json_object_get(held, "versions"), i, v) {
        char at[MOMENT_TEXT];
        printf("%-14s %lld: %lld bytes, %s\n", i == 0 ? "versions" : "",
               (long long)number(v, "version"), (long long)number(v, "size"),
               moment(v, "created_ns", at));
    }
}

static void print_users(const json_t *held) {
    size_t i;
    const json_t *name;
    json_array_foreach(json_object_get(held, "services"), i, name) {
        printf("%-14s %s\n", i == 0 ? "used by" : "", json_string_value(name));
    }
}

static void print_held(const json_t *held) {
    char text[1024], at[MOMENT_TEXT];
    line("id", jin_string(held, "id"));
    line("name", jin_string(held, "name"));
    line("labels", cli_labels_text(json_object_get(held, "labels"), text, sizeof text));
    line("template", jin_string(held, "templating"));
    line("driver", jin_string(held, "driver"));
    line("driver options",
         cli_labels_text(json_object_get(held, "driver_options"), text, sizeof text));
    line("created", moment(held, "created_ns", at));
    line("updated", moment(held, "updated_ns", at));
    print_versions(held);
    print_users(held);
}

/* "value" of the answer goes into the object; of a config. */
static RESULT add_value(struct cli *cli, const char *name, json_t *held, struct why *why) {
    struct buf path = buf_new(4 * KIB);
    const char *version = cli_option(cli, "version");
    json_t *answer = NULL;
    enum err e = cli_query(&path, "/conclave/v1/configs/value", "config", name);
    if (e == OK && version) {
        path.size--; /* the NUL */
        e = buf_format(&path, "&version=%s", version);
        if (e == OK) e = buf_u8(&path, 0);
    }
    if (e == OK) e = cli_get(cli, (const char *)path.at, &answer, why);
    buf_free(&path);
    if (e == OK && json_object_set(held, "value", json_object_get(answer, "value")) != 0)
        e = ERR_NOMEM;
    json_decref(answer);
    return e;
}

static RESULT print_value(const json_t *held, struct why *why) {
    struct buf value = buf_new(CONFIG_SIZE_MAX);
    enum err e = jin_bytes(held, "value", &value, why);
    if (e == OK) (void)fwrite(value.at, 1, value.size, stdout);
    buf_free(&value);
    return e;
}

static RESULT inspect_one(struct cli *cli, const char *name, json_t *all, struct why *why) {
    char path[64];
    json_t *held = NULL;
    enum err e = OK;
    (void)snprintf(path, sizeof path, "/conclave/v1/%ss/inspect", cli_kind(cli));
    TRY(cli_get_named(cli, path, cli_kind(cli), name, &held, why));
    if (strcmp(cli_kind(cli), "config") == 0) e = add_value(cli, jin_string(held, "id"), held, why);
    if (e == OK && json_array_append(all, held) != 0) e = ERR_NOMEM;
    json_decref(held);
    return e;
}

static RESULT print_all(struct cli *cli, const json_t *all, struct why *why) {
    size_t i;
    const json_t *held;
    if (cli_json(cli)) return cli_print_json(all);
    json_array_foreach(all, i, held) {
        if (cli_option(cli, "value")) {
            TRY(print_value(held, why));
            continue;
        }
        if (i > 0) printf("\n");
        print_held(held);
        if (!json_object_get(held, "value")) continue;
        printf("\n");
        TRY(print_value(held, why));
    }
    return OK;
}

static enum err run_inspect(struct cli *cli, struct why *why) {
    uint64_t version = 0;
    TRY(cli_number(cli, "version", 1, UINT32_MAX, &version, why));
    json_t *all = json_array();
    enum err e = all ? OK : ERR_NOMEM;
    for (unsigned i = 0; e == OK && i < cli->n; i++) {
        struct why one = {0};
        e = inspect_one(cli, cli->words[i], all, &one);
        if (e != OK)
            e = fail_with(why, e, "%.64s: %s", cli->words[i], one.text[0] ? one.text : err_text(e));
    }
    if (e == OK) e = print_all(cli, all, why);
    json_decref(all);
    return e == OK ? cli_flush(why) : e;
}

static const struct option_spec config_inspect_options[] = {
    {"value", NULL, "print the value alone, byte for byte"},
    {"version", "N", "of this version; the newest unless told"},
    {NULL, NULL, NULL},
};

#define NAME_WORDS "NAME is a name, an id, or the beginning of an id."

const struct verb verb_secret_inspect = {
    .name = "secret inspect",
    .words = "NAME...",
    .about = "show what is known of secrets: versions, labels, who uses them",
    .help = NAME_WORDS,
    .run = run_inspect,
    .words_min = 1,
    .words_max = WORDS_MAX,
};
const struct verb verb_config_inspect = {
    .name = "config inspect",
    .words = "NAME...",
    .about = "show configs with their values",
    .help = NAME_WORDS,
    .run = run_inspect,
    .options = config_inspect_options,
    .words_min = 1,
    .words_max = WORDS_MAX,
};
