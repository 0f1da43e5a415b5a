/* Verbs about the cluster keys: what is held, another one, the escrow and its way back; and the
 * shredding of a secret, which ends with them. Passphrases come by files, or are typed. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/app.h"
#include "api/cli/cli_keyfile.h"
#include "api/secret/escrow.h"
#include "api/words.h"

#define ROTATION_MS 600000 /* all values are wrapped anew */

static int64_t number(const json_t *object, const char *key) {
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static void patient(struct cli *cli, uint64_t least_ms) {
    if (cli->timeout_ms < least_ms) cli->timeout_ms = least_ms;
}

/* --- what there is -------------------------------------------------------------------------- */

static void line(const char *label, const char *text) {
    if (text[0]) printf("%-14s %s\n", label, text);
}

/* "1, 2, 3" */
static const char *numbers_text(const json_t *list, char *out, size_t room) {
    size_t i, size = 0;
    const json_t *n;
    (void)snprintf(out, room, "none");
    json_array_foreach(list, i, n) {
        int more = snprintf(out + size, room - size, "%s%lld", i > 0 ? ", " : "",
                            (long long)json_integer_value(n));
        if (more < 0 || (size_t)more >= room - size) break;
        size += (size_t)more;
    }
    return out;
}

static void print_managers(const json_t *answer) {
    size_t i;
    const json_t *m;
    json_array_foreach(json_object_get(answer, "managers"), i, m) {
        bool reachable = json_is_true(json_object_get(m, "reachable"));
        bool holds = json_is_true(json_object_get(m, "holds"));
        printf("%-14s %s%s%s\n", i == 0 ? "managers" : "", jin_string(m, "name"),
               holds ? " holds the newest" : " does not hold the newest",
               reachable ? "" : ", can't be reached");
    }
}

static const char *escrow_text(const json_t *answer, char *out, size_t room) {
    const json_t *escrow = json_object_get(answer, "escrow");
    char at[MOMENT_TEXT];
    if (!escrow) return "none is in the audit trail";
    (void)snprintf(out, room, "up to epoch %lld, %s (audit record %lld)",
                   (long long)number(escrow, "epoch"),
                   words_moment(number(escrow, "time_ns") / 1000000000, at),
                   (long long)number(escrow, "record"));
    return out;
}

static RESULT print_status(const json_t *s, struct why *why) {
    char text[160], at[MOMENT_TEXT];
    (void)snprintf(text, sizeof text, "epoch %lld, since %s", (long long)number(s, "current"),
                   words_moment(number(s, "rotated_ns") / 1000000000, at));
    line("current", number(s, "current") > 0 ? text : "none yet");
    if (number(s, "next") > 0) printf("%-14s epoch %lld\n", "coming", (long long)number(s, "next"));
    printf("%-14s epoch %lld\n", "oldest", (long long)number(s, "oldest"));
    line("held here", numbers_text(json_object_get(s, "held"), text, sizeof text));
    line("values", json_is_true(json_object_get(s, "ready")) ? "can be sealed and opened here"
                                                             : "can't be opened here");
    line("state", jin_string(s, "text"));
    print_managers(s);
    line("last escrow", escrow_text(s, text, sizeof text));
    return cli_flush(why);
}

static enum err run_status(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    TRY(cli_get(cli, "/conclave/v1/vault", &answer, why));
    return cli_print_answer(cli, answer, print_status, why);
}

const struct verb verb_key_status = {
    .name = "key status",
    .words = "",
    .about = "show the epochs of the cluster key, who holds it, and the last escrow",
    .help = "The cluster key seals the secrets' own keys. It is in the managers' keyrings and in "
            "escrows, and nowhere\nelse: not in logs, snapshots or backups.",
    .run = run_status,
};

/* --- rotating ------------------------------------------------------------------------------- */

enum err cli_rotate_cluster(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    struct cli_call call = {.method = HTTP_POST, .path = "/conclave/v1/vault/rotate"};
    patient(cli, ROTATION_MS);
    TRY(cli_json_call(cli, &call, &answer, why));
    enum err e = OK;
    if (cli_json(cli))
        e = cli_print_json(answer);
    else
        printf("Secrets are sealed by epoch %lld of the cluster key; the ones before are "
               "destroyed.\n",
               (long long)number(answer, "current"));
    json_decref(answer);
    return e == OK ? cli_flush(why) : e;
}

/* --- escrow --------------------------------------------------------------------------------- */

static const struct option_spec escrow_options[] = {
    {"out", "FILE", "where it goes; standard output unless told"},
    {"passphrase-file", "FILE", "a file whose first line is the passphrase; else it is asked for"},
    {NULL, NULL, NULL},
};

static RESULT typed_twice(struct buf *first, struct why *why) {
    struct buf second = buf_new(PASSPHRASE_MAX);
    TRY(cli_read_secret("passphrase", first, why));
    if (!isatty(STDIN_FILENO)) return OK;
    enum err e = cli_read_secret("once more", &second, why);
    if (e == OK && !span_equal(buf_span(first), buf_span(&second)))
        e = fail_with(why, ERR_INVALID, "the two passphrases differ");
    buf_wipe(&second);
    return e;
}

static RESULT passphrase(const struct cli *cli, bool twice, struct buf *out, struct why *why) {
    const char *path = cli_option(cli, "passphrase-file");
    struct secret *text = NULL;
    if (!path && twice) return typed_twice(out, why);
    if (!path) return cli_read_secret("passphrase", out, why);
    TRY(line_read(path, &text, why));
    enum err e = buf_add_span(out, secret_span(text));
    secret_free(text);
    return e;
}

/* {"file" when there is one, "passphrase"}, reserved at once: growing would leave copies behind. */
static RESULT escrow_body(const struct cli *cli, const struct buf *file, struct buf *body,
                          struct why *why) {
    struct buf phrase = buf_new(PASSPHRASE_MAX);
    struct jout j;
    TRY(buf_reserve(body, body->max));
    enum err e = buf_reserve(&phrase, PASSPHRASE_MAX);
    if (e == OK) e = passphrase(cli, file == NULL, &phrase, why);
    jout_start(&j, body);
    jout_open(&j, '{');
    if (file) {
        jout_key(&j, "file");
        jout_base64(&j, buf_span(file));
    }
    jout_key(&j, "passphrase");
    jout_text(&j, buf_span(&phrase));
    jout_close(&j, '}');
    if (e == OK) e = jout_end(&j);
    buf_wipe(&phrase);
    return e;
}

static RESULT write_file(const char *path, struct span bytes, struct why *why) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == EEXIST) return fail_with(why, ERR_EXISTS, "%s is there already", path);
    bool good = fd >= 0 && write(fd, bytes.at, bytes.size) == (ssize_t)bytes.size && fsync(fd) == 0;
    int error = errno;
    if (fd >= 0 && close(fd) != 0) good = false;
    if (fd >= 0 && !good) (void)unlink(path);
    return good ? OK : fail_with(why, err_from_errno(error), "%s: %s", path, strerror(error));
}

static RESULT tell_escrow(const struct cli *cli, json_t *answer, const char *path,
                          struct why *why) {
    char text[160];
    (void)json_object_del(answer, "file");
    if (cli_json(cli)) return cli_print_json(answer);
    printf("%s: the cluster key, epochs %s, sealed under the passphrase.\nKeep it apart from the "
           "backups: a restore into a new cluster needs both.\n",
           path, numbers_text(json_object_get(answer, "held"), text, sizeof text));
    return cli_flush(why);
}

static RESULT give_escrow(const struct cli *cli, json_t *answer, struct why *why) {
    const char *path = cli_option(cli, "out");
    struct buf file = buf_new(ESCROW_MAX);
    enum err e = jin_bytes(answer, "file", &file, why);
    if (e == OK && path) {
        e = write_file(path, buf_span(&file), why);
        if (e == OK) e = tell_escrow(cli, answer, path, why);
    } else if (e == OK) {
        (void)fwrite(file.at, 1, file.size, stdout);
        e = cli_flush(why);
    }
    buf_free(&file);
    return e;
}

static RESULT check_out(const struct cli *cli, struct why *why) {
    const char *path = cli_option(cli, "out");
    if (path && access(path, F_OK) == 0)
        return fail_with(why, ERR_EXISTS, "%s is there already", path);
    if (!path && (isatty(STDOUT_FILENO) || cli_json(cli)))
        return fail_with(why, ERR_USAGE, "--out is needed: an escrow is bytes");
    return OK;
}

static enum err run_escrow(struct cli *cli, struct why *why) {
    struct buf body = buf_new(8 * KIB);
    json_t *answer = NULL;
    TRY(app_harden(why));
    TRY(check_out(cli, why));
    patient(cli, 60000); /* the passphrase is stretched */
    enum err e = escrow_body(cli, NULL, &body, why);
    if (e == OK)
        e = cli_post(cli, "/conclave/v1/vault/escrow", &body, true, &answer, why);
    else
        buf_wipe(&body);
    if (e == OK) e = give_escrow(cli, answer, why);
    json_decref(answer);
    return e;
}

const struct verb verb_key_escrow = {
    .name = "key escrow",
    .words = "",
    .about = "write the cluster key to a file sealed under a passphrase",
    .help = "All epochs that the manager holds. Whoever has it and its passphrase opens every "
            "secret in logs, snapshots\nand backups of these epochs; without it a backup that is "
            "restored into a new cluster has no values.\nThe audit has when it was made, and "
            "`conclave key status` and `conclave secret shred` name it.",
    .run = run_escrow,
    .options = escrow_options,
};

/* --- the way back --------------------------------------------------------------------------- */

static const struct option_spec import_options[] = {
    {"passphrase-file", "FILE", "a file whose first line is the passphrase; else it is asked for"},
    {NULL, NULL, NULL},
};

static enum err run_import(struct cli *cli, struct why *why) {
    struct buf file = buf_new(ESCROW_MAX), body = buf_new(2 * ESCROW_MAX);
    json_t *answer = NULL;
    char text[160];
    TRY(app_harden(why));
    patient(cli, 60000);
    enum err e = cli_read_file(cli->words[0], &file, why);
    if (e == OK) e = escrow_body(cli, &file, &body, why);
    buf_free(&file);
    if (e == OK)
        e = cli_post(cli, "/conclave/v1/vault/import", &body, true, &answer, why);
    else
        buf_wipe(&body);
    if (e == OK && cli_json(cli))
        e = cli_print_json(answer);
    else if (e == OK)
        printf("%s: epochs %s of the cluster key.\n", jin_string(answer, "said"),
               numbers_text(json_object_get(answer, "held"), text, sizeof text));
    json_decref(answer);
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_key_import_escrow = {
    .name = "key import-escrow",
    .words = "FILE",
    .about = "give a cluster its key back from an escrow",
    .help =
        "After a restore without it, or when the managers that held the key are lost. Any "
        "manager may be asked: the\nothers get the key from it, and what older keys have sealed "
        "is sealed by the present one.",
    .run = run_import,
    .options = import_options,
    .words_min = 1,
    .words_max = 1,
};

/* --- shred ---------------------------------------------------------------------------------- */

static RESULT confirm(const struct cli *cli, struct why *why) {
    char answer[16] = "";
    if (cli_option(cli, "yes")) return OK;
    if (!isatty(STDIN_FILENO))
        return fail_with(why, ERR_USAGE, "this can't be undone: --yes says that it is meant");
    (void)fprintf(stderr,
                  "%s is removed, the cluster key is made anew, and the one before is destroyed on "
                  "every manager.\nType yes to go on: ",
                  cli->words[0]);
    if (fgets(answer, sizeof answer, stdin) && strcmp(answer, "yes\n") == 0) return OK;
    return fail_with(why, ERR_PRECONDITION, "nothing was done");
}

/* Who has destroyed it, and who has yet to. */
static void print_destroyed(const json_t *answer) {
    char text[160];
    size_t i;
    const json_t *m;
    printf("%-14s epochs of the cluster key: %s\n", "destroyed",
           numbers_text(json_object_get(answer, "destroyed"), text, sizeof text));
    json_array_foreach(json_object_get(answer, "managers"), i, m) {
        bool reachable = json_is_true(json_object_get(m, "reachable"));
        printf("%-14s on %s%s\n", "", jin_string(m, "name"),
               reachable ? "" : ", which can't be reached: when it is back");
    }
}

static void print_shredded(const struct cli *cli, const json_t *answer) {
    char text[160];
    printf("%s is gone. The keys of today open no older log, snapshot or backup.\n", cli->words[0]);
    print_destroyed(answer);
    printf("%-14s epoch %lld\n", "current", (long long)number(answer, "current"));
    line("escrow", escrow_text(answer, text, sizeof text));
    if (json_object_get(answer, "escrow"))
        printf("%-14s with its passphrase it still opens copies of its epochs: destroy it\n", "");
    line("note", jin_string(answer, "said"));
    line("unlock key", jin_string(answer, "unlock_key"));
}

/* Autolock: the shred has made another unlock key, too. */
static RESULT add_unlock_key(struct cli *cli, json_t *answer, struct why *why) {
    json_t *key = NULL;
    if (!json_is_true(json_object_get(answer, "autolock"))) return OK;
    TRY(cli_get(cli, "/conclave/v1/unlock-key", &key, why));
    json_t *text = json_string(jin_string(key, "unlock_key"));
    jin_wipe(key);
    json_decref(key);
    return text && json_object_set_new(answer, "unlock_key", text) == 0 ? OK : ERR_NOMEM;
}

static enum err run_shred(struct cli *cli, struct why *why) {
    struct buf body = buf_new(4 * KIB);
    json_t *answer = NULL;
    struct jout j;
    TRY(confirm(cli, why));
    patient(cli, ROTATION_MS);
    jout_start(&j, &body);
    jout_open(&j, '{');
    jout_put_text(&j, "secret", cli->words[0]);
    jout_close(&j, '}');
    TRY(jout_end(&j));
    TRY(cli_post(cli, "/conclave/v1/secrets/shred", &body, false, &answer, why));
    enum err e = add_unlock_key(cli, answer, why);
    if (e == OK && cli_json(cli))
        e = cli_print_json(answer);
    else if (e == OK)
        print_shredded(cli, answer);
    jin_wipe(answer);
    json_decref(answer);
    return e == OK ? cli_flush(why) : e;
}

static const struct option_spec shred_options[] = {
    {"yes", NULL, "don't ask"},
    {NULL, NULL, NULL},
};

const struct verb verb_secret_shred = {
    .name = "secret shred",
    .words = "NAME",
    .about = "remove a secret and destroy every key that could open older copies of it",
    .help = "Removes it, makes another cluster key, wraps all other values anew, and destroys the "
            "key of before on every\nmanager; with autolock the unlock key is made anew, too, and "
            "printed. Then no log, snapshot or backup of\nbefore gives the value to whoever has "
            "all keys of today. An escrow of before does: the newest is named.",
    .run = run_shred,
    .options = shred_options,
    .words_min = 1,
    .words_max = 1,
};
