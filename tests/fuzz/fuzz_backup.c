/* Any bytes as a backup file, behind a valid header or not: no fault, and nothing passes for a
 * backup, since nobody without the key can seal one. */
#include <stdlib.h>

#include "api/backup.h"

static enum err take(void *ctx, struct span state) {
    (void)ctx;
    (void)state;
    return OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct secret *key;
    static const uint8_t bytes[KEY_SIZE] = {7};
    struct backup_head head;
    struct why why;
    if (key == NULL && (crypto_start(NULL) != OK || secret_new(bytes, sizeof bytes, &key) != OK))
        abort();
    if (size == 0) return 0;
    FILE *file = fmemopen((void *)(uintptr_t)data, size, "r");
    if (file == NULL) abort();
    if (backup_read(file, "fuzz", key, &head, take, NULL, &why) == OK) abort();
    (void)fclose(file);
    return 0;
}
