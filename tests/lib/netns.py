"""Nodes in network namespaces of their own: a switch, which is a namespace with a bridge, and for
each node a namespace with one end of a veth pair, the other being in the switch. Nothing of the
machine's own network is touched. Names carry the process that made them; what a killed one left
behind is removed by the next. Needs root, that is CAP_NET_ADMIN and CAP_SYS_ADMIN."""
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import threading

CLONE_NEWNET = 0x40000000
PREFIX = "conclave-"
SUBNET = "10.77.0."


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stdout.strip()}")
    return done.stdout


def names():
    return re.findall(rf"^({PREFIX}(\d+)-\w+)", ip("netns", "list"), re.M)


def remove(pid):
    """Removes a test's namespaces, and ends what still runs in them."""
    for name, owner in names():
        if int(owner) == pid:
            for one in ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(one), signal.SIGKILL)
            ip("netns", "del", name)


def remove_stale():
    for _, owner in names():
        if not os.path.exists(f"/proc/{owner}"):
            remove(int(owner))


def within(name, function):
    """What function() returns in a namespace; a thread of its own goes there, and nothing else."""
    answer = []

    def run():
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            there = os.open(f"/run/netns/{name}", os.O_RDONLY)
            try:
                if libc.setns(there, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {name}")
            finally:
                os.close(there)
            answer.append((function(), None))
        except Exception as error:  # pylint: disable=broad-except
            answer.append((None, error))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    value, error = answer[0]
    if error is not None:
        raise error
    return value


class Network:
    """A switch and its nodes; Network.missing says why there can be none."""

    def __init__(self, test):
        self.count = 0
        self.pid = os.getpid()
        remove_stale()
        test.undo.append(lambda: remove(self.pid))
        self.switch = self.add_namespace("switch")
        ip("-n", self.switch, "link", "add", "bridge0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge0", "up")

    @staticmethod
    def missing():
        """What keeps namespaces from being made; "": nothing."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        name = f"{PREFIX}{os.getpid()}-try"
        try:
            ip("netns", "add", name)
            try:
                ip("-n", name, "link", "set", "lo", "up")  # in a chroot that is no mount it fails
            finally:
                ip("netns", "del", name)
            return ""
        except (OSError, subprocess.SubprocessError) as error:
            return f"no network namespaces: {error}"

    def add_namespace(self, name):
        full = f"{PREFIX}{self.pid}-{name}"
        ip("netns", "add", full)
        ip("-n", full, "link", "set", "lo", "up")
        return full

    def place(self, manager):
        """Gives a manager that is not started a namespace and an address."""
        self.count += 1
        name = self.add_namespace(f"node{self.count}")
        ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name",
           f"port{self.count}", "netns", self.switch)
        ip("-n", self.switch, "link", "set", f"port{self.count}", "master", "bridge0", "up")
        ip("-n", name, "addr", "add", f"{SUBNET}{self.count}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        manager.host = f"{SUBNET}{self.count}"
        manager.inside = ("ip", "netns", "exec", name)
        manager.client, manager.peer = 2379, 2377
        manager.port = (self.switch, f"port{self.count}")

    @staticmethod
    def plug(manager, there):
        """Pulls a node's cable, or puts it back."""
        switch, port = manager.port
        ip("-n", switch, "link", "set", port, "up" if there else "down")
