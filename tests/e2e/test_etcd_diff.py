#!/usr/bin/python3
"""The differential test: random operations, the same ones to Debian's etcd and to Conclave, every
answer, error and event compared field by field, and HashKV at checkpoints. Differences that are
meant are in tests/compare/meant.py. A seed makes a run; the first line prints it. With
`--against etcd` a second etcd stands where Conclave would, which shows that the test finds nothing
where nothing is. The first operations that differ are printed with what came before; `--shrink`
looks for the fewest that still do."""
import argparse
import os
import random
import secrets
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("lib", "compare"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
from cluster import Failure, expect, main
from etcd_servers import KINDS, EtcdServers
from judge import Difference, Op
from pair import Pair
from auth_plan import ROOT, AuthPlan
from plan import Plan
import scenes
import shrink

OPERATIONS = 20000
CHECK_EVERY = 1000
CONTEXT = 12          # operations shown before one that differs
AUTH_PARTS = 10       # of the operations, one such part is about users
DIFFERENCES_MAX = 25  # of different kinds, until a run gives up


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=44, help="0 draws one (44)")
    parser.add_argument("--ops", type=int, default=int(os.environ.get("CONCLAVE_DIFF_OPS",
                                                                      OPERATIONS)))
    parser.add_argument("--against", choices=sorted(KINDS), default="conclave")
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--without", action="append", default=[], metavar="KIND",
                        help="a kind of operation of compare/plan.py to leave out")
    parser.add_argument("--spoil", type=int, default=0, metavar="N",
                        help="after N operations one server gets a write that the other does not")
    found = parser.parse_args()
    if found.seed == 0:
        found.seed = secrets.randbelow(1 << 32)
    return found


def server(test, kind):
    return KINDS[kind](test, options=("--bcrypt-cost", "4") if kind != "conclave" else ())


class Run:
    """A plan carried out; `log` is every batch that was tried."""

    def __init__(self, test, options):
        self.test, self.options = test, options
        self.left, self.right = [server(test, kind) for kind in ("etcd", options.against)]
        self.pair = Pair(self.left.pb, [self.left.rpc(), self.right.rpc()],
                         "watch" not in options.without)
        self.random = random.Random(options.seed)
        self.log, self.kinds = [], {}
        self.ended = ""

    def go(self, plan, count):
        until, next_check = self.pair.done + count, self.pair.done + CHECK_EVERY
        while self.pair.done < until and not self.ended:
            if self.options.spoil and self.pair.done >= self.options.spoil:
                self.options.spoil = 0
                self.pair.spoil()
            batch = plan.batch()
            self.log.append(batch)
            self.attempt(batch)
            if self.pair.done >= next_check and self.pair.watching:
                next_check += CHECK_EVERY
                self.checkpoint()
                print(f"{self.pair.done} operations so far", flush=True)

    def checkpoint(self):
        """All watches are level, and so are the hashes."""
        for batch in ([Op("Settle", None)], [Op("HashKV", self.pair.pb.HashKVRequest())]):
            if not self.ended:
                self.log.append(batch)
                self.attempt(batch)

    def attempt(self, batch):
        try:
            self.pair.run(batch)
        except Difference as difference:
            self.differ(difference.signature, str(difference))
        except (Failure, OSError) as failure:
            text = str(failure)
            self.differ(("watch", text.split(":")[0]), f"{text}, at {batch[0]}")

    def differ(self, signature, text):
        """Notes a kind of difference once; the run goes on as long as the states are the same."""
        new = signature not in self.kinds
        self.kinds[signature] = self.kinds.get(signature, 0) + 1
        if new:
            print(f"difference {len(self.kinds)}, after {self.pair.done} operations: "
                  f"{text[:3000]}", flush=True)
            for batch in self.log[-CONTEXT - 1:-1]:
                print("    before: " + "; ".join(str(op)[:240] for op in batch))
        apart = self.pair.together()
        if apart:
            self.ended = f"the states are apart after {self.pair.done} operations: {apart[:500]}"
        elif len(self.kinds) >= DIFFERENCES_MAX:
            self.ended = f"{DIFFERENCES_MAX} kinds of differences: enough"


    def report(self, seconds):
        pair = self.pair
        print(f"{pair.done} operations in {seconds:.1f} s, {pair.revision} revisions, "
              f"{len(pair.history)} events, {pair.delivered} more through watches")
        print("operations: " + ", ".join(f"{m} {n}" for m, n in sorted(pair.counts.items())))
        print("errors that both gave:")
        for (code, text), count in sorted(pair.errors.items()):
            print(f"    {count:6} {code} {text}")
        if self.ended:
            print(self.ended)

    def verdict(self):
        """Raises Failure if there was a difference, and forgets it for the next part."""
        for side in (self.left, self.right):
            side.check()
        kinds, self.kinds = self.kinds, {}
        expect(not kinds, f"{len(kinds)} kinds of differences with seed {self.options.seed}; "
               f"{self.ended}")

    def together(self):
        """Whether there are two equal states to go on with."""
        expect(not self.ended, self.ended)

    def close(self):
        self.pair.close()
        self.left.close()
        self.right.close()


def show_keys(run):
    plan = Plan(run.random, run.pair, run.options.without)
    run.go(plan, run.options.ops)
    if plan.alarm_left and not run.ended:
        run.attempt([plan.alarm_op(2)])  # the rest of the test has no use for it
    run.checkpoint()
    if run.kinds and run.options.shrink:
        shrink.shrink(run.test, run.options, run.log)
    run.verdict()


def show_users(run):
    run.together()
    plan = AuthPlan(run.random, run.pair)
    run.pair.root = plan.login(ROOT).request
    watching, run.pair.watching = run.pair.watching, False  # by whom? See TokenWatch
    for op in plan.first():
        run.attempt([op])
    run.go(plan, run.options.ops // AUTH_PARTS)
    for op in plan.last():
        run.attempt([op])
    run.pair.root, run.pair.watching = None, watching
    run.ended = run.ended or run.pair.together()
    run.checkpoint()
    run.verdict()


def show_scene(run, scene):
    run.together()
    stage = scenes.Stage(run.pair)
    try:
        scene(stage)
    finally:
        run.ended = run.pair.together()
        if not run.ended:
            scenes.clear(stage)


def etcd_release():
    """Like "3.4": compare/meant.py and the plans are about this release's answers."""
    text = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout
    return ".".join(text.split()[2].split(".")[:2])


def run_all(test):
    options = arguments()
    if etcd_release() != "3.4":
        test.skip("the same operations on both",
                  f"etcd {etcd_release()} is here; the list of meant differences is of 3.4")
        return
    print(f"seed {options.seed}, {options.ops} operations, etcd against {options.against}",
          flush=True)
    run, start = Run(test, options), time.monotonic()
    for scene in scenes.SCENES if not options.without else ():
        with test.show(f"scene {scene.__name__}: the same on both"):
            show_scene(run, scene)
    if "auth" not in options.without:
        with test.show("users, roles and their permissions: the same answers and errors"):
            show_users(run)
    with test.show("random operations have the same answers, errors, events and hashes"):
        show_keys(run)
    run.report(time.monotonic() - start)
    for fact in scenes.FACTS if options.against == "conclave" else ():
        with test.show(f"what etcd 3.4 can't be asked: {fact.__name__}"):
            fact(run.pair.rpcs[1], run.pair.pb)
    run.close()


if __name__ == "__main__":
    main(run_all)
