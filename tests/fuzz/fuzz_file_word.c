/* Any text as what names the file of a secret, or a mount: what is taken is within its bounds and
 * says the same again when it is written out. */
#include <stdio.h>
#include <stdlib.h>

#include "api/cli/file_word.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) abort();
}

static void try_file(const char *text, bool paths) {
    struct file_word w, again;
    struct why why = {0};
    char line[1024];
    if (file_word_parse(text, paths, &w, &why) != OK) {
        check(why.text[0] != '\0');
        return;
    }
    check(held_name_check(span_str(w.name), NULL) == OK && w.mode <= 0777);
    check(w.target[0] != '\0' && (paths || !strchr(w.target, '/')));
    check(!strstr(w.target, "/../") && strcmp(w.target, "..") != 0);
    int n = snprintf(line, sizeof line, "source=%s,target=%s,uid=%u,gid=%u,mode=%o", w.name,
                     w.target, (unsigned)w.uid, (unsigned)w.gid, (unsigned)w.mode);
    if (w.version > 0)
        (void)snprintf(line + n, sizeof line - (size_t)n, ",version=%u", (unsigned)w.version);
    check(file_word_parse(line, paths, &again, NULL) == OK);
    check(memcmp(&w, &again, sizeof w) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[1024];
    struct mount_word m;
    if (size >= sizeof text) return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    try_file(text, false);
    try_file(text, true);
    if (mount_word_parse(text, &m, NULL) == OK)
        check(m.source[0] == '/' && m.target[0] == '/' && m.target[1] != '\0');
    return 0;
}
