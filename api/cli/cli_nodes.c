/* Verbs about nodes, managers and workers. NODE is an id, its first characters, a name, a host
 * name where only one node has it, or `self`. */
#include <stdio.h>
#include <time.h>

#include "api/cli/cli.h"
#include "api/cli/cli_columns.h"
#include "api/words.h"

static int64_t number(const json_t *object, const char *key) {
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static bool is_true(const json_t *object, const char *key) {
    return json_is_true(json_object_get(object, key));
}

/* --- labels --------------------------------------------------------------------------------- */

RESULT cli_put_labels(const struct cli *cli, const char *option, const char *key, struct jout *j,
                      struct why *why) {
    unsigned at = 0;
    const char *text;
    struct span name, value;
    jout_key(j, key);
    jout_open(j, '{');
    while ((text = cli_option_next(cli, option, &at)) != NULL) {
        char key_text[LABEL_KEY_MAX + 1];
        char where[64];
        (void)snprintf(where, sizeof where, "--%s %.40s", option, text);
        if (words_label(text, &name, &value, why) != OK) return fail_in(why, ERR_USAGE, where);
        memcpy(key_text, name.at, name.size);
        key_text[name.size] = '\0';
        jout_key(j, key_text);
        jout_text(j, value);
    }
    jout_close(j, '}');
    return OK;
}

RESULT cli_put_label_changes(const struct cli *cli, struct jout *j, struct why *why) {
    unsigned at = 0;
    const char *key;
    TRY(cli_put_labels(cli, "label-add", "labels_add", j, why));
    jout_key(j, "labels_remove");
    jout_open(j, '[');
    while ((key = cli_option_next(cli, "label-rm", &at)) != NULL)
        jout_text(j, span_str(key));
    jout_close(j, ']');
    return OK;
}

const char *cli_labels_text(const json_t *labels, char *out, size_t room) {
    const char *key;
    json_t *value;
    size_t size = 0;
    out[0] = '\0';
    json_object_foreach((json_t *)(uintptr_t)labels, key, value) {
        int more = snprintf(out + size, room - size, "%s%s=%s", size > 0 ? " " : "", key,
                            json_string_value(value));
        if (more < 0 || (size_t)more >= room - size) break;
        size += (size_t)more;
    }
    return out;
}

/* --- ls and pending ------------------------------------------------------------------------- */

static const char *name_of(const json_t *node) {
    const char *name = jin_string(node, "name");
    return name[0] ? name : jin_string(node, "hostname");
}

/* What it is, and on its way to be. */
static const char *role_text(const json_t *node, char *out, size_t room) {
    const char *role = jin_string(node, "role"), *granted = jin_string(node, "granted");
    if (is_true(node, "leader")) granted = "leader";
    if (strcmp(role, jin_string(node, "granted")) == 0)
        (void)snprintf(out, room, "%s", granted);
    else
        (void)snprintf(out, room, "%s > %s", granted, role);
    return out;
}

/* Until when it has a certificate, and what is to be done about it. */
static const char *certificate_text(const json_t *node, char *out, size_t room) {
    const json_t *cert = json_object_get(node, "certificate");
    const char *state = jin_string(cert, "state");
    char moment[MOMENT_TEXT];
    (void)words_moment(number(cert, "until_s"), moment);
    if (strcmp(state, "pending") == 0)
        (void)snprintf(out, room, "%s",
                       is_true(cert, "approved") ? "approved" : "waits for approval");
    else if (is_true(cert, "expired"))
        (void)snprintf(out, room, "ran out %s", moment);
    else
        (void)snprintf(out, room, "%s%s", moment,
                       strcmp(state, "renew") == 0 || !is_true(cert, "current") ? ", due" : "");
    return out;
}

static RESULT print_nodes(const json_t *answer, struct why *why) {
    static const char *const titles[] = {
        "ID", "NAME", "STATE", "AVAILABILITY", "ROLE", "FROM", "CERTIFICATE", "LABELS", NULL};
    struct columns c;
    size_t i;
    const json_t *node;
    columns_start(&c, titles);
    json_array_foreach(json_object_get(answer, "nodes"), i, node) {
        char role[64], cert[96], labels[512];
        const char *id = jin_string(node, "id");
        bool self = strcmp(id, jin_string(answer, "self")) == 0;
        columns_cell(&c, "%s%s", id, self ? " *" : "");
        columns_cell(&c, "%s", name_of(node));
        columns_cell(&c, "%s", jin_string(node, "state"));
        columns_cell(&c, "%s", jin_string(node, "availability"));
        columns_cell(&c, "%s", role_text(node, role, sizeof role));
        columns_cell(&c, "%s", jin_string(node, "address"));
        columns_cell(&c, "%s", certificate_text(node, cert, sizeof cert));
        columns_cell(&c, "%s",
                     cli_labels_text(json_object_get(node, "labels"), labels, sizeof labels));
    }
    return columns_print(&c, why);
}

/* The answer has all of them: those that are not pending are taken out here. */
static void keep_pending(json_t *answer) {
    json_t *nodes = json_object_get(answer, "nodes");
    for (size_t i = json_array_size(nodes); i-- > 0;) {
        const json_t *cert = json_object_get(json_array_get(nodes, i), "certificate");
        if (strcmp(jin_string(cert, "state"), "pending") != 0) (void)json_array_remove(nodes, i);
    }
}

static enum err list(struct cli *cli, bool only_pending, struct why *why) {
    json_t *answer = NULL;
    TRY(cli_get(cli, "/conclave/v1/nodes", &answer, why));
    if (only_pending) keep_pending(answer);
    return cli_print_answer(cli, answer, print_nodes, why);
}

static enum err run_ls(struct cli *cli, struct why *why) { return list(cli, false, why); }

static enum err run_pending(struct cli *cli, struct why *why) { return list(cli, true, why); }

const struct verb verb_node_ls = {
    .name = "node ls",
    .words = "",
    .about = "list the nodes, managers and workers; * is the one that was asked",
    .help = "A role `worker > manager` is one that is being promoted. A certificate that is `due` "
            "is about to be\n"
            "renewed by its node: a rotation of the root, another role or address wants it.",
    .run = run_ls,
};
const struct verb verb_node_pending = {
    .name = "node pending",
    .words = "",
    .about = "list the nodes whose certificate ran out and that ask to come back",
    .help = "Each has proved that it holds its old key; `conclave node approve` lets it in, "
            "`conclave ca set\n--readmit` says what happens to such nodes.",
    .run = run_pending,
};

/* --- inspect -------------------------------------------------------------------------------- */

RESULT cli_query(struct buf *out, const char *path, const char *name, const char *text) {
    TRY(buf_format(out, "%s?%s=", path, name));
    for (const uint8_t *c = (const uint8_t *)text; *c != '\0'; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || strchr("-._~", *c) != NULL;
        TRY(plain ? buf_u8(out, *c) : buf_format(out, "%%%02X", *c));
    }
    return buf_u8(out, 0);
}

static void line(const char *label, const char *text) {
    if (text[0]) printf("%-14s %s\n", label, text);
}

static void print_certificate(const json_t *node) {
    const json_t *cert = json_object_get(node, "certificate");
    char text[96];
    line("certificate", certificate_text(node, text, sizeof text));
    line("key digest", jin_string(cert, "key_digest"));
    line("issuer", jin_string(cert, "issuer_digest"));
    line("asks with", jin_string(cert, "wanted_digest"));
}

static RESULT print_node(const json_t *node, struct why *why) {
    char text[1024], moment[MOMENT_TEXT];
    line("id", jin_string(node, "id"));
    line("name", jin_string(node, "name"));
    line("host name", jin_string(node, "hostname"));
    line("role", role_text(node, text, sizeof text));
    line("availability", jin_string(node, "availability"));
    line("state", jin_string(node, "state"));
    line("message", jin_string(node, "message"));
    line("labels", cli_labels_text(json_object_get(node, "labels"), text, sizeof text));
    line("seen at", jin_string(node, "address"));
    line("clients", jin_string(node, "client_address"));
    line("peers", jin_string(node, "peer_address"));
    (void)snprintf(text, sizeof text, "%s %s", jin_string(node, "os"), jin_string(node, "arch"));
    line("platform", text);
    line("engine", jin_string(node, "engine"));
    line("joined", words_moment(number(node, "created_ns") / 1000000000, moment));
    line("by token", jin_string(node, "token"));
    print_certificate(node);
    return cli_flush(why);
}

static enum err run_inspect(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    TRY(cli_get_named(cli, "/conclave/v1/nodes/inspect", "node", cli->words[0], &answer, why));
    return cli_print_answer(cli, answer, print_node, why);
}

#define NODE_WORDS                                                                                 \
    "NODE is an id, its first characters, a name, a host name that only one node has, or `self`."

const struct verb verb_node_inspect = {
    .name = "node inspect",
    .words = "NODE",
    .about = "show all that is known of a node",
    .help = NODE_WORDS,
    .run = run_inspect,
    .words_min = 1,
    .words_max = 1,
};

/* --- update --------------------------------------------------------------------------------- */

static const struct option_spec update_options[] = {
    {"availability", "active|pause|drain", "what may run there"},
    LABEL_CHANGE_OPTIONS,
    {"name", "TEXT", "call it so; '' takes the name away"},
    {NULL, NULL, NULL},
};

static RESULT update_body(const struct cli *cli, struct buf *body, struct why *why) {
    const char *availability = cli_option(cli, "availability"), *name = cli_option(cli, "name");
    enum node_availability value;
    struct jout j;
    if (cli->given_n == 0)
        return fail_with(why, ERR_USAGE, "nothing is to be changed; --help lists what can be");
    if (availability && words_availability(availability, &value, why) != OK)
        return fail_in(why, ERR_USAGE, "--availability");
    jout_start(&j, body);
    jout_open(&j, '{');
    jout_put_text(&j, "node", cli->words[0]);
    if (availability) jout_put_text(&j, "availability", availability);
    if (name) jout_put_text(&j, "name", name);
    TRY(cli_put_label_changes(cli, &j, why));
    jout_close(&j, '}');
    return jout_end(&j);
}

static enum err run_update(struct cli *cli, struct why *why) {
    struct buf body = buf_new(256 * KIB);
    enum err e = update_body(cli, &body, why);
    if (e == OK)
        e = cli_post(cli, "/conclave/v1/nodes/update", &body, true, NULL, why);
    else
        buf_free(&body);
    if (e == OK && !cli_json(cli)) printf("%s is updated\n", cli->words[0]);
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_node_update = {
    .name = "node update",
    .words = "NODE",
    .about = "change a node's availability, labels or name",
    .help = NODE_WORDS,
    .run = run_update,
    .options = update_options,
    .words_min = 1,
    .words_max = 1,
};

/* --- changes by name ------------------------------------------------------------------------ */

static RESULT change(struct cli *cli, const char *path, enum err done, const char *text,
                     struct why *why) {
    if (cli->timeout_ms < 30000) cli->timeout_ms = 30000; /* leadership may have to move first */
    enum err e = cli_post_named(cli, path, "node", cli->words[0], done, why);
    if (e == OK && !cli_json(cli)) printf("%s %s\n", cli->words[0], text);
    return e == OK ? cli_flush(why) : e;
}

static enum err run_promote(struct cli *cli, struct why *why) {
    return change(cli, "/conclave/v1/nodes/promote", OK, "is to be a manager", why);
}

static enum err run_demote(struct cli *cli, struct why *why) {
    return change(cli, "/conclave/v1/nodes/demote", OK, "is to be a worker", why);
}

static enum err run_rm(struct cli *cli, struct why *why) {
    return change(cli, "/conclave/v1/nodes/remove", ERR_NOT_FOUND, "is no node any more", why);
}

static enum err run_approve(struct cli *cli, struct why *why) {
    return change(cli, "/conclave/v1/nodes/approve", OK, "may come back", why);
}

static enum err run_deny(struct cli *cli, struct why *why) {
    return change(cli, "/conclave/v1/nodes/deny", OK, "stays away", why);
}

static const struct option_spec demote_options[] = {
    {"force", NULL, "even when the quorum is lost by it"},
    {NULL, NULL, NULL},
};
static const struct option_spec rm_options[] = {
    {"force", NULL, "a node that runs, or a manager"},
    {NULL, NULL, NULL},
};

const struct verb verb_node_promote = {
    .name = "node promote",
    .words = "NODE",
    .about = "make a worker a manager",
    .help = "The node gets a manager's certificate and joins the quorum by itself; `conclave node "
            "ls` shows when.\n" NODE_WORDS,
    .run = run_promote,
    .words_min = 1,
    .words_max = 1,
};
const struct verb verb_node_demote = {
    .name = "node demote",
    .words = "NODE",
    .about = "make a manager a worker",
    .help = "It leaves the quorum, and wipes its log, its snapshots and its keys. The last manager "
            "stays one.\n" NODE_WORDS,
    .run = run_demote,
    .options = demote_options,
    .words_min = 1,
    .words_max = 1,
};
const struct verb verb_node_rm = {
    .name = "node rm",
    .words = "NODE",
    .about = "remove a node: its certificate is refused from then on",
    .help =
        "A manager is demoted before, and a node that runs leaves by itself (`conclave leave`), "
        "unless --force\n"
        "insists. Its open connections are cut.\n" NODE_WORDS,
    .run = run_rm,
    .options = rm_options,
    .words_min = 1,
    .words_max = 1,
};
const struct verb verb_node_approve = {
    .name = "node approve",
    .words = "NODE",
    .about = "let a node come back whose certificate ran out",
    .help = NODE_WORDS,
    .run = run_approve,
    .words_min = 1,
    .words_max = 1,
};
const struct verb verb_node_deny = {
    .name = "node deny",
    .words = "NODE",
    .about = "refuse a node that asks to come back",
    .help = "It may ask again; `conclave node rm` ends that.\n" NODE_WORDS,
    .run = run_deny,
    .words_min = 1,
    .words_max = 1,
};
