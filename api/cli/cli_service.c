/* Verbs that make, change, scale and remove services, and wait for them. */
#include <sodium.h>
#include <stdio.h>

#include "api/cli/cli_service.h"
#include "raft/loop.h"
#include "store/service.h"

#define WAIT_MS 200 /* between two looks */

/* --- waiting -------------------------------------------------------------------------------- */

static int64_t number(const json_t *object, const char *key) {
    return (int64_t)json_integer_value(json_object_get(object, key));
}

/* Do so many run as shall, and is each of the present spec? */
static bool settled(const json_t *service, const json_t *tasks) {
    int64_t running = 0, desired = 0;
    size_t i;
    const json_t *t;
    json_array_foreach(json_object_get(tasks, "tasks"), i, t) {
        bool wanted = strcmp(jin_string(t, "desired"), "running") == 0;
        desired += wanted;
        running += wanted && strcmp(jin_string(t, "state"), "running") == 0 &&
                   number(t, "spec_version") == number(service, "spec_version");
    }
    bool global = strcmp(jin_string(service, "mode"), "global") == 0;
    return running == desired && (global ? desired > 0 : desired == number(service, "replicas"));
}

static RESULT look(struct cli *cli, const char *name, bool *good, struct why *why) {
    static const char inspect[] = "/conclave/v1/services/inspect";
    static const char list[] = "/conclave/v1/services/tasks";
    json_t *service = NULL, *tasks = NULL;
    enum err e = cli_get_named(cli, inspect, "service", name, &service, why);
    if (e == OK) e = cli_get_named(cli, list, "service", name, &tasks, why);
    *good = e == OK && settled(service, tasks);
    json_decref(service);
    json_decref(tasks);
    return e;
}

/* --wait: until all tasks run. */
static RESULT wait_for(struct cli *cli, const char *name, struct why *why) {
    struct clock clock;
    bool good = false;
    if (!cli_option(cli, "wait")) return OK;
    clock_real(&clock);
    uint64_t limit = clock.now_ms(&clock) + cli->timeout_ms;
    for (;;) {
        TRY(look(cli, name, &good, why));
        if (good) return OK;
        if (clock.now_ms(&clock) >= limit)
            return fail_with(why, ERR_TIMEOUT,
                             "not all of its tasks run yet: `conclave service ps %.64s`", name);
        cli_pause(WAIT_MS);
    }
}

/* --- changes -------------------------------------------------------------------------------- */

/* Warnings on standard error; what was done on standard output. */
static RESULT tell(const struct cli *cli, const json_t *answer, const char *text, struct why *why) {
    size_t i;
    const json_t *warning;
    if (cli_json(cli)) return cli_print_json(answer);
    json_array_foreach(json_object_get(answer, "warnings"), i, warning) {
        (void)fprintf(stderr, "conclave: %s: warning: %s\n", cli->verb->name,
                      json_string_value(warning));
    }
    printf("%s\n", text);
    return cli_flush(why);
}

/* {KEY: VALUE...} as a body; takes over nothing. */
static RESULT dump_body(const json_t *json, struct buf *out) {
    char *text = json_dumps(json, JSON_COMPACT);
    if (!text) return ERR_NOMEM;
    enum err e = buf_add(out, text, strlen(text));
    sodium_memzero(text, strlen(text));
    free(text);
    return e;
}

static RESULT post(struct cli *cli, const char *path, const json_t *json, bool again_is_safe,
                   json_t **answer, struct why *why) {
    struct buf body = buf_new(4 * SERVICE_SPEC_MAX);
    enum err e = json ? dump_body(json, &body) : ERR_NOMEM;
    if (e == OK) return cli_post(cli, path, &body, again_is_safe, answer, why);
    buf_free(&body);
    return e;
}

static enum err run_create(struct cli *cli, struct why *why) {
    json_t *spec = NULL, *answer = NULL;
    TRY(service_spec_new(cli, &spec, why));
    json_t *body = json_pack("{so}", "spec", spec);
    enum err e = post(cli, "/conclave/v1/services/create", body, false, &answer, why);
    json_decref(body);
    if (e == OK) e = tell(cli, answer, jin_string(answer, "id"), why);
    if (e == OK) e = wait_for(cli, jin_string(answer, "id"), why);
    json_decref(answer);
    return e;
}

const struct verb verb_service_create = {
    .name = "service create",
    .words = "NAME [OPTIONS] -- COMMAND...",
    .about = "run a command on nodes of the cluster, with the secrets that it may have",
    .help = "Its tasks are spread over the active nodes, replaced when they end, and moved when a "
            "node dies or drains. A\nsecret without version= follows the newest: the file is "
            "replaced and the task gets the reload signal.\nPrints the id.",
    .run = run_create,
    .options = service_create_options,
    .words_min = 1,
    .words_max = SERVICE_ARGS_MAX + 1,
};

/* --- update --------------------------------------------------------------------------------- */

static RESULT send_update(struct cli *cli, const json_t *service, json_t **answer,
                          struct why *why) {
    json_t *spec = json_object_get(service, "spec");
    if (!json_is_object(spec)) return fail_with(why, ERR_PROTOCOL, "the answer has no spec");
    TRY(service_spec_change(cli, spec, why));
    json_t *body = json_pack("{sssIsO}", "service", jin_string(service, "id"), "version",
                             (json_int_t)number(service, "version"), "spec", spec);
    enum err e = post(cli, "/conclave/v1/services/update", body, false, answer, why);
    json_decref(body);
    return e;
}

/* A change that came in between is read, and ours is made to it. */
static RESULT update(struct cli *cli, json_t **answer, struct why *why) {
    for (unsigned tries = 0;; tries++) {
        json_t *service = NULL;
        TRY(cli_get_named(cli, "/conclave/v1/services/inspect", "service", cli->words[0], &service,
                          why));
        enum err e = send_update(cli, service, answer, why);
        json_decref(service);
        if (e != ERR_CONFLICT || tries == 4) return e;
    }
}

static enum err run_update(struct cli *cli, struct why *why) {
    char text[128];
    json_t *answer = NULL;
    if (cli->given_n == 0 && cli->n < 2)
        return fail_with(why, ERR_USAGE, "nothing is to be changed; --help lists what can be");
    TRY(update(cli, &answer, why));
    (void)snprintf(text, sizeof text, "%.64s is updated", cli->words[0]);
    enum err e = tell(cli, answer, text, why);
    json_decref(answer);
    return e == OK ? wait_for(cli, cli->words[0], why) : e;
}

const struct verb verb_service_update = {
    .name = "service update",
    .words = "NAME [OPTIONS] [-- COMMAND...]",
    .about = "change what a service runs, with what, where",
    .help = "What is not named stays. A file with the same target, a variable with the same name, "
            "a mount at the same\nplace are replaced. Tasks are replaced one after another when "
            "something of them has changed.",
    .run = run_update,
    .options = service_update_options,
    .words_min = 1,
    .words_max = SERVICE_ARGS_MAX + 1,
};

/* --- scale ---------------------------------------------------------------------------------- */

static RESULT scale_one(struct cli *cli, const char *word, struct why *why) {
    const char *equals = strrchr(word, '=');
    char name[SERVICE_NAME_MAX + 1], text[128];
    uint64_t n;
    if (!equals || equals == word || (size_t)(equals - word) >= sizeof name ||
        strlen(equals + 1) > 8 || http_parse_decimal(span_str(equals + 1), &n) != OK ||
        n > SERVICE_REPLICAS_MAX)
        return fail_with(why, ERR_USAGE, "'%.80s' is not NAME=N with N up to %d", word,
                         SERVICE_REPLICAS_MAX);
    (void)snprintf(name, sizeof name, "%.*s", (int)(equals - word), word);
    json_t *body = json_pack("{sssI}", "service", name, "replicas", (json_int_t)n), *answer = NULL;
    enum err e = post(cli, "/conclave/v1/services/scale", body, true, &answer, why);
    json_decref(body);
    (void)snprintf(text, sizeof text, "%s is scaled to %llu", name, (unsigned long long)n);
    if (e == OK) e = tell(cli, answer, text, why);
    json_decref(answer);
    return e == OK ? wait_for(cli, name, why) : e;
}

static enum err run_scale(struct cli *cli, struct why *why) {
    for (unsigned i = 0; i < cli->n; i++)
        TRY(scale_one(cli, cli->words[i], why));
    return OK;
}

static const struct option_spec scale_options[] = {
    {"wait", NULL, "until all its tasks run, or --timeout"},
    {NULL, NULL, NULL},
};

const struct verb verb_service_scale = {
    .name = "service scale",
    .words = "NAME=N...",
    .about = "change how many tasks services have",
    .run = run_scale,
    .options = scale_options,
    .words_min = 1,
    .words_max = WORDS_MAX,
};

/* --- rm ------------------------------------------------------------------------------------- */

static RESULT remove_one(struct cli *cli, const char *name, struct why *why) {
    return cli_post_named(cli, "/conclave/v1/services/remove", "service", name, ERR_NOT_FOUND, why);
}

static enum err run_rm(struct cli *cli, struct why *why) {
    return cli_remove_each(cli, remove_one, why);
}

const struct verb verb_service_rm = {
    .name = "service rm",
    .words = "NAME...",
    .about = "remove services; their tasks are ended",
    .run = run_rm,
    .words_min = 1,
    .words_max = WORDS_MAX,
};
