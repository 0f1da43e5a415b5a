/* `conclave run` on this node: its supervisor listens already, and asks to be brought secrets and
 * configs. No value is in the request or in the answer. */
#include "api/api.h"
#include "api/task/runner.h"
#include "api/task/supervisor.h"

#include <stdlib.h>

static RESULT read_file(const json_t *file, struct assign_file *out, struct why *why) {
    uint64_t uid = 0, gid = 0, mode = 0444, version = 0;
    const char *kind = jin_string(file, "kind");
    bool config = strcmp(kind, "config") == 0;
    *out = (struct assign_file){.kind = config ? ROW_CONFIG : ROW_SECRET};
    if (!config && strcmp(kind, "secret") != 0)
        return fail_with(why, ERR_INVALID, "kind of a file: secret or config");
    TRY(jin_text(file, "name", out->name, sizeof out->name, why));
    TRY(jin_text(file, "target", out->target, sizeof out->target, why));
    TRY(jin_u64(file, "uid", &uid, why));
    TRY(jin_u64(file, "gid", &gid, why));
    TRY(jin_u64(file, "mode", &mode, why));
    TRY(jin_u64(file, "version", &version, why));
    TRY(held_name_check(span_str(out->name), why));
    TRY(sup_target_check(out->target, why));
    if (uid > UINT32_MAX || gid > UINT32_MAX || mode > 07777 || version > UINT32_MAX)
        return fail_with(why, ERR_INVALID, "uid, gid, mode or version of %s: too large", out->name);
    out->uid = (uint32_t)uid;
    out->gid = (uint32_t)gid;
    out->mode = (uint32_t)mode;
    out->version = (uint32_t)version;
    return OK;
}

static RESULT read_order(const json_t *body, struct run_order *out, struct why *why) {
    const json_t *files = json_object_get(body, "files"), *file;
    size_t i, prefix = sizeof SUP_RUN_PREFIX - 1;
    TRY(jin_text(body, "id", out->id, sizeof out->id, why));
    if (strncmp(out->id, SUP_RUN_PREFIX, prefix) != 0 || strchr(out->id, '/') ||
        strlen(out->id) != prefix + NODE_ID_SIZE)
        return fail_with(why, ERR_INVALID, "id is not one of a command");
    if (json_array_size(files) == 0 || json_array_size(files) > SERVICE_REFS_MAX)
        return fail_with(why, ERR_INVALID, "files: 1 to %d are needed", SERVICE_REFS_MAX);
    json_array_foreach(files, i, file) TRY(read_file(file, &out->files[out->n++], why));
    return OK;
}

void handle_run(struct exchange *x) {
    const struct api *api = x->ctx;
    struct why why = {0};
    json_t *body;
    if (!api_body(x, &body)) return;
    struct run_order *order = calloc(1, sizeof *order); /* large */
    enum err e = order ? read_order(body, order, &why) : ERR_NOMEM;
    if (e == OK) e = runner_run(api->manager, order, api_done, x, &why);
    if (e != OK) api_fail(x, e, &why);
    free(order);
    json_decref(body);
}
