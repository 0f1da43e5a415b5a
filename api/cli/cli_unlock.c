/* Verbs about the lock: autolock on and off, unlocking, and the unlock key, whole or as shares. A
 * key is split and put together here, on the machine of whoever has it: the server only ever sees
 * the whole one. Keys and shares are printed on standard output and nowhere else; they come in by
 * standard input or files, never as arguments. */
#include <sodium.h>
#include <stdio.h>

#include "api/cli/cli_keyfile.h"
#include "crypto/shamir.h"

static RESULT post(struct cli *cli, const char *path, const struct buf *body, json_t **out,
                   struct why *why) {
    struct cli_call call = {.method = HTTP_POST, .path = path, .body = body};
    return cli_json_call(cli, &call, out, why);
}

static void drop(json_t *answer) {
    jin_wipe(answer);
    json_decref(answer);
}

/* --- lock ----------------------------------------------------------------------------------- */

static const struct option_spec lock_options[] = {
    {"off", NULL, "switch autolock off: restarts need no key"},
    {NULL, NULL, NULL},
};

static RESULT print_key(struct cli *cli, const json_t *answer, struct why *why) {
    if (cli_json(cli)) return cli_print_json(answer);
    printf("%s\n", jin_string(answer, "unlock_key"));
    return cli_flush(why);
}

static enum err run_lock(struct cli *cli, struct why *why) {
    bool off = cli_option(cli, "off") != NULL;
    struct buf body = buf_new(1 * KIB);
    json_t *answer = NULL;
    TRY(buf_format(&body, off ? "{\"off\":true}" : "{}"));
    enum err e = post(cli, "/conclave/v1/lock", &body, &answer, why);
    buf_free(&body);
    if (e != OK) return e;
    if (!off || cli_json(cli)) {
        e = print_key(cli, answer, why);
    } else {
        printf("Autolock is off: members restart without a key.\n");
        e = cli_flush(why);
    }
    drop(answer);
    return e;
}

const struct verb verb_lock = {
    .name = "lock",
    .words = "",
    .about = "switch autolock on: every restart of a member needs the key that is printed",
    .run = run_lock,
    .options = lock_options,
};

/* --- shares --------------------------------------------------------------------------------- */

struct shares {
    char text[SHARES_MAX][SHARE_TEXT];
    unsigned n;
    unsigned needed; /* as the first one says */
};

static RESULT add_share(struct shares *s, struct span line, const char *where, struct why *why) {
    unsigned k, x;
    if (s->n == SHARES_MAX) return fail_with(why, ERR_TOO_LARGE, "there are too many shares");
    if (line.size >= SHARE_TEXT) return fail_with(why, ERR_INVALID, "%s: this is no share", where);
    char *text = s->text[s->n];
    memcpy(text, line.at, line.size);
    text[line.size] = '\0';
    enum err e = shamir_look(text, &k, &x, why);
    if (e != OK) return fail_in(why, e, where);
    if (s->n++ == 0) s->needed = k;
    return OK;
}

static RESULT share_files(struct cli *cli, struct shares *s, struct why *why) {
    unsigned at = 0;
    const char *path;
    while ((path = cli_option_next(cli, "share-file", &at)) != NULL) {
        struct secret *line = NULL;
        TRY(line_read(path, &line, why));
        enum err e = add_share(s, secret_span(line), path, why);
        secret_free(line);
        TRY(e);
    }
    return OK;
}

/* One after the other, until there are as many as the first one asks for. */
static RESULT typed_shares(struct shares *s, struct why *why) {
    while (s->n == 0 || s->n < s->needed) {
        struct buf line = buf_new(PASSPHRASE_MAX);
        struct why ended = {0};
        char prompt[64] = "share";
        if (s->n > 0) (void)snprintf(prompt, sizeof prompt, "share %u of %u", s->n + 1, s->needed);
        bool more = cli_read_secret(prompt, &line, &ended) == OK;
        enum err e = more ? add_share(s, buf_span(&line), prompt, why) : OK;
        buf_wipe(&line);
        TRY(e);
        if (!more) return OK; /* putting together says how many are missing */
    }
    return OK;
}

static RESULT join_shares(const struct shares *s, struct secret **out, struct why *why) {
    const char *texts[SHARES_MAX];
    if (s->n == 0) return fail_with(why, ERR_INVALID, "no share was given");
    for (unsigned i = 0; i < s->n; i++)
        texts[i] = s->text[i];
    return shamir_combine(texts, s->n, out, why);
}

static RESULT key_of_shares(struct cli *cli, struct secret **out, struct why *why) {
    struct shares s = {0};
    enum err e = share_files(cli, &s, why);
    if (e == OK && cli_option(cli, "share")) e = typed_shares(&s, why);
    if (e == OK) e = join_shares(&s, out, why);
    sodium_memzero(&s, sizeof s);
    return e;
}

/* --- unlock --------------------------------------------------------------------------------- */

static const struct option_spec unlock_options[] = {
    {"share", NULL, "put the key together from shares, read one a line"},
    {"share-file", "FILE", "a file with a share; may be given several times, also with --share"},
    {"unlock-key-file", "FILE", "a file with the unlock key"},
    {"passphrase", NULL, "the node's keys are sealed by a passphrase"},
    {"key-file", "FILE", "the node's keys are sealed by the bytes of FILE"},
    {NULL, NULL, NULL},
};

/* The unlock key's text, from wherever it is to come. */
static RESULT unlock_key_text(struct cli *cli, struct buf *line, struct why *why) {
    const char *file = cli_option(cli, "unlock-key-file");
    bool shares = cli_option(cli, "share") || cli_option(cli, "share-file");
    struct secret *key = NULL;
    if (!file && !shares) return cli_read_secret("unlock key", line, why);
    char text[UNLOCK_KEY_TEXT];
    TRY(file ? unlock_key_read(file, &key, why) : key_of_shares(cli, &key, why));
    enum err e = unlock_key_format(key, text);
    secret_free(key);
    if (e == OK) e = buf_add(line, text, strlen(text));
    sodium_memzero(text, sizeof text);
    return e;
}

static RESULT check_sources(struct cli *cli, struct why *why) {
    bool shares = cli_option(cli, "share") || cli_option(cli, "share-file");
    bool given[] = {shares, cli_option(cli, "unlock-key-file") != NULL,
                    cli_option(cli, "passphrase") != NULL, cli_option(cli, "key-file") != NULL};
    unsigned n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(given); i++)
        n += given[i];
    return n <= 1 ? OK : fail_with(why, ERR_USAGE, "only one kind of key can be given");
}

static RESULT unlock_body(struct cli *cli, struct buf *body, struct why *why) {
    const char *file = cli_option(cli, "key-file");
    bool phrase = cli_option(cli, "passphrase") != NULL;
    struct secret *key = NULL;
    struct buf line = buf_new(PASSPHRASE_MAX);
    struct jout j;
    TRY(check_sources(cli, why));
    enum err e = buf_reserve(body, 4 * KIB); /* at once: growing would leave copies behind */
    if (e == OK) e = buf_reserve(&line, PASSPHRASE_MAX);
    if (e == OK && file)
        e = keyfile_read(file, &key, why);
    else if (e == OK && phrase)
        e = cli_read_secret("passphrase", &line, why);
    else if (e == OK)
        e = unlock_key_text(cli, &line, why);
    jout_start(&j, body);
    jout_open(&j, '{');
    jout_key(&j, file ? "key_file" : phrase ? "passphrase" : "key");
    if (key)
        jout_base64(&j, secret_span(key));
    else
        jout_text(&j, buf_span(&line));
    jout_close(&j, '}');
    if (e == OK) e = jout_end(&j);
    secret_free(key);
    buf_wipe(&line);
    return e;
}

static enum err run_unlock(struct cli *cli, struct why *why) {
    struct buf body = buf_new(8 * KIB);
    if (cli->timeout_ms < 60000) cli->timeout_ms = 60000; /* the log is loaded before it answers */
    enum err e = unlock_body(cli, &body, why);
    struct cli_call call = {
        .method = HTTP_POST, .path = "/conclave/v1/unlock", .body = &body, .busy_is_final = true};
    if (e == OK) e = cli_json_call(cli, &call, NULL, why);
    buf_wipe(&body);
    if (e == OK && !cli_json(cli)) printf("Unlocked.\n");
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_unlock = {
    .name = "unlock",
    .words = "",
    .about = "unlock a locked node; the key is read from the terminal or standard input",
    .help = "With shares (`conclave unlock-key --shares`) as many are read as are needed. After "
            "some wrong keys the\n"
            "server looks at no further one for a while, which doubles each time.",
    .run = run_unlock,
    .options = unlock_options,
};

/* --- the unlock key ------------------------------------------------------------------------- */

static const struct option_spec key_options[] = {
    {"rotate", NULL, "make another one first; it takes the place of the old one"},
    {"shares", "N", "print it as N shares instead"},
    {"threshold", "K", "of which any K give the key back; more than half of them unless told"},
    {NULL, NULL, NULL},
};

static RESULT print_shares(struct cli *cli, const struct shares *s, unsigned k, struct why *why) {
    struct buf out = buf_new(64 * KIB);
    struct jout j;
    if (!cli_json(cli)) {
        for (unsigned i = 0; i < s->n; i++)
            printf("%s\n", s->text[i]);
        return cli_flush(why);
    }
    enum err e = buf_reserve(&out, 64 * KIB);
    jout_start(&j, &out);
    jout_open(&j, '{');
    jout_put_number(&j, "threshold", k);
    jout_key(&j, "shares");
    jout_open(&j, '[');
    for (unsigned i = 0; i < s->n; i++)
        jout_text(&j, span_str(s->text[i]));
    jout_close(&j, ']');
    jout_close(&j, '}');
    if (e == OK) e = jout_end(&j);
    if (e == OK) printf("%.*s\n", (int)out.size, (const char *)out.at);
    buf_wipe(&out);
    return e == OK ? cli_flush(why) : e;
}

static RESULT split(struct cli *cli, const char *key_text, uint64_t k, uint64_t n,
                    struct why *why) {
    struct secret *key = NULL;
    struct shares s = {.n = (unsigned)n};
    TRY(unlock_key_parse(key_text, &key, why));
    enum err e = shamir_split(key, (unsigned)k, (unsigned)n, s.text, why);
    secret_free(key);
    if (e == OK) e = print_shares(cli, &s, (unsigned)k, why);
    sodium_memzero(&s, sizeof s);
    return e;
}

static RESULT read_split(const struct cli *cli, uint64_t *k, uint64_t *n, struct why *why) {
    *n = 0;
    TRY(cli_number(cli, "shares", 2, SHARES_MAX, n, why));
    *k = *n / 2 + 1;
    TRY(cli_number(cli, "threshold", 2, SHARES_MAX, k, why));
    if (*n == 0 && cli_option(cli, "threshold"))
        return fail_with(why, ERR_USAGE, "--threshold goes with --shares");
    if (*n > 0 && *k > *n)
        return fail_with(why, ERR_USAGE, "--threshold can't be more than the %llu shares",
                         (unsigned long long)*n);
    return OK;
}

static RESULT show_key(struct cli *cli, bool rotate, uint64_t k, uint64_t n, struct why *why) {
    json_t *answer = NULL;
    struct cli_call call = {
        .method = HTTP_GET, .path = "/conclave/v1/unlock-key", .again_is_safe = true};
    if (rotate)
        call = (struct cli_call){.method = HTTP_POST, .path = "/conclave/v1/unlock-key/rotate"};
    TRY(cli_json_call(cli, &call, &answer, why));
    const char *key = jin_string(answer, "unlock_key");
    enum err e;
    if (key[0] == '\0' && (n > 0 || !cli_json(cli)))
        e = fail_with(why, ERR_PRECONDITION, "autolock is off: there is no unlock key");
    else
        e = n > 0 ? split(cli, key, k, n, why) : print_key(cli, answer, why);
    drop(answer);
    return e;
}

static enum err run_unlock_key(struct cli *cli, struct why *why) {
    uint64_t k, n;
    TRY(read_split(cli, &k, &n, why));
    return show_key(cli, cli_option(cli, "rotate") != NULL, k, n, why);
}

static enum err run_unlock_key_rotate(struct cli *cli, struct why *why) {
    return show_key(cli, true, 0, 0, why);
}

const struct verb verb_unlock_key = {
    .name = "unlock-key",
    .words = "",
    .about = "show the cluster's unlock key, whole or as shares",
    .help = "--rotate: members that run take the new key over and seal their data anew; one that "
            "is down opens with\n"
            "the key of before, once, and then follows. Shares are made here and kept nowhere; "
            "each call makes a\n"
            "new set, and sets don't mix.",
    .run = run_unlock_key,
    .options = key_options,
};
const struct verb verb_unlock_key_rotate = {
    .name = "unlock-key rotate",
    .words = "",
    .about = "the same as unlock-key --rotate",
    .run = run_unlock_key_rotate,
    .hidden = true,
};
