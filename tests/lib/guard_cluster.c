/* The cluster of guard_cluster.h: nodes and their disks, the queue of messages, and the watch over
 * what no cluster may do. Each step is deterministic; what happens is decided by the caller alone.
 */
#include "tests/lib/guard_cluster.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static void *keep(struct guards *c, size_t size) {
    if (c->n_garbage == c->garbage_room) {
        c->garbage_room = c->garbage_room * 2 + 64;
        c->garbage = realloc(c->garbage, c->garbage_room * sizeof *c->garbage);
        assert(c->garbage != NULL);
    }
    void *p = calloc(1, size > 0 ? size : 1);
    assert(p != NULL);
    c->garbage[c->n_garbage++] = p;
    return p;
}

#define violate(c, ...)                                                                            \
    do {                                                                                           \
        if ((c)->violation[0] == '\0')                                                             \
            snprintf((c)->violation, sizeof(c)->violation, __VA_ARGS__);                           \
    } while (0)

struct entry *guards_entry(struct guards *c, uint64_t index, uint64_t term, enum entry_type type,
                           struct span data) {
    struct entry *e = keep(c, sizeof *e + data.size);
    e->index = index;
    e->term = term;
    e->type = (uint8_t)type;
    e->size = (uint32_t)data.size;
    e->refs = 1;
    if (data.size > 0) memcpy(e->data, data.at, data.size);
    return e;
}

struct span guards_conf(struct guards *c, const struct raft_configuration *conf) {
    struct raft_buffer buf;
    int rv = raft_configuration_encode(conf, &buf);
    assert(rv == 0 && buf.len <= GC_CONF);
    uint8_t *at = keep(c, buf.len);
    memcpy(at, buf.base, buf.len);
    raft_free(buf.base);
    return span_of(at, buf.len);
}

static void node_conf(struct gc_node *n, uint64_t index, struct span conf) {
    n->conf_index = index;
    n->conf_size = conf.size;
    memcpy(n->conf, conf.at, conf.size);
}

/* ---- hooks ---- */

static enum err hook_persist(void *ctx, uint64_t term, uint64_t vote) {
    struct gc_node *n = ctx;
    if (term < n->term || (term == n->term && n->vote != 0 && vote != n->vote))
        violate(n->c, "node %llu votes twice in term %llu", (unsigned long long)n->id,
                (unsigned long long)term);
    n->term = term;
    n->vote = vote;
    return OK;
}

static const struct entry *hook_entry(void *ctx, uint64_t index) {
    const struct gc_node *n = ctx;
    return index >= n->first && index <= n->last && index < GC_LOG ? n->log[index] : NULL;
}

static struct entry *given(struct gc_node *n, uint64_t index, const struct raft_entry *shell) {
    for (size_t i = 0; i < n->n_in; i++)
        if (n->in[i]->index == index && n->in[i]->term == shell->term) return n->in[i];
    if (shell->type != RAFT_BARRIER)
        violate(n->c, "node %llu is given entry %llu of nobody", (unsigned long long)n->id,
                (unsigned long long)index);
    return guards_entry(n->c, index, shell->term, ENTRY_BARRIER, (struct span){0});
}

static void take_entries(struct gc_node *n, const struct raft_update *u) {
    struct gc_write *w = &n->writes[n->n_writes++];
    assert(n->n_writes <= GC_WRITES && u->entries.index + u->entries.n <= GC_LOG);
    w->index = u->entries.index;
    w->n = u->entries.n;
    w->entries = keep(n->c, w->n * sizeof *w->entries);
    w->epoch = guard_epoch(n->g);
    if (w->index > n->last + 1 || w->index < n->first || w->index <= n->applied)
        violate(n->c, "node %llu is given entries at %llu of a log %llu..%llu, applied %llu",
                (unsigned long long)n->id, (unsigned long long)w->index,
                (unsigned long long)n->first, (unsigned long long)n->last,
                (unsigned long long)n->applied);
    for (size_t i = 0; i < w->n; i++) {
        w->entries[i] = given(n, w->index + i, &u->entries.batch[i]);
        n->log[w->index + i] = w->entries[i];
    }
    n->last = w->index + w->n - 1;
}

static void send_append(struct gc_node *n, struct gc_message *q) {
    struct raft_append_entries *a = &q->m.append_entries;
    q->entries = keep(n->c, a->n_entries * sizeof *q->entries);
    for (unsigned i = 0; i < a->n_entries; i++) {
        uint64_t index = a->prev_log_index + 1 + i;
        if (index < n->first || index > n->last) {
            violate(n->c, "node %llu sends entry %llu of a log %llu..%llu",
                    (unsigned long long)n->id, (unsigned long long)index,
                    (unsigned long long)n->first, (unsigned long long)n->last);
            a->n_entries = i;
            return;
        }
        q->entries[i] = n->log[index];
    }
}

static void send_snapshot(struct gc_node *n, struct gc_message *q) {
    struct raft_install_snapshot *s = &q->m.install_snapshot;
    s->last_index = n->snapshot.meta.index;
    s->last_term = n->snapshot.meta.term;
    s->conf_index = n->snapshot.meta.conf_index;
    q->conf_size = n->snapshot.meta.conf.size;
    memcpy(q->conf, n->snapshot.conf, q->conf_size);
    guard_snapshot_stream(n->g, q->to, true);
}

static void queue_free(struct guards *c, size_t i) {
    free(c->queue[i]);
    memmove(&c->queue[i], &c->queue[i + 1], (c->n_queue - i - 1) * sizeof(void *));
    c->n_queue--;
}

static void send_one(struct gc_node *n, const struct raft_message *m) {
    struct guards *c = n->c;
    if (c->n_queue == GC_QUEUE) guards_drop_at(c, 0);
    struct gc_message *q = calloc(1, sizeof *q);
    assert(q != NULL);
    q->from = n->id;
    q->to = m->server_id;
    q->m = *m;
    if (m->type == RAFT_APPEND_ENTRIES) send_append(n, q);
    if (m->type == RAFT_INSTALL_SNAPSHOT) send_snapshot(n, q);
    c->queue[c->n_queue++] = q;
}

void guards_push(struct guards *c, uint64_t from, uint64_t to, const struct raft_message *m,
                 struct entry *const *entries, unsigned n) {
    struct gc_message *q = calloc(1, sizeof *q);
    assert(q != NULL && c->n_queue < GC_QUEUE);
    q->from = from;
    q->to = to;
    q->m = *m;
    q->entries = keep(c, n * sizeof *q->entries);
    if (n > 0) memcpy(q->entries, entries, n * sizeof *entries);
    if (m->type == RAFT_APPEND_ENTRIES) q->m.append_entries.n_entries = n;
    c->queue[c->n_queue++] = q;
}

static void begin_install(struct gc_node *n, const struct raft_update *u) {
    if (u->snapshot.metadata.index != n->installing.meta.index)
        violate(n->c, "node %llu installs a snapshot that was not given",
                (unsigned long long)n->id);
    n->writes[n->n_writes++] = (struct gc_write){.index = u->snapshot.metadata.index};
}

/* A leader has every committed entry. */
static void check_leader(struct gc_node *n) {
    struct guards *c = n->c;
    uint64_t term = guard_raft(n->g)->current_term;
    if (term >= GC_TERMS) return;
    if (c->leader[term] != 0 && c->leader[term] != n->id)
        violate(c, "nodes %llu and %llu both lead in term %llu",
                (unsigned long long)c->leader[term], (unsigned long long)n->id,
                (unsigned long long)term);
    if (c->leader[term] == n->id) return;
    c->leader[term] = n->id;
    for (uint64_t i = n->first; i <= c->committed_max; i++)
        if (i > n->last || n->log[i]->term != c->committed[i])
            violate(c, "node %llu leads in term %llu without committed entry %llu",
                    (unsigned long long)n->id, (unsigned long long)term, (unsigned long long)i);
}

static void apply_one(struct gc_node *n, uint64_t index) {
    struct guards *c = n->c;
    const struct entry *e = hook_entry(n, index);
    if (e == NULL) {
        violate(c, "node %llu applies entry %llu, which it has not", (unsigned long long)n->id,
                (unsigned long long)index);
        return;
    }
    if (c->committed[index] == 0) {
        c->committed[index] = e->term;
        c->committed_entry[index] = n->log[index];
        if (index > c->committed_max) c->committed_max = index;
    }
    const struct entry *same = c->committed_entry[index];
    if (same->term != e->term || same->size != e->size || memcmp(same->data, e->data, e->size) != 0)
        violate(c, "node %llu applies another entry %llu, term %llu instead of %llu",
                (unsigned long long)n->id, (unsigned long long)index, (unsigned long long)e->term,
                (unsigned long long)c->committed[index]);
    if (e->type == ENTRY_CHANGE) node_conf(n, index, span_of(e->data, e->size));
}

static void apply(struct gc_node *n) {
    uint64_t commit = guard_commit(n->g);
    if (commit < n->applied)
        violate(n->c, "commit of node %llu goes back from %llu to %llu", (unsigned long long)n->id,
                (unsigned long long)n->applied, (unsigned long long)commit);
    while (n->applied < commit && n->c->violation[0] == '\0')
        apply_one(n, ++n->applied);
}

static enum err hook_update(void *ctx, const struct raft_update *u) {
    struct gc_node *n = ctx;
    n->steps++;
    if (u->flags & (RAFT_UPDATE_ENTRIES)) take_entries(n, u);
    if (u->flags & (RAFT_UPDATE_SNAPSHOT)) begin_install(n, u);
    if (u->flags & (RAFT_UPDATE_MESSAGES))
        for (unsigned i = 0; i < u->messages.n; i++)
            send_one(n, &u->messages.batch[i]);
    if (guard_raft(n->g)->state == RAFT_LEADER) check_leader(n);
    if (u->flags & (RAFT_UPDATE_COMMIT_INDEX)) apply(n);
    return OK;
}

/* ---- life ---- */

static struct span first_conf(struct guards *c, unsigned nodes, unsigned voters) {
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    for (unsigned i = 1; i <= nodes; i++) {
        char address[16];
        snprintf(address, sizeof address, "node-%u", i);
        int rv = raft_configuration_add(&conf, i, address, i <= voters ? RAFT_VOTER : RAFT_STANDBY);
        assert(rv == 0);
    }
    struct span s = guards_conf(c, &conf);
    raft_configuration_close(&conf);
    return s;
}

struct guards *guards_new(unsigned nodes, unsigned voters, uint32_t away, unsigned seed) {
    struct guards *c = calloc(1, sizeof *c);
    assert(c != NULL && nodes < GC_NODES);
    c->away = away;
    c->seed = seed;
    c->now = 100000;
    struct entry *e = guards_entry(c, 1, 1, ENTRY_CHANGE, first_conf(c, nodes, voters));
    for (uint64_t id = 1; id < GC_NODES; id++) {
        struct gc_node *n = &c->nodes[id];
        n->c = c;
        n->id = id;
        n->disk_first = 1;
        if (id > nodes) continue;
        n->term = 1;
        n->disk_last = 1;
        n->disk[1] = e;
    }
    return c;
}

void guards_forget(struct guards *c, uint64_t id) {
    struct gc_node *n = &c->nodes[id];
    assert(n->g == NULL);
    n->term = n->vote = 0;
    n->disk_first = 1;
    n->disk_last = 0;
    n->snapshot = (struct gc_snapshot){0};
}

void guards_free(struct guards *c) {
    for (uint64_t id = 1; id < GC_NODES; id++)
        guards_crash(c, id);
    while (c->n_queue > 0)
        queue_free(c, c->n_queue - 1);
    for (size_t i = 0; i < c->n_garbage; i++)
        free(c->garbage[i]);
    free(c->garbage);
    free(c);
}

static void load_disk(struct gc_node *n) {
    memcpy(n->log, n->disk, sizeof n->log);
    n->first = n->disk_first;
    n->last = n->disk_last;
    n->applied = n->told = n->snapshot.meta.index;
    n->conf_size = 0;
    n->conf_index = 0;
    n->n_writes = 0;
    n->installing = (struct gc_snapshot){0};
    if (n->applied > 0) node_conf(n, n->snapshot.meta.conf_index, n->snapshot.meta.conf);
}

void guards_start(struct guards *c, uint64_t id) {
    struct gc_node *n = &c->nodes[id];
    struct guard_hooks hooks = {n, hook_persist, hook_update, hook_entry};
    assert(n->g == NULL);
    load_disk(n);
    struct guard_start s = {
        .id = id,
        .seed = c->seed * 16 + (unsigned)id,
        .term = n->term,
        .vote = n->vote,
        .snapshot = n->snapshot.meta.index > 0 ? &n->snapshot.meta : NULL,
        .first_index = n->first,
        .last_index = n->last,
        .election_ms = GC_ELECTION_MS,
        .heartbeat_ms = GC_HEARTBEAT_MS,
        .inflight_max = 32,
        .now_ms = c->now,
        .away = c->away,
    };
    if (guard_log_is_stale(&s, &hooks)) {
        n->first = n->disk_first = s.first_index = n->snapshot.meta.index + 1;
        n->last = n->disk_last = s.last_index = n->snapshot.meta.index;
    }
    struct why why = {{0}};
    n->n_in = 0;
    enum err e = guard_open(&s, &hooks, &n->g, &why);
    if (e != OK) violate(c, "node %llu does not start: %s", (unsigned long long)id, why.text);
    if (e != OK) n->g = NULL;
    if (!c->lazy_disk && n->g != NULL) guards_write_all(c, id);
}

void guards_start_all(struct guards *c) {
    for (uint64_t id = 1; id < GC_NODES; id++)
        if (c->nodes[id].g == NULL && c->nodes[id].term > 0) guards_start(c, id);
}

void guards_crash(struct guards *c, uint64_t id) {
    struct gc_node *n = &c->nodes[id];
    guard_close(n->g);
    n->g = NULL;
    n->n_writes = 0;
}

/* As raft.h asks of callers; with all guards on it is without effect. */
static enum err tell_committed(struct gc_node *n) {
    enum err e = OK;
    for (; e == OK && n->told < n->applied; n->told++) {
        const struct entry *change = hook_entry(n, n->told + 1);
        if (change == NULL || change->type != ENTRY_CHANGE) continue;
        e = guard_committed_configuration(n->g, n->c->now, change->index,
                                          span_of(change->data, change->size));
    }
    return e;
}

/* After an event: what went wrong, and writes at once unless the test wants to do them. */
static enum err after(struct gc_node *n, enum err e) {
    bool soft = e == ERR_NOT_LEADER || e == ERR_PRECONDITION || e == ERR_INVALID ||
                e == ERR_NOT_FOUND || e == ERR_BUSY;
    if (e != OK && !soft)
        violate(n->c, "node %llu fails: %s %s", (unsigned long long)n->id, err_name(e),
                guard_reason(n->g));
    n->n_in = 0;
    if (tell_committed(n) != OK)
        violate(n->c, "node %llu takes no configuration", (unsigned long long)n->id);
    if (!n->c->lazy_disk) guards_write_all(n->c, n->id);
    return e;
}

/* ---- disk ---- */

static void write_entries(struct gc_node *n, const struct gc_write *w) {
    for (size_t i = 0; i < w->n; i++)
        n->disk[w->index + i] = w->entries[i];
    n->disk_last = w->index + w->n - 1;
    if (n->disk_last + 1 < n->disk_first) n->disk_last = n->disk_first - 1;
    const struct entry *e = w->entries[w->n - 1];
    (void)after(n, guard_persisted(n->g, n->c->now, e->index, e->term, w->epoch));
}

static void write_install(struct gc_node *n) {
    struct snapshot_meta meta = n->installing.meta;
    n->first = n->disk_first = meta.index + 1;
    n->last = n->disk_last = meta.index;
    n->applied = meta.index;
    node_conf(n, meta.conf_index, meta.conf);
    (void)after(n, guard_snapshot_installed(n->g, n->c->now, &meta));
}

bool guards_write(struct guards *c, uint64_t id) {
    struct gc_node *n = &c->nodes[id];
    if (n->n_writes == 0) return false;
    struct gc_write w = n->writes[0];
    memmove(n->writes, n->writes + 1, --n->n_writes * sizeof w);
    if (w.n > 0)
        write_entries(n, &w);
    else
        write_install(n);
    return true;
}

void guards_write_all(struct guards *c, uint64_t id) {
    while (guards_write(c, id)) {
    }
}

void guards_snapshot(struct guards *c, uint64_t id, unsigned trailing) {
    struct gc_node *n = &c->nodes[id];
    if (n->applied == 0 || guard_installing(n->g) || n->applied <= n->snapshot.meta.index) return;
    uint64_t term = guard_term_of(n->g, n->applied);
    memcpy(n->snapshot.conf, n->conf, n->conf_size);
    n->snapshot.meta = (struct snapshot_meta){n->applied, term, n->conf_index,
                                              span_of(n->snapshot.conf, n->conf_size)};
    (void)after(n, guard_snapshot_taken(n->g, c->now, &n->snapshot.meta, trailing));
    uint64_t offset = guard_raft(n->g)->trail.offset;
    if (offset + 1 > n->first) n->first = offset + 1;
    if (offset + 1 > n->disk_first) n->disk_first = offset + 1;
    if (n->disk_last < offset) n->disk_last = offset;
}

/* ---- network ---- */

static void stream_ends(struct guards *c, const struct gc_message *q) {
    if (q->m.type != RAFT_INSTALL_SNAPSHOT || c->nodes[q->from].g == NULL) return;
    guard_snapshot_stream(c->nodes[q->from].g, q->to, false);
}

static void receive_snapshot(struct gc_node *n, struct gc_message *q) {
    struct raft_install_snapshot *s = &q->m.install_snapshot;
    struct raft_buffer buf = {q->conf, q->conf_size};
    struct gc_snapshot *to = &n->installing;
    int rv = raft_configuration_decode(&buf, &s->conf);
    assert(rv == 0);
    s->data = (struct raft_buffer){raft_malloc(1), 1};
    if (guard_installing(n->g)) return;
    memcpy(to->conf, q->conf, q->conf_size);
    to->meta = (struct snapshot_meta){s->last_index, s->last_term, s->conf_index,
                                      span_of(to->conf, q->conf_size)};
    if (s->last_index <= n->snapshot.meta.index) return;
    n->snapshot = *to; /* the file is durable before the engine hears of it */
    n->snapshot.meta.conf = span_of(n->snapshot.conf, q->conf_size);
}

static void receive(struct gc_node *n, struct gc_message *q) {
    char address[16];
    snprintf(address, sizeof address, "node-%u", (unsigned)q->from);
    q->m.server_id = q->from;
    q->m.server_address = address;
    if (q->m.type == RAFT_INSTALL_SNAPSHOT) receive_snapshot(n, q);
    n->in = q->entries;
    n->n_in = q->m.type == RAFT_APPEND_ENTRIES ? q->m.append_entries.n_entries : 0;
    (void)after(n, guard_receive(n->g, n->c->now, &q->m, q->entries));
}

void guards_deliver_at(struct guards *c, size_t i) {
    struct gc_message *q = c->queue[i];
    struct gc_node *n = &c->nodes[q->to];
    memmove(&c->queue[i], &c->queue[i + 1], (c->n_queue - i - 1) * sizeof q);
    c->n_queue--;
    if (n->g != NULL && !c->cut[q->from][q->to]) receive(n, q);
    stream_ends(c, q);
    free(q);
}

void guards_copy_at(struct guards *c, size_t i) {
    if (c->n_queue == GC_QUEUE) return;
    struct gc_message *q = malloc(sizeof *q);
    assert(q != NULL);
    *q = *c->queue[i];
    c->queue[c->n_queue++] = q;
}

void guards_drop_at(struct guards *c, size_t i) {
    stream_ends(c, c->queue[i]);
    queue_free(c, i);
}

int guards_find(const struct guards *c, int type, uint64_t from, uint64_t to) {
    for (size_t i = 0; i < c->n_queue; i++) {
        const struct gc_message *q = c->queue[i];
        if (type != 0 && (int)q->m.type != type) continue;
        if ((from == 0 || q->from == from) && (to == 0 || q->to == to)) return (int)i;
    }
    return -1;
}

bool guards_deliver(struct guards *c, int type, uint64_t from, uint64_t to) {
    int i = guards_find(c, type, from, to);
    if (i >= 0) guards_deliver_at(c, (size_t)i);
    return i >= 0;
}

size_t guards_drop(struct guards *c, int type, uint64_t from, uint64_t to) {
    size_t n = 0;
    for (int i = guards_find(c, type, from, to); i >= 0; i = guards_find(c, type, from, to)) {
        guards_drop_at(c, (size_t)i);
        n++;
    }
    return n;
}

void guards_quiet(struct guards *c) {
    for (unsigned round = 0; round < 20000; round++) {
        bool busy = false;
        for (uint64_t id = 1; id < GC_NODES; id++)
            if (c->nodes[id].g != NULL) busy |= guards_write(c, id);
        if (c->n_queue > 0)
            guards_deliver_at(c, 0);
        else if (!busy)
            return;
    }
    violate(c, "messages never end");
}

void guards_cut(struct guards *c, uint64_t id, bool cut) {
    for (uint64_t other = 1; other < GC_NODES; other++)
        c->cut[id][other] = c->cut[other][id] = cut && other != id;
}

/* ---- time ---- */

void guards_timeout(struct guards *c, uint64_t id) {
    struct gc_node *n = &c->nodes[id];
    uint64_t due = guard_timer_ms(n->g, c->now);
    if (due > c->now) c->now = due;
    (void)after(n, guard_timeout(n->g, c->now));
}

void guards_run(struct guards *c, uint64_t ms) {
    uint64_t end = c->now + ms;
    while (c->now < end && c->violation[0] == '\0') {
        guards_quiet(c);
        uint64_t next = end;
        for (uint64_t id = 1; id < GC_NODES; id++) {
            if (c->nodes[id].g == NULL) continue;
            uint64_t due = guard_timer_ms(c->nodes[id].g, c->now);
            if (due < next) next = due;
        }
        c->now = next > c->now ? next : c->now + 1;
        for (uint64_t id = 1; id < GC_NODES; id++)
            if (c->nodes[id].g != NULL)
                (void)after(&c->nodes[id], guard_timeout(c->nodes[id].g, c->now));
    }
    guards_quiet(c);
}

bool guards_elect(struct guards *c, uint64_t id) {
    for (unsigned tries = 0; tries < 8; tries++) {
        guards_timeout(c, id);
        guards_quiet(c);
        if (guard_raft(c->nodes[id].g)->state == RAFT_LEADER) return true;
    }
    return false;
}

struct gc_node *guards_leader(struct guards *c) {
    struct gc_node *best = NULL;
    for (uint64_t id = 1; id < GC_NODES; id++) {
        struct gc_node *n = &c->nodes[id];
        if (n->g == NULL || guard_raft(n->g)->state != RAFT_LEADER) continue;
        if (best == NULL || n->term > best->term) best = n;
    }
    return best;
}

/* ---- requests ---- */

static enum err give(struct gc_node *n, struct entry *e, bool change) {
    struct entry *const in[1] = {e};
    n->in = in;
    n->n_in = 1;
    return after(n, change ? guard_change(n->g, n->c->now, e) : guard_submit(n->g, n->c->now, e));
}

enum err guards_submit(struct guards *c, uint64_t id) {
    struct gc_node *n = &c->nodes[id];
    uint64_t number = ++c->payload;
    uint64_t index = guard_last_index(n->g) + 1;
    if (index >= GC_LOG) return ERR_BUSY;
    return give(n,
                guards_entry(c, index, guard_raft(n->g)->current_term, ENTRY_COMMAND,
                             span_of(&number, sizeof number)),
                false);
}

enum err guards_change(struct guards *c, uint64_t id, uint64_t server, int role) {
    struct gc_node *n = &c->nodes[id];
    const struct raft *r = guard_raft(n->g);
    struct raft_configuration conf;
    bool known = false;
    raft_configuration_init(&conf);
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        known |= s->id == server;
        if (s->id == server && role < 0) continue;
        int rv = raft_configuration_add(&conf, s->id, s->address, s->id == server ? role : s->role);
        assert(rv == 0);
    }
    char address[16];
    snprintf(address, sizeof address, "node-%u", (unsigned)server);
    if (!known && role >= 0 && raft_configuration_add(&conf, server, address, role) != 0) abort();
    struct span bytes = conf.n > 0 ? guards_conf(c, &conf) : (struct span){0};
    raft_configuration_close(&conf);
    if (guard_last_index(n->g) + 1 >= GC_LOG) return ERR_BUSY;
    return give(
        n, guards_entry(c, guard_last_index(n->g) + 1, r->current_term, ENTRY_CHANGE, bytes), true);
}

bool guards_same(struct guards *c) {
    for (uint64_t id = 1; id < GC_NODES; id++)
        if (c->nodes[id].g != NULL && c->nodes[id].applied != c->committed_max) return false;
    return true;
}
