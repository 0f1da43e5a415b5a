/* A counter and a few settings in an encrypted store of one's own: open, put, get, a transaction,
 * iterate, close.
 *
 *     cc embed.c $(pkg-config --cflags --libs conclave) -o embed && ./embed DIRECTORY */
#include <conclave.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain(const char *what, const struct ccl_error *error) {
    (void)fprintf(stderr, "%s: %s (%s)\n", what, error->text, ccl_code_name(error->code));
    return EXIT_FAILURE;
}

/* Reads the counter, adds one, and writes it back only if nobody else did meanwhile. */
static int count_up(struct ccl_db *db, long *value, struct ccl_error *error) {
    struct ccl_write_options options = CCL_WRITE_OPTIONS_INIT;
    struct ccl_result *result = NULL;
    struct ccl_kv kv = CCL_KV_INIT;
    char text[32] = "0";
    int code = ccl_get(db, "counter", 7, &result, error);
    if (code == CCL_OK) {
        ccl_result_kv(result, &kv);
        size_t size = kv.value_size < sizeof text ? kv.value_size : sizeof text - 1;
        memcpy(text, kv.value, size);
        text[size] = '\0';
        options.mod_revision = kv.mod_revision;
        ccl_result_free(result);
    } else if (code == CCL_NOT_FOUND) {
        options.flags = CCL_MUST_NOT_EXIST;
    } else {
        return code;
    }
    *value = strtol(text, NULL, 10) + 1;
    int size = snprintf(text, sizeof text, "%ld", *value);
    return ccl_put(db, "counter", 7, text, (size_t)size, &options, NULL, error);
}

static int write_settings(struct ccl_db *db, struct ccl_error *error) {
    struct ccl_txn *txn = ccl_txn_new(db);
    if (txn == NULL) return CCL_NOMEM;
    ccl_txn_put(txn, "settings/colour", 15, "blue", 4, NULL);
    ccl_txn_put(txn, "settings/size", 13, "large", 5, NULL);
    ccl_txn_del(txn, "settings/shape", 14, NULL);
    int code = ccl_txn_commit(txn, NULL, NULL, error);
    ccl_txn_free(txn);
    return code;
}

static int print_settings(struct ccl_db *db, struct ccl_error *error) {
    struct ccl_iter *iter;
    struct ccl_kv kv = CCL_KV_INIT;
    int code = ccl_iter_open_prefix(db, "settings/", 9, &iter, error);
    if (code != CCL_OK) return code;
    while (ccl_iter_next(iter, &kv))
        (void)printf("%.*s = %.*s\n", (int)kv.key_size, (const char *)kv.key, (int)kv.value_size,
                     (const char *)kv.value);
    ccl_iter_free(iter);
    return CCL_OK;
}

int main(int argc, char **argv) {
    struct ccl_open_options options = CCL_OPEN_OPTIONS_INIT;
    struct ccl_error error = CCL_ERROR_INIT;
    struct ccl_db *db;
    long count = 0;
    if (argc != 2) {
        (void)fprintf(stderr, "usage: embed DIRECTORY\n");
        return EXIT_FAILURE;
    }
    options.flags = CCL_CREATE;
    if (ccl_open(argv[1], &options, &db, &error) != CCL_OK) return complain("open", &error);
    int code = count_up(db, &count, &error);
    if (code == CCL_OK) code = write_settings(db, &error);
    if (code == CCL_OK) code = print_settings(db, &error);
    ccl_close(db);
    if (code != CCL_OK) return complain("write", &error);
    (void)printf("this is run number %ld\n", count);
    return EXIT_SUCCESS;
}
