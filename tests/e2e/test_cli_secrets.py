#!/usr/bin/python3
"""Secrets, configs, services, the cluster key and the audit by the command line: on one manager
what each command takes, prints and refuses, and that tasks get what their service names; on three,
that all of them see the same, that the cluster key can be rotated, escrowed, lost and brought back,
that a shredded secret's key is gone from each manager, and that an audit trail that was altered is
found. Arguments: the parts to run (usage, secrets, configs, services, tasks, audit, keys)."""
import base64
import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import BINARY, Cluster, Manager, Refused, expect, main, wait_until
from docker_cli import end_tasks

OK, ABSENT, USAGE, TOO_LARGE, UNREACHABLE, EXISTS, NOT_NOW, CORRUPT, REFUSED = \
    0, 1, 64, 65, 69, 73, 75, 76, 77
SECRET_MAX, CONFIG_MAX, VERSIONS_MAX = 511999, 1023999, 64
HEAD_RECORDS = 1000
TYPED_S = 20  # for a command to say something more
ID = re.compile(r"[0-9a-z]{25}\n")
PHRASE = "a passphrase of eight words would be better\n"


def run(manager, *words, stdin=b"", seconds=60):
    """(exit code, standard output as bytes, standard error as text)"""
    done = subprocess.run([BINARY, *words], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=seconds, check=False,
                          env=dict(os.environ,
                                   CONCLAVE_DATA=manager.data if manager else "/nowhere"))
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def good(manager, *words, stdin=b""):
    code, out, error = run(manager, *words, stdin=stdin)
    expect(code == OK and not error, f"{' '.join(words[:3])}: exit code {code}: {error.strip()}")
    return out.decode(errors="replace")


def bad(manager, exit_code, pattern, *words, stdin=b""):
    code, out, error = run(manager, *words, stdin=stdin)
    said = f"{' '.join(w[:40] for w in words)}: exit code {code}, {error.strip()!r}"
    expect(code == exit_code, f"{said}; expected {exit_code}")
    expect(not out, f"{said}; and standard output has {out[:60]!r}")
    expect(len(error.splitlines()) == 1, f"{said}: not one line")
    expect(re.search(pattern, error), f"{said}: nothing like {pattern!r}")


def as_json(manager, *words, stdin=b""):
    return json.loads(good(manager, *words, "--json", stdin=stdin))


def write(test, name, data):
    path = os.path.join(test.work, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def inspect(manager, kind, name):
    return as_json(manager, kind, "inspect", name)[0]


def versions(manager, name, kind="secret"):
    return [v["version"] for v in inspect(manager, kind, name)["versions"]]


def trail(manager, *options):
    """The records of `audit tail --json`, newest last."""
    out = good(manager, "audit", "tail", *options, "--json")
    return [json.loads(line) for line in out.splitlines()]


# --- usage ---------------------------------------------------------------------------------------

def show_usage(test):
    with test.show("what can't be meant is refused before any server is asked"):
        for words, pattern in (
                (["secret", "create", "-x"], "name|secret"), (["secret", "create", "a/b"], "name"),
                (["secret", "create", "a" * 65], "name"), (["secret", "create", "a-"], "name"),
                (["secret", "create", "a", "--template", "jinja"], "golang"),
                (["secret", "create", "a", "--label", "=x"], "--label"),
                (["secret", "create", "a", "f", "--driver", "d"], "--driver"),
                (["secret", "create", "a", "--driver-opt", "x=y"], "--driver"),
                (["secret", "update", "a"], "nothing"), (["secret", "rm"], "missing"),
                (["secret", "rm", "a", "--version", "0"], "number"),
                (["secret", "rm", "a", "b", "--version", "1"], "one secret"),
                (["secret", "ls", "--filter", "size=3"], "name="),
                (["secret", "shred", "a"], "--yes"),
                (["config", "inspect", "a", "--version", "x"], "number"),
                (["key", "escrow", "--json"], "--out"),
                (["service", "create", "web"], "missing"),
                (["service", "update", "web"], "nothing"),
                (["service", "scale", "web"], "NAME=N"), (["service", "scale", "web=x"], "NAME=N"),
                (["service", "scale", "web=99999"], "NAME=N"),
                (["audit", "tail", "-n", "x"], "usage"),
                (["audit", "tail", "--lines", "0"], "number"),
                *((["service", "create", "w", option, word, "--", "x"], option)
                  for option, word in (("--secret", "a,uid=x"), ("--secret", "a,target=../x"),
                                       ("--config", "a,mode=9"), ("--mount", "a:/b"),
                                       ("--mount", "/a:/b:rx"), ("--env", "x"), ("--label", "=x"),
                                       ("--restart", "always"), ("--restart-delay", "5"),
                                       ("--replicas", "-1"), ("--stop-grace", "10")))):
            bad(None, USAGE, pattern, *words, stdin=b"v")
        bad(None, USAGE, "can't go together", "service", "create", "w", "--global", "--replicas",
            "2", "--", "x")
    with test.show("values are no arguments, and not from an empty input"):
        bad(None, USAGE, "no value", "secret", "create", "a")
        bad(None, ABSENT, "No such file", "secret", "create", "a", "/nonexistent")


def ask(http, method, path, body=None):
    """(status, the error's name) of a request that has to be refused."""
    try:
        answer = http.call(method, "/conclave/v1/" + path, body)
    except Refused as refused:
        return refused.status, refused.name
    expect(False, f"{path} was not refused: {answer}")
    return None


def show_requests(one):
    wrong = [("secrets/create", {"name": "r", "value": "***"}), ("secrets/create", {"name": "r"}),
             ("secrets/create", {"name": "r", "value": ""}), ("secrets/create", {"value": "eA=="}),
             ("secrets/create", {"name": "r", "value": 5}),
             ("secrets/create", {"name": "r", "value": "eA==", "driver": "d"}),
             ("secrets/create", {"name": "r", "value": "eA==", "labels": {"": "x"}}),
             ("secrets/create", {"name": "r", "value": "eA==", "labels": []}),
             ("secrets/put", {"value": "eA=="}), ("secrets/remove", {"version": 1}),
             ("services/create", {}), ("services/create", {"spec": {"Name": "x"}}),
             ("services/scale", {"service": "x", "replicas": 99999}),
             ("vault/escrow", {}), ("vault/escrow", {"passphrase": "x" * 1025}),
             ("vault/import", {"passphrase": "x"})]
    with contextlib.closing(one.socket()) as http:
        for path, body in wrong:
            status, name = ask(http, "POST", path, body)
            expect(status == 400 and name in ("ERR_INVALID", "ERR_USAGE"), f"{path} {body}: {name}")
        for path in ("secrets/inspect", "configs/value", "audit?from=x", "audit?newest=-1"):
            expect(ask(http, "GET", path)[0] in (400, 404), path)
        expect(ask(http, "GET", "secrets/inspect?secret=nobody")[0] == 404, "nobody")
    with contextlib.closing(one.http()) as http:  # the port that anybody may use
        for path in ("secrets", "configs", "services", "vault", "audit", "audit/head",
                     "configs/value?config=x", "secrets/inspect?secret=x"):
            expect(ask(http, "GET", path)[0] == 403, f"{path} is open to everybody")
        for path in ("secrets/create", "secrets/shred", "vault/escrow", "services/create"):
            expect(ask(http, "POST", path, {})[0] == 403, f"{path} is open to everybody")


# --- secrets -------------------------------------------------------------------------------------

def show_values(test, one):
    with test.show("a secret is made from a file, from standard input, of any bytes"):
        path = write(test, "value", bytes(range(256)))
        expect(ID.fullmatch(good(one, "secret", "create", "from-file", path)), "no id")
        made = as_json(one, "secret", "create", "from-input", "-", "--label", "a=b", stdin=b"x")
        found = inspect(one, "secret", "from-input")
        expect(made["version"] == 1 and made["id"] == found["id"], f"{made}, {found}")
        expect(found["labels"] == {"a": "b"} and found["versions"][0]["size"] == 1, f"{found}")
        expect(inspect(one, "secret", "from-file")["versions"][0]["size"] == 256, "its size")
    with test.show("a name is taken once, whatever its case; a size has its bounds"):
        bad(one, EXISTS, "exist", "secret", "create", "FROM-FILE", stdin=b"x")
        good(one, "secret", "create", "largest", stdin=b"x" * SECRET_MAX)
        bad(one, TOO_LARGE, "more than", "secret", "create", "larger",
            stdin=b"x" * (SECRET_MAX + 1))
        good(one, "secret", "rm", "largest")
    with test.show("lists have everything but values; filters take out"):
        out = good(one, "secret", "ls")
        expect("from-file" in out and "from-input" in out and "a=b" in out, out)
        for filters, names in ((["label=a"], ["from-input"]), (["label=a=c"], []),
                               (["name=FROM-F"], ["from-file"]), (["name=from"], None),
                               (["name=from", "label=a=b"], ["from-input"])):
            options = [o for f in filters for o in ("--filter", f)]
            got = sorted(s["name"] for s in as_json(one, "secret", "ls", *options)["secrets"])
            expect(got == (names if names is not None else ["from-file", "from-input"]),
                   f"{filters}: {got}")
    with test.show("labels change, and nothing else by `update`"):
        good(one, "secret", "update", "from-input", "--label-add", "c=d", "--label-rm", "a")
        expect(inspect(one, "secret", "from-input")["labels"] == {"c": "d"}, "its labels")
        expect(versions(one, "from-input") == [1], "its versions")
    with test.show("no answer of the secrets' paths has a value"):
        shown = good(one, "secret", "inspect", "from-file") + good(one, "secret", "ls", "--json")
        expect(base64.b64encode(bytes(range(48)))[:40].decode() not in shown, "there is one")
        bad(one, USAGE, "no option --value", "secret", "inspect", "from-file", "--value")
    with test.show("requests that say nothing, or come from who is no administrator, are refused"):
        show_requests(one)


def typed(manager, lines, *words):
    """(exit code, all that the terminal showed) of a command at a terminal where these lines are
    typed, each when a prompt (what ends with ": ") is there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["CONCLAVE_DATA"] = manager.data
        os.execv(BINARY, [BINARY, *words])
    shown, left = b"", list(lines)
    try:
        with contextlib.suppress(OSError):  # its end
            while select.select([terminal], [], [], TYPED_S)[0]:
                shown += os.read(terminal, 4096)
                if left and shown.endswith(b": "):
                    os.write(terminal, left.pop(0) + b"\n")
            os.kill(pid, signal.SIGKILL)
            shown += b" (waits for more)"
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def show_typed(test, one):
    with test.show("at a terminal a value is typed, and not shown"):
        code, shown = typed(one, [b"typed-value"], "secret", "create", "typed")
        expect(code == OK and b"value of typed" in shown, f"{shown}")
        expect(b"typed-value" not in shown, "it is shown")
        expect(inspect(one, "secret", "typed")["versions"][0]["size"] == 11, "its size")
    with test.show("a passphrase is typed twice, and has to be the same"):
        path = os.path.join(test.work, "typed-escrow")
        code, shown = typed(one, [b"one", b"other"], "key", "escrow", "--out", path)
        expect(code == USAGE and b"differ" in shown and not os.path.exists(path), f"{shown}")
        code, shown = typed(one, [b"phrase", b"phrase"], "key", "escrow", "--out", path)
        expect(code == OK and b"phrase:" in shown and os.path.exists(path), f"{shown}")
        expect(shown.count(b"phrase") == 2, f"{shown}")  # of "passphrase", asked and told
        code, shown = typed(one, [b"phrase"], "key", "import-escrow", path)
        expect(code == OK, f"{shown}")
    with test.show("a shred asks at a terminal, and does nothing without a yes"):
        code, shown = typed(one, [b"no"], "secret", "shred", "typed")
        expect(code == NOT_NOW and b"nothing was done" in shown, f"{shown}")
        expect(versions(one, "typed") == [1], "it is gone")
        code, shown = typed(one, [b"yes"], "secret", "shred", "typed")
        expect(code == OK and b"typed is gone" in shown, f"{shown}")
        bad(one, ABSENT, "typed", "secret", "inspect", "typed")


def show_versions(test, one):
    with test.show("values are updated as versions, and the oldest of too many goes"):
        good(one, "secret", "create", "db", stdin=b"1")
        expect(good(one, "secret", "put", "db", stdin=b"22") == "db: version 2\n", "what it says")
        found = inspect(one, "secret", "db")["versions"]
        expect([(v["version"], v["size"]) for v in found] == [(1, 1), (2, 2)], f"{found}")
        for _ in range(VERSIONS_MAX - 1):
            good(one, "secret", "put", "db", stdin=b"x")
        expect(versions(one, "db") == list(range(2, VERSIONS_MAX + 2)), "which are there")
    with test.show("one version is removed, not the last one"):
        good(one, "secret", "rm", "db", "--version", "40")
        expect(40 not in versions(one, "db"), "it is there")
        bad(one, ABSENT, "no version 40", "secret", "rm", "db", "--version", "40")
        good(one, "secret", "create", "lone", stdin=b"x")
        bad(one, NOT_NOW, "only", "secret", "rm", "lone", "--version", "1")
        expect(versions(one, "lone") == [1], "it is gone")
    with test.show("several are removed in one go; what is missing is told"):
        code, out, error = run(one, "secret", "rm", "lone", "nobody", "from-input")
        expect(code == ABSENT and "nobody" in error, f"{code} {error}")
        expect(out == b"lone\nfrom-input\n", f"{out}")
        bad(one, ABSENT, "lone", "secret", "inspect", "lone")
        bad(one, ABSENT, "lone", "secret", "put", "lone", stdin=b"x")
    with test.show("a secret of a driver has no value of its own"):
        good(one, "secret", "create", "outside", "--driver", "ext", "--driver-opt", "path=kv/db")
        found = inspect(one, "secret", "outside")
        expect(found["driver"] == "ext" and found["driver_options"] == {"path": "kv/db"} and
               found["versions"] == [], f"{found}")


# --- configs -------------------------------------------------------------------------------------

def show_configs(test, one):
    data = b"key = \xff\x00value\n"
    with test.show("a config's value is shown, of any version, byte for byte"):
        good(one, "config", "create", "app", write(test, "app", data))
        good(one, "config", "put", "app", "-", stdin=b"newer")
        for version, value in (("1", data), ("2", b"newer")):
            code, out, _ = run(one, "config", "inspect", "app", "--value", "--version", version)
            expect(code == OK and out == value, f"version {version}: {out!r}")
        expect(run(one, "config", "inspect", "app", "--value")[1] == b"newer", "the newest")
        found = inspect(one, "config", "app")
        expect(base64.b64decode(found["value"]) == b"newer", f"{found}")
    with test.show("whoever saw it is in the audit, and has not seen what is not there"):
        reads = [r for r in trail(one, "-n", "100") if r["what"] == "read" and r["name"] == "app"]
        expect([r["version"] for r in reads] == [1, 2, 2, 2], f"{reads}")
        expect(all(r["who"] == "operator" and r["from"] == "socket" for r in reads), f"{reads}")
        bad(one, ABSENT, "version|not found", "config", "inspect", "app", "--version", "9")
    with test.show("a config may be as large as docker allows, and no larger"):
        good(one, "config", "create", "large", stdin=b"y" * CONFIG_MAX)
        code, out, _ = run(one, "config", "inspect", "large", "--value")
        expect(code == OK and out == b"y" * CONFIG_MAX, f"{len(out)} bytes came back")
        bad(one, TOO_LARGE, "more than", "config", "create", "larger",
            stdin=b"y" * (CONFIG_MAX + 1))
        good(one, "config", "update", "large", "--label-add", "a=b")
        good(one, "config", "rm", "large")
        expect([c["name"] for c in as_json(one, "config", "ls")["configs"]] == ["app"], "the list")


# --- services ------------------------------------------------------------------------------------

def service(manager, name):
    return as_json(manager, "service", "inspect", name)


def show_services(test, one):
    good(one, "secret", "create", "pw", stdin=b"pw")
    good(one, "secret", "put", "pw", stdin=b"pw2")
    with test.show("a service is made with secrets, configs, variables, mounts, constraints"):
        expect(ID.fullmatch(good(
            one, "service", "create", "web", "--secret", "pw,target=x,uid=7,gid=8,mode=0400",
            "--secret", "PW", "--config", "APP,target=/etc/app,version=1", "--env", "A=b=c",
            "--mount", "/srv:/data:ro", "--constraint", "node.role == nobody", "--label", "l=1",
            "--replicas", "2", "--restart", "on-failure", "--stop-grace", "3s", "--user", "1:2",
            "--", "sleep", "--version", "99")), "no id")
        found = service(one, "web")
        files = {f["target"]: f for f in found["files"]}
        expect(sorted(files) == ["/etc/app", "PW", "x"], f"{files}")
        expect((files["x"]["uid"], files["x"]["gid"], files["x"]["mode"]) == (7, 8, "0400"),
               f"{files['x']}")
        expect(found["labels"] == {"l": "1", "conclave.version.app": "1"} and
               files["/etc/app"]["version"] == 1 and files["x"]["version"] == 0, f"{found}")
        expect(found["command"] == ["sleep", "--version", "99"], f"{found['command']}")
        container = found["spec"]["TaskTemplate"]["ContainerSpec"]
        expect(container["Env"] == ["A=b=c"] and container["User"] == "1:2" and
               container["StopGracePeriod"] == 3 * 10**9, f"{container}")
        out = good(one, "service", "inspect", "web")
        expect("secret pw as x, 0400, owner 7:8" in out and "/srv at /data, read-only" in out, out)
    with test.show("what is not there can't be named"):
        for option in ("--secret", "--config"):
            bad(one, ABSENT, "nothing", "service", "create", "w", option, "nothing", "--", "x")
        bad(one, USAGE, "version", "service", "create", "w", "--secret", "pw,version=9", "--", "x")
        bad(one, EXISTS, "exist", "service", "create", "web", "--", "x")
        bad(one, USAGE, "key '", "service", "create", "w", "--constraint", "a==b", "--", "x")
        bad(one, ABSENT, "not found", "service", "inspect", "not-there")
    with test.show("a secret in use is not removed, nor the version that is named"):
        bad(one, NOT_NOW, "in use.*web", "secret", "rm", "pw")
        bad(one, NOT_NOW, "names version 1", "config", "rm", "app", "--version", "1")
        bad(one, NOT_NOW, "in use.*web", "config", "rm", "app")
        bad(one, NOT_NOW, "in use.*web", "secret", "shred", "pw", "--yes")
        expect(inspect(one, "secret", "pw")["services"] == ["web"], "who uses it")
        expect(versions(one, "pw") == [1, 2], "its versions")
    with test.show("an update changes what it names and keeps the rest"):
        good(one, "service", "update", "web", "--secret", "pw,target=x", "--env", "A=new", "--env",
             "B=2", "--mount-rm", "/data", "--label-rm", "l", "--config-rm", "app")
        found = service(one, "web")
        files = {f["target"]: f for f in found["files"]}
        expect(sorted(files) == ["PW", "x"] and files["x"]["mode"] == "0444", f"{files}")
        container = found["spec"]["TaskTemplate"]["ContainerSpec"]
        expect(container["Env"] == ["A=new", "B=2"] and not container["Mounts"], f"{container}")
        expect(found["replicas"] == 2 and found["command"][0] == "sleep" and
               "l" not in found["labels"], f"{found}")
        good(one, "service", "update", "web", "--secret", "pw,target=x,version=1", "--secret-rm",
             "pw")
        found = service(one, "web")
        expect([f["version"] for f in found["files"]] == [1] and
               found["labels"] == {"conclave.version.pw": "1"}, f"{found}")
        bad(one, USAGE, "one version", "service", "update", "web", "--secret", "pw,version=1",
            "--secret", "PW,target=y,version=2")
        bad(one, USAGE, "there is none", "service", "update", "web", "--env-rm", "X")
    with test.show("scaling, listing, tasks, the command anew"):
        good(one, "service", "scale", "web=5")
        wait_until(lambda: len(as_json(one, "service", "ps", "web")["tasks"]) >= 5, "five tasks")
        expect(re.search(r"web +replicated +0 of 5", good(one, "service", "ls")), "the list")
        good(one, "service", "update", "web", "--", "true")
        expect(service(one, "web")["command"] == ["true"], "its command")
        expect("pending" in good(one, "service", "ps", "web"), "they can't run: no node fits")
        code, _, error = run(one, "service", "scale", "web=1", "--wait", "--timeout", "0.5")
        expect(code == NOT_NOW and "not all of its tasks" in error, f"{code} {error}")
    with test.show("a removed service frees what it used"):
        expect(good(one, "service", "rm", "web") == "web\n", "what it says")
        bad(one, ABSENT, "not found", "service", "rm", "web")
        wait_until(lambda: run(one, "secret", "rm", "pw")[0] == OK, "pw to be free")


# --- tasks ---------------------------------------------------------------------------------------

TASK = ("stat -c '%a %u %g' /run/secrets/x >/mnt/stat; cat /app >/mnt/app; "
        "trap 'cat /run/secrets/x >/mnt/new; mv /mnt/new /mnt/value' HUP; "
        "cat /run/secrets/x >/mnt/value; while :; do sleep 1000 & wait $!; done")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def show_tasks(test, one):
    out = os.path.join(test.work, "out")
    os.mkdir(out)
    good(one, "secret", "create", "key", stdin=b"first value")
    with test.show("--wait ends when the task runs, with the files that its service names"):
        good(one, "service", "create", "task", "--wait", "--timeout", "30", "--secret",
             "key,target=x,uid=7,gid=8,mode=0440", "--config", "app", "--mount", f"{out}:/mnt",
             "--", "sh", "-c", TASK)
        wait_until(lambda: read(f"{out}/value") == b"first value", "the task to read it")
        expect(read(f"{out}/stat") == b"440 7 8\n", f"{read(out + '/stat')}")
        expect(read(f"{out}/app") == b"newer", "its config")
        expect(re.search(r"task +replicated +1 of 1", good(one, "service", "ls")), "the list")
        expect(re.search(r"task\.1 +a +running +running", good(one, "service", "ps", "task")), "ps")
    with test.show("it was given the secret, and the audit has for whom and where"):
        last = [r for r in trail(one, "-n", "100") if r["what"] == "deliver" and r["name"] == "key"]
        task = as_json(one, "service", "ps", "task")["tasks"][0]
        expect([(r["task"], r["node"], r["version"]) for r in last] ==
               [(task["id"], one.status()["id"], 1)], f"{last}")
    with test.show("a new version reaches the task that follows, which is not replaced"):
        good(one, "secret", "put", "key", stdin=b"second value")
        wait_until(lambda: read(f"{out}/value") == b"second value", "the new value")
        expect(as_json(one, "service", "ps", "task")["tasks"][0]["pid"] == task["pid"], "the task")
    with test.show("a removed service's task is ended, and nothing of it is left"):
        good(one, "service", "rm", "task")
        wait_until(lambda: not os.listdir(os.path.join(one.data, "tasks")), "the task's end")
        wait_until(lambda: run(one, "secret", "rm", "key")[0] == OK, "the secret to be free")


# --- audit ---------------------------------------------------------------------------------------

def altered(lines, at, change):
    """The dump with one record changed by change(record)."""
    record = json.loads(lines[at])
    change(record)
    return [*lines[:at], json.dumps(record), *lines[at + 1:]]


def flip_record(record):
    raw = bytearray(base64.b64decode(record["record"]))
    raw[-1 - len("operatorsocket") // 2] ^= 1
    record["record"] = base64.b64encode(raw).decode()


def show_audit(test, one):
    with test.show("the audit says who did what, when, from where; never a value"):
        good(one, "secret", "create", "seen", stdin=b"unmistakable-value")
        good(one, "secret", "put", "seen", stdin=b"unmistakable-value-2")
        good(one, "secret", "rm", "seen")
        last = trail(one, "-n", "3")
        expect([(r["what"], r["kind"], r["name"]) for r in last] ==
               [("create", "secret", "seen"), ("update", "secret", "seen"),
                ("remove", "secret", "seen")], f"{last}")
        expect(all(r["who"] == "operator" and r["from"] == "socket" for r in last), f"{last}")
        numbers = [r["number"] for r in trail(one, "-n", "100000")]
        expect(numbers == list(range(1, len(numbers) + 1)), f"{numbers}")
        dump = good(one, "audit", "dump")
        for shift in range(3):  # whatever stands before it
            coded = base64.b64encode(b"x" * shift + b"unmistakable-value")[4:-4].decode()
            expect(coded not in dump, "the value is in it")
        expect("unmistakable-value" not in dump, "the value is in it")
        expect("create secret seen version 1  by operator from socket" in
               good(one, "audit", "tail", "-n", "4"), "for people")
    with test.show("a whole trail passes, with the head that was kept before"):
        head = write(test, "head", good(one, "audit", "head").encode())
        good(one, "secret", "create", "later", stdin=b"x")
        proof = as_json(one, "audit", "verify", "--head", head)
        expect(proof["first"] == 1 and proof["last"] > proof["kept_head"] > 0, f"{proof}")
        expect("follow from one another" in good(one, "audit", "verify"), "for people")
    show_altered(test, one, head)
    show_heads(test, one)


def show_heads(test, one):
    with test.show("--follow goes on with what comes"):
        follow = subprocess.Popen([BINARY, "audit", "tail", "-n", "1", "--follow", "--json"],
                                  stdout=subprocess.PIPE, text=True,
                                  env=dict(os.environ, CONCLAVE_DATA=one.data))
        limit = threading.Timer(TYPED_S, follow.kill)  # a line that does not come is an empty one
        limit.start()
        try:
            last = json.loads(follow.stdout.readline())["number"]
            good(one, "secret", "create", "followed", stdin=b"x")
            record = json.loads(follow.stdout.readline())
            expect(record["number"] == last + 1 and record["name"] == "followed", f"{record}")
        finally:
            limit.cancel()
            follow.kill()
            follow.wait()
    with test.show("the leader signs heads into the trail, which are checked with it"):
        expect(as_json(one, "audit", "verify")["heads"] == 0, "there is one already")
        with contextlib.closing(one.socket()) as http:
            for i in range(HEAD_RECORDS):
                http.call("POST", "/conclave/v1/secrets/update",
                          {"secret": "followed", "labels_add": {"n": str(i)}})
        proof = wait_until(lambda: next((p for p in [as_json(one, "audit", "verify")]
                                         if p["heads"] > 0), None), "a head in the trail")
        expect(proof["heads"] == 1 and proof["last"] > HEAD_RECORDS, f"{proof}")
        head = [r for r in trail(one, "-n", f"{2 * HEAD_RECORDS}") if r["what"] == "head"]
        expect(len(head) == 1 and head[0]["who"] == f"leader {one.status()['id']}", f"{head}")


def show_altered(test, one, head):
    lines = good(one, "audit", "dump").splitlines()
    ca = write(test, "ca", as_json(one, "ca", "show")["root"]["pem"].encode())

    def refused(what, dump, pattern, *options):
        path = write(test, "altered", ("\n".join(dump) + "\n").encode())
        bad(None, CORRUPT, pattern, "audit", "verify", "--dump", path, "--ca", ca, *options)
        expect(what, "")

    with test.show("a dump passes without a server, by the root that was kept"):
        path = write(test, "dump", ("\n".join(lines) + "\n").encode())
        good(None, "audit", "verify", "--dump", path, "--ca", ca, "--head", head)
    with test.show("an altered, missing, doubled, moved record is found, and by its number"):
        n = len(lines) - 1
        refused("altered", altered(lines, 4, flip_record), "record 5: ")
        refused("time", altered(lines, 4, lambda r: r.update(time_ns=r["time_ns"] + 1)),
                "record 5: it was altered")
        refused("missing", [*lines[:4], *lines[5:]], "record 5: it is missing")
        refused("doubled", [*lines[:5], *lines[4:]], "record 5: it comes twice")
        refused("moved", [*lines[:4], lines[5], lines[4], *lines[6:]], "record 5: it is missing")
        refused("cut", [*lines[:n - 1], lines[n]], "not that of the records")
        refused("no head", lines[:n], "no head at its end")
    with test.show("a head of another cluster, or of none, is not believed"):
        other = json.loads(lines[-1])
        other["head"]["number"] -= 1
        path = write(test, "altered", ("\n".join([*lines[:-1], json.dumps(other)])).encode())
        bad(None, REFUSED, "signature", "audit", "verify", "--dump", path, "--ca", ca)
        stranger = Cluster(test, "s")[0]
        foreign = write(test, "foreign", good(stranger, "audit", "head").encode())
        bad(one, REFUSED, "another cluster", "audit", "verify", "--head", foreign)
        stranger.kill()


# --- keys, on three ------------------------------------------------------------------------------

def vault(manager):
    return as_json(manager, "key", "status")


def show_three(test, cluster):
    first, second, third = cluster
    with test.show("any manager takes a secret, all know it, all hold the cluster key"):
        good(second, "secret", "create", "kept", stdin=b"kept-value")
        good(third, "config", "create", "conf", stdin=b"conf-value")
        for manager in cluster:
            expect(versions(manager, "kept") == [1], f"{manager.name} does not know it")
            wait_until(lambda m=manager: vault(m)["ready"] and len(vault(m)["held"]) == 1,
                       f"{manager.name} to hold the key")
            expect(run(manager, "config", "inspect", "conf", "--value")[1] == b"conf-value",
                   f"{manager.name} can't open it")
        wait_until(lambda: all(m["holds"] for m in vault(first)["managers"]), "all to be holders")
        expect(first.status()["cluster_key"] == "ready (epoch 1)", f"{first.status()}")
    with test.show("the cluster key is rotated through any manager; values stay"):
        out = good(third, "key", "rotate", "--cluster")
        expect("epoch 2" in out, out)
        for manager in cluster:
            wait_until(lambda m=manager: vault(m)["held"] == [2], f"{manager.name} to hold 2 alone")
            expect(run(manager, "config", "inspect", "conf", "--value")[1] == b"conf-value",
                   f"{manager.name} can't open it")


def show_escrow(test, cluster):
    first = cluster[0]
    path, phrase = os.path.join(test.work, "escrow"), write(test, "phrase", PHRASE.encode())
    with test.show("an escrow is the owner's alone, sealed, recorded, and named afterwards"):
        expect("escrow" not in vault(first), "there is one already")
        out = good(first, "key", "escrow", "--out", path, "--passphrase-file", phrase)
        expect("epochs 2" in out and PHRASE.strip() not in out, out)
        expect(os.stat(path).st_mode & 0o777 == 0o600, "others can read it")
        bad(first, EXISTS, "there already", "key", "escrow", "--out", path, "--passphrase-file",
            phrase)
        record = trail(first, "-n", "1")[0]
        expect(record["what"] == "escrow" and record["who"] == "operator", f"{record}")
        named = vault(cluster[1])["escrow"]
        expect(named["epoch"] == 2 and named["record"] == record["number"], f"{named}")
    with test.show("a wrong passphrase, a damaged file, none at all are refused"):
        bad(first, REFUSED, "passphrase|key", "key", "import-escrow", path, stdin=b"wrong\n")
        with open(path, "rb") as file:
            data = bytearray(file.read())
        data[len(data) // 2] ^= 1
        bad(first, CORRUPT, "damaged", "key", "import-escrow", write(test, "harmed", data),
            "--passphrase-file", phrase)
        bad(first, CORRUPT, "escrow", "key", "import-escrow", phrase, "--passphrase-file", phrase)
        bad(first, USAGE, "nothing was given|no value", "key", "escrow", "--out", path + "2")
        expect(not os.path.exists(path + "2"), "a file is left behind")
    return path, phrase


def show_restore(test, cluster, escrow, phrase):
    backup = os.path.join(test.work, "backup")
    key = as_json(cluster[1], "backup", backup)["key"]
    new = Manager(test, "n")
    with test.show("a restored backup alone knows the secrets, and opens none"):
        good(new, "restore", backup, "--name", "n", "--client", new.endpoint, "--peer",
             new.peer_address, stdin=key.encode() + b"\n")
        new.start(addresses=False)
        new.wait_running()
        expect(versions(new, "kept") == [1], "it does not know it")
        wait_until(lambda: "not ready" in new.status()["cluster_key"], "it to say so")
        bad(new, NOT_NOW, "escrow|key", "config", "inspect", "conf", "--value", "--timeout", "1")
        bad(new, NOT_NOW, "escrow|key", "secret", "create", "more", "--timeout", "1", stdin=b"x")
    with test.show("with the escrow every value is back, and the audit goes on"):
        good(new, "key", "import-escrow", escrow, "--passphrase-file", phrase)
        wait_until(lambda: vault(new)["ready"], "it to be ready")
        expect(run(new, "config", "inspect", "conf", "--value")[1] == b"conf-value", "its value")
        good(new, "secret", "create", "more", stdin=b"x")
        good(new, "audit", "verify")
    new.kill()


def show_shred(test, cluster):
    with test.show("a shred says what it destroyed, where, and which escrow is left"):
        good(cluster[1], "secret", "create", "doomed", stdin=b"doomed-value")
        done = as_json(cluster[2], "secret", "shred", "doomed", "--yes")
        expect(done["destroyed"] == [2] and done["current"] == 3, f"{done}")
        expect(sorted(m["name"] for m in done["managers"]) == ["a", "b", "c"], f"{done}")
        expect(done["escrow"]["epoch"] == 2 and "unlock_key" not in done, f"{done}")
        for manager in cluster:
            bad(manager, ABSENT, "doomed", "secret", "inspect", "doomed")
            wait_until(lambda m=manager: vault(m)["held"] == [3], f"{manager.name} to drop epoch 2")
        expect(run(cluster[0], "config", "inspect", "conf", "--value")[1] == b"conf-value",
               "other values can't be opened")
        kinds = [r["what"] for r in trail(cluster[0], "-n", "6")]
        expect("shred" in kinds and "rotate" in kinds, f"{kinds}")
    with test.show("with autolock a shred makes another unlock key and prints it"):
        before = good(cluster[0], "lock").strip()
        good(cluster[0], "secret", "create", "doomed", stdin=b"doomed-value")
        out = good(cluster[0], "secret", "shred", "doomed", "--yes")
        after = re.search(r"SWMKEY-1-\S+", out)
        expect(after and after.group(0) != before, out)
        expect(re.search(r"destroyed +epochs of the cluster key: 3", out), out)
        expect(re.search(r"escrow +up to epoch 2", out), out)
        expect(good(cluster[1], "unlock-key").strip() == after.group(0), "another one")
    with test.show("the trail of all that passes on every manager"):
        for manager in cluster:
            good(manager, "audit", "verify")


def single(test, parts):
    one = Cluster(test, "a")[0]
    test.undo.append(lambda: end_tasks(test))
    wait_until(lambda: vault(one)["ready"], "the cluster key")
    if parts & {"secrets"}:
        show_values(test, one)
        show_typed(test, one)
        show_versions(test, one)
    if parts & {"configs", "services", "tasks"}:
        show_configs(test, one)
    if parts & {"services"}:
        show_services(test, one)
    if parts & {"tasks"} and os.geteuid() == 0:
        show_tasks(test, one)
    elif "tasks" in parts:
        test.skip("tasks", "only root has namespaces")
    if parts & {"audit"}:
        show_audit(test, one)
    one.kill()


def run_test(test):
    parts = set(sys.argv[1:] or
                ["usage", "secrets", "configs", "services", "tasks", "audit", "keys"])
    if "usage" in parts:
        show_usage(test)
    if parts & {"secrets", "configs", "services", "tasks", "audit"}:
        single(test, parts)
    if "keys" in parts:
        cluster = Cluster(test, "abc")
        show_three(test, cluster)
        escrow, phrase = show_escrow(test, cluster)
        show_restore(test, cluster, escrow, phrase)
        show_shred(test, cluster)


main(run_test)
