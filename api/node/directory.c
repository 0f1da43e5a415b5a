/* See directory.h. The empty file `wiping` says that what is there is not wanted any more. */
#include "api/node/directory.h"

#include <stdio.h>

static const char marker[] = "wiping";
static const char *const dirs[] = {"log", "snapshots", ""};

struct wiping {
    struct disk *disk; /* where */
    const char *dir;   /* "" is the root */
    unsigned kept;     /* files that are a node's */
};

static bool is_ours(const struct wiping *w, const char *name) {
    return w->dir[0] || (strcmp(name, "LOCK") != 0 && strcmp(name, "conclave.sock") != 0 &&
                         strcmp(name, "engine.sock") != 0);
}

static void wipe_file(void *ctx, const char *name) {
    const struct wiping *w = ctx;
    char path[PATH_ROOM];
    if (!is_ours(w, name) || (!w->dir[0] && strcmp(name, marker) == 0)) return;
    int size = snprintf(path, sizeof path, "%s%s%s", w->dir, w->dir[0] ? "/" : "", name);
    if (size > 0 && size < (int)sizeof path) (void)!w->disk->remove(w->disk, path, NULL);
}

void directory_wipe(struct disk *disk) {
    static const char *const keys[] = {"keyring", "kek"};
    (void)!disk_write_file(disk, marker, span_of(NULL, 0), NULL);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        (void)!disk->remove(disk, keys[i], NULL);
    (void)!disk->sync_dir(disk, "", NULL);
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        struct wiping w = {.disk = disk, .dir = dirs[i]};
        (void)!disk->list(disk, dirs[i], wipe_file, &w, NULL);
        (void)!disk->sync_dir(disk, dirs[i], NULL);
    }
    (void)!disk->remove(disk, marker, NULL);
}

void directory_wipe_log(struct disk *disk) {
    (void)!disk->remove(disk, "ballot", NULL);
    (void)!disk->sync_dir(disk, "", NULL);
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        struct wiping w = {.disk = disk, .dir = dirs[i]};
        if (!w.dir[0]) continue;
        (void)!disk->list(disk, w.dir, wipe_file, &w, NULL);
        (void)!disk->sync_dir(disk, w.dir, NULL);
    }
}

static void note_file(void *ctx, const char *name) {
    struct wiping *w = ctx;
    bool nodes = w->dir[0] || strcmp(name, "ballot") == 0;
    if (nodes) w->kept++;
}

RESULT directory_check_empty(struct disk *disk, const char *name, struct why *why) {
    struct file *f;
    if (disk->open(disk, marker, DISK_READ, &f, NULL) == OK) {
        disk->close(f);
        directory_wipe(disk);
        return OK;
    }
    struct wiping w = {.disk = disk};
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        w.dir = dirs[i];
        (void)!disk->list(disk, dirs[i], note_file, &w, NULL);
    }
    if (w.kept == 0) return OK;
    return fail_with(why, ERR_CORRUPT,
                     "%s/keyring is missing, and without it the log there can't be opened; put it "
                     "back, or empty the directory if its data is not wanted",
                     name);
}
