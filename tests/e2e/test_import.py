#!/usr/bin/python3
"""conclave import: the keys of a running etcd, with their revisions and leases."""
import contextlib
import json
import os
import subprocess
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import DIE_WITH_PARENT, Cluster, Refused, b64, expect, free_port, main, wait_until

KEYS = 1100  # more than one page
LARGE = bytes(range(256)) * 4096  # 1 MiB of any bytes


class Etcd:
    """What the test says to etcd, whose gateway answers in chunks."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"

    def call(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def put(self, key, value):
        return self.call("/v3/kv/put", {"key": b64(key), "value": b64(value)})


def start_etcd(test):
    client, peer = free_port(), free_port()
    log = open(os.path.join(test.work, "etcd.log"), "wb")
    process = subprocess.Popen(
        [*DIE_WITH_PARENT, "etcd", "--data-dir", os.path.join(test.work, "etcd"),
         "--listen-client-urls", f"http://127.0.0.1:{client}",
         "--advertise-client-urls", f"http://127.0.0.1:{client}",
         "--listen-peer-urls", f"http://127.0.0.1:{peer}"],
        stdout=log, stderr=log)
    test.undo.append(process.kill)
    etcd = Etcd(client)
    wait_until(lambda: etcd.call("/v3/kv/range", {"key": b64(b"x")}), "etcd to answer")
    return client, etcd


def fill(etcd):
    for i in range(KEYS):  # one by one: the order within a transaction is not told by etcd's API
        etcd.put(b"k%05d" % i, b"v%d" % i)
    for i in range(0, KEYS, 7):
        etcd.put(b"k%05d" % i, b"again")
    etcd.call("/v3/kv/deleterange", {"key": b64(b"k00100"), "range_end": b64(b"k00200")})
    etcd.put(b"large", LARGE)
    etcd.put(b"\xff\x00odd", b"")
    etcd.call("/v3/lease/grant", {"ID": "7587899109268646179", "TTL": "600"})
    return etcd.call("/v3/kv/put", {"key": b64(b"leased"), "value": b64(b"x"),
                                            "lease": "7587899109268646179"})


def same_hash(etcd, ours):
    """HashKV, by etcdctl, since etcd 3.4 has no path for it."""
    def ask(port):
        done = subprocess.run(["etcdctl", "--endpoints", f"127.0.0.1:{port}", "endpoint", "hashkv"],
                              env=dict(os.environ, ETCDCTL_API="3"), capture_output=True, text=True,
                              check=True)
        return done.stdout.split(", ")[1]
    return ask(etcd) == ask(ours)


def run(test):
    port, etcd = start_etcd(test)
    revision = int(fill(etcd)["header"]["revision"])
    cluster = Cluster(test, "abc")
    follower = cluster.followers()[0]
    with test.show("an empty cluster takes keys, leases and revisions over"):
        code, out, err = follower.cli("import", f"http://127.0.0.1:{port}")
        expect(code == 0, f"exit {code}: {err}")
        count = KEYS - 100 + 3
        expect(out == f"{count} keys and 1 leases imported as of revision {revision}, with their "
                      "revisions\n", out)
        etcd.call("/v3/kv/compaction", {"revision": str(revision)})
        for manager in cluster:
            wait_until(lambda m=manager: same_hash(port, m.client), "the hashes to agree")
    with test.show("a key has the lease that it had, and its value to the byte"):
        with contextlib.closing(follower.http()) as http:
            expect(http.get(b"large") == LARGE, "the large value differs")
            kv = http.call("POST", "/v3/kv/range", {"key": b64(b"leased")})["kvs"][0]
            expect(kv.get("lease") == "7587899109268646179", str(kv))
            ttl = http.call("POST", "/v3/lease/timetolive", {"ID": "7587899109268646179"})
            expect(int(ttl["TTL"]) > 0, str(ttl))
    with test.show("an import that was broken off can be begun again"):
        code, out, err = follower.cli("import", f"http://127.0.0.1:{port}")
        expect(code == 0, f"exit {code}: {err}")
    with test.show("older revisions are gone, newer ones go on"):
        with contextlib.closing(follower.http()) as http:
            try:
                http.call("POST", "/v3/kv/range", {"key": b64(b"large"),
                                                   "revision": str(revision - 3)})
                expect(False, "an older revision was read")
            except Refused as refused:
                expect("compacted" in refused.message, str(refused))
            after = http.put(b"large", b"small")
            expect(int(after["header"]["revision"]) == revision + 1, str(after))
    with test.show("into a cluster that has keys they go as puts, when that is asked for"):
        code, out, err = follower.cli("import", f"http://127.0.0.1:{port}")
        expect(code != 0 and "--as-puts" in err, f"exit {code}: {err}")
        code, out, err = follower.cli("import", f"http://127.0.0.1:{port}", "--as-puts")
        expect(code == 0, f"exit {code}: {err}")
        with contextlib.closing(follower.http()) as http:
            expect(http.get(b"large") == LARGE, "the large value differs")
    with test.show("nothing at the address, and something else there, are clear errors"):
        code, _, err = follower.cli("import", f"http://127.0.0.1:{free_port()}")
        expect(code != 0 and "refused" in err, err)
        code, _, err = follower.cli("import", "ftp://127.0.0.1:1")
        expect(code == 64 and "http://HOST:PORT" in err, f"{code}: {err}")
    cluster.wait_same()


main(run)
