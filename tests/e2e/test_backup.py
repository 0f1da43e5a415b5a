#!/usr/bin/python3
"""Backup and restore with real managers: a backup is taken while writes go on and holds everything
that was acknowledged before it; it becomes a cluster of its own, which takes members; damage, a
wrong key and a directory that is in use are refused before anything is written; a backup that is
replaced goes last. And recovery after a lost quorum."""
import os
import re
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import BINARY, Cluster, Manager, expect, main, wait_until  # noqa: E402

KEYS = 500


def good(manager, *arguments, text=None):
    code, out, err = manager.cli(*arguments, text=text)
    expect(code == 0, f"conclave {' '.join(arguments[:2])}: exit code {code}: {err.strip()}")
    return out


def refused(manager, codes, word, *arguments, text=None):
    code, _, err = manager.cli(*arguments, text=text)
    expect(code in codes, f"exit code {code}: {err.strip()}")
    expect(word in err, f"said: {err.strip()!r}")


def write_on(cluster, stop):
    """A writer beside the backup."""
    http, number = cluster[0].http(), 0
    while not stop.is_set():
        http.put(f"later/{number}".encode(), b"x" * 1000)
        number += 1


def back_up(test, cluster):
    path = os.path.join(test.work, "backup")
    http = cluster[0].http()
    for i in range(KEYS):
        http.put(f"k/{i:04d}".encode(), f"value {i} ".encode() * 20)
    stop = threading.Event()
    writer = threading.Thread(target=write_on, args=(cluster, stop))
    writer.start()
    try:
        out = good(cluster[1], "backup", path)
    finally:
        stop.set()
        writer.join()
    return path, re.search(r"CCLBAK-1-\S+", out).group(0)


def show_file(test, cluster, path, key):
    with test.show("the file holds nothing readable, and is the owner's alone"):
        with open(path, "rb") as f:
            data = f.read()
        for word in (b"k/0001", b"value 7", b"BEGIN", cluster.token[-25:].encode()):
            expect(word not in data, f"{word} is in the file")
        expect(os.stat(path).st_mode & 0o777 == 0o600, "others can read it")
    with test.show("a backup does not overwrite another"):
        refused(cluster[1], [73], "there already", "backup", path)
    with test.show("--replace leaves the old backup alone until the new one's key is out"):
        for words in ((), ("--json",)):
            with open("/dev/full", "w") as full:
                done = subprocess.run([BINARY, "backup", path, "--replace", *words], stdout=full,
                                      stderr=subprocess.PIPE, text=True, check=False,
                                      env=dict(os.environ, CONCLAVE_DATA=cluster[1].data))
            expect(done.returncode == 74 and "standard output" in done.stderr,
                   f"{done.returncode}: {done.stderr}")
            with open(path, "rb") as f:
                expect(f.read() == data, "the old backup is gone, and nobody knows the new key")
            expect(not os.path.exists(path + ".part"), "what nobody can open is left")
    target = Manager(test, "damaged")
    with test.show("a wrong key and damage are refused, and nothing is written"):
        other = "CCLBAK-1-" + "A" * 43
        restore = ("restore", path, "--name", "r")
        refused(target, [77], "key", *restore, text=other + "\n")
        refused(target, [64], "CCLBAK", *restore, text="nonsense\n")
        for at in (3, 20, 50, len(data) // 2, len(data) - 1):
            harmed = bytearray(data)
            harmed[at] ^= 1
            with open(path + ".harmed", "wb") as f:
                f.write(harmed)
            refused(target, [64, 76, 77], ".harmed", "restore", path + ".harmed", "--name", "r",
                    text=key + "\n")
        with open(path + ".harmed", "wb") as f:
            f.write(data[:len(data) * 2 // 3])
        refused(target, [76], "ends at byte", "restore", path + ".harmed", "--name", "r",
                text=key + "\n")
        left = os.listdir(target.data) if os.path.exists(target.data) else []
        expect(left in ([], ["LOCK"]), f"written: {left}")


def show_restored(test, cluster, path, key):
    new = Manager(test, "new")
    with test.show("a backup becomes a new cluster with all that was acknowledged before it"):
        out = good(new, "restore", path, "--name", "new", "--client", new.endpoint, "--peer",
                   new.peer_address, text=key + "\n")
        token = re.search(r"SWMTKN-1-\S+", out).group(0)
        new.start()
        new.wait_running()
        found = new.http().all(prefix=b"k/")
        expect(len(found) == KEYS, f"{len(found)} keys instead of {KEYS}")
        old = cluster[0].http().all(prefix=b"k/")
        expect(found == old, "keys, values or revisions are others")
    with test.show("it is another cluster, and has one member"):
        expect(new.status()["cluster"] != cluster[0].status()["cluster"], "the id is the same")
        expect(new.status()["members"] == 1, "there are other members")
        stranger = Manager(test, "stranger").start()
        wait_until(lambda: stranger.status()["state"] == "empty", "it waits")
        refused(stranger, [77], "root", "join", new.peer_address, "--token", cluster.token)
        good(stranger, "join", new.peer_address, "--token", token)
        wait_until(lambda: stranger.status().get("keys") == new.status()["keys"], "it has all keys")
    with test.show("a directory that has a node is not restored into"):
        refused(new, [75], "another process", "restore", path, "--name", "x", text=key + "\n")
        new.stop()
        refused(new, [73], "already", "restore", path, "--name", "x", text=key + "\n")
    stranger.kill()


def show_recovery(test, cluster):
    last = cluster[2]
    cluster.wait_same()
    with test.show("after a lost quorum the last member becomes a cluster of one"):
        cluster[0].kill()
        cluster[1].kill()
        refused(last, [75], "no ", "put", "a", "b", "--timeout", "1")  # leader, or answer in time
        refused(last, [75], "another process", "recover", "--force-new-cluster")
        last.stop()
        refused(last, [64], "--force-new-cluster", "recover")
        good(last, "recover", "--force-new-cluster")
        last.start()
        last.wait_running()
        good(last, "put", "a", "b")
        expect(len(last.http().all(prefix=b"k/")) == KEYS, "keys are lost")
        wait_until(lambda: "c" in good(last, "member", "ls") and
                   last.status()["members"] == 1, "it is alone")
    with test.show("and takes new members"):
        token = good(last, "token", "rotate").strip()
        fresh = Manager(test, "fresh").start("--join", last.peer_address, "--token", token)
        wait_until(lambda: fresh.status().get("role") == "voter", "it is a voter")
        expect(good(fresh, "get", "a") == "b", "it has another value")


def run(test):
    cluster = Cluster(test)
    path, key = back_up(test, cluster)
    show_file(test, cluster, path, key)
    show_restored(test, cluster, path, key)
    show_recovery(test, cluster)


main(run)
