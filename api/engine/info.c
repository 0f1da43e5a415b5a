/* _ping, version and info: they answer in every state. On a manager /info tells of the cluster as
 * it is after a confirmed read; without a leader it says so, and tells what this node knows. */
#include "api/engine/engine.h"

#include <stdio.h>
#include <unistd.h>

#include "raft/loop.h"

/* --- _ping ------------------------------------------------------------------------------------ */

void engine_ping(struct exchange *x) {
    const struct engine *e = engine_of(x);
    char state[32];
    bool active = strcmp(engine_local_state(e), "active") == 0;
    const char *role = engine_is_worker(e->api->manager) ? "/worker" : "/manager";
    (void)snprintf(state, sizeof state, "%s%s", engine_local_state(e), active ? role : "");
    const struct http_header more[] = {
        {span_str("swarm"), span_str(state)},
        {span_str("cache-control"), span_str("no-cache, no-store, must-revalidate")},
        {span_str("pragma"), span_str("no-cache")},
    };
    /* A HEAD has no body, and says so: clients compare. */
    struct span body = x->head.method == HTTP_HEAD ? span_of(NULL, 0) : span_str("OK");
    engine_answer(x, 200, "text/plain; charset=utf-8", body, more, ARRAY_SIZE(more));
}

/* --- the machine ------------------------------------------------------------------------------ */

/* PRETTY_NAME of os-release(5). */
static void system_name(char *out, size_t room) {
    static const char name[] = "PRETTY_NAME=";
    char line[512];
    FILE *f = fopen("/etc/os-release", "re");
    (void)snprintf(out, room, "Linux");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, name, sizeof name - 1) != 0) continue;
        const char *from = line + sizeof name - 1;
        if (*from == '"') from++;
        (void)snprintf(out, room, "%.*s", (int)strcspn(from, "\"\n"), from);
    }
    if (f) (void)fclose(f);
}

static void machine_of(const struct manager *m, struct engine_machine *out) {
    uv_utsname_t names;
    *out = (struct engine_machine){.data = m->config.data};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    out->cpus = cpus > 0 ? (unsigned)cpus : 1;
    out->memory = uv_get_total_memory();
    (void)snprintf(out->id, sizeof out->id, "%s", m->self.node_id);
    if (uv_os_uname(&names) == 0) {
        (void)snprintf(out->kernel, sizeof out->kernel, "%s", names.release);
        (void)snprintf(out->arch, sizeof out->arch, "%s", names.machine);
    }
    const char *name = m->self.name[0] ? m->self.name : m->config.name;
    (void)snprintf(out->name, sizeof out->name, "%s", name);
    system_name(out->system, sizeof out->system);
    out->now_ns = m->clock.wall_ns((struct clock *)(uintptr_t)&m->clock);
}

void engine_version(struct exchange *x) {
    struct engine_machine machine;
    struct buf out;
    struct jout j;
    machine_of(engine_manager(x), &machine);
    engine_json_begin(&j, &out);
    engine_put_version(&j, &machine);
    engine_json(x, &j);
}

/* --- info ------------------------------------------------------------------------------------- */

static void address_of(const struct manager *m, char out[ADDRESS_MAX]) {
    struct address parts;
    out[0] = 0;
    if (address_split(m->self.peer_address, &parts, NULL) == OK)
        memcpy(out, parts.host, sizeof parts.host);
}

/* The managers that this node knows: from the state, or as it heard of them last. */
static void peers_of(const struct manager *m, struct engine_info *out) {
    if (m->store && store_cluster(m->store)->initialised) {
        const struct cluster *c = store_cluster(m->store);
        for (unsigned i = 0; i < c->n && out->n_peers < MEMBERS_MAX; i++)
            out->peers[out->n_peers++] =
                (struct engine_peer){c->nodes[i].id, c->nodes[i].peer_address};
        return;
    }
    for (unsigned i = 0; i < m->self.n; i++)
        out->peers[out->n_peers++] =
            (struct engine_peer){m->self.members[i].node_id, m->self.members[i].peer_address};
}

struct count {
    const struct manager *manager;
    uint64_t nodes, managers;
};

static bool count_node(void *ctx, const struct row *row) {
    struct count *c = ctx;
    struct node_row node;
    struct node_member member = {0};
    if (node_row_decode(row->body, &node) == OK) nodes_member(c->manager, &node, &member);
    c->nodes++;
    c->managers += member.member;
    return true;
}

static void answer_info(struct exchange *x, struct engine_info *info) {
    const struct manager *m = engine_manager(x);
    struct engine_machine machine;
    struct buf out;
    struct jout j;
    machine_of(m, &machine);
    address_of(m, info->address);
    info->node_id = m->self.node_id;
    info->state = engine_local_state(engine_of(x));
    peers_of(m, info);
    engine_json_begin(&j, &out);
    engine_put_info(&j, &machine, info);
    engine_json(x, &j);
}

static const char *trouble_of(const struct exchange *x, struct node_self *self) {
    const struct manager *m = engine_manager(x);
    if (m->state == MANAGER_FAILED) return m->reason;
    if (m->state != MANAGER_WORKER) return "";
    nodes_self(m, self);
    return self->trouble;
}

static void info_of_node(struct exchange *x) {
    struct node_self self = {0};
    struct engine_info info = {.error = trouble_of(x, &self)};
    answer_info(x, &info);
}

static void info_of_manager(struct exchange *x, enum err e) {
    const struct manager *m = engine_manager(x);
    struct engine_info info = {.error = "", .control = true};
    struct count count = {.manager = m};
    struct engine_view view;
    if (!m || m->state != MANAGER_RUNNING) { /* meanwhile */
        info_of_node(x);
        return;
    }
    if (e != OK) info.error = engine_no_leader;
    enum err seen = store_cluster(m->store)->initialised ? engine_view(m, &view) : ERR_NOT_FOUND;
    if (seen == OK) info.cluster = &view.cluster;
    row_all(m->store, ROW_NODE, count_node, &count);
    info.nodes = count.nodes;
    info.managers = count.managers;
    answer_info(x, &info);
    if (seen == OK) engine_view_free(&view);
}

void engine_info(struct exchange *x) {
    if (engine_manager(x)->state != MANAGER_RUNNING)
        info_of_node(x);
    else if (engine_ask(x, ENGINE_INFO_WAIT_MS, info_of_manager) != OK)
        info_of_manager(x, ERR_BUSY);
}
