/* /events: a stream in pieces, one JSON object a line, until the client leaves, `until` has come or
 * the node stops. The last ENGINE_EVENTS_MAX events are kept for `since`.
 *
 * Events are made inside apply, where nothing may be answered: they go into the ring, and the
 * readers are served in the loop's next turn (a timer of 0 ms each). A reader that is
 * slower than the ring is cut: it would miss something without knowing. */
#include "api/engine/engine.h"

#include <stdlib.h>

#include "api/engine/events.h"

struct engine_event {
    struct event event;
};

struct engine_reader {
    struct exchange *x;
    struct engine *engine;
    struct engine_reader *next, **link; /* in the engine's list */
    struct filters filters;
    int64_t since_ns, until_ns; /* 0: none */
    uint64_t at;                /* the next event to look at, counted from the first ever */
    uv_timer_t timer;           /* serves it soon; then waits for `until` */
    bool done;                  /* the answer is over; its memory goes when the timer has */
};

struct engine_event *engine_events_new(void) {
    return calloc(ENGINE_EVENTS_MAX, sizeof(struct engine_event));
}

static int64_t now_ns(const struct engine *g) {
    struct clock *c = &g->api->manager->clock;
    return c->wall_ns(c);
}

static void on_timer_closed(uv_handle_t *handle) { free(handle->data); }

static void end(struct engine_reader *r, bool whole) {
    struct exchange *x = r->x;
    if (r->done) return;
    r->done = true;
    *r->link = r->next;
    if (r->next) r->next->link = r->link;
    r->engine->n_readers--;
    filters_free(&r->filters);
    uv_close((uv_handle_t *)&r->timer, on_timer_closed);
    x->drained = NULL;
    exchange_end(x, whole);
}

static bool is_due(const struct engine_reader *r, const struct event *e) {
    if (e->time_ns < r->since_ns) return false;
    if (r->until_ns && e->time_ns > r->until_ns) return false;
    return event_wanted(&r->filters, e);
}

static RESULT write_event(const struct engine_reader *r, const struct event *e) {
    struct buf out = buf_new(ENGINE_EVENT_MAX);
    struct jout j;
    jout_start(&j, &out);
    event_put(&j, e);
    enum err failed = jout_end(&j);
    if (failed == OK) failed = buf_add(&out, "\n", 1);
    if (failed == OK) failed = exchange_write(r->x, buf_span(&out));
    buf_free(&out);
    return failed;
}

static void serve(struct engine_reader *r);

static void on_timer(uv_timer_t *timer) { serve(timer->data); }

/* All that is there; then the wait for more, or the end. */
static void serve(struct engine_reader *r) {
    const struct engine *g = r->engine;
    enum err e = r->x->gone ? ERR_CLOSED : OK;
    if (g->n_events - r->at > ENGINE_EVENTS_MAX) e = ERR_TOO_LARGE;
    while (e == OK && r->at < g->n_events) {
        const struct event *event = &g->events[r->at++ % ENGINE_EVENTS_MAX].event;
        if (is_due(r, event)) e = write_event(r, event);
    }
    if (e == ERR_BUSY) return; /* `drained` goes on */
    int64_t left_ns = r->until_ns ? r->until_ns - now_ns(g) : 0;
    if (e != OK || (r->until_ns && left_ns <= 0))
        end(r, e == OK);
    else if (r->until_ns)
        (void)uv_timer_start(&r->timer, on_timer, (uint64_t)(left_ns / 1000000) + 1, 0);
}

static void on_drained(struct exchange *x) { serve(x->stream); }

void engine_row_changed(struct engine *g, const struct row *before, const struct row *after) {
    struct event event;
    if (!event_of_row(before, after, &event)) return;
    if (!after) event.time_ns = now_ns(g); /* its row has no time for that */
    g->events[g->n_events++ % ENGINE_EVENTS_MAX].event = event;
    for (struct engine_reader *r = g->readers; r; r = r->next)
        (void)uv_timer_start(&r->timer, on_timer, 0, 0);
}

void engine_events_stop(struct engine *g) {
    while (g->readers)
        end(g->readers, true);
}

/* --- beginning -------------------------------------------------------------------------------- */

static RESULT parse(const struct exchange *x, struct engine_reader *r, struct why *why) {
    TRY(engine_query_time(x->head.query, "since", &r->since_ns, why));
    TRY(engine_query_time(x->head.query, "until", &r->until_ns, why));
    if (r->until_ns && r->until_ns < r->since_ns)
        return fail_with(why, ERR_INVALID, "`since` time cannot be after `until` time");
    return filters_parse(x->head.query, &r->filters, why);
}

/* Those that are kept already are only for who asks for the past. */
static uint64_t first_event(const struct engine *g, const struct engine_reader *r) {
    if (!r->since_ns) return g->n_events;
    return g->n_events > ENGINE_EVENTS_MAX ? g->n_events - ENGINE_EVENTS_MAX : 0;
}

static void start(struct engine_reader *r) {
    struct engine *g = r->engine;
    struct exchange *x = r->x;
    r->at = first_event(g, r);
    r->next = g->readers;
    r->link = &g->readers;
    if (g->readers) g->readers->link = &r->next;
    g->readers = r;
    g->n_readers++;
    (void)uv_timer_init(g->loop, &r->timer);
    r->timer.data = r;
    x->stream = r;
    x->drained = on_drained;
    if (engine_stream(x) == OK)
        (void)uv_timer_start(&r->timer, on_timer, 0, 0);
    else
        end(r, false);
}

void engine_events(struct exchange *x) {
    struct engine *g = engine_of(x);
    struct why why = {0};
    if (x->head.method == HTTP_HEAD) {
        engine_empty(x, 200);
        return;
    }
    if (g->n_readers == ENGINE_READERS_MAX) {
        engine_error(x, ERR_BUSY, "there are too many readers of events");
        return;
    }
    struct engine_reader *r = calloc(1, sizeof *r);
    if (!r) {
        engine_error(x, ERR_NOMEM, NULL);
        return;
    }
    r->x = x;
    r->engine = g;
    enum err e = parse(x, r, &why);
    if (e == OK) {
        start(r);
        return;
    }
    free(r);
    engine_error(x, e, why.text);
}
