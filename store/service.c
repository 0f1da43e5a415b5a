/* Services as bytes (service.h; tasks: task.c). Whatever is encoded was checked by the same rules
 * as what is decoded, and what is decoded encodes to the same bytes. Little-endian; a text is a
 * block without zero bytes, shorter than its field; a list is a block of blocks.
 *
 *   service: block spec JSON, block previous JSON, u64 spec version, block labels (node.c), text
 *            image, list command, list environment, list constraints, list mounts, text user, text
 *            dir, text hostname, u32 stop signal, u32 reload signal, i64 stop_grace_ns, u8 mode,
 *            u64 replicas, u8 restart condition, i64 restart_delay_ns, u64 restart maximum, i64
 *            restart_window_ns, u16 number of refs, these
 *   mount:   u8 read-only (0 or 1), text source, text target; both absolute
 *   ref:     u8 kind, text id, text name, text target, u32 uid, u32 gid, u32 mode, u32 version */
#include "store/service.h"

#include "store/rows.h"

#define PERMISSIONS    07777U
#define SIGNAL_MAX     64
#define SERVICE_LISTS  (1 * MIB) /* bytes of one list; the body bounds all of them */
#define TARGET_ENDS_AT (sizeof "/run/secrets/" + TARGET_MAX)

/* --- lists --- */

static bool has_zero(struct span s) { return s.size != 0 && memchr(s.at, 0, s.size) != NULL; }

static RESULT check_text(struct span s) {
    return s.size <= SERVICE_TEXT_MAX && !has_zero(s) ? OK : ERR_INVALID;
}

static RESULT check_variable(struct span s) {
    if (s.size == 0 || s.at[0] == '=' || memchr(s.at, '=', s.size) == NULL) return ERR_INVALID;
    return check_text(s);
}

static bool absolute(struct span path) {
    return path.size >= 1 && path.size <= SERVICE_TEXT_MAX && path.at[0] == '/' && !has_zero(path);
}

static RESULT check_mount(struct span s) {
    struct cursor in = cursor_of(s);
    uint8_t read_only;
    struct span source, target;
    TRY(cursor_u8(&in, &read_only));
    TRY(cursor_block(&in, SERVICE_TEXT_MAX, &source));
    TRY(cursor_block(&in, SERVICE_TEXT_MAX, &target));
    TRY(cursor_end(&in));
    return read_only <= 1 && absolute(source) && absolute(target) ? OK : ERR_INVALID;
}

/* At most `max` blocks, each good by `check`. */
static RESULT check_list(struct span list, unsigned max, enum err (*check)(struct span)) {
    struct cursor in = cursor_of(list);
    for (unsigned n = 0; in.left > 0; n++) {
        struct span one;
        if (n == max || cursor_block(&in, in.left, &one) != OK) return ERR_INVALID;
        if (check(one) != OK) return ERR_INVALID;
    }
    return OK;
}

/* --- refs --- */

/* The file's path: where the target is none by itself, below the folder of its kind. */
static size_t path_of(const struct service_ref *r, char out[TARGET_ENDS_AT]) {
    const char *folder = r->kind == ROW_SECRET ? "/run/secrets/" : "/";
    size_t before = r->target[0] == '/' ? 0 : strlen(folder), size = strlen(r->target);
    memcpy(out, folder, before);
    memcpy(out + before, r->target, size + 1);
    return before + size;
}

/* Names a file by its one name: no empty parts, none that is "." or "..". */
static bool good_target(const char *target) {
    const char *at = target[0] == '/' ? target + 1 : target;
    for (;;) {
        size_t size = strcspn(at, "/");
        bool dots = (size == 1 && at[0] == '.') || (size == 2 && at[0] == '.' && at[1] == '.');
        if (size == 0 || dots) return false;
        if (at[size] == '\0') return true;
        at += size + 1;
    }
}

static RESULT check_ref(const struct service_ref *r) {
    if (r->kind != ROW_SECRET && r->kind != ROW_CONFIG) return ERR_INVALID;
    if (!row_good_id(span_str(r->id)) || !good_target(r->target)) return ERR_INVALID;
    if ((r->mode & ~PERMISSIONS) != 0) return ERR_INVALID;
    return held_name_check(span_str(r->name), NULL);
}

static RESULT check_refs(const struct service_row *s) {
    if (s->n > SERVICE_REFS_MAX) return ERR_INVALID;
    for (unsigned i = 0; i < s->n; i++) {
        char path[TARGET_ENDS_AT], other[TARGET_ENDS_AT];
        TRY(check_ref(&s->refs[i]));
        size_t size = path_of(&s->refs[i], path);
        for (unsigned k = 0; k < i; k++)
            if (path_of(&s->refs[k], other) == size && memcmp(path, other, size) == 0)
                return ERR_INVALID;
    }
    return OK;
}

/* --- all --- */

static RESULT check_policy(const struct service_row *s) {
    if (s->stop_signal > SIGNAL_MAX || s->reload_signal > SIGNAL_MAX) return ERR_INVALID;
    if (s->stop_grace_ns < 0 || s->restart_delay_ns < 0 || s->restart_window_ns < 0)
        return ERR_INVALID;
    if (s->mode != SERVICE_REPLICATED && s->mode != SERVICE_GLOBAL) return ERR_INVALID;
    if (s->replicas > SERVICE_REPLICAS_MAX) return ERR_INVALID;
    return s->restart >= RESTART_ANY && s->restart <= RESTART_NONE ? OK : ERR_INVALID;
}

static RESULT check(const struct service_row *s) {
    if (s->spec_json.size > SERVICE_SPEC_MAX || s->previous_json.size > SERVICE_SPEC_MAX)
        return ERR_INVALID;
    if (strcmp(s->image, "host") != 0 && s->image[0] != '/') return ERR_INVALID;
    TRY(labels_check(s->labels));
    TRY(check_list(s->command, SERVICE_ARGS_MAX, check_text));
    TRY(check_list(s->env, SERVICE_ENV_MAX, check_variable));
    TRY(check_list(s->constraints, SERVICE_CONSTRAINTS_MAX, check_text));
    TRY(check_list(s->mounts, SERVICE_MOUNTS_MAX, check_mount));
    TRY(check_policy(s));
    return check_refs(s);
}

/* --- bytes --- */

static RESULT encode_program(const struct service_row *s, struct buf *out) {
    TRY(buf_block(out, s->spec_json));
    TRY(buf_block(out, s->previous_json));
    TRY(buf_u64(out, s->spec_version));
    TRY(buf_block(out, s->labels));
    TRY(buf_block(out, span_str(s->image)));
    TRY(buf_block(out, s->command));
    TRY(buf_block(out, s->env));
    TRY(buf_block(out, s->constraints));
    TRY(buf_block(out, s->mounts));
    TRY(buf_block(out, span_str(s->user)));
    TRY(buf_block(out, span_str(s->dir)));
    return buf_block(out, span_str(s->hostname));
}

static RESULT encode_policy(const struct service_row *s, struct buf *out) {
    TRY(buf_u32(out, s->stop_signal));
    TRY(buf_u32(out, s->reload_signal));
    TRY(buf_u64(out, (uint64_t)s->stop_grace_ns));
    TRY(buf_u8(out, (uint8_t)s->mode));
    TRY(buf_u64(out, s->replicas));
    TRY(buf_u8(out, (uint8_t)s->restart));
    TRY(buf_u64(out, (uint64_t)s->restart_delay_ns));
    TRY(buf_u64(out, s->restart_max));
    return buf_u64(out, (uint64_t)s->restart_window_ns);
}

static RESULT encode_ref(const struct service_ref *r, struct buf *out) {
    TRY(buf_u8(out, (uint8_t)r->kind));
    TRY(buf_block(out, span_str(r->id)));
    TRY(buf_block(out, span_str(r->name)));
    TRY(buf_block(out, span_str(r->target)));
    TRY(buf_u32(out, r->uid));
    TRY(buf_u32(out, r->gid));
    TRY(buf_u32(out, r->mode));
    return buf_u32(out, r->version);
}

RESULT service_encode(const struct service_row *s, struct buf *out) {
    TRY(check(s));
    TRY(encode_program(s, out));
    TRY(encode_policy(s, out));
    TRY(buf_u16(out, (uint16_t)s->n));
    for (unsigned i = 0; i < s->n; i++)
        TRY(encode_ref(&s->refs[i], out));
    return OK;
}

static RESULT decode_program(struct cursor *in, struct service_row *out) {
    TRY(cursor_block(in, SERVICE_SPEC_MAX, &out->spec_json));
    TRY(cursor_block(in, SERVICE_SPEC_MAX, &out->previous_json));
    TRY(cursor_u64(in, &out->spec_version));
    TRY(cursor_block(in, NODE_LABELS_BYTES, &out->labels));
    TRY(cursor_text(in, out->image, sizeof out->image));
    TRY(cursor_block(in, SERVICE_LISTS, &out->command));
    TRY(cursor_block(in, SERVICE_LISTS, &out->env));
    TRY(cursor_block(in, SERVICE_LISTS, &out->constraints));
    TRY(cursor_block(in, SERVICE_LISTS, &out->mounts));
    TRY(cursor_text(in, out->user, sizeof out->user));
    TRY(cursor_text(in, out->dir, sizeof out->dir));
    return cursor_text(in, out->hostname, sizeof out->hostname);
}

static RESULT cursor_i64(struct cursor *in, int64_t *out) {
    uint64_t n;
    TRY(cursor_u64(in, &n));
    *out = (int64_t)n;
    return OK;
}

static RESULT decode_policy(struct cursor *in, struct service_row *out) {
    uint8_t mode, restart;
    TRY(cursor_u32(in, &out->stop_signal));
    TRY(cursor_u32(in, &out->reload_signal));
    TRY(cursor_i64(in, &out->stop_grace_ns));
    TRY(cursor_u8(in, &mode));
    out->mode = (enum service_mode)mode;
    TRY(cursor_u64(in, &out->replicas));
    TRY(cursor_u8(in, &restart));
    out->restart = (enum restart_condition)restart;
    TRY(cursor_i64(in, &out->restart_delay_ns));
    TRY(cursor_u64(in, &out->restart_max));
    return cursor_i64(in, &out->restart_window_ns);
}

static RESULT decode_ref(struct cursor *in, struct service_ref *out) {
    uint8_t kind;
    TRY(cursor_u8(in, &kind));
    out->kind = (enum row_kind)kind;
    TRY(cursor_text(in, out->id, sizeof out->id));
    TRY(cursor_text(in, out->name, sizeof out->name));
    TRY(cursor_text(in, out->target, sizeof out->target));
    TRY(cursor_u32(in, &out->uid));
    TRY(cursor_u32(in, &out->gid));
    TRY(cursor_u32(in, &out->mode));
    return cursor_u32(in, &out->version);
}

static RESULT decode(struct cursor *in, struct service_row *out) {
    uint16_t n;
    TRY(decode_program(in, out));
    TRY(decode_policy(in, out));
    TRY(cursor_u16(in, &n));
    if (n > SERVICE_REFS_MAX) return ERR_CORRUPT;
    for (out->n = 0; out->n < n; out->n++)
        TRY(decode_ref(in, &out->refs[out->n]));
    TRY(cursor_end(in));
    return check(out);
}

RESULT service_decode(struct span body, struct service_row *out) {
    struct cursor in = cursor_of(body);
    memset(out, 0, offsetof(struct service_row, refs)); /* which are large, and many */
    return decode(&in, out) == OK ? OK : ERR_CORRUPT;
}
