#!/usr/bin/python3
"""kill -9 of the leader under load, again and again: no acknowledged write is lost, none is applied
twice, and the gap between acknowledged writes stays under a second.

Each writer is a thread with a connection of its own that puts keys that nobody else puts. Half of
them give each write a token and repeat it, through any member, until it is acknowledged; the others
never repeat and note what they were told: acknowledged, refused (certainly not applied), unknown.
CONCLAVE_KILLS is the number of kills (20)."""
import collections
import os
import secrets
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import Cluster, Lost, NOT_APPLIED, Refused, expect, main, pause_until, wait_until

KILLS = int(os.environ.get("CONCLAVE_KILLS", "20"))
WRITERS = 3  # of each kind
GAP_MAX_S = 1.0
CALM_S = 0.3  # of writing with all voters between two kills
RETRY_S = 0.005


class Writer(threading.Thread):
    """Puts keys until told to stop; goes to the next member when one fails."""

    def __init__(self, cluster, number, repeats, stop):
        super().__init__(daemon=True)
        self.places = [m.http(timeout=6) for m in cluster]
        self.at = number % len(self.places)
        self.number, self.repeats, self.stop = number, repeats, stop
        self.acknowledged, self.refused, self.unknown = {}, {}, {}
        self.times = []  # of acknowledgements
        self.errors = collections.Counter()

    def run(self):
        n = 0
        while not self.stop.is_set():
            key = b"w%d/%06d" % (self.number, n)
            self.write(key, b"value of " + key)
            n += 1

    def write(self, key, value):
        token = secrets.token_hex(16) if self.repeats else None
        while True:
            outcome = self.attempt(key, value, token)
            if outcome == "acknowledged" or not self.repeats:
                getattr(self, outcome)[key] = value
                return

    def attempt(self, key, value, token):
        try:
            self.places[self.at].put(key, value, token)
            self.times.append(time.monotonic())
            return "acknowledged"
        except Lost as error:
            outcome = "unknown" if error.sent else "refused"
            self.errors["connection lost" if error.sent else "no connection"] += 1
        except Refused as error:
            outcome = "refused" if error.name in NOT_APPLIED else "unknown"
            self.errors[error.name] += 1
        self.at = (self.at + 1) % len(self.places)
        pause_until(time.monotonic() + RETRY_S)
        return outcome


def wait_calm(writers, since):
    """Until writes have been acknowledged for a while, the first of them after `since`."""
    def first():
        return min((t for w in writers for t in w.times[-50:] if t > since), default=None)
    pause_until(wait_until(first, "a write to be acknowledged") + CALM_S)


def kill_leader(cluster, writers, kills):
    leader = cluster.leader()
    kills.append(time.monotonic())
    leader.kill()
    leader.start()
    cluster.wait_voters(len(cluster.managers))
    wait_calm(writers, time.monotonic())


def gaps(writers, kills, end):
    """(length, start) of the longest time without an acknowledgement from each kill to the next."""
    times = sorted(t for w in writers for t in w.times)
    found = []
    for start, stop in zip(kills, kills[1:] + [end]):
        before = max((t for t in times if t <= start), default=start)
        within = [before] + [t for t in times if start < t < stop] + [stop]
        found.append(max((b - a, a) for a, b in zip(within, within[1:])))
    return found


def report_gaps(cluster, found):
    """The figures, and what happened in the gaps that are too long."""
    lengths = [length for length, _ in found]
    print("gaps in ms: " + " ".join(f"{1000 * g:.0f}" for g in lengths))
    print(f"write gap around a kill of the leader: median {1000 * statistics.median(lengths):.0f} "
          f"ms, worst {1000 * max(lengths):.0f} ms")
    offset = time.time() - time.monotonic()
    for length, start in found:
        if length >= GAP_MAX_S:
            print(f"a gap of {1000 * length:.0f} ms:")
            print("\n".join(cluster.timeline(start + offset - 0.05, start + length + offset)))
    return max(lengths)


def check_member(member, writers):
    held = member.http(timeout=30).all()
    expected = {}
    for w in writers:
        for key, value in w.acknowledged.items():
            expect(key in held, f"{member.name} has lost {key.decode()}, which was acknowledged")
            expect(held[key] == (value, 1), f"{member.name} has {held[key]} for {key.decode()}")
        for key in w.refused:
            expect(key not in held, f"{member.name} has {key.decode()}, which was refused")
        expected.update(w.acknowledged)
        expected.update(w.unknown)
    for key, (value, version) in held.items():
        expect(key in expected, f"{member.name} has {key!r}, which nobody wrote")
        expect((value, version) == (expected[key], 1),
               f"{member.name}: {key.decode()} was applied {version} times")


def run(test):
    cluster = Cluster(test)
    stop = threading.Event()
    writers = [Writer(cluster, n, n < WRITERS, stop) for n in range(2 * WRITERS)]
    for w in writers:
        w.start()
    wait_until(lambda: all(w.times for w in writers), "the first writes")
    wait_calm(writers, time.monotonic())
    kills = []
    began = time.monotonic()
    for _ in range(KILLS):
        kill_leader(cluster, writers, kills)
    end = time.monotonic()
    stop.set()
    for w in writers:
        w.join(20)
    found = gaps(writers, kills, end)
    acknowledged = sum(len(w.acknowledged) for w in writers)
    errors = sum((w.errors for w in writers), collections.Counter())
    print(f"{KILLS} kills in {end - began:.1f} s. Writes: {acknowledged} acknowledged, "
          f"{sum(len(w.refused) for w in writers)} refused, "
          f"{sum(len(w.unknown) for w in writers)} unknown; {dict(errors)}")
    worst = report_gaps(cluster, found)
    with test.show("the gap between acknowledged writes stays under a second"):
        expect(worst < GAP_MAX_S, f"the worst gap was {1000 * worst:.0f} ms")
    with test.show("every writer ended"):
        expect(not any(w.is_alive() for w in writers), "a writer hangs")
    with test.show("the members' states are the same"):
        cluster.wait_same()
    for member in cluster:
        with test.show(f"nothing acknowledged is lost or applied twice on {member.name}"):
            check_member(member, writers)


main(run)
