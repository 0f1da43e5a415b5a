#!/usr/bin/python3
"""The life of nodes, on three managers and two workers that are processes on loopback: how they
join and what keeps them out, how a worker becomes a manager and a manager a worker, with its log
gone and its connections cut; who is removed and who leaves; who is down and who is back; and
sessions that outlive the leader. Arguments: the parts to run (joins, roles, away, removal,
leaving, lock)."""
import contextlib
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import Cluster, Manager, expect, main, wait_until

DOWN_S = 40  # three heartbeats of five seconds, and a slow machine


def ask(manager, method, path, body=None):
    with contextlib.closing(manager.socket()) as http:
        return http.call(method, "/conclave/v1/" + path, body)


def good(manager, *words, text=None):
    code, out, error = manager.cli(*words, text=text)
    expect(code == 0, f"{' '.join(words[:3])} on {manager.name}: {code}: {error.strip()}")
    return out


def bad(manager, pattern, *words):
    code, out, error = manager.cli(*words)
    expect(code != 0, f"{' '.join(words)} was not refused: {out}")
    expect(re.search(pattern, error), f"{' '.join(words)}: {error.strip()!r}, not {pattern!r}")


def node_id(node):
    return node.status()["id"]


def row(manager, an_id):
    """The node's row, None when there is none."""
    found = [n for n in ask(manager, "GET", "nodes")["nodes"] if n["id"] == an_id]
    return found[0] if found else None


def token(manager, role, *options):
    return good(manager, "token", "create", "--role", role, *options).strip()


def tokens(manager):
    return {t["id"]: t for t in ask(manager, "GET", "tokens")["tokens"]}


def wait_row(manager, an_id, what, seconds=30, **fields):
    def look():
        found = row(manager, an_id)
        return found if found and all(found[k] == v for k, v in fields.items()) else None
    return wait_until(look, f"{what}: {fields}", seconds)


def wait_worker(node, seconds=30):
    def look():
        status = node.status()
        return status if status["state"] == "worker" and status["session"] else None
    return wait_until(look, f"{node.name} to be a worker with a session", seconds)


def worker(test, cluster, name, *options, through=0):
    made = Manager(test, name)
    made.start("--join", cluster[through].peer_address, "--token",
               good(cluster[0], "token", "show", "--role", "worker").strip(), *options)
    wait_worker(made)
    return made


def refused(test, cluster, secret, pattern):
    """A node with this token comes to its end, for a reason like that."""
    node = Manager(test, "stranger")
    node.start("--join", cluster[0].peer_address, "--token", secret)
    expect(node.ended() != 0, "it was let in")
    expect(re.search(pattern, node.output()), f"{node.output().strip()[-300:]}: no {pattern!r}")
    expect(not os.path.exists(os.path.join(node.data, "keyring")), "a keyring is left behind")


def files(node, part):
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(os.path.join(node.data, part))
    return []


def is_wiped(node):
    return not files(node, "log") and not files(node, "snapshots") and \
        not os.path.exists(os.path.join(node.data, "ballot"))


# --- joining -------------------------------------------------------------------------------------

def show_joins(test, cluster):
    with test.show("managers join by one token, workers by the other; all are ready"):
        made = worker(test, cluster, "w1")
        found = wait_row(cluster[1], node_id(made), "w1", state="ready", role="worker",
                         granted="worker", hostname="w1", address="127.0.0.1", member=False)
        expect(found["nano_cpus"] > 0 and found["memory_bytes"] > 0, f"no description: {found}")
        for manager in cluster:
            wait_row(cluster[2], node_id(manager), manager.name, state="ready", role="manager",
                     granted="manager", member=True, reachable=True)
    with test.show("a worker keeps no log and answers no question of the state"):
        expect(is_wiped(made), "there is a log")
        bad(made, "worker", "get", "something")
        expect(made.status()["state"] == "worker", "its state")
        with contextlib.closing(made.socket()) as http:
            expect(http.raw("GET", "/livez")[0] == 200, "it does not live")
            expect(http.raw("GET", "/readyz")[0] == 503, "it is ready for requests")
    with test.show("a worker comes back as the worker that it was"):
        before = node_id(made)
        made.stop()
        made.start()
        wait_worker(made)
        expect(node_id(made) == before, "another id")
        made.kill()
        made.start(addresses=False)
        wait_worker(made)
        expect(node_id(made) == before, "another id after a crash")
    with test.show("through a follower, a worker joins as well"):
        follower = next(i for i, m in enumerate(cluster) if m is not cluster.leader())
        second = worker(test, cluster, "w2", through=follower)
        wait_row(cluster[0], node_id(second), "w2", state="ready")
    with test.show("a wrong token is refused"):
        good_token = good(cluster[0], "token", "show", "--role", "worker").strip()
        refused(test, cluster, good_token[:-25] + "0" * 25, "not valid")
        expect(any("127.0.0.1" in e["text"] and "not admitted" in e["text"]
                   for m in cluster for e in m.events()), "nobody has told where it came from")
    with test.show("a token for one use is good for one node"):
        once = token(cluster[0], "worker", "--uses", "1")
        third = Manager(test, "w3").start("--join", cluster[0].peer_address, "--token", once)
        wait_worker(third)
        refused(test, cluster, once, "used")
    with test.show("a token that has expired lets nobody in"):
        before = set(tokens(cluster[0]))
        short = token(cluster[0], "worker", "--expires", "1s")
        new, = set(tokens(cluster[0])) - before
        wait_until(lambda: tokens(cluster[0])[new]["state"] == "expired", "the token's end")
        refused(test, cluster, short, "expired")
    with test.show("a rotated token lets nobody in, the new one does"):
        old = good(cluster[0], "token", "show", "--role", "worker").strip()
        good(cluster[1], "token", "rotate", "--role", "worker")
        refused(test, cluster, old, "not valid|revoked")
        fourth = worker(test, cluster, "w4")
        wait_row(cluster[0], node_id(fourth), "w4", state="ready")
    for node in (third, fourth):
        node.kill()
    return made, second


# --- roles ---------------------------------------------------------------------------------------

def wait_manager(cluster, node):
    node.wait_running()
    wait_until(lambda: node.status()["role"] in ("voter", "leader"), f"{node.name} to be a voter")
    wait_row(cluster[0], node_id(node), node.name, granted="manager", member=True, state="ready")


def demote(cluster, asked, node):
    good(asked, "node", "demote", node_id(node))
    wait_worker(node)
    wait_row(asked, node_id(node), node.name, role="worker", granted="worker", member=False,
             state="ready")
    wait_until(lambda: is_wiped(node), f"{node.name} to have no log")


def show_roles(test, cluster, first, second):
    cluster[0].http().put(b"before", b"written")
    with test.show("a worker that is promoted becomes a voter, with the data"):
        before = node_id(first)
        good(cluster[1], "node", "promote", before)
        wait_manager(cluster, first)
        expect(node_id(first) == before, "another id")
        cluster.managers.append(first)
        cluster.wait_same()
        expect(first.http().get(b"before") == b"written", "its data")
    with test.show("it is one after a restart, too"):
        first.stop()
        first.start()
        wait_manager(cluster, first)
    with test.show("a manager that is demoted becomes a worker; its log is gone, its keys are new"):
        generation = first.status()["key_generation"]
        cluster.managers.remove(first)
        demote(cluster, cluster[0], first)
        expect(first.status()["key_generation"] > generation, "the same key of data")
        expect(node_id(first) == before, "another id")
        cluster.wait_voters(3)
    with test.show("it is a worker after a restart, too; and can be promoted again"):
        first.stop()
        first.start()
        wait_worker(first)
        good(cluster[1], "node", "promote", before)
        wait_manager(cluster, first)
        cluster.managers.append(first)
        cluster.wait_same()
    with test.show("the leader is demoted, whoever is asked"):
        leader = cluster.leader()
        other = next(m for m in cluster if m is not leader)
        cluster.managers.remove(leader)
        demote(cluster, other, leader)
        cluster.leader()
        cluster.wait_voters(3)
        cluster.wait_same()
    with test.show("the last managers can't be demoted so that the quorum is lost"):
        a, b, c = cluster
        b.kill()
        wait_until(lambda: not next(m for m in cluster.members() if m["name"] == b.name)
                   ["reachable"], "b to be missed")
        cluster.leader()
        alive = next(m for m in (a, c) if m is not cluster.leader())
        bad(a, "quorum", "node", "demote", node_id(alive))
        b.start()
        b.wait_running()
        cluster.wait_voters(3)
    return leader


# --- who is away ---------------------------------------------------------------------------------

def show_away(test, cluster, node):
    an_id = node_id(node)
    with test.show("a worker that is killed is down after three heartbeats, and ready when back"):
        wait_row(cluster[0], an_id, node.name, state="ready")
        node.kill()
        found = wait_row(cluster[0], an_id, node.name, DOWN_S, state="down")
        expect(found["message"] == "heartbeat failure", f"{found['message']!r}")
        node.start()
        wait_row(cluster[0], an_id, node.name, state="ready")
    with test.show("workers keep their sessions when the leader is killed"):
        leader = cluster.leader()
        wait_until(lambda: node.status()["session"], "a session")
        if node.status()["session"] == leader.peer_address:
            leader.stop()
            leader.start()
            leader.wait_running()
            wait_until(lambda: node.status()["session"] not in ("", leader.peer_address),
                       "a session elsewhere")
            cluster.wait_voters(3)
            leader = cluster.leader()
        held = node.status()["session"]
        victim = leader if leader.peer_address != held else \
            next(m for m in cluster if m.peer_address != held)
        log, its_id = len(node.events()), node_id(victim)
        other = next(m for m in cluster if m is not victim)
        victim.kill()
        cluster.leader()
        wait_row(other, its_id, victim.name, DOWN_S, state="down")
        expect(node.status()["session"] == held, "another session")
        expect(not [e for e in node.events()[log:] if "session with" in e["text"]], "it was cut")
        wait_row(other, an_id, node.name, state="ready")
        victim.start()
        victim.wait_running()
        wait_row(other, its_id, victim.name, state="ready")
        cluster.wait_voters(3)


# --- removal -------------------------------------------------------------------------------------

def show_removal(test, cluster, node):
    an_id = node_id(node)
    with test.show("a manager, and a node that runs, are not removed just so"):
        bad(cluster[0], "must be demoted", "node", "rm", node_id(cluster[1]))
        bad(cluster[0], "is not down", "node", "rm", an_id)
    with test.show("a removed node's connection is cut at once, and it does not come back"):
        good(cluster[1], "node", "rm", "--force", an_id)
        wait_until(lambda: "removed" in node.status().get("trouble", ""), "the node to know", 5)
        expect(row(cluster[0], an_id) is None, "its row is there")
        expect(node.status()["session"] == "", "it has a session")
        node.stop()
        node.start()
        wait_until(lambda: "removed" in node.status().get("trouble", ""), "the node to know")
    with test.show("it can leave, and join again as another node"):
        good(node, "leave", "--force")
        wait_until(lambda: node.status()["state"] == "empty", "it to be empty")
        secret = good(cluster[0], "token", "show", "--role", "worker").strip()
        good(node, "join", cluster[0].peer_address, "--token", "-", text=secret + "\n")
        wait_worker(node)
        expect(node_id(node) != an_id, "the same id")
        wait_row(cluster[0], node_id(node), node.name, state="ready")
    return node


def show_leaving(test, cluster, node):
    with test.show("a worker leaves: its row says so, it is empty, and can be removed"):
        an_id = node_id(node)
        good(node, "leave")
        wait_until(lambda: node.status()["state"] == "empty", "it to be empty")
        wait_row(cluster[0], an_id, node.name, state="down", message="node left")
        good(cluster[0], "node", "rm", an_id)
        expect(row(cluster[0], an_id) is None, "its row is there")
    with test.show("a manager leaves: the quorum goes on without it"):
        third = next(m for m in cluster if m is not cluster.leader())
        an_id = node_id(third)
        good(third, "leave")
        cluster.managers.remove(third)
        wait_until(lambda: third.status()["state"] == "empty", "it to be empty")
        wait_row(cluster[0], an_id, third.name, state="down", message="node left",
                 granted="worker", member=False)
        cluster.wait_voters(2)
        cluster[0].http().put(b"after", b"written")
    with test.show("a manager does not leave when the quorum would be lost by it"):
        one, other = cluster
        other.kill()
        wait_until(lambda: one.cli("leave")[0] != 0, "the refusal")
        expect(one.status()["state"] == "running", "it has left")


# --- the lock ------------------------------------------------------------------------------------

def show_lock(test):
    alone = Manager(test, "locked").start("--init", "--autolock")
    alone.wait_running()
    wait_until(lambda: alone.status()["autolock"], "the lock")
    node = worker(test, [alone], "w")
    with test.show("a locked cluster seals the keys of managers, and of nobody else"):
        expect(node.status()["sealed_by"] == "nothing", "a worker is locked")
        good(alone, "node", "promote", node_id(node))
        node.wait_running()
        wait_until(lambda: node.status()["role"] == "voter", "it to be a voter")
        expect(node.status()["sealed_by"] == "unlock key", "a manager is not locked")
        good(alone, "node", "demote", node_id(node))
        wait_worker(node)
        expect(node.status()["sealed_by"] == "nothing", "a worker is locked")
        node.stop()
        node.start()
        wait_worker(node)
    node.kill()
    alone.kill()


def run(test):
    parts = sys.argv[1:] or ["joins", "roles", "away", "removal", "leaving", "lock"]
    if "lock" in parts:
        show_lock(test)
    if parts == ["lock"]:
        return
    cluster = Cluster(test)
    first, second = show_joins(test, cluster) if "joins" in parts else \
        (worker(test, cluster, "w1"), worker(test, cluster, "w2"))
    spare = show_roles(test, cluster, first, second) if "roles" in parts else first
    if "away" in parts:
        show_away(test, cluster, second)
    if "removal" in parts:
        show_removal(test, cluster, second)
    if "leaving" in parts:
        show_leaving(test, cluster, spare)


main(run)
