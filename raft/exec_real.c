/* See exec.h and exec_real.h. Two lists under one mutex: jobs to run and jobs that have run. The
 * thread takes one job at a time from the first and puts it into the second; uv_async tells the
 * loop, which delivers all that are there. Close is the last job in the queue, so everything before
 * it is run and delivered. */
#include "raft/exec_real.h"

#include <pthread.h>
#include <stdlib.h>

struct list {
    struct job *first, **last; /* FIFO; last points to the place for the next */
};

struct exec_real {
    struct exec base;
    pthread_mutex_t lock; /* of the two lists */
    pthread_cond_t more;  /* something was submitted */
    struct list waiting, ran;
    struct job stop; /* submitted by close */
    bool stopped;    /* its done was delivered */
    uv_async_t async;
    pthread_t thread;
    char name[16]; /* of the thread */
    void (*closed)(void *ctx);
    void *ctx; /* for closed */
};

static void list_clear(struct list *l) {
    l->first = NULL;
    l->last = &l->first;
}

static void list_put(struct list *l, struct job *j) {
    j->next = NULL;
    *l->last = j;
    l->last = &j->next;
}

static struct job *list_take(struct list *l) {
    struct job *j = l->first;
    if (j) l->first = j->next;
    if (!l->first) l->last = &l->first;
    return j;
}

static void submit(struct exec *base, struct job *j) {
    struct exec_real *e = (struct exec_real *)base;
    (void)pthread_mutex_lock(&e->lock);
    list_put(&e->waiting, j);
    (void)pthread_cond_signal(&e->more);
    (void)pthread_mutex_unlock(&e->lock);
}

static void *work(void *at) {
    struct exec_real *e = at;
    (void)pthread_setname_np(pthread_self(), e->name);
    for (bool going = true; going;) {
        (void)pthread_mutex_lock(&e->lock);
        while (!e->waiting.first)
            (void)pthread_cond_wait(&e->more, &e->lock);
        struct job *j = list_take(&e->waiting);
        (void)pthread_mutex_unlock(&e->lock);
        going = j != &e->stop;
        if (going) j->run(j);
        (void)pthread_mutex_lock(&e->lock);
        list_put(&e->ran, j);
        (void)pthread_mutex_unlock(&e->lock);
        (void)uv_async_send(&e->async);
    }
    return NULL;
}

static void on_closed(uv_handle_t *handle) {
    struct exec_real *e = handle->data;
    (void)pthread_cond_destroy(&e->more);
    (void)pthread_mutex_destroy(&e->lock);
    void (*closed)(void *ctx) = e->closed;
    void *ctx = e->ctx;
    free(e);
    if (closed) closed(ctx);
}

/* Delivers what had run when it was called; what runs meanwhile has its own wake-up. */
static void on_async(uv_async_t *async) {
    struct exec_real *e = async->data;
    (void)pthread_mutex_lock(&e->lock);
    struct job *j = e->ran.first;
    list_clear(&e->ran);
    (void)pthread_mutex_unlock(&e->lock);
    while (j) {
        struct job *next = j->next;
        if (j == &e->stop)
            e->stopped = true;
        else
            j->done(j);
        j = next;
    }
    if (!e->stopped) return;
    (void)pthread_join(e->thread, NULL);
    uv_close((uv_handle_t *)&e->async, on_closed);
}

RESULT exec_real_open(uv_loop_t *loop, const char *name, struct exec **out, struct why *why) {
    struct exec_real *e = calloc(1, sizeof *e);
    if (!e) return fail_with(why, ERR_NOMEM, "no memory for the thread %s", name);
    e->base.submit = submit;
    (void)snprintf(e->name, sizeof e->name, "%s", name);
    list_clear(&e->waiting);
    list_clear(&e->ran);
    (void)pthread_mutex_init(&e->lock, NULL);
    (void)pthread_cond_init(&e->more, NULL);
    e->async.data = e;
    int rc = uv_async_init(loop, &e->async, on_async);
    if (rc == 0) {
        rc = pthread_create(&e->thread, NULL, work, e);
        if (rc == 0) {
            *out = &e->base;
            return OK;
        }
        uv_close((uv_handle_t *)&e->async, on_closed);
    } else {
        free(e);
    }
    return fail_with(why, ERR_NOMEM, "the thread %s can't be started: %s", name,
                     strerror(rc > 0 ? rc : -rc));
}

void exec_real_close(struct exec *base, void (*closed)(void *ctx), void *ctx) {
    struct exec_real *e = (struct exec_real *)base;
    e->closed = closed;
    e->ctx = ctx;
    submit(base, &e->stop);
}
