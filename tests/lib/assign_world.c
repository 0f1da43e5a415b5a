/* See assign_world.h: the manager, the changes that a test makes, and nodes that keep what they are
 * told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/service/scheduler.h"
#include "tests/lib/assign_world.h"
#include "tests/lib/held_lists.h"

#define WAIT_MS 20000

struct world world;

/* --- the loop --------------------------------------------------------------------------------- */

void world_until(condition *holds, const struct mind *n) {
    uint64_t end = uv_now(&world.loop) + WAIT_MS;
    while (!holds(n)) {
        (void)uv_run(&world.loop, UV_RUN_ONCE);
        if (uv_now(&world.loop) > end) fail_msg("what is waited for does not come");
    }
}

static bool is_founded(const struct mind *n) {
    (void)n;
    return world.founded;
}
static bool is_done(const struct mind *n) {
    (void)n;
    return world.done;
}
static bool is_closed(const struct mind *n) {
    (void)n;
    return world.closed;
}

static void on_changed(void *ctx) { (void)ctx; }
static void on_failed(void *ctx, enum err e, const char *text) {
    (void)ctx;
    fail_msg("%s: %s", err_name(e), text);
}
static void on_founded(void *ctx, enum err e, const char *text) {
    (void)ctx;
    if (e != OK) fail_msg("%s: %s", err_name(e), text);
    world.founded = true;
}
static void on_closed(void *ctx) {
    (void)ctx;
    world.closed = true;
}

static void free_port(char out[ADDRESS_MAX]) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&at, size) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    (void)close(fd);
    (void)snprintf(out, ADDRESS_MAX, "127.0.0.1:%u", ntohs(at.sin_port));
}

void world_begin_with(const struct driver_table *drivers) {
    struct why why = {0};
    const char *tmp = getenv("TMPDIR");
    world = (struct world){0};
    (void)snprintf(world.root, sizeof world.root, "%s/conclave-assign-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(world.root));
    assert_int_equal(uv_loop_init(&world.loop), 0);
    log_open(&world.log, open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_ERROR);
    free_port(world.peer);
    struct manager_config config = {.loop = &world.loop,
                                    .log = &world.log,
                                    .data = world.root,
                                    .name = "manager",
                                    .client = "127.0.0.1:2379",
                                    .changed = on_changed,
                                    .failed = on_failed};
    if (drivers) config.drivers = *drivers;
    memcpy(config.peer, world.peer, sizeof config.peer);
    pki_new(&world.pki, "testcluster00000000000000");
    assert_int_equal(manager_new(&config, &world.manager, &why), OK);
    assert_int_equal(manager_open(world.manager, &why), OK);
    assert_int_equal(manager_own_ca(world.manager, buf_span(&world.pki.root), world.pki.key, &why),
                     OK);
    assert_int_equal(manager_init(world.manager, false, on_founded, NULL, &why), OK);
    world_until(is_founded, NULL);
    scheduler_close(world.manager);
}

void world_begin(void) { world_begin_with(NULL); }

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s;
    (void)type;
    (void)at;
    return remove(path);
}

void world_end(void) {
    manager_close(world.manager, on_closed, NULL);
    world_until(is_closed, NULL);
    (void)uv_run(&world.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world.loop), 0);
    pki_free(&world.pki);
    (void)nftw(world.root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    (void)close(world.log.fd);
}

/* --- changes ---------------------------------------------------------------------------------- */

static void on_written(struct write *wr, enum err e, const char *text, const struct result *r) {
    (void)wr;
    world.error = e != OK ? e : r->error;
    if (world.error != OK) print_error("%s: %s\n", err_name(world.error), text);
    world.done = true;
}

void world_execute(struct row_list *l) {
    struct command c = list_command(l, 1700000000000000000);
    struct write wr = {.command = buf_new(COMMAND_MAX), .done = on_written};
    world.done = false;
    assert_int_equal(command_encode(&c, &wr.command), OK);
    assert_int_equal(manager_write(world.manager, &wr), OK);
    world_until(is_done, NULL);
    assert_int_equal(world.error, OK);
    buf_free(&l->changes);
}

static void on_held(void *ctx, enum err e, const char *text, const char *id, uint32_t version) {
    (void)ctx;
    (void)version;
    world.error = e;
    if (e != OK) print_error("%s: %s\n", err_name(e), text);
    (void)snprintf(world.id, sizeof world.id, "%s", id ? id : "");
    world.done = true;
}

static const struct actor operator_ = {.who = "operator", .from = "socket"};

static void finish_change(enum err e, const struct why *why) {
    if (e != OK) print_error("%s: %s\n", err_name(e), why->text);
    assert_int_equal(e, OK);
    world_until(is_done, NULL);
    assert_int_equal(world.error, OK);
}

void make_held(const struct held_spec *spec, char id[NODE_ID_SIZE + 1]) {
    struct why why = {0};
    world.done = false;
    finish_change(secrets_create(world.manager, spec, &operator_, on_held, NULL, &why), &why);
    memcpy(id, world.id, sizeof world.id);
}

void make_secret(const char *name, const char *value, char id[NODE_ID_SIZE + 1]) {
    struct held_spec spec = {.kind = ROW_SECRET,
                             .name = span_str(name),
                             .templating = "",
                             .driver = "",
                             .value = span_str(value)};
    make_held(&spec, id);
}

void put_secret(const char *id, const char *value) {
    struct why why = {0};
    world.done = false;
    finish_change(secrets_put(world.manager, ROW_SECRET, id, span_str(value), &operator_, on_held,
                              NULL, &why),
                  &why);
}

static enum err try_label(const char *id, const char *key, const char *value, struct why *why) {
    struct buf labels = buf_new(NODE_LABELS_BYTES);
    assert_int_equal(labels_add(&labels, span_str(key), span_str(value)), OK);
    world.done = false;
    enum err e = secrets_label(world.manager, ROW_SECRET, id, 0, buf_span(&labels), &operator_,
                               on_held, NULL, why);
    buf_free(&labels);
    return e;
}

void label_secret(const char *id, const char *key, const char *value) {
    struct why why = {0};
    finish_change(try_label(id, key, value, &why), &why);
}

enum err label_refused(const char *id, const char *key, const char *value) {
    struct why why = {0};
    return try_label(id, key, value, &why);
}

void make_service(const char *id, const char *secret_id, const char *name, uint32_t version) {
    struct row_list l = row_list();
    struct service_row s = some_service(secret_id, name, version);
    s.replicas = 0;
    list_service(&l, ROW_CREATE, id, id, &s);
    world_execute(&l);
}

void make_task(const char *id, const char *service_id, const struct mind *node) {
    struct row_list l = row_list();
    struct task_row t = some_task(service_id, node->id, TASK_ASSIGNED);
    list_task(&l, ROW_CREATE, id, &t);
    world_execute(&l);
}

void set_task(const char *id, const char *service_id, const struct mind *node,
              enum task_state desired, enum task_state state) {
    struct row_list l = row_list();
    struct task_row t = some_task(service_id, node->id, state);
    t.desired = desired;
    list_task(&l, ROW_REPLACE, id, &t);
    world_execute(&l);
}

/* --- a node ----------------------------------------------------------------------------------- */

struct had_task *mind_task(const struct mind *n, const char *id) {
    for (size_t i = 0; i < n->n_tasks; i++)
        if (strcmp(n->tasks[i].id, id) == 0) return (struct had_task *)(uintptr_t)&n->tasks[i];
    return NULL;
}

struct had_value *mind_value(const struct mind *n, const char *id, uint32_t version) {
    for (size_t i = 0; i < n->n_values; i++)
        if (strcmp(n->values[i].id, id) == 0 && n->values[i].version == version)
            return (struct had_value *)(uintptr_t)&n->values[i];
    return NULL;
}

/* No task without its values. */
static void take_task(struct mind *n, const struct assign_task *t) {
    struct had_task *h = mind_task(n, t->id);
    for (unsigned i = 0; i < t->n; i++)
        assert_non_null(mind_value(n, t->files[i].id, t->files[i].version));
    if (!h) {
        assert_true(n->n_tasks < ITEMS_MAX);
        h = &n->tasks[n->n_tasks++];
    }
    *h = (struct had_task){.desired = t->desired, .n = t->n};
    memcpy(h->id, t->id, sizeof h->id);
    if (t->n > 0) h->version = t->files[0].version;
    if (t->n > 0) memcpy(h->held, t->files[0].id, sizeof h->held);
}

static void take_value(struct mind *n, const struct assign_value *v) {
    struct had_value *h = mind_value(n, v->id, v->version);
    if (!h) {
        assert_true(n->n_values < ITEMS_MAX);
        h = &n->values[n->n_values++];
    }
    *h = (struct had_value){.version = v->version, .size = v->bytes.size};
    memcpy(h->id, v->id, sizeof h->id);
    size_t size = v->bytes.size < sizeof h->text ? v->bytes.size : sizeof h->text - 1;
    memcpy(h->text, v->bytes.at, size);
}

static void drop_task(struct mind *n, const char *id) {
    struct had_task *h = mind_task(n, id);
    assert_non_null(h);
    *h = n->tasks[--n->n_tasks];
}

static void drop_value(struct mind *n, const char *id, uint32_t version) {
    struct had_value *h = mind_value(n, id, version);
    assert_non_null(h);
    *h = n->values[--n->n_values];
}

static void take_item(struct mind *n, const struct assign_one *one) {
    switch (one->item) {
    case ASSIGN_TASK: take_task(n, one->task); break;
    case ASSIGN_VALUE: take_value(n, &one->value); break;
    case ASSIGN_REMOVE_TASK: drop_task(n, one->id); break;
    case ASSIGN_REMOVE_VALUE: drop_value(n, one->id, one->version); break;
    }
}

/* It may start with them at any moment. */
static void check_values(const struct mind *n) {
    for (size_t i = 0; i < n->n_tasks; i++)
        if (n->tasks[i].desired == TASK_RUNNING && n->tasks[i].n > 0)
            assert_non_null(mind_value(n, n->tasks[i].held, n->tasks[i].version));
}

static void take_assignment(struct mind *n, struct span body) {
    static struct assign_task task;
    struct cursor in = cursor_of(body);
    struct assign_head head;
    struct assign_one one;
    bool more = true;
    assert_int_equal(assign_head(&in, &head), OK);
    assert_int_equal(head.applies_to, n->at);
    assert_true(head.results_in == n->at + 1);
    assert_true((head.type == ASSIGN_COMPLETE) == (n->completes == 0));
    while (more) {
        assert_int_equal(assign_next(&in, &task, &one, &more), OK);
        if (more) take_item(n, &one);
    }
    n->parts++;
    if (!head.last) return;
    check_values(n);
    n->completes += head.type == ASSIGN_COMPLETE;
    n->assignments++;
    n->at = head.results_in;
}

static void take_fetched(struct mind *n, struct span body) {
    assert_int_equal(fetched_decode(body, &n->answer), OK);
    n->fetched = true;
    memset(n->value, 0, sizeof n->value);
    if (n->answer.n == 0) return;
    struct span first = n->answer.values[0].bytes;
    memcpy(n->value, first.at, first.size < sizeof n->value ? first.size : sizeof n->value - 1);
}

static RESULT on_message(void *ctx, struct uplink *u, uint8_t kind, struct span body,
                         struct why *why) {
    struct mind *n = ctx;
    (void)u;
    (void)why;
    if (kind == NODE_ASSIGN) take_assignment(n, body);
    if (kind == NODE_FETCHED) take_fetched(n, body);
    return OK;
}

static void on_up_opened(void *ctx, struct uplink *u) {
    struct mind *n = ctx;
    n->open = true;
    if (n->hello.size > 0) uplink_say(u, NODE_TASKS, n->hello);
}
static void on_up_closed(void *ctx, struct uplink *u, enum err e, const char *text) {
    struct mind *n = ctx;
    (void)u;
    n->closed = true;
    n->why = e;
    (void)snprintf(n->text, sizeof n->text, "%s", text);
}
static void on_up_freed(void *ctx) { ((struct mind *)ctx)->freed = true; }

bool mind_is_up(const struct mind *n) { return n->completes > 0 || n->closed; }
static bool is_freed(const struct mind *n) { return n->freed; }

void mind_connect(struct mind *n) {
    struct why why = {0};
    struct uplink_config c = {.loop = &world.loop,
                              .ctx = n,
                              .root_pem = buf_span(&world.pki.root),
                              .cert_pem = buf_span(&n->cert.cert),
                              .key_pem = n->cert.key,
                              .opened = on_up_opened,
                              .message = on_message,
                              .closed = on_up_closed};
    memcpy(c.address, world.peer, sizeof c.address);
    memcpy(c.cluster_id, world.manager->self.cluster_id, sizeof c.cluster_id);
    n->completes = n->parts = n->assignments = 0;
    n->n_tasks = n->n_values = 0;
    n->at = 0;
    n->closed = n->freed = n->open = false;
    assert_int_equal(uplink_open(&c, &n->uplink, &why), OK);
    world_until(mind_is_up, n);
    assert_false(n->closed);
}

void mind_disconnect(struct mind *n) {
    uplink_free(n->uplink, on_up_freed, n);
    n->uplink = NULL;
    world_until(is_freed, n);
}

void mind_new(struct mind *n, const char *hostname) {
    struct row_list l = row_list();
    struct node_row row = some_node(NODE_WORKER, 1);
    *n = (struct mind){0};
    random_id(n->id);
    pki_node_new(&world.pki, n->id, ROLE_WORKER, world.manager->self.cluster_id, 60, &n->cert);
    assert_int_equal(x509_key_digest(buf_span(&n->cert.cert), row.key_digest), OK);
    (void)snprintf(row.hostname, sizeof row.hostname, "%s", hostname);
    list_node(&l, ROW_CREATE, n->id, 0, "", &row);
    world_execute(&l);
    mind_connect(n);
}

void mind_name(const struct mind *n, const char *name) {
    struct row_list l = row_list();
    struct row row;
    struct node_row node;
    assert_int_equal(node_row_get(world.manager->store, n->id, &row, &node), OK);
    list_node(&l, ROW_REPLACE, n->id, 0, name, &node);
    world_execute(&l);
}

void mind_say_host(struct mind *n, const char *hostname) {
    struct node_hello h = {.os = "linux", .arch = "x86_64", .engine = "1.0"};
    struct buf body = buf_new(FRAME_MAX);
    (void)snprintf(h.hostname, sizeof h.hostname, "%s", hostname);
    assert_int_equal(node_hello_encode(&h, &body), OK);
    uplink_say(n->uplink, NODE_STATUS, buf_span(&body));
    buf_free(&body);
}

void mind_free(struct mind *n) {
    if (n->uplink) mind_disconnect(n);
    pki_node_free(&n->cert);
}

/* --- conditions ------------------------------------------------------------------------------- */

static const char *awaited; /* id of a task or secret */
static uint32_t awaited_version;

bool mind_has_task(const struct mind *n) { return mind_task(n, awaited) != NULL; }
bool mind_has_no_task(const struct mind *n) { return mind_task(n, awaited) == NULL; }
static bool has_answer(const struct mind *n) { return n->fetched; }
bool mind_has_ended(const struct mind *n) { return n->closed; }
bool mind_is_shutdown(const struct mind *n) {
    const struct had_task *t = mind_task(n, awaited);
    return t && t->desired == TASK_SHUTDOWN;
}
bool mind_is_at(const struct mind *n) {
    const struct had_task *t = mind_task(n, awaited);
    return t && t->version == awaited_version;
}

void world_await(condition *holds, const struct mind *n, const char *id, uint32_t version) {
    awaited = id;
    awaited_version = version;
    world_until(holds, n);
}

struct counting {
    enum audit_what what;
    const char *node_id, *task_id, *id;
    unsigned n;
};

static bool count_one(void *ctx, const struct row *row) {
    struct counting *c = ctx;
    struct audit_link link;
    assert_int_equal(audit_read(row, &link), OK);
    c->n += link.is.what == c->what && (!c->node_id || strcmp(link.is.node_id, c->node_id) == 0) &&
            (!c->task_id || strcmp(link.is.task_id, c->task_id) == 0) &&
            (!c->id || strcmp(link.is.id, c->id) == 0);
    return true;
}

unsigned audited(enum audit_what what, const struct mind *n, const char *task_id, const char *id) {
    struct counting c = {.what = what, .node_id = n->id, .task_id = task_id, .id = id};
    audit_each(world.manager->store, 0, count_one, &c);
    return c.n;
}

void mind_ask(struct mind *n, const char *name) {
    struct fetch f = {
        .number = 7, .n = 1, .want = {{.kind = n->asks_config ? ROW_CONFIG : ROW_SECRET}}};
    struct buf b = buf_new(SESSION_BODY_MAX);
    (void)snprintf(f.want[0].name, sizeof f.want[0].name, "%s", name);
    assert_int_equal(fetch_encode(&f, &b), OK);
    n->fetched = false;
    uplink_say(n->uplink, NODE_FETCH, buf_span(&b));
    buf_free(&b);
    world_until(has_answer, n);
    assert_int_equal(n->answer.number, 7);
}

void mind_settle(struct mind *n) { mind_ask(n, "no-such-secret"); }
