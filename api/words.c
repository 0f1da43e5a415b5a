/* See words.h. Labels are kept in the ascending order of their keys, so a change is a merge: what
 * was there and what is added are walked side by side, smallest key first. */
#include "api/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* --- durations and moments ------------------------------------------------------------------ */

static const struct {
    char name; /* of the unit */
    int64_t s; /* seconds of one */
} units[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};

static RESULT bad_duration(const char *text, struct why *why) {
    return fail_with(why, ERR_INVALID, "'%.40s' is no duration like 90d, 1h30m or 45s", text);
}

/* The digits at *at; what follows them is *at then. */
static bool take_number(const char **at, int64_t *out) {
    int64_t n = 0;
    const char *c = *at;
    for (; *c >= '0' && *c <= '9'; c++) {
        n = n * 10 + (*c - '0');
        if (n > DURATION_MAX_S) return false;
    }
    bool any = c != *at;
    *at = c;
    *out = n;
    return any;
}

RESULT words_duration(const char *text, int64_t *out_s, struct why *why) {
    const char *at = text;
    int64_t sum = 0, n;
    size_t next = 0; /* the largest unit that may still come */
    do {
        if (!take_number(&at, &n)) return bad_duration(text, why);
        while (next < ARRAY_SIZE(units) && units[next].name != *at)
            next++;
        if (next == ARRAY_SIZE(units)) return bad_duration(text, why);
        if (n > (DURATION_MAX_S - sum) / units[next].s) return bad_duration(text, why);
        sum += n * units[next++].s;
        at++;
    } while (*at != '\0');
    *out_s = sum;
    return OK;
}

const char *words_duration_text(int64_t s, char out[DURATION_TEXT]) {
    size_t size = 0;
    out[0] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        int64_t n = s / units[i].s;
        s %= units[i].s;
        if (n == 0 && (size > 0 || units[i].name != 's')) continue;
        int more =
            snprintf(out + size, DURATION_TEXT - size, "%lld%c", (long long)n, units[i].name);
        size += more > 0 ? (size_t)more : 0;
    }
    return out;
}

const char *words_moment(int64_t utc_s, char out[MOMENT_TEXT]) {
    struct tm utc;
    time_t at = (time_t)utc_s;
    if (utc_s == 0)
        (void)snprintf(out, MOMENT_TEXT, "never");
    else if (!gmtime_r(&at, &utc) || strftime(out, MOMENT_TEXT, "%Y-%m-%d %H:%M UTC", &utc) == 0)
        (void)snprintf(out, MOMENT_TEXT, "?");
    return out;
}

/* --- tables --------------------------------------------------------------------------------- */

struct word {
    const char *text;
    int value;
};

static const struct word roles[] = {{"worker", NODE_WORKER}, {"manager", NODE_MANAGER}, {NULL, 0}};
static const struct word availabilities[] = {
    {"active", NODE_ACTIVE}, {"pause", NODE_PAUSE}, {"drain", NODE_DRAIN}, {NULL, 0}};
static const struct word states[] = {{"unknown", NODE_UNKNOWN},
                                     {"down", NODE_DOWN},
                                     {"ready", NODE_READY},
                                     {"disconnected", NODE_DISCONNECTED},
                                     {NULL, 0}};
static const struct word certificates[] = {{"issued", NODE_CERT_ISSUED},
                                           {"renew", NODE_CERT_RENEW},
                                           {"pending", NODE_CERT_PENDING},
                                           {NULL, 0}};
static const struct word readmits[] = {{"approval", READMIT_APPROVAL},
                                       {"automatic", READMIT_AUTOMATIC},
                                       {"never", READMIT_NEVER},
                                       {NULL, 0}};

static RESULT find(const struct word *table, const char *what, const char *text, int *out,
                   struct why *why) {
    struct buf all = buf_new(256);
    for (const struct word *w = table; w->text; w++) {
        if (strcmp(w->text, text) == 0) {
            *out = w->value;
            buf_free(&all);
            return OK;
        }
        enum err e = buf_format(&all, "%s%s", w == table ? "" : ", ", w->text);
        if (e != OK) break;
    }
    enum err e = fail_with(why, ERR_INVALID, "'%.40s' is no %s; there are: %.*s", text, what,
                           (int)all.size, (const char *)all.at);
    buf_free(&all);
    return e;
}

static const char *name_of(const struct word *table, int value) {
    for (const struct word *w = table; w->text; w++)
        if (w->value == value) return w->text;
    return "?";
}

RESULT words_role(const char *text, enum node_role *out, struct why *why) {
    int value;
    TRY(find(roles, "role", text, &value, why));
    *out = (enum node_role)value;
    return OK;
}

RESULT words_availability(const char *text, enum node_availability *out, struct why *why) {
    int value;
    TRY(find(availabilities, "availability", text, &value, why));
    *out = (enum node_availability)value;
    return OK;
}

RESULT words_readmit(const char *text, enum readmit *out, struct why *why) {
    int value;
    TRY(find(readmits, "rule of readmission", text, &value, why));
    *out = (enum readmit)value;
    return OK;
}

const char *words_of_role(enum node_role role) { return name_of(roles, (int)role); }
const char *words_of_availability(enum node_availability a) {
    return name_of(availabilities, (int)a);
}
const char *words_of_state(enum node_state s) { return name_of(states, (int)s); }
const char *words_of_certificate(enum node_certificate c) { return name_of(certificates, (int)c); }
const char *words_of_readmit(enum readmit r) { return name_of(readmits, (int)r); }

/* --- labels --------------------------------------------------------------------------------- */

static bool is_key_byte(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '/';
}

RESULT label_check(struct span key, struct span value, struct why *why) {
    if (key.size == 0 || key.size > LABEL_KEY_MAX)
        return fail_with(why, ERR_INVALID, "a label's key has 1 to %d characters", LABEL_KEY_MAX);
    for (size_t i = 0; i < key.size; i++)
        if (!is_key_byte(key.at[i]))
            return fail_with(why, ERR_INVALID,
                             "a label's key has only letters, digits, '.', '_', '-' and '/'");
    if (value.size > LABEL_VALUE_MAX)
        return fail_with(why, ERR_INVALID, "a label's value has at most %d bytes", LABEL_VALUE_MAX);
    for (size_t i = 0; i < value.size; i++)
        if (value.at[i] < ' ' || value.at[i] == 127)
            return fail_with(why, ERR_INVALID, "a label's value has no control characters");
    return OK;
}

RESULT words_label(const char *text, struct span *key, struct span *value, struct why *why) {
    const char *equals = strchr(text, '=');
    *key = equals ? span_of(text, (size_t)(equals - text)) : span_str(text);
    *value = equals ? span_str(equals + 1) : span_str("");
    return label_check(*key, *value, why);
}

struct label {
    struct span key, value;
};

static int by_key(const void *a, const void *b) {
    return span_compare(((const struct label *)a)->key, ((const struct label *)b)->key);
}

/* The members of a JSON object in order. */
static RESULT sorted(const json_t *object, struct label *out, unsigned *n, struct why *why) {
    const char *key;
    json_t *value;
    *n = 0;
    if (!object || json_is_null(object)) return OK;
    if (!json_is_object(object)) return fail_with(why, ERR_INVALID, "labels are no object");
    if (json_object_size(object) > NODE_LABELS_MAX)
        return fail_with(why, ERR_INVALID, "there are at most %d labels", NODE_LABELS_MAX);
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        struct label *l = &out[(*n)++];
        if (!json_is_string(value)) return fail_with(why, ERR_INVALID, "a label's value is a text");
        *l = (struct label){.key = span_str(key),
                            .value = span_of(json_string_value(value), json_string_length(value))};
        TRY(label_check(l->key, l->value, why));
    }
    qsort(out, *n, sizeof *out, by_key);
    return OK;
}

static bool is_removed(const json_t *remove, struct span key) {
    size_t i;
    const json_t *text;
    json_array_foreach(remove, i, text) {
        if (json_is_string(text) &&
            span_equal(span_of(json_string_value(text), json_string_length(text)), key))
            return true;
    }
    return false;
}

/* What a row has, as an array. */
static unsigned present(struct span before, struct label out[NODE_LABELS_MAX]) {
    struct cursor c = cursor_of(before);
    unsigned n = 0;
    while (n < NODE_LABELS_MAX && labels_next(&c, &out[n].key, &out[n].value))
        n++;
    return n;
}

RESULT labels_change(struct span before, const json_t *add, const json_t *remove, struct buf *out,
                     struct why *why) {
    struct label old[NODE_LABELS_MAX], new[NODE_LABELS_MAX];
    unsigned n_old = present(before, old), n_new, i = 0, k = 0, n = 0;
    TRY(sorted(add, new, &n_new, why));
    while (i < n_old || k < n_new) {
        int order = i == n_old ? 1 : k == n_new ? -1 : span_compare(old[i].key, new[k].key);
        const struct label *l = order < 0 ? &old[i] : &new[k];
        i += order <= 0;
        k += order >= 0;
        if (order < 0 && is_removed(remove, l->key)) continue;
        if (n++ == NODE_LABELS_MAX)
            return fail_with(why, ERR_INVALID, "there are at most %d labels", NODE_LABELS_MAX);
        TRY(labels_add(out, l->key, l->value));
    }
    if (out->size > NODE_LABELS_BYTES)
        return fail_with(why, ERR_INVALID, "labels take at most %llu bytes", NODE_LABELS_BYTES);
    return OK;
}

void labels_put(struct jout *j, const char *key, struct span labels) {
    struct label all[NODE_LABELS_MAX];
    unsigned n = present(labels, all);
    jout_key(j, key);
    jout_open(j, '{');
    for (unsigned i = 0; i < n; i++) {
        char name[LABEL_KEY_MAX + 1];
        size_t size = all[i].key.size < sizeof name ? all[i].key.size : sizeof name - 1;
        memcpy(name, all[i].key.at, size);
        name[size] = '\0';
        jout_key(j, name);
        jout_text(j, all[i].value);
    }
    jout_close(j, '}');
}
