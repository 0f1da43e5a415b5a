#!/usr/bin/python3
"""What an operator does to a running cluster: autolock switched on, its key rotated, and switched
off; data keys rotated under writes; a member that comes back at other addresses; a clean stop of
the leader under writes. Nothing acknowledged may be lost by any of it. (The locked node itself:
test_faults.py; backup and recovery: test_backup.py.) Arguments: the parts to run (lock, rotate,
moved, handover)."""
import os
import secrets
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import Cluster, Lost, Refused, expect, free_port, main, pause_until, wait_until

LOCKED = 77
GAP_MAX_S = 1.0
RETRY_S = 0.005
HANDOVERS = 3
ROTATIONS = 3
WRITES_BETWEEN = 100
MAGICS = {b"CONCSEGM", b"CONCSNAP", b"CONCBALT"}  # raft/envelope.h
GENERATION_AT, BLOCK = 12, 4096


def good(manager, *words, text=None):
    code, out, error = manager.cli(*words, text=text)
    expect(code == 0, f"{' '.join(words[:2])} on {manager.name}: exit code {code}: {error.strip()}")
    return out


class Writer(threading.Thread):
    """Puts keys of its own, each until it is acknowledged, through whichever member answers."""

    def __init__(self, members, prefix):
        super().__init__(daemon=True)
        self.places = [m.http(timeout=6) for m in members]
        self.prefix, self.at = prefix, 0
        self.acknowledged, self.times = {}, []
        self.stopping = threading.Event()
        self.start()

    def run(self):
        while not self.stopping.is_set():
            key = b"%s/%06d" % (self.prefix, len(self.acknowledged))
            if not self.write(key, b"value of " + key, secrets.token_hex(16)):
                return
            self.acknowledged[key] = (b"value of " + key, 1)
            self.times.append(time.monotonic())

    def write(self, key, value, token):
        while not self.stopping.is_set():
            try:
                self.places[self.at].put(key, value, token)
                return True
            except (Lost, Refused):
                self.at = (self.at + 1) % len(self.places)
                pause_until(time.monotonic() + RETRY_S)
        return False

    def more(self, count=WRITES_BETWEEN):
        """Until so many further writes were acknowledged."""
        target = len(self.times) + count
        wait_until(lambda: len(self.times) >= target, f"{count} further writes")

    def finish(self):
        self.stopping.set()
        self.join(20)
        expect(not self.is_alive(), "the writer hangs")

    def check(self, members):
        """Every member has each acknowledged pair, written once."""
        for member in members:
            held = member.http(timeout=30).all(prefix=self.prefix + b"/")
            for key, pair in self.acknowledged.items():
                expect(held.get(key) == pair, f"{member.name} has {held.get(key)} for {key}")

    def worst_gap(self, start):
        times = list(self.times)
        first = max((i for i, t in enumerate(times) if t < start), default=0)
        times = times[first:]
        return max(b - a for a, b in zip(times, times[1:]))


# --- autolock ------------------------------------------------------------------------------------

def restart_locked(manager):
    manager.stop()
    manager.start()
    wait_until(lambda: manager.status()["state"] == "locked", f"{manager.name} to be locked")


def show_lock(test):
    cluster = Cluster(test)
    a, b, c = cluster
    a.http().put(b"k", b"v")
    with test.show("lock on a running cluster: every member's restart needs the key"):
        first = good(b, "lock").strip()
        expect(first.startswith("SWMKEY-1-"), f"lock prints {first[:10]}")
        expect(good(c, "unlock-key").strip() == first, "unlock-key shows another key")
        wait_until(lambda: all(m.status()["sealed_by"] == "unlock key" for m in cluster),
                   "all members to be sealed by it")
        restart_locked(c)
        good(c, "unlock", text=first + "\n")
        cluster.wait_voters(3)
    with test.show("after unlock-key rotate only the new key unlocks"):
        second = good(a, "unlock-key", "rotate").strip()
        expect(second.startswith("SWMKEY-1-") and second != first, "no new key")
        wait_until(lambda: good(b, "unlock-key").strip() == second, "b to know the new key")
        code = wait_until(lambda: old_key_refused(b, first), "the old key to be refused")
        expect(code == LOCKED, f"the old key: exit code {code}")
        good(b, "unlock", text=second + "\n")
        cluster.wait_voters(3)
        expect(b.http().get(b"k") == b"v", "the value is not there")
    with test.show("after lock --off members restart without a key"):
        good(c, "lock", "--off")
        wait_until(lambda: all(m.status()["sealed_by"] == "nothing" for m in cluster),
                   "all members to be sealed by nothing")
        for member in cluster:
            member.stop()
            member.start()
            member.wait_running()
        cluster.wait_voters(3)
        code, _, error = a.cli("unlock-key")
        expect(code == 75 and "autolock is off" in error, f"unlock-key: {code}: {error}")
        expect(a.http().get(b"k") == b"v", "the value is not there")
    for member in cluster:
        member.kill()


def old_key_refused(manager, key):
    restart_locked(manager)
    code, _, _ = manager.cli("unlock", text=key + "\n")
    expect(manager.status()["state"] == "locked", "the old key unlocks")
    return code


# --- data keys -----------------------------------------------------------------------------------

def generations(directory):
    """{file: data keys that its envelopes name}, read from what lies in clear."""
    found = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            if name.endswith(".sock"):
                continue
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            for at in range(0, len(data) if name == "ballot" else 1, BLOCK):  # it has two slots
                if data[at:at + 8] in MAGICS:
                    number = struct.unpack_from("<I", data, at + GENERATION_AT)[0]
                    found.setdefault(name, set()).add(number)
    return found


def show_rotate(test):
    cluster = Cluster(test)
    writer = Writer(cluster, b"r")
    writer.more()
    with test.show("key rotate under writes: a new data key each time, on each member"):
        for number in range(2, 2 + ROTATIONS):
            for member in cluster:
                out = good(member, "key", "rotate")
                expect(out.split()[-1] == str(number), f"{member.name} says {out.strip()!r}")
                expect(member.status()["key_generation"] == number, f"status of {member.name}")
            writer.more()
    writer.finish()
    with test.show("every file is whole and of the last data key, and a restart has lost nothing"):
        for member in cluster:
            expect(member.stop() == 0, f"{member.name} ended with {member.process.returncode}")
            out = good(member, "check", "--data", member.data)
            expect("all files are whole" in out, out)
            named = generations(member.data)
            expect("ballot" in named and len(named) > 1, f"{member.name} has only {named}")
            expect(all(g == {1 + ROTATIONS} for g in named.values()),
                   f"{member.name} has files of an older data key: {named}")
        for member in cluster:
            member.start()
        cluster.wait_voters(3)
        for member in cluster:
            expect(member.status()["key_generation"] == 1 + ROTATIONS, "an older data key")
        writer.check(cluster)
        cluster.wait_same()
    for member in cluster:
        member.kill()


# --- other addresses -----------------------------------------------------------------------------

def show_moved(test):
    cluster = Cluster(test)
    before = {r["name"]: r["id"] for r in cluster.members()}
    writer = Writer(cluster.managers[:2], b"m")
    with test.show("members that come back at other addresses are the same members, and serve"):
        for member in (cluster[2], cluster.leader()):
            member.stop()
            member.client, member.peer = free_port(), free_port()
            member.start()
            member.wait_running()

            def moved(peer=member.peer_address, client=member.endpoint):
                rows = cluster.members()
                return (peer, client) in [(r["peer_address"], r["client_address"]) for r in rows]
            wait_until(moved, "the others to know the new address")
            cluster.wait_voters(3)
            writer.more(20)
        rows = {r["name"]: r["id"] for r in cluster.members()}
        expect(rows == before, f"the members were {before} and are {rows}")
    writer.finish()
    with test.show("and nothing is lost: a restart of all finds the new addresses"):
        for member in cluster:
            member.kill()
        for member in cluster:
            member.start(addresses=False)
        cluster.wait_voters(3)
        writer.check(cluster)
        cluster.wait_same()
    for member in cluster:
        member.kill()


# --- a clean stop --------------------------------------------------------------------------------

def show_handover(test):
    cluster = Cluster(test)
    writer = Writer(cluster, b"h")
    writer.more()
    gaps = []
    with test.show("SIGTERM of the leader under writes: a clean end, and a small gap"):
        for _ in range(HANDOVERS):
            leader, start = cluster.leader(), time.monotonic()
            expect(leader.stop() == 0, f"{leader.name} ended with {leader.process.returncode}")
            writer.more()
            gaps.append(writer.worst_gap(start))
            expect(cluster.leader() is not leader, "nobody else leads")
            leader.start()
            cluster.wait_voters(3)
        print("gaps in ms: " + " ".join(f"{1000 * g:.0f}" for g in gaps))
        expect(max(gaps) < GAP_MAX_S, f"the worst gap was {1000 * max(gaps):.0f} ms")
    writer.finish()
    with test.show("no write is lost or doubled by it"):
        writer.check(cluster)
        cluster.wait_same()
        print(f"{len(writer.acknowledged)} writes")


PARTS = {"lock": show_lock, "rotate": show_rotate, "moved": show_moved, "handover": show_handover}


def run(test):
    for part in sys.argv[1:] or PARTS:
        PARTS[part](test)


main(run)
