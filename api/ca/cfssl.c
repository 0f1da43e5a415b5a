/* See cfssl.h. The HTTP is the client's of the command line (client.h), with a connection a
 * question: a CA is asked seldom, and may be another one next time. */
#include "api/ca/cfssl.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/client.h"
#include "api/json.h"
#include "raft/loop.h"

#define HTTPS      "https://"
#define ANSWER_MAX (256 * KIB)

/* --- addresses ------------------------------------------------------------------------------ */

struct place {
    char endpoint[ADDRESS_MAX]; /* HOST:PORT */
    const char *path;           /* in the URL */
};

static RESULT place_of(const char *url, struct place *out, struct why *why) {
    struct address parts;
    if (strncmp(url, HTTPS, sizeof HTTPS - 1) != 0 || strnlen(url, URL_MAX) == URL_MAX)
        return fail_with(why, ERR_INVALID, "an external CA is at https://HOST[:PORT]/PATH");
    const char *host = url + sizeof HTTPS - 1;
    size_t size = strcspn(host, "/?#");
    for (const char *c = url; *c; c++)
        if (*c <= ' ' || *c >= 0x7f || *c == '#' || (*c == '@' && c < host + size))
            return fail_with(why, ERR_INVALID, "%s: no URL of an external CA", url);
    if (size == 0 || size >= ADDRESS_MAX - 4)
        return fail_with(why, ERR_INVALID, "%s: it names no host", url);
    const char *colon = memrchr(host, ':', size), *bracket = memrchr(host, ']', size);
    bool port = colon && (!bracket || colon > bracket);
    (void)snprintf(out->endpoint, sizeof out->endpoint, "%.*s%s", (int)size, host,
                   port ? "" : ":443");
    out->path = host[size] == '/' ? host + size : "/";
    return address_split(out->endpoint, &parts, why);
}

RESULT cfssl_url_check(const char *url, struct why *why) {
    struct place place;
    return place_of(url, &place, why);
}

/* --- the question --------------------------------------------------------------------------- */

static void put_hosts(struct jout *j, const struct x509_subject *s) {
    const char *at = s->hosts;
    jout_key(j, "hosts");
    jout_open(j, '[');
    jout_text(j, span_str(s->ou));
    jout_text(j, span_str(s->cn));
    if (strcmp(s->ou, ROLE_MANAGER) == 0) jout_text(j, span_str(ROOT_CN));
    while (*at) {
        size_t size = strcspn(at, ",");
        jout_text(j, span_of(at, size));
        at += size;
        if (*at) at++;
    }
    jout_close(j, ']');
}

static RESULT question(struct span csr, const struct x509_subject *s, struct buf *out) {
    struct jout j;
    jout_start(&j, out);
    jout_open(&j, '{');
    jout_key(&j, "certificate_request");
    jout_text(&j, csr);
    put_hosts(&j, s);
    jout_key(&j, "subject");
    jout_open(&j, '{');
    jout_put_text(&j, "CN", s->cn);
    jout_key(&j, "names");
    jout_open(&j, '[');
    jout_open(&j, '{');
    jout_put_text(&j, "O", s->o);
    jout_put_text(&j, "OU", s->ou);
    jout_close(&j, '}');
    jout_close(&j, ']');
    jout_close(&j, '}');
    jout_close(&j, '}');
    return jout_end(&j);
}

/* --- the answer ----------------------------------------------------------------------------- */

/* Text of a stranger: what may stand in a sentence. */
static void plain(const char *text, char out[128]) {
    size_t n = strnlen(text, 127);
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?';
    out[n] = '\0';
}

static RESULT read_answer(const char *url, unsigned status, struct span body, struct buf *cert,
                          struct why *why) {
    json_t *json = NULL;
    bool success = false;
    char said[128];
    if (jin_parse(body, &json, NULL) != OK)
        return fail_with(why, ERR_PROTOCOL,
                         "%s answers with status %u, and not by CFSSL's protocol", url, status);
    const char *pem = jin_string(json_object_get(json, "result"), "certificate");
    const json_t *error = json_array_get(json_object_get(json, "errors"), 0);
    enum err e = jin_bool(json, "success", &success, NULL);
    if (e == OK && success && pem[0] && strlen(pem) <= PEM_MAX) {
        e = buf_add_span(cert, span_str(pem));
    } else {
        plain(error ? jin_string(error, "message") : "no reason is told", said);
        e = fail_with(why, ERR_PERMISSION, "%s: status %u: %s", url, status, said);
    }
    json_decref(json);
    return e;
}

static RESULT ask(struct client *client, const struct cfssl *ca, const struct place *place,
                  struct span csr, const struct x509_subject *subject, struct buf *cert,
                  struct why *why) {
    struct buf body = buf_new(4 * PEM_MAX), answer = buf_new(ANSWER_MAX);
    unsigned status = 0;
    struct client_request request = {.method = HTTP_POST,
                                     .path = place->path,
                                     .headers = "Content-Type: application/json\r\n",
                                     .status = &status,
                                     .timeout_ms = CFSSL_TIMEOUT_MS};
    enum err e = question(csr, subject, &body);
    request.body = buf_span(&body);
    if (e == OK) e = client_call(client, &request, &answer, why);
    if (e == ERR_MAYBE_APPLIED) e = ERR_UNREACHABLE; /* to ask twice does no harm */
    if (e == OK) e = read_answer(ca->url, status, buf_span(&answer), cert, why);
    buf_free(&body);
    buf_free(&answer);
    return e;
}

RESULT cfssl_sign(const struct cfssl *ca, struct span csr_pem, const struct x509_subject *subject,
                  struct buf *cert_pem, struct why *why) {
    struct place place;
    struct client *client;
    TRY(place_of(ca->url, &place, why));
    struct client_config config = {.endpoint = place.endpoint,
                                   .root_pem = ca->trust_pem,
                                   .cert_pem = ca->cert_pem,
                                   .key_pem = ca->key_pem};
    TRY(client_open(&config, &client, why));
    enum err e = ask(client, ca, &place, csr_pem, subject, cert_pem, why);
    client_close(client);
    return e;
}

/* --- away from the loop --------------------------------------------------------------------- */

/* One question to all CAs, in order. */
struct signing {
    struct job job; /* the one of exec */
    struct exec *exec;
    struct manager *manager;
    unsigned n; /* CAs */
    char (*urls)[URL_MAX];
    struct buf trust[EXTERNAL_CAS_MAX];
    struct buf own; /* the manager's chain */
    struct secret *key;
    struct buf csr;
    struct x509_subject subject;
    struct buf cert; /* the answer */
    enum err error;
    struct why why;
    cfssl_done *done;
    void *ctx; /* of done */
};

static void signing_free(struct signing *s) {
    for (unsigned i = 0; i < s->n; i++)
        buf_free(&s->trust[i]);
    free(s->urls);
    buf_free(&s->own);
    secret_free(s->key);
    buf_free(&s->csr);
    buf_free(&s->cert);
    free(s);
}

static void run(struct job *job) {
    struct signing *s = (struct signing *)(void *)job;
    for (unsigned i = 0; i < s->n; i++) {
        struct cfssl ca = {.url = s->urls[i],
                           .trust_pem = buf_span(&s->trust[i]),
                           .cert_pem = buf_span(&s->own),
                           .key_pem = s->key};
        s->why.text[0] = 0;
        s->error = cfssl_sign(&ca, buf_span(&s->csr), &s->subject, &s->cert, &s->why);
        if (s->error == OK) return;
    }
    (void)fail_in(&s->why, s->error, "the external CA");
}

static void on_run(struct job *job) {
    struct signing *s = (struct signing *)(void *)job;
    exec_real_close(s->exec, NULL, NULL);
    s->manager->signings--;
    s->done(s->ctx, s->error, s->why.text, buf_span(&s->cert));
    signing_free(s);
}

static RESULT fill(struct signing *s, const struct spec *spec, struct span csr) {
    const struct manager *m = s->manager;
    s->urls = calloc(spec->n_external, sizeof *s->urls);
    if (!s->urls) return ERR_NOMEM;
    for (; s->n < spec->n_external; s->n++) {
        const struct external_ca *ca = &spec->external[s->n];
        s->trust[s->n] = buf_new(2 * PEM_MAX);
        memcpy(s->urls[s->n], ca->url, sizeof s->urls[s->n]);
        TRY(buf_add_span(&s->trust[s->n],
                         ca->ca_pem.size > 0 ? ca->ca_pem : buf_span(&m->self.root_pem)));
    }
    TRY(buf_add_span(&s->csr, csr));
    TRY(buf_add_span(&s->own, buf_span(&m->self.cert_pem)));
    return secret_copy(m->self.key_pem, &s->key);
}

RESULT cfssl_start(struct manager *m, const struct spec *spec, struct span csr_pem,
                   const struct x509_subject *subject, cfssl_done *done, void *ctx,
                   struct why *why) {
    if (m->signings == CFSSL_MAX)
        return fail_with(why, ERR_BUSY, "the external CA is asked for others; try again");
    struct signing *s = calloc(1, sizeof *s);
    if (!s) return fail_with(why, ERR_NOMEM, "no memory to ask the external CA");
    *s = (struct signing){.job = {.run = run, .done = on_run},
                          .manager = m,
                          .own = buf_new(PEM_MAX),
                          .csr = buf_new(PEM_MAX),
                          .subject = *subject,
                          .cert = buf_new(PEM_MAX),
                          .done = done,
                          .ctx = ctx};
    enum err e = fill(s, spec, csr_pem);
    if (e == OK) e = exec_real_start(m->config.loop, "cfssl", 0, &s->exec, why);
    if (e != OK) {
        signing_free(s);
        return e;
    }
    m->signings++;
    s->exec->submit(s->exec, &s->job);
    return OK;
}
