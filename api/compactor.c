/* See compactor.h. Samples stand in a ring, the oldest first; the one to compact is the newest that
 * is a period old. */
#include "api/compactor.h"

#include <stdlib.h>

#define HOUR_MS          3600000ULL
#define REVISION_STEP_MS 300000
#define STEPS            10 /* in a period */

struct sample {
    uint64_t at_ms;    /* when it was the store's */
    uint64_t revision; /* it */
};

struct compactor {
    struct compact_options options;
    uint64_t step_ms;        /* between samples */
    struct sample *samples;  /* ring of `room` */
    unsigned first, n;       /* the oldest, how many */
    unsigned room;           /* a period's, and one */
    uint64_t compacted;      /* as of the last tick */
    uint64_t since_ms;       /* when that was asked for, or seen first */
    struct sample asked;     /* the last revision that was asked for */
    struct manager *manager; /* started: whose store it is */
    uv_timer_t timer;        /* ticks */
    bool proposing;          /* `write` is under way */
    struct write write;
};

/* --- options -------------------------------------------------------------------------------- */

static RESULT digits(const char **at, uint64_t max, uint64_t *out) {
    uint64_t n = 0;
    const char *c = *at;
    for (; *c >= '0' && *c <= '9'; c++) {
        n = n * 10 + (uint64_t)(*c - '0');
        if (n > max) return ERR_TOO_LARGE;
    }
    if (c == *at) return ERR_INVALID;
    *at = c;
    *out = n;
    return OK;
}

static RESULT unit(const char **at, uint64_t *ms) {
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"h", HOUR_MS}, {"m", 60000}, {"s", 1000}};
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        size_t size = strlen(units[i].name);
        if (strncmp(*at, units[i].name, size) != 0) continue;
        *at += size;
        *ms = units[i].ms;
        return OK;
    }
    return ERR_INVALID;
}

static RESULT period(const char *text, uint64_t *out) {
    uint64_t sum = 0, n, ms;
    const char *at = text;
    do {
        TRY(digits(&at, COMPACT_PERIOD_MAX_MS, &n));
        if (*at == '\0' && sum == 0)
            ms = HOUR_MS; /* a number alone: hours */
        else
            TRY(unit(&at, &ms));
        if (n > (COMPACT_PERIOD_MAX_MS - sum) / ms) return ERR_TOO_LARGE;
        sum += n * ms;
    } while (*at != '\0');
    *out = sum;
    return OK;
}

static RESULT parse_period(const char *text, struct compact_options *out, struct why *why) {
    enum err e = period(text, &out->retention);
    if (e == OK && out->retention != 0 && out->retention < COMPACT_PERIOD_MIN_MS) e = ERR_INVALID;
    if (e != OK)
        return fail_with(why, ERR_USAGE,
                         "--auto-compaction-retention takes hours, or a duration from 1s to 10 "
                         "years as 1h30m, not \"%.40s\"",
                         text);
    out->mode = out->retention == 0 ? COMPACT_OFF : COMPACT_PERIODIC;
    return OK;
}

static RESULT parse_revisions(const char *text, struct compact_options *out, struct why *why) {
    const char *at = text;
    if (digits(&at, INT64_MAX / 10, &out->retention) != OK || *at != '\0')
        return fail_with(why, ERR_USAGE,
                         "--auto-compaction-retention takes a number of revisions, not \"%.40s\"",
                         text);
    out->mode = out->retention == 0 ? COMPACT_OFF : COMPACT_REVISION;
    return OK;
}

RESULT compact_options_parse(const char *mode, const char *retention, struct compact_options *out,
                             struct why *why) {
    bool revisions = mode != NULL && strcmp(mode, "revision") == 0;
    *out = (struct compact_options){.mode = COMPACT_OFF};
    if (mode != NULL && !revisions && strcmp(mode, "periodic") != 0)
        return fail_with(why, ERR_USAGE, "--auto-compaction-mode is periodic or revision");
    if (retention == NULL) retention = "0";
    return revisions ? parse_revisions(retention, out, why) : parse_period(retention, out, why);
}

/* --- ticks ---------------------------------------------------------------------------------- */

static uint64_t interval_ms(const struct compactor *c) {
    return c->options.retention < HOUR_MS ? c->options.retention : HOUR_MS;
}

RESULT compactor_new(const struct compact_options *o, struct compactor **out) {
    struct compactor *c = calloc(1, sizeof *c);
    if (c == NULL) return ERR_NOMEM;
    c->options = *o;
    if (o->mode == COMPACT_REVISION) c->step_ms = REVISION_STEP_MS;
    if (o->mode == COMPACT_PERIODIC) {
        c->step_ms = interval_ms(c) / STEPS;
        if (o->retention / c->step_ms > COMPACT_SAMPLES_MAX)
            c->step_ms = o->retention / COMPACT_SAMPLES_MAX;
        c->room = (unsigned)(o->retention / c->step_ms) + 2;
        c->samples = calloc(c->room, sizeof *c->samples);
        if (c->samples == NULL) {
            free(c);
            return ERR_NOMEM;
        }
    }
    *out = c;
    return OK;
}

void compactor_free(struct compactor *c) {
    if (c == NULL) return;
    free(c->samples);
    free(c);
}

uint64_t compactor_step_ms(const struct compactor *c) { return c->step_ms; }

static void note(struct compactor *c, uint64_t now_ms, uint64_t revision) {
    if (c->n == c->room) {
        c->first = (c->first + 1) % c->room;
        c->n--;
    }
    c->samples[(c->first + c->n++) % c->room] = (struct sample){now_ms, revision};
}

/* The revision of a period ago; older samples are forgotten. 0: not known. */
static uint64_t revision_then(struct compactor *c, uint64_t now_ms) {
    uint64_t revision = 0;
    while (c->n > 0 && now_ms - c->samples[c->first].at_ms >= c->options.retention) {
        revision = c->samples[c->first].revision;
        if (c->n == 1 || now_ms - c->samples[(c->first + 1) % c->room].at_ms < c->options.retention)
            break;
        c->first = (c->first + 1) % c->room;
        c->n--;
    }
    return revision;
}

uint64_t compactor_tick(struct compactor *c, uint64_t now_ms, uint64_t revision,
                        uint64_t compacted) {
    uint64_t wanted = 0;
    if (compacted != c->compacted) {
        c->compacted = compacted;
        c->since_ms = compacted == c->asked.revision ? c->asked.at_ms : now_ms;
    }
    if (c->options.mode == COMPACT_REVISION)
        wanted = revision > c->options.retention ? revision - c->options.retention : 0;
    if (c->options.mode == COMPACT_PERIODIC) {
        note(c, now_ms, revision);
        wanted = revision_then(c, now_ms);
        if (c->compacted != 0 && now_ms - c->since_ms < interval_ms(c)) wanted = 0;
    }
    if (wanted <= compacted) return 0;
    c->asked = (struct sample){now_ms, wanted};
    return wanted;
}

/* --- on a manager --------------------------------------------------------------------------- */

static void on_compacted(struct write *w, enum err e, const char *text, const struct result *r) {
    struct compactor *c = w->ctx;
    c->proposing = false;
    if (c->manager == NULL) return;
    if (e == OK && r->error != OK) {
        e = r->error;
        text = err_text(e);
    }
    if (e != OK && e != ERR_COMPACTED && e != ERR_CLOSED)
        log_event(c->manager->config.log, LOG_WARNING, "node", "auto-compaction: %s", text);
}

static void propose(struct compactor *c, uint64_t revision) {
    struct command command = {.op = OP_COMPACT, .compact_revision = revision};
    c->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_compacted, .ctx = c};
    c->write.proposal.here = true;
    if (command_encode(&command, &c->write.command) != OK) {
        buf_wipe(&c->write.command);
        return;
    }
    c->proposing = manager_write(c->manager, &c->write) == OK;
    if (c->proposing)
        log_event(c->manager->config.log, LOG_INFO, "node", "auto-compaction to revision %llu",
                  (unsigned long long)revision);
}

static void on_tick(uv_timer_t *timer) {
    struct compactor *c = timer->data;
    struct manager *m = c->manager;
    if (m->state != MANAGER_RUNNING) return;
    uint64_t revision = compactor_tick(c, m->clock.now_ms(&m->clock), store_revision(m->store),
                                       store_compacted(m->store));
    if (revision != 0 && m->leader == m->self.raft_id && !c->proposing) propose(c, revision);
}

void compactor_start(struct compactor *c, struct manager *m) {
    c->manager = m;
    (void)uv_timer_init(m->config.loop, &c->timer);
    c->timer.data = c;
    if (c->step_ms != 0) (void)uv_timer_start(&c->timer, on_tick, c->step_ms, c->step_ms);
}

void compactor_stop(struct compactor *c) {
    if (c == NULL || c->manager == NULL) return;
    (void)uv_timer_stop(&c->timer);
    c->manager = NULL;
}
