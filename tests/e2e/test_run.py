#!/usr/bin/python3
"""`conclave run`: one command with secrets, on a manager and on a worker in network namespaces:
what it sees, what it may do, its exit code, its signals, what is left of it; and who may not. Then
that a node which leaves or is removed ends its tasks. Needs root."""
import contextlib
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import BINARY, Failure, expect, main, wait_until  # noqa: E402
from fleet import Fleet, missing  # noqa: E402
from hunt import Value  # noqa: E402
from tasks import digest  # noqa: E402

MOUNT = "grep ' /run/secrets ' /proc/self/mountinfo"


class Command:
    """A command that runs until it is told to end."""

    def __init__(self, node, *words):
        self.process = subprocess.Popen(
            [*node.inside, BINARY, "run", "--data", node.data, *words], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first = self.process.stdout.readline()
        if first != "ready\n":
            raise Failure(f"{first!r} {self.process.communicate()}")

    def ended(self, seconds=20):
        """(exit code, standard output, standard error)"""
        out, error = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, error

    def task(self):
        """The process of its init, as this machine knows it."""
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(children, encoding="utf-8") as file:
            return int(file.read().split()[0])


def run(node, *words, text=None):
    done = subprocess.run([*node.inside, BINARY, "run", "--data", node.data, *words], input=text,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                          timeout=60)
    return done.returncode, done.stdout, done.stderr


def good(node, *words, text=None):
    code, out, error = run(node, *words, text=text)
    expect(code == 0, f"{words[:4]}: {code}: {error.strip()}")
    return out


def refused(node, text, *words):
    code, out, error = run(node, *words)
    expect(code != 0 and text in error and not out, f"{words[:4]}: {code}: {error.strip()} {out!r}")


def namespaces():
    """Mount namespaces of processes of this machine that have the marker of a command below."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                if b"sleep\x004242" in file.read():
                    found.add(os.readlink(f"/proc/{name}/ns/mnt"))
    return found


def show_commands(test, node, value):
    name = node.name
    with test.show(f"{name}: a command reads the secret, in memory that is its own and read-only"):
        out = good(node, "--secret", "db", "--", "sh", "-c",
                   f"sha256sum < /run/secrets/db; {MOUNT}; ls /run/secrets")
        expect(digest(value.bytes) in out and " ro,nosuid,nodev,noexec" in out, out)
        expect(" - tmpfs " in out or " - ramfs " in out, out)
        expect(out.endswith("\ndb\n"), out)
    with test.show(f"{name}: target, owner, mode and user are as asked"):
        out = good(node, "--secret", "db,target=key,uid=65534,gid=65533,mode=0400", "--user",
                   "65534:65533", "--", "sh", "-c",
                   "stat -c '%n %u:%g %a' /run/secrets/*; id -u; id -g; "
                   "sha256sum < /run/secrets/key")
        expect(out.startswith("/run/secrets/key 65534:65533 400\n65534\n65533\n"), out)
        expect(digest(value.bytes) in out, out)
    with test.show(f"{name}: a config is the file that is asked for"):
        out = good(node, "--config", "app", "--config",
                   "app,target=/run/app.conf,uid=65534,gid=65533,mode=0400", "--secret", "db", "--",
                   "sh", "-c", "cat /app /run/app.conf; stat -c '%u:%g %a' /app /run/app.conf; "
                   "sha256sum < /run/secrets/db")
        expect(out.startswith("port=80\nport=80\n0:0 444\n65534:65533 400\n"), out)
        expect(digest(value.bytes) in out, out)
        expect(good(node, "--config", "app", "--", "cat", "/app") == "port=80\n", "alone")
    with test.show(f"{name}: it has our input, output, variables and exit code"):
        os.environ["CONCLAVE_TEST_RUN"] = "passed on"
        code, out, error = run(node, "--secret", "db", "--", "sh", "-c",
                               "cat; echo $CONCLAVE_TEST_RUN; echo wrong >&2; exit 7",
                               text="typed\n")
        expect((code, out, error) == (7, "typed\npassed on\n", "wrong\n"), f"{code} {out} {error}")
    with test.show(f"{name}: it runs where we are, or where it is told"):
        done = subprocess.run([*node.inside, BINARY, "run", "--data", node.data, "--secret", "db",
                               "--", "./env", "pwd"], cwd="/usr/bin", stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False)
        expect(done.stdout == "/usr/bin\n", f"{done}")
        expect(good(node, "--secret", "db", "--workdir", "/etc", "--", "pwd") == "/etc\n", "/etc")
        expect(good(node, "--secret", "db", "--", "pwd") == "/\n", "from a place below /tmp")
    with test.show(f"{name}: a signal reaches it; it ends with the signal's number"):
        command = Command(node, "--secret", "db", "--", "sh", "-c",
                          "trap 'echo told; exit 3' USR1; echo ready; while :; do sleep 0.05; done")
        command.process.send_signal(signal.SIGUSR1)
        expect(command.ended()[:2] == (3, "told\n"), "SIGUSR1")
        command = Command(node, "--secret", "db", "--", "sh", "-c", "echo ready; exec sleep 600")
        command.process.terminate()
        expect(command.ended()[0] == 128 + signal.SIGTERM, "SIGTERM")
    with test.show(f"{name}: the data directory, other processes and disks are not there"):
        out = good(node, "--secret", "db", "--", "sh", "-c",
                   f"ls -A {node.data} 2>/dev/null | wc -l; ls /dev; ls /proc | grep -c '^[0-9]'; "
                   "test / -ef /.. || echo escaped")
        expect(out.startswith("0\n") and "vda" not in out and "escaped" not in out, out)
        expect(int(out.split()[-1]) < 8, out)
    for victim in ("the supervisor", "the command"):
        with test.show(f"{name}: kill -9 of {victim} leaves nothing"):
            command = Command(node, "--secret", "db", "--", "sh", "-c",
                              "echo ready; trap '' TERM; exec sleep 4242")
            wait_until(lambda: len(namespaces()) == 1, "it to be found while it runs")
            os.kill(command.process.pid if victim == "the supervisor" else command.task(),
                    signal.SIGKILL)
            wait_until(lambda: not namespaces(), "all of it to be gone")
            command.ended()
            good(node, "--secret", "db", "--", "true")  # and with it what a kill has left
            expect(not command_sockets(node), f"{node.sockets()}")


def command_sockets(node):
    return [name for name in node.sockets() if name.startswith("run.")]


def show_refusals(test, manager, worker, other):
    with test.show("wrong uses are told in one line"):
        refused(manager, "name a secret", "--", "true")
        refused(manager, "something is missing", "--secret", "db")
        refused(manager, "there is no secret nothing", "--secret", "nothing", "--", "true")
        refused(manager, "takes an absolute path", "--image", "x", "--secret", "db", "--", "true")
        refused(manager, "no root file system", "--image", "/no/where", "--secret", "db", "--",
                "true")
        refused(manager, "can't be started", "--secret", "db", "--", "no-such-command")
        refused(manager, "its own node", "--endpoint", "127.0.0.1:1", "--secret", "db", "--",
                "true")
        refused(manager, "data directory", "--secret", "db", "--mount", f"{manager.data}:/mnt",
                "--", "true")
        expect(not command_sockets(manager), "sockets stay behind")
    with test.show("right after a restart it waits for the session"):
        worker.kill()
        worker.begin()
        wait_until(lambda: worker.status()["state"] == "worker", "the worker to run")
        good(worker, "--secret", "db", "--", "true")
    with test.show("without root it says so"):
        done = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", BINARY, "run",
                               "--data", manager.data, "--secret", "db", "--", "true"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False)
        expect(done.returncode != 0 and "root is needed" in done.stderr, done.stderr)
    with test.show("a worker gets only what its secret's label allows it, and the audit has both"):
        refused(worker, "", "--secret", "other", "--", "true")
        manager.good("secret", "update", "other", "--label-add", f"conclave.run={worker.name}")
        good(worker, "--secret", "other", "--", "true")
        manager.good("config", "create", "plain", "-", text="port=81\n")
        refused(worker, "no config plain", "--config", "plain", "--", "true")
        manager.good("config", "update", "plain", "--label-add", f"conclave.run={worker.name}")
        good(worker, "--config", "plain", "--", "true")
        trail = manager.good("audit", "tail")
        for kind in "secret other", "config plain":
            expect(f"deny {kind}" in trail and f"read {kind}" in trail, trail)
    with test.show("an older version can be asked for"):
        manager.good("secret", "put", "other", "-", text="the-second-one")
        out = good(worker, "--secret", "other,version=2", "--secret", "other,version=1,target=old",
                   "--", "sh", "-c", "cat /run/secrets/other; sha256sum < /run/secrets/old")
        expect(out.startswith("the-second-one") and digest(other.bytes) in out, out)


def show_leaving(test, fleet):
    manager, worker = fleet.managers[0], fleet.workers[0]
    where = f"node.hostname=={worker.name}"
    with test.show("a node that leaves ends its tasks first, and is empty"):
        fleet.service("stays", "--constraint", where, secrets=["db"])
        task = fleet.control.one("stays", node=worker)
        worker.ok("swarm", "leave")
        wait_until(lambda: not task.alive() and not worker.supervisors(), "the task to end")
        expect(worker.sockets() == [], f"{worker.sockets()}")
        expect(worker.status()["state"] == "empty", worker.status()["state"])
    with test.show("a node that is removed ends its tasks when it hears of it"):
        second = fleet.workers[1]
        fleet.service("removed", "--constraint", f"node.hostname=={second.name}", secrets=["db"])
        task = fleet.control.one("removed", node=second)
        manager.ok("node", "rm", "--force", second.name)
        wait_until(lambda: not task.alive() and not second.supervisors(), "the task to end")


def tests(test):
    reason = missing()
    if reason or os.geteuid() != 0:
        test.skip("conclave run", reason or "needs root")
        return
    fleet = Fleet(test, 1, 2)
    manager, worker = fleet.managers[0], fleet.workers[0]
    value = Value("db", 3000)
    fleet.secret(value)
    other = Value("other")
    fleet.secret(other)
    manager.good("secret", "update", "db", "--label-add", "conclave.run=*")
    manager.good("config", "create", "app", "-", "--label", "conclave.run=*", text="port=80\n")
    for node in (manager, worker):
        show_commands(test, node, value)
    show_refusals(test, manager, worker, other)
    show_leaving(test, fleet)


if __name__ == "__main__":
    main(tests)
