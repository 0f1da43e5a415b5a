"""gRPC to anything that speaks the etcd v3 API, from messages that protoc makes of etcd.proto when
a test starts. `Rpc` is one channel: `call` waits for an answer, `start` returns a future, `stream`
opens a stream that a test feeds and reads. An answer is `(message, None)` or
`(None, (CODE, text))`: an error is something to compare, not something to raise."""
import importlib.util
import os
import queue
import subprocess
import sys
import threading

# Servers are started from here too: what gRPC does around a fork waits for calls under way.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc

HERE = os.path.dirname(os.path.abspath(__file__))
MESSAGE_MAX = 64 << 20
CALL_S = 30

SERVICES = {
    "etcdserverpb.KV": "Range Put DeleteRange Txn Compact",
    "etcdserverpb.Lease": "LeaseGrant LeaseRevoke LeaseTimeToLive LeaseLeases",
    "etcdserverpb.Cluster": "MemberAdd MemberRemove MemberUpdate MemberList MemberPromote",
    "etcdserverpb.Maintenance": "Alarm Status Defragment Hash HashKV MoveLeader Downgrade",
    "etcdserverpb.Auth": "AuthEnable AuthDisable AuthStatus Authenticate UserAdd UserGet UserList "
                         "UserDelete UserChangePassword UserGrantRole UserRevokeRole RoleAdd "
                         "RoleGet RoleList RoleDelete RoleGrantPermission RoleRevokePermission",
    "v3lockpb.Lock": "Lock Unlock",
    "v3electionpb.Election": "Campaign Proclaim Leader Resign",
}
STREAMS = {  # method: (service, request, response)
    "Watch": ("etcdserverpb.Watch", "WatchRequest", "WatchResponse"),
    "LeaseKeepAlive": ("etcdserverpb.Lease", "LeaseKeepAliveRequest", "LeaseKeepAliveResponse"),
    "Snapshot": ("etcdserverpb.Maintenance", "SnapshotRequest", "SnapshotResponse"),
    "Observe": ("v3electionpb.Election", "LeaderRequest", "LeaderResponse"),
    "RangeStream": ("etcdserverpb.KV", "RangeRequest", "RangeStreamResponse"),
}
PREFIX = {"Compact": "Compaction"}  # of messages that are not named as their method is


def load(work):
    """The module with the messages; `work` is a directory for it."""
    if "etcd_pb2" not in sys.modules:
        subprocess.run(["protoc", "--python_out=" + work, "--proto_path=" + HERE, "etcd.proto"],
                       check=True)
        spec = importlib.util.spec_from_file_location("etcd_pb2", os.path.join(work, "etcd_pb2.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules["etcd_pb2"] = module
        spec.loader.exec_module(module)
    return sys.modules["etcd_pb2"]


def message_prefix(service, method):
    if service.endswith(".Auth") and method.startswith(("User", "Role")):
        return "Auth" + method
    return PREFIX.get(method, method)


def methods(pb):
    """{method: (path, request class, response class)} of the calls with one answer."""
    found = {}
    for service, names in SERVICES.items():
        for method in names.split():
            prefix = message_prefix(service, method)
            found[method] = (f"/{service}/{method}", getattr(pb, prefix + "Request"),
                             getattr(pb, prefix + "Response"))
    return found


def verdict(error):
    """The code and the text of a call that failed."""
    return error.code().name, error.details()


class Stream:
    """A stream: `send` requests, read `answers` (a queue; None at the end, then `error` is set)."""

    def __init__(self, call, requests):
        self.inner, self.requests = call, requests
        self.answers, self.error = queue.SimpleQueue(), None
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for answer in self.inner:
                self.answers.put(answer)
        except grpc.RpcError as error:
            self.error = verdict(error)
        self.answers.put(None)

    def send(self, request):
        self.requests.put(request)

    def half_close(self):
        self.requests.put(None)

    def take(self, seconds=CALL_S):
        """The next answer, or None at the end; raises queue.Empty after `seconds`."""
        return self.answers.get(timeout=seconds)

    def close(self):
        self.requests.put(None)
        self.inner.cancel()


class Rpc:
    """One channel to one address; `tls` is (ca, cert, key) as file names, or None."""

    def __init__(self, pb, address, tls=None):
        self.pb, self.address = pb, address
        options = [("grpc.max_receive_message_length", MESSAGE_MAX),
                   ("grpc.max_send_message_length", MESSAGE_MAX),
                   ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        if tls:
            parts = [open(name, "rb").read() if name else None for name in tls]
            credentials = grpc.ssl_channel_credentials(parts[0], parts[2], parts[1])
            self.channel = grpc.secure_channel(address, credentials, options)
        else:
            self.channel = grpc.insecure_channel(address, options)
        self.methods = {
            name: self.channel.unary_unary(path, request_serializer=request.SerializeToString,
                                           response_deserializer=response.FromString)
            for name, (path, request, response) in methods(pb).items()}

    def close(self):
        self.channel.close()

    def start(self, method, request, token=None, seconds=CALL_S):
        metadata = (("token", token),) if token else None
        return self.methods[method].future(request, timeout=seconds, metadata=metadata)

    @staticmethod
    def finish(future):
        try:
            return future.result(), None
        except grpc.RpcError as error:
            return None, verdict(error)

    def call(self, method, request, token=None, seconds=CALL_S):
        return self.finish(self.start(method, request, token, seconds))

    def must(self, method, request, token=None, seconds=CALL_S):
        """The answer of a call that has to succeed."""
        answer, error = self.call(method, request, token, seconds)
        if error:
            raise OSError(f"{method} to {self.address}: {error[0]}: {error[1]}")
        return answer

    def stream(self, method, token=None):
        """A stream with requests of its own (Watch, LeaseKeepAlive)."""
        service, request, response = STREAMS[method]
        make = self.channel.stream_stream(
            f"/{service}/{method}",
            request_serializer=getattr(self.pb, request).SerializeToString,
            response_deserializer=getattr(self.pb, response).FromString)
        requests = queue.SimpleQueue()
        call = make(iter(requests.get, None), metadata=(("token", token),) if token else None)
        return Stream(call, requests)

    def download(self, method, request, token=None, seconds=CALL_S):
        """All answers of a stream with one request (Snapshot, RangeStream), and its error."""
        service, _, response = STREAMS[method]
        make = self.channel.unary_stream(
            f"/{service}/{method}", request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(self.pb, response).FromString)
        found = []
        try:
            for answer in make(request, timeout=seconds,
                               metadata=(("token", token),) if token else None):
                found.append(answer)
        except grpc.RpcError as error:
            return found, verdict(error)
        return found, None
