/* A line of a dump of the audit trail, or the bytes of a head in it: refused, or read within
 * bounds; and nothing is believed that was not signed. */
#include <stdlib.h>

#include "api/secret/audit.h"
#include "crypto/secret.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) abort();
}

static void try_line(struct span line) {
    struct buf memory = buf_new(64 * KIB);
    struct audit_link link;
    struct audit_head head;
    struct audit_walk walk;
    json_t *json;
    if (jin_parse(line, &json, NULL) != OK) return;
    if (audit_link_read(json, &link, &memory, NULL) == OK) {
        check(link.record.size <= AUDIT_RECORD_MAX);
        check(audit_walk_start(&walk, span_of(NULL, 0), NULL) == OK);
        (void)!audit_walk_link(&walk, &link, NULL);
        check(walk.heads == 0);
        audit_walk_end(&walk);
    }
    if (audit_head_read(json, &head, &memory, NULL) == OK) {
        check(head.signature.size <= AUDIT_SIGNATURE_MAX);
        check(head.signer_pem.size <= AUDIT_SIGNERS_MAX);
        check(audit_head_check(&head, span_of(NULL, 0), NULL) != OK);
    }
    json_decref(json);
    buf_free(&memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct audit_head head;
    if (crypto_start(NULL) != OK) return 0;
    if (audit_head_decode(span_of(data, size), &head) == OK)
        check(audit_head_check(&head, span_of(NULL, 0), NULL) != OK);
    try_line(span_of(data, size));
    return 0;
}
