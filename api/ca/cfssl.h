/* An external CA that speaks CFSSL's protocol over https: POST of JSON to its sign endpoint
 *
 *   {"certificate_request": PEM, "hosts": [...], "subject": {"CN", "names": [{"O", "OU"}]}}
 *
 * answered by {"success": true, "result": {"certificate": PEM}} or {"success": false, "errors":
 * [{"message"}]} (source: cfssl doc/api/endpoint_sign.txt; swarmkit ca/external.go). The URLs are
 * tried in order, CFSSL_TIMEOUT_MS each. The manager shows its own certificate. What comes back is
 * believed in nothing: authority_accept judges it.
 *
 * It blocks, so each question has a thread of its own, CFSSL_MAX at once. */
#ifndef CONCLAVE_CFSSL_H
#define CONCLAVE_CFSSL_H

#include "api/manager.h"
#include "store/spec.h"

#define CFSSL_TIMEOUT_MS 5000
#define CFSSL_MAX        8 /* questions under way */

/* One CA, asked at once, blocking. `trust_pem`: whom to believe that it is the one. `cert_pem` may
 * be empty, and the key NULL then. ERR_UNREACHABLE: ask another; ERR_CERTIFICATE, ERR_PROTOCOL the
 * same; else its refusal, ERR_PERMISSION. */
struct cfssl {
    const char *url; /* https://HOST[:PORT]/PATH */
    struct span trust_pem;
    struct span cert_pem;
    const struct secret *key_pem;
};
RESULT cfssl_sign(const struct cfssl *ca, struct span csr_pem, const struct x509_subject *subject,
                  struct buf *cert_pem, struct why *why);
RESULT cfssl_url_check(const char *url, struct why *why); /* ERR_INVALID */

/* The CAs of the settings, away from the loop. `done` is called on the loop, once, with the
 * certificate when `e` is OK. Everything is copied. ERR_BUSY: CFSSL_MAX are under way. */
typedef void cfssl_done(void *ctx, enum err e, const char *text, struct span cert_pem);
RESULT cfssl_start(struct manager *m, const struct spec *spec, struct span csr_pem,
                   const struct x509_subject *subject, cfssl_done *done, void *ctx,
                   struct why *why);

#endif
