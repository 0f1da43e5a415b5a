#!/usr/bin/python3
"""The cluster key under faults, on three real managers: the leader is killed at each step of a
rotation, and that ends all the same, with every value back and no older key left; a lost key
comes back from its escrow; a shredded secret stays lost for backups with the keys of today; the
unlock key of today opens no keyring of yesterday.

Values are those of configs, which can be read back by whoever may administer the cluster."""
import base64
import contextlib
import os
import random
import shutil
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import Cluster, Lost, Manager, Refused, expect, main, pause_until, time, wait_until

CONFIGS = 400  # several commands of values that are wrapped anew
SAMPLE = 40  # of them, read back after each kill
STEPS = ("is spread to the managers", "is the current one", "wraps all values")
RANDOM_KILLS = 1
# What a write may be refused with while leaders are killed and keys rotated.
PASSING = {"ERR_BUSY", "ERR_NO_LEADER", "ERR_NOT_LEADER", "ERR_MAYBE_APPLIED", "ERR_TIMEOUT",
           "ERR_CLOSED", "ERR_UNREACHABLE"}


def value_of(i):
    return f"value {i} ".encode() * (1 + i % 7)


def create(manager, kind, name, value):
    with contextlib.closing(manager.socket(20)) as http:
        return http.call("POST", f"/conclave/v1/{kind}/create",
                         {"name": name, "value": base64.b64encode(value).decode()})["id"]


def read(manager, name):
    with contextlib.closing(manager.socket(20)) as http:
        answer = http.call("GET", f"/conclave/v1/configs/value?config={name}")
    return base64.b64decode(answer["value"])


def vault(manager):
    with contextlib.closing(manager.socket(10)) as http:
        return http.call("GET", "/conclave/v1/vault")


def ask_rotation(manager):
    """From a thread of its own; what becomes of the answer is not looked at."""
    def run():
        with contextlib.suppress(Lost, Refused), contextlib.closing(manager.socket(60)) as http:
            http.call("POST", "/conclave/v1/vault/rotate")
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def steady(manager, above):
    """The status, once all is as it should be under an epoch above that one."""
    def look():
        s = vault(manager)
        done = s["current"] > above and s["oldest"] == s["current"] and not s["next"]
        return s if done and s["held"] == [s["current"]] and s["ready"] else None
    return wait_until(look, f"{manager.name} to hold an epoch above {above} alone")


def sees(manager, since, text):
    with open(manager.log, errors="replace") as log:
        log.seek(since)
        return text in log.read()


def check_values(cluster, names):
    for manager in cluster:
        for i in names:
            expect(read(manager, f"c{i}") == value_of(i), f"{manager.name} has c{i} changed")


def restart(cluster, killed):
    killed.start()
    killed.wait_running()
    cluster.wait_voters(3)


def kill_at(cluster, moment):
    """Kills the leader of a rotation when moment(leader, size of its log) returns; all is well
    after."""
    leader = cluster.leader()
    before = vault(leader)["current"]
    size = os.path.getsize(leader.log)
    asked = ask_rotation(leader)
    moment(leader, size)
    leader.kill()
    asked.join(10)
    other = cluster.leader()
    if not any(vault(other)[at] > before for at in ("current", "next")):  # nothing was written yet
        ask_rotation(other)
    epoch = steady(other, before)["current"]
    restart(cluster, leader)
    for manager in cluster:
        expect(steady(manager, before)["current"] == epoch, f"{manager.name} is at another epoch")
    check_values(cluster, random.sample(range(CONFIGS), SAMPLE // 3))
    cluster.wait_same()


class Writer(threading.Thread):
    """Makes configs all the time, through any manager; notes those that were acknowledged."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.stop = cluster, threading.Event()
        self.made, self.errors = {}, []

    def run(self):
        n = 0
        while not self.stop.is_set():
            n += 1
            manager, name = self.cluster[n % 3], f"w{n}"
            try:
                create(manager, "configs", name, name.encode() * 3)
                self.made[name] = name.encode() * 3
            except Lost:
                pass  # it was killed
            except Refused as error:
                self.errors.append(error)
            pause_until(time.monotonic() + 0.005)

    def check(self):
        self.stop.set()
        self.join(30)
        odd = [e for e in self.errors if e.name not in PASSING]
        expect(not odd, f"a write was refused: {odd[:1]}")
        expect(len(self.made) > 100, f"only {len(self.made)} writes went through")
        for name, value in self.made.items():
            expect(read(self.cluster.leader(), name) == value, f"{name} is changed")


def rotations(test, cluster):
    writer = Writer(cluster)
    writer.start()
    for step in STEPS:
        with test.show(f"a rotation whose leader is killed when the key {step} ends well"):
            kill_at(cluster, lambda leader, size, step=step: wait_until(
                lambda: sees(leader, size, step), step, pause=0))
    with test.show("a rotation whose leader is killed at any other moment ends well"):
        for _ in range(RANDOM_KILLS):
            after = random.uniform(0, 0.06)
            kill_at(cluster, lambda *_, after=after: pause_until(time.monotonic() + after))
    with test.show("what was acknowledged while keys were rotated is there"):
        writer.check()
    with test.show("every value is back, on every manager"):
        check_values(cluster, random.sample(range(CONFIGS), SAMPLE))
    with test.show("a manager that was off while the key was rotated catches up"):
        off = cluster.followers()[0]
        before = vault(off)["current"]
        off.kill()
        ask_rotation(cluster.leader()).join(30)
        steady(cluster.leader(), before)
        restart(cluster, off)
        steady(off, before)
        check_values([off], range(0, CONFIGS, 50))


# --- backups, escrow, shredding ---------------------------------------------------------------

def must(done, what):
    code, out, err = done
    expect(code == 0, f"{what}: {err.strip() or out.strip()}")
    return out


def backup(manager, path):
    out = must(manager.cli("backup", path), "backup")
    return out.split("BACKUP KEY: ")[1].strip()


def restored(test, name, path, key, *options):
    """A new cluster from a backup, running; what restore has said."""
    node = Manager(test, name)
    keyfile = f"{path}.key"
    with open(keyfile, "w") as file:
        file.write(key)
    said = must(node.cli("restore", path, "--data", node.data, "--name", name, "--client",
                         node.endpoint, "--peer", node.peer_address, "--key-file", keyfile,
                         *options), "restore")
    node.start()
    node.wait_running()
    return node, said


def refused(call, *words):
    try:
        call()
    except Refused as error:
        expect(all(w in error.message for w in words), f"refused by: {error}")
        return True
    return False


def escrow(test, cluster):
    leader = cluster.leader()
    path, file = os.path.join(test.work, "backup"), os.path.join(test.work, "escrow")
    phrase = os.path.join(test.work, "phrase")
    with open(phrase, "w") as out:
        out.write("kept apart from the backups\n")
    must(leader.cli("key", "escrow", "--out", file, "--passphrase-file", phrase), "escrow")
    create(leader, "secrets", "doomed", b"never to be seen again")
    create(leader, "configs", "doomed", b"wrapped by the same key")
    key = backup(leader, path)

    with test.show("a restore with the escrow has every value"):
        node, said = restored(test, "r", path, key, "--escrow", file, "--passphrase-file", phrase)
        expect("with the cluster keys that open them" in said, f"restore said: {said}")
        check_values([node], range(0, CONFIGS, 40))
        create(node, "secrets", "fresh", b"x")
        node.stop()
    with test.show("a restore without it has none, until the escrow is imported"):
        node, said = restored(test, "s", path, key)
        expect("import-escrow" in said, f"restore said: {said}")
        wait_until(lambda: refused(lambda: create(node, "secrets", "fresh", b"x"), "lost"),
                   "the key to be lost")
        expect(refused(lambda: read(node, "c1"), "epoch"), "a value was shown without its key")
        must(node.cli("key", "import-escrow", file, "--passphrase-file", phrase), "import")
        check_values([node], range(0, CONFIGS, 40))
        create(node, "secrets", "fresh", b"x")
        node.stop()
    with test.show("a wrong passphrase is told from a damaged escrow"):
        with open(f"{phrase}.wrong", "w") as out:
            out.write("another one\n")
        code, _, err = leader.cli("key", "import-escrow", file, "--passphrase-file",
                                  f"{phrase}.wrong")
        expect(code == 77 and "passphrase" in err, f"{code}: {err}")
        with open(file, "rb") as whole, open(f"{file}.cut", "wb") as cut:
            cut.write(whole.read()[:-1])
        code, _, err = leader.cli("key", "import-escrow", f"{file}.cut", "--passphrase-file",
                                  phrase)
        expect(code == 76 and "damaged" in err, f"{code}: {err}")
    return path, key


def shred(test, cluster, path, key):
    leader = cluster.leader()
    old = os.path.join(test.work, "yesterday")
    token = must(leader.cli("lock"), "lock").split("SWMKEY-1-")[1].split()[0]
    keyfile = os.path.join(test.work, "unlock")
    with open(keyfile, "w") as out:
        out.write(f"SWMKEY-1-{token}\n")
    copied = cluster.followers()[0]
    wait_until(lambda: copied.status()["sealed_by"] == "unlock key", "the keyring to be locked")
    copied.stop()
    shutil.copytree(copied.data, old, ignore=shutil.ignore_patterns("*.sock"))
    copied.start("--unlock-key-file", keyfile)
    copied.wait_running()
    cluster.wait_voters(3)
    with test.show("shred tells what it has destroyed, and names the escrow"):
        with contextlib.closing(leader.socket(60)) as http:
            answer = http.call("POST", "/conclave/v1/secrets/shred", {"secret": "doomed"})
        expect(answer["destroyed"] and answer["escrow"]["record"] > 0, f"it said {answer}")
        for manager in cluster:
            expect(not set(vault(manager)["held"]) & set(answer["destroyed"]),
                   f"{manager.name} still holds a destroyed key")
        check_values(cluster, range(0, CONFIGS, 80))
    with test.show("the unlock key of today does not open yesterday's keyring"):
        today = must(leader.cli("unlock-key"), "unlock-key").split("SWMKEY-1-")[1].split()[0]
        expect(today != token, "the unlock key is still the same")
        must(leader.cli("check", "--data", old, "--unlock-key-file", keyfile), "check")
        with open(keyfile, "w") as out:
            out.write(f"SWMKEY-1-{today}\n")
        code, said, err = leader.cli("check", "--data", old, "--unlock-key-file", keyfile)
        expect(code == 77, f"check: {code} {said} {err}")
    with test.show("a backup of yesterday has no value with the keys of today"):
        now, phrase = os.path.join(test.work, "escrow2"), os.path.join(test.work, "phrase")
        must(leader.cli("key", "escrow", "--out", now, "--passphrase-file", phrase), "escrow")
        node, said = restored(test, "t", path, key, "--escrow", now, "--passphrase-file", phrase)
        expect("import-escrow" in said, f"restore said: {said}")
        wait_until(lambda: refused(lambda: create(node, "secrets", "fresh", b"x"), "lost"),
                   "the key to be lost")
        expect(refused(lambda: read(node, "doomed"), "epoch"), "the value was shown")
        node.stop()


def run(test):
    cluster = Cluster(test)
    with test.show("values go in through any manager"):
        for i in range(CONFIGS):
            create(cluster[i % 3], "configs", f"c{i}", value_of(i))
    rotations(test, cluster)
    path, key = escrow(test, cluster)
    shred(test, cluster, path, key)


if __name__ == "__main__":
    main(run)
