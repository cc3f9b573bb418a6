"""A board's data plane without lwIP: sockets that are lists, a LAN port that is two lists."""

from haaro.dataplane.pools import make_pools
from haaro.dataplane.udp import UdpPlane
from tests.lan.conftest import checksum, ipv4, udp

HOME, NETWORK = bytes([192, 0, 2, 129]), bytes([10, 1, 0, 0])
HOST, FAR_HOST = bytes([10, 1, 0, 10]), bytes([10, 3, 0, 10])
CARE_OF, HOME_AGENT, PEER = bytes([198, 51, 100, 7]), bytes([192, 0, 2, 1]), bytes([203, 0, 113, 9])
EAGAIN, ENOMEM, ETIMEDOUT = 11, 12, 116


def text(address):
    return ".".join(map(str, address))


class Socket:
    """A UDP socket; `waiting` is what recvfrom gives, exceptions are raised."""

    def __init__(self):
        self.waiting = []
        self.sent = []
        self.errors = []

    def recvfrom(self, octets):
        if not self.waiting:
            raise OSError(ETIMEDOUT)
        item = self.waiting.pop(0)
        if isinstance(item, Exception):
            raise item
        return item[0][:octets], item[1]

    def sendto(self, data, address):
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append((bytes(data), address))
        return len(data)

    def close(self):
        self.waiting = None


class Lan:
    """A port without sockets (lan/base.py)."""

    ethernet = bytes(6) + b"\x02\x68haar" + b"\x08\x00"
    ttl_step = 1
    event = "event of the port"

    def __init__(self):
        self.pairs = []
        self.frames = []
        self.written = []
        self.closed = False

    def pending(self):
        return bool(self.frames)

    def read(self, buffer, at):
        if not self.frames:
            return 0
        frame = self.frames.pop(0)
        buffer[at : at + len(frame)] = frame
        return len(frame)

    def write(self, buffer, at, octets):
        self.written.append(bytes(buffer[at : at + octets]))
        return octets

    def close(self):
        self.closed = True


class Poll:
    """What is watched."""

    def __init__(self):
        self.watched = []

    def register(self, obj, events):
        self.watched.append(obj)

    def unregister(self, obj):
        self.watched.remove(obj)


class Rig:
    """The plane with one uplink, the home agent's tunnel (0) and a peer's (1)."""

    def __init__(self, monkeypatch):
        from haaro.platform import lwip_sockets

        self.made = made = []

        class module:
            AF_INET, SOCK_DGRAM, SOL_SOCKET, SO_REUSEADDR, SO_BINDTODEVICE = 2, 1, 0xFFF, 4, 0x100B

            @staticmethod
            def socket(family, kind):
                made.append(Socket())
                made[-1].options = []
                made[-1].setsockopt = lambda *words: made[-1].options.append(words)
                made[-1].bind = lambda address: made[-1].options.append(("bind", address))
                made[-1].setblocking = lambda yes: made[-1].options.append(("blocking", yes))
                return made[-1]

            @staticmethod
            def getaddrinfo(host, port):
                return [(2, 1, 0, "", (host, port))]

        monkeypatch.setattr(lwip_sockets, "socket", module)
        monkeypatch.setattr(lwip_sockets, "CAN_BIND", True)
        self.sockets = lwip_sockets.LwipSockets()
        self.plane = UdpPlane(make_pools(True), self.sockets, HOME, [(NETWORK, 24)])
        self.lan = Lan()
        self.poll = Poll()
        self.plane.register(self.poll)
        self.plane.attach_lan(self.lan)
        self.plane.open_uplink(0, "st1", CARE_OF)
        self.uplink = made[-1]
        self.plane.control = lambda *words: self.sockets.send(("st1", CARE_OF), *words[1:])
        self.plane.set_tunnel(0, 0, CARE_OF, HOME_AGENT, 434, 1468, HOME_AGENT)
        self.plane.set_tunnel(1, 0, CARE_OF, PEER, 4340, 1468, bytes([192, 0, 2, 131]))
        far = bytes([10, 3, 0, 0])
        self.plane.swap([(bytes(4), 0, 0, -1), (far, 24, 1, -1)], [(far, 24, 1)])

    def come(self, *datagrams):
        """Datagrams at the uplink, each (data, (address, port)); what handle said."""
        self.uplink.waiting += datagrams
        return self.plane.handle(self.uplink, 1)

    def go(self, *packets):
        """Packets of hosts."""
        self.lan.frames += [self.lan.ethernet + packet for packet in packets]
        return self.plane.handle(self.lan.event, 1)


def tunnelled(packet):
    return b"\x04\x04\x00\x00" + packet


__all__ = ["checksum", "ipv4", "udp"]
