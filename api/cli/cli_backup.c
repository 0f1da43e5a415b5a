/* backup and restore. The server streams the state; the file is sealed here, under a random key
 * that is printed once and kept nowhere. Restore reads and verifies the whole file before it writes
 * anything, then makes a data directory for a new cluster of one. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/app.h"
#include "api/backup.h"
#include "api/cli/cli_keyfile.h"
#include "api/offline.h"
#include "api/secret/escrow.h"
#include "raft/loop.h"

/* --- backup --------------------------------------------------------------------------------- */

#define STREAM_HEAD (STATE_HASH_SIZE + 16)

struct backup_job {
    FILE *file;
    struct secret *key;
    struct backup_writer *writer; /* NULL before the stream's head is there */
    uint8_t head[STREAM_HEAD];
    size_t have;       /* bytes of the head */
    uint64_t revision; /* of the store */
    struct why why;
};

static RESULT begin(struct backup_job *b) {
    struct backup_head head = {.time_s = (int64_t)time(NULL)};
    memcpy(head.hash, b->head, STATE_HASH_SIZE);
    head.revision = b->revision = get_u64(b->head + STATE_HASH_SIZE);
    head.index = get_u64(b->head + STATE_HASH_SIZE + 8);
    return backup_create(b->file, b->key, &head, &b->writer, &b->why);
}

static enum err take_piece(void *ctx, struct span data) {
    struct backup_job *b = ctx;
    if (!b->writer) {
        size_t need = STREAM_HEAD - b->have, size = data.size < need ? data.size : need;
        memcpy(b->head + b->have, data.at, size);
        b->have += size;
        data = span_of(data.at + size, data.size - size);
        if (b->have < STREAM_HEAD) return OK;
        TRY(begin(b));
    }
    return backup_write(b->writer, data, &b->why);
}

static RESULT fetch(struct cli *cli, struct backup_job *b, uint64_t *bytes, struct why *why) {
    char path[4096];
    struct client_config config;
    struct client *client = NULL;
    struct client_request r = {.method = HTTP_GET,
                               .path = "/conclave/v1/backup",
                               .timeout_ms = cli->timeout_ms,
                               .piece = take_piece,
                               .ctx = b};
    TRY(cli_client_config(cli, &config, path, sizeof path, why));
    TRY(client_open(&config, &client, why));
    enum err e = client_call(client, &r, NULL, why);
    client_close(client);
    if (e != OK && b->why.text[0]) return fail_with(why, e, "%s", b->why.text);
    TRY(e);
    if (!b->writer) return fail_with(why, ERR_PROTOCOL, "the server's stream is too short");
    return backup_finish(b->writer, bytes, why);
}

static RESULT failed(const char *path, struct why *why) {
    return fail_with(why, err_from_errno(errno), "%s: %s", path, strerror(errno));
}

static RESULT tell(struct cli *cli, const struct backup_job *b, uint64_t bytes, struct why *why) {
    char text[BACKUP_KEY_TEXT];
    TRY(backup_key_format(b->key, text));
    if (cli_json(cli))
        printf("{\"key\": \"%s\", \"revision\": %" PRIu64 ", \"bytes\": %" PRIu64 "}\n", text,
               b->revision, bytes);
    else
        printf("%s: revision %" PRIu64 ", %" PRIu64
               " bytes of state, sealed under this key, which is kept nowhere:\n\nBACKUP KEY: "
               "%s\n",
               cli->words[0], b->revision, bytes, text);
    sodium_memzero(text, sizeof text);
    return cli_flush(why);
}

/* FILE may be the last backup that there is: it goes when the new one is durable and its key, which
 * has no other copy, is out. */
static RESULT publish(struct cli *cli, const struct backup_job *b, uint64_t bytes, const char *part,
                      struct why *why) {
    const char *path = cli->words[0];
    if (fflush(b->file) != 0 || fsync(fileno(b->file)) != 0) return failed(part, why);
    TRY(tell(cli, b, bytes, why));
    return rename(part, path) == 0 ? OK : failed(path, why);
}

static enum err run_backup(struct cli *cli, struct why *why) {
    const char *path = cli->words[0];
    char part[4096];
    struct backup_job b = {0};
    uint64_t bytes = 0;
    TRY(app_harden(why));
    if (access(path, F_OK) == 0 && !cli_option(cli, "replace"))
        return fail_with(why, ERR_EXISTS, "%s is there already (--replace)", path);
    (void)snprintf(part, sizeof part, "%s.part", path);
    (void)unlink(part);
    int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    b.file = fd < 0 ? NULL : fdopen(fd, "we");
    if (!b.file) return failed(part, why);
    enum err e = secret_random(KEY_SIZE, &b.key);
    if (e == OK) e = fetch(cli, &b, &bytes, why);
    if (e == OK) e = publish(cli, &b, bytes, part, why);
    if (e != OK) (void)unlink(part);
    backup_writer_free(b.writer);
    (void)fclose(b.file);
    secret_free(b.key);
    return e;
}

static const struct option_spec backup_options[] = {
    {"replace", NULL, "overwrite FILE"},
    {NULL, NULL, NULL},
};

const struct verb verb_backup = {
    .name = "backup",
    .words = "FILE",
    .about = "write the whole state to a sealed file while the cluster runs",
    .help = "The state of one moment, with all keys, values and the cluster's own keys. The key "
            "that is\n"
            "printed opens it; without it the file is worth nothing. The values of secrets in it "
            "stay sealed\nunder cluster keys that it does not hold: `conclave key escrow` keeps "
            "those.",
    .run = run_backup,
    .options = backup_options,
    .words_min = 1,
    .words_max = 1,
};

/* --- restore -------------------------------------------------------------------------------- */

static const struct option_spec restore_options[] = {
    {"data", "DIR", "the new node's data directory (CONCLAVE_DATA); must hold no node"},
    {"name", "NAME", "its name; the machine's unless told"},
    {"client", "ADDR:PORT", "where clients are served; 127.0.0.1:2379 unless told"},
    {"peer", "ADDR:PORT", "where further members reach it; 127.0.0.1:2377 unless told"},
    {"key-file", "FILE",
     "a file with the backup's key; else it is asked for, or read from "
     "standard input"},
    {"escrow", "FILE", "the cluster keys that the values of secrets are sealed under"},
    {"passphrase-file", "FILE",
     "a file with the escrow's passphrase; else it is asked for, or read from standard input"},
    {"json", NULL, "print JSON"},
    {NULL, NULL, NULL},
};

static RESULT read_passphrase(struct cli *cli, struct secret **out, struct why *why) {
    const char *path = cli_option(cli, "passphrase-file");
    struct buf text = buf_new(PASSPHRASE_MAX + 1);
    if (path) return line_read(path, out, why);
    enum err e = buf_reserve(&text, PASSPHRASE_MAX + 1);
    if (e == OK) e = cli_read_secret("escrow passphrase", &text, why);
    if (e == OK) e = secret_new(text.at, text.size, out);
    buf_wipe(&text);
    return e;
}

static RESULT read_escrow(struct cli *cli, struct secret **out, struct why *why) {
    const char *path = cli_option(cli, "escrow");
    struct secret *passphrase = NULL;
    struct buf file = buf_new(ESCROW_MAX);
    if (!path) return OK;
    enum err e = cli_read_file(path, &file, why);
    if (e == OK) e = read_passphrase(cli, &passphrase, why);
    if (e == OK) e = escrow_open(buf_span(&file), passphrase, out, why);
    secret_free(passphrase);
    buf_free(&file);
    return e;
}

static RESULT read_key(struct cli *cli, struct secret **out, struct why *why) {
    const char *path = cli_option(cli, "key-file");
    struct secret *line = NULL;
    struct buf text = buf_new(PASSPHRASE_MAX + 1);
    enum err e;
    if (path) {
        e = line_read(path, &line, why);
        if (e == OK) e = buf_add_span(&text, secret_span(line));
    } else {
        e = cli_read_secret("backup key", &text, why);
    }
    if (e == OK) e = buf_u8(&text, 0);
    if (e == OK) e = backup_key_parse((const char *)text.at, out, why);
    secret_free(line);
    buf_wipe(&text);
    return e;
}

static RESULT read_place(struct cli *cli, struct offline_place *place, struct why *why) {
    const char *name = cli_option(cli, "name"), *client = cli_option(cli, "client"),
               *peer = cli_option(cli, "peer");
    struct address parts;
    char host[NAME_MAX_SIZE + 1] = "";
    if (!name && gethostname(host, sizeof host - 1) != 0) host[0] = 0;
    (void)snprintf(place->name, sizeof place->name, "%s", name ? name : host);
    (void)snprintf(place->client, ADDRESS_MAX, "%s", client ? client : "127.0.0.1:2379");
    (void)snprintf(place->peer, ADDRESS_MAX, "%s", peer ? peer : "127.0.0.1:2377");
    if (name && strlen(name) > NAME_MAX_SIZE)
        return fail_with(why, ERR_INVALID, "--name is too long");
    TRY(name_check(place->name, why));
    TRY(address_split(place->client, &parts, why));
    return address_split(place->peer, &parts, why);
}

static void tell_values(const struct offline_restored *r) {
    if (r->values == 0) return;
    printf("\n%" PRIu64 " values of secrets and configs are restored", r->values);
    if (r->sealed == 0)
        printf(", with the cluster keys that open them.\n");
    else
        printf("; %" PRIu64 " of them can't be opened until the escrow of their cluster keys is "
               "imported:\n\n    conclave key import-escrow FILE\n",
               r->sealed);
}

static enum err run_restore(struct cli *cli, struct why *why) {
    const char *path = cli->words[0];
    struct secret *key = NULL, *vault = NULL;
    struct offline_place place = {0};
    struct offline_restored restored = {0};
    TRY(app_harden(why));
    TRY(read_place(cli, &place, why));
    FILE *file = fopen(path, "re");
    if (!file) return fail_with(why, err_from_errno(errno), "%s: %s", path, strerror(errno));
    enum err e = read_key(cli, &key, why);
    if (e == OK) e = read_escrow(cli, &vault, why);
    place.vault = vault;
    if (e == OK) e = offline_restore(file, path, key, cli_data(cli), &place, &restored, why);
    (void)fclose(file);
    secret_free(key);
    secret_free(vault);
    if (e != OK) return e;
    if (cli_json(cli))
        printf("{\"keys\": %" PRIu64 ", \"revision\": %" PRIu64 ", \"values\": %" PRIu64
               ", \"sealed\": %" PRIu64 ", \"token\": \"%s\"}\n",
               restored.keys, restored.revision, restored.values, restored.sealed, restored.token);
    else
        printf(
            "%" PRIu64 " keys at revision %" PRIu64
            " restored. This is a new cluster of one member: start it with\n\n    conclave serve "
            "--data %s\n\nand let others join on empty directories with the token\n\n    %s\n",
            restored.keys, restored.revision, cli_data(cli), restored.token);
    if (!cli_json(cli)) tell_values(&restored);
    sodium_memzero(&restored, sizeof restored);
    return cli_flush(why);
}

const struct verb verb_restore = {
    .name = "restore",
    .words = "FILE",
    .about = "make a new cluster of one member from a backup",
    .help =
        "Keys, values and revisions are kept. The cluster's id, its root of trust, tokens, members "
        "and\n"
        "the unlock key are new or gone: nothing of the old cluster can speak with the new one.\n"
        "The values of secrets are sealed under cluster keys that no backup holds: --escrow brings "
        "them,\nand `conclave key import-escrow` does so later.",
    .run = run_restore,
    .options = restore_options,
    .words_min = 1,
    .words_max = 1,
    .local = true,
};
