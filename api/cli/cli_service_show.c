/* Verbs that show services and their tasks. */
#include <stdio.h>

#include "api/cli/cli_columns.h"
#include "api/cli/cli_service.h"
#include "api/words.h"

static int64_t number(const json_t *object, const char *key) {
    return (int64_t)json_integer_value(json_object_get(object, key));
}

/* Words with blanks between, as far as there is room. */
static const char *command_text(const json_t *service, char *out, size_t room) {
    size_t i, size = 0;
    const json_t *word;
    out[0] = '\0';
    json_array_foreach(json_object_get(service, "command"), i, word) {
        int more =
            snprintf(out + size, room - size, "%s%s", i > 0 ? " " : "", json_string_value(word));
        if (more < 0 || (size_t)more >= room - size) break;
        size += (size_t)more;
    }
    return out;
}

/* --- ls ------------------------------------------------------------------------------------- */

static RESULT print_services(const json_t *answer, struct why *why) {
    static const char *const titles[] = {"ID",    "NAME",    "MODE",   "TASKS",
                                         "IMAGE", "COMMAND", "LABELS", NULL};
    struct columns c;
    size_t i;
    const json_t *s;
    columns_start(&c, titles);
    json_array_foreach(json_object_get(answer, "services"), i, s) {
        char command[64], labels[512];
        bool global = strcmp(jin_string(s, "mode"), "global") == 0;
        columns_cell(&c, "%s", jin_string(s, "id"));
        columns_cell(&c, "%s", jin_string(s, "name"));
        columns_cell(&c, "%s", jin_string(s, "mode"));
        columns_cell(&c, "%lld of %lld", (long long)number(s, "running"),
                     (long long)number(s, global ? "desired" : "replicas"));
        columns_cell(&c, "%s", jin_string(s, "image"));
        columns_cell(&c, "%s", command_text(s, command, sizeof command));
        columns_cell(&c, "%s",
                     cli_labels_text(json_object_get(s, "labels"), labels, sizeof labels));
    }
    return columns_print(&c, why);
}

static enum err run_ls(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    TRY(cli_get(cli, "/conclave/v1/services", &answer, why));
    return cli_print_answer(cli, answer, print_services, why);
}

const struct verb verb_service_ls = {
    .name = "service ls", .words = "", .about = "list the services", .run = run_ls};

/* --- ps ------------------------------------------------------------------------------------- */

/* Running, the reason when it did not go well, what it is doing otherwise. */
static void put_reason(struct columns *c, const json_t *t) {
    const char *error = jin_string(t, "error"), *message = jin_string(t, "message");
    int64_t code = (int32_t)number(t, "exit_code");
    if (error[0])
        columns_cell(c, "%s", error);
    else if (code != 0)
        columns_cell(c, "exit code %lld", (long long)code);
    else
        columns_cell(c, "%s", message);
}

static RESULT print_tasks(const json_t *answer, struct why *why) {
    static const char *const titles[] = {"ID",    "NAME",  "NODE",    "WANTED",
                                         "STATE", "SINCE", "MESSAGE", NULL};
    struct columns c;
    size_t i;
    const json_t *t;
    columns_start(&c, titles);
    json_array_foreach(json_object_get(answer, "tasks"), i, t) {
        char moment[MOMENT_TEXT];
        columns_cell(&c, "%s", jin_string(t, "id"));
        if (number(t, "slot") > 0)
            columns_cell(&c, "%s.%lld", jin_string(answer, "name"), (long long)number(t, "slot"));
        else
            columns_cell(&c, "%s", jin_string(answer, "name"));
        columns_cell(&c, "%s", jin_string(t, "node_name"));
        columns_cell(&c, "%s", jin_string(t, "desired"));
        columns_cell(&c, "%s", jin_string(t, "state"));
        columns_cell(&c, "%s", words_moment(number(t, "state_ns") / 1000000000, moment));
        put_reason(&c, t);
    }
    return columns_print(&c, why);
}

static enum err run_ps(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    TRY(cli_get_named(cli, "/conclave/v1/services/tasks", "service", cli->words[0], &answer, why));
    return cli_print_answer(cli, answer, print_tasks, why);
}

const struct verb verb_service_ps = {
    .name = "service ps",
    .words = "NAME",
    .about = "list a service's tasks, those that ended too",
    .run = run_ps,
    .words_min = 1,
    .words_max = 1,
};

/* --- inspect -------------------------------------------------------------------------------- */

static void line(const char *label, const char *text) {
    if (text[0]) printf("%-14s %s\n", label, text);
}

static void print_files(const json_t *service) {
    size_t i;
    const json_t *f;
    json_array_foreach(json_object_get(service, "files"), i, f) {
        char version[32] = "follows the newest";
        if (number(f, "version") > 0)
            (void)snprintf(version, sizeof version, "version %lld",
                           (long long)number(f, "version"));
        printf("%-14s %s %s as %s, %s, owner %lld:%lld, %s\n", i == 0 ? "files" : "",
               jin_string(f, "kind"), jin_string(f, "name"), jin_string(f, "target"),
               jin_string(f, "mode"), (long long)number(f, "uid"), (long long)number(f, "gid"),
               version);
    }
}

static void print_list(const char *label, const json_t *list) {
    size_t i;
    const json_t *text;
    json_array_foreach(list, i, text) {
        printf("%-14s %s\n", i == 0 ? label : "", json_string_value(text));
    }
}

static void print_mounts(const json_t *list) {
    size_t i;
    const json_t *m;
    json_array_foreach(list, i, m) {
        bool read_only = json_is_true(json_object_get(m, "ReadOnly"));
        printf("%-14s %s at %s%s\n", i == 0 ? "mounts" : "", jin_string(m, "Source"),
               jin_string(m, "Target"), read_only ? ", read-only" : "");
    }
}

static RESULT print_service(const json_t *s, struct why *why) {
    char text[1024], at[MOMENT_TEXT];
    const json_t *task = json_object_get(json_object_get(s, "spec"), "TaskTemplate");
    const json_t *container = json_object_get(task, "ContainerSpec");
    const json_t *policy = json_object_get(task, "RestartPolicy");
    line("id", jin_string(s, "id"));
    line("name", jin_string(s, "name"));
    line("mode", jin_string(s, "mode"));
    printf("%-14s %lld run, %lld shall\n", "tasks", (long long)number(s, "running"),
           (long long)number(s, "desired"));
    line("labels", cli_labels_text(json_object_get(s, "labels"), text, sizeof text));
    line("image", jin_string(s, "image"));
    line("command", command_text(s, text, sizeof text));
    print_list("environment", json_object_get(container, "Env"));
    print_files(s);
    print_mounts(json_object_get(container, "Mounts"));
    print_list("constraints", json_object_get(json_object_get(task, "Placement"), "Constraints"));
    line("user", jin_string(container, "User"));
    line("directory", jin_string(container, "Dir"));
    line("restart", jin_string(policy, "Condition"));
    line("created", words_moment(number(s, "created_ns") / 1000000000, at));
    line("updated", words_moment(number(s, "updated_ns") / 1000000000, at));
    return cli_flush(why);
}

static enum err run_inspect(struct cli *cli, struct why *why) {
    json_t *answer = NULL;
    TRY(cli_get_named(cli, "/conclave/v1/services/inspect", "service", cli->words[0], &answer,
                      why));
    return cli_print_answer(cli, answer, print_service, why);
}

const struct verb verb_service_inspect = {
    .name = "service inspect",
    .words = "NAME",
    .about = "show a service: what runs, with which files, where",
    .run = run_inspect,
    .words_min = 1,
    .words_max = 1,
};
