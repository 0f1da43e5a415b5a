"""The real docker client for tests: found in $PATH (CONCLAVE_DOCKER names another one), run with a
configuration of its own against the Engine API's socket of a node, and its answers."""
import contextlib
import json
import os
import shutil
import signal
import subprocess

from cluster import Failure, Manager, expect

DOCKER_S = 60


def find_docker():
    return os.environ.get("CONCLAVE_DOCKER") or shutil.which("docker")


def end_tasks(test):
    """Ends the tasks of the test's nodes: their supervisors outlive the agents, on purpose, and are
    known by the folder of sockets that they hold open."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"task-supervisor" not in file.read().split(b"\0"):
                    continue
            open_files = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
            if any(path.startswith(test.work + "/") for path in open_files):
                os.kill(int(pid), signal.SIGKILL)


class Node(Manager):
    """A node that belongs to no cluster until docker says so."""

    def begin(self, *options):
        if self.plaintext:
            options = ("--client-insecure", *options)
        addresses = () if self.inside else ("--peer", self.peer_address)
        self.plaintext = False  # start would say it, too
        self.start("--client", f"127.0.0.1:{self.client}", *addresses, *options, addresses=False)
        self.plaintext = True
        return self

    @property
    def sock(self):
        return os.path.join(self.data, "engine.sock")

    def docker(self, *arguments, text=None, seconds=DOCKER_S, host=None):
        """(exit code, standard output, standard error)."""
        config = os.path.join(self.test.work, "docker")
        os.makedirs(config, exist_ok=True)
        env = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
        try:
            done = subprocess.run(
                [find_docker(), "-H", host or f"unix://{self.sock}", *arguments], input=text or "",
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=seconds,
                check=False, env=dict(env, DOCKER_CONFIG=config))
        except subprocess.TimeoutExpired as error:
            raise Failure(f"docker {' '.join(arguments)}: no end after {seconds} s: "
                          f"{(error.stdout or b'')[-300:]!r}") from error
        return done.returncode, done.stdout, done.stderr

    def ok(self, *arguments, text=None, seconds=DOCKER_S):
        """Its output; a failure when it does not succeed."""
        code, out, err = self.docker(*arguments, text=text, seconds=seconds)
        expect(code == 0, f"{self.name}: docker {' '.join(arguments)}: {code}: {err.strip()}")
        return out.strip()

    def refused(self, sentence, *arguments, text=None):
        """It fails, and says so in these words, or in one of several (older clients)."""
        sentences = (sentence,) if isinstance(sentence, str) else sentence
        code, out, err = self.docker(*arguments, text=text)
        expect(code != 0, f"{self.name}: docker {' '.join(arguments)} worked: {out.strip()}")
        expect(any(s in err for s in sentences),
               f"docker {' '.join(arguments)}: {err.strip()!r}, not {sentence!r}")

    def json(self, *arguments):
        return json.loads(self.ok(*arguments))

    def swarm(self):
        """Swarm of /info."""
        return self.json("info", "--format", "{{json .Swarm}}")

    def inspect(self, node):
        return self.json("node", "inspect", node)[0]

    def nodes(self):
        """{host name: a node of `docker node ls`}."""
        lines = self.ok("node", "ls", "--format", "{{json .}}").splitlines()
        return {row["Hostname"]: row for row in map(json.loads, lines)}
