/* Rotations as somebody here has asked for them: the leader is asked to start one, then the state
 * tells when it is over; at last the leader says whether those who are connected have dropped what
 * is destroyed. A leader may change at any step: the question says which epoch was current when it
 * was first put, so asking again starts nothing twice.
 *
 *   AUDITING -->
 *   STARTING --OK--> ROTATING --oldest > seen, dropped here--> SETTLING --OK, or late--> done
 *       `--an error of the first answer--> done */
#include "api/secret/vault_parts.h"

#include <stdlib.h>

#include "api/manager_parts.h"
#include "api/node/roles.h"
#include "api/secret/secrets.h"

#define OPS_MAX     16
#define AGAIN_MS    1000  /* between two questions */
#define STALLED_MS  30000 /* nothing has moved: whoever waits is told */
#define SETTLING_MS 8000  /* for members that are connected and don't answer */

enum op_stage { AUDITING, STARTING, ROTATING, SETTLING };

struct vault_op {
    struct manager *manager;
    enum op_stage stage;
    uint32_t seen; /* the current epoch when it was asked for */
    bool asked, calling;
    uint64_t again_ms; /* the next question not before */
    uint64_t limit_ms; /* of the stage */
    enum err error;    /* it ends with this */
    bool over;
    struct why why;
    struct write write; /* of the audit */
    uint8_t request[7]; /* of the call */
    struct call call;
    manager_done *done;
    void *ctx; /* of done */
    struct vault_op *next;
};

static void finish(struct vault_op *op, enum err e, const char *text) {
    op->over = true;
    op->error = e;
    if (text != op->why.text) (void)snprintf(op->why.text, sizeof op->why.text, "%s", text);
}

static bool is_passing(enum err e) {
    return e == ERR_MAYBE_APPLIED || e == ERR_NO_LEADER || e == ERR_NOT_LEADER ||
           e == ERR_TIMEOUT || e == ERR_BUSY;
}

static void on_called(struct call *c, enum err e, struct span answer) {
    struct vault_op *op = c->ctx;
    struct why why;
    op->calling = false;
    const char *text = manager_text(e, answer, &why);
    if (e == ERR_CLOSED) {
        finish(op, e, "the node is stopping");
    } else if (op->stage == STARTING) {
        bool first = !op->asked && e != ERR_MAYBE_APPLIED && e != ERR_NO_LEADER;
        op->asked = true;
        if (e == OK)
            op->stage = ROTATING;
        else if (first || !is_passing(e))
            finish(op, e, text);
    } else if (op->stage == SETTLING && e == OK) {
        finish(op, OK, "");
    }
    vault_wake(op->manager);
}

static void on_written(struct write *w, enum err e, const char *text, const struct result *r) {
    struct vault_op *op = w->ctx;
    op->calling = false;
    if (e == OK) e = r->error;
    op->stage = STARTING;
    if (e != OK) finish(op, e, text[0] ? text : err_text(e));
    vault_wake(op->manager);
}

static RESULT write_audit(struct vault_op *op, const struct actor *actor) {
    struct manager *m = op->manager;
    struct buf changes = buf_new(64 * KIB);
    struct audit_record a = {.what = AUDIT_ROTATE,
                             .kind = ROW_VAULT,
                             .who = span_str(actor->who),
                             .from = span_str(actor->from),
                             .detail = span_str("asked for")};
    memcpy(a.id, store_cluster(m->store)->id, sizeof a.id);
    op->write = (struct write){.done = on_written, .ctx = op};
    enum err e = audit_add(&changes, &a);
    if (e == OK) e = rows_command(m, &changes, 1, &op->write);
    if (e == OK) e = manager_write(m, &op->write);
    buf_free(&changes);
    op->calling = e == OK;
    return e;
}

static void call_leader(struct vault_op *op) {
    struct manager *m = op->manager;
    bool starting = op->stage != SETTLING;
    if (op->calling || vault_now(m) < op->again_ms) return;
    op->again_ms = vault_now(m) + AGAIN_MS;
    op->request[0] = VAULT_CALL;
    op->request[1] = starting ? VAULT_START : VAULT_SETTLED;
    put_u32(op->request + 2, op->seen);
    op->request[6] = op->asked;
    op->call = (struct call){
        .request = span_of(op->request, starting ? 7 : 2), .done = on_called, .ctx = op};
    op->calling = replica_call(m->replica, &op->call) == OK;
}

static void step(struct vault_op *op) {
    struct manager *m = op->manager;
    struct row row;
    struct vault_row v;
    if (op->stage == AUDITING || !vault_row_get(m->store, &row, &v)) return;
    bool begun = v.next != 0 || v.current > op->seen;
    bool gone = m->self.vault_n == 0 || m->self.vault[0].epoch >= v.oldest;
    if (op->stage != SETTLING && v.oldest > op->seen && gone && !m->vault->unsaved &&
        !m->vault->rekey) {
        op->stage = SETTLING;
        op->again_ms = 0;
        op->limit_ms = vault_now(m) + SETTLING_MS;
    }
    if (op->stage == SETTLING && vault_now(m) >= op->limit_ms)
        finish(op, OK,
               "a manager that is connected has not said yet that it has dropped the "
               "older keys");
    else if (vault_now(m) >= op->limit_ms)
        finish(op, ERR_TIMEOUT,
               m->vault->text[0] ? m->vault->text
                                 : "the rotation of the cluster key goes on in the background");
    else if (op->stage == SETTLING || !begun)
        call_leader(op);
}

void vault_ops_progress(struct manager *m) {
    for (struct vault_op *op = m->vault->ops; op; op = op->next)
        if (op->stage != SETTLING) op->limit_ms = vault_now(m) + STALLED_MS;
}

/* Takes out one that is over, so that its `done` may ask for another one. */
static struct vault_op *take_over(struct vault *a) {
    for (struct vault_op **at = &a->ops; *at; at = &(*at)->next) {
        struct vault_op *op = *at;
        if (!op->over || op->calling) continue;
        *at = op->next;
        return op;
    }
    return NULL;
}

void vault_ops_step(struct manager *m) {
    struct vault_op *op;
    for (op = m->vault->ops; op; op = op->next)
        if (!op->over) step(op);
    while ((op = take_over(m->vault)) != NULL) {
        op->done(op->ctx, op->error, op->why.text);
        free(op);
    }
}

void vault_ops_end(struct manager *m) {
    struct vault_op *op;
    for (op = m->vault->ops; op; op = op->next) {
        op->calling = false; /* the replica is gone, and has told */
        if (!op->over) finish(op, ERR_CLOSED, "the node is stopping");
    }
    while ((op = take_over(m->vault)) != NULL) {
        op->done(op->ctx, op->error, op->why.text);
        free(op);
    }
}

RESULT vault_rotate(struct manager *m, const struct actor *actor, manager_done *done, void *ctx,
                    struct why *why) {
    struct row row;
    struct vault_row v;
    unsigned n = 0;
    TRY(manager_ready(m, why));
    if (!vault_row_get(m->store, &row, &v) || v.current == 0)
        return fail_with(why, ERR_BUSY, "the cluster key is still being made; try again");
    for (const struct vault_op *op = m->vault->ops; op; op = op->next)
        n++;
    struct vault_op *op = n < OPS_MAX ? calloc(1, sizeof *op) : NULL;
    if (!op) return fail_with(why, ERR_BUSY, "too many rotations are waited for");
    *op = (struct vault_op){.manager = m,
                            .seen = v.current,
                            .limit_ms = vault_now(m) + STALLED_MS,
                            .done = done,
                            .ctx = ctx,
                            .next = m->vault->ops};
    if (actor) {
        enum err e = write_audit(op, actor);
        if (e != OK) {
            free(op);
            return fail_with(why, e, "the audit can't be written: %s", err_text(e));
        }
    } else {
        op->stage = STARTING;
    }
    m->vault->ops = op;
    vault_wake(m);
    return OK;
}
