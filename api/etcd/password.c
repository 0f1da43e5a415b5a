/* See password.h. A name's counter is the moment at which all its debts are paid (the generic cell
 * rate algorithm): a check pushes it on by a pause, a right password takes that back, and a check
 * that would push it further ahead than PASSWORD_BURST pauses is refused.
 *
 *   waiting -> at work (a thread) -> done */
#include "api/etcd/password.h"

#include <assert.h>
#include <stdlib.h>

#include <sodium.h>

/* Of the same cost as our own, and of no password. */
static const char nobodys[crypto_pwhash_STRBYTES] =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
_Static_assert(PASSWORD_MEMORY == 19456 * KIB && PASSWORD_PASSES == 2, "as it says");
_Static_assert(crypto_pwhash_STRBYTES == PASSWORD_HASH_MAX, "a hash fits, with its zero");

struct passwords {
    uv_loop_t *loop;                        /* the owner's */
    struct password_job *first, **last;     /* waiting */
    unsigned waiting, working;              /* how many */
    bool closing;                           /* freed once nobody works */
    uint64_t paid_ms[PASSWORD_NAMES];       /* see above */
    uint8_t key[crypto_shorthash_KEYBYTES]; /* nobody can choose whom to share with */
};

RESULT passwords_new(uv_loop_t *loop, struct passwords **out) {
    struct passwords *p = calloc(1, sizeof *p);
    if (p == NULL) return ERR_NOMEM;
    p->loop = loop;
    p->last = &p->first;
    crypto_shorthash_keygen(p->key);
    *out = p;
    return OK;
}

void password_job_free(struct password_job *j) {
    if (j == NULL) return;
    secret_free(j->password);
    sodium_memzero(j, sizeof *j);
    free(j);
}

static void work(uv_work_t *w) {
    struct password_job *j = w->data;
    const char *password = (const char *)secret_span(j->password).at;
    size_t size = secret_span(j->password).size - 1;
    if (!j->check) {
        int bad =
            crypto_pwhash_str(j->hash, password, size, PASSWORD_PASSES, (size_t)PASSWORD_MEMORY);
        j->error = bad != 0 ? ERR_NOMEM : OK;
        return;
    }
    bool nobody = j->hash[0] == '\0';
    bool right = crypto_pwhash_str_verify(nobody ? nobodys : j->hash, password, size) == 0;
    j->error = right && !nobody ? OK : ERR_AUTH_FAILED;
}

static void start_waiting(struct passwords *p);

static void worked(uv_work_t *w, int status) {
    struct password_job *j = w->data;
    struct passwords *p = j->passwords;
    secret_free(j->password);
    j->password = NULL;
    if (status != 0) j->error = ERR_CLOSED;
    if (j->check && j->error == OK) p->paid_ms[j->name] -= PASSWORD_PAUSE_MS;
    j->done(j);
    p->working--;
    if (!p->closing)
        start_waiting(p);
    else if (p->working == 0)
        free(p);
}

static struct password_job *take(struct passwords *p) {
    struct password_job *j = p->first;
    p->first = j->next;
    if (p->first == NULL) p->last = &p->first;
    p->waiting--;
    return j;
}

static void start_waiting(struct passwords *p) {
    while (p->first != NULL && p->working < PASSWORD_WORKERS) {
        struct password_job *j = take(p);
        j->work.data = j;
        p->working++;
        (void)uv_queue_work(p->loop, &j->work, work, worked); /* fails only without a function */
    }
}

void passwords_free(struct passwords *p) {
    if (p == NULL) return;
    p->closing = true;
    while (p->first != NULL) {
        struct password_job *j = take(p);
        j->error = ERR_CLOSED;
        j->done(j);
    }
    if (p->working == 0) free(p);
}

/* With the zero that tells its end to nobody but makes an empty one a secret, too. */
static RESULT keep(struct password_job *j, struct span password) {
    char text[PASSPHRASE_MAX + 1];
    if (password.size > PASSPHRASE_MAX) return ERR_TOO_LARGE;
    if (password.size != 0) memcpy(text, password.at, password.size);
    text[password.size] = '\0';
    enum err e = secret_new(text, password.size + 1, &j->password);
    sodium_memzero(text, sizeof text);
    return e;
}

static RESULT submit(struct passwords *p, struct span password, struct password_job *j) {
    enum err e = p->waiting >= PASSWORD_QUEUE_MAX ? ERR_BUSY : keep(j, password);
    if (e != OK) {
        password_job_free(j);
        return e;
    }
    assert(!p->closing);
    j->passwords = p;
    j->next = NULL;
    *p->last = j;
    p->last = &j->next;
    p->waiting++;
    start_waiting(p);
    return OK;
}

RESULT password_make(struct passwords *p, struct span password, struct password_job *j) {
    j->check = false;
    return submit(p, password, j);
}

static uint64_t counter_of(const struct passwords *p, struct span user) {
    uint8_t hash[crypto_shorthash_BYTES];
    (void)crypto_shorthash(hash, user.at, user.size, p->key);
    return get_u64(hash) % PASSWORD_NAMES;
}

RESULT password_check(struct passwords *p, struct span user, struct span password, struct span hash,
                      uint64_t now_ms, struct password_job *j) {
    j->check = true;
    j->name = counter_of(p, user);
    uint64_t *paid_ms = &p->paid_ms[j->name], base = *paid_ms > now_ms ? *paid_ms : now_ms;
    if (base - now_ms >= PASSWORD_BURST * PASSWORD_PAUSE_MS || hash.size > PASSWORD_HASH_MAX) {
        password_job_free(j);
        return ERR_BUSY;
    }
    if (hash.size != 0) memcpy(j->hash, hash.at, hash.size);
    j->hash[hash.size] = '\0';
    TRY(submit(p, password, j));
    *paid_ms = base + PASSWORD_PAUSE_MS;
    return OK;
}
