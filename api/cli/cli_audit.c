/* Verbs about the audit trail: its end, as it grows; a dump to keep; the head, signed; and the
 * proof, which is made here: every record is hashed anew, and signatures are checked against the
 * roots. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "api/cli/cli.h"
#include "api/secret/audit.h"
#include "api/words.h"

#define LINE_MAX_BYTES (64 * KIB) /* of a dump */
#define FOLLOW_MS      500

static int64_t number(const json_t *object, const char *key) {
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static RESULT get_page(struct cli *cli, const char *what, uint64_t n, json_t **out,
                       struct why *why) {
    char path[96];
    (void)snprintf(path, sizeof path, "/conclave/v1/audit?%s=%llu", what, (unsigned long long)n);
    return cli_get(cli, path, out, why);
}

/* --- tail ----------------------------------------------------------------------------------- */

static void put_text(const char *before, const char *text) {
    if (text[0] == '\0') return;
    (void)fputs(before, stdout);
    for (const uint8_t *c = (const uint8_t *)text; *c != '\0'; c++)
        (void)putchar(*c < ' ' || *c == 127 ? '?' : *c);
}

/* To the second: "2026-11-29 16:08:41". */
static const char *second(const json_t *r, char out[MOMENT_TEXT]) {
    struct tm utc;
    time_t at = (time_t)(number(r, "time_ns") / 1000000000);
    if (!gmtime_r(&at, &utc) || strftime(out, MOMENT_TEXT, "%Y-%m-%d %H:%M:%S", &utc) == 0)
        (void)snprintf(out, MOMENT_TEXT, "?");
    return out;
}

static void print_record(const json_t *r) {
    char at[MOMENT_TEXT];
    bool key = strcmp(jin_string(r, "kind"), "cluster key") == 0;
    printf("%6lld  %s  %s", (long long)number(r, "number"), second(r, at), jin_string(r, "what"));
    put_text(" ", jin_string(r, "kind"));
    if (!key) put_text(" ", jin_string(r, jin_string(r, "name")[0] ? "name" : "id"));
    if (number(r, "version") > 0)
        printf(" %s %lld", key ? "epoch" : "version", (long long)number(r, "version"));
    put_text("  by ", jin_string(r, "who"));
    put_text(" from ", jin_string(r, "from"));
    put_text("  to node ", jin_string(r, "node"));
    put_text(" for task ", jin_string(r, "task"));
    put_text("  ", jin_string(r, "detail"));
    (void)putchar('\n');
}

/* One object a line. */
static RESULT print_line(const json_t *json) {
    char *text = json_dumps(json, JSON_COMPACT);
    if (!text) return ERR_NOMEM;
    (void)puts(text);
    free(text);
    return OK;
}

static RESULT print_page(const json_t *page, bool lines, uint64_t *last) {
    size_t i;
    const json_t *r;
    json_array_foreach(json_object_get(page, "records"), i, r) {
        if (lines)
            TRY(print_line(r));
        else
            print_record(r);
        *last = (uint64_t)number(r, "number");
    }
    return OK;
}

/* From what follows `last` to the end there is now. */
static RESULT print_rest(struct cli *cli, bool lines, uint64_t *last, struct why *why) {
    for (;;) {
        json_t *page = NULL;
        uint64_t before = *last;
        TRY(get_page(cli, "from", *last + 1, &page, why));
        enum err e = print_page(page, lines, last);
        json_decref(page);
        if (e != OK || *last == before) return e;
    }
}

static const struct option_spec tail_options[] = {
    {"lines", "N", "how many; 20 unless told (also -n N)"},
    {"follow", NULL, "go on with what comes"},
    {NULL, NULL, NULL},
};

static RESULT read_lines(const struct cli *cli, uint64_t *out, struct why *why) {
    *out = 20;
    if (cli->n == 0) return cli_number(cli, "lines", 1, AUDIT_MAX, out, why);
    if (cli->n == 2 && strcmp(cli->words[0], "-n") == 0 && strlen(cli->words[1]) < 8 &&
        http_parse_decimal(span_str(cli->words[1]), out) == OK && *out > 0)
        return OK;
    return fail_with(why, ERR_USAGE, "usage: conclave audit tail [-n N]");
}

static enum err run_tail(struct cli *cli, struct why *why) {
    json_t *page = NULL;
    bool json = cli_json(cli);
    uint64_t lines, last = 0;
    TRY(read_lines(cli, &lines, why));
    TRY(get_page(cli, "newest", lines, &page, why));
    enum err e = print_page(page, json, &last);
    json_decref(page);
    if (e == OK && last > 0) e = print_rest(cli, json, &last, why);
    while (e == OK && cli_option(cli, "follow")) {
        TRY(cli_flush(why));
        cli_pause(FOLLOW_MS);
        e = print_rest(cli, json, &last, why);
    }
    return e == OK ? cli_flush(why) : e;
}

const struct verb verb_audit_tail = {
    .name = "audit tail",
    .words = "[-n N]",
    .about = "show the end of the audit trail: who did what with secrets, when, from where",
    .help = "With --json one object a line. The trail keeps 100,000 records; `conclave audit dump` "
            "keeps more.",
    .run = run_tail,
    .options = tail_options,
    .words_max = 2,
};

/* --- the head ------------------------------------------------------------------------------- */

static enum err run_head(struct cli *cli, struct why *why) {
    json_t *head = NULL;
    TRY(cli_get(cli, "/conclave/v1/audit/head", &head, why));
    enum err e = cli_print_json(head);
    json_decref(head);
    return e;
}

const struct verb verb_audit_head = {
    .name = "audit head",
    .words = "",
    .about = "print the head of the audit trail, signed by the manager that is asked",
    .help = "Kept elsewhere (`> FILE`), it later shows whether the trail up to it was rewritten or "
            "cut:\n`conclave audit verify --head FILE`.",
    .run = run_head,
};

/* --- dump ----------------------------------------------------------------------------------- */

/* Up to the end that there is; one more round when the head is already of a later record. */
static enum err run_dump(struct cli *cli, struct why *why) {
    uint64_t last = 0;
    json_t *head = NULL;
    do {
        json_decref(head);
        head = NULL;
        TRY(print_rest(cli, true, &last, why));
        TRY(cli_get(cli, "/conclave/v1/audit/head", &head, why));
    } while ((uint64_t)number(head, "number") > last);
    json_t *end = json_pack("{so}", "head", head);
    enum err e = end ? print_line(end) : ERR_NOMEM;
    json_decref(end);
    return e == OK ? cli_flush(why) : e;
}

static const struct option_spec dump_options[] = {
    {NULL, NULL, NULL},
};

const struct verb verb_audit_dump = {
    .name = "audit dump",
    .words = "",
    .about = "print the whole audit trail, to be kept: one JSON object a line, the head last",
    .help = "`conclave audit verify --dump FILE` checks what was kept.",
    .run = run_dump,
    .options = dump_options,
};

/* --- verify --------------------------------------------------------------------------------- */

struct proof {
    struct buf roots;         /* PEM */
    struct audit_head kept;   /* of --head */
    struct buf kept_memory;   /* its */
    struct audit_head head;   /* of the end */
    struct buf head_memory;   /* its */
    struct buf record_memory; /* of the record that is looked at */
    struct audit_walk walk;
};

static RESULT add_pem(const json_t *answer, const char *key, struct buf *out) {
    return buf_add_span(out, span_str(jin_string(json_object_get(answer, key), "pem")));
}

/* Those of --ca; else all that the cluster trusts or has trusted lately. */
static RESULT get_roots(struct cli *cli, struct buf *out, struct why *why) {
    const char *path = cli_option(cli, "ca");
    json_t *answer = NULL;
    if (path) return cli_read_file(path, out, why);
    TRY(cli_get(cli, "/conclave/v1/ca", &answer, why));
    enum err e = add_pem(answer, "root", out);
    if (e == OK) e = add_pem(answer, "next", out);
    if (e == OK) e = buf_add_span(out, span_str(jin_string(answer, "retired_pem")));
    json_decref(answer);
    return e;
}

static RESULT read_kept(const char *path, struct proof *p, struct why *why) {
    struct buf text = buf_new(LINE_MAX_BYTES);
    json_t *json = NULL;
    enum err e = cli_read_file(path, &text, why);
    if (e == OK) e = jin_parse(buf_span(&text), &json, why);
    if (e == OK) e = audit_head_read(json, &p->kept, &p->kept_memory, why);
    if (e == OK) e = audit_head_check(&p->kept, buf_span(&p->roots), why);
    json_decref(json);
    buf_free(&text);
    return e == OK ? OK : fail_in(why, e, path);
}

static RESULT take_record(struct proof *p, const json_t *json, struct why *why) {
    struct audit_link link;
    TRY(audit_link_read(json, &link, &p->record_memory, why));
    return audit_walk_link(&p->walk, &link, why);
}

static RESULT take_head(struct proof *p, const json_t *json, struct why *why) {
    TRY(audit_head_read(json, &p->head, &p->head_memory, why));
    return audit_head_check(&p->head, buf_span(&p->roots), why);
}

static RESULT walk_pages(struct cli *cli, struct proof *p, struct why *why) {
    uint64_t before;
    do {
        json_t *page = NULL;
        const json_t *r;
        size_t i;
        enum err e = OK;
        before = p->walk.last;
        TRY(get_page(cli, "from", before + 1, &page, why));
        json_array_foreach(json_object_get(page, "records"), i, r) {
            e = take_record(p, r, why);
            if (e != OK) break;
        }
        json_decref(page);
        TRY(e);
    } while (p->walk.last > before);
    return OK;
}

static RESULT walk_server(struct cli *cli, struct proof *p, struct why *why) {
    do {
        json_t *head = NULL;
        uint64_t before = p->walk.last;
        TRY(walk_pages(cli, p, why));
        TRY(cli_get(cli, "/conclave/v1/audit/head", &head, why));
        enum err e = take_head(p, head, why);
        json_decref(head);
        TRY(e);
        if (p->walk.last == before) break;
    } while (p->head.number > p->walk.last);
    return OK;
}

/* A line of a dump; `end`: it was the head. */
static RESULT take_line(struct proof *p, struct span line, bool *end, struct why *why) {
    json_t *json = NULL;
    if (*end) return fail_with(why, ERR_CORRUPT, "something follows the head");
    TRY(jin_parse(line, &json, why));
    const json_t *head = json_object_get(json, "head");
    *end = head != NULL;
    enum err e = head ? take_head(p, head, why) : take_record(p, json, why);
    json_decref(json);
    return e;
}

static RESULT walk_file(FILE *file, struct proof *p, struct why *why) {
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    bool end = false;
    enum err e = OK;
    while (e == OK && (size = getline(&line, &room, file)) > 0) {
        if ((size_t)size > LINE_MAX_BYTES)
            e = fail_with(why, ERR_TOO_LARGE, "a line has more than %llu bytes", LINE_MAX_BYTES);
        else
            e = take_line(p, span_of(line, (size_t)size), &end, why);
    }
    free(line);
    if (e == OK && ferror(file)) e = fail_with(why, ERR_IO, "%s", strerror(errno));
    if (e == OK && !end) e = fail_with(why, ERR_CORRUPT, "it was cut: there is no head at its end");
    return e;
}

static RESULT walk_dump(const char *path, struct proof *p, struct why *why) {
    FILE *file = fopen(path, "re");
    if (!file) return fail_with(why, err_from_errno(errno), "%s: %s", path, strerror(errno));
    enum err e = walk_file(file, p, why);
    (void)fclose(file);
    return e == OK ? OK : fail_in(why, e, path);
}

static RESULT tell_proof(const struct cli *cli, const struct proof *p, struct why *why) {
    const struct audit_walk *w = &p->walk;
    unsigned long long first = w->first, last = w->last, heads = w->heads, others = w->strangers;
    if (cli_json(cli)) {
        printf("{\"first\": %llu, \"last\": %llu, \"heads\": %llu, \"other_heads\": %llu, "
               "\"signed_by\": \"%s\", \"kept_head\": %llu}\n",
               first, last, heads, others, p->head.node_id, (unsigned long long)p->kept.number);
        return cli_flush(why);
    }
    printf("Records %llu to %llu follow from one another; the head is signed by manager %s.\n",
           first, last, p->head.node_id);
    if (heads > 0)
        printf("%llu heads in the trail are signed by managers of this cluster.\n", heads);
    if (others > 0)
        printf("%llu heads in the trail are signed under other roots: --ca FILE with the roots of "
               "that time\nchecks them.\n",
               others);
    if (cli_option(cli, "head"))
        printf("The head of record %llu that was kept is one of them.\n",
               (unsigned long long)p->kept.number);
    return cli_flush(why);
}

static RESULT prove(struct cli *cli, struct proof *p, struct why *why) {
    const char *kept = cli_option(cli, "head"), *dump = cli_option(cli, "dump");
    TRY(get_roots(cli, &p->roots, why));
    if (kept) TRY(read_kept(kept, p, why));
    TRY(audit_walk_start(&p->walk, buf_span(&p->roots), kept ? &p->kept : NULL));
    TRY(dump ? walk_dump(dump, p, why) : walk_server(cli, p, why));
    TRY(audit_walk_has(&p->walk, &p->head, why));
    TRY(audit_walk_finish(&p->walk, why));
    return tell_proof(cli, p, why);
}

static enum err run_verify(struct cli *cli, struct why *why) {
    struct proof p = {.roots = buf_new(1 * MIB),
                      .kept_memory = buf_new(32 * KIB),
                      .head_memory = buf_new(32 * KIB),
                      .record_memory = buf_new(2 * AUDIT_RECORD_MAX)};
    enum err e = prove(cli, &p, why);
    audit_walk_end(&p.walk);
    buf_free(&p.roots);
    buf_free(&p.kept_memory);
    buf_free(&p.head_memory);
    buf_free(&p.record_memory);
    return e;
}

static const struct option_spec verify_options[] = {
    {"head", "FILE", "a head that was kept: the trail must pass it"},
    {"dump", "FILE", "check this dump, not the cluster's trail"},
    {"ca", "FILE", "the roots to believe; the cluster's own unless told"},
    {NULL, NULL, NULL},
};

const struct verb verb_audit_verify = {
    .name = "audit verify",
    .words = "",
    .about = "prove that the audit trail was neither altered nor cut",
    .help = "All records are read and hashed here; the head's signature and those in the trail are "
            "checked against the\ncluster's roots. Whoever wrote the whole trail anew would have "
            "to sign anew, too: --head with a head of\nbefore finds that.",
    .run = run_verify,
    .options = verify_options,
};
