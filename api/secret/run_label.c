/* Who may have a secret by `conclave run`: its label lists nodes by what they can't choose, ids and
 * names that the operator gave. A host name is a node's own word, so it is none of these: said by
 * the operator, it becomes the id of the one node that has it at that moment. */
#include "api/secret/secrets_parts.h"

#include "store/node.h"

static struct span trimmed(struct span s) {
    while (s.size > 0 && s.at[0] == ' ')
        s = span_of(s.at + 1, s.size - 1);
    while (s.size > 0 && s.at[s.size - 1] == ' ')
        s.size--;
    return s;
}

bool run_label_next(struct span *list, struct span *word) {
    while (list->size > 0) {
        size_t n = 0;
        while (n < list->size && list->at[n] != ',')
            n++;
        *word = trimmed(span_of(list->at, n));
        size_t past = n < list->size ? n + 1 : n;
        *list = span_of(list->at + past, list->size - past);
        if (word->size > 0) return true;
    }
    return false;
}

static RESULT add_word(const struct store *s, struct span word, struct buf *out, struct why *why) {
    struct row row;
    char id[NODE_ID_SIZE + 1] = "";
    int size = (int)(word.size < NODE_TEXT_MAX ? word.size : NODE_TEXT_MAX);
    if (word.size <= NODE_ID_SIZE) memcpy(id, word.at, word.size);
    bool known = span_equal(word, span_str("*")) || row_get(s, ROW_NODE, id, &row) ||
                 (row_named(s, ROW_NODE, word, &row) && span_equal(word, row.name));
    unsigned n = known ? 0 : node_row_of_host(s, word, id);
    if (n > 1)
        return fail_with(why, ERR_INVALID,
                         RUN_LABEL ": more than one node has the host name %.*s; say an id", size,
                         (const char *)word.at);
    if (!known && n == 0)
        return fail_with(why, ERR_NOT_FOUND, RUN_LABEL ": there is no node %.*s", size,
                         (const char *)word.at);
    if (out->size > 0) TRY(buf_u8(out, ','));
    return buf_add_span(out, known ? word : span_str(id));
}

static RESULT resolve(const struct store *s, struct span list, struct buf *out, struct why *why) {
    struct span word;
    while (run_label_next(&list, &word))
        TRY(add_word(s, word, out, why));
    return OK;
}

RESULT run_label_resolve(const struct store *s, struct span before, struct span labels,
                         struct buf *out, struct why *why) {
    struct cursor in = cursor_of(labels);
    struct span key, value, old;
    struct buf list = buf_new(NODE_LABELS_BYTES);
    bool had = labels_find(before, span_str(RUN_LABEL), &old);
    enum err e = OK;
    while (e == OK && labels_next(&in, &key, &value)) {
        if (span_equal(key, span_str(RUN_LABEL)) && !(had && span_equal(value, old))) {
            e = resolve(s, value, &list, why);
            value = buf_span(&list);
        }
        if (e == OK) e = labels_add(out, key, value);
    }
    buf_free(&list);
    return e == ERR_TOO_LARGE ? fail_with(why, ERR_INVALID, RUN_LABEL ": too many nodes") : e;
}
