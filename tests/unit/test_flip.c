/* A whole node on a disk where something was changed while it was stopped: the keyring, the ballot,
 * the log, a snapshot, opened through the replica with the real store. Whatever is flipped, cut,
 * swapped, doubled, taken away or put back from an earlier day: either it is refused with a text
 * that names a file, or the node runs, has every acknowledged write and the same state hash, and
 * still has it after one more life. Never wrong data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/store.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/lone.h"

#define STRIDE 64 /* bytes between two flips in a file */

/* ---- its life before ---- */

/* What a stopped node had, and copies of its disk from earlier: from two days before, when it was
 * stopped, and from its last life, while it ran. */
struct past {
    struct disk *now, *early, *middle, *late;
    uint8_t hash[STATE_HASH_SIZE];
    uint64_t keys;
};

static void write_some(struct lone *n, unsigned from, unsigned until) {
    for (unsigned i = from; i < until; i++)
        lone_put(n, i % 40, 100 + i * 397 % 3000);
}

static void remember(struct lone *n, struct past *p) {
    struct machine *m = store_machine(n->store);
    m->hash(m, p->hash);
    p->keys = store_keys(n->store);
}

static void make_past(struct past *p) {
    struct lone n = {.disk = disk_sim_new(1), .now_ms = 1000};
    struct why why = {0};
    lone_found(&n);
    lone_reopen(&n);
    write_some(&n, 0, 10);
    lone_stop(&n);
    p->early = disk_sim_clone(n.disk, 2);
    lone_reopen(&n);
    write_some(&n, 10, 30);
    lone_snapshot(&n);
    write_some(&n, 30, 40);
    assert_int_equal(keyring_rotate(n.keys, &why), OK);
    lone_stop(&n);
    p->middle = disk_sim_clone(n.disk, 3);
    lone_reopen(&n);
    write_some(&n, 40, 60);
    lone_snapshot(&n);
    write_some(&n, 60, 65);
    p->late = disk_sim_clone(n.disk, 4);
    write_some(&n, 65, 70);
    remember(&n, p);
    lone_stop(&n);
    p->now = n.disk;
}

static void free_past(struct past *p) {
    disk_sim_free(p->now);
    disk_sim_free(p->early);
    disk_sim_free(p->middle);
    disk_sim_free(p->late);
}

/* ---- the question ---- */

struct tally {
    unsigned refused, harmless;
};

static bool same_state(struct lone *n, const struct past *p) {
    struct machine *m = store_machine(n->store);
    uint8_t hash[STATE_HASH_SIZE];
    m->hash(m, hash);
    return memcmp(hash, p->hash, sizeof hash) == 0 && store_keys(n->store) == p->keys;
}

static bool names_a_file(const char *text) {
    static const char *const files[] = {"keyring", "kek", "ballot", "log/", "snapshots/"};
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (strstr(text, files[i]) != NULL) return true;
    return false;
}

/* It runs with the change: it goes on, and has all of that in its next life too. */
static void one_more_life(struct lone *n, const char *what) {
    struct past after = {0};
    struct why why = {0};
    lone_put(n, 99, 100);
    remember(n, &after);
    lone_stop(n);
    enum err e = lone_open(n, &why);
    if (e != OK) fail_msg("%s: found only in the next life: %s: %s", what, err_name(e), why.text);
    if (!same_state(n, &after)) fail_msg("%s: another state in the next life", what);
}

/* Takes the disk over. `file`: must stand in the refusal; NULL: any file. */
static void ask(struct disk *disk, const struct past *p, const char *file, const char *what,
                struct tally *t) {
    struct lone n = {.disk = disk};
    struct why why = {0};
    enum err e = lone_open(&n, &why);
    if (e == OK) {
        t->harmless++;
        if (!same_state(&n, p)) fail_msg("%s: wrong data", what);
        one_more_life(&n, what);
    } else {
        t->refused++;
        bool named = file != NULL ? strstr(why.text, file) != NULL : names_a_file(why.text);
        if (!named) fail_msg("%s: refused without its name: %s: %s", what, err_name(e), why.text);
    }
    lone_free(&n);
    disk_sim_free(disk);
}

static struct past past;

static int set_up(void **state) {
    (void)state;
    assert_int_equal(crypto_start(NULL), OK);
    make_past(&past);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    free_past(&past);
    return 0;
}

/* ---- the cases ---- */

static void an_untouched_disk_opens(void **state) {
    struct tally t = {0};
    (void)state;
    ask(disk_sim_clone(past.now, 5), &past, NULL, "nothing", &t);
    assert_int_equal(t.harmless, 1);
}

static void flip_all(const char *name, uint64_t shift) {
    struct tally t = {0};
    uint64_t size = disk_sim_size(past.now, name);
    for (uint64_t at = shift; at < size; at += STRIDE) {
        char what[PATH_ROOM + 64];
        struct disk *d = disk_sim_clone(past.now, at);
        (void)snprintf(what, sizeof what, "%s flipped at byte %llu", name, (unsigned long long)at);
        assert_true(disk_sim_flip(d, name, at, (uint8_t)(1U << at / STRIDE % 8)));
        ask(d, &past, name, what, &t);
    }
    print_message("%s, %llu bytes: %u flips refused, %u harmless\n", name, (unsigned long long)size,
                  t.refused, t.harmless);
}

static void every_64th_byte_of_every_file(void **state) {
    char name[PATH_ROOM];
    (void)state;
    for (size_t i = 0; disk_sim_name(past.now, i) != NULL; i++) {
        (void)snprintf(name, sizeof name, "%s", disk_sim_name(past.now, i));
        flip_all(name, i * 5 % STRIDE);
    }
}

static void every_file_cut_anywhere(void **state) {
    struct tally t = {0};
    char name[PATH_ROOM], what[PATH_ROOM + 64];
    (void)state;
    for (size_t i = 0; disk_sim_name(past.now, i) != NULL; i++) {
        (void)snprintf(name, sizeof name, "%s", disk_sim_name(past.now, i));
        uint64_t size = disk_sim_size(past.now, name);
        uint64_t piece = size / 16 > 0 ? size / 16 : 1;
        for (uint64_t to = 0; to < size; to += piece) {
            uint64_t at = to == 0 ? 0 : size - to;
            struct disk *d = disk_sim_clone(past.now, at);
            (void)snprintf(what, sizeof what, "%s cut to %llu bytes", name, (unsigned long long)at);
            assert_true(disk_sim_resize(d, name, at));
            ask(d, &past, NULL, what, &t);
        }
    }
    print_message("%u cuts refused, %u harmless\n", t.refused, t.harmless);
}

static void every_file_missing(void **state) {
    struct tally t = {0};
    char what[PATH_ROOM + 64];
    (void)state;
    for (size_t i = 0; disk_sim_name(past.now, i) != NULL; i++) {
        const char *name = disk_sim_name(past.now, i);
        (void)snprintf(what, sizeof what, "%s missing", name);
        struct disk *d = disk_sim_clone(past.now, i);
        assert_true(disk_sim_erase(d, name));
        ask(d, &past, NULL, what, &t);
    }
    print_message("%u missing files refused, %u harmless\n", t.refused, t.harmless);
}

/* Two files exchanged, and one file in the place of another. */
static void every_file_in_the_place_of_another(void **state) {
    struct tally t = {0};
    char a[PATH_ROOM], b[PATH_ROOM], what[2 * PATH_ROOM + 64];
    (void)state;
    for (size_t i = 0; disk_sim_name(past.now, i) != NULL; i++) {
        (void)snprintf(a, sizeof a, "%s", disk_sim_name(past.now, i));
        for (size_t k = 0; disk_sim_name(past.now, k) != NULL; k++) {
            if (k == i) continue;
            (void)snprintf(b, sizeof b, "%s", disk_sim_name(past.now, k));
            struct disk *copied = disk_sim_clone(past.now, 7), *swapped;
            (void)snprintf(what, sizeof what, "%s copied over %s", a, b);
            assert_true(disk_sim_copy(copied, a, b));
            ask(copied, &past, NULL, what, &t);
            if (k < i) continue;
            swapped = disk_sim_clone(past.now, 8);
            (void)snprintf(what, sizeof what, "%s exchanged with %s", a, b);
            assert_true(disk_sim_move(swapped, a, "log/aside"));
            assert_true(disk_sim_move(swapped, b, a));
            assert_true(disk_sim_move(swapped, "log/aside", b));
            ask(swapped, &past, NULL, what, &t);
        }
    }
    print_message("%u exchanges refused, %u harmless\n", t.refused, t.harmless);
}

static void put_back(struct disk *from, const char *day, struct tally *t) {
    char name[PATH_ROOM], what[PATH_ROOM + 64];
    for (size_t i = 0; disk_sim_name(from, i) != NULL; i++) {
        (void)snprintf(name, sizeof name, "%s", disk_sim_name(from, i));
        struct disk *d = disk_sim_clone(past.now, i);
        (void)snprintf(what, sizeof what, "%s of an earlier day (%s)", name, day);
        assert_true(disk_sim_import(d, from, name));
        ask(d, &past, NULL, what, t);
    }
}

static void every_older_copy_put_back(void **state) {
    struct tally t = {0};
    (void)state;
    put_back(past.early, "early", &t);
    put_back(past.middle, "middle", &t);
    put_back(past.late, "late", &t);
    print_message("%u older copies refused, %u harmless\n", t.refused, t.harmless);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_untouched_disk_opens),
        cmocka_unit_test(every_64th_byte_of_every_file),
        cmocka_unit_test(every_file_cut_anywhere),
        cmocka_unit_test(every_file_missing),
        cmocka_unit_test(every_file_in_the_place_of_another),
        cmocka_unit_test(every_older_copy_put_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
