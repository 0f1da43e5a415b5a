/* Two ways into the log's reading side. An even first byte: the rest is a record's body as the seal
 * would let it through, with a count of entries before it. An odd one: the rest is a list of
 * damages (file, offset, mask) done to a good log, which must then be refused or give the same
 * entries. */
#include <stdlib.h>

#include "raft/wal_format.h"
#include "tests/lib/disk_sim.h"
#include "tests/lib/log_box.h"

#define DAMAGES_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t size);

static struct disk *good; /* a log of some segments, made on the first call */
static struct keyring *keys;
static uint64_t last; /* its last entry */

static void must(bool right) {
    if (!right) abort();
}

static void make_good(void) {
    struct disk *keys_disk;
    keys = box_keys(&keys_disk);
    good = disk_sim_new(1);
    struct box b = {.disk = good, .keys = keys, .segment_size = 32 * KIB};
    must(box_open(&b, NULL) == OK);
    for (int i = 0; i < 12; i++)
        must(box_append(&b, 1, 3, 1000, NULL) == OK);
    must(wal_truncate(b.wal, 30, NULL) == OK);
    must(box_append(&b, 2, 3, 6000, NULL) == OK);
    must(wal_mark(b.wal, NULL) == OK);
    last = wal_last(b.wal);
    box_free(&b);
}

static enum err drop(void *ctx, struct entry *e) {
    (void)ctx;
    entry_drop(e);
    return OK;
}

static void read_body(struct cursor c) {
    struct wal_head head = {.first = 1};
    uint64_t payload;
    if (cursor_u32(&c, &head.count) != OK) return;
    struct span body = span_of(c.at, c.left);
    enum err checked = wal_body_check(&head, body, &payload);
    enum err read = wal_body_read(&head, body, drop, NULL);
    must(checked == read);
}

static bool damage_next(struct cursor *c, struct disk *d) {
    uint8_t file, mask;
    uint16_t offset;
    if (cursor_u8(c, &file) != OK || cursor_u16(c, &offset) != OK || cursor_u8(c, &mask) != OK)
        return false;
    const char *name = disk_sim_name(d, file % 8);
    if (name != NULL && mask != 0) (void)disk_sim_flip(d, name, offset, mask);
    if (name != NULL && mask == 0) (void)disk_sim_zero(d, name, offset / 512 * 512, 512);
    return true;
}

static void open_damaged(struct cursor c) {
    struct disk *d = disk_sim_clone(good, 1);
    struct box b = {.disk = d, .keys = keys, .segment_size = 32 * KIB};
    for (int i = 0; i < DAMAGES_MAX && damage_next(&c, d); i++)
        ;
    enum err e = box_open(&b, NULL);
    must(e == OK || e == ERR_CORRUPT);
    if (e == OK) must(!b.wrong && wal_last(b.wal) == last && b.first == 1);
    box_free(&b);
    disk_sim_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t size) {
    struct cursor c = {.at = at, .left = size};
    uint8_t mode;
    if (good == NULL) make_good();
    if (cursor_u8(&c, &mode) != OK) return 0;
    if (mode % 2 == 0)
        read_body(c);
    else
        open_damaged(c);
    return 0;
}
