/* The nodes as the scheduler sees them, and the choice of one for a task: of those that are ready,
 * active and meet the constraints, the one with the fewest recent failures of the service, then
 * the fewest tasks of the service, then the fewest of all, then the lowest id. Knows no store, no
 * clock, no loop.
 *
 * A choice keeps the nodes that a service may use in a heap, so that placing n tasks costs
 * O(nodes + n log nodes), whatever else runs. */
#ifndef CONCLAVE_SCHEDULER_PLACE_H
#define CONCLAVE_SCHEDULER_PLACE_H

#include "store/node.h"

struct place {
    char id[NODE_ID_SIZE + 1];
    enum node_state state;
    enum node_availability availability;
    enum node_role role; /* granted */
    char hostname[NODE_TEXT_MAX + 1];
    char os[32], arch[32];
    struct buf labels; /* node.h's form */
    uint32_t tasks;    /* wanted here, of all services */
    uint32_t planned;  /* the same, not yet written */
    uint32_t own;      /* wanted here, of the service that is looked at; else 0 */
    uint32_t failures; /* of that service lately; else 0 */
    bool changed;      /* so that its tasks are to be looked at */
    bool gone;         /* its row is; dropped when that was seen to */
};

struct places {
    struct place *at; /* ascending by id */
    size_t n, room;   /* <= ROW_NODES_MAX */
};

void places_free(struct places *p);
struct place *places_find(const struct places *p, const char *id); /* NULL: none, or gone */
/* Adds it or takes its new description over; `changed` is set when its tasks or others may now
 * belong elsewhere. ERR_NOMEM. */
RESULT places_put(struct places *p, const char *id, const struct node_row *node);
void places_sweep(struct places *p); /* drops those that are gone */
/* Looks further than places_find: what is gone, too. */
struct place *places_any(const struct places *p, const char *id);

bool place_is_open(const struct place *p); /* may be given tasks */
/* Blocks "KEY == VALUE" and "KEY != VALUE" (service_spec.c); an unknown key is met by none. */
bool place_meets(const struct place *p, struct span constraints);

/* Those that a service may use, the best one first. */
struct place_choice {
    struct place **heap;
    size_t n;
    uint32_t closed, unmet; /* nodes left out, and why */
    bool ready;             /* the heap was made */
};
/* The node for one more task, counted in own and planned; NULL: there is none, or no memory. */
struct place *place_choose(struct place_choice *c, const struct places *p, struct span constraints);
void place_choice_free(struct place_choice *c);
/* Why there is none, as docker says it. */
void place_explain(const struct place_choice *c, char *out, size_t room);

#endif
