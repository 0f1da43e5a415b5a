/* See vault_world.h. One request at a time: whoever starts one waits for its end. */
#include "tests/lib/vault_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

struct loners all;
char made_id[NODE_ID_SIZE + 1];
const struct actor tester = {.who = "operator", .from = "socket"};

void on_held(void *ctx, enum err e, const char *text, const char *id, uint32_t version) {
    (void)version;
    loners_done(ctx, e, text);
    (void)snprintf(made_id, sizeof made_id, "%s", id);
}

void must(enum err e, const struct why *why) {
    if (e != OK) fail_msg("%s: %s", err_name(e), why->text);
}

void await_done(enum err want) {
    loners_wait(&all);
    if (all.error != want) fail_msg("%s: %s", err_name(all.error), all.text);
    all.done = false;
}

const char *create(struct manager *m, const char *name, struct span bytes) {
    struct why why = {0};
    struct held_spec spec = {
        .kind = ROW_SECRET, .name = span_str(name), .templating = "", .driver = "", .value = bytes};
    all.done = false;
    must(secrets_create(m, &spec, &tester, on_held, &all, &why), &why);
    await_done(OK);
    return made_id;
}

bool opens(const struct manager *m, const char *id, const char *want) {
    struct secret *s = NULL;
    uint32_t version;
    if (secrets_value(m, ROW_SECRET, id, 0, &s, &version, NULL) != OK) return false;
    bool same = span_equal(secret_span(s), span_str(want));
    secret_free(s);
    return same;
}

void rotate(struct manager *m) {
    struct why why = {0};
    all.done = false;
    must(vault_rotate(m, &tester, loners_done, &all, &why), &why);
    await_done(OK);
}

struct vault_row vault_of(const struct manager *m) {
    struct row row;
    struct vault_row v;
    assert_true(vault_row_get(m->store, &row, &v));
    return v;
}

bool three_voters(void *ctx) {
    struct replica_status status;
    const struct loner *leader = loners_leader(ctx);
    unsigned voters = 0;
    replica_status(leader->manager->replica, &status);
    for (unsigned i = 0; i < status.n; i++)
        voters += status.members[i].role == REPLICA_VOTER && status.members[i].active;
    return voters + 1 >= 3 && vault_of(leader->manager).n == 3;
}

void start_three(void) {
    loners_start(&all, false);
    (void)loners_join(&all, NODE_MANAGER);
    (void)loners_join(&all, NODE_MANAGER);
    loners_until(&all, three_voters, &all);
}
