/* Verbs about the cluster and its members. Each is one or a few calls of the server's own
 * interface. */
#include "api/cli/cli.h"

#include "crypto/limits.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* --- init, join, leave ---------------------------------------------------------------------- */

static const struct option_spec init_options[] = {
    {"autolock", NULL, "every restart of a member needs the unlock key that is printed"},
    {"ca-cert", "FILE", "a root of your own: the signing certificate first, then up to the root"},
    {"ca-key", "FILE", "the signing certificate's key, PEM; the root's own can stay offline"},
    {NULL, NULL, NULL},
};

static RESULT init_body(const struct cli *cli, struct buf *body, struct why *why) {
    struct jout j;
    if (!cli_option(cli, "ca-cert") != !cli_option(cli, "ca-key"))
        return fail_with(why, ERR_USAGE, "--ca-cert goes with --ca-key");
    TRY(buf_reserve(body, 4 * PEM_MAX)); /* at once: growing would leave copies behind */
    jout_start(&j, body);
    jout_open(&j, '{');
    jout_put_bool(&j, "autolock", cli_option(cli, "autolock") != NULL);
    TRY(cli_put_chain(cli, "ca-cert", "ca-key", &j, why));
    jout_close(&j, '}');
    return jout_end(&j);
}

static enum err run_init(struct cli *cli, struct why *why) {
    struct buf body = buf_new(4 * PEM_MAX);
    json_t *answer = NULL;
    enum err e = init_body(cli, &body, why);
    if (e == OK) e = cli_post(cli, "/conclave/v1/init", &body, false, &answer, why);
    buf_wipe(&body);
    if (e != OK) return e;
    if (cli_json(cli)) {
        e = cli_print_json(answer);
    } else {
        const char *key = jin_string(answer, "unlock_key");
        printf("This node (%s, id %s) has founded cluster %s.\n\n", jin_string(answer, "name"),
               jin_string(answer, "id"), jin_string(answer, "cluster"));
        printf("To add a manager, on an empty directory of its own:\n\n    conclave serve --data "
               "DIR --name NAME --client "
               "ADDR:PORT --peer ADDR:PORT \\\n        --join %s --token %s\n",
               jin_string(answer, "peer_address"), jin_string(answer, "token"));
        if (key[0])
            printf("\nAutolock is on. After a restart a manager needs this key; keep it where the "
                   "managers are not:\n\n    %s\n",
                   key);
        e = cli_flush(why);
    }
    jin_wipe(answer);
    json_decref(answer);
    return e;
}

const struct verb verb_init = {
    .name = "init",
    .words = "",
    .about = "found a cluster on a node that waits",
    .help =
        "Prints the node's id and the standing join token for further managers; `conclave token "
        "show` shows it\n"
        "again, and the one for workers. Without --ca-cert a root is made here, for twenty "
        "years.",
    .run = run_init,
    .options = init_options,
};

static const struct option_spec join_options[] = {
    {"token", "TOKEN", "the join token; '-' or nothing reads it from standard input"},
    {NULL, NULL, NULL},
};

static RESULT join_body(struct cli *cli, struct buf *body, struct why *why) {
    const char *token = cli_option(cli, "token");
    struct buf line = buf_new(PASSPHRASE_MAX + 1);
    enum err e = OK;
    if (!token || strcmp(token, "-") == 0) {
        e = cli_read_secret("join token", &line, why);
        if (e == OK) e = buf_u8(&line, 0);
        token = e == OK ? (const char *)line.at : "";
    }
    struct jout j;
    jout_start(&j, body);
    jout_open(&j, '{');
    jout_put_text(&j, "address", cli->words[0]);
    jout_put_text(&j, "token", token);
    jout_close(&j, '}');
    if (e == OK) e = jout_end(&j);
    buf_wipe(&line);
    return e;
}

static enum err run_join(struct cli *cli, struct why *why) {
    struct buf body = buf_new(4 * KIB);
    json_t *answer = NULL;
    if (cli->timeout_ms < 30000) cli->timeout_ms = 30000;
    enum err e = join_body(cli, &body, why);
    if (e == OK) e = cli_post(cli, "/conclave/v1/join", &body, true, &answer, why);
    buf_wipe(&body);
    if (e != OK) return e;
    if (cli_json(cli))
        e = cli_print_json(answer);
    else
        printf("This node (%s, id %s) has joined cluster %s. It becomes a voter when it has caught "
               "up.\n",
               jin_string(answer, "name"), jin_string(answer, "id"), jin_string(answer, "cluster"));
    json_decref(answer);
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_join = {
    .name = "join",
    .words = "HOST:PORT",
    .about = "join a cluster through a member's peer address",
    .run = run_join,
    .options = join_options,
    .words_min = 1,
    .words_max = 1,
};

static const struct option_spec force_options[] = {
    {"force", NULL, "even when the quorum, or the cluster, is lost by it"},
    {NULL, NULL, NULL},
};

static enum err run_leave(struct cli *cli, struct why *why) {
    struct buf body = buf_new(1 * KIB);
    struct jout j;
    jout_start(&j, &body);
    jout_open(&j, '{');
    if (cli_option(cli, "force")) jout_put_bool(&j, "force", true);
    jout_close(&j, '}');
    TRY(jout_end(&j));
    enum err e = cli_post(cli, "/conclave/v1/leave", &body, true, NULL, why);
    if (e == OK && !cli_json(cli))
        printf("This node has left its cluster; its keys, log and snapshots are wiped.\n");
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_leave = {
    .name = "leave",
    .words = "",
    .about = "take this node out of its cluster and wipe its data",
    .run = run_leave,
    .options = force_options,
};

/* --- status --------------------------------------------------------------------------------- */

static void line(const json_t *status, const char *label, const char *key) {
    const json_t *value = json_object_get(status, key);
    if (json_is_string(value)) printf("%-14s %s\n", label, json_string_value(value));
    if (json_is_integer(value))
        printf("%-14s %" JSON_INTEGER_FORMAT "\n", label, json_integer_value(value));
    if (json_is_boolean(value)) printf("%-14s %s\n", label, json_is_true(value) ? "yes" : "no");
}

static RESULT print_status(const json_t *s, struct why *why) {
    static const char *const rows[][2] = {
        {"state", "state"},
        {"reason", "reason"},
        {"name", "name"},
        {"id", "id"},
        {"cluster", "cluster"},
        {"role", "role"},
        {"leader", "leader"},
        {"members", "members"},
        {"term", "term"},
        {"commit", "commit"},
        {"applied", "applied"},
        {"revision", "revision"},
        {"keys", "keys"},
        {"bytes", "bytes"},
        {"state hash", "hash"},
        {"log bytes", "log_bytes"},
        {"snapshot at", "snapshot"},
        {"autolock", "autolock"},
        {"cluster key", "cluster_key"},
        {"sealed by", "sealed_by"},
        {"data key", "key_generation"},
        {"clients", "client_address"},
        {"peers", "peer_address"},
        {"version", "version"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        line(s, rows[i][0], rows[i][1]);
    time_t until = (time_t)json_integer_value(json_object_get(s, "certificate_until"));
    struct tm utc;
    char text[32];
    if (until > 0 && gmtime_r(&until, &utc) &&
        strftime(text, sizeof text, "%Y-%m-%d %H:%M", &utc) > 0)
        printf("%-14s until %s UTC\n", "certificate", text);
    return cli_flush(why);
}

static enum err run_status(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    TRY(cli_get(cli, "/conclave/v1/status", &answer, why));
    return cli_print_answer(cli, answer, print_status, why);
}

const struct verb verb_status = {
    .name = "status", .words = "", .about = "show the state of a node", .run = run_status};

/* --- members -------------------------------------------------------------------------------- */

static RESULT print_members(const json_t *answer, struct why *why) {
    size_t i;
    const json_t *m;
    printf("%-27s %-16s %-8s %-10s %-22s %s\n", "ID", "NAME", "ROLE", "REACHABLE", "CLIENTS",
           "PEERS");
    json_array_foreach(json_object_get(answer, "members"), i, m) {
        const char *id = jin_string(m, "id");
        printf("%s%-*s %-16s %-8s %-10s %-22s %s\n", id, (int)(27 - strlen(id)),
               strcmp(id, jin_string(answer, "self")) == 0 ? " *" : "", jin_string(m, "name"),
               jin_string(m, "role"), json_is_true(json_object_get(m, "reachable")) ? "yes" : "no",
               jin_string(m, "client_address"), jin_string(m, "peer_address"));
    }
    if (!json_is_true(json_object_get(answer, "has_leader")))
        printf("nobody leads the cluster now\n");
    return cli_flush(why);
}

static enum err run_members(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    TRY(cli_get(cli, "/conclave/v1/members", &answer, why));
    return cli_print_answer(cli, answer, print_members, why);
}

const struct verb verb_members = {.name = "member ls",
                                  .words = "",
                                  .about = "list the members; * is the node that was asked",
                                  .run = run_members};

/* A change that its own leader has to make hands leadership over, and its answer may get lost in
 * that: it is asked for again, and found done then (`done`). */
static RESULT change(struct cli *cli, const char *path, enum err done, const char *text,
                     struct why *why) {
    const char *member = cli->n > 0 ? cli->words[0] : "";
    enum err e = cli_post_named(cli, path, "member", member, done, why);
    if (e == OK && !cli_json(cli)) printf("%s %s\n", member[0] ? member : "another member", text);
    return e == OK ? cli_flush(why) : e;
}

static enum err run_promote(struct cli *cli, struct why *why) {
    return change(cli, "/conclave/v1/members/promote", ERR_EXISTS, "is a voter", why);
}

static enum err run_demote(struct cli *cli, struct why *why) {
    return change(cli, "/conclave/v1/members/demote", ERR_EXISTS, "is a standby", why);
}

static enum err run_remove(struct cli *cli, struct why *why) {
    return change(cli, "/conclave/v1/members/remove", ERR_NOT_FOUND, "is no member any more", why);
}

static enum err run_transfer(struct cli *cli, struct why *why) {
    return change(cli, "/conclave/v1/members/transfer", OK, "leads now", why);
}

const struct verb verb_promote = {
    .name = "member promote",
    .words = "MEMBER",
    .about = "make a standby a voter, once it has caught up",
    .help = "MEMBER is a name, an id, or an id's first characters. Newcomers are promoted by "
            "themselves; only one\n"
            "that was demoted needs this.",
    .run = run_promote,
    .words_min = 1,
    .words_max = 1,
};
const struct verb verb_demote = {
    .name = "member demote",
    .words = "MEMBER",
    .about = "make a voter a standby",
    .help = "It keeps its copy of everything but no longer counts for the quorum.",
    .run = run_demote,
    .options = force_options,
    .words_min = 1,
    .words_max = 1,
};
const struct verb verb_remove = {
    .name = "member rm",
    .words = "MEMBER",
    .about = "remove a member",
    .help =
        "For one that is gone. A member that still runs leaves by itself with `conclave leave`.",
    .run = run_remove,
    .options = force_options,
    .words_min = 1,
    .words_max = 1,
};
const struct verb verb_transfer = {
    .name = "member transfer",
    .words = "[MEMBER]",
    .about = "hand leadership over, to MEMBER or to whoever is most up to date",
    .run = run_transfer,
    .words_max = 1,
};
