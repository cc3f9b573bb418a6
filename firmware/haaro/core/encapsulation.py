"""Which encapsulation a tunnel has, and how two ends agree on it (RFC 5944 3.3, RFC 3519, RFC 6521
3.3.3, 3.3.4).

A tunnel's `remote_port` says it: up to 65535 it is a UDP port. A tunnel of another encapsulation
has no port: there it is the IP protocol << 16. Pure functions.
"""

from haaro.compat import const
from haaro.wire import extensions
from haaro.wire import registration as wire
from haaro.wire.message import MIP_PORT

DECLINED = 64  # code of a UDP Tunnel Reply (RFC 3519 3.2.1)

_IPIP = const(4 << 16)
_GRE = const(47 << 16)
_MINIMAL = const(55 << 16)
_PORTS = {"udp": MIP_PORT, "ipip": _IPIP, "gre": _GRE, "minimal": _MINIMAL}


def name(port: int) -> str:
    """Return the encapsulation that a tunnel with this port has."""
    for text, known in _PORTS.items():
        if known == port:
            return text
    return "udp"


def overhead(port: int) -> int:
    """Return the octets in front of the inner packet. Minimal encapsulation takes 12, but a
    fragment goes as IP in IP.
    """
    return 32 if port < _IPIP else 24 if port == _GRE else 20


def same(port: int, other: int) -> bool:
    """Return whether tunnels with these ports have one encapsulation."""
    return port >> 16 == other >> 16


def flags(port: int) -> int:
    """Return the flags that ask for it: none for UDP and IP in IP."""
    return wire.FLAG_G if port == _GRE else wire.FLAG_M if port == _MINIMAL else 0


def append_request(message: bytearray, port: int) -> None:
    """Offer UDP in any case, F: without a NAT too (RFC 3519 4.6)."""
    extensions.append_udp_tunnel_request(message, port == MIP_PORT)


def granted(port: int, reply) -> int:
    """Return the port of the tunnel that a reply to a request for `port` grants; 0: none."""
    if reply is not None and reply.will_tunnel:
        return MIP_PORT
    return port if port >= _IPIP else 0


def toward(home, record, coa: bytes) -> int:
    """Return what a peer is asked for from `coa`: what is configured, but UDP where a NAT or a
    firewall is known of (RFC 6521 3.3.3).
    """
    in_udp = home.nat
    if record is not None:
        in_udp = in_udp or record.udp_only or record.outbound_only or record.nat_states
        binding = record.binding
        in_udp = in_udp or (binding is not None and binding.source != binding.care_of_address)
    return MIP_PORT if in_udp else home.wanted(coa)


def answer(request, source: bytes, ours: int) -> int:
    """Return the port of the tunnel that a peer's request gets; 0: it cannot be had.

    ours: what we would ask for. Both ends register, so what only one of them wants is not taken,
    and UDP is offered with every request of ours.
    """
    offer = request.find(extensions.UdpTunnelRequest)
    asked = _IPIP
    if request.flags & wire.FLAG_G:
        asked = _GRE
    elif request.flags & wire.FLAG_M:
        asked = _MINIMAL
    nat = request.care_of_address != source
    if offer is not None and (offer.force or nat or asked != ours):
        # 0: that of the flags (RFC 3519 3.6).
        inside = offer.encapsulation << 16 or asked
        return MIP_PORT if inside == _IPIP else 0
    return asked if asked == ours and not nat else 0


def of_name(text: str) -> int:
    """Return the port to ask for when the operator says "udp", "ipip", "gre" or "minimal"."""
    return _PORTS[text]
