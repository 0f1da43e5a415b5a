/* Options from elsewhere than the command line: CONCLAVE_NAME in the environment (dashes are
 * underscores there) and lines of the file of --config. An option on the command line goes before
 * the environment, and that before the file.
 *
 * The file: UTF-8 text, one `name = value` a line, names as on the command line without the dashes;
 * blanks around both are dropped, nothing is quoted; a line that begins with '#' and an empty one
 * say nothing; a switch is `true` or `false`. An unknown name, a name given twice and anything else
 * is refused with its line. What is secret comes from files of its own, never from the environment
 * or from here. */
#include "api/cli/cli.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const secrets[] = {"token"}; /* options whose values are */

static bool is_secret(const char *name) {
    for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
        if (strcmp(name, secrets[i]) == 0) return true;
    return false;
}

/* A value from `where` becomes an option as if it had been given; one that is there already wins.
 */
static RESULT take(struct cli *cli, const struct option_spec *o, const char *value,
                   const char *where, struct why *why) {
    bool off = strcmp(value, "false") == 0, on = strcmp(value, "true") == 0;
    if (is_secret(o->name))
        return fail_with(why, ERR_USAGE, "%s: a secret is not taken from here; use --%s-file",
                         where, o->name);
    if (!o->value && !on && !off)
        return fail_with(why, ERR_USAGE, "%s: it is true or false", where);
    bool optional = o->value && o->value[0] == '[';
    if (o->value && !optional && value[0] == '\0')
        return fail_with(why, ERR_USAGE, "%s: there is no value", where);
    if (cli_option(cli, o->name)) return OK;
    if ((!o->value || optional) && off) return OK;
    if (cli->given_n == OPTIONS_MAX) return fail_with(why, ERR_USAGE, "too many options");
    cli->given[cli->given_n].name = o->name;
    cli->given[cli->given_n++].value = (!o->value || optional) && on ? "" : value;
    return OK;
}

/* --- the environment ------------------------------------------------------------------------- */

static RESULT from_environment(struct cli *cli, struct why *why) {
    for (const struct option_spec *o = cli->verb->options; o->name; o++) {
        char variable[64];
        int size = snprintf(variable, sizeof variable, "CONCLAVE_%s", o->name);
        for (int i = 0; i < size; i++)
            if (variable[i] == '-')
                variable[i] = '_';
            else if (variable[i] >= 'a' && variable[i] <= 'z')
                variable[i] = (char)(variable[i] - 'a' + 'A');
        const char *value = getenv(variable);
        if (value && value[0]) TRY(take(cli, o, value, variable, why));
    }
    return OK;
}

/* --- the file -------------------------------------------------------------------------------- */

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* Drops blanks at both ends, in place. */
static char *trim(char *text) {
    while (blank(*text))
        text++;
    size_t size = strlen(text);
    while (size > 0 && blank(text[size - 1]))
        text[--size] = '\0';
    return text;
}

/* Options that the file has set, to notice what is said twice: by their place in the list. */
struct seen {
    bool option[OPTIONS_MAX];
};

static RESULT from_line(struct cli *cli, char *line, const char *where, struct seen *seen,
                        struct why *why) {
    line = trim(line);
    if (line[0] == '\0' || line[0] == '#') return OK;
    char *equals = strchr(line, '=');
    if (!equals) return fail_with(why, ERR_USAGE, "%s: this is not NAME = VALUE", where);
    *equals = '\0';
    const char *name = trim(line), *value = trim(equals + 1);
    for (const struct option_spec *o = cli->verb->options; o->name; o++) {
        if (strcmp(o->name, name) != 0) continue;
        bool *twice = &seen->option[o - cli->verb->options];
        if (*twice) return fail_with(why, ERR_USAGE, "%s: %s is there twice", where, name);
        *twice = true;
        if (strcmp(name, "config") == 0)
            return fail_with(why, ERR_USAGE, "%s: a file can't name another one", where);
        return take(cli, o, value, where, why);
    }
    return fail_with(why, ERR_USAGE, "%s: there is no option %.64s", where, name);
}

static RESULT from_file(struct cli *cli, const char *path, struct buf *file, struct why *why) {
    struct seen seen = {0};
    TRY(cli_read_file(path, file, why));
    TRY(buf_u8(file, 0));
    if (memchr(file->at, 0, file->size) != file->at + file->size - 1)
        return fail_with(why, ERR_USAGE, "%s: this is no text", path);
    char *line = (char *)file->at;
    for (unsigned n = 1; line; n++) {
        char where[256];
        char *end = strchr(line, '\n');
        if (end) *end++ = '\0';
        (void)snprintf(where, sizeof where, "%.200s, line %u", path, n);
        TRY(from_line(cli, line, where, &seen, why));
        line = end;
    }
    return OK;
}

RESULT cli_configure(struct cli *cli, struct buf *file, struct why *why) {
    TRY(from_environment(cli, why));
    const char *path = cli_option(cli, "config");
    return path ? from_file(cli, path, file, why) : OK;
}
