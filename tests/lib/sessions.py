"""A node's session by hand (api/node/node_wire.h, api/service/assign_wire.h): what a worker that is
not honest may say to a manager with a certificate that is real."""
import struct

from cluster import expect
from joins import ALPN_NODE, Reader, block, connect, frame, receive

WIRE_NODE = 16                               # enum wire_type
HELLO, BEAT, STATUS, WANT, LEAVE, ASSIGN, TASKS, RESYNC, FETCH, FETCHED = range(1, 11)
CUT = 0                                      # the manager's last word
TASK, VALUE, REMOVE_TASK, REMOVE_VALUE = range(1, 5)
SECRET, CONFIG = 4, 5                        # enum row_kind


class Cut(Exception):
    """The manager has ended the session, and said why."""


class Session:
    """An open one; a context manager."""

    def __init__(self, address, node, hostname=None):
        self.tls = connect(address, ALPN_NODE, node.pair)
        self.tls.settimeout(10)
        texts = (node.name, hostname or node.name, "linux", "x86_64", "test")
        self.say(HELLO, b"".join(map(block, texts)) + struct.pack("<QQ", 1, 1) +
                 block("127.0.0.1:1") + block("127.0.0.1:2"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tls.close()

    def say(self, kind, body=b""):
        self.tls.sendall(frame(WIRE_NODE, bytes([kind]) + block(body)))

    def hear(self, *kinds):
        """The body of the next message of one of these kinds."""
        for _ in range(100):
            wire, body = receive(self.tls)
            expect(wire == WIRE_NODE, f"a frame of type {wire}")
            reader = Reader(body)
            kind, said = reader.number("<B"), reader.block()
            if kind == CUT:
                raise Cut(said[6:].decode(errors="replace"))
            if kind in kinds:
                return kind, said
        raise Cut("it says a hundred other things")

    def assignment(self):
        """[(item's kind, bytes)] of the next whole one."""
        items, last = [], False
        while not last:
            _, body = self.hear(ASSIGN)
            last = body[17] == 1
            reader = Reader(body[18:])
            while reader.data:
                items.append((reader.number("<B"), reader.block()))
        return items

    def fetch(self, *names, kind=SECRET, number=7):
        """(error, sentence, number of values, all bytes of the answer)."""
        self.say(FETCH, struct.pack("<QI", number, len(names)) +
                 b"".join(bytes([kind]) + block(name) + struct.pack("<I", 0) for name in names))
        _, body = self.hear(FETCHED)
        reader = Reader(body)
        expect(reader.number("<Q") == number, "an answer to another question")
        return reader.number("<H"), reader.text(), reader.number("<I"), body

    def report(self, task_id, state, error="", pid=1):
        self.say(TASKS, task_id.encode() + struct.pack("<Iii", state, 0, pid) + block("") +
                 block(error))
