/* Maintenance.Snapshot: the whole state as a backup file (api/backup.h), sealed under the cluster's
 * backup key, in pieces of 32 KiB, the last one the SHA-256 of all before it, as etcd's clients
 * expect. Made step by step as a chore over a view of the state, the next step when what is made is
 * out; a client that does not read makes it wait.
 *
 *   making <-> waiting (for the client) -> ended
 *
 * A client that leaves ends it; a chore that is queued is freed by its own next step. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "api/backup.h"
#include "api/etcd/kv.h"

#define PIECE (32 * KIB) /* of one message, as etcd's */

struct snapshot_rpc {
    struct chore chore;
    struct rpc *r;             /* NULL: the client has left */
    struct machine *machine;   /* whose state */
    struct machine_view *view; /* of it */
    FILE *file;                /* the writer's; its bytes go to `made` */
    struct backup_writer *writer;
    crypto_hash_sha256_state sum; /* of what was sent */
    struct buf state;             /* the next bytes of the view */
    struct buf made;              /* of the file, not yet sent */
    size_t sent;                  /* of made */
    uint64_t estimate;            /* bytes still to come, roughly */
    uint64_t total;               /* bytes of the file so far */
    bool queued, done;            /* the chore is the manager's now; all is made */
    struct why why;
};

static ssize_t take_bytes(void *cookie, const char *at, size_t size) {
    struct snapshot_rpc *s = cookie;
    return buf_add(&s->made, at, size) == OK ? (ssize_t)size : 0;
}

static void snapshot_free(struct snapshot_rpc *s) {
    backup_writer_free(s->writer);
    if (s->file != NULL) (void)fclose(s->file);
    if (s->view != NULL) s->machine->view_free(s->view);
    buf_wipe(&s->state);
    buf_free(&s->made);
    free(s);
}

static void on_gone(struct rpc *r) {
    struct snapshot_rpc *s = r->data;
    s->r = NULL;
    rpc_fail(r, ERR_CLOSED, NULL);
    if (!s->queued) snapshot_free(s);
}

static void queue(struct snapshot_rpc *s) {
    s->queued = true;
    manager_chore(s->r->api->manager, &s->chore);
}

static void finish(struct snapshot_rpc *s, enum err e) {
    struct rpc *r = s->r;
    r->gone = NULL;
    if (e == OK)
        rpc_end(r);
    else
        etcd_fail(r, e, s->why.text[0] ? s->why.text : NULL);
    snapshot_free(s);
}

/* --- sending --------------------------------------------------------------------------------- */

static RESULT send_piece(struct snapshot_rpc *s, struct span piece, uint64_t remaining) {
    Etcdserverpb__ResponseHeader header;
    Etcdserverpb__SnapshotResponse m = ETCDSERVERPB__SNAPSHOT_RESPONSE__INIT;
    etcd_header_of(s->r->api, &header);
    m.header = &header;
    m.remaining_bytes = remaining;
    m.blob = (ProtobufCBinaryData){.len = piece.size, .data = (uint8_t *)(uintptr_t)piece.at};
    return rpc_send(s->r, &m.base);
}

static RESULT send_sum(struct snapshot_rpc *s) {
    uint8_t sum[crypto_hash_sha256_BYTES];
    (void)crypto_hash_sha256_final(&s->sum, sum);
    enum err e = send_piece(s, span_of(sum, sizeof sum), 0);
    return e == ERR_BUSY ? OK : e;
}

/* What is left moves up, so that `made` never holds more than one step makes and a piece. */
static void drop_sent(struct snapshot_rpc *s) {
    size_t left = s->made.size - s->sent;
    if (left > 0) memmove(s->made.at, s->made.at + s->sent, left);
    s->made.size = left;
    s->sent = 0;
}

/* What is made goes out in whole pieces, at the end also the rest. */
static RESULT send_made(struct snapshot_rpc *s) {
    enum err e = OK;
    while (e == OK && s->made.size > s->sent && (s->done || s->made.size - s->sent >= PIECE)) {
        size_t left = s->made.size - s->sent, size = left < PIECE ? left : PIECE;
        struct span piece = span_of(s->made.at + s->sent, size);
        (void)crypto_hash_sha256_update(&s->sum, piece.at, piece.size);
        s->sent += size;
        s->estimate -= s->estimate > size ? size : s->estimate;
        uint64_t rest = s->made.size - s->sent + crypto_hash_sha256_BYTES;
        e = send_piece(s, piece, s->done || s->estimate < rest ? rest : s->estimate);
    }
    drop_sent(s);
    return e;
}

/* --- making ---------------------------------------------------------------------------------- */

static RESULT make_end(struct snapshot_rpc *s) {
    static const uint8_t zeros[BACKUP_PADDING] = {0};
    uint64_t bytes;
    TRY(backup_finish(s->writer, &bytes, &s->why));
    size_t before = s->made.size;
    if (fflush(s->file) != 0) return ERR_NOMEM;
    s->total += s->made.size - before;
    size_t odd = s->total % BACKUP_PADDING;
    return odd == 0 ? OK : buf_add(&s->made, zeros, BACKUP_PADDING - odd);
}

static RESULT make_more(struct snapshot_rpc *s) {
    size_t before = s->made.size;
    buf_clear(&s->state);
    TRY(s->machine->view_next(s->view, &s->state, &s->done));
    TRY(backup_write(s->writer, buf_span(&s->state), &s->why));
    if (fflush(s->file) != 0) return ERR_NOMEM;
    s->total += s->made.size - before;
    return s->done ? make_end(s) : OK;
}

static void go_on(struct snapshot_rpc *s) {
    enum err e = s->done || s->made.size >= PIECE ? OK : make_more(s);
    if (e == OK) e = send_made(s);
    bool sent_all = s->done && s->made.size == 0;
    if (sent_all && (e == OK || e == ERR_BUSY)) e = send_sum(s);
    if (sent_all || (e != OK && e != ERR_BUSY))
        finish(s, e);
    else if (e == OK)
        queue(s);
}

static bool on_chore(struct chore *chore) {
    struct snapshot_rpc *s = (struct snapshot_rpc *)(void *)chore;
    s->queued = false;
    if (s->r == NULL)
        snapshot_free(s);
    else
        go_on(s);
    return false; /* go_on has queued it again */
}

static void on_drained(struct rpc *r) {
    struct snapshot_rpc *s = r->data;
    if (!s->queued) queue(s);
}

/* --- beginning ------------------------------------------------------------------------------- */

static RESULT begin_file(struct snapshot_rpc *s, const struct manager *m) {
    struct replica_status status;
    struct secret *key = NULL;
    struct backup_head head = {.time_s = (int64_t)time(NULL)};
    s->file = fopencookie(s, "w", (cookie_io_functions_t){.write = take_bytes});
    if (s->file == NULL) return ERR_NOMEM;
    replica_status(m->replica, &status);
    s->machine->view_hash(s->view, head.hash);
    head.revision = store_revision(m->store);
    head.index = status.applied;
    TRY(backup_cluster_key(store_cluster(m->store), &key));
    enum err e = backup_create(s->file, key, &head, &s->writer, &s->why);
    secret_free(key);
    if (e == OK && fflush(s->file) != 0) e = ERR_NOMEM;
    s->total = s->made.size;
    return e;
}

static void begin(struct rpc *r, void *data) {
    struct manager *m = r->api->manager;
    struct snapshot_rpc *s = calloc(1, sizeof *s);
    (void)data;
    if (s == NULL) {
        etcd_fail(r, ERR_NOMEM, NULL);
        return;
    }
    s->chore.step = on_chore;
    s->machine = &m->machine;
    s->state = buf_new(2 * SNAPSHOT_CHUNK + 4 * COMMAND_MAX);
    s->made = buf_new(2 * SNAPSHOT_CHUNK + 8 * COMMAND_MAX);
    s->estimate = store_size(m->store);
    (void)crypto_hash_sha256_init(&s->sum);
    enum err e = m->machine.view(&m->machine, &s->view);
    if (e == OK) e = begin_file(s, m);
    if (e != OK) {
        etcd_fail(r, e, s->why.text[0] ? s->why.text : NULL);
        snapshot_free(s);
        return;
    }
    s->r = r;
    r->data = s;
    r->gone = on_gone;
    r->drained = on_drained;
    queue(s);
}

/* It holds all that was acknowledged before it was asked for, whichever member makes it. */
void maintenance_snapshot(struct rpc *r, const ProtobufCMessage *m) {
    enum err e = caller_root(r->api, &r->caller);
    (void)m;
    if (e == OK)
        etcd_read(r, begin, NULL);
    else
        etcd_fail(r, e, NULL);
}
