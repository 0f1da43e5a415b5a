"""Debian's python3-etcd3 as its users use it: one function for each thing that it can do, and a
writer, a watcher and a lease that have to live through the death of the leader."""
import importlib.metadata
import io
import queue
import threading
import time

import etcd3
from etcd3 import exceptions

from cluster import expect, pause_until, wait_until

CALL_S = 20
RETRY_S = 0.02
EVENT_S = 20


def connect(servers, which=0, **extra):
    host, port = servers.addresses()[which].split(":")
    if servers.tls:
        extra.update(ca_cert=servers.tls[0], cert_cert=servers.tls[1], cert_key=servers.tls[2])
    return etcd3.client(host=host, port=int(port), timeout=CALL_S, **extra)


def keys_and_values(client, _):
    client.put("py/a", "1")
    client.put("py/b", b"\0\xff")
    value, meta = client.get("py/a")
    expect(value == b"1" and meta.key == b"py/a" and meta.version == 1, f"{value} {meta.key}")
    expect(client.get("py/none") == (None, None), "a value that was never put")
    expect(client.put("py/a", "2", prev_kv=True).prev_kv.value == b"1", "prev_kv")
    found = [(m.key, v) for v, m in client.get_prefix("py/", sort_order="descend")]
    expect(found == [(b"py/b", b"\0\xff"), (b"py/a", b"2")], f"get_prefix: {found}")
    found = [m.key for _, m in client.get_range("py/a", "py/b")]
    expect(found == [b"py/a"], f"get_range: {found}")
    expect(client.put_if_not_exists("py/c", "3") and not client.put_if_not_exists("py/c", "4"),
           "put_if_not_exists")
    expect(client.replace("py/c", "3", "4") and not client.replace("py/c", "3", "5"), "replace")
    expect(client.get("py/a", serializable=True)[0] == b"2", "a serializable read")
    expect(client.delete("py/a") and not client.delete("py/a"), "delete")
    expect(client.delete_prefix("py/").deleted == 2, "delete_prefix")
    expect(len(list(client.get_all())) == client.get_all_response().count, "get_all")


def transactions(client, _):
    tx = client.transactions
    client.put("tx", "old")
    for wanted in (True, False):
        done, answers = client.transaction(
            compare=[tx.value("tx") == "old", tx.version("tx") > 0, tx.create("none") == 0],
            success=[tx.put("tx", "new"), tx.txn(compare=[tx.mod("tx") > 0],
                                                 success=[tx.put("tx/in", "1")], failure=[])],
            failure=[tx.get("tx"), tx.delete("tx/in")])
        expect(done == wanted, f"the transaction: {done}")
    expect(answers[0][0][0] == b"new" and answers[1].response_delete_range.deleted == 1,
           f"answers {answers}")
    client.delete("tx")


def watches(client, _):
    events, cancel = client.watch_prefix("wt/", prev_kv=True)
    client.put("wt/a", "1")
    client.put("wt/a", "2")
    client.delete("wt/a")
    found = [next(events) for _ in range(3)]
    cancel()
    expect([type(e).__name__ for e in found] == ["PutEvent", "PutEvent", "DeleteEvent"], f"{found}")
    expect(found[1].prev_value == b"1" and found[2].prev_value == b"2", "prev_kv of events")
    seen = queue.Queue()
    first = found[0].mod_revision
    watch_id = client.add_watch_callback("wt/a", seen.put, start_revision=first)
    expect(seen.get(timeout=EVENT_S).events[0].mod_revision == first, "history")
    client.cancel_watch(watch_id)
    threading.Timer(0, client.put, ("wt/once", "x")).start()
    once = client.watch_once("wt/once", timeout=EVENT_S, start_revision=first)
    expect(once.value == b"x", f"watch_once {once}")
    client.compact(client.get("wt/once")[1].mod_revision)
    events, cancel = client.watch("wt/a", start_revision=first)
    try:
        next(events)
        expect(False, "a watch of compacted history goes on")
    except exceptions.RevisionCompactedError as error:
        expect(error.compacted_revision > first, f"compacted at {error.compacted_revision}")
    cancel()


def leases(client, _):
    lease = client.lease(30)
    client.put("ls", "x", lease=lease)
    expect(lease.granted_ttl == 30 and 0 < lease.remaining_ttl <= 30, "the lease's time")
    expect(list(lease.keys) == [b"ls"], f"keys {lease.keys}")
    expect(lease.refresh()[0].TTL == 30, "refresh")
    lease.revoke()
    expect(client.get("ls") == (None, None), "the key outlives its lease")
    short = client.lease(2)
    client.put("short", "x", lease=short)
    wait_until(lambda: client.get("short") == (None, None), "the lease to expire")
    expect(client.lease(30, 77001).id == 77001, "an id of ours")
    client.revoke_lease(77001)


def locks(client, servers):
    other = connect(servers, len(servers.addresses()) - 1)
    with client.lock("mutex", ttl=20) as mine:
        expect(mine.is_acquired(), "the lock is not held")
        expect(not other.lock("mutex", ttl=20).acquire(timeout=0), "two hold the lock")
        mine.refresh()
    theirs = other.lock("mutex", ttl=20)
    expect(theirs.acquire(timeout=5) and theirs.release(), "the lock is not free")
    other.close()


def members(client, servers):
    found = list(client.members)
    expect(len(found) == len(servers.addresses()), f"{len(found)} members")
    for member in found:
        expect(member.name and member.id and list(member.peer_urls), f"member {member}")
        urls = [u.split("//")[1] for u in member.client_urls]
        expect(set(urls) <= set(servers.addresses()) and urls, f"client URLs {urls}")
    status = client.status()
    expect(status.version.startswith("3.") and status.db_size > 0 and status.raft_term > 0,
           f"status {status.version} {status.db_size}")
    expect(status.leader.id in [m.id for m in found], "the leader is no member")
    expect(status.raft_index > 0, "the raft index")


def maintenance(client, _):
    client.hash()
    client.defragment()
    blob = io.BytesIO()
    client.snapshot(blob)
    expect(len(blob.getvalue()) > 32, f"a snapshot of {len(blob.getvalue())} bytes")


def alarms(client, _):
    client.create_alarm()
    try:
        expect([a.alarm_type for a in client.list_alarms()], "no alarm")
        try:
            client.put("full", "x")
            expect(False, "a put in spite of the alarm")
        except etcd3.etcdrpc.rpc_pb2_grpc.grpc.RpcError as error:
            expect("database space exceeded" in error.details(), error.details())
    finally:
        client.disarm_alarm()
    expect(not list(client.list_alarms()), "the alarm stays")
    client.put("full", "x")


def errors(client, _):
    try:
        client.compact(1 << 40)
        expect(False, "a compaction of the future")
    except etcd3.etcdrpc.rpc_pb2_grpc.grpc.RpcError as error:
        expect(error.details() == "etcdserver: mvcc: required revision is a future revision",
               error.details())
    try:
        client.revoke_lease(424242)
        expect(False, "a lease that is not there")
    except etcd3.etcdrpc.rpc_pb2_grpc.grpc.RpcError as error:
        expect(error.details() == "etcdserver: requested lease not found", error.details())


def tokens(client, servers):
    """A user that may touch one key, by name and password; gRPC sends those through TLS only."""
    if not servers.tls:
        return
    rpc, pb = servers.rpc(), servers.pb
    for name in ("root", "pyuser"):
        rpc.must("UserAdd", pb.AuthUserAddRequest(name=name, password=name + "pw"))
        rpc.must("RoleAdd", pb.AuthRoleAddRequest(name=name))
        rpc.must("UserGrantRole", pb.AuthUserGrantRoleRequest(user=name, role=name))
    grant = pb.AuthRoleGrantPermissionRequest(name="pyuser")
    grant.perm.permType, grant.perm.key = 2, b"mine"
    rpc.must("RoleGrantPermission", grant)
    rpc.must("AuthEnable", pb.AuthEnableRequest())
    token = rpc.must("Authenticate", pb.AuthenticateRequest(name="root", password="rootpw")).token
    try:
        user = connect(servers, user="pyuser", password="pyuserpw")
        user.put("mine", "1")
        expect(user.get("mine")[0] == b"1", "what the user may read")
        try:
            user.put("yours", "1")
            expect(False, "a put that is not allowed")
        except etcd3.etcdrpc.rpc_pb2_grpc.grpc.RpcError as error:
            expect("permission denied" in error.details(), error.details())
        user.close()
    finally:
        rpc.must("AuthDisable", pb.AuthDisableRequest(), token)
    for name in ("pyuser", "root"):
        rpc.must("UserDelete", pb.AuthUserDeleteRequest(name=name))
        rpc.must("RoleDelete", pb.AuthRoleDeleteRequest(role=name))
    rpc.close()


# Of the client itself: what its Lock hands to tenacity, tenacity 8.4 calls without an argument.
TENACITY = tuple(int(n) for n in importlib.metadata.version("tenacity").split(".")[:2])
LOCK_BROKEN = "its Lock does not work with tenacity from 8.4 on" if TENACITY >= (8, 4) else ""
FEATURES = [keys_and_values, transactions, watches, leases, locks, members, maintenance, alarms,
            errors, tokens]


class Survivor:
    """Writes, a watch and a lease through one member, while another one dies."""

    def __init__(self, servers, which, ttl):
        self.client = connect(servers, which)
        self.acked, self.events, self.longest = [], [], 0.0
        self.stopping = threading.Event()
        self.lease = self.client.lease(ttl)
        self.client.put("live/leased", "x", lease=self.lease)
        self.client.add_watch_prefix_callback("live/n", self.watched)
        self.thread = threading.Thread(target=self.write, daemon=True)
        self.thread.start()

    def watched(self, answer):
        self.events += [(e.key, e.mod_revision) for e in getattr(answer, "events", [])]

    def write(self):
        while not self.stopping.is_set():
            key, start = f"live/n{len(self.acked):06d}", time.monotonic()
            while not self.put(key):
                pause_until(time.monotonic() + RETRY_S)
                if self.stopping.is_set():
                    return
            self.longest = max(self.longest, time.monotonic() - start)
            self.acked.append(key.encode())

    def put(self, key):
        try:
            self.client.put(key, key)
            self.lease.refresh()
            return True
        except (exceptions.Etcd3Exception, etcd3.etcdrpc.rpc_pb2_grpc.grpc.RpcError):
            return False

    def more(self, count):
        target = len(self.acked) + count
        wait_until(lambda: len(self.acked) >= target, f"{count} further writes")

    def verdict(self):
        """{lost, unseen, ordered, leaseTtl, longestMs}"""
        self.stopping.set()
        self.thread.join(CALL_S)
        held = {m.key for _, m in self.client.get_prefix("live/n")}
        wanted = set(self.acked)
        wait_until(lambda: wanted <= {k for k, _ in self.events}, "the watch to see every write")
        revisions = [r for _, r in self.events]
        return {"acked": len(self.acked), "lost": len(wanted - held),
                "unseen": len(wanted - {k for k, _ in self.events}),
                "ordered": revisions == sorted(set(revisions)),
                "leaseTtl": self.lease.remaining_ttl, "longestMs": int(self.longest * 1000)}
