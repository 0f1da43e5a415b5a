#!/usr/bin/python3
"""The command line against real servers: help and usage errors of every command; values in and out
by every way; a server that waits, is founded, and joined; wrong tokens; the network port with TLS;
members changed by their commands; leaving. What each command prints and its exit code are the
contract, so both are looked at. (Trees of files: test_cluster.) Arguments: the parts to run (usage,
values, members, tls)."""
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import BINARY, Manager, b64, expect, main, wait_until

OK, ABSENT, USAGE, TOO_LARGE, UNREACHABLE, EXISTS, NOT_NOW, REFUSED = 0, 1, 64, 65, 69, 73, 75, 77
VALUE_MAX = 1536 * 1024
LOCAL = {"serve", "restore", "recover", "check", "version", "help"}  # talk to no server
COMMANDS_MIN = 20
TOKEN = re.compile(r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}")


def cli(*words, stdin=b"", data=None, seconds=30):
    """(exit code, standard output as bytes, standard error as text)"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("CONCLAVE_")}
    if data:
        env["CONCLAVE_DATA"] = data
    done = subprocess.run([BINARY, *words], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=seconds, check=False, env=env)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def good(manager, *words, stdin=b""):
    """The output of a command that has to succeed."""
    code, out, error = cli(*words, stdin=stdin, data=manager.data)
    expect(code == OK, f"{' '.join(words[:3])}: exit code {code}: {error.strip()}")
    expect(not error, f"{' '.join(words[:3])} says on standard error: {error.strip()}")
    return out


def bad(exit_code, pattern, *words, stdin=b"", data=None, name=None):
    """A command that has to fail: its exit code, and one line that names it and says why."""
    code, out, error = cli(*words, stdin=stdin, data=data)
    said = f"{' '.join(w[:30] for w in words)}: exit code {code}, {error.strip()!r}"
    expect(code == exit_code, f"{said}; expected {exit_code}")
    expect(not out, f"{said}; and standard output has {out[:60]!r}")
    expect(len(error.splitlines()) == 1 and error.endswith("\n"), f"{said}: not one line")
    expect((name or words[0]) in error, f"{said}: does not name the command")
    expect(re.search(pattern, error), f"{said}: nothing like {pattern!r}")
    return error


def as_json(manager, *words):
    return json.loads(good(manager, *words, "--json"))


# --- usage ---------------------------------------------------------------------------------------

def commands():
    code, out, _ = cli("--help")
    expect(code == OK, f"--help: exit code {code}")
    return re.findall(r"^  (\S+(?: \S+)?)  ", out.decode(), re.MULTILINE)


def show_strict():
    """What options take, before any server is asked."""
    for words, pattern in (
            (["token", "create"], "--role"), (["token", "create", "--role", "boss"], "worker"),
            *((["token", "create", "--role", "worker", "--expires", d], "duration")
              for d in ("", "1", "h", "1.5h", "-1h", "1h1h", "1m1h", "1w", " 1h", "36501d")),
            (["token", "create", "--role", "worker", "--expires", "0s"], "second"),
            *((["token", "create", "--role", "worker", "--uses", n], "number")
              for n in ("0", "-1", "x", "", "4294967296")),
            (["token", "create", "--role", "worker", "--label", "a b=c"], "label"),
            (["token", "show", "--role", "x"], "role"),
            (["node", "update", "n"], "nothing"),
            (["node", "update", "n", "--availability", "off"], "active, pause, drain"),
            (["node", "update", "n", "--label-add", "=x"], "label"),
            (["ca", "set"], "nothing"), (["ca", "set", "--validity", "59s"], "60 s"),
            (["ca", "set", "--readmit", "maybe"], "approval, automatic, never"),
            (["ca", "set", "--external-ca", "f"], "--external"),
            (["ca", "rotate", "--ca-key", "f"], "--ca-cert"),
            (["init", "--ca-cert", "f"], "--ca-key"), (["init", "--ca-key", "f"], "--ca-cert"),
            (["unlock", "--share", "--passphrase"], "one kind"),
            (["unlock-key", "--shares", "1"], "2 to 255"),
            (["unlock-key", "--shares", "256"], "2 to 255"),
            (["unlock-key", "--threshold", "2"], "--shares"),
            (["unlock-key", "--shares", "3", "--threshold", "4"], "more than")):
        one = len(words) == 1 or words[1].startswith("--")
        bad(USAGE, pattern, *words, name=words[0] if one else " ".join(words[:2]))


def show_usage(test):
    names = commands()
    with test.show("every command has --help"):
        expect(len(names) >= COMMANDS_MIN, f"--help lists only {names}")
        for name in names:
            for words in ([*name.split(), "--help"], ["help", *name.split()]):
                code, out, error = cli(*words)
                expect(code == OK and not error, f"{words}: exit code {code}: {error}")
                expect(out.decode().startswith(f"usage: conclave {name}"), f"{words}: {out[:60]}")
    with test.show("every command refuses an option that it does not have, in one line"):
        for name in names:
            bad(USAGE, "no option --nonsense", *name.split(), "--nonsense", name=name)
    with test.show("every command refuses an argument too many"):
        for name in names:
            if "..." in cli(*name.split(), "--help")[1].decode().splitlines()[0]:
                continue  # takes any number
            many = [f"word{i}" for i in range(4)]
            bad(USAGE, "what is 'word", *name.split(), *many, name=name)
    with test.show("an unknown command, a missing argument, a bad number are told in one line"):
        bad(USAGE, "no command 'frobnicate'", "frobnicate")
        bad(USAGE, "no command 'member frobnicate'.*member ls", "member", "frobnicate")
        bad(USAGE, "member ls.*member rm", "member")
        bad(USAGE, "key rotate", "key")
        bad(USAGE, "no command", "help", "frobnicate")
        for words in (["get"], ["del"], ["join"], ["cert"], ["backup"], ["restore"],
                      ["member", "rm"], ["member", "promote"], ["member", "demote"], ["put"],
                      ["node", "rm"], ["node", "inspect"], ["node", "update"],
                      ["node", "promote"], ["node", "approve"], ["token", "rm"]):
            bad(USAGE, "missing|usage", *words, name=" ".join(words))
        bad(USAGE, "needs a value", "get", "a", "--timeout")
        bad(USAGE, "takes no value", "ls", "--json=yes")
        for number in ("x", "", "-1", "0", "1e99", "5s", "nan", "0x"):
            bad(USAGE, "--timeout", "get", "a", f"--timeout={number}")
        for word in ("", "h", ":1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:x"):
            bad(USAGE, "--peer", "serve", "--data", test.work, "--name", "n", "--peer", word)
        show_strict()
        code, out, error = cli()
        expect(code == USAGE and not out and "usage: conclave" in error, "conclave alone")
    with test.show("without a server: exit code 69, one line"):
        nowhere = os.path.join(test.work, "nowhere")
        for words in (["status"], ["member", "ls"], ["put", "a", "b"], ["get", "a"], ["ls"],
                      ["del", "a"], ["lock"], ["leave"], ["init"], ["key", "rotate"],
                      ["cert", "a"], ["member", "rm", "a"], ["unlock-key"], ["node", "ls"],
                      ["node", "promote", "a"], ["token", "ls"], ["ca", "show"],
                      ["backup", os.path.join(test.work, "file")]):
            two = words[0] in ("member", "key", "node", "token", "ca")
            name = " ".join(words[:2]) if two else words[0]
            bad(UNREACHABLE, "server|running|reached", *words, data=nowhere, name=name)
        bad(UNREACHABLE, "127.0.0.1:1", "status", "--endpoint", "127.0.0.1:1",
            "--insecure-plaintext")
        bad(USAGE, "--cacert", "status", "--endpoint", "127.0.0.1:1")
        expect(not os.path.exists(os.path.join(test.work, "file")), "backup leaves a file")
        expect(not os.path.exists(nowhere), "a command has made the data directory")


# --- values --------------------------------------------------------------------------------------

def show_values(test):
    node = Manager(test, "v").start("--init")
    node.wait_running()
    with test.show("values go in by argument, standard input and file, and come out unchanged"):
        every = bytes(range(256)) * 3
        path = os.path.join(test.work, "value")
        with open(path, "wb") as file:
            file.write(every)
        big = os.urandom(VALUE_MAX)
        out = os.path.join(test.work, "out")
        for words, stdin, value in ((["argument"], b"", b"argument"), (["-"], every, every),
                                    (["-"], b"", b""), ([""], b"", b""), (["-"], big, big),
                                    (["--file", path], b"", every)):
            good(node, "put", "k", *words, stdin=stdin)
            expect(good(node, "get", "k") == value, f"get after put {words}")
            good(node, "get", "k", "--out", out)
            with open(out, "rb") as file:
                expect(file.read() == value, f"get --out after put {words}")
        good(node, "put", "--", "--key", "--value")
        expect(good(node, "get", "--", "--key") == b"--value", "a key behind --")
    with test.show("what is too large or contradictory is refused and changes nothing"):
        good(node, "put", "k", "before")
        bad(TOO_LARGE, str(VALUE_MAX), "put", "k", "-", stdin=b"x" * (VALUE_MAX + 1),
            data=node.data)
        with open(path, "wb") as file:
            file.write(b"x" * (VALUE_MAX + 1))
        bad(TOO_LARGE, str(VALUE_MAX), "put", "k", "--file", path, data=node.data)
        bad(USAGE, "1 to 4096", "put", "", "v", data=node.data)
        bad(USAGE, "1 to 4096", "put", "x" * 4097, "v", data=node.data)
        good(node, "put", "x" * 4096, "longest")
        expect(good(node, "get", "x" * 4096) == b"longest", "the longest key")
        bad(USAGE, "exclude", "put", "k", "v", "--file", path, data=node.data)
        bad(USAGE, "value", "put", "k", data=node.data)
        bad(ABSENT, "no-such-file", "put", "k", "--file", "/no-such-file", data=node.data)
        bad(EXISTS, "exists", "put", "k", "v", "--create", data=node.data)
        expect(good(node, "get", "k") == b"before", "a refused put has changed the value")
    with test.show("a missing key: exit code 1"):
        bad(ABSENT, "no key 'missing'", "get", "missing", data=node.data)
        bad(ABSENT, "no key 'missing'", "get", "missing", "--json", data=node.data)
        bad(ABSENT, "no key 'missing'", "del", "missing", data=node.data)
        expect(good(node, "get", "missing", "--prefix") == b"", "get --prefix of nothing")
    show_listing(test, node)
    node.kill()


def show_listing(test, node):
    with test.show("get --prefix, ls and del --prefix take what begins so, and nothing else"):
        for key, value in (("t", b"before"), ("t/one", b"1"), ("t/sub/deep/three", b""),
                           ("t/sub/two", b"\0\xff"), ("t0", b"behind")):
            good(node, "put", key, "-", stdin=value)
        pairs = good(node, "get", "t/s", "--prefix")
        expect(pairs == b"t/sub/deep/three\n\nt/sub/two\n\0\xff\n", f"get --prefix: {pairs}")
        expect(good(node, "ls", "--long", "t/one").split()[0] == b"1", "ls --long")
        expect(good(node, "del", "t/", "--prefix") == b"3 deleted\n", "del --prefix")
        expect(good(node, "ls", "t") == b"t\nt0\n", "ls after del --prefix")
    with test.show("--json is JSON for put, get, ls, del, status, member ls"):
        revision = int(as_json(node, "status")["revision"])
        put = as_json(node, "put", "j", "value")
        expect(int(put["header"]["revision"]) == revision + 1, f"put: {put}")
        kv = as_json(node, "get", "j")
        expect((kv["key"], kv["value"]) == (b64(b"j"), b64(b"value")), f"get: {kv}")
        keys = [kv["key"] for kv in as_json(node, "ls", "j")]
        expect(keys == [b64(b"j")], f"ls: {keys}")
        expect(as_json(node, "ls", "nothing-so") == [], "ls of nothing")
        expect(as_json(node, "get", "j", "--prefix")[0]["value"] == b64(b"value"), "get --prefix")
        expect(int(as_json(node, "del", "j")["deleted"]) == 1, "del")
        members = as_json(node, "member", "ls")["members"]
        expect([m["name"] for m in members] == ["v"], f"member ls: {members}")
        expect(b"leader" in good(node, "status"), "status for people")
        expect(len(good(node, "member", "ls").splitlines()) == 2, "member ls for people")


# --- members -------------------------------------------------------------------------------------

def roles(manager):
    return {m["name"]: m["role"] for m in as_json(manager, "member", "ls")["members"]}


def waiting(manager):
    manager.start()
    wait_until(lambda: manager.status()["state"] == "empty", f"{manager.name} to wait")
    return manager


def found(test):
    """a, founded over its socket; gives it and its token."""
    a = waiting(Manager(test, "a"))
    with test.show("a server that waits says so, and how to go on"):
        expect(b"conclave init" in good(a, "status"), "status does not say that it waits")
        expect(as_json(a, "status")["state"] == "empty", "status --json")
        for words in (["put", "x", "y"], ["get", "x"], ["member", "ls"], ["leave"], ["lock"]):
            name = " ".join(words[:2]) if words[0] == "member" else words[0]
            bad(NOT_NOW, "conclave init.*conclave join", *words, data=a.data, name=name)
    out = good(a, "init").decode()
    token = TOKEN.search(out)
    with test.show("init founds the cluster and shows the token, once"):
        expect(token, f"init prints no token: {out}")
        wait_until(lambda: as_json(a, "status").get("role") == "leader", "a to lead")
        good(a, "put", "greeting", "hello")
        bad(EXISTS, "already", "init", data=a.data)
    return a, token.group(0)


def show_refused_joins(test, a, token):
    other = Manager(test, "o").start("--init")
    foreign = wait_until(lambda: other.line("join token: "), "another cluster's token")
    with test.show("joins with a wrong, foreign or malformed token, or a taken name, are refused"):
        b = waiting(Manager(test, "b"))
        wrong = token[:-4] + ("0000" if token[-4:] != "0000" else "1111")
        bad(REFUSED, "token", "join", a.peer_address, "--token", wrong, data=b.data)
        bad(REFUSED, "token|cluster", "join", a.peer_address, "--token", foreign, data=b.data)
        bad(USAGE, "token", "join", a.peer_address, "--token", "nonsense", data=b.data)
        bad(USAGE, "address|port|HOST", "join", "nonsense", "--token", token, data=b.data)
        expect(as_json(b, "status")["state"] == "empty", "it does not wait any more")
        twin = waiting(Manager(test, "a"))
        bad(EXISTS, "a member a at", "join", a.peer_address, "--token", token, data=twin.data)
        twin.kill()
        late = Manager(test, "l").start("--join", a.peer_address, "--token", wrong)
        code = late.ended()
        last = late.output().splitlines()[-1]
        expect(code == REFUSED and "token" in last, f"serve --join: exit code {code}: {last}")
        expect(list(roles(a)) == ["a"], f"a member has come of it: {roles(a)}")
    other.kill()
    return b


def show_members(test):
    a, token = found(test)
    b = show_refused_joins(test, a, token)
    with test.show("others join by `conclave join` and by serve --join, and become voters"):
        good(b, "join", a.peer_address, stdin=token.encode() + b"\n")
        bad(EXISTS, "already", "join", a.peer_address, "--token", token, data=b.data)
        c = Manager(test, "c").start("--join", b.peer_address, "--token", token)
        wait_until(lambda: sorted(roles(a).values()) == ["leader", "voter", "voter"], "voters")
    with test.show("every member takes writes, and shows at once what another has taken"):
        for at, node in enumerate((a, b, c)):
            good(node, "put", f"from/{node.name}", str(at))
            for reader in (c, a, b):
                expect(good(reader, "get", f"from/{node.name}") == b"%d" % at,
                       f"{reader.name} does not have what {node.name} has taken")
    with test.show("member transfer, demote, promote, rm do what they say, on any member"):
        good(c, "member", "transfer", "b")
        wait_until(lambda: roles(a)["b"] == "leader", "b to lead")
        good(a, "member", "demote", "c")
        wait_until(lambda: roles(b)["c"] == "standby", "c to be a standby")
        bad(EXISTS, "not a voter", "member", "demote", "c", data=a.data, name="member demote")
        good(c, "member", "promote", "c")
        wait_until(lambda: roles(b)["c"] == "voter", "c to be a voter")
        good(b, "member", "demote", "b")
        wait_until(lambda: "leader" in (roles(a)["a"], roles(a)["c"]), "another one to lead")
        good(b, "member", "promote", "b")
        wait_until(lambda: roles(b)["b"] == "voter", "b to be a voter again")
        for verb in ("promote", "demote", "rm", "transfer"):
            bad(ABSENT, "nobody", "member", verb, "nobody", data=a.data, name=f"member {verb}")
    with test.show("leave wipes the data directory, the others go on, and the node may join again"):
        good(c, "leave")
        wait_until(lambda: sorted(roles(a)) == ["a", "b"], "c to be no member")
        wait_until(lambda: c.status()["state"] == "empty", "c to wait again")
        left = {f for _, _, files in os.walk(c.data) for f in files}
        expect(left <= {"conclave.sock", "engine.sock", "LOCK"}, f"there are still {left}")
        good(a, "put", "after", "leave")
        good(c, "join", a.peer_address, "--token", token)
        wait_until(lambda: roles(a).get("c") == "voter", "c to be a voter again")
        expect(good(c, "get", "after") == b"leave", "c does not have the data")
        good(c, "leave")
    with test.show("a dead member is removed by the one that is left, which then serves alone"):
        if roles(a)["a"] != "leader":
            good(a, "member", "transfer", "a")
        wait_until(lambda: roles(a)["a"] == "leader", "a to lead")
        b.kill()
        good(a, "member", "rm", "b")
        expect(roles(a) == {"a": "leader"}, f"the members are {roles(a)}")
        good(a, "put", "alone", "again")
    a.kill()


# --- the network port ----------------------------------------------------------------------------

def tls_options(node, directory, name, ca="ca"):
    return ["--endpoint", node.endpoint, "--cacert", os.path.join(directory, ca + ".pem"),
            "--cert", os.path.join(directory, name + ".pem"),
            "--key", os.path.join(directory, name + ".key")]


def show_tls(test):
    node, other = Manager(test, "t"), Manager(test, "u")
    node.plaintext = other.plaintext = False
    for manager in (node, other):
        manager.start("--init")
        manager.wait_running()
    ours, theirs = os.path.join(test.work, "ours"), os.path.join(test.work, "theirs")
    with test.show("conclave cert makes certificates that work over --endpoint"):
        hint = good(node, "cert", "user", "--out", ours).decode().split()
        expect(cli(*hint[1:])[0] == OK, f"the command that cert prints does not work: {hint}")
        good(node, "cert", "boss", "--admin", "--out", ours)
        expect(os.stat(os.path.join(ours, "user.key")).st_mode & 0o777 == 0o600, "the key's mode")
        user, boss = tls_options(node, ours, "user"), tls_options(node, ours, "boss")
        big = os.urandom(VALUE_MAX)
        for options in (user, boss):
            code, _, error = cli("put", "net", "-", *options, stdin=big)
            expect(code == OK, f"put: {error}")
            expect(cli("get", "net", *options)[:2] == (OK, big), "get")
        expect(cli("member", "ls", *boss)[0] == OK, "an admin's member ls")
        bad(REFUSED, "admin", "token", "rotate", *user, name="token rotate")
        expect(cli("token", "rotate", *boss)[0] == OK, "an admin's token rotate")
    with test.show("without a certificate, with another cluster's, or without TLS: refused"):
        good(other, "cert", "user", "--out", theirs)
        for options, why in (
                (tls_options(node, theirs, "user"), "another cluster's certificate and root"),
                (tls_options(node, theirs, "user", "../ours/ca"), "another cluster's certificate"),
                (["--endpoint", node.endpoint, "--insecure-plaintext"], "plaintext")):
            code, out, error = cli("get", "net", "--timeout", "3", *options)
            expect(code in (UNREACHABLE, REFUSED, NOT_NOW, 76) and not out,
                   f"{why}: exit code {code}: {error}")
            expect(len(error.splitlines()) == 1, f"{why}: {error}")
            print(f"{why}: exit code {code}: {error.strip()}")
        bad(USAGE, "--cacert", "get", "net", "--endpoint", node.endpoint)
        bad(ABSENT, "none.pem", "get", "net", *tls_options(node, ours, "none"))
        expect(good(node, "get", "net") == big, "the server does not go on")
    node.kill()
    other.kill()


PARTS = {"usage": show_usage, "values": show_values, "members": show_members, "tls": show_tls}


def run(test):
    for part in sys.argv[1:] or PARTS:
        PARTS[part](test)


main(run)
