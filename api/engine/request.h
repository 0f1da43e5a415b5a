/* The bodies and queries of requests of the Engine API, decoded strictly: a field of another type
 * is refused by its name, one that is not known is passed over, one that is absent or null is what
 * Go's zero is. Names are found as docker finds them, letters without case. Pure; fuzzed
 * (tests/fuzz/fuzz_engine.c). Spans point into the JSON, which the caller keeps. */
#ifndef CONCLAVE_ENGINE_REQUEST_H
#define CONCLAVE_ENGINE_REQUEST_H

#include "api/http/http.h"
#include "api/json.h"
#include "crypto/secret.h"
#include "store/held.h"
#include "store/spec.h"

#define ENGINE_CERT_EXPIRY_MIN_S 3600 /* of a validity that is set through this API */
#define ENGINE_REMOTES_MAX       16   /* addresses of one join */
#define ENGINE_TOKEN_MAX         128  /* a join token's text */

struct engine_spec {   /* the settings, as docker sends them: all at once */
    struct spec spec;  /* what is kept of them; spans into the buffers below */
    struct buf labels; /* the owner's: engine_spec_free */
    struct buf options[EXTERNAL_CAS_MAX];
    bool autolock;            /* EncryptionConfig.AutoLockManagers */
    bool has_task_history;    /* else it is left as it is */
    struct span signing_cert; /* PEM; empty: the CA stays */
    struct span signing_key;  /* PEM; secret: the JSON is wiped after */
};

struct engine_init {
    char listen[ADDRESS_MAX];    /* as it was said; "" nothing */
    char advertise[ADDRESS_MAX]; /* the same */
    bool force_new;              /* ForceNewCluster */
    bool autolock;
    enum node_availability availability;
    struct engine_spec spec;
};

struct engine_join {
    char listen[ADDRESS_MAX];
    char advertise[ADDRESS_MAX];
    enum node_availability availability;
    char token[ENGINE_TOKEN_MAX]; /* secret: wiped by the caller */
    unsigned n;                   /* remotes, > 0 */
    char remotes[ENGINE_REMOTES_MAX][ADDRESS_MAX];
};

struct engine_node_spec {
    char name[ROW_NAME_MAX + 1];
    enum node_role role;
    enum node_availability availability;
    struct buf labels; /* encoded (store/node.h); the owner's */
};

struct engine_held_spec {               /* of a secret or config */
    struct span name;                   /* empty: none was said */
    struct buf labels;                  /* encoded, as are the options; the owner's */
    char templating[HELD_WORD_MAX + 1]; /* "" none */
    char driver[HELD_WORD_MAX + 1];     /* "" none */
    struct buf templating_options;      /* the owner's */
    struct buf driver_options;          /* the owner's */
    struct secret *data;                /* NULL: none, or no byte; the owner's */
    bool has_data;                      /* a text was there, though it may be empty */
};

/* A body: JSON by its Content-Type, or nothing at all. ERR_INVALID. Free with json_decref. */
RESULT engine_body(const struct http_head *head, struct span body, json_t **out, struct why *why);

/* ERR_INVALID, each with a sentence. On an error there is nothing to free. `now`: the settings that
 * are replaced, whose values may stay although they could not be set; NULL: none. */
RESULT engine_spec_decode(const json_t *object, const struct spec *now, struct engine_spec *out,
                          struct why *why);
void engine_spec_free(struct engine_spec *s);
RESULT engine_init_decode(const json_t *object, struct engine_init *out, struct why *why);
RESULT engine_join_decode(const json_t *object, struct engine_join *out, struct why *why);
RESULT engine_node_spec_decode(const json_t *object, struct engine_node_spec *out, struct why *why);
/* `kind`: of what, for its bounds (ERR_TOO_LARGE). Data comes out of the JSON into secret memory;
 * the JSON is still to be wiped. */
RESULT engine_held_decode(const json_t *object, enum row_kind kind, struct engine_held_spec *out,
                          struct why *why);
void engine_held_free(struct engine_held_spec *s);
void engine_wipe(json_t *json); /* zeroes the texts in it, as deep as secrets stand */

/* --- the query ---------------------------------------------------------------------------------
 */

/* docker's BoolValue: anything but nothing, 0, no, false, none. */
bool engine_query_flag(struct span query, const char *name);
/* Go's ParseBool; absent: false. ERR_INVALID. */
RESULT engine_query_bool(struct span query, const char *name, bool *out, struct why *why);
/* `version`, which must be there. ERR_INVALID: "invalid WHAT version ...". */
RESULT engine_query_version(struct span query, const char *what, uint64_t *out, struct why *why);
/* A word of at most room - 1 bytes; absent: "". ERR_INVALID. */
RESULT engine_query_word(struct span query, const char *name, char *out, size_t room,
                         struct why *why);
/* Seconds with a fraction, as clients send since and until, in nanoseconds; absent: 0. */
RESULT engine_query_time(struct span query, const char *name, int64_t *out, struct why *why);

#endif
