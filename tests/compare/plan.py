"""Makes random operations under a seed: few keys, so that they meet each other, odd ones among
them, and requests that are wrong in every way that the API has a word for. `Plan.batch` gives
operations that may be under way together: some reads, or one of anything else. What a later
operation refers to (revisions, leases, watches) comes from what the pair of servers has said so
far."""
from judge import Op
from pair import READS

KEYS = ([b"k%d" % i for i in range(10)] + [b"a", b"b", b"ab", b"a/", b"a/b", b"a/c", b"a0", b"a\0",
        b"a\0\0", b"\0", b"\0\0", b"\x01", b"\xff", b"\xff\xff", b"\xff\0", b"z", b"x" * 300,
        b"\xc3\xa4", b"\x80\xfe", b"k", b"key/with/more/parts", b"huge"])
VALUES = [b"", b"0", b"1", b"v", b"\0", b"\xff" * 3, b"w" * 100]
LEASES = list(range(1, 9)) + [0x7FFFFFFFFFFFFFFF]
FOREVER_S = 100000
READS_TOGETHER = 8
TXN_DEPTH, TXN_OPS_MAX = 3, 128
STREAMS, WATCHES_MAX = 2, 24
HUGE = 1600 << 10     # more than a request may have
NEAR = 700 << 10
HUGER = 2200 << 10    # more than gRPC takes
SPELL = 40            # operations for which an alarm stays on

# How often each kind of operation is made, in parts of their sum.
WEIGHTS = {"reads": 150, "put": 260, "delete": 90, "txn": 220, "grant": 45, "revoke": 30,
           "keepalive": 8, "compact": 6, "watch": 24, "cancel": 14, "progress": 3, "alarm": 1,
           "huge": 1, "settle": 8}


class Plan:
    """`random` is seeded; `pair` is where the operations run."""

    def __init__(self, random, pair, without=()):
        self.random, self.pair, self.pb = random, pair, pair.pb
        self.alarm_left, self.alarm = 0, 0
        self.kinds = [kind for kind in WEIGHTS if kind not in without]
        self.weights = [WEIGHTS[kind] for kind in self.kinds]

    def chance(self, percent):
        return self.random.random() * 100 < percent

    def pick(self, *items):
        return self.random.choice(items)

    def batch(self):
        if self.alarm_left:
            self.alarm_left -= 1
            if not self.alarm_left:
                return [self.alarm_op(2)]
        kind = self.random.choices(self.kinds, self.weights)[0]
        found = getattr(self, "make_" + kind)()
        return found if isinstance(found, list) else [found]

    # --- parts ------------------------------------------------------------------------------------

    def key(self):
        return b"" if self.chance(1.5) else self.random.choice(KEYS)

    def span(self):
        """(key, range_end)"""
        key = self.key()
        how = self.random.random()
        if how < 0.45:
            return key, b""
        if how < 0.55:
            return self.pick(b"\0", key), b"\0"
        if how < 0.75:
            return self.pick(b"k", b"a", b"a/"), self.pick(b"l", b"b", b"a0")
        if how < 0.8:
            return key, key
        if how < 0.83:
            return b"", self.pick(b"\0", b"b")
        return key, self.key()  # often reversed

    def old_revision(self):
        """Mostly one that can be read, often at an edge."""
        first, last = self.pair.compacted, self.pair.revision
        how = self.random.random()
        if how < 0.7:
            return self.random.randint(max(first, last - 60), last)
        if how < 0.95:
            return self.pick(first - 1, first, first + 1, last - 1, last, last + 1)
        return self.pick(-1, 1, last + 1000, 1 << 62, -(1 << 63))

    def lease(self):
        return self.random.choice(LEASES) if self.chance(90) else self.pick(99, -1, 1 << 62)

    def range(self, plain=False):
        r = self.pb.RangeRequest()
        r.key, r.range_end = (b"k", b"l") if plain else self.span()
        if self.chance(30):
            r.limit = self.pick(1, 2, 3, 5, 100, -1)
        if self.chance(30):  # below zero is "now", which etcd's transactions do not know
            r.revision = max(0, self.old_revision()) if plain else self.old_revision()
        if self.chance(30):
            r.sort_order = self.random.randint(0, 2)
            r.sort_target = self.random.randint(0, 4)
        r.serializable = self.chance(20)
        r.keys_only, r.count_only = self.chance(10), self.chance(8)
        for field in ("min_mod_revision", "max_mod_revision", "min_create_revision",
                      "max_create_revision"):
            if self.chance(8):
                setattr(r, field, self.old_revision())
        return r

    def put(self):
        r = self.pb.PutRequest(key=self.key(), value=self.random.choice(VALUES))
        if self.chance(20):
            r.lease = self.lease()
        r.prev_kv = self.chance(30)
        if self.chance(10):
            r.ignore_value = True
            r.value = r.value if self.chance(20) else b""
        if self.chance(10):
            r.ignore_lease = True
            r.lease = r.lease if self.chance(20) else 0
        return r

    def delete(self):
        key, end = self.span()
        if end and self.chance(60):  # or there would never be many keys
            end = b""
        return self.pb.DeleteRangeRequest(key=key, range_end=end, prev_kv=self.chance(40))

    def compare(self):
        c = self.pb.Compare(key=self.key())
        c.result = self.random.randint(0, 3)
        c.target = self.random.randint(0, 4)
        if self.chance(20):
            c.key, c.range_end = self.span()
        names = ("version", "create_revision", "mod_revision", "value", "lease")
        name = names[c.target] if self.chance(96) else self.random.choice(names)
        if name == "value":
            c.value = self.random.choice(VALUES)
        elif name == "version":
            c.version = self.random.randint(0, 4)
        elif name == "lease":
            c.lease = self.pick(0, self.lease())
        elif self.chance(97):
            setattr(c, name, self.pick(0, self.old_revision()))
        return c

    def request_op(self, depth):
        op = self.pb.RequestOp()
        how = self.random.random()
        if how < 0.35:
            op.request_put.CopyFrom(self.put())
        elif how < 0.6:
            op.request_range.CopyFrom(self.range(plain=True))
        elif how < 0.78:
            op.request_delete_range.CopyFrom(self.delete())
        elif how < 0.99:
            if depth < TXN_DEPTH:
                op.request_txn.CopyFrom(self.txn(depth + 1))
            else:
                op.request_range.CopyFrom(self.range(plain=True))
        return op  # now and then an empty one

    def txn(self, depth=0):
        t = self.pb.TxnRequest()
        for _ in range(self.pick(0, 0, 1, 1, 2)):
            t.compare.add().CopyFrom(self.compare())
        for ops in (t.success, t.failure):
            for _ in range(self.pick(0, 1, 1, 2, 3)):
                ops.add().CopyFrom(self.request_op(depth))
        return t

    def long_txn(self):
        """About as many operations as a transaction may have."""
        t = self.pb.TxnRequest()
        count = TXN_OPS_MAX + self.pick(-1, 0, 1)
        what = self.random.randint(0, 3)
        for i in range(count):
            if what == 0:
                t.compare.add(key=b"a", target=0, result=0)
            elif what == 1:
                t.success.add().request_put.key = b"t%d" % (i % TXN_OPS_MAX)
            elif what == 2:
                t.failure.add().request_range.key = b"a"
            else:
                t.success.add().request_range.key = b"a"
        if what == 3:  # nested: what is left for the inner one
            inner = t.success[0].request_txn
            for _ in range(self.random.randint(0, 3)):
                inner.success.add().request_range.key = b"b"
        return t

    # --- operations -------------------------------------------------------------------------------

    def make_reads(self):
        return [self.read() for _ in range(self.random.randint(1, READS_TOGETHER))]

    def read(self):
        how = self.random.random()
        if how < 0.85 or (how < 0.95 and "grant" not in self.kinds):
            return Op("Range", self.range())
        if how < 0.92:
            return Op("LeaseTimeToLive", self.pb.LeaseTimeToLiveRequest(ID=self.lease(),
                                                                        keys=self.chance(60)))
        if how < 0.95:
            return Op("LeaseLeases", self.pb.LeaseLeasesRequest())
        revision = 0 if self.chance(50) else max(0, self.old_revision())
        return Op("HashKV", self.pb.HashKVRequest(revision=revision))

    def make_put(self):
        return Op("Put", self.put())

    def make_delete(self):
        return Op("DeleteRange", self.delete())

    def make_txn(self):
        if self.chance(4):
            return Op("Txn", self.long_txn())
        txn = self.txn()
        if self.alarm_left and self.alarm == 1:
            puts_on_top(txn)
        if deletes_to_the_end(txn):
            ignore_nothing(txn)
        return Op("Txn", txn)

    def make_grant(self):
        r = self.pb.LeaseGrantRequest(ID=self.random.choice(LEASES),
                                      TTL=FOREVER_S + self.random.randint(0, 9))
        if self.chance(8):
            r.TTL = self.pick(9000000000, 9000000001, 1 << 62)
        return Op("LeaseGrant", r)

    def make_revoke(self):
        return Op("LeaseRevoke", self.pb.LeaseRevokeRequest(ID=self.lease()))

    def make_keepalive(self):
        return Op("LeaseKeepAlive", self.pb.LeaseKeepAliveRequest(ID=self.lease()))

    def make_compact(self):
        revision = self.old_revision()
        if self.chance(40):  # leaves something to read
            revision = max(self.pair.compacted, self.pair.revision - 100)
        if revision == 0:  # etcd takes it once, which changes nothing but what HashKV says of it
            revision = 1
        return Op("Compact", self.pb.CompactionRequest(revision=revision, physical=self.chance(40)))

    def make_watch(self):
        number = self.random.randrange(STREAMS)
        if self.watches(number) >= WATCHES_MAX:
            return self.make_cancel()
        r = self.pb.WatchCreateRequest()
        r.key, r.range_end = self.span()
        if self.chance(40):
            r.start_revision = max(0, self.old_revision())
        for kind in (0, 1):
            if self.chance(10):
                r.filters.append(kind)
        r.prev_kv, r.fragment = self.chance(40), self.chance(20)
        r.progress_notify = self.chance(20)
        if self.chance(20):
            r.watch_id = self.pick(1, 2, 3, 7, 1000, -5)
            if 0 < r.start_revision < self.pair.compacted:  # etcd would not give it out by itself
                r.watch_id = self.pick(1000, -5)
            if r.watch_id in self.lost(number):
                r.watch_id = 0
        return Op("WatchCreate", r, number)

    def lost(self, number):
        return self.pair.streams[number].lost if number < len(self.pair.streams) else ()

    def watches(self, number):
        return len(self.pair.streams[number].watchers) if number < len(self.pair.streams) else 0

    def make_cancel(self):
        number = self.random.randrange(STREAMS)
        ids = sorted(self.pair.streams[number].watchers) if self.watches(number) else [12345]
        watch_id = self.random.choice(ids) if self.chance(95) else 12345
        return Op("WatchCancel", self.pb.WatchCancelRequest(watch_id=watch_id), number)

    def make_progress(self):
        return Op("WatchProgress", self.pb.WatchProgressRequest(), self.random.randrange(STREAMS))

    def make_alarm(self):
        if self.alarm_left:
            return self.alarm_op(0)
        self.alarm_left = SPELL
        self.alarm = 1 if self.chance(75) else 2
        return self.alarm_op(1)

    def alarm_op(self, action):
        """Of a member that is no member: the same on both servers."""
        return Op("Alarm", self.pb.AlarmRequest(action=action, memberID=7, alarm=self.alarm))

    def make_huge(self):
        size = self.pick(NEAR, HUGE, HUGER)
        return Op("Put", self.pb.PutRequest(key=b"huge", value=b"h" * size))

    def make_settle(self):
        return Op("Settle", None)


def operations(txn):
    """All of a transaction and of those in it."""
    left = [txn]
    while left:
        inner = left.pop()
        for op in (*inner.success, *inner.failure):
            yield op
            if op.HasField("request_txn"):
                left.append(op.request_txn)


def deletes_to_the_end(txn):
    """etcd does not see that such a delete and a put touch the same key, and dies when the put
    needs what was deleted; see e2e/test_etcd_diff.py for what Conclave does."""
    return any(op.request_delete_range.range_end == b"\0" for op in operations(txn))


def puts_on_top(txn):
    """Without those of inner transactions, which etcd lets through while there is no space."""
    outer = [*txn.success, *txn.failure]
    for op in operations(txn):
        if op.HasField("request_put") and not any(op is one for one in outer):
            op.request_range.key = b"k"


def ignore_nothing(txn):
    for op in operations(txn):
        if op.HasField("request_put"):
            op.request_put.ignore_value = op.request_put.ignore_lease = False


assert READS >= {"Range", "HashKV", "LeaseTimeToLive", "LeaseLeases"}
