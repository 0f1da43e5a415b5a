/* Every bound of the system, in one place: nothing grows past its name here. Sizes are in bytes,
 * times in milliseconds. A limit that a user may set has its default here. */
#ifndef CONCLAVE_LIMITS_H
#define CONCLAVE_LIMITS_H

#define KIB (1024ULL)
#define MIB (1024ULL * KIB)
#define GIB (1024ULL * MIB)

/* identity */
#define CLUSTER_ID_SIZE 25  /* base36 text, as Swarm's ids; without the NUL */
#define NODE_ID_SIZE    25  /* the same */
#define NAME_MAX_SIZE   64  /* a node's name */
#define ADDRESS_MAX     256 /* HOST:PORT text, with the NUL */
#define MEMBERS_MAX     16  /* voters and standbys of a cluster */

/* store */
#define KEY_MAX         (4 * KIB)    /* a key */
#define VALUE_MAX       (1536 * KIB) /* a value; etcd's request limit */
#define COMMAND_MAX     (2 * MIB)    /* one encoded command */
#define RESULT_MAX      (4 * MIB)    /* one encoded result of a command */
#define RANGE_BYTES_MAX (4 * MIB)    /* key and value bytes in one page of a range */
#define TOKENS_MAX      65536        /* idempotency tokens remembered */

/* replica */
#define ENTRY_MAX            (4 * MIB)  /* one log entry: many commands */
#define ENTRY_COMMANDS_MAX   4096       /* commands in one entry */
#define INBOX_BYTES_MAX      (64 * MIB) /* commands waiting to be proposed; past it ERR_BUSY */
#define INBOX_MAX            65536      /* the same, counted */
#define INFLIGHT_ENTRIES_MAX 4096       /* un-acknowledged entries a peer */
#define INFLIGHT_BYTES_MAX   (64 * MIB) /* submitted, not yet committed; past it the inbox waits */
#define READS_MAX            65536      /* linearizable reads waiting */
#define LOG_CACHE_MAX        (64 * MIB) /* entries kept in memory for followers */
#define FRAME_MAX            (8 * MIB)  /* one peer frame */
#define APPEND_BYTES_MAX     (1 * MIB)  /* in one AppendEntries frame; one entry may pass */
#define APPENDS_WAITING_MAX  (16 * MIB) /* waiting for a peer; past it only heartbeats follow */
#define ELECTION_TIMEOUT_MS  300
#define HEARTBEAT_MS         30
#define PROPOSAL_TIMEOUT_MS  5000

/* log and snapshots */
#define BLOCK_SIZE       4096        /* every log record starts at a multiple of this */
#define SECTOR_SIZE      512         /* what a disk writes whole or not at all */
#define SEGMENT_SIZE     (16 * MIB)  /* a log segment, header included */
#define RECORD_MAX       (8 * MIB)   /* the sealed bytes of one log record */
#define SNAPSHOT_CHUNK   (256 * KIB) /* state bytes in a snapshot chunk, before LZ4 */
#define SNAPSHOT_LOG_MIN (64 * MIB)  /* log since the last snapshot that calls for a new one */
#define SNAPSHOT_WINDOW  8           /* chunks under way to one peer */

/* peers */
#define PEER_QUEUE_MAX       (64 * MIB) /* waiting for one peer; past it frames are dropped */
#define PEER_BACKOFF_MIN_MS  50
#define PEER_BACKOFF_MAX_MS  2000
#define HANDSHAKE_TIMEOUT_MS 5000
#define CONNECTIONS_MAX      4096        /* accepted connections of one listener */
#define STRANGERS_MAX        128         /* accepted, unknown as yet; past it the oldest is cut */
#define JOINS_MAX            64          /* newcomers' connections at once */
#define JOIN_WAIT_MS         30000       /* a newcomer's request without an answer */
#define HELLO_FRAME_MAX      (1 * KIB)   /* the first frame of a connection */
#define JOIN_FRAME_MAX       (64 * KIB)  /* a newcomer's request */
#define JOINED_FRAME_MAX     (256 * KIB) /* the answer to it */
#define PEER_STALL_MS        5000        /* sent bytes that nobody takes; past it the link is cut */

/* keys */
#define DEK_GENERATIONS_MAX 64
#define KEYRING_MAX         (256 * KIB) /* the keyring file */
#define PASSPHRASE_MAX      1024
#define PEM_MAX             (64 * KIB) /* a certificate chain or key in PEM */

/* http */
#define HTTP_HEAD_MAX (16 * KIB) /* request line and headers */
#define HTTP_BODY_MAX (4 * MIB)  /* a request's body */

#endif
