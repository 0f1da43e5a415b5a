"""Two servers that get the same operations, and the comparison of all that they say. Reads of one
batch are under way at once; a write is alone, so that both servers see one order. Watches answer in
their own time: what they delivered is compared when both have everything that the history says they
have to deliver (`settle`). How events are cut into messages is each server's own affair, but for
one rule: those of one revision are together, unless the watch asked for fragments."""
import queue
import time

from cluster import Failure, pause_until, wait_until
from judge import Difference, Op, judge, show
from meant import TOKEN_REFUSED, may_be_swept

READS = {"Range", "HashKV", "LeaseTimeToLive", "LeaseLeases", "UserGet", "UserList", "RoleGet",
         "RoleList", "AuthStatus"}
SETTLE_S = 15
SWEEP_S = 2
PROGRESS_S = 1
SYNC_S = 0.35  # etcd looks after watchers that begin in the past every 100 ms
TOO_MANY = ("RESOURCE_EXHAUSTED", "etcdserver: too many requests")
SIDES = ("left", "right")


class Watcher:
    """One watch on both servers: what was asked and what was delivered."""

    def __init__(self, request, start, cursor):
        self.key = request.key or b"\0"
        self.end = request.range_end
        self.start = start                  # the first revision that it has to deliver
        self.filters = set(request.filters)
        self.fragment = request.fragment
        self.got = ([], [])                 # events as bytes, per side
        self.last = [0, 0]                  # the last revision delivered, per side
        self.expected = 0                   # how many events there have to be
        self.cursor = cursor                # how much of the history is in `expected`
        self.compacted = 0                  # up to where, when the watch began
        self.swept = [0, 0]                 # events that etcd may lack: expected; right's so far

    def wants(self, event):
        revision, kind, key = event
        if revision < self.start or kind in self.filters:
            return False
        if not self.end:
            return key == self.key
        return key >= self.key and (self.end == b"\0" or key < self.end)

    def take(self, side, event):
        """One that etcd may lack is only counted."""
        if not may_be_swept(event.type, event.kv.mod_revision, self.compacted):
            self.got[side].append(event.SerializeToString())
        elif side == 1:
            self.swept[1] += 1

    def missing(self, side):
        return len(self.got[side]) < self.expected or (side == 1 and self.swept[1] < self.swept[0])

    def look(self, history):
        for event in history[self.cursor:]:
            if self.wants(event) and may_be_swept(event[1], event[0], self.compacted):
                self.swept[0] += 1
            else:
                self.expected += self.wants(event)
        self.cursor = len(history)


class WatchStreams:
    """A stream to each of the two servers, its watchers by id, and what is not an event."""

    def __init__(self, pair):
        self.pair, self.pb = pair, pair.pb
        self.streams = [rpc.stream("Watch", pair.keeper(side))
                        for side, rpc in enumerate(pair.rpcs)]
        self.watchers = {}
        self.lost = set()  # ids of watches that a compaction ended, which etcd never gives again
        self.synced_at = 0.0
        self.problem = ""

    def send(self, request):
        for stream in self.streams:
            stream.send(request)

    def close(self):
        for stream in self.streams:
            stream.close()

    def read(self, side, seconds):
        """The next message of a side that is not events; those are put away on the way."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = self.streams[side].take(max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if answer is None:
                error = self.streams[side].error
                raise Failure(f"the {SIDES[side]} server ended a watch stream: {error}")
            if not answer.events or answer.created or answer.canceled:
                return answer
            self.deliver(side, answer)

    def deliver(self, side, answer):
        watcher = self.watchers.get(answer.watch_id)
        if watcher is None:
            self.problem = f"{SIDES[side]}: events for watch {answer.watch_id}, which is not there"
            return
        first, last = answer.events[0].kv.mod_revision, answer.events[-1].kv.mod_revision
        if first <= watcher.last[side] and not (watcher.fragment and first == watcher.last[side]):
            self.problem = (f"{SIDES[side]}: watch {answer.watch_id}: revision {first} after "
                            f"{watcher.last[side]} was delivered")
        if answer.header.revision < last:
            self.problem = (f"{SIDES[side]}: watch {answer.watch_id}: header revision "
                            f"{answer.header.revision} with an event of {last}")
        watcher.last[side] = last
        for event in answer.events:
            watcher.take(side, event)

    def controls(self, op, count):
        """Waits for so many messages that are not events from each side and compares them."""
        found = []
        for _ in range(count):
            left, right = [self.read(side, SETTLE_S) for side in (0, 1)]
            if left is None or right is None:
                words = ["nothing" if a is None else " ".join(str(a).split())
                         for a in (left, right)]
                raise Difference(op, (None, ("got", words[0])), (None, ("got", words[1])))
            judge(op, (left, None), (right, None))
            found.append(left)
        return found

    def create(self, op, request):
        """Sends a create; both have answered it when this returns."""
        self.send(self.pb.WatchRequest(create_request=request))
        answer = self.controls(op, 1)[0]
        if answer.canceled:
            return answer
        start = request.start_revision or answer.header.revision + 1
        watcher = Watcher(request, start, 0 if request.start_revision else len(self.pair.history))
        if self is not self.pair.full:
            watcher.compacted = self.pair.compacted
        self.watchers[answer.watch_id] = watcher
        if request.start_revision and request.start_revision <= answer.header.revision:
            self.synced_at = time.monotonic() + SYNC_S
        if 0 < start < self.pair.compacted or start < 0:
            self.controls(op, 1)
            del self.watchers[answer.watch_id]
            self.lost.add(answer.watch_id)
        return answer

    def cancel(self, op, request):
        """Of a watch that is there; of one that is not, etcd says nothing."""
        self.send(self.pb.WatchRequest(cancel_request=request))
        if request.watch_id in self.watchers:
            self.controls(op, 1)
            del self.watchers[request.watch_id]

    def progress(self, op):
        """etcd 3.4 always answers; later ones not while a watch waits for a revision to come, or
        has lagged behind a compaction: then there is nothing to compare."""
        if any(w.start > self.pair.revision + 1 for w in self.watchers.values()):
            return
        self.send(self.pb.WatchRequest(progress_request=self.pb.WatchProgressRequest()))
        left = self.read(0, PROGRESS_S)
        right = self.read(1, SETTLE_S if left else PROGRESS_S / 2)
        if left:
            judge(op, (left, None), (right, None if right else ("got", "nothing")))

    def drain(self):
        """Takes what has arrived; says whether all has that has to."""
        for side in (0, 1):
            stray = self.read(side, 0.001) if self.missing(side) else None
            if stray is not None:
                raise Failure(f"the {SIDES[side]} server says what the other does not: {stray}")
        return not (self.missing(0) or self.missing(1))

    def missing(self, side):
        return any(w.missing(side) for w in self.watchers.values())

    def look(self, history):
        for watcher in self.watchers.values():
            watcher.look(history)

    def compare(self):
        """Raises Failure unless both delivered the same, and what they had to."""
        if self.problem:
            raise Failure(self.problem)
        for watch_id, w in self.watchers.items():
            if w.got[0] == w.got[1] and len(w.got[0]) == w.expected and w.swept[0] == w.swept[1]:
                w.got[0].clear(), w.got[1].clear()
                self.pair.delivered += 0 if self is self.pair.full else w.expected
                w.expected = 0
                continue
            raise Failure(f"watch {watch_id} of {show(w.key)} to {show(w.end)} from {w.start}, "
                          f"filters {sorted(w.filters)}: {self.apart(w)}")

    def apart(self, w):
        for i, (a, b) in enumerate(zip(*w.got)):
            if a != b:
                left, right = [" ".join(str(self.pb.Event.FromString(e)).split()) for e in (a, b)]
                return f"event {i}: {left} against {right}"
        return (f"{len(w.got[0])} against {len(w.got[1])} events, {w.expected} expected, and "
                f"{w.swept[0]} that etcd may lack, of which the right one has {w.swept[1]}")


class Pair:
    """The two servers: `rpcs` and what is known about the state that they have in common."""

    def __init__(self, pb, rpcs, watching=True):
        self.pb, self.rpcs, self.watching = pb, rpcs, watching
        self.revision, self.compacted = 1, 0
        self.tokens = ({}, {})  # of users, per side
        self.enabled = False    # is authentication on?
        self.root = None        # how to get a token for all that is not an operation
        self.done = 0           # operations
        self.history = []       # (revision, kind, key) of every event
        self.delivered = 0      # events through other watches than the full one
        self.errors = {}        # how often each error was agreed upon
        self.counts = {}        # operations by method
        self.full, self.full_id = None, 0  # sees everything; makes the history
        self.streams, self.alive = [], []
        self.open_streams()

    def close(self):
        for streams in (self.full, *self.streams, *self.alive):
            if streams:
                streams.close()

    def open_streams(self):
        """A watch of everything that is not history yet, and no others."""
        self.alive = []
        if not self.watching:
            return
        self.full, self.streams = WatchStreams(self), []
        start = max(self.history[-1][0] + 1 if self.history else 2, self.compacted)
        request = self.pb.WatchCreateRequest(key=b"\0", range_end=b"\0", prev_kv=True,
                                             start_revision=start)
        self.full_id = self.full.create(Op("WatchCreate", request), request).watch_id
        self.full.watchers[self.full_id].last = [start - 1, start - 1]

    def keeper(self, side):
        """A token of the user who may everything, if there is one now."""
        if not self.root:
            return None
        answer, _ = self.rpcs[side].call("Authenticate", self.root)
        return answer.token if answer else None

    def together(self):
        """Whether the two states are still the same, after answers that were not."""
        everything = self.pb.RangeRequest(key=b"\0", range_end=b"\0")
        for method, request in (("Range", everything), ("HashKV", self.pb.HashKVRequest())):
            answers = [rpc.call(method, request, self.keeper(side))
                       for side, rpc in enumerate(self.rpcs)]
            try:
                judge(Op(method, request), *answers)
            except Difference as difference:
                if method != "HashKV" or not self.same_later(Op(method, request)):
                    return str(difference)
            if answers[0][0] is not None:
                self.revision = max(self.revision, answers[0][0].header.revision)
        self.close()
        self.open_streams()
        return ""

    # --- operations -------------------------------------------------------------------------------

    def token(self, op, side):
        """None while authentication is off: etcd 3.4 looks at a token even then."""
        if not self.enabled:
            return None
        return self.tokens[side].get(op.token, op.token) if op.token else None

    def ask_of_token(self, op, right):
        """etcd looks at a token only after much else. When the right server refuses one, etcd is
        asked what it thinks of the same user's by a call of which that is all that is wrong."""
        if right[1] in TOKEN_REFUSED:
            request = self.pb.RangeRequest(key=b"a")
            op.refused = self.rpcs[0].call("Range", request, self.token(op, 0))[1]

    def spoil(self):
        """A write that only one of them sees, which a test of this test has to find."""
        self.rpcs[1].must("Put", self.pb.PutRequest(key=b"k1", value=b"spoiled"))

    def run(self, batch):
        """Runs operations: reads together, or one of another kind; raises the first Difference."""
        if batch[0].method.startswith("Watch"):
            return self.watch(batch[0])
        if batch[0].method == "Settle":
            return self.settle()
        if batch[0].method == "LeaseKeepAlive":
            return self.keep_alive(batch[0])
        if batch[0].method == "Compact":  # a watch that lags would be cancelled, or just not
            self.settle()
            self.wait_synced()
        if batch[0].method == "TokenWatch":
            return self.token_watch(batch[0])
        futures = [[rpc.start(op.method, op.request, self.token(op, side))
                    for side, rpc in enumerate(self.rpcs)] for op in batch]
        answers = [[rpc.finish(f) for rpc, f in zip(self.rpcs, pair)] for pair in futures]
        if batch[0].method == "Authenticate" and answers[0][1][1] == TOO_MANY:
            answers[0][1] = wait_until(lambda: self.not_too_many(batch[0]), "Authenticate")
        found = None
        for op, (left, right) in zip(batch, answers):
            self.ask_of_token(op, right)
            self.note(op, left, right)
            try:
                judge(op, left, right)
            except Difference as difference:
                if op.method != "HashKV" or not self.same_later(op):
                    found = found or difference
        if found:
            raise found
        return answers

    def not_too_many(self, op):
        """The right one's answer, once it does not ask who guesses passwords to wait."""
        answer = self.rpcs[1].call(op.method, op.request)
        return answer if answer[1] != TOO_MANY else None

    def same_later(self, op):
        """While no key is alive, etcd's HashKV covers all that a compaction has not yet swept."""
        def same():
            judge(op, *[rpc.call(op.method, op.request) for rpc in self.rpcs])
            return True
        try:
            return wait_until(same, "equal hashes", SWEEP_S)
        except (Difference, Failure):
            return False

    def keep_alive(self, op):
        self.alive = self.alive or [rpc.stream("LeaseKeepAlive") for rpc in self.rpcs]
        for stream in self.alive:
            stream.send(op.request)
        left, right = [(stream.take(), stream.error) for stream in self.alive]
        self.note(op, left, right)
        judge(op, left, right)

    def token_watch(self, op):
        """The first answer to a watch on a stream of its own, with a user's token."""
        answers = []
        for side, rpc in enumerate(self.rpcs):
            stream = rpc.stream("Watch", self.token(op, side))
            stream.send(self.pb.WatchRequest(create_request=op.request))
            answers.append((stream.take(), stream.error))
            stream.close()
        self.ask_of_token(op, answers[1])
        self.note(op, *answers)
        judge(op, *answers)

    def note(self, op, left, right):
        self.done += 1
        self.counts[op.method] = self.counts.get(op.method, 0) + 1
        if left[0] is None:
            self.errors[left[1]] = self.errors.get(left[1], 0) + 1
            return
        if op.method == "Authenticate":
            for side, answer in enumerate((left, right)):
                if answer[0] is not None:
                    self.tokens[side][op.request.name] = answer[0].token
                    answer[0].token = "a token" if answer[0].token else ""
        self.revision = max(self.revision, left[0].header.revision)
        if op.method in ("AuthEnable", "AuthDisable"):
            self.enabled = op.method == "AuthEnable"
        if op.method == "Compact":
            self.compacted = max(self.compacted, op.request.revision)

    # --- watches ----------------------------------------------------------------------------------

    def watch(self, op):
        """WatchCreate, WatchCancel and WatchProgress; op.token is the number of the stream."""
        while len(self.streams) <= op.token:
            self.streams.append(WatchStreams(self))
        streams = self.streams[op.token]
        self.done += 1
        self.counts[op.method] = self.counts.get(op.method, 0) + 1
        self.settle()
        if op.method == "WatchCreate":
            return streams.create(op, op.request)
        if op.method == "WatchCancel":
            return streams.cancel(op, op.request)
        self.wait_synced()
        return streams.progress(op)

    def wait_synced(self):
        """Until etcd has surely seen that watchers which began in the past need nothing more."""
        for streams in self.streams:
            pause_until(streams.synced_at)

    def settle(self):
        """Until both servers' watches have delivered everything; then they are compared."""
        if not self.watching:
            return
        full = self.full.watchers[self.full_id]
        if full.last[0] < self.revision or full.last[1] < self.revision:
            if self.revision > 1:
                wait_until(self.caught_up, f"both servers to deliver revision {self.revision}: "
                           f"the last were {full.last}", SETTLE_S, pause=0.0005)
        for data in full.got[0]:
            event = self.pb.Event.FromString(data)
            self.history.append((event.kv.mod_revision, event.type, event.kv.key))
        self.full.look(self.history)
        self.full.compare()
        for streams in self.streams:
            streams.look(self.history)
            deadline = time.monotonic() + SETTLE_S
            while not streams.drain() and time.monotonic() < deadline:
                pass
            streams.compare()

    def caught_up(self):
        full = self.full.watchers[self.full_id]
        for side in (0, 1):
            if full.last[side] < self.revision:
                self.full.read(side, 0.001)
        return min(full.last) >= self.revision
