/* The leader's heads in the audit trail. Every beat looks at how far the trail has got; a head is
 * proposed when one is due, one at a time. What is remembered between two beats follows from the
 * trail, so that a new leader finds the same by reading its end. See audit.h. */
#include "api/secret/audit.h"

#include <stdio.h>
#include <stdlib.h>

struct audits {
    uint64_t seen;    /* records looked at */
    uint64_t head;    /* number of the newest AUDIT_HEAD record; 0: none of those looked at */
    int64_t since_ns; /* when the first record after it was made; 0: there is none */
    bool writing;     /* a head is on its way */
    struct write write;
};

RESULT audits_open(struct manager *m) {
    m->audits = calloc(1, sizeof *m->audits);
    return m->audits ? OK : ERR_NOMEM;
}

void audits_close(struct manager *m) {
    free(m->audits);
    m->audits = NULL;
}

bool audit_head_due(uint64_t last, uint64_t head, int64_t since_ns, int64_t now_ns) {
    if (last <= head) return false;
    return last - head >= AUDIT_HEAD_RECORDS || now_ns - since_ns >= AUDIT_HEAD_NS;
}

static bool look(void *ctx, const struct row *r) {
    struct audits *a = ctx;
    struct audit_link link;
    if (audit_read(r, &link) != OK) return true;
    a->seen = link.number;
    if (link.is.what == AUDIT_HEAD) {
        a->head = link.number;
        a->since_ns = 0;
    } else if (a->since_ns == 0) {
        a->since_ns = link.time_ns;
    }
    return true;
}

/* Reads what has come; of a long trail that was never looked at, its end. */
static void catch_up(struct audits *a, const struct manager *m, uint64_t last) {
    if (a->seen > last) *a = (struct audits){.writing = a->writing, .write = a->write};
    uint64_t from = a->seen + 1;
    if (last > AUDIT_HEAD_RECORDS && from < last - AUDIT_HEAD_RECORDS)
        from = last - AUDIT_HEAD_RECORDS;
    if (from <= last) audit_each(m->store, from, look, a);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct manager *m = w->ctx;
    m->audits->writing = false;
    if (e == OK) e = r->error;
    if (e != OK && e != ERR_CLOSED && e != ERR_NOT_LEADER)
        log_event(m->config.log, LOG_WARNING, "audit", "the head was not written: %s",
                  text && text[0] ? text : err_text(e));
}

static RESULT encode(struct manager *m, const struct audit_head *head, struct buf *out) {
    char who[64];
    struct buf detail = buf_new(AUDIT_RECORD_MAX), changes = buf_new(2 * AUDIT_RECORD_MAX);
    (void)snprintf(who, sizeof who, "leader %s", m->self.node_id);
    enum err e = audit_head_encode(head, &detail);
    const struct audit_record record = {
        .what = AUDIT_HEAD, .who = span_str(who), .detail = buf_span(&detail)};
    if (e == OK) e = audit_add(&changes, &record);
    struct command c = {.op = OP_ROWS};
    c.rows.n = 1;
    c.rows.changes = buf_span(&changes);
    c.rows.now_ns = m->clock.wall_ns(&m->clock);
    if (e == OK) e = command_encode(&c, out);
    buf_free(&detail);
    buf_free(&changes);
    return e;
}

static RESULT propose(struct manager *m) {
    struct audits *a = m->audits;
    struct audit_head head;
    struct buf signature = buf_new(AUDIT_SIGNATURE_MAX);
    a->write = (struct write){.command = buf_new(COMMAND_MAX), .done = on_written, .ctx = m};
    enum err e = audit_head_sign(m, &head, &signature, NULL);
    if (e == OK) e = encode(m, &head, &a->write.command);
    if (e == OK) e = manager_write(m, &a->write);
    if (e != OK) buf_wipe(&a->write.command);
    buf_free(&signature);
    return e;
}

void audits_beat(struct manager *m) {
    struct audits *a = m->audits;
    uint8_t chain[AUDIT_CHAIN];
    if (!a || a->writing || m->leader == 0 || m->leader != m->self.raft_id) return;
    uint64_t last = audit_last(m->store, chain);
    if (last != a->seen) catch_up(a, m, last);
    if (!audit_head_due(last, a->head, a->since_ns, m->clock.wall_ns(&m->clock))) return;
    enum err e = propose(m);
    a->writing = e == OK;
    if (e != OK) log_event(m->config.log, LOG_WARNING, "audit", "no head: %s", err_text(e));
}
