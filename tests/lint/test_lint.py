#!/usr/bin/python3
"""The lint is a test, so it is tested: each rule has to find what it is for in a small tree made
for it, and has to leave alone what only looks like it."""
import os
import tempfile
import unittest

import rules

OPENING = "/* The idea of this file, in a paragraph that is long enough to say something. */\n"


class Tree(unittest.TestCase):
    def found(self, rule, path, text):
        """What `rule` finds in a tree of one file."""
        with tempfile.TemporaryDirectory() as root:
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            return rules.check(root, [rule])

    def assert_found(self, rule, path, text, line=None):
        found = self.found(rule, path, text)
        self.assertEqual(len(found), 1, found)
        if line:
            self.assertTrue(found[0].startswith(f"{path}:{line}: "), found)

    def assert_clean(self, rule, path, text):
        self.assertEqual(self.found(rule, path, text), [])


class Layers(Tree):
    def test_every_include_against_the_order_is_found_and_no_other(self):
        for at, layer in enumerate(rules.LAYERS):
            for other, target in enumerate(rules.LAYERS):
                text = f'int x;\n#include "{target}/any.h"\n'
                if other <= at:
                    self.assert_clean("layers", f"{layer}/a.c", text)
                else:
                    self.assert_found("layers", f"{layer}/a.c", text, 2)

    def test_a_layer_may_not_include_what_stands_outside(self):
        for outside in rules.OUTSIDE:
            self.assert_found("layers", "api/a.h", f'#  include "{outside}/x.h"\n', 1)
            self.assert_clean("layers", f"{outside}/a.c", '#include "api/conclave.h"\n')

    def test_an_include_names_its_folder_from_the_top(self):
        self.assert_found("layers", "raft/wal.c", '#include "wal.h"\n')
        self.assert_found("layers", "raft/wal.c", '#include "../crypto/base.h"\n')
        self.assert_found("layers", "raft/wal.c", '#include "crypto/../store/x.h"\n')

    def test_the_public_header_stands_alone(self):
        self.assert_found("layers", rules.PUBLIC_HEADER, '#include "crypto/base.h"\n')
        self.assert_clean("layers", rules.PUBLIC_HEADER, "#include <stdint.h>\n")


class Calls(Tree):
    def test_each_banned_call_is_found(self):
        for name in rules.BANNED:
            self.assert_found("calls", "store/a.c", f"void f(void) {{\n    {name} (a);\n}}\n", 2)

    def test_a_name_that_only_contains_one_is_not(self):
        self.assert_clean("calls", "store/a.c", "int x = my_strcpy(a) + atoi_of(b) + c->gets(d);\n")

    def test_comments_strings_and_macros_are_no_code(self):
        self.assert_clean("calls", "store/a.c", '/* strcpy(\n strcat( */ // gets(\n'
                          'const char *t = "\\"strcpy(a)"; char c = \'"\'; char *u = "gets(";\n')

    def test_what_follows_a_quote_character_is_still_code(self):
        self.assert_found("calls", "store/a.c", "int c = '\"'; int y = atoi(z); int d = '\"';\n")

    def test_memset_on_a_secret_is_found_and_on_others_is_not(self):
        self.assert_found("calls", "crypto/a.c", "memset(&ring->dek_key, 0, 32);\n")
        self.assert_found("calls", "crypto/a.c", "memset(password, 0, 32);\n")
        self.assert_clean("calls", "crypto/a.c", "memset(&table, 0, sizeof table);\n")


class Sizes(Tree):
    def function(self, lines, head="static int f(int a)"):
        return head + " {\n" + "    a++;\n" * (lines - 2) + "}\n"

    def test_a_function_may_have_70_lines_and_not_71(self):
        self.assert_clean("sizes", "raft/a.c", self.function(70))
        self.assert_found("sizes", "raft/a.c", OPENING + self.function(71), 2)

    def test_a_head_of_several_lines_and_braces_in_strings_do_not_mislead_it(self):
        text = "int a[] = {1, 2};\nstruct s { int x; };\n" + \
            self.function(71, 'static int f(int a,\n    int b)\n    ') + 'char *t = "{";\n'
        self.assert_found("sizes", "raft/a.c", text)
        self.assert_clean("sizes", "raft/a.c", self.function(40) + 'char *t = "{";\n' +
                          self.function(40))

    def test_a_struct_or_table_is_no_function(self):
        self.assert_clean("sizes", "raft/a.c", self.function(90, "static const struct row t[] ="))

    def test_an_extern_c_block_does_not_hide_functions(self):
        text = "#ifdef __cplusplus\nextern \"C\" {\n#endif\n" + self.function(71)
        self.assert_found("sizes", "raft/a.c", "#define Y {\n" + self.function(71))
        self.assert_found("sizes", "api/a.h", text)

    def test_a_source_has_800_lines_a_header_200_the_public_header_as_many_as_it_needs(self):
        self.assert_clean("sizes", "raft/a.c", "int x;\n" * 800)
        self.assert_found("sizes", "raft/a.c", "int x;\n" * 801)
        self.assert_clean("sizes", "raft/a.h", "int x;\n" * 200)
        self.assert_found("sizes", "raft/a.h", "int x;\n" * 201)
        self.assert_clean("sizes", rules.PUBLIC_HEADER, "int x;\n" * 900)


class Openings(Tree):
    def test_a_file_without_an_opening_paragraph_is_found_in_each_language(self):
        for path in ("raft/a.c", "raft/a.h", "tests/a.py", "tests/a.sh", "tests/CMakeLists.txt"):
            self.assert_found("openings", path, "x\n", 1)

    def test_an_opening_that_says_nothing_is_found(self):
        self.assert_found("openings", "raft/a.c", "/* wal.c */\nint x;\n")

    def test_an_opening_paragraph_is_enough(self):
        words = "The idea of this file, in a paragraph that says something."
        self.assert_clean("openings", "raft/a.c", f"/* {words} */\n")
        self.assert_clean("openings", "tests/a.py", f'#!/usr/bin/python3\n"""{words}"""\n')
        self.assert_clean("openings", "tests/a.sh", f"#!/usr/bin/env bash\n# {words}\n")

    def test_a_script_without_an_ending_is_known_by_its_first_line(self):
        self.assert_found("openings", "tool", "#!/usr/bin/env bash\nls\n")
        self.assert_clean("openings", "LICENSE", "Apache\n")


class Texts(Tree):
    def test_100_columns_pass_and_101_do_not(self):
        self.assert_clean("texts", "raft/a.c", "x" * 100 + "\n")
        self.assert_found("texts", "raft/a.c", "\n" + "x" * 101 + "\n", 2)

    def test_tabs_and_spaces_at_line_ends_and_missing_newlines_are_found(self):
        for text in ("a\tb\n", "a \n", "a\r\n", "a", "a\n\n"):
            self.assert_found("texts", "raft/a.c", text)


class Sleeps(Tree):
    SLEEP = "sle" + "ep"  # apart: the rule looks at this file too
    C = "void f(void) {\n    usleep(10);\n}\n"

    def test_a_sleep_in_a_test_is_found_in_each_language(self):
        self.assert_found("sleeps", "tests/unit/test_a.c", self.C, 2)
        self.assert_found("sleeps", "tests/unit/test_a.c", "int x = nanosleep(&t, NULL);\n")
        loop = f"while true; do {self.SLEEP} 0.1; done\n"
        self.assert_found("sleeps", "tests/e2e/test_a.sh", loop)
        self.assert_found("sleeps", "tests/e2e/test_a.sh", self.SLEEP + ' "$t"\n')
        self.assert_found("sleeps", "tests/e2e/test_a.py", f"time.{self.SLEEP}(1)\n")

    def test_a_sleep_in_a_layer_is_found_too(self):
        self.assert_found("sleeps", "raft/a.c", self.C)

    def test_only_a_marked_line_in_the_shared_helpers_may_sleep(self):
        marked = self.C.replace(";\n", "; /* " + rules.WAIT_MARK + " polls its condition */\n", 1)
        self.assert_clean("sleeps", "tests/lib/wait.c", marked)
        self.assert_found("sleeps", "tests/lib/wait.c", self.C)
        self.assert_found("sleeps", "tests/unit/test_a.c", marked)

    def test_the_word_alone_is_no_sleep(self):
        self.assert_clean("sleeps", "tests/unit/test_a.c", f"/* {self.SLEEP}(1) */ int sleeper;")
        self.assert_clean("sleeps", "tests/e2e/test_a.sh", "echo asleep; sleeping=1\n")


class Interpreters(Tree):
    def test_another_python_than_debians_is_found(self):
        for first in ("#!/usr/bin/env python3", "#!/usr/local/bin/python3"):
            self.assert_found("interpreters", "tests/e2e/test_a.py", first + "\n", 1)
            self.assert_found("interpreters", "tests/a", first + "\n", 1)
        self.assert_clean("interpreters", "tests/a", "#!/usr/bin/python3\n")
        self.assert_clean("interpreters", "tests/lib/a.py", '"""A module."""\n')


class Trees(unittest.TestCase):
    def test_builds_and_the_repository_itself_are_not_looked_at(self):
        with tempfile.TemporaryDirectory() as root:
            for folder in ("build", "build-asan", ".git", "conclave-data"):
                os.makedirs(os.path.join(root, folder))
                with open(os.path.join(root, folder, "a.c"), "w", encoding="utf-8") as file:
                    file.write("\t")
            self.assertEqual(rules.check(root), [])


if __name__ == "__main__":
    unittest.main()
