#!/usr/bin/python3
"""Secrets while things break, on three managers and two workers in network namespaces: kill -9 of a
task, of its supervisor, of the agent, of both, of the manager that holds the session and of the
leader, of all managers; the cable of a node pulled and put back; a node drained, promoted, demoted,
removed, leaving. No secret stays behind where its task is gone (mounts, memory, sockets, files),
none is lost, and tasks go on or move as they should. Needs root. Arguments: the parts to run (task,
agent, manager, network, roles, leaving, all)."""
import contextlib
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import hunt  # noqa: E402
from cluster import expect, main, pause_until, wait_until  # noqa: E402
from fleet import Fleet, kill_hard, missing, parent_of  # noqa: E402
from hunt import Value, nowhere  # noqa: E402
from tasks import digest, secret_mounts  # noqa: E402

PARTS = ("task", "agent", "manager", "network", "roles", "leaving", "all")
MOVE_S = 30  # three heartbeats of two seconds, and a slow machine


class Faults:
    """A service that stays on w1 ("stays"), and one that may be anywhere ("moves"), with a secret
    each."""

    def __init__(self, test):
        self.test = test
        self.fleet = Fleet(test, 3, 2, heartbeat="2s")
        self.control = self.fleet.control
        self.w1, self.w2 = self.fleet.workers
        self.stays, self.moves = Value("stays", plain=True), Value("moves", plain=True)
        self.values = {"stays": self.stays, "moves": self.moves}
        self.every = [self.stays, self.moves]  # all that there ever was
        for value in self.every:
            self.fleet.secret(value)
        self.fleet.service("stays", "--constraint", "node.hostname==w1", secrets=["stays"])
        self.fleet.service("moves", "--constraint", "node.role==worker", secrets=["moves"])
        self.control.one("stays", node=self.w1)
        self.control.one("moves")

    def newest(self, task):
        """Has it the newest version of its secret, and nothing else?"""
        value = self.values[task.service]
        expect(task.of("os.listdir('/run/secrets')") == [value.name], "other files")
        return task.digest(f"/run/secrets/{value.name}") == digest(value.bytes)

    def reads(self, task):
        wait_until(lambda: self.newest(task), f"the task of {task.service} to read its secret")
        return task

    def one(self, service, node=None, seconds=MOVE_S):
        """The one task of a service, which reads its secret; while it is replaced, the next one."""
        def there():
            task = self.control.one(service, seconds, node)
            return task if self.newest(task) else None
        return wait_until(there, f"the task of {service} to read its secret")

    def another(self, service, than, seconds=MOVE_S, node=None):
        """A task that has taken the place of one that is gone."""
        def there():
            found = [t for t in self.control.running(service) if t.pid != than.pid]
            return found[0] if len(found) == 1 and not than.alive() else None
        found = wait_until(there, f"another task of {service}", seconds)
        expect(node is None or found.netns == node.netns, "on another node")
        return self.reads(found)

    def put(self, name):
        """Another version of a secret, by any manager that takes it."""
        value = Value(name, plain=True)

        def said():
            return any(m.running() and m.cli("secret", "put", name, "-", "--timeout", "5",
                                             text=value.bytes.decode())[0] == 0
                       for m in self.fleet.managers)
        wait_until(said, f"a version of {name}", MOVE_S)
        self.values[name] = value
        self.every.append(value)

    def strays(self, node):
        """Processes of a node that see mounts of secrets and are not of a task that runs."""
        known = set()
        for task in [t for t in self.control.tasks if t.netns == node.netns and t.alive()]:
            known |= {task.pid, parent_of(task.pid), parent_of(parent_of(task.pid))}
        mine = set(node.processes())
        return [pid for pids in secret_mounts().values() for pid in pids
                if pid in mine and pid not in known]

    def nothing_left(self, node):
        """On a node there is no more of secrets than its running tasks have."""
        def clean():
            tasks = [t for s in self.values for t in self.control.running(s)
                     if t.netns == node.netns]
            names = {t.service for t in tasks}
            expect(not self.strays(node), f"mounts are left: {self.strays(node)}")
            expect(len(node.supervisors()) == len(tasks), f"supervisors: {node.supervisors()}, "
                   f"tasks: {[t.pid for t in tasks]}")
            expect(len(node.sockets()) == len(tasks), f"sockets: {node.sockets()}")
            if node.running():
                hits = hunt.in_memory(node.process.pid, self.every)
                nowhere(hunt.open_hits(hits), f"memory of {node.name}")
                nowhere([n for n, _, _ in hits if n not in names], f"memory of {node.name}")
            return True
        wait_until(clean, f"nothing to be left on {node.name}", 15, 0.2)
        nowhere(hunt.in_files([node.data], self.every), f"files of {node.name}")

    # --- the task --------------------------------------------------------------------------------

    def task(self):
        with self.test.show("kill -9 of a task: its mount is gone, another one has the secret"):
            before = self.one("stays", self.w1)
            expect(before.pid in sum(secret_mounts().values(), []), "its mount is not seen")
            kill_hard(before.pid)
            self.another("stays", before, node=self.w1)
            self.nothing_left(self.w1)
            rows = self.fleet.tasks("stays")
            expect([r for r in rows[1:] if r[2].startswith("Failed")], f"{rows}")
        with self.test.show("kill -9 of its supervisor: the task and its mount go with it"):
            for who in (lambda t: parent_of(t.pid), lambda t: parent_of(parent_of(t.pid))):
                before = self.one("stays", self.w1)
                kill_hard(who(before))
                before.wait_end("the task to end with its supervisor")
                self.another("stays", before, node=self.w1)
                self.nothing_left(self.w1)
        with self.test.show("a task that does not heed its stop signal ends after its grace"):
            self.fleet.service("deaf", "--constraint", "node.hostname==w2", "--stop-grace-period",
                               "1s", secrets=["source=stays,target=x"], command=["stubborn"])
            deaf = self.control.one("deaf", node=self.w2)
            expect(deaf.digest("/run/secrets/x") == digest(self.values["stays"].bytes), "its file")
            self.fleet.manager().ok("service", "rm", "deaf")
            wait_until(lambda: not deaf.alive() or deaf.of("signals") == ["TERM"], "the signal")
            deaf.wait_end("the end of its grace")
            self.nothing_left(self.w2)
        with self.test.show("a removed service's task has the grace that it was promised"):
            self.fleet.service("slow", "--constraint", "node.hostname==w2", "--stop-grace-period",
                               "60s", secrets=["source=stays,target=x"], command=["stubborn"])
            slow = self.control.one("slow", node=self.w2)
            self.fleet.manager().ok("service", "rm", "slow")
            wait_until(lambda: slow.of("signals") == ["TERM"], "the signal")
            slow.ask("threading.Event().wait(11)\nvalue = 0")  # longer than without the option
            slow.exit(0)
            slow.wait_end("its end")
            self.nothing_left(self.w2)

    # --- the agent -------------------------------------------------------------------------------

    def agent(self):
        with self.test.show("kill -9 of the agent: the task goes on, and is taken over"):
            before = self.one("stays", self.w1)
            self.w1.kill()
            expect(before.alive(), "the task has ended")
            self.reads(before)
            self.w1.restart()
            self.put("stays")
            wait_until(lambda: self.reads(before), "the new version in the same task")
            expect(len(self.control.running("stays")) == 1, "there are two of it")
            self.nothing_left(self.w1)
        with self.test.show("kill -9 of the agent, and its task ends meanwhile: nothing stays"):
            self.w1.kill()
            kill_hard(before.pid)
            before.wait_end("the task")
            wait_until(lambda: not self.strays(self.w1), "the mount to be gone")
            nowhere(hunt.in_files([self.w1.data], self.every), "files of w1")
            self.w1.restart()
            self.another("stays", before, node=self.w1)
            self.nothing_left(self.w1)
        with self.test.show("kill -9 of all of a node: its tasks are started anew"):
            before = self.one("stays", self.w1)
            self.kill_all(self.w1)
            expect(not self.strays(self.w1), "a mount is still there")
            nowhere(hunt.in_files([self.w1.data], self.every), "files of w1")
            self.w1.restart()
            self.another("stays", before, node=self.w1)
            self.nothing_left(self.w1)

        with self.test.show("kill -9 of the agent while tasks start, again and again: all run"):
            self.fleet.service("many", "--constraint", "node.hostname==w2", "--replicas", "4",
                               secrets=["source=moves,target=moves"])
            for i in range(6):
                pause_until(time.monotonic() + 0.01 * i * i)
                self.w2.kill()
                self.w2.restart()
            self.settled()
            for task in self.control.wait("many", 4, MOVE_S, self.w2):
                expect(task.digest("/run/secrets/moves") == digest(self.values["moves"].bytes),
                       "another value")
            self.running_are("many", 4)
            self.fleet.manager().ok("service", "rm", "many")
            self.control.wait("many", 0)
            self.nothing_left(self.w2)

    def running_are(self, service, count):
        """As many run as docker tells, and there are no supervisors of others."""
        def same():
            rows = [r for r in self.fleet.tasks(service) if r[2].startswith("Running")]
            tasks = [t for s in (*self.values, service) for t in self.control.running(s)
                     if t.netns == self.w2.netns]
            return len(rows) == count == len(self.control.running(service)) and \
                len(self.w2.supervisors()) == len(tasks)
        wait_until(same, f"{count} tasks of {service}", MOVE_S, 0.2)

    def kill_all(self, node):
        def dead():
            for pid in node.processes():
                with contextlib.suppress(ProcessLookupError):
                    kill_hard(pid)
            node.process.poll()
            return not node.processes()
        wait_until(dead, f"all of {node.name} to be dead")

    # --- the managers ----------------------------------------------------------------------------

    def manager(self):
        with self.test.show("kill -9 of the manager that holds the session: nobody notices"):
            before = self.one("stays", self.w1)
            held = self.w1.status()["session"]
            victim = next(m for m in self.fleet.managers if m.peer_address == held)
            victim.kill()
            wait_until(lambda: self.w1.status()["session"] not in ("", held), "another session",
                       MOVE_S)
            self.put("stays")
            self.reads(before)
            self.nothing_left(self.w1)
            self.back(victim)
        with self.test.show("kill -9 of the leader while versions are put: none is lost"):
            before = self.one("stays", self.w1)
            for _ in range(3):
                self.put("moves")
            leader = next(m for m in self.fleet.managers if m.status().get("role") == "leader")
            leader.kill()
            self.put("stays")
            self.put("moves")
            self.reads(before)
            self.one("moves")
            self.back(leader)
        with self.test.show("kill -9 of all managers: tasks go on; then every secret is there"):
            tasks = [self.one("stays", self.w1), self.one("moves")]
            for manager in self.fleet.managers:
                manager.kill()
            for task in tasks:
                self.reads(task)
            for manager in self.fleet.managers:
                manager.restart()
            self.settled()
            self.put("stays")
            for task in tasks:
                self.reads(task)
                expect(len(self.control.running(task.service)) == 1, "there are two of it")
            for manager in self.fleet.managers:
                nowhere(hunt.open_hits(hunt.in_memory(manager.process.pid, self.every)),
                        f"memory of {manager.name}")
                nowhere(hunt.in_files([manager.data], self.every), f"files of {manager.name}")
        with self.test.show("a manager that was away during a shredding destroys its keys as well"):
            self.fleet.secret(Value("doomed"))
            away, *rest = [m for m in self.fleet.managers if m.status().get("role") != "leader"]
            before = rest[0].json_of("key", "status")["held"]
            away.kill()
            out = rest[0].good("secret", "shred", "doomed", "--yes")
            expect(f"on {away.name}, which can't be reached" in out and f"on {rest[0].name}\n" in
                   out, f"it does not tell who still has the old key: {out}")
            self.back(away)
            wait_until(lambda: away.json_of("key", "status")["ready"], "its keys")
            for manager in self.fleet.managers:
                wait_until(lambda m=manager: m.json_of("key", "status")["held"] and not
                           set(m.json_of("key", "status")["held"]) & set(before),
                           f"{manager.name} to have new keys alone")
            self.put("stays")
            self.one("stays", self.w1)

    def back(self, manager):
        manager.restart()
        self.settled()

    def settled(self):
        """All managers are voters, all nodes ready."""
        def ready():
            rows = self.fleet.manager().nodes()
            return all(r["Status"] == "Ready" for r in rows.values()) and \
                all(m.status().get("role") in ("voter", "leader") for m in self.fleet.managers)
        wait_until(ready, "all nodes to be ready", MOVE_S)

    # --- the network -----------------------------------------------------------------------------

    def network(self):
        with self.test.show("a node's cable is pulled: its task moves, with its secret"):
            before = self.one("moves")
            node = self.w1 if before.netns == self.w1.netns else self.w2
            rest = self.w2 if node is self.w1 else self.w1
            self.fleet.network.plug(node, False)
            after = wait_until(lambda: next((t for t in self.control.running("moves")
                                             if t.netns == rest.netns), None), "the move", MOVE_S)
            self.reads(after)
            expect(before.alive(), "the node that is alone does not go on with what it has")
        with self.test.show("and put back: what has moved ends there, and its secret is gone"):
            self.fleet.network.plug(node, True)
            before.wait_end("the task that has moved", MOVE_S)
            self.one("moves", rest)
            wait_until(lambda: len(self.control.running("moves")) == 1, "one task")
            self.settled()
            self.one("stays", self.w1)
            self.nothing_left(node)
            self.nothing_left(rest)
        with self.test.show("a node is drained: its task moves; back, nothing is left of it"):
            before = self.one("moves")
            node = self.w1 if before.netns == self.w1.netns else self.w2
            rest = self.w2 if node is self.w1 else self.w1
            self.fleet.manager().ok("node", "update", "--availability", "drain", node.name)
            self.another("moves", before, node=rest)
            self.fleet.manager().ok("node", "update", "--availability", "active", node.name)
            self.one("stays", self.w1)
            self.nothing_left(node)

    # --- nodes that become something else --------------------------------------------------------

    def roles(self):
        with self.test.show("a worker that becomes a manager goes on with its task"):
            before = self.one("stays", self.w1)
            self.fleet.manager().ok("node", "promote", "w1")
            wait_until(lambda: self.w1.status().get("role") == "voter", "w1 to be a voter", MOVE_S)
            self.put("stays")
            self.reads(before)
            self.one("stays", self.w1)
            wait_until(lambda: self.w1.json_of("key", "status")["ready"], "the cluster key there")
        with self.test.show("and as a worker again: nothing is left of what it knew as a manager"):
            self.fleet.manager().ok("node", "demote", "w1")
            wait_until(lambda: self.w1.status()["state"] == "worker" and
                       self.w1.status()["session"], "w1 to be a worker", MOVE_S)
            self.settled()
            self.put("stays")
            self.one("stays", self.w1)
            code, out, _ = self.w1.cli("key", "status")
            expect(code != 0, f"a worker has cluster keys: {out}")
            self.nothing_left(self.w1)

    def leaving(self):
        with self.test.show("a node that is removed by force ends its tasks, and has nothing more"):
            self.fleet.service("here", "--constraint", "node.hostname==w2",
                               secrets=["source=moves,target=moves"])
            task = self.control.one("here", MOVE_S, self.w2)
            self.fleet.manager().ok("node", "rm", "--force", "w2")
            task.wait_end("the task of the removed node", MOVE_S)
            self.control.wait("here", 0)
            self.nothing_left(self.w2)
            self.one("moves", self.w1)
        with self.test.show("it leaves, joins again and has its task; then it leaves by itself"):
            self.w2.good("leave", "--force")
            for last in (False, True):
                wait_until(lambda: self.w2.status()["state"] == "empty", "w2 to be empty", MOVE_S)
                self.nothing_left(self.w2)
                if last:
                    break
                token = self.fleet.manager().ok("swarm", "join-token", "-q", "worker")
                self.w2.ok("swarm", "join", "--token", token,
                           self.fleet.manager().peer_address)
                task = self.control.one("here", MOVE_S, self.w2)
                expect(task.digest("/run/secrets/moves") == digest(self.values["moves"].bytes),
                       "another value")
                self.w2.ok("swarm", "leave")
                task.wait_end("the task of the node that leaves", MOVE_S)
            self.fleet.manager().ok("service", "rm", "here")
            self.one("moves", self.w1)

    # --- the end ---------------------------------------------------------------------------------

    def all(self):
        with self.test.show("services removed: no node has anything of any secret that there was"):
            for name in ("stays", "moves"):
                self.fleet.manager().ok("service", "rm", name)
                self.control.wait(name, 0)
            for node in self.fleet.workers:
                self.nothing_left(node)
                expect(node.running(), f"{node.name} has ended")
            expect(not any(pid in node.processes() for pids in secret_mounts().values()
                           for pid in pids for node in self.fleet.nodes), "mounts are left")
            for name in ("stays", "moves"):
                self.fleet.manager().ok("secret", "rm", name)
        with self.test.show("and no disk, log, argument or environment has"):
            nowhere(hunt.in_words(self.every), "the machine's processes")
            nowhere(hunt.in_files([self.fleet.disk.root, self.control.folder], self.every),
                    "the files")
            nowhere(self.fleet.disk.hunt(self.every), "the raw image")


def run(test):
    why = missing()
    if why:
        test.skip("secrets while things break", why)
        return
    faults = Faults(test)
    for part in PARTS:
        if part in (sys.argv[1:] or PARTS):
            getattr(faults, part)()


main(run)
