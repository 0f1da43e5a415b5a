"""Real managers on this machine, for the end-to-end tests and the main job of ./dev run: starting, killing and asking
them, waiting for a condition with a deadline, and the lines that tests print. Standard library only.

A Cluster owns a temporary directory and every process that it started; close() ends those and removes it.
"""
import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("CONCLAVE_BINARY", os.path.join(ROOT, "build", "conclave"))
TOKEN = re.compile(r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}")
UNLOCK_KEY = re.compile(r"SWMKEY-1-[A-Za-z0-9+/]{43}")


class Failure(Exception):
    """A test found what must not be; its text says what."""


def wait_until(condition, what, seconds=20):
    """Calls condition() until it gives something true, and gives that; Failure when the time is up."""
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
    """Ports that were free a moment ago, below the range that the system gives to clients."""
    found = []
    start = 10000 + (os.getpid() * 37) % 15000
    for port in range(start, 32000):
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
        self.detached = False

    def start(self, *extra, wait=True, addresses=True):
        """Starts `conclave serve`; with wait, until its socket answers. It ends with the test's process group unless
        `detached` says that it outlives the program."""
        command = [BINARY, "serve", "--data", self.data]
        if addresses:
            command += ["--name", self.name, "--client", self.client, "--peer", self.peer]
        with open(self.log, "ab") as log, open(self.out, "ab") as out:
            self.process = subprocess.Popen(command + list(extra), stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                                            start_new_session=self.detached)
        if wait:
            wait_until(lambda: self.answers() or self.process.poll() is not None, f"{self.name} answers")
            if self.process.poll() is not None:
                raise Failure(f"{self.name} has ended with {self.process.returncode}: {self.last_words()}")
        return self

    def last_words(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return (log.read().strip().splitlines() or [""])[-1]

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

    def cli(self, *words, stdin=None, ok=True, timeout=120, env=None):
        """Runs a command against this node; with ok, a failure of it is ours."""
        done = subprocess.run([BINARY, *words, "--data", self.data], input=stdin, capture_output=True,
                              timeout=timeout, check=False, env=env)
        if ok and done.returncode != 0:
            raise Failure(f"conclave {' '.join(words[:3])} on {self.name}: {done.stderr.decode().strip()}")
        return done

    def request(self, method, path, body=None, headers=None, timeout=10):
        """One request over the socket: (status, JSON). OSError when it does not answer."""
        connection = UnixConnection(os.path.join(self.data, "conclave.sock"), timeout)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else {}
        except (http.client.HTTPException, ValueError) as e:
            raise OSError(str(e)) from e
        finally:
            connection.close()

    def answers(self):
        try:
            return self.request("GET", "/conclave/v1/status", timeout=5)[0] == 200
        except OSError:
            return False

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

    def __init__(self, count=3, directory=None):
        self.directory = directory or tempfile.mkdtemp(prefix="conclave-")
        ports = free_ports(2 * count)
        self.nodes = [Node(self.directory, f"n{i + 1}", ports[2 * i], ports[2 * i + 1]) for i in range(count)]
        self.token = ""
        self.unlock_key = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for node in self.nodes:
            if node.alive():
                node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def found(self, *extra):
        """Starts the first node with --init and takes its token."""
        first = self.nodes[0].start("--init", *extra)
        self.token = wait_until(lambda: TOKEN.search(first.output()), "the cluster is founded").group(0)
        key = UNLOCK_KEY.search(first.output())
        self.unlock_key = key.group(0) if key else ""
        return first

    def join(self, node, *extra):
        node.start("--join", self.nodes[0].peer, "--token", self.token, *extra)
        wait_until(lambda: node.role() in ("voter", "leader"), f"{node.name} becomes a voter")

    def start(self, *extra):
        """Founds the cluster and joins all others."""
        self.found(*extra)
        for node in self.nodes[1:]:
            self.join(node)
        return self

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
            return len({(s.get("applied"), s.get("hash")) for s in states}) == 1 and "hash" in states[0]
        wait_until(look, "all members have the same state", seconds)


class Writer(threading.Thread):
    """Writes keys of its own, one after the other, and remembers every write that was acknowledged, and when. A write
    whose outcome is unknown is repeated with the same Idempotency-Key, against whichever node answers."""

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
                path = os.path.join(self.nodes[self.at % len(self.nodes)].data, "conclave.sock")
                self.connection = UnixConnection(path, timeout=5)
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
    """Every pair under a prefix, linearizable: {key: (value, version)}, page by page."""
    found = {}
    key, end = prefix.encode(), prefix.encode()[:-1] + bytes([prefix.encode()[-1] + 1])
    while True:
        def page():
            try:
                status, answer = node.request("POST", "/v3/kv/range", {"key": b64(key), "range_end": b64(end)}, timeout=30)
                return answer if status == 200 else None
            except OSError:
                return None
        answer = wait_until(page, f"{node.name} answers a range", 30)
        for kv in answer.get("kvs", []):
            last = base64.b64decode(kv["key"])
            found[last.decode()] = (base64.b64decode(kv.get("value", "")).decode(), int(kv.get("version", 0)))
        if not answer.get("more"):
            return found
        key = last + b"\0"


def main(tests):
    """Runs the tests (functions), prints 'ok' lines as the runner wants them, before each the figures that the test
    gives, and gives the exit code. Names of tests as arguments choose among them."""
    if not os.access(BINARY, os.X_OK):
        sys.exit(f"{BINARY} is not there: ./dev build makes it")
    failed = False
    for test in tests:
        if sys.argv[1:] and test.__name__ not in sys.argv[1:]:
            continue
        try:
            figures = test()
            if figures:
                print(f"   {figures}")
            print(f"ok {test.__name__}", flush=True)
        except (Failure, OSError, subprocess.SubprocessError, KeyError, ValueError, AssertionError) as e:
            failed = True
            print(f"not ok {test.__name__}: {type(e).__name__}: {e}", flush=True)
    return 1 if failed else 0
