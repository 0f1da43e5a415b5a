/* `conclave run`: one command of this node's operator, with secrets and configs as its files. This
 * process is the command's supervisor; the node's agent brings the values to it over a socket, so
 * that they are never in an argument, a variable, a file or an answer. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/app.h"
#include "api/cli/cli.h"
#include "api/cli/file_word.h"
#include "api/task/supervisor.h"

#define BODY_MAX (256 * KIB)
#define LIST_MAX (SUP_FRAME_MAX / 4)

static const struct option_spec options[] = {
    {"secret", "NAME[,target=,uid=,gid=,mode=,version=]",
     "a secret as a file of /run/secrets; may be given several times"},
    {"config", "NAME[,target=,uid=,gid=,mode=,version=]",
     "a config as the file /NAME; may be given several times"},
    {"image", "PATH", "a root file system of this node; its own, read-only, unless told"},
    {"mount", "SOURCE:TARGET[:ro]", "a directory of the node; may be given several times"},
    {"user", "USER[:GROUP]", "whom it runs as; root unless told"},
    {"workdir", "PATH",
     "its working directory; this one unless told, / in an image, or in /tmp and /run"},
    {"hostname", "NAME", "its host name; the node's unless told"},
    {NULL, NULL, NULL},
};

/* --- the order -------------------------------------------------------------------------------- */

struct lists {
    struct buf command, env, mounts;
};

static RESULT add_mounts(const struct cli *cli, struct buf *out, struct why *why) {
    struct buf one = buf_new(4 * KIB);
    struct mount_word m;
    unsigned at = 0;
    enum err e = OK;
    for (const char *text; e == OK && (text = cli_option_next(cli, "mount", &at));) {
        buf_clear(&one);
        e = mount_word_parse(text, &m, why);
        if (e == OK) e = buf_u8(&one, m.read_only);
        if (e == OK) e = buf_block(&one, span_str(m.source));
        if (e == OK) e = buf_block(&one, span_str(m.target));
        if (e == OK) e = buf_block(out, buf_span(&one));
    }
    buf_free(&one);
    return e;
}

/* The caller's variables, as for any command that it starts. */
static RESULT add_environment(struct buf *out, struct why *why) {
    unsigned n = 0;
    for (char **at = environ; *at; at++, n++) {
        if (n == SERVICE_ENV_MAX || strlen(*at) > SERVICE_TEXT_MAX)
            return fail_with(why, ERR_TOO_LARGE,
                             "the environment has more than %d variables, or a very long one",
                             SERVICE_ENV_MAX);
        TRY(buf_block(out, span_str(*at)));
    }
    return OK;
}

static RESULT set_text(char *out, size_t room, const struct cli *cli, const char *option,
                       struct why *why) {
    const char *text = cli_option(cli, option);
    if (!text) return OK;
    if (strlen(text) >= room) return fail_with(why, ERR_USAGE, "--%s is too long", option);
    (void)snprintf(out, room, "%s", text);
    return OK;
}

/* Where we are, unless that is a place that the task has its own of. */
static void set_dir(struct sup_order *o) {
    static const char *const own[] = {"/tmp", "/run", "/dev", "/proc"};
    char here[SUP_PATH_MAX];
    if (o->dir[0] || strcmp(o->image, "host") != 0 || !getcwd(here, sizeof here)) return;
    for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
        size_t size = strlen(own[i]);
        if (strncmp(here, own[i], size) == 0 && (here[size] == '/' || !here[size])) return;
    }
    (void)snprintf(o->dir, sizeof o->dir, "%s", here);
}

static RESULT make_order(const struct cli *cli, struct lists *l, struct sup_order *o,
                         struct why *why) {
    char real[PATH_MAX], id[NODE_ID_SIZE + 1];
    *o = (struct sup_order){.image = "host", .stop_signal = 15, .reload_signal = 1};
    if (!realpath(cli_data(cli), real) || strlen(real) >= sizeof o->data)
        return fail_with(why, ERR_UNREACHABLE, "%s is no data directory of a node", cli_data(cli));
    (void)snprintf(o->data, sizeof o->data, "%.*s", SUP_PATH_MAX - 1, real);
    random_id(id);
    (void)snprintf(o->id, sizeof o->id, SUP_RUN_PREFIX "%s", id);
    TRY(set_text(o->image, sizeof o->image, cli, "image", why));
    TRY(set_text(o->user, sizeof o->user, cli, "user", why));
    TRY(set_text(o->dir, sizeof o->dir, cli, "workdir", why));
    TRY(set_text(o->hostname, sizeof o->hostname, cli, "hostname", why));
    set_dir(o);
    if (o->image[0] != '/' && strcmp(o->image, "host") != 0)
        return fail_with(why, ERR_USAGE, "--image takes an absolute path");
    for (unsigned i = 0; i < cli->n; i++)
        TRY(buf_block(&l->command, span_str(cli->words[i])));
    TRY(add_environment(&l->env, why));
    TRY(add_mounts(cli, &l->mounts, why));
    o->command = buf_span(&l->command);
    o->env = buf_span(&l->env);
    o->mounts = buf_span(&l->mounts);
    return OK;
}

/* --- the request ------------------------------------------------------------------------------ */

static void put_file(struct jout *j, const char *kind, const struct file_word *f) {
    jout_open(j, '{');
    jout_put_text(j, "kind", kind);
    jout_put_text(j, "name", f->name);
    jout_put_text(j, "target", f->target);
    jout_put_number(j, "uid", f->uid);
    jout_put_number(j, "gid", f->gid);
    jout_put_number(j, "mode", f->mode);
    jout_put_number(j, "version", f->version);
    jout_close(j, '}');
}

static RESULT put_files(const struct cli *cli, const char *kind, struct jout *j, unsigned *n,
                        struct why *why) {
    struct file_word f;
    unsigned at = 0;
    for (const char *text; (text = cli_option_next(cli, kind, &at)); (*n)++) {
        TRY(file_word_parse(text, true, &f, why));
        put_file(j, kind, &f);
    }
    return OK;
}

static RESULT make_body(const struct cli *cli, const char *id, struct buf *out, struct why *why) {
    struct jout j;
    unsigned n = 0;
    jout_start(&j, out);
    jout_open(&j, '{');
    jout_put_text(&j, "id", id);
    jout_key(&j, "files");
    jout_open(&j, '[');
    TRY(put_files(cli, "secret", &j, &n, why));
    TRY(put_files(cli, "config", &j, &n, why));
    jout_close(&j, ']');
    jout_close(&j, '}');
    if (n == 0)
        return fail_with(why, ERR_USAGE, "name a secret or a config: --secret NAME, --config NAME");
    return jout_end(&j);
}

struct request {
    struct cli *cli;
    struct buf body;
};

static enum err ask(void *ctx, struct why *why) {
    struct request *r = ctx;
    json_t *answer = NULL;
    enum err e = cli_post(r->cli, "/conclave/v1/run", &r->body, false, &answer, why);
    json_decref(answer);
    return e;
}

static enum err run(struct cli *cli, struct why *why) {
    struct lists l = {
        .command = buf_new(LIST_MAX), .env = buf_new(LIST_MAX), .mounts = buf_new(LIST_MAX)};
    struct request r = {.cli = cli, .body = buf_new(BODY_MAX)};
    struct sup_order *o = malloc(sizeof *o);
    enum err e = o ? OK : ERR_NOMEM;
    if (e == OK && cli_option(cli, "endpoint"))
        e = fail_with(why, ERR_USAGE, "a command runs on its own node: --data, not --endpoint");
    if (e == OK && geteuid() != 0)
        e = fail_with(why, ERR_PERMISSION, "root is needed: only it can make the namespaces");
    if (e == OK) e = make_order(cli, &l, o, why);
    if (e == OK) e = make_body(cli, o->id, &r.body, why);
    if (e == OK) e = supervisor_run(o, ask, &r, &cli->exit_code, why);
    buf_free(&l.command);
    buf_free(&l.env);
    buf_free(&l.mounts);
    buf_wipe(&r.body);
    free(o);
    return e;
}

const struct verb verb_run = {
    .name = "run",
    .words = "--secret|--config NAME [OPTIONS] -- COMMAND...",
    .about = "run one command on this node, with secrets and configs as its files",
    .help = "The secrets are in /run/secrets, in memory that only this command sees, and gone when "
            "it ends. It has\nnamespaces of its own, a /tmp and a /run of its own, and the node's "
            "files read-only. Its exit code is that of\nthe command; 128 and the number of the "
            "signal that ended it.\n\nA node may have a secret or config whose label conclave.run "
            "lists it (names or ids, separated by ',';\n'*' all); a manager may have every one. "
            "Each time is a record of the audit.",
    .run = run,
    .options = options,
    .words_min = 1,
    .words_max = SERVICE_ARGS_MAX,
};
