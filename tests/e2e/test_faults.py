#!/usr/bin/python3
"""What goes wrong around a manager: a wrong key, a locked node, a full disk, a read-only disk,
peers with certificates that are not ours. Each must end in a clear error, lose nothing that was
acknowledged, and be over when the cause is gone. The disks are small loop-mounted ext4 file
systems, which need root. Arguments: the parts to run (locked, disks, certificates, expired)."""
import contextlib
import glob
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import Cluster, Lost, Manager, Refused, expect, main, pause_until, wait_until

LOCKED, IO_ERROR, CORRUPT = 77, 74, 76  # exit codes
ALPN_PEER = "conclave-peer/1"
LINE_EVERY_S = 1.1  # the log takes one line a second about an address
DISK_MIB = 96
VALUE = 64 * 1024
KEYS_WORD, VALUES_WORD = b"key-that-must-not-show", b"value-that-must-not-show"


def command(*words, **settings):
    subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **settings)


# --- keys ----------------------------------------------------------------------------------------

def found_in(directory, *needles):
    """Which of the needles lies in a file of the directory."""
    for path in glob.glob(directory + "/**", recursive=True):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                data = file.read()
            for needle in needles:
                if needle in data:
                    return f"{needle[:16]!r}... in {path}"
    return None


def refused_as_locked(manager, *words):
    code, _, text = manager.cli(*words)
    expect(code == LOCKED, f"{words[0]} on a locked node: exit code {code}: {text}")
    expect("locked" in text and "unlock" in text, f"{words[0]} does not tell why: {text}")


def show_locked(test):
    cluster = Cluster(test, first_options=["--autolock"])
    first, second, third = cluster
    key = first.line("unlock key, needed after every restart; keep it safe: ")
    expect(key and key.startswith("SWMKEY-1-"), "no unlock key was printed")
    first.http().put(KEYS_WORD, VALUES_WORD)
    third.stop()
    third.start()
    wait_until(lambda: third.status()["state"] == "locked", "the node to be locked")
    with test.show("a locked node tells its state, and refuses the rest with exit code 77"):
        code, text, _ = third.cli("status")
        expect(code == 0 and "locked" in text, f"status: {code}: {text}")
        refused_as_locked(third, "put", "a", "b")
        refused_as_locked(third, "get", "a")
        refused_as_locked(third, "member", "ls")
        with socket.socket() as s:
            expect(s.connect_ex(("127.0.0.1", third.peer)) != 0, "the peer port of it is open")
    with test.show("the others go on without the locked node"):
        second.http().put(b"meanwhile", b"written")
    with test.show("no key and no value lies on the disk of a locked node"):
        needles = [key.encode(), key[len("SWMKEY-1-"):].encode(), KEYS_WORD, VALUES_WORD,
                   b"PRIVATE KEY", b"BEGIN", third.peer_address.encode()]
        found = found_in(third.data, *needles)
        expect(not found, str(found))
        expect(not os.path.exists(os.path.join(third.data, "kek")), "the key's own file is there")
    with test.show("a wrong unlock key is refused and nothing changes"):
        wrong = key[:-6] + ("aaaaaa" if key[-6:] != "aaaaaa" else "bbbbbb")
        for text in (wrong, "SWMKEY-1-short", "nonsense"):
            code, _, why = third.cli("unlock", text=text + "\n")
            expect(code in (LOCKED, 64), f"exit code {code}: {why}")
            expect(third.status()["state"] == "locked", "it is not locked any more")
    with test.show("a wrong key at the start is refused with exit code 77"):
        third.stop()
        path = os.path.join(test.work, "wrong-key")
        other = Manager(test, "other").start("--init", "--autolock")
        wait_until(lambda: other.line("unlock key, needed"), "another cluster's key")
        with open(path, "w") as file:
            file.write(other.line("unlock key, needed after every restart; keep it safe: ") + "\n")
        other.kill()
        third.start("--unlock-key-file", path)
        expect(third.ended() == LOCKED, f"exit code {third.process.returncode}")
        expect("wrong key" in third.output().splitlines()[-1], third.output().splitlines()[-1])
    with test.show("the right key unlocks, and the node catches up"):
        third.start()
        wait_until(lambda: third.status()["state"] == "locked", "the node to be locked")
        code, _, why = third.cli("unlock", text=key + "\n")
        expect(code == 0, why)
        cluster.wait_voters(3)
        cluster.wait_same()
        expect(third.http().get(b"meanwhile") == b"written", "what was written is not there")
    for manager in cluster:
        manager.kill()


# --- disks ---------------------------------------------------------------------------------------

class Disk:
    """A file system of its own."""

    def __init__(self, test, name):
        self.path = os.path.join(test.work, name + ".d")
        self.image = os.path.join(test.work, name + ".img")
        with open(self.image, "wb") as file:
            file.truncate(DISK_MIB << 20)
        command("mkfs.ext4", "-q", "-F", "-m", "0", self.image)
        os.mkdir(self.path)
        test.undo.append(self.unmount)
        self.mount()

    def mount(self):
        command("mount", "-o", "loop", self.image, self.path)

    def unmount(self):
        if os.path.ismount(self.path):
            command("umount", self.path)

    def fill(self):
        """Takes all that is free; free() gives it back."""
        with open(os.path.join(self.path, "ballast"), "wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                for size in (1 << 20, 4096, 512):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(bytes(size))
            with contextlib.suppress(OSError):
                os.fsync(file.fileno())

    def free(self):
        os.unlink(os.path.join(self.path, "ballast"))


def value_of(n):
    return (b"%08d" % n) * (VALUE // 8)


def write_until_refused(manager, written, limit):
    """Puts keys until one is refused; the refusal."""
    with contextlib.closing(manager.http(timeout=30)) as http:
        for n in range(len(written), limit):
            try:
                http.put(b"key%06d" % n, value_of(n))
                written.append(n)
            except Refused as error:
                return error
    return None


def check_written(manager, written, what):
    with contextlib.closing(manager.http(timeout=30)) as http:
        for n in written:
            expect(http.get(b"key%06d" % n) == value_of(n), f"key {n} {what}")


def full_disk_single(test, disk):
    alone = Manager(test, "full", os.path.join(disk.path, "data"))
    alone.start("--init")
    alone.wait_running()
    written = []
    write_until_refused(alone, written, 20)
    disk.fill()
    with test.show("on a full disk writes are refused with a clear error"):
        refusal = write_until_refused(alone, written, 4000)
        expect(refusal, "no write was refused")
        print(f"full disk: {refusal} after {len(written)} writes of {VALUE >> 10} KiB")
        expect(refusal.status == 429 and refusal.name == "ERR_NOSPACE", str(refusal))
        code, _, text = alone.cli("put", "one", "more")
        expect(code == IO_ERROR and "no space" in text.lower(), f"{code}: {text}")
    with test.show("on a full disk reads go on, and everything acknowledged is there"):
        expect(alone.running(), alone.obituary())
        check_written(alone, written, "can't be read on a full disk")
    with test.show("a manager that is started on a full disk refuses writes with a clear error"):
        alone.kill()
        alone.start()
        alone.wait_running()
        refusal = write_until_refused(alone, list(written), 4000)
        expect(refusal and refusal.name == "ERR_NOSPACE", f"a write on the full disk: {refusal}")
    with test.show("when there is space again writes go on without a restart"):
        process = alone.process
        disk.free()

        def write():
            refusal = write_until_refused(alone, written, len(written) + 3)
            expect(not refusal, str(refusal))
            return True
        wait_until(write, "a write to be taken")
        expect(process is alone.process and alone.running(), "it was restarted")
        alone.kill()
        alone.start()
        alone.wait_running()
        check_written(alone, written, "is lost after the disk was full")
    alone.kill()


def hand_over(cluster, to):
    if cluster.leader() is not to:
        code, _, why = to.cli("member", "transfer", to.name)
        expect(code == 0, why)
        wait_until(lambda: cluster.leader() is to, f"{to.name} to lead", 5)


def full_disk_leader(test, disk):
    """The leader's disk is full, the others' are not."""
    cluster = Cluster(test)
    leader = cluster.leader()
    leader.kill()
    place = os.path.join(disk.path, "leader")
    for name in ("conclave.sock", "engine.sock"):
        os.unlink(os.path.join(leader.data, name))
    shutil.move(leader.data, place)
    leader.data = place
    leader.start()
    leader.wait_running()
    cluster.wait_voters(3)
    hand_over(cluster, leader)
    written = []
    write_until_refused(leader, written, 10)
    disk.fill()
    with test.show("a leader with a full disk loses nothing, and the cluster can go on"):
        refusal = write_until_refused(leader, written, 1000)
        print(f"full disk of the leader: {refusal} after {len(written)} writes")
        other = [m for m in cluster if m is not leader][0]
        if refusal:
            expect(refusal.name == "ERR_NOSPACE", str(refusal))
            hand_over(cluster, other)
            refusal = write_until_refused(other, written, len(written) + 5)
            expect(not refusal, f"the others can't write either: {refusal}")
        disk.free()
        cluster.wait_voters(3)
        cluster.wait_same()
        check_written(leader, written, "is lost on the leader")
    for manager in cluster:
        manager.kill()


def read_only_disk(test, disk):
    alone = Manager(test, "readonly", os.path.join(disk.path, "data"))
    alone.start("--init")
    alone.wait_running()
    written = []
    write_until_refused(alone, written, 20)
    command("mount", "-o", "remount,abort", disk.path)  # what ext4 does when its device fails
    with test.show("when the disk becomes read-only the node stops and says why"):
        with contextlib.suppress(Lost, Refused), contextlib.closing(alone.http()) as http:
            http.put(b"key%06d" % 999999, b"never acknowledged")
            raise AssertionError("a write on a read-only disk was acknowledged")
        code = alone.ended()
        last = alone.output().splitlines()[-1]
        print(f"read-only disk: exit code {code}: {last}")
        expect(code == IO_ERROR, f"exit code {code}: {last}")
        expect("read-only" in last.lower(), last)
    with test.show("it does not start on a read-only disk and says why"):
        alone.start()
        code = alone.ended()
        last = alone.output().splitlines()[-1]
        expect(code == IO_ERROR and "read-only" in last.lower(), f"exit code {code}: {last}")
    with test.show("when the disk can be written again all is there"):
        disk.unmount()
        disk.mount()
        alone.start()
        alone.wait_running()
        check_written(alone, written, "is lost after the disk was read-only")
        expect(not write_until_refused(alone, written, len(written) + 3), "writes are refused")
    alone.kill()


def show_disks(test):
    if os.geteuid() != 0:
        test.skip("full and read-only disks", "mounting needs root")
        return
    try:
        disk = Disk(test, "small")
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        test.skip("full and read-only disks", f"no loop mount is possible here ({error})")
        return
    for part in (full_disk_single, full_disk_leader, read_only_disk):
        part(test, disk)
        disk.unmount()
        command("mkfs.ext4", "-q", "-F", "-m", "0", disk.image)
        disk.mount()


# --- certificates --------------------------------------------------------------------------------

def stranger_certificate(test, name, subject):
    """A self-signed certificate that says it is somebody; (certificate, key)."""
    cert, key = (os.path.join(test.work, name + end) for end in (".pem", ".key"))
    command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", subject)
    return cert, key


def context_of(pair, server=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if not server:
        context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN_PEER])
    if pair:
        context.load_cert_chain(*pair)
    return context


# The log says little about one address, less of what it has just said: each stranger has its own.
STRANGERS = (f"127.0.0.{i}" for i in range(2, 255))


def knock(port, pair, version=ssl.TLSVersion.TLSv1_3):
    """Tries to be a peer; how the other side ends it. Failure if it does not."""
    context = context_of(pair)
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), 10, (next(STRANGERS), 0)) as plain:
        try:
            with context.wrap_socket(plain) as secure:
                secure.settimeout(10)
                got = secure.recv(100)
                expect(not got, f"it answers {got!r}")
                return "closed"
        except ssl.SSLError as error:
            return str(error.reason or error)
        except ConnectionResetError:
            return "reset"


def warnings(manager):
    return [e["text"] for e in manager.events()
            if e["level"] in ("warning", "error") and "refused" in e["text"]]


def check_refusal(cluster, pair, words, version=ssl.TLSVersion.TLSv1_3):
    """Refused, with one line that says why; what is written meanwhile is written."""
    target = cluster[0]
    before = len(warnings(target))
    how = knock(target.peer, pair, version)
    lines = wait_until(lambda: warnings(target)[before:], "a line in the log")
    print(f"    {how}: {lines}")
    expect(len(lines) == 1, f"{len(lines)} lines: {lines}")
    expect(any(w in lines[0].lower() for w in words), f"the line does not say why: {lines[0]}")
    target.http().put(b"after", lines[0].encode())
    expect(len(cluster.members()) == 3 and all(m["reachable"] for m in cluster.members()),
           "the cluster has been disturbed")


def listen_as(port, pair, until):
    """Accepts connections with a certificate until a condition holds; all that was said to it."""
    heard = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(10)
        deadline = time.monotonic() + 20
        while not until() and time.monotonic() < deadline:
            plain, _ = listener.accept()
            plain.settimeout(10)
            with contextlib.suppress(OSError), \
                    context_of(pair, server=True).wrap_socket(plain, server_side=True) as secure:
                heard.append(secure.recv(100))
    return b"".join(heard)


def impersonate(cluster, pair):
    """Somebody else listens where a member that is down was: the others must not talk to it."""
    third = cluster[2]
    third.kill()

    def lines():
        return [e["text"] for m in cluster.managers[:2] for e in m.events()
                if third.peer_address in e["text"] and "certificate" in e["text"].lower()]
    heard = listen_as(third.peer, pair, lines)
    expect(not heard, f"members talk to a stranger: {heard}")
    expect(lines(), "nobody says that the certificate is wrong")
    print(f"    {lines()}")
    third.start()
    cluster.wait_voters(3)
    cluster.wait_same()


def show_certificates(test):
    if not shutil.which("openssl"):
        test.skip("certificates", "there is no openssl")
        return
    cluster = Cluster(test)
    status = cluster[1].status()
    subject = f"/CN={status['id']}/OU=swarm-manager/O={status['cluster']}"
    foreign = stranger_certificate(test, "foreign", subject)
    with test.show("a peer with a foreign certificate is refused in one line"):
        check_refusal(cluster, foreign, ["certificate"])
    with test.show("a peer without a certificate is refused"):
        check_refusal(cluster, None, ["certificate"])
    with test.show("a client's certificate is no peer's certificate"):
        code, _, why = cluster[0].cli("cert", "visitor", "--admin", "--out", test.work + "/certs")
        expect(code == 0, why)
        pair = (test.work + "/certs/visitor.pem", test.work + "/certs/visitor.key")
        check_refusal(cluster, pair, ["certificate", "conclave-admin", "role"])
    with test.show("TLS 1.2 is refused on the peer port"):
        check_refusal(cluster, foreign, ["version", "protocol", "tls"], ssl.TLSVersion.TLSv1_2)
    with test.show("a stranger at a member's address is not talked to; the member comes back"):
        impersonate(cluster, foreign)
    for manager in cluster:
        manager.kill()


# --- time ----------------------------------------------------------------------------------------

SHIFTED_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) { return strtol(getenv("SHIFT_S"), NULL, 10); }

int clock_gettime(clockid_t id, struct timespec *out) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int rc = real(id, out);
    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) out->tv_sec += shift();
    return rc;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *out = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}
"""


def shifted_clock(test, days):
    """Environment for a manager whose wall clock is that many days off."""
    source, library = os.path.join(test.work, "clock.c"), os.path.join(test.work, "clock.so")
    if not os.path.exists(library):
        with open(source, "w") as file:
            file.write(SHIFTED_CLOCK)
        command("cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl")
    return {"LD_PRELOAD": library, "SHIFT_S": str(days * 86400)}


def show_expired(test):
    """Certificates are valid for 90 days; the cluster is founded 100 days ago and then stopped."""
    try:
        past = shifted_clock(test, -100)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        test.skip("expired certificates", f"nothing compiles here ({error})")
        return
    cluster = Cluster(test, env=past)
    code, _, why = cluster[0].cli("cert", "visitor", "--out", test.work + "/old")
    expect(code == 0, why)
    cluster[0].http().put(b"long ago", b"written")
    for manager in cluster:
        manager.stop()
    said = {m: len(m.events()) for m in cluster}

    def says(manager, words):
        return any(words in e["text"] for e in manager.events()[said[manager]:])
    with test.show("a cluster whose certificates have all expired meanwhile comes back"):
        first, *others = cluster
        first.start()  # the others come when it has given up waiting for them
        wait_until(lambda: says(first, "signs its old key anew"), "the first one to sign")
        for manager in others:
            manager.start()
        cluster.wait_voters(3)
        expect(cluster[1].http().get(b"long ago") == b"written", "what was written is lost")
        cluster.wait_same()
    with test.show("each of them renews in order, at once"):
        wait_until(lambda: all(says(m, "this node has a new certificate") for m in cluster),
                   "new certificates", 5)
    pause_until(time.monotonic() + LINE_EVERY_S)  # what was refused until then has its line
    with test.show("a peer with an expired certificate is refused in one line"):
        pair = (test.work + "/old/visitor.pem", test.work + "/old/visitor.key")
        check_refusal(cluster, pair, ["expired"])
    with test.show("a member whose clock is far off is refused; with the right time it is back"):
        third = cluster[2]
        third.stop()
        third.start(env=shifted_clock(test, 400))
        wait_until(lambda: any("certificate" in w for m in cluster for w in complaints(m)),
                   "a complaint about a certificate")
        cluster[0].http().put(b"meanwhile", b"written")
        third.stop()
        third.start()
        cluster.wait_voters(3)
        cluster.wait_same()
    for manager in cluster:
        manager.kill()


def complaints(manager):
    return [e["text"] for e in manager.events() if e["level"] in ("warning", "error")]


PARTS = {"locked": show_locked, "disks": show_disks, "certificates": show_certificates,
         "expired": show_expired}


def run(test):
    for name in sys.argv[1:] or PARTS:
        PARTS[name](test)


main(run)
