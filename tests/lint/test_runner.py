#!/usr/bin/python3
"""The runner decides what counts as passed, so it is tested: a crash, a hang, a bad exit code after
good cases, and a program that says nothing must each be counted as what they are."""
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import tempfile
import time
import unittest

PATH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "run")
loader = importlib.machinery.SourceFileLoader("runner", PATH)
spec = importlib.util.spec_from_loader("runner", loader)
runner = importlib.util.module_from_spec(spec)
loader.exec_module(runner)

GOOD = """[==========] Running 2 test(s).
[ RUN      ] first
[       OK ] first
[ RUN      ] second
text that the case printed [       OK ] second
[==========] 2 test(s) run.
[  PASSED  ] 2 test(s).
"""
BAD = """[ RUN      ] first
[  ERROR   ] --- 1 != 2
[  FAILED  ] first
[ RUN      ] second
[  SKIPPED ] second
[  FAILED  ] 1 test(s), listed below:
[  FAILED  ] first
"""


class Reading(unittest.TestCase):
    def verdicts(self, text):
        return [(name, verdict) for name, verdict, _ in runner.read_cmocka(text)]

    def test_every_case_counts_once(self):
        self.assertEqual(self.verdicts(GOOD), [("first", "ok"), ("second", "ok")])
        self.assertEqual(self.verdicts(BAD), [("first", "failed"), ("second", "skipped")])

    def test_a_case_that_never_ended_failed(self):
        self.assertEqual(self.verdicts("[ RUN      ] first\nSegmentation"), [("first", "failed")])
        self.assertEqual(self.verdicts("[ RUN      ] a\n[ RUN      ] b\n[       OK ] b\n"),
                         [("a", "failed"), ("b", "ok")])

    def test_lines_of_end_to_end_scripts(self):
        text = "ok three managers\nnot ok a key: in a/wal: 3\nskip full disk: no loop\nok: x\n"
        self.assertEqual(runner.read_lines(text), [
            ("three managers", "ok", ""), ("a key", "failed", "in a/wal: 3"),
            ("full disk", "skipped", "no loop")])


class Running(unittest.TestCase):
    def setUp(self):
        self.place = tempfile.TemporaryDirectory()
        self.addCleanup(self.place.cleanup)
        runner.LOGS = self.place.name
        runner.TERM_GRACE = 0.2

    def counts(self, script, reader=None, limit=20):
        item = runner.Item("unit/x", ["bash", "-c", script], limit, reader)
        run = runner.Run()
        run.live = False
        with contextlib.redirect_stdout(io.StringIO()):
            runner.run_item(run, item)
        return tuple(run.counts.values()), run.failures

    def test_a_program_without_cases_is_one(self):
        self.assertEqual(self.counts("true")[0], (1, 0, 0))
        self.assertEqual(self.counts("exit 3"), ((0, 1, 0), ["unit/x: x: exit code 3"]))

    def test_a_bad_exit_after_good_cases_is_a_failure_of_its_own(self):
        script = "echo '[ RUN      ] a'; echo '[       OK ] a'; exit 1"
        self.assertEqual(self.counts(script, runner.read_cmocka)[0], (1, 1, 0))

    def test_a_failed_case_is_not_counted_again_for_the_exit_code(self):
        self.assertEqual(self.counts("echo 'not ok a: b'; exit 1", runner.read_lines),
                         ((0, 1, 0), ["unit/x: a: b"]))

    def test_a_failed_case_counts_even_if_the_program_exits_with_0(self):
        self.assertEqual(self.counts("echo 'not ok a: b'", runner.read_lines)[0], (0, 1, 0))

    def test_a_crash_is_named_by_its_signal(self):
        self.assertEqual(self.counts("kill -SEGV $$")[1], ["unit/x: x: killed by SIGSEGV"])

    def test_a_hang_is_a_failure_even_if_it_ignores_the_request_to_stop(self):
        began = time.monotonic()
        counts, failures = self.counts("trap '' TERM; read < <(tail -f /dev/null)", limit=1)
        self.assertEqual(counts, (0, 1, 0))
        self.assertIn("silent for 1 s", failures[0])
        self.assertLess(time.monotonic() - began, 10)

    def test_a_slow_program_that_goes_on_speaking_does_not_hang(self):
        script = "for i in 1 2 3 4 5; do echo $i; read -t 0.5 <> <(:); done; true"
        self.assertEqual(self.counts(script, limit=1)[0], (1, 0, 0))

    def test_a_program_that_goes_on_speaking_ends_when_the_time_is_over(self):
        self.addCleanup(setattr, runner, "TOTAL_LIMIT", runner.TOTAL_LIMIT)
        runner.TOTAL_LIMIT = 2
        failures = self.counts("while :; do echo x; read -t 0.1 <> <(:); done")[1]
        self.assertIn("no time left", failures[0])

    def test_what_a_program_leaves_behind_is_ended(self):
        note = os.path.join(self.place.name, "pid")
        self.counts(f"tail -f /dev/null >/dev/null & echo $! >{note}")
        with open(note, encoding="utf-8") as file:
            pid = int(file.read())
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                    if file.read().split(")")[1].split()[0] == "Z":
                        return
            except FileNotFoundError:
                return
            os.sched_yield()
        self.fail("still there")

    def test_it_finds_its_scratch_directory_and_it_is_gone_afterwards(self):
        note = os.path.join(self.place.name, "dir")
        self.assertEqual(self.counts(f'touch "$TMPDIR/x" && echo "$TMPDIR" >{note}')[0], (1, 0, 0))
        with open(note, encoding="utf-8") as file:
            self.assertFalse(os.path.exists(file.read().strip()))

    def test_no_program_is_begun_when_the_time_is_over(self):
        item = runner.Item("unit/x", ["true"])
        run = runner.Run()
        run.live = False
        run.started -= runner.TOTAL_LIMIT
        with contextlib.redirect_stdout(io.StringIO()):
            runner.run_item(run, item)
        self.assertEqual(run.failures, ["unit/x: x: no time left"])


class Choosing(unittest.TestCase):
    def test_a_name_chooses_and_brings_the_build_it_stands_on(self):
        names = "unit/test_wal asan/test_wal tsan/test_wal sim/first lint/calls e2e/test_a".split()
        items = [runner.Item(name, []) for name in names]
        builds = runner.build_items()

        def presets(names):
            chosen = runner.choose(builds + items, names)
            return [b.name for b in runner.needed_builds(builds, chosen)]
        self.assertEqual(presets(["unit/"]), ["build/release"])
        self.assertEqual(presets(["asan/test_wal"]), ["build/asan"])
        self.assertEqual(presets(["lint/calls"]), [])
        self.assertEqual(presets(["tsan"]), ["build/tsan"])
        self.assertEqual(presets([]), ["build/release", "build/clang", "build/asan"])
        self.assertNotIn("tsan/test_wal", [i.name for i in runner.choose(items, [])])


if __name__ == "__main__":
    unittest.main()
