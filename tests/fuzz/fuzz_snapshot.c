/* Chunks as a peer sends them, made of the input (first byte 0 mod 3); a snapshot file made of it
 * (1); a list of damages (offset, mask) done to a good file (2), which must then be refused or be
 * the same. */
#include <stdlib.h>

#include "raft/snapshot.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/log_box.h"

#define FILE_NAME "snapshots/0000000000000007.snap"

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t size);

static const uint8_t hash[STATE_HASH_SIZE] = "hash";
static struct disk *good; /* with a snapshot, made on the first call */
static struct keyring *keys;
static uint8_t state[20000];

static void must(bool right) {
    if (!right) abort();
}

static struct snapshot_options options(struct disk *d) {
    return (struct snapshot_options){
        .disk = d, .keys = keys, .identity = {"cluster", "node"}, .alg = SEAL_XCHACHA20};
}

static struct snapshot_writer *begin(struct disk *d) {
    struct snapshot_options o = options(d);
    struct snapshot_meta m = {.index = 7, .term = 2, .conf = span_str("conf")};
    struct snapshot_writer *w = NULL;
    must(snapshot_create(&o, &m, &w, NULL) == OK);
    return w;
}

static void make_good(void) {
    struct disk *keys_disk;
    keys = box_keys(&keys_disk);
    good = disk_sim_new(1);
    for (size_t i = 0; i < sizeof state; i++)
        state[i] = (uint8_t)(i / 100);
    struct snapshot_writer *w = begin(good);
    for (size_t i = 0; i < sizeof state; i += 5000)
        must(snapshot_write(w, span_of(state + i, 5000), NULL) == OK);
    must(snapshot_finish(w, hash, NULL) == OK);
}

static void take_chunk(struct cursor *c, struct disk *d) {
    struct snapshot_chunk chunk = {0};
    struct buf raw = buf_new(SNAPSHOT_CHUNK);
    uint8_t flags = 0;
    if (cursor_u8(c, &flags) != OK || cursor_u32(c, &chunk.raw_size) != OK) return;
    chunk.compressed = (flags & 1) != 0;
    chunk.last = (flags & 2) != 0;
    chunk.data = span_of(c->at, c->left);
    enum err e = snapshot_inflate(&chunk, &raw);
    must(e == ERR_CORRUPT || (e == OK && raw.size == chunk.raw_size));
    buf_free(&raw);
    struct snapshot_writer *w = begin(d);
    e = snapshot_write_chunk(w, &chunk, NULL);
    must(e == OK || e == ERR_PROTOCOL);
    snapshot_abort(w);
}

static void read_all(struct snapshot_reader *r) {
    struct buf scratch = buf_new(SNAPSHOT_CHUNK), raw = buf_new(SNAPSHOT_CHUNK);
    struct snapshot_chunk c = {0};
    enum err e = OK;
    size_t at = 0;
    for (uint64_t k = 0; k < snapshot_chunks(r) && e == OK; k++) {
        e = snapshot_read(r, k, &scratch, &c, NULL);
        if (e != OK || c.last) break;
        must(snapshot_inflate(&c, &raw) == OK);
        must(at + raw.size <= sizeof state && memcmp(state + at, raw.at, raw.size) == 0);
        at += raw.size;
    }
    must(e == ERR_CORRUPT || (e == OK && c.last && at == sizeof state));
    buf_free(&scratch);
    buf_free(&raw);
}

static void damage(struct cursor *c, struct disk *d) {
    uint8_t mask;
    uint16_t offset;
    while (cursor_u16(c, &offset) == OK && cursor_u8(c, &mask) == OK)
        (void)disk_sim_flip(d, FILE_NAME, offset % disk_sim_size(d, FILE_NAME), mask);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t size) {
    struct cursor c = {.at = at, .left = size};
    struct snapshot_reader *r = NULL;
    struct snapshot_meta m;
    uint8_t mode;
    if (good == NULL) make_good();
    if (cursor_u8(&c, &mode) != OK) return 0;
    struct disk *d = disk_sim_clone(good, 1);
    struct snapshot_options o = options(d);
    if (mode % 3 == 0)
        take_chunk(&c, d);
    else if (mode % 3 == 1)
        must(disk_write_file(d, FILE_NAME, span_of(c.at, c.left), NULL) == OK);
    else
        damage(&c, d);
    enum err e = snapshot_open(&o, 7, &r, &m, NULL);
    must(e == OK || e == ERR_CORRUPT);
    if (e == OK) {
        must(m.index == 7 && m.term == 2 && span_equal(m.conf, span_str("conf")));
        read_all(r);
        snapshot_close(r);
    }
    disk_sim_free(d);
    return 0;
}
