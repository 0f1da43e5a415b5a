"""curl at the JSON gateway. `CALLS` goes to etcd and to the other server alike; status and body
have to be the same once ids and terms are replaced. `Stream` is a curl that stays, line by line."""
import base64
import json
import os
import re
import subprocess
import threading

from cluster import expect, wait_until
import meant

CALL_S = 30
IDS = re.compile(r'"(cluster_id|member_id|raft_term|leader|raftIndex|raftTerm|raftAppliedIndex|'
                 r'dbSize|dbSizeInUse|version|hash|memberID|ID)":("[^"]*"|\d+)')


def b(data):
    return base64.b64encode(data).decode()


def options(servers):
    if not servers.tls:
        return []
    ca, cert, key = servers.tls
    return ["--cacert", ca, "--cert", cert, "--key", key]


def call(servers, path, body=None, which=0, headers=(), more=()):
    """(status, body) of a POST with JSON, or of a GET without a body."""
    words = ["curl", "-sS", "-w", "\n%{http_code}", "--max-time", str(CALL_S), *more,
             *options(servers)]
    for header in headers:
        words += ["-H", header]
    if body is not None:
        words += ["-X", "POST", "-d", body if isinstance(body, str) else json.dumps(body)]
    done = subprocess.run([*words, servers.urls[which] + path], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    expect(done.returncode == 0, f"curl {path}: {done.returncode} {done.stderr.decode()}")
    text, _, status = done.stdout.decode().rpartition("\n")
    return int(status), text


def good(servers, path, body, **more):
    status, text = call(servers, path, body, **more)
    expect(status == 200, f"{path}: {status} {text}")
    return json.loads(text)


def normal(text):
    return IDS.sub(r'"\1":0', text.strip())


KV = {"key": b(b"gw/a"), "value": b(b"one")}
CALLS = [
    ("/v3/kv/put", KV),
    ("/v3/kv/put", dict(KV, value=b(b"two"), prev_kv=True)),
    ("/v3/kv/put", {"key": b(b"gw/b"), "value": b(b"\0\xff")}),
    ("/v3/kv/put", {"key": b(b"gw/c")}),
    ("/v3/kv/range", {"key": b(b"gw/a")}),
    ("/v3/kv/range", {"key": b(b"gw/"), "range_end": b(b"gw0"), "sort_order": "DESCEND"}),
    ("/v3/kv/range", {"key": b(b"gw/"), "range_end": b(b"gw0"), "limit": "1"}),
    ("/v3/kv/range", {"key": b(b"gw/"), "range_end": b(b"gw0"), "limit": 2, "keys_only": True}),
    ("/v3/kv/range", {"key": b(b"gw/"), "rangeEnd": b(b"gw0"), "countOnly": True}),
    ("/v3/kv/range", {"key": b(b"gw/"), "range_end": b(b"gw0"), "sort_target": "VALUE",
                      "sort_order": 1}),
    ("/v3/kv/range", {"key": b(b"gw/a"), "revision": "2", "serializable": True}),
    ("/v3/kv/range", {"key": b(b"nothing")}),
    ("/v3beta/kv/range", {"key": b(b"gw/a")}),
    ("/v3/kv/txn", {"compare": [{"key": b(b"gw/a"), "target": "VALUE", "value": b(b"two")}],
                    "success": [{"request_put": {"key": b(b"gw/t"), "value": b(b"x")}},
                                {"requestRange": {"key": b(b"gw/a")}}],
                    "failure": [{"request_delete_range": {"key": b(b"gw/a")}}]}),
    ("/v3/kv/txn", {"compare": [{"key": b(b"gw/a"), "target": "CREATE", "result": "GREATER",
                                 "create_revision": "99999"}],
                    "failure": [{"request_txn": {"success": [
                        {"request_delete_range": {"key": b(b"gw/t"), "prev_kv": True}}]}}]}),
    ("/v3/kv/txn", {}),
    ("/v3/kv/deleterange", {"key": b(b"gw/b"), "prev_kv": True}),
    ("/v3/kv/deleterange", {"key": b(b"gw/b")}),
    ("/v3/kv/compaction", {"revision": "4", "physical": True}),
    ("/v3/lease/grant", {"ID": "4711", "TTL": "600"}),
    ("/v3/kv/put", {"key": b(b"gw/l"), "value": b(b"x"), "lease": "4711"}),
    ("/v3/kv/range", {"key": b(b"gw/l")}),
    ("/v3/lease/timetolive", {"ID": 4711, "keys": True}),
    ("/v3/lease/leases", {}),
    ("/v3/lease/keepalive", {"ID": "4711"}),
    ("/v3/lease/keepalive", {"ID": "4712"}),
    ("/v3/lease/revoke", {"ID": "4711"}),
    ("/v3/kv/lease/timetolive", {"ID": "4711"}),
    ("/v3/kv/lease/revoke", {"ID": "4711"}),
    ("/v3/maintenance/alarm", {"action": "GET"}),
    ("/v3/maintenance/alarm", {"action": "ACTIVATE", "memberID": "7", "alarm": "NOSPACE"}),
    ("/v3/kv/put", KV),
    ("/v3/maintenance/alarm", {"action": "DEACTIVATE", "memberID": "7", "alarm": "NOSPACE"}),
    ("/v3/maintenance/defragment", {}),
    ("/v3/maintenance/hash", {}),
    ("/v3/auth/role/add", {"name": "r"}),
    ("/v3/auth/role/grant", {"name": "r", "perm": {"permType": "READWRITE", "key": b(b"gw/"),
                                                   "range_end": b(b"gw0")}}),
    ("/v3/auth/role/get", {"role": "r"}),
    ("/v3/auth/role/revoke", {"role": "r", "key": b(b"gw/"), "range_end": b(b"gw0")}),
    ("/v3/auth/role/list", {}),
    ("/v3/auth/role/delete", {"role": "r"}),
    ("/v3/auth/user/add", {"name": "u", "password": "p"}),
    ("/v3/auth/user/get", {"name": "u"}),
    ("/v3/auth/user/changepw", {"name": "u", "password": "q"}),
    ("/v3/auth/user/list", {}),
    ("/v3/auth/user/grant", {"user": "u", "role": "none"}),
    ("/v3/auth/user/revoke", {"name": "u", "role": "none"}),
    ("/v3/auth/user/delete", {"name": "u"}),
    ("/v3/auth/authenticate", {"name": "u", "password": "p"}),
    ("/v3/auth/enable", {}),
    ("/v3/auth/disable", {}),
    ("/v3/lock/unlock", {"key": b(b"nobody's")}),
    ("/v3/election/leader", {"name": b(b"nobody")}),
    # what is wrong
    ("/v3/kv/put", {"value": b(b"x")}),
    ("/v3/kv/put", {"key": b(b"gw/n"), "ignore_value": True}),
    ("/v3/kv/put", {"key": b(b"gw/n"), "lease": "99"}),
    ("/v3/kv/range", {"key": b(b"gw/a"), "revision": "1"}),
    ("/v3/kv/range", {"key": b(b"gw/a"), "revision": "999999"}),
    ("/v3/kv/compaction", {"revision": "1"}),
    ("/v3/lease/revoke", {"ID": "4711"}),
    ("/v3/lease/grant", {"TTL": "9000000001"}),
    ("/v3/cluster/member/remove", {"ID": "4711"}),
    ("/v3/kv/range", {}),
]
# Requests that are no requests: the status and the code count, not how the JSON library puts it.
MALFORMED = ["{", "[]", "null", "", '{"key": 5}', '{"key": "!!"}', '{"nosuch": 1}',
             '{"limit": "x"}', '{"sort_order": "NONE OF THEM"}', '{"key":"YQ"}',
             '{"key": "YQ==", "limit": 1e400}', '{"key": "YQ=="} trailing',
             '{"key": "YQ==", "limit": 1.5}', '{"key": "-_8="}', '{"key": "+/8="}',
             '{"key": "YQ="}', '{"key": "YQ==", "range_end": "YQ=\\n="}']
PLACES = [("GET", "/v3/kv/range"), ("POST", "/v3/nosuch"), ("GET", "/nosuch"),
          ("PUT", "/v3/kv/put")]


def gateway(left, right):
    """Every call of the table, to both."""
    for path, body in CALLS:
        answers = [(s, normal(t)) for s, t in (call(left, path, body), call(right, path, body))]
        expect(same(*answers), f"{path} {json.dumps(body)}: etcd says {answers[0]}, the other "
               f"{answers[1]}")
    return len(CALLS)


def same(left, right):
    statuses = left[0], right[0]
    if statuses[0] != statuses[1] and not meant.later_status(*statuses, code_of(*left)[1]):
        return False
    try:
        left, right = json.loads(left[1]), json.loads(right[1])
        if "header" not in left and isinstance(right, dict):
            right.pop("header", None)  # of an answer about alarms, since etcd 3.5
        return left == right
    except ValueError:  # several values (a stream), or none
        return left[1] == right[1]


def malformed(left, right):
    for body in MALFORMED:
        found = [code_of(*call(s, "/v3/kv/range", body)) for s in (left, right)]
        expect(found[0] == found[1] or meant.later_base64(body, *found),
               f"range {body!r}: etcd says {found[0]}, the other {found[1]}")
    for method, path in PLACES:
        found = [call(s, path, more=["-X", method])[0] for s in (left, right)]
        expect(found[0] == found[1], f"{method} {path}: etcd {found[0]}, the other {found[1]}")


def code_of(status, text):
    try:
        answer = json.loads(text)
    except ValueError:
        return status, text
    return status, answer.get("code")


def pages(left, right):
    """/health, /version and /metrics, as probes and dashboards ask for them."""
    for servers in (left, right):
        status, text = call(servers, "/health")
        expect(status == 200 and json.loads(text)["health"] == "true", f"/health: {status} {text}")
        status, text = call(servers, "/version")
        expect(status == 200 and set(json.loads(text)) >= {"etcdserver", "etcdcluster"},
               f"/version: {status} {text}")
        status, text = call(servers, "/metrics")
        for name in ("etcd_server_has_leader 1", "etcd_server_leader_changes_seen_total",
                     "etcd_server_proposals_failed_total", "etcd_server_quota_backend_bytes",
                     "etcd_mvcc_db_total_size_in_bytes",
                     "etcd_disk_wal_fsync_duration_seconds_bucket",
                     "etcd_disk_backend_commit_duration_seconds_bucket",
                     "etcd_network_client_grpc_sent_bytes_total", "grpc_server_handled_total",
                     "grpc_server_started_total", "process_resident_memory_bytes"):
            expect(name in text, f"/metrics of {servers.kind} has no {name}")
        expect(status == 200, f"/metrics: {status}")


class Stream:
    """A curl that goes on; `lines` are what it has printed, as JSON."""

    def __init__(self, servers, path, body, which=0):
        words = ["curl", "-sSN", *options(servers), "-X", "POST", "-d", json.dumps(body)]
        self.process = subprocess.Popen([*words, servers.urls[which] + path],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        servers.test.undo.append(self.close)
        self.lines = []
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def until(self, count):
        wait_until(lambda: len(self.lines) >= count, f"{count} lines of a stream: {self.lines}")
        return self.lines

    def events(self):
        return [e for line in list(self.lines) for e in line["result"].get("events", [])]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def streams(left, right):
    """A watch and a lease's keep-alive, line by line, the same lines."""
    found = []
    for servers in (left, right):
        watch = Stream(servers, "/v3/watch", {"create_request": {
            "key": b(b"st/"), "range_end": b(b"st0"), "prev_kv": True}})
        watch.until(1)
        for value in (b"1", b"2"):
            good(servers, "/v3/kv/put", {"key": b(b"st/a"), "value": b(value)})
        good(servers, "/v3/kv/deleterange", {"key": b(b"st/a")})
        wait_until(lambda w=watch: len(w.events()) == 3, "three events")
        watch.close()
        old = Stream(servers, "/v3/watch", {"create_request": {
            "key": b(b"st/"), "range_end": b(b"st0"), "start_revision": "1"}})
        wait_until(lambda w=old: len(w.events()) == 3, "three events of the past")
        old.close()
        head = watch.lines[0]["result"]
        expect(head["created"] and "events" not in head, f"the first line {head}")
        found.append(watch.events() + old.events())
    expect(found[0] == found[1], f"etcd says {found[0]}, the other {found[1]}")


class Survivor:
    """Puts by curl, a process each, and a watch by another, through one member."""

    def __init__(self, servers, which, ttl):
        self.servers, self.which = servers, which
        self.acked, self.longest = [], 0
        good(servers, "/v3/lease/grant", {"ID": "99", "TTL": str(ttl)}, which=which)
        self.watch = Stream(servers, "/v3/watch", {"create_request": {
            "key": b(b"curl/"), "range_end": b(b"curl0")}}, which)
        self.watch.until(1)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.write, daemon=True)
        self.thread.start()

    def write(self):
        while not self.stopping.is_set():
            key = b"curl/%06d" % len(self.acked)
            status, _ = call(self.servers, "/v3/kv/put", {"key": b(key), "value": b(key)},
                             self.which)
            if status == 200:
                call(self.servers, "/v3/lease/keepalive", {"ID": "99"}, self.which)
                self.acked.append(key)

    def more(self, count):
        target = len(self.acked) + count
        wait_until(lambda: len(self.acked) >= target, f"{count} further writes")

    def verdict(self):
        self.stopping.set()
        self.thread.join(CALL_S)
        answer = good(self.servers, "/v3/kv/range", {"key": b(b"curl/"), "range_end": b(b"curl0")},
                      which=self.which)
        held = {kv["key"] for kv in answer["kvs"]}
        wanted = {b(key) for key in self.acked}
        wait_until(lambda: wanted <= {e["kv"]["key"] for e in self.watch.events()},
                   "the watch to see every write")
        revisions = [int(e["kv"]["mod_revision"]) for e in self.watch.events()]
        lease = good(self.servers, "/v3/lease/timetolive", {"ID": "99"}, which=self.which)
        self.watch.close()
        return {"acked": len(self.acked), "lost": len(wanted - held), "unseen": 0,
                "ordered": revisions == sorted(set(revisions)), "leaseTtl": int(lease["TTL"])}


def http2(servers):
    """The gateway over HTTP/2 too, where ALPN chooses it."""
    status, text = call(servers, "/version", more=["--http2", "-o", os.devnull,
                                                   "-w", "%{http_version}\n%{http_code}"])
    expect(status == 200 and text == "2", f"HTTP {text}: {status}")
