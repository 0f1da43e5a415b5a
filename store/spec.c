/* The settings as bytes, and their defaults (spec.h). Little-endian; a text is a block without zero
 * bytes.
 *
 *   spec:      block labels (node.c), i64 task history, u64 snapshot interval, u64 old snapshots,
 *              u64 log entries, u32 election tick, u32 heartbeat tick, i64 heartbeat_ns, i64
 *              cert_validity_s, u64 force rotate, u8 readmit, i64 readmit_within_s, u8 number of
 *              external CAs, these
 *   external:  text url, block ca_pem, block options (as labels) */
#include "store/spec.h"

#include "store/store.h"

/* --- bounds --- */

static bool zero_or(int64_t n, int64_t min, int64_t max) {
    return n == 0 || (n >= min && n <= max);
}

static RESULT check_external(const struct external_ca *e) {
    static const char scheme[] = "https://";
    if (strncmp(e->url, scheme, sizeof scheme - 1) != 0) return ERR_INVALID;
    if (e->url[sizeof scheme - 1] == '\0' || e->ca_pem.size > PEM_MAX) return ERR_INVALID;
    return labels_check(e->options);
}

static RESULT check(const struct spec *s) {
    if (s->task_history < -1 || s->readmit_within_s < 0) return ERR_INVALID;
    if (!zero_or(s->heartbeat_ns, HEARTBEAT_MIN_NS, HEARTBEAT_MAX_NS)) return ERR_INVALID;
    if (!zero_or(s->cert_validity_s, CERT_VALIDITY_MIN_S, CERT_VALIDITY_MAX_S)) return ERR_INVALID;
    if (s->readmit > READMIT_NEVER || s->n_external > EXTERNAL_CAS_MAX) return ERR_INVALID;
    for (unsigned i = 0; i < s->n_external; i++)
        TRY(check_external(&s->external[i]));
    return labels_check(s->labels);
}

/* --- bytes --- */

static RESULT encode_numbers(const struct spec *s, struct buf *out) {
    TRY(buf_u64(out, (uint64_t)s->task_history));
    TRY(buf_u64(out, s->snapshot_interval));
    TRY(buf_u64(out, s->keep_old_snapshots));
    TRY(buf_u64(out, s->log_entries));
    TRY(buf_u32(out, s->election_tick));
    TRY(buf_u32(out, s->heartbeat_tick));
    TRY(buf_u64(out, (uint64_t)s->heartbeat_ns));
    TRY(buf_u64(out, (uint64_t)s->cert_validity_s));
    TRY(buf_u64(out, s->force_rotate));
    TRY(buf_u8(out, (uint8_t)s->readmit));
    return buf_u64(out, (uint64_t)s->readmit_within_s);
}

RESULT spec_encode(const struct spec *s, struct buf *out) {
    TRY(check(s));
    TRY(buf_block(out, s->labels));
    TRY(encode_numbers(s, out));
    TRY(buf_u8(out, (uint8_t)s->n_external));
    for (unsigned i = 0; i < s->n_external; i++) {
        TRY(buf_block(out, span_str(s->external[i].url)));
        TRY(buf_block(out, s->external[i].ca_pem));
        TRY(buf_block(out, s->external[i].options));
    }
    return OK;
}

static RESULT cursor_i64(struct cursor *in, int64_t *out) {
    uint64_t n;
    TRY(cursor_u64(in, &n));
    *out = (int64_t)n;
    return OK;
}

static RESULT decode_numbers(struct cursor *in, struct spec *out) {
    uint8_t readmit;
    TRY(cursor_i64(in, &out->task_history));
    TRY(cursor_u64(in, &out->snapshot_interval));
    TRY(cursor_u64(in, &out->keep_old_snapshots));
    TRY(cursor_u64(in, &out->log_entries));
    TRY(cursor_u32(in, &out->election_tick));
    TRY(cursor_u32(in, &out->heartbeat_tick));
    TRY(cursor_i64(in, &out->heartbeat_ns));
    TRY(cursor_i64(in, &out->cert_validity_s));
    TRY(cursor_u64(in, &out->force_rotate));
    TRY(cursor_u8(in, &readmit));
    out->readmit = (enum readmit)readmit;
    return cursor_i64(in, &out->readmit_within_s);
}

static RESULT decode_external(struct cursor *in, struct external_ca *out) {
    TRY(cursor_text(in, out->url, sizeof out->url));
    TRY(cursor_block(in, PEM_MAX, &out->ca_pem));
    return cursor_block(in, NODE_LABELS_BYTES, &out->options);
}

static RESULT decode(struct cursor *in, struct spec *out) {
    uint8_t n;
    TRY(cursor_block(in, NODE_LABELS_BYTES, &out->labels));
    TRY(decode_numbers(in, out));
    TRY(cursor_u8(in, &n));
    if (n > EXTERNAL_CAS_MAX) return ERR_CORRUPT;
    for (out->n_external = 0; out->n_external < n; out->n_external++)
        TRY(decode_external(in, &out->external[out->n_external]));
    TRY(cursor_end(in));
    return check(out);
}

RESULT spec_decode(struct span body, struct spec *out) {
    struct cursor in = cursor_of(body);
    *out = (struct spec){.task_history = 0};
    return decode(&in, out) == OK ? OK : ERR_CORRUPT;
}

/* --- as they are --- */

void spec_get(const struct store *s, struct row *row, struct spec *out) {
    const char *id = store_cluster(s)->id;
    if (row_get(s, ROW_SPEC, id, row) && spec_decode(row->body, out) == OK) return;
    *row = (struct row){.kind = ROW_SPEC};
    memcpy(row->id, id, sizeof row->id);
    *out = (struct spec){.task_history = 0};
}

int64_t spec_cert_validity_s(const struct spec *s) {
    return s->cert_validity_s != 0 ? s->cert_validity_s : CERT_VALIDITY_S;
}

int64_t spec_heartbeat_ms(const struct spec *s) {
    return (s->heartbeat_ns != 0 ? s->heartbeat_ns : HEARTBEAT_PERIOD_NS) / 1000000;
}

int64_t spec_task_history(const struct spec *s) {
    return s->task_history > 0 ? s->task_history : TASK_HISTORY;
}
