/* See lookout.h. A wake-up makes a chore of the next turn, since nothing may be taken inside it.
 * What is closed while its chore waits is freed by the chore. */
#include "api/etcd/lookout.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

#define TAKE_BYTES (64 * KIB)

struct lookout {
    struct lookout_options options;
    struct watcher *watcher;      /* NULL: closed */
    struct chore chore;           /* looks */
    bool waiting;                 /* the chore is in the manager's list, or at work */
    bool again;                   /* it shall look once more */
    bool closed;                  /* by its owner: to be freed */
    struct lookout *next, **link; /* all that are open: api->lookouts */
};

static void end(struct lookout *l, enum err e) {
    watcher_free(l->watcher);
    l->watcher = NULL;
    assert(l->link != NULL); /* a watcher is there as long as it is in the list */
    *l->link = l->next;
    if (l->next != NULL) l->next->link = l->link;
    l->link = NULL;
    if (e != OK) l->options.looked(l->options.ctx, e);
}

static bool look(struct chore *j) {
    struct lookout *l = (struct lookout *)(void *)((char *)j - offsetof(struct lookout, chore));
    struct watch_taken taken = {0};
    l->again = false;
    if (l->watcher != NULL) {
        enum err e =
            watcher_take(l->watcher, TAKE_BYTES, false, l->options.each, l->options.ctx, &taken);
        l->again = (e == OK && taken.more) || e == ERR_NOMEM;
        if (e == ERR_COMPACTED)
            end(l, e);
        else
            l->options.looked(l->options.ctx, OK);
    }
    if (l->watcher != NULL && l->again) return true;
    l->waiting = false;
    if (l->closed) free(l);
    return false;
}

void lookout_again(struct lookout *l) {
    l->again = true;
    if (l->waiting || l->watcher == NULL) return;
    l->waiting = true;
    manager_chore(l->options.api->manager, &l->chore);
}

static void wake(void *ctx) { lookout_again(ctx); }

RESULT lookout_open(const struct lookout_options *o, struct lookout **out) {
    if (o->api->hub == NULL) return ERR_CLOSED;
    struct lookout *l = calloc(1, sizeof *l);
    if (l == NULL) return ERR_NOMEM;
    *l = (struct lookout){.options = *o, .chore = {.step = look}};
    const struct watch_options watch = {
        .in = o->in, .start = o->start, .no_put = o->no_put, .wake = wake, .ctx = l};
    enum err e = watcher_new(o->api->hub, &watch, &l->watcher);
    if (e != OK) {
        free(l);
        return e;
    }
    l->options.in = (struct interval){.key = {0}};
    l->next = o->api->lookouts;
    l->link = &o->api->lookouts;
    if (l->next != NULL) l->next->link = &l->next;
    o->api->lookouts = l;
    *out = l;
    return OK;
}

void lookout_close(struct lookout *l) {
    if (l == NULL) return;
    if (l->watcher != NULL) end(l, OK);
    l->closed = true;
    if (!l->waiting) free(l);
}

void lookouts_stop(struct api *api) {
    while (api->lookouts != NULL)
        end(api->lookouts, ERR_CLOSED);
}
