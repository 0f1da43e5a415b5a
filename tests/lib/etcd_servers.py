"""The servers that the etcd tests run against, behind one face: `EtcdServers` is Debian's etcd, and
`ConclaveServers` is ours. Both are one or three members on free loopback ports, in plaintext or
with certificates on both sides, and can lose their leader to a kill -9 and get it back. A test is
proven on the first and judges the second."""
import contextlib
import os
import shutil
import subprocess
import tempfile

from cluster import DIE_WITH_PARENT, Cluster, Failure, Manager, expect, free_port, wait_until
import etcd_rpc

MEMORY = "/dev/shm"  # what is compared is not how fast a disk syncs
OPENSSL_DAYS = "2"


def scratch(test, name, in_memory):
    """A directory for a server's data that goes with the test."""
    if not in_memory or not os.access(MEMORY, os.W_OK):
        return os.path.join(test.work, name)
    path = tempfile.mkdtemp(prefix="oracle-", dir=MEMORY)
    test.undo.append(lambda: shutil.rmtree(path, ignore_errors=True))
    return os.path.join(path, name)


# --- certificates for etcd -----------------------------------------------------------------------

def openssl(*words):
    done = subprocess.run(["openssl", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    expect(done.returncode == 0, f"openssl {words[0]}: {done.stdout}")


def make_ca(directory):
    """ca.pem and ca.key in a new directory."""
    os.makedirs(directory)
    ca, key = os.path.join(directory, "ca.pem"), os.path.join(directory, "ca.key")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", ca, "-days", OPENSSL_DAYS, "-subj", "/CN=root of the test",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return ca, key


def make_certificate(directory, name, ca):
    """(certificate, key) of a server and client on loopback."""
    path = os.path.join(directory, name)
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", path + ".key", "-out", path + ".csr", "-subj", "/CN=" + name)
    with open(path + ".ext", "w") as file:
        file.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n"
                   "extendedKeyUsage=serverAuth,clientAuth\n")
    openssl("x509", "-req", "-in", path + ".csr", "-CA", ca[0], "-CAkey", ca[1], "-CAcreateserial",
            "-out", path + ".pem", "-days", OPENSSL_DAYS, "-extfile", path + ".ext")
    return path + ".pem", path + ".key"


# --- what both have in common --------------------------------------------------------------------

class Servers:
    """Members with client ports; `tls` is (ca, certificate, key) of a client, or None."""

    tls = None
    kind = ""

    def __init__(self, test):
        self.test, self.pb = test, etcd_rpc.load(test.work)

    def addresses(self):
        raise NotImplementedError

    @property
    def scheme(self):
        return "https" if self.tls else "http"

    @property
    def urls(self):
        return [f"{self.scheme}://{a}" for a in self.addresses()]

    def rpc(self, which=0):
        return etcd_rpc.Rpc(self.pb, self.addresses()[which], self.tls)

    def ask(self, which, method, request, seconds=3):
        with contextlib.closing(self.rpc(which)) as rpc:
            return rpc.must(method, request, seconds=seconds)

    def wait_ready(self):
        """Until every member that runs answers and has a leader."""
        for which in self.running():
            wait_until(lambda at=which: self.ask(at, "Range", self.pb.RangeRequest(key=b"ready")),
                       f"member {which} of {self.kind} to serve")

    def running(self):
        raise NotImplementedError

    def leader(self):
        """The place in the list of the member that leads and says so itself."""
        def find():
            for which in self.running():
                status = self.ask(which, "Status", self.pb.StatusRequest())
                if status.leader == status.header.member_id:
                    return which + 1
            return 0
        return wait_until(find, f"a leader of {self.kind}") - 1

    def environment(self):
        """What etcdctl needs beside the addresses."""
        found = {"ETCDCTL_API": "3"}
        if self.tls:
            names = ("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY")
            found.update(zip(names, self.tls))
        return found


# --- Debian's etcd -------------------------------------------------------------------------------

class EtcdServers(Servers):
    """One or three members of Debian's etcd."""

    kind = "etcd"
    binary = "etcd"

    def __init__(self, test, size=1, tls=False, in_memory=True, options=()):
        super().__init__(test)
        self.options = options
        self.names = [f"m{i}" for i in range(size)]
        self.client = [free_port() for _ in self.names]
        self.peer = [free_port() for _ in self.names]
        self.place = scratch(test, f"etcd{next(test.numbers)}", in_memory)
        os.makedirs(self.place)
        if tls:
            directory = os.path.join(self.place, "tls")
            self.ca = make_ca(directory)
            self.server = make_certificate(directory, "server", self.ca)
            self.tls = (self.ca[0], *make_certificate(directory, "client", self.ca))
        self.processes = [None] * size
        test.undo.append(self.close)
        for which in range(size):
            self.start(which)
        self.wait_ready()

    def addresses(self):
        return [f"127.0.0.1:{port}" for port in self.client]

    def log(self, which):
        return os.path.join(self.place, f"m{which}.log")

    def start(self, which):
        url = f"{self.scheme}://127.0.0.1:{self.client[which]}"
        peers = [f"http://127.0.0.1:{port}" for port in self.peer]
        command = [*DIE_WITH_PARENT, self.binary, "--name", self.names[which],
                   "--data-dir", os.path.join(self.place, f"m{which}.data"),
                   "--listen-client-urls", url, "--advertise-client-urls", url,
                   "--listen-peer-urls", peers[which],
                   "--initial-advertise-peer-urls", peers[which],
                   "--initial-cluster", ",".join(f"{n}={p}" for n, p in zip(self.names, peers)),
                   "--log-level", "warn", "--logger", "zap", *self.options]
        if self.tls:
            command += ["--trusted-ca-file", self.ca[0], "--cert-file", self.server[0],
                        "--key-file", self.server[1], "--client-cert-auth"]
        with open(self.log(which), "ab") as log:
            self.processes[which] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def running(self):
        return [i for i, p in enumerate(self.processes) if p and p.poll() is None]

    def check(self):
        """Raises when a member ended by itself."""
        for which, process in enumerate(self.processes):
            if process and process.poll() is not None:
                raise Failure(f"etcd ended with {process.returncode}: {self.last_words(which)}")

    def last_words(self, which):
        """From the panic on, or the end of its log."""
        with open(self.log(which), errors="replace") as log:
            text = log.read()
        at = text.find("panic:")
        return text[at:at + 1500] if at >= 0 else text[-1500:]

    def kill(self, which):
        self.processes[which].kill()
        self.processes[which].wait()

    def close(self):
        for process in self.processes:
            if process and process.poll() is None:
                process.kill()
                process.wait()


class OtherEtcdServers(EtcdServers):
    """Another release of etcd, to learn in what the releases differ."""

    kind = "other"
    binary = os.environ.get("CONCLAVE_OTHER_ETCD", "etcd")


# --- Conclave ------------------------------------------------------------------------------------

class ConclaveServers(Servers):
    """One or three managers of `conclave serve`."""

    kind = "conclave"

    def __init__(self, test, size=1, tls=False, in_memory=True, options=()):
        super().__init__(test)
        self.options = options
        self.cluster = None
        managers = [Manager(test, name, scratch(test, name, in_memory)) for name in "abc"[:size]]
        for manager in managers:
            manager.plaintext = not tls
        self.cluster = found(test, managers, options)
        if tls:
            self.tls = self.certificate("client")
        self.wait_ready()

    def certificate(self, name):
        """(ca, certificate, key) for a client, made by the cluster's own authority."""
        directory = self.cluster[0].data + ".certificates"
        os.makedirs(directory, exist_ok=True)
        code, _, error = self.cluster[0].cli("cert", name, "--admin", "--out", directory)
        expect(code == 0, f"conclave cert: {error}")
        return tuple(os.path.join(directory, leaf)
                     for leaf in ("ca.pem", name + ".pem", name + ".key"))

    def addresses(self):
        return [m.endpoint for m in self.cluster]

    def start(self, which):
        self.cluster[which].start(*self.options)

    def running(self):
        return [i for i, m in enumerate(self.cluster) if m.running()]

    def check(self):
        for manager in self.cluster:
            expect(manager.running(), manager.obituary())

    def kill(self, which):
        self.cluster[which].kill()

    def close(self):
        for manager in self.cluster:
            manager.kill()


def found(test, managers, options):
    """A cluster of managers that were made and not started."""
    cluster = Cluster.__new__(Cluster)
    cluster.test, cluster.managers = test, [managers[0].start("--init", *options)]
    cluster.token = wait_until(lambda: managers[0].line("join token: ") or None, "the join token")
    for manager in managers[1:]:
        cluster.add(manager, *options)
    cluster.wait_voters(len(managers))
    return cluster


def speaks_grpc(test):
    """Whether Conclave has all of the services yet."""
    manager = Manager(test, "probe").start("--init")
    manager.wait_running()
    pb = etcd_rpc.load(test.work)
    rpc = etcd_rpc.Rpc(pb, manager.endpoint)
    asked = [rpc.call("Range", pb.RangeRequest(key=b"k")),
             rpc.call("LeaseLeases", pb.LeaseLeasesRequest()),
             rpc.call("UserList", pb.AuthUserListRequest()),
             rpc.call("Leader", pb.LeaderRequest(name=b"k"))]
    stream = rpc.stream("Watch")
    stream.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")))
    asked.append((stream.take(), stream.error))
    rpc.close()
    manager.kill()
    return all(error is None or error[0] != "UNIMPLEMENTED" for _, error in asked)


KINDS = {"etcd": EtcdServers, "other": OtherEtcdServers, "conclave": ConclaveServers}
