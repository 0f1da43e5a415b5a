"""A cluster as docker makes it, for tests of secrets: managers and workers in network namespaces of
their own, all data directories, logs and working directories on one small file system that lies in
a file, docker's words for secrets and services, and the end of every process of it. Needs root."""
import contextlib
import json
import os
import signal

from cluster import expect, wait_until
from docker_cli import Node, find_docker
from hunt import Image
from netns import Network, ip
from tasks import Control

START_S = 30


def missing():
    """What keeps a fleet from being made here; "": nothing."""
    if not find_docker():
        return "no docker client (DOCKER's or $CONCLAVE_DOCKER)"
    return Network.missing()


class Member(Node):
    """A node whose files are on the fleet's disk."""

    def __init__(self, fleet, name, data=None):
        super().__init__(fleet.test, name, data or os.path.join(fleet.disk.root, name))
        self.fleet = fleet
        self.log = os.path.join(fleet.disk.root, f"{name}.log")

    @property
    def namespace(self):
        return self.inside[-1]

    @property
    def netns(self):
        """As /proc/PID/ns/net tells it."""
        return f"net:[{os.stat(f'/run/netns/{self.namespace}').st_ino}]"

    @property
    def id(self):
        return self.status()["id"]

    def good(self, *words, text=None, seconds=60):
        """The output of a conclave command on this node."""
        code, out, error = self.cli(*words, text=text, seconds=seconds)
        expect(code == 0, f"{self.name}: conclave {' '.join(words[:3])}: {code}: {error.strip()}")
        return out

    def json_of(self, *words):
        return json.loads(self.good(*words, "--json"))

    def begin(self, *options):
        return super().begin("--log-level", "debug", *options)

    def restart(self):
        self.begin()
        wait_until(lambda: self.status()["state"] in ("running", "worker"), f"{self.name} to run",
                   START_S)

    def processes(self):
        """All that run in its namespace: the agent, supervisors, tasks."""
        return [int(pid) for pid in ip("netns", "pids", self.namespace).split()]

    def supervisors(self):
        """[[pid, ...]] of those that run beside a task here: each with the one that is the first
        process of the task's own namespace."""
        found = {}
        for pid in self.processes():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"task-supervisor" in file.read().split(b"\0"):
                    found[pid] = parent_of(pid)
        return [[pid, *(p for p, above in found.items() if above == pid)]
                for pid, parent in found.items() if parent not in found]

    def sockets(self):
        """What is in the folder of supervisors' sockets."""
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(os.path.join(self.data, "tasks"))
        return []


class Fleet:
    """Managers m1, m2.. and workers w1, w2.., joined by docker."""

    def __init__(self, test, managers, workers, heartbeat=None):
        self.test = test
        self.disk = Image(test)
        self.control = Control(test)
        here = os.path.join(self.disk.root, "cwd")
        os.mkdir(here)
        os.chdir(here)  # where a core would be
        test.undo.append(lambda: os.chdir("/"))
        self.network = Network(test)
        test.undo.append(self.end)
        self.nodes = []
        self.managers = [self.add(f"m{i + 1}") for i in range(managers)]
        self.workers = [self.add(f"w{i + 1}") for i in range(workers)]
        self._join(heartbeat)

    def add(self, name, data=None):
        node = Member(self, name, data)
        self.network.place(node)
        self.nodes.append(node)
        node.begin()
        return node

    def empty(self, name):
        """A node that is not started, with a place in the network."""
        node = Member(self, name, None)
        self.network.place(node)
        self.nodes.append(node)
        return node

    def twin(self, other, name, data):
        """A node that is not started, at the place of another one."""
        node = Member(self, name, data)
        node.host, node.inside, node.port = other.host, other.inside, other.port
        node.client, node.peer = other.client, other.peer
        return node

    def _join(self, heartbeat):
        first = self.managers[0]
        for node in self.nodes:
            wait_until(lambda n=node: os.path.exists(n.sock), f"{node.name}'s socket")
        first.ok("swarm", "init", "--advertise-addr", first.host)
        if heartbeat:
            first.ok("swarm", "update", "--dispatcher-heartbeat", heartbeat)
        for role, nodes in (("manager", self.managers[1:]), ("worker", self.workers)):
            token = first.ok("swarm", "join-token", "-q", role)
            for node in nodes:
                node.ok("swarm", "join", "--token", token, first.peer_address)
        wait_until(lambda: all(r["Status"] == "Ready" for r in first.nodes().values()) and
                   len(first.nodes()) == len(self.nodes), "all nodes to be ready", START_S)

    def end(self):
        """Ends whatever runs in the namespaces of this test: tasks outlive their agents."""
        for node in self.nodes:
            with contextlib.suppress(OSError):
                for _ in range(3):
                    for pid in node.processes():
                        with contextlib.suppress(OSError):
                            os.kill(pid, signal.SIGKILL)

    # --- what an operator does -------------------------------------------------------------------

    def manager(self):
        """One that answers."""
        return next(m for m in self.managers if m.running())

    def secret(self, value, through=None, kind="secret"):
        """Creates it with docker, the value by standard input; its id. docker reads bytes that are
        text here."""
        return (through or self.manager()).ok(kind, "create", value.name, "-",
                                              text=value.bytes.decode())

    def service(self, name, *options, secrets=(), command=(), through=None, image="host"):
        """Creates a service of test tasks; `secrets`: docker's --secret words."""
        mount, words = self.control.words(name, *command)
        for secret in secrets:
            options += ("--secret", secret)
        return (through or self.manager()).ok("service", "create", "--detach", "--name", name,
                                              "--restart-delay", "100ms", *mount, *options, image,
                                              *words)

    def tasks(self, service, *options):
        """docker's words on a service's tasks, newest first: (id, node, state, desired, error)."""
        lines = self.manager().ok("service", "ps", "--no-trunc", "--format",
                                  "{{.ID}}\t{{.Node}}\t{{.CurrentState}}\t{{.DesiredState}}\t"
                                  "{{.Error}}", *options, service)
        return [tuple(line.split("\t")) for line in lines.splitlines()]

    def wait_state(self, service, state, seconds=20):
        """Until the newest task of a service is in a state, by docker's word; it."""
        def look():
            rows = self.tasks(service)
            expect(rows and rows[0][2].startswith(state), f"{rows}")
            return rows[0]
        return wait_until(look, f"a task of {service} to be {state}", seconds, 0.1)


def parent_of(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("PPid:"))


def kill_hard(pid):
    os.kill(pid, signal.SIGKILL)
