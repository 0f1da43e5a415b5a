#!/usr/bin/python3
"""Docker's own clients, unchanged, against the Engine API: the real docker command on three
managers and two workers, each in a network namespace of its own; python3-docker and the npm package
dockerode through their own calls; docker over mutual TLS. What each is told is what Swarm would
tell: outputs, errors, states. Arguments choose parts: cli, tls, external, python, node."""
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from cluster import DIE_WITH_PARENT, Http, Refused, expect, free_port, main, wait_until
from docker_cli import Node, find_docker
import npm_packages
from netns import Network

NODE_S = 150
SETTLE_S = 45  # for a node to take another role, or to be missed
ROTATE_S = 90


def pick(output, prefix):
    """The word that begins so."""
    for word in output.split():
        if word.startswith(prefix):
            return word
    raise AssertionError(f"no {prefix} in {output!r}")


def until_nodes(node, what, seconds=SETTLE_S, **wanted):
    """Until `docker node ls` shows these: name=(status, availability, manager status)."""
    def same():
        rows = node.nodes()
        seen = {n: (r["Status"], r["Availability"], r["ManagerStatus"]) for n, r in rows.items()}
        for name, row in wanted.items():
            if row is None:
                expect(name not in seen, f"{name} is there: {seen}")
                continue
            expect(name in seen, f"{name} is missing: {seen}")
            for is_so, want in zip(seen[name], row):
                expect(want is None or is_so in want, f"{name}: {seen}")
        return True
    return wait_until(same, what, seconds)


READY = (("Ready",), ("Active",), None)
MANAGER = (("Ready",), ("Active",), ("Reachable", "Leader"))
WORKER = (("Ready",), ("Active",), ("",))


# --- the docker command --------------------------------------------------------------------------

class Cli:
    """Three managers a, b, c and two workers d, e, made by docker alone."""

    def __init__(self, test):
        self.test = test
        network = Network(test)
        self.all = [Node(test, f"node_{letter}") for letter in "abcde"]
        for node in self.all:
            network.place(node)
            node.begin()
        self.a, self.b, self.c, self.d, self.e = self.all
        self.network = network
        for node in self.all:
            wait_until(lambda n=node: os.path.exists(n.sock), f"{node.name}'s socket")

    def run(self):
        for step in (self.before, self.init, self.join, self.listing, self.labels, self.roles,
                     self.of_a_worker, self.settings, self.events, self.root, self.own_root,
                     self.tokens, self.locks, self.quorum, self.leaving, self.the_last,
                     self.late):
            with self.test.show(f"docker {step.__name__.replace('_', ' ')}: {step.__doc__}"):
                step()

    def before(self):
        """a node of no cluster says so"""
        expect(self.a.swarm()["LocalNodeState"] == "inactive", "not inactive")
        expect("Swarm: inactive" in self.a.ok("info"), "info")
        expect(os.stat(self.a.sock).st_mode & 0o777 == 0o600, "who may open the socket")
        expect("API version:" in self.a.ok("version"), "version")
        sentence = "This node is not a swarm manager. Use \"docker swarm init\""
        for words in (["node", "ls"], ["swarm", "join-token", "worker"], ["swarm", "ca"],
                      ["swarm", "unlock-key"], ["swarm", "update", "--autolock"]):
            self.a.refused(sentence, *words)
        self.a.refused("This node is not part of a swarm", "swarm", "leave")

    def init(self):
        """a cluster of one, and the way for others to join"""
        out = self.a.ok("swarm", "init", "--advertise-addr", self.a.host)
        expect("is now a manager" in out and f"{self.a.host}:2377" in out, out)
        self.worker_token = pick(out, "SWMTKN-1-")
        info = self.a.swarm()
        expect(info["LocalNodeState"] == "active" and info["ControlAvailable"], f"{info}")
        expect(info["NodeAddr"] == self.a.host and info["Managers"] == 1, f"{info}")
        expect(f"({info['NodeID']})" in out, out)
        self.a.refused("This node is already part of a swarm", "swarm", "init")
        text = self.a.ok("info")
        for line in ("Is Manager: true", "Managers: 1", "Expiry Duration: 3 months",
                     f"Node Address: {self.a.host}", f"{self.a.host}:2377"):
            expect(line in text, f"no {line!r} in {text}")

    def join(self):
        """two managers and two workers, each by the token of its role"""
        manager = self.a.ok("swarm", "join-token", "-q", "manager")
        worker = self.a.ok("swarm", "join-token", "-q", "worker")
        expect(worker == self.worker_token and manager != worker, "tokens")
        wrong = worker[:-25] + "0" * 25
        self.d.refused("Error response from daemon", "swarm", "join", "--token", wrong,
                       self.a.peer_address)
        other_root = f"SWMTKN-1-{'1' * 50}-{worker[-25:]}"
        self.d.refused("Error response from daemon", "swarm", "join", "--token", other_root,
                       self.a.peer_address)
        for node, token, role in ((self.b, manager, "manager"), (self.d, worker, "worker"),
                                  (self.c, manager, "manager"), (self.e, worker, "worker")):
            out = node.ok("swarm", "join", "--token", token, self.a.peer_address)
            expect(f"This node joined a swarm as a {role}." in out, out)
        self.d.refused("This node is already part of a swarm", "swarm", "join", "--token", worker,
                       self.a.peer_address)
        until_nodes(self.a, "five nodes", node_a=MANAGER, node_b=MANAGER, node_c=MANAGER,
                    node_d=WORKER, node_e=WORKER)

    def listing(self):
        """node ls, inspect and ps, from any manager"""
        for node in (self.a, self.b, self.c):
            rows = node.nodes()
            expect(len(rows) == 5, f"{rows}")
            expect([n for n, r in rows.items() if r["Self"]] == [node.name], f"{rows}")
            expect(sum(r["ManagerStatus"] == "Leader" for r in rows.values()) == 1, f"{rows}")
            expect(all(r["TLSStatus"] == "Ready" for r in rows.values()), f"{rows}")
        ids = {n: r["ID"] for n, r in self.a.nodes().items()}
        found = self.b.inspect("node_d")
        by_prefix = self.b.inspect(ids["node_d"][:9])
        expect(found["ID"] == ids["node_d"] == by_prefix["ID"], "found by name and id")
        expect(found["Status"]["State"] == "ready" and found["Status"]["Addr"] == self.d.host,
               f"{found['Status']}")
        described = found["Description"]
        expect(described["Hostname"] == "node_d" and described["Platform"]["OS"] == "linux"
               and described["Resources"]["NanoCPUs"] > 0
               and described["Engine"]["EngineVersion"], f"{described}")
        expect("ManagerStatus" not in found, f"{found}")
        status = self.b.inspect("self")["ManagerStatus"]
        expect(status["Addr"] == self.b.peer_address and status["Reachability"] == "reachable",
               f"{status}")
        pretty = self.a.ok("node", "inspect", "--pretty", "self")
        expect("Raft Status:" in pretty and "BEGIN CERTIFICATE" in pretty, pretty)
        expect(self.a.ok("node", "ps").startswith("ID"), "node ps")
        self.a.refused(("node nobody not found", "No such node: nobody"), "node", "inspect",
                       "nobody")
        workers = self.a.ok("node", "ls", "-q", "--filter", "role=worker").split()
        expect(sorted(workers) == sorted([ids["node_d"], ids["node_e"]]), f"{workers}")
        expect(self.a.ok("node", "ls", "-q", "--filter", "name=node_e") == ids["node_e"], "by name")
        by_id = self.a.ok("node", "ls", "-q", "--filter", f"id={ids['node_c'][:8]}")
        expect(by_id == ids["node_c"], by_id)
        self.a.refused("invalid filter 'color'", "node", "ls", "--filter", "color=red")

    def labels(self):
        """availability and labels, by any manager; a stale version is refused"""
        self.b.ok("node", "update", "--availability", "drain", "--label-add", "zone=1",
                  "--label-add", "disk=fast", "node_d")
        spec = self.a.inspect("node_d")["Spec"]
        expect(spec["Availability"] == "drain" and spec["Labels"] == {"zone": "1", "disk": "fast"},
               f"{spec}")
        self.a.ok("node", "update", "--availability", "pause", "--label-rm", "disk", "node_d")
        found = self.c.inspect("node_d")
        expect(found["Spec"]["Labels"] == {"zone": "1"}, f"{found['Spec']}")
        by_label = self.c.ok("node", "ls", "-q", "--filter", "node.label=zone=1")
        expect(by_label == found["ID"], by_label)
        self.a.ok("node", "update", "--availability", "active", "node_d")
        with contextlib.closing(Http(self.a.sock)) as http:
            path = f"/v1.44/nodes/{found['ID']}/update?version={found['Version']['Index']}"
            with contextlib.suppress(Refused):
                http.call("POST", path, found["Spec"], "Content-Type: application/json\r\n")
                raise AssertionError("a stale version was taken")
            status, text = http.raw("POST", path, json.dumps(found["Spec"]).encode(),
                                    "Content-Type: application/json\r\n")
            expect(status == 500 and b"update out of sequence" in text, f"{status} {text}")

    def roles(self):
        """promote and demote: the node really becomes one, and is a worker again"""
        out = self.a.ok("node", "promote", "node_d")
        expect("Node node_d promoted to a manager in the swarm." in out, out)
        until_nodes(self.a, "d as a manager", node_d=MANAGER)
        wait_until(lambda: self.d.swarm()["ControlAvailable"], "d to be a manager by itself")
        wait_until(lambda: len(self.d.nodes()) == 5, "d to list the nodes")
        out = self.b.ok("node", "demote", "node_d")
        expect("Manager node_d demoted in the swarm." in out, out)
        until_nodes(self.a, "d as a worker", node_d=WORKER)
        wait_until(lambda: not self.d.swarm()["ControlAvailable"], "d to be a worker by itself")
        self.d.refused("Worker nodes can't be used to view or modify cluster state", "node", "ls")
        self.a.refused("It must be demoted to worker before removal", "node", "rm", "node_b")
        self.a.refused("is not down and can't be removed", "node", "rm", "node_d")

    def of_a_worker(self):
        """a worker tells what it is, and sends everything else to a manager"""
        info = self.e.swarm()
        expect(info["LocalNodeState"] == "active" and not info["ControlAvailable"], f"{info}")
        expect(info["NodeID"] == self.a.nodes()["node_e"]["ID"], f"{info}")
        expect({m["Addr"] for m in info["RemoteManagers"]} >= {self.a.peer_address}, f"{info}")
        expect("Is Manager: false" in self.e.ok("info"), "info")
        sentence = "Worker nodes can't be used to view or modify cluster state"
        for words in (["node", "ls"], ["node", "inspect", "node_a"], ["swarm", "ca"],
                      ["swarm", "unlock-key"], ["swarm", "join-token", "worker"]):
            self.e.refused(sentence, *words)

    def settings(self):
        """swarm update, what it refuses, and that it is seen by all"""
        out = self.b.ok("swarm", "update", "--cert-expiry", "48h", "--dispatcher-heartbeat", "4s",
                        "--task-history-limit", "7", "--snapshot-interval", "500",
                        "--max-snapshots", "2")
        expect(out == "Swarm updated.", out)
        text = self.c.ok("info")
        for line in ("Expiry Duration: 2 days", "Heartbeat Period: 4 seconds",
                     "Task History Retention Limit: 7", "Snapshot Interval: 500",
                     "Number of Old Snapshots to Retain: 2"):
            expect(line in text, f"no {line!r} in {text}")
        self.a.refused("minimum certificate expiry time is: 1h0m0s", "swarm", "update",
                       "--cert-expiry", "59m")
        expect("Expiry Duration: 2 days" in self.a.ok("info"), "a refused update changed something")

    def events(self):
        """what happens to nodes, as it happens, and again for who asks later"""
        found = self.a.inspect("node_e")["ID"]
        lines = []
        stream = subprocess.Popen(
            [*DIE_WITH_PARENT, find_docker(), "-H", f"unix://{self.a.sock}", "events", "--filter",
             "type=node", "--filter", "node=node_e", "--format", "{{json .}}"],
            stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        try:
            reader = threading.Thread(target=lambda: lines.extend(stream.stdout), daemon=True)
            reader.start()
            since = self.a.swarm()["Cluster"]["UpdatedAt"]

            def change(availability):
                self.b.ok("node", "update", "--availability", availability, "node_e")
                return lines
            wait_until(lambda: change("pause") and change("active"), "the first events")
            wait_until(lambda: any('"active"' in l for l in lines), "an event of the last change")
        finally:
            stream.kill()
            stream.wait()
        # What the node says of itself may come before.
        first = next(e for e in map(json.loads, list(lines))
                     if "availability.new" in e["Actor"]["Attributes"])
        expect(first["Type"] == "node" and first["Action"] == "update"
               and first["Actor"]["ID"] == found and first["scope"] == "swarm", f"{first}")
        expect(first["Actor"]["Attributes"]["availability.new"] in ("pause", "active"), f"{first}")
        until = str(int(time.time()) + 1)  # docker says whole seconds only
        again = self.a.ok("events", "--since", since, "--until", until, "--filter", "event=update",
                          "--format", "{{json .}}").splitlines()
        expect(any(json.loads(l)["timeNano"] == first["timeNano"] for l in again), f"{again}")

    def root(self):
        """ca shows it, ca --rotate changes it and ends when every node has followed"""
        before, tokens = self.a.ok("swarm", "ca"), self.tokens_of(self.a)
        expect(before.startswith("-----BEGIN CERTIFICATE-----"), before)
        out = self.a.ok("swarm", "ca", "--rotate", "--quiet", seconds=ROTATE_S)
        after = self.b.ok("swarm", "ca")
        expect(after.startswith("-----BEGIN CERTIFICATE-----") and after != before, out)
        cluster = self.c.swarm()["Cluster"]
        expect(not cluster["RootRotationInProgress"], "it still rotates")
        expect(cluster["Spec"]["CAConfig"]["ForceRotate"] == 1, f"{cluster['Spec']}")
        expect(cluster["TLSInfo"]["TrustRoot"].strip() == after, "the root of /info is another one")
        for node in self.a.nodes():
            tls = self.a.inspect(node)["Description"]["TLSInfo"]
            expect(tls == cluster["TLSInfo"], f"{node} has not followed: {tls}")
        expect(all(r["TLSStatus"] == "Ready" for r in self.a.nodes().values()), "node ls")
        expect(not tokens & self.tokens_of(self.a), "tokens pin the old root")
        self.a.ok("swarm", "ca", "--rotate", "--detach")
        wait_until(lambda: not self.a.swarm()["Cluster"]["RootRotationInProgress"]
                   and self.a.ok("swarm", "ca") != after, "the second rotation", ROTATE_S)

    def own_root(self):
        """ca --rotate to a CA that is brought; what is none is refused"""
        cert, key = own_ca(self.test, "own")
        _, other = own_ca(self.test, "other")
        self.a.refused("Error response from daemon", "swarm", "ca", "--rotate", "--ca-cert", cert,
                       "--ca-key", other)
        before = self.a.swarm()["Cluster"]
        self.b.ok("swarm", "ca", "--rotate", "--quiet", "--ca-cert", cert, "--ca-key", key,
                  seconds=ROTATE_S)
        with open(cert) as file:
            expect(self.c.ok("swarm", "ca") == file.read().strip(), "it is another one")
        after = self.c.swarm()["Cluster"]
        expect(after["TLSInfo"]["CertIssuerSubject"] != before["TLSInfo"]["CertIssuerSubject"],
               "the same issuer")
        expect("SigningCAKey" not in json.dumps(after), "a key is shown")

    @staticmethod
    def tokens_of(node):
        return {node.ok("swarm", "join-token", "-q", role) for role in ("worker", "manager")}

    def tokens(self):
        """join-token --rotate: the new one lets in, the old one does not"""
        old = self.a.ok("swarm", "join-token", "-q", "worker")
        manager = self.a.ok("swarm", "join-token", "-q", "manager")
        out = self.b.ok("swarm", "join-token", "--rotate", "worker")
        new = pick(out, "SWMTKN-1-")
        expect("Successfully rotated worker join token." in out and new != old, out)
        expect(self.c.ok("swarm", "join-token", "-q", "worker") == new, "another manager's view")
        expect(self.a.ok("swarm", "join-token", "-q", "manager") == manager, "the other role's")
        expect(self.a.ok("swarm", "join-token", "--rotate", "-q", "manager") != manager, "rotated")
        self.f = Node(self.test, "node_f")
        self.network.place(self.f)
        self.f.begin()
        wait_until(lambda: os.path.exists(self.f.sock), "f's socket")
        self.f.refused("Error response from daemon", "swarm", "join", "--token", old,
                       self.b.peer_address)
        self.f.ok("swarm", "join", "--token", new, "--availability", "drain", self.b.peer_address)
        until_nodes(self.a, "f, drained", node_f=(("Ready",), ("Drain",), ("",)))
        self.a.ok("node", "update", "--availability", "active", "node_f")

    def restart(self, node):
        node.stop()
        node.begin()

    def locks(self):
        """autolock, unlock with the right key only, and both keys rotated"""
        out = self.a.ok("swarm", "update", "--autolock=true")
        key = pick(out, "SWMKEY-1-")
        expect(self.b.ok("swarm", "unlock-key", "-q") == key, "another manager's key")
        wait_until(lambda: "locked by the cluster's unlock key" in self.c.output(), "c to lock")
        self.restart(self.c)
        wait_until(lambda: self.c.swarm()["LocalNodeState"] == "locked", "c to be locked")
        expect("Swarm: locked" in self.c.ok("info"), "info")
        self.c.refused("Swarm is encrypted and needs to be unlocked", "node", "ls")
        self.c.refused("Swarm is encrypted and locked", "swarm", "leave")
        self.c.refused("invalid key provided", "swarm", "unlock",
                       text="SWMKEY-1-" + "A" * 43 + "\n")
        self.c.refused("Error response from daemon", "swarm", "unlock", text="nonsense\n")
        new = self.a.ok("swarm", "unlock-key", "--rotate", "-q")
        expect(new != key and new.startswith("SWMKEY-1-"), new)
        self.c.ok("swarm", "unlock", text=key + "\n")  # it was away: its keyring has the old one
        wait_until(lambda: self.c.swarm()["ControlAvailable"], "c to be unlocked")
        self.c.refused("swarm is not locked", "swarm", "unlock", text=new + "\n")
        wait_until(lambda: self.c.ok("swarm", "unlock-key", "-q") == new, "c to know the new key")
        wait_until(lambda: self.c.output().count("locked by the cluster's unlock key") > 1,
                   "c to take the new key")
        self.restart(self.c)
        wait_until(lambda: self.c.swarm()["LocalNodeState"] == "locked", "c to be locked again")
        self.c.refused("invalid key provided", "swarm", "unlock", text=key + "\n")
        self.c.ok("swarm", "unlock", text=new + "\n")
        until_nodes(self.a, "c to be back", node_c=MANAGER)
        expect(self.a.ok("swarm", "update", "--autolock=false") == "Swarm updated.", "off")
        expect("no unlock key is set" in self.a.docker("swarm", "unlock-key")[2], "a key is left")
        wait_until(lambda: "the keyring is unlocked" in self.b.output(), "b to unlock")
        self.restart(self.b)
        until_nodes(self.a, "b to be back without a key", node_b=MANAGER)

    def quorum(self):
        """without a quorum info says so; one manager goes on by force, the others join again"""
        self.b.kill()
        self.c.kill()
        wait_until(lambda: "The swarm does not have a leader." in self.a.docker("node", "ls")[2],
                   "the leader to be missed")
        info = self.a.swarm()
        expect(info["LocalNodeState"] == "active" and info["Error"], f"{info}")
        expect("Error: " in self.a.ok("info"), "info")
        before = self.a.swarm()
        self.a.ok("swarm", "init", "--force-new-cluster")
        after = self.a.swarm()
        expect(before["Cluster"]["ID"] == after["Cluster"]["ID"]
               and before["NodeID"] == after["NodeID"] and not after["Error"], f"{after}")
        until_nodes(self.a, "a alone, with its workers", node_a=MANAGER, node_b=None, node_c=None,
                    node_d=WORKER, node_e=WORKER, node_f=WORKER)
        token = self.a.ok("swarm", "join-token", "-q", "manager")
        for node in (self.b, self.c):
            shutil.rmtree(node.data)
            node.begin()
            wait_until(lambda n=node: os.path.exists(n.sock), f"{node.name}'s socket")
            node.ok("swarm", "join", "--token", token, self.a.peer_address)
        until_nodes(self.a, "three managers again", node_b=MANAGER, node_c=MANAGER)

    def leaving(self):
        """a worker leaves and is removed; a manager is demoted first; a dead one is removed"""
        expect("Node left the swarm." in self.e.ok("swarm", "leave"), "leave")
        expect(self.e.swarm()["LocalNodeState"] == "inactive", "node_e")
        until_nodes(self.a, "e to be down", node_e=(("Down",), None, None))
        expect(self.a.ok("node", "rm", "node_e") == "node_e", "node rm")
        until_nodes(self.b, "e to be gone", node_e=None)
        self.d.kill()
        until_nodes(self.a, "d to be missed", node_d=(("Down",), None, None))
        self.a.ok("node", "rm", "node_d")
        self.a.refused(("node node_d not found", "No such node: node_d"), "node", "rm", "node_d")
        self.c.refused("You are attempting to leave the swarm on a node that is participating as a "
                       "manager.", "swarm", "leave")
        self.a.ok("node", "demote", "node_c")
        until_nodes(self.a, "c as a worker", node_c=WORKER)
        wait_until(lambda: not self.c.swarm()["ControlAvailable"], "c to be a worker by itself")
        self.c.ok("swarm", "leave")
        self.a.ok("node", "rm", "--force", "node_f")
        wait_until(lambda: len(self.a.nodes()) == 3, "a, b and what is left of c")
        token = self.a.ok("swarm", "join-token", "-q", "worker")
        self.e.ok("swarm", "join", "--token", token, self.a.peer_address)  # as a new node
        until_nodes(self.a, "e to be back", node_e=WORKER)

    def the_last(self):
        """two managers are warned of; the last one leaves by force only, and can begin anew"""
        expect("two-manager configuration" in self.a.docker("info")[2] + self.a.ok("info")
               + json.dumps(self.a.swarm()), "no warning")
        self.a.ok("node", "demote", "node_b")
        until_nodes(self.a, "b as a worker", node_b=WORKER)
        self.a.refused("attempting to demote the last manager of the swarm", "node", "demote",
                       "node_a")
        self.a.refused("Removing the last manager erases all current state of the swarm.",
                       "swarm", "leave")
        before = self.a.swarm()
        self.a.ok("swarm", "leave", "--force")
        expect(self.a.swarm()["LocalNodeState"] == "inactive", "a is still in it")
        out = self.a.ok("swarm", "init", "--autolock", "--availability", "drain", "--cert-expiry",
                        "24h", "--advertise-addr", "eth0")
        expect("SWMKEY-1-" in out and f"{self.a.host}:2377" in out, out)
        after = self.a.swarm()
        expect(after["NodeID"] != before["NodeID"]
               and after["Cluster"]["ID"] != before["Cluster"]["ID"], "the same identity")
        expect(after["Cluster"]["Spec"]["CAConfig"]["NodeCertExpiry"] == 24 * 3600 * 10**9,
               f"{after}")
        until_nodes(self.a, "a, drained", node_a=(("Ready",), ("Drain",), ("Leader",)))


    def late(self):
        """a join that takes longer goes on in the background, and can be cancelled"""
        g = Node(self.test, "node_g")
        self.network.place(g)
        g.begin()
        wait_until(lambda: os.path.exists(g.sock), "g's socket")
        self.network.plug(g, False)
        token = self.a.ok("swarm", "join-token", "-q", "worker")
        g.refused("Timeout was reached before node joined.", "swarm", "join", "--token", token,
                  self.a.peer_address)
        expect(g.swarm()["LocalNodeState"] == "pending", f"{g.swarm()}")
        g.refused("This node is already part of a swarm", "swarm", "init")
        self.network.plug(g, True)
        wait_until(lambda: g.swarm()["LocalNodeState"] == "active", "the late join")
        until_nodes(self.a, "g", node_g=WORKER)
        g.ok("swarm", "leave")
        self.network.plug(g, False)
        join = threading.Thread(target=g.docker, args=("swarm", "join", "--token", token,
                                                       self.a.peer_address))
        join.start()
        wait_until(lambda: g.swarm()["LocalNodeState"] == "pending", "another join")
        g.ok("swarm", "leave")
        join.join(NODE_S)
        wait_until(lambda: g.swarm()["LocalNodeState"] == "inactive", "the join to be cancelled")


def own_ca(test, name):
    """A CA of somebody's own: the files of its certificate and key."""
    cert, key = (os.path.join(test.work, f"{name}.{kind}") for kind in ("pem", "key"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-subj", f"/CN={name}",
                    "-addext", "keyUsage=critical,keyCertSign", "-keyout", key, "-out", cert],
                   check=True, stderr=subprocess.DEVNULL)
    return cert, key


def show_cli(test):
    missing = Network.missing() or ("" if find_docker() else "there is no docker command")
    if missing:
        test.skip("docker", missing)
        return
    Cli(test).run()


# --- docker over TLS -----------------------------------------------------------------------------

def show_tls(test):
    if not find_docker():
        test.skip("docker over TLS", "there is no docker command")
        return
    node = Node(test, "a")
    node.plaintext = False
    port = node.client + 1
    node.start("--client", node.endpoint, "--peer", node.peer_address, "--init", "--engine",
               f"127.0.0.1:{port}", addresses=False)
    node.wait_running()
    files = os.path.join(test.work, "certificates")
    for name, options in (("admin", ("--admin",)), ("user", ())):
        code, out, err = node.cli("cert", name, *options, "--out", files)
        expect(code == 0, f"cert {name}: {out}{err}")
    with test.show("docker over TLS, with an administrator's certificate"):
        out = tls_docker(node, port, files, "admin", "node", "ls")
        expect(out[0] == 0 and "Leader" in out[1], f"{out}")
        expect(tls_docker(node, port, files, "admin", "info")[0] == 0, "info")
    with test.show("docker over TLS is refused without one"):
        out = tls_docker(node, port, files, "user", "node", "ls")
        expect(out[0] != 0 and "admin certificate" in out[2], f"{out}")
        done = subprocess.run(["curl", "-sk", "--max-time", "10",
                               f"https://127.0.0.1:{port}/_ping"], stdout=subprocess.PIPE,
                              text=True, check=False)
        expect(done.returncode != 0 and done.stdout == "", f"{done}")


def tls_docker(node, port, files, name, *words):
    return node.docker("--tlsverify", "--tlscacert", f"{files}/ca.pem", "--tlscert",
                       f"{files}/{name}.pem", "--tlskey", f"{files}/{name}.key", *words,
                       host=f"tcp://127.0.0.1:{port}")


# --- an external CA ------------------------------------------------------------------------------

def openssl(test, *arguments):
    subprocess.run(["openssl", *arguments], cwd=test.work, check=True, stderr=subprocess.DEVNULL)


def serve_cfssl(test, cert, key):
    """A real `cfssl serve` for the CA, with a certificate of it; its URL."""
    port = free_port()
    for name, text in (("san", "subjectAltName=IP:127.0.0.1\n"), ("cfssl.json", json.dumps(
            {"signing": {"default": {"usages": ["digital signature", "server auth", "client auth"],
                                     "expiry": "24h", "backdate": "1h"}}}))):
        with open(os.path.join(test.work, name), "w") as file:
            file.write(text)
    openssl(test, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/CN=cfssl", "-keyout", "web.key", "-out", "web.csr")
    openssl(test, "x509", "-req", "-in", "web.csr", "-CA", cert, "-CAkey", key, "-set_serial", "7",
            "-days", "100", "-extfile", "san", "-out", "web.pem")
    with open(os.path.join(test.work, "cfssl.log"), "ab") as log:
        process = subprocess.Popen(
            [*DIE_WITH_PARENT, "cfssl", "serve", "-address", "127.0.0.1", "-port", str(port), "-ca",
             cert, "-ca-key", key, "-config", "cfssl.json", "-tls-cert", "web.pem", "-tls-key",
             "web.key"], cwd=test.work, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    test.undo.append(process.kill)
    return f"https://127.0.0.1:{port}/api/v1/cfssl/sign"


def show_external(test):
    missing = [name for name in ("docker", "cfssl") if shutil.which(name) is None]
    if missing:
        test.skip("docker and an external CA", f"there is no {missing[0]} command")
        return
    a, b, c = small_cluster(test)
    a.ok("swarm", "init", "--listen-addr", a.peer_address, "--advertise-addr", "127.0.0.1")
    cert, key = own_ca(test, "outside")
    url = serve_cfssl(test, cert, key)
    with test.show("docker: an external CA signs for the nodes that are there and that come"):
        b.ok("swarm", "join", "--listen-addr", b.peer_address, "--token",
             a.ok("swarm", "join-token", "-q", "manager"), a.peer_address)
        a.ok("swarm", "ca", "--rotate", "--quiet", "--ca-cert", cert, "--external-ca",
             f"protocol=cfssl,url={url},cacert={cert}", seconds=ROTATE_S)
        cluster = a.swarm()["Cluster"]
        with open(cert) as file:
            root = file.read()
        expect(cluster["TLSInfo"]["TrustRoot"] == root, "another root")
        said = cluster["Spec"]["CAConfig"]["ExternalCAs"]
        expect([(x["Protocol"], x["URL"], x["CACert"]) for x in said] == [("cfssl", url, root)],
               f"{said}")
        c.ok("swarm", "join", "--listen-addr", c.peer_address, "--token",
             a.ok("swarm", "join-token", "-q", "worker"), a.peer_address)
        until_nodes(a, "three nodes", a=MANAGER, b=MANAGER, c=WORKER)
        expect(all(a.inspect(n)["Description"]["TLSInfo"] == cluster["TLSInfo"] for n in "abc"),
               "not all have its certificates")


# --- python3-docker ------------------------------------------------------------------------------

def small_cluster(test):
    nodes = [Node(test, name).begin() for name in "abc"]
    for node in nodes:
        wait_until(lambda n=node: os.path.exists(n.sock), f"{node.name}'s socket")
    return nodes


def show_python(test):
    try:
        import docker
    except ImportError as error:
        test.skip("python3-docker", str(error))
        return
    a, b, c = small_cluster(test)
    clients = {n.name: docker.DockerClient(base_url=f"unix://{n.sock}", version="auto")
               for n in (a, b, c)}
    with test.show("python3-docker: init, join, inspect"):
        first = clients["a"]
        expect(first.ping() and first.version()["ApiVersion"], "ping, version")
        expect(first.info()["Swarm"]["LocalNodeState"] == "inactive", "info")
        cert, key = (open(path).read() for path in own_ca(test, "python"))
        node_id = first.swarm.init(advertise_addr="127.0.0.1", listen_addr=a.peer_address,
                                   node_cert_expiry=48 * 3600 * 10**9, labels={"who": "python"},
                                   signing_ca_cert=cert, signing_ca_key=key)
        expect(first.info()["Swarm"]["NodeID"] == node_id, "the node's id")
        first.swarm.reload()
        attrs = first.swarm.attrs
        expect(attrs["TLSInfo"]["TrustRoot"] == cert, f"{attrs}")
        expect(attrs["Spec"]["Labels"] == {"who": "python"}
               and attrs["Spec"]["CAConfig"]["NodeCertExpiry"] == 48 * 3600 * 10**9, f"{attrs}")
        for name, role in (("b", "Manager"), ("c", "Worker")):
            node = b if name == "b" else c
            expect(clients[name].swarm.join([a.peer_address], attrs["JoinTokens"][role],
                                            listen_addr=node.peer_address), f"{name} joins")
        wait_until(lambda: sum(n.attrs["Status"]["State"] == "ready"
                               for n in first.nodes.list()) == 3, "three nodes")
        managers = first.nodes.list(filters={"role": "manager"})
        expect({n.attrs["Description"]["Hostname"] for n in managers} == {"a", "b"}, f"{managers}")
    with test.show("python3-docker: nodes and settings are changed"):
        node = first.nodes.get("c")
        spec = dict(node.attrs["Spec"], Availability="drain", Labels={"x": "y"})
        expect(node.update(spec), "update")
        expect(first.nodes.get("c").attrs["Spec"]["Availability"] == "drain", "drain")
        try:
            node.update(spec)
            raise AssertionError("a stale version was taken")
        except docker.errors.APIError as error:
            expect("update out of sequence" in str(error), str(error))
        first.swarm.reload()
        before = first.swarm.attrs["JoinTokens"]
        expect(first.swarm.update(rotate_worker_token=True, task_history_retention_limit=9,
                                  autolock_managers=True), "update")
        first.swarm.reload()
        after = first.swarm.attrs
        expect(after["JoinTokens"]["Worker"] != before["Worker"]
               and after["JoinTokens"]["Manager"] == before["Manager"], "tokens")
        expect(after["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"] == 9, f"{after}")
        key = first.swarm.get_unlock_key()["UnlockKey"]
        expect(key.startswith("SWMKEY-1-"), key)
    with test.show("python3-docker: a locked manager is unlocked"):
        wait_until(lambda: "locked by the cluster's unlock key" in b.output(), "b to lock")
        b.stop()
        b.begin()
        wait_until(lambda: clients["b"].info()["Swarm"]["LocalNodeState"] == "locked", "b locked")
        expect(clients["b"].swarm.unlock(key), "unlock")
        wait_until(lambda: clients["b"].info()["Swarm"]["ControlAvailable"], "b to be unlocked")
    with test.show("python3-docker: leaving and removing"):
        expect(clients["c"].swarm.leave(), "leave")
        wait_until(lambda: first.nodes.get("c").attrs["Status"]["State"] == "down", "c to be down")
        expect(first.api.remove_node(first.nodes.get("c").id), "remove")
        expect(len(first.nodes.list()) == 2, "two nodes")
        try:
            first.swarm.leave()
            raise AssertionError("a manager left without force")
        except docker.errors.APIError as error:
            expect(error.status_code == 503, str(error))


# --- dockerode -----------------------------------------------------------------------------------

def show_node(test):
    missing = npm_packages.install()
    if missing:
        test.skip("npm dockerode", missing)
        return
    nodes = small_cluster(test)
    config = [{"name": n.name, "socket": n.sock, "peer": n.peer_address} for n in nodes]
    npm_packages.show_program(test, "npm dockerode", "dockerode.js", json.dumps(config),
                              seconds=NODE_S)


PARTS = {"cli": show_cli, "tls": show_tls, "external": show_external, "python": show_python,
         "node": show_node}


def run(test):
    for name in sys.argv[1:] or PARTS:
        PARTS[name](test)
        for manager in test.managers:
            with contextlib.suppress(OSError):
                manager.kill()


main(run)
