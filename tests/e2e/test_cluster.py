#!/usr/bin/python3
"""The command line against real managers: what each command prints, its exit codes, its JSON;
joining, changing and leaving; and that a command finds its server by directory, by variable, and by
network port with a certificate."""
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import (BINARY, DIE_WITH_PARENT, Cluster, Manager, expect, main,
                     wait_until)  # noqa: E402

VERBS = ("serve", "init", "join", "leave", "status", "member ls", "member promote",
         "member demote", "member rm", "member transfer", "put", "get", "del", "ls", "lock",
         "unlock", "unlock-key", "key rotate", "token create", "token ls", "token rm",
         "token show", "token rotate", "node ls", "node inspect", "node update", "node promote",
         "node demote", "node rm", "node pending", "node approve", "node deny", "ca show",
         "ca status", "ca rotate", "ca abort", "ca force", "ca set", "cert", "backup", "restore",
         "recover", "check", "version", "help")


def good(manager, *arguments, text=None):
    code, out, err = manager.cli(*arguments, text=text)
    expect(code == 0, f"conclave {' '.join(arguments)}: exit code {code}: {err.strip()}")
    return out


def bad(manager, code, word, *arguments, text=None):
    """The command fails with this exit code, in one line on stderr that holds the word."""
    got, out, err = manager.cli(*arguments, text=text)
    command = f"conclave {' '.join(arguments)}"
    expect(got == code, f"{command}: exit code {got} instead of {code}: {err.strip()}")
    one_line = err.startswith("conclave: ") and err.count("\n") == 1
    expect(word in err and one_line, f"said: {err.strip()!r}")
    expect(out == "", f"printed {out!r} beside its error")


def show_help(test, manager):
    with test.show("every command has a help, and the list has every command"):
        listed = good(manager, "--help")
        for verb in VERBS:
            expect(f"\n  {verb} " in listed, f"{verb} is not in the list")
            text = good(manager, *verb.split(), "--help")
            expect(text.startswith(f"usage: conclave {verb}"), f"{verb} --help says {text[:60]!r}")
        for verb in re.findall(r"^  (\S+(?: \S+)?)  ", listed, re.MULTILINE):
            text = good(manager, *verb.split(), "--help")
            expect(text.count("[") == text.count("]"), f"{verb} --help is cut off: {text!r}")
    with test.show("wrong usage is an error with exit code 64"):
        bad(manager, 64, "nonsense", "nonsense")
        bad(manager, 64, "--bogus", "put", "--bogus")
        bad(manager, 64, "usage", "get")
        bad(manager, 64, "what is", "get", "a", "b")
        bad(manager, 64, "--timeout", "status", "--timeout", "soon")
        bad(manager, 64, "--cacert", "status", "--endpoint", "127.0.0.1:1")


def show_values(test, cluster):
    a, b, c = cluster
    with test.show("a value written on one member is read on every other"):
        good(a, "put", "greeting", "hello")
        for manager in cluster:
            expect(good(manager, "get", "greeting") == "hello",
                   f"{manager.name} gives another value")
    with test.show("values come from arguments, standard input and files, as they are"):
        path = os.path.join(test.work, "value")
        with open(path, "w") as f:
            f.write("two\nlines\n")
        good(b, "put", "by/file", "--file", path)
        good(b, "put", "by/stdin", "-", text="piped")
        expect(good(c, "get", "by/file") == "two\nlines\n", "the file's bytes are others")
        expect(good(c, "get", "by/", "--prefix") ==
               "by/file\ntwo\nlines\n\nby/stdin\npiped\n", "get --prefix")
        expect(good(c, "ls", "by/") == "by/file\nby/stdin\n", "ls")
        expect(good(c, "ls", "by/", "--long").split()[0] == "1",
               "ls --long begins with the version")
    with test.show("JSON comes out where it is asked for"):
        pair = json.loads(good(a, "get", "greeting", "--json"))
        expect(pair["version"] == "1" and pair["value"] == "aGVsbG8=", f"get --json: {pair}")
        expect(json.loads(good(a, "status", "--json"))["state"] == "running", "status --json")
        listed = json.loads(good(a, "member", "ls", "--json"))
        expect(len(listed["members"]) == 3, "member ls --json")
        written = json.loads(good(a, "put", "greeting", "hi", "--json"))
        expect("header" in written, "put --json")
    with test.show("errors have their exit codes"):
        bad(a, 1, "no key", "get", "nothing")
        bad(a, 1, "no key", "del", "nothing")
        bad(a, 73, "exists", "put", "greeting", "x", "--create")
        bad(a, 64, "1 to", "put", "", "x")
        bad(a, 1, "/nonexistent", "put", "k", "--file", "/nonexistent")
    with test.show("deleting one key and a prefix"):
        good(a, "del", "greeting")
        bad(b, 1, "no key", "get", "greeting")
        expect("2 deleted" in good(b, "del", "by/", "--prefix"), "del --prefix counts")
        expect(good(c, "ls") == "", "keys are left")


def show_tree(test, cluster):
    tree = os.path.join(test.work, "tree")
    os.makedirs(os.path.join(tree, "deep/er"))
    for name, mode, size in (("one", 0o644, 5), ("deep/two", 0o644, 0),
                             ("deep/er/three", 0o644, 70000), ("secret", 0o600, 5),
                             ("huge", 0o644, 2000000)):
        path = os.path.join(tree, name)
        with open(path, "wb") as f:
            f.write(b"x" * size)
        os.chmod(path, mode)
    with test.show("a tree of files: world-readable ones, no links, nothing too large"):
        os.symlink("one", os.path.join(tree, "link"))
        out = good(cluster[2], "put", "--dir", tree, "--prefix", "t/")
        expect(out.startswith("3 files, 70005 bytes written; 1 larger"), out)
        expect(good(cluster[0], "ls", "t/") == "t/deep/er/three\nt/deep/two\nt/one\n",
               "other keys are there")


def show_members(test, cluster):
    a, b, c = cluster
    with test.show("a member is demoted and promoted by name"):
        good(a, "member", "demote", "c")
        expect("standby" in [r["role"] for r in cluster.members()], "there is no standby")
        bad(a, 73, "not a voter", "member", "demote", "c")
        good(b, "member", "promote", "c")
        cluster.wait_voters(3)
    with test.show("leadership goes where it is sent, whichever member is asked"):
        for target in (c, b, a, b):
            good(a, "member", "transfer", target.name)
            wait_until(lambda t=target: t.status()["role"] == "leader", f"{target.name} leads")
    with test.show("an unknown member is an error"):
        bad(a, 1, "nobody", "member", "rm", "nobody")
    with test.show("a name can be had only once, a token only while it is valid"):
        twin = Manager(test, "b").start()
        wait_until(lambda: twin.status()["state"] == "empty", "it waits")
        join = ("join", a.peer_address, "--token")
        bad(twin, 73, "already", *join, cluster.token)
        bad(twin, 77, "root", *join, cluster.token[:9] + "0" * 50 + cluster.token[59:])
        old, cluster.token = cluster.token, good(a, "token", "rotate").strip()
        wait_until(lambda: twin.cli(*join, old)[0] == 77, "the old token is refused")
        bad(twin, 75, "init", "get", "x")
        twin.kill()


def show_leaving(test, cluster):
    leader = cluster.leader()
    with test.show("the leader itself leaves, and its directory is wiped"):
        out = good(leader, "leave")
        expect("wiped" in out, out)
        left = [n for _, _, names in os.walk(leader.data) for n in names]
        expect(set(left) <= {"LOCK", "conclave.sock", "engine.sock"}, f"left behind: {left}")
        rest = [m for m in cluster if m is not leader]
        wait_until(lambda: leader.name not in [r["name"] for r in cluster.members()],
                   "its row is gone")
        good(rest[0], "put", "after", "it left")
    with test.show("it joins again as a new member, through its socket"):
        good(leader, "join", rest[1].peer_address, "--token", "-", text=cluster.token + "\n")
        wait_until(lambda: leader.status().get("role") in ("voter", "leader"),
                   "it is a voter")
        expect(good(leader, "get", "after") == "it left", "it has another value")
    with test.show("a second founding is refused"):
        bad(leader, 73, "already", "init")


def show_ports(test, cluster):
    certs = os.path.join(test.work, "certs")
    with test.show("a client's certificate opens the port for keys, not for administration"):
        lone = Manager(test, "lone")
        start_with_tls(test, lone, "--init")
        lone.wait_running()
        good(lone, "put", "k", "v")
        good(lone, "cert", "bob", "--out", certs)
        good(lone, "cert", "root", "--admin", "--out", certs)
        ports = ("--endpoint", lone.endpoint, "--cacert", certs + "/ca.pem")
        bob = (*ports, "--cert", certs + "/bob.pem", "--key", certs + "/bob.key")
        root = (*ports, "--cert", certs + "/root.pem", "--key", certs + "/root.key")
        expect(good(lone, "get", "k", *bob) == "v", "bob reads another value")
        bad(lone, 77, "admin", "token", "rotate", *bob)
        expect(good(lone, "token", "rotate", *root).startswith("SWMTKN-1-"), "no token")
        expect(os.stat(certs + "/bob.key").st_mode & 0o777 == 0o600, "others can read the key")
    with test.show("without a certificate the network port says nothing"):
        code, out, _ = lone.cli("get", "k", "--endpoint", lone.endpoint, "--insecure-plaintext",
                                "--timeout", "1")
        expect(code != 0 and out == "", "it answered")
    with test.show("plaintext is refused on an address that others reach"):
        open_to_all = Manager(test, "open")
        code, _, err = open_to_all.cli("serve", "--data", open_to_all.data, "--client",
                                       "0.0.0.0:2379", "--client-insecure", "--init")
        expect(code == 64 and "loopback" in err, f"exit code {code}: {err}")


def start_with_tls(test, manager, *options):
    """Manager.start serves plaintext for the writers in Python; this one does not."""
    with open(manager.log, "ab") as log:
        manager.process = subprocess.Popen(
            [*DIE_WITH_PARENT, BINARY, "serve", "--data", manager.data, "--name", manager.name,
             "--client", manager.endpoint, "--peer", manager.peer_address, *options],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    test.managers.append(manager)


def run(test):
    cluster = Cluster(test)
    show_help(test, cluster[0])
    show_values(test, cluster)
    show_tree(test, cluster)
    show_members(test, cluster)
    show_leaving(test, cluster)
    show_ports(test, cluster)


main(run)
