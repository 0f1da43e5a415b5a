#!/usr/bin/python3
"""Clients that others wrote, unchanged: Debian's python3-etcd3, the npm package etcd3 (run by node)
and curl on the JSON gateway. One member and three, plaintext and certificates on both sides; on
three members the leader is killed (kill -9) while each of them writes, watches and keeps a lease:
nothing acknowledged is lost and no event is missing. What curl gets is compared with what etcd
says. `--against etcd` runs all of it on etcd itself; further arguments are the clients to run."""
import argparse
import json
import os
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
LIB = os.path.join(HERE, "..", "lib")
for folder in (LIB, os.path.join(HERE, "..", "compare")):
    sys.path.insert(0, folder)
from cluster import expect, main, wait_until
from etcd_servers import KINDS, EtcdServers
import client_curl
import client_python
import npm_packages
from npm_packages import NPM

NODE_S = 120
LEASE_TTL_S = 15
BEFORE, AFTER = 20, 40  # writes that a client has to get through around a kill


# --- node ----------------------------------------------------------------------------------------

def node(servers, mode, **more):
    config = {"hosts": servers.urls, "ttl": LEASE_TTL_S}
    if servers.tls:
        config.update(zip(("ca", "cert", "key"), servers.tls))
    return subprocess.Popen(["node", "client.js", json.dumps(config), mode], cwd=NPM, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env=dict(os.environ, NODE_NO_WARNINGS="1"), **more)


def show_npm(test, servers, words):
    process = node(servers, "features", stdin=subprocess.DEVNULL)
    try:
        out, _ = process.communicate(timeout=NODE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        out += "not ok npm etcd3: still running"
    for line in out.splitlines():
        with test.show(f"npm etcd3, {line.split(':')[0].split()[-1]}, {words}"):
            expect(line.startswith("ok "), line)


class NodeSurvivor:
    """The same as the survivors in Python, in node."""

    def __init__(self, servers, _, ttl):
        expect(ttl == LEASE_TTL_S, "the lease's time")
        self.process = node(servers, "survive", stdin=subprocess.PIPE)
        servers.test.undo.append(self.process.kill)
        self.lines = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def acked(self):
        found = [int(t.split()[1]) for t in list(self.lines) if t.startswith("acked ")]
        return found[-1] if found else 0

    def more(self, count):
        target = self.acked() + count
        wait_until(lambda: self.acked() >= target, f"{count} further writes: {self.lines[-3:]}")

    def verdict(self):
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        self.process.wait(NODE_S)
        wait_until(lambda: self.lines and self.lines[-1][:1] in "{n", "node's verdict")
        expect(self.lines[-1].startswith("{"), self.lines[-1])
        return json.loads(self.lines[-1])


# --- python --------------------------------------------------------------------------------------

def show_python(test, servers, words):
    # The thread of a closed client's watches ends with an exception.
    threading.excepthook = lambda args: None
    client = client_python.connect(servers)
    for feature in client_python.FEATURES:
        name = f"python3-etcd3, {feature.__name__}, {words}"
        if feature is client_python.locks and client_python.LOCK_BROKEN:
            test.skip(name, client_python.LOCK_BROKEN)
            continue
        with test.show(name):
            feature(client, servers)
    client.close()


# --- curl ----------------------------------------------------------------------------------------

def show_curl(test, servers, words):
    pair = [EtcdServers(test), KINDS[servers.kind](test, len(servers.addresses()),
                                                   bool(servers.tls))]
    for part in (client_curl.streams, client_curl.gateway, client_curl.malformed,
                 client_curl.pages):
        with test.show(f"curl, {part.__name__}, {words}"):
            part(*pair)
    if servers.tls:
        with test.show(f"curl, HTTP/2, {words}"):
            client_curl.http2(servers)
    for one in pair:
        one.close()


# --- a leader dies -------------------------------------------------------------------------------

SURVIVORS = {"python": client_python.Survivor, "curl": client_curl.Survivor, "npm": NodeSurvivor}
SHOWS = {"python": show_python, "curl": show_curl, "npm": show_npm}


def show_kill(test, servers, clients, words):
    """The leader dies, all go on without it, and it comes back."""
    leader = servers.leader()
    with test.show(f"the leader is killed and {', '.join(clients)} go on, {words}"):
        alive = [i for i in servers.running() if i != leader]
        survivors = {c: SURVIVORS[c](servers, alive[0], LEASE_TTL_S) for c in clients}
        for survivor in survivors.values():
            survivor.more(BEFORE)
        servers.kill(leader)
        for survivor in survivors.values():
            survivor.more(AFTER)
        servers.start(leader)
        servers.wait_ready()
        bad = []
        for name, survivor in survivors.items():
            found = survivor.verdict()
            print(f"    {name}: {found}")
            if found["lost"] or found["unseen"] or not found["ordered"] or found["leaseTtl"] <= 0:
                bad.append(f"{name}: {found}")
        expect(not bad, "; ".join(bad))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", choices=sorted(KINDS), default="conclave")
    parser.add_argument("--size", type=int, choices=(1, 3), action="append")
    parser.add_argument("client", nargs="*", metavar="CLIENT", help=", ".join(SHOWS))
    found = parser.parse_args()
    if set(found.client) - set(SHOWS):
        parser.error("the clients are " + ", ".join(SHOWS))
    return found


def run_all(test):
    options = arguments()
    clients = options.client or list(SHOWS)
    missing = npm_packages.install() if "npm" in clients else ""
    if missing:
        test.skip("npm etcd3", missing)
        clients.remove("npm")
    release = subprocess.run(["etcd", "--version"], capture_output=True, text=True,
                             check=True).stdout.split()[2]
    if "curl" in clients and not release.startswith("3.4."):
        test.skip("curl", f"its answers are held against those of etcd 3.4; {release} is here")
        clients.remove("curl")
    for size in options.size or (1, 3):
        for tls in (False, True):
            words = f"{'three members' if size == 3 else 'one member'}, " \
                    f"{'mutual TLS' if tls else 'plaintext'}"
            servers = KINDS[options.against](test, size, tls)
            for client in clients:
                SHOWS[client](test, servers, words)
            if size == 3:
                show_kill(test, servers, clients, words)
            servers.close()


if __name__ == "__main__":
    main(run_all)
