/* conclave import: the keys and leases of a running etcd, by its JSON gateway, into this
 * cluster. Everything is read at one revision, page by page in order of keys, and goes into an
 * empty cluster with its revisions and versions as they are; the older history does not come
 * along, so the store begins as if it had been compacted there. Into a cluster that has keys,
 * they go as new puts.
 *
 * What etcd does not tell is the order of writes within one revision: here all are its first.
 *
 * An import that was broken off is begun again: keys that are there already are left as they
 * are. */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/cli/cli.h"
#include "api/cli/cli_keyfile.h"
#include "raft/loop.h"
#include "store/import.h"

#define PAGE_KEYS    1000
#define ROWS_MAX     (1 * MIB)  /* sent at once; one key may pass */
#define ANSWER_BYTES (64 * MIB) /* of etcd: PAGE_KEYS keys, usually much less */
#define TELL_MS      200

struct import {
    struct cli *cli;
    struct client *source;
    char address[ADDRESS_MAX];  /* of the source */
    char headers[4096];         /* Authorization; wiped */
    uint64_t revision;          /* at which all is read */
    uint64_t total, done;       /* keys */
    uint64_t bytes;             /* of keys and values so far */
    uint64_t leases;            /* taken over */
    uint64_t page_keys;         /* asked for at once; less when values are large */
    bool puts;                  /* not with their revisions */
    struct buf rows;            /* waiting to be sent */
    uint64_t began_ms, told_ms; /* for the progress */
};

static uint64_t now_ms(void) {
    struct clock clock;
    clock_real(&clock);
    return clock.now_ms(&clock);
}

static void tell_progress(struct import *i, bool last) {
    uint64_t now = now_ms();
    if (!isatty(STDERR_FILENO) || (!last && now < i->told_ms + TELL_MS)) return;
    double seconds = (double)(now - i->began_ms + 1) / 1000;
    (void)fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " keys (%.0f %%), %.1f MiB/s %s", i->done,
                  i->total, i->total ? 100.0 * (double)i->done / (double)i->total : 100.0,
                  (double)i->bytes / (double)MIB / seconds, last ? "\n" : "");
    i->told_ms = now;
}

/* --- the source ------------------------------------------------------------------------------ */

/* One request to etcd; the body is closed here. */
static RESULT ask(struct import *i, const char *path, struct jout *body, json_t **out,
                  struct why *why) {
    struct buf answer = buf_new(ANSWER_BYTES);
    jout_close(body, '}');
    enum err e = jout_end(body);
    struct client_request r = {.method = HTTP_POST,
                               .path = path,
                               .headers = i->headers,
                               .body = buf_span(body->out),
                               .timeout_ms = i->cli->timeout_ms};
    if (e == OK) e = client_call(i->source, &r, &answer, why);
    if (e == OK) e = jin_parse(buf_span(&answer), out, why);
    buf_wipe(&answer);
    buf_wipe(body->out);
    return e == OK ? OK : fail_in(why, e, i->address);
}

static void begin_body(struct jout *j, struct buf *bytes) {
    *bytes = buf_new(64 * KIB);
    jout_start(j, bytes);
    jout_open(j, '{');
}

static RESULT log_in(struct import *i, const char *user, const char *file, struct why *why) {
    struct secret *password = NULL;
    struct buf bytes;
    struct jout j;
    json_t *answer = NULL;
    TRY(line_read(file, &password, why));
    begin_body(&j, &bytes);
    jout_put_text(&j, "name", user);
    jout_key(&j, "password");
    jout_text(&j, secret_span(password));
    enum err e = ask(i, "/v3/auth/authenticate", &j, &answer, why);
    secret_free(password);
    if (e != OK) return e;
    int size = snprintf(i->headers, sizeof i->headers, "Authorization: %s\r\n",
                        jin_string(answer, "token"));
    jin_wipe(answer);
    json_decref(answer);
    if (size > 0 && (size_t)size < sizeof i->headers) return OK;
    return fail_with(why, ERR_PROTOCOL, "%s: its token is too long", i->address);
}

static RESULT measure(struct import *i, struct why *why) {
    struct buf bytes;
    struct jout j;
    json_t *answer;
    begin_body(&j, &bytes);
    jout_put_text(&j, "key", "AA==");
    jout_put_text(&j, "range_end", "AA==");
    jout_put_bool(&j, "count_only", true);
    TRY(ask(i, "/v3/kv/range", &j, &answer, why));
    enum err e = jin_u64(json_object_get(answer, "header"), "revision", &i->revision, why);
    if (e == OK) e = jin_u64(answer, "count", &i->total, why);
    json_decref(answer);
    if (e == OK && i->revision == 0)
        e = fail_with(why, ERR_PROTOCOL, "%s: it does not answer as etcd v3 does", i->address);
    return e;
}

/* --- this cluster ---------------------------------------------------------------------------- */

static RESULT send_step(struct import *i, const char *step, const struct buf *rows,
                        struct why *why) {
    char path[128], token[TOKEN_HEADER_ROOM];
    (void)snprintf(path, sizeof path, "/conclave/v1/import?step=%s&revision=%" PRIu64, step,
                   i->revision);
    cli_token_header(token);
    struct cli_call call = {
        .method = HTTP_POST, .path = path, .body = rows, .headers = token, .again_is_safe = true};
    json_t *out = NULL;
    enum err e = cli_json_call(i->cli, &call, &out, why);
    json_decref(out);
    return e;
}

static RESULT send_rows(struct import *i, struct why *why) {
    if (i->rows.size == 0) return OK;
    TRY(send_step(i, i->puts ? "puts" : "keys", &i->rows, why));
    buf_clear(&i->rows);
    tell_progress(i, false);
    return OK;
}

static RESULT begin(struct import *i, struct why *why) {
    if (i->puts) return OK;
    enum err e = send_step(i, "begin", NULL, why);
    if (e != ERR_PRECONDITION) return e;
    return fail_with(why, e,
                     "this cluster has keys already, so revisions can't be kept: --as-puts imports "
                     "the keys as new ones");
}

/* --- leases ---------------------------------------------------------------------------------- */

static RESULT grant(struct import *i, uint64_t id, uint64_t ttl_s, struct why *why) {
    struct buf bytes;
    struct jout j;
    begin_body(&j, &bytes);
    jout_put_quoted(&j, "ID", id);
    jout_put_quoted(&j, "TTL", ttl_s);
    jout_close(&j, '}');
    enum err e = jout_end(&j);
    struct cli_call call = {.method = HTTP_POST, .path = "/v3/lease/grant", .body = &bytes};
    if (e == OK) e = cli_json_call(i->cli, &call, NULL, why);
    buf_free(&bytes);
    if (e == OK) i->leases++;
    return e == ERR_LEASE_EXISTS ? OK : e;
}

static RESULT import_lease(struct import *i, uint64_t id, struct why *why) {
    struct buf bytes;
    struct jout j;
    json_t *answer;
    uint64_t ttl_s = 0;
    begin_body(&j, &bytes);
    jout_put_quoted(&j, "ID", id);
    TRY(ask(i, "/v3/lease/timetolive", &j, &answer, why));
    enum err e = OK; /* one that has run out meanwhile has a TTL of -1 and nothing granted */
    if (json_object_get(answer, "grantedTTL")) e = jin_u64(answer, "grantedTTL", &ttl_s, why);
    json_decref(answer);
    return e == OK && ttl_s > 0 ? grant(i, id, ttl_s, why) : e;
}

static RESULT import_leases(struct import *i, struct why *why) {
    struct buf bytes;
    struct jout j;
    json_t *answer;
    begin_body(&j, &bytes);
    TRY(ask(i, "/v3/lease/leases", &j, &answer, why));
    const json_t *all = json_object_get(answer, "leases");
    enum err e = OK;
    for (size_t at = 0; e == OK && at < json_array_size(all); at++) {
        uint64_t id = 0;
        e = jin_u64(json_array_get(all, at), "ID", &id, why);
        if (e == OK) e = import_lease(i, id, why);
    }
    json_decref(answer);
    return e;
}

/* --- keys ------------------------------------------------------------------------------------ */

static RESULT import_key(struct import *i, const json_t *row, struct buf *key, struct why *why) {
    struct buf value = buf_new(VALUE_MAX);
    struct kv kv = {0};
    buf_clear(key);
    enum err e = jin_bytes(row, "key", key, why);
    if (e == OK) e = jin_bytes(row, "value", &value, why);
    if (e == OK) e = jin_u64(row, "create_revision", &kv.create_revision, why);
    if (e == OK) e = jin_u64(row, "mod_revision", &kv.mod_revision, why);
    if (e == OK) e = jin_u64(row, "version", &kv.version, why);
    if (e == OK) e = jin_u64(row, "lease", &kv.lease, why);
    kv.key = buf_span(key);
    kv.value = buf_span(&value);
    if (e == OK && i->rows.size > 0 && i->rows.size + kv.key.size + kv.value.size > ROWS_MAX)
        e = send_rows(i, why);
    if (e == OK) e = import_add(&i->rows, &kv);
    i->done++;
    i->bytes += kv.key.size + kv.value.size;
    buf_wipe(&value);
    return e;
}

/* The page from *key on, which then is the last one's. */
static RESULT fetch_page(struct import *i, const struct buf *key, json_t **out, struct why *why) {
    struct buf bytes;
    struct jout j;
    begin_body(&j, &bytes);
    jout_key(&j, "key");
    jout_base64(&j, buf_span(key));
    jout_put_text(&j, "range_end", "AA==");
    jout_put_quoted(&j, "limit", i->page_keys);
    jout_put_quoted(&j, "revision", i->revision);
    return ask(i, "/v3/kv/range", &j, out, why);
}

static RESULT import_page(struct import *i, struct buf *key, bool *more, struct why *why) {
    json_t *answer;
    enum err e = fetch_page(i, key, &answer, why);
    if (e == ERR_TOO_LARGE && i->page_keys > 1) { /* large values: fewer at once */
        i->page_keys = i->page_keys / 8 + 1 < i->page_keys ? i->page_keys / 8 + 1 : 1;
        *more = true;
        return OK;
    }
    TRY(e);
    const json_t *rows = json_object_get(answer, "kvs");
    for (size_t at = 0; e == OK && at < json_array_size(rows); at++)
        e = import_key(i, json_array_get(rows, at), key, why);
    if (e == OK) e = buf_u8(key, 0); /* the next one begins behind it */
    *more = json_is_true(json_object_get(answer, "more")) && json_array_size(rows) > 0;
    json_decref(answer);
    return e;
}

static RESULT import_keys(struct import *i, struct why *why) {
    struct buf key = buf_new(KEY_MAX + 1);
    bool more = true;
    enum err e = buf_u8(&key, 0);
    while (e == OK && more)
        e = import_page(i, &key, &more, why);
    buf_free(&key);
    return e == OK ? send_rows(i, why) : e;
}

/* --- the verb -------------------------------------------------------------------------------- */

static RESULT open_source(struct import *i, struct why *why) {
    const struct cli *cli = i->cli;
    const char *url = cli->words[0], *user = cli_option(cli, "from-user");
    bool tls = strncmp(url, "https://", 8) == 0;
    const char *address = tls ? url + 8 : strncmp(url, "http://", 7) == 0 ? url + 7 : NULL;
    if (!address || strchr(address, '/') || strlen(address) >= sizeof i->address)
        return fail_with(why, ERR_USAGE, "%s: not http://HOST:PORT or https://HOST:PORT", url);
    (void)snprintf(i->address, sizeof i->address, "%s", address);
    struct client_config config = {.endpoint = i->address};
    if (tls) {
        config.cacert = cli_option(cli, "from-cacert");
        config.cert = cli_option(cli, "from-cert");
        config.key = cli_option(cli, "from-key");
        if (!config.cacert) return fail_with(why, ERR_USAGE, "https needs --from-cacert");
    }
    if (user && !cli_option(cli, "from-password-file"))
        return fail_with(why, ERR_USAGE, "--from-user needs --from-password-file");
    TRY(client_open(&config, &i->source, why));
    return user ? log_in(i, user, cli_option(cli, "from-password-file"), why) : OK;
}

static RESULT import_all(struct import *i, struct why *why) {
    TRY(open_source(i, why));
    TRY(measure(i, why));
    TRY(begin(i, why));
    TRY(import_leases(i, why));
    return import_keys(i, why);
}

static RESULT tell(const struct import *i, struct why *why) {
    if (cli_json(i->cli))
        printf("{\"keys\": %" PRIu64 ", \"leases\": %" PRIu64 ", \"revision\": %" PRIu64
               ", \"revisions_kept\": %s}\n",
               i->done, i->leases, i->revision, i->puts ? "false" : "true");
    else
        printf("%" PRIu64 " keys and %" PRIu64 " leases imported as of revision %" PRIu64 "%s\n",
               i->done, i->leases, i->revision,
               i->puts ? ", with revisions of this cluster" : ", with their revisions");
    return cli_flush(why);
}

static enum err run_import(struct cli *cli, struct why *why) {
    struct import i = {.cli = cli,
                       .puts = cli_option(cli, "as-puts") != NULL,
                       .page_keys = PAGE_KEYS,
                       .rows = buf_new(HTTP_BODY_MAX),
                       .began_ms = now_ms()};
    enum err e = import_all(&i, why);
    tell_progress(&i, true);
    client_close(i.source);
    buf_wipe(&i.rows);
    sodium_memzero(i.headers, sizeof i.headers);
    return e == OK ? tell(&i, why) : e;
}

static const struct option_spec options[] = {
    {"as-puts", NULL, "into a cluster that has keys: as new puts, without their revisions"},
    {"from-cacert", "FILE", "https: who has signed etcd's certificate"},
    {"from-cert", "FILE", "https: our certificate for etcd"},
    {"from-key", "FILE", "https: its key"},
    {"from-user", "NAME", "the user to read as; it needs all keys"},
    {"from-password-file", "FILE", "the user's password"},
    {NULL, NULL, NULL},
};

const struct verb verb_import = {
    .name = "import",
    .words = "URL",
    .about = "take over the keys and leases of a running etcd",
    .help = "Everything is read at one revision while etcd goes on; what is written to it after "
            "that is left\nbehind. An empty cluster gets the keys with their revisions and "
            "versions. Leases keep their ids and\nbegin their time anew.",
    .run = run_import,
    .options = options,
    .words_min = 1,
    .words_max = 1,
};
