"""Tasks that do what a test tells them. What a service runs is a small program in a folder that is
bound into it at /srv; it connects to a socket there, on which the test listens, and from then on
runs pieces of Python that it is sent: what the test wants to know of a task is asked from within
it. The kernel tells the test which process of the machine the other end is, and the end of the
connection is the task's end. A task says digests of secrets, not secrets."""
import contextlib
import hashlib
import json
import os
import socket
import struct
import threading

from cluster import Failure, expect, wait_until

WITHIN = "/srv"  # where the folder is in a task
PYTHON = "/usr/bin/python3"
ANSWER_S = 20

PROGRAM = '''"""The other end of tests/lib/tasks.py."""
import hashlib, json, os, signal, socket, sys, threading
signals = []
signal.signal(signal.SIGHUP, lambda *_: signals.append("HUP"))
signal.signal(signal.SIGUSR1, lambda *_: signals.append("USR1"))
stubborn = "stubborn" in sys.argv[2:]
signal.signal(signal.SIGTERM, lambda *_: signals.append("TERM") if stubborn else os._exit(0))
def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
def can_read(path):
    """"" or the error."""
    try:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 64)
        os.close(fd)
        return ""
    except OSError as error:
        return os.strerror(error.errno)
def can_connect(path):
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(path)
        return ""
    except OSError as error:
        return os.strerror(error.errno or 0) or str(error)
control = socket.socket(socket.AF_UNIX)
control.connect(os.path.join(os.path.dirname(os.path.abspath(__file__)), "control"))
stream = control.makefile("rw")
print(json.dumps({"service": sys.argv[1], "hostname": socket.gethostname()}), file=stream,
      flush=True)
for line in stream:
    value = None
    try:
        exec(json.loads(line), globals())
        answer = {"value": value}
    except SystemExit as end:
        os._exit(end.code or 0)
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=stream, flush=True)
os._exit(9)
'''


def digest(value):
    return hashlib.sha256(value).hexdigest()


class Task:
    """One that runs, or has run."""

    def __init__(self, connection):
        size = struct.calcsize("3i")
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        self.pid, self.uid, self.gid = struct.unpack("3i", peer)
        self.connection = connection
        connection.settimeout(ANSWER_S)
        self.stream = connection.makefile("rw")
        hello = json.loads(self.stream.readline())
        self.service, self.hostname = hello["service"], hello["hostname"]
        self.netns = os.readlink(f"/proc/{self.pid}/ns/net")

    def ask(self, code):
        """Runs code in the task; what it leaves in `value`."""
        print(json.dumps(code), file=self.stream, flush=True)
        line = self.stream.readline()
        expect(line, f"the task {self.pid} of {self.service} has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise Failure(f"in a task of {self.service}: {answer['error']}")
        return answer["value"]

    def of(self, expression):
        return self.ask(f"value = {expression}")

    def digest(self, path):
        return self.of(f"digest({path!r})")

    def exit(self, code=0):
        with contextlib.suppress(OSError):
            print(json.dumps(f"raise SystemExit({code})"), file=self.stream, flush=True)

    def alive(self):
        """Nothing has ended the connection."""
        try:
            self.connection.setblocking(False)
            return self.connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.connection.settimeout(ANSWER_S)

    def wait_end(self, what, seconds=20):
        wait_until(lambda: not self.alive(), what, seconds)

    def mount(self, path):
        """(type, options, options of the file system) of what is mounted at a path; or None."""
        found = None
        with open(f"/proc/{self.pid}/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                words, _, rest = line.partition(" - ")
                if words.split()[4] == path:
                    kind, _, options = rest.split(" ", 2)
                    found = kind, set(words.split()[5].split(",")), set(options.split()[-1]
                                                                        .split(","))
        return found


class Control:
    """The test's end of all tasks."""

    def __init__(self, test):
        self.folder = os.path.join(test.work, "share")
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o755)
        os.chmod(test.work, 0o711)  # a task of another user goes through
        with open(os.path.join(self.folder, "task.py"), "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        self.listener = socket.socket(socket.AF_UNIX)
        here = os.open(self.folder, os.O_PATH)
        self.listener.bind(f"/proc/self/fd/{here}/control")  # whatever the path's length
        os.close(here)
        for name in ("control", "task.py"):
            os.chmod(os.path.join(self.folder, name), 0o666)
        self.listener.listen(64)
        self.tasks, self.lock = [], threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError, ValueError, KeyError):
                task = Task(connection)
                with self.lock:
                    self.tasks.append(task)

    def words(self, service, *options):
        """What a service runs, and the mount that it needs."""
        return ["--mount", f"type=bind,source={self.folder},target={WITHIN}"], \
            [PYTHON, f"{WITHIN}/task.py", service, *options]

    def running(self, service):
        with self.lock:
            return [t for t in self.tasks if t.service == service and t.alive()]

    def wait(self, service, count=1, seconds=20, node=None):
        """Until so many tasks of a service run (on a node); they."""
        def there():
            found = [t for t in self.running(service) if node is None or is_on(t, node)]
            return found if len(found) == count else None
        return wait_until(there, f"{count} tasks of {service}", seconds) if count else \
            wait_until(lambda: there() is not None, f"the end of {service}", seconds)

    def one(self, service, seconds=20, node=None):
        return self.wait(service, 1, seconds, node)[0]


def is_on(task, node):
    """It runs in this node's network namespace."""
    return task.netns == node.netns


def secret_mounts():
    """{mount namespace: [pids]} of all processes of the machine that see a /run/secrets."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/mountinfo", encoding="utf-8", errors="replace") as file:
                    there = any("/secrets" in line.split()[4] for line in file)
                if there:
                    found.setdefault(os.readlink(f"/proc/{name}/ns/mnt"), []).append(int(name))
    return found
