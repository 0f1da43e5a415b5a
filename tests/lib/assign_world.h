/* A real manager with real sessions over TLS, for tests of assignments: nodes whose certificates
 * are of the manager's own root, both sides on one loop.
 * The scheduler is off: tasks are rows that a
 * test makes. A node does what it is told at once, and asserts that no task comes before its
 * values, that none is without them while it is to run, that nothing is removed that it does not
 * have, and that assignments follow one another.
 * Everything asserts with cmocka. */
#ifndef CONCLAVE_TEST_ASSIGN_WORLD_H
#define CONCLAVE_TEST_ASSIGN_WORLD_H

#include "api/secret/secrets.h"
#include "api/service/assign_parts.h"
#include "api/service/driver.h"
#include "store/audit.h"
#include "tests/lib/pki.h"

#define ITEMS_MAX 64 /* tasks and values of a node */

struct world {
    char root[256]; /* its directory */
    uv_loop_t loop;
    struct log log;
    struct pki pki;
    struct manager *manager;
    char peer[ADDRESS_MAX];
    bool founded, closed;
    bool done; /* of the last change */
    enum err error;
    char id[NODE_ID_SIZE + 1]; /* what it made */
};

extern struct world world;

struct had_task {
    char id[NODE_ID_SIZE + 1];
    enum task_state desired;
    unsigned n;
    char held[NODE_ID_SIZE + 1]; /* of the first file */
    uint32_t version;            /* the same */
};

struct had_value {
    char id[NODE_ID_SIZE + 1];
    uint32_t version;
    size_t size;
    char text[32]; /* how it begins */
};

/* A node, as far as it holds a session and does what it is told. */
struct mind {
    struct pki_node cert;
    char id[NODE_ID_SIZE + 1];
    struct uplink *uplink;
    bool open, closed, freed;
    struct span hello; /* a NODE_TASKS that it says before anything else; empty: none */
    enum err why;      /* of closed */
    char text[WHY_MAX];
    unsigned completes, parts, assignments; /* heard */
    uint64_t at;                            /* results_in of the last one */
    size_t n_tasks, n_values;
    struct had_task tasks[ITEMS_MAX];
    struct had_value values[ITEMS_MAX];
    bool asks_config; /* mind_ask: for a config */
    bool fetched;     /* an answer has come */
    struct fetched answer;
    char value[32]; /* its first value */
};

void world_begin(void);
void world_begin_with(const struct driver_table *drivers); /* NULL: none */
void world_end(void);

/* Runs the loop until that holds for the node; not for ever. */
typedef bool condition(const struct mind *n);
void world_until(condition *holds, const struct mind *n);
/* The same for conditions about a task and the version of its first file. */
void world_await(condition *holds, const struct mind *n, const char *task_id, uint32_t version);
bool mind_is_up(const struct mind *n); /* it was told all, or its session has ended */
bool mind_has_ended(const struct mind *n);
bool mind_has_task(const struct mind *n); /* of world_await, as those below */
bool mind_has_no_task(const struct mind *n);
bool mind_is_shutdown(const struct mind *n);
bool mind_is_at(const struct mind *n);

struct row_list;
void world_execute(struct row_list *l); /* and frees it */
void make_held(const struct held_spec *spec, char id[NODE_ID_SIZE + 1]);
void make_secret(const char *name, const char *value, char id[NODE_ID_SIZE + 1]);
void put_secret(const char *id, const char *value);
void label_secret(const char *id, const char *key, const char *value);
enum err label_refused(const char *id, const char *key, const char *value); /* at once */
/* Of no replicas; it names the secret when secret_id is not NULL. */
void make_service(const char *id, const char *secret_id, const char *name, uint32_t version);
void make_task(const char *id, const char *service_id, const struct mind *node);
void set_task(const char *id, const char *service_id, const struct mind *node,
              enum task_state desired, enum task_state state);

/* A worker with a row and a session; its operator has given it no name. */
void mind_new(struct mind *n, const char *hostname);
void mind_name(const struct mind *n, const char *name);   /* the operator's */
void mind_say_host(struct mind *n, const char *hostname); /* its own word, in a STATUS */
void mind_free(struct mind *n);
void mind_connect(struct mind *n);
void mind_disconnect(struct mind *n);
struct had_task *mind_task(const struct mind *n, const char *id); /* NULL: none */
struct had_value *mind_value(const struct mind *n, const char *id, uint32_t version);
/* Asks as `conclave run` does; the answer is in n->answer and n->value then. */
void mind_ask(struct mind *n, const char *name);
/* All that is on its way to the node has come: a question comes back behind it. */
void mind_settle(struct mind *n);
/* Records of that kind for the node; NULL: whichever task, secret. */
unsigned audited(enum audit_what what, const struct mind *n, const char *task_id, const char *id);

#endif
