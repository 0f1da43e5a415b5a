/* The thread of an embedded handle: a libuv loop with a replica that is a cluster of one, the two
 * execs of its disk work, and the inbox of the handle's callers.
 *
 *     starting --replica open, all applied--> serving --EMBED_CLOSE--> closing --> ended
 *         `--error--> closing                    `--failure: every op gets it, until EMBED_CLOSE
 *
 * Ops end only through finish(), and their callers are woken in one go before the loop sleeps.
 *
 * No call reads what was overwritten or deleted, so old versions are forgotten: once they take more
 * than the live ones do and EMBED_HISTORY_MAX, a compaction is proposed, and its versions go in
 * steps between which callers and readers have their turn. Iterators keep what they show. */
#include "api/embed.h"

#include <signal.h>
#include <stdio.h>

#include "raft/loop.h"

#define START_READ_MS 200 /* the first read is tried this often; on a full disk it never succeeds */
#define KEY_COST      128 /* memory of a live key beside its own bytes and its value's, at most */

/* What belongs to the loop's thread alone. */
struct embed {
    struct ccl_db *db;
    uv_loop_t loop;
    uv_timer_t timer;     /* replica_tick */
    uv_timer_t retry;     /* the first read again */
    uv_idle_t idle;       /* runs while a turn is due */
    uv_prepare_t prepare; /* wakes callers before the loop sleeps */
    struct clock clock;
    struct replica_env env;
    struct exec *log_exec, *snapshot_exec; /* NULL: not there (any more) */
    struct replica *replica;               /* NULL: not there (any more) */
    struct read first_read;                /* all that was written is applied when it is done */
    uint64_t opening_until_ms;             /* on the clock */
    bool opened;                           /* db->opening has its outcome */
    bool give_up;                          /* it is an error: close, from outside the replica */
    bool closing;                          /* start_close was called */
    struct proposal forget;                /* a compaction */
    struct buf forget_command;             /* its bytes */
    bool forgetting;                       /* it is under way */
    struct embed_op *finished, **finished_tail; /* to be woken */
};

/* --- ops --- */

static void finish(struct embed *e, struct embed_op *op, enum err error) {
    op->error = error;
    op->next = NULL;
    *e->finished_tail = op;
    e->finished_tail = &op->next;
}

static void wake_callers(struct embed *e) {
    struct embed_op *op = e->finished;
    e->finished = NULL;
    e->finished_tail = &e->finished;
    while (op != NULL) {
        struct embed_op *next = op->next; /* the op is its caller's again once it is posted */
        (void)sem_post(&op->done);
        op = next;
    }
}

/* Opening has succeeded or failed: tells embed_run. */
static void opened(struct embed *e, enum err error, const char *text) {
    if (e->opened) return;
    e->opened = true;
    if (error != OK) {
        (void)pthread_mutex_lock(&e->db->mutex);
        (void)snprintf(e->db->text, sizeof e->db->text, "%s", text);
        (void)pthread_mutex_unlock(&e->db->mutex);
        e->give_up = true;
    }
    finish(e, &e->db->opening, error);
}

/* --- the replica's world --- */

static void take_turn(struct embed *e) {
    (void)uv_idle_stop(&e->idle);
    if (e->replica != NULL) replica_turn(e->replica);
}

static void on_idle(uv_idle_t *handle) { take_turn(handle->data); }

static void wake(void *ctx) {
    struct embed *e = ctx;
    (void)uv_idle_start(&e->idle, on_idle);
}

static void on_timer(uv_timer_t *handle) {
    struct embed *e = handle->data;
    if (e->replica != NULL) replica_tick(e->replica);
}

static void arm(void *ctx, uint64_t at_ms) {
    struct embed *e = ctx;
    uint64_t now_ms = e->clock.now_ms(&e->clock);
    uv_update_time(&e->loop);
    (void)uv_timer_start(&e->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

static void failed(void *ctx, enum err error, const char *text) {
    struct embed *e = ctx;
    struct ccl_db *db = e->db;
    guarded_release(&db->guarded);
    (void)pthread_mutex_lock(&db->mutex);
    db->failed = error;
    (void)snprintf(db->text, sizeof db->text, "%s", text);
    (void)pthread_mutex_unlock(&db->mutex);
    atomic_store(&db->dead, true);
    opened(e, error, text);
}

/* There is nobody else. */
static void send_to_nobody(void *ctx, uint64_t to, struct buf *frame) {
    (void)ctx;
    (void)to;
    buf_free(frame);
}

static size_t queued_for_nobody(void *ctx, uint64_t to) {
    (void)ctx;
    (void)to;
    return 0;
}

static void call_refused(void *ctx, uint64_t from, struct span request, struct reply *reply) {
    (void)ctx;
    (void)from;
    (void)request;
    reply_send(reply, ERR_UNSUPPORTED, span_of(NULL, 0));
}

static void say(void *ctx, int level, const char *text) {
    struct embed *e = ctx;
    if (e->db->log != NULL) e->db->log(e->db->log_ctx, level, text);
}

/* --- opening: one read that sees everything --- */

static void read_first(struct embed *e);

static void on_retry(uv_timer_t *handle) { read_first(handle->data); }

static bool log_is_full(struct embed *e) {
    struct replica_status status;
    replica_status(e->replica, &status);
    return status.full;
}

static void first_read_done(struct read *rd, enum err error) {
    struct embed *e = rd->ctx;
    if (error == ERR_CLOSED) return; /* it failed: `failed` says why */
    if (error == OK)
        opened(e, OK, NULL);
    else if (log_is_full(e))
        opened(e, ERR_NOSPACE, "the log can't be written: no space left on the disk");
    else if (e->clock.now_ms(&e->clock) >= e->opening_until_ms)
        opened(e, ERR_TIMEOUT, "the log could not be replayed in time");
    else
        (void)uv_timer_start(&e->retry, on_retry, 10, 0);
}

static void read_first(struct embed *e) {
    if (e->replica == NULL || e->closing) return;
    e->first_read = (struct read){.done = first_read_done,
                                  .ctx = e,
                                  .deadline_ms = e->clock.now_ms(&e->clock) + START_READ_MS};
    enum err error = replica_read(e->replica, &e->first_read);
    if (error != OK) first_read_done(&e->first_read, error);
}

/* --- forgetting --- */

static void forgotten(struct proposal *p, enum err error, uint64_t index, struct span result) {
    struct embed *e = p->ctx;
    (void)error; /* the next write tries again */
    (void)index;
    (void)result;
    e->forgetting = false;
}

/* The loop alone changes the store: it may look without the lock. */
static bool much_to_forget(const struct store *s) {
    uint64_t live = store_bytes(s) + store_keys(s) * KEY_COST;
    return store_size(s) > 2 * live + EMBED_HISTORY_MAX && !store_compacting(s) &&
           store_revision(s) > store_compacted(s);
}

static void forget_old(struct embed *e) {
    const struct store *s = e->db->store;
    if (e->replica == NULL || e->forgetting || !much_to_forget(s)) return;
    struct command c = {.op = OP_COMPACT, .compact_revision = store_revision(s)};
    buf_clear(&e->forget_command);
    if (command_encode(&c, &e->forget_command) != OK) return;
    e->forget =
        (struct proposal){.command = buf_span(&e->forget_command), .done = forgotten, .ctx = e};
    e->forgetting = replica_propose(e->replica, &e->forget) == OK;
}

/* While a snapshot is written there is nothing to be done: its end is another turn of the loop. */
static void work(struct embed *e) {
    if (e->replica == NULL || !store_compacting(e->db->store)) return;
    if (guarded_work(&e->db->guarded, e->db->store)) wake(e);
}

/* --- the inbox --- */

static void written(struct proposal *p, enum err error, uint64_t index, struct span result) {
    struct embed_op *op =
        (struct embed_op *)(void *)((uint8_t *)p - offsetof(struct embed_op, proposal));
    struct embed *e = p->ctx;
    (void)index;
    if (error == OK && result.size != sizeof op->result) error = ERR_INTERNAL;
    if (error == OK) memcpy(op->result, result.at, sizeof op->result);
    finish(e, op, error);
    if (error == OK) forget_old(e);
}

static void start_write(struct embed *e, struct embed_op *op) {
    op->proposal.done = written;
    op->proposal.ctx = e;
    op->proposal.deadline_ms =
        e->clock.now_ms(&e->clock) + (op->timeout_ms != 0 ? op->timeout_ms : PROPOSAL_TIMEOUT_MS);
    enum err error = e->replica == NULL ? ERR_CLOSED : replica_propose(e->replica, &op->proposal);
    if (error != OK) finish(e, op, error);
}

static void give_status(struct embed *e, struct embed_op *op) {
    if (e->replica != NULL) replica_status(e->replica, &op->status);
    finish(e, op, e->replica != NULL ? OK : ERR_CLOSED);
}

static void start_close(struct embed *e);

static void start_op(struct embed *e, struct embed_op *op) {
    switch (op->kind) {
    case EMBED_WRITE: start_write(e, op); break;
    case EMBED_STATUS: give_status(e, op); break;
    case EMBED_CLOSE:
        finish(e, op, OK);
        start_close(e);
        break;
    }
}

static void on_async(uv_async_t *handle) {
    struct embed *e = handle->data;
    struct ccl_db *db = e->db;
    (void)pthread_mutex_lock(&db->mutex);
    struct embed_op *op = db->inbox;
    db->inbox = NULL;
    db->inbox_tail = &db->inbox;
    (void)pthread_mutex_unlock(&db->mutex);
    while (op != NULL) {
        struct embed_op *next = op->next;
        start_op(e, op);
        op = next;
    }
    take_turn(e);
}

void embed_do(struct ccl_db *db, struct embed_op *op) {
    op->next = NULL;
    op->error = OK;
    if (sem_init(&op->done, 0, 0) != 0) {
        op->error = ERR_NOMEM;
        return;
    }
    (void)pthread_mutex_lock(&db->mutex);
    bool first = db->inbox == NULL;
    *db->inbox_tail = op;
    db->inbox_tail = &op->next;
    (void)pthread_mutex_unlock(&db->mutex);
    if (first) (void)uv_async_send(&db->async);
    while (sem_wait(&op->done) != 0) {
    } /* EINTR */
    (void)sem_destroy(&op->done);
}

/* --- closing --- */

static void close_handles(struct embed *e) {
    uv_close((uv_handle_t *)&e->db->async, NULL);
    uv_close((uv_handle_t *)&e->timer, NULL);
    uv_close((uv_handle_t *)&e->retry, NULL);
    uv_close((uv_handle_t *)&e->idle, NULL);
    uv_close((uv_handle_t *)&e->prepare, NULL);
}

static void close_next(struct embed *e);

static void log_exec_closed(void *ctx) {
    struct embed *e = ctx;
    e->log_exec = NULL;
    close_next(e);
}

static void snapshot_exec_closed(void *ctx) {
    struct embed *e = ctx;
    e->snapshot_exec = NULL;
    close_next(e);
}

static void replica_closed(void *ctx) {
    struct embed *e = ctx;
    e->replica = NULL;
    close_next(e);
}

/* One after the other: what uses a thing goes before it. */
static void close_next(struct embed *e) {
    if (e->replica != NULL)
        replica_close(e->replica, replica_closed, e);
    else if (e->log_exec != NULL)
        exec_real_close(e->log_exec, log_exec_closed, e);
    else if (e->snapshot_exec != NULL)
        exec_real_close(e->snapshot_exec, snapshot_exec_closed, e);
    else
        close_handles(e);
}

static void start_close(struct embed *e) {
    if (e->closing) return;
    e->closing = true;
    close_next(e);
}

static void on_prepare(uv_prepare_t *handle) {
    struct embed *e = handle->data;
    wake_callers(e);
    work(e);
    if (e->give_up) start_close(e);
}

/* --- the thread --- */

static RESULT from_uv(int rc, struct why *why) {
    if (rc == 0) return OK;
    return fail_with(why, err_from_errno(-rc), "the loop can't be started: %s", uv_strerror(rc));
}

/* After this all handles are there to be closed, whatever comes. */
static RESULT open_loop(struct embed *e, struct why *why) {
    TRY(from_uv(uv_loop_init(&e->loop), why));
    enum err error = from_uv(uv_async_init(&e->loop, &e->db->async, on_async), why);
    if (error != OK) {
        (void)uv_loop_close(&e->loop);
        return error;
    }
    (void)uv_timer_init(&e->loop, &e->timer);
    (void)uv_timer_init(&e->loop, &e->retry);
    (void)uv_idle_init(&e->loop, &e->idle);
    (void)uv_prepare_init(&e->loop, &e->prepare);
    e->db->async.data = e->timer.data = e->retry.data = e->idle.data = e->prepare.data = e;
    (void)uv_prepare_start(&e->prepare, on_prepare);
    return OK;
}

static void set_env(struct embed *e) {
    e->env = (struct replica_env){.ctx = e,
                                  .clock = &e->clock,
                                  .disk = e->db->disk,
                                  .keys = e->db->keys,
                                  .log_exec = e->log_exec,
                                  .snapshot_exec = e->snapshot_exec,
                                  .machine = &e->db->guarded.machine,
                                  .send = send_to_nobody,
                                  .queued = queued_for_nobody,
                                  .wake = wake,
                                  .arm = arm,
                                  .failed = failed,
                                  .call = call_refused,
                                  .log = say};
}

static RESULT open_replica(struct embed *e, struct why *why) {
    struct ccl_db *db = e->db;
    TRY(exec_real_start(&e->loop, "ccl-log", 0, &e->log_exec, why));
    TRY(exec_real_start(&e->loop, "ccl-snapshot", EXEC_NICE, &e->snapshot_exec, why));
    set_env(e);
    if (db->bootstrap) TRY(replica_bootstrap(&e->env, &db->config, why));
    TRY(replica_open(&e->env, &db->config, &e->replica, why));
    struct replica_status status;
    replica_status(e->replica, &status);
    if (status.last == 0 && status.snapshot_index == 0)
        return fail_with(why, ERR_CORRUPT, "the keyring is there, but the log is gone");
    return OK;
}

static void serve(struct embed *e) {
    struct why why = {0};
    enum err error = open_replica(e, &why);
    if (error == OK)
        read_first(e);
    else
        opened(e, error, why.text);
    (void)uv_run(&e->loop, UV_RUN_DEFAULT);
    wake_callers(e);
    (void)uv_loop_close(&e->loop);
}

static void *thread_main(void *arg) {
    struct ccl_db *db = arg;
    struct why why = {0};
    struct embed e = {
        .db = db, .finished_tail = &e.finished, .forget_command = buf_new(COMMAND_MAX)};
    (void)pthread_setname_np(pthread_self(), "ccl-loop");
    clock_real(&e.clock);
    e.opening_until_ms = e.clock.now_ms(&e.clock) + db->open_timeout_ms;
    enum err error = open_loop(&e, &why);
    if (error == OK) {
        serve(&e);
    } else {
        opened(&e, error, why.text);
        wake_callers(&e);
    }
    buf_free(&e.forget_command);
    return NULL;
}

/* The thread, and those that it starts, take no signals: they are the host's. */
static int start_thread(struct ccl_db *db) {
    sigset_t all, before;
    (void)sigfillset(&all);
    int rc = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (rc != 0) return rc;
    rc = pthread_create(&db->thread, NULL, thread_main, db);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

RESULT embed_run(struct ccl_db *db, struct why *why) {
    if (sem_init(&db->opening.done, 0, 0) != 0) return ERR_NOMEM;
    int rc = start_thread(db);
    if (rc != 0) {
        (void)sem_destroy(&db->opening.done);
        return fail_with(why, ERR_NOMEM, "a thread can't be started: %s", strerror(rc));
    }
    while (sem_wait(&db->opening.done) != 0) {
    } /* EINTR */
    (void)sem_destroy(&db->opening.done);
    if (db->opening.error == OK) return OK;
    (void)pthread_join(db->thread, NULL); /* it ends by itself */
    return fail_with(why, db->opening.error, "%s", db->text);
}

void embed_stop(struct ccl_db *db) {
    struct embed_op op = {.kind = EMBED_CLOSE};
    embed_do(db, &op);
    (void)pthread_join(db->thread, NULL);
}
