/* A disk in memory that keeps exactly what disk.h promises and not a sector more: what was not
 * synced may be gone after a crash, sector by sector and name by name, by a seed. The simulator and
 * the sweeps of the unit tests run on it. Sparse: pages of zeros take no memory. Thread-safe.
 *
 * Faults, and what the code above must make of them:
 *
 *   fault                                     must lead to
 *   crash: any subset of un-synced sectors,   recovery: everything acknowledged is there, and at
 *     un-synced names and un-synced sizes       most a prefix of what was not
 *   power cut in the middle of a call: the    the same; every later call fails until the crash
 *     call is done in part
 *   a call fails (fail_at): a write has       an error that stops the node; after a crash,
 *     written some sectors, a failed sync       recovery. ERR_NOSPACE is survived in place
 *     has synced some and loses the rest
 *     for ever, even when it is tried again
 *   the space limit is reached                ERR_NOSPACE, nothing lost; goes on with space
 *   read-only                                 ERR_READONLY, nothing lost
 *   a flipped byte, a truncated, swapped,     a refusal that names the file and the place, or proof
 *     doubled, missing or older file            that it is harmless; never wrong data
 *   two of those at once, or an older copy    not survivable by one node: nothing on its own disk
 *     of ALL files                              can tell
 *
 * A crash makes open files unusable (each call on them fails); they must still be closed. */
#ifndef CONCLAVE_TESTS_DISK_SIM_H
#define CONCLAVE_TESTS_DISK_SIM_H

#include "crypto/disk.h"

#define DISK_SIM_NEVER UINT64_MAX

struct disk *disk_sim_new(uint64_t seed); /* an empty disk; aborts without memory */
struct disk *disk_sim_clone(struct disk *d,
                            uint64_t seed); /* a copy, all of it durable; no faults set */
void disk_sim_free(struct disk *d);         /* all files are closed */

/* The machine stops and starts again: un-synced sectors, sizes and names are kept or dropped at
 * random; set faults are cleared, limits stay. */
void disk_sim_crash(struct disk *d);

/* Call number `n` from now (1 is the next one; any call but close) fails with `e`. DISK_SIM_NEVER
 * clears. */
void disk_sim_fail_at(struct disk *d, uint64_t n, enum err e);
/* Change number `n` from now (create, write, allocate, sync, rename, remove, make_dir, sync_dir) is
 * done in part, and it and all later calls fail until disk_sim_crash. */
void disk_sim_cut_at(struct disk *d, uint64_t n);
bool disk_sim_failed(struct disk *d);      /* has a fault set by fail_at or cut_at struck? */
uint64_t disk_sim_calls(struct disk *d);   /* calls so far, for sweeps */
uint64_t disk_sim_changes(struct disk *d); /* changes so far */

void disk_sim_limit(struct disk *d, uint64_t bytes); /* the disk's size; DISK_SIM_NEVER: endless */
void disk_sim_read_only(struct disk *d, bool on);
void disk_sim_direct(struct disk *d, bool on); /* is DISK_DIRECT possible? (default no) */

/* Damage and inspection, beside the calls: they touch what is durable and what is seen alike. */
bool disk_sim_flip(struct disk *d, const char *path, uint64_t offset,
                   uint8_t mask); /* false: no such byte */
bool disk_sim_is_zero(struct disk *d, const char *path, uint64_t offset, uint64_t size);
bool disk_sim_zero(struct disk *d, const char *path, uint64_t offset, uint64_t size);
/* Copies bytes within a file. */
bool disk_sim_move_bytes(struct disk *d, const char *path, uint64_t from, uint64_t to,
                         uint64_t size);
bool disk_sim_resize(struct disk *d, const char *path, uint64_t size);
bool disk_sim_copy(struct disk *d, const char *from, const char *to); /* replaces `to` */
bool disk_sim_move(struct disk *d, const char *from, const char *to); /* replaces `to` */
bool disk_sim_erase(struct disk *d, const char *path);
bool disk_sim_import(struct disk *d, struct disk *from,
                     const char *path);                   /* the older copy of a file */
uint64_t disk_sim_size(struct disk *d, const char *path); /* DISK_SIM_NEVER: no such file */
bool disk_sim_same(struct disk *a, struct disk *b, const char *path); /* the same bytes in both? */
bool disk_sim_contains(struct disk *d, struct span needle);           /* in any file? */
/* Name of file number `i` (directories left out), NULL past the last; valid until the next change.
 */
const char *disk_sim_name(struct disk *d, size_t i);

#endif
