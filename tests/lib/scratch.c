/* The implementation of scratch.h: mkdtemp, posix_spawn with the directory as working directory, a
 * pipe for what the program says. */
#include "tests/lib/scratch.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS_MAX 48
#define LINE_ROOM 2048

void scratch_new(struct scratch *s) {
    *s = (struct scratch){"/tmp/conclave-test-XXXXXX"};
    assert(mkdtemp(s->path) != NULL);
}

static void path_of(const struct scratch *s, const char *name, char out[128]) {
    (void)snprintf(out, 128, "%s/%s", s->path, name);
}

void scratch_free(struct scratch *s) {
    char path[128];
    DIR *d = opendir(s->path);
    assert(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        (void)snprintf(path, sizeof path, "%s/%.80s", s->path, e->d_name);
        (void)unlink(path);
    }
    (void)closedir(d);
    assert(rmdir(s->path) == 0);
}

void scratch_put(const struct scratch *s, const char *name, struct span bytes) {
    char path[128];
    path_of(s, name, path);
    FILE *f = fopen(path, "we");
    assert(f != NULL);
    bool whole = bytes.size == 0 || fwrite(bytes.at, 1, bytes.size, f) == bytes.size;
    whole &= fclose(f) == 0;
    assert(whole);
}

void scratch_get(const struct scratch *s, const char *name, struct buf *out) {
    char path[128], part[4096];
    path_of(s, name, path);
    FILE *f = fopen(path, "re");
    assert(f != NULL);
    bool fits = true;
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;)
        fits &= buf_add(out, part, n) == OK;
    (void)fclose(f);
    assert(fits);
}

static void split(char *line, char *words[WORDS_MAX + 1]) {
    unsigned n = 0;
    for (char *next = line; next != NULL && n < WORDS_MAX;)
        words[n++] = strsep(&next, " ");
    words[n] = NULL;
}

static pid_t start(const struct scratch *s, char *words[], int out) {
    posix_spawn_file_actions_t how;
    pid_t child;
    assert(posix_spawn_file_actions_init(&how) == 0);
    assert(posix_spawn_file_actions_addchdir_np(&how, s->path) == 0);
    assert(posix_spawn_file_actions_addopen(&how, 0, "/dev/null", O_RDONLY, 0) == 0);
    assert(posix_spawn_file_actions_adddup2(&how, out, 1) == 0);
    assert(posix_spawn_file_actions_adddup2(&how, out, 2) == 0);
    assert(posix_spawnp(&child, words[0], &how, NULL, words, environ) == 0);
    (void)posix_spawn_file_actions_destroy(&how);
    return child;
}

int scratch_run(const struct scratch *s, struct buf *said, const char *format, ...) {
    char line[LINE_ROOM], part[4096], *words[WORDS_MAX + 1];
    va_list args;
    int ends[2], status;
    va_start(args, format);
    int size = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    assert(size > 0 && size < LINE_ROOM);
    split(line, words);
    assert(pipe2(ends, O_CLOEXEC) == 0);
    pid_t child = start(s, words, ends[1]);
    (void)close(ends[1]);
    for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;)
        if (said != NULL && buf_add(said, part, (size_t)n) != OK) said = NULL;
    (void)close(ends[0]);
    assert(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
