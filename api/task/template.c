/* See template.h. An action is cut into words, then looked up in one table of fields or done as one
 * of four functions. */
#include "api/task/template.h"

#include <ctype.h>
#include <stdio.h>

#define WORDS_MAX 4

struct word {
    struct span text;
    bool quoted;
};

struct action {
    struct span text;
    unsigned number; /* from 1, in its template */
    struct word words[WORDS_MAX];
    unsigned n;
};

static bool is(struct span s, const char *text) { return span_equal(s, span_str(text)); }

static bool is_blank(uint8_t c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static RESULT wrong(const struct action *a, const char *what, struct why *why) {
    return fail_with(why, ERR_INVALID, "template, action %u: %s", a->number, what);
}

/* --- what there is ---------------------------------------------------------------------------- */

static RESULT label(const struct template_scope *s, struct span key, struct buf *out) {
    struct span value;
    return labels_find(s->service_labels, key, &value) ? buf_add_span(out, value) : OK;
}

static RESULT variable(const struct template_scope *s, struct span name, struct buf *out) {
    struct cursor c = cursor_of(s->env);
    struct span v;
    while (c.left > 0) {
        TRY(cursor_block(&c, SIZE_MAX, &v));
        if (v.size <= name.size || v.at[name.size] != '=') continue;
        if (!span_equal(span_of(v.at, name.size), name)) continue;
        return buf_add(out, v.at + name.size + 1, v.size - name.size - 1);
    }
    return OK;
}

static RESULT field(const struct action *action, struct span path, const struct template_scope *s,
                    struct buf *out, struct why *why) {
    static const char labels[] = ".Service.Labels.";
    char slot[16];
    (void)snprintf(slot, sizeof slot, "%u", s->slot);
    const struct {
        const char *path, *value;
    } fields[] = {{".Service.ID", s->service_id},
                  {".Service.Name", s->service_name},
                  {".Node.ID", s->node.id},
                  {".Node.Hostname", s->node.hostname},
                  {".Node.Platform.OS", s->node.os},
                  {".Node.Platform.Architecture", s->node.arch},
                  {".Task.ID", s->task_id},
                  {".Task.Name", s->task_name},
                  {".Task.Slot", slot}};
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        if (is(path, fields[i].path)) return buf_add_span(out, span_str(fields[i].value));
    size_t size = sizeof labels - 1;
    if (path.size > size && memcmp(path.at, labels, size) == 0)
        return label(s, span_of(path.at + size, path.size - size), out);
    return wrong(action, "there is no such field", why);
}

static RESULT file(const struct action *action, enum row_kind kind, struct span target,
                   const struct template_scope *s, struct buf *out, struct why *why) {
    struct span value;
    if (!s->value) return wrong(action, "values of files can't stand here", why);
    if (!s->value(s->ctx, kind, target, &value))
        return wrong(action, "the service has no such file", why);
    return buf_add_span(out, value);
}

/* --- an action -------------------------------------------------------------------------------- */

/* Words apart by blanks; "..." without escapes, `...`, or anything else up to a blank. */
static RESULT cut(struct action *out, struct why *why) {
    const uint8_t *at = out->text.at, *end = at + out->text.size;
    while (at < end) {
        if (is_blank(*at)) {
            at++;
            continue;
        }
        if (out->n == WORDS_MAX) return wrong(out, "too many words", why);
        struct word *w = &out->words[out->n++];
        uint8_t quote = *at == '"' || *at == '`' ? *at : 0;
        const uint8_t *from = quote ? at + 1 : at;
        w->quoted = quote != 0;
        for (at = from; at < end && (quote ? *at != quote : !is_blank(*at)); at++)
            if (*at == '|' || *at == '(' || *at == ')' || (quote == '"' && *at == '\\'))
                return wrong(out, "only plain fields and functions are known", why);
        if (quote && at == end) return wrong(out, "a quote is not closed", why);
        w->text = span_of(from, (size_t)(at - from));
        if (quote) at++;
    }
    return OK;
}

static RESULT perform(struct action *action, const struct template_scope *s, struct buf *out,
                      struct why *why) {
    TRY(cut(action, why));
    const struct action a = *action;
    if (a.n == 0) return wrong(action, "it is empty", why);
    struct span first = a.words[0].text, second = a.words[1].text;
    if (a.n == 1 && !a.words[0].quoted && first.size > 0 && first.at[0] == '.')
        return field(action, first, s, out, why);
    if (a.n == 2 && a.words[1].quoted && is(first, "secret"))
        return file(action, ROW_SECRET, second, s, out, why);
    if (a.n == 2 && a.words[1].quoted && is(first, "config"))
        return file(action, ROW_CONFIG, second, s, out, why);
    if (a.n == 2 && a.words[1].quoted && is(first, "env")) {
        if (!s->value) return wrong(action, "variables can't stand here", why);
        return variable(s, second, out);
    }
    if (a.n == 3 && is(first, "index") && is(second, ".Service.Labels") && a.words[2].quoted)
        return label(s, a.words[2].text, out);
    return wrong(action,
                 "only .Service, .Node, .Task, env, secret, config and index .Service.Labels are "
                 "known",
                 why);
}

/* --- the text --------------------------------------------------------------------------------- */

static bool is_comment(struct span action) {
    return action.size >= 4 && memcmp(action.at, "/*", 2) == 0 &&
           memcmp(action.at + action.size - 2, "*/", 2) == 0;
}

/* "- x -" of an action: the blanks beside it go. A '-' counts beside a blank only. */
static struct span trim(struct span action, bool *before, bool *after) {
    *before = action.size >= 2 && action.at[0] == '-' && is_blank(action.at[1]);
    if (*before) action = span_of(action.at + 2, action.size - 2);
    *after = action.size >= 2 && action.at[action.size - 1] == '-' &&
             is_blank(action.at[action.size - 2]);
    if (*after) action.size -= 2;
    return action;
}

RESULT template_expand(struct span text, const struct template_scope *scope, struct buf *out,
                       struct why *why) {
    bool before, after = false;
    struct action a = {.n = 0};
    while (text.size > 0) {
        const uint8_t *open = memmem(text.at, text.size, "{{", 2);
        struct span plain = text;
        if (open) plain.size = (size_t)(open - text.at);
        text = span_of(plain.at + plain.size, text.size - plain.size);
        while (after && plain.size > 0 && is_blank(plain.at[0]))
            plain = span_of(plain.at + 1, plain.size - 1);
        after = false;
        struct span action = {0};
        if (text.size > 0) {
            const uint8_t *close = memmem(text.at + 2, text.size - 2, "}}", 2);
            if (!close || (size_t)(close - text.at) > TEMPLATE_ACTION_MAX)
                return fail_with(why, ERR_INVALID, "template: an action {{ is not closed by }}");
            action = span_of(text.at + 2, (size_t)(close - text.at) - 2);
            text = span_of(close + 2, text.size - action.size - 4);
            action = trim(action, &before, &after);
            while (before && plain.size > 0 && is_blank(plain.at[plain.size - 1]))
                plain.size--;
        }
        TRY(buf_add_span(out, plain));
        if (!action.at || is_comment(action)) continue;
        a = (struct action){.text = action, .number = a.number + 1};
        TRY(perform(&a, scope, out, why));
    }
    return OK;
}
