#!/usr/bin/python3
"""The files of a stopped manager, changed behind its back: bytes flipped where it matters (headers,
first and last records, middles, tails), files cut, swapped, doubled, taken away, or put back from
an earlier day. `conclave serve` must refuse with an error that names the file, or serve every key
as it was; never wrong data. tests/unit/test_flip.c does every 64th byte of small files; here are
the real binary and files of real size. What a trial may have changed is put back after it."""
import os
import secrets
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import Failure, Lost, Manager, Refused, expect, main, wait_until

KEYS = 300
SMALL = 1 << 20  # files below this are kept in memory and written back whole
BLOCK = 4096
REFUSALS = (76, 77)  # exit codes: damaged; not opened by the key
VERDICTS = ("refused", "served")


class Stopped:
    """A stopped manager's directory as it was, and the way back to it."""

    def __init__(self, test, manager):
        self.test, self.manager, self.root = test, manager, manager.data
        for name in self.names():
            if name.endswith((".sock", "/spare")):
                os.unlink(self.path(name))
        self.sizes = {name: os.path.getsize(self.path(name)) for name in self.names()}
        self.aside = os.path.join(test.work, "aside")
        shutil.copytree(self.root, self.aside)

    def path(self, name):
        return os.path.join(self.root, name)

    def names(self):
        return sorted(os.path.relpath(os.path.join(folder, name), self.root)
                      for folder, _, names in os.walk(self.root) for name in names)

    def put_back(self, changed=()):
        """Small files and those that were changed are copied anew; what was added goes."""
        for name in self.names():
            if name not in self.sizes:
                os.unlink(self.path(name))
        for name, size in self.sizes.items():
            path = self.path(name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if size < SMALL or name in changed or not os.path.exists(path):
                shutil.copyfile(os.path.join(self.aside, name), path)

    def flip(self, name, offset):
        with open(self.path(name), "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ (1 << offset % 8)]))


def last_used(path):
    """Where the last block begins that is not all zeros."""
    with open(path, "rb") as file:
        data = file.read()
    return max(0, (len(data.rstrip(b"\0")) - 1) // BLOCK * BLOCK)


def offsets(stopped, name):
    """About ten places of a file: header, first and last record, between them, the tail."""
    size, end = stopped.sizes[name], last_used(stopped.path(name))
    wanted = [0, 9, 20, 45, 100, BLOCK, BLOCK + 40, BLOCK + 200, end // 2, end, end + 48, end + 70,
              end + BLOCK, (end + size) // 2, size - 1]
    return sorted({at for at in wanted if 0 <= at < size})


# --- one trial -----------------------------------------------------------------------------------

def outcome(stopped, expected):
    """("refused", the text) or ("served", ""); Failure for anything else."""
    manager = stopped.manager
    before = len(manager.output())
    manager.start()

    def verdict():
        if not manager.running():
            return "refused"
        state = manager.status()
        expect(state["state"] != "empty", "it takes itself for empty")
        return "served" if state["state"] == "running" and state.get("leader") else None
    try:
        how = wait_until(verdict, "the manager to serve or to refuse", 10)
        if how == "served":
            held = manager.http().all()
            if {k: v for k, (v, _) in held.items()} != expected:
                if manager.running():
                    raise Failure("WRONG DATA is served")
                how = "refused"
    except (Lost, Refused):
        expect(not manager.running(), "it neither serves nor ends")
        how = "refused"
    finally:
        manager.kill()
    text = (manager.output()[before:].strip().splitlines() or [""])[-1]
    if how == "refused":
        code = manager.process.returncode
        expect(code in REFUSALS, f"exit code {code}: {text}")
    return how, text if how == "refused" else ""


def trial(stopped, expected, what, change, names, changed, tally):
    """Changes, asks, puts back. A refusal must name one of the files."""
    change()
    try:
        how, text = outcome(stopped, expected)
        expect(how == "served" or any(n in text for n in names),
               f"refused without naming {' or '.join(names)}: {text}")
        tally[how] += 1
    except Failure as failure:
        raise Failure(f"{what}: {failure}") from failure
    finally:
        stopped.manager.kill()
        stopped.put_back(changed)


def new_tally():
    return dict.fromkeys(VERDICTS, 0)


# --- making and damaging -------------------------------------------------------------------------

def live(manager, numbers, values):
    with_http = manager.http()
    for n in numbers:
        key, value = b"key/%04d" % (n % KEYS), secrets.token_bytes(20 + n * 37 % 2000)
        with_http.put(key, value)
        values[key] = value
    with_http.close()


def make(test):
    """A manager with three lives: two rotations (and so snapshots) and writes after each."""
    manager, values, days = Manager(test, "flipped"), {}, []
    for life in range(3):
        manager.start(*(["--init"] if life == 0 else []))
        manager.wait_running()
        live(manager, range(life * 150, life * 150 + 120), values)
        if life < 2:
            code, _, why = manager.cli("key", "rotate")
            expect(code == 0, f"key rotate: {why}")
        live(manager, range(life * 150 + 120, life * 150 + 150), values)
        if life == 2:  # what an older copy of the last segment is
            days.append(os.path.join(test.work, "running"))
            shutil.copytree(manager.data, days[-1], ignore=shutil.ignore_patterns("*.sock"))
            live(manager, range(450, 460), values)
        expect(manager.stop() == 0, "the manager does not stop in order")
        if life < 2:
            days.append(os.path.join(test.work, f"day{life}"))
            shutil.copytree(manager.data, days[-1], ignore=shutil.ignore_patterns("*.sock"))
    return Stopped(test, manager), values, days


def show_flips(test, stopped, values):
    for name in stopped.sizes:
        if name == "LOCK":
            continue
        with test.show(f"flipped bytes of {name} are refused by name, or harmless"):
            tally = new_tally()
            for at in offsets(stopped, name):
                trial(stopped, values, f"byte {at}", lambda at=at: stopped.flip(name, at),
                      [os.path.basename(name)], [name], tally)
            print(f"    {name}: {tally}")


def cut(stopped, name, size):
    os.truncate(stopped.path(name), size)


def show_cuts(test, stopped, values):
    with test.show("files that are cut are refused by name, or harmless"):
        tally = new_tally()
        for name, size in stopped.sizes.items():
            for to in {0, size // 2, max(0, size - 1)} - {size}:
                trial(stopped, values, f"{name} cut to {to} bytes",
                      lambda n=name, t=to: cut(stopped, n, t), [os.path.basename(name)], [name],
                      tally)
        print(f"    {tally}")


def swap(stopped, a, b):
    a, b = stopped.path(a), stopped.path(b)
    os.rename(a, a + ".x")
    os.rename(b, a)
    os.rename(a + ".x", b)


def show_places(test, stopped, values):
    segments = [n for n in stopped.sizes if n.endswith(".seg")]
    expect(len(segments) >= 2, f"too few segments: {segments}")
    snapshots = [n for n in stopped.sizes if n.endswith(".snap")]
    expect(snapshots, "there is no snapshot")
    with test.show("segments swapped, doubled, in another's place are refused by name"):
        tally = new_tally()
        a, b = segments[-2:]
        further = f"log/{int(b[4:20], 16) + 1:016x}.seg"
        named = [os.path.basename(n) for n in (a, b, further)]
        for what, change in (
                ("swapped", lambda: swap(stopped, a, b)),
                ("the last one over the one before",
                 lambda: shutil.copyfile(stopped.path(b), stopped.path(a))),
                ("the one before over the last one",
                 lambda: shutil.copyfile(stopped.path(a), stopped.path(b))),
                ("the last one once more, as the next one",
                 lambda: shutil.copyfile(stopped.path(b), stopped.path(further)))):
            trial(stopped, values, what, change, named, [a, b], tally)
        print(f"    {tally}")
        expect(tally["served"] == 0, "one of them was not found out")
    with test.show("missing files are refused by name"):
        tally = new_tally()
        for name in stopped.sizes:
            if name == "LOCK":
                continue
            named = [os.path.basename(name)]
            if os.path.dirname(name):
                named.append(os.path.dirname(name))
            trial(stopped, values, f"{name} missing", lambda n=name: os.unlink(stopped.path(n)),
                  named, [name], tally)
        print(f"    {tally}")
        expect(tally["served"] == 0, "one of them was not missed")


def show_older(test, stopped, values, days):
    with test.show("older copies of files are refused by name, or harmless"):
        tally = new_tally()
        for day in days:
            for folder, _, names in os.walk(day):
                for base in names:
                    copy = os.path.join(folder, base)
                    name = os.path.relpath(copy, day)
                    if name.endswith("spare"):
                        continue
                    trial(stopped, values, f"{name} of {os.path.basename(day)}",
                          lambda c=copy, n=name: shutil.copyfile(c, stopped.path(n)),
                          ["ballot", "keyring", "kek", "log", "snapshots"], [name], tally)
        print(f"    {tally}")


def run(test):
    stopped, values, days = make(test)
    print(", ".join(f"{name} {size}" for name, size in stopped.sizes.items()))
    with test.show("the untouched directory is served, and put back after a trial"):
        for _ in range(2):
            trial(stopped, values, "untouched", lambda: None, [], [], tally := new_tally())
            expect(tally["served"] == 1, "it is refused")
    with test.show("`conclave check` says the same without serving"):
        code, text, why = stopped.manager.cli("check", "--data", stopped.root)
        expect(code == 0 and "whole" in text, f"{code}: {text}{why}")
        stopped.put_back()
        name = [n for n in stopped.sizes if n.endswith(".seg")][0]
        stopped.flip(name, BLOCK + 100)
        code, text, why = stopped.manager.cli("check", "--data", stopped.root)
        expect(code == REFUSALS[0] and os.path.basename(name) in why, f"{code}: {text}{why}")
        stopped.put_back([name])
    show_flips(test, stopped, values)
    show_cuts(test, stopped, values)
    show_places(test, stopped, values)
    show_older(test, stopped, values, days)


main(run)
