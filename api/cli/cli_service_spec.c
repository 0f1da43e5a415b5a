/* What a service is to run, from options into docker's ServiceSpec (services.h reads it): a new
 * one, or the present one with changes. Lists are changed by what identifies a member: a file by
 * its target, a variable by its name, a mount by its target. Ids of secrets and configs are filled
 * in by the manager that is asked. */
#include <stdio.h>

#include "api/cli/cli_service.h"
#include "api/cli/file_word.h"
#include "api/words.h"

#define S_NS 1000000000LL

#define OPTIONS_OF_BOTH                                                                            \
    {"image", "host|PATH",                                                                         \
     "the node's own file system, read-only, or a root file system there; host unless told"},      \
        {"secret", "NAME[,target=,uid=,gid=,mode=,version=]",                                      \
         "a secret as a file of /run/secrets; may be given several times"},                        \
        {"config", "NAME[,target=,uid=,gid=,mode=,version=]",                                      \
         "a config as the file /NAME; may be given several times"},                                \
        {"env", "NAME=VALUE", "a variable of its environment; may be given several times"},        \
        {"mount", "SOURCE:TARGET[:ro]", "a directory of the node; may be given several times"},    \
        {"constraint", "EXPRESSION",                                                               \
         "where it may run: node.role==worker, node.labels.X!=Y; may be given several times"},     \
        {"label", "KEY=VALUE", "a label of the service; may be given several times"},              \
        {"replicas", "N", "so many tasks; 1 unless told"},                                         \
        {"restart", "any|on-failure|none", "which ended tasks are replaced; any unless told"},     \
        {"restart-delay", "DURATION", "before a task is replaced; 5s unless told"},                \
        {"restart-max", "N", "at most so many times; 0: any number"},                              \
        {"restart-window", "DURATION", "in which these times are counted; 0s: ever"},              \
        {"user", "USER[:GROUP]", "whom it runs as; root unless told"},                             \
        {"workdir", "PATH", "its working directory; / unless told"},                               \
        {"hostname", "NAME", "its host name"},                                                     \
        {"stop-signal", "SIGNAL", "asks it to end; TERM unless told"},                             \
        {"stop-grace", "DURATION", "until it is killed; 10s unless told"},                         \
        {"reload-signal", "SIGNAL", "tells it of a new version of a file; HUP unless told"}, {     \
        "wait", NULL, "until all its tasks run, or --timeout"                                      \
    }

const struct option_spec service_create_options[] = {
    OPTIONS_OF_BOTH,
    {"global", NULL, "one task on each node that it may run on, in place of --replicas"},
    {NULL, NULL, NULL},
};
const struct option_spec service_update_options[] = {
    OPTIONS_OF_BOTH,
    {"secret-rm", "NAME", "without this secret; may be given several times, as all below"},
    {"config-rm", "NAME", "without this config"},
    {"env-rm", "NAME", "without this variable"},
    {"mount-rm", "TARGET", "without this mount"},
    {"constraint-rm", "EXPRESSION", "without this constraint"},
    {"label-rm", "KEY", "without this label"},
    {"force", NULL, "replace its tasks even if nothing has changed for them"},
    {NULL, NULL, NULL},
};

/* --- members -------------------------------------------------------------------------------- */

/* Takes over `value`. */
static RESULT set(json_t *object, const char *key, json_t *value) {
    return value && json_object_set_new(object, key, value) == 0 ? OK : ERR_NOMEM;
}

static RESULT set_text(json_t *object, const char *key, const char *text) {
    return set(object, key, json_string(text));
}

/* An object or array that is there, or is made. */
static json_t *member(json_t *object, const char *key, bool array) {
    json_t *found = json_object_get(object, key);
    if (array ? json_is_array(found) : json_is_object(found)) return found;
    if (set(object, key, array ? json_array() : json_object()) != OK) return NULL;
    return json_object_get(object, key);
}

static json_t *container_of(json_t *spec) {
    json_t *task = member(spec, "TaskTemplate", false);
    return task ? member(task, "ContainerSpec", false) : NULL;
}

typedef bool same(const json_t *one, const char *wanted);

/* Takes all out that are meant; false: there was none. */
static bool drop(json_t *array, same *is, const char *wanted) {
    bool found = false;
    for (size_t i = json_array_size(array); i-- > 0;)
        if (is(json_array_get(array, i), wanted)) {
            (void)json_array_remove(array, i);
            found = true;
        }
    return found;
}

/* Each value of an option is taken out of a list; it has to be there. */
static RESULT drop_each(const struct cli *cli, const char *option, json_t *list, same *is,
                        struct why *why) {
    unsigned at = 0;
    const char *wanted;
    while ((wanted = cli_option_next(cli, option, &at)) != NULL)
        if (!drop(list, is, wanted))
            return fail_with(why, ERR_USAGE, "--%s %.64s: there is none", option, wanted);
    return OK;
}

/* --- files ---------------------------------------------------------------------------------- */

struct kind {
    const char *option, *rm; /* of the command line */
    const char *list, *name; /* of the spec */
};

static const struct kind secrets = {"secret", "secret-rm", "Secrets", "SecretName"};
static const struct kind configs = {"config", "config-rm", "Configs", "ConfigName"};

static bool has_target(const json_t *one, const char *wanted) {
    return strcmp(jin_string(json_object_get(one, "File"), "Name"), wanted) == 0;
}

static bool names_secret(const json_t *one, const char *wanted) {
    return strcasecmp(jin_string(one, "SecretName"), wanted) == 0;
}

static bool names_config(const json_t *one, const char *wanted) {
    return strcasecmp(jin_string(one, "ConfigName"), wanted) == 0;
}

static RESULT add_file(json_t *spec, const struct kind *k, const struct file_word *w) {
    char uid[16], gid[16];
    json_t *container = container_of(spec);
    json_t *list = container ? member(container, k->list, true) : NULL;
    if (!list) return ERR_NOMEM;
    (void)drop(list, has_target, w->target);
    (void)snprintf(uid, sizeof uid, "%u", (unsigned)w->uid);
    (void)snprintf(gid, sizeof gid, "%u", (unsigned)w->gid);
    json_t *one =
        json_pack("{sssIs{sssssssI}}", k->name, w->name, "Version", (json_int_t)w->version, "File",
                  "Name", w->target, "UID", uid, "GID", gid, "Mode", (json_int_t)w->mode);
    return one && json_array_append_new(list, one) == 0 ? OK : ERR_NOMEM;
}

/* A service has one version of a secret, which the manager keeps as a label. */
static RESULT check_versions(const json_t *list, const char *key, const struct file_word *w,
                             struct why *why) {
    size_t i;
    const json_t *one;
    json_array_foreach(list, i, one) {
        const json_t *version = json_object_get(one, "Version");
        if (version && strcasecmp(jin_string(one, key), w->name) == 0 &&
            json_integer_value(version) != (json_int_t)w->version)
            return fail_with(why, ERR_USAGE,
                             "a service has one version of %s: the same in each of its files",
                             w->name);
    }
    return OK;
}

/* With its last file the version that a service keeps to goes, too. */
static RESULT unpin(json_t *spec, const json_t *list, same *names, const char *name) {
    json_t *labels = member(spec, "Labels", false);
    char key[32 + HELD_NAME_MAX];
    const char *label;
    size_t i;
    const json_t *one;
    json_t *value;
    void *next;
    if (!labels) return ERR_NOMEM;
    json_array_foreach(list, i, one) {
        if (names(one, name)) return OK;
    }
    (void)snprintf(key, sizeof key, "conclave.version.%.64s", name);
    json_object_foreach_safe(labels, next, label, value) {
        (void)value;
        if (strcasecmp(label, key) == 0) (void)json_object_del(labels, label);
    }
    return OK;
}

static RESULT change_files(const struct cli *cli, json_t *spec, const struct kind *k, same *names,
                           struct why *why) {
    unsigned at = 0;
    const char *text;
    json_t *container = container_of(spec);
    if (!container) return ERR_NOMEM;
    TRY(drop_each(cli, k->rm, json_object_get(container, k->list), names, why));
    while ((text = cli_option_next(cli, k->rm, &at)) != NULL)
        TRY(unpin(spec, json_object_get(container, k->list), names, text));
    at = 0;
    while ((text = cli_option_next(cli, k->option, &at)) != NULL) {
        struct file_word w;
        if (file_word_parse(text, true, &w, why) != OK)
            return fail_in(why, ERR_USAGE, k == &secrets ? "--secret" : "--config");
        TRY(check_versions(json_object_get(container, k->list), k->name, &w, why));
        TRY(add_file(spec, k, &w));
    }
    return OK;
}

/* --- variables, mounts, constraints, labels ------------------------------------------------- */

/* Texts NAME=VALUE by their names. */
static bool is_variable(const json_t *one, const char *wanted) {
    const char *text = json_string_value(one);
    size_t size = strcspn(wanted, "=");
    return text && strncmp(text, wanted, size) == 0 && (text[size] == '=' || text[size] == '\0');
}

static RESULT change_env(const struct cli *cli, json_t *container, struct why *why) {
    unsigned at = 0;
    const char *text;
    TRY(drop_each(cli, "env-rm", json_object_get(container, "Env"), is_variable, why));
    while ((text = cli_option_next(cli, "env", &at)) != NULL) {
        if (text[0] == '=' || !strchr(text, '='))
            return fail_with(why, ERR_USAGE, "--env takes NAME=VALUE");
        json_t *list = member(container, "Env", true);
        if (list) (void)drop(list, is_variable, text);
        if (!list || json_array_append_new(list, json_string(text)) != 0)
            return fail_with(why, ERR_USAGE, "--env: it is no UTF-8 text");
    }
    return OK;
}

static bool mounts_at(const json_t *one, const char *wanted) {
    return strcmp(jin_string(one, "Target"), wanted) == 0;
}

static RESULT change_mounts(const struct cli *cli, json_t *container, struct why *why) {
    unsigned at = 0;
    const char *text;
    TRY(drop_each(cli, "mount-rm", json_object_get(container, "Mounts"), mounts_at, why));
    while ((text = cli_option_next(cli, "mount", &at)) != NULL) {
        struct mount_word w;
        if (mount_word_parse(text, &w, why) != OK) return fail_in(why, ERR_USAGE, "--mount");
        json_t *list = member(container, "Mounts", true);
        if (list) (void)drop(list, mounts_at, w.target);
        json_t *one = json_pack("{sssssssb}", "Type", "bind", "Source", w.source, "Target",
                                w.target, "ReadOnly", (int)w.read_only);
        if (!list || json_array_append_new(list, one) != 0) return ERR_NOMEM;
    }
    return OK;
}

/* The same but for blanks. */
static bool is_constraint(const json_t *one, const char *wanted) {
    const char *text = json_string_value(one);
    while (text && *wanted != '\0') {
        while (*wanted == ' ')
            wanted++;
        while (*text == ' ')
            text++;
        if (*wanted != *text) return false;
        if (*wanted != '\0') {
            wanted++;
            text++;
        }
    }
    while (text && *text == ' ')
        text++;
    return text && *text == '\0';
}

static RESULT change_placement(const struct cli *cli, json_t *task, struct why *why) {
    unsigned at = 0;
    const char *text;
    json_t *placement = member(task, "Placement", false);
    json_t *list = placement ? member(placement, "Constraints", true) : NULL;
    if (!list) return ERR_NOMEM;
    TRY(drop_each(cli, "constraint-rm", list, is_constraint, why));
    while ((text = cli_option_next(cli, "constraint", &at)) != NULL) {
        (void)drop(list, is_constraint, text);
        if (json_array_append_new(list, json_string(text)) != 0)
            return fail_with(why, ERR_USAGE, "--constraint: it is no UTF-8 text");
    }
    return OK;
}

static RESULT change_labels(const struct cli *cli, json_t *spec, struct why *why) {
    unsigned at = 0;
    const char *text, *reload = cli_option(cli, "reload-signal");
    struct span key, value;
    json_t *labels = member(spec, "Labels", false);
    if (!labels) return ERR_NOMEM;
    while ((text = cli_option_next(cli, "label-rm", &at)) != NULL)
        if (json_object_del(labels, text) != 0)
            return fail_with(why, ERR_USAGE, "--label-rm %.64s: there is none", text);
    at = 0;
    while ((text = cli_option_next(cli, "label", &at)) != NULL) {
        char name[LABEL_KEY_MAX + 1];
        if (words_label(text, &key, &value, why) != OK) return fail_in(why, ERR_USAGE, "--label");
        memcpy(name, key.at, key.size);
        name[key.size] = '\0';
        TRY(set(labels, name, json_stringn((const char *)value.at, value.size)));
    }
    return reload ? set_text(labels, "conclave.reload-signal", reload) : OK;
}

/* --- the rest ------------------------------------------------------------------------------- */

static RESULT set_duration(const struct cli *cli, const char *option, json_t *object,
                           const char *key, struct why *why) {
    const char *text = cli_option(cli, option);
    int64_t s;
    char where[32];
    (void)snprintf(where, sizeof where, "--%s", option);
    if (!text) return OK;
    if (words_duration(text, &s, why) != OK) return fail_in(why, ERR_USAGE, where);
    return set(object, key, json_integer((json_int_t)(s * S_NS)));
}

static RESULT change_restart(const struct cli *cli, json_t *task, struct why *why) {
    const char *condition = cli_option(cli, "restart");
    uint64_t most = UINT64_MAX;
    json_t *policy = member(task, "RestartPolicy", false);
    if (!policy) return ERR_NOMEM;
    if (condition && strcmp(condition, "any") != 0 && strcmp(condition, "on-failure") != 0 &&
        strcmp(condition, "none") != 0)
        return fail_with(why, ERR_USAGE, "--restart: there are any, on-failure, none");
    if (condition) TRY(set_text(policy, "Condition", condition));
    TRY(cli_number(cli, "restart-max", 0, 1000, &most, why));
    if (most <= 1000) TRY(set(policy, "MaxAttempts", json_integer((json_int_t)most)));
    TRY(set_duration(cli, "restart-delay", policy, "Delay", why));
    return set_duration(cli, "restart-window", policy, "Window", why);
}

static RESULT change_texts(const struct cli *cli, json_t *container, struct why *why) {
    static const struct {
        const char *option, *key;
    } texts[] = {{"image", "Image"},
                 {"user", "User"},
                 {"workdir", "Dir"},
                 {"hostname", "Hostname"},
                 {"stop-signal", "StopSignal"}};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        const char *text = cli_option(cli, texts[i].option);
        if (text && set_text(container, texts[i].key, text) != OK)
            return fail_with(why, ERR_USAGE, "--%s: it is no UTF-8 text", texts[i].option);
    }
    return set_duration(cli, "stop-grace", container, "StopGracePeriod", why);
}

/* The words behind the name. */
static RESULT change_command(const struct cli *cli, json_t *container, struct why *why) {
    if (cli->n < 2) return OK;
    json_t *words = json_array();
    for (unsigned i = 1; words && i < cli->n; i++)
        if (json_array_append_new(words, json_string(cli->words[i])) != 0) {
            json_decref(words);
            return fail_with(why, ERR_USAGE, "word %u of the command is no UTF-8 text", i);
        }
    (void)json_object_del(container, "Args");
    return set(container, "Command", words);
}

static RESULT change_mode(const struct cli *cli, json_t *spec, struct why *why) {
    uint64_t replicas = UINT64_MAX;
    bool global = cli_option(cli, "global") != NULL;
    TRY(cli_number(cli, "replicas", 0, SERVICE_REPLICAS_MAX, &replicas, why));
    if (global && replicas != UINT64_MAX)
        return fail_with(why, ERR_USAGE, "--global and --replicas can't go together");
    if (global) return set(spec, "Mode", json_pack("{s{}}", "Global"));
    if (replicas == UINT64_MAX) return OK;
    if (json_object_get(json_object_get(spec, "Mode"), "Global"))
        return fail_with(why, ERR_USAGE, "--replicas: a global service has one task on each node");
    return set(spec, "Mode", json_pack("{s{sI}}", "Replicated", "Replicas", (json_int_t)replicas));
}

RESULT service_spec_change(const struct cli *cli, json_t *spec, struct why *why) {
    json_t *task = member(spec, "TaskTemplate", false), *container = container_of(spec);
    if (!task || !container) return ERR_NOMEM;
    TRY(change_files(cli, spec, &secrets, names_secret, why));
    TRY(change_files(cli, spec, &configs, names_config, why));
    TRY(change_env(cli, container, why));
    TRY(change_mounts(cli, container, why));
    TRY(change_placement(cli, task, why));
    TRY(change_labels(cli, spec, why));
    TRY(change_restart(cli, task, why));
    TRY(change_texts(cli, container, why));
    TRY(change_command(cli, container, why));
    TRY(change_mode(cli, spec, why));
    if (!cli_option(cli, "force")) return OK;
    json_int_t force = json_integer_value(json_object_get(task, "ForceUpdate"));
    return set(task, "ForceUpdate", json_integer(force + 1));
}

RESULT service_spec_new(const struct cli *cli, json_t **out, struct why *why) {
    if (cli->n < 2)
        return fail_with(why, ERR_USAGE, "what it is to run is missing: NAME -- COMMAND...");
    json_t *spec = json_pack("{sss{s{ss}}}", "Name", cli->words[0], "TaskTemplate", "ContainerSpec",
                             "Image", "host");
    if (!spec) return fail_with(why, ERR_USAGE, "the name is no UTF-8 text");
    enum err e = service_spec_change(cli, spec, why);
    if (e == OK)
        *out = spec;
    else
        json_decref(spec);
    return e;
}
