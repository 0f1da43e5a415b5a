/* The command line: a table of verbs, each with its options, usage and help; parsing; and what
 * verbs share: the client of the server that was meant, retries, output, errors with their exit
 * codes. */
#ifndef CONCLAVE_CLI_H
#define CONCLAVE_CLI_H

#include "api/client.h"
#include "api/json.h"

#define OPTIONS_MAX 24
#define WORDS_MAX   8

struct option_spec {
    const char *name;  /* without the dashes */
    const char *value; /* what stands for the value in the help; NULL: a switch */
    const char *help;
};

struct cli;

struct verb {
    const char *name;  /* one or two words */
    const char *words; /* what follows in the usage: "KEY VALUE" */
    const char *about; /* one line for the list */
    const char *help;  /* sentences for --help; may be NULL */
    enum err (*run)(struct cli *cli, struct why *why);
    const struct option_spec *options; /* ends with name NULL; may be NULL */
    unsigned words_min, words_max;
    bool local;  /* needs no server: only its own options and --help */
    bool hidden; /* not in the list */
};

struct cli {
    const struct verb *verb;
    const char *words[WORDS_MAX]; /* positional */
    unsigned n;
    struct {
        const char *name, *value; /* as given */
    } given[OPTIONS_MAX];
    unsigned given_n;
    struct client *client; /* made by cli_client */
    uint64_t timeout_ms;   /* of the whole command */
    bool unknown;          /* an attempt of the last call may have been applied */
};

int cli_main(int argc, char **argv);

const char *cli_option(const struct cli *cli,
                       const char *name);    /* value; "" for a switch; NULL: not given */
bool cli_json(const struct cli *cli);        /* --json was given */
const char *cli_data(const struct cli *cli); /* the data directory that was meant */
RESULT cli_client_config(const struct cli *cli, struct client_config *out, char *path, size_t room,
                         struct why *why);

/* One request with retries until --timeout: always when the server certainly did nothing, and also
 * after an unknown outcome when `again_is_safe`. `body` may be NULL. */
struct cli_call {
    enum http_method method;
    const char *path;
    const struct buf *body;
    const char *headers;
    bool again_is_safe;
};
RESULT cli_call(struct cli *cli, struct client *client, const struct cli_call *call,
                struct buf *answer, struct why *why);
/* The same over the command's own client; *out is to be freed with json_decref; NULL: not wanted.
 */
RESULT cli_json_call(struct cli *cli, const struct cli_call *call, json_t **out, struct why *why);
/* Prints the server's JSON as it is. */
RESULT cli_print_json(const json_t *json);
RESULT cli_flush(struct why *why); /* stdout: an error when it can't be written */

/* A fresh Idempotency-Key header line. */
#define TOKEN_HEADER_ROOM 64
void cli_token_header(char out[TOKEN_HEADER_ROOM]);
/* Reads a whole file ("-": stdin) up to out->max. */
RESULT cli_read_file(const char *path, struct buf *out, struct why *why);
/* Reads a line without echo from the terminal, or the first line of stdin when that is none. */
RESULT cli_read_secret(const char *prompt, struct buf *out, struct why *why);

/* The verbs, by file. */
extern const struct verb verb_serve; /* cli_serve.c */
extern const struct verb verb_init, verb_join, verb_leave, verb_status, verb_members, verb_promote,
    verb_demote, verb_remove, verb_transfer;                    /* cli_cluster.c */
extern const struct verb verb_put, verb_get, verb_del, verb_ls; /* cli_kv.c */
extern const struct verb verb_lock, verb_unlock, verb_unlock_key, verb_unlock_key_rotate,
    verb_key_rotate, verb_token_rotate, verb_cert;  /* cli_keys.c */
extern const struct verb verb_backup, verb_restore; /* cli_backup.c */
extern const struct verb verb_recover, verb_check;  /* cli_offline.c */

enum err cli_put_tree(struct cli *cli, const char *dir, const char *prefix,
                      struct why *why); /* cli_tree.c */

#endif
