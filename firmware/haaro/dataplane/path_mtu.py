"""Path MTU of the tunnels, soft state made of ICMP "fragmentation needed" about our own packets.

Owns who is believed: a message counts if it quotes a packet of a live tunnel, with both addresses
and both ports, that was longer than the MTU it tells of. It lowers that tunnel's MTU, never below
576 and never up, for 10 minutes; then the full size is tried again (RFC 1191 6.3, RFC 2003 5.1).
The senders inside learn it with their next packet that does not fit. Kept by UserspacePlane, which
reads the messages: records of 56 octets that platform/bpf.py has sorted out.

Deviates from RFC 1122 3.2.2: the ICMP checksum is not looked at, since a record is the beginning
only; what a damaged message may do is what anybody may who knows the quoted packet.
"""

import time

from haaro.compat import const

RECORD = 56
_FLOOR = const(576)
_HOLD_MS = const(600000)
_UDP = const(17)
_GRE = const(47)


def _overhead(port):
    return 32 if port <= 0xFFFF else 24 if port >> 16 == _GRE else 20


class PathMtu:
    """What the path told of tunnels: `lowered` {tunnel: (inner MTU, since when in ticks)}."""

    def __init__(self) -> None:
        self.lowered: dict = {}

    def fits(self, tunnel: int, mtu: int) -> int:
        """Return the MTU to use where the link allows `mtu`."""
        told = self.lowered.get(tunnel)
        return min(mtu, told[0]) if told else mtu

    def take(self, record, at: int, keys: list, mtu_of) -> int:
        """Believe the record at `at` or not; return the tunnel to be lowered, -1 = none.

        keys: [(uplink, local, remote, port) or None] by tunnel. mtu_of(tunnel): inner MTU now.
        """
        remote = record[at + 44 : at + 48]
        for tunnel, key in enumerate(keys):
            if not key or key[2] != remote or key[1] != record[at + 40 : at + 44]:
                continue
            if record[at + 37] != _UDP:
                # There is no port; minimal encapsulation sends IP in IP too.
                ours = key[3] > 0xFFFF
            else:
                ours = key[3] == record[at + 50] << 8 | record[at + 51]
            if ours:
                length = record[at + 30] << 8 | record[at + 31]
                mtu = record[at + 26] << 8 | record[at + 27]
                if not mtu:
                    # An old router: the next plateau (RFC 1191 7.1) under what was too long.
                    mtu = 1492 if length > 1492 else 1006 if length > 1006 else 608
                inner = max(mtu - _overhead(key[3]), _FLOOR)
                if mtu < length and inner < mtu_of(tunnel):
                    now = time.ticks_ms()  # type: ignore[attr-defined]
                    self.lowered[tunnel] = (inner, now)
                    return tunnel
        return -1

    def expired(self) -> int:
        """Return a tunnel whose time is over, forgotten from now on; -1 = none."""
        now = time.ticks_ms()  # type: ignore[attr-defined]
        for tunnel, (_, since) in self.lowered.items():
            if time.ticks_diff(now, since) >= _HOLD_MS:  # type: ignore[attr-defined]
                del self.lowered[tunnel]
                return tunnel
        return -1
