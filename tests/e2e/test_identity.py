#!/usr/bin/python3
"""Who is who in a cluster, against real servers: join tokens and what they must not do;
certificates as openssl sees them; attacks on the peer port by whoever holds a real certificate, a
stale one, one of another cluster, or sits in the middle; the root rotated under writes with a node
switched off; certificates that live a minute, renewed under load; nodes that come back after theirs
ran out; the lock, opened by shares, a file, a credential, and guessed at. The parts that wait for
clocks run beside the others. Arguments: the parts to run (tokens, certificates, nodes, attacks,
stale, middle, own, lock, guess, rotation, renewals, expired)."""
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import joins
from cluster import (Cluster, Failure, Lost, Manager, Refused, expect, main, pause_until,
                     wait_until)
from joins import ALPN_JOIN, ALPN_NODE, ALPN_PEER, Node, Refusal, openssl
from sessions import WANT, Cut, Session

USAGE, REFUSED, NOT_NOW = 64, 77, 75
GUESSES = 10           # wrong tokens at once; further ones have to wait
TRIES = 1000           # of a wrong unlock key
SHORT_S = 60           # the shortest life of a certificate
RENEWALS = int(os.environ.get("CONCLAVE_RENEWALS", "2"))  # of every node
ROTATION_S = 60


def good(manager, *words, text=None):
    code, out, error = manager.cli(*words, text=text)
    expect(code == 0, f"{' '.join(words[:2])} on {manager.name}: exit code {code}: {error.strip()}")
    return out


def bad(manager, exit_code, pattern, *words, text=None):
    code, out, error = manager.cli(*words, text=text)
    said = f"{' '.join(words[:2])}: exit code {code}: {error.strip()}"
    expect(code == exit_code and not out.strip(), f"{said}; expected {exit_code}")
    expect(re.search(pattern, error), f"{said}; nothing like {pattern!r}")
    return error


def as_json(manager, *words):
    return json.loads(good(manager, *words, "--json"))


def refused(pattern, act):
    """act() has to be refused in words like those."""
    try:
        act()
    except Refusal as error:
        expect(re.search(pattern, str(error)), f"refused, but with {str(error)!r}, not {pattern!r}")
        return
    raise Failure(f"this was not refused; it should be with {pattern!r}")


def alone(test, name, *options):
    """A cluster of one manager."""
    manager = Manager(test, name).start("--init", *options)
    manager.wait_running()
    return manager


def token(manager, role, *options):
    return good(manager, "token", "create", "--role", role, *options).strip()


def nodes(manager):
    return {n["id"]: n for n in as_json(manager, "node", "ls")["nodes"]}


def node(manager, node_id):
    return nodes(manager).get(node_id)


def worker(test, cluster, name):
    """A real worker that has joined."""
    made = Manager(test, name)
    made.start("--join", cluster[0].peer_address, "--token",
               good(cluster[0], "token", "show", "--role", "worker").strip())
    wait_until(lambda: made.status()["state"] == "worker", f"{name} to be a worker")
    wait_until(lambda: node(cluster[0], made.status()["id"])["state"] == "ready", f"{name} ready")
    return made


class Load:
    """Writes without a pause, each once, to each of the managers; any that fails is kept."""

    def __init__(self, members):
        self.done, self.failed, self.worst_s = 0, [], 0
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(m,), daemon=True)
                        for m in members]
        for thread in self.threads:
            thread.start()

    def write(self, member):
        place, count = member.http(timeout=10), 0
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                place.put(b"%s/%06d" % (member.name.encode(), count), b"value",
                          secrets.token_hex(16))
                count += 1
            except (Lost, Refused) as error:
                with self.lock:
                    self.failed.append((time.time(), f"{member.name}: {error}"))
            with self.lock:
                self.worst_s = max(self.worst_s, time.monotonic() - began)
            pause_until(began + 0.005)
        with self.lock:
            self.done += count

    def finish(self, cluster):
        self.stopping.set()
        for thread in self.threads:
            thread.join(20)
            expect(not thread.is_alive(), "a writer hangs")
        print(f"    {self.done} writes, the slowest {self.worst_s * 1000:.0f} ms")
        for at, why in self.failed[:3]:
            print(f"    failed at {time.strftime('%H:%M:%S', time.gmtime(at))}: {why}")
            print("\n".join(cluster.timeline(at - 15, at + 2)))
        expect(not self.failed, f"{len(self.failed)} of {self.done} writes failed; the first: "
                                f"{self.failed[:1]}")
        expect(self.done > 100, f"only {self.done} writes")


# --- join tokens ---------------------------------------------------------------------------------

def show_tokens(test):
    a = alone(test, "tok")
    at = a.peer_address
    with test.show("a token is shown once, and is kept nowhere: no list, no file, no log has it"):
        once = token(a, "worker", "--name", "for rack 3", "--label", "rack=3")
        secret = once.rsplit("-", 1)[1]
        for words in (["token", "ls"], ["token", "ls", "--json"], ["node", "ls", "--json"]):
            expect(secret not in good(a, *words), f"{words[:2]} shows it")
        expect(secret not in a.output(), "the log has it")
        expect("is shown to an administrator" in a.output(), "the log does not say that it was")
        for folder, _, files in os.walk(a.data):
            for name in files:
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError), open(path, "rb") as file:
                    expect(secret.encode() not in file.read(), f"{path} has it")
    with test.show("a token gives its role and labels, and its use is counted"):
        made = Node(test).join(at, once)
        row = node(a, made.id)
        expect((made.joined.role, row["granted"], row["labels"]) ==
               ("worker", "worker", {"rack": "3"}), f"the node is {row}")
        listed = {t["name"]: t for t in as_json(a, "token", "ls")["tokens"]}["for rack 3"]
        expect((listed["used"], listed["state"]) == (1, "good"), f"the token is {listed}")
    with test.show("a token with N uses lets N nodes in, however many come at once"):
        few = token(a, "worker", "--uses", "3")
        verdicts = []

        def come(one):
            try:
                verdicts.append(one.join(at, few).id)
            except Refusal as error:
                verdicts.append(str(error))
        crowd = [threading.Thread(target=come, args=(Node(test),)) for _ in range(8)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
        let_in = [v for v in verdicts if len(v) == 25]
        expect(len(let_in) == 3 and len(set(let_in)) == 3, f"with 3 uses: {verdicts}")
        expect(all("used" in v for v in verdicts if len(v) != 25), f"refused with {verdicts}")
        used = [t["used"] for t in as_json(a, "token", "ls")["tokens"] if t["uses_max"] == 3]
        expect(used == [3], f"counted: {used}")
    with test.show("a token is only good from its networks"):
        inside = token(a, "worker", "--from", "127.0.0.0/8,::1/128")
        outside = token(a, "worker", "--from", "10.11.0.0/16,2001:db8::/32")
        Node(test).join(at, inside)
        refused("address|from", lambda: Node(test).join(at, outside))
    with test.show("a revoked token and an expired one let nobody in, and say so"):
        gone = as_json(a, "token", "create", "--role", "worker")
        good(a, "token", "rm", gone["id"])
        refused("revoked", lambda: Node(test).join(at, gone["token"]))
        brief = token(a, "worker", "--expires", "1s", "--name", "brief")
        wait_until(lambda: "expired" in [t["state"] for t in as_json(a, "token", "ls")["tokens"]
                                         if t["name"] == "brief"], "the token to expire")
        refused("expired", lambda: Node(test).join(at, brief))
    with test.show("rotation makes the standing token worthless, and no other"):
        before = good(a, "token", "show", "--role", "worker").strip()
        other = good(a, "token", "show", "--role", "manager").strip()
        after = good(a, "token", "rotate", "--role", "worker").strip()
        expect(before != after, "it is the same")
        expect(good(a, "token", "show", "--role", "worker").strip() == after, "another is shown")
        expect(good(a, "token", "show", "--role", "manager").strip() == other, "the other's too")
        refused("token", lambda: Node(test).join(at, before))
        Node(test).join(at, after)
    show_guessing(test, a, after)
    a.kill()


def show_guessing(test, a, right):
    with test.show("guesses are slowed and logged, and tell nothing"):
        words = []
        for _ in range(GUESSES + 3):
            wrong = right[:-25] + secrets.token_hex(13)[:25]
            try:
                Node(test).join(a.peer_address, wrong)
                raise Failure("a guess was right")
            except Refusal as error:
                words.append(str(error))
        expect(len(set(words[:GUESSES])) == 1, f"they are refused differently: {set(words)}")
        expect(re.search("too many|wait|try again", words[-1]), f"the last one hears {words[-1]}")
        logged = [e for e in a.events() if "token" in e["text"]
                  and e["level"] in ("warning", "error")]
        expect(logged, "the log says nothing of them")
        expect(not any(right[-25:] in e["text"] for e in a.events()), "a secret is in the log")
    with test.show("while guesses are slowed the cluster serves, and the right token works later"):
        a.http().put(b"k", b"v")
        Node(test).join(a.peer_address, right, source="127.0.0.77")  # at once, from elsewhere
        wait_until(lambda: joined(test, a, right), "the right token to be taken again", 60, 0.5)


def joined(test, manager, text):
    try:
        return Node(test).join(manager.peer_address, text)
    except Refusal as error:
        raise Failure(str(error)) from error


# --- certificates --------------------------------------------------------------------------------

def show_certificates(test):
    a = alone(test, "cert")
    cluster = a.status()["cluster"]
    with test.show("certificates of both roles are as they should be, and openssl verifies them"):
        for role, ou in (("worker", "swarm-worker"), ("manager", "swarm-manager")):
            made = Node(test).join(a.peer_address, token(a, role))
            expect(made.joined.role == role, f"the role is {made.joined.role}")
            made.verify()
            text = made.describe()
            names = [f"DNS:{ou}", f"DNS:{made.id}", *["DNS:swarm-ca"][:role == "manager"]]
            for part in (f"CN={made.id}", f"OU={ou}", f"O={cluster}", "Issuer: CN=swarm-ca",
                         "NIST CURVE: P-256", "TLS Web Server Authentication",
                         "TLS Web Client Authentication", "CA:FALSE", *names):
                expect(part in text, f"a {role}'s certificate has no {part}: {text}")
    with test.show("the root is a root, for twenty years"):
        text = openssl("x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", made.root)
        for part in ("Subject: CN=swarm-ca", "CA:TRUE", "Certificate Sign", "NIST CURVE: P-256"):
            expect(part in text, f"the root has no {part}: {text}")
        openssl("verify", "-CAfile", made.root, made.root)
        openssl("x509", "-noout", "-checkend", str(19 * 365 * 86400), "-in", made.root)
        expect(good(a, "ca", "show", "--pem") == made.joined.root, "ca show shows another root")
    with test.show("a manager shows the same kind of certificate on its peer port"):
        chain = openssl("s_client", "-connect", a.peer_address, "-alpn", ALPN_JOIN, "-tls1_3",
                        "-CAfile", made.root, "-verify_return_error", "-verify_hostname",
                        "swarm-manager", data=b"")
        expect("OU = swarm-manager" in chain or "OU=swarm-manager" in chain, chain)
    with test.show("a renewal keeps the id, changes the key, and is what the row says"):
        before, old_id = openssl("x509", "-noout", "-pubkey", "-in", made.chain), made.id
        made.renew(a.peer_address)
        expect(made.id == old_id, "another id")
        after = openssl("x509", "-noout", "-pubkey", "-in", made.chain)
        expect(before != after, "the same key")
        made.verify()
        der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], check=True,
                             input=after.encode(), stdout=subprocess.PIPE).stdout
        digest = openssl("dgst", "-sha256", "-r", data=der).split()[0]
        expect(node(a, made.id)["certificate"]["key_digest"] == digest, "the row has another key")
    a.kill()


# --- nodes ---------------------------------------------------------------------------------------

def show_nodes(test):
    a = alone(test, "nod")
    made = Node(test).join(a.peer_address, token(a, "worker", "--label", "rack=3"))
    twin = Node(test).join(a.peer_address, token(a, "worker"))
    with test.show("node update changes what it is told to, and nothing else"):
        good(a, "node", "update", made.id, "--availability", "drain", "--label-add", "zone=a",
             "--label-add", "ssd", "--name", "box-1")
        row = node(a, made.id)
        expect((row["availability"], row["name"], row["labels"]) ==
               ("drain", "box-1", {"rack": "3", "zone": "a", "ssd": ""}), f"it is {row}")
        good(a, "node", "update", "box-1", "--label-rm", "rack", "--label-rm", "none",
             "--label-add", "zone=b")
        row = node(a, made.id)
        expect((row["availability"], row["labels"]) == ("drain", {"zone": "b", "ssd": ""}),
               f"it is {row}")
        bad(a, 73, "exists|name", "node", "update", twin.id, "--name", "BOX-1")
    with test.show("a node is found by id, its beginning, name, host name, and `self`; else told"):
        for word in (made.id, made.id[:12], "box-1", made.name):
            expect(as_json(a, "node", "inspect", word)["id"] == made.id, word)
        expect(as_json(a, "node", "inspect", "self")["id"] == a.status()["id"], "self")
        expect(as_json(a, "node", "inspect", "nod")["id"] == a.status()["id"], "a manager's name")
        for word in ("nobody", "b%2fx", "x y", "../etc"):
            bad(a, 1, "no|not", "node", "inspect", word)
        text = good(a, "node", "inspect", "box-1")
        for part in ("box-1", "worker", "drain", "ssd= zone=b", "certificate", "127.0.0.1"):
            expect(part in text, f"inspect shows no {part}: {text}")
        table = good(a, "node", "ls").splitlines()
        expect(len(table) == 4 and len({line.index("active") for line in table[1:]
                                        if "active" in line}) == 1, f"the table: {table}")
    with test.show("changes by many at once: none is lost, none is done twice"):
        many = [threading.Thread(target=good, args=(
            a, "node", "update", made.id, "--label-add", f"n{i}={i}")) for i in range(8)]
        for one in many:
            one.start()
        for one in many:
            one.join()
        labels = node(a, made.id)["labels"]
        expect(all(labels.get(f"n{i}") == str(i) for i in range(8)), f"labels: {labels}")
    with test.show("what the cluster can't stand is refused: the last manager, a node that runs"):
        bad(a, NOT_NOW, "last|manager", "node", "demote", "self")
        bad(a, NOT_NOW, "manager|demote", "node", "rm", "self")
        bad(a, NOT_NOW, "approval", "node", "approve", "box-1")
        bad(a, NOT_NOW, "ask", "node", "deny", "box-1")
        bad(a, USAGE, "label", "node", "update", "box-1", "--label-add", "a=\x07")
    a.kill()


# --- attacks -------------------------------------------------------------------------------------

def show_attacks(test):
    a = alone(test, "att")
    at, cluster = a.peer_address, a.status()["cluster"]
    status = a.status()
    other = alone(test, "oth")
    with test.show("a request for another's name or role gets its own name and the token's role"):
        subject = f"/CN={status['id']}/OU=swarm-manager/O={cluster}"
        made = Node(test).join(at, token(a, "worker"), subject=subject)
        text = made.describe()
        expect(made.id != status["id"] and f"CN={made.id}" in text, f"the name was taken: {text}")
        expect("OU=swarm-worker" in text and "swarm-manager" not in text, f"the role: {text}")
        made.renew(at, subject=subject)
        expect("swarm-manager" not in made.describe(), "a renewal gives the role")
    with test.show("a worker that asks to be a member of the quorum is refused"):
        refused("worker|manager|role|permission", lambda: made.ask(
            at, kind=joins.RENEW, pair=made.pair, member=1))
    with test.show("a worker's certificate is no manager's: not to peers, not to the client port"):
        said = joins.hello(1, cluster, made.id)
        expect(joins.is_cut(at, ALPN_PEER, made.pair, said), "a worker is talked to as a peer")
        claims = joins.hello(1, cluster, status["id"])
        expect(joins.is_cut(at, ALPN_PEER, made.pair, claims), "it is believed to be the manager")
        show_client_port(test, a, made)
    show_demoted(test, a)
    show_removed(test, a)
    show_foreign(test, a, other)
    with test.show("TLS below 1.3 is refused on the peer port"):
        for version in ("-tls1_2", "-tls1_1"):
            done = subprocess.run(["openssl", "s_client", version, "-connect", at, "-alpn",
                                   ALPN_PEER, "-cipher", "ALL:@SECLEVEL=0"], input=b"",
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            expect(done.returncode != 0, f"{version} is taken")
            expect(re.search(rb"alert|protocol version|unsupported", done.stdout), done.stdout)
        done = subprocess.run(["openssl", "s_client", "-tls1_3", "-connect", at, "-alpn",
                               ALPN_JOIN], input=b"", stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        expect(b"TLSv1.3" in done.stdout, "TLS 1.3 is not taken either")
    a.kill()
    other.kill()


def show_client_port(test, a, made):
    """On a manager with TLS on its client port."""
    secure = Manager(test, "sec")
    secure.plaintext = False
    secure.start("--init")
    secure.wait_running()
    inside = Node(test).join(secure.peer_address, token(secure, "worker"))
    for one, why in ((inside, "a worker's certificate"), (made, "another cluster's certificate")):
        words = ["--endpoint", secure.endpoint, "--cacert", inside.root, "--cert", one.chain,
                 "--key", one.key, "--timeout", "3"]
        for verb in (["node", "ls"], ["token", "show"], ["unlock-key"], ["ca", "rotate"],
                     ["node", "promote", inside.id], ["key", "rotate"]):
            code, out, error = a.cli(*verb, *words)
            expect(code != 0 and not out.strip(), f"{verb} with {why}: {code}: {out}")
            expect(code in (REFUSED, 69, NOT_NOW, 76), f"{verb} with {why}: {code}: {error}")
    secure.kill()


def show_demoted(test, a):
    with test.show("a demoted manager's certificate, still valid, opens nothing for managers"):
        boss = Node(test).join(a.peer_address, token(a, "manager"))
        raft_id = node(a, boss.id)["raft_id"]
        cluster = a.status()["cluster"]
        stale = boss.pair
        wait_until(lambda: node(a, boss.id)["granted"] == "manager", "it to be a manager")
        said = joins.hello(raft_id, cluster, boss.id)
        expect(not joins.is_cut(a.peer_address, ALPN_PEER, stale, said, 0.5), "it is no peer")
        good(a, "node", "demote", boss.id)
        wait_until(lambda: node(a, boss.id)["granted"] == "worker", "it to be demoted")
        boss.verify()  # the certificate itself is as good as before
        expect(joins.is_cut(a.peer_address, ALPN_PEER, stale, said), "it is still a peer")
        refused("worker|manager|role|permission", lambda: boss.ask(
            a.peer_address, kind=joins.RENEW, pair=stale, member=1))
        boss.renew(a.peer_address)
        expect(boss.joined.role == "worker" and "swarm-manager" not in boss.describe(),
               "a renewal makes it a manager again")


def show_removed(test, a):
    with test.show("a removed node is cut off while it is connected, and refused from then on"):
        gone = Node(test).join(a.peer_address, token(a, "worker"))
        expect(not joins.is_cut(a.peer_address, ALPN_NODE, gone.pair, wait_s=0.5), "no session")
        tls = joins.connect(a.peer_address, ALPN_NODE, gone.pair)
        tls.settimeout(20)
        expect(tls.recv(1), "a node's session says nothing at first")
        good(a, "node", "rm", "--force", gone.id)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while tls.recv(65536):
                pass
        tls.close()
        gone.verify()
        expect(node(a, gone.id) is None, "it is still listed")
        expect(joins.is_cut(a.peer_address, ALPN_NODE, gone.pair), "it gets a session")
        refused("remov|unknown|no node|not|refused", lambda: gone.ask(
            a.peer_address, kind=joins.RENEW, pair=gone.pair))


# --- keys that were replaced ---------------------------------------------------------------------

def copied(node):
    """The certificate and key that a node has now, for later."""
    return tuple(shutil.copy(path, path + ".old") for path in node.pair)


def seen_with_new_key(manager, node):
    node.renew(manager.peer_address)
    with Session(manager.peer_address, node) as session:
        session.hear(WANT)


def show_stale(test):
    cluster = Cluster(test)
    a, b, c = cluster
    with test.show("a session by a key that was replaced ends on every manager"):
        made = Node(test).join(a.peer_address, token(a, "worker"))
        with Session(b.peer_address, made) as old:
            old.hear(WANT)
            seen_with_new_key(a, made)
            try:
                old.hear()
            except Cut as error:
                expect("not the one" in str(error), str(error))
    with test.show("a manager's old key, let in while nobody leads, is cut when somebody does"):
        boss = Node(test).join(a.peer_address, token(a, "manager"))
        stale, said = copied(boss), joins.hello(boss.joined.raft_id, boss.joined.cluster, boss.id)
        expect(not joins.is_cut(a.peer_address, ALPN_PEER, stale, said, 0.5), "it is no peer")
        seen_with_new_key(a, boss)
        wait_until(lambda: joins.is_cut(a.peer_address, ALPN_PEER, stale, said, 0.5),
                   "it to be refused")
        b.kill()
        c.kill()
        wait_until(lambda: not a.status().get("leader"), "nobody to lead")
        with joins.connect(a.peer_address, ALPN_PEER, stale) as tls:
            tls.sendall(said)
            kind, _ = joins.receive(tls)
            expect(kind == joins.HELLO, f"a frame of type {kind}")
            expect(joins.ending(tls, 0.5) is None, "it is refused while nobody leads")
            b.start()
            c.start()
            expect(joins.ending(tls, 30), "it is still a peer")
        cluster.wait_voters(3)
    for member in cluster:
        member.kill()


def show_foreign(test, a, other):
    with test.show("a certificate of another cluster opens nothing, and neither does its token"):
        foreign = Node(test).join(other.peer_address, token(other, "manager"))
        for alpn in (ALPN_PEER, ALPN_NODE):
            said = joins.hello(1, a.status()["cluster"], foreign.id)
            expect(joins.is_cut(a.peer_address, alpn, foreign.pair,
                                said if alpn == ALPN_PEER else b""), f"{alpn} takes it")
        refused(".", lambda: foreign.ask(a.peer_address, kind=joins.RENEW, pair=foreign.pair))
        refused("token", lambda: Node(test).join(a.peer_address, token(other, "worker")))
        late = Manager(test, "late").start()
        wait_until(lambda: late.status()["state"] == "empty", "it to wait")
        bad(late, REFUSED, "root|token", "join", a.peer_address, "--token", token(other, "worker"))
        late.kill()


# --- a man in the middle -------------------------------------------------------------------------

class Impostor(threading.Thread):
    """A TLS server with a chain of its own that keeps what it is sent."""

    def __init__(self, chain, key):
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain, key)
        self.context.set_alpn_protocols([ALPN_JOIN])
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.heard, self.visits = b"", 0
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self.listener.accept()
                self.visits += 1
                with contextlib.suppress(OSError, ssl.SSLError):
                    plain.settimeout(10)
                    with self.context.wrap_socket(plain, server_side=True) as tls:
                        while data := tls.recv(65536):
                            self.heard += data


def made_up(test, name, subject, more=""):
    """A self-signed certificate, with `more` certificates behind it."""
    base = os.path.join(test.work, name)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "30", "-subj", subject, "-keyout", base + ".key", "-out", base + ".pem",
            "-addext", "subjectAltName=DNS:swarm-manager,DNS:swarm-ca")
    with open(base + ".pem", "a") as file:
        file.write(more)
    return base + ".pem", base + ".key"


def show_middle(test):
    a = alone(test, "mid")
    text = good(a, "token", "show", "--role", "worker").strip()
    root = good(a, "ca", "show", "--pem")
    subject = f"/CN=x/OU=swarm-manager/O={a.status()['cluster']}"
    late = Manager(test, "vic").start()
    wait_until(lambda: late.status()["state"] == "empty", "it to wait")
    for name, more, why in (("fake", "", "another root certificate|root"),
                            ("chained", root, "certificate")):
        with test.show(f"a man in the middle ({name}) is found out, and does not get the token"):
            impostor = Impostor(*made_up(test, name, subject, more))
            bad(late, REFUSED, why, "join", impostor.address, "--token", text)
            expect(impostor.visits > 0, "nobody came to it")
            expect(text.rsplit("-", 1)[1].encode() not in impostor.heard, "it has the secret")
            expect(late.status()["state"] == "empty", "the node does not wait any more")
            impostor.listener.close()
    late.kill()
    a.kill()


# --- an authority of one's own -------------------------------------------------------------------

def own_root(test, name):
    """A root whose key stays here, and an intermediate with its key: chain, key, root as files."""
    base = os.path.join(test.work, name)
    extensions = joins.write(base + ".cnf", "basicConstraints=critical,CA:TRUE\n"
                             "keyUsage=critical,keyCertSign,cRLSign\n")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes",
            "-days", "3650", "-subj", f"/CN={name} root", "-keyout", base + ".root.key", "-out",
            base + ".root.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={name} issuing", "-keyout", base + ".key", "-out", base + ".csr")
    openssl("x509", "-req", "-in", base + ".csr", "-CA", base + ".root.pem", "-CAkey",
            base + ".root.key", "-CAcreateserial", "-days", "1000", "-extfile", extensions,
            "-out", base + ".int.pem")
    with open(base + ".int.pem") as lower, open(base + ".root.pem") as root:
        joins.write(base + ".chain.pem", lower.read() + root.read())
    return base + ".chain.pem", base + ".key", base + ".root.pem"


def show_own(test):
    chain, key, root = own_root(test, "ours")
    with test.show("a cluster on an intermediate of one's own, the root's key offline"):
        a = alone(test, "own", "--ca-cert", chain, "--ca-key", key)
        made = Node(test).join(a.peer_address, token(a, "worker"))
        made.verify(root)
        expect(len(joins.certificates(made.joined.cert)) == 2, "the intermediate is not shown")
        with open(root) as file:
            expect(good(a, "ca", "show", "--pem").strip() == file.read().strip(), "another root")
        expect("ours issuing" in good(a, "ca", "show"), "ca show does not name the issuer")
        digest = token(a, "worker").split("-")[2]
        expect(len(digest) == 50, "no digest")
    with test.show("a second manager joins it, as by any other root"):
        b = Manager(test, "own2").start("--join", a.peer_address, "--token",
                                        good(a, "token", "show").strip())
        b.wait_running()
        wait_until(lambda: b.http().put(b"k", b"v"), "a write through it")
    show_own_rotation(test, a, b, made)
    a.kill()
    b.kill()
    with test.show("conclave init takes it too, and refuses what is no authority"):
        c = Manager(test, "own3").start()
        wait_until(lambda: c.status()["state"] == "empty", "it to wait")
        other = own_root(test, "theirs")
        bad(c, USAGE, "key", "init", "--ca-cert", chain, "--ca-key", other[1])
        pair = made_up(test, "leaf", "/CN=no authority/O=x")
        openssl("req", "-x509", "-key", pair[1], "-days", "3000", "-subj", "/CN=leaf", "-addext",
                "basicConstraints=critical,CA:FALSE", "-out", pair[0])
        bad(c, USAGE, ".", "init", "--ca-cert", pair[0], "--ca-key", pair[1])
        bad(c, USAGE, "ca-key|ca-cert", "init", "--ca-key", key)
        good(c, "init", "--ca-cert", chain, "--ca-key", key)
        made = Node(test).join(c.peer_address, token(c, "worker"))
        made.verify(root)
        c.kill()


def show_own_rotation(test, a, b, absent):
    """To another root of one's own, without a node that is never there again."""
    chain, key, root = own_root(test, "next")
    with test.show("the root is rotated to another one of one's own, which then signs"):
        done = as_json(a, "ca", "rotate", "--ca-cert", chain, "--ca-key", key)
        expect(done["phase"] == "finishing", f"it says {done['phase']}")
        with open(root) as file:
            expect(good(b, "ca", "show", "--pem").strip() == file.read().strip(), "another root")
        new = Node(test).join(b.peer_address, token(b, "worker"))
        new.verify(root)
        phase = as_json(a, "ca", "show")
        expect((phase["phase"], phase["nodes"] - phase["converged"]) == ("finishing", 1),
               f"the phase is {phase['phase']}, {phase['converged']} of {phase['nodes']}")
        bad(a, USAGE, "uses now", "ca", "rotate", "--ca-cert", chain, "--ca-key", key)
    with test.show("a node that is given up has to join again; whoever is forced out stays out"):
        good(a, "ca", "force")
        wait_until(lambda: as_json(b, "ca", "show")["phase"] == "steady", "the end of it")
        refused(".", lambda: absent.ask(a.peer_address, kind=joins.RENEW, pair=absent.pair))
        bad(a, NOT_NOW, "rotation", "ca", "force")
        bad(a, NOT_NOW, "rotation", "ca", "abort")


# --- the lock ------------------------------------------------------------------------------------

def locked(manager, env=None):
    manager.kill()
    manager.start(env=env)
    wait_until(lambda: manager.status()["state"] == "locked", "it to be locked")


def show_lock(test):
    a = alone(test, "loc", "--autolock")
    key = wait_until(lambda: good(a, "unlock-key").strip(), "the lock")
    shares = good(a, "unlock-key", "--shares", "5", "--threshold", "3").split()
    with test.show("shares of the unlock key: 3 of 5 open, whichever; 2 do not"):
        expect(len(set(shares)) == 5, f"shares: {len(shares)}")
        expect(key not in shares, "a share is the key")
        for two in (shares[:2], shares[3:], [shares[0], shares[0]]):
            locked(a)
            bad(a, USAGE if two[0] == two[1] else NOT_NOW, "share", "unlock", "--share",
                text="\n".join(two) + "\n")
            expect(a.status()["state"] == "locked", "2 shares have opened it")
        for three in (shares[:3], shares[2:], [shares[4], shares[1], shares[0]]):
            locked(a)
            good(a, "unlock", "--share", text="\n".join(three) + "\n")
            a.wait_running()
        locked(a)
        paths = [joins.write(os.path.join(test.work, f"share{i}"), s + "\n")
                 for i, s in enumerate(shares)]
        good(a, "unlock", "--share-file", paths[0], "--share-file", paths[3], "--share",
             text=shares[2] + "\n")
        a.wait_running()
    with test.show("a mistyped share and shares of two sets are told, and open nothing"):
        other = good(a, "unlock-key", "--shares", "5", "--threshold", "3").split()
        locked(a)
        wrong = shares[0][:-3] + ("aaa" if shares[0][-3:] != "aaa" else "bbb")
        bad(a, USAGE, "share", "unlock", "--share", text="\n".join([wrong, *shares[1:3]]) + "\n")
        bad(a, USAGE, "share", "unlock", "--share", text="\n".join([*shares[:2], other[2]]) + "\n")
        expect(a.status()["state"] == "locked", "it is open")
    with test.show("a file with the key opens; so does a systemd credential, with nobody there"):
        path = joins.write(os.path.join(test.work, "keyfile"), key + "\n")
        good(a, "unlock", "--unlock-key-file", path)
        a.wait_running()
        folder = os.path.join(test.work, "credentials")
        os.mkdir(folder)
        joins.write(os.path.join(folder, "conclave-unlock-key"), key + "\n")
        a.kill()
        a.start(env={"CREDENTIALS_DIRECTORY": folder})
        a.wait_running()
        joins.write(os.path.join(folder, "conclave-unlock-key"), "SWMKEY-1-" + "A" * 43 + "\n")
        locked(a, env={"CREDENTIALS_DIRECTORY": folder})
        good(a, "unlock", text=key + "\n")
        a.wait_running()
    show_at_once(test, a)
    a.kill()
    show_away(test)


def show_at_once(test, a):
    with test.show("of rotations at once one is answered the key that opens, the others an error"):
        callers = [a.socket() for _ in range(5)]
        for http in callers:
            http.call("GET", "/conclave/v1/status")  # connected
        with a.held_still():
            for http in callers:
                http.ask("POST", "/conclave/v1/unlock-key/rotate")
        answers = [(status, json.loads(text)) for status, text in (h.answer() for h in callers)]
        keys = [text["unlock_key"] for status, text in answers if status == 200]
        expect(keys == [good(a, "unlock-key").strip()], f"{len(keys)} were answered a key")
        errors = [text["name"] for status, text in answers if status != 200]
        expect(errors == ["ERR_CONFLICT"] * 4, str(errors))


def show_away(test):
    cluster = Cluster(test, first_options=["--autolock"])
    a, b, c = cluster
    old = wait_until(lambda: good(a, "unlock-key").strip(), "the lock")
    wait_until(lambda: all(m.status()["sealed_by"] == "unlock key" for m in cluster), "the locks")
    with test.show("a manager that was away while the key was rotated opens by the old one, once"):
        c.kill()
        before = {m.name: m.status()["key_generation"] for m in (a, b)}
        new = good(a, "unlock-key", "--rotate").strip()
        expect(new != old, "the same key")
        wait_until(lambda: all(m.status()["key_generation"] > before[m.name] for m in (a, b)),
                   "other data keys")
        c.start()
        wait_until(lambda: c.status()["state"] == "locked", "it to be locked")
        bad(c, REFUSED, "wrong key", "unlock", text=new + "\n")
        good(c, "unlock", text=old + "\n")
        cluster.wait_voters(3)
        wait_until(lambda: opens_by(c, old, new), "it to have followed to the new key")
    for member in cluster:
        member.kill()


def opens_by(manager, old, new):
    locked(manager)
    code, _, _ = manager.cli("unlock", text=old + "\n")
    good(manager, "unlock", text=new + "\n")
    manager.wait_running()
    return code == REFUSED


def show_guess(test):
    a = alone(test, "gue", "--autolock")
    key = wait_until(lambda: good(a, "unlock-key").strip(), "the lock")
    locked(a)
    with test.show("the unlock key tried a thousand times: nearly none is looked at, none is slow"):
        verdicts = {}
        http = a.socket(timeout=10)
        for _ in range(TRIES):
            guess = "SWMKEY-1-" + joins.openssl("rand", "-base64", "32").strip().rstrip("=") \
                if not verdicts else "SWMKEY-1-" + secrets.token_hex(32)[:42] + "A"
            try:
                http.call("POST", "/conclave/v1/unlock", {"key": guess})
                raise Failure("a guess was right")
            except Refused as error:
                verdicts[error.name] = verdicts.get(error.name, 0) + 1
        print(f"    {TRIES} tries: {verdicts}")
        expect(verdicts.get("ERR_WRONG_KEY", 0) <= 12, f"looked at: {verdicts}")
        expect(verdicts.get("ERR_BUSY", 0) >= TRIES - 12, f"refused: {verdicts}")
        began = time.monotonic()
        expect(a.status()["state"] == "locked", "it is not locked")
        expect(time.monotonic() - began < 1, "the server is slow")
        told = [e for e in a.events() if "wrong key" in e["text"]]
        expect(told, "the log says nothing of wrong keys")
    with test.show("the right key has to wait, too, is told how long, and then opens"):
        error = bad(a, NOT_NOW, "too many wrong keys.* in [0-9]+ s", "unlock", text=key + "\n")
        expect(key not in error, "the key is in the error")
        wait_until(lambda: a.cli("unlock", text=key + "\n")[0] == 0, "the right key to open", 60)
        a.wait_running()
    a.kill()


# --- rotation ------------------------------------------------------------------------------------

def issuers(manager):
    return {h["id"]: h["issuer"] for h in as_json(manager, "ca", "show")["holders"]}


def rotated(test, cluster, off):
    """A rotation under writes while the nodes `off` are; ca show of before and after."""
    a, b, _ = cluster
    before = as_json(a, "ca", "show")
    with test.show("the root is rotated under writes, a manager and a worker off: none fails"):
        out = good(a, "ca", "rotate", "--timeout", str(ROTATION_S))
        expect("new root" in out, f"it says {out}")
        after = as_json(b, "ca", "show")
        expect(after["root"]["digest"] != before["root"]["digest"], "the root is the same")
        expect(after["phase"] == "finishing" and after["down"] == len(off), f"it is {after}")
        old = {i for i, issuer in issuers(a).items() if issuer == "old"}
        expect(old == set(off), f"certificates: {issuers(a)}")
    return before, after


def show_rotation(test):
    cluster = Cluster(test)
    a, b, c = cluster
    w, lost = worker(test, cluster, "w"), worker(test, cluster, "off")
    tokens = {r: good(a, "token", "show", "--role", r).strip() for r in ("worker", "manager")}
    off = {m.status()["id"]: m for m in (c, lost)}
    if a.status()["role"] != "leader":
        good(a, "member", "transfer", "a")
    for one in off.values():
        one.stop()
    wait_until(lambda: all(node(a, i)["state"] == "down" for i in off), "the nodes to be down")
    load = Load((a, b))
    _, after = rotated(test, cluster, off)
    with test.show("the tokens pin the new root, and the old ones are worth nothing"):
        for role, old in tokens.items():
            new = good(a, "token", "show", "--role", role).strip()
            expect(new.split("-")[2] == after["root"]["digest"] != old.split("-")[2], "the digest")
        new = good(a, "token", "show", "--role", "worker").strip()
        Node(test).join(a.peer_address, new).verify()
        late = Manager(test, "late").start()
        wait_until(lambda: late.status()["state"] == "empty", "it to wait")
        bad(late, REFUSED, "root", "join", a.peer_address, "--token", tokens["worker"])
        late.kill()
    with test.show("the nodes that were off are finished when they are back; the old root goes"):
        for one in off.values():
            one.start()
        for node_id in off:
            wait_until(lambda i=node_id: node(a, i)["state"] == "ready", "the node to be back")
            wait_until(lambda i=node_id: issuers(a)[i] == "current", "its new certificate")
        wait_until(lambda: as_json(a, "ca", "show")["phase"] == "steady", "the rotation's end")
        expect(as_json(b, "ca", "show")["retired_pem"] == "", "an old root is still trusted")
        cluster.wait_voters(3)
    with test.show("a rotation that is aborted leaves the root as it was, and all nodes on it"):
        now = as_json(a, "ca", "show")["root"]["digest"]
        w.stop()  # so that it can't be over before it is aborted
        good(a, "ca", "rotate", "--detach")
        good(a, "ca", "abort")
        w.start()
        wait_until(lambda: set(issuers(b).values()) == {"current"}, "all nodes on the old root")
        expect(as_json(b, "ca", "show")["root"]["digest"] == now, "the root is another one")
    with test.show("no write failed in all of this, and the members have the same state"):
        load.finish(cluster)
        cluster.wait_same()
    for member in (*cluster, w, lost):
        member.kill()


# --- renewals ------------------------------------------------------------------------------------

def show_renewals(test):
    """Validity of a minute (two, where ten renewals are asked for); every node renews by itself."""
    cluster = Cluster(test)
    a = cluster[0]
    workers = [worker(test, cluster, "rw")]
    validity_s = SHORT_S if RENEWALS < 10 else 120
    keys = {}

    def look():
        for node_id, row in nodes(a).items():
            digest = row["certificate"]["key_digest"]
            keys.setdefault(node_id, [])
            if digest not in keys[node_id]:
                keys[node_id].append(digest)
        return all(len(seen) > RENEWALS for seen in keys.values())
    load = Load(cluster)
    with test.show(f"certificates of {validity_s} s under load: {RENEWALS} renewals of every node, "
                   "no request fails"):
        good(a, "ca", "set", "--validity", f"{validity_s}s")
        wait_until(lambda: all(r["certificate"]["until_s"] < time.time() + validity_s + 5
                               for r in nodes(a).values()), "certificates of this validity")
        wait_until(look, f"{RENEWALS} renewals of every node", RENEWALS * validity_s + 60, 0.25)
        expect(len(keys) == 4, f"nodes: {list(keys)}")
        ends = [r["certificate"]["until_s"] - time.time() for r in nodes(a).values()]
        expect(max(ends) <= validity_s + 1, f"certificates end in {ends}")
        load.finish(cluster)
        print(f"    renewals: {sorted(len(seen) - 1 for seen in keys.values())}")
    with test.show("a longer validity is taken up at once"):
        good(a, "ca", "set", "--validity", "90d")
        wait_until(lambda: all(r["certificate"]["until_s"] > time.time() + 80 * 86400
                               for r in nodes(a).values()), "long certificates")
    for member in (*cluster, *workers):
        member.kill()


# --- coming back ---------------------------------------------------------------------------------

def show_expired(test):
    """Both a manager and a worker are off for longer than their certificates live."""
    cluster = Cluster(test)
    a, b, c = cluster
    w = worker(test, cluster, "ew")
    ids = {m.name: m.status()["id"] for m in (c, w)}
    good(a, "ca", "set", "--validity", f"{SHORT_S}s")
    wait_until(lambda: all(r["certificate"]["until_s"] < time.time() + SHORT_S + 5
                           for r in nodes(a).values()), "short certificates")
    a.http().put(b"before", b"v")
    for one in (c, w):
        one.stop()
    wait_until(lambda: all(nodes(a)[i]["certificate"]["expired"] for i in ids.values()),
               "the certificates to run out", SHORT_S + 20, 0.5)
    with test.show("a manager that was off past its certificate's life asks, and is not let in"):
        c.start()
        wait_until(lambda: pending(a) == [ids[c.name]], "it to ask")
        wanted = as_json(a, "node", "inspect", ids[c.name])["certificate"]["wanted_digest"]
        expect(any(wanted in e["text"] for e in c.events()), "it does not say which key it is")
        expect(nodes(b)[ids[c.name]]["state"] != "ready", "it is in already")
    with test.show("a denied one stays out; an approved one comes back as who it was"):
        good(a, "node", "deny", ids[c.name])
        expect(nodes(a)[ids[c.name]]["state"] != "ready", "it is in")
        wait_until(lambda: pending(a) == [ids[c.name]], "it to ask again", 60)
        good(b, "node", "approve", ids[c.name])
        wait_until(lambda: node(a, ids[c.name])["state"] == "ready", "it to be back", 60)
        expect(c.status()["id"] == ids[c.name], "it has another id")
        cluster.wait_voters(3)
        expect(c.http().get(b"before") == b"v", "its data is lost")
        expect(pending(a) == [], "it is still pending")
    with test.show("with --readmit automatic a node comes back by itself"):
        good(a, "ca", "set", "--readmit", "automatic")
        w.start()
        wait_until(lambda: node(a, ids[w.name])["state"] == "ready", "the worker to be back", 60)
        expect(w.status()["id"] == ids[w.name], "it has another id")
        expect(node(a, ids[w.name])["certificate"]["state"] == "issued", "its certificate")
    for member in (*cluster, w):
        member.kill()


def pending(manager):
    return [n["id"] for n in as_json(manager, "node", "pending")["nodes"]]


# --- all -----------------------------------------------------------------------------------------

PARTS = {"tokens": show_tokens, "certificates": show_certificates, "nodes": show_nodes,
         "attacks": show_attacks, "stale": show_stale, "middle": show_middle, "own": show_own,
         "lock": show_lock, "guess": show_guess, "rotation": show_rotation,
         "renewals": show_renewals, "expired": show_expired}
WAITING = ("renewals", "expired")  # for clocks, mostly


def run(test):
    wanted = sys.argv[1:] or list(PARTS)
    beside = [threading.Thread(target=guarded, args=(test, name)) for name in wanted
              if name in WAITING and len(wanted) > 1]
    for thread in beside:
        thread.start()
    for name in wanted:
        if name not in WAITING or len(wanted) == 1:
            guarded(test, name)
    for thread in beside:
        thread.join()


def guarded(test, name):
    """What goes wrong between two things shown is a failure of its part, not of the others."""
    began = time.monotonic()
    with test.show(f"the part {name} comes to its end"):
        PARTS[name](test)
    print(f"    {name} took {time.monotonic() - began:.0f} s", flush=True)


main(run)
