"""etcdctl run against two sets of servers at once: the same command line for each, and what it
prints compared after what names a server (ids of members and of the cluster, ports, terms,
durations) has been replaced. Ids that a server made up, such as those of leases, are captured by a
pattern and used in later commands as {name}."""
import contextlib
import os
import re
import subprocess

from cluster import expect, wait_until

COMMAND_S = 30
NAME_MIN = 5
NOISE = re.compile(r'^\{"level":"(warn|info)".*\n?', re.M)
PATTERNS = [
    (re.compile(r'"(raft_term|raftTerm)":\d+'), r'"\1":0'),
    (re.compile(r'"RaftTerm" : \d+'), '"RaftTerm" : 0'),
    (re.compile(r'"(member_id|cluster_id)":\w+'), r'"\1":0'),
    (re.compile(r'"(MemberID|ClusterID)" : \w+'), r'"\1" : 0'),
    (re.compile(r"\b\d+(\.\d+)?(ns|µs|us|ms|s)\b"), "TIME"),
    (re.compile(r"^(https?://[^,]+), [0-9a-f]+, (?=3\.)", re.M), r"\1, MEMBER, "),
    (re.compile(r"remaining\(\d+s?"), "remaining(TIME"),
    (re.compile(r'"ttl":(\d+)'), '"ttl":TIME'),
    (re.compile(r"(panic: [^\n]*)\n.*", re.S), r"\1"),
    (re.compile(r" {2,}"), " "),
]


def text(data):
    return data.decode("utf-8", "backslashreplace")


class Side:
    """One set of servers as etcdctl sees it."""

    def __init__(self, servers):
        self.servers, self.env = servers, dict(os.environ, **servers.environment())
        self.vars, self.names = {}, []
        self.find_names()

    def find_names(self):
        """What has to be replaced because it names a server, the longest first."""
        pb, names = self.servers.pb, {}
        members = self.servers.ask(self.servers.running()[0], "MemberList", pb.MemberListRequest())
        order = {a: i for i, a in enumerate(self.servers.addresses())}
        for i, address in enumerate(self.servers.addresses()):
            names[address] = f"ADDRESS{i}"
        for member in members.members:
            where = [order[u.split("//")[1]] for u in member.clientURLs if "//" in u and
                     u.split("//")[1] in order]
            i = where[0] if where else "X"
            names[f"{member.ID:x}"] = names[str(member.ID)] = "MEMBER"
            for url in member.peerURLs:
                names[url] = f"PEER{i}"
            if member.name:
                names[member.name] = f"NAME{i}"
        cluster = members.header.cluster_id
        names[f"{cluster:x}"] = names[str(cluster)] = "CLUSTER"
        # Short ones would be found in anything; PATTERNS know where ids stand.
        self.names = sorted(((n, v) for n, v in names.items() if len(n) >= NAME_MIN),
                            key=lambda pair: -len(pair[0]))

    def normal(self, said):
        said = NOISE.sub("", said)
        for name, value in sorted(self.vars.items(), key=lambda pair: -len(pair[1])):
            said = re.sub(rf"\b{re.escape(value)}\b", f"<{name}>", said)
            with contextlib.suppress(ValueError):
                said = re.sub(rf"\b{int(value, 16)}\b", f"<{name}>", said)
        for name, value in self.names:
            said = re.sub(rf"(?<![0-9a-zA-Z]){re.escape(name)}(?![0-9a-zA-Z])", value, said)
        for pattern, value in PATTERNS:
            said = pattern.sub(value, said)
        return said

    def words(self, arguments):
        words = [str(a) for a in arguments]
        for name, value in self.vars.items():
            words = [w.replace("{" + name + "}", value) for w in words]
        if "--endpoints" not in words:
            words = ["--endpoints", ",".join(self.servers.urls), *words]
        return ["etcdctl", *words]

    def run(self, arguments, stdin="", seconds=COMMAND_S):
        """(exit code, output, errors) as they are."""
        done = subprocess.run(self.words(arguments), input=stdin.encode(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=self.env, timeout=seconds, check=False)
        return done.returncode, text(done.stdout), text(done.stderr)

    def begin(self, arguments, path):
        """A command that goes on; its output grows in a file. Its input stays open."""
        with open(path, "wb") as out:
            return subprocess.Popen(self.words(arguments), stdin=subprocess.PIPE, stdout=out,
                                    stderr=subprocess.STDOUT, env=self.env)


class Both:
    """Two sides; a command that does not say the same on both raises Failure."""

    def __init__(self, test, left, right):
        self.test, self.sides = test, [Side(left), Side(right)]
        self.count, self.commands = 0, 0

    def __call__(self, *arguments, stdin="", capture=None, fold=None):
        """Runs a command on both. `capture` is {name: pattern}; `fold` a function that takes out
        of what is said what may differ. Returns what the right side said."""
        self.commands += 1
        found = []
        for side in self.sides:
            code, out, error = side.run(arguments, stdin)
            for name, pattern in (capture or {}).items():
                match = re.search(pattern, out)
                expect(match, f"etcdctl {' '.join(map(str, arguments))}: no {name} in {out!r} "
                       f"{error!r}")
                side.vars[name] = match.group(1)
            out, error = side.normal(out), side.normal(error)
            found.append((code, fold(out) if fold else out, fold(error) if fold else error))
        left, right = found
        expect(left == right, f"etcdctl {' '.join(map(str, arguments))}: etcd says {left}, "
               f"the other {right}")
        return right

    def ok(self, *arguments, **options):
        """A command that has to succeed on both; its output."""
        code, out, error = self(*arguments, **options)
        expect(code == 0, f"etcdctl {' '.join(map(str, arguments))}: {code} {out} {error}")
        return out

    def patiently(self, *arguments):
        """Waits until a command is accepted by each, as one that a young cluster refuses."""
        def accepted(side):
            code, out, error = side.run(arguments)
            expect(code == 0, f"{out} {error}")
            return out
        return [wait_until(lambda at=side: accepted(at), f"etcdctl {' '.join(arguments)}")
                for side in self.sides]

    def revision(self):
        """The one that both have arrived at."""
        found = set()
        for side in self.sides:
            pb = side.servers.pb
            found.add(side.servers.ask(0, "Range", pb.RangeRequest(key=b"k")).header.revision)
        expect(len(found) == 1, f"the revisions differ: {found}")
        return found.pop()

    def begin(self, *arguments):
        """A command that goes on, on both sides."""
        self.count += 1
        return Running(self, arguments)


class Running:
    """A command under way on both sides, and its output so far."""

    def __init__(self, both, arguments):
        self.both, self.arguments = both, arguments
        self.paths = [os.path.join(both.test.work, f"ctl{both.count}.{i}") for i in (0, 1)]
        self.processes = [side.begin(arguments, path)
                          for side, path in zip(both.sides, self.paths)]
        both.test.undo.append(self.kill)

    def raw(self, i):
        with open(self.paths[i], "rb") as file:
            return text(file.read())

    def output(self, i):
        return self.both.sides[i].normal(self.raw(i))

    def tell(self, words):
        for process in self.processes:
            process.stdin.write(words.encode())
            process.stdin.flush()

    def until(self, lines):
        """Waits for so many lines from both and compares them; returns them."""
        for i in (0, 1):
            wait_until(lambda at=i: self.output(at).count("\n") >= lines,
                       f"{lines} lines of etcdctl {' '.join(map(str, self.arguments))} on the "
                       f"{'left' if i == 0 else 'right'}", pause=0.01)
        return self.same()

    def same(self):
        left, right = self.output(0), self.output(1)
        expect(left == right, f"etcdctl {' '.join(map(str, self.arguments))}: etcd says {left!r}, "
               f"the other {right!r}")
        return right

    def interrupt(self):
        """As by Ctrl-C; the exit codes have to be the same."""
        codes = []
        for process in self.processes:
            process.send_signal(2)
            codes.append(process.wait(COMMAND_S))
        expect(codes[0] == codes[1], f"exit codes {codes}")

    def end(self):
        """Waits for both to end by themselves; the exit code and what they said."""
        codes = [p.wait(COMMAND_S) for p in self.processes]
        expect(codes[0] == codes[1], f"etcdctl {' '.join(map(str, self.arguments))}: exit codes "
               f"{codes}: {self.output(0)!r}, {self.output(1)!r}")
        return codes[0], self.same()

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
