/* Verbs about keys: the data keys, the key of backups, client certificates. Keys are printed on
 * standard output and nowhere else; they come in by standard input or files, never as arguments.
 * (Locks: cli_unlock.c; join tokens: cli_tokens.c.) */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/cli/cli_keyfile.h"
#include "crypto/x509.h"

static RESULT post(struct cli *cli, const char *path, const struct buf *body, json_t **out,
                   struct why *why) {
    struct cli_call call = {.method = HTTP_POST, .path = path, .body = body};
    return cli_json_call(cli, &call, out, why);
}

/* Prints a field of the answer, or the answer as JSON; frees it. */
static RESULT print_one(struct cli *cli, json_t *answer, const char *before, const char *field,
                        struct why *why) {
    enum err e = OK;
    if (cli_json(cli))
        e = cli_print_json(answer);
    else
        printf("%s%s\n", before, jin_string(answer, field));
    jin_wipe(answer);
    json_decref(answer);
    return e == OK ? cli_flush(why) : e;
}

/* --- showing and rotating ------------------------------------------------------------------- */

static enum err run_backup_key(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    struct cli_call call = {
        .method = HTTP_GET, .path = "/conclave/v1/backup-key", .again_is_safe = true};
    TRY(cli_json_call(cli, &call, &answer, why));
    return print_one(cli, answer, "", "backup_key", why);
}

static enum err run_rotate(struct cli *cli, const char *path, const char *before, const char *field,
                           struct why *why) {
    json_t *answer = NULL;
    TRY(post(cli, path, NULL, &answer, why));
    return print_one(cli, answer, before, field, why);
}

static const struct option_spec rotate_options[] = {
    {"cluster", NULL, "the cluster key, which seals the secrets' keys, on all managers"},
    {NULL, NULL, NULL},
};

static enum err run_key_rotate(struct cli *cli, struct why *why) {
    if (cli_option(cli, "cluster")) return cli_rotate_cluster(cli, why);
    if (cli->timeout_ms < 600000) cli->timeout_ms = 600000; /* everything is sealed anew */
    return run_rotate(cli, "/conclave/v1/keys/rotate", "All files are sealed by data key ",
                      "generation", why);
}

const struct verb verb_backup_key = {
    .name = "backup-key",
    .words = "",
    .about = "show the key of snapshots that etcd's clients save",
    .help = "`etcdctl snapshot save` gets the state sealed under this key, which stays the same; "
            "keep it apart\nfrom the snapshots: `conclave restore` asks for it. `conclave backup` "
            "makes a key for each file.",
    .run = run_backup_key,
};
const struct verb verb_key_rotate = {
    .name = "key rotate",
    .words = "",
    .about = "make another data key for a node and seal its files anew",
    .help = "Each member has data keys of its own: repeat it for each. The old key is destroyed "
            "when no file needs it.\n"
            "--cluster: another cluster key; every secret's own key is wrapped anew, and the "
            "cluster key of before is\ndestroyed on every manager.",
    .run = run_key_rotate,
    .options = rotate_options,
};
/* --- certificates --------------------------------------------------------------------------- */

static const struct option_spec cert_options[] = {
    {"out", "DIR", "where ca.pem, NAME.pem and NAME.key go; . unless told"},
    {"admin", NULL, "one that may change the cluster, as the server's socket may"},
    {NULL, NULL, NULL},
};

static RESULT write_pem(const char *dir, const char *name, const char *suffix, struct span pem,
                        mode_t mode, struct why *why) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s%s", dir, name, suffix);
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    bool good = fd >= 0 && write(fd, pem.at, pem.size) == (ssize_t)pem.size && fsync(fd) == 0;
    int error = errno;
    if (fd >= 0 && close(fd) != 0) good = false;
    return good ? OK : fail_with(why, err_from_errno(error), "%s: %s", path, strerror(error));
}

static RESULT cert_body(struct cli *cli, struct span request, struct buf *body) {
    struct jout j;
    jout_start(&j, body);
    jout_open(&j, '{');
    jout_put_text(&j, "name", cli->words[0]);
    jout_put_bool(&j, "admin", cli_option(cli, "admin") != NULL);
    jout_key(&j, "request");
    jout_text(&j, request);
    jout_close(&j, '}');
    return jout_end(&j);
}

static RESULT write_files(struct cli *cli, const char *dir, const json_t *answer,
                          const struct secret *key, struct why *why) {
    const char *name = cli->words[0];
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return fail_with(why, err_from_errno(errno), "%s: %s", dir, strerror(errno));
    TRY(write_pem(dir, name, ".key", secret_span(key), 0600, why));
    TRY(write_pem(dir, name, ".pem", span_str(jin_string(answer, "certificate")), 0644, why));
    return write_pem(dir, "ca", ".pem", span_str(jin_string(answer, "root")), 0644, why);
}

static enum err run_cert(struct cli *cli, struct why *why) {
    const char *dir = cli_option(cli, "out"), *name = cli->words[0];
    struct secret *key = NULL;
    struct buf request = buf_new(PEM_MAX), body = buf_new(2 * PEM_MAX);
    json_t *answer = NULL;
    if (!dir) dir = ".";
    enum err e = strchr(name, '/') ? fail_with(why, ERR_INVALID, "a name has no '/'")
                                   : x509_key_new(&key, why);
    if (e == OK) e = x509_request(key, name, &request, why);
    if (e == OK) e = cert_body(cli, buf_span(&request), &body);
    if (e == OK) e = post(cli, "/conclave/v1/certificate", &body, &answer, why);
    if (e == OK) e = write_files(cli, dir, answer, key, why);
    if (e == OK)
        printf(
            "conclave status --endpoint %s --cacert %s/ca.pem --cert %s/%s.pem --key %s/%s.key\n",
            jin_string(answer, "endpoint"), dir, dir, name, dir, name);
    json_decref(answer);
    secret_free(key);
    buf_free(&request);
    buf_free(&body);
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_cert = {
    .name = "cert",
    .words = "NAME",
    .about = "make a certificate for clients of the network port",
    .help = "The key is made here and stays here; the cluster signs it for 90 days. Without "
            "--admin it may read and\n"
            "write keys (with etcd's auth, what the user of that NAME may); with it, it may do "
            "what the server's\nsocket may.",
    .run = run_cert,
    .options = cert_options,
    .words_min = 1,
    .words_max = 1,
};

static enum err run_reload(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    enum err e = post(cli, "/conclave/v1/reload", NULL, &answer, why);
    json_decref(answer);
    return e;
}

const struct verb verb_reload = {
    .name = "reload",
    .words = "",
    .about = "read the client port's certificates again",
    .help = "The files of --client-cert, --client-key and --client-ca are read at once; "
            "connections that are open\n"
            "stay as they are. SIGHUP does the same, and so does a change of the files, after "
            "some seconds.",
    .run = run_reload,
};
