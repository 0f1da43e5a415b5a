/* A disk over another one that measures how long it takes to make bytes durable: of the log's files
 * (log/...) and of snapshots (snap/...), each in a histogram. Where a write includes its sync
 * (DISK_DIRECT), the write is measured; else the sync is. Thread-safe as the disk below. */
#ifndef CONCLAVE_TIMED_DISK_H
#define CONCLAVE_TIMED_DISK_H

#include "api/metrics.h"
#include "crypto/disk.h"

struct disk_times {
    struct histogram log;      /* etcd_disk_wal_fsync_duration_seconds */
    struct histogram snapshot; /* etcd_disk_backend_commit_duration_seconds */
};

/* `inner` is borrowed; it goes after this one. */
RESULT timed_disk_open(struct disk *inner, struct disk_times *times, struct disk **out);
struct disk *timed_disk_close(struct disk *d); /* the inner one; NULL for NULL */

#endif
