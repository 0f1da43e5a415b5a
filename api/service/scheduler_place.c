/* See scheduler_place.h. The table is sorted, so a node is found by halving; the heap is the usual
 * one in an array, the best place at its top. */
#include "api/service/scheduler_place.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "crypto/limits.h"

#define LABEL_KEY "node.labels."

/* --- the table -------------------------------------------------------------------------------- */

static size_t place_of(const struct places *p, const char *id) {
    size_t low = 0, high = p->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(p->at[middle].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct place *places_any(const struct places *p, const char *id) {
    size_t at = place_of(p, id);
    return at < p->n && strcmp(p->at[at].id, id) == 0 ? &p->at[at] : NULL;
}

struct place *places_find(const struct places *p, const char *id) {
    struct place *found = places_any(p, id);
    return found && !found->gone ? found : NULL;
}

static RESULT add(struct places *p, const char *id, struct place **out) {
    size_t at = place_of(p, id);
    if (p->n == p->room) {
        size_t room = p->room == 0 ? 64 : p->room * 2;
        struct place *more = realloc(p->at, room * sizeof *more);
        if (!more) return ERR_NOMEM;
        p->at = more;
        p->room = room;
    }
    memmove(&p->at[at + 1], &p->at[at], (p->n - at) * sizeof p->at[0]);
    p->n++;
    *out = &p->at[at];
    **out = (struct place){.labels = buf_new(NODE_LABELS_BYTES)};
    (void)snprintf((*out)->id, sizeof(*out)->id, "%s", id);
    return OK;
}

static bool same(const struct place *p, const struct node_row *n) {
    return !p->gone && p->state == n->state && p->availability == n->availability &&
           p->role == n->granted && strcmp(p->hostname, n->hostname) == 0 &&
           strcmp(p->os, n->os) == 0 && strcmp(p->arch, n->arch) == 0 &&
           span_equal(buf_span(&p->labels), n->labels);
}

RESULT places_put(struct places *p, const char *id, const struct node_row *node) {
    struct place *place = places_any(p, id);
    if (place && same(place, node)) return OK;
    if (!place) TRY(add(p, id, &place));
    buf_clear(&place->labels);
    TRY(buf_add_span(&place->labels, node->labels));
    place->gone = false;
    place->changed = true;
    place->state = node->state;
    place->availability = node->availability;
    place->role = node->granted;
    memcpy(place->hostname, node->hostname, sizeof place->hostname);
    memcpy(place->os, node->os, sizeof place->os);
    memcpy(place->arch, node->arch, sizeof place->arch);
    return OK;
}

void places_sweep(struct places *p) {
    size_t kept = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->at[i].gone)
            buf_free(&p->at[i].labels);
        else
            p->at[kept++] = p->at[i];
    }
    p->n = kept;
}

void places_free(struct places *p) {
    for (size_t i = 0; i < p->n; i++)
        buf_free(&p->at[i].labels);
    free(p->at);
    *p = (struct places){0};
}

/* --- constraints ------------------------------------------------------------------------------ */

bool place_is_open(const struct place *p) {
    return !p->gone && p->state == NODE_READY && p->availability == NODE_ACTIVE;
}

static bool is_key(struct span key, const char *name) {
    return key.size == strlen(name) && strncasecmp((const char *)key.at, name, key.size) == 0;
}

static struct span label_of(const struct place *p, struct span name) {
    struct span value;
    return labels_find(buf_span(&p->labels), name, &value) ? value : span_of("", 0);
}

static bool value_of(const struct place *p, struct span key, struct span *out) {
    size_t label = strlen(LABEL_KEY);
    if (is_key(key, "node.id"))
        *out = span_str(p->id);
    else if (is_key(key, "node.hostname"))
        *out = span_str(p->hostname);
    else if (is_key(key, "node.role"))
        *out = span_str(p->role == NODE_MANAGER ? "manager" : "worker");
    else if (is_key(key, "node.platform.os"))
        *out = span_str(p->os);
    else if (is_key(key, "node.platform.arch"))
        *out = span_str(p->arch);
    else if (key.size > label && strncasecmp((const char *)key.at, LABEL_KEY, label) == 0)
        *out = label_of(p, span_of(key.at + label, key.size - label));
    else
        return false;
    return true;
}

/* As docker's constraints, values compare without case. */
static bool meets_one(const struct place *p, struct span text) {
    struct span key = text, has;
    size_t at = 0;
    while (at + 4 <= text.size && memcmp(text.at + at, " == ", 4) != 0 &&
           memcmp(text.at + at, " != ", 4) != 0)
        at++;
    if (at + 4 > text.size) return false;
    key.size = at;
    struct span value = span_of(text.at + at + 4, text.size - at - 4);
    if (!value_of(p, key, &has)) return false;
    bool equal = has.size == value.size &&
                 strncasecmp((const char *)has.at, (const char *)value.at, value.size) == 0;
    return equal == (text.at[at + 1] == '=');
}

bool place_meets(const struct place *p, struct span constraints) {
    struct cursor c = cursor_of(constraints);
    struct span one;
    while (c.left > 0)
        if (cursor_block(&c, c.left, &one) != OK || !meets_one(p, one)) return false;
    return true;
}

/* --- choosing --------------------------------------------------------------------------------- */

static bool better(const struct place *a, const struct place *b) {
    if (a->failures != b->failures) return a->failures < b->failures;
    if (a->own != b->own) return a->own < b->own;
    uint64_t all_a = (uint64_t)a->tasks + a->planned, all_b = (uint64_t)b->tasks + b->planned;
    if (all_a != all_b) return all_a < all_b;
    return strcmp(a->id, b->id) < 0;
}

static void sink(struct place_choice *c, size_t at) {
    for (;;) {
        size_t best = at, left = 2 * at + 1, right = left + 1;
        if (left < c->n && better(c->heap[left], c->heap[best])) best = left;
        if (right < c->n && better(c->heap[right], c->heap[best])) best = right;
        if (best == at) return;
        struct place *moved = c->heap[at];
        c->heap[at] = c->heap[best];
        c->heap[best] = moved;
        at = best;
    }
}

static void make_heap(struct place_choice *c, const struct places *p, struct span constraints) {
    c->ready = true;
    c->n = 0;
    c->heap = p->n > 0 ? malloc(p->n * sizeof(struct place *)) : NULL;
    if (!c->heap) return;
    for (size_t i = 0; i < p->n; i++) {
        struct place *place = &p->at[i];
        if (place->gone) continue;
        if (!place_is_open(place))
            c->closed++;
        else if (!place_meets(place, constraints))
            c->unmet++;
        else
            c->heap[c->n++] = place;
    }
    for (size_t i = c->n / 2; i > 0; i--)
        sink(c, i - 1);
}

struct place *place_choose(struct place_choice *c, const struct places *p,
                           struct span constraints) {
    if (!c->ready) make_heap(c, p, constraints);
    if (!c->heap || c->n == 0) return NULL;
    struct place *best = c->heap[0];
    best->own++;
    best->planned++;
    sink(c, 0);
    return best;
}

void place_choice_free(struct place_choice *c) {
    free(c->heap);
    *c = (struct place_choice){0};
}

void place_explain(const struct place_choice *c, char *out, size_t room) {
    char unmet[80] = "", closed[80] = "";
    if (c->unmet > 0)
        (void)snprintf(unmet, sizeof unmet, "scheduling constraints not satisfied on %u node%s",
                       c->unmet, c->unmet == 1 ? "" : "s");
    if (c->closed > 0)
        (void)snprintf(closed, sizeof closed, "%u node%s not available for new tasks", c->closed,
                       c->closed == 1 ? "" : "s");
    bool any = unmet[0] || closed[0];
    (void)snprintf(out, room, "no suitable node%s%s%s%s%s", any ? " (" : "", unmet,
                   unmet[0] && closed[0] ? "; " : "", closed, any ? ")" : "");
}
