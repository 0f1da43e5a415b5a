/* Templates: everything of the subset, the blanks, and every way to be wrong, by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/task/template.h"

static bool find_value(void *ctx, enum row_kind kind, struct span target, struct span *out) {
    (void)ctx;
    if (!span_equal(target, span_str("db"))) return false;
    *out = span_str(kind == ROW_SECRET ? "s3cret {{.Task.ID}}" : "config");
    return true;
}

static struct buf labels, env;

static int set_up(void **state) {
    (void)state;
    labels = buf_new(1024);
    env = buf_new(1024);
    assert_int_equal(labels_add(&labels, span_str("com.x"), span_str("dotted")), OK);
    assert_int_equal(labels_add(&labels, span_str("tier"), span_str("front")), OK);
    assert_int_equal(buf_block(&env, span_str("MODE=fast=yes")), OK);
    assert_int_equal(buf_block(&env, span_str("MODES=no")), OK);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    buf_free(&labels);
    buf_free(&env);
    return 0;
}

static struct template_scope scope(void) {
    return (struct template_scope){.node = {"n1", "host-1", "linux", "x86_64"},
                                   .service_id = "s1",
                                   .service_name = "web",
                                   .service_labels = buf_span(&labels),
                                   .task_id = "t1",
                                   .task_name = "web.3.t1",
                                   .slot = 3,
                                   .env = buf_span(&env),
                                   .value = find_value};
}

static void expect(const char *text, const char *result) {
    struct buf out = buf_new(4096);
    struct why why = {0};
    struct template_scope s = scope();
    enum err e = template_expand(span_str(text), &s, &out, &why);
    if (e != OK) fail_msg("%s: %s", text, why.text);
    assert_int_equal(buf_u8(&out, 0), OK);
    assert_string_equal((const char *)out.at, result);
    buf_free(&out);
}

static void refuse(const char *text, const char *reason) {
    struct buf out = buf_new(4096);
    struct why why = {0};
    struct template_scope s = scope();
    assert_int_equal(template_expand(span_str(text), &s, &out, &why), ERR_INVALID);
    if (!strstr(why.text, reason)) fail_msg("%s: '%s' does not say '%s'", text, why.text, reason);
    buf_free(&out);
}

static void every_field_is_known(void **state) {
    (void)state;
    expect("{{.Service.ID}} {{.Service.Name}}", "s1 web");
    expect(
        "{{ .Node.ID }},{{.Node.Hostname}},{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}",
        "n1,host-1,linux/x86_64");
    expect("{{.Task.ID}}-{{.Task.Name}}-{{.Task.Slot}}", "t1-web.3.t1-3");
    expect("{{.Service.Labels.tier}}{{.Service.Labels.none}}", "front");
    expect("{{index .Service.Labels \"com.x\"}}", "dotted");
}

static void functions_give_variables_and_values(void **state) {
    (void)state;
    expect("{{env \"MODE\"}}|{{env \"NONE\"}}|{{env `MODES`}}", "fast=yes||no");
    expect("a{{secret \"db\"}}b{{config \"db\"}}c", "as3cret {{.Task.ID}}bconfigc");
}

static void blanks_and_comments_go_as_in_go(void **state) {
    (void)state;
    expect("plain text } { }} alone", "plain text } { }} alone");
    expect("", "");
    expect("a \n {{- .Task.Slot -}} \t b", "a3b");
    expect("a {{/* no one sees */}} b {{- /* nor this */ -}}  c", "a  bc");
    expect("{{.Task.Slot}} {{- .Task.Slot}}", "33");
}

static void what_is_not_of_the_subset_is_named(void **state) {
    (void)state;
    refuse("x {{.Service", "not closed");
    refuse("{{", "not closed");
    refuse("{{}}", "empty");
    refuse("{{.Nodes}}", "action 1: there is no such field");
    refuse("{{.Task.ID}}{{range .x}}", "action 2: only .Service");
    refuse("{{.Task.ID | upper}}", "only");
    refuse("{{env \"A", "not closed");
    refuse("{{env \"A}}", "a quote is not closed");
    refuse("{{env \"A\\n\"}}", "plain");
    refuse("{{env A}}", "only");
    refuse("{{secret \"other\"}}", "no such file");
    refuse("{{a b c d e}}", "too many");
}

static void values_do_not_stand_in_variables(void **state) {
    (void)state;
    struct buf out = buf_new(64);
    struct template_scope s = scope();
    s.value = NULL;
    assert_int_equal(template_expand(span_str("{{.Node.ID}}"), &s, &out, NULL), OK);
    assert_int_equal(template_expand(span_str("{{secret \"db\"}}"), &s, &out, NULL), ERR_INVALID);
    assert_int_equal(template_expand(span_str("{{env \"MODE\"}}"), &s, &out, NULL), ERR_INVALID);
    buf_free(&out);
}

static void what_comes_out_is_bounded(void **state) {
    (void)state;
    struct buf out = buf_new(8);
    struct template_scope s = scope();
    assert_int_equal(template_expand(span_str("12345678"), &s, &out, NULL), OK);
    buf_clear(&out);
    assert_int_equal(template_expand(span_str("{{secret \"db\"}}"), &s, &out, NULL), ERR_TOO_LARGE);
    buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_is_known),
        cmocka_unit_test(functions_give_variables_and_values),
        cmocka_unit_test(blanks_and_comments_go_as_in_go),
        cmocka_unit_test(what_is_not_of_the_subset_is_named),
        cmocka_unit_test(values_do_not_stand_in_variables),
        cmocka_unit_test(what_comes_out_is_bounded),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
