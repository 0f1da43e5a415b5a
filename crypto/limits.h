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
#define KEY_MAX       (4 * KIB)                       /* a key */
#define VALUE_MAX     (1536 * KIB)                    /* a value; etcd's request limit */
#define COMMAND_MAX   (2 * MIB)                       /* one encoded command */
#define RESULT_MAX    (4 * MIB)                       /* one encoded result of a command */
#define TOKENS_MAX    65536                           /* idempotency tokens remembered */
#define REQUEST_MAX   (VALUE_MAX + KEY_MAX + 1 * KIB) /* one request of a client as a command */
#define TXN_OPS_MAX   128           /* compares, operations of one branch; nested ones count */
#define TXN_DEPTH_MAX 16            /* transactions within transactions */
#define TXN_TREE_MAX  4096          /* compares and operations of all branches, nested ones too */
#define TXN_SCANS_MAX 384           /* of them over more than one key */
#define TXN_LOOK_MAX  1048576       /* keys that the compares and ranges carried out look at */
#define TTL_MAX_S     9000000000ULL /* a lease's time to live */
#define LEASES_MAX    4194304       /* leases at once */
#define QUOTA_DEFAULT (2 * GIB)     /* bytes of keys, values and history; past it NOSPACE */
#define COMPACT_STEP  2048          /* versions looked at in one step of a compaction */

/* rows: the tables of the cluster (store/row.h) */
#define ROW_NODES_MAX    65536   /* nodes of a cluster, workers and managers */
#define ROW_TOKENS_MAX   4096    /* join tokens, used up and revoked ones too */
#define ROW_HELD_MAX     1048576 /* secrets, and as many configs */
#define ROW_SERVICES_MAX 65536
#define ROW_TASKS_MAX    1048576
#define ROWS_BYTES_MAX   (512 * MIB) /* names and bodies of all rows */

/* embedded */
#define EMBED_HISTORY_MAX (16 * MIB) /* old versions in a store, beside as much as its live ones */

/* watch */
#define WATCHERS_MAX       1048576     /* of one member */
#define WATCHERS_BYTES_MAX (256 * MIB) /* of their keys */
#define WATCHES_STREAM_MAX 65536       /* watchers of one stream of a client */
#define WATCH_PENDING_MAX  64          /* events noted for one watcher; past it it catches up */
#define WATCH_PASS_MAX     1024        /* watchers that are caught up at once */
#define WATCH_SCAN_STEP    4096        /* events of the history looked at in one step */
#define WATCH_BATCH_BYTES  (1 * MIB)   /* events taken at once; one revision may pass */
#define WATCH_TURN_MAX     1024        /* takes in one loop turn */
#define WATCH_TURN_BYTES   (16 * MIB)  /* of events taken in one loop turn; one take may pass */
#define PROGRESS_MS        600000      /* between progress notices to an idle watcher */
#define PROGRESS_MIN_MS    1000        /* the least that it may be told to be */

/* users */
#define USERS_MAX         4096       /* and roles */
#define USER_NAME_MAX     256        /* a user's or role's name */
#define PERMISSIONS_MAX   4096       /* of one role */
#define AUTH_TOKEN_S      300        /* life of a token that a password has bought */
#define AUTH_BYTES_MAX    (16 * MIB) /* all users, roles and permissions, encoded */
#define PASSWORD_HASH_MAX 128        /* an Argon2id string */
#define AUTH_PROOF_SIZE   16         /* what binds a token to a password */
#define ALARMS_MAX        64         /* raised at once */

/* replica */
#define ENTRY_MAX            (4 * MIB)  /* one log entry: many commands */
#define ENTRY_COMMANDS_MAX   4096       /* commands in one entry */
#define INBOX_BYTES_MAX      (64 * MIB) /* commands waiting to be proposed; past it ERR_BUSY */
#define INBOX_MAX            65536      /* the same, counted */
#define INFLIGHT_ENTRIES_MAX 4096       /* un-acknowledged entries a peer */
#define INFLIGHT_BYTES_MAX   (64 * MIB) /* submitted and not committed, or not on the disk yet */
#define READS_MAX            65536      /* linearizable reads waiting */
#define LOG_CACHE_MAX        (16 * MIB) /* entries in memory for followers; older are read back */
#define FRAME_MAX            (8 * MIB)  /* one peer frame */
#define APPEND_BYTES_MAX     (1 * MIB)  /* in one AppendEntries frame; one entry may pass */
#define APPENDS_WAITING_MAX  (16 * MIB) /* waiting for a peer; past it only heartbeats follow */
#define ELECTION_TIMEOUT_MS  300
#define HEARTBEAT_MS         30
#define COMMIT_TELL_MS       2 /* a commit is told to the others by itself, if nothing else goes */
#define PROPOSAL_TIMEOUT_MS  5000

/* log and snapshots */
#define BLOCK_SIZE       4096        /* every log record starts at a multiple of this */
#define SECTOR_SIZE      512         /* what a disk writes whole or not at all */
#define SEGMENT_SIZE     (16 * MIB)  /* a log segment, header included */
#define RECORD_MAX       (8 * MIB)   /* the sealed bytes of one log record */
#define SNAPSHOT_CHUNK   (256 * KIB) /* state bytes in a snapshot chunk, before LZ4 */
#define SNAPSHOT_LOG_MIN (64 * MIB)  /* log since the last snapshot that calls for a new one */
#define SNAPSHOT_WINDOW  8           /* chunks under way to one peer */
#define STREAM_BUSY_RATE (24 * MIB)  /* bytes a second of a snapshot to a peer while writes go on */
#define STREAM_MIN_RATE  (6 * MIB)   /* ... and while they are slower than usual */

/* peers */
#define PEER_QUEUE_MAX       (64 * MIB) /* waiting for one peer; past it frames are dropped */
#define PEER_BACKOFF_MIN_MS  50
#define PEER_BACKOFF_MAX_MS  2000
#define HANDSHAKE_TIMEOUT_MS 5000
#define CONNECTIONS_MAX      4096        /* accepted connections of one listener */
#define STRANGERS_MAX        128         /* accepted, unknown as yet; past it the oldest is cut */
#define JOINS_MAX            64          /* newcomers' connections at once */
#define RENEWALS_MAX         512         /* nodes' that ask for another certificate, at once */
#define RENEWALS_EACH_MAX    4           /* of one node */
#define JOIN_WAIT_MS         30000       /* a newcomer's request without an answer */
#define HELLO_FRAME_MAX      (1 * KIB)   /* the first frame of a connection */
#define JOIN_FRAME_MAX       (64 * KIB)  /* a newcomer's request */
#define JOINED_FRAME_MAX     (256 * KIB) /* the answer to it */
#define PROOF_MAX            256         /* a signature of a node whose certificate ran out */
#define SESSIONS_MAX         4096        /* of nodes with one manager */
#define SESSION_FRAME_MAX    (1 * MIB)   /* one message on a session */
#define SESSION_BODY_MAX     (SESSION_FRAME_MAX - 16)
#define SESSION_QUEUE_MAX    (8 * MIB) /* waiting for one node; past it its session is cut */
#define PEER_STALL_MS        5000      /* sent bytes that nobody takes; past it the link is cut */

/* keys */
#define DEK_GENERATIONS_MAX 64
#define KEYRING_MAX         (256 * KIB) /* the keyring file */
#define PASSPHRASE_MAX      1024
#define SECRET_MAX          (1 * MIB)  /* bytes in one piece of guarded memory */
#define PEM_MAX             (64 * KIB) /* a certificate chain or key in PEM */

/* http and rpc */
#define RPC_MESSAGE_MAX   (2 * MIB)  /* one message of a client; etcd's limit */
#define STREAMS_MAX       1000       /* requests at once on one HTTP/2 connection */
#define STREAM_WINDOW     (1 * MIB)  /* bytes that a client may send ahead of us, a stream */
#define ANSWER_QUEUE_MAX  (1 * MIB)  /* of one stream, not yet sent; past it its source waits */
#define RPC_ARENA_MAX     (16 * MIB) /* of one decoded request */
#define RPC_ANSWER_MAX    (2 * GIB)  /* one encoded answer: the state itself bounds it */
#define RPC_CALLS_MAX     131072     /* calls at once; further ones are refused */
#define RPC_POOL_MAX      1024       /* calls kept for the next ones */
#define RPC_SLOW_MS       300        /* a call that takes longer is told in the log */
#define GATEWAY_DEPTH_MAX 64         /* objects within objects in JSON */
#define HTTP_HEAD_MAX     (16 * KIB) /* request line and headers */
#define HTTP_BODY_MAX     (4 * MIB)  /* a request's body */
#define METRICS_MAX       (1 * MIB)  /* of one answer of /metrics */

/* connections of clients; what a client can do to one is bounded here */
#define CONN_OUT_MAX       (16 * MIB)        /* answers waiting; past it their sources wait */
#define CONN_ANSWERS_MAX   (64 * MIB)        /* the same; past it a large answer is cut */
#define ANSWER_ALWAYS      (16 * KIB)        /* an answer up to here is never cut */
#define CONN_BODIES_MAX    (64 * MIB)        /* request bodies held; past it requests are refused */
#define CONN_WINDOW        (16 * MIB)        /* bytes under way to us, of all streams */
#define CONN_SEND_MAX      (1 * MIB)         /* frames made ahead of the kernel */
#define LIVE_MAX           (2 * STREAMS_MAX) /* requests at work, those the client dropped too */
#define RESETS_BURST       1000              /* requests that a client may drop at once... */
#define RESETS_PER_S       100               /* ...and for ever */
#define CONTINUATIONS_MAX  8                 /* frames of one head after its first */
#define SETTINGS_MAX       32                /* entries of one SETTINGS frame */
#define ACKS_MAX           1000              /* answers to PING and SETTINGS that wait */
#define CONTROL_FRAMES_MAX 2000              /* a second, with no request or answer among them */
#define MEMORY_POOL_MAX    (4 * MIB)         /* of nghttp2's memory that is kept as well */
#define STREAM_POOL_MAX    1024              /* finished requests whose memory is kept */

/* loops of connections beside the handlers' */
#define IO_LOOPS_MAX   64
#define IO_LOOPS_USUAL 4                /* at most, unless told */
#define IO_GIVEN_MAX   (256 * KIB)      /* of a request's body, on the way to its handler */
#define IO_WRITTEN_MAX ANSWER_QUEUE_MAX /* of an answer, on the way to its connection */
#define IO_ANSWERS_MAX (8 * MIB)        /* of all answers, on the way to one connection */
#define IO_BACKLOG_MAX (16 * MIB)       /* of all, to one loop that has not taken them */
#define IO_HEADERS_MAX 16               /* of an answer, or trailers */
#define NOTE_BYTES     1024             /* of a note that is kept for the next use */
#define NOTES_KEPT_MAX 4096             /* of them, from one loop to another */

#endif
