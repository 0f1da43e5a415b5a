/* Secrets and configs that an operator of this node wants for one command: asked of a manager over
 * the session (which records it), handed to the command's supervisor, kept nowhere. */
#include "api/task/runner_parts.h"

#include <stdio.h>
#include <stdlib.h>

#define FETCH_MS 15000

struct feed {
    uint64_t number;
    uint64_t until_ms;
    runner_fetched *done;
    void *ctx;
    struct feed *next;
};

static void finish(struct feed *f, const struct fetched *answer) {
    f->done(f->ctx, answer);
    free(f);
}

static void fail(struct feed *f, enum err e, const char *text) {
    struct fetched *answer = calloc(1, sizeof *answer); /* large */
    if (answer) {
        answer->error = e;
        (void)snprintf(answer->text, sizeof answer->text, "%s", text);
    }
    static const struct fetched without = {.error = ERR_NOMEM};
    finish(f, answer ? answer : &without);
    free(answer);
}

static struct feed *take(struct runner *r, uint64_t number) {
    for (struct feed **at = &r->feeds; *at; at = &(*at)->next) {
        struct feed *f = *at;
        if (f->number != number) continue;
        *at = f->next;
        return f;
    }
    return NULL;
}

RESULT runner_fetch(struct manager *m, const struct fetch *f, runner_fetched *done, void *ctx,
                    struct why *why) {
    struct runner *r = m->runner;
    struct buf body = buf_new(SESSION_BODY_MAX);
    struct fetch asked = *f;
    unsigned n = 0;
    if (!r) return fail_with(why, ERR_PRECONDITION, "this node is in no cluster");
    if (!m->agent.open || !r->synced) /* heard only when it has told us what we are to run */
        return fail_with(why, ERR_BUSY,
                         "this node has no session with a manager now, which secrets come by");
    for (const struct feed *at = r->feeds; at; at = at->next)
        n++;
    if (n >= RUNNER_FETCH_MAX) return fail_with(why, ERR_BUSY, "too many commands at once");
    asked.number = ++r->fetches;
    struct feed *feed = calloc(1, sizeof *feed);
    enum err e = feed ? fetch_encode(&asked, &body) : ERR_NOMEM;
    if (e == OK) {
        *feed = (struct feed){.number = asked.number,
                              .until_ms = m->clock.now_ms(&m->clock) + FETCH_MS,
                              .done = done,
                              .ctx = ctx,
                              .next = r->feeds};
        r->feeds = feed;
        uplink_say(m->agent.uplink, NODE_FETCH, buf_span(&body));
    } else {
        free(feed);
    }
    buf_free(&body);
    return e;
}

RESULT feeds_answer(struct runner *r, struct span body, struct why *why) {
    struct fetched *answer = malloc(sizeof *answer); /* large */
    if (!answer) return ERR_NOMEM;
    enum err e = fetched_decode(body, answer);
    if (e == OK) {
        struct feed *f = take(r, answer->number);
        if (f) finish(f, answer);
    } else {
        e = fail_with(why, e, "an answer with secrets is not understood");
    }
    free(answer);
    manager_wipe_stack(r->manager);
    return e;
}

void feeds_lost(struct runner *r, const char *text) {
    while (r->feeds)
        fail(take(r, r->feeds->number), ERR_UNREACHABLE, text);
}

void feeds_beat(struct runner *r) {
    uint64_t now = r->manager->clock.now_ms(&r->manager->clock);
    for (struct feed *f = r->feeds, *next; f; f = next) {
        next = f->next;
        if (now >= f->until_ms)
            fail(take(r, f->number), ERR_TIMEOUT, "no manager has answered in time");
    }
}

/* --- to the supervisor of a command ----------------------------------------------------------- */

struct delivery {
    struct manager *manager;
    struct run_order order;
    manager_done *done;
    void *ctx;
};

static void no_frame(void *ctx, uint8_t kind, struct span body) {
    (void)ctx;
    (void)kind;
    (void)body;
}

static void no_close(void *ctx) { (void)ctx; }

static RESULT bring(const struct delivery *d, const struct fetched *f, struct why *why) {
    static const struct link_events none = {.frame = no_frame, .closed = no_close};
    struct link_end *link;
    int fd;
    if (f->error != OK) return fail_with(why, f->error, "%s", f->text);
    if (f->n != d->order.n) return fail_with(why, ERR_PROTOCOL, "not the secrets asked for");
    TRY(supervisor_dial(d->manager->runner->data, d->order.id, &fd, why));
    TRY(link_open(d->manager->config.loop, fd, &none, NULL, &link));
    enum err e = OK;
    for (unsigned i = 0; e == OK && i < f->n; i++) {
        struct held *value;
        e = held_new(&f->values[i], &value);
        if (e != OK) break;
        link_put(link, &d->order.files[i], value);
        held_drop(value);
    }
    if (e == OK) link_say(link, SUP_START, span_of(NULL, 0));
    link_close(link);
    return e;
}

static void on_fetched(void *ctx, const struct fetched *f) {
    struct delivery *d = ctx;
    struct why why = {0};
    enum err e = bring(d, f, &why);
    d->done(d->ctx, e, why.text[0] ? why.text : err_text(e));
    free(d);
}

RESULT runner_run(struct manager *m, const struct run_order *order, manager_done *done, void *ctx,
                  struct why *why) {
    struct delivery *d = malloc(sizeof *d);
    struct fetch *fetch = calloc(1, sizeof *fetch); /* both are large */
    enum err e = d && fetch ? OK : ERR_NOMEM;
    if (e == OK) {
        *d = (struct delivery){.manager = m, .order = *order, .done = done, .ctx = ctx};
        for (fetch->n = 0; fetch->n < order->n; fetch->n++) {
            fetch->want[fetch->n].kind = order->files[fetch->n].kind;
            memcpy(fetch->want[fetch->n].name, order->files[fetch->n].name, HELD_NAME_MAX + 1);
            fetch->want[fetch->n].version = order->files[fetch->n].version;
        }
        e = runner_fetch(m, fetch, on_fetched, d, why);
        if (e == OK) runner_sweep(m->runner);
    }
    free(fetch);
    if (e != OK) free(d);
    return e;
}
