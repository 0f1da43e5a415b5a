#!/usr/bin/python3
"""Where the tasks of services run, with docker's own client, a manager and three workers in network
namespaces and tasks that are real processes: spread over the workers, moved when one is drained or
lost, bound by constraints, one on each node, replaced one after the other by an update, started
again as the policy says, gone with their service. Needs root. Arguments: the parts to run (spread,
drain, lost, labels, everywhere, update, restart)."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import expect, main, wait_until  # noqa: E402
from fleet import Fleet, missing  # noqa: E402
from netns import Network  # noqa: E402
from tasks import is_on  # noqa: E402

PARTS = ("spread", "drain", "lost", "labels", "everywhere", "update", "restart")
MOVE_S = 30  # three heartbeats of a second, and a slow machine
WORKERS = ("--constraint", "node.role==worker")


class Services:
    def __init__(self, test):
        self.test = test
        self.fleet = Fleet(test, 1, 3, heartbeat="1s")
        self.control = self.fleet.control
        self.docker = self.fleet.managers[0].ok
        self.w1, self.w2, self.w3 = self.fleet.workers

    def counts(self, service):
        """How many of its tasks run on each worker."""
        running = self.control.running(service)
        return [sum(is_on(t, w) for t in running) for w in self.fleet.workers]

    def until(self, service, wanted, what, seconds=MOVE_S):
        """Until that many run on each worker, and on no other node."""
        def same():
            running = self.control.running(service)
            expect(self.counts(service) == wanted, f"{self.counts(service)}, not {wanted}")
            expect(len(running) == sum(wanted), "some run elsewhere")
            return running or True
        return wait_until(same, what, seconds)

    def stay(self, service, tasks):
        """The same processes as before."""
        running = {t.pid for t in self.control.running(service)}
        expect({t.pid for t in tasks} <= running, "a task was moved that had no need to")

    def availability(self, node, word):
        self.docker("node", "update", "--availability", word, node.name)

    def remove(self, service, nodes=None):
        tasks = self.control.running(service)
        self.docker("service", "rm", service)
        for task in tasks:
            task.wait_end(f"the end of {service}")
        wait_until(lambda: not any(n.supervisors() for n in nodes or self.fleet.workers),
                   "the supervisors to be gone", MOVE_S)

    # --- parts ------------------------------------------------------------------------------------

    def spread(self):
        with self.test.show("six replicas are two on each worker; scaling keeps them even"):
            self.fleet.service("even", "--replicas", "6", *WORKERS)
            before = self.until("even", [2, 2, 2], "two on each")
            self.docker("service", "scale", "--detach", "even=9")
            self.until("even", [3, 3, 3], "three on each")
            self.stay("even", before)
            self.docker("service", "scale", "--detach", "even=3")
            self.until("even", [1, 1, 1], "one on each")
            self.docker("service", "scale", "--detach", "even=0")
            self.until("even", [0, 0, 0], "none")
            self.remove("even")

    def drain(self):
        with self.test.show("a drained worker is left; it is not filled again for that alone"):
            self.fleet.service("moves", "--replicas", "6", *WORKERS)
            before = self.until("moves", [2, 2, 2], "two on each")
            stay = [t for t in before if not is_on(t, self.w1)]
            self.availability(self.w1, "drain")
            self.until("moves", [0, 3, 3], "the drained one to be left")
            self.stay("moves", stay)
            self.availability(self.w1, "active")
            self.docker("service", "scale", "--detach", "moves=8")
            self.until("moves", [2, 3, 3], "new ones on the empty worker")
        with self.test.show("a paused worker keeps what it has and gets nothing"):
            self.availability(self.w1, "pause")
            self.docker("service", "scale", "--detach", "moves=10")
            self.until("moves", [2, 4, 4], "new ones on the others")
            self.availability(self.w1, "active")
            self.remove("moves")

    def lost(self):
        with self.test.show("a worker that nobody hears: its tasks run elsewhere; it ends its own "
                            "when it is back"):
            self.fleet.service("survives", "--replicas", "6", *WORKERS)
            before = self.until("survives", [2, 2, 2], "two on each")
            lost = [t for t in before if is_on(t, self.w3)]
            Network.plug(self.w3, False)
            wait_until(lambda: self.counts("survives")[:2] == [3, 3], "them to run elsewhere",
                       MOVE_S)
            expect(all(t.alive() for t in lost), "a node without a manager has ended its tasks")
            Network.plug(self.w3, True)
            self.until("survives", [3, 3, 0], "the old ones to end")
            wait_until(lambda: not self.w3.supervisors(), "their supervisors to be gone", MOVE_S)
        with self.test.show("a worker that was removed: the same"):
            self.w2.kill()
            wait_until(lambda: self.fleet.managers[0].nodes()["w2"]["Status"] == "Down",
                       "w2 to be down", MOVE_S)
            self.docker("node", "rm", "w2")
            wait_until(lambda: self.counts("survives")[0] + self.counts("survives")[2] == 6,
                       "all to run on the others", MOVE_S)
            self.docker("service", "rm", "survives")

    def labels(self):
        with self.test.show("a task waits for a node that meets its constraint, and says so"):
            self.fleet.service("picky", "--constraint", "node.labels.zone==a", *WORKERS)
            row = self.fleet.wait_state("picky", "Pending")
            expect("no suitable node (scheduling constraints not satisfied on 4 nodes)" in row[4],
                   f"{row}")
            self.docker("node", "update", "--label-add", "zone=a", "w2")
            self.until("picky", [0, 1, 0], "the node with the label")
            self.docker("node", "update", "--label-add", "zone=a", "w3")
            self.docker("node", "update", "--label-rm", "zone", "w2")
            self.until("picky", [0, 0, 1], "the other one with the label")
            self.remove("picky")

    def everywhere(self):
        with self.test.show("a global service: one on each worker, drained ones left out"):
            self.fleet.service("each", "--mode", "global", *WORKERS)
            self.until("each", [1, 1, 1], "one on each")
            self.availability(self.w2, "drain")
            self.until("each", [1, 0, 1], "the drained one to be left")
            self.availability(self.w2, "active")
            self.until("each", [1, 1, 1], "one on each again")
            self.remove("each")

    def update(self):
        with self.test.show("an update replaces one task after the other: all others run"):
            self.fleet.service("rolls", "--replicas", "4", "--env", "SPEC=1", *WORKERS)
            wait_until(lambda: len(self.control.running("rolls")) == 4, "four tasks", MOVE_S)
            self.docker("service", "update", "--detach", "--env-add", "SPEC=2", "rolls")
            least = 4

            def all_new():
                nonlocal least
                rows = self.fleet.tasks("rolls")
                running = [r for r in rows if r[3] == "Running" and r[2].startswith("Running")]
                least = min(least, len(running))
                return len(running) == 4 and len([r for r in rows if r[3] == "Shutdown"]) == 4
            wait_until(all_new, "all to be of the new spec", MOVE_S)
            expect(least >= 3, f"only {least} of four were running at some time")
            wait_until(lambda: len(self.control.running("rolls")) == 4, "four tasks", MOVE_S)
            specs = [t.of("os.environ['SPEC']") for t in self.control.running("rolls")]
            expect(specs == ["2"] * 4, f"{specs}")
        with self.test.show("--force makes all of them anew, rollback brings the old spec back"):
            before = {t.pid for t in self.control.running("rolls")}
            self.docker("service", "update", "--detach", "--force", "rolls")
            wait_until(lambda: len(self.control.running("rolls")) == 4 and not
                       before & {t.pid for t in self.control.running("rolls")}, "new ones", MOVE_S)
            self.docker("service", "update", "--detach", "--env-add", "SPEC=3", "rolls")
            self.docker("service", "rollback", "--detach", "rolls")

            def is_back():
                running = self.control.running("rolls")
                specs = [t.of("os.environ['SPEC']") for t in running if t.alive()]
                expect(specs == ["2"] * 4, f"{specs}")
                return True
            wait_until(is_back, "the old spec", MOVE_S)
            self.remove("rolls")

    def restart(self):
        with self.test.show("on-failure: another one after a failure, none after the work is done"):
            self.fleet.service("works", "--restart-condition", "on-failure", *WORKERS)
            first = self.control.one("works")
            first.exit(3)
            first.wait_end("the first one")
            second = self.control.one("works", MOVE_S)
            rows = self.fleet.tasks("works")
            expect(len(rows) == 2 and "non-zero exit (3)" in rows[1][4], f"{rows}")
            second.exit(0)
            self.fleet.wait_state("works", "Complete")
            wait_until(lambda: self.fleet.tasks("works")[0][3] == "Shutdown", "it to be done")
            expect(not self.control.running("works"), "there is another one")
            self.remove("works")
        with self.test.show("so many attempts and no more"):
            self.fleet.service("tries", "--restart-max-attempts", "2", *WORKERS)
            for _ in range(3):
                task = self.control.one("tries", MOVE_S)
                task.exit(1)
                task.wait_end("a task that fails")

            def given_up():
                rows = self.fleet.tasks("tries")
                expect(len(rows) == 3 and all(r[2].startswith("Failed") for r in rows), f"{rows}")
                return True
            wait_until(given_up, "the last attempt to be over", MOVE_S)
            expect(not self.control.running("tries"), "there is another one")
            self.remove("tries")


def run(test):
    if missing():
        test.skip("services on workers", missing())
        return
    parts = sys.argv[1:] or [p for p in PARTS if p != "lost"] + ["lost"]  # which loses a worker
    services = Services(test)
    for part in parts:
        getattr(services, part)()


main(run)
