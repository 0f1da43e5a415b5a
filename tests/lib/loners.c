/* See loners.h. A manager here is what `conclave serve` runs but for the server of clients: the
 * same directory, replica, store and peers. */
#include "tests/lib/loners.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "store/join_token.h"

static void on_changed(void *ctx) { (void)ctx; }

static void on_failed(void *ctx, enum err e, const char *text) {
    (void)ctx;
    fail_msg("%s: %s", err_name(e), text);
}

static void on_up(void *ctx, enum err e, const char *text) {
    struct loner *n = ctx;
    if (e != OK) fail_msg("%s: %s", err_name(e), text);
    n->up = true;
}

static void on_closed(void *ctx) { ((struct loner *)ctx)->closed = true; }

void loners_done(void *ctx, enum err e, const char *text) {
    struct loners *all = ctx;
    all->done = true;
    all->error = e;
    (void)snprintf(all->text, sizeof all->text, "%s", text);
}

static void on_late(uv_timer_t *timer) {
    (void)timer;
    fail_msg("waited %d s in vain", LONERS_WAIT_S);
}

void loners_until(struct loners *all, bool (*holds)(void *ctx), void *ctx) {
    (void)uv_timer_start(&all->timer, on_late, LONERS_WAIT_S * 1000, 0);
    while (!holds(ctx))
        (void)uv_run(&all->loop, UV_RUN_ONCE);
    (void)uv_timer_stop(&all->timer);
}

static bool is_set(void *ctx) { return *(bool *)ctx; }

void loners_wait(struct loners *all) { loners_until(all, is_set, &all->done); }

/* A port that is free now. */
static unsigned free_port(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    (void)close(fd);
    return ntohs(at.sin_port);
}

static void open_manager(struct loner *n) {
    struct loners *all = n->all;
    struct why why = {0};
    struct manager_config config = {.loop = &all->loop,
                                    .log = &all->log,
                                    .data = n->root,
                                    .client = "127.0.0.1:2379",
                                    .alone = all->alone,
                                    .ctx = n,
                                    .changed = on_changed,
                                    .failed = on_failed};
    (void)snprintf(config.name, sizeof config.name, "n%d", (int)(n - all->at) + 1);
    (void)snprintf(config.peer, sizeof config.peer, "%s", all->alone ? "127.0.0.1:2377" : n->peer);
    n->up = n->closed = false;
    if (manager_new(&config, &n->manager, &why) != OK) fail_msg("%s", why.text);
    if (manager_open(n->manager, &why) != OK) fail_msg("%s", why.text);
}

static struct loner *add(struct loners *all) {
    struct loner *n = &all->at[all->n++];
    const char *tmp = getenv("TMPDIR");
    n->all = all;
    (void)snprintf(n->root, sizeof n->root, "%s/conclave-loner-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(n->root));
    if (!all->alone) (void)snprintf(n->peer, sizeof n->peer, "127.0.0.1:%u", free_port());
    open_manager(n);
    return n;
}

void loners_start(struct loners *all, bool alone) {
    struct why why = {0};
    *all = (struct loners){.alone = alone};
    assert_int_equal(crypto_start(NULL), OK);
    assert_int_equal(uv_loop_init(&all->loop), 0);
    (void)uv_timer_init(&all->loop, &all->timer);
    const char *level = getenv("LONERS_LOG");
    log_open(&all->log, level ? 2 : open("/dev/null", O_WRONLY | O_CLOEXEC),
             level ? LOG_DEBUG : LOG_ERROR);
    struct loner *n = add(all);
    assert_int_equal(manager_init(n->manager, false, on_up, n, &why), OK);
    loners_until(all, is_set, &n->up);
}

/* The standing token of a role, as the leader's state has it. */
static void standing_token(const struct manager *m, enum node_role role,
                           char out[JOIN_TOKEN_TEXT]) {
    struct row row;
    struct join_token t;
    struct secret *secret;
    char text[JOIN_SECRET_SIZE + 1];
    const struct cluster *c = store_cluster(m->store);
    assert_true(join_token_standing(m->store, role, &row, &t));
    assert_int_equal(join_token_derive(c->join_key, role, t.epoch, text), OK);
    assert_int_equal(secret_new(text, JOIN_SECRET_SIZE, &secret), OK);
    assert_int_equal(token_format(buf_span(&c->ca.root_pem), secret, out), OK);
    secret_free(secret);
}

static bool is_member(void *ctx) {
    const struct loner *n = ctx;
    enum manager_state state = n->manager->state;
    return n->up &&
           (state == MANAGER_WORKER || (state == MANAGER_RUNNING && n->manager->current_once));
}

struct loner *loners_join(struct loners *all, enum node_role role) {
    char token[JOIN_TOKEN_TEXT];
    struct why why = {0};
    struct loner *leader = loners_leader(all), *n = add(all);
    standing_token(leader->manager, role, token);
    if (manager_join(n->manager, leader->peer, token, on_up, n, &why) != OK)
        fail_msg("%s", why.text);
    loners_until(all, is_member, n);
    return n;
}

void loner_stop(struct loner *n) {
    manager_close(n->manager, on_closed, n);
    loners_until(n->all, is_set, &n->closed);
    n->manager = NULL;
}

void loner_again(struct loner *n) {
    open_manager(n);
    n->up = true;
}

static struct loner *leader_of(struct loners *all) {
    for (unsigned i = 0; i < all->n; i++) {
        const struct manager *m = all->at[i].manager;
        if (m && m->state == MANAGER_RUNNING && m->leader == m->self.raft_id && m->leader != 0)
            return &all->at[i];
    }
    return NULL;
}

static bool has_leader(void *ctx) { return leader_of(ctx) != NULL; }

struct loner *loners_leader(struct loners *all) {
    loners_until(all, has_leader, all);
    return leader_of(all);
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s;
    (void)type;
    (void)at;
    return remove(path);
}

void loners_end(struct loners *all) {
    for (unsigned i = 0; i < all->n; i++)
        if (all->at[i].manager) loner_stop(&all->at[i]);
    uv_close((uv_handle_t *)&all->timer, NULL);
    (void)uv_run(&all->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&all->loop), 0);
    for (unsigned i = 0; i < all->n; i++)
        (void)nftw(all->at[i].root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (all->log.fd > 2) (void)close(all->log.fd);
}

static struct buf *gathered; /* of loners_files, which nftw gives no context */

static int gather(const char *path, const struct stat *s, int type, struct FTW *at) {
    char piece[64 * KIB];
    ssize_t size;
    (void)s;
    (void)at;
    int fd = type == FTW_F ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    while (fd >= 0 && (size = read(fd, piece, sizeof piece)) > 0)
        assert_int_equal(buf_add(gathered, piece, (size_t)size), OK);
    if (fd >= 0) (void)close(fd);
    return 0;
}

void loners_files(const char *root, struct buf *out) {
    gathered = out;
    assert_int_equal(nftw(root, gather, 16, FTW_PHYS), 0);
    gathered = NULL;
}

bool loners_found(const struct buf *bytes, struct span what) {
    return bytes->size >= what.size && memmem(bytes->at, bytes->size, what.at, what.size) != NULL;
}
