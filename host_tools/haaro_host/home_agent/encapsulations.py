"""Tunnels that are in no UDP: IP in IP (RFC 2003), GRE (RFC 2784), minimal (RFC 2004).

Owns what such a packet is made of and where it is checked; no socket. Called by delivery and core.
"""

from haaro.wire import encapsulation, ipv4
from haaro.wire.encapsulation import PROTOCOL_GRE, PROTOCOL_MINIMAL
from haaro.wire.errors import WireError
from haaro.wire.ipv4 import PROTOCOL_IPIP
from haaro_host.home_agent.bindings import GRE, IPIP, MINIMAL

PROTOCOLS = {PROTOCOL_IPIP: IPIP, PROTOCOL_GRE: GRE, PROTOCOL_MINIMAL: MINIMAL}

_CE, _ECT_1 = 3, 1
_FRAGMENT = 0x3FFF


def wrap(kind: str, src: bytes, dst: bytes, packet: bytes) -> bytes:
    """Return `packet` as it leaves in a tunnel of this kind; DSCP, ECN and DF are its own.

    A fragment has no place in minimal encapsulation and goes as IP in IP (RFC 2004 3).
    """
    if kind == GRE:
        return encapsulation.encapsulate_gre(src, dst, packet)
    whole = not (packet[6] << 8 | packet[7]) & _FRAGMENT
    if kind == MINIMAL and whole and packet[0] == 0x45:
        return encapsulation.encapsulate_minimal(src, dst, packet)
    return encapsulation.encapsulate_ipip(src, dst, packet)


def outside(packet: bytes) -> tuple[str, bytes]:
    """Return (encapsulation, outer source) of an IPv4 packet; "" for another protocol."""
    return PROTOCOLS.get(packet[9], ""), packet[12:16]


def unwrap(packet: bytes) -> bytes:
    """Return the inner packet; WireError for what is none.

    The inner ECN field follows the outer one by RFC 6040 4.2; congestion_unmarked: must be dropped.
    """
    inner = encapsulation.decapsulate(packet)
    outside, inside = packet[1] & 3, inner[1] & 3
    if outside & 1 and outside != inside:
        if not inside:
            if outside == _CE:
                raise WireError("congestion_unmarked")
        elif inside != _CE:
            # ECT(0) becomes what is outside, ECT(1) only CE.
            changed = bytearray(inner)
            changed[1] += outside - inside
            changed[10:12] = bytes(2)
            header = (changed[0] & 15) * 4
            changed[10:12] = ipv4.checksum(changed, 0, header).to_bytes(2, "big")
            inner = bytes(changed)
    return inner
