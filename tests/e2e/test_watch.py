#!/usr/bin/python3
"""Watches on real members, over gRPC, where etcd's have failed its users: notices of progress that
overtake events (etcd issue 15220), a watch that goes back in time (15271), events lost on a stream
that is read slowly (17529), deletions lost to a compaction (18089, 19179). And: compactions race
with watches, a member is killed, or restored from a snapshot, and watched on, a client reads
nothing, permissions are taken away. The log of all writes is the measure: each watch must have got
exactly its part of it. Arguments: the functions to run."""
import contextlib
import os
import queue
import random
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from cluster import Failure, expect, main, wait_until
from etcd_servers import ConclaveServers

PREFIX, PREFIX_END = b"w/", b"w0"
SECONDS = 20  # for anything that must come
HEARTBEAT_MS = 30  # as in crypto/limits.h


class Watch:
    """One watch on a stream of its own, or (stream given) on that; events in order of arrival."""

    def __init__(self, servers, which=0, stream=None, token=None, **create):
        self.pb = servers.pb
        self.rpc = None if stream else servers.rpc(which)
        self.stream = stream or self.rpc.stream("Watch", token)
        self.events, self.progress = [], []
        self.created = self.canceled = None
        create.setdefault("key", PREFIX)
        create.setdefault("range_end", PREFIX_END)
        self.start = create.get("start_revision", 0)
        self.send(create_request=self.pb.WatchCreateRequest(**create))

    def send(self, **request):
        self.stream.send(self.pb.WatchRequest(**request))

    def ask_progress(self):
        self.send(progress_request=self.pb.WatchProgressRequest())

    def note(self, answer):
        if answer is None:
            raise Failure(f"the stream ended: {self.stream.error}")
        if answer.created:
            self.created = answer
        if answer.canceled:
            self.canceled = answer
        if not (answer.created or answer.canceled or answer.events):
            self.progress.append((answer.header.revision, len(self.events)))
        for event in answer.events:
            self.check_order(event)
            self.events.append(event)

    def check_order(self, event):
        revision = event.kv.mod_revision
        expect(revision >= self.start, f"an event of {revision} came to a watch from {self.start}")
        if self.events:
            last = self.events[-1].kv.mod_revision
            expect(revision >= last, f"an event of {revision} after one of {last}")
        for told, _ in self.progress:
            expect(revision > told, f"an event of {revision} after progress to {told}")

    def take(self, until, what):
        """Reads until until(self) is true."""
        deadline = time.monotonic() + SECONDS
        while not until(self):
            try:
                self.note(self.stream.take(max(0.01, deadline - time.monotonic())))
            except queue.Empty as error:
                raise Failure(f"{what} did not come; {len(self.events)} events did") from error
        return self

    def take_created(self):
        return self.take(lambda w: w.created, "the answer to create")

    def take_until(self, revision):
        """All events up to that revision, which is one of them."""
        return self.take(lambda w: w.events and w.events[-1].kv.mod_revision >= revision,
                         f"the event of revision {revision}")

    def quiet(self, seconds=0.3):
        """Nothing more comes."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.note(self.stream.take(seconds))
        return self

    def facts(self):
        return [(e.type, e.kv.key, e.kv.value, e.kv.mod_revision) for e in self.events]

    def close(self):
        self.stream.close()
        if self.rpc:
            self.rpc.close()


class Writer:
    """Random writes by one client; `log` is what a watch of all must get."""

    def __init__(self, servers, which=0, seed=1):
        self.pb, self.rpc, self.random = servers.pb, servers.rpc(which), random.Random(seed)
        self.log, self.there, self.revision = [], set(), 0

    def put(self, key, value):
        answer = self.rpc.must("Put", self.pb.PutRequest(key=key, value=value))
        self.revision = answer.header.revision
        self.log.append((0, key, value, self.revision))
        self.there.add(key)

    def delete(self, key):
        answer = self.rpc.must("DeleteRange", self.pb.DeleteRangeRequest(key=key))
        if answer.deleted:
            self.revision = answer.header.revision
            self.log.append((1, key, b"", self.revision))
            self.there.discard(key)

    def write(self, size=20):
        key = PREFIX + b"%02d" % self.random.randrange(40)
        if key in self.there and self.random.random() < 0.3:
            self.delete(key)
        else:
            self.put(key, self.random.randbytes(size))

    def writes(self, count, size=20):
        for _ in range(count):
            self.write(size)

    def compact(self, revision):
        self.rpc.must("Compact", self.pb.CompactionRequest(revision=revision, physical=True))

    def since(self, revision):
        return [e for e in self.log if e[3] >= revision]


def same(watch, log, what):
    got = watch.facts()
    if got == log:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, log)) if a != b), min(len(got), len(log)))
    raise Failure(f"{what}: {len(got)} events instead of {len(log)}, apart at {at}: "
                  f"{got[at:at + 2]} instead of {log[at:at + 2]}")


# --- progress ------------------------------------------------------------------------------------

def progress_never_overtakes_events(servers):
    """15220: whatever progress says was given had been given."""
    writer = Writer(servers)
    watches = [Watch(servers) for _ in range(3)] + [Watch(servers, start_revision=1)]
    for watch in watches:
        watch.take_created()
    for _ in range(150):
        writer.writes(2)
        for watch in watches:
            watch.ask_progress()
    for watch in watches:
        watch.take_until(writer.revision)
        watch.take(lambda w: w.progress and w.progress[-1][0] == writer.revision, "progress")
        same(watch, writer.log, "a watch that was asked for its progress")
        for told, before in watch.progress:
            given = len([e for e in writer.log if e[3] <= told])
            expect(before == given, f"progress to {told} after {before} events, not {given}")
        expect(len(watch.progress) > 1, "progress was told once only")
        watch.close()


def idle_watches_are_told_of_progress_by_themselves(test):
    """Those that asked for it, and not while events come."""
    servers = ConclaveServers(test, options=("--watch-progress-interval", "1000"))
    writer = Writer(servers)
    told = Watch(servers, key=b"other", range_end=b"", progress_notify=True).take_created()
    untold = Watch(servers, key=b"other", range_end=b"").take_created()
    busy = Watch(servers, progress_notify=True).take_created()
    for count in (1, 2, 3):
        while len(told.progress) < count:
            writer.write()
            told.quiet(0.05)
        expect(told.progress[-1][0] <= writer.revision, "progress to what was not yet")
    busy.take_until(writer.revision)
    untold.quiet()
    expect(not untold.progress, "progress to a watch that did not ask for it")
    expect(not busy.progress, "progress to a watch that gets events")
    for watch in (told, untold, busy):
        watch.close()
    servers.close()


# --- going back in time --------------------------------------------------------------------------

def a_watch_of_the_future_hears_nothing_of_the_past(servers):
    """15271: neither events nor progress from before its start."""
    writer = Writer(servers)
    writer.writes(10)
    start = writer.revision + 20
    watch = Watch(servers, start_revision=start, progress_notify=True).take_created()
    for _ in range(40):
        watch.ask_progress()
        writer.write()
    watch.take_until(writer.revision).quiet()
    same(watch, writer.since(start), "a watch of the future")
    for told, _ in watch.progress:
        expect(told >= start - 1, f"progress to {told} of a watch from {start}")
    watch.close()


def a_follower_that_was_away_gives_each_event_once(servers):
    """15271: its watches go on where they were when it comes back to the cluster."""
    follower = next(i for i in servers.running() if i != servers.leader())
    writer = Writer(servers, servers.leader())
    watch = Watch(servers, follower).take_created()
    writer.writes(50)
    watch.take_until(writer.revision)
    manager = servers.cluster[follower]
    for _ in range(3):
        manager.process.send_signal(signal.SIGSTOP)
        writer.writes(200, size=2000)
        writer.compact(writer.revision - 150)
        manager.process.send_signal(signal.SIGCONT)
        watch.take_until(writer.revision)
    same(watch, writer.log, "a watch on a member that was stopped")
    watch.close()


def nobody_waits_for_a_heartbeat(servers):
    """A lone write through any member is answered, and its event seen at any other, well within
    the time between two heartbeats: a commit is told without one."""
    writes, events = [], []
    watches = [Watch(servers, i).take_created() for i in servers.running()]
    for which in servers.running():
        writer = Writer(servers, which)
        for _ in range(21):
            began = time.monotonic()
            writer.put(PREFIX + b"alone", b"")
            writes.append(time.monotonic() - began)
            for watch in watches:
                watch.take_until(writer.revision)
            events.append(time.monotonic() - began)
        slowest = [sorted(times[-21:])[10] * 1000 for times in (writes, events)]
        expect(max(slowest) < HEARTBEAT_MS / 2, f"median of writes through member {which} "
               f"{slowest[0]:.1f} ms, of their last event {slowest[1]:.1f} ms")
    for watch in watches:
        watch.close()


def a_follower_restored_from_a_snapshot_gives_each_event_once(servers):
    """15271: the state under its watches is replaced by another one."""
    leader = servers.leader()
    follower = next(i for i in servers.running() if i != leader)
    writer = Writer(servers, leader)
    watches = [Watch(servers, follower).take_created() for _ in range(5)]
    writer.writes(50)
    away, manager = servers.cluster[follower].status(), servers.cluster[follower]
    manager.process.send_signal(signal.SIGSTOP)

    def beyond():
        writer.writes(8, size=1 << 20)
        return servers.cluster[leader].status()["log_first"] > away["log_last"] + 1
    wait_until(beyond, "the leader's log to begin after what the follower has")
    manager.process.send_signal(signal.SIGCONT)
    late = Watch(servers, follower, start_revision=2)
    for watch in watches + [late]:
        watch.take_until(writer.revision)
        same(watch, writer.log, "a watch on a member that was restored from a snapshot")
        watch.close()
    expect(manager.status()["snapshot"] > away["log_last"], "it was not restored from a snapshot")


# --- compaction ----------------------------------------------------------------------------------

def deletions_at_the_compacted_revision_are_given(servers):
    """18089, 19179: a watch from the very revision gets what happened in it, also after a restart
    and after compacting twice."""
    pb = servers.pb
    writer = Writer(servers)
    for turn in range(10):
        names = [PREFIX + b"%d-%d" % (turn, i) for i in range(3)]
        for name in names:
            writer.put(name, b"x")
        answer = writer.rpc.must("DeleteRange", pb.DeleteRangeRequest(key=PREFIX,
                                                                      range_end=PREFIX_END))
        revision = answer.header.revision
        expect(answer.deleted == 3, f"{answer.deleted} keys were deleted")
        writer.compact(revision)
        if turn == 9:
            writer.rpc.close()
            servers.kill(0)
            servers.start(0)
            servers.wait_ready()
        watch = Watch(servers, start_revision=revision, prev_kv=True).take_until(revision)
        expect(watch.facts() == [(1, name, b"", revision) for name in names],
               f"a watch from the compacted revision: {watch.facts()}")
        expect(not any(e.HasField("prev_kv") for e in watch.events), "prev_kv of what is compacted")
        watch.close()


def a_compacted_start_is_told(servers):
    writer = Writer(servers)
    writer.writes(20)
    writer.compact(writer.revision - 2)
    watch = Watch(servers, start_revision=3).take(lambda w: w.canceled, "the end of the watch")
    expect(watch.created is not None and not watch.created.canceled, "it was created first")
    expect(watch.canceled.compact_revision == writer.revision - 2 and
           watch.canceled.cancel_reason == "", f"cancelled so: {watch.canceled}")
    watch.close()


def compactions_race_with_watches(servers):
    """17529: a watch gets all of its events, or is told that it can't; nothing is skipped."""
    writer = Writer(servers)
    steady = Watch(servers).take_created()
    late, told = [], 0
    for turn in range(60):
        writer.writes(10)
        if turn % 3 == 0:
            writer.compact(max(writer.revision - 25, 1) if turn % 2 else writer.revision)
        late.append(Watch(servers, start_revision=max(1, writer.revision - turn % 40)))
    end = writer.revision
    steady.take_until(end)
    same(steady, writer.log, "a watch that was there all the time")
    for watch in late:
        watch.take(lambda w: w.canceled or (w.events and w.events[-1].kv.mod_revision == end),
                   "all events, or the end")
        if watch.canceled:
            expect(watch.canceled.compact_revision > watch.start, "it could have gone on")
            told += 1
        else:
            same(watch, writer.since(watch.start), f"a watch from {watch.start}")
        watch.close()
    expect(0 < told < len(late), f"{told} of {len(late)} were told: the race shows nothing")


# --- slow clients --------------------------------------------------------------------------------

def a_slow_client_misses_nothing_and_costs_the_others_nothing(servers):
    """17529: many watches on one stream that is not read for long."""
    writer = Writer(servers)
    stuck = StuckClient(servers, 100)
    quick = Watch(servers).take_created()
    memory = servers.cluster[0].peak_kib()
    writer.writes(400, size=20000)  # 100 watches x 400 events x 20 kB that nobody reads
    quick.take_until(writer.revision)
    same(quick, writer.log, "a watch beside one that is stuck")
    grown = servers.cluster[0].peak_kib() - memory
    expect(grown < 64 * 1024, f"the server grew by {grown} KiB")
    stuck.read_all(writer.revision)
    for watch in range(100):
        expect(stuck.facts[watch] == [e[3] for e in writer.log], f"watch {watch} missed events")
    quick.close()
    stuck.close()


class StuckClient:
    """Watches on one stream whose answers gRPC does not take until read_all."""

    def __init__(self, servers, count):
        self.pb, self.rpc = servers.pb, servers.rpc()
        make = self.rpc.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=self.pb.WatchRequest.SerializeToString,
            response_deserializer=self.pb.WatchResponse.FromString)
        self.requests = queue.SimpleQueue()
        self.inner = make(iter(self.requests.get, None))
        self.facts = {i: [] for i in range(count)}
        for i in range(count):
            create = self.pb.WatchCreateRequest(key=PREFIX, range_end=PREFIX_END,
                                                watch_id=i + 1000)
            self.requests.put(self.pb.WatchRequest(create_request=create))
        for _ in range(count):
            expect(next(self.inner).created, "a watch was not created")

    def read_all(self, revision):
        waiting = len(self.facts)
        while waiting:
            answer = next(self.inner)
            facts = self.facts[answer.watch_id - 1000]
            facts += [e.kv.mod_revision for e in answer.events]
            waiting -= bool(facts) and facts[-1] == revision

    def close(self):
        self.requests.put(None)
        self.inner.cancel()
        self.rpc.close()


# --- members that end ----------------------------------------------------------------------------

def a_watch_goes_on_at_another_member_when_one_is_killed(servers):
    leader = servers.leader()
    others = [i for i in range(3) if i != leader]
    writer = Writer(servers, others[0])
    watch = Watch(servers, leader).take_created()
    writer.writes(100)
    watch.take_until(writer.revision)
    servers.kill(leader)
    with contextlib.suppress(Failure):
        watch.quiet(5)
        raise AssertionError("the stream of a member that was killed did not end")
    wait_until(lambda: servers.ask(others[1], "Range", servers.pb.RangeRequest(key=b"k")),
               "another leader")
    writer.writes(100)
    again = Watch(servers, others[1], start_revision=watch.events[-1].kv.mod_revision + 1)
    again.take_until(writer.revision)
    expect(watch.facts() + again.facts() == writer.log, "the two watches together miss something")
    servers.start(leader)
    servers.wait_ready()
    back = Watch(servers, leader, start_revision=1).take_until(writer.revision)
    same(back, writer.log, "a watch of all on the member that came back")
    for one in (watch, again, back):
        one.close()


# --- permissions ---------------------------------------------------------------------------------

def enable_users(servers):
    """A user who may read just w/a; gives (root's token, the user's)."""
    pb = servers.pb
    with contextlib.closing(servers.rpc()) as rpc:
        for user, role in (("root", "root"), ("u", "r")):
            rpc.must("UserAdd", pb.AuthUserAddRequest(name=user, password=user))
            rpc.must("RoleAdd", pb.AuthRoleAddRequest(name=role))
            rpc.must("UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role=role))
        rpc.must("RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(
            name="r", perm=pb.Permission(permType=0, key=b"w/a")))
        rpc.must("AuthEnable", pb.AuthEnableRequest())
        return [rpc.must("Authenticate", pb.AuthenticateRequest(name=n, password=n)).token
                for n in ("root", "u")]


def a_right_to_a_key_opens_no_wider_watch_and_ends_when_it_is_taken(servers):
    """GHSA-xg4h-6gfc-h4m8."""
    pb = servers.pb
    root, user = enable_users(servers)
    refused = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    for key, end in ((b"w/a", b"w/b"), (b"w/a", b"\0"), (b"w/b", b""), (b"", b"\0")):
        watch = Watch(servers, token=user, key=key, range_end=end).take_created()
        expect(watch.created.canceled and watch.created.watch_id == -1 and
               watch.created.cancel_reason == refused, f"{key} to {end}: {watch.created}")
        watch.close()
    watch = Watch(servers, token=user, key=b"w/a", range_end=b"").take_created()
    with contextlib.closing(servers.rpc()) as rpc:
        put = pb.PutRequest(key=b"w/a", value=b"1")
        watch.take_until(rpc.must("Put", put, token=root).header.revision)
        rpc.must("RoleRevokePermission",
                 pb.AuthRoleRevokePermissionRequest(role="r", key=b"w/a"), token=root)
        rpc.must("Put", put, token=root)
    watch.take(lambda w: w.canceled, "the end of the watch")
    expect(watch.canceled.cancel_reason == refused and len(watch.events) == 1,
           f"{len(watch.events)} events, {watch.canceled}")
    watch.close()


ON_ONE = (progress_never_overtakes_events, a_watch_of_the_future_hears_nothing_of_the_past,
          deletions_at_the_compacted_revision_are_given, a_compacted_start_is_told,
          compactions_race_with_watches, a_slow_client_misses_nothing_and_costs_the_others_nothing,
          a_right_to_a_key_opens_no_wider_watch_and_ends_when_it_is_taken)
ON_THREE = (a_follower_that_was_away_gives_each_event_once,
            nobody_waits_for_a_heartbeat,
            a_follower_restored_from_a_snapshot_gives_each_event_once,
            a_watch_goes_on_at_another_member_when_one_is_killed)


OF_ITS_OWN = (idle_watches_are_told_of_progress_by_themselves,)


def run(test):
    for size, shows in ((1, ON_ONE), (3, ON_THREE)):
        for show in shows:
            if sys.argv[1:] and show.__name__ not in sys.argv[1:]:
                continue
            with test.show(show.__name__.replace("_", " ")):
                servers = ConclaveServers(test, size)
                show(servers)
                servers.close()
    for show in OF_ITS_OWN:
        if not sys.argv[1:] or show.__name__ in sys.argv[1:]:
            with test.show(show.__name__.replace("_", " ")):
                show(test)


if __name__ == "__main__":
    main(run)
