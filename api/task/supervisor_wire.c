/* The frames of supervisor.h as bytes: fields in the order of their structs, texts as blocks. */
#include "api/task/supervisor.h"

#include <stdlib.h>

RESULT sup_frame(struct buf *out, enum sup_kind kind, struct span body) {
    TRY(buf_reserve(out, SUP_HEAD + body.size));
    TRY(buf_u32(out, (uint32_t)(1 + body.size)));
    TRY(buf_u8(out, (uint8_t)kind));
    return buf_add_span(out, body);
}

static RESULT add_text(struct buf *out, const char *text) { return buf_block(out, span_str(text)); }

RESULT sup_target_check(const char *target, struct why *why) {
    const char *at = target[0] == '/' ? target + 1 : target;
    for (;;) {
        const char *end = strchrnul(at, '/');
        size_t size = (size_t)(end - at);
        bool dots = (size == 1 && at[0] == '.') || (size == 2 && at[0] == '.' && at[1] == '.');
        if (size == 0 || dots)
            return fail_with(why, ERR_INVALID, "'%s' is no name of a file", target);
        if (!*end) return OK;
        at = end + 1;
    }
}

RESULT sup_order_encode(const struct sup_order *o, struct buf *out) {
    TRY(add_text(out, o->id));
    TRY(add_text(out, o->data));
    TRY(add_text(out, o->image));
    TRY(buf_block(out, o->command));
    TRY(buf_block(out, o->env));
    TRY(buf_block(out, o->mounts));
    TRY(add_text(out, o->user));
    TRY(add_text(out, o->dir));
    TRY(add_text(out, o->hostname));
    TRY(buf_u32(out, o->stop_signal));
    return buf_u32(out, o->reload_signal);
}

/* A list of blocks, at most `max` of them, whole to its end. */
static RESULT check_list(struct span list, unsigned max, size_t block_max) {
    struct cursor c = cursor_of(list);
    struct span block;
    for (unsigned n = 0; c.left > 0; n++) {
        if (n == max) return ERR_PROTOCOL;
        TRY(cursor_block(&c, block_max, &block));
    }
    return OK;
}

static RESULT check_order(const struct sup_order *o) {
    bool image = strcmp(o->image, "host") == 0 || o->image[0] == '/';
    bool id = o->id[0] && !strchr(o->id, '/') && o->id[0] != '.';
    bool signals = o->stop_signal >= 1 && o->stop_signal <= 64 && o->reload_signal >= 1 &&
                   o->reload_signal <= 64;
    if (!image || !id || !signals || o->data[0] != '/' || o->command.size == 0) return ERR_PROTOCOL;
    TRY(check_list(o->command, SERVICE_ARGS_MAX, SERVICE_TEXT_MAX));
    TRY(check_list(o->env, SERVICE_ENV_MAX, SERVICE_TEXT_MAX));
    return check_list(o->mounts, SERVICE_MOUNTS_MAX, SERVICE_TEXT_MAX);
}

RESULT sup_order_decode(struct span body, struct sup_order *out) {
    struct cursor c = cursor_of(body);
    struct sup_order o = {0};
    TRY(cursor_text(&c, o.id, sizeof o.id));
    TRY(cursor_text(&c, o.data, sizeof o.data));
    TRY(cursor_text(&c, o.image, sizeof o.image));
    TRY(cursor_block(&c, SUP_FRAME_MAX, &o.command));
    TRY(cursor_block(&c, SUP_FRAME_MAX, &o.env));
    TRY(cursor_block(&c, SUP_FRAME_MAX, &o.mounts));
    TRY(cursor_text(&c, o.user, sizeof o.user));
    TRY(cursor_text(&c, o.dir, sizeof o.dir));
    TRY(cursor_text(&c, o.hostname, sizeof o.hostname));
    TRY(cursor_u32(&c, &o.stop_signal));
    TRY(cursor_u32(&c, &o.reload_signal));
    TRY(cursor_end(&c));
    TRY(check_order(&o));
    *out = o;
    return OK;
}

RESULT sup_file_encode(const struct sup_file *f, struct buf *out) {
    TRY(buf_u8(out, (uint8_t)f->kind));
    TRY(add_text(out, f->id));
    TRY(buf_u32(out, f->version));
    TRY(add_text(out, f->target));
    TRY(buf_u32(out, f->uid));
    TRY(buf_u32(out, f->gid));
    TRY(buf_u32(out, f->mode));
    return buf_u32(out, f->size);
}

RESULT sup_file_decode(struct span body, struct sup_file *out) {
    struct cursor c = cursor_of(body);
    struct sup_file f = {0};
    uint8_t kind;
    TRY(cursor_u8(&c, &kind));
    TRY(cursor_text(&c, f.id, sizeof f.id));
    TRY(cursor_u32(&c, &f.version));
    TRY(cursor_text(&c, f.target, sizeof f.target));
    TRY(cursor_u32(&c, &f.uid));
    TRY(cursor_u32(&c, &f.gid));
    TRY(cursor_u32(&c, &f.mode));
    TRY(cursor_u32(&c, &f.size));
    TRY(cursor_end(&c));
    bool known = kind == ROW_SECRET || kind == ROW_CONFIG;
    if (!known || sup_target_check(f.target, NULL) != OK || f.mode > 07777 ||
        f.size > CONFIG_SIZE_MAX)
        return ERR_PROTOCOL;
    f.kind = (enum row_kind)kind;
    *out = f;
    return OK;
}

RESULT sup_state_encode(const struct sup_state *s, struct buf *out) {
    TRY(add_text(out, s->id));
    TRY(buf_u8(out, (uint8_t)s->phase));
    TRY(buf_u8(out, s->asked));
    TRY(buf_u32(out, s->pid));
    TRY(buf_u32(out, (uint32_t)s->exit_code));
    TRY(add_text(out, s->error));
    TRY(buf_u32(out, s->n));
    for (unsigned i = 0; i < s->n; i++) {
        TRY(add_text(out, s->files[i].target));
        TRY(buf_u32(out, s->files[i].version));
    }
    return OK;
}

static RESULT decode_state(struct cursor *c, struct sup_state *s) {
    uint8_t phase, asked;
    uint32_t code, n;
    TRY(cursor_text(c, s->id, sizeof s->id));
    TRY(cursor_u8(c, &phase));
    TRY(cursor_u8(c, &asked));
    TRY(cursor_u32(c, &s->pid));
    TRY(cursor_u32(c, &code));
    TRY(cursor_text(c, s->error, sizeof s->error));
    TRY(cursor_u32(c, &n));
    if (phase > SUP_REJECTED || asked > 1 || n > SERVICE_REFS_MAX) return ERR_PROTOCOL;
    s->phase = (enum sup_phase)phase;
    s->asked = asked;
    s->exit_code = (int32_t)code;
    for (; s->n < n; s->n++) {
        TRY(cursor_text(c, s->files[s->n].target, sizeof s->files[s->n].target));
        TRY(cursor_u32(c, &s->files[s->n].version));
    }
    return cursor_end(c);
}

RESULT sup_state_decode(struct span body, struct sup_state *out) {
    struct cursor c = cursor_of(body);
    struct sup_state *s = calloc(1, sizeof *s); /* large */
    if (!s) return ERR_NOMEM;
    enum err e = decode_state(&c, s);
    if (e == OK) *out = *s;
    free(s);
    return e;
}
