/* See file_word.h. The text is cut at its commas; each part is checked before it is taken, and a
 * part that is told twice is a mistake. */
#include "api/cli/file_word.h"

#define MODE_MAX 0777

enum part { PART_NAME, PART_TARGET, PART_UID, PART_GID, PART_MODE, PART_VERSION, PARTS };

static const struct {
    const char *key;
    enum part part;
} parts[] = {
    {"source", PART_NAME}, {"src", PART_NAME},  {"target", PART_TARGET},   {"uid", PART_UID},
    {"gid", PART_GID},     {"mode", PART_MODE}, {"version", PART_VERSION},
};

static bool is_text(struct span s, const char *text) { return span_equal(s, span_str(text)); }

/* The bytes up to `end`, which is stepped over; all of it when there is none. */
static struct span take_until(struct span *left, char end) {
    const uint8_t *at = left->size > 0 ? memchr(left->at, end, left->size) : NULL;
    size_t size = at ? (size_t)(at - left->at) : left->size;
    struct span head = span_of(left->at, size);
    size_t gone = at ? size + 1 : size;
    *left = span_of(left->at + gone, left->size - gone);
    return head;
}

static RESULT number(struct span s, unsigned base, uint32_t least, uint32_t most, const char *what,
                     uint32_t *out, struct why *why) {
    uint64_t n = 0;
    bool good = s.size > 0 && s.size <= 11;
    for (size_t i = 0; good && i < s.size; i++) {
        good = s.at[i] >= '0' && s.at[i] < (uint8_t)('0' + base);
        n = n * base + (uint64_t)(s.at[i] - '0');
    }
    if (!good || n < least || n > most)
        return fail_with(why, ERR_INVALID, "%s is %s from %u to %u", what,
                         base == 8 ? "an octal number" : "a number", (unsigned)least,
                         (unsigned)most);
    *out = (uint32_t)n;
    return OK;
}

/* Printable, no NUL, no "." or ".." between its slashes. */
static bool good_path(struct span s) {
    if (s.size == 0 || s.size > TARGET_MAX || s.at[s.size - 1] == '/') return false;
    for (size_t i = 0; i < s.size; i++)
        if (s.at[i] < ' ' || s.at[i] == 127) return false;
    struct span left = s.at[0] == '/' ? span_of(s.at + 1, s.size - 1) : s;
    while (left.size > 0) {
        struct span name = take_until(&left, '/');
        if (name.size == 0 || is_text(name, ".") || is_text(name, "..")) return false;
    }
    return true;
}

static bool is_path(struct span s) { return s.size > 0 && memchr(s.at, '/', s.size) != NULL; }

static RESULT take_target(struct span s, bool paths, struct file_word *out, struct why *why) {
    if (!good_path(s)) return fail_with(why, ERR_INVALID, "target is no name of a file");
    if (is_path(s) && (!paths || s.at[0] != '/'))
        return fail_with(why, ERR_INVALID,
                         paths ? "target is one name or an absolute path"
                               : "target is one name, without '/'");
    memcpy(out->target, s.at, s.size);
    out->target[s.size] = '\0';
    return OK;
}

static RESULT take_name(struct span s, struct file_word *out, struct why *why) {
    TRY(held_name_check(s, why));
    memcpy(out->name, s.at, s.size);
    out->name[s.size] = '\0';
    return OK;
}

static RESULT take_part(enum part part, struct span value, bool paths, struct file_word *out,
                        struct why *why) {
    switch (part) {
    case PART_NAME: return take_name(value, out, why);
    case PART_TARGET: return take_target(value, paths, out, why);
    case PART_UID: return number(value, 10, 0, UINT32_MAX - 1, "uid", &out->uid, why);
    case PART_GID: return number(value, 10, 0, UINT32_MAX - 1, "gid", &out->gid, why);
    case PART_MODE: return number(value, 8, 0, MODE_MAX, "mode", &out->mode, why);
    case PART_VERSION: return number(value, 10, 1, UINT32_MAX, "version", &out->version, why);
    case PARTS: break;
    }
    return ERR_INTERNAL;
}

/* KEY=VALUE, or the name alone as the first one. */
static RESULT split_part(struct span text, bool first, enum part *part, struct span *value,
                         struct why *why) {
    bool keyed = text.size > 0 && memchr(text.at, '=', text.size) != NULL;
    struct span key = keyed ? take_until(&text, '=') : span_str("source");
    *value = text;
    if (!keyed && !first)
        return fail_with(why, ERR_INVALID, "each part but the first is KEY=VALUE");
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        *part = parts[i].part;
        if (is_text(key, parts[i].key)) return OK;
    }
    return fail_with(why, ERR_INVALID,
                     "there are target=, uid=, gid=, mode= and version=, but no such part");
}

RESULT file_word_parse(const char *text, bool paths, struct file_word *out, struct why *why) {
    struct file_word w = {.mode = 0444};
    struct span left = span_str(text), value;
    bool told[PARTS] = {false}, first = true;
    enum part part = PART_NAME;
    do {
        bool more = left.size > 0 && memchr(left.at, ',', left.size) != NULL;
        TRY(split_part(take_until(&left, ','), first, &part, &value, why));
        if (told[part]) return fail_with(why, ERR_INVALID, "a part is told twice");
        TRY(take_part(part, value, paths, &w, why));
        told[part] = true;
        first = false;
        if (more && left.size == 0) return fail_with(why, ERR_INVALID, "nothing follows a comma");
    } while (left.size > 0);
    if (!told[PART_NAME]) return fail_with(why, ERR_INVALID, "no name is told");
    if (!told[PART_TARGET]) memcpy(w.target, w.name, sizeof w.name);
    *out = w;
    return OK;
}

static RESULT take_path(struct span s, const char *what, char out[TARGET_MAX + 1],
                        struct why *why) {
    bool root = is_text(s, "/");
    if (s.size == 0 || s.at[0] != '/' || !(root || good_path(s)))
        return fail_with(why, ERR_INVALID, "the %s is no absolute path", what);
    memcpy(out, s.at, s.size);
    out[s.size] = '\0';
    return OK;
}

RESULT mount_word_parse(const char *text, struct mount_word *out, struct why *why) {
    struct mount_word w = {0};
    struct span left = span_str(text);
    TRY(take_path(take_until(&left, ':'), "source", w.source, why));
    TRY(take_path(take_until(&left, ':'), "target", w.target, why));
    if (strcmp(w.target, "/") == 0)
        return fail_with(why, ERR_INVALID, "the root itself can't be mounted over");
    w.read_only = is_text(left, "ro");
    if (left.size > 0 && !w.read_only && !is_text(left, "rw"))
        return fail_with(why, ERR_INVALID, "what follows the target is 'ro' or 'rw'");
    *out = w;
    return OK;
}
