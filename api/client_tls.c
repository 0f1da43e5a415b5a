/* See client_tls.h. A context is made of what the files hold at that moment, or not at all. */
#include "api/client_tls.h"

#include <errno.h>
#include <stdio.h>

#include <sodium.h>

static RESULT read_file(const char *path, struct buf *out, struct why *why) {
    FILE *f = fopen(path, "re");
    if (!f) return fail_with(why, err_from_errno(errno), "%s: %s", path, strerror(errno));
    enum err e = buf_reserve(out, PEM_MAX); /* so that no copy of a key is left behind */
    if (e == OK) out->size = fread(out->at, 1, PEM_MAX, f);
    if (e == OK && ferror(f)) e = fail_with(why, ERR_IO, "%s: %s", path, strerror(errno));
    if (e == OK && (out->size == 0 || !feof(f)))
        e = fail_with(why, ERR_INVALID, "%s: %s", path, out->size ? "too large" : "it is empty");
    (void)fclose(f);
    return e;
}

static RESULT read_key(const char *path, struct secret **out, struct why *why) {
    struct buf bytes = buf_new(PEM_MAX);
    enum err e = read_file(path, &bytes, why);
    if (e == OK) e = secret_new(bytes.at, bytes.size, out);
    buf_wipe(&bytes);
    return e;
}

/* What was read; the config below points into it. */
struct files {
    struct buf cert, ca;
    struct secret *key;
};

static RESULT read_files(const struct client_tls_config *config, struct files *f, struct why *why) {
    if (config->cert) TRY(read_file(config->cert, &f->cert, why));
    if (config->key) TRY(read_key(config->key, &f->key, why));
    return config->ca ? read_file(config->ca, &f->ca, why) : OK;
}

static RESULT make(const struct client_tls_config *config, const struct node_identity *self,
                   struct span roots, const struct files *f, struct tls_context **out,
                   struct why *why) {
    static const char *const alpn[] = {"h2", "http/1.1", NULL};
    const struct tls_config tls = {.server = true,
                                   .verify =
                                       config->optional ? TLS_VERIFY_OPTIONAL : TLS_VERIFY_REQUIRED,
                                   .root_pem = config->ca ? buf_span(&f->ca) : roots,
                                   .cert_pem = buf_span(config->cert ? &f->cert : &self->cert_pem),
                                   .key_pem = config->key ? f->key : self->key_pem,
                                   .alpn = alpn,
                                   .tls12 = true,
                                   .foreign_cert = config->cert != NULL,
                                   .foreign_root = config->ca != NULL};
    enum err e = tls_context_new(&tls, out, why);
    if (e == OK || !config->cert) return e;
    return fail_in(why, e, config->cert);
}

RESULT client_tls_context(const struct client_tls_config *config, const struct node_identity *self,
                          struct span roots, struct tls_context **out, struct why *why) {
    struct files f = {.cert = buf_new(PEM_MAX), .ca = buf_new(PEM_MAX)};
    enum err e = read_files(config, &f, why);
    if (e == OK) e = make(config, self, roots, &f, out, why);
    buf_free(&f.cert);
    buf_free(&f.ca);
    secret_free(f.key);
    return e;
}

static void on_poll(uv_fs_poll_t *poll, int status, const uv_stat_t *before, const uv_stat_t *now) {
    struct client_tls_watch *w = poll->data;
    (void)before;
    (void)now;
    if (status == 0) w->changed(w->ctx); /* else it is gone: what was read stays */
}

void client_tls_watch(struct client_tls_watch *w, uv_loop_t *loop,
                      const struct client_tls_config *config, void (*changed)(void *ctx),
                      void *ctx) {
    const char *paths[CLIENT_TLS_FILES] = {config->cert, config->key, config->ca};
    w->changed = changed;
    w->ctx = ctx;
    for (unsigned i = 0; i < CLIENT_TLS_FILES; i++) {
        if (!paths[i]) continue;
        uv_fs_poll_t *poll = &w->polls[w->n++];
        (void)uv_fs_poll_init(loop, poll);
        poll->data = w;
        (void)uv_fs_poll_start(poll, on_poll, paths[i], CLIENT_TLS_POLL_MS);
    }
}
