/* put, get, del, ls, over the paths of etcd's gateway. A write carries a random Idempotency-Key,
 * so that an attempt whose outcome is unknown is repeated safely. Ranges come in pages; the next
 * begins behind the last key. */
#include "api/cli/cli_kv.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/store.h"

#define PAGE_KEYS  4096 /* keys of a page without values */
#define PAGE_PAIRS 64   /* pairs of a page */
#define PAGE_LARGE 8    /* the same, when they don't fit into an answer */

/* --- shared --------------------------------------------------------------------------------- */

RESULT kv_put(struct cli *cli, struct client *client, struct span key, struct span value,
              const char *extra, struct buf *answer, struct why *why) {
    struct buf body = buf_new(HTTP_BODY_MAX);
    struct jout j;
    char header[TOKEN_HEADER_ROOM];
    if (key.size == 0 || key.size > KEY_MAX)
        return fail_with(why, ERR_INVALID, "a key has 1 to %llu bytes", KEY_MAX);
    if (value.size > VALUE_MAX)
        return fail_with(why, ERR_TOO_LARGE, "the value has %zu bytes; at most %llu are possible",
                         value.size, VALUE_MAX);
    jout_start(&j, &body);
    jout_open(&j, '{');
    jout_key(&j, "key");
    jout_base64(&j, key);
    jout_key(&j, "value");
    jout_base64(&j, value);
    if (extra) jout_put_bool(&j, extra, true);
    jout_close(&j, '}');
    enum err e = jout_end(&j);
    cli_token_header(header);
    struct cli_call call = {.method = HTTP_POST,
                            .path = "/v3/kv/put",
                            .body = &body,
                            .headers = header,
                            .again_is_safe = true};
    if (e == OK) e = cli_call(cli, client, &call, answer, why);
    buf_wipe(&body);
    return e;
}

/* One page of [key, end): at most `limit` keys. */
static RESULT fetch(struct cli *cli, struct span key, struct span end, bool keys_only,
                    unsigned limit, json_t **out, struct why *why) {
    struct buf body = buf_new(64 * KIB);
    struct jout j;
    jout_start(&j, &body);
    jout_open(&j, '{');
    jout_key(&j, "key");
    jout_base64(&j, key);
    if (end.size > 0) {
        jout_key(&j, "range_end");
        jout_base64(&j, end);
    }
    jout_put_number(&j, "limit", limit);
    if (keys_only) jout_put_bool(&j, "keys_only", true);
    if (cli_option(cli, "serializable")) jout_put_bool(&j, "serializable", true);
    jout_close(&j, '}');
    enum err e = jout_end(&j);
    struct cli_call call = {
        .method = HTTP_POST, .path = "/v3/kv/range", .body = &body, .again_is_safe = true};
    if (e == OK) e = cli_json_call(cli, &call, out, why);
    buf_free(&body);
    return e;
}

/* Every key that begins with prefix, page by page. */
static RESULT walk(struct cli *cli, struct span prefix, bool keys_only,
                   enum err (*each)(void *ctx, const json_t *kv, struct why *why), void *ctx,
                   struct why *why) {
    uint8_t end[KEY_MAX], from[KEY_MAX + 1];
    static const uint8_t zero = 0;
    if (prefix.size > KEY_MAX)
        return fail_with(why, ERR_INVALID, "a prefix has at most %llu bytes", KEY_MAX);
    size_t end_size = prefix.size > 0 ? store_prefix_end(prefix, end) : 0;
    struct span until = end_size > 0 ? span_of(end, end_size) : span_of(&zero, 1);
    struct buf key = buf_new(KEY_MAX + 1);
    memcpy(from, prefix.size > 0 ? prefix.at : &zero, prefix.size > 0 ? prefix.size : 1);
    size_t from_size = prefix.size > 0 ? prefix.size : 1;
    enum err e = OK;
    unsigned limit = keys_only ? PAGE_KEYS : PAGE_PAIRS;
    for (bool more = true; e == OK && more;) {
        json_t *page = NULL;
        e = fetch(cli, span_of(from, from_size), until, keys_only, limit, &page, why);
        if (e == ERR_TOO_LARGE && limit > PAGE_LARGE) { /* the values are large here */
            limit = PAGE_LARGE;
            e = OK;
            continue;
        }
        if (e != OK) break;
        size_t i;
        const json_t *kv;
        json_array_foreach(json_object_get(page, "kvs"), i, kv) {
            buf_clear(&key);
            if (e == OK) e = each(ctx, kv, why);
            if (e == OK) e = jin_bytes(kv, "key", &key, why);
        }
        more = json_is_true(json_object_get(page, "more")) && key.size > 0 && key.size <= KEY_MAX;
        if (more) {
            memcpy(from, key.at, key.size);
            from[key.size] = 0; /* the smallest key behind it */
            from_size = key.size + 1;
        }
        json_decref(page);
    }
    buf_free(&key);
    return e;
}

static RESULT print_field(const json_t *kv, const char *name, struct why *why) {
    struct buf bytes = buf_new(VALUE_MAX);
    enum err e = jin_bytes(kv, name, &bytes, why);
    if (e == OK && bytes.size > 0) (void)fwrite(bytes.at, 1, bytes.size, stdout);
    buf_wipe(&bytes);
    return e;
}

/* --- put ------------------------------------------------------------------------------------ */

static const struct option_spec put_options[] = {
    {"file", "FILE", "take the value from FILE"},
    {"dir", "DIR", "write the files of DIR: relative path as key, world-readable regular files"},
    {"prefix", "P", "with --dir: put P before each key"},
    {"create", NULL, "fail when the key is there already"},
    {NULL, NULL, NULL},
};

static RESULT put_value(struct cli *cli, struct buf *value, struct why *why) {
    const char *file = cli_option(cli, "file");
    if (file && cli->n == 2)
        return fail_with(why, ERR_USAGE, "a value and --file exclude each other");
    if (file) return cli_read_file(file, value, why);
    if (cli->n < 2) return fail_with(why, ERR_USAGE, "a value, '-' or --file is needed");
    if (strcmp(cli->words[1], "-") == 0) return cli_read_file("-", value, why);
    return buf_add(value, cli->words[1], strlen(cli->words[1]));
}

static enum err run_put(struct cli *cli, struct why *why) {
    const char *dir = cli_option(cli, "dir"), *prefix = cli_option(cli, "prefix");
    if (dir && cli->n == 0) return cli_put_tree(cli, dir, prefix ? prefix : "", why);
    if (dir || prefix)
        return fail_with(why, ERR_USAGE, "--dir goes with --prefix and takes no KEY");
    if (cli->n == 0)
        return fail_with(why, ERR_USAGE, "something is missing; usage: conclave put %s",
                         cli->verb->words);
    struct buf value = buf_new(VALUE_MAX), answer = buf_new(1 * MIB);
    struct client *client = NULL;
    char path[4096];
    struct client_config config;
    TRY(cli_client_config(cli, &config, path, sizeof path, why));
    TRY(client_open(&config, &client, why));
    enum err e = put_value(cli, &value, why);
    if (e == OK)
        e = kv_put(cli, client, span_str(cli->words[0]), buf_span(&value),
                   cli_option(cli, "create") ? "must_not_exist" : NULL, &answer, why);
    if (e == OK && cli_json(cli)) printf("%.*s\n", (int)answer.size, answer.at);
    client_close(client);
    buf_wipe(&value);
    buf_free(&answer);
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_put = {
    .name = "put",
    .words = "KEY [VALUE | -] | --dir DIR",
    .about = "write a value, or a tree of files",
    .help = "'-' takes the value from standard input. A write whose outcome is unknown is tried "
            "again; it happens once.",
    .run = run_put,
    .options = put_options,
    .words_max = 2,
};

/* --- get ------------------------------------------------------------------------------------ */

static const struct option_spec get_options[] = {
    {"prefix", NULL, "all keys that begin with KEY: each key on a line, then its value"},
    {"out", "FILE", "write the value to FILE"},
    {"serializable", NULL, "from this member's own state, without asking the leader"},
    {NULL, NULL, NULL},
};

static enum err print_pair(void *ctx, const json_t *kv, struct why *why) {
    (void)ctx;
    TRY(print_field(kv, "key", why));
    (void)putchar('\n');
    TRY(print_field(kv, "value", why));
    (void)putchar('\n');
    return OK;
}

static enum err collect(void *ctx, const json_t *kv, struct why *why) {
    (void)why;
    return json_array_append(ctx, (json_t *)(uintptr_t)kv) == 0 ? OK : ERR_NOMEM;
}

static RESULT print_collected(json_t *all) {
    enum err e = cli_print_json(all);
    json_decref(all);
    return e;
}

static RESULT get_prefix(struct cli *cli, bool keys_only,
                         enum err (*each)(void *ctx, const json_t *kv, struct why *why),
                         struct why *why) {
    struct span prefix = cli->n > 0 ? span_str(cli->words[0]) : span_of(NULL, 0);
    if (!cli_json(cli)) return walk(cli, prefix, keys_only, each, NULL, why);
    json_t *all = json_array();
    enum err e = walk(cli, prefix, keys_only, collect, all, why);
    if (e == OK) return print_collected(all);
    json_decref(all);
    return e;
}

static RESULT write_out(const json_t *kv, const char *path, struct why *why) {
    struct buf value = buf_new(VALUE_MAX);
    enum err e = jin_bytes(kv, "value", &value, why);
    FILE *f = e == OK ? fopen(path, "we") : NULL;
    if (e == OK && !f) e = fail_with(why, ERR_IO, "%s can't be written", path);
    if (f) {
        bool good = value.size == 0 || fwrite(value.at, 1, value.size, f) == value.size;
        if (fclose(f) != 0 || !good) e = fail_with(why, ERR_IO, "%s can't be written", path);
    }
    buf_wipe(&value);
    return e;
}

static enum err run_get(struct cli *cli, struct why *why) {
    const char *out = cli_option(cli, "out");
    if (cli_option(cli, "prefix")) {
        if (out) return fail_with(why, ERR_USAGE, "--out takes one value, not a prefix");
        TRY(get_prefix(cli, false, print_pair, why));
        return cli_flush(why);
    }
    json_t *page = NULL;
    TRY(fetch(cli, span_str(cli->words[0]), span_of(NULL, 0), false, 1, &page, why));
    const json_t *kv = json_array_get(json_object_get(page, "kvs"), 0);
    enum err e = OK;
    if (!kv)
        e = fail_with(why, ERR_NOT_FOUND, "there is no key '%s'", cli->words[0]);
    else if (cli_json(cli))
        e = cli_print_json(kv);
    else if (out)
        e = write_out(kv, out, why);
    else
        e = print_field(kv, "value", why);
    json_decref(page);
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_get = {
    .name = "get",
    .words = "KEY",
    .about = "read a value",
    .help = "The value comes out as it is, without a newline. Reads are linearizable unless "
            "--serializable.\n"
            "With --json a pair's key and value are base64, as in etcd's gateway.",
    .run = run_get,
    .options = get_options,
    .words_min = 1,
    .words_max = 1,
};

/* --- ls ------------------------------------------------------------------------------------- */

static const struct option_spec ls_options[] = {
    {"long", NULL, "also version, revision of the last change, and size"},
    {"serializable", NULL, "from this member's own state, without asking the leader"},
    {NULL, NULL, NULL},
};

static enum err print_key(void *ctx, const json_t *kv, struct why *why) {
    (void)ctx;
    TRY(print_field(kv, "key", why));
    (void)putchar('\n');
    return OK;
}

static enum err print_long(void *ctx, const json_t *kv, struct why *why) {
    uint64_t version = 0, revision = 0;
    const char *value = jin_string(kv, "value");
    size_t size = strlen(value) / 4 * 3;
    if (size > 0)
        size -= (size_t)((value[strlen(value) - 1] == '=') + (value[strlen(value) - 2] == '='));
    TRY(jin_u64(kv, "version", &version, why));
    TRY(jin_u64(kv, "mod_revision", &revision, why));
    printf("%8" PRIu64 " %10" PRIu64 " %9zu ", version, revision, size);
    return print_key(ctx, kv, why);
}

static enum err run_ls(struct cli *cli, struct why *why) {
    bool whole = cli_option(cli, "long") != NULL;
    TRY(get_prefix(cli, !whole, whole ? print_long : print_key, why));
    return cli_flush(why);
}

const struct verb verb_ls = {
    .name = "ls",
    .words = "[PREFIX]",
    .about = "list keys",
    .run = run_ls,
    .options = ls_options,
    .words_max = 1,
};

/* --- del ------------------------------------------------------------------------------------ */

static const struct option_spec del_options[] = {
    {"prefix", NULL, "all keys that begin with KEY"},
    {NULL, NULL, NULL},
};

static RESULT del_body(struct cli *cli, struct buf *body, struct why *why) {
    struct span key = span_str(cli->words[0]);
    uint8_t end[KEY_MAX];
    static const uint8_t zero = 0;
    struct jout j;
    if (key.size > KEY_MAX)
        return fail_with(why, ERR_INVALID, "a key has at most %llu bytes", KEY_MAX);
    jout_start(&j, body);
    jout_open(&j, '{');
    jout_key(&j, "key");
    jout_base64(&j, key.size > 0 ? key : span_of(&zero, 1));
    if (cli_option(cli, "prefix")) {
        size_t size = key.size > 0 ? store_prefix_end(key, end) : 0;
        jout_key(&j, "range_end");
        jout_base64(&j, size > 0 ? span_of(end, size) : span_of(&zero, 1));
    }
    jout_close(&j, '}');
    return jout_end(&j);
}

static enum err run_del(struct cli *cli, struct why *why) {
    struct buf body = buf_new(64 * KIB);
    char header[TOKEN_HEADER_ROOM];
    json_t *answer = NULL;
    uint64_t deleted = 0;
    TRY(del_body(cli, &body, why));
    cli_token_header(header);
    struct cli_call call = {.method = HTTP_POST,
                            .path = "/v3/kv/deleterange",
                            .body = &body,
                            .headers = header,
                            .again_is_safe = true};
    enum err e = cli_json_call(cli, &call, &answer, why);
    buf_free(&body);
    if (e != OK) return e;
    e = jin_u64(answer, "deleted", &deleted, why);
    if (e == OK && cli_json(cli))
        e = cli_print_json(answer);
    else if (e == OK && deleted == 0 && !cli_option(cli, "prefix"))
        e = fail_with(why, ERR_NOT_FOUND, "there is no key '%s'", cli->words[0]);
    else if (e == OK && cli_option(cli, "prefix"))
        printf("%" PRIu64 " deleted\n", deleted);
    json_decref(answer);
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_del = {
    .name = "del",
    .words = "KEY",
    .about = "delete a key, or all with a prefix",
    .run = run_del,
    .options = del_options,
    .words_min = 1,
    .words_max = 1,
};
