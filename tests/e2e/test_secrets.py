#!/usr/bin/python3
"""The whole way of a secret, with the real docker command and real processes, one manager and two
workers in network namespaces: created, sealed, given over TLS to one service's task on one node,
read there from a tmpfs, gone with the task; and never where it must not be, which is looked for in
files, raw blocks, packets, arguments, memory and cores, each search with a control that it finds.
Then what shredding destroys, and what a backup with its escrow brings back. Needs root. Arguments:
the parts to run (steps, nowhere, shred)."""
import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import hunt  # noqa: E402
from cluster import Failure, expect, main, wait_until  # noqa: E402
from fleet import Fleet, missing  # noqa: E402
from hunt import Value, nowhere  # noqa: E402
from joins import ALPN_NODE, Node as ByHand, connect  # noqa: E402
from netns import within  # noqa: E402
from sessions import ASSIGN, CONFIG, Cut, RESYNC, SECRET, Session, TASK, VALUE  # noqa: E402
from tasks import digest, secret_mounts  # noqa: E402
from wire_tap import Tap  # noqa: E402

BIG = 400_000
PARTS = ("steps", "nowhere", "shred")
TASK_RUNNING = 512


class Steps:
    """The seven steps, one after the other; each says what the next one finds."""

    def __init__(self, test):
        self.test = test
        self.fleet = Fleet(test, 1, 2)
        self.manager, = self.fleet.managers
        self.here, self.other = self.fleet.workers
        self.tap = Tap(test, [self.fleet.network.switch, *[n.namespace for n in self.fleet.nodes]])
        self.small, self.big = Value("db"), Value("big", BIG)
        self.control = Value("control")
        self.values = [self.small, self.big]
        self.a = self.b = None

    def run(self):
        for step in (self.create, self.sealed, self.refusals, self.service, self.wire, self.read,
                     self.held, self.apart, self.ports, self.template, self.by_hand,
                     self.engine_of_worker, self.audit, self.gone, self.later, self.labelled):
            with self.test.show(f"secrets {step.__name__.replace('_', ' ')}: {step.__doc__}"):
                step()
            if step == self.service and not self.b:
                raise Failure("without a task there is nothing more to see")

    def create(self):
        """docker makes secrets; nobody is shown one again"""
        ids = {v.name: self.fleet.secret(v) for v in self.values}
        listed = self.manager.ok("secret", "ls", "--format", "{{.ID}} {{.Name}}").splitlines()
        expect(sorted(listed) == sorted(f"{i} {n}" for n, i in ids.items()), f"{listed}")
        shown = self.manager.ok("secret", "inspect", "db", "big")
        expect(json.loads(shown)[0]["ID"] == ids["db"] and "Data" not in shown, shown)
        nowhere(self.small.found_in(shown.encode()) + self.big.found_in(shown.encode()), "inspect")
        self.manager.refused("already exists", "secret", "create", "db", "-", text="another")

    def sealed(self):
        """the store of every manager has it sealed: neither files nor raw blocks show it"""
        self.manager.good("backup", os.path.join(self.fleet.disk.root, "first.backup"))
        for manager in self.fleet.managers:
            nowhere(hunt.in_files([manager.data], self.values), manager.name)
        nowhere(hunt.in_files([self.fleet.disk.root], self.values), "all files")
        nowhere(self.fleet.disk.hunt(self.values), "the raw image")
        self.manager.good("put", "control", "-", text=self.control.bytes.decode())
        hits = hunt.in_memory(self.manager.process.pid, [self.control, *self.values])
        expect(hunt.open_hits([h for h in hits if h[0] == "control"]),
               "what is no secret is not found in the manager's memory either")
        nowhere([f"{n} ({f}) in {r}" for n, f, r in hits if n != "control"],
                "the manager's memory, while nobody asks for it")

    def refusals(self):
        """values of requests that are refused, malformed or cut are forgotten as well"""
        wrong = [Value("db"), Value("too-large", 520_000), Value("bad name"), Value("cut", 90_000),
                 Value("malformed", 90_000), Value("ours", 520_000)]
        for value in wrong[:3]:
            code, out, _ = self.manager.docker("secret", "create", value.name, "-",
                                               text=value.bytes.decode())
            expect(code != 0, f"{value.name} was taken: {out}")
        for value, start, end, size in ((wrong[3], '{"Name":"cut","Data":"', '', 1000),
                                        (wrong[4], '{"Name":"m","Data":"', '",,}', 0)):
            body = (start + base64.b64encode(value.bytes).decode() + end).encode()
            head = (f"POST /v1.44/secrets/create HTTP/1.1\r\nHost: d\r\nContent-Type: "
                    f"application/json\r\nContent-Length: {len(body) + size}\r\n\r\n")
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(self.manager.sock)
                s.sendall(head.encode() + body)
                expect(size or b" 400 " in s.recv(4096), f"{value.name} was taken")
        code, _, _ = self.manager.cli("secret", "create", "ours", "-", text=wrong[5].bytes.decode())
        expect(code != 0, "too much was taken")
        hunt.forgotten(self.manager.process.pid, wrong, "the manager's memory")

    def service(self):
        """service B is created with --secret, and runs on its node"""
        where = f"node.hostname=={self.here.name}"
        self.fleet.service("B", "--constraint", where, "--restart-condition", "none", secrets=[
            "source=db,target=db,uid=65534,gid=65533,mode=0440", "big"])
        self.fleet.service("A", "--constraint", where)
        self.b = self.fleet.control.one("B", node=self.here)
        self.a = self.fleet.control.one("A", node=self.here)
        row = self.fleet.wait_state("B", "Running")
        expect(row[1] == self.here.name, f"{row}")
        self.manager.refused("is in use by the following service", "secret", "rm", "db")

    def wire(self):
        """it went over the wire, inside of TLS alone"""
        seen = self.tap.sealed_bytes(self.manager.host, 2377, self.here.host)
        expect(seen > BIG, f"only {seen} bytes of TLS went from the manager to the node")
        seen = self.tap.sealed_bytes(self.manager.host, 2377, self.other.host)
        expect(seen < BIG, f"{seen} bytes of TLS went to the node that has nothing to do with it")

        def say_it():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.sendto(self.control.bytes, (self.manager.host, 9))
        within(self.here.namespace, say_it)
        wait_until(lambda: self.tap.found([self.control]), "the tap to hear what is said openly")
        expect(self.tap.lost() == 0, "packets were missed")
        nowhere(self.tap.found(self.values), "the packets")

    def read(self):
        """B's task reads it: a read-only tmpfs of its own, with the owner and mode asked for"""
        for value in self.values:
            expect(self.b.digest(f"/run/secrets/{value.name}") == digest(value.bytes),
                   f"{value.name} is another one")
        kind, options, inner = self.b.mount("/run/secrets") or (None, set(), set())
        expect(kind in ("tmpfs", "ramfs"), f"/run/secrets is a {kind}")
        expect({"ro", "nosuid", "nodev", "noexec"} <= options, f"{options}")
        if kind == "tmpfs":
            expect("noswap" in inner or not kernel_has_noswap(self.fleet), f"{inner}")
            expect(any(o.startswith("size=") for o in inner), f"no limit: {inner}")
        found = self.b.of("[(s.st_uid, s.st_gid, s.st_mode & 0o7777) for s in map(os.stat, "
                          "['/run/secrets/db', '/run/secrets/big'])]")
        expect(found == [[65534, 65533, 0o440], [0, 0, 0o444]], f"{found}")
        for code in ("open('/run/secrets/db', 'r+')", "open('/run/secrets/new', 'w')",
                     "os.unlink('/run/secrets/db')", "os.chmod('/run/secrets/db', 0o777)"):
            said = denied(self.b, code)
            expect(said == "Read-only file system", f"{code}: {said!r}")
        expect(sorted(self.b.of("os.listdir('/run/secrets')")) == ["big", "db"], "other files")

    def held(self):
        """the agent has it in locked memory alone, the other node and the manager not at all"""
        hits = hunt.in_memory(self.here.process.pid, self.values)
        expect({name for name, _, _ in hits} == {"db", "big"},
               f"the agent that runs the task has {hits}: nothing could be found there")
        nowhere(hunt.open_hits(hits), "memory of the agent that can be swapped or dumped")
        for node in (self.manager, self.other):
            nowhere([f"{n} ({f}) in {r}" for n, f, r in
                     hunt.in_memory(node.process.pid, self.values)], f"memory of {node.name}")
        for pid in supervising(self.here, 2):
            nowhere(hunt.open_hits(hunt.in_memory(pid, self.values)), "a supervisor's memory")

    def apart(self):
        """A, as root on the same node, gets at it by no path, process, socket or device"""
        expect(self.a.pid != self.b.pid and self.a.netns == self.b.netns, "not on one node")
        expect(self.a.of("os.listdir('/run/secrets') if os.path.isdir('/run/secrets') else []")
               == [], "A has secrets")
        seen = self.a.of("[p for p in os.listdir('/proc') if p.isdigit()]")
        expect(len(seen) <= 2, f"A sees processes: {seen}")
        for pid in (self.b.pid, self.here.process.pid, *supervising(self.here, 2), 1):
            for path in (f"/proc/{pid}/root/run/secrets/db", f"/proc/{pid}/environ",
                         f"/proc/{pid}/mem"):
                if pid != 1 or "secrets" in path:
                    expect(self.a.of(f"can_read({path!r})"), f"A reads {path}")
            if pid != 1:
                expect(denied(self.a, f"os.kill({pid}, 0)"), f"A can send signals to {pid}")
        self.a_and_sockets()
        self.a_and_devices()
        nowhere(search_of(self.a, self.values, self.fleet.disk.root), "what A reads of the node")

    def a_and_sockets(self):
        folder = self.here.data
        paths = [os.path.join(folder, name) for name in ("conclave.sock", "engine.sock")]
        paths += [os.path.join(folder, "tasks", name) for name in self.here.sockets()]
        expect(len(paths) > 3, f"no supervisor's socket is there: {paths}")
        for path in paths:
            expect(os.path.exists(path), f"{path} is not there")
            expect(self.a.of(f"can_connect({path!r})"), f"A is connected to {path}")
        for name in ("keyring", "kek"):
            expect(os.path.exists(os.path.join(folder, name)), f"{name} is not there")
            expect(self.a.of(f"can_read({os.path.join(folder, name)!r})"), f"A reads {name}")
        abstract = self.a.of("[l.split()[-1] for l in open('/proc/net/unix') if ' @' in l]")
        expect(abstract == [], f"sockets without a path: {abstract}")
        fds = self.a.of("sorted(os.readlink('/proc/self/fd/' + f) for f in "
                        "os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + f))")
        expect(len(fds) <= 5, f"A was left open files: {fds}")

    def a_and_devices(self):
        code = """
import stat
value = []
for name in os.listdir('/sys/class/block'):
    number = os.makedev(*map(int, open(f'/sys/class/block/{name}/dev').read().split(':')))
    for folder in ('/tmp', '/srv', '/dev', '/dev/shm'):
        path = f'{folder}/disk-{name}'
        try:
            os.mknod(path, 0o600 | stat.S_IFBLK, number)
            if can_read(path) == '':
                value.append(path)
            os.unlink(path)
        except OSError:
            pass
    if can_read('/dev/' + name) == '':
        value.append('/dev/' + name)
value += [p for p in ('/dev/mem', '/dev/kmem', '/dev/port', '/proc/kcore') if can_read(p) == '']
"""
        found = self.a.ask(code)
        expect(found == [], f"A reads the machine's devices: {found}")
        libc = "import ctypes; c = ctypes.CDLL(None, use_errno=True); value = "
        for call in ("c.mount(b'none', b'/mnt', b'tmpfs', 0, None)", "c.umount2(b'/proc', 2)",
                     f"c.ptrace(16, {self.b.pid}, 0, 0)", "c.unshare(0x20000)"):
            expect(self.a.ask(libc + call) != 0, f"A may {call}")

    def ports(self):
        """nor by a port without TLS, from a worker's task or from one beside the manager"""
        self.fleet.service("M", "--constraint", "node.role==manager")
        beside = self.fleet.control.one("M", node=self.manager)
        for task, node in ((self.a, self.here), (beside, self.manager)):
            for method, path in PATHS:
                answer = task.ask(HTTP.format(port=node.client, method=method, path=path))
                expect(answer[0] in (0, 401, 403, 404, 405, 503), f"{path}: {answer}")
                nowhere([f for v in self.values for f in v.found_in(answer[1].encode())], path)
        expect(beside.ask(HTTP.format(port=self.manager.client, method="GET", path="/health"))[0] ==
               200, "the manager's port was not even reached")
        for name in ("conclave.sock", "engine.sock", "keyring", "kek"):
            path = os.path.join(self.manager.data, name)
            expect(beside.of(f"can_connect({path!r})") and beside.of(f"can_read({path!r})"), path)
        self.manager.ok("service", "rm", "M")

    def template(self):
        """a templated config is given what its service has, and nothing else"""
        self.manager.ok("config", "create", "--template-driver", "golang", "steal", "-",
                        text='{{ secret "db" }} {{ .Service.Name }}')
        where = ["--constraint", f"node.hostname=={self.here.name}", "--config",
                 "source=steal,target=/run/stolen"]
        self.fleet.service("T", *where, "--restart-condition", "none")
        row = self.fleet.wait_state("T", "Rejected")
        expect("steal: template" in row[4], f"no word why: {row}")
        expect(not self.fleet.control.running("T"), "it runs")
        wait_until(lambda: supervising(self.here, 2), "the end of its supervisor")
        self.fleet.service("U", *where, secrets=["db"])
        task = self.fleet.control.one("U", node=self.here)
        expect(task.digest("/run/stolen") == digest(self.small.bytes + b" U"), "another text")
        for name in ("T", "U"):
            self.manager.ok("service", "rm", name)
        task.wait_end("the end of U")
        wait_until(lambda: supervising(self.here, 2), "nothing of them to be left")

    def by_hand(self):
        """a worker that asks by hand, with a good certificate and another's name, gets nothing"""
        self.manager.good("secret", "update", "db", "--label-add", f"conclave.run={self.here.name}")
        token = self.manager.ok("swarm", "join-token", "-q", "worker")
        node_id = within(self.other.namespace, lambda: self.attack(token))
        records = audit(self.manager)
        denials = [r for r in records if r["what"] == "deny" and node_id in json.dumps(r)]
        expect(denials, f"the audit has no denial of {node_id}: {records[-5:]}")
        self.manager.good("secret", "update", "db", "--label-rm", "conclave.run")

    def attack(self, token):
        """What a node without tasks tries; its id."""
        node = ByHand(self.test).join(self.manager.peer_address, token)
        their_task = self.fleet.tasks("B")[0][0]
        with Session(self.manager.peer_address, node, self.here.name) as session:
            kinds = [kind for kind, _ in session.assignment()]
            expect(TASK not in kinds and VALUE not in kinds, f"it is given {kinds}")
            for names, kind in ((["db"], SECRET), (["big"], SECRET), (["db", "big"], SECRET),
                                (["none"], SECRET), (["steal"], CONFIG)):
                error, text, count, body = session.fetch(*names, kind=kind)
                expect(error and not count, f"it was given {names}")
                nowhere(self.small.found_in(body) + self.big.found_in(body), "the answer")
                expect(text, "no word why")
            session.report(their_task, TASK_RUNNING)
            session.say(RESYNC)
            kinds = [kind for kind, _ in session.assignment()]
            expect(TASK not in kinds and VALUE not in kinds, f"it is given {kinds}")
        with connect(self.manager.peer_address, ALPN_NODE) as tls:  # without a certificate
            tls.settimeout(5)
            with contextlib.suppress(OSError):
                expect(tls.recv(1) == b"", "a session without a certificate")
        return node.id

    def engine_of_worker(self):
        """the Engine API shows it neither on a worker nor on a manager"""
        for words in (["secret", "ls"], ["secret", "inspect", "db"], ["service", "ls"]):
            self.here.refused("Worker nodes can't be used to view or modify cluster state", *words)
        code, out, error = self.here.cli("run", "--secret", "db", "--", "cat", "/run/secrets/db")
        expect(code != 0 and not self.small.found_in(out.encode()), f"run on a worker: {out}")
        expect("db" in error, f"{error}")

    def audit(self):
        """the trail tells who made it and where it went, is whole, and has no value"""
        records = audit(self.manager)
        nowhere([f for v in self.values for f in v.found_in(json.dumps(records).encode())],
                "the trail")
        made = [r for r in records if r["what"] == "create" and r.get("name") == "db"]
        given = [r for r in records if r["what"] == "deliver" and r.get("name") == "db"]
        expect(made, "nobody has made it")
        expect({r["node"] for r in given} == {self.here.id}, f"it was given to {given}")
        self.manager.good("audit", "verify")

    def gone(self):
        """when B's task ends, the mount and the agent's copy are gone"""
        namespace = os.readlink(f"/proc/{self.b.pid}/ns/mnt")
        expect(namespace in secret_mounts(), "B's mount was not seen before")
        self.b.exit(0)
        self.b.wait_end("B to end")
        self.fleet.wait_state("B", "Complete")
        wait_until(lambda: namespace not in secret_mounts(), "the mount to be gone")
        hunt.forgotten(self.here.process.pid, self.values, "the agent's memory")
        wait_until(lambda: supervising(self.here, 1), "the end of B's supervisor")
        expect(len(self.here.sockets()) == 1, f"sockets are left: {self.here.sockets()}")
        for pid in self.here.processes():
            nowhere([f"{n} ({f})" for n, f, _ in hunt.in_memory(pid, self.values)],
                    f"memory of {pid} on the node")

    def later(self):
        """the node that had it is not given it again; a removed secret is no more"""
        code, out, _ = self.here.cli("run", "--secret", "db", "--", "cat", "/run/secrets/db")
        expect(code != 0 and not self.small.found_in(out.encode()), "the node still gets it")
        self.manager.ok("service", "rm", "B")
        self.manager.ok("secret", "rm", "big")
        self.manager.refused(("No such secret", "not found"), "secret", "inspect", "big")
        expect(self.fleet.control.running("A"), "A has not outlived it")

    def labelled(self):
        """a secret's label names the nodes whose operators may run commands with it"""
        self.manager.good("secret", "update", "db", "--label-add", f"conclave.run={self.here.name}")
        words = ["run", "--secret", "db", "--", "sha256sum", "/run/secrets/db"]
        wait_until(lambda: self.here.good(*words).split()[0] == digest(self.small.bytes),
                   "the value on the node that is named")
        code, out, error = self.other.cli(*words)
        expect(code != 0 and "db" in error, f"the other node: {out} {error}")
        hunt.forgotten(self.here.process.pid, self.values, "the agent's memory")
        self.manager.good("secret", "update", "db", "--label-rm", "conclave.run")
        wait_until(lambda: self.here.cli(*words)[0] != 0, "the end of that")


PATHS = (("GET", "/conclave/v1/secrets"), ("GET", "/conclave/v1/secrets/inspect?id=db"),
         ("GET", "/conclave/v1/configs/value?id=steal"), ("POST", "/conclave/v1/run"),
         ("GET", "/conclave/v1/audit"), ("POST", "/conclave/v1/vault/escrow"),
         ("GET", "/conclave/v1/backup"), ("GET", "/conclave/v1/backup-key"),
         ("POST", "/conclave/v1/services/create"), ("GET", "/v1.44/secrets"),
         ("POST", "/v1.44/services/create"))
HTTP = """
import http.client
try:
    connection = http.client.HTTPConnection('127.0.0.1', {port}, timeout=5)
    connection.request('{method}', '{path}', body='{{}}')
    answer = connection.getresponse()
    value = [answer.status, answer.read().decode(errors='replace')]
except OSError:
    value = [0, '']
"""


def supervising(node, tasks):
    """The processes that supervise so many tasks."""
    found = node.supervisors()
    expect(len(found) == tasks, f"supervisors of {tasks} tasks: {found}")
    return [pid for pids in found for pid in pids]


def denied(task, code):
    """The error that an expression ends with in a task; "" when it has none."""
    return task.ask(f"value = ''\ntry:\n    {code}\nexcept OSError as error:\n"
                    "    value = os.strerror(error.errno)\n"
                    "except ProcessLookupError:\n    value = 'no process'\n")


def search_of(task, values, disk):
    """What a task finds of the values by looking through all that is in memory or looks like it
    in its file system. It is told what to look for back to front, and reads files so, in order that
    nothing of a value is in its own memory."""
    needles = [base64.b64encode(v.needles["first half"][::-1]).decode() for v in values]
    return task.ask(f"""
import base64
needles = [base64.b64decode(n) for n in {needles!r}]
value = []
for top in ('/run', '/tmp', '/dev', '/var/tmp', '/srv', '/proc/1/root/run', {disk!r}):
    for where, dirs, names in os.walk(top):
        for name in names:
            path = os.path.join(where, name)
            try:
                if not os.path.isfile(path) or os.path.getsize(path) > 1 << 20:
                    continue
                with open(path, 'rb') as file:
                    data = file.read()[::-1]
            except OSError:
                continue
            value += [path for n in needles if n in data]
""")


def kernel_has_noswap(fleet):
    """Whether a tmpfs of this kernel can be kept out of swap."""
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "-o", "noswap", "none",
                           fleet.disk.root], stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def audit(manager):
    lines = manager.good("audit", "tail", "-n", "1000", "--json").splitlines()
    return [json.loads(line) for line in lines]


# --- nowhere else --------------------------------------------------------------------------------

class Nowhere:
    """All places where a value could be left behind, while a service that uses it runs, is given
    another version, and its agent and manager are aborted."""

    def __init__(self, steps):
        self.test, self.fleet = steps.test, steps.fleet
        self.manager, self.here, self.tap = steps.manager, steps.here, steps.tap
        self.first, self.second = Value("renewed"), Value("renewed")
        self.conf = Value("conf")
        self.values = [steps.small, steps.big, self.first, self.second, self.conf]
        self.task, self.tasks = None, 2 if steps.a else 1  # A's goes on after the steps

    def run(self):
        for step in (self.renew, self.words, self.logs, self.memory, self.cores, self.aborted,
                     self.files):
            with self.test.show(f"nowhere: {step.__doc__}"):
                step()

    def renew(self):
        """a new version reaches the running task as a whole, which is told by a signal"""
        self.fleet.secret(self.first)
        self.fleet.secret(self.conf, kind="config")
        self.fleet.service("C", "--constraint", f"node.hostname=={self.here.name}", "--config",
                           "source=conf,target=/run/conf", secrets=["renewed"])
        self.task = self.fleet.control.one("C", node=self.here)
        expect(self.task.digest("/run/secrets/renewed") == digest(self.first.bytes), "the first")
        expect(self.task.digest("/run/conf") == digest(self.conf.bytes), "the config")
        self.manager.good("secret", "put", "renewed", "-", text=self.second.bytes.decode())
        wait_until(lambda: self.task.digest("/run/secrets/renewed") == digest(self.second.bytes),
                   "the second version")
        wait_until(lambda: "HUP" in self.task.of("signals"), "the signal")
        expect(self.task.alive(), "it was another task")
        expect(self.task.of("os.listdir('/run/secrets')") == ["renewed"], "something is left")

    def words(self):
        """in no process's arguments, name or environment"""
        control = Value("control")
        code = [sys.executable, "-c", "import sys; sys.stdin.read()", control.bytes.decode()]
        with subprocess.Popen(code, stdin=subprocess.PIPE) as process:
            try:
                wait_until(lambda: hunt.in_words([control]), "the control to be found")
            finally:
                process.kill()
        nowhere(hunt.in_words(self.values), "the machine's processes")
        expect(self.task.of("sorted(os.environ)") is not None, "no environment")

    def logs(self):
        """in no log, at the level that tells most"""
        expect(any(e["level"] == "debug" for e in self.manager.events()), "it tells less")
        for node in self.fleet.nodes:
            expect(len(node.events()) > 3, f"{node.name} says nothing")
            nowhere(hunt.in_file(node.log, self.values), "a log")

    def memory(self):
        """in no memory of agent or manager but what is locked and never dumped"""
        hits = hunt.in_memory(self.here.process.pid, self.values)
        expect(any(name == "renewed" for name, _, _ in hits), "the agent does not have it")
        nowhere(hunt.open_hits(hits), "the agent's memory")
        nowhere([f"{n} ({f}) in {r}" for n, f, r in hits if n in ("db", "big")],
                "the agent's memory of what is over")
        hits = hunt.in_memory(self.manager.process.pid, self.values)
        nowhere(hunt.open_hits(hits), "the manager's memory")
        for pid in supervising(self.here, self.tasks):
            nowhere(hunt.open_hits(hunt.in_memory(pid, self.values)), "a supervisor's memory")

    def cores(self):
        """in no core of agent, supervisor or manager, though a debugger makes them"""
        servers = [self.here.process.pid, self.manager.process.pid]
        for pid in servers + supervising(self.here, self.tasks):
            path = hunt.core_of(pid, self.test.work)
            if not path:
                self.test.skip("nowhere: a debugger's cores", "there is no gcore")
                return
            core = Value("core")  # what is in ordinary memory must be in the core
            core.needles = {"cluster": self.manager.status()["cluster"].encode()}
            if pid in servers:
                expect(hunt.in_file(path, [core]), f"{path} does not even have the cluster's id")
            expect(os.path.getsize(path) > 100_000, f"{path} is small")
            nowhere(hunt.in_file(path, self.values), "a core")
            os.unlink(path)

    def aborted(self):
        """an aborted agent and manager leave no core; the task goes on, and all come back"""
        folders = [self.fleet.disk.root, self.fleet.control.folder]
        for node in (self.here, self.manager):
            left = hunt.abort(node, folders)
            nowhere([f"a core: {path}" for path in left], "the disk")
            expect(self.task.alive(), f"the task has ended with {node.name}")
        for node in (self.manager, self.here):
            node.restart()
        self.fleet.wait_state("C", "Running")
        third = Value("renewed")
        self.values.append(third)
        wait_until(lambda: self.manager.cli("secret", "put", "renewed", "-",
                                            text=third.bytes.decode())[0] == 0, "a third version")
        wait_until(lambda: self.task.digest("/run/secrets/renewed") == digest(third.bytes),
                   "the third version in the task that has outlived them")
        expect(len(self.fleet.control.running("C")) == 1, "there are two of it")

    def files(self):
        """in no file and no block that was ever written, and in no packet"""
        control = Value("control")
        path = os.path.join(self.fleet.disk.root, "control")
        with open(path, "wb") as file:
            file.write(control.bytes)
        expect(hunt.in_files([self.fleet.disk.root], [control]), "a file is not found")
        self.fleet.disk.hunt([])  # synchronises
        os.unlink(path)
        expect(hunt.in_files([self.fleet.disk.root], [control]) == [], "it is still there")
        expect(self.fleet.disk.hunt([control]), "a removed file is not found in the raw image")
        nowhere(hunt.in_files([self.fleet.disk.root, self.fleet.control.folder], self.values),
                "the files")
        nowhere(self.fleet.disk.hunt(self.values), "the raw image")
        nowhere(self.tap.found(self.values), "the packets")


# --- shredding, backups, escrow ------------------------------------------------------------------

class Shred:
    """One manager; an older backup and an older copy of its directory; a secret is shredded."""

    def __init__(self, test, fleet):
        self.test, self.fleet = test, fleet
        self.manager = fleet.managers[0]
        self.doomed = Value("doomed")
        self.kept = [Value(f"kept{i}") for i in range(6)] + [Value("keptbig", BIG)]
        self.settings = Value("settings")  # a config
        self.phrase = os.path.join(test.work, "passphrase")
        with open(self.phrase, "w", encoding="utf-8") as file:
            file.write("of the operator alone\n")
        self.old = {}  # backup, its key's file, escrow, copy of the directory

    def run(self):
        for step in (self.before, self.plain, self.shred, self.still, self.backup_of_old,
                     self.copy_of_old, self.keyring_of_old, self.locked):
            with self.test.show(f"shred: {step.__doc__}"):
                step()

    def digests(self, node, names):
        """What a command on a node reads of secrets."""
        wait_until(lambda: node.status()["session"], f"{node.name} to have a session")
        options = [w for name in names for w in ("--secret", name)]
        out = node.good("run", *options, "--", "sha256sum", *[f"/run/secrets/{n}" for n in names])
        return [line.split()[0] for line in out.splitlines()]

    def path(self, name):
        return os.path.join(self.test.work, name)

    def back_up(self, name):
        """A backup, and its key in a file."""
        out = self.manager.good("backup", self.path(name))
        key = next(w for w in out.split() if w.startswith("CCLBAK-1-"))
        with open(self.path(name + ".key"), "w", encoding="utf-8") as file:
            file.write(key + "\n")

    def escrow(self, name):
        self.manager.good("key", "escrow", "--out", self.path(name), "--passphrase-file",
                          self.phrase)

    def before(self):
        """secrets, a backup, an escrow of its keys, a copy of the directory: nothing readable"""
        for value in [*self.kept, self.doomed]:
            self.fleet.secret(value)
        self.fleet.secret(self.settings, kind="config")
        expect(self.digests(self.manager, [v.name for v in [*self.kept, self.doomed]]) ==
               [digest(v.bytes) for v in [*self.kept, self.doomed]], "other values")
        self.back_up("old.backup")
        self.escrow("old.escrow")
        self.manager.stop()
        shutil.copytree(self.manager.data, self.path("old.copy"))
        self.manager.restart()
        for name in ("old.backup", "old.escrow"):
            nowhere(hunt.in_file(self.path(name), [*self.kept, self.doomed]), name)
        nowhere(hunt.in_files([self.path("old.copy")], [*self.kept, self.doomed]), "the copy")

    def restored(self, name, escrow):
        """A cluster of its own from the old backup, and an escrow."""
        node = self.fleet.empty(name)
        words = ["restore", self.path("old.backup"), "--name", name, "--client",
                 f"127.0.0.1:{node.client}", "--peer", node.peer_address, "--key-file",
                 self.path("old.backup.key")]
        if escrow:
            words += ["--escrow", self.path(escrow), "--passphrase-file", self.phrase]
        node.good(*words)
        node.restart()
        wait_until(lambda: node.status().get("role") == "leader", f"{name} to lead")
        return node

    def plain(self):
        """the backup and its escrow: every value is back; without the escrow none is"""
        node = self.restored("bare", "")
        self.refused(node, "kept0", "doomed")

        def told():
            code, out, error = node.cli("config", "inspect", "settings")
            expect(code != 0 and not self.settings.found_in(out.encode()), f"it is shown: {out}")
            expect("escrow" in error, error)
            return True
        wait_until(told, "it to ask for the escrow")
        node.good("key", "import-escrow", self.path("old.escrow"), "--passphrase-file", self.phrase)
        everything = [*self.kept, self.doomed]
        expect(self.digests(node, [v.name for v in everything]) ==
               [digest(v.bytes) for v in everything], "imported later, values are others")
        expect(self.settings.bytes.decode() in node.good("config", "inspect", "settings"), "config")
        node.kill()
        node = self.restored("whole", "old.escrow")
        expect(self.digests(node, [v.name for v in everything]) ==
               [digest(v.bytes) for v in everything], "values are others")
        node.kill()

    def refused(self, node, *names):
        """A command on a node is not given these, and the node has nothing of them in memory."""
        wait_until(lambda: node.status()["session"], f"{node.name} to have a session")
        for name in names:
            code, out, error = node.cli("run", "--secret", name, "--", "cat",
                                        f"/run/secrets/{name}")
            expect(code != 0, f"{node.name} gives {name}")
            expect(not any(v.found_in(out.encode()) for v in [*self.kept, self.doomed]), out)
            expect("cluster key" in error, f"for another reason: {error.strip()}")
        wanted = [v for v in [*self.kept, self.doomed] if v.name in names]
        nowhere([f"{n} ({f}) in {r}" for n, f, r in hunt.in_memory(node.process.pid, wanted)],
                f"memory of {node.name}")

    def shred(self):
        """it says what it did, and names the escrow that still holds the old keys"""
        before = self.epochs()
        out = self.manager.good("secret", "shred", "doomed", "--yes")
        expect("escrow" in out, f"it does not name the escrow: {out}")
        after = self.epochs()
        expect(after and not set(before) & set(after), f"epochs before {before}, after {after}")
        self.manager.refused(("No such secret", "not found"), "secret", "inspect", "doomed")
        self.escrow("new.escrow")

    def epochs(self):
        return self.manager.json_of("key", "status")["held"]

    def still(self):
        """all other secrets are as they were, also after a restart"""
        for restart in (True, False):
            expect(self.digests(self.manager, [v.name for v in self.kept]) ==
                   [digest(v.bytes) for v in self.kept], "values are others")
            if restart and not self.manager.status()["autolock"]:
                self.manager.stop()
                self.manager.restart()

    def backup_of_old(self):
        """the older backup with the escrow of today gives the value to nobody"""
        node = self.restored("today", "new.escrow")
        expect("doomed" in node.ok("secret", "ls", "--format", "{{.Name}}").split(),
               "the backup is not from before")
        self.refused(node, "doomed")
        self.not_as_service(node)
        node.kill()

    def not_as_service(self, node):
        """A service that names it gets no task that has it."""
        self.fleet.service("grave", secrets=["doomed"], through=node)
        row = wait_until(lambda: self.rows(node, "grave"), "a task")[0]
        expect("Running" not in row, row)
        expect(not self.fleet.control.running("grave"), "it runs")

    @staticmethod
    def rows(node, service):
        return node.ok("service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}",
                       service).splitlines()

    def copy_of_old(self):
        """nor does the older copy of the directory with the keyring and keys of today"""
        self.manager.stop()
        with self.copy("copy", ("keyring", "kek")) as node:
            if self.starts(node):
                self.refused(node, "doomed")
                node.kill()
        self.manager.restart()

    def keyring_of_old(self):
        """nor is the keyring in that copy opened by what opens the one of today"""
        self.manager.stop()
        with self.copy("ring", ("kek",)) as node:
            expect(not self.starts(node), "today's key opens yesterday's keyring")
            expect("keyring: wrong key" in node.output(), node.output()[-300:])
        self.manager.restart()

    def locked(self):
        """with autolock, today's unlock key opens neither yesterday's keyring nor the value"""
        old_key = unlock_key(self.manager.good("lock"))
        second = Value("doomed")
        self.fleet.secret(second)
        self.manager.stop()
        shutil.rmtree(self.path("old.copy"))
        shutil.copytree(self.manager.data, self.path("old.copy"))
        self.manager.begin()
        self.unlock(self.manager, old_key)
        out = self.manager.good("secret", "shred", "doomed", "--yes")
        new_key = unlock_key(self.manager.good("unlock-key"))
        expect(new_key != old_key and new_key in out, f"the new unlock key is not told: {out}")
        self.manager.stop()
        with self.copy("lock", ()) as node:
            node.begin()
            expect(self.unlock_fails(node, new_key), "today's key opens yesterday's keyring")
        with self.copy("lock2", ("keyring",)) as node:
            node.begin()
            if not self.unlock_fails(node, new_key) and self.runs(node):
                wait_until(lambda: node.status()["session"], "a session")
                code, out, _ = node.cli("run", "--secret", "doomed", "--", "cat",
                                        "/run/secrets/doomed")
                expect(code != 0 and not second.found_in(out.encode()), "the value is had")
        self.manager.begin()
        expect(self.unlock_fails(self.manager, old_key), "yesterday's key opens today's keyring")
        self.unlock(self.manager, new_key)
        self.still()

    def unlock(self, node, key):
        wait_until(lambda: node.status()["state"] == "locked", f"{node.name} to ask for its key")
        node.good("unlock", text=key + "\n")
        wait_until(lambda: node.status().get("role") == "leader", f"{node.name} to lead")

    @staticmethod
    def unlock_fails(node, key):
        wait_until(lambda: node.status()["state"] == "locked", f"{node.name} to ask for its key")
        return node.cli("unlock", text=key + "\n")[0] != 0

    @contextlib.contextmanager
    def copy(self, name, of_today):
        """The manager as it was, with some files as they are now, at the manager's own place."""
        data = self.path(name)
        shutil.copytree(self.path("old.copy"), data)
        for file in of_today:
            shutil.copy2(os.path.join(self.manager.data, file), os.path.join(data, file))
        node = self.fleet.twin(self.manager, name, data)
        try:
            yield node
        finally:
            node.kill()

    @staticmethod
    def starts(node):
        """It runs and leads, in the end; or it has ended."""
        node.begin()
        return Shred.runs(node)

    @staticmethod
    def runs(node):
        return wait_until(lambda: "no" if not node.running() else
                          "yes" if node.status().get("role") == "leader" else None,
                          "it to run or to end") == "yes"


def unlock_key(text):
    return next(word for word in text.split() if word.startswith("SWMKEY-1-"))


def run(test):
    parts = sys.argv[1:] or PARTS
    why = missing()
    if why:
        test.skip("secrets", why)
        return
    steps = Steps(test)
    if "steps" in parts:
        steps.run()
    if "nowhere" in parts:
        Nowhere(steps).run()
    if "shred" in parts:
        Shred(test, steps.fleet).run()


main(run)
