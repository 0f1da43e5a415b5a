/* The proof of a trail, for whoever reads it: see audit.h. */
#include <stdlib.h>

#include "api/secret/audit.h"

RESULT audit_walk_start(struct audit_walk *w, struct span roots_pem,
                        const struct audit_head *kept) {
    *w = (struct audit_walk){.roots_pem = roots_pem, .kept = kept};
    w->ring = calloc(AUDIT_WALK_KEPT, sizeof *w->ring);
    return w->ring ? OK : ERR_NOMEM;
}

void audit_walk_end(struct audit_walk *w) {
    free(w->ring);
    w->ring = NULL;
}

static enum err wrong(struct why *why, uint64_t number, const char *what) {
    return fail_with(why, ERR_CORRUPT, "record %llu: %s", (unsigned long long)number, what);
}

/* It follows the one before, and its own hash is right. */
static RESULT check_link(const struct audit_walk *w, const struct audit_link *l, struct why *why) {
    uint8_t chain[AUDIT_CHAIN];
    if (w->last > 0 && l->number <= w->last) return wrong(why, l->number, "it comes twice");
    if (w->last > 0 && l->number != w->last + 1) return wrong(why, w->last + 1, "it is missing");
    if (w->last > 0 && memcmp(l->prev, w->chain, sizeof chain) != 0)
        return wrong(why, l->number, "it does not follow from the one before");
    audit_chain(l->prev, l->number, l->time_ns, l->record, chain);
    if (memcmp(chain, l->chain, sizeof chain) != 0)
        return wrong(why, l->number, "it was altered: its hash is another one");
    return OK;
}

/* A head in the trail: of a record that is still known, it has to be the same; and signed. */
static RESULT check_head(struct audit_walk *w, const struct audit_link *l, struct why *why) {
    struct audit_head h;
    struct why refused = {0};
    if (audit_head_decode(l->is.detail, &h) != OK)
        return wrong(why, l->number, "the head in it can't be read");
    if (h.number >= l->number) return wrong(why, l->number, "the head in it is of a later record");
    bool known = w->last > 0 && h.number >= w->first && h.number + AUDIT_WALK_KEPT > w->last;
    if (known && memcmp(w->ring[h.number % AUDIT_WALK_KEPT], h.chain, sizeof h.chain) != 0)
        return wrong(why, l->number, "the head in it is of another trail");
    enum err e = audit_head_proven(&h, &refused);
    if (e != OK) return e == ERR_NOMEM ? e : wrong(why, l->number, "the head's signature is wrong");
    e = audit_head_check(&h, w->roots_pem, &refused);
    if (e == ERR_NOMEM) return e;
    if (e == OK)
        w->heads++;
    else
        w->strangers++;
    return OK;
}

static void keep(struct audit_walk *w, const struct audit_link *l) {
    if (w->last == 0) w->first = l->number;
    w->last = l->number;
    memcpy(w->chain, l->chain, sizeof w->chain);
    memcpy(w->ring[l->number % AUDIT_WALK_KEPT], l->chain, sizeof w->chain);
}

/* The head that was kept stands at this record, or right before the first one that is left. */
static RESULT compare(struct audit_walk *w, const struct audit_link *l, struct why *why) {
    const struct audit_head *kept = w->kept;
    if (!kept || w->passed) return OK;
    bool here = kept->number == l->number;
    bool before = w->first == l->number && kept->number == l->number - 1;
    if (!here && !before) return OK;
    if (memcmp(kept->chain, here ? l->chain : l->prev, AUDIT_CHAIN) != 0)
        return fail_with(why, ERR_CORRUPT,
                         "the trail was rewritten: at record %llu it is not the one of the head "
                         "that was kept",
                         (unsigned long long)kept->number);
    w->passed = true;
    return OK;
}

RESULT audit_walk_link(struct audit_walk *w, const struct audit_link *l, struct why *why) {
    TRY(check_link(w, l, why));
    if (l->is.what == AUDIT_HEAD) TRY(check_head(w, l, why));
    keep(w, l);
    return compare(w, l, why);
}

RESULT audit_walk_has(const struct audit_walk *w, const struct audit_head *h, struct why *why) {
    if (h->number == 0 && w->last == 0) return OK;
    bool known = h->number >= w->first && h->number <= w->last &&
                 h->number + AUDIT_WALK_KEPT > w->last && h->number > 0;
    if (known && memcmp(w->ring[h->number % AUDIT_WALK_KEPT], h->chain, AUDIT_CHAIN) == 0)
        return OK;
    return fail_with(why, ERR_CORRUPT, "the head (record %llu) is not that of the records",
                     (unsigned long long)h->number);
}

RESULT audit_walk_finish(struct audit_walk *w, struct why *why) {
    if (!w->kept || w->passed || (w->kept->number == 0 && w->first <= 1)) return OK;
    if (w->kept->number < w->first)
        return fail_with(why, ERR_NOT_FOUND,
                         "the trail begins at record %llu, after the head that was kept (%llu)",
                         (unsigned long long)w->first, (unsigned long long)w->kept->number);
    return fail_with(why, ERR_CORRUPT,
                     "the trail was cut: it ends at record %llu, and the head that was kept is of "
                     "%llu",
                     (unsigned long long)w->last, (unsigned long long)w->kept->number);
}
