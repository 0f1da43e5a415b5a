#!/usr/bin/python3
"""A command that takes longer to apply than an election time-out, three members: they are busy, not
dead, so nobody is elected in the leader's place, what was written meanwhile is acknowledged, and
all of them have the same state afterwards. On a fast machine the command is made longer, until it
is long enough."""
import collections
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import Failure, expect, main, wait_until
from etcd_servers import ConclaveServers

KEYS = 150000  # of the first try; each other one has twice as many
TRIES = 5
BATCH = 128  # operations of one transaction
AHEAD = 32   # transactions under way
LONG_S = 0.45  # half as much again as an election time-out
PREFIX, END = b"long/", b"long0"


def fill(servers, count, lease):
    pb, rpc = servers.pb, servers.rpc(0)
    under_way = collections.deque()
    for first in range(0, count, BATCH):
        puts = [pb.RequestOp(request_put=pb.PutRequest(key=PREFIX + b"%09d" % i, lease=lease))
                for i in range(first, min(first + BATCH, count))]
        under_way.append(rpc.start("Txn", pb.TxnRequest(success=puts)))
        while len(under_way) > AHEAD:
            under_way.popleft().result()
    while under_way:
        under_way.popleft().result()
    rpc.close()


def terms(servers):
    """[(term, leader)] as the members see them."""
    found = []
    for which in range(3):
        rpc = servers.rpc(which)
        status = rpc.must("Status", servers.pb.StatusRequest())
        found.append((status.raftTerm, status.leader))
        rpc.close()
    return found


class Writer(threading.Thread):
    """Puts one key after the other through one member; what fails, and the longest wait."""

    def __init__(self, servers, which):
        super().__init__(daemon=True)
        self.pb, self.rpc = servers.pb, servers.rpc(which)
        self.over, self.n, self.failed, self.longest = threading.Event(), 0, [], 0
        self.start()

    def run(self):
        while not self.over.is_set():
            begin = time.monotonic()
            _, error = self.rpc.call("Put", self.pb.PutRequest(key=b"other", value=b"%d" % self.n))
            self.longest = max(self.longest, time.monotonic() - begin)
            self.n += 1
            if error:
                self.failed.append(error)

    def end(self):
        self.over.set()
        self.join()
        self.rpc.close()
        return self


def through(servers, what, act):
    """act(), with writers at all members; nothing about leadership changes. Whether it took longer
    than an election time-out."""
    before = terms(servers)
    expect(len(set(before)) == 1, f"no one leader before it: {before}")
    writers = [Writer(servers, which) for which in range(3)]
    wait_until(lambda: all(w.n for w in writers), "writes at each member")
    act()
    for writer in writers:
        writer.end()
    failed = [error for w in writers for error in w.failed]
    longest = max(w.longest for w in writers)
    print(f"# {what}: the longest write beside it took {longest:.2f} s, {sum(w.n for w in writers)}"
          " were made")
    expect(not failed, f"writes failed: {failed[:3]}")
    after = terms(servers)
    expect(after == before, f"leadership went from {before} to {after}")
    return longest > LONG_S


def tries(servers, act):
    """act(number of keys), until it was long."""
    for i in range(TRIES):
        if act(servers, KEYS << i):
            return
    raise Failure(f"even with {KEYS << (TRIES - 1)} keys it is over at once")


def revoke(servers, count):
    pb, rpc = servers.pb, servers.rpc(1)
    lease = rpc.must("LeaseGrant", pb.LeaseGrantRequest(TTL=3600)).ID
    fill(servers, count, lease)
    long = through(servers, f"revoking a lease of {count} keys",
                   lambda: rpc.must("LeaseRevoke", pb.LeaseRevokeRequest(ID=lease)))
    rpc.close()
    return long


def delete(servers, count):
    pb, rpc = servers.pb, servers.rpc(1)
    fill(servers, count, 0)
    deleted = []
    long = through(servers, f"deleting {count} keys", lambda: deleted.append(
        rpc.must("DeleteRange", pb.DeleteRangeRequest(key=PREFIX, range_end=END)).deleted))
    expect(deleted == [count], f"{deleted} were deleted")
    rpc.close()
    return long


def hashes(servers):
    found = set()
    for which in range(3):
        rpc = servers.rpc(which)
        answer = rpc.must("HashKV", servers.pb.HashKVRequest())
        found.add((answer.hash, answer.compact_revision, answer.header.revision))
        rpc.close()
    return found


def run(test):
    servers = ConclaveServers(test, 3)
    with test.show("a lease with very many keys is revoked, and the leader stays"):
        tries(servers, revoke)
    with test.show("very many keys are deleted at once, and the leader stays"):
        tries(servers, delete)
    with test.show("afterwards all members have the same state"):
        wait_until(lambda: len(hashes(servers)) == 1, "equal hashes")
    servers.close()


if __name__ == "__main__":
    main(run)
