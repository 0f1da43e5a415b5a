/* Whole small files over any disk: read into a bounded buffer, written so that after a crash the
 * old or the new file is there. A `.new` file left by a crash is replaced by the next write. */
#include "crypto/disk.h"

#include <stdio.h>

RESULT disk_read_file(struct disk *d, const char *path, struct buf *out, struct why *why) {
    struct file *f;
    TRY(d->open(d, path, DISK_READ, &f, why));
    uint64_t size;
    size_t got = 0;
    enum err e = d->size(f, &size, why);
    if (e == OK && size > out->max - out->size)
        e = fail_with(why, ERR_TOO_LARGE, "%s: read: %llu bytes are more than %zu", path,
                      (unsigned long long)size, out->max - out->size);
    if (e == OK) e = buf_reserve(out, (size_t)size);
    if (e == OK && size != 0) e = d->read(f, 0, out->at + out->size, (size_t)size, &got, why);
    if (e == OK) out->size += got;
    d->close(f);
    return e == ERR_NOMEM ? fail_with(why, e, "%s: read: out of memory", path) : e;
}

static enum err write_new(struct disk *d, const char *path, struct span data, struct why *why) {
    struct why said = {0}; /* not into `why`: that nothing is there is no failure */
    enum err e = d->remove(d, path, &said);
    if (e != OK && e != ERR_NOT_FOUND) return fail_with(why, e, "%s", said.text);
    struct file *f;
    TRY(d->open(d, path, DISK_CREATE, &f, why));
    if (data.size != 0)
        e = d->write(f, 0, data.at, data.size, why);
    else
        e = OK;
    if (e == OK) e = d->sync(f, why);
    d->close(f);
    return e;
}

/* The directory of a path, "" for the root. */
static void parent_of(const char *path, char out[PATH_ROOM]) {
    const char *slash = strrchr(path, '/');
    size_t size = slash == NULL ? 0 : (size_t)(slash - path);
    memcpy(out, path, size);
    out[size] = '\0';
}

RESULT disk_write_file(struct disk *d, const char *path, struct span data, struct why *why) {
    char fresh[PATH_ROOM];
    char parent[PATH_ROOM];
    int size = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (size < 0 || (size_t)size >= sizeof fresh)
        return fail_with(why, ERR_INVALID, "%s: write: the path is too long", path);
    parent_of(path, parent);
    enum err e = write_new(d, fresh, data, why);
    if (e == OK) e = d->rename(d, fresh, path, why);
    if (e != OK) {
        struct why ignored;
        (void)!d->remove(d, fresh, &ignored); /* best effort: the next write replaces it */
        return e;
    }
    return d->sync_dir(d, parent, why);
}
