/* How people say which secret or config is to be which file of a task:
 *
 *   NAME[,target=FILE][,uid=N][,gid=N][,mode=OCTAL][,version=N]        or source=NAME,...
 *
 * and which directory is to be seen where: SOURCE:TARGET[:ro|:rw]. One parser for `conclave
 * service` and `conclave run`; fuzzed (tests/fuzz/fuzz_file_word.c). */
#ifndef CONCLAVE_FILE_WORD_H
#define CONCLAVE_FILE_WORD_H

#include "store/service.h"

struct file_word {
    char name[HELD_NAME_MAX + 1];
    char target[TARGET_MAX + 1]; /* as told, else the name */
    uint32_t uid, gid;           /* 0 unless told */
    uint32_t mode;               /* 0444 unless told; permission bits */
    uint32_t version;            /* 0: follows the newest */
};

/* A target is one name, or (`paths`: a config's, and a secret's outside of /run/secrets) an
 * absolute path without "." and "..". ERR_INVALID says which part. */
RESULT file_word_parse(const char *text, bool paths, struct file_word *out, struct why *why);

struct mount_word {
    char source[TARGET_MAX + 1], target[TARGET_MAX + 1]; /* absolute paths */
    bool read_only;
};

RESULT mount_word_parse(const char *text, struct mount_word *out, struct why *why);

#endif
