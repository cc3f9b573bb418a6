"""The router's own host on its LAN port, where no kernel is there for it: ARP, ICMP echo, DHCP.

Owns which frames are for us. Sends by the port; never forwards: what is for others is the caller's.
"""

from haaro.compat import const
from haaro.dataplane.chosen import leaves
from haaro.lan.neighbours import Neighbours

_ARP = const(0x0806)
_IPV4 = const(0x0800)
_UDP = const(17)
# Answers to what came by a tunnel: they are forwarded as if a host of the LAN had sent them.
_ANSWERS = const(4)


class Office:
    """ARP, echo and, with `dhcp` (lan/dhcp.py), leases of one port at `address`.

    send(destination, ethertype, payload) -> bool sends a frame.
    """

    def __init__(self, address: bytes, prefix_len: int, mac: bytes, send, dhcp=None) -> None:
        self.address = address
        self.neighbours = Neighbours(address, prefix_len, mac, send)
        self.neighbours.deliver = self._deliver
        self._send = send
        self.dhcp = dhcp
        if dhcp:
            dhcp.attach(self.neighbours, self._reply)
            self.neighbours.heard = dhcp.heard
        self.answers: list = []
        self.echoes = self.ignored = self.refused = 0

    def receive(self, frame, at: int, octets: int) -> None:
        """Take the frame at `at`, not tagged, that is to all or to us; `octets` are there."""
        kind = frame[at + 12] << 8 | frame[at + 13]
        ip = at + 14
        octets -= 14
        if kind == _ARP:
            self.neighbours.receive(frame, ip, octets)
        elif kind != _IPV4 or octets < 20:
            self.ignored += 1
        else:
            length = leaves.header(frame, ip)
            if length < 0 or length > octets:
                self.ignored += 1
            elif self._dhcp(frame, ip, length):
                pass
            elif self._is_echo(frame, ip, length):
                self.echoes += 1
                self._echo(frame, ip)
                self._send(bytes(frame[at + 6 : at + 12]), _IPV4, bytes(frame[ip : ip + length]))
            else:
                self.ignored += 1

    def answer(self, packet, at: int, octets: int) -> bool:
        """Take the IPv4 packet to our address that came by a tunnel; True if it gets an answer."""
        if len(self.answers) >= _ANSWERS or not self._is_echo(packet, at, octets):
            self.ignored += 1
            return False
        copied = bytearray(packet[at : at + octets])
        self._echo(copied, 0)
        self.answers.append(copied)
        self.echoes += 1
        return True

    def send_unknown(self, packet, at: int, octets: int) -> bool:
        """Take an IPv4 packet whose neighbour is not known; True: it is sent, or waits."""
        to = bytes(packet[at + 16 : at + 20])
        if to == self.address:
            return self.answer(packet, at, octets)
        if not self.neighbours.on_link(to):
            # Also the LAN's broadcast address (RFC 2644).
            self.refused += 1
            return False
        return self.neighbours.wait(to, bytes(packet[at : at + octets]))

    def status(self) -> dict:
        """Return counters, and the leases."""
        answer = self.neighbours.status()
        answer["echoes"] = self.echoes
        answer["ignored"] = self.ignored
        answer["off_link"] = self.refused
        if self.dhcp:
            answer["dhcp"] = self.dhcp.status()
        return answer

    def _is_echo(self, frame, ip, length):
        # A fragment of one is not put together.
        return (
            frame[ip + 9] == 1
            and bytes(frame[ip + 16 : ip + 20]) == self.address
            and leaves.control(frame, ip, length) == 1
            and frame[ip + ((frame[ip] & 15) << 2)] == 8
            and not frame[ip + 6] & 0x20
        )

    def _echo(self, frame, ip):
        """Make the request at `ip` its reply."""
        source = bytes(frame[ip + 12 : ip + 16])
        frame[ip + 12 : ip + 16] = self.address
        frame[ip + 16 : ip + 20] = source
        leaves.lower_ttl(frame, ip, frame[ip + 8] - 64)
        icmp = ip + ((frame[ip] & 15) << 2)
        frame[icmp] = 0
        leaves.mend(frame, icmp + 2, -0x800)

    def _dhcp(self, frame, ip, length):
        if not self.dhcp or frame[ip + 9] != _UDP:
            return False
        udp = ip + ((frame[ip] & 15) << 2)
        if length < 28 or frame[udp + 2] or frame[udp + 3] != 67:
            return False
        end = udp + (frame[udp + 4] << 8 | frame[udp + 5])
        if end > ip + length or frame[ip + 6] & 0x3F or frame[ip + 7]:
            return False
        self.dhcp.receive(bytes(frame[udp + 8 : end]))
        return True

    def _reply(self, mac, packet):
        """Send an IPv4 packet of the DHCP server; without `mac` to whom ARP finds."""
        if mac:
            return self._send(mac, _IPV4, packet)
        return self.send_known(packet)

    def send_known(self, packet: bytes) -> bool:
        """Send a packet of our own to its destination on the LAN."""
        row = self.neighbours.find(packet, 16)
        if row < 0:
            return self.send_unknown(packet, 0, len(packet))
        return self._send(bytes(self.neighbours.table[row : row + 6]), _IPV4, packet)

    def _deliver(self, address, packet):
        row = self.neighbours.find(address, 0)
        self._send(bytes(self.neighbours.table[row : row + 6]), _IPV4, packet)
