"""What goes over the wires of a test: all packets of all interfaces of some network namespaces,
kept in memory, as they are and as the byte streams of their TCP connections. Needs root."""
import os
import select
import socket
import struct
import threading

from cluster import Failure, expect
from netns import within

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS = 263, 6
BUFFER = 64 << 20
KEPT_MAX = 512 << 20
TLS_TYPES = (20, 21, 22, 23)  # of records
APPLICATION_DATA = 23
TLS_RECORD_MAX = (1 << 14) + 256


def tcp_of(packet):
    """((source, port, destination, port), payload) of a frame with TCP over IPv4; or None."""
    if len(packet) < 54 or packet[12:14] != b"\x08\x00":
        return None
    ip = packet[14:]
    if ip[9] != 6:
        return None
    head = (ip[0] & 15) * 4
    total = struct.unpack_from("!H", ip, 2)[0] or len(ip)
    tcp = ip[head:total]
    if len(tcp) < 20:
        return None
    ports = struct.unpack_from("!HH", tcp)
    flow = (socket.inet_ntoa(ip[12:16]), ports[0], socket.inet_ntoa(ip[16:20]), ports[1])
    return flow, tcp[(tcp[12] >> 4) * 4:]


def data_in_records(stream, name):
    """Bytes of application data in a stream of TLS records that begins with a whole one."""
    at, found = 0, 0
    while at + 5 <= len(stream):
        kind, version, size = struct.unpack_from("!BHH", stream, at)
        expect(kind in TLS_TYPES and version in (0x0301, 0x0303) and size <= TLS_RECORD_MAX,
               f"{name}: not TLS at byte {at}")
        found += size if kind == APPLICATION_DATA else 0
        at += 5 + size
    return found


class Tap:
    """Listens from the moment it is made until close."""

    def __init__(self, test, namespaces):
        self.sockets = []
        for namespace in namespaces:
            tap = within(namespace, lambda: socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(ETH_P_ALL)))
            tap.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
            self.sockets.append(tap)
        self.raw, self.flows, self.packets = bytearray(), {}, 0
        self.lock, self.stop = threading.Lock(), os.pipe()
        self.failure = None
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()
        test.undo.append(self.close)

    def _listen(self):
        try:
            while True:
                ready, _, _ = select.select([self.stop[0], *self.sockets], [], [])
                if self.stop[0] in ready:
                    return
                for tap in ready:
                    self._take(tap)
        except (OSError, Failure) as error:
            self.failure = error

    def _take(self, tap):
        packet, address = tap.recvfrom(1 << 18)
        with self.lock:
            self.packets += 1
            self.raw += packet
            expect(len(self.raw) < KEPT_MAX, "too much goes over the wire to keep it")
            found = tcp_of(packet)
            if found:
                # Each packet passes several interfaces, in and out; each has its own stream.
                place = (tap.fileno(), address[0], address[2])
                self.flows.setdefault((place, found[0]), bytearray()).extend(found[1])

    def lost(self):
        """Packets that the kernel had no room for."""
        return sum(struct.unpack("II", tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
                   for tap in self.sockets if tap.fileno() >= 0)

    def found(self, values):
        """["value (form)"] of what was seen."""
        if self.failure:
            raise self.failure
        with self.lock:
            hits = {f"{v.name} ({form}) in packets" for v in values for form in
                    v.found_in(self.raw)}
            for (_, flow), data in self.flows.items():
                hits |= {f"{v.name} ({form}) in {flow}" for v in values for form in
                         v.found_in(data)}
        return sorted(hits)

    def holds(self, data):
        with self.lock:
            return data in self.raw

    def sealed_bytes(self, source, port, destination):
        """Bytes of TLS records with data from a manager's port to a node, all that were seen at the
        node's end; a failure when something else than TLS records goes that way."""
        with self.lock:
            streams = {(place, flow): bytes(data) for (place, flow), data in self.flows.items()
                       if flow[:2] == (source, port) and flow[2] == destination}
        sizes = {}
        for (place, flow), data in streams.items():
            sizes[place] = sizes.get(place, 0) + data_in_records(data, flow)
        return max(sizes.values(), default=0)

    def close(self):
        if self.thread.is_alive():
            os.write(self.stop[1], b".")
            self.thread.join()
        for tap in self.sockets:
            tap.close()
