#!/usr/bin/python3
"""The certificate authority at work, on three managers and two workers that are processes on
loopback: the root rotated under write load with one node off, which is finished when it comes
back; a rotation aborted; a root that its user brings, with a CA below it; nodes that are given up;
another validity; an external CA, which is the real cfssl; whom the client port trusts meanwhile.
The openssl command judges all of it.
Arguments: the parts to run (clients, rotation, abort, brought, force, validity, external)."""
import contextlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import Cluster, Http, Manager, expect, free_port, main, wait_until
from etcd_servers import ConclaveServers
from joins import certificates
import etcd_rpc

ROTATE_S = 60  # a rotation; it waits for three heartbeats of five seconds when a node is off


def good(manager, *words):
    code, out, error = manager.cli(*words)
    expect(code == 0, f"{' '.join(words[:3])} on {manager.name}: {code}: {error.strip()}")
    return out


def authority(manager):
    return json.loads(good(manager, "ca", "show", "--json"))


def status(manager):
    return json.loads(good(manager, "ca", "status", "--json"))


def token(manager, role):
    return good(manager, "token", "show", "--role", role).strip()


def wait_worker(node, seconds=30):
    def look():
        found = node.status()
        return found if found["state"] == "worker" and found["session"] else None
    return wait_until(look, f"{node.name} to be a worker with a session", seconds)


def worker(test, cluster, name):
    made = Manager(test, name)
    made.start("--join", cluster[0].peer_address, "--token", token(cluster[0], "worker"))
    wait_worker(made)
    return made


def wait_phase(manager, phase, seconds=ROTATE_S):
    return wait_until(lambda: (s := status(manager))["phase"] == phase and s,
                      f"the rotation to be {phase}", seconds)


def openssl(test, *words, data=None):
    done = subprocess.run(["openssl", *words], input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False, cwd=test.work)
    expect(done.returncode == 0, f"openssl {words[0]}: {done.stderr.strip()}")
    return done.stdout


def shown(manager):
    """The chain that a manager's peer port shows."""
    done = subprocess.run(["openssl", "s_client", "-connect", manager.peer_address, "-showcerts",
                           "-alpn", "conclave-join/1"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return certificates(done.stdout)


def write(test, name, text):
    path = os.path.join(test.work, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def expect_verified(test, manager, root):
    """The chain leads to the root, as the openssl command sees it."""
    write(test, "root.pem", root)
    write(test, "chain.pem", "".join(shown(manager)))
    openssl(test, "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname",
            "swarm-manager", "-CAfile", "root.pem", "-untrusted", "chain.pem", "chain.pem")


class Load:
    """Writes on all managers, one request after the other on each, until stopped; none may fail."""

    def __init__(self, cluster):
        self.cluster, self.over = cluster, threading.Event()
        self.done, self.failed = 0, []
        self.threads = [threading.Thread(target=self.write, args=(m,)) for m in cluster]

    def write(self, manager):
        with contextlib.closing(manager.http(30)) as writer:
            while not self.over.is_set():
                try:
                    writer.put(f"load/{manager.name}".encode(), str(self.done).encode())
                    self.done += 1
                except Exception as error:  # pylint: disable=broad-except
                    self.failed.append(f"{manager.name}: {error}")
                    return

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


# --- rotation ------------------------------------------------------------------------------------

def show_rotation(test, cluster, first, second):
    before = authority(cluster[0])
    tokens = token(cluster[0], "worker"), token(cluster[0], "manager")
    with test.show("the root is rotated under write load, with one node off, and no write fails"):
        first.stop()
        with Load(cluster) as load:
            good(cluster[1], "ca", "rotate", "--detach")
            found = wait_phase(cluster[2], "finishing")
        expect(not load.failed, f"of {load.done} writes: {load.failed[:3]}")
        expect(load.done > 100, f"only {load.done} writes")
        expect(found["down"] == 1 and found["converged"] == 4, f"{found}")
        print(f"    {load.done} writes meanwhile", flush=True)
    now = authority(cluster[0])
    with test.show("there are another root and other tokens, which pin it; the old ones are void"):
        expect(now["root"]["digest"] != before["root"]["digest"], "the same root")
        fresh = token(cluster[0], "worker"), token(cluster[0], "manager")
        for old, new in zip(tokens, fresh):
            expect(new.split("-")[2] == now["root"]["digest"], f"{new} does not pin the root")
            expect(old.split("-")[3] != new.split("-")[3], "the same secret")
        node = Manager(test, "late").start("--join", cluster[0].peer_address, "--token", tokens[0])
        expect(node.ended() != 0, "the old token lets nodes in")
        expect("another root" in node.output(), node.output()[-300:])
    with test.show("a manager's chain leads to the new root, and by the bridge to the old one"):
        for manager in cluster:
            expect_verified(test, manager, now["root"]["pem"])
            expect_verified(test, manager, before["root"]["pem"])
    with test.show("a new node joins by the new token while the rotation is not finished"):
        late = worker(test, cluster, "w3")
        expect(late.status()["session"], "no session")
    with test.show("the node that was off is finished when it comes back; the old root is gone"):
        first.start()
        wait_worker(first)
        wait_phase(cluster[0], "steady")
        found = authority(cluster[0])
        expect(not found["retired_pem"], "the old root is still trusted")
        expect(all(h["issuer"] == "current" for h in found["holders"]), f"{found['holders']}")
    with test.show("all of them start again under the new root alone"):
        for node in (*cluster, first, second):
            node.stop()
        for node in (*cluster, first, second):
            node.start()
        cluster.wait_voters(3)
        for node in (first, second):
            wait_worker(node)


def show_abort(test, cluster, first):
    before = authority(cluster[0])
    with test.show("a rotation is aborted; nodes that had new certificates renew back"):
        first.kill()
        good(cluster[0], "ca", "rotate", "--detach")
        wait_until(lambda: status(cluster[0])["converged"] >= 1, "the first new certificate")
        good(cluster[2], "ca", "abort")
        expect(status(cluster[0])["phase"] == "steady", "it goes on")
        wait_until(lambda: all(h["issuer"] == "current"
                               for h in authority(cluster[0])["holders"]), "all to be back")
        expect(authority(cluster[0])["root"]["digest"] == before["root"]["digest"], "another root")
        code, _, error = cluster[0].cli("ca", "abort")
        expect(code != 0 and "no rotation" in error, error)
        first.start()
        wait_worker(first)


# --- clients -------------------------------------------------------------------------------------

def answers(address, files):
    """Whether a GET over TLS with this certificate is answered, by whoever is there."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*files[1:])
    try:
        with contextlib.closing(http.client.HTTPSConnection(address, context=context,
                                                            timeout=10)) as client:
            client.request("GET", "/version")
            return client.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


class Calls:
    """Reads by gRPC on one connection, one after the other, until stopped."""

    def __init__(self, servers, files):
        self.rpc = etcd_rpc.Rpc(servers.pb, servers.addresses()[0], files)
        self.request = servers.pb.RangeRequest(key=b"k")
        self.over, self.done, self.errors = threading.Event(), 0, []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            _, error = self.rpc.call("Range", self.request)
            self.done += 1
            if error:
                self.errors.append(error)

    def stop(self):
        self.over.set()
        self.thread.join()
        self.rpc.close()


def show_clients(test):
    engine = f"127.0.0.1:{free_port()}"
    servers = ConclaveServers(test, 1, tls=True, options=("--engine", engine))
    lone, old, pb = servers.cluster[0], servers.tls, servers.pb
    away = worker(test, servers.cluster, "away")
    with test.show("a root that is retired makes no administrators, though a node is not finished"):
        expect(answers(lone.endpoint, old) and answers(engine, old), "it does not begin well")
        with contextlib.closing(servers.rpc()) as rpc:
            stream = rpc.stream("Watch")
            stream.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")))
            expect(stream.take().created, "no watch")
            away.stop()
            good(lone, "ca", "rotate", "--detach")
            wait_phase(lone, "rotating")
            expect(answers(lone.endpoint, old), "the present root's is refused")
            young = servers.certificate("young")
            calls = Calls(servers, young)
            wait_phase(lone, "finishing")
            for address in (lone.endpoint, engine):
                wait_until(lambda at=address: not answers(at, old), "the old one to be refused")
            while stream.take() is not None:
                pass
        done = calls.done
        wait_until(lambda: calls.done > done + 10, "the new one's calls to go on")
        calls.stop()
        expect(not calls.errors, f"of {calls.done} calls: {calls.errors[:3]}")
        expect(authority(lone)["retired_pem"], "the rotation is over already")
        expect(answers(lone.endpoint, young) and answers(engine, young), "the new one's is refused")
    with test.show("after a restart, too, and the node that was away is finished"):
        lone.stop()
        servers.start(0)
        lone.wait_running()
        wait_until(lambda: answers(lone.endpoint, young), "the new one's to be taken")
        expect(not answers(lone.endpoint, old), "the old one's is taken")
        away.start()
        wait_worker(away)
        wait_phase(lone, "steady")
        expect(answers(lone.endpoint, young) and not answers(lone.endpoint, old), "the end")
    servers.close()


# --- a CA that is brought ------------------------------------------------------------------------

CONFIG = """[req]
distinguished_name=dn
[dn]
[ca]
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
[below]
basicConstraints=critical,CA:TRUE,pathlen:0
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def make_ca(test, name, algorithm=("RSA", "rsa_keygen_bits:2048")):
    """NAME.pem (the CA below, then its root) and NAME.key, the key of the one below."""
    write(test, "config", CONFIG)
    openssl(test, "genpkey", "-algorithm", algorithm[0], "-pkeyopt", algorithm[1], "-out",
            "root.key")
    openssl(test, "req", "-x509", "-config", "config", "-extensions", "ca", "-key", "root.key",
            "-out", f"{name}-root.pem", "-days", "3650", "-subj", f"/O=Acme/CN={name} root")
    openssl(test, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out",
            f"{name}.key")
    openssl(test, "req", "-new", "-config", "config", "-key", f"{name}.key", "-out", "csr", "-subj",
            f"/O=Acme/CN={name} below")
    openssl(test, "x509", "-req", "-in", "csr", "-CA", f"{name}-root.pem", "-CAkey", "root.key",
            "-set_serial", "7", "-days", "1000", "-extfile", "config", "-extensions", "below",
            "-out", f"{name}-below.pem")
    chain = ""
    for part in (f"{name}-below.pem", f"{name}-root.pem"):
        with open(os.path.join(test.work, part)) as file:
            chain += file.read()
    return write(test, f"{name}.pem", chain), os.path.join(test.work, f"{name}.key")


def show_brought(test, cluster, first):
    with test.show("a CA below a root that stays offline takes over"):
        chain, key = make_ca(test, "acme")
        good(cluster[0], "ca", "rotate", "--ca-cert", chain, "--ca-key", key)
        wait_phase(cluster[0], "steady")
        with open(os.path.join(test.work, "acme-root.pem")) as file:
            root = file.read()
        for manager in cluster:
            expect_verified(test, manager, root)
        expect("CN=acme below" not in authority(cluster[0])["root"]["subject"], "not the root")
    with test.show("nodes join and restart under it"):
        made = worker(test, cluster, "w4")
        first.stop()
        first.start()
        wait_worker(first)
        expect(made.status()["session"], "no session")
    with test.show("what can be no CA is refused with its reason"):
        below = os.path.join(test.work, "acme-below.pem")
        code, _, error = cluster[0].cli("ca", "rotate", "--ca-cert", below, "--ca-key", key)
        expect(code != 0 and "up to the root" in error, error)
        code, _, error = cluster[0].cli("ca", "rotate", "--ca-cert", chain, "--ca-key", key)
        expect(code != 0 and "uses now" in error, error)
        code, _, error = cluster[0].cli("ca", "rotate", "--ca-cert", chain)
        expect(code != 0 and "key is needed" in error, error)
    with test.show("a root of the cluster's own follows, though the CA below may certify none"):
        with Load(cluster) as load:
            good(cluster[1], "ca", "rotate")
            wait_phase(cluster[0], "steady")
        expect(not load.failed, f"of {load.done} writes: {load.failed[:3]}")
        for manager in cluster:
            expect_verified(test, manager, authority(cluster[0])["root"]["pem"])
    return made


def show_force(test, cluster, gone):
    with test.show("a node that does not come back is given up"):
        gone.kill()
        good(cluster[0], "ca", "rotate")
        expect(status(cluster[0])["phase"] == "finishing", "it does not wait for it")
        good(cluster[1], "ca", "force")
        expect(status(cluster[0])["phase"] == "steady", "it waits still")
        gone.start()
        wait_until(lambda: "refused" in gone.status().get("trouble", "") or
                   "root" in gone.status().get("trouble", ""), "the node to be refused")
        an_id = gone.status()["id"]
        gone.kill()
        good(cluster[0], "node", "rm", "--force", an_id)


def show_validity(test, cluster, first):
    def ends():
        return {h["id"]: h["until_s"] for h in authority(cluster[0])["holders"]
                if h["state"] == "ready"}
    with test.show("another validity is taken up at once"):
        before = ends()
        good(cluster[1], "ca", "set", "--validity", "10m")
        wait_until(lambda: all(end < min(before.values()) for end in ends().values()),
                   "all to have shorter certificates")
        good(cluster[1], "ca", "set", "--validity", "90d")


# --- an external CA ------------------------------------------------------------------------------

class Cfssl:
    """A real `cfssl serve` for a CA, over TLS with a certificate of that CA."""

    def __init__(self, test, name):
        self.port = free_port()
        write(test, "san", "subjectAltName=IP:127.0.0.1\n")
        openssl(test, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
                "web.key")
        openssl(test, "req", "-new", "-config", "config", "-key", "web.key", "-out", "csr", "-subj",
                "/CN=cfssl")
        openssl(test, "x509", "-req", "-in", "csr", "-CA", f"{name}-below.pem", "-CAkey",
                f"{name}.key", "-set_serial", "8", "-days", "100", "-extfile", "san", "-out",
                "web-leaf.pem")
        with open(os.path.join(test.work, "web-leaf.pem")) as leaf, \
                open(os.path.join(test.work, f"{name}-below.pem")) as below:
            write(test, "web.pem", leaf.read() + below.read())
        write(test, "cfssl.json", json.dumps({"signing": {"default": {
            "usages": ["digital signature", "server auth", "client auth"], "expiry": "24h",
            "backdate": "1h"}}}))
        self.test, self.name = test, name
        self.start()
        test.undo.append(self.stop)

    def start(self):
        with open(os.path.join(self.test.work, "cfssl.log"), "ab") as log:
            self.process = subprocess.Popen(
                ["cfssl", "serve", "-address", "127.0.0.1", "-port", str(self.port), "-ca",
                 f"{self.name}-below.pem", "-ca-key", f"{self.name}.key", "-config", "cfssl.json",
                 "-tls-cert", "web.pem", "-tls-key", "web.key"], cwd=self.test.work,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}/api/v1/cfssl/sign"

    def stop(self):
        self.process.kill()
        self.process.wait()


def show_external(test, cluster, first):
    if shutil.which("cfssl") is None:
        test.skip("an external CA", "there is no cfssl here")
        return
    chain, _ = make_ca(test, "outside", ("EC", "ec_paramgen_curve:P-256"))
    server = Cfssl(test, "outside")
    root = os.path.join(test.work, "outside-root.pem")
    with test.show("an external CA signs for all nodes; the cluster has no key"):
        good(cluster[0], "ca", "set", "--external", server.url, "--external-ca", root)
        good(cluster[0], "ca", "rotate", "--ca-cert", chain)
        wait_phase(cluster[0], "steady")
        found = authority(cluster[0])
        expect(not found["has_key"], "it has a key")
        with open(root) as file:
            for manager in cluster:
                expect_verified(test, manager, file.read() or found["root"]["pem"])
    with test.show("a node joins by its signature"):
        made = worker(test, cluster, "w5")
        expect(made.status()["session"], "no session")
    with test.show("while it is away nobody joins, and the reason is told; all goes on otherwise"):
        server.stop()
        node = Manager(test, "w6").start("--join", cluster[0].peer_address, "--token",
                                         token(cluster[0], "worker"))
        wait_until(lambda: "external CA" in node.output(), "the reason")
        expect(node.status()["state"] != "worker", "it was let in")
        with contextlib.closing(cluster[0].http()) as writer:
            writer.put(b"while", b"away")
        expect(first.status()["session"], "the worker's session")
    with test.show("when it is back the node gets in"):
        server.start()
        wait_worker(node)
    with test.show("the cluster's own CA signs again"):
        good(cluster[0], "ca", "rotate")
        wait_phase(cluster[0], "steady")
        good(cluster[0], "ca", "set", "--external-off")
        expect(authority(cluster[0])["has_key"], "no key")


def run(test):
    parts = sys.argv[1:] or ["clients", "rotation", "abort", "brought", "force", "validity",
                             "external"]
    if "clients" in parts:
        show_clients(test)
    if parts == ["clients"]:
        return
    cluster = Cluster(test)
    first, second = worker(test, cluster, "w1"), worker(test, cluster, "w2")
    if "rotation" in parts:
        show_rotation(test, cluster, first, second)
    if "abort" in parts:
        show_abort(test, cluster, first)
    gone = show_brought(test, cluster, first) if "brought" in parts else second
    if "force" in parts:
        show_force(test, cluster, gone)
    if "validity" in parts:
        show_validity(test, cluster, first)
    if "external" in parts:
        show_external(test, cluster, first)


main(run)
