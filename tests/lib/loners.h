/* Whole managers in one process, on one loop: real files in directories of their own, real peers on
 * loopback ports when there is more than one. For unit tests of what a manager does with its
 * cluster; all that must not fail here fails the test, and nothing is waited for longer than
 * LONERS_WAIT_S. */
#ifndef CONCLAVE_TESTS_LONERS_H
#define CONCLAVE_TESTS_LONERS_H

#include "api/manager.h"

#define LONERS_MAX    3
#define LONERS_WAIT_S 20

struct loner {
    char root[256]; /* its directory */
    char peer[64];  /* its peer address; "": it is alone */
    struct manager *manager;
    bool up, closed;
    struct loners *all;
};

struct loners {
    uv_loop_t loop;
    struct log log;
    uv_timer_t timer; /* ends a wait that is too long */
    unsigned n;
    struct loner at[LONERS_MAX];
    bool alone;
    /* of the last request that had on_done as its callback */
    bool done;
    enum err error;
    char text[WHY_MAX];
};

void loners_start(struct loners *all, bool alone);                  /* the first one, founded */
struct loner *loners_join(struct loners *all, enum node_role role); /* one more, by its token */
void loner_stop(struct loner *n);    /* a clean stop; its files stay */
void loner_again(struct loner *n);   /* from its files */
void loners_end(struct loners *all); /* all are stopped, all files are gone */

void loners_done(void *ctx, enum err e, const char *text); /* a manager_done; ctx: the loners */
void loners_wait(struct loners *all);                      /* for it */
/* Turns the loop until it holds. */
void loners_until(struct loners *all, bool (*holds)(void *ctx), void *ctx);
struct loner *loners_leader(struct loners *all); /* one that knows that it leads */
/* All bytes of all files under a directory, one after the other. */
void loners_files(const char *root, struct buf *out);
bool loners_found(const struct buf *bytes, struct span what);

#endif
