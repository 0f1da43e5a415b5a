/* The bodies of assign_wire.h. Format, little-endian; a text is a block without NUL that fits its
 * field, an id is 25 characters of base36, a flag is a byte that is 0 or 1:
 *
 *   head     u8 type (1, 2), u64 applies_to, results_in, flag last; then the items
 *   item     u8 kind (1..4), block of:
 *     task   id, text name, id of the service, text its name, u32 slot, u32 desired (docker's
 *            number of RUNNING or SHUTDOWN), u64 not_before_ns, text image; blocks command, env,
 *            mounts, labels (lists of blocks, service.h); text user, dir, hostname;
 *            u32 stop_signal, reload_signal (1..64), u64 stop_grace_ns (> 0 to run);
 *            u32 n (<= SERVICE_REFS_MAX), then n files:
 *            u8 kind, id, text name, text target, u32 uid, gid, mode (<= 07777), version,
 *            flag follows, flag templated
 *     value  u8 kind, id, flag for one task only, [its id], u32 version, block bytes
 *     remove task   id           remove value  u8 kind, id, u32 version
 *   report   id, u32 state, u32 exit code, u32 pid, text message, text error
 *   fetch    u64 number, u32 n (<= SERVICE_REFS_MAX), then n times u8 kind, text name, u32
 *            version
 *   fetched  u64 number, u16 error, text, u32 n (0 with an error), then n values as above
 *
 * Messages and errors will stand in tables and logs: control characters become spaces on their way
 * out, and are refused on their way in. Nothing may follow. What the encoder lets through the
 * decoder takes, and a body has one encoding only. */
#include "api/service/assign_wire.h"

#define LIST_MAX   (2 * SERVICE_SPEC_MAX) /* command, variables, mounts; each */
#define SIGNAL_MAX 64
#define MODE_MAX   07777

/* ---- what both sides ask for ---- */

static bool is_plain(const char *text) {
    for (; *text != '\0'; text++)
        if ((uint8_t)*text < ' ' || *text == 127) return false;
    return true;
}

/* Exactly: it becomes the name of a file. */
static bool is_id(const char *id) {
    size_t n = 0;
    for (; n < NODE_ID_SIZE; n++)
        if (!((id[n] >= '0' && id[n] <= '9') || (id[n] >= 'a' && id[n] <= 'z'))) return false;
    return id[n] == '\0';
}

static bool is_held(unsigned kind) { return kind == ROW_SECRET || kind == ROW_CONFIG; }

static size_t size_max(enum row_kind kind) {
    return kind == ROW_SECRET ? SECRET_SIZE_MAX : CONFIG_SIZE_MAX;
}

static bool is_wanted(unsigned state) { return state == TASK_RUNNING || state == TASK_SHUTDOWN; }

static bool is_reported(unsigned state) {
    switch (state) {
    case TASK_ACCEPTED:
    case TASK_PREPARING:
    case TASK_READY:
    case TASK_STARTING:
    case TASK_RUNNING:
    case TASK_COMPLETE:
    case TASK_SHUTDOWN:
    case TASK_FAILED:
    case TASK_REJECTED:
    case TASK_REMOVE: return true;
    default: return false;
    }
}

/* A list of at most `most` words, each without NUL: they are handed to exec. */
static RESULT words_check(struct span list, unsigned most) {
    struct cursor c = cursor_of(list);
    if (list.size > LIST_MAX) return ERR_PROTOCOL;
    for (unsigned n = 0; c.left > 0; n++) {
        struct span word;
        if (n == most) return ERR_PROTOCOL;
        TRY(cursor_block(&c, SERVICE_TEXT_MAX, &word));
        if (word.size > 0 && memchr(word.at, 0, word.size)) return ERR_PROTOCOL;
    }
    return OK;
}

static RESULT mount_check(struct span mount) {
    struct cursor c = cursor_of(mount);
    uint8_t read_only = 0;
    struct span path;
    TRY(cursor_u8(&c, &read_only));
    if (read_only > 1) return ERR_PROTOCOL;
    for (unsigned i = 0; i < 2; i++) {
        TRY(cursor_block(&c, SERVICE_TEXT_MAX, &path));
        if (path.size == 0 || memchr(path.at, 0, path.size)) return ERR_PROTOCOL;
    }
    return cursor_end(&c);
}

static RESULT mounts_check(struct span list) {
    struct cursor c = cursor_of(list);
    if (list.size > LIST_MAX) return ERR_PROTOCOL;
    for (unsigned n = 0; c.left > 0; n++) {
        struct span mount;
        if (n == SERVICE_MOUNTS_MAX) return ERR_PROTOCOL;
        TRY(cursor_block(&c, 3 * SERVICE_TEXT_MAX, &mount));
        TRY(mount_check(mount));
    }
    return OK;
}

static bool is_signal(uint32_t number) { return number >= 1 && number <= SIGNAL_MAX; }

static RESULT task_check(const struct assign_task *t) {
    if (!is_wanted(t->desired) || t->not_before_ns < 0 || t->n > SERVICE_REFS_MAX)
        return ERR_PROTOCOL;
    if (t->stop_grace_ns < 0 || (t->stop_grace_ns == 0 && t->desired == TASK_RUNNING))
        return ERR_PROTOCOL;
    if (!is_signal(t->stop_signal) || !is_signal(t->reload_signal)) return ERR_PROTOCOL;
    TRY(words_check(t->command, SERVICE_ARGS_MAX));
    TRY(words_check(t->env, SERVICE_ENV_MAX));
    TRY(mounts_check(t->mounts));
    return labels_check(t->labels) == OK ? OK : ERR_PROTOCOL;
}

static RESULT value_check(const struct assign_value *v) {
    return is_held(v->kind) && v->bytes.size <= size_max(v->kind) ? OK : ERR_PROTOCOL;
}

/* ---- out ---- */

static RESULT put_text(struct buf *out, const char *text, size_t room) {
    size_t size = strnlen(text, room);
    if (size == room) return ERR_INVALID;
    return buf_block(out, span_of(text, size));
}

#define PUT(field) TRY(put_text(out, field, sizeof(field)))

static RESULT put_plain(struct buf *out, const char *text, size_t room) {
    size_t start = out->size + 4;
    TRY(put_text(out, text, room));
    for (size_t i = start; i < out->size; i++)
        if (out->at[i] < ' ' || out->at[i] == 127) out->at[i] = ' ';
    return OK;
}

#define PUT_PLAIN(field) TRY(put_plain(out, field, sizeof(field)))

static RESULT put_id(struct buf *out, const char *id) {
    if (!is_id(id)) return ERR_INVALID;
    return buf_add(out, id, NODE_ID_SIZE);
}

static RESULT put_kind(struct buf *out, enum row_kind kind) {
    if (!is_held(kind)) return ERR_INVALID;
    return buf_u8(out, (uint8_t)kind);
}

/* Whatever fails leaves `out` as it was. */
static RESULT kept(enum err e, struct buf *out, size_t start) {
    if (e != OK) out->size = start;
    return e;
}

/* An item's kind and a length that item_end fills in. */
static RESULT item_start(struct buf *out, enum assign_item item) {
    TRY(buf_u8(out, (uint8_t)item));
    return buf_u32(out, 0);
}

static RESULT item_end(enum err e, struct buf *out, size_t start) {
    if (e == OK) put_u32(out->at + start + 1, (uint32_t)(out->size - start - 5));
    return kept(e, out, start);
}

static RESULT put_head(struct buf *out, const struct assign_head *h) {
    if (h->type != ASSIGN_COMPLETE && h->type != ASSIGN_INCREMENTAL) return ERR_INVALID;
    TRY(buf_u8(out, (uint8_t)h->type));
    TRY(buf_u64(out, h->applies_to));
    TRY(buf_u64(out, h->results_in));
    return buf_u8(out, h->last);
}

RESULT assign_begin(struct buf *out, const struct assign_head *h) {
    size_t start = out->size;
    return kept(put_head(out, h), out, start);
}

void assign_set_last(struct buf *body) { body->at[1 + 8 + 8] = 1; }

static RESULT put_file(struct buf *out, const struct assign_file *f) {
    if (f->mode > MODE_MAX) return ERR_INVALID;
    TRY(put_kind(out, f->kind));
    TRY(put_id(out, f->id));
    PUT(f->name);
    PUT(f->target);
    TRY(buf_u32(out, f->uid));
    TRY(buf_u32(out, f->gid));
    TRY(buf_u32(out, f->mode));
    TRY(buf_u32(out, f->version));
    TRY(buf_u8(out, f->follows));
    return buf_u8(out, f->templated);
}

/* What is to be run. */
static RESULT put_program(struct buf *out, const struct assign_task *t) {
    PUT(t->image);
    TRY(buf_block(out, t->command));
    TRY(buf_block(out, t->env));
    TRY(buf_block(out, t->mounts));
    TRY(buf_block(out, t->labels));
    PUT(t->user);
    PUT(t->dir);
    PUT(t->hostname);
    TRY(buf_u32(out, t->stop_signal));
    TRY(buf_u32(out, t->reload_signal));
    return buf_u64(out, (uint64_t)t->stop_grace_ns);
}

static RESULT put_task(struct buf *out, const struct assign_task *t) {
    if (task_check(t) != OK) return ERR_INVALID;
    TRY(item_start(out, ASSIGN_TASK));
    TRY(put_id(out, t->id));
    PUT(t->name);
    TRY(put_id(out, t->service_id));
    PUT(t->service_name);
    TRY(buf_u32(out, t->slot));
    TRY(buf_u32(out, (uint32_t)t->desired));
    TRY(buf_u64(out, (uint64_t)t->not_before_ns));
    TRY(put_program(out, t));
    TRY(buf_u32(out, t->n));
    for (unsigned i = 0; i < t->n; i++)
        TRY(put_file(out, &t->files[i]));
    return OK;
}

RESULT assign_add_task(struct buf *out, const struct assign_task *t) {
    size_t start = out->size;
    return item_end(put_task(out, t), out, start);
}

static RESULT put_value(struct buf *out, const struct assign_value *v) {
    if (value_check(v) != OK) return ERR_INVALID;
    TRY(put_kind(out, v->kind));
    TRY(put_id(out, v->id));
    TRY(buf_u8(out, v->task_id[0] != '\0'));
    if (v->task_id[0] != '\0') TRY(put_id(out, v->task_id));
    TRY(buf_u32(out, v->version));
    return buf_block(out, v->bytes);
}

static RESULT put_value_item(struct buf *out, const struct assign_value *v) {
    TRY(item_start(out, ASSIGN_VALUE));
    return put_value(out, v);
}

RESULT assign_add_value(struct buf *out, const struct assign_value *v) {
    size_t start = out->size;
    TRY(buf_reserve(out, ASSIGN_VALUE_OVERHEAD + v->bytes.size)); /* all of it, or nothing */
    return item_end(put_value_item(out, v), out, start);
}

static RESULT put_remove_task(struct buf *out, const char *id) {
    TRY(item_start(out, ASSIGN_REMOVE_TASK));
    return put_id(out, id);
}

RESULT assign_remove_task(struct buf *out, const char *id) {
    size_t start = out->size;
    return item_end(put_remove_task(out, id), out, start);
}

static RESULT put_remove_value(struct buf *out, enum row_kind kind, const char *id,
                               uint32_t version) {
    TRY(item_start(out, ASSIGN_REMOVE_VALUE));
    TRY(put_kind(out, kind));
    TRY(put_id(out, id));
    return buf_u32(out, version);
}

RESULT assign_remove_value(struct buf *out, enum row_kind kind, const char *id, uint32_t version) {
    size_t start = out->size;
    return item_end(put_remove_value(out, kind, id, version), out, start);
}

static RESULT put_report(struct buf *out, const struct task_report *r) {
    if (!is_reported(r->state)) return ERR_INVALID;
    TRY(put_id(out, r->id));
    TRY(buf_u32(out, (uint32_t)r->state));
    TRY(buf_u32(out, (uint32_t)r->exit_code));
    TRY(buf_u32(out, r->pid));
    PUT_PLAIN(r->message);
    PUT_PLAIN(r->error);
    return OK;
}

RESULT report_add(struct buf *out, const struct task_report *r) {
    size_t start = out->size;
    return kept(put_report(out, r), out, start);
}

static RESULT put_fetch(struct buf *out, const struct fetch *f) {
    if (f->n > SERVICE_REFS_MAX) return ERR_TOO_LARGE;
    TRY(buf_u64(out, f->number));
    TRY(buf_u32(out, f->n));
    for (unsigned i = 0; i < f->n; i++) {
        if (!is_held(f->want[i].kind) || !is_plain(f->want[i].name)) return ERR_INVALID;
        TRY(buf_u8(out, (uint8_t)f->want[i].kind));
        PUT(f->want[i].name);
        TRY(buf_u32(out, f->want[i].version));
    }
    return OK;
}

RESULT fetch_encode(const struct fetch *f, struct buf *out) {
    size_t start = out->size;
    return kept(put_fetch(out, f), out, start);
}

static RESULT put_fetched(struct buf *out, const struct fetched *f) {
    if (f->n > SERVICE_REFS_MAX) return ERR_TOO_LARGE;
    if ((unsigned)f->error >= ERR_COUNT || (f->error != OK && f->n > 0)) return ERR_INVALID;
    TRY(buf_u64(out, f->number));
    TRY(buf_u16(out, (uint16_t)f->error));
    PUT_PLAIN(f->text);
    TRY(buf_u32(out, f->n));
    for (unsigned i = 0; i < f->n; i++)
        TRY(put_value(out, &f->values[i]));
    return OK;
}

RESULT fetched_encode(const struct fetched *f, struct buf *out) {
    size_t start = out->size, more = 4 * WHY_MAX;
    for (unsigned i = 0; i < f->n && i < SERVICE_REFS_MAX; i++)
        more += ASSIGN_VALUE_OVERHEAD + f->values[i].bytes.size;
    TRY(buf_reserve(out, more));
    return kept(put_fetched(out, f), out, start);
}

/* ---- in ---- */

#define GET(field) TRY(cursor_text(c, field, sizeof(field)))

static RESULT get_plain(struct cursor *c, char *out, size_t room) {
    TRY(cursor_text(c, out, room));
    return is_plain(out) ? OK : ERR_PROTOCOL;
}

#define GET_PLAIN(field) TRY(get_plain(c, field, sizeof(field)))

static RESULT get_id(struct cursor *c, char out[NODE_ID_SIZE + 1]) {
    TRY(cursor_copy(c, out, NODE_ID_SIZE));
    out[NODE_ID_SIZE] = '\0';
    return is_id(out) ? OK : ERR_PROTOCOL;
}

static RESULT get_kind(struct cursor *c, enum row_kind *out) {
    uint8_t kind = 0;
    TRY(cursor_u8(c, &kind));
    if (!is_held(kind)) return ERR_PROTOCOL;
    *out = (enum row_kind)kind;
    return OK;
}

static RESULT get_flag(struct cursor *c, bool *out) {
    uint8_t v = 0;
    TRY(cursor_u8(c, &v));
    if (v > 1) return ERR_PROTOCOL;
    *out = v == 1;
    return OK;
}

static RESULT get_ns(struct cursor *c, int64_t *out) {
    uint64_t v = 0;
    TRY(cursor_u64(c, &v));
    if (v > INT64_MAX) return ERR_PROTOCOL;
    *out = (int64_t)v;
    return OK;
}

RESULT assign_head(struct cursor *in, struct assign_head *out) {
    struct assign_head h = {0};
    struct cursor c = *in;
    uint8_t type = 0;
    TRY(cursor_u8(&c, &type));
    if (type != ASSIGN_COMPLETE && type != ASSIGN_INCREMENTAL) return ERR_PROTOCOL;
    h.type = (enum assign_type)type;
    TRY(cursor_u64(&c, &h.applies_to));
    TRY(cursor_u64(&c, &h.results_in));
    TRY(get_flag(&c, &h.last));
    *in = c;
    *out = h;
    return OK;
}

static RESULT get_file(struct cursor *c, struct assign_file *f) {
    TRY(get_kind(c, &f->kind));
    TRY(get_id(c, f->id));
    GET(f->name);
    GET(f->target);
    TRY(cursor_u32(c, &f->uid));
    TRY(cursor_u32(c, &f->gid));
    TRY(cursor_u32(c, &f->mode));
    if (f->mode > MODE_MAX) return ERR_PROTOCOL;
    TRY(cursor_u32(c, &f->version));
    TRY(get_flag(c, &f->follows));
    return get_flag(c, &f->templated);
}

static RESULT get_program(struct cursor *c, struct assign_task *t) {
    GET(t->image);
    TRY(cursor_block(c, LIST_MAX, &t->command));
    TRY(cursor_block(c, LIST_MAX, &t->env));
    TRY(cursor_block(c, LIST_MAX, &t->mounts));
    TRY(cursor_block(c, NODE_LABELS_BYTES, &t->labels));
    GET(t->user);
    GET(t->dir);
    GET(t->hostname);
    TRY(cursor_u32(c, &t->stop_signal));
    TRY(cursor_u32(c, &t->reload_signal));
    return get_ns(c, &t->stop_grace_ns);
}

static RESULT get_files(struct cursor *c, struct assign_task *t) {
    uint32_t n = 0;
    TRY(cursor_u32(c, &n));
    if (n > SERVICE_REFS_MAX) return ERR_PROTOCOL;
    for (t->n = 0; t->n < n; t->n++)
        TRY(get_file(c, &t->files[t->n]));
    return OK;
}

static RESULT get_task(struct cursor *c, struct assign_task *t) {
    uint32_t desired = 0;
    TRY(get_id(c, t->id));
    GET(t->name);
    TRY(get_id(c, t->service_id));
    GET(t->service_name);
    TRY(cursor_u32(c, &t->slot));
    TRY(cursor_u32(c, &desired));
    if (!is_wanted(desired)) return ERR_PROTOCOL;
    t->desired = (enum task_state)desired;
    TRY(get_ns(c, &t->not_before_ns));
    TRY(get_program(c, t));
    TRY(get_files(c, t));
    TRY(cursor_end(c));
    return task_check(t);
}

static RESULT get_value(struct cursor *c, struct assign_value *v) {
    bool of_task = false;
    TRY(get_kind(c, &v->kind));
    TRY(get_id(c, v->id));
    TRY(get_flag(c, &of_task));
    v->task_id[0] = '\0';
    if (of_task) TRY(get_id(c, v->task_id));
    TRY(cursor_u32(c, &v->version));
    return cursor_block(c, size_max(v->kind), &v->bytes);
}

static RESULT get_value_item(struct cursor *c, struct assign_one *one) {
    TRY(get_value(c, &one->value));
    return cursor_end(c);
}

static RESULT get_removed(struct cursor *c, struct assign_one *one) {
    if (one->item == ASSIGN_REMOVE_VALUE) TRY(get_kind(c, &one->kind));
    TRY(get_id(c, one->id));
    if (one->item == ASSIGN_REMOVE_VALUE) TRY(cursor_u32(c, &one->version));
    return cursor_end(c);
}

static RESULT get_item(struct span bytes, struct assign_task *task, struct assign_one *one) {
    struct cursor c = cursor_of(bytes);
    switch (one->item) {
    case ASSIGN_TASK: one->task = task; return get_task(&c, task);
    case ASSIGN_VALUE: return get_value_item(&c, one);
    case ASSIGN_REMOVE_TASK:
    case ASSIGN_REMOVE_VALUE: return get_removed(&c, one);
    default: return ERR_PROTOCOL;
    }
}

RESULT assign_next(struct cursor *in, struct assign_task *task, struct assign_one *out,
                   bool *more) {
    struct assign_one one = {0};
    struct cursor c = *in;
    struct span bytes;
    uint8_t item = 0;
    if (c.left == 0) {
        *more = false;
        return OK;
    }
    TRY(cursor_u8(&c, &item));
    one.item = (enum assign_item)item;
    TRY(cursor_block(&c, SESSION_BODY_MAX, &bytes));
    TRY(get_item(bytes, task, &one));
    *in = c;
    *out = one;
    *more = true;
    return OK;
}

static RESULT get_report(struct cursor *c, struct task_report *r) {
    uint32_t state = 0, exit_code = 0;
    TRY(get_id(c, r->id));
    TRY(cursor_u32(c, &state));
    if (!is_reported(state)) return ERR_PROTOCOL;
    r->state = (enum task_state)state;
    TRY(cursor_u32(c, &exit_code));
    r->exit_code = (int32_t)exit_code;
    TRY(cursor_u32(c, &r->pid));
    GET_PLAIN(r->message);
    GET_PLAIN(r->error);
    return OK;
}

RESULT report_next(struct cursor *in, struct task_report *out, bool *more) {
    struct task_report r = {0};
    struct cursor c = *in;
    *more = false;
    if (c.left == 0) return OK;
    TRY(get_report(&c, &r));
    *in = c;
    *out = r;
    *more = true;
    return OK;
}

static RESULT get_fetch(struct cursor *c, struct fetch *f) {
    uint32_t n = 0;
    TRY(cursor_u64(c, &f->number));
    TRY(cursor_u32(c, &n));
    if (n > SERVICE_REFS_MAX) return ERR_PROTOCOL;
    for (f->n = 0; f->n < n; f->n++) {
        TRY(get_kind(c, &f->want[f->n].kind));
        GET_PLAIN(f->want[f->n].name);
        TRY(cursor_u32(c, &f->want[f->n].version));
    }
    return cursor_end(c);
}

RESULT fetch_decode(struct span body, struct fetch *out) {
    struct fetch f = {0};
    struct cursor c = cursor_of(body);
    TRY(get_fetch(&c, &f));
    *out = f;
    return OK;
}

static RESULT get_fetched(struct cursor *c, struct fetched *f) {
    uint32_t n = 0;
    uint16_t error = 0;
    TRY(cursor_u64(c, &f->number));
    TRY(cursor_u16(c, &error));
    if (error >= ERR_COUNT) return ERR_PROTOCOL;
    f->error = (enum err)error;
    GET_PLAIN(f->text);
    TRY(cursor_u32(c, &n));
    if (n > SERVICE_REFS_MAX || (error != OK && n > 0)) return ERR_PROTOCOL;
    for (f->n = 0; f->n < n; f->n++)
        TRY(get_value(c, &f->values[f->n]));
    return cursor_end(c);
}

RESULT fetched_decode(struct span body, struct fetched *out) {
    struct fetched f = {0};
    struct cursor c = cursor_of(body);
    TRY(get_fetched(&c, &f));
    *out = f;
    return OK;
}
