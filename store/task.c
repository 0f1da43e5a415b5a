/* Tasks as bytes, and the walks by what belongs to what (service.h). Whatever is encoded was
 * checked by the same rules as what is decoded, and what is decoded encodes to the same bytes.
 * Little-endian; a text is a block without zero bytes, shorter than its field.
 *
 *   task: text service id, text node id, u32 slot, u16 desired, u16 state, i64 state_ns, u64 spec
 *         version, i64 not_before_ns, text message, text error, u32 exit code, u32 pid */
#include "store/service.h"

#include "store/state.h"

/* --- states --- */

const char *task_state_name(enum task_state s) {
    switch (s) {
    case TASK_NEW: return "new";
    case TASK_PENDING: return "pending";
    case TASK_ASSIGNED: return "assigned";
    case TASK_ACCEPTED: return "accepted";
    case TASK_PREPARING: return "preparing";
    case TASK_READY: return "ready";
    case TASK_STARTING: return "starting";
    case TASK_RUNNING: return "running";
    case TASK_COMPLETE: return "complete";
    case TASK_SHUTDOWN: return "shutdown";
    case TASK_FAILED: return "failed";
    case TASK_REJECTED: return "rejected";
    case TASK_REMOVE: return "remove";
    case TASK_ORPHANED: return "orphaned";
    }
    return NULL;
}

/* --- bytes --- */

static RESULT check(const struct task_row *t) {
    if (!row_good_id(span_str(t->service_id))) return ERR_INVALID;
    bool placed = t->node_id[0] != '\0', at_work = t->state >= TASK_ASSIGNED;
    if (placed && !row_good_id(span_str(t->node_id))) return ERR_INVALID;
    if (!placed && at_work && t->state <= TASK_RUNNING) return ERR_INVALID;
    if (t->desired != TASK_RUNNING && t->desired != TASK_SHUTDOWN && t->desired != TASK_REMOVE)
        return ERR_INVALID;
    return task_state_name(t->state) != NULL ? OK : ERR_INVALID;
}

RESULT task_encode(const struct task_row *t, struct buf *out) {
    TRY(check(t));
    TRY(buf_block(out, span_str(t->service_id)));
    TRY(buf_block(out, span_str(t->node_id)));
    TRY(buf_u32(out, t->slot));
    TRY(buf_u16(out, (uint16_t)t->desired));
    TRY(buf_u16(out, (uint16_t)t->state));
    TRY(buf_u64(out, (uint64_t)t->state_ns));
    TRY(buf_u64(out, t->spec_version));
    TRY(buf_u64(out, (uint64_t)t->not_before_ns));
    TRY(buf_block(out, span_str(t->message)));
    TRY(buf_block(out, span_str(t->error)));
    TRY(buf_u32(out, (uint32_t)t->exit_code));
    return buf_u32(out, t->pid);
}

static RESULT decode_state(struct cursor *in, struct task_row *out) {
    uint16_t desired, state;
    uint64_t state_ns, not_before_ns;
    TRY(cursor_u32(in, &out->slot));
    TRY(cursor_u16(in, &desired));
    out->desired = (enum task_state)desired;
    TRY(cursor_u16(in, &state));
    out->state = (enum task_state)state;
    TRY(cursor_u64(in, &state_ns));
    out->state_ns = (int64_t)state_ns;
    TRY(cursor_u64(in, &out->spec_version));
    TRY(cursor_u64(in, &not_before_ns));
    out->not_before_ns = (int64_t)not_before_ns;
    return OK;
}

static RESULT decode(struct cursor *in, struct task_row *out) {
    uint32_t exit_code;
    TRY(cursor_text(in, out->service_id, sizeof out->service_id));
    TRY(cursor_text(in, out->node_id, sizeof out->node_id));
    TRY(decode_state(in, out));
    TRY(cursor_text(in, out->message, sizeof out->message));
    TRY(cursor_text(in, out->error, sizeof out->error));
    TRY(cursor_u32(in, &exit_code));
    out->exit_code = (int32_t)exit_code;
    TRY(cursor_u32(in, &out->pid));
    TRY(cursor_end(in));
    return check(out);
}

RESULT task_decode(struct span body, struct task_row *out) {
    struct cursor in = cursor_of(body);
    *out = (struct task_row){.slot = 0};
    return decode(&in, out) == OK ? OK : ERR_CORRUPT;
}

/* --- walks --- */

static void walk(const struct store *s, enum row_kind kind, struct row_key mark, row_each *each,
                 void *ctx) {
    row_each_marked(tree_root(s->state.rows.tree), kind, &mark, each, ctx);
}

void task_each_of_service(const struct store *s, const char *service_id, row_each *each,
                          void *ctx) {
    walk(s, ROW_TASK, mark_of_service(service_id), each, ctx);
}

void task_each_of_node(const struct store *s, const char *node_id, row_each *each, void *ctx) {
    walk(s, ROW_TASK, mark_of_node(node_id), each, ctx);
}

void service_each_of_held(const struct store *s, const char *held_id, row_each *each, void *ctx) {
    walk(s, ROW_SERVICE, mark_of_held(held_id), each, ctx);
}
