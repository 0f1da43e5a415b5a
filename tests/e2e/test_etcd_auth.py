#!/usr/bin/python3
"""Users, roles and permissions with the clients that others wrote (etcdctl, python3-etcd3) and raw
gRPC, on one member and three: enabling, what is denied to whom (reads, writes, transactions within
transactions, watches, leases, maintenance), the CN of a certificate as a user, tokens on another
member and after a change of password, guessing, a restart, disabling. Arguments: the parts to run
(rules, members, certificates, nodes)."""
import base64
import contextlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster import expect, main, wait_until
from etcd_servers import ConclaveServers
from joins import Node
import client_python
import etcd_rpc

GUESSES = 30  # wrong passwords in a row
DENIED = ("PERMISSION_DENIED", "etcdserver: permission denied")
NOBODY = ("INVALID_ARGUMENT", "etcdserver: user name is empty")
BAD_TOKEN = ("UNAUTHENTICATED", "etcdserver: invalid auth token")


class Users:
    """root, and "u" who may read and write a/ and only read r/; on `servers`, by gRPC."""

    def __init__(self, servers):
        self.servers, self.pb = servers, servers.pb
        pb, rpc = self.pb, servers.rpc()
        rpc.must("UserAdd", pb.AuthUserAddRequest(name="root", password="rootpw"))
        rpc.must("UserAdd", pb.AuthUserAddRequest(name="u", password="upw"))
        rpc.must("RoleAdd", pb.AuthRoleAddRequest(name="r"))
        rpc.must("RoleAdd", pb.AuthRoleAddRequest(name="root"))
        rpc.must("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root"))
        rpc.must("UserGrantRole", pb.AuthUserGrantRoleRequest(user="u", role="r"))
        for kind, key, end in ((2, b"a/", b"a0"), (0, b"r/", b"r0")):
            rpc.must("RoleGrantPermission", self.grant("r", kind, key, end))
        rpc.must("Put", pb.PutRequest(key=b"r/1", value=b"1"))
        rpc.must("Put", pb.PutRequest(key=b"secret", value=b"1"))
        rpc.must("AuthEnable", pb.AuthEnableRequest())
        rpc.close()
        self.root, self.u = self.token("root"), self.token("u")

    def grant(self, role, kind, key, end=b""):
        request = self.pb.AuthRoleGrantPermissionRequest(name=role)
        request.perm.permType, request.perm.key, request.perm.range_end = kind, key, end
        return request

    def token(self, name, password=None, which=0):
        request = self.pb.AuthenticateRequest(name=name, password=password or name + "pw")
        with contextlib.closing(self.servers.rpc(which)) as rpc:
            return rpc.must("Authenticate", request).token

    def call(self, method, request, token=None, which=0):
        """(message, error)"""
        with contextlib.closing(self.servers.rpc(which)) as rpc:
            return rpc.call(method, request, token)

    def good(self, method, request, token, which=0):
        message, error = self.call(method, request, token, which)
        expect(error is None, f"{method}: {error}")
        return message

    def bad(self, expected, method, request, token=None, which=0):
        _, error = self.call(method, request, token, which)
        expect(error == expected, f"{method}: {error}, expected {expected}")


def etcdctl(servers, *words, user=None, files=None):
    """(exit code, output, errors)"""
    env = dict(os.environ, **servers.environment())
    if files:
        env.update(zip(("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"), files))
    command = ["etcdctl", "--endpoints", ",".join(servers.urls), *words]
    if user:
        command += ["--user", user]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env=env, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def says(servers, expected, *words, **more):
    code, out, error = etcdctl(servers, *words, **more)
    expect(expected in out + error, f"etcdctl {' '.join(words)}: {code} {out} {error}")
    return out


# --- rules ---------------------------------------------------------------------------------------

def show_reads_and_writes(test, users):
    pb = users.pb
    with test.show("a user reads and writes what the roles grant, root everything, nobody nothing"):
        users.good("Put", pb.PutRequest(key=b"a/1", value=b"1"), users.u)
        users.good("Range", pb.RangeRequest(key=b"a/", range_end=b"a0"), users.u)
        users.good("Range", pb.RangeRequest(key=b"r/", range_end=b"r0", serializable=True), users.u)
        users.bad(DENIED, "Put", pb.PutRequest(key=b"r/1"), users.u)
        users.bad(DENIED, "DeleteRange", pb.DeleteRangeRequest(key=b"r/1"), users.u)
        for read in (dict(key=b"secret"), dict(key=b"\0", range_end=b"\0"),
                     dict(key=b"a/", range_end=b"b"), dict(key=b"a/", range_end=b"\0"),
                     dict(key=b"secret", serializable=True), dict(key=b"secret", count_only=True)):
            users.bad(DENIED, "Range", pb.RangeRequest(**read), users.u)
        users.good("Range", pb.RangeRequest(key=b"\0", range_end=b"\0"), users.root)
        users.bad(NOBODY, "Range", pb.RangeRequest(key=b"a/1"))
        users.bad(NOBODY, "Put", pb.PutRequest(key=b"a/1"))
        users.bad(BAD_TOKEN, "Put", pb.PutRequest(key=b"a/1"), "a.1")
        users.bad(BAD_TOKEN, "Range", pb.RangeRequest(key=b"a/1"), users.u[:-2] + "AA")


def show_transactions(test, users):
    pb = users.pb

    def txn(compare=(), success=(), failure=()):
        return pb.TxnRequest(compare=compare, success=success, failure=failure)

    def op(**kind):
        return pb.RequestOp(**kind)

    put = op(request_put=pb.PutRequest(key=b"a/t", value=b"1"))
    denied = {
        "a compare": txn([pb.Compare(key=b"secret", target=0, version=1)], [put]),
        "a range of compares": txn([pb.Compare(key=b"a", range_end=b"z")], [put]),
        "a read": txn([], [op(request_range=pb.RangeRequest(key=b"secret"))]),
        "a write": txn([], [op(request_put=pb.PutRequest(key=b"secret"))]),
        "the branch not taken": txn([], [put],
                                    [op(request_put=pb.PutRequest(key=b"secret"))]),
        "a delete": txn([], [op(request_delete_range=pb.DeleteRangeRequest(key=b"r/1"))]),
        "what was there before a put": txn([], [op(request_put=pb.PutRequest(
            key=b"w", prev_kv=True))]),
    }
    for name, inner in list(denied.items()):
        other = op(request_put=pb.PutRequest(key=b"a/other", value=b"1"))
        denied[name + ", nested"] = txn([], [other, op(request_txn=txn([], [], [
            op(request_txn=inner)]))])
    with test.show("a transaction is denied for any part of it, however deep, taken or not"):
        users.good("RoleGrantPermission", users.grant("r", 1, b"w"), users.root)
        for name, request in denied.items():
            _, error = users.call("Txn", request, users.u)
            expect(error == DENIED, f"{name}: {error}")
        users.bad(DENIED, "Put", pb.PutRequest(key=b"w", prev_kv=True), users.u)
        users.good("Txn", txn([pb.Compare(key=b"a/1")], [put], [put]), users.u)
        found = users.good("Range", pb.RangeRequest(key=b"secret"), users.root)
        expect(found.kvs[0].version == 1, "a denied transaction wrote")


def first_answer(users, request, token):
    with contextlib.closing(users.servers.rpc()) as rpc:
        stream = rpc.stream("Watch", token)
        stream.send(users.pb.WatchRequest(create_request=request))
        answer = stream.take()
        stream.close()
        return answer


def show_watches(test, users):
    pb = users.pb
    with test.show("a watch needs the permission to read all that it sees"):
        for request, token, reason in (
                (dict(key=b"a/", range_end=b"a0"), users.u, None),
                (dict(key=b"r/1"), users.u, None),
                (dict(key=b"secret"), users.u, "permission denied"),
                (dict(key=b"r/1", range_end=b"\0"), users.u, "permission denied"),
                (dict(key=b"r/", range_end=b"s"), users.u, "permission denied"),
                (dict(key=b"a/1"), None, "user name is empty"),
                (dict(key=b"secret"), users.root, None)):
            said = first_answer(users, pb.WatchCreateRequest(**request), token).cancel_reason
            expect((reason or "") in said and bool(reason) == bool(said), f"{request}: {said!r}")


def show_leases(test, users):
    pb = users.pb
    with test.show("a lease: nobody has one, and whoever puts it on a key may write all its keys"):
        users.bad(NOBODY, "LeaseGrant", pb.LeaseGrantRequest(TTL=60))
        lease = users.good("LeaseGrant", pb.LeaseGrantRequest(TTL=60), users.root).ID
        users.good("Put", pb.PutRequest(key=b"secret", lease=lease), users.root)
        users.bad(DENIED, "Put", pb.PutRequest(key=b"a/1", lease=lease), users.u)
        users.bad(DENIED, "LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), users.u)
        users.bad(DENIED, "LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=lease, keys=True),
                  users.u)
        own = users.good("LeaseGrant", pb.LeaseGrantRequest(TTL=60), users.u).ID
        users.good("Put", pb.PutRequest(key=b"a/1", lease=own), users.u)
        users.good("LeaseRevoke", pb.LeaseRevokeRequest(ID=own), users.u)
        users.good("LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), users.root)


def show_maintenance(test, users):
    pb = users.pb
    root_only = {
        "Defragment": pb.DefragmentRequest(), "Hash": pb.HashRequest(),
        "HashKV": pb.HashKVRequest(),
        "Alarm": pb.AlarmRequest(action=1, alarm=1), "MoveLeader": pb.MoveLeaderRequest(targetID=1),
        "Compact": pb.CompactionRequest(revision=1), "MemberRemove": pb.MemberRemoveRequest(ID=1),
        "MemberUpdate": pb.MemberUpdateRequest(ID=1, peerURLs=["http://127.0.0.1:1"]),
        "MemberAdd": pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"]),
        "MemberPromote": pb.MemberPromoteRequest(ID=1),
        "AuthEnable": pb.AuthEnableRequest(), "AuthDisable": pb.AuthDisableRequest(),
        "UserAdd": pb.AuthUserAddRequest(name="x", password="x"),
        "UserDelete": pb.AuthUserDeleteRequest(name="root"),
        "UserChangePassword": pb.AuthUserChangePasswordRequest(name="u", password="x"),
        "UserGrantRole": pb.AuthUserGrantRoleRequest(user="u", role="root"),
        "UserRevokeRole": pb.AuthUserRevokeRoleRequest(name="u", role="r"),
        "UserGet": pb.AuthUserGetRequest(name="root"), "UserList": pb.AuthUserListRequest(),
        "RoleAdd": pb.AuthRoleAddRequest(name="x"),
        "RoleDelete": pb.AuthRoleDeleteRequest(role="r"),
        "RoleGet": pb.AuthRoleGetRequest(role="root"), "RoleList": pb.AuthRoleListRequest(),
        "RoleGrantPermission": users.grant("r", 2, b"secret"),
        "RoleRevokePermission": pb.AuthRoleRevokePermissionRequest(role="r", key=b"w"),
    }
    with test.show("maintenance, members, users and roles are root's; nobody's is nothing"):
        for method, request in root_only.items():
            users.bad(DENIED, method, request, users.u)
            users.bad(NOBODY, method, request)
        for method in ("Status", "MemberList", "LeaseLeases"):
            request = getattr(pb, method + "Request")()
            users.bad(NOBODY, method, request)
            users.good(method, request, users.u)
        _, error = users_snapshot(users, users.u)
        expect(error == DENIED, f"Snapshot: {error}")
        for method in ("Hash", "HashKV", "Defragment", "UserList", "RoleList"):
            users.good(method, root_only[method], users.root)
        users.good("UserGet", pb.AuthUserGetRequest(name="u"), users.u)
        users.good("RoleGet", pb.AuthRoleGetRequest(role="r"), users.u)


def users_snapshot(users, token):
    with contextlib.closing(users.servers.rpc()) as rpc:
        return rpc.download("Snapshot", users.pb.SnapshotRequest(), token)


def show_passwords(test, users):
    pb = users.pb
    wrong = ("INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password")
    with test.show("a wrong password and an unknown user are told alike; guessing is slowed down"):
        for name in ("u", "zz", ""):
            users.bad(wrong, "Authenticate", pb.AuthenticateRequest(name=name, password="x"))
        began, refused = time.monotonic(), 0
        for _ in range(GUESSES):
            _, error = users.call("Authenticate", pb.AuthenticateRequest(name="zz", password="x"))
            refused += error[0] == "RESOURCE_EXHAUSTED"
            expect(error == wrong or error[0] == "RESOURCE_EXHAUSTED", f"{error}")
        spent = time.monotonic() - began
        expect(refused >= GUESSES - 12 - spent, f"{refused} of {GUESSES} refused in {spent:.1f} s")
        # Other names go on, but that one of a thousand shares the counter by chance.
        right = pb.AuthenticateRequest(name="root", password="rootpw")
        wait_until(lambda: users.call("Authenticate", right)[1] is None, "root's token")
    with test.show("a hashed password is refused with a word; a user without one can't come by it"):
        request = pb.AuthUserAddRequest(name="h", hashedPassword="JDJhJDEw")
        _, error = users.call("UserAdd", request, users.root)
        expect(error and error[0] == "INVALID_ARGUMENT" and "Argon2id" in error[1], f"{error}")
        request = pb.AuthUserAddRequest(name="n")
        request.options.no_password = True
        users.good("UserAdd", request, users.root)
        empty = pb.AuthenticateRequest(name="n", password="")
        wait_until(lambda: users.call("Authenticate", empty)[1] == wrong,
                   "a user without a password to be refused")


def show_etcdctl(test, servers):
    root = "root:rootpw"
    with test.show("etcdctl: users and roles, verb by verb"):
        says(servers, "User e created", "user", "add", "e:epw", user=root)
        says(servers, "Role er created", "role", "add", "er", user=root)
        says(servers, "Role er updated", "role", "grant-permission", "er", "readwrite",
             "--prefix", "e/", user=root)
        says(servers, "Role er is granted to user e", "user", "grant-role", "e", "er", user=root)
        says(servers, "Roles: er", "user", "get", "e", user=root)
        says(servers, "[e/, e0) (prefix e/)", "role", "get", "er", user=root)
        says(servers, "OK", "put", "e/1", "x", user="e:epw")
        says(servers, "permission denied", "put", "f", "x", user="e:epw")
        says(servers, "user name is empty", "get", "e/1")
        says(servers, "authentication failed", "get", "e/1", user="e:wrong")
        says(servers, "Role er is revoked from user e", "user", "revoke-role", "e", "er", user=root)
        says(servers, "permission denied", "put", "e/1", "x", user="e:epw")
        says(servers, "User e deleted", "user", "delete", "e", user=root)
        says(servers, "Role er deleted", "role", "delete", "er", user=root)
        says(servers, "is healthy", "endpoint", "health", user=root)


def show_rules(test):
    servers = ConclaveServers(test, 1)
    users = Users(servers)
    show_reads_and_writes(test, users)
    show_transactions(test, users)
    show_watches(test, users)
    show_leases(test, users)
    show_maintenance(test, users)
    show_passwords(test, users)
    show_etcdctl(test, servers)
    pb = users.pb
    show_enabled(test, users)
    with test.show("after kill -9 and a start the users, their tokens and permissions are there"):
        servers.kill(0)
        servers.start(0)
        wait_until(lambda: users.call("Range", pb.RangeRequest(key=b"a/1"), users.u)[1] is None,
                   "the token to be good again")
        users.bad(DENIED, "Put", pb.PutRequest(key=b"secret"), users.u)
    with test.show("the socket's owner is an operator: no user, no permissions"):
        users.good("Put", pb.PutRequest(key=b"secret", value=b"1"), users.root)
        with contextlib.closing(servers.cluster[0].socket()) as http:
            expect(http.get(b"secret") is not None, "a read by the socket")
            http.put(b"secret", b"2")
    with test.show("disabled, everybody may everything, and tokens are of no use"):
        users.good("AuthDisable", pb.AuthDisableRequest(), users.root)
        users.good("Put", pb.PutRequest(key=b"secret"), None)
        users.good("Put", pb.PutRequest(key=b"secret"), "nonsense")
        users.good("AuthEnable", pb.AuthEnableRequest(), None)
        users.bad(BAD_TOKEN, "Range", pb.RangeRequest(key=b"a/1"), users.root)
    servers.close()


# --- members -------------------------------------------------------------------------------------

def put_until(users, which, token, stop, seen):
    """Writes with a token until told to stop; notes errors."""
    with contextlib.closing(users.servers.rpc(which)) as rpc:
        while not stop.is_set():
            _, error = rpc.call("Put", users.pb.PutRequest(key=b"a/loop", value=b"x"), token)
            seen.append(error)


def gateway(address):
    client = http.client.HTTPConnection(address, timeout=60)
    client.connect()
    return client


def show_enabled(test, users):
    """Auth comes on between a call's start and its end: whoever showed a token is not nobody. The
    member is held still, and finds the calls beside the switch."""
    pb, servers = users.pb, users.servers
    key = base64.b64encode(b"a/1").decode()
    calls = {"/v3/kv/put": {"key": key}, "/v3/kv/range": {"key": key}}
    with test.show("auth comes on while a call is under way: its token is looked at all the same"):
        users.good("AuthDisable", pb.AuthDisableRequest(), users.root)
        clients = [gateway(servers.addresses()[0]) for _ in range(3)]
        with servers.cluster.managers[0].held_still():
            clients[0].request("POST", "/v3/auth/enable", "{}")
            for client, (path, body) in zip(clients[1:], calls.items()):
                client.request("POST", path, json.dumps(body), {"Authorization": users.root})
        answers = [json.loads(c.getresponse().read()) for c in clients]
        expect("error" not in answers[0], f"{answers[0]}")
        put, read = answers[1:]  # the token was of the time before; the read may have been too
        expect(put.get("message") == BAD_TOKEN[1], f"{put}")
        expect(read.get("message") in (None, BAD_TOKEN[1]), f"{read}")
        for client in clients:
            client.close()
        users.root, users.u = users.token("root"), users.token("u")


def show_members(test):
    servers = ConclaveServers(test, 3)
    users = Users(servers)
    pb = users.pb
    others = range(1, 3)
    with test.show("a token that one member gave is good on the others"):
        for which in others:
            wait_until(lambda at=which: users.call("Range", pb.RangeRequest(key=b"a/1"), users.u,
                                                   at)[1] is None, "the token to be known")
            users.good("Put", pb.PutRequest(key=b"a/1"), users.u, which)
            users.bad(DENIED, "Put", pb.PutRequest(key=b"secret"), users.u, which)
            users.bad(NOBODY, "Range", pb.RangeRequest(key=b"a/1"), None, which)
    with test.show("while users and roles change, writes that stay permitted go on without errors"):
        stop, seen = threading.Event(), []
        writers = [threading.Thread(target=put_until, args=(users, at, users.u, stop, seen))
                   for at in range(3)]
        for writer in writers:
            writer.start()
        for i in range(20):
            users.good("RoleAdd", pb.AuthRoleAddRequest(name=f"x{i}"), users.root, i % 3)
        stop.set()
        for writer in writers:
            writer.join()
        errors = [e for e in seen if e]
        expect(len(seen) > 20 and not errors, f"{len(seen)} writes, errors {errors[:3]}")
    with test.show("another password voids the tokens of its user, everywhere, and no others"):
        request = pb.AuthUserChangePasswordRequest(name="u", password="new")
        users.good("UserChangePassword", request, users.root)
        for which in range(3):
            wait_until(lambda at=which: users.call("Range", pb.RangeRequest(key=b"a/1"), users.u,
                                                   at)[1] == BAD_TOKEN, "the token to be void")
            users.good("Range", pb.RangeRequest(key=b"a/1"), users.root, which)
        users.u = users.token("u", "new", 2)
        users.good("Put", pb.PutRequest(key=b"a/1"), users.u, 0)
    with test.show("with the leader killed, tokens and permissions hold on the others"):
        leader = servers.cluster.managers.index(servers.cluster.leader())
        servers.kill(leader)
        which = servers.running()[0]
        wait_until(lambda: users.call("Put", pb.PutRequest(key=b"a/1"), users.u, which)[1] is None,
                   "a write with the token")
        users.bad(DENIED, "Put", pb.PutRequest(key=b"secret"), users.u, which)
        servers.start(leader)
        wait_until(lambda: users.call("Range", pb.RangeRequest(key=b"a/1"), users.u,
                                      leader)[1] is None, "the token on the member that is back")
    with test.show("a deleted user's token is void; a new user of that name does not inherit it"):
        users.good("UserDelete", pb.AuthUserDeleteRequest(name="u"), users.root)
        users.good("UserAdd", pb.AuthUserAddRequest(name="u", password="new"), users.root)
        wait_until(lambda: users.call("Range", pb.RangeRequest(key=b"a/1"), users.u)[1] ==
                   BAD_TOKEN, "the token to be void")
    servers.cluster.wait_same()
    servers.close()


# --- certificates --------------------------------------------------------------------------------

def client_certificate(servers, name):
    """(ca, certificate, key) of a client that is no administrator."""
    directory = os.path.join(servers.test.work, "users")
    os.makedirs(directory, exist_ok=True)
    code, _, error = servers.cluster[0].cli("cert", name, "--out", directory)
    expect(code == 0, f"conclave cert: {error}")
    return tuple(os.path.join(directory, leaf) for leaf in ("ca.pem", name + ".pem", name + ".key"))


def show_certificates(test):
    servers = ConclaveServers(test, 1, tls=True)
    admin = servers.tls
    users = Users(servers)
    pb = users.pb
    alice, stranger = client_certificate(servers, "u"), client_certificate(servers, "zz")
    with test.show("mutual TLS: the certificate's CN is the user, when there is one of that name"):
        says(servers, "OK", "put", "a/1", "x", files=alice)
        says(servers, "permission denied", "put", "secret", "x", files=alice)
        says(servers, "permission denied", "user", "list", files=alice)
        says(servers, "user name is empty", "get", "a/1", files=stranger)
    with test.show("a token goes before the certificate's name, also before an administrator's"):
        says(servers, "OK", "put", "secret", "x", files=alice, user="root:rootpw")
        says(servers, "permission denied", "put", "secret", "x", files=admin, user="u:upw")
        says(servers, "OK", "put", "a/1", "x", files=stranger, user="u:upw")
    with test.show("an administrator's certificate is an operator's: permissions do not bind it"):
        says(servers, "OK", "put", "secret", "x", files=admin)
        says(servers, "root", "user", "list", files=admin)
    with test.show("python3-etcd3 by name and password"):
        servers.tls = stranger
        user = client_python.connect(servers, user="u", password="upw")
        user.put("a/py", "1")
        expect(user.get("a/py")[0] == b"1", "what was put")
        user.close()
        servers.tls = admin
    with test.show("nobody gets around a bad token by a good certificate"):
        servers.tls = alice
        users.bad(BAD_TOKEN, "Range", pb.RangeRequest(key=b"a/1"), "nonsense")
        servers.tls = admin
    servers.close()


# --- certificates of nodes -----------------------------------------------------------------------

def refused_calls(servers, files, word):
    """Which of four calls are denied; each for a reason with this word in it, or not at all."""
    pb, found = servers.pb, []
    calls = {"Put": pb.PutRequest(key=b"a", value=b"1"), "Range": pb.RangeRequest(key=b"a"),
             "MemberRemove": pb.MemberRemoveRequest(ID=77), "AuthEnable": pb.AuthEnableRequest()}
    with contextlib.closing(etcd_rpc.Rpc(pb, servers.addresses()[0], files)) as rpc:
        for method, request in calls.items():
            _, error = rpc.call(method, request)
            if error and error[0] == "PERMISSION_DENIED":
                expect(word in error[1], f"{method}: {error}")
                found.append(method)
    return found


def gateway_status(servers, files, method, path):
    context = ssl.create_default_context(cafile=files[0])
    context.check_hostname = False
    context.load_cert_chain(files[1], files[2])
    client = http.client.HTTPSConnection(servers.addresses()[0], context=context, timeout=30)
    with contextlib.closing(client):
        client.request(method, path, "{}" if method == "POST" else None)
        return client.getresponse().status


def show_nodes(test):
    servers = ConclaveServers(test, 1, tls=True)
    lone = servers.cluster[0]
    everything = ["Put", "Range", "MemberRemove", "AuthEnable"]

    def cli(*words):
        code, out, error = lone.cli(*words)
        expect(code == 0, f"{' '.join(words)}: {error}")
        return out.strip()

    def joined(role):
        node = Node(test).join(lone.peer_address, cli("token", "show", "--role", role))
        return node, (node.root, *node.pair)

    def paths(files):
        return [gateway_status(servers, files, *way)
                for way in (("POST", "/v3/kv/range"), ("GET", "/metrics"))]

    worker, at_work = joined("worker")
    manager, managing = joined("manager")
    with test.show("a worker's certificate is no client's, before and after its removal"):
        expect(refused_calls(servers, at_work, "worker's certificate") == everything, "let in")
        expect(paths(at_work) == [403, 403], f"{paths(at_work)}")
        cli("node", "rm", "--force", worker.id)
        expect(refused_calls(servers, at_work, "worker's certificate") == everything, "let in")
    with test.show("a manager's certificate is an administrator's until it is removed"):
        with contextlib.closing(etcd_rpc.Rpc(servers.pb, lone.endpoint, managing)) as rpc:
            rpc.must("Put", servers.pb.PutRequest(key=b"a", value=b"1"))
            rpc.must("UserAdd", servers.pb.AuthUserAddRequest(name="x", password="x"))
            cli("member", "rm", manager.id)
            _, error = rpc.call("Range", servers.pb.RangeRequest(key=b"a"))
        expect(error and "not one of the cluster's managers" in error[1], f"{error}")
        expect(refused_calls(servers, managing, "managers") == everything, "let in")
        expect(paths(managing) == [403, 403], f"{paths(managing)}")
    with test.show("a client's reads and writes keys, but changes neither members nor users"):
        client = client_certificate(servers, "joe")
        expect(refused_calls(servers, client, "administrator's certificate") == everything[2:],
               "let do too much, or too little")
    with test.show("the same over the socket, and by an administrator's, is as with etcd"):
        with contextlib.closing(lone.socket()) as local:
            local.call("POST", "/v3/auth/role/add", {"name": "by-socket"})
        says(servers, "Role by-admin created", "role", "add", "by-admin", files=servers.tls)
    servers.close()


SHOWS = {"rules": show_rules, "members": show_members, "certificates": show_certificates,
         "nodes": show_nodes}


def run_all(test):
    for name in sys.argv[1:] or SHOWS:
        SHOWS[name](test)


if __name__ == "__main__":
    main(run_all)
