"""What a random plan can't show, because it takes time or two clients that wait for each other:
each scene runs on both servers and compares every answer, as the plan does. Then what etcd 3.4
can't be asked, because later releases do it otherwise: `FACTS` hold for Conclave alone."""
import hashlib

from cluster import expect, wait_until
from judge import Op, judge

LOCK_LEASES = (201, 202, 203)
SHORT_TTL_S = 2
EXPIRY_S = 20
BIG = 600 << 10
BLOB = 32 << 10


class Stage:
    """Calls to both servers, compared."""

    def __init__(self, pair):
        self.pair, self.pb = pair, pair.pb

    def ask(self, method, token=None, **fields):
        """The left server's answer (message, error); the right one's is the same."""
        op = Op(method, self.request(method, **fields), token)
        return self.pair.run([op])[0][0]

    def request(self, method, **fields):
        names = {"Compact": "CompactionRequest"}
        return getattr(self.pb, names.get(method, method + "Request"))(**fields)

    def begin(self, method, **fields):
        """A call that will wait: its operation and the two futures."""
        op = Op(method, self.request(method, **fields))
        return op, [rpc.start(method, op.request) for rpc in self.pair.rpcs]

    def end(self, begun):
        op, futures = begun
        left, right = [rpc.finish(f) for rpc, f in zip(self.pair.rpcs, futures)]
        self.pair.note(op, left, right)
        judge(op, left, right)
        return left

    def waiting(self, begun):
        """Both have queued up, and neither is through."""
        expect(not any(f.done() for f in begun[1]), f"{begun[0]} did not wait")

    def level(self, prefix, count):
        """Until both hold so many keys that begin so."""
        request = self.pb.RangeRequest(key=prefix, range_end=prefix + b"\xff")

        def there():
            answers = [rpc.call("Range", request) for rpc in self.pair.rpcs]
            if any(a[0] is None or a[0].count != count for a in answers):
                return False
            self.pair.revision = max(self.pair.revision, answers[0][0].header.revision)
            judge(Op("Range", request), *answers)
            return True
        wait_until(there, f"{count} keys under {prefix}", EXPIRY_S)


def clear(stage):
    """Nothing is left of what was before."""
    leases, _ = stage.ask("LeaseLeases")
    for lease in leases.leases:
        stage.ask("LeaseRevoke", ID=lease.ID)
    stage.ask("DeleteRange", key=b"\0", range_end=b"\0")


def expiry(stage):
    """A lease that ends takes its keys along in one revision, in order; a live one is renewed."""
    granted, _ = stage.ask("LeaseGrant", ID=100, TTL=SHORT_TTL_S)
    expect(granted.TTL == SHORT_TTL_S, f"TTL {granted.TTL}")
    stage.ask("LeaseGrant", ID=101, TTL=1000)
    for key in (b"exp/c", b"exp/a", b"exp/b", b"exp/moved"):
        stage.ask("Put", key=key, value=b"v", lease=100)
    stage.ask("Put", key=b"exp/moved", value=b"v", lease=101)
    stage.ask("Put", key=b"exp/b", value=b"v2", lease=100)
    stage.level(b"exp/", 1)
    stage.pair.settle()
    stage.ask("LeaseTimeToLive", ID=100, keys=True)
    stage.ask("LeaseRevoke", ID=100)
    stage.ask("LeaseTimeToLive", ID=101, keys=True)
    stage.ask("LeaseRevoke", ID=101)
    stage.pair.settle()


def short_ttls(stage):
    """What becomes of a TTL that is shorter than a lease can be, or nonsense."""
    for ttl in (1, 0, -1, -(1 << 63)):
        stage.ask("LeaseGrant", ID=110, TTL=ttl)
        stage.ask("LeaseRevoke", ID=110)


def automatic_ids(stage):
    """ID 0 asks for an id of the server's own."""
    op = Op("LeaseGrant", stage.pb.LeaseGrantRequest(TTL=500))
    answers = [rpc.must(op.method, op.request) for rpc in stage.pair.rpcs]
    for rpc, answer in zip(stage.pair.rpcs, answers):
        expect(answer.ID > 0, f"the id {answer.ID}")
        rpc.must("LeaseRevoke", stage.pb.LeaseRevokeRequest(ID=answer.ID))
        answer.ID = 0
    judge(op, *[(a, None) for a in answers])


def fragments(stage):
    """One revision's events go out in pieces when they are too many and the watch agreed to it."""
    pb, found = stage.pb, []
    for rpc in stage.pair.rpcs:
        stream = rpc.stream("Watch")
        stream.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(
            key=b"frag/", range_end=b"frag0", fragment=True, prev_kv=True)))
        expect(stream.take().created, "no watch")
        found.append((stream, []))
    for value in (b"1", b"2"):
        txn = pb.TxnRequest()
        for key in (b"frag/a", b"frag/b"):
            txn.success.add().request_put.CopyFrom(pb.PutRequest(key=key, value=value * BIG))
        stage.pair.run([Op("Txn", txn)])
    for stream, pieces in found:
        while sum(len(p.events) for p in pieces) < 4:
            pieces.append(stream.take())
        stream.close()
    shapes = [[(len(p.events), p.fragment, p.events[0].kv.mod_revision) for p in pieces]
              for _, pieces in found]
    for shape in shapes:
        for (_, more, revision), following in zip(shape, shape[1:] + [(0, False, 0)]):
            expect(more == (following[2] == revision), f"fragment flags: {shape}")
    expect(any(more for _, more, _ in shapes[0]), f"etcd sent no fragments: {shapes[0]}")
    expect(any(more for _, more, _ in shapes[1]), f"no fragments but {shapes[1]}")
    events = [[e.SerializeToString() for p in pieces for e in p.events] for _, pieces in found]
    expect(events[0] == events[1], "the fragments hold other events")


def locks(stage):
    """A queue for a lock, a holder that dies, a waiter that gives up."""
    for lease in LOCK_LEASES:
        stage.ask("LeaseGrant", ID=lease, TTL=1000)
    first, _ = stage.ask("Lock", name=b"mutex", lease=LOCK_LEASES[0])
    stage.ask("Lock", name=b"mutex", lease=LOCK_LEASES[0])
    second = stage.begin("Lock", name=b"mutex", lease=LOCK_LEASES[1])
    stage.level(b"mutex", 2)
    third = stage.begin("Lock", name=b"mutex", lease=LOCK_LEASES[2])
    stage.level(b"mutex", 3)
    stage.waiting(second)
    stage.ask("Unlock", key=first.key)
    stage.end(second)
    stage.waiting(third)
    stage.ask("LeaseRevoke", ID=LOCK_LEASES[1])
    held, _ = stage.end(third)
    stage.ask("Range", key=b"mutex", range_end=b"mutey")
    impatient = stage.begin("Lock", name=b"mutex", lease=LOCK_LEASES[0])
    stage.level(b"mutex", 2)
    for future in impatient[1]:
        future.cancel()
    stage.level(b"mutex", 1)
    stage.ask("Lock", name=b"mutex", lease=999999)
    stage.ask("Unlock", key=b"no such key")
    stage.ask("Unlock", key=b"")
    stage.ask("Unlock", key=held.key)
    stage.level(b"mutex", 0)


def elections(stage):
    """A campaign, a rival that waits, a proclamation, what an observer sees, resignations."""
    for lease in LOCK_LEASES[:2]:
        stage.ask("LeaseGrant", ID=lease, TTL=1000)
    stage.ask("Leader", name=b"chair")
    one, _ = stage.ask("Campaign", name=b"chair", lease=LOCK_LEASES[0], value=b"one")
    stage.ask("Leader", name=b"chair")
    stage.ask("Campaign", name=b"chair", lease=LOCK_LEASES[0], value=b"one again")
    rival = stage.begin("Campaign", name=b"chair", lease=LOCK_LEASES[1], value=b"two")
    stage.level(b"chair", 2)
    stage.ask("Proclaim", leader=one.leader, value=b"said")
    stage.ask("Leader", name=b"chair")
    stage.waiting(rival)
    stage.ask("Resign", leader=one.leader)
    two, _ = stage.end(rival)
    stage.ask("Leader", name=b"chair")
    stage.ask("Proclaim", leader=one.leader, value=b"from the grave")
    stage.ask("Resign", leader=one.leader)
    stage.ask("Leader", name=b"chair")
    stage.ask("Resign", leader=two.leader)
    stage.ask("Leader", name=b"chair")
    stage.ask("Campaign", name=b"chair", lease=999999, value=b"x")
    stage.ask("Resign")
    stage.ask("Proclaim")


def refused(stage):
    """Calls about members, alarms and revisions that name what is not there."""
    stage.ask("MemberRemove", ID=12345)
    stage.ask("MemberUpdate", ID=12345, peerURLs=["http://127.0.0.1:1"])
    stage.ask("MemberPromote", ID=12345)
    stage.ask("MemberAdd", peerURLs=["not a url"])
    stage.ask("MemberAdd", peerURLs=[])
    stage.ask("MoveLeader", targetID=12345)
    stage.ask("Alarm", action=0)
    stage.ask("Alarm", action=2, memberID=12345, alarm=1)
    stage.ask("Defragment")
    stage.ask("HashKV", revision=1 << 40)
    stage.ask("HashKV", revision=-1)


def snapshots(stage):
    """The stream counts down to a digest of what came before it."""
    for name, rpc in zip(("the left", "the right"), stage.pair.rpcs):
        parts, error = rpc.download("Snapshot", stage.pb.SnapshotRequest())
        expect(not error, f"{name}: {error}")
        data = b"".join(p.blob for p in parts)
        expect(hashlib.sha256(data[:-32]).digest() == data[-32:], f"{name}: the digest is wrong")
        expect(all(len(p.blob) <= BLOB for p in parts), f"{name}: blobs over 32 KiB")
        left = [p.remaining_bytes for p in parts]
        expect(left == sorted(left, reverse=True) and left[-1] == 0, f"{name}: remaining {left}")


SCENES = [expiry, short_ttls, automatic_ids, fragments, locks, elections, refused, snapshots]


# --- Conclave alone ------------------------------------------------------------------------------

INVALID_SORT = ("INVALID_ARGUMENT", "etcdserver: invalid sort option")
NO_PERMISSION = ("INVALID_ARGUMENT", "etcdserver: permission not given")
DENIED = ("PERMISSION_DENIED", "etcdserver: permission denied")


def sort_options(rpc, pb):
    """etcd 3.4 dies of a sort target that does not exist; 3.5 refuses it."""
    for order, target in ((3, 0), (0, 5), (7, 9), (-1, 2)):
        request = pb.RangeRequest(key=b"k", sort_order=order, sort_target=target)
        error = rpc.call("Range", request)[1]
        expect(error == INVALID_SORT, f"order {order}, target {target}: {error}")


def comparisons(rpc, pb):
    """etcd takes a comparison by a field or a relation that does not exist for one that holds; a
    transaction that was meant to be guarded then is not. It is refused here."""
    for target, result in ((7, 0), (0, 9), (-1, -1)):
        request = pb.TxnRequest()
        request.compare.add(key=b"k", target=target, result=result)
        error = rpc.call("Txn", request)[1]
        expect(error and error[0] == "INVALID_ARGUMENT", f"{target}, {result}: {error}")


def empty_permission(rpc, pb):
    """etcd 3.4 dies of a permission that is not there, on every start again."""
    rpc.must("RoleAdd", pb.AuthRoleAddRequest(name="empty"))
    error = rpc.call("RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="empty"))[1]
    expect(error == NO_PERMISSION, f"a grant of nothing: {error}")
    rpc.must("RoleDelete", pb.AuthRoleDeleteRequest(role="empty"))


def range_stream(rpc, pb):
    """RangeStream, of 3.7, gives in pieces what Range gives at once."""
    for i in range(300):
        rpc.must("Put", pb.PutRequest(key=b"stream/%03d" % i, value=b"s" * 4096))
    for fields in ({}, {"limit": 7}, {"keys_only": True}, {"count_only": True}, {"revision": 50}):
        request = pb.RangeRequest(key=b"stream/", range_end=b"stream0", **fields)
        whole, refusal = rpc.call("Range", request)
        parts, error = rpc.download("RangeStream", request)
        expect(error == refusal, f"{fields}: {error} against {refusal}")
        if error:
            continue
        joined = pb.RangeResponse()
        for part in parts:
            joined.MergeFrom(part.range_response)
        same = (list(joined.kvs), joined.count, joined.more) == (list(whole.kvs), whole.count,
                                                                whole.more)
        expect(same and joined.header.revision == whole.header.revision, f"{fields}: not the same")
    rpc.must("DeleteRange", pb.DeleteRangeRequest(key=b"stream/", range_end=b"stream0"))


def guarded(rpc, pb):
    """With authentication on, maintenance is root's, and a nested transaction is looked into."""
    for user, password in (("root", "r"), ("plain", "p")):
        rpc.must("UserAdd", pb.AuthUserAddRequest(name=user, password=password))
    for role in ("root", "some"):
        rpc.call("RoleAdd", pb.AuthRoleAddRequest(name=role))
    grant = pb.AuthRoleGrantPermissionRequest(name="some")
    grant.perm.permType, grant.perm.key = 2, b"mine"
    rpc.must("RoleGrantPermission", grant)
    rpc.must("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root"))
    rpc.must("UserGrantRole", pb.AuthUserGrantRoleRequest(user="plain", role="some"))
    rpc.must("AuthEnable", pb.AuthEnableRequest())
    root, plain = [rpc.must("Authenticate", pb.AuthenticateRequest(name=n, password=p)).token
                   for n, p in (("root", "r"), ("plain", "p"))]
    try:
        check_guards(rpc, pb, plain)
    finally:
        rpc.must("AuthDisable", pb.AuthDisableRequest(), root)
    for user in ("plain", "root"):
        rpc.must("UserDelete", pb.AuthUserDeleteRequest(name=user))
    for role in ("some", "root"):
        rpc.must("RoleDelete", pb.AuthRoleDeleteRequest(role=role))


def check_guards(rpc, pb, plain):
    nested = pb.TxnRequest()
    inner = nested.success.add().request_txn.success.add()
    for key, wanted in ((b"mine", None), (b"yours", DENIED)):
        inner.request_put.key = key
        error = rpc.call("Txn", nested, plain)[1]
        expect(error == wanted, f"a nested put of {key}: {error}")
    for method, request in (("Alarm", pb.AlarmRequest(action=1, alarm=1)),
                            ("Defragment", pb.DefragmentRequest()),
                            ("HashKV", pb.HashKVRequest()), ("Hash", pb.HashRequest()),
                            ("MoveLeader", pb.MoveLeaderRequest())):
        error = rpc.call(method, request, plain)[1]
        expect(error == DENIED, f"{method} by a user: {error}")
    error = rpc.download("Snapshot", pb.SnapshotRequest(), plain)[1]
    expect(error == DENIED, f"Snapshot by a user: {error}")


FACTS = [sort_options, comparisons, empty_permission, range_stream, guarded]
