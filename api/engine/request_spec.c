/* The settings as docker sends them, whole each time: zero stands for the default. What is refused
 * is what Swarm refuses, with its sentences where it has one. */
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

#include "api/engine/request.h"
#include "api/engine/request_fields.h"

#define NS_PER_S 1000000000LL

static RESULT decode_raft(const json_t *object, struct spec *s, struct why *why) {
    const json_t *raft;
    int64_t interval = 0, keep = 0, entries = 0, election = 0, heartbeat = 0;
    TRY(field_object(object, "Raft", &raft, why));
    TRY(field_number(raft, "SnapshotInterval", 0, INT64_MAX, &interval, why));
    TRY(field_number(raft, "KeepOldSnapshots", 0, INT64_MAX, &keep, why));
    TRY(field_number(raft, "LogEntriesForSlowFollowers", 0, INT64_MAX, &entries, why));
    TRY(field_number(raft, "ElectionTick", 0, INT32_MAX, &election, why));
    TRY(field_number(raft, "HeartbeatTick", 0, INT32_MAX, &heartbeat, why));
    if (election && election <= (heartbeat ? heartbeat : 1))
        return fail_with(why, ERR_INVALID, "election tick must be greater than heartbeat tick");
    s->snapshot_interval = (uint64_t)interval;
    s->keep_old_snapshots = (uint64_t)keep;
    s->log_entries = (uint64_t)entries;
    s->election_tick = (uint32_t)election;
    s->heartbeat_tick = (uint32_t)heartbeat;
    return OK;
}

static RESULT decode_dispatcher(const json_t *object, struct spec *s, struct why *why) {
    const json_t *dispatcher;
    TRY(field_object(object, "Dispatcher", &dispatcher, why));
    TRY(field_number(dispatcher, "HeartbeatPeriod", INT64_MIN, INT64_MAX, &s->heartbeat_ns, why));
    if (s->heartbeat_ns < 0)
        return fail_with(why, ERR_INVALID, "heartbeat time period cannot be a negative duration");
    return OK;
}

static RESULT decode_external(const json_t *object, struct external_ca *ca, struct buf *options,
                              struct why *why) {
    char protocol[32] = "";
    if (!json_is_object(object))
        return fail_with(why, ERR_INVALID, "field ExternalCAs has a value that is no object");
    TRY(field_text(object, "Protocol", protocol, sizeof protocol, why));
    TRY(field_text(object, "URL", ca->url, sizeof ca->url, why));
    TRY(field_span(object, "CACert", &ca->ca_pem, why));
    if (strcasecmp(protocol, "cfssl") != 0)
        return fail_with(why, ERR_INVALID, "invalid protocol: \"%s\"", protocol);
    if (strncmp(ca->url, "https://", 8) != 0 || !ca->url[8])
        return fail_with(why, ERR_INVALID, "invalid URL: \"%.128s\": it has to begin with https://",
                         ca->url);
    if (ca->ca_pem.size > PEM_MAX)
        return fail_with(why, ERR_INVALID, "field CACert passes %llu bytes", PEM_MAX);
    TRY(field_labels(object, "Options", options, why));
    ca->options = buf_span(options);
    return OK;
}

static RESULT decode_externals(const json_t *ca, struct engine_spec *out, struct why *why) {
    const json_t *list;
    json_t *value;
    size_t i;
    struct spec *s = &out->spec;
    TRY(field_array(ca, "ExternalCAs", &list, why));
    json_array_foreach(list, i, value) {
        if (s->n_external == EXTERNAL_CAS_MAX)
            return fail_with(why, ERR_INVALID, "there are more than %d external CAs",
                             EXTERNAL_CAS_MAX);
        unsigned at = s->n_external;
        TRY(decode_external(value, &s->external[at], &out->options[at], why));
        s->n_external++;
    }
    return OK;
}

/* A validity that is there already may stay, however short. */
static RESULT check_expiry(int64_t ns, const struct spec *now, struct why *why) {
    bool stays = now && now->cert_validity_s > 0 && ns == now->cert_validity_s * NS_PER_S;
    if (ns == 0 || stays || ns >= ENGINE_CERT_EXPIRY_MIN_S * NS_PER_S) return OK;
    return fail_with(why, ERR_INVALID, "minimum certificate expiry time is: 1h0m0s");
}

static RESULT decode_ca(const json_t *object, const struct spec *now, struct engine_spec *out,
                        struct why *why) {
    const json_t *ca;
    int64_t expiry_ns = 0, force = 0;
    TRY(field_object(object, "CAConfig", &ca, why));
    TRY(field_number(ca, "NodeCertExpiry", INT64_MIN, INT64_MAX, &expiry_ns, why));
    TRY(check_expiry(expiry_ns, now, why));
    TRY(field_number(ca, "ForceRotate", 0, INT64_MAX, &force, why));
    TRY(field_span(ca, "SigningCACert", &out->signing_cert, why));
    TRY(field_span(ca, "SigningCAKey", &out->signing_key, why));
    out->spec.cert_validity_s = expiry_ns / NS_PER_S;
    out->spec.force_rotate = (uint64_t)force;
    if (out->signing_key.size > 0 && out->signing_cert.size == 0)
        return fail_with(why, ERR_INVALID,
                         "if a signing CA key is provided, the signing CA cert must also be "
                         "provided");
    if (out->signing_cert.size > PEM_MAX || out->signing_key.size > PEM_MAX)
        return fail_with(why, ERR_INVALID, "the signing CA passes %llu bytes", PEM_MAX);
    return decode_externals(ca, out, why);
}

static RESULT decode_rest(const json_t *object, struct engine_spec *out, struct why *why) {
    const json_t *orchestration, *encryption;
    char name[32] = "";
    TRY(field_text(object, "Name", name, sizeof name, why));
    if (name[0] && strcmp(name, "default") != 0)
        return fail_with(why, ERR_INVALID, "swarm spec must be named \"default\"");
    TRY(field_object(object, "Orchestration", &orchestration, why));
    out->has_task_history = field_of(orchestration, "TaskHistoryRetentionLimit") != NULL;
    TRY(field_number(orchestration, "TaskHistoryRetentionLimit", -1, INT64_MAX,
                     &out->spec.task_history, why));
    TRY(field_object(object, "EncryptionConfig", &encryption, why));
    return field_bool(encryption, "AutoLockManagers", &out->autolock, why);
}

RESULT engine_spec_decode(const json_t *object, const struct spec *now, struct engine_spec *out,
                          struct why *why) {
    *out = (struct engine_spec){0};
    enum err e = field_labels(object, "Labels", &out->labels, why);
    if (e == OK) e = decode_rest(object, out, why);
    if (e == OK) e = decode_raft(object, &out->spec, why);
    if (e == OK) e = decode_dispatcher(object, &out->spec, why);
    if (e == OK) e = decode_ca(object, now, out, why);
    if (e != OK) engine_spec_free(out);
    out->spec.labels = buf_span(&out->labels);
    return e;
}

void engine_spec_free(struct engine_spec *s) {
    buf_free(&s->labels);
    for (unsigned i = 0; i < EXTERNAL_CAS_MAX; i++)
        buf_free(&s->options[i]);
}
