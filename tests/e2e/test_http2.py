#!/usr/bin/python3
"""HTTP/2 of a real manager: curl in the clear, on the socket and over TLS, and clients of HTTP/1.1
that leave; h2load; and clients that attack it with frames made by hand, while another one must go
on getting its answers and the server must not grow."""
import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import Cluster, Manager, b64, expect, main, wait_until  # noqa: E402

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
ANSWERS_KIB_MAX = 64 * 1024  # waiting on one connection, crypto/limits.h


def curl(*arguments):
    done = subprocess.run(["curl", "-sS", "--max-time", "20", *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    expect(done.returncode == 0, f"curl {arguments}: {done.stderr.decode().strip()}")
    return done.stdout


def version_of(*arguments):
    """The version of HTTP and the status that curl reports."""
    return curl("-o", "/dev/null", "-w", "%{http_version} %{http_code}", *arguments).decode()


def show_curl(test, node):
    url, sock = f"http://{node.endpoint}", os.path.join(node.data, "conclave.sock")
    with test.show("curl speaks HTTP/2 in the clear and on the socket, and HTTP/1.1 as before"):
        expect(version_of("--http2-prior-knowledge", url + "/health") == "2 200", "in the clear")
        expect(version_of("--http2-prior-knowledge", "--unix-socket", sock,
                          "http://x/health") == "2 200", "on the socket")
        expect(version_of("--http1.1", url + "/health") == "1.1 200", "HTTP/1.1")
        expect(version_of("--http2", url + "/health") == "1.1 200", "Upgrade: h2c is ignored")
    with test.show("what is written over HTTP/2 is read over HTTP/1.1, and the other way round"):
        put = json.dumps({"key": b64(b"h2"), "value": b64(b"two")})
        curl("--http2-prior-knowledge", "-d", put, url + "/v3/kv/put")
        with contextlib.closing(node.http()) as http:
            expect(http.get(b"h2") == b"two", "another value")
            http.put(b"h1", b"one")
        answer = json.loads(curl("--http2-prior-knowledge", "-d", json.dumps({"key": b64(b"h1")}),
                                 url + "/v3/kv/range"))
        expect(answer["kvs"][0]["value"] == b64(b"one"), "another value")
    with test.show("a streamed answer comes whole"):
        body = curl("--http2-prior-knowledge", "--unix-socket", sock,
                    "http://x/conclave/v1/backup")
        expect(len(body) > 100, f"{len(body)} bytes")


def connections(url):
    """Of clients, this one's among them."""
    lines = re.findall(r"^conclave_client_connections\{.*\} (\d+)$",
                       curl("--http1.1", url + "/metrics").decode(), re.M)
    return sum(map(int, lines))


def show_leaving(test, node):
    url = f"http://{node.endpoint}"
    queue = json.dumps({"key": b64(b"queue/"), "range_end": b64(b"queue0"), "count_only": True})

    def ask_and_leave(path, body):
        """A client of HTTP/1.1 that has no patience."""
        subprocess.run(["curl", "-sS", "-m", "1", "--http1.1", "-d", json.dumps(body), url + path],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def queued():
        return int(json.loads(curl("-d", queue, url + "/v3/kv/range")).get("count", 0))

    with test.show("clients of HTTP/1.1 that leave while they wait leave nothing behind"):
        before = connections(url)
        curl("-d", json.dumps({"name": b64(b"queue")}), url + "/v3/lock/lock")
        expect(queued() == 1, "the lock is not held")
        for _ in range(3):
            ask_and_leave("/v3/election/observe", {"name": b64(b"nobody's")})
        ask_and_leave("/v3/lock/lock", {"name": b64(b"queue")})
        wait_until(lambda: connections(url) <= before, "the connections to be closed")
        wait_until(lambda: queued() == 1, "the queue to be left")


def show_tls(test):
    node = Manager(test, "tls")
    node.plaintext = False
    node.start("--init").wait_running()
    certs = os.path.join(test.work, "certs")
    code, _, why = node.cli("cert", "visitor", "--out", certs)
    expect(code == 0, f"cert: {why}")
    ours = ("--cacert", certs + "/ca.pem", "--cert", certs + "/visitor.pem", "--key",
            certs + "/visitor-key.pem")
    if not os.path.exists(ours[5]):
        ours = ours[:5] + (certs + "/visitor.key",)
    url = f"https://{node.endpoint}/health"
    with test.show("over TLS the client chooses: HTTP/2 by ALPN, or HTTP/1.1"):
        expect(version_of("--http2", *ours, url) == "2 200", "h2")
        expect(version_of("--http1.1", *ours, url) == "1.1 200", "http/1.1")
        expect(version_of("--http2", "--no-alpn", *ours, url) == "1.1 200", "without ALPN")
        expect(version_of("--http2", "--tls-max", "1.2", *ours, url) == "2 200", "TLS 1.2")
    with test.show("without a certificate there is no answer"):
        done = subprocess.run(["curl", "-s", "--http2", "--cacert", ours[1], url], check=False,
                              stdout=subprocess.PIPE)
        expect(done.returncode != 0 and not done.stdout, "it was served")
    expect(node.stop() == 0, "a clean stop")


def show_load(test, node):
    body = os.path.join(test.work, "put.json")
    with open(body, "w") as file:
        json.dump({"key": b64(b"load"), "value": b64(b"x" * 256)}, file)
    with test.show("h2load: ten connections of 32 requests at once, none fails"):
        done = subprocess.run(["h2load", "-n", "20000", "-c", "10", "-m", "32", "-d", body,
                               f"http://{node.endpoint}/v3/kv/put"], stdout=subprocess.PIPE,
                              text=True, check=False, timeout=120)
        expect("20000 succeeded, 0 failed" in done.stdout, done.stdout[-800:])
        print("    " + re.search(r"finished in.*", done.stdout).group(0))
        with contextlib.closing(node.http()) as http:
            expect(http.get(b"load") == b"x" * 256, "another value")


# --- frames by hand ------------------------------------------------------------------------------

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head(stream, path, method=b"\x82", end=True, more=b""):
    block = method + b"\x86\x04" + bytes([len(path)]) + path.encode() + b"\x01\x01x" + more
    return frame(HEADERS, 5 if end else 4, stream, block)


class Raw:
    """A connection that says what it is told and notes GOAWAY."""

    def __init__(self, node, preface=PREFACE + frame(SETTINGS, 0, 0)):
        self.socket = socket.create_connection(("127.0.0.1", node.client))
        self.socket.settimeout(10)
        self.say(preface)

    def say(self, data):
        """False when the server has hung up."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def end(self, seconds=15):
        """Reads on until the server hangs up; the code of its GOAWAY, or None."""
        got, code = b"", None
        self.socket.settimeout(seconds)
        try:
            while True:
                more = self.socket.recv(65536)
                if not more:
                    break
                got += more
        except ConnectionError:
            pass
        except socket.timeout:
            expect(False, "the server does not hang up")
        while len(got) >= 9:
            size, kind = int.from_bytes(got[:3], "big"), got[3]
            if kind == GOAWAY and len(got) >= 17:
                code = int.from_bytes(got[13:17], "big")
            got = got[9 + size:]
        self.socket.close()
        return code


def rapid_reset(raw):
    for start in range(1, 40001, 2000):
        if not raw.say(b"".join(head(i, "/health") + frame(RST, 0, i, b"\0\0\0\x08")
                                for i in range(start, start + 2000, 2))):
            break


def flood(kind, stream, payload):
    def run(raw):
        raw.say(head(1, "/v3/kv/put", b"\x83", end=False))
        piece = frame(kind, 0, stream, payload) * 1000
        for _ in range(40):
            if not raw.say(piece):
                break
    return run


def continuation(raw):
    raw.say(frame(HEADERS, 0, 1, b"\x82") + frame(CONTINUATION, 0, 1, b"\x84" * 1000) * 2000)


def large_heads(raw):
    field = b"\x40\x01a\x7f\x80\x1e" + b"v" * 3967
    for i in range(1, 400, 2):
        if not raw.say(head(i, "/health", more=(field if i == 1 else b"") + b"\xbe" * 12000)):
            break


def nonsense(raw):
    raw.say(os.urandom(100000))


ATTACKS = (("rapid resets", rapid_reset), ("a flood of PING", flood(PING, 0, b"x" * 8)),
           ("a flood of SETTINGS", flood(SETTINGS, 0, b"")),
           ("a flood of empty DATA", flood(DATA, 1, b"")),
           ("a flood of tiny windows", flood(WINDOW, 0, b"\0\0\0\1")),
           ("a head without end", continuation), ("noise", nonsense))


def show_attacks(test, node):
    def served():
        with contextlib.closing(node.http(5)) as http:
            return http.get(b"h2") == b"two"
    for name, attack in ATTACKS:
        with test.show(f"{name} ends the connection, and only that"):
            raw = Raw(node)
            attack(raw)
            code = raw.end()
            expect(code is None or code != 0, "the server took it for a good client")
            expect(served(), "another client is not served")
    with test.show("heads that swell when unpacked are refused"):
        raw = Raw(node)
        large_heads(raw)
        raw.socket.shutdown(socket.SHUT_WR)
        raw.end()
        expect(served(), "another client is not served")


def show_deaf(test, node):
    """A hundred answers of 2.8 MB each are asked for and not read: 280 MB, of which two connections
    may make the server hold 64 MiB each, and what their making takes."""
    with test.show("clients that ask for much and read nothing are bounded"):
        with contextlib.closing(node.http()) as http:
            for i in range(2):
                http.put(b"big%d" % i, bytes(1 << 20))
        before = node.peak_kib()
        want = json.dumps({"key": b64(b"big0"), "range_end": b64(b"big9")}).encode()
        deaf = []
        for _ in range(2):
            raw = Raw(node, PREFACE + frame(SETTINGS, 0, 0, b"\0\4\x3f\xff\xff\xff") +
                      frame(WINDOW, 0, 0, b"\x3f\xff\0\0"))
            for i in range(1, 100, 2):
                raw.say(head(i, "/v3/kv/range", b"\x83", end=False) + frame(DATA, 1, i, want))
            deaf.append(raw)
        with contextlib.closing(node.http(60)) as http:
            for _ in range(50):
                http.put(b"meanwhile", b"x")
        grown = node.peak_kib() - before
        print(f"    280 MB of answers that nobody reads: {grown} KiB more memory at most")
        expect(grown < 3 * ANSWERS_KIB_MAX, f"the server grew by {grown} KiB")
        for raw in deaf:
            raw.socket.close()


def show_stop(test, node):
    with test.show("a clean stop says goodbye to clients of HTTP/2"):
        raw = Raw(node)
        raw.say(head(1, "/health"))
        wait_until(lambda: raw.socket.recv(65536), "an answer")
        node.process.terminate()
        expect(raw.end() == 0, "no GOAWAY, or an error")
        expect(node.ended() == 0, "exit code")


def run(test):
    node = Cluster(test, "a")[0]
    if shutil.which("curl"):
        show_curl(test, node)
        show_leaving(test, node)
        show_tls(test)
    else:
        test.skip("curl", "curl is not installed")
    if shutil.which("h2load"):
        show_load(test, node)
    else:
        test.skip("h2load", "nghttp2-client is not installed")
    show_attacks(test, node)
    show_deaf(test, node)
    show_stop(test, node)


main(run)
