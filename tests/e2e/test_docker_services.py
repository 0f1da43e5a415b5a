#!/usr/bin/python3
"""Secrets, configs, services and tasks through docker's own clients, unchanged: the docker command,
python3-docker and the npm package dockerode, on a manager and a worker whose tasks are real
processes. What each is told is what Swarm would tell: outputs, errors, statuses; a secret's value
comes out of no call and is left in no memory. Arguments choose parts: cli, errors, memory, python,
node."""
import base64
import concurrent.futures
import contextlib
import http.server
import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from cluster import Http, expect, main, wait_until
from docker_cli import Node, end_tasks, find_docker
import hunt
from hunt import nowhere
import npm_packages

NODE_S = 100
TASK_S = 30       # for a task to run, or to be gone
SECRET_MAX = 511999
CONFIG_MAX = 1023999
VALUE = "a-value-that-is-nobody's-business"
SLEEP = ("sleep", "1000")
ATTACHED = ("--update-monitor", "1s", "--quiet")  # until it has converged, and a second more


def small_cluster(test, *options, names="ab"):
    """A manager and workers, made by docker alone."""
    test.undo.append(lambda: end_tasks(test))
    nodes = [Node(test, name).begin(*options) for name in names]
    for node in nodes:
        wait_until(lambda n=node: os.path.exists(n.sock), f"{node.name}'s socket")
    a = nodes[0]
    a.ok("swarm", "init", "--listen-addr", a.peer_address, "--advertise-addr", "127.0.0.1")
    token = a.ok("swarm", "join-token", "-q", "worker")
    for node in nodes[1:]:
        node.ok("swarm", "join", "--listen-addr", node.peer_address, "--token", token,
                a.peer_address)
    wait_until(lambda: all(r["Status"] == "Ready" for r in a.nodes().values())
               and len(a.nodes()) == len(nodes), "the nodes to be ready")
    return nodes


class Raw:
    """Calls whose statuses are looked at."""

    def __init__(self, node):
        self.http = Http(node.sock)

    def __call__(self, method, path, body=None):
        headers = "" if body is None else "Content-Type: application/json\r\n"
        data = b"" if body is None else json.dumps(body).encode()
        status, text = self.http.raw(method, "/v1.44" + path, data, headers)
        try:
            return status, json.loads(text) if text.strip() else None
        except ValueError:
            return status, text.decode()

    def good(self, method, path, body=None, status=200):
        got, answer = self(method, path, body)
        expect(got == status, f"{method} {path}: {got} {answer}")
        return answer

    def refused(self, status, sentence, method, path, body=None):
        got, answer = self(method, path, body)
        said = answer.get("message", "") if isinstance(answer, dict) else str(answer)
        expect(got == status and sentence in said,
               f"{method} {path}: {got} {said!r}, not {status} {sentence!r}")


def coded(text):
    return base64.b64encode(text.encode()).decode()


def same_without_value(output):
    expect(VALUE not in output and coded(VALUE)[:20] not in output, f"a value came out: {output}")


def tasks_of(node, service, *filters):
    """Of `docker service ps`."""
    words = [w for f in filters for w in ("--filter", f)]
    out = node.ok("service", "ps", "--no-trunc", "--format", "{{json .}}", *words, service)
    return [json.loads(line) for line in out.splitlines()]


def until_running(node, service, count, what=None):
    def same():
        found = [t for t in tasks_of(node, service, "desired-state=running")
                 if t["CurrentState"].startswith("Running")]
        expect(len(found) == count, f"{tasks_of(node, service)}")
        return True
    wait_until(same, what or f"{count} tasks of {service} to run", TASK_S)


def until_gone(raw, what):
    wait_until(lambda: raw.good("GET", "/tasks") == [], what, TASK_S)


# --- the docker command --------------------------------------------------------------------------

DRIVER = """#!/usr/bin/python3
import base64, json, sys
question = json.load(sys.stdin)
labels = question["SecretLabels"]
if "path" in labels:
    value = "{} for {}".format(labels["path"], question["ServiceName"])
    print(json.dumps({"Value": base64.b64encode(value.encode()).decode()}))
else:
    print(json.dumps({"Err": "no path in the labels"}))
"""


class Plugin(http.server.BaseHTTPRequestHandler):
    """Docker's secret plugin: another value at each question."""
    asked = []

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, question["SecretName"], question["TaskName"]))
        answer = json.dumps({"Value": coded(f"{VALUE} {len(self.asked)}"), "DoNotReuse": True})
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def address_string(self):
        return "manager"

    def log_message(self, *_):
        pass


class Cli:
    def __init__(self, test):
        self.test = test
        self.program, self.plugin = (os.path.join(test.work, n) for n in ("driver", "plugin.sock"))
        self.a, self.b = small_cluster(test, "--secret-driver",
                                       f"vault={self.program},plugin={self.plugin}")
        self.raw = Raw(self.a)

    def run(self):
        for step in (self.secrets, self.configs, self.create, self.listing, self.in_use,
                     self.update, self.rollback, self.failing, self.scale, self.everywhere,
                     self.events, self.audit, self.remove, self.driver, self.plugged):
            with self.test.show(f"docker {step.__name__.replace('_', ' ')}: {step.__doc__}"):
                step()

    def secrets(self):
        """secret create, ls, inspect, rm"""
        a = self.a
        made = a.ok("secret", "create", "-l", "zone=1", "pw", "-", text=VALUE)
        expect(len(made) == 25, made)
        file = os.path.join(self.test.work, "value")
        with open(file, "w") as out:
            out.write(VALUE)
        other = a.ok("secret", "create", "other.pw", file)
        for words in (["secret", "inspect", "pw"], ["secret", "inspect", "--pretty", "pw"],
                      ["secret", "ls"], ["secret", "inspect", made[:12], "other.pw"]):
            same_without_value(a.ok(*words))
        found = a.json("secret", "inspect", made)[0]
        expect(found["ID"] == made and found["Spec"]["Name"] == "pw"
               and found["Spec"]["Labels"] == {"zone": "1"} and "Data" not in found["Spec"],
               f"{found}")
        expect(sorted(a.ok("secret", "ls", "-q").split()) == sorted([made, other]), "ls")
        for words, want in (("name=other", other), ("label=zone", made), ("label=zone=1", made),
                            (f"id={other[:9]}", other), ("name=pw", made)):
            got = a.ok("secret", "ls", "-q", "--filter", words)
            expect(got == want, f"{words}: {got}")
        expect(a.ok("secret", "ls", "-q", "--filter", "label=zone=2") == "", "another label")
        a.refused("invalid filter 'color'", "secret", "ls", "--filter", "color=red")
        a.ok("secret", "create", "--driver", "vlt", "driven")
        expect(a.ok("secret", "ls", "--format", "{{.Name}} {{.Driver}}", "--filter",
                    "name=driven") == "driven vlt", "its driver")
        a.ok("secret", "rm", "driven")
        a.refused("AlreadyExists", "secret", "create", "PW", "-", text="x")
        a.refused(("secret nobody not found", "No such secret: nobody"), "secret", "rm", "nobody")
        a.refused(("secret nobody not found", "No such secret: nobody", "no such secret: nobody"),
                  "secret", "inspect", "nobody")
        expect(a.ok("secret", "rm", "other.pw") == "other.pw", "rm")
        expect(a.ok("secret", "ls", "-q") == made, "it is still there")

    def configs(self):
        """config create, ls, inspect (with its data), rm"""
        a = self.a
        made = a.ok("config", "create", "--template-driver", "golang", "-l", "x=y", "cf", "-",
                    text="listen {{.Node.Hostname}}")
        found = a.json("config", "inspect", "cf")[0]
        expect(base64.b64decode(found["Spec"]["Data"]) == b"listen {{.Node.Hostname}}",
               f"{found}")
        expect(found["Spec"]["Templating"]["Name"] == "golang", f"{found}")
        expect("listen {{.Node" in a.ok("config", "inspect", "--pretty", "cf"), "pretty")
        a.ok("config", "create", "spare", "-", text="x")
        expect(a.ok("config", "ls", "-q", "--filter", "label=x=y") == made, "by label")
        a.refused("AlreadyExists", "config", "create", "cf", "-", text="x")
        a.refused(("config nobody not found", "No such config: nobody"), "config", "rm", "nobody")
        expect(a.ok("config", "rm", "spare") == "spare", "rm")

    def create(self):
        """service create waits until it has converged"""
        a = self.a
        out = a.ok("service", "create", "--name", "web", "--secret",
                   "source=pw,target=db,uid=7,gid=8,mode=0440", "--config", "cf", "--env", "A=b",
                   "--label", "tier=front", "--replicas", "2", "--stop-grace-period", "1s",
                   "--restart-delay", "10ms", *ATTACHED, "host", *SLEEP)
        service = out.split()[0]
        expect(len(service) == 25, out)
        until_running(a, "web", 2)
        found = a.json("service", "inspect", "web")[0]
        container = found["Spec"]["TaskTemplate"]["ContainerSpec"]
        expect(found["ID"] == service and container["Args"] == list(SLEEP)
               and container["Env"] == ["A=b"] and "UpdateStatus" not in found, f"{found}")
        ref = container["Secrets"][0]
        expect(ref["SecretName"] == "pw" and ref["File"] == {
            "Name": "db", "UID": "7", "GID": "8", "Mode": 0o440}, f"{ref}")
        expect(container["StopGracePeriod"] == 10**9
               and found["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"] == "any",
               f"{found}")
        pretty = a.ok("service", "inspect", "--pretty", "web")
        for line in ("Service Mode:\tReplicated", "Replicas:\t2", "Target:\tdb", "Source:\tpw"):
            expect(line in pretty, f"no {line!r} in {pretty}")

    def listing(self):
        """service ls and ps, node ps, a task by its id; there are no logs"""
        a = self.a
        row = a.json("service", "ls", "--format", "{{json .}}")
        expect((row["Name"], row["Mode"], row["Replicas"], row["Image"])
               == ("web", "replicated", "2/2", "host:latest"), f"{row}")
        for words, there in (("name=we", 1), ("name=x", 0), ("mode=global", 0),
                             ("mode=replicated", 1), ("label=tier", 1), ("label=tier=back", 0)):
            got = a.ok("service", "ls", "-q", "--filter", words).split()
            expect(len(got) == there, f"{words}: {got}")
        a.refused("invalid filter 'color'", "service", "ls", "--filter", "color=red")
        tasks = tasks_of(a, "web")
        expect({t["Node"] for t in tasks} == {"a", "b"}, f"not spread: {tasks}")
        expect({t["Name"] for t in tasks} == {"web.1", "web.2"}, f"{tasks}")
        expect(len(tasks_of(a, "web", "node=b")) == 1, "ps of a node")
        expect(tasks_of(a, "web", "desired-state=shutdown") == [], "none has ended")
        on_b = a.ok("node", "ps", "--format", "{{.Name}}", "b").split()
        expect(on_b == [t["Name"] for t in tasks if t["Node"] == "b"], f"{on_b}")
        task = a.json("inspect", "--type", "task", tasks[0]["ID"])[0]
        expect(task["Status"]["State"] == "running" and task["DesiredState"] == "running"
               and task["Status"]["ContainerStatus"]["PID"] > 0, f"{task}")
        for value in (task, a.json("service", "inspect", "web")):
            same_without_value(json.dumps(value))
        a.refused("there are no logs", "service", "logs", "web")
        for name in ("web", "pw", tasks[0]["ID"]):  # of whatever kind it is
            expect(a.json("inspect", name)[0]["ID"], name)
        a.refused(("no such object: nobody", "No such object: nobody"), "inspect", "nobody")
        a.refused(("no such service: nobody", "service nobody not found"), "service", "ps",
                  "nobody")
        self.b.refused("Worker nodes can't be used to view or modify cluster state", "service",
                       "ls")

    def in_use(self):
        """what a service names is not removed, and it says which one"""
        a = self.a
        a.refused("secret 'pw' is in use by the following service: web", "secret", "rm", "pw")
        a.refused("config 'cf' is in use by the following service: web", "config", "rm", "cf")
        a.ok("service", "create", "-d", "--name", "db", "--secret", "pw", "--replicas", "0",
             "host", *SLEEP)
        a.refused(("services: db, web", "services: web, db"), "secret", "rm", "pw")
        a.refused("AlreadyExists", "service", "create", "-d", "--name", "web", "host", *SLEEP)
        a.ok("service", "rm", "db")
        a.refused("service: web", "secret", "rm", "pw")

    def update(self):
        """service update replaces tasks, and ends when the new ones run"""
        a = self.a
        before = {t["ID"] for t in tasks_of(a, "web")}
        a.ok("secret", "create", "pw2", "-", text=VALUE + "2")
        a.ok("service", "update", "--quiet", "--secret-rm", "pw", "--secret-add",
             "source=pw2,target=db", "--env-add", "C=d", "--update-monitor", "1s", "web")
        found = a.json("service", "inspect", "web")[0]
        container = found["Spec"]["TaskTemplate"]["ContainerSpec"]
        expect([s["SecretName"] for s in container["Secrets"]] == ["pw2"]
               and sorted(container["Env"]) == ["A=b", "C=d"], f"{container}")
        expect(found["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=b"],
               f"{found}")
        wait_until(lambda: a.json("service", "inspect", "web")[0]["UpdateStatus"]["State"]
                   == "completed", "the update to be completed", TASK_S)
        until_running(a, "web", 2)
        running = {t["ID"] for t in tasks_of(a, "web", "desired-state=running")}
        expect(not running & before, f"{running} are tasks of before")
        expect({t["ID"] for t in tasks_of(a, "web", "desired-state=shutdown")} >= before,
               "the old tasks are not told of")
        expect(a.ok("secret", "rm", "pw") == "pw", "it is used no more")
        stale = dict(found["Spec"], Labels={"late": "1"})
        path = f"/services/{found['ID']}/update?version={found['Version']['Index'] - 1}"
        self.raw.refused(500, "update out of sequence", "POST", path, stale)

    def rollback(self):
        """service rollback brings the spec of before; its secret must be there again"""
        a = self.a
        a.refused("secret", "service", "rollback", "-d", "web")  # pw is gone
        a.ok("service", "update", "-d", "--env-rm", "C", "web")
        a.ok("service", "rollback", "--quiet", "web")
        found = a.json("service", "inspect", "web")[0]
        container = found["Spec"]["TaskTemplate"]["ContainerSpec"]
        expect(sorted(container["Env"]) == ["A=b", "C=d"], f"{container}")
        until_running(a, "web", 2)

    def failing(self):
        """tasks that fail or can't be started say why; an update to them does not wait for ever"""
        a = self.a
        for name, words, state, why in (
                ("bad", ("host", "false"), "Failed", "task: non-zero exit (1)"),
                ("empty", ("/no/such/root", "true"), "Rejected", "/no/such/root"),
                ("nothing", ("host", "/no/such/program"), "Rejected", "/no/such/program")):
            a.ok("service", "create", "-d", "--name", name, "--restart-condition", "none", *words)
            wait_until(lambda n=name, s=state, w=why: any(
                t["CurrentState"].startswith(s) and w in t["Error"] for t in tasks_of(a, n)),
                f"{name} to end as {state}", TASK_S)
        a.ok("service", "create", "--name", "good", "--stop-grace-period", "1s",
             "--restart-condition", "none", *ATTACHED, "host", *SLEEP)
        a.refused("update paused due to failure or early termination of task", "service", "update",
                  "--quiet", "--args", "false", "--entrypoint", "", "--image", "/no/such/root",
                  "good")
        a.ok("service", "update", "--quiet", "--force", "--args", "1000", "--entrypoint", "sleep",
             "--image", "host", "--update-monitor", "1s", "good")
        until_running(a, "good", 1)
        a.ok("service", "rm", "bad", "empty", "nothing", "good")

    def scale(self):
        """service scale, up and down"""
        a = self.a
        expect("web scaled to 4" in a.ok("service", "scale", "-d", "web=4"), "scale")
        until_running(a, "web", 4)
        spread = [t["Node"] for t in tasks_of(a, "web", "desired-state=running")]
        expect(sorted(spread) == ["a", "a", "b", "b"], f"{spread}")
        a.ok("service", "scale", "-d", "web=1")
        until_running(a, "web", 1)
        wait_until(lambda: a.ok("service", "ls", "--format", "{{.Replicas}}") == "1/1",
                   "no more to run", TASK_S)

    def everywhere(self):
        """a global service, a constraint, a node that is drained"""
        a = self.a
        a.ok("service", "create", "--name", "each", "--mode", "global", "--restart-delay", "10ms",
             "--stop-grace-period", "1s", *ATTACHED, "host", *SLEEP)
        until_running(a, "each", 2)
        out = a.ok("service", "ls", "--format", "{{.Mode}} {{.Replicas}}", "--filter", "name=each")
        expect(out == "global 2/2", out)
        a.ok("service", "create", "-d", "--name", "on-b", "--constraint", "node.hostname==b",
             "--replicas", "2", "--stop-grace-period", "1s", "host", *SLEEP)
        until_running(a, "on-b", 2)
        expect({t["Node"] for t in tasks_of(a, "on-b")} == {"b"}, f"{tasks_of(a, 'on-b')}")
        a.ok("node", "update", "--availability", "drain", "b")
        until_running(a, "each", 1)
        until_running(a, "on-b", 0, "b to run nothing")
        a.ok("node", "update", "--availability", "active", "b")
        until_running(a, "each", 2)
        until_running(a, "on-b", 2)

    def events(self):
        """what happened is told by their events"""
        a = self.a
        until = str(int(time.time()) + 1)  # docker says whole seconds only
        lines = a.ok("events", "--since", "10m", "--until", until, "--format",
                     "{{json .}}").splitlines()
        seen = {(e["Type"], e["Action"], e["Actor"]["Attributes"]["name"])
                for e in map(json.loads, lines)}
        for want in (("secret", "create", "pw"), ("secret", "remove", "pw"),
                     ("config", "create", "cf"), ("service", "create", "web"),
                     ("service", "update", "web"), ("service", "remove", "db")):
            expect(want in seen, f"no {want} in {sorted(seen)}")
        same_without_value("".join(lines))
        scaled = [json.loads(line)["Actor"]["Attributes"] for line in a.ok(
            "events", "--since", "10m", "--until", until, "--filter", "service=web", "--filter",
            "event=update", "--format", "{{json .}}").splitlines()]
        expect(any((s.get("replicas.old"), s.get("replicas.new")) == ("4", "1") for s in scaled),
               f"{scaled}")

    def audit(self):
        """the audit tells who made, read and removed what, and no value"""
        code, out, error = self.a.cli("audit", "tail", "--json", "-n", "1000")
        expect(code == 0, error)
        records = [json.loads(line) for line in out.splitlines()]
        seen = {(r["what"], r["kind"], r.get("name", "")) for r in records}
        for want in (("create", "secret", "pw"), ("remove", "secret", "pw"),
                     ("create", "config", "cf"), ("read", "config", "cf"),
                     ("create", "service", "web"), ("update", "service", "web"),
                     ("deliver", "secret", "pw2")):
            expect(want in seen, f"no {want} in {sorted(seen)}")
        expect(not any(what == "read" and kind == "secret" for what, kind, _ in seen),
               "a secret was read")
        made = next(r for r in records if r["what"] == "create" and r["kind"] == "service")
        expect((made["who"], made["from"]) == ("operator", "socket"), f"{made}")
        same_without_value(out)

    def remove(self):
        """service rm ends the tasks, and sets secrets free"""
        a = self.a
        expect(a.ok("service", "rm", "web", "each", "on-b").split() == ["web", "each", "on-b"],
               "rm")
        a.refused(("no such service: web", "service web not found"), "service", "inspect", "web")
        until_gone(self.raw, "all tasks to be gone")
        a.ok("secret", "rm", "pw2")
        a.ok("config", "rm", "cf")
        expect(a.ok("secret", "ls", "-q") == "" == a.ok("config", "ls", "-q"), "something is left")

    def read_by(self, name, service, replicas=1):
        """What the tasks of a service have in the file of a secret."""
        a, told = self.a, os.path.join(self.test.work, service)
        os.mkdir(told)
        a.ok("service", "create", "--name", service, "--secret", name, "--replicas", str(replicas),
             "--mount", f"type=bind,source={told},target=/told", *ATTACHED, "host", "sh", "-c",
             f"cat /run/secrets/{name} > /told/$$.$(cat /proc/sys/kernel/random/uuid); "
             "exec sleep 1000")

        def values():
            found = []
            for file in os.listdir(told):
                with open(os.path.join(told, file)) as content:
                    found.append(content.read())
            expect(len(found) == replicas and all(found), f"{found}")
            return sorted(found)
        return wait_until(values, f"the values of {service}", TASK_S)

    def forget(self, name, service):
        self.a.ok("service", "rm", service)
        until_gone(self.raw, f"the tasks of {service} to be gone")
        self.a.ok("secret", "rm", name)

    def driver(self):
        """a secret's value comes from a program at each delivery, which is asked for whom"""
        a = self.a
        with open(self.program, "w") as out:
            out.write(DRIVER)
        os.chmod(self.program, 0o700)
        a.ok("secret", "create", "--driver", "vault", "-l", "path=db/1", "made")
        expect(a.json("secret", "inspect", "made")[0]["Spec"]["Driver"]["Name"] == "vault", "spec")
        expect(self.read_by("made", "reader", 2) == ["db/1 for reader"] * 2, "its value")
        self.forget("made", "reader")
        for name, driver, error in (("lacking", "vault", "no path in the labels"),
                                    ("strange", "nobody", "was not told of it")):
            a.ok("secret", "create", "--driver", driver, name)
            a.ok("service", "create", "-d", "--name", name, "--secret", name, "--restart-condition",
                 "none", "host", *SLEEP)
            wait_until(lambda n=name, e=error: [t for t in tasks_of(a, n) if e in t["Error"]
                                                and t["CurrentState"].startswith("Rejected")],
                       f"the task of {name} to be rejected: {error}", TASK_S)
            self.forget(name, name)

    def plugged(self):
        """so it does from the socket of docker's secret plugin, another one for each task"""
        server = socketserver.UnixStreamServer(self.plugin, Plugin)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.test.undo.append(server.shutdown)
        self.a.ok("secret", "create", "--driver", "plugin", "fresh")
        values = self.read_by("fresh", "many", 4)
        expect(values == [f"{VALUE} {i + 1}" for i in range(4)], f"{values}")
        expect({q[:2] for q in Plugin.asked} == {("/SecretProvider.GetSecret", "fresh")}
               and len({q[2] for q in Plugin.asked}) == 4, f"{Plugin.asked}")
        self.forget("fresh", "many")


def show_cli(test):
    if not find_docker():
        test.skip("docker services", "there is no docker command")
        return
    if os.geteuid() != 0:
        test.skip("docker services", "tasks need root")
        return
    Cli(test).run()


# --- the table of errors -------------------------------------------------------------------------

NO_CLUSTER = "This node is not a swarm manager. Use \"docker swarm init\""
LISTS = ("/secrets", "/configs", "/services", "/tasks")


def filters(key, value):
    return "?filters=" + urllib.parse.quote(json.dumps({key: [value]}))


def service_body(**more):
    container = {"Image": "host", "Args": ["true"]}
    return dict({"Name": "s", "TaskTemplate": {"ContainerSpec": container},
                 "Mode": {"Replicated": {"Replicas": 0}}}, **more)


def refuse_without_cluster(raw):
    for path in LISTS:
        raw.refused(503, NO_CLUSTER, "GET", path)
        raw.refused(503, NO_CLUSTER, "GET", path + "/x")
    for path, body in (("/secrets/create", {"Name": "x", "Data": "dg=="}),
                       ("/configs/create", {"Name": "x", "Data": "dg=="}),
                       ("/services/create", service_body())):
        raw.refused(503, NO_CLUSTER, "POST", path, body)
    for path in LISTS[:3]:
        raw.refused(503, NO_CLUSTER, "DELETE", path + "/x")


def held_errors(raw, kind, size_max):
    """Of secrets and configs, which have the same calls."""
    create = f"/{kind}s/create"
    plain = {"Name": "its-name", "Labels": {"a": "1"}, "Data": "dg=="}
    made = raw.good("POST", create, plain, 201)["ID"]
    raw.refused(409, f"{kind} its-name already exists", "POST", create, plain)
    raw.refused(409, "already exists", "POST", create, dict(plain, Name="ITS-name"))
    bounds = f"{kind} data must be larger than 0 and less than {size_max + 1} bytes"
    raw.refused(400, bounds, "POST", create, {"Name": "m", "Data": ""})
    raw.refused(400, bounds, "POST", create, {"Name": "m"})
    raw.refused(400, bounds, "POST", create, {"Name": "m", "Data": coded("x" * (size_max + 1))})
    big = raw.good("POST", create, {"Name": "big", "Data": coded("x" * size_max)}, 201)["ID"]
    raw.good("DELETE", f"/{kind}s/{big}", status=204)
    for name in ("", "-a", "a-", "a b", "a/b", "x" * 65):
        raw.refused(400, "name", "POST", create, {"Name": name, "Data": "dg=="})
    raw.refused(400, "Data", "POST", create, {"Name": "m", "Data": "?"})
    raw.refused(400, "Labels", "POST", create, {"Name": "m", "Data": "dg==", "Labels": 1})
    path = f"/{kind}s/{made}"
    found = raw.good("GET", path)
    version, spec = found["Version"]["Index"], found["Spec"]
    raw.refused(400, f"invalid {kind} version", "POST", path + "/update?version=x", spec)
    raw.refused(500, "update out of sequence", "POST", f"{path}/update?version={version - 1}", spec)
    only = "only updates to Labels are allowed"
    for change in ({"Name": "other"}, {"Data": coded("other")}):
        raw.refused(400, only, "POST", f"{path}/update?version={version}", dict(spec, **change))
    raw.good("POST", f"{path}/update?version={version}", dict(spec, Labels={"b": "2"}))
    found = raw.good("GET", path)
    expect(found["Spec"]["Labels"] == {"b": "2"} and found["Version"]["Index"] > version,
           f"{found}")
    for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/update?version=1")):
        body = {"Name": "x"} if method == "POST" else None
        raw.refused(404, f"{kind} nobody not found", method, f"/{kind}s/nobody{more}", body)
    raw.refused(400, "invalid filter 'x'", "GET", f"/{kind}s" + filters("x", "y"))
    raw.refused(400, "invalid filter", "GET", f"/{kind}s?filters=nonsense")
    ids = [raw.good("POST", create, {"Name": f"many{i}", "Data": "dg=="}, 201)["ID"]
           for i in range(37)]  # two of them begin with the same letter
    first = [i[0] for i in [*ids, made]]
    twice = next(c for c in first if first.count(c) > 1)
    raw.refused(400, f"{kind} {twice} is ambiguous ({first.count(twice)} matches found)", "GET",
                f"/{kind}s/{twice}")
    expect(len(raw.good("GET", f"/{kind}s")) == 38, "the list")
    return made


def service_errors(raw, secret, config):
    create = "/services/create"
    made = raw.good("POST", create, service_body(), 201)["ID"]
    raw.refused(409, "service s already exists", "POST", create, service_body())
    path = f"/services/{made}"

    def with_refs(**refs):
        spec = service_body(Name="t")
        spec["TaskTemplate"]["ContainerSpec"].update(refs)
        return spec
    file = {"Name": "f", "UID": "0", "GID": "0", "Mode": 292}
    for refs in ({"Secrets": [{"SecretID": secret, "SecretName": "other", "File": file}]},
                 {"Secrets": [{"SecretID": "nobody", "SecretName": "its-name", "File": file}]},
                 {"Secrets": [{"SecretID": secret, "SecretName": "its-name", "File": file}] * 2},
                 {"Configs": [{"ConfigID": config, "ConfigName": "other", "File": file}]},
                 {"Image": ""}, {"Image": "nginx"}, {"Args": 1}, {"Env": ["="]}):
        status, answer = raw("POST", create, with_refs(**refs))
        expect(status == 400 and answer["message"], f"{refs}: {status} {answer}")
    raw.refused(400, "", "POST", create, service_body(Name="a/b"))
    raw.refused(400, "", "POST", create, service_body(Name="t", Mode={"Replicated": {
        "Replicas": -1}}))
    found = raw.good("GET", path)
    version, spec = found["Version"]["Index"], found["Spec"]
    raw.refused(500, "update out of sequence", "POST", f"{path}/update?version={version - 1}", spec)
    raw.refused(400, "invalid service version", "POST", f"{path}/update?version=", spec)
    raw.refused(501, "renaming services is not supported", "POST",
                f"{path}/update?version={version}", dict(spec, Name="other"))
    raw.refused(501, "mode change is not allowed", "POST", f"{path}/update?version={version}",
                dict(spec, Mode={"Global": {}}))
    raw.refused(400, "does not have a previous spec", "POST",
                f"{path}/update?version={version}&rollback=previous", spec)
    raw.refused(400, "rollback", "POST", f"{path}/update?version={version}&rollback=x", spec)
    for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/update?version=1")):
        body = spec if method == "POST" else None
        raw.refused(404, "service nobody not found", method, f"/services/nobody{more}", body)
    raw.refused(404, "task nobody not found", "GET", "/tasks/nobody")
    raw.refused(501, "there are no logs", "GET", f"{path}/logs?stdout=1")
    for key in ("service", "node"):
        raw.refused(404, "nobody not found", "GET", "/tasks" + filters(key, "nobody"))
    raw.refused(400, "Invalid desired-state filter", "GET",
                "/tasks" + filters("desired-state", "odd"))
    raw.refused(404, "No such image", "GET", "/distribution/host:latest/json")
    raw.good("DELETE", path)


def follower_and_quorum(test, node, raw):
    """Ends with the first one alone again."""
    other = Node(test, "b").begin()
    wait_until(lambda: os.path.exists(other.sock), "the socket")
    there = Raw(other)
    there.good("POST", "/swarm/join", {
        "ListenAddr": other.peer_address, "RemoteAddrs": [node.peer_address],
        "JoinToken": raw.good("GET", "/swarm")["JoinTokens"]["Manager"]})
    wait_until(lambda: there("GET", "/secrets")[0] == 200, "the other manager")
    secret = there.good("POST", "/secrets/create", {"Name": "far", "Data": "dg=="}, 201)["ID"]
    expect(raw.good("GET", "/secrets/far")["ID"] == secret, "it is not here")
    config = raw.good("POST", "/configs/create", {"Name": "far", "Data": coded("text")}, 201)["ID"]
    expect(there.good("GET", f"/configs/{config}")["Spec"]["Data"] == coded("text"), "its data")
    service = there.good("POST", "/services/create", service_body(Name="far"), 201)["ID"]
    raw.refused(409, "service far already exists", "POST", "/services/create",
                service_body(Name="far"))
    raw.good("DELETE", f"/services/{service}")
    there.refused(404, "not found", "GET", f"/services/{service}")
    wait_until(lambda: raw.good("GET", "/info")["Swarm"]["Managers"] == 2, "two managers")
    with contextlib.closing(node.socket()) as http:
        wait_until(lambda: sum(m["role"] in ("voter", "leader") for m in http.call(
            "GET", "/conclave/v1/members")["members"]) == 2, "two voters")
    other.kill()
    none = "The swarm does not have a leader"
    calls = [(none, "GET", path) for path in (*LISTS, f"/configs/{config}")]
    calls += [(none, "POST", "/services/create", service_body(Name="lost")),
              ("", "POST", "/secrets/create", {"Name": "lost", "Data": "dg=="})]
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(Raw(node).refused, 503, *call) for call in calls]:
            done.result()
    there.http.close()
    other.begin()
    wait_until(lambda: raw("GET", "/secrets")[0] == 200, "the quorum")


def show_errors(test):
    node = Node(test, "a").begin()
    wait_until(lambda: os.path.exists(node.sock), "the socket")
    raw = Raw(node)
    with test.show("errors: a node of no cluster says so to every call"):
        refuse_without_cluster(raw)
    raw.good("POST", "/swarm/init", {"ListenAddr": node.peer_address, "AdvertiseAddr": "127.0.0.1"})
    wait_until(lambda: raw("GET", "/secrets")[0] == 200, "the manager to lead")
    made = {}
    for kind, size_max in (("secret", SECRET_MAX), ("config", CONFIG_MAX)):
        with test.show(f"errors: of {kind}s, by Swarm's table"):
            made[kind] = held_errors(raw, kind, size_max)
    with test.show("errors: of services and tasks, by Swarm's table"):
        service_errors(raw, made["secret"], made["config"])
    with test.show("errors: another manager does the same; without a quorum nothing is taken"):
        follower_and_quorum(test, node, raw)
    with test.show("errors: a node that is locked serves nothing"):
        raw.good("POST", "/swarm/update?version="
                 f"{raw.good('GET', '/swarm')['Version']['Index']}",
                 dict(raw.good("GET", "/swarm")["Spec"],
                      EncryptionConfig={"AutoLockManagers": True}))
        wait_until(lambda: "locked by the cluster's unlock key" in node.output(), "it to lock")
        raw.http.close()
        node.stop()
        node.begin()
        wait_until(lambda: raw("GET", "/info")[1]["Swarm"]["LocalNodeState"] == "locked",
                   "it to be locked")
        for path in LISTS:
            raw.refused(503, "Swarm is encrypted and needs to be unlocked", "GET", path)


# --- a value on its way in -----------------------------------------------------------------------

def ways_in(test, node, port, files):
    """{what: how a secret of that name and value is made}: one call for each way of a body."""
    def docker(*options, host):
        def send(name, value):
            code, _, err = node.docker(*options, "secret", "create", name, "-", text=value,
                                       host=host)
            expect(code == 0, err)
        return send

    def curl(*options, url):
        def send(name, value):
            body = os.path.join(test.work, "body")
            with open(body, "w") as file:
                json.dump({"Name": name, "Data": coded(value)}, file)
            done = subprocess.run(
                ["curl", "-sS", "--max-time", "10", "-H", "Content-Type: application/json",
                 "--data-binary", f"@{body}", "-w", "%{http_code}", *options,
                 f"{url}/secrets/create"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, check=False)
            expect(done.stdout.endswith("201"), done.stdout)
        return send
    tls = ("--cacert", f"{files}/ca.pem", "--cert", f"{files}/admin.pem", "--key",
           f"{files}/admin.key")
    unix, chunked = ("--unix-socket", node.sock), ("-H", "Transfer-Encoding: chunked")
    return {
        "docker": docker(host=f"unix://{node.sock}"),
        "docker over TLS": docker(
            "--tlsverify", "--tlscacert", f"{files}/ca.pem", "--tlscert", f"{files}/admin.pem",
            "--tlskey", f"{files}/admin.key", host=f"tcp://127.0.0.1:{port}"),
        "chunks": curl(*unix, *chunked, url="http://x"),
        "chunks over TLS": curl(*tls, *chunked, url=f"https://127.0.0.1:{port}"),
        "HTTP/2": curl(*unix, "--http2-prior-knowledge", url="http://x"),
        "HTTP/2 over TLS": curl(*tls, "--http2", url=f"https://127.0.0.1:{port}"),
    }


def show_memory(test):
    missing = [name for name in ("docker", "curl") if not shutil.which(name)]
    if missing:
        test.skip("a value on its way in", f"there is no {missing[0]} command")
        return
    for loops in (0, 2):
        node = Node(test, f"loops{loops}")
        node.plaintext = False
        port = node.client + 1
        node.start("--client", node.endpoint, "--peer", node.peer_address, "--init", "--engine",
                   f"127.0.0.1:{port}", "--io-loops", str(loops), addresses=False)
        node.wait_running()
        files = os.path.join(test.work, f"certificates{loops}")
        code, out, err = node.cli("cert", "admin", "--admin", "--out", files)
        expect(code == 0, f"cert: {out}{err}")
        control = hunt.Value("control")  # a name, which may be found
        ways_in(test, node, port, files)["docker"](control.bytes.decode(), "x")
        for number, (what, send) in enumerate(ways_in(test, node, port, files).items()):
            with test.show(f"memory: {loops} I/O loops, {what}: nothing of a value is left"):
                values = [hunt.Value("small"), hunt.Value("large", 300_000)]
                for value in values:
                    send(f"{value.name}{number}", value.bytes.decode())
                hits = hunt.in_memory(node.process.pid, [control, *values])
                expect(any(h[0] == "control" for h in hits), "what is no secret is not found")
                nowhere([f"{n} ({f}) in {r}" for n, f, r in hits if n != "control"], "memory")
        with test.show(f"audit: {loops} I/O loops: an administrator is named, with his address"):
            code, out, err = node.cli("audit", "tail", "--json", "-n", "100")
            expect(code == 0, err)
            seen = {(r["name"], r["who"], r["from"]) for r in map(json.loads, out.splitlines())
                    if r["what"] == "create"}
            expect(("small0", "operator", "socket") in seen
                   and ("small1", "admin admin", "127.0.0.1") in seen, f"{sorted(seen)}")


# --- python3-docker ------------------------------------------------------------------------------

def show_python(test):
    try:
        import docker
    except ImportError as error:
        test.skip("python3-docker services", str(error))
        return
    if os.geteuid() != 0:
        test.skip("python3-docker services", "tasks need root")
        return
    a, _ = small_cluster(test)
    client = docker.DockerClient(base_url=f"unix://{a.sock}", version="auto")
    types = docker.types

    def refused(status, sentence, call, *arguments, **named):
        try:
            call(*arguments, **named)
        except docker.errors.APIError as error:
            expect(error.status_code == status and sentence in str(error), str(error))
            return
        raise AssertionError(f"it was not refused: {sentence}")

    with test.show("python3-docker: secrets and configs"):
        secret = client.secrets.create(name="pw", data=VALUE, labels={"x": "y"})
        config = client.configs.create(name="cf", data=b"text")
        refused(409, "already exists", client.secrets.create, name="pw", data="x")
        attrs = client.secrets.get(secret.id).attrs
        expect(attrs["Spec"]["Labels"] == {"x": "y"} and "Data" not in attrs["Spec"], f"{attrs}")
        expect([s.id for s in client.secrets.list(filters={"name": "p"})] == [secret.id], "list")
        same_without_value(json.dumps([s.attrs for s in client.secrets.list()]))
        expect(client.configs.get(config.id).attrs["Spec"]["Data"] == coded("text"), "its data")
        expect([c.id for c in client.configs.list(filters={"label": "no"})] == [], "list")
        refused(404, "not found", client.secrets.get, "nobody")
    with test.show("python3-docker: a service runs with them, is updated and scaled"):
        service = client.services.create(
            "host", command=list(SLEEP), name="web", env=["A=b"], labels={"tier": "front"},
            secrets=[types.SecretReference(secret.id, "pw", "db", mode=0o400)],
            configs=[types.ConfigReference(config.id, "cf", "/cf")],
            mode=types.ServiceMode("replicated", replicas=2), stop_grace_period=10**9,
            restart_policy=types.RestartPolicy(condition="any", delay=10**7))
        running = {"desired-state": "running"}

        def until(count):
            wait_until(lambda: sum(t["Status"]["State"] == "running"
                                   for t in service.tasks(filters=running)) == count,
                       f"{count} running tasks", TASK_S)
        until(2)
        refused(400, "in use by the following service: web", secret.remove)
        expect([s.id for s in client.services.list(filters={"label": "tier=front"})]
               == [service.id] and client.services.list(filters={"mode": "global"}) == [], "list")
        before = {t["ID"] for t in service.tasks(filters=running)}
        service.update(env=["A=c"])
        wait_until(lambda: not before & {t["ID"] for t in service.tasks(filters=running)},
                   "other tasks", TASK_S)
        service.reload()
        expect(service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=c"]
               and service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"],
               f"{service.attrs}")
        until(2)
        expect(service.scale(1), "scale")
        until(1)
        service.reload()
        expect(service.force_update(), "force_update")
        refused(501, "there are no logs", lambda: list(service.logs(stdout=True)))
    with test.show("python3-docker: all is removed"):
        expect(service.remove(), "remove")
        refused(404, "not found", client.services.get, service.id)
        wait_until(lambda: client.api.tasks() == [], "the tasks to be gone", TASK_S)
        expect(secret.remove() and config.remove(), "secrets and configs")
        expect(client.secrets.list() == [] == client.configs.list(), "something is left")


# --- dockerode -----------------------------------------------------------------------------------

def show_node(test):
    missing = npm_packages.install() or ("" if os.geteuid() == 0 else "tasks need root")
    if missing:
        test.skip("npm dockerode services", missing)
        return
    a, _ = small_cluster(test)
    npm_packages.show_program(test, "npm dockerode services", "dockerode_services.js", a.sock,
                              seconds=NODE_S)


PARTS = {"cli": show_cli, "errors": show_errors, "memory": show_memory, "python": show_python,
         "node": show_node}


def run(test):
    for name in sys.argv[1:] or PARTS:
        PARTS[name](test)
        for manager in test.managers:
            with contextlib.suppress(OSError):
                manager.kill()


main(run)
