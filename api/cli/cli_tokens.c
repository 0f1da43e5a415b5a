/* Verbs about join tokens. A token is printed when it is made, and the two standing ones (one a
 * role) when they are asked for; lists have no secrets in them. */
#include <stdio.h>

#include "api/cli/cli.h"
#include "api/cli/cli_columns.h"
#include "api/words.h"

static RESULT print_token(struct cli *cli, json_t *answer, struct why *why) {
    enum err e = OK;
    if (cli_json(cli))
        e = cli_print_json(answer);
    else
        printf("%s\n", jin_string(answer, "token"));
    jin_wipe(answer);
    json_decref(answer);
    return e == OK ? cli_flush(why) : e;
}

/* The role that was meant; without the option: a manager's. */
static RESULT role_option(const struct cli *cli, const char **out, struct why *why) {
    enum node_role role;
    *out = cli_option(cli, "role");
    if (!*out) *out = "manager";
    enum err e = words_role(*out, &role, why);
    return e == OK ? OK : fail_in(why, ERR_USAGE, "--role");
}

/* --- create --------------------------------------------------------------------------------- */

static const struct option_spec create_options[] = {
    {"role", "worker|manager", "of whoever joins by it; needed"},
    {"expires", "DURATION", "how long it is good: 1h, 30m, 7d; for ever unless told"},
    {"uses", "N", "how many nodes may join by it; any number unless told"},
    {"from", "CIDR,...", "networks from which it is taken; anywhere unless told"},
    {"label", "KEY=VALUE", "a label that its nodes get; may be given several times"},
    {"name", "TEXT", "what it is for; shown in the list"},
    {NULL, NULL, NULL},
};

static RESULT create_body(const struct cli *cli, struct buf *body, struct why *why) {
    const char *role = cli_option(cli, "role"), *expires = cli_option(cli, "expires");
    const char *from = cli_option(cli, "from"), *name = cli_option(cli, "name");
    int64_t expires_s = 0;
    uint64_t uses = 0;
    struct jout j;
    if (!role) return fail_with(why, ERR_USAGE, "--role is needed: worker or manager");
    TRY(role_option(cli, &role, why));
    if (expires && words_duration(expires, &expires_s, why) != OK)
        return fail_in(why, ERR_USAGE, "--expires");
    if (expires && expires_s == 0)
        return fail_with(why, ERR_USAGE, "--expires: a token lives for a second at least");
    TRY(cli_number(cli, "uses", 1, UINT32_MAX, &uses, why));
    jout_start(&j, body);
    jout_open(&j, '{');
    jout_put_text(&j, "role", role);
    jout_put_number(&j, "expires_in_s", (uint64_t)expires_s);
    jout_put_number(&j, "uses", uses);
    if (from) jout_put_text(&j, "from", from);
    if (name) jout_put_text(&j, "name", name);
    TRY(cli_put_labels(cli, "label", "labels", &j, why));
    jout_close(&j, '}');
    return jout_end(&j);
}

static enum err run_create(struct cli *cli, struct why *why) {
    struct buf body = buf_new(64 * KIB);
    json_t *answer = NULL;
    enum err e = create_body(cli, &body, why);
    if (e == OK)
        e = cli_post(cli, "/conclave/v1/tokens/create", &body, false, &answer, why);
    else
        buf_free(&body);
    return e == OK ? print_token(cli, answer, why) : e;
}

const struct verb verb_token_create = {
    .name = "token create",
    .words = "--role worker|manager",
    .about = "make a join token and show it, once",
    .help = "Only a hash of it is kept, so it can't be shown again. A use is counted in the same "
            "step that admits\n"
            "the node. The standing tokens, which docker's clients show, are `conclave token "
            "show`.",
    .run = run_create,
    .options = create_options,
};

/* --- ls ------------------------------------------------------------------------------------- */

static const char *uses_text(const json_t *t, char *out, size_t room) {
    long long used = json_integer_value(json_object_get(t, "used"));
    long long most = json_integer_value(json_object_get(t, "uses_max"));
    if (most > 0)
        (void)snprintf(out, room, "%lld of %lld", used, most);
    else
        (void)snprintf(out, room, "%lld", used);
    return out;
}

static RESULT print_tokens(const json_t *answer, struct why *why) {
    static const char *const titles[] = {"ID",   "ROLE", "NAME",   "STATE", "EXPIRES",
                                         "USES", "FROM", "LABELS", NULL};
    struct columns c;
    size_t i;
    const json_t *t;
    columns_start(&c, titles);
    json_array_foreach(json_object_get(answer, "tokens"), i, t) {
        char moment[MOMENT_TEXT], uses[48], labels[512];
        const char *from = jin_string(t, "from");
        columns_cell(&c, "%s", jin_string(t, "id"));
        columns_cell(&c, "%s", jin_string(t, "role"));
        columns_cell(&c, "%s", jin_string(t, "name"));
        columns_cell(&c, "%s", jin_string(t, "state"));
        columns_cell(&c, "%s",
                     words_moment(json_integer_value(json_object_get(t, "expires_s")), moment));
        columns_cell(&c, "%s", uses_text(t, uses, sizeof uses));
        columns_cell(&c, "%s", from[0] ? from : "anywhere");
        columns_cell(&c, "%s",
                     cli_labels_text(json_object_get(t, "labels"), labels, sizeof labels));
    }
    return columns_print(&c, why);
}

static enum err run_ls(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    TRY(cli_get(cli, "/conclave/v1/tokens", &answer, why));
    return cli_print_answer(cli, answer, print_tokens, why);
}

const struct verb verb_token_ls = {.name = "token ls",
                                   .words = "",
                                   .about = "list the join tokens, without secrets",
                                   .run = run_ls};

/* --- rm, show, rotate ----------------------------------------------------------------------- */

static enum err run_rm(struct cli *cli, struct why *why) {
    enum err e = cli_post_named(cli, "/conclave/v1/tokens/remove", "token", cli->words[0],
                                ERR_NOT_FOUND, why);
    if (e == OK && !cli_json(cli)) printf("%s is good for nobody any more\n", cli->words[0]);
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_token_rm = {
    .name = "token rm",
    .words = "ID",
    .about = "revoke a join token; one that is over already is forgotten",
    .help = "ID is an id, its first characters, or the token's name. The nodes that have joined by "
            "it stay. The\n"
            "standing tokens can't be removed: `conclave token rotate`.",
    .run = run_rm,
    .words_min = 1,
    .words_max = 1,
};

static const struct option_spec role_options[] = {
    {"role", "worker|manager", "whose; manager unless told"},
    {NULL, NULL, NULL},
};

static enum err run_show(struct cli *cli, struct why *why) {
    const char *role;
    char path[96];
    json_t *answer = NULL;
    TRY(role_option(cli, &role, why));
    (void)snprintf(path, sizeof path, "/conclave/v1/tokens/show?role=%s", role);
    TRY(cli_get(cli, path, &answer, why));
    return print_token(cli, answer, why);
}

const struct verb verb_token_show = {
    .name = "token show",
    .words = "",
    .about = "show the standing join token of a role",
    .help = "It is derived from a key of the cluster, and kept nowhere.",
    .run = run_show,
    .options = role_options,
};

static enum err run_rotate(struct cli *cli, struct why *why) {
    const char *role;
    struct buf body = buf_new(256);
    json_t *answer = NULL;
    TRY(role_option(cli, &role, why));
    TRY(buf_format(&body, "{\"role\":\"%s\"}", role));
    TRY(cli_post(cli, "/conclave/v1/tokens/rotate", &body, false, &answer, why));
    return print_token(cli, answer, why);
}

const struct verb verb_token_rotate = {
    .name = "token rotate",
    .words = "",
    .about = "make another standing join token of a role and show it",
    .help = "The one before is worth nothing from then on.",
    .run = run_rotate,
    .options = role_options,
};
