/* The audit trail as an operator reads it: pages of records, for people and for whoever checks the
 * chain, and the head, signed. */
#include "api/api.h"
#include "api/secret/audit.h"

/* --- records -------------------------------------------------------------------------------- */

static void put_span(struct jout *j, const char *key, struct span text) {
    jout_key(j, key);
    jout_text(j, text);
}

/* What it says, for people. The detail of a head is bytes, and stands in "record". */
static void put_record(struct jout *j, const struct audit_record *a) {
    jout_put_text(j, "what", audit_what_text(a->what));
    jout_put_text(j, "kind", audit_kind_text(a->kind));
    jout_put_text(j, "id", a->id);
    put_span(j, "name", a->name);
    put_span(j, "who", a->who);
    put_span(j, "from", a->from);
    jout_put_text(j, "node", a->node_id);
    jout_put_text(j, "task", a->task_id);
    jout_put_number(j, "version", a->version);
    put_span(j, "detail", a->what == AUDIT_HEAD ? span_of(NULL, 0) : a->detail);
}

struct page {
    struct jout j;
    uint64_t left; /* records that still fit */
};

static bool put_link(void *ctx, const struct row *r) {
    struct page *p = ctx;
    struct audit_link link;
    if (audit_read(r, &link) != OK) return false;
    audit_link_put(&p->j, &link);
    put_record(&p->j, &link.is);
    jout_close(&p->j, '}');
    return --p->left > 0 && p->j.error == OK;
}

static RESULT number_of(const struct exchange *x, const char *name, uint64_t *out,
                        struct why *why) {
    char text[24];
    enum err e = http_query(x->head.query, name, text, sizeof text);
    if (e == ERR_NOT_FOUND) return OK;
    if (e == OK && http_parse_decimal(span_str(text), out) == OK) return OK;
    return fail_with(why, ERR_INVALID, "%s is no number", name);
}

/* Where to begin: at a number, or so many before the end. */
static RESULT read_range(const struct exchange *x, uint64_t end, uint64_t *from, uint64_t *limit,
                         struct why *why) {
    uint64_t newest = 0;
    *from = 0;
    *limit = AUDIT_PAGE_MAX;
    TRY(number_of(x, "from", from, why));
    TRY(number_of(x, "limit", limit, why));
    TRY(number_of(x, "newest", &newest, why));
    if (newest > 0) *from = end > newest ? end - newest + 1 : 1;
    if (*limit == 0 || *limit > AUDIT_PAGE_MAX) *limit = AUDIT_PAGE_MAX;
    return OK;
}

static void list(struct exchange *x) {
    const struct api *api = x->ctx;
    uint8_t chain[AUDIT_CHAIN];
    uint64_t end = audit_last(api->manager->store, chain), from, limit;
    struct why why = {0};
    enum err e = read_range(x, end, &from, &limit, &why);
    if (e != OK) {
        api_fail(x, e, &why);
        return;
    }
    struct buf out = buf_new(64 * MIB);
    struct page page = {.left = limit};
    jout_start(&page.j, &out);
    jout_open(&page.j, '{');
    jout_put_number(&page.j, "last", end);
    jout_key(&page.j, "records");
    jout_open(&page.j, '[');
    audit_each(api->manager->store, from, put_link, &page);
    jout_close(&page.j, ']');
    jout_close(&page.j, '}');
    api_answer(x, &page.j, &out);
}

/* ?from=N&limit=N or ?newest=N -> {"last", "records": [...]}, at most AUDIT_PAGE_MAX */
void handle_audit(struct exchange *x) { api_current(x, list); }

/* --- the head ------------------------------------------------------------------------------- */

static void head(struct exchange *x) {
    const struct api *api = x->ctx;
    struct audit_head h;
    struct why why = {0};
    struct buf signature = buf_new(AUDIT_SIGNATURE_MAX), out = buf_new(64 * KIB);
    struct jout j;
    enum err e = audit_head_sign(api->manager, &h, &signature, &why);
    if (e == OK) {
        jout_start(&j, &out);
        audit_head_put(&j, &h);
        api_answer(x, &j, &out);
    } else {
        api_fail(x, e, &why);
    }
    buf_free(&signature);
}

/* -> {"cluster", "node", "number", "chain", "signature", "signer"} */
void handle_audit_head(struct exchange *x) { api_current(x, head); }
