#!/usr/bin/python3
"""Conclave beside Debian's etcd, in one run on one machine: the same requests by h2load, the same
million keys, the same `etcdctl check perf`. The systems take turns, so that what else the machine
does meets both; figures are medians of the rounds. Members talk over TLS on both sides (etcd: its
automatic one), clients in the clear; Conclave's disks are encrypted, etcd's are not."""
import argparse
import contextlib
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
from cluster import (DIE_WITH_PARENT, Cluster, Failure, Http, Test, free_port,  # noqa: E402
                     wait_until)

VALUE = b"v" * 256
KEY = b"compare/key"
LOADS = ("s", "m", "l", "xl")  # of etcdctl check perf
BATCH = 100  # keys in one transaction of the loader


# --- messages ------------------------------------------------------------------------------------

def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def put_request(key, value):
    return field(1, key) + field(2, value)


def range_request(key, serializable):
    return field(1, key) + (b"\x38\x01" if serializable else b"")


def framed(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


# --- the two systems -----------------------------------------------------------------------------

class Etcd:
    """Members of Debian's etcd, as many as asked for."""
    name = "etcd"

    def __init__(self, test, count):
        self.test, self.count = test, count
        self.ports = [(free_port(), free_port()) for _ in range(count)]
        self.processes = [None] * count
        self.everyone = ",".join(f"m{i}=https://127.0.0.1:{peer}"
                                 for i, (_, peer) in enumerate(self.ports))
        for i in range(count):
            self.start(i)
        self.wait()

    def data(self, i):
        return os.path.join(self.test.work, f"etcd{i}")

    def start(self, i):
        client, peer = self.ports[i]
        log = open(os.path.join(self.test.work, f"etcd{i}.log"), "ab")
        self.processes[i] = subprocess.Popen(
            [*DIE_WITH_PARENT, "etcd", "--name", f"m{i}", "--data-dir", self.data(i),
             "--listen-client-urls", f"http://127.0.0.1:{client}",
             "--advertise-client-urls", f"http://127.0.0.1:{client}",
             "--listen-peer-urls", f"https://127.0.0.1:{peer}",
             "--initial-advertise-peer-urls", f"https://127.0.0.1:{peer}", "--peer-auto-tls",
             "--initial-cluster", self.everyone, "--quota-backend-bytes", str(8 << 30),
             "--logger", "zap", "--log-level", "error"],
            stdout=log, stderr=log)
        log.close()

    def healthy(self, port):
        done = subprocess.run(["etcdctl", "--endpoints", f"127.0.0.1:{port}", "endpoint", "health"],
                              env=etcdctl_env(), capture_output=True, check=False)
        return done.returncode == 0

    def wait(self, seconds=120):
        for client, _ in self.ports:
            wait_until(lambda port=client: self.healthy(port), "etcd is healthy", seconds)

    def endpoints(self):
        return [client for client, _ in self.ports]

    def leader(self):
        for port in self.endpoints():
            done = subprocess.run(["etcdctl", "--endpoints", f"127.0.0.1:{port}", "endpoint",
                                   "status", "-w", "fields"], env=etcdctl_env(),
                                  capture_output=True, text=True, check=True)
            found = dict(re.findall(r'"(\w+)" : (\d+)', done.stdout))
            if found.get("Leader") == found.get("MemberID"):
                return port
        raise Failure("etcd has no leader")

    def pids(self):
        return [p.pid for p in self.processes]

    def restart(self, i):
        self.processes[i].terminate()
        self.processes[i].wait()
        self.start(i)

    def snapshot(self, i, file):
        subprocess.run(["etcdctl", "--endpoints", f"127.0.0.1:{self.ports[i][0]}", "snapshot",
                        "save", file], env=etcdctl_env(), capture_output=True, check=True)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Conclave:
    """Managers, as many as asked for."""
    name = "conclave"

    def __init__(self, test, count):
        self.test = test
        self.cluster = Cluster(test, "abcdefg"[:count], ("--quota-backend-bytes", str(8 << 30)))
        self.managers = list(self.cluster)
        if count > 1:
            self.cluster.wait_voters(count)

    def endpoints(self):
        return [m.client for m in self.managers]

    def leader(self):
        return self.cluster.leader().client

    def pids(self):
        return [m.process.pid for m in self.managers]

    def restart(self, i):
        self.managers[i].stop()
        self.managers[i].start()
        self.managers[i].wait_running(120)

    def wait(self, seconds=120):
        for manager in self.managers:
            manager.wait_running(seconds)

    def snapshot(self, i, file):
        subprocess.run(["etcdctl", "--endpoints", f"127.0.0.1:{self.managers[i].client}",
                        "snapshot", "save", file], env=etcdctl_env(), capture_output=True,
                       check=True)

    def stop(self):
        for manager in self.managers:
            manager.kill()


def etcdctl_env():
    return {**os.environ, "ETCDCTL_API": "3"}


# --- speed ---------------------------------------------------------------------------------------

def h2load(port, path, body, clients, streams, seconds):
    """(requests a second, mean latency in us, failed)"""
    done = subprocess.run(
        ["h2load", "-c", str(clients), "-m", str(streams), "-D", str(seconds), "--warm-up-time=1",
         "-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers",
         f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True)
    rate = float(re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)[1])
    failed = int(re.search(r"requests: .*? (\d+) failed", done.stdout)[1])
    failed += int(re.search(r"requests: .*? (\d+) errored", done.stdout)[1])
    mean = re.search(r"time for request: +\S+ +\S+ +(\S+)", done.stdout)[1]
    return rate, microseconds(mean), failed


def failed_calls(port):
    """Calls of the KV service that were refused; h2load sees only HTTP's own status. Cancelled are
    those that it leaves open when its time is up."""
    with contextlib.closing(Http(port)) as http:
        _, text = http.raw("GET", "/metrics")
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.decode().splitlines()
               if line.startswith("grpc_server_handled_total")
               and not re.search(r'grpc_code="(OK|Canceled)"', line)
               and 'grpc_service="etcdserverpb.KV"' in line)


def microseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


CASES = (
    ("put", "/etcdserverpb.KV/Put", put_request(KEY, VALUE), "leader"),
    ("put, follower", "/etcdserverpb.KV/Put", put_request(KEY, VALUE), "follower"),
    ("range linearizable", "/etcdserverpb.KV/Range", range_request(KEY, False), "leader"),
    ("range linearizable, follower", "/etcdserverpb.KV/Range", range_request(KEY, False),
     "follower"),
    ("range serializable", "/etcdserverpb.KV/Range", range_request(KEY, True), "leader"),
)
LOADS_H2 = (("-c 10 -m 32", 10, 32), ("one client", 1, 1))


def port_of(system, where):
    leader = system.leader()
    if where == "leader":
        return leader
    return next(port for port in system.endpoints() if port != leader)


def speed(test, options):
    systems = [Etcd(test, 3), Conclave(test, 3)]
    bodies = {}
    for name, _, message, _ in CASES:
        bodies[name] = os.path.join(test.work, f"{name.replace(' ', '-')}.body")
        with open(bodies[name], "wb") as file:
            file.write(framed(message))
    for system in systems:
        h2load(system.leader(), CASES[0][1], bodies["put"], 1, 1, 1)
    print(f"{'':30}{'load':14}{'etcd':>12}{'conclave':>12}{'ratio':>8}")
    for name, path, _, where in CASES:
        for load, clients, streams in LOADS_H2:
            compare_case(systems, options, (name, path, bodies[name], where),
                         (load, clients, streams))
    for system in systems:
        system.stop()


def compare_case(systems, options, case, load):
    name, path, body, where = case
    found = {system.name: [] for system in systems}
    for _ in range(options.rounds):
        for system in systems:
            port = port_of(system, where)
            failed = -failed_calls(port)
            rate, mean, errors = h2load(port, path, body, *load[1:], options.seconds)
            failed += failed_calls(port) + errors
            if failed > 0 and system.name == "etcd":  # its figure stands, with a word
                print(f"etcd refused {failed:.0f} requests of {name}", file=sys.stderr)
            elif failed > 0:
                raise Failure(f"{system.name}: {failed:.0f} requests of {name} failed")
            found[system.name].append((rate, mean))
    column = 0 if load[1] > 1 else 1
    etcd, ours = [statistics.median(r[column] for r in found[s.name]) for s in systems]
    unit = "/s" if column == 0 else " us"
    print(f"{name:30}{load[0]:14}{etcd:>10.0f}{unit}{ours:>10.0f}{unit}{ours / etcd:>7.2f}x",
          flush=True)


# --- etcdctl check perf --------------------------------------------------------------------------

def perf(test, options):
    for system in (Etcd(test, 3), Conclave(test, 3)):
        endpoints = ",".join(f"127.0.0.1:{port}" for port in system.endpoints())
        for load in options.loads.split(","):
            done = subprocess.run(["etcdctl", "--endpoints", endpoints, "check", "perf", "--load",
                                   load], env=etcdctl_env(), capture_output=True, text=True,
                                  check=False)
            lines = [line for line in re.split(r"[\r\n]", done.stdout + done.stderr)
                     if re.match(r"(PASS|FAIL|Slowest|Stddev|Throughput)", line)]
            verdict = lines or [f"no verdict: {done.stderr.strip()[-200:]}"]
            print(f"{system.name:10}{load:4}{'; '.join(verdict)}", flush=True)
        system.stop()


# --- a million keys ------------------------------------------------------------------------------

def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) / 1024


def value_of(i):
    return random.Random(i).randbytes(len(VALUE))  # nothing to be gained by compression


def load_keys(port, count):
    import grpc  # pylint: disable=import-outside-toplevel
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        txn = channel.unary_unary("/etcdserverpb.KV/Txn")
        waiting = []
        for first in range(0, count, BATCH):
            ops = b"".join(field(2, field(2, put_request(b"key/%016d" % i, value_of(i))))
                           for i in range(first, min(first + BATCH, count)))
            waiting.append(txn.future(ops))
            if len(waiting) >= 16:
                waiting.pop(0).result()
        for call in waiting:
            call.result()


def count_keys(port):
    import grpc  # pylint: disable=import-outside-toplevel
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = channel.unary_unary("/etcdserverpb.KV/Range")(
            field(1, b"key/") + field(2, b"key0") + b"\x48\x01")
    at = answer.index(b"\x20", answer[1] + 2) + 1  # count, behind the header
    number = shift = 0
    while True:
        number |= (answer[at] & 0x7f) << shift
        if answer[at] < 0x80:
            return number
        at, shift = at + 1, shift + 7


def seconds_of(action):
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def keys(test, options):
    rows = {}
    for make in (Etcd, Conclave):
        system = make(test, 1)
        port = system.endpoints()[0]
        filled = seconds_of(lambda port=port: load_keys(port, options.keys))
        loaded = resident_mib(system.pids()[0])
        file = os.path.join(test.work, f"{system.name}.snapshot")
        snapshot = seconds_of(lambda s=system, f=file: s.snapshot(0, f))

        def restarted(s=system, p=port):
            s.restart(0)
            s.wait()
            wait_until(lambda: count_keys(p) == options.keys, "all keys are there", 120)

        restart = seconds_of(restarted)
        again = resident_mib(system.pids()[0])
        rows[system.name] = (filled, loaded, snapshot, os.path.getsize(file) / 2**20, restart,
                             again)
        system.stop()
    names = ("filling, s", "resident, MiB", "snapshot, s", "snapshot, MiB",
             "restart until all is read, s", "resident after it, MiB")
    print(f"{options.keys} keys of 256 B{'':14}{'etcd':>12}{'conclave':>12}{'ratio':>8}")
    for name, etcd, ours in zip(names, rows["etcd"], rows["conclave"]):
        print(f"{name:34}{etcd:>12.1f}{ours:>12.1f}{ours / etcd:>7.2f}x")


# --- the command ---------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(prog="./dev bench compare", description=__doc__.split(":")[0])
    parser.add_argument("what", choices=("speed", "perf", "keys"),
                        help="h2load's requests, etcdctl check perf, or a million keys")
    parser.add_argument("--rounds", type=int, default=3, help="of speed (3)")
    parser.add_argument("--seconds", type=int, default=5, help="of one load of speed (5)")
    parser.add_argument("--loads", default=",".join(LOADS), help="of perf (s,m,l,xl)")
    parser.add_argument("--keys", type=int, default=1000000, help="of keys (1000000)")
    options = parser.parse_args()
    missing = [name for name in ("etcd", "etcdctl", "h2load") if not shutil.which(name)]
    if missing:
        sys.exit(f"compare: {', '.join(missing)} not found: ./dev deps installs it")
    with contextlib.closing(Test()) as test:
        {"speed": speed, "perf": perf, "keys": keys}[options.what](test, options)


if __name__ == "__main__":
    main()
