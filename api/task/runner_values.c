/* The values that this node was given, in guarded memory, by kind, id, version and, for a driver's
 * value, task. A value that is on its way to a supervisor outlives its removal by that moment. */
#include "api/task/runner_parts.h"

#include <stdio.h>
#include <stdlib.h>

static RESULT make(struct span bytes, struct held **out) {
    struct held *h = calloc(1, sizeof *h);
    if (!h) return ERR_NOMEM;
    h->refs = 1;
    enum err e = bytes.size > 0 ? secret_new(bytes.at, bytes.size, &h->bytes) : OK;
    if (e == OK) *out = h;
    if (e != OK) free(h);
    return e;
}

RESULT held_of(struct span text, struct held **out) { return make(text, out); }

RESULT held_new(const struct assign_value *v, struct held **out) {
    TRY(make(v->bytes, out));
    (*out)->kind = v->kind;
    (*out)->version = v->version;
    memcpy((*out)->id, v->id, sizeof v->id);
    memcpy((*out)->task_id, v->task_id, sizeof v->task_id);
    return OK;
}

struct held *held_keep(struct held *h) {
    h->refs++;
    return h;
}

void held_drop(struct held *h) {
    if (!h || --h->refs > 0) return;
    secret_free(h->bytes);
    free(h);
}

static void take_out(struct values *v, struct held **at) {
    struct held *h = *at;
    *at = h->next;
    h->next = NULL;
    v->n--;
    v->bytes -= held_size(h);
    held_drop(h);
}

static bool is_same(const struct held *h, enum row_kind kind, const char *id, uint32_t version,
                    const char *task_id) {
    return h->kind == kind && h->version == version && strcmp(h->id, id) == 0 &&
           strcmp(h->task_id, task_id) == 0;
}

RESULT values_put(struct values *v, const struct assign_value *value) {
    struct held *h;
    for (struct held **at = &v->first; *at;)
        if (is_same(*at, value->kind, value->id, value->version, value->task_id))
            take_out(v, at);
        else
            at = &(*at)->next;
    if (v->n == RUNNER_VALUES_MAX || v->bytes + value->bytes.size > RUNNER_BYTES_MAX)
        return ERR_TOO_LARGE;
    TRY(held_new(value, &h));
    h->next = v->first;
    v->first = h;
    v->n++;
    v->bytes += held_size(h);
    return OK;
}

void values_remove(struct values *v, enum row_kind kind, const char *id, uint32_t version) {
    for (struct held **at = &v->first; *at;)
        if (is_same(*at, kind, id, version, ""))
            take_out(v, at);
        else
            at = &(*at)->next;
}

void values_remove_task(struct values *v, const char *task_id) {
    for (struct held **at = &v->first; *at;)
        if (strcmp((*at)->task_id, task_id) == 0)
            take_out(v, at);
        else
            at = &(*at)->next;
}

struct held *values_find(const struct values *v, const struct assign_file *f, const char *task_id) {
    for (struct held *h = v->first; h; h = h->next)
        if (is_same(h, f->kind, f->id, f->version, task_id) ||
            is_same(h, f->kind, f->id, f->version, ""))
            return h;
    return NULL;
}

void values_clear(struct values *v) {
    while (v->first)
        take_out(v, &v->first);
    v->refused = false;
}
