"""Certificates asked for by hand: what goes over a manager's peer port when a node joins or renews
(raft/wire.h), spoken by a test, which may also say what no honest node says, and which then holds
a node's certificate and key in files. Keys and requests are made by openssl."""
import itertools
import os
import re
import socket
import ssl
import struct
import subprocess

from cluster import Failure, expect

ALPN_PEER, ALPN_JOIN, ALPN_NODE = "conclave-peer/1", "conclave-join/1", "conclave-node/1"
HELLO, JOIN, JOINED = 1, 14, 15                 # enum wire_type
BY_TOKEN, RENEW, EXPIRED = 1, 2, 3              # enum join_kind
ROLES = {0: None, 1: "worker", 2: "manager"}    # enum join_role
WIRE_VERSION = 1
AS_USUAL = b"\0"                                # availability


def openssl(*words, data=None):
    """Its standard output; Failure when it says no."""
    done = subprocess.run(["openssl", *words], input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Failure(f"openssl {words[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


def write(path, text):
    with open(path, "w", opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(text)
    return path


def certificates(pem):
    """The certificates of a chain, one PEM each."""
    return re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", pem, re.S)


class Refusal(Exception):
    """The answer to a join is an error; or the connection was cut without one."""


# --- bytes ---------------------------------------------------------------------------------------

def block(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack("<I", len(data)) + data


def frame(kind, body):
    return struct.pack("<IB", len(body) + 1, kind) + body


class Reader:
    """Takes the fields of a frame one by one."""

    def __init__(self, data):
        self.data = data

    def number(self, form):
        size = struct.calcsize(form)
        value = struct.unpack_from(form, self.data)[0]
        self.data = self.data[size:]
        return value

    def block(self):
        size = self.number("<I")
        value, self.data = self.data[:size], self.data[size:]
        return value

    def text(self):
        return self.block().decode()


class Joined:
    """What a node gets: its id, role, certificate chain and the roots to trust."""

    def __init__(self, data):
        reader = Reader(data)
        self.error = reader.number("<H")
        self.text, self.leader = reader.text(), reader.text()
        self.role, self.raft_id = ROLES[reader.number("<B")], reader.number("<Q")
        self.cluster, self.node = reader.text(), reader.text()
        self.cert, self.root = reader.text(), reader.text()


# --- connections ---------------------------------------------------------------------------------

def connect(address, alpn, pair=None, version=ssl.TLSVersion.TLSv1_3, source=""):
    """A TLS connection that believes any server; `pair`: certificate chain and key as files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols([alpn])
    if pair:
        context.load_cert_chain(*pair)
    host, port = address.rsplit(":", 1)
    plain = socket.create_connection((host, int(port)), 10, (source, 0))
    try:
        return context.wrap_socket(plain, server_hostname="swarm-manager")
    except (OSError, ssl.SSLError):
        plain.close()
        raise


def receive(tls):
    """One frame's type and body; Refusal when the connection ends before."""
    got = b""
    try:
        while len(got) < 4 or len(got) < 4 + struct.unpack_from("<I", got)[0]:
            more = tls.recv(65536)
            if not more:
                raise Refusal("the connection was closed")
            got += more
    except (OSError, ssl.SSLError) as error:
        raise Refusal(f"the connection was cut: {error}") from error
    return got[4], got[5:]


def ending(tls, wait_s):
    """How a connection ends; None: it does not, for so long. What comes before is not looked at."""
    tls.settimeout(wait_s)
    try:
        while tls.recv(65536):
            pass
        return "closed"
    except TimeoutError:
        return None
    except (OSError, ssl.SSLError) as error:
        return str(error)


def is_cut(address, alpn, pair, said=b"", wait_s=2):
    """Why a manager ends a connection with this certificate after these bytes; None: it does not,
    for as long as it waits for more. What it says before the end is not looked at."""
    try:
        tls = connect(address, alpn, pair)
    except (OSError, ssl.SSLError) as error:
        return str(error)
    with tls:
        try:
            if said:
                tls.sendall(said)
        except (OSError, ssl.SSLError) as error:
            return str(error)
        return ending(tls, wait_s)


def hello(raft_id, cluster, node, address="127.0.0.1:1"):
    return frame(HELLO, struct.pack("<HQ", WIRE_VERSION, raft_id) + block(cluster) + block(node) +
                 block(address))


# --- joining -------------------------------------------------------------------------------------

class Node:
    """A node of the cluster that is nothing but its files."""

    numbers = itertools.count(1)

    def __init__(self, test, name="byhand"):
        number = next(Node.numbers)
        self.name = f"{name}{number}"
        self.base = os.path.join(test.work, self.name)
        self.key, self.chain = self.base + ".key", self.base + ".pem"
        self.client, self.peer = (f"127.0.0.1:{60000 + 2 * number + i}" for i in (0, 1))
        self.joined = None

    @property
    def pair(self):
        return self.chain, self.key

    @property
    def id(self):
        return self.joined.node

    @property
    def root(self):
        return write(self.base + ".root.pem", self.joined.root)

    def request(self, subject="/CN=anything"):
        """A new key and a certificate request for it."""
        key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        write(self.base + ".new.key", key)
        return openssl("req", "-new", "-key", self.base + ".new.key", "-subj", subject)

    def ask(self, address, secret="", kind=BY_TOKEN, subject="/CN=anything", member=0, pair=None,
            old="", proof=b"", request=None, source=""):
        """One exchange; Refusal with the manager's own words. Follows to the leader."""
        request = request or self.request(subject)
        parts = (secret, self.name, self.client, self.peer, request, old, proof, self.name)
        body = struct.pack("<BB", kind, member) + b"".join(map(block, parts)) + AS_USUAL
        for _ in range(5):
            with connect(address, ALPN_JOIN, pair, source=source) as tls:
                tls.sendall(frame(JOIN, body))
                number, answer = receive(tls)
            expect(number == JOINED, f"an answer of type {number}")
            joined = Joined(answer)
            if not joined.error:
                return joined
            if not joined.leader:
                raise Refusal(joined.text)
            address = joined.leader
        raise Failure("nobody leads")

    def take(self, joined):
        """Keeps the certificate and its key."""
        self.joined = joined
        os.replace(self.base + ".new.key", self.key)
        write(self.chain, joined.cert)
        return self

    def join(self, address, token, **more):
        return self.take(self.ask(address, token.rsplit("-", 1)[1], **more))

    def renew(self, address, **more):
        return self.take(self.ask(address, kind=RENEW, pair=self.pair, **more))

    def describe(self):
        """The certificate as `openssl x509 -text` tells it."""
        return openssl("x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", self.chain)

    def verify(self, root=None):
        """`openssl verify` as a server and as a client; the chain's further ones are offered."""
        rest = write(self.base + ".rest.pem", "".join(certificates(self.joined.cert)[1:]))
        for purpose in ("sslserver", "sslclient"):
            words = ["verify", "-purpose", purpose, "-CAfile", root or self.root]
            if os.path.getsize(rest):
                words += ["-untrusted", rest]
            openssl(*words, self.chain)
