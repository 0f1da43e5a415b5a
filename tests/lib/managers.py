"""Three real managers for the main job of ./dev run: started as a user would, asked over their
sockets, killed, and left running if wanted. Standard library only. (The end-to-end tests have
cluster.py, whose managers end with the test.)

A Cluster owns a temporary directory and the processes that it started; close() ends both."""
import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("CONCLAVE_BINARY", os.path.join(ROOT, "build", "conclave"))
TOKEN = re.compile(r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}")
PORTS = (10000, 32000)  # below those that the system gives to clients


class Failure(Exception):
    """What was to be shown is not so; the text says why."""


def wait_until(condition, what, seconds=20):
    """Calls condition() until it gives something true, and gives that; Failure at the deadline."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"not within {seconds} s: {what}")
        time.sleep(pause)  # wait-until: the pause between two looks
        pause = min(pause * 1.5, 0.1)


def free_ports(count):
    """Ports that were free a moment ago."""
    found = []
    for port in range(PORTS[0] + (os.getpid() * 37) % 15000, PORTS[1]):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        if len(found) == count:
            return found
    raise Failure("no free ports")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a server's unix socket."""

    def __init__(self, path, timeout=10):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def b64(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


class Node:
    """One manager: its directory, its addresses, its process."""

    def __init__(self, directory, name, client, peer):
        self.data = os.path.join(directory, name)
        self.log = os.path.join(directory, name + ".log")
        self.out = os.path.join(directory, name + ".out")
        self.name = name
        self.client = f"127.0.0.1:{client}"
        self.peer = f"127.0.0.1:{peer}"
        self.process = None
        self.detached = False  # outlives the program that started it

    def start(self, *extra, addresses=True):
        """Starts `conclave serve` and waits until its socket answers."""
        command = [BINARY, "serve", "--data", self.data]
        if addresses:
            command += ["--name", self.name, "--client", self.client, "--peer", self.peer]
        with open(self.log, "ab") as log, open(self.out, "ab") as out:
            self.process = subprocess.Popen(command + list(extra), stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=log,
                                            start_new_session=self.detached)
        wait_until(lambda: self.status() or not self.alive(), f"{self.name} answers")
        if not self.alive():
            raise Failure(f"{self.name} has ended with {self.process.returncode}")
        return self

    def output(self):
        with open(self.out, encoding="utf-8", errors="replace") as out:
            return out.read()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds=20):
        """A clean stop; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def cli(self, *words, timeout=120):
        """Runs a command against this node."""
        done = subprocess.run([BINARY, *words, "--data", self.data], capture_output=True,
                              timeout=timeout, check=False)
        if done.returncode != 0:
            said = done.stderr.decode().strip()
            raise Failure(f"conclave {' '.join(words[:3])} on {self.name}: {said}")
        return done.stdout

    def request(self, method, path, body=None, timeout=10):
        """One request over the socket: (status, JSON). OSError when it does not answer."""
        connection = UnixConnection(os.path.join(self.data, "conclave.sock"), timeout)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else {}
        except (http.client.HTTPException, ValueError) as e:
            raise OSError(str(e)) from e
        finally:
            connection.close()

    def status(self):
        """The status, or {} when it does not answer."""
        try:
            return self.request("GET", "/conclave/v1/status", timeout=5)[1]
        except OSError:
            return {}

    def role(self):
        return self.status().get("role", "")


class Cluster:
    """Managers n1, n2, ... under a temporary directory."""

    def __init__(self, count):
        self.directory = tempfile.mkdtemp(prefix="conclave-")
        ports = free_ports(2 * count)
        self.nodes = [Node(self.directory, f"n{i + 1}", ports[2 * i], ports[2 * i + 1])
                      for i in range(count)]
        self.token = ""

    def close(self):
        for node in self.nodes:
            if node.alive():
                node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def found(self):
        """Starts the first node with --init and takes its token."""
        first = self.nodes[0].start("--init")
        found = wait_until(lambda: TOKEN.search(first.output()), "the cluster is founded")
        self.token = found.group(0)
        return first

    def join(self, node):
        node.start("--join", self.nodes[0].peer, "--token", self.token)
        wait_until(lambda: node.role() in ("voter", "leader"), f"{node.name} becomes a voter")

    def leader(self, among=None):
        """The node that leads, once a majority of the living agrees."""
        def look():
            nodes = [n for n in (among or self.nodes) if n.alive()]
            states = [n.status() for n in nodes]
            leading = [n for n, s in zip(nodes, states) if s.get("role") == "leader"]
            if len(leading) != 1:
                return None
            agree = sum(s.get("leader") == leading[0].name for s in states)
            return leading[0] if agree >= len(states) // 2 + 1 else None
        return wait_until(look, "a leader", 30)

    def same_state(self, seconds=30):
        """Waits until all living nodes have applied the same and have the same state hash."""
        def look():
            states = [n.status() for n in self.nodes if n.alive()]
            same = len({(s.get("applied"), s.get("hash")) for s in states}) == 1
            return same and "hash" in states[0]
        wait_until(look, "all members have the same state", seconds)


class Writer(threading.Thread):
    """Writes keys of its own, one after the other, and remembers every write that was acknowledged,
    and when. A write whose outcome is unknown is repeated with the same Idempotency-Key, against
    whichever node answers."""

    def __init__(self, nodes, prefix, size=64):
        super().__init__(daemon=True)
        self.nodes = nodes
        self.prefix = prefix
        self.padding = "x" * size
        self.acknowledged = []      # (key, value, time)
        self.stopping = threading.Event()
        self.connection = None
        self.at = 0

    def attempt(self, body, headers):
        """True when acknowledged; the connection goes to the next node after a failure."""
        try:
            if self.connection is None:
                node = self.nodes[self.at % len(self.nodes)]
                self.connection = UnixConnection(os.path.join(node.data, "conclave.sock"), 5)
            self.connection.request("POST", "/v3/kv/put", body, headers)
            answer = self.connection.getresponse()
            answer.read()
            if answer.status == 200:
                return True
        except (OSError, http.client.HTTPException):
            pass
        if self.connection is not None:
            self.connection.close()
        self.connection = None
        self.at += 1
        self.stopping.wait(0.005)
        return False

    def run(self):
        number = 0
        while not self.stopping.is_set():
            key, value = f"{self.prefix}{number:08d}", f"{number} {self.padding}"
            body = json.dumps({"key": b64(key), "value": b64(value)})
            headers = {"Idempotency-Key": os.urandom(16).hex()}
            while not self.attempt(body, headers):
                if self.stopping.is_set():
                    return
            self.acknowledged.append((key, value, time.monotonic()))
            number += 1

    def finish(self):
        self.stopping.set()
        self.join()
        if self.connection is not None:
            self.connection.close()


def read_all(node, prefix):
    """Every pair under a prefix, linearizable: {key: (value, version)}, as bytes, by pages."""
    found = {}
    key = prefix
    end = prefix[:-1] + bytes([prefix[-1] + 1])
    while True:
        def page(first=key):
            try:
                body = {"key": b64(first), "range_end": b64(end)}
                status, answer = node.request("POST", "/v3/kv/range", body, timeout=30)
                return answer if status == 200 else None
            except OSError:
                return None
        answer = wait_until(page, f"{node.name} answers a range", 30)
        for kv in answer.get("kvs", []):
            last = base64.b64decode(kv["key"])
            found[last] = (base64.b64decode(kv.get("value", "")), int(kv.get("version", 0)))
        if not answer.get("more"):
            return found
        key = last + b"\0"
