#!/usr/bin/python3
"""A member that was away past the log catches up by a streamed snapshot while writes go on: in
bounded memory, resumed where it was when its connection is cut in the middle, and without the
leader's writes getting slow. The cutter stands between the leader and the member: the member
listens on 127.0.0.1 and announces 127.0.0.2, where the cutter listens on the same port.
CONCLAVE_CATCH_UP_MIB is the size of the state (150)."""
import contextlib
import multiprocessing
import os
import secrets
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import Cluster, Failure, Lost, Manager, Refused, expect, main, pause_until, wait_until

MIB = 1 << 20
STATE_MIB = int(os.environ.get("CONCLAVE_CATCH_UP_MIB", "150"))
VALUE = 256 * 1024
FILLERS = 8
CATCH_UP_S = 60 + STATE_MIB // 4
BEFORE_S = 3
RATE_S = 0.005       # between the beginnings of two measured writes
EXTRA_MAX_MIB = 256  # memory beyond the state: caches, queues, a log's worth of entries
SLOWER_MAX = 4       # p99 during over p99 before, for ...
SLOW_FROM_MS = 100   # ... a p99 that is slow at all
SENT_MAX = 1.3       # times the state: a second beginning after half of it would be 1.5 and more
OUTSIDE = "127.0.0.2"


class Cutter(threading.Thread):
    """Passes bytes on to a port of 127.0.0.1 and cuts all connections once, after `cut_after`."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.cut_after = port, float("inf")
        self.inward, self.cuts = 0, 0  # bytes to the member; how often it was cut
        self.pairs = []
        self.listener = socket.create_server((OUTSIDE, port))

    def run(self):
        while True:
            try:
                outer, _ = self.listener.accept()
            except OSError:
                return
            try:
                inner = socket.create_connection(("127.0.0.1", self.port), 5)
            except OSError:
                outer.close()
                continue
            inner.settimeout(None)
            self.pairs += [outer, inner]
            for source, target, inward in ((outer, inner, True), (inner, outer, False)):
                threading.Thread(target=self.pass_on, args=(source, target, inward),
                                 daemon=True).start()

    def pass_on(self, source, target, inward):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # it stands for the wire
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                target.sendall(data)
                if inward:
                    self.inward += len(data)
                    if self.inward > self.cut_after and self.cuts == 0:
                        self.cut()
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def arm(self, cut_after):
        self.inward, self.cuts, self.cut_after = 0, 0, cut_after

    def cut(self):
        self.cuts += 1
        for end in self.pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
        self.cut()


# --- writing -------------------------------------------------------------------------------------

def measure(port, stop, found):
    """In a process of its own: one write each RATE_S; gives (when it began, seconds) of each."""
    from cluster import Http  # the name is the same in the child
    http, times, n, at = Http(port), [], 0, time.monotonic()
    while not stop.is_set():
        pause_until(at)
        began = time.monotonic()
        with contextlib.suppress(Lost, Refused):
            http.put(b"measured/%06d" % (n % 1000), b"x" * 128, secrets.token_hex(16))
            times.append((began, time.monotonic() - began))
        n += 1
        at = max(at + RATE_S, time.monotonic() - 10 * RATE_S)
    found.send(times)


def p99_ms(times, start, stop):
    within = sorted(t for began, t in times if start <= began < stop)
    return 1000 * within[len(within) * 99 // 100] if within else float("nan")


def put_until_taken(places, key, value):
    """Repeats, through one member after the other, until it is acknowledged."""
    token, n = secrets.token_hex(16), 0

    def attempt():
        nonlocal n
        n += 1
        places[n % len(places)].put(key, value, token)
        return True
    wait_until(attempt, f"{key.decode()} to be taken")


def fill(cluster, mib, taken):
    """Writes that much in values that nothing can compress; the number of the next one."""
    count = mib * MIB // VALUE
    failures = []

    def work(first):
        places = [m.http(timeout=30) for m in cluster if m.running()]
        try:
            for n in range(taken + first, taken + count, FILLERS):
                put_until_taken(places, b"fill/%06d" % n, secrets.token_bytes(VALUE))
        except Failure as failure:
            failures.append(failure)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(FILLERS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    expect(not failures, f"the state can't grow: {failures[:1]}")
    return taken + count


def grow(cluster, behind):
    """Nine tenths of the state are in a snapshot, which a new data key calls for, the rest is in
    the log behind it."""
    most = STATE_MIB * 9 // 10
    taken = fill(cluster, most, 0)
    for manager in cluster:
        if manager.running():
            code, _, why = manager.cli("key", "rotate", seconds=CATCH_UP_S)
            expect(code == 0, f"key rotate: {why}")
    fill(cluster, STATE_MIB - most, taken)
    status = cluster.leader().status()
    expect(status["log_first"] > behind + 1, "the log still reaches back to the member's end")
    return status


def forget_peak(manager):
    with contextlib.suppress(OSError), open(f"/proc/{manager.process.pid}/clear_refs", "w") as file:
        file.write("5")


# --- the test ------------------------------------------------------------------------------------

def start_measuring(port):
    context = multiprocessing.get_context("fork")
    stop, (mine, its) = context.Event(), context.Pipe()
    process = context.Process(target=measure, args=(port, stop, its), daemon=True)
    process.start()

    def finish():
        stop.set()
        times = mine.recv()
        process.join()
        return times
    return finish


def catch_up(leader, away):
    """Starts the member; when it had the state that the leader has now."""
    goal = leader.status()["commit"]
    away.start("--advertise", OUTSIDE)

    def arrived():
        status = away.status()
        return status if status.get("applied", 0) >= goal and not status["receiving_snapshot"] \
            else None
    wait_until(arrived, "the member to catch up", CATCH_UP_S)
    return time.monotonic()


def run(test):
    cluster = Cluster(test, "ab")
    away = Manager(test, "away")
    away.inside = ("nice", "-n", "19")  # a machine of its own would not take the leader's time
    cutter = Cutter(away.peer)
    test.undo.append(cutter.close)
    cutter.start()
    cluster.add(away, "--advertise", OUTSIDE)
    cluster.wait_voters(3)
    behind = away.status()["log_last"]
    away.stop()
    began = time.monotonic()
    state = grow(cluster, behind)
    leader = cluster.leader()
    print(f"state: {state['bytes'] / MIB:.0f} MiB in {state['keys']} keys, log from entry "
          f"{state['log_first']}, written in {time.monotonic() - began:.1f} s")
    wait_until(lambda: leader.status()["log_last"] == leader.status()["applied"], "quiet")
    forget_peak(leader)
    finish = start_measuring(leader.client)
    start = time.monotonic() + BEFORE_S
    pause_until(start)
    cutter.arm(state["bytes"] // 2)
    lines, stop = [], time.monotonic()
    with test.show("a member that was away past the log catches up by a snapshot"):
        stop = catch_up(leader, away)
        lines = [e["text"] for e in away.events() if "receiving a snapshot" in e["text"]]
        print(f"caught up in {stop - start:.1f} s, {cutter.inward / MIB:.0f} MiB, "
              f"{cutter.cuts} cut: {lines}")
        expect(lines, "no snapshot was received")
    with test.show("the transfer goes on where it was when its connection is cut"):
        expect(cutter.cuts == 1, "it was never cut")
        expect(len(lines) == 1, f"it began {len(lines)} times")
        expect(cutter.inward < SENT_MAX * state["bytes"],
               f"{cutter.inward / MIB:.0f} MiB were sent for {state['bytes'] / MIB:.0f} MiB")
    times = finish()
    with test.show("the leader's writes stay fast while it sends a snapshot"):
        before, during = p99_ms(times, 0, start), p99_ms(times, start, stop)
        print(f"write latency on the leader, p99: {before:.1f} ms before, {during:.1f} ms during "
              f"({len(times)} writes); the stream: "
              f"{cutter.inward / 1e6 / (stop - start):.0f} MB/s")
        expect(during < max(SLOWER_MAX * before, SLOW_FROM_MS), f"p99 rose to {during:.0f} ms")
    with test.show("memory stays bounded on both sides"):
        extra = {m.name: m.peak_kib() / 1024 - state["bytes"] / MIB for m in (leader, away)}
        print(f"peak memory beyond the state of {state['bytes'] / MIB:.0f} MiB: leader "
              f"{extra[leader.name]:.0f} MiB, member {extra[away.name]:.0f} MiB")
        expect(max(extra.values()) < EXTRA_MAX_MIB, f"more than {EXTRA_MAX_MIB} MiB")
    with test.show("all members have the same state"):
        cluster.wait_voters(3)
        cluster.wait_same(60)


main(run)
