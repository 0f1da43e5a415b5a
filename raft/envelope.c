/* The clear prefix of the sealed files and the sealer that it leads to; format in envelope.h. */
#include "raft/envelope.h"

void envelope_new(struct envelope *e, struct keyring *keys, enum seal_alg alg) {
    e->alg = alg;
    e->generation = keyring_generation(keys);
    random_bytes(e->id, sizeof e->id);
}

void envelope_write(const struct envelope *e, const struct envelope_kind *kind,
                    uint8_t out[ENVELOPE_SIZE]) {
    memcpy(out, kind->magic, 8);
    out[8] = (uint8_t)kind->version;
    out[9] = (uint8_t)(kind->version >> 8);
    out[10] = (uint8_t)e->alg;
    out[11] = 0;
    put_u32(out + 12, e->generation);
    memcpy(out + 16, e->id, ENVELOPE_ID);
}

RESULT envelope_read(struct span raw, const struct envelope_kind *kind, const char *path,
                     uint64_t at, struct envelope *out, struct why *why) {
    unsigned long long place = at;
    if (raw.size < ENVELOPE_SIZE)
        return fail_with(why, ERR_CORRUPT, "%s: byte %llu: the file ends in its head", path, place);
    if (memcmp(raw.at, kind->magic, 8) != 0)
        return fail_with(why, ERR_CORRUPT, "%s: byte %llu: the magic word is not there", path,
                         place);
    unsigned version = raw.at[8] | (unsigned)raw.at[9] << 8;
    if (version != kind->version)
        return fail_with(why, ERR_CORRUPT, "%s: byte %llu: version %u is not known", path,
                         place + 8, version);
    if (!seal_known(raw.at[10]) || raw.at[11] != 0)
        return fail_with(why, ERR_CORRUPT, "%s: byte %llu: algorithm %u is not known", path,
                         place + 10, raw.at[10]);
    out->alg = (enum seal_alg)raw.at[10];
    out->generation = get_u32(raw.at + 12);
    memcpy(out->id, raw.at + 16, ENVELOPE_ID);
    return OK;
}

RESULT envelope_sealer(const struct envelope *e, const struct envelope_kind *kind,
                       struct keyring *keys, const char *path, uint64_t at, struct sealer **out,
                       struct why *why) {
    const struct secret *dek = keyring_dek(keys, e->generation);
    if (dek == NULL)
        return fail_with(why, ERR_CORRUPT, "%s: byte %llu: key generation %u is not in the keyring",
                         path, (unsigned long long)at + 12, e->generation);
    struct secret *key = NULL;
    TRY(secret_derive(dek, kind->purpose, span_of(e->id, sizeof e->id), &key));
    enum err err = sealer_new(e->alg, key, out);
    secret_free(key);
    if (err == OK || err == ERR_NOMEM) return err;
    return fail_with(why, ERR_CORRUPT, "%s: byte %llu: algorithm %u can't be used", path,
                     (unsigned long long)at + 10, (unsigned)e->alg);
}

static size_t put_id(uint8_t *at, const char *id, size_t room) {
    size_t size = strnlen(id, room);
    memset(at, 0, room);
    memcpy(at, id, size);
    return room;
}

void identity_write(const struct identity *i, uint8_t out[IDENTITY_SIZE]) {
    size_t size = put_id(out, i->cluster_id, CLUSTER_ID_SIZE);
    (void)put_id(out + size, i->node_id, NODE_ID_SIZE);
}

bool identity_matches(const struct identity *i, const uint8_t raw[IDENTITY_SIZE]) {
    uint8_t own[IDENTITY_SIZE];
    identity_write(i, own);
    return memcmp(own, raw, sizeof own) == 0;
}
