#!/usr/bin/python3
"""Every verb of Debian's etcdctl that talks to a server, run against etcd and against Conclave with
the same words: output, errors and exit codes have to be the same, once what names a server is
replaced. One member in plaintext, then three with certificates on both sides. `--against etcd`
compares etcd with a second etcd; further arguments are the parts to run."""
import argparse
import json
import os
import random
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from cluster import Failure, Manager, b64, expect, main, wait_until
from etcd_servers import KINDS, EtcdServers
from etcdctl import Both

LEASE = {"lease": r"lease ([0-9a-f]+) granted"}
LARGE_MIB = 40
SIZES = re.compile(r'"(dbSize|dbSizeInUse|raftIndex|raftAppliedIndex|version)":("[^"]*"|\d+)')


# --- keys and values -----------------------------------------------------------------------------

def show_put_get(ctl):
    ok = ctl.ok
    for key, value in (("foo", "bar"), ("foo1", "bar1"), ("foo2", "bar2"), ("foo3", "bar3"),
                       ("zoo", "zar"), ("empty", "")):
        ok("put", key, value)
    ok("put", "foo", "bar again", "--prev-kv")
    ok("put", "stdin", stdin="a value\nof two lines\n")
    ok("put", "--", "-dash", "-value")
    ok("put", "foo1", "--ignore-value")
    ctl("put", "nokey", "--ignore-value")
    ctl("put", "nokey", "--ignore-lease", "v")
    ctl("put", "k", "v", "--lease", "123abc")
    ctl("put")
    ctl("put", "a", "b", "c")
    ctl("put", "", "v")
    for form in ("simple", "json", "fields"):
        ctl("put", "form", form, "-w", form)
        ctl("get", "foo", "-w", form)
    for more in (["--prefix"], ["--from-key"], ["--prefix", "--limit", "2"], ["foo3"],
                 ["--prefix", "--keys-only"], ["--prefix", "--print-value-only"],
                 ["--prefix", "--order", "DESCEND", "--sort-by", "KEY"],
                 ["--prefix", "--sort-by", "MODIFY"], ["--prefix", "--sort-by", "CREATE"],
                 ["--prefix", "--sort-by", "VALUE", "--order", "DESCEND"],
                 ["--prefix", "--sort-by", "VERSION"], ["--rev", "3"], ["--rev", "9999"],
                 ["--consistency", "s"], ["--prefix", "--hex"], ["--prefix", "-w", "json"],
                 ["--prefix", "-w", "fields"], ["--sort-by", "NONSENSE"]):
        ctl("get", "foo", *more)
    ctl("get", "--prefix", "")
    ctl("get", "nosuch")
    ctl("get", "")
    ctl("get")


def show_del(ctl):
    ok = ctl.ok
    for i in range(6):
        ok("put", f"d{i}", f"v{i}")
    ok("del", "d0")
    ok("del", "d0")
    ok("del", "d1", "--prev-kv")
    ok("del", "d2", "d4", "-w", "json")
    ok("del", "d", "--prefix", "--prev-kv", "-w", "fields")
    ctl("del", "d", "--prefix", "--from-key")
    ctl("del", "")
    ok("put", "zz", "z")
    ok("del", "zz", "--from-key")


def show_txn(ctl):
    ctl.ok("put", "t", "v")
    for text in ('mod("t") > "0"\n\nput t2 "w"\nget t\n\nput t3 "x"\n\n',
                 'value("t") = "other"\n\nput t2 "w"\n\nget t\ndel t2\n\n',
                 'version("t") = "1"\ncreate("nosuch") = "0"\nlease("t") = "0"\n\nget t\n\n\n',
                 '\n\n\n', 'nonsense\n\n\n\n', '\nput a 1\nput a 2\n\n\n', '\nput t4 4\n\n\n'):
        ctl("txn", stdin=text)
        ctl("txn", "-w", "json", stdin=text)
    ctl("txn", "-i", stdin='mod("t") > "0"\n\nget t\n\n\n')


def show_compaction(ctl):
    for i in range(5):
        ctl.ok("put", "c", str(i))
    revision = ctl.revision()
    ctl("get", "c", "--rev", revision - 2)
    ctl.ok("compaction", revision - 1)
    ctl("compaction", revision - 1)
    ctl("compaction", revision + 100)
    ctl("compaction", "x")
    ctl("get", "c", "--rev", revision - 2)
    ctl("get", "c", "--rev", revision - 1)
    ctl.ok("compaction", revision, "--physical")


# --- watches and leases --------------------------------------------------------------------------

def show_watch(ctl):
    plain = ctl.begin("watch", "w")
    rich = ctl.begin("watch", "w", "--prefix", "--prev-kv", "-w", "json")
    talk = ctl.begin("watch", "-i")
    talk.tell("watch w --prefix\n")
    command = ctl.begin("watch", "w", "--", "sh", "-c", "echo saw $ETCD_WATCH_EVENT_TYPE")
    every = (plain, rich, talk, command)
    wait_until(lambda: began(ctl, every), "the watches to begin")
    ctl.ok("put", "w", "two")
    revision = ctl.revision()
    ctl.ok("put", "w1", "x")
    ctl.ok("del", "w", "--prefix")
    for running in every:
        wait_until(lambda at=running: told(at), f"{running.arguments} to tell the same")
        running.interrupt()
    old = ctl.begin("watch", "w", "--rev", revision, "--prefix")
    old.until(8)
    old.interrupt()
    ctl.ok("compaction", revision + 1)
    if len(ctl.sides[0].servers.addresses()) == 1:  # one that lags may not have compacted yet
        gone = ctl.begin("watch", "w", "--rev", revision)
        gone.end()
    ctl("watch")
    bad = ctl.begin("watch", "w", "--rev", revision + 2, "-w", "fields")
    bad.until(5)
    bad.interrupt()


def began(ctl, every):
    """Puts a key again and again, until every watch has seen it."""
    ctl.ok("put", "w", "probe")
    return all(running.raw(i).count("\n") for running in every for i in (0, 1))


def told(running):
    """The same, from the second value of w on to the deletion."""
    ends = []
    for i in (0, 1):
        said = running.output(i)
        at = max(said.find("two"), said.find("dHdv"))
        ends.append(said[at:] if at >= 0 else "")
    done = ends[0].count("DELETE") + ends[0].count('"type":1')
    expect(ends[0] == ends[1], f"etcd says {ends[0]!r}, the other {ends[1]!r}")
    return done >= (1 if running.arguments[-1] == "w" else 2)


def show_lease(ctl):
    ctl.ok("lease", "grant", 500, capture=LEASE)
    ctl.ok("put", "l1", "v", "--lease", "{lease}")
    ctl.ok("put", "l2", "v", "--lease", "{lease}")
    ctl.ok("get", "l1", "-w", "json")
    ctl.ok("put", "l2", "w", "--ignore-lease")
    ctl.ok("lease", "timetolive", "{lease}")
    ctl.ok("lease", "timetolive", "{lease}", "--keys",
           fold=lambda said: sorted(re.split(r"[ \[\]]", said)))
    ctl.ok("lease", "timetolive", "{lease}", "--keys", "-w", "json",
           fold=lambda said: sorted(re.split(r'[,\[\]]', said)))
    ctl.ok("lease", "list")
    ctl.ok("lease", "list", "-w", "json")
    ctl.ok("lease", "keep-alive", "--once", "{lease}")
    alive = ctl.begin("lease", "keep-alive", "{lease}")
    alive.until(1)
    alive.interrupt()
    ctl.ok("lease", "revoke", "{lease}")
    ctl("lease", "revoke", "{lease}")
    ctl("lease", "timetolive", "{lease}")
    ctl("lease", "keep-alive", "--once", "{lease}")
    ctl("get", "l", "--prefix")
    ctl("lease", "grant", "x")
    ctl("lease", "grant", "9000000001")
    ctl("lease", "revoke", "zz")
    ctl.ok("lease", "grant", 500, "-w", "json", capture={"lease": r'"ID":(\d+)'},
           fold=lambda said: re.sub(r'"ID":\d+', '"ID":0', said))


def show_lock(ctl):
    out = ctl.ok("lock", "mutex", "--", "sh", "-c", "echo held by $ETCD_LOCK_KEY | cut -c 1-14")
    expect(out == "held by mutex/\n", f"lock says {out!r}")
    ctl("lock", "mutex", "false")
    holder = ctl.begin("lock", "mutex")
    for i in (0, 1):
        wait_until(lambda at=i: "mutex/" in holder.raw(at), "the lock")
    waiter = ctl.begin("lock", "mutex", "echo", "mine")
    for side in ctl.sides:
        wait_until(lambda at=side: at.run(["get", "mutex", "--prefix", "--keys-only"])[1]
                   .count("mutex/") == 2, "the waiter to queue")
    expect(not waiter.output(0) and not waiter.output(1), "the waiter did not wait")
    holder.interrupt()
    expect(waiter.end() == (0, "mine\n"), "the waiter did not get the lock")


def show_elect(ctl):
    leader = ctl.begin("elect", "chair", "alice")
    for i in (0, 1):
        wait_until(lambda at=i: "alice" in leader.raw(at), "the election")
    listener = ctl.begin("elect", "-l", "chair")
    for i in (0, 1):
        wait_until(lambda at=i: "alice" in listener.raw(at), "the observer to see alice")
    rival = ctl.begin("elect", "chair", "bob")
    for side in ctl.sides:
        wait_until(lambda at=side: at.run(["get", "chair", "--prefix", "--keys-only"])[1]
                   .count("chair/") == 2, "the rival to queue")
    expect(not rival.output(0) and not rival.output(1), "the rival did not wait")
    leader.interrupt()
    for i in (0, 1):
        wait_until(lambda at=i: "bob" in rival.raw(at), "bob to be elected")
        wait_until(lambda at=i: "bob" in listener.raw(at), "the observer to see bob")
    rival.interrupt()
    listener.interrupt()


# --- the cluster ---------------------------------------------------------------------------------

def show_members(ctl):
    def fold(out):  # all but id, name and the peers' address
        lines = [line.split(", ") for line in out.splitlines()]
        return sorted((len(f), f[1], f[4:]) for f in lines)
    ctl.ok("member", "list", fold=fold)
    ctl("member", "list", "-w", "fields", fold=lambda out: re.findall(r'"(\w+)" :', out))
    for side in ctl.sides:
        members = json.loads(side.run(["member", "list", "-w", "json"])[1])["members"]
        expect(len(members) == len(side.servers.addresses()), f"{members}")
        for member in members:
            expect(member["name"] and member["peerURLs"] and member["clientURLs"], f"{member}")
    ctl("member", "remove", "12345")
    ctl("member", "remove", "nothex")
    ctl("member", "update", "12345", "--peer-urls", "http://127.0.0.1:1")
    ctl("member", "promote", "12345")
    ctl("member", "add", "x")
    ctl("member", "add", "x", "--peer-urls", "nonsense")


def show_learner(ctl):
    """A learner that never comes: listed, moved, not promoted, removed. Not here: a member is added
    by its own request with a join token, and who asks for it otherwise is told so."""
    if ctl.sides[1].servers.kind == "conclave":
        code, _, error = ctl.sides[1].run(["member", "add", "late", "--learner", "--peer-urls",
                                           "http://127.0.0.1:9"])
        expect(code != 0 and "join token" in error, f"member add: {code} {error}")
        return
    heads = []
    for side, out in zip(ctl.sides, ctl.patiently("member", "add", "late", "--learner",
                                                  "--peer-urls", "http://127.0.0.1:9")):
        side.vars["late"] = re.match(r"Member\s+([0-9a-f]+) added", out).group(1)
        heads.append(side.normal(out).split("\n\n")[0])
    expect(heads[0] == heads[1], f"member add: {heads}")
    ctl("member", "add", "twice", "--learner", "--peer-urls", "http://127.0.0.1:9")
    ctl("member", "promote", "{late}")
    ctl.ok("member", "update", "{late}", "--peer-urls", "http://127.0.0.1:10")
    for side in ctl.sides:
        line = [t for t in side.run(["member", "list"])[1].splitlines() if side.vars["late"] in t]
        expect(line and "127.0.0.1:10" in line[0], f"{line}")
    ctl.ok("member", "remove", "{late}")
    ctl("member", "remove", "{late}")


def show_endpoints(ctl):
    for more in ([], ["-w", "json"], ["--cluster"]):
        for side in ctl.sides:
            code, out, error = side.run(["endpoint", "health", *more])
            text = out + error
            expect(code == 0 and "unhealthy" not in text and "healthy" in text
                   or '"health":true' in text, f"endpoint health {more}: {code} {text}")
    shapes = [status_shape(side.run(["endpoint", "status", "-w", "json"])[1])
              for side in ctl.sides]
    expect(shapes[0] == shapes[1], f"status: etcd has {shapes[0]}, the other {shapes[1]}")
    ctl.ok("endpoint", "status", "-w", "fields", fold=lambda out: re.findall(r'"(\w+)" :', out))
    ctl.ok("endpoint", "status", fold=lambda out: sorted(columns(t) for t in out.splitlines()))
    # Values hold ids of leases: the hash is the same on all members, not on both clusters.
    ctl.ok("endpoint", "hashkv", fold=lambda said: re.sub(r", \d+", ", HASH", said))
    for side in ctl.sides:
        hashes = re.findall(r", (\d+)", side.run(["endpoint", "hashkv"])[1])
        expect(len(set(hashes)) == 1, f"hashes {hashes}")
    for side in ctl.sides:
        rows = json.loads(side.run(["endpoint", "status", "-w", "json"])[1])
        leaders = {row["Status"]["leader"] for row in rows}
        ids = {row["Status"]["header"]["member_id"] for row in rows}
        expect(len(ids) == len(rows), f"ids {ids} of {len(rows)} members")
        expect(len(leaders) == 1 and leaders <= ids, f"leaders {leaders} of {ids}")
        for row in rows:
            expect(row["Status"]["dbSize"] > 0, f"dbSize of {row}")
            expect(re.fullmatch(r"3\.\d+\.\d+", row["Status"]["version"]), f"version of {row}")


def columns(line):
    """Of the status: where, who, whether it leads and whether it is a learner."""
    fields = line.split(", ")
    return len(fields), fields[0], fields[1]


def status_shape(out):
    """Which fields each endpoint's status has; those of later releases may be there too."""
    later = {"storageVersion", "dbSizeQuota", "downgradeInfo"}
    return [(sorted(row["Status"]["header"]), sorted(set(row["Status"]) - later))
            for row in json.loads(out)]


def show_maintenance(ctl):
    ctl.ok("alarm", "list")
    ctl.ok("alarm", "disarm")
    ctl.ok("defrag")
    ctl.ok("defrag", "--cluster", fold=lambda out: sorted(out.splitlines()))
    for i, side in enumerate(ctl.sides):
        path = os.path.join(ctl.test.work, f"snapshot{i}")
        code, out, error = side.run(["--endpoints", side.servers.urls[0], "snapshot", "save", path])
        expect(code == 0 and out == f"Snapshot saved at {path}\n",
               f"snapshot: {code} {out} {error}")
        expect(os.path.getsize(path) > 0, "the snapshot is empty")


def fill(servers):
    """A state that is larger than what a snapshot holds of it at once, and can't be packed."""
    for i in range(LARGE_MIB):
        value = random.Random(i).randbytes(1 << 20)
        servers.ask(0, "Put", servers.pb.PutRequest(key=b"large/%d" % i, value=value), seconds=30)


def show_restore(ctl):
    """What etcdctl saved becomes a cluster of its own; here it is sealed, and the key is apart."""
    side = ctl.sides[1]
    ctl.ok("put", "restored", "with its revision")
    for each in ctl.sides:
        fill(each.servers)
    if side.servers.kind != "conclave":
        return
    old, path = side.servers.cluster[0], os.path.join(ctl.test.work, f"saved{ctl.commands}")
    code, _, error = side.run(["--endpoints", side.servers.urls[0], "snapshot", "save", path])
    expect(code == 0, f"snapshot: {code} {error}")
    code, key, error = old.cli("backup-key")
    expect(code == 0, f"backup-key: {code} {error}")
    with open(path + ".key", "w", encoding="ascii") as file:
        file.write(key)
    new = Manager(ctl.test, f"restored{ctl.commands}")
    code, _, error = new.cli("restore", path, "--key-file", path + ".key", "--name", new.name,
                             "--client", new.endpoint, "--peer", new.peer_address)
    expect(code == 0, f"restore: {code} {error}")
    new.start()
    new.wait_running()
    everything = {"key": b64(b"\0"), "range_end": b64(b"\0")}
    found, kept = (m.socket().call("POST", "/v3/kv/range", everything)["kvs"] for m in (new, old))
    expect(b64(b"restored") in (kv["key"] for kv in found) and found == kept,
           f"{len(found)} keys, {len(kept)} before, or other values or revisions")
    new.kill()
    ctl.ok("del", "large/", "--prefix")


def show_alarm(ctl):
    """An alarm that a client raises stops puts, and a disarm lets them go on."""
    for side in ctl.sides:
        pb = side.servers.pb
        side.servers.ask(0, "Alarm", pb.AlarmRequest(action=1, memberID=4660, alarm=1))
    ctl.ok("alarm", "list")
    ctl("put", "full", "v")
    ctl("lease", "grant", "100")
    ctl("endpoint", "health", fold=lambda said: sorted(said.splitlines()))
    ctl.ok("del", "full")
    ctl.ok("alarm", "disarm")
    ctl.ok("put", "full", "v")


def show_mirror(ctl):
    """What is there and what comes arrives, prefixes changed, in another etcd."""
    ctl.ok("put", "mirror/a", "1")
    ctl.ok("put", "mirror/b", "2")
    copies = [EtcdServers(ctl.test) for _ in ctl.sides]
    paths = [os.path.join(ctl.test.work, f"mirror{i}") for i in (0, 1)]
    mirrors = [side.begin(["make-mirror", "--prefix", "mirror/", "--dest-prefix", "copy/",
                           "--dest-insecure-transport", copy.addresses()[0]], path)
               for side, copy, path in zip(ctl.sides, copies, paths)]
    try:
        for copy in copies:
            wait_until(lambda at=copy: held(at) == {b"copy/a": b"1", b"copy/b": b"2"}, "the base")
        ctl.ok("put", "mirror/c", "3")
        ctl.ok("del", "mirror/a")
        for copy in copies:
            wait_until(lambda at=copy: held(at) == {b"copy/b": b"2", b"copy/c": b"3"}, "updates")
    finally:
        for mirror in mirrors:
            mirror.kill()
            mirror.wait()
        for copy in copies:
            copy.close()


def held(servers):
    pb = servers.pb
    answer = servers.ask(0, "Range", pb.RangeRequest(key=b"\0", range_end=b"\0"))
    return {kv.key: kv.value for kv in answer.kvs}


def show_move_leader(ctl):
    for side in ctl.sides:
        servers = side.servers
        at = servers.leader()
        to = (at + 1) % len(servers.addresses())
        status = servers.ask(to, "Status", servers.pb.StatusRequest())
        target = f"{status.header.member_id:x}"
        code, out, error = side.run(["--endpoints", ",".join(servers.urls), "move-leader", target])
        expect(code == 0 and "Leadership transferred from" in out, f"{code} {out} {error}")
        wait_until(lambda s=servers, t=to: s.leader() == t, "the other to lead")
        code, out, error = side.run(["--endpoints", servers.urls[at], "move-leader", target])
        expect(code != 0 and "no leader endpoint" in out + error, f"{code} {out} {error}")
    ctl("move-leader", "nothex")


# --- users ---------------------------------------------------------------------------------------

def show_auth(ctl):
    ok = ctl.ok
    ctl("auth", "enable")
    ok("user", "add", "root:rootpw")
    ctl("user", "add", "root:again")
    ok("user", "add", "alice", "--interactive=false", stdin="alicepw\n")
    ok("user", "add", "nopw", "--no-password")
    ctl("user", "add", "")
    ok("user", "list")
    ok("role", "add", "root")
    ok("role", "add", "reader")
    ctl("role", "add", "reader")
    for words in (["read", "a"], ["write", "b", "d"], ["readwrite", "p/", "--prefix=true"],
                  ["read", "f", "--from-key=true"]):
        ok("role", "grant-permission", "reader", *words)
    ctl("role", "grant-permission", "nosuch", "read", "a")
    ctl("role", "grant-permission", "reader", "nonsense", "a")
    ok("role", "get", "reader")
    ok("role", "get", "reader", "-w", "json")
    ctl("role", "get", "nosuch")
    ok("role", "list")
    ok("user", "grant-role", "root", "root")
    ok("user", "grant-role", "alice", "reader")
    ctl("user", "grant-role", "alice", "nosuch")
    ok("user", "get", "alice")
    ok("user", "get", "alice", "--detail")
    ctl("user", "get", "nosuch")
    ok("put", "a", "of a")
    ok("put", "e", "of e")
    ok("auth", "enable")
    root, alice = ["--user", "root:rootpw"], ["--user", "alice:alicepw"]
    ctl("get", "a")
    ok("get", "a", *alice)
    ctl("get", "e", *alice)
    ctl("put", "a", "x", *alice)
    ok("put", "b", "x", *alice)
    ctl("put", "b", "x", "--prev-kv", *alice)
    ok("put", "p/x", "x", *alice)
    ok("get", "p/", "--prefix", *alice)
    ctl("get", "", "--prefix", *alice)
    ctl("del", "p/", "--prefix", *alice)
    ctl("watch", "e", *alice)
    ctl("get", "a", "--user", "alice:wrong")
    ctl("get", "a", "--user", "nobody:x")
    ctl("get", "a", "--user", "nopw:")
    ctl("user", "list", *alice)
    ctl("role", "add", "x", *alice)
    ok("user", "passwd", "alice", "--interactive=false", *root, stdin="newpw\n")
    ctl("get", "a", *alice)
    ok("get", "a", "--user", "alice", "--password", "newpw")
    ok("role", "revoke-permission", "reader", "a", *root)
    ctl("role", "revoke-permission", "reader", "a", *root)
    ctl("get", "a", "--user", "alice:newpw")
    ok("user", "revoke-role", "alice", "reader", *root)
    ctl("user", "revoke-role", "alice", "reader", *root)
    ctl("user", "delete", "root", *root)
    ctl("user", "revoke-role", "root", "root", *root)
    ok("user", "delete", "alice", *root)
    ctl("user", "delete", "alice", *root)
    ok("role", "delete", "reader", *root)
    ctl("role", "delete", "reader", *root)
    ok("endpoint", "health", *root, fold=lambda out: "")
    ok("auth", "disable", *root)
    ok("get", "a")
    ok("user", "delete", "nopw")
    ok("user", "delete", "root")
    ok("role", "delete", "root")


def show_check(ctl):
    """The two checks of etcdctl, a minute each; what they print is shown."""
    loads = os.environ.get("CONCLAVE_CHECK_LOADS", "s").split(",")
    for load in loads:
        for kind in ("perf", "datascale"):
            for side in ctl.sides:
                code, out, error = side.run(["check", kind, "--load", load, "--auto-compact"],
                                            seconds=CHECK_S)
                lines = [t for t in out.splitlines() if re.match("PASS|FAIL|Approx|Start", t)]
                print(f"    {side.servers.kind}: check {kind} {load}: " + "; ".join(lines))
                expect(code == 0 and "FAIL" not in out, f"check {kind} {load}: {out} {error}")


PARTS = {"put_get": show_put_get, "del": show_del, "txn": show_txn, "compaction": show_compaction,
         "watch": show_watch, "lease": show_lease, "lock": show_lock, "elect": show_elect,
         "members": show_members, "endpoints": show_endpoints, "maintenance": show_maintenance,
         "restore": show_restore,
         "alarm": show_alarm, "mirror": show_mirror, "move_leader": show_move_leader,
         "auth": show_auth, "learner": show_learner}
THREE_ONLY = {"move_leader"}
PLAINTEXT_ONLY = {"auth"}  # a certificate is a user in etcd, and may be an operator's here
ON_REQUEST = {"check": show_check}
CHECK_S = 300


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", choices=sorted(KINDS), default="conclave")
    parser.add_argument("part", nargs="*", metavar="PART", help=", ".join(PARTS) +
                        "; only on request: " + ", ".join(ON_REQUEST))
    found = parser.parse_args()
    if set(found.part) - set(PARTS) - set(ON_REQUEST):
        parser.error("no such part; --help names them")
    return found


def run_all(test):
    options = arguments()
    for size, tls, words in ((1, False, "one member, plaintext"),
                             (3, True, "three members, mutual TLS")):
        parts = [p for p in options.part or PARTS if
                 p not in (PLAINTEXT_ONLY if tls else THREE_ONLY)]
        if not parts:
            continue
        sides = [KINDS[kind](test, size, tls) for kind in ("etcd", options.against)]
        ctl = Both(test, *sides)
        for part in parts:
            with test.show(f"{part}, {words}"):
                ctl.sides[0].find_names(), ctl.sides[1].find_names()
                (PARTS.get(part) or ON_REQUEST[part])(ctl)
        print(f"{ctl.commands} commands, {words}")
        for side in sides:
            side.close()


if __name__ == "__main__":
    main(run_all)
