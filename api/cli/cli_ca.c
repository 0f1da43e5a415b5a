/* Verbs about the certificate authority: what it is, who has certificates of which root, its
 * settings, and rotations of the root, which are watched from here until they are done. Private
 * keys come in by files and never go out. */
#include <sodium.h>
#include <stdio.h>

#include "api/cli/cli.h"
#include "api/cli/cli_columns.h"
#include "api/words.h"
#include "crypto/limits.h"
#include "raft/loop.h"

#define LOOK_MS 200 /* between two looks at a rotation */

static int64_t number(const json_t *object, const char *key) {
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static bool is_true(const json_t *object, const char *key) {
    return json_is_true(json_object_get(object, key));
}

/* --- show and status ------------------------------------------------------------------------ */

static void print_phase(const json_t *ca) {
    const char *phase = jin_string(ca, "phase");
    long long n = number(ca, "nodes"), new = number(ca, "converged"), down = number(ca, "down");
    if (strcmp(phase, "steady") == 0)
        printf("%-14s steady\n", "phase");
    else if (strcmp(phase, "rotating") == 0)
        printf("%-14s rotating: %lld of %lld nodes have certificates of the new root", "phase", new,
               n);
    else
        printf("%-14s finishing: the new root is the root; %lld of %lld nodes have its "
               "certificates",
               "phase", new, n);
    if (strcmp(phase, "steady") == 0) return;
    if (down > 0) printf("; %lld %s down", down, down == 1 ? "is" : "are");
    printf("\n");
}

static void print_certificate(const char *label, const json_t *cert) {
    char until[MOMENT_TEXT];
    if (!cert) return;
    printf("%-14s %s, until %s\n", label, jin_string(cert, "subject"),
           words_moment(number(cert, "until_s"), until));
    printf("%-14s key %.16s...\n", "", jin_string(cert, "key_digest"));
}

static void print_settings(const json_t *ca) {
    char text[DURATION_TEXT];
    size_t i;
    const json_t *external;
    printf("%-14s %s\n", "validity", words_duration_text(number(ca, "validity_s"), text));
    printf("%-14s %s", "readmission", jin_string(ca, "readmit"));
    if (number(ca, "readmit_within_s") > 0)
        printf(", within %s", words_duration_text(number(ca, "readmit_within_s"), text));
    printf("\n");
    json_array_foreach(json_object_get(ca, "external"), i, external) {
        printf("%-14s %s\n", "external", jin_string(external, "url"));
    }
    if (!is_true(ca, "has_key"))
        printf("%-14s the cluster has no signing key: the external authority signs\n", "");
}

static RESULT print_holders(const json_t *ca, struct why *why) {
    static const char *const titles[] = {"NODE", "NAME", "STATE", "ISSUER", "CERTIFICATE", NULL};
    struct columns c;
    size_t i;
    const json_t *h;
    columns_start(&c, titles);
    json_array_foreach(json_object_get(ca, "holders"), i, h) {
        char moment[MOMENT_TEXT];
        columns_cell(&c, "%s", jin_string(h, "id"));
        columns_cell(&c, "%s", jin_string(h, "name"));
        columns_cell(&c, "%s", jin_string(h, "state"));
        columns_cell(&c, "%s", jin_string(h, "issuer"));
        columns_cell(&c, "%s%s", is_true(h, "expired") ? "ran out " : "until ",
                     words_moment(number(h, "until_s"), moment));
    }
    return columns_print(&c, why);
}

static const struct option_spec show_options[] = {
    {"pem", NULL, "only the trusted root, as PEM"},
    {NULL, NULL, NULL},
};

static RESULT print_ca(const json_t *ca, struct why *why) {
    print_phase(ca);
    print_certificate("root", json_object_get(ca, "root"));
    print_certificate("next root", json_object_get(ca, "next"));
    print_certificate("issuer", json_object_get(ca, "issuer"));
    print_settings(ca);
    printf("\n");
    return print_holders(ca, why);
}

static enum err run_show(struct cli *cli, struct why *why) {
    json_t *ca = NULL;
    TRY(cli_get(cli, "/conclave/v1/ca", &ca, why));
    enum err e;
    if (cli_json(cli)) {
        e = cli_print_json(ca);
    } else if (cli_option(cli, "pem")) {
        printf("%s", jin_string(json_object_get(ca, "root"), "pem"));
        e = cli_flush(why);
    } else {
        e = print_ca(ca, why);
    }
    json_decref(ca);
    return e;
}

const struct verb verb_ca_show = {
    .name = "ca show",
    .words = "",
    .about = "show the root, its issuer, the settings, and who has certificates of what",
    .run = run_show,
    .options = show_options,
};

/* Without the list of who has what. */
static RESULT print_phase_json(json_t *ca) {
    (void)json_object_del(ca, "holders");
    return cli_print_json(ca);
}

static enum err run_status(struct cli *cli, struct why *why) {
    json_t *ca = NULL;
    TRY(cli_get(cli, "/conclave/v1/ca", &ca, why));
    enum err e = OK;
    if (cli_json(cli))
        e = print_phase_json(ca);
    else
        print_phase(ca);
    json_decref(ca);
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_ca_status = {
    .name = "ca status",
    .words = "",
    .about = "show how far a rotation of the root has come",
    .run = run_status,
};

/* --- rotate --------------------------------------------------------------------------------- */

static const struct option_spec rotate_options[] = {
    {"ca-cert", "FILE", "certificates of another root: the signing one first, then to the root"},
    {"ca-key", "FILE", "the signing certificate's key, PEM"},
    {"detach", NULL, "don't wait until it is done"},
    {NULL, NULL, NULL},
};

RESULT cli_put_chain(const struct cli *cli, const char *cert_option, const char *key_option,
                     struct jout *j, struct why *why) {
    const char *cert = cli_option(cli, cert_option), *key = cli_option(cli, key_option);
    if (!cert && key)
        return fail_with(why, ERR_USAGE, "--%s goes with --%s", key_option, cert_option);
    if (!cert) return OK;
    struct buf chain = buf_new(PEM_MAX), pem = buf_new(PEM_MAX);
    enum err e = buf_reserve(&pem, PEM_MAX); /* at once: growing would leave copies behind */
    if (e == OK) e = cli_read_file(cert, &chain, why);
    if (e == OK && key) e = cli_read_file(key, &pem, why);
    if (e == OK) {
        jout_key(j, "chain");
        jout_text(j, buf_span(&chain));
    }
    if (e == OK && key) {
        jout_key(j, "key");
        jout_text(j, buf_span(&pem));
    }
    buf_free(&chain);
    buf_wipe(&pem);
    return e;
}

static RESULT rotate_body(const struct cli *cli, struct buf *body, struct why *why) {
    struct jout j;
    TRY(buf_reserve(body, 4 * PEM_MAX));
    jout_start(&j, body);
    jout_open(&j, '{');
    TRY(cli_put_chain(cli, "ca-cert", "ca-key", &j, why));
    jout_close(&j, '}');
    return jout_end(&j);
}

/* One line whenever something has changed; on a terminal too, so that it can be scrolled back. */
static void progress(const json_t *ca, char before[128]) {
    char now[128];
    (void)snprintf(now, sizeof now, "%s: %lld of %lld nodes have new certificates, %lld down",
                   jin_string(ca, "phase"), (long long)number(ca, "converged"),
                   (long long)number(ca, "nodes"), (long long)number(ca, "down"));
    if (strcmp(now, before) == 0 || strcmp(jin_string(ca, "phase"), "steady") == 0) return;
    printf("%s\n", now);
    (void)fflush(stdout);
    memcpy(before, now, sizeof now);
}

/* *said: what there is to say of it, "" while it goes on. */
static RESULT judge(const json_t *ca, const char *old, const char **said, struct why *why) {
    const char *phase = jin_string(ca, "phase");
    bool same = strcmp(jin_string(json_object_get(ca, "root"), "digest"), old) == 0;
    *said = "";
    if (strcmp(phase, "finishing") == 0)
        *said = "The new root is the root. Nodes that are down are finished when they come back; "
                "`conclave ca force` gives them up.";
    else if (strcmp(phase, "steady") == 0 && same)
        return fail_with(why, ERR_PRECONDITION, "the rotation was aborted");
    else if (strcmp(phase, "steady") == 0)
        *said = "All nodes have certificates of the new root.";
    return OK;
}

static RESULT tell(struct cli *cli, json_t *ca, const char *said, char before[128]) {
    if (cli_json(cli)) return said[0] ? print_phase_json(ca) : OK;
    progress(ca, before);
    if (said[0]) printf("%s\n", said);
    return OK;
}

static RESULT watch(struct cli *cli, const char *old, struct why *why) {
    char before[128] = "";
    const char *said = "";
    enum err e = OK;
    struct clock clock;
    clock_real(&clock);
    uint64_t end_ms = clock.now_ms(&clock) + cli->timeout_ms;
    bool patient = cli_option(cli, "timeout") == NULL;
    while (e == OK && !said[0]) {
        json_t *ca = NULL;
        e = cli_get(cli, "/conclave/v1/ca", &ca, why);
        if (e == OK) e = judge(ca, old, &said, why);
        if (e == OK) e = tell(cli, ca, said, before);
        json_decref(ca);
        if (e == OK && !said[0] && !patient && clock.now_ms(&clock) >= end_ms)
            e = fail_with(why, ERR_TIMEOUT, "the rotation goes on; `conclave ca status` shows it");
        if (e == OK && !said[0]) cli_pause(LOOK_MS);
    }
    return e == OK ? cli_flush(why) : e;
}

static enum err run_rotate(struct cli *cli, struct why *why) {
    struct buf body = buf_new(4 * PEM_MAX);
    json_t *ca = NULL;
    char old[96] = "";
    if (cli_option(cli, "ca-key") && !cli_option(cli, "ca-cert"))
        return fail_with(why, ERR_USAGE, "--ca-key goes with --ca-cert");
    enum err e = cli_get(cli, "/conclave/v1/ca", &ca, why);
    if (e == OK) e = jin_text(json_object_get(ca, "root"), "digest", old, sizeof old, why);
    json_decref(ca);
    if (e == OK) e = rotate_body(cli, &body, why);
    if (e != OK) {
        buf_wipe(&body);
        return e;
    }
    if (cli->timeout_ms < 30000) cli->timeout_ms = 30000;
    e = cli_post(cli, "/conclave/v1/ca/rotate", &body, false, NULL, why);
    if (e == OK && !cli_option(cli, "detach")) return watch(cli, old, why);
    if (e == OK && !cli_json(cli))
        printf("The rotation has begun; `conclave ca status` shows how far it is.\n");
    if (e != OK) return e;
    return cli_flush(why);
}

const struct verb verb_ca_rotate = {
    .name = "ca rotate",
    .words = "",
    .about = "rotate the root of trust, to a new one or to one of your own",
    .help =
        "The new root is certified by the old one, and every node gets a new certificate; "
        "nothing is interrupted.\n"
        "It is done when all nodes that are up have theirs: from then on the join tokens pin "
        "the new root, and\n"
        "nodes that were down are finished when they come back; clients' certificates of the old "
        "root are void,\n"
        "`conclave cert` makes new ones while it runs or after. It is watched for as long as it "
        "takes, or as\n"
        "--timeout says. The present root again aborts a rotation.",
    .run = run_rotate,
    .options = rotate_options,
};

static RESULT simple(struct cli *cli, const char *path, const char *text, struct why *why) {
    enum err e = cli_post(cli, path, NULL, true, NULL, why);
    if (e == ERR_PRECONDITION && cli->unknown) e = OK; /* done by an earlier attempt */
    if (e == OK && !cli_json(cli)) printf("%s\n", text);
    return e == OK ? cli_flush(why) : e;
}

static enum err run_abort(struct cli *cli, struct why *why) {
    return simple(cli, "/conclave/v1/ca/abort",
                  "The rotation is aborted; nodes that had new certificates renew once more.", why);
}

static enum err run_force(struct cli *cli, struct why *why) {
    return simple(cli, "/conclave/v1/ca/force",
                  "Nodes without a certificate of the new root are given up; they have to join "
                  "again.",
                  why);
}

const struct verb verb_ca_abort = {
    .name = "ca abort",
    .words = "",
    .about = "abort a rotation of the root that is not done yet",
    .run = run_abort,
};
const struct verb verb_ca_force = {
    .name = "ca force",
    .words = "",
    .about = "end a rotation of the root without the nodes that are down",
    .run = run_force,
};

/* --- set ------------------------------------------------------------------------------------ */

static const struct option_spec set_options[] = {
    {"validity", "DURATION", "of nodes' certificates: 90d, 2m; 1m at least"},
    {"readmit", "approval|automatic|never", "nodes that come back after theirs ran out"},
    {"readmit-within", "DURATION", "and not later than that; 0s: whenever"},
    {"external", "URL", "who signs when the cluster has no key: CFSSL's protocol, https"},
    {"external-ca", "FILE", "whom to trust there, PEM; the cluster's root unless told"},
    {"external-off", NULL, "no external authority"},
    {NULL, NULL, NULL},
};

static RESULT put_duration(const struct cli *cli, const char *option, const char *key,
                           int64_t least_s, struct jout *j, struct why *why) {
    const char *text = cli_option(cli, option);
    int64_t s;
    char where[64];
    if (!text) return OK;
    (void)snprintf(where, sizeof where, "--%s", option);
    if (words_duration(text, &s, why) != OK) return fail_in(why, ERR_USAGE, where);
    if (s < least_s)
        return fail_with(why, ERR_USAGE, "%s: it is %lld s at least", where, (long long)least_s);
    jout_put_number(j, key, (uint64_t)s);
    return OK;
}

static RESULT put_external(const struct cli *cli, struct jout *j, struct why *why) {
    const char *file = cli_option(cli, "external-ca"), *url;
    bool off = cli_option(cli, "external-off") != NULL, any = cli_option(cli, "external") != NULL;
    struct buf pem = buf_new(PEM_MAX);
    unsigned at = 0;
    if (off && any)
        return fail_with(why, ERR_USAGE, "--external and --external-off exclude each other");
    if (file && !any) return fail_with(why, ERR_USAGE, "--external-ca goes with --external");
    if (!off && !any) return OK;
    enum err e = file ? cli_read_file(file, &pem, why) : OK;
    jout_key(j, "external");
    jout_open(j, '[');
    while (e == OK && (url = cli_option_next(cli, "external", &at)) != NULL) {
        jout_open(j, '{');
        jout_put_text(j, "url", url);
        jout_key(j, "ca");
        jout_text(j, buf_span(&pem));
        jout_close(j, '}');
    }
    jout_close(j, ']');
    buf_free(&pem);
    return e;
}

static RESULT set_body(const struct cli *cli, struct buf *body, struct why *why) {
    const char *readmit = cli_option(cli, "readmit");
    enum readmit value;
    struct jout j;
    if (cli->given_n == 0)
        return fail_with(why, ERR_USAGE, "nothing is to be set; --help lists what can be");
    if (readmit && words_readmit(readmit, &value, why) != OK)
        return fail_in(why, ERR_USAGE, "--readmit");
    jout_start(&j, body);
    jout_open(&j, '{');
    TRY(put_duration(cli, "validity", "validity_s", CERT_VALIDITY_MIN_S, &j, why));
    TRY(put_duration(cli, "readmit-within", "readmit_within_s", 0, &j, why));
    if (readmit) jout_put_text(&j, "readmit", readmit);
    TRY(put_external(cli, &j, why));
    jout_close(&j, '}');
    return jout_end(&j);
}

static enum err run_set(struct cli *cli, struct why *why) {
    struct buf body = buf_new(16 * PEM_MAX);
    enum err e = set_body(cli, &body, why);
    if (e == OK)
        e = cli_post(cli, "/conclave/v1/ca/set", &body, true, NULL, why);
    else
        buf_free(&body);
    if (e == OK && !cli_json(cli)) printf("The authority's settings are changed.\n");
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_ca_set = {
    .name = "ca set",
    .words = "",
    .about = "set the validity of certificates, who may come back, an external authority",
    .help = "Another validity is taken up at once: the nodes renew. --external may be given "
            "several times; they are\ntried in that order. The cluster has no key after `conclave "
            "ca rotate --ca-cert FILE` without "
            "--ca-key.",
    .run = run_set,
    .options = set_options,
};
