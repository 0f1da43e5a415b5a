/* conclave put --dir: a tree of files as keys. The tree is listed first, then several threads,
 * each with a connection of its own, take files from the list: their writes share entries and
 * syncs on the leader. Regular files that the world may read are taken; symbolic links are not
 * followed; what can't be read or is too large is counted. */
#include <errno.h>
#include <fts.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/cli/cli_kv.h"

#define WRITERS   8
#define FILES_MAX 1000000

struct tree {
    struct cli *cli;
    const char *dir, *prefix;
    char **paths; /* of the files, relative to dir */
    size_t n, room;
    size_t next, done; /* under the lock */
    size_t large, unreadable;
    uint64_t bytes; /* written */
    enum err error; /* the first one */
    struct why why;
    bool terminal; /* progress is shown */
    pthread_mutex_t lock;
};

/* --- listing -------------------------------------------------------------------------------- */

static RESULT add_path(struct tree *t, const char *path) {
    if (t->n == FILES_MAX)
        return fail_with(&t->why, ERR_TOO_LARGE, "%s: more than %d files", t->dir, FILES_MAX);
    if (t->n == t->room) {
        size_t room = t->room ? 2 * t->room : 1024;
        char **more = realloc(t->paths, room * sizeof *more);
        if (!more) return ERR_NOMEM;
        t->paths = more;
        t->room = room;
    }
    t->paths[t->n] = strdup(path);
    return t->paths[t->n++] ? OK : ERR_NOMEM;
}

static int compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static RESULT list_tree(struct tree *t) {
    char *roots[] = {(char *)(uintptr_t)t->dir, NULL};
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (!walk) return fail_with(&t->why, err_from_errno(errno), "%s: %s", t->dir, strerror(errno));
    size_t skip = strlen(t->dir);
    enum err e = OK;
    const FTSENT *entry;
    while (e == OK && (entry = fts_read(walk)) != NULL) {
        const char *relative = entry->fts_path + skip;
        while (*relative == '/')
            relative++;
        if (entry->fts_level == 0 && (entry->fts_info == FTS_NS || entry->fts_info == FTS_DNR))
            e = fail_with(&t->why, err_from_errno(entry->fts_errno), "%s: %s", t->dir,
                          strerror(entry->fts_errno));
        if (entry->fts_info != FTS_F || !(entry->fts_statp->st_mode & S_IROTH)) continue;
        if ((uint64_t)entry->fts_statp->st_size > VALUE_MAX)
            t->large++;
        else
            e = add_path(t, relative);
    }
    (void)fts_close(walk);
    if (t->n > 0) qsort(t->paths, t->n, sizeof *t->paths, compare);
    return e;
}

/* --- writing -------------------------------------------------------------------------------- */

static const char *take(struct tree *t) {
    (void)pthread_mutex_lock(&t->lock);
    const char *path = t->error == OK && t->next < t->n ? t->paths[t->next++] : NULL;
    (void)pthread_mutex_unlock(&t->lock);
    return path;
}

static void note(struct tree *t, enum err e, const struct why *why, size_t bytes, bool readable) {
    (void)pthread_mutex_lock(&t->lock);
    t->done++;
    t->bytes += bytes;
    t->unreadable += !readable;
    if (e != OK && t->error == OK) {
        t->error = e;
        t->why = *why;
    }
    if (t->terminal && (t->done % 16 == 0 || t->done == t->n))
        (void)fprintf(stderr, "\r%zu of %zu files", t->done, t->n);
    (void)pthread_mutex_unlock(&t->lock);
}

static void write_one(struct tree *t, struct client *client, const char *relative,
                      struct buf *value) {
    char path[8192], key[8192];
    struct why why = {0};
    (void)snprintf(path, sizeof path, "%s/%s", t->dir, relative);
    (void)snprintf(key, sizeof key, "%s%s", t->prefix, relative);
    buf_clear(value);
    bool readable = access(path, R_OK) == 0;
    enum err e = readable ? cli_read_file(path, value, &why) : OK;
    if (e == OK && readable)
        e = kv_put(t->cli, client, span_str(key), buf_span(value), NULL, NULL, &why);
    if (e != OK) (void)fail_in(&why, e, relative);
    note(t, e, &why, value->size, readable);
}

static void *writer(void *ctx) {
    struct tree *t = ctx;
    char path[4096];
    struct client_config config;
    struct client *client = NULL;
    struct why why = {0};
    struct buf value = buf_new(VALUE_MAX);
    enum err e = cli_client_config(t->cli, &config, path, sizeof path, &why);
    if (e == OK) e = client_open(&config, &client, &why);
    if (e != OK) note(t, e, &why, 0, true);
    const char *relative;
    while (e == OK && (relative = take(t)) != NULL)
        write_one(t, client, relative, &value);
    client_close(client);
    buf_wipe(&value);
    return NULL;
}

static void write_all(struct tree *t) {
    pthread_t threads[WRITERS];
    unsigned n = 0;
    for (; n < WRITERS; n++)
        if (pthread_create(&threads[n], NULL, writer, t) != 0) break;
    if (n == 0) (void)writer(t);
    while (n > 0)
        (void)pthread_join(threads[--n], NULL);
    if (t->terminal && t->n > 0) (void)fprintf(stderr, "\n");
}

static RESULT report(const struct tree *t, struct why *why) {
    if (cli_json(t->cli)) {
        printf("{\"files\": %zu, \"bytes\": %llu, \"too_large\": %zu, \"unreadable\": %zu}\n",
               t->done - t->unreadable, (unsigned long long)t->bytes, t->large, t->unreadable);
    } else {
        printf("%zu files, %llu bytes written", t->done - t->unreadable,
               (unsigned long long)t->bytes);
        if (t->large > 0) printf("; %zu larger than %llu bytes left out", t->large, VALUE_MAX);
        if (t->unreadable > 0) printf("; %zu could not be read", t->unreadable);
        printf("\n");
    }
    return cli_flush(why);
}

enum err cli_put_tree(struct cli *cli, const char *dir, const char *prefix, struct why *why) {
    struct tree t = {
        .cli = cli, .dir = dir, .prefix = prefix, .terminal = isatty(STDERR_FILENO) != 0};
    (void)pthread_mutex_init(&t.lock, NULL);
    enum err e = list_tree(&t);
    if (e == OK) {
        write_all(&t);
        e = t.error;
    }
    if (e == OK)
        e = report(&t, why);
    else
        (void)fail_with(why, e, "%s", t.why.text[0] ? t.why.text : err_text(e));
    for (size_t i = 0; i < t.n; i++)
        free(t.paths[i]);
    free(t.paths);
    (void)pthread_mutex_destroy(&t.lock);
    return e;
}
