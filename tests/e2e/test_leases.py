#!/usr/bin/python3
"""Leases, locks, elections and auto-compaction, through real clients against a cluster of three:
what runs out does so on time, what is kept alive stays, whoever is asked; and nobody loses a lease
because a leader died, stood still, or came back. With --against etcd Debian's etcd stands where
Conclave would, in what both can do; of that it fails `leader_stopped`. CONCLAVE_LEASES is the
number of leases of the storm."""
import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import expect, main, pause_until, wait_until
from etcd_servers import ConclaveServers, EtcdServers

MANY = int(os.environ.get("CONCLAVE_LEASES", "10000"))
TTL_S = 2
LATE_S = 1.5       # after its time a lease is gone (a busy machine included)
STALL_MAX_MS = 50  # of a write beside an expiry storm; on a busy machine only the median says it
TICKS = os.sysconf("SC_CLK_TCK")


class Member:
    """One member's calls, and what a test asks of leases."""

    def __init__(self, servers, which):
        self.pb, self.rpc, self.which = servers.pb, servers.rpc(which), which

    def close(self):
        self.rpc.close()

    def ask(self, method, **fields):
        return self.rpc.must(method, getattr(self.pb, method + "Request")(**fields), seconds=10)

    def grant(self, ttl, lease=0, **fields):
        return self.ask("LeaseGrant", TTL=ttl, ID=lease, **fields)

    def put(self, key, lease=0):
        return self.ask("Put", key=key, value=b"v", lease=lease)

    def count(self, prefix):
        return self.ask("Range", key=prefix, range_end=prefix + b"\xff", count_only=True).count

    def left(self, lease, keys=False):
        return self.ask("LeaseTimeToLive", ID=lease, keys=keys)

    def renew(self, lease):
        """One keep-alive; the TTL that it gave."""
        stream = self.rpc.stream("LeaseKeepAlive")
        stream.send(self.pb.LeaseKeepAliveRequest(ID=lease))
        answer = stream.take(10)
        stream.close()
        expect(answer is not None, f"a keep-alive through member {self.which} ended: "
                                   f"{stream.error}")
        return answer.TTL


class Keeper(threading.Thread):
    """Keeps leases alive through any member, as a client does: every third of the TTL, going on to
    the next member when one does not answer."""

    def __init__(self, servers, leases, ttl, first=0):
        super().__init__(daemon=True)
        self.servers, self.leases, self.ttl = servers, leases, ttl
        self.at, self.over, self.lost = first, threading.Event(), []
        self.start()

    def run(self):
        stream = None
        while not self.over.is_set():
            if stream is None:
                self.at = (self.at + 1) % len(self.servers.addresses())
                rpc = self.servers.rpc(self.at)
                stream = rpc.stream("LeaseKeepAlive")
            if not self.round(stream):
                stream.close()
                rpc.close()
                stream = None
                continue
            self.over.wait(self.ttl / 3)

    def round(self, stream):
        for lease in self.leases:
            stream.send(self.servers.pb.LeaseKeepAliveRequest(ID=lease))
        deadline = time.monotonic() + self.ttl / 3
        for _ in self.leases:
            try:
                answer = stream.take(max(0.001, deadline - time.monotonic()))
            except Exception:  # pylint: disable=broad-except
                return False
            if answer is None:
                return False
            if answer.TTL <= 0:
                self.lost.append(answer.ID)
        return True

    def finish(self):
        self.over.set()
        self.join()


@contextlib.contextmanager
def members_of(servers):
    members = [Member(servers, which) for which in servers.running()]
    try:
        yield members
    finally:
        for member in members:
            member.close()


def gone_after(member, prefix, since, what):
    """Until no key begins so; seconds since then."""
    wait_until(lambda: member.count(prefix) == 0, what, 30)
    return time.monotonic() - since


def expiry(servers):
    with members_of(servers) as members:
        for member in members:
            prefix = b"expiry%d/" % member.which
            began = time.monotonic()
            lease = member.grant(TTL_S)
            expect(lease.ID > 0 and lease.TTL == TTL_S, f"granted {lease}")
            for key in (b"a", b"b", b"c"):
                put = member.put(prefix + key, lease.ID)
            seconds = gone_after(members[0], prefix, began, "the keys to go")
            expect(TTL_S - 0.01 <= seconds <= TTL_S + LATE_S, f"the keys went after {seconds} s")
            now = members[0].ask("Range", key=prefix)
            expect(now.header.revision == put.header.revision + 1, "not all in one revision")
            expect(member.left(lease.ID).TTL == -1, "the lease is still there")
            expect(member.renew(lease.ID) == 0, "a lease that is gone was renewed")


def kept_alive(servers):
    with members_of(servers) as members:
        for member in members:
            prefix = b"kept%d/" % member.which
            lease = member.grant(TTL_S).ID
            member.put(prefix, lease)
            for _ in range(6):
                pause_until(time.monotonic() + TTL_S / 2)
                expect(member.renew(lease) == TTL_S, f"not renewed through {member.which}")
            began = time.monotonic()
            expect(member.count(prefix) == 1, "the key is gone although it was kept alive")
            seconds = gone_after(member, prefix, began, "the key to go")
            expect(TTL_S - 0.2 <= seconds <= TTL_S + LATE_S, f"the key went after {seconds} s")


def asked_anywhere(servers):
    with members_of(servers) as members:
        lease = members[0].grant(500).ID
        members[0].put(b"anywhere/b", lease)
        members[-1].put(b"anywhere/a", lease)
        for member in members:
            left = member.left(lease, keys=True)
            expect(497 <= left.TTL <= 500 and left.grantedTTL == 500, f"{left}")
            expect(sorted(left.keys) == [b"anywhere/a", b"anywhere/b"], f"{left.keys}")
            listed = [row.ID for row in member.ask("LeaseLeases").leases]
            expect(lease in listed, f"member {member.which} lists {listed}")
            expect(member.left(987654321).TTL == -1, "a lease that isn't there has time")
            expect(member.renew(987654321) == 0, "a lease that isn't there was renewed")
        members[-1].ask("LeaseRevoke", ID=lease)
        expect(members[0].count(b"anywhere/") == 0, "revoked, but the keys are there")


def leader_killed(servers):
    """The new leader gives all leases their whole time; those kept alive don't notice."""
    with members_of(servers) as members:
        unattended, attended = members[0].grant(4).ID, members[0].grant(TTL_S).ID
        members[0].put(b"killed/u", unattended)
        members[0].put(b"killed/a", attended)
        began = time.monotonic()
        keeper = Keeper(servers, [attended], TTL_S)
        leader = servers.leader()
        pause_until(began + 3)
        servers.kill(leader)
        killed = time.monotonic()
    try:
        with members_of(servers) as members:
            extended(members[0], killed)
            expect(members[0].count(b"killed/a") == 1 and not keeper.lost, "a kept lease was lost")
            members[0].ask("LeaseRevoke", ID=attended)
    finally:
        keeper.finish()
        servers.start(leader)
        servers.wait_ready()


def extended(member, killed):
    pause_until(killed + 3)
    there = wait_until(lambda: member.count(b"killed/u") + 1, "a new leader") - 1
    expect(there == 1, "the new leader did not extend the lease")
    seconds = gone_after(member, b"killed/u", killed, "the unattended key to go")
    expect(4 <= seconds <= 4 + 3 + LATE_S, f"it went {seconds} s after the kill")


def process_of(servers, which):
    etcd = servers.kind == "etcd"
    return servers.processes[which] if etcd else servers.cluster[which].process


def stop_process(servers, which, seconds):
    process = process_of(servers, which)
    os.kill(process.pid, signal.SIGSTOP)
    pause_until(time.monotonic() + seconds)
    os.kill(process.pid, signal.SIGCONT)


def leader_stopped(servers):
    """A leader that was stopped for longer than the TTL comes back and takes nobody's lease."""
    with members_of(servers) as members:
        leases = [members[0].grant(TTL_S).ID for _ in range(20)]
        for lease in leases:
            members[0].put(b"stopped/%d" % lease, lease)
        keeper = Keeper(servers, leases, TTL_S)
        for _ in range(3):
            pause_until(time.monotonic() + TTL_S / 2)
            stop_process(servers, servers.leader(), 2 * TTL_S)
        pause_until(time.monotonic() + 2 * TTL_S)
        there = members[0].count(b"stopped/")
        keeper.finish()
        expect(there == len(leases) and not keeper.lost,
               f"{there} of {len(leases)} leases are left, {len(keeper.lost)} keep-alives failed")
        for lease in leases:
            members[0].ask("LeaseRevoke", ID=lease)


def lone_stopped(servers):
    """The same for a member that is alone: its clients could not reach it, so they have the time
    back (but a third of a second)."""
    with members_of(servers) as members:
        lease = members[0].grant(TTL_S).ID
        members[0].put(b"lone/", lease)
        stop_process(servers, 0, 3 * TTL_S)
        expect(members[0].renew(lease) == TTL_S, "the lease was taken when it woke")
        expect(members[0].count(b"lone/") == 1, "the key is gone")
        began = time.monotonic()
        seconds = gone_after(members[0], b"lone/", began, "the key to go")
        expect(seconds <= TTL_S + LATE_S, f"the key went after {seconds} s")


def sub_second(servers):
    """A TTL in milliseconds, which etcd has not."""
    with members_of(servers) as members:
        for member in members:
            began = time.monotonic()
            lease = member.grant(0, ttl_ms=400)
            expect(lease.TTL == 1 and lease.ttl_ms == 400, f"granted {lease}")
            member.put(b"short/", lease.ID)
            left = member.left(lease.ID)
            expect(left.granted_ms == 400 and left.ttl_ms <= 400, f"{left}")
            seconds = gone_after(member, b"short/", began, "the key to go")
            expect(0.39 <= seconds <= 0.4 + LATE_S, f"the key went after {seconds} s")


# --- real clients ---------------------------------------------------------------------------------

def python_client(servers):
    import etcd3  # pylint: disable=import-outside-toplevel
    for address in servers.addresses():
        host, port = address.split(":")
        client = etcd3.client(host=host, port=int(port))
        lease = client.lease(TTL_S)
        client.put("python", "v", lease)
        for _ in range(3):
            pause_until(time.monotonic() + TTL_S / 2)
            expect(lease.refresh()[0].TTL == TTL_S, "not refreshed")
        expect(lease.granted_ttl == TTL_S and 0 <= lease.remaining_ttl <= TTL_S, "times")
        expect(lease.keys == [b"python"], f"keys {lease.keys}")
        lease.revoke()
        expect(client.get("python")[0] is None, "revoked, but the key is there")
        with client.lock("python-lock", ttl=5) as lock:
            expect(lock.is_acquired(), "not locked")


def etcdctl(servers):
    ends = ",".join(servers.urls)
    environment = dict(os.environ, **servers.environment())

    def run(*words):
        done = subprocess.run(["etcdctl", "--endpoints", ends, *words], env=environment, timeout=30,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        return done.stdout
    lease = run("lease", "grant", "300").split()[1]
    expect(run("put", "etcdctl", "v", "--lease", lease).strip() == "OK", "put")
    expect("granted with TTL(300s)" in run("lease", "timetolive", lease, "--keys"), "timetolive")
    expect(f"lease {lease} keepalived with TTL(300)" in run("lease", "keep-alive", "--once", lease),
           "keep-alive")
    expect(lease in run("lease", "list"), "list")
    expect(f"lease {lease} revoked" in run("lease", "revoke", lease), "revoke")
    expect("requested lease not found" in run("lease", "revoke", lease), "revoked twice")
    expect("already expired" in run("lease", "timetolive", lease), "timetolive of nothing")
    expect("expired or revoked" in run("lease", "keep-alive", lease), "keep-alive of nothing")
    words = run("lock", "etcdctl-lock", "echo", "have it")
    expect("have it" in words, f"lock: {words}")


# --- locks and elections --------------------------------------------------------------------------

def locks(servers):
    """In the order in which they came, through all members; a holder whose lease runs out and a
    waiter that leaves give way."""
    with members_of(servers) as members:
        pb, first = servers.pb, members[0]
        dying = first.grant(TTL_S).ID
        held = first.ask("Lock", name=b"lock", lease=dying)
        expect(held.key == b"lock/%x" % dying, f"the key {held.key}")
        waiting, keys = [], []
        for n, member in enumerate(members * 2):
            lease = member.grant(60).ID
            keys.append(b"lock/%x" % lease)
            waiting.append(member.rpc.start("Lock", pb.LockRequest(name=b"lock", lease=lease)))
            wait_until(lambda n=n: first.count(b"lock/") == n + 2, "a waiter to queue up")
        waiting[1].cancel()
        wait_until(lambda: first.ask("Range", key=keys[1]).count == 0, "his key to go")
        del waiting[1], keys[1]
        for future, key in zip(waiting, keys):
            expect(future.result(timeout=TTL_S + 10).key == key, "another one has the lock")
            expect(not any(f.done() for f in waiting[waiting.index(future) + 1:]), "two have it")
            first.ask("Unlock", key=key)
        expect(first.count(b"lock/") == 0, "keys are left")
        own = first.ask("Lock", name=b"own")
        first.ask("Unlock", key=own.key)


def elections(servers):
    with members_of(servers) as members:
        pb, first, last = servers.pb, members[0], members[-1]
        service = first.rpc.channel.unary_stream(
            "/v3electionpb.Election/Observe",
            request_serializer=pb.LeaderRequest.SerializeToString,
            response_deserializer=pb.LeaderResponse.FromString)
        seen = []
        observing = service(pb.LeaderRequest(name=b"chair"), timeout=60)

        def observe():
            with contextlib.suppress(Exception):
                for answer in observing:
                    seen.append(answer.kv.value)
        threading.Thread(target=observe, daemon=True).start()
        leases = [first.grant(60).ID, last.grant(60).ID]
        one = first.ask("Campaign", name=b"chair", lease=leases[0], value=b"one").leader
        expect(one.key == b"chair/%x" % leases[0] and one.lease == leases[0], f"{one}")
        rival = last.rpc.start("Campaign", pb.CampaignRequest(name=b"chair", lease=leases[1],
                                                              value=b"two"))
        wait_until(lambda: first.count(b"chair/") == 2, "the rival to queue up")
        first.ask("Proclaim", leader=one, value=b"still one")
        expect(last.ask("Leader", name=b"chair").kv.value == b"still one", "another leader")
        wait_until(lambda: b"still one" in seen, "the observer to see it")
        expect(not rival.done(), "two lead")
        first.ask("LeaseRevoke", ID=leases[0])
        two = rival.result(timeout=10).leader
        wait_until(lambda: seen and seen[-1] == b"two", "the observer to see the next one")
        _, error = first.rpc.call("Proclaim", pb.ProclaimRequest(leader=one, value=b"x"))
        expect(error == ("UNKNOWN", "election: not leader"), f"the old one proclaims: {error}")
        last.ask("Resign", leader=two)
        _, error = first.rpc.call("Leader", pb.LeaderRequest(name=b"chair"))
        expect(error == ("UNKNOWN", "election: no leader"), f"nobody leads: {error}")
        expect(seen in ([b"one", b"still one", b"two"], [b"still one", b"two"]), f"seen {seen}")
        observing.cancel()


# --- many -----------------------------------------------------------------------------------------

def cost_of(servers, which):
    """Resident KiB and seconds of processor time of a member."""
    process = process_of(servers, which)
    with open(f"/proc/{process.pid}/status") as file:
        rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return rss, (int(fields[11]) + int(fields[12])) / TICKS


def all_of(member, method, requests, window=500):
    """Many calls with some of them under way at once."""
    begun = []
    for request in requests:
        begun.append(member.rpc.start(method, request))
        if len(begun) >= window:
            begun.pop(0).result()
    for future in begun:
        future.result()


def probe(member, until):
    """Writes one after the other; how long each took, in ms."""
    times, n = [], 0
    while not until():
        began = time.monotonic()
        member.put(b"probe")
        times.append((time.monotonic() - began) * 1000)
        n += 1
    return sorted(times)


def storm(servers):
    """Many leases: what they cost, being kept alive, and all running out at once."""
    with members_of(servers) as members:
        pb, first = servers.pb, members[0]
        leader = servers.leader()
        before, _ = cost_of(servers, leader)
        ttl = 30
        all_of(first, "LeaseGrant", [pb.LeaseGrantRequest(ID=i + 1, TTL=ttl) for i in range(MANY)])
        granted, _ = cost_of(servers, leader)
        all_of(first, "Put", [pb.PutRequest(key=b"storm/%06d" % i, value=b"v", lease=i + 1)
                              for i in range(MANY)])
        _, cpu = cost_of(servers, leader)
        stream = members[-1].rpc.stream("LeaseKeepAlive")
        began = time.monotonic()
        for n in range(2):
            for i in range(MANY):
                stream.send(pb.LeaseKeepAliveRequest(ID=i + 1))
            for i in range(MANY):
                expect(stream.take(30).TTL == ttl, "a keep-alive failed")
        rate = 2 * MANY / (time.monotonic() - began)
        _, after = cost_of(servers, leader)
        stream.close()
        print(f"    {MANY} leases: {(granted - before) / MANY * 1024:.0f} bytes each, keep-alives "
              f"{rate:.0f}/s at {(after - cpu) / (2 * MANY) * 1e6:.1f} us of the leader's CPU each",
              flush=True)
        calm = time.monotonic() + 2
        quiet = probe(first, lambda: time.monotonic() > calm)
        wait_until(lambda: first.count(b"storm/") < MANY, "the first to run out", ttl + 10)
        began = time.monotonic()
        _, cpu = cost_of(servers, leader)
        watch = Member(servers, 0)
        over = threading.Event()

        def watching():
            wait_until(lambda: watch.count(b"storm/") == 0, "all to run out", 60)
            over.set()
        threading.Thread(target=watching, daemon=True).start()
        beside = probe(first, over.is_set)
        seconds = time.monotonic() - began
        _, after = cost_of(servers, leader)
        watch.close()
        print(f"    all ran out within {seconds:.2f} s, {after - cpu:.2f} s of the leader's CPU; "
              f"writes beside it: median {beside[len(beside) // 2]:.1f}, longest "
              f"{beside[-1]:.1f} ms (before: {quiet[len(quiet) // 2]:.1f}, {quiet[-1]:.1f})",
              flush=True)
        expect(beside[len(beside) // 2] < STALL_MAX_MS, "the storm stalls the writes")
        left = [row.ID for row in first.ask("LeaseLeases").leases if row.ID <= MANY]
        expect(not left, f"{len(left)} leases are left")


def compaction(test):
    servers = ConclaveServers(test, 3, options=("--auto-compaction-retention", "2s"))
    with members_of(servers) as members:
        first = members[0]
        revision = first.put(b"compacted").header.revision
        for _ in range(3):
            first.put(b"compacted")

        def compacted():
            request = servers.pb.RangeRequest(key=b"compacted", revision=revision)
            return all(m.rpc.call("Range", request)[1] ==
                       ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted")
                       for m in members)
        expect(not compacted(), "compacted at once")
        wait_until(compacted, "the history to be compacted", 10)
        expect(first.ask("Range", key=b"compacted").kvs[0].version == 4, "the key has changed")
    servers.close()


BOTH = [expiry, kept_alive, asked_anywhere, leader_killed, leader_stopped, python_client, etcdctl,
        locks, elections, storm]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    names = [scene.__name__ for scene in [*BOTH, sub_second, lone_stopped, compaction]]
    parser.add_argument("parts", nargs="*", metavar="PART", help="of: " + " ".join(names))
    parser.add_argument("--against", choices=["conclave", "etcd"], default="conclave")
    found = parser.parse_args()
    for part in found.parts:
        if part not in names:
            parser.error(f"no part {part}")
    return found


def run(test):
    options = arguments()
    etcd = options.against == "etcd"
    chosen = [s for s in [*([] if etcd else [sub_second]), *BOTH]
              if not options.parts or s.__name__ in options.parts]
    if chosen:
        servers = (EtcdServers if etcd else ConclaveServers)(test, 3)
        for scene in chosen:
            with test.show(scene.__name__):
                scene(servers)
        servers.close()
    if etcd:
        return
    if not options.parts or "lone_stopped" in options.parts:
        with test.show("lone_stopped"):
            lone_stopped(ConclaveServers(test, 1))
    if not options.parts or "compaction" in options.parts:
        with test.show("compaction"):
            compaction(test)


if __name__ == "__main__":
    main(run)
