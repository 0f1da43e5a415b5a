/* The real side of exec.h: a thread, a queue of jobs to run and a queue of jobs that are done. The
 * thread sleeps on a condition variable; the loop is woken by one uv_async, which may stand for
 * many finished jobs.
 *
 * Happy path: submit puts the job into `waiting` and signals -> the thread runs it without the
 * mutex, puts it into `finished` and wakes the loop -> the loop takes all that is finished and
 * calls each done, in order. Failure modes: a thread or an async that can't be made fails
 * exec_real_start and nothing remains; submit can't fail, since a job brings its own memory. Close:
 * what was submitted runs to its end and every done is called, those of jobs that a done submits
 * too; then the thread is joined, the handles closed, the memory freed, `closed` called. The loop
 * is not blocked meanwhile: joining waits only for a thread that has already said that it ends.
 *
 * A light job on its own waits for the prepare handle, which libuv calls before the loop would wait
 * (handles that were started later, such as the one that sends the members' frames, come first),
 * and is run there if the average of the latest such jobs, wherever they ran, is below QUICK_US. A
 * disk that stalls thus costs the loop one stall, and then the thread has the jobs again. */
#include "raft/exec.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <uv.h>

#define THREAD_NAME_ROOM 16  /* what the kernel keeps of a thread's name, with the NUL */
#define QUICK_US         400 /* a light job that the loop may run itself */
#define AVERAGE_OVER     8   /* jobs: the weight of the latest one is 1/8 */

struct job_queue {
    struct job *first; /* oldest; NULL: empty */
    struct job *last;  /* newest */
};

struct real_exec {
    struct exec exec;          /* the interface; first */
    pthread_mutex_t mutex;     /* waiting, finished, closing, ended */
    pthread_cond_t wake;       /* waiting or closing has changed */
    struct job_queue waiting;  /* to run */
    struct job_queue finished; /* to be told */
    bool closing;              /* end when nothing waits */
    bool ended;                /* the thread's last act */
    pthread_t thread;          /* runs the jobs */
    int nice;                  /* added to its nice value */
    uv_async_t async;          /* wakes the loop; data is this */
    uv_prepare_t prepare;      /* runs `lone`; data is this */
    unsigned handles;          /* of the two, not yet closed */
    uint64_t took_us;          /* of the job just run: the thread's, then the loop's */
    uint64_t light_us;         /* loop only: what light jobs take of late */
    struct job *lone;          /* loop only: waits for the end of the turn; NULL: none */
    uint64_t under_way;        /* loop only: submitted, done not yet called */
    bool close_asked;          /* loop only */
    void (*closed)(void *ctx); /* of exec_real_close */
    void *ctx;                 /* of exec_real_close */
};

static void queue_put(struct job_queue *q, struct job *j) {
    j->next = NULL;
    if (q->first == NULL)
        q->first = j;
    else
        q->last->next = j;
    q->last = j;
}

static struct job *queue_take(struct job_queue *q) {
    struct job *j = q->first;
    if (j != NULL) q->first = j->next;
    return j;
}

static uint64_t run_timed(struct job *j) {
    uint64_t began = uv_hrtime();
    j->run(j);
    return (uv_hrtime() - began) / 1000;
}

/* ---- the thread ---- */

/* The next job; NULL when it is time to end. */
static struct job *next_job(struct real_exec *x) {
    pthread_mutex_lock(&x->mutex);
    while (x->waiting.first == NULL && !x->closing)
        pthread_cond_wait(&x->wake, &x->mutex);
    struct job *j = queue_take(&x->waiting);
    x->ended = j == NULL;
    pthread_mutex_unlock(&x->mutex);
    return j;
}

/* On Linux a nice value is a thread's own; where it can't be set the work is only less polite. */
static void give_way(int more) {
    id_t self = (id_t)gettid();
    errno = 0;
    int now = getpriority(PRIO_PROCESS, self);
    if (errno == 0) (void)setpriority(PRIO_PROCESS, self, now + more);
}

static void *work(void *ctx) {
    struct real_exec *x = ctx;
    struct job *j;
    if (x->nice != 0) give_way(x->nice);
    while ((j = next_job(x)) != NULL) {
        uint64_t took_us = run_timed(j);
        pthread_mutex_lock(&x->mutex);
        x->took_us = took_us;
        queue_put(&x->finished, j);
        pthread_mutex_unlock(&x->mutex);
        (void)uv_async_send(&x->async);
    }
    (void)uv_async_send(&x->async);
    return NULL;
}

/* ---- the loop ---- */

static void hand_over(struct real_exec *x, struct job *j) {
    pthread_mutex_lock(&x->mutex);
    queue_put(&x->waiting, j);
    pthread_mutex_unlock(&x->mutex);
    pthread_cond_signal(&x->wake); /* after the unlock: the thread would wake into a held mutex */
}

static void submit(struct exec *e, struct job *j) {
    struct real_exec *x = (struct real_exec *)e;
    struct job *before = x->lone;
    x->lone = NULL;
    x->under_way++;
    if (before != NULL) hand_over(x, before);
    if (j->light && x->under_way == 1 && x->light_us < QUICK_US)
        x->lone = j;
    else
        hand_over(x, j);
}

static void note_light(struct real_exec *x, uint64_t took_us) {
    x->light_us += took_us / AVERAGE_OVER;
    x->light_us -= x->light_us / AVERAGE_OVER;
}

static void free_exec(uv_handle_t *handle) {
    struct real_exec *x = handle->data;
    void (*closed)(void *ctx) = x->closed;
    void *ctx = x->ctx;
    if (--x->handles != 0) return;
    (void)pthread_cond_destroy(&x->wake);
    (void)pthread_mutex_destroy(&x->mutex);
    free(x);
    if (closed != NULL) closed(ctx);
}

static void close_handles(struct real_exec *x) {
    uv_close((uv_handle_t *)&x->async, free_exec);
    uv_close((uv_handle_t *)&x->prepare, free_exec);
}

/* Once every done was called, a closing exec lets its thread end, and then goes itself. */
static void close_on(struct real_exec *x) {
    if (!x->close_asked || x->under_way != 0 || uv_is_closing((uv_handle_t *)&x->async)) return;
    pthread_mutex_lock(&x->mutex);
    x->closing = true;
    bool ended = x->ended;
    pthread_cond_signal(&x->wake);
    pthread_mutex_unlock(&x->mutex);
    if (!ended) return;
    (void)pthread_join(x->thread, NULL);
    close_handles(x);
}

static void run_lone(uv_prepare_t *prepare) {
    struct real_exec *x = prepare->data;
    struct job *j = x->lone;
    if (j == NULL) return;
    x->lone = NULL;
    note_light(x, run_timed(j));
    j->done(j);
    x->under_way--;
    close_on(x);
}

static void tell(uv_async_t *async) {
    struct real_exec *x = async->data;
    pthread_mutex_lock(&x->mutex);
    struct job_queue done = x->finished;
    x->finished.first = NULL;
    uint64_t took_us = x->took_us;
    pthread_mutex_unlock(&x->mutex);
    struct job *j;
    if (done.first != NULL && done.first->light) note_light(x, took_us);
    while ((j = queue_take(&done)) != NULL) {
        j->done(j); /* may free the job, submit it again or ask to close */
        x->under_way--;
    }
    close_on(x);
}

static RESULT thread_start(struct real_exec *x, const char *name, struct why *why) {
    char shown[THREAD_NAME_ROOM] = {0};
    memcpy(shown, name, strnlen(name, sizeof shown - 1));
    int e = pthread_create(&x->thread, NULL, work, x);
    if (e != 0) return fail_with(why, err_from_errno(e), "thread %s: can't be started", shown);
    (void)pthread_setname_np(x->thread, shown);
    return OK;
}

RESULT exec_real_start(struct uv_loop_s *loop, const char *name, int nice, struct exec **out,
                       struct why *why) {
    struct real_exec *x = calloc(1, sizeof *x);
    if (x == NULL) return ERR_NOMEM;
    x->exec.submit = submit;
    if (pthread_mutex_init(&x->mutex, NULL) != 0 || pthread_cond_init(&x->wake, NULL) != 0 ||
        uv_async_init(loop, &x->async, tell) != 0) {
        free(x);
        return fail_with(why, ERR_NOMEM, "thread %s: can't be started", name);
    }
    (void)uv_prepare_init(loop, &x->prepare); /* neither this nor its start can fail */
    (void)uv_prepare_start(&x->prepare, run_lone);
    uv_unref((uv_handle_t *)&x->prepare);
    x->handles = 2;
    x->light_us = QUICK_US; /* the first ones are the thread's */
    x->async.data = x->prepare.data = x;
    x->nice = nice;
    enum err e = thread_start(x, name, why);
    if (e == OK)
        *out = &x->exec;
    else
        close_handles(x);
    return e;
}

void exec_real_close(struct exec *e, void (*closed)(void *ctx), void *ctx) {
    struct real_exec *x = (struct real_exec *)e;
    x->closed = closed;
    x->ctx = ctx;
    x->close_asked = true;
    close_on(x);
}
