/* The command line: a table of verbs, each with its options, usage and help; parsing; and what
 * verbs share: the client of the server that was meant, retries, output, errors with their exit
 * codes. */
#ifndef CONCLAVE_CLI_H
#define CONCLAVE_CLI_H

#include "api/client.h"
#include "api/json.h"

#define OPTIONS_MAX     512 /* a service's variables and files are options */
#define CONFIG_FILE_MAX (64 * KIB)
#define WORDS_MAX       260 /* a service's command has SERVICE_ARGS_MAX */

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
    int exit_code;         /* of the program, when the verb is OK */
    bool unknown;          /* an attempt of the last call may have been applied */
};

int cli_main(int argc, char **argv);

const char *cli_option(const struct cli *cli,
                       const char *name); /* value; "" for a switch; NULL: not given */
/* The next value of an option that may be given several times, in their order; NULL: no more.
 * *at starts as 0. */
const char *cli_option_next(const struct cli *cli, const char *name, unsigned *at);
/* A whole number from `least` to `most`; not given: *out stays. ERR_USAGE. */
RESULT cli_number(const struct cli *cli, const char *name, uint64_t least, uint64_t most,
                  uint64_t *out, struct why *why);
bool cli_json(const struct cli *cli);        /* --json was given */
const char *cli_data(const struct cli *cli); /* the data directory that was meant */
RESULT cli_client_config(const struct cli *cli, struct client_config *out, char *path, size_t room,
                         struct why *why);

/* Adds what the environment and the file of --config say to the verb's own options (cli_config.c).
 * `file` holds its text, max CONFIG_FILE_MAX + 1, and must live as long as the options. */
RESULT cli_configure(struct cli *cli, struct buf *file, struct why *why);

/* One request with retries until --timeout: always when the server certainly did nothing, and also
 * after an unknown outcome when `again_is_safe`. `body` may be NULL. */
struct cli_call {
    enum http_method method;
    const char *path;
    const struct buf *body;
    const char *headers;
    bool again_is_safe;
    bool busy_is_final; /* ERR_BUSY is not waited out, but told */
};
RESULT cli_call(struct cli *cli, struct client *client, const struct cli_call *call,
                struct buf *answer, struct why *why);
/* The same over the command's own client; *out is to be freed with json_decref; NULL: not wanted.
 */
RESULT cli_json_call(struct cli *cli, const struct cli_call *call, json_t **out, struct why *why);
/* The two of them that most verbs make; `body` is wiped and freed in all cases (NULL: none). */
RESULT cli_get(struct cli *cli, const char *path, json_t **out, struct why *why);
RESULT cli_post(struct cli *cli, const char *path, struct buf *body, bool again_is_safe,
                json_t **out, struct why *why);
/* GET PATH?WHAT=NAME. */
RESULT cli_get_named(struct cli *cli, const char *path, const char *what, const char *name,
                     json_t **out, struct why *why);
/* POST of {WHAT: NAME}, and "force" when that option was given. `done` is the error that an attempt
 * finds whose change an earlier one, with a lost answer, has made: it is OK then (OK: none). */
RESULT cli_post_named(struct cli *cli, const char *path, const char *what, const char *name,
                      enum err done, struct why *why);
/* Removes what each word names, and prints the word. All that can be removed are; the first error
 * is the command's. */
typedef RESULT cli_remover(struct cli *cli, const char *name, struct why *why);
RESULT cli_remove_each(struct cli *cli, cli_remover *remove_one, struct why *why);
/* An object "key" of the KEY=VALUEs that an option was given (cli_nodes.c). ERR_USAGE. */
RESULT cli_put_labels(const struct cli *cli, const char *option, const char *key, struct jout *j,
                      struct why *why);
/* "labels_add" and "labels_remove" of the options for them (cli_nodes.c). ERR_USAGE. */
#define LABEL_CHANGE_OPTIONS                                                                       \
    {"label-add", "KEY=VALUE", "add or replace a label; may be given several times"}, {            \
        "label-rm", "KEY", "remove a label; may be given several times"                            \
    }
RESULT cli_put_label_changes(const struct cli *cli, struct jout *j, struct why *why);
/* PATH?NAME=TEXT, percent-encoded, as a C string (cli_nodes.c). */
RESULT cli_query(struct buf *out, const char *path, const char *name, const char *text);
const char *cli_labels_text(const json_t *labels, char *out, size_t room); /* "a=1 b=2" */
/* "chain" and "key" of the files that two options name, nothing without (cli_ca.c). */
RESULT cli_put_chain(const struct cli *cli, const char *cert_option, const char *key_option,
                     struct jout *j, struct why *why);
/* Prints the server's JSON as it is. */
RESULT cli_print_json(const json_t *json);
/* An answer as JSON when that was asked for, else by `print`, which flushes; frees it. */
typedef RESULT cli_printer(const json_t *answer, struct why *why);
RESULT cli_print_answer(const struct cli *cli, json_t *answer, cli_printer *print, struct why *why);
void cli_pause(unsigned ms);       /* between two looks at the server */
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
extern const struct verb verb_lock, verb_unlock, verb_unlock_key,
    verb_unlock_key_rotate; /* cli_unlock.c */
extern const struct verb verb_backup_key, verb_key_rotate, verb_cert, verb_reload; /* cli_keys.c */
extern const struct verb verb_token_create, verb_token_ls, verb_token_rm, verb_token_show,
    verb_token_rotate; /* cli_tokens.c */
extern const struct verb verb_node_ls, verb_node_inspect, verb_node_update, verb_node_promote,
    verb_node_demote, verb_node_rm, verb_node_approve, verb_node_deny,
    verb_node_pending; /* cli_nodes.c */
extern const struct verb verb_ca_show, verb_ca_rotate, verb_ca_status, verb_ca_abort, verb_ca_force,
    verb_ca_set;                                    /* cli_ca.c */
extern const struct verb verb_backup, verb_restore; /* cli_backup.c */
extern const struct verb verb_import;               /* cli_import.c */
extern const struct verb verb_secret_create, verb_secret_put, verb_secret_update, verb_secret_rm,
    verb_config_create, verb_config_put, verb_config_update, verb_config_rm; /* cli_held.c */
extern const struct verb verb_secret_ls, verb_secret_inspect, verb_config_ls,
    verb_config_inspect; /* cli_held_show.c */
extern const struct verb verb_secret_shred, verb_key_escrow, verb_key_import_escrow,
    verb_key_status; /* cli_vault.c */
extern const struct verb verb_service_create, verb_service_update, verb_service_scale,
    verb_service_rm; /* cli_service.c */
extern const struct verb verb_service_ls, verb_service_ps,
    verb_service_inspect; /* cli_service_show.c */
extern const struct verb verb_audit_tail, verb_audit_head, verb_audit_dump,
    verb_audit_verify;                             /* cli_audit.c */
extern const struct verb verb_recover, verb_check; /* cli_offline.c */

extern const struct verb verb_run;             /* cli_run.c */
extern const struct verb verb_task_supervisor; /* cli_task.c */

/* `key rotate --cluster` (cli_vault.c). */
enum err cli_rotate_cluster(struct cli *cli, struct why *why);
enum err cli_put_tree(struct cli *cli, const char *dir, const char *prefix,
                      struct why *why); /* cli_tree.c */

#endif
