/* See nodes_wire.h. What is decoded is bounded and can be encoded again; the rest is refused, since
 * a member of another version may ask. */
#include "api/node/nodes_wire.h"

#include "api/node/roles.h"

RESULT node_ask_encode(const struct node_ask *a, struct buf *out) {
    TRY(buf_u8(out, NODES_CALL));
    TRY(buf_u8(out, (uint8_t)a->kind));
    TRY(buf_u8(out, a->force));
    TRY(buf_block(out, span_str(a->id)));
    TRY(buf_u64(out, a->version));
    TRY(buf_block(out, a->spec.name));
    TRY(buf_u8(out, (uint8_t)a->spec.role));
    TRY(buf_u8(out, (uint8_t)a->spec.availability));
    return buf_block(out, a->spec.labels);
}

static bool good_spec(uint8_t role, uint8_t availability, struct span labels) {
    return role >= NODE_WORKER && role <= NODE_MANAGER && availability >= NODE_ACTIVE &&
           availability <= NODE_DRAIN && labels_check(labels) == OK;
}

RESULT node_ask_decode(struct span bytes, struct node_ask *out) {
    struct cursor c = cursor_of(bytes);
    struct node_ask a = {.kind = ASK_UPDATE};
    uint8_t call, kind, force, role, availability;
    TRY(cursor_u8(&c, &call));
    TRY(cursor_u8(&c, &kind));
    TRY(cursor_u8(&c, &force));
    TRY(cursor_text(&c, a.id, sizeof a.id));
    TRY(cursor_u64(&c, &a.version));
    TRY(cursor_block(&c, ROW_NAME_MAX, &a.spec.name));
    TRY(cursor_u8(&c, &role));
    TRY(cursor_u8(&c, &availability));
    TRY(cursor_block(&c, NODE_LABELS_BYTES, &a.spec.labels));
    TRY(cursor_end(&c));
    if (call != NODES_CALL || kind < ASK_UPDATE || kind > ASK_LEAVE || force > 1)
        return ERR_PROTOCOL;
    bool spec = kind == ASK_UPDATE || kind == ASK_ROLE;
    if (spec && !good_spec(role, availability, a.spec.labels)) return ERR_PROTOCOL;
    a.kind = (enum node_ask_kind)kind;
    a.force = force == 1;
    a.spec.role = spec ? (enum node_role)role : NODE_WORKER;
    a.spec.availability = spec ? (enum node_availability)availability : NODE_ACTIVE;
    *out = a;
    return OK;
}
