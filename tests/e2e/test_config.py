#!/usr/bin/python3
"""Settings from the command line, the environment and a file, and which goes before which; what the
service manager is told; logs of either form; /health, /livez, /readyz and /metrics; certificates of
another PKI on the client port, read again by SIGHUP, `conclave reload` and by themselves.
Arguments: the parts to run (settings, notify, health, metrics, certificates)."""
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import BINARY, Cluster, Manager, expect, main, wait_until
from etcd_servers import make_ca, make_certificate

USAGE = 64
POLL_S = 40  # for a look at the certificates, every 10 s


def write(test, name, text):
    path = os.path.join(test.work, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def serve(*options, env=None):
    """(exit code, errors) of a start that has to fail."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CONCLAVE_")}
    done = subprocess.run([BINARY, "serve", *options], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30,
                          check=False, env=dict(clean, **(env or {})))
    return done.returncode, done.stderr.strip()


class Bare(Manager):
    """A manager that is told nothing on the command line but what a test gives."""

    def launch(self, *options, env=None):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([BINARY, "serve", *options], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log,
                                            env=dict(os.environ, **(env or {})))
        self.test.managers.append(self)
        return self


# --- settings ------------------------------------------------------------------------------------

def show_settings(test):
    with test.show("a node started by a file alone; the environment goes before it, options last"):
        node = Bare(test, "file")
        other = Bare(test, "other")
        text = f"# all of it\n\ndata = {node.data}\n name=infile \nclient = {node.endpoint}\r\n" \
               f"peer = {other.peer_address}\ninit = true\nclient-insecure = true\n" \
               f"log-level = error\nlog-format = json\nautolock = false\n"
        path = write(test, "node.conf", text)
        node.launch("--config", path, "--peer", node.peer_address,
                    env={"CONCLAVE_LOG_LEVEL": "info", "CONCLAVE_NAME": "inenv",
                         "CONCLAVE_PEER": "127.0.0.1:1"})
        status = node.wait_running()
        expect(status["name"] == "inenv", f"the name is {status['name']}")
        expect(status["peer_address"] == node.peer_address, "the option --peer lost")
        expect(any(e["text"] == "running" for e in node.events()), "CONCLAVE_LOG_LEVEL lost")
        expect(node.stop() == 0, "a clean stop")
    with test.show("a node started by the environment alone"):
        node = Bare(test, "env")
        node.launch(env={"CONCLAVE_DATA": node.data, "CONCLAVE_CLIENT": node.endpoint,
                         "CONCLAVE_PEER": node.peer_address, "CONCLAVE_INIT": "true",
                         "CONCLAVE_CLIENT_INSECURE": "true"})
        node.wait_running()
        node.kill()
    with test.show("what a file says wrong is told with its line"):
        for text, said in (("a = b", "line 1: there is no option a"),
                           ("\n\nname\n", "line 3: this is not NAME = VALUE"),
                           ("name = a\nname = b", "line 2: name is there twice"),
                           ("init = yes", "line 1: it is true or false"),
                           ("name =", "line 1: there is no value"),
                           ("token = x", "line 1: a secret"), ("config = x", "another one"),
                           ("name = \0", "no text"), ("#" * 70000, "more than")):
            code, error = serve("--config", write(test, "bad.conf", text))
            expect(code in (USAGE, 65) and said in error, f"{text[:20]!r}: {code} {error}")
        code, error = serve("--config", "/nowhere")
        expect(code != 0 and "/nowhere" in error, error)
    with test.show("a secret is not taken from the environment; a token comes from a file, too"):
        code, error = serve(env={"CONCLAVE_TOKEN": "x"})
        expect(code == USAGE and "--token-file" in error, error)
        first = Manager(test, "first").start("--init")
        token = wait_until(lambda: first.line("join token: "), "the join token")
        second = Manager(test, "second")
        second.start("--join", first.peer_address, "--token-file",
                     write(test, "token", token + "\n"))
        second.wait_running()
        first.kill()
        second.kill()
    with test.show("serve --help tells of every option, and of the environment and the file"):
        done = subprocess.run([BINARY, "serve", "--help"], stdout=subprocess.PIPE, text=True,
                              check=True)
        for word in ("--config", "--client-ca", "--log-format", "CONCLAVE_NAME", "2379"):
            expect(word in done.stdout, f"nothing of {word}")
    with test.show("logs: text or JSON as told, and no more than the level"):
        for form, first in (("text", re.compile(r"\d\d:\d\d:\d\d info ")),
                            ("json", re.compile(r'\{"time":'))):
            node = Manager(test, form).start("--init", "--log-format", form)
            node.wait_running()
            lines = [l for l in node.output().splitlines() if "running" in l]
            expect(lines and first.match(lines[0]), f"{lines}")
            node.kill()
        node = Manager(test, "quiet").start("--init", "--log-level", "error")
        node.wait_running()
        expect(not node.events(), f"{node.events()}")
        node.kill()


# --- the service manager --------------------------------------------------------------------------

class Told:
    """Stands in the service manager's place: the socket that $NOTIFY_SOCKET names."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path.replace("@", "\0") if path[0] == "@" else path)
        self.socket.settimeout(30)
        self.env = {"NOTIFY_SOCKET": path}

    def wait(self, what):
        while True:
            text = self.socket.recv(4096).decode()
            if what in text.splitlines() or text.startswith(what):
                return text


def show_notify(test):
    path = os.path.join(test.work, "notify")
    with test.show("the service manager is told: ready when served, reloading, stopping, beats"):
        told = Told(path)
        node = Manager(test, "n").start("--init", env=dict(told.env, WATCHDOG_USEC="400000"))
        told.wait("READY=1")
        with contextlib.closing(node.http()) as http:
            http.put(b"k", b"v")  # ready means that clients are served
        for _ in range(3):
            told.wait("WATCHDOG=1")
        node.process.send_signal(signal.SIGHUP)
        expect("MONOTONIC_USEC=" in told.wait("RELOADING=1"), "the time of the reload")
        told.wait("READY=1")
        node.process.terminate()
        told.wait("STOPPING=1")
        expect(node.ended() == 0, "a clean stop")
    with test.show("a node that waits for its first command is ready; an abstract socket will do"):
        told = Told(f"@conclave-test-{os.getpid()}")
        node = Manager(test, "w").start(env=told.env)
        told.wait("READY=1")
        node.kill()
    with test.show("the units are installed, and systemd finds nothing wrong with them"):
        check_unit(test, "conclave", "Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict",
                   "LimitCORE=0", "LimitMEMLOCK=", "LoadCredential=", "WatchdogSec=")
        check_unit(test, "conclave-node", "Type=notify", "KillMode=process", "LimitCORE=0",
                   "LimitMEMLOCK=infinity", "Conflicts=conclave.service")


def check_unit(test, name, *words):
    with open(os.path.join(os.path.dirname(BINARY), f"{name}.service")) as file:
        text = file.read()
    for word in words:
        expect(word in text, f"{name}: no {word}")
    place = write(test, f"{name}.service",
                  re.sub(r"^ExecStart=\S+", f"ExecStart={BINARY}", text, flags=re.M))
    with contextlib.suppress(FileNotFoundError):  # no systemd on this machine
        done = subprocess.run(["systemd-analyze", "verify", place], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        expect(done.returncode == 0 and place not in done.stdout, done.stdout)


# --- health and metrics ---------------------------------------------------------------------------

def get(node, path):
    with contextlib.closing(node.http()) as http:
        status, body = http.raw("GET", path)
        return status, body.decode()


def show_health(test):
    cluster = Cluster(test)
    node, good = cluster[0], '{"health":"true","reason":""}'
    all_well = "".join(f"[+]{name} ok\n" for name in ("data_corruption", "serializable_read",
                                                      "linearizable_read", "non_learner"))
    with test.show("/health, /livez, /readyz of a healthy member, with verbose and exclude"):
        expect(get(node, "/health") == (200, good), f"{get(node, '/health')}")
        expect(get(node, "/livez") == (200, "ok\n"), "/livez")
        expect(get(node, "/readyz") == (200, "ok\n"), "/readyz")
        expect(get(node, "/readyz?verbose") == (200, all_well + "ok\n"), "verbose")
        expect(get(node, "/livez?verbose") == (200, "[+]serializable_read ok\nok\n"), "livez")
        _, text = get(node, "/readyz?exclude=linearizable_read&verbose&exclude=non_learner")
        expect("linearizable" not in text and "learner" not in text and "corruption" in text, text)
        expect(get(node, "/readyz/linearizable_read")[0] == 200, "a check by itself")
        expect(get(node, "/readyz/nothing")[0] == 404, "a check that there is not")
    with test.show("an alarm makes /health bad, unless it is excluded; CORRUPT also /readyz"):
        for number, name in ((1, "NOSPACE"), (2, "CORRUPT")):
            with contextlib.closing(node.http()) as http:
                alarm = {"action": "ACTIVATE", "alarm": name, "memberID": "1"}
                http.call("POST", "/v3/maintenance/alarm", alarm)
                said = get(node, "/health")
                expect(said == (503, f'{{"health":"false","reason":"ALARM {name}"}}'), f"{said}")
                expect(get(node, f"/health?exclude={name}")[0] == 200, "excluded")
                expect(get(node, "/readyz")[0] == (503 if number == 2 else 200), "/readyz")
                if number == 2:
                    _, text = get(node, "/readyz")
                    expect("[-]data_corruption failed: alarm activated: CORRUPT" in text, text)
                http.call("POST", "/v3/maintenance/alarm", dict(alarm, action="DEACTIVATE"))
                expect(get(node, "/health")[0] == 200, "cleared")
    with test.show("without a majority: alive, but not ready"):
        for other in cluster.managers[1:]:
            other.kill()
        wait_until(lambda: get(node, "/health?x")[0] == 503, "/health to notice", 30)
        expect(get(node, "/health?serializable=true") == (200, good), "serializable")
        expect(get(node, "/livez")[0] == 200, "/livez")
        status, text = get(node, "/readyz")
        expect(status == 503 and "[-]linearizable_read failed" in text and
               "[+]serializable_read ok" in text, text)
    node.kill()


WANTED = """etcd_server_has_leader etcd_server_leader_changes_seen_total
etcd_server_proposals_failed_total etcd_server_quota_backend_bytes
etcd_mvcc_db_total_size_in_bytes etcd_mvcc_db_total_size_in_use_in_bytes
etcd_disk_wal_fsync_duration_seconds_bucket etcd_disk_backend_commit_duration_seconds_bucket
etcd_network_peer_round_trip_time_seconds_bucket etcd_network_peer_sent_failures_total
etcd_network_peer_sent_bytes_total etcd_network_peer_received_bytes_total
etcd_network_client_grpc_sent_bytes_total etcd_network_client_grpc_received_bytes_total
grpc_server_started_total grpc_server_handled_total grpc_server_handling_seconds_bucket
process_resident_memory_bytes process_cpu_seconds_total process_open_fds process_max_fds
process_start_time_seconds""".split()
SAMPLE = re.compile(r"^([a-z_]+)(\{[^}]*\})? (\S+)$")


def figures(node):
    """{name with labels: value}; every line has to be of Prometheus' format."""
    found, typed = {}, set()
    for line in get(node, "/metrics")[1].splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        if line.startswith("#"):
            continue
        match = SAMPLE.match(line)
        expect(match, f"not a sample: {line}")
        name = match.group(1)
        base = re.sub("_(bucket|sum|count)$", "", name)
        expect(name in typed or base in typed, f"no type: {line}")
        key = name + (match.group(2) or "")
        expect(key not in found, f"twice: {line}")
        found[key] = float(match.group(3))
    return found


def show_metrics(test):
    cluster, syncs = Cluster(test), "etcd_disk_wal_fsync_duration_seconds_count"
    node = cluster.leader()
    with test.show("/metrics has what the dashboards ask for, and the figures move with the work"):
        with contextlib.closing(node.http()) as http:
            http.put(b"k", b"v")
            wait_until(lambda: any("round_trip_time_seconds_count" in n for n in figures(node)),
                       "a round trip")
            before, synced = figures(node), sum(figures(m)[syncs] for m in cluster)
            for i in range(50):
                http.put(b"k%d" % i, b"x" * 1000)
            http.get(b"k1")
        after = figures(node)
        names = {re.sub(r"\{.*", "", n) for n in after}
        expect(not set(WANTED) - names, f"missing: {set(WANTED) - names}")
        # Each write waits for two members; which of them may batch the syncs of several.
        expect(sum(figures(m)[syncs] for m in cluster) >= synced + 50, "syncs of the writes")
        expect(after[syncs.replace("count", "sum")] > before[syncs.replace("count", "sum")], "time")
        sent = [n for n in after if n.startswith("etcd_network_peer_sent_bytes_total")]
        expect(len(sent) == 2 and all(after[n] >= before[n] + 50000 for n in sent), "peer bytes")
        expect(after["etcd_mvcc_db_total_size_in_bytes"] >=
               before["etcd_mvcc_db_total_size_in_bytes"] + 50000, "size")
        expect(after["etcd_server_has_leader"] == 1, "a leader")
        expect(0 < after["process_open_fds"] < 200, "open files")
    for manager in cluster:
        manager.kill()


# --- certificates --------------------------------------------------------------------------------

def shown_certificate(node, ca, pair=None):
    """The serial number of what the client port shows; raises OSError when it is refused."""
    context = ssl.create_default_context(cafile=ca)
    if pair:
        context.load_cert_chain(*pair)
    with socket.create_connection(("127.0.0.1", node.client), 10) as raw:
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
            tls.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            expect(tls.recv(100).startswith(b"HTTP/1.1 200"), "an answer")
            return tls.getpeercert()["serialNumber"]


def curl(node, path, ca, pair, *more):
    """(status, body) over TLS."""
    words = ["curl", "-s", "-w", "\n%{http_code}", "--cacert", ca, *more]
    if pair:
        words += ["--cert", pair[0], "--key", pair[1]]
    done = subprocess.run([*words, f"https://127.0.0.1:{node.client}{path}"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, check=False)
    body, _, status = done.stdout.rpartition("\n")
    return int(status or 0), body


def show_certificates(test):
    directory = os.path.join(test.work, "pki")
    ca = make_ca(directory)
    other_ca = make_ca(os.path.join(test.work, "pki2"))
    server = make_certificate(directory, "server", ca)
    alice = make_certificate(directory, "alice", ca)
    forged = make_certificate(directory, "forged", ca)
    stranger = make_certificate(os.path.join(test.work, "pki2"), "alice", other_ca)
    node = Manager(test, "tls")
    node.plaintext = False
    node.start("--init", "--client-cert", server[0], "--client-key", server[1],
               "--client-ca", ca[0])
    node.wait_running()
    with test.show("the client port with certificates of another PKI: of its clients only the CN"):
        expect(curl(node, "/version", ca[0], alice)[0] == 200, "a client of that PKI")
        for pair in (None, stranger):
            status, _ = curl(node, "/version", ca[0], pair)
            expect(status == 0, f"without a certificate of that PKI: {status}")
        for path, body in (("/v3/auth/user/add", {"name": "root", "password": "x"}),
                           ("/v3/auth/user/add", {"name": "alice",
                                                  "options": {"no_password": True}}),
                           ("/v3/auth/user/grant", {"user": "root", "role": "root"}),
                           ("/v3/auth/enable", {})):
            status, text = curl(node, path, ca[0], alice, "-d", json.dumps(body))
            expect(status == 403 and "the server's socket" in text, f"{path}: {status} {text}")
            with contextlib.closing(node.socket()) as local:
                local.call("POST", path, body)
        status, text = curl(node, "/v3/kv/range", ca[0], alice, "-d", '{"key":"aw=="}')
        expect((status, "permission denied" in text) == (403, True), f"alice: {status} {text}")
        status, text = curl(node, "/v3/kv/range", ca[0], forged, "-d", '{"key":"aw=="}')
        expect("user name is empty" in text, f"a CN that is no user: {status} {text}")
    with test.show("nobody of another PKI is an administrator, whatever the certificate says"):
        path = os.path.join(directory, "admin")
        subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-keyout", path + ".key", "-out",
                        path + ".csr", "-subj",
                        f"/CN=admin/OU=conclave-admin/O={node.status()['cluster']}"],
                       check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["openssl", "x509", "-req", "-in", path + ".csr", "-CA", ca[0], "-CAkey",
                        ca[1], "-CAcreateserial", "-out", path + ".pem", "-days", "2"],
                       check=True, stderr=subprocess.DEVNULL)
        status, text = curl(node, "/conclave/v1/reload", ca[0], (path + ".pem", path + ".key"),
                            "-X", "POST")
        expect(status == 403, f"{status} {text}")
    show_reload(test, node, directory, ca, server, alice)
    node.kill()
    node.start("--client-cert", server[0], "--client-key", server[1], "--client-ca", ca[0],
               "--client-cert-optional")
    node.wait_running()
    with test.show("with --client-cert-optional a client may come without, as nobody"):
        expect(curl(node, "/version", ca[0], None)[0] == 200, "without a certificate")
        status, text = curl(node, "/v3/kv/range", ca[0], None, "-d", '{"key":"aw=="}')
        expect("user name is empty" in text, f"{status} {text}")
        status, text = curl(node, "/v3/auth/authenticate", ca[0], None, "-d",
                            '{"name":"root","password":"x"}')
        token = json.loads(text)["token"]
        status, text = curl(node, "/v3/kv/range", ca[0], None, "-d", '{"key":"aw=="}', "-H",
                            "Authorization: " + token)
        expect(status == 200, f"{status} {text}")
    node.kill()


def show_reload(test, node, directory, ca, server, alice):
    pair = alice

    def renew():
        make_certificate(directory, "server", ca)

    with test.show("new certificates are shown after SIGHUP and after `conclave reload`"):
        first = shown_certificate(node, ca[0], pair)
        with socket.create_connection(("127.0.0.1", node.client), 10) as raw, \
                client_context(ca[0], pair).wrap_socket(raw, server_hostname="127.0.0.1") as old:
            renew()
            expect(shown_certificate(node, ca[0], pair) == first, "read before it was told to")
            node.process.send_signal(signal.SIGHUP)
            second = wait_until(lambda: (lambda s: s if s != first else None)(
                shown_certificate(node, ca[0], pair)), "the new certificate")
            renew()
            code, _, error = node.cli("reload")
            expect(code == 0, f"conclave reload: {error}")
            expect(shown_certificate(node, ca[0], pair) not in (first, second), "the third one")
            old.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            expect(old.recv(100).startswith(b"HTTP/1.1 200"), "the old connection")
    with test.show("files that can't be used leave the port as it was, and the reason is told"):
        before = shown_certificate(node, ca[0], pair)
        with open(server[0]) as file:
            good = file.read()
        for text in ("nonsense", "", open(alice[0]).read()):
            with open(server[0], "w") as file:
                file.write(text)
            code, _, error = node.cli("reload")
            expect(code != 0 and "server.pem" in error, f"{code} {error}")
            expect(shown_certificate(node, ca[0], pair) == before, "another certificate")
        with open(server[0], "w") as file:
            file.write(good)
    with test.show("a change of the files is noticed without a word"):
        renew()
        wait_until(lambda: shown_certificate(node, ca[0], pair) != before, "the new certificate",
                   POLL_S)


def client_context(ca, pair):
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(*pair)
    return context


SHOWS = {"settings": show_settings, "notify": show_notify, "health": show_health,
         "metrics": show_metrics, "certificates": show_certificates}


def run_all(test):
    for name in sys.argv[1:] or SHOWS:
        SHOWS[name](test)


if __name__ == "__main__":
    main(run_all)
