/* What no task may see. The node's data directory has the keyring and the sockets of other tasks; a
 * proc file system of the node leads to the files of other tasks, /proc/PID/root. Neither shows
 * where it is, nor where its file system, or a part of that, is mounted a second time, nor through
 * a directory that a service binds. The kernel's list of mounts tells where that is. An empty
 * directory, read-only, then lies over each of those places, and nothing over a file. */
#include "api/task/supervisor_parts.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PLACES_MAX 256
#define LINE_PATH  4096 /* of a path in a line of mountinfo */

struct line {
    char device[32], type[32], root[LINE_PATH], point[LINE_PATH];
};

struct places {
    struct {
        char path[SUP_PATH_MAX];
        bool directory;
    } at[PLACES_MAX];
    unsigned n;
};

/* Blanks and some more are "\040" there. */
static void unescape(char *text) {
    char *to = text;
    for (const char *at = text; *at; at++) {
        if (at[0] == '\\' && at[1] && at[2] && at[3]) {
            *to++ = (char)((at[1] - '0') * 64 + (at[2] - '0') * 8 + (at[3] - '0'));
            at += 3;
        } else {
            *to++ = *at;
        }
    }
    *to = '\0';
}

static bool next_line(FILE *file, struct line *out) {
    char *text = NULL;
    size_t room = 0;
    bool found = getline(&text, &room, file) > 0 && sscanf(text, "%*d %*d %31s %4095s %4095s",
                                                           out->device, out->root, out->point) == 3;
    const char *type = found ? strstr(text, " - ") : NULL;
    found = type && sscanf(type, " - %31s", out->type) == 1;
    free(text);
    if (found) unescape(out->root);
    if (found) unescape(out->point);
    return found;
}

/* What is behind `dir` in a path below it: "" or "/x". */
static const char *rest_of(const char *path, const char *dir) {
    return strcmp(dir, "/") == 0 ? (strcmp(path, "/") == 0 ? "" : path) : path + strlen(dir);
}

/* Calls `each` for all mounts of this process. */
static RESULT each_mount(void (*each)(void *ctx, const struct line *l), void *ctx,
                         struct why *why) {
    FILE *file = fopen("/proc/self/mountinfo", "re");
    struct line *l = malloc(sizeof *l);
    enum err e = file && l ? OK : fail_with(why, ERR_IO, "/proc/self/mountinfo can't be read");
    while (e == OK && next_line(file, l))
        each(ctx, l);
    free(l);
    if (file) (void)fclose(file);
    return e;
}

/* --- before: where it is ---------------------------------------------------------------------- */

struct search {
    const char *path;
    struct sup_hidden *out;
    size_t best; /* length of the mount point; the last one of a length lies on top */
};

static void look(void *ctx, const struct line *l) {
    struct search *s = ctx;
    size_t size = strlen(l->point);
    if (!sup_is_below(s->path, l->point) || size < s->best) return;
    s->best = size;
    (void)snprintf(s->out->device, sizeof s->out->device, "%s", l->device);
    (void)snprintf(s->out->inside, sizeof s->out->inside, "%.*s%s", SUP_PATH_MAX / 2,
                   strcmp(l->root, "/") == 0 ? "" : l->root, rest_of(s->path, l->point));
    if (!s->out->inside[0]) (void)snprintf(s->out->inside, sizeof s->out->inside, "/");
}

RESULT sup_hidden_find(const char *path, struct sup_hidden *out, struct why *why) {
    struct search s = {.path = path, .out = out};
    *out = (struct sup_hidden){.device = ""};
    TRY(each_mount(look, &s, why));
    return out->device[0] ? OK : fail_with(why, ERR_IO, "%s is on no file system", path);
}

/* --- after: where it shows -------------------------------------------------------------------- */

struct cover {
    const struct sup_hidden *hidden;
    char own_proc[32]; /* the device of the task's /proc */
    struct places *places;
    bool full;
};

/* Where the mount shows what is hidden, as a path below its point; NULL: it does not. */
static const char *shown_at(const struct cover *c, const struct line *l) {
    const char *inside = c->hidden->inside;
    if (strcmp(l->type, "proc") == 0) return strcmp(l->device, c->own_proc) != 0 ? "" : NULL;
    if (strcmp(l->device, c->hidden->device) != 0) return NULL;
    if (sup_is_below(inside, l->root)) return rest_of(inside, l->root);
    return sup_is_below(l->root, inside) ? "" : NULL;
}

static void note(void *ctx, const struct line *l) {
    struct cover *c = ctx;
    char path[SUP_PATH_MAX];
    struct stat st;
    const char *rest = shown_at(c, l);
    if (!rest) return;
    int size =
        snprintf(path, sizeof path, "%s%s", strcmp(l->point, "/") == 0 ? "" : l->point, rest);
    if (size <= 0 || size >= (int)sizeof path || c->places->n == PLACES_MAX) {
        c->full = true;
    } else if (stat(path, &st) == 0) {
        memcpy(c->places->at[c->places->n].path, path, sizeof path);
        c->places->at[c->places->n++].directory = S_ISDIR(st.st_mode);
    }
}

/* By the cover of another one, of which it is a part. */
static bool is_covered(const struct places *p, unsigned i) {
    for (unsigned k = 0; k < p->n; k++) {
        if (k == i || !sup_is_below(p->at[i].path, p->at[k].path)) continue;
        if (k < i || strcmp(p->at[i].path, p->at[k].path) != 0) return true;
    }
    return false;
}

static RESULT cover_one(const char *path, bool directory, struct why *why) {
    static const char *const empty[] = {"mode", "0700", "size", "4096", NULL};
    const unsigned attributes = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY;
    int mount;
    if (directory)
        TRY(sup_mount_new("tmpfs", empty, attributes, &mount, why));
    else
        TRY(sup_mount_copy(AT_FDCWD, "/dev/null", false, 0, &mount, why));
    enum err e = sup_mount_place(mount, AT_FDCWD, path, why);
    (void)close(mount);
    return e;
}

RESULT sup_hidden_cover(const struct sup_hidden *h, struct why *why) {
    struct cover c = {.hidden = h, .places = calloc(1, sizeof *c.places)};
    struct stat st;
    if (!c.places) return ERR_NOMEM;
    enum err e = stat("/proc", &st) == 0 ? OK : fail_with(why, ERR_IO, "there is no /proc");
    if (e == OK)
        (void)snprintf(c.own_proc, sizeof c.own_proc, "%u:%u", major(st.st_dev), minor(st.st_dev));
    if (e == OK) e = each_mount(note, &c, why);
    if (e == OK && c.full)
        e = fail_with(why, ERR_TOO_LARGE,
                      "the data directory and the node's processes show in more than %d places",
                      PLACES_MAX);
    for (unsigned i = 0; e == OK && i < c.places->n; i++)
        if (!is_covered(c.places, i))
            e = cover_one(c.places->at[i].path, c.places->at[i].directory, why);
    free(c.places);
    return e;
}
