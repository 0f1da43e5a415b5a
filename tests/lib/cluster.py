"""Real managers on this machine, for the end-to-end tests: start, stop and kill them on free
loopback ports, speak HTTP to them by their socket or by their client port (plaintext, so that a
writer in Python is fast), and wait for a condition until a deadline. `Test` prints the lines that
tests/run counts and ends every manager and mount, whatever happens; a manager also dies with the
test. The only place of the end-to-end tests that may sleep."""
import base64
import contextlib
import faulthandler
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("CONCLAVE_BINARY") or os.path.join(ROOT, "build", "conclave")
TAIL_MANAGERS, TAIL_LINES = 5, 8  # of logs, shown with a failure
READY_S = 30  # for anything that a healthy cluster does by itself
PORTS = (12000, 32000)  # below those that the kernel gives to outgoing connections

# What the server says when a write is certainly not applied; any other error leaves it open.
NOT_APPLIED = {"ERR_BUSY", "ERR_NO_LEADER", "ERR_NOT_LEADER", "ERR_NOSPACE", "ERR_LOCKED",
               "ERR_INVALID", "ERR_TOO_LARGE", "ERR_UNREACHABLE"}


class Failure(Exception):
    """What a test shows is not so."""


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status, name, message):
        super().__init__(f"{status} {name}: {message}")
        self.status, self.name, self.message = status, name, message


class Lost(Exception):
    """No answer; `sent` tells whether the server may have got the request."""

    def __init__(self, why, sent):
        super().__init__(str(why))
        self.sent = sent


def expect(condition, text):
    if not condition:
        raise Failure(text)


def wait_until(condition, what, seconds=READY_S, pause=0.02):
    """Polls until condition() is true and returns it; what raises on the way is not yet true."""
    deadline = time.monotonic() + seconds
    while True:
        last = ""
        try:
            found = condition()
            if found:
                return found
        except (Refused, Lost, OSError, KeyError, ValueError, Failure) as error:
            last = f" ({error})"
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds} s for {what}{last}")
        time.sleep(pause)  # wait-until: the condition above


def pause_until(at):
    """Until a moment of the monotonic clock, for writers with a fixed rate."""
    left = at - time.monotonic()
    if left > 0:
        time.sleep(left)  # wait-until: the clock shows `at`


def free_port(taken=set()):
    """A port that nothing listens on, each one only once in a test."""
    while True:
        port = random.randrange(*PORTS)
        if port in taken:
            continue
        taken.add(port)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                return port


def b64(data):
    return base64.b64encode(data).decode()


# --- HTTP ----------------------------------------------------------------------------------------

class Http:
    """One connection that is opened when needed and kept. `place`: a port or a socket's path."""

    def __init__(self, place, timeout=10):
        self.place, self.timeout = place, timeout
        self.socket = None

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket = None

    def _connect(self):
        if self.socket:
            return
        unix = isinstance(self.place, str)
        s = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        s.settimeout(self.timeout)
        try:
            s.connect(self.place if unix else ("127.0.0.1", self.place))
            if not unix:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            s.close()
            raise
        self.socket = s

    def _receive(self):
        got = b""
        while b"\r\n\r\n" not in got:
            more = self.socket.recv(65536)
            if not more:
                raise OSError("closed without an answer")
            got += more
        head, _, body = got.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            if name.lower() == b"transfer-encoding":
                return int(head.split(b" ", 2)[1]), self._chunks(body)
        parts, have = [body], len(body)
        while have < length:
            more = self.socket.recv(1 << 20)
            if not more:
                raise OSError("closed within an answer")
            parts.append(more)
            have += len(more)
        return int(head.split(b" ", 2)[1]), b"".join(parts)

    def _chunks(self, got):
        """The body of a large answer, which comes in chunks."""
        parts = []
        while True:
            while b"\r\n" not in got:
                got += self._more()
            line, _, got = got.partition(b"\r\n")
            size = int(line, 16)
            while len(got) < size + 2:
                got += self._more()
            parts.append(got[:size])
            got = got[size + 2:]
            if size == 0:
                return b"".join(parts)

    def _more(self):
        more = self.socket.recv(1 << 20)
        if not more:
            raise OSError("closed within an answer")
        return more

    def ask(self, method, path, body=b"", headers=""):
        """Sends a request; `answer` is its answer."""
        request = (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
                   "User-Agent: conclave/test\r\n"  # answers then name their errors
                   f"Content-Length: {len(body)}\r\n\r\n").encode() + body
        sent = False
        try:
            self._connect()
            sent = True
            self.socket.sendall(request)
        except OSError as error:
            self.close()
            raise Lost(error, sent) from error

    def answer(self):
        """(status, body); raises Lost."""
        try:
            return self._receive()
        except OSError as error:
            self.close()
            raise Lost(error, True) from error

    def raw(self, method, path, body=b"", headers=""):
        """(status, body); raises Lost."""
        self.ask(method, path, body, headers)
        return self.answer()

    def call(self, method, path, body=None, headers=""):
        data = b"" if body is None else json.dumps(body).encode()
        status, text = self.raw(method, path, data, headers)
        try:
            answer = json.loads(text) if text else {}
        except ValueError as error:
            raise Lost(f"no JSON: {text[:80]!r}", True) from error
        if status // 100 != 2:
            raise Refused(status, answer.get("name", ""), answer.get("message", ""))
        return answer

    def put(self, key, value, token=None):
        headers = f"Idempotency-Key: {token}\r\n" if token else ""
        return self.call("POST", "/v3/kv/put", {"key": b64(key), "value": b64(value)}, headers)

    def get(self, key, serializable=False):
        """The value, or None."""
        answer = self.call("POST", "/v3/kv/range", {"key": b64(key), "serializable": serializable})
        kvs = answer.get("kvs", [])
        return base64.b64decode(kvs[0].get("value", "")) if kvs else None

    def all(self, serializable=False, prefix=b""):
        """{key: (value, version)} of everything, page by page."""
        found, key = {}, prefix or b"\0"
        end = prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else b"\0"
        while True:
            page = self.call("POST", "/v3/kv/range", {"key": b64(key), "range_end": b64(end),
                                                      "serializable": serializable})
            for kv in page.get("kvs", []):
                key = base64.b64decode(kv["key"])
                found[key] = (base64.b64decode(kv.get("value", "")), int(kv["version"]))
            if not page.get("more"):
                return found
            key += b"\0"


# --- managers ------------------------------------------------------------------------------------

# Before a command: it dies with the test. Nothing of Python may run between fork and exec, since a
# thread of gRPC may hold a lock then.
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


class Manager:
    """One manager: its directory, its ports, its process when it runs."""

    def __init__(self, test, name, data=None):
        self.test, self.name = test, name
        number = next(test.numbers)
        self.data = data or os.path.join(test.work, f"{name}{number}")
        self.host, self.inside = "127.0.0.1", ()  # where; what the command is run by
        self.client, self.peer = free_port(), free_port()
        self.plaintext = True  # of the client port; the socket always is
        self.process = None
        self.log = os.path.join(test.work, f"{name}{number}.log")

    @property
    def endpoint(self):
        return f"127.0.0.1:{self.client}"

    @property
    def peer_address(self):
        return f"{self.host}:{self.peer}"

    def start(self, *options, addresses=True, env=None):
        """Starts the server; options are those of `conclave serve`, env what is added to ours."""
        expect(not self.running(), f"{self.name} runs already")
        command = [*DIE_WITH_PARENT, *self.inside, BINARY, "serve", "--data", self.data, "--name",
                   self.name]
        if addresses:
            command += ["--client", self.endpoint, "--peer", self.peer_address]
        command += ["--client-insecure", *options] if self.plaintext else options
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log,
                                            env=dict(os.environ, **(env or {})))
        self.test.managers.append(self)
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.running():
            self.process.kill()
            self.process.wait()

    @contextlib.contextmanager
    def held_still(self):
        """It does nothing within; what reaches its sockets waits there."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self, seconds=20):
        """A clean stop; its exit code."""
        self.process.terminate()
        return self.ended(seconds)

    def ended(self, seconds=20):
        """Waits for its end; the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{self.name} still runs after {seconds} s") from error

    def socket(self, timeout=10):
        return Http(os.path.join(self.data, "conclave.sock"), timeout)

    def http(self, timeout=10):
        return Http(self.client, timeout)

    def status(self):
        with contextlib.closing(self.socket(5)) as http:
            return http.call("GET", "/conclave/v1/status")

    def cli(self, *arguments, text=None, seconds=60):
        """(exit code, standard output, standard error) of a command for this manager."""
        done = subprocess.run([BINARY, *arguments], input=text, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace", timeout=seconds,
                              check=False, env=dict(os.environ, CONCLAVE_DATA=self.data))
        return done.returncode, done.stdout, done.stderr

    def output(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def events(self):
        """The log's lines as dictionaries."""
        found = []
        for line in self.output().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [e for e in found if isinstance(e, dict)]

    def line(self, prefix):
        """The rest of the line of its output that begins so."""
        for line in self.output().splitlines():
            if line.startswith(prefix):
                return line[len(prefix):].strip()
        return None

    def wait_running(self, seconds=READY_S):
        def ready():
            if not self.running():
                raise Failure(self.obituary())
            status = self.status()
            return status if status["state"] == "running" and status.get("leader") else None
        return wait_until(ready, f"{self.name} to run", seconds)

    def obituary(self):
        tail = "\n".join(self.output().splitlines()[-5:])
        return f"{self.name} ended with {self.process.returncode}: {tail}"

    def peak_kib(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
        return 0


class Cluster:
    """Managers that are one cluster; `token` lets further ones in."""

    def __init__(self, test, names="abc", first_options=(), env=None):
        self.test = test
        first = Manager(test, names[0]).start("--init", *first_options, env=env)
        self.managers = [first]
        self.token = wait_until(lambda: first.line("join token: ") or
                                (not first.running() and expect(False, first.obituary())),
                                "the join token")
        for name in names[1:]:
            self.add(Manager(test, name), env=env)
        self.wait_voters(len(self.managers))

    def add(self, manager, *options, env=None):
        """Lets a manager that is not started join."""
        manager.start("--join", self.managers[0].peer_address, "--token", self.token, *options,
                      env=env)
        self.managers.append(manager)
        manager.wait_running()

    def __iter__(self):
        return iter(self.managers)

    def __getitem__(self, i):
        return self.managers[i]

    def timeline(self, start, stop):
        """What all members logged between two moments of the wall clock, in order."""
        def stamp(at):
            whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
            return f"{whole}.{int(at % 1 * 1000):03d}Z"
        rows = [(e["time"], m.name, e["text"]) for m in self.managers for e in m.events()]
        return [f"    {at[11:]} {name} | {text}" for at, name, text in sorted(rows)
                if stamp(start) <= at <= stamp(stop)]

    def members(self):
        """The members as the first one that answers sees them."""
        for manager in self.managers:
            if manager.running():
                with contextlib.suppress(Lost, Refused), \
                        contextlib.closing(manager.socket(5)) as http:
                    return http.call("GET", "/conclave/v1/members")["members"]
        return []

    def wait_voters(self, count, seconds=READY_S):
        def voters():
            rows = self.members()
            return sum(r["role"] in ("voter", "leader") and r["reachable"] for r in rows) >= count
        return wait_until(voters, f"{count} voters", seconds)

    def leader(self, seconds=READY_S):
        """The manager that leads and says so itself."""
        def find():
            for manager in self.managers:
                if manager.running():
                    with contextlib.suppress(Lost, Refused):
                        if manager.status().get("role") == "leader":
                            return manager
            return None
        return wait_until(find, "a leader", seconds)

    def followers(self):
        leader = self.leader()
        return [m for m in self.managers if m is not leader]

    def wait_same(self, seconds=READY_S):
        """Until all that run have applied the same, by the state's hash; the hash."""
        seen = []

        def same():
            states = [m.status() for m in self.managers if m.running()]
            seen[:] = [(s["name"], s["applied"], s["hash"]) for s in states]
            return len({s["applied"] for s in states}) == 1
        wait_until(same, "all members to have applied the same", seconds)
        expect(len({s[2] for s in seen}) == 1, f"the members' states differ: {seen}")
        return seen[0][2]


# --- the test ------------------------------------------------------------------------------------

class Test:
    """A test's directory, its verdicts, and all that has to be ended with it."""

    def __init__(self):
        self.work = tempfile.mkdtemp(prefix="e2e-")
        self.managers = []
        self.undo = []  # called in reverse at the end
        self.numbers = itertools.count(1)  # of managers: two may have one name, and threads
        self.failed = 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit(1))
        faulthandler.register(signal.SIGTERM, chain=True)  # where it hung

    @contextlib.contextmanager
    def show(self, name):
        """Prints `ok name`, or `not ok name: why` when the block raises; then goes on."""
        try:
            yield
            print(f"ok {name}", flush=True)
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # pylint: disable=broad-except
            self.failed += 1
            why = str(error).strip().splitlines() or [type(error).__name__]
            print(f"not ok {name}: {why[0]}", flush=True)
            if not isinstance(error, Failure) or len(why) > 1:
                traceback.print_exc(file=sys.stdout)
            self.tails()

    def skip(self, name, why):
        print(f"skip {name}: {why}", flush=True)

    def tails(self):
        for manager in dict.fromkeys(self.managers[-TAIL_MANAGERS:]):
            for event in manager.events()[-TAIL_LINES:]:
                print(f"    {event['time'][11:]} {manager.name} | {event['text']}", flush=True)

    def close(self):
        for manager in self.managers:
            with contextlib.suppress(OSError):
                manager.kill()
        for undo in reversed(self.undo):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                undo()
        shutil.rmtree(self.work, ignore_errors=True)


def main(run):
    """Runs run(test) and exits with 0 or 1; nothing is left behind."""
    test = Test()
    try:
        run(test)
    except SystemExit:
        test.failed += 1
        raise
    except Exception as error:  # pylint: disable=broad-except
        test.failed += 1
        print(f"not ok {os.path.basename(sys.argv[0])}: {str(error).splitlines()[:1]}")
        traceback.print_exc(file=sys.stdout)
        test.tails()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        test.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if test.failed else 0)  # threads of gRPC that still read die badly with Python
