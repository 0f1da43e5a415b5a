/* The copy-on-write tree against a sorted table: random changes with many views open at once, each
 * of which must go on showing what it showed; awkward keys; ascending and descending loads; and
 * that nothing is left when all is freed (the leak checker). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/tree.h"

static uint64_t random_next(uint64_t *seed) {
    uint64_t z = *seed += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

#define KEYS     3000
#define KEY_ROOM 48
#define VIEWS    24

struct model {
    unsigned n; /* keys in the table */
    struct {
        uint8_t at[KEY_ROOM];
        size_t size;
    } key[KEYS];        /* ascending */
    uint64_t now[KEYS]; /* revision of the key's item; 0: none */
    uint64_t count;     /* keys that are there */
};

struct frozen {
    struct tree_view *view;
    uint64_t then[KEYS]; /* model.now when it was taken */
    uint64_t count;
};

static int key_order(const void *a, const void *b) {
    const struct {
        uint8_t at[KEY_ROOM];
        size_t size;
    } *left = a, *right = b;
    return span_compare(span_of(left->at, left->size), span_of(right->at, right->size));
}

/* Keys with long common parts, keys that begin others, bytes 0 and 255. */
static void make_keys(struct model *m, uint64_t *seed) {
    static const char *const stems[] = {"", "a", "/registry/pods/", "/registry/pods/default/",
                                        "\xff\xff"};
    unsigned n = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        const char *stem = stems[random_next(seed) % ARRAY_SIZE(stems)];
        size_t size = strlen(stem);
        memcpy(m->key[n].at, stem, size);
        size_t more = 1 + random_next(seed) % 12;
        for (size_t k = 0; k < more; k++) {
            static const uint8_t some[] = {0, 0, 1, 'a', 'a', 'b', 'z', 254, 255, 255};
            m->key[n].at[size++] = some[random_next(seed) % sizeof some];
        }
        m->key[n++].size = size;
    }
    qsort(m->key, n, sizeof m->key[0], key_order);
    for (unsigned i = 0; i < n; i++)
        if (m->n == 0 || key_order(&m->key[m->n - 1], &m->key[i]) != 0) m->key[m->n++] = m->key[i];
}

static struct span key_of(const struct model *m, unsigned i) {
    return span_of(m->key[i].at, m->key[i].size);
}

static struct item *new_item(struct span key, uint64_t revision) {
    uint8_t value[8];
    put_u64(value, revision);
    struct kv kv = {.key = key, .value = span_of(value, revision % 9), .mod_revision = revision};
    struct item *item = revision % 7 == 0 ? item_tombstone(revision, key) : item_copy(&kv);
    assert_non_null(item);
    return item;
}

static void put(struct tree *t, struct span key, uint64_t revision) {
    struct tree_path path;
    (void)tree_find(t, key, &path);
    assert_int_equal(tree_put(t, &path, new_item(key, revision)), OK);
}

static void remove_key(struct tree *t, struct span key) {
    struct tree_path path;
    assert_non_null(tree_find(t, key, &path));
    assert_int_equal(tree_remove(t, &path), OK);
}

/* What lies under the root is exactly the keys with their revisions in `is`, in order. */
static void check_content(const struct model *m, const uint64_t *is, const struct tree_node *root) {
    struct tree_cursor c;
    uint64_t live = 0;
    tree_seek(root, span_of(NULL, 0), &c);
    for (unsigned i = 0; i < m->n; i++) {
        struct item *found = tree_lookup(root, key_of(m, i));
        assert_int_equal(tree_rank(root, key_of(m, i)), live);
        live += is[i] % 7 != 0;
        if (is[i] == 0) {
            assert_null(found);
            continue;
        }
        assert_non_null(found);
        assert_int_equal(item_born(found), is[i]);
        assert_ptr_equal(tree_next(&c), found);
    }
    assert_null(tree_next(&c));
    assert_null(tree_next(&c));
    assert_int_equal(tree_root_live(root), live);
}

static void check_seek(const struct model *m, const struct tree_node *root, unsigned from) {
    struct tree_cursor c;
    tree_seek(root, key_of(m, from), &c);
    for (unsigned i = from; i < m->n && i < from + 100; i++) {
        if (m->now[i] == 0) continue;
        const struct item *item = tree_next(&c);
        assert_non_null(item);
        assert_int_equal(item_born(item), m->now[i]);
    }
}

static void step(struct tree *t, struct model *m, uint64_t revision, unsigned puts,
                 uint64_t *seed) {
    unsigned i = (unsigned)(random_next(seed) % m->n);
    if (random_next(seed) % 100 < puts) {
        m->count += m->now[i] == 0;
        put(t, key_of(m, i), revision);
        m->now[i] = revision;
    } else if (m->now[i] != 0) {
        remove_key(t, key_of(m, i));
        m->now[i] = 0;
        m->count--;
    }
}

static void swap_view(struct tree *t, const struct model *m, struct frozen *f, uint64_t revision) {
    if (f->view != NULL) {
        assert_int_equal(tree_view_count(f->view), f->count);
        check_content(m, f->then, tree_view_root(f->view));
        tree_view_free(f->view);
        f->view = NULL;
        return;
    }
    assert_int_equal(tree_view_new(t, revision, &f->view), OK);
    memcpy(f->then, m->now, sizeof f->then);
    f->count = m->count;
}

static void many_views_keep_what_they_saw_while_the_tree_goes_on(void **state) {
    (void)state;
    uint64_t seed = 7;
    struct model *m = calloc(1, sizeof *m);
    struct frozen *frozen = calloc(VIEWS, sizeof *frozen);
    struct tree *t;
    assert_int_equal(tree_new(&t), OK);
    make_keys(m, &seed);
    assert_true(m->n > 1000);
    for (uint64_t revision = 1; revision < 400000; revision++) {
        /* Waves: growing, then shrinking to almost nothing. */
        unsigned puts = revision / 20000 % 2 == 0 ? 70 : 20;
        step(t, m, revision, puts, &seed);
        if (random_next(&seed) % 500 == 0)
            swap_view(t, m, &frozen[random_next(&seed) % VIEWS], revision);
        if (revision % 5000 == 0) check_content(m, m->now, tree_root(t));
        assert_int_equal(tree_live(t), tree_root_live(tree_root(t)));
        if (revision % 100 == 0) check_seek(m, tree_root(t), (unsigned)(random_next(&seed) % m->n));
        assert_int_equal(tree_count(t), m->count);
    }
    for (unsigned i = 0; i < VIEWS; i++)
        if (frozen[i].view != NULL) swap_view(t, m, &frozen[i], 0);
    assert_true(tree_tidy(t, SIZE_MAX));
    check_content(m, m->now, tree_root(t));
    tree_free(t);
    free(frozen);
    free(m);
}

/* Changes behind a view, kept or undone, while older views look on. */
static void what_was_done_since_the_newest_view_is_undone(void **state) {
    (void)state;
    uint64_t seed = 11, revision = 1;
    struct model *m = calloc(1, sizeof *m);
    struct frozen *frozen = calloc(4, sizeof *frozen), *mark = calloc(1, sizeof *mark);
    struct tree *t;
    assert_int_equal(tree_new(&t), OK);
    make_keys(m, &seed);
    for (unsigned round = 0; round < 6000; round++) {
        unsigned puts = round / 1000 % 2 == 0 ? 80 : 15;
        if (random_next(&seed) % 20 == 0)
            swap_view(t, m, &frozen[random_next(&seed) % 4], revision);
        swap_view(t, m, mark, revision);
        for (uint64_t n = random_next(&seed) % 60; n > 0; n--)
            step(t, m, ++revision, puts, &seed);
        if (random_next(&seed) % 2 == 0) {
            tree_view_free(mark->view);
        } else {
            tree_rollback(mark->view);
            memcpy(m->now, mark->then, sizeof m->now);
            m->count = mark->count;
        }
        mark->view = NULL;
        assert_int_equal(tree_count(t), m->count);
        assert_int_equal(tree_live(t), tree_root_live(tree_root(t)));
        if (round % 50 == 0) check_content(m, m->now, tree_root(t));
    }
    for (unsigned i = 0; i < 4; i++)
        if (frozen[i].view != NULL) swap_view(t, m, &frozen[i], 0);
    check_content(m, m->now, tree_root(t));
    tree_free(t);
    free(frozen);
    free(mark);
    free(m);
}

static void numbered(uint8_t out[16], unsigned i) {
    (void)snprintf((char *)out, 16, "key-%08u", i);
}

static void load(unsigned n, unsigned step_size) {
    struct tree *t;
    assert_int_equal(tree_new(&t), OK);
    uint8_t key[16];
    for (unsigned i = 0; i < n; i++) {
        numbered(key, (unsigned)((uint64_t)i * step_size % n));
        put(t, span_of(key, 12), i + 1);
    }
    assert_int_equal(tree_count(t), n);
    struct tree_cursor c;
    tree_seek(tree_root(t), span_of(NULL, 0), &c);
    for (unsigned i = 0; i < n; i++) {
        numbered(key, i);
        const struct item *item = tree_next(&c);
        assert_non_null(item);
        assert_true(span_equal(item_key(item), span_of(key, 12)));
    }
    for (unsigned i = 0; i < n; i++) {
        numbered(key, (unsigned)((uint64_t)i * 7919 % n));
        remove_key(t, span_of(key, 12));
    }
    assert_int_equal(tree_count(t), 0);
    assert_null(tree_root(t));
    tree_free(t);
}

static void ascending_descending_and_scattered_loads_are_in_order(void **state) {
    (void)state;
    load(50000, 1);
    load(50000, 49999);
    load(50000, 7919);
    load(1, 1);
    load(65, 1);
    load(65, 64);
}

static void an_empty_tree_answers_and_its_view_too(void **state) {
    (void)state;
    struct tree *t;
    struct tree_view *v;
    struct tree_cursor c;
    assert_int_equal(tree_new(&t), OK);
    assert_int_equal(tree_view_new(t, 1, &v), OK);
    put(t, span_str("a"), 2);
    assert_null(tree_lookup(tree_view_root(v), span_str("a")));
    tree_seek(tree_view_root(v), span_str(""), &c);
    assert_null(tree_next(&c));
    assert_non_null(tree_lookup(tree_root(t), span_str("a")));
    tree_view_free(v);
    tree_free(t);
    tree_free(NULL);
}

static void a_tree_is_taken_apart_in_portions(void **state) {
    (void)state;
    struct tree *t;
    assert_int_equal(tree_new(&t), OK);
    uint8_t key[16];
    for (unsigned i = 0; i < 20000; i++) {
        numbered(key, i);
        put(t, span_of(key, 12), i + 1);
    }
    unsigned portions = 1;
    while (!tree_dismantle(t, 500))
        portions++;
    assert_true(portions > 20 && portions < 100);
    tree_free(t);
}

struct reader {
    const struct tree_node *root;
    unsigned passes;
    uint64_t keys; /* found in all passes */
};

static void *read_view(void *arg) {
    struct reader *r = arg;
    for (unsigned pass = 0; pass < r->passes; pass++) {
        struct tree_cursor c;
        const struct item *item;
        tree_seek(r->root, span_of(NULL, 0), &c);
        while ((item = tree_next(&c)) != NULL)
            r->keys += item_value(item).size <= 8;
    }
    return NULL;
}

static void a_thread_reads_a_view_while_the_loop_changes_the_tree(void **state) {
    (void)state;
    struct tree *t;
    struct tree_view *v;
    assert_int_equal(tree_new(&t), OK);
    uint8_t key[16];
    uint64_t revision = 0;
    for (unsigned i = 0; i < 5000; i++) {
        numbered(key, i);
        put(t, span_of(key, 12), ++revision);
    }
    assert_int_equal(tree_view_new(t, revision, &v), OK);
    struct reader r = {.root = tree_view_root(v), .passes = 5};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_view, &r), 0);
    for (unsigned i = 0; i < 10000; i++) {
        struct tree_view *other = NULL;
        if (i % 16 == 0) assert_int_equal(tree_view_new(t, revision, &other), OK);
        numbered(key, i * 7 % 6000);
        put(t, span_of(key, 12), ++revision);
        numbered(key, i * 11 % 6000);
        struct tree_path path;
        if (tree_find(t, span_of(key, 12), &path) != NULL)
            assert_int_equal(tree_remove(t, &path), OK);
        tree_view_free(other);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(r.keys, 5 * 5000);
    tree_view_free(v);
    tree_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_views_keep_what_they_saw_while_the_tree_goes_on),
        cmocka_unit_test(what_was_done_since_the_newest_view_is_undone),
        cmocka_unit_test(ascending_descending_and_scattered_loads_are_in_order),
        cmocka_unit_test(an_empty_tree_answers_and_its_view_too),
        cmocka_unit_test(a_tree_is_taken_apart_in_portions),
        cmocka_unit_test(a_thread_reads_a_view_while_the_loop_changes_the_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
