"""MIP Tunnel Data Message (RFC 3519 3.3), for the control plane; the data plane has its leaf.

0: Type = 4 | Next Header | Reserved (2), then the tunnelled packet
"""

from haaro.compat import const
from haaro.wire.errors import WireError

TUNNEL_DATA = const(4)
TUNNEL_HEADER = b"\x04\x04\x00\x00"  # IP in UDP, the only next header we send


class TunnelData:
    """A tunnelled packet: `.next_header` as the IP Protocol field, `.payload` copied."""

    type = TUNNEL_DATA

    def __init__(self, data: bytes) -> None:
        self.next_header = parse_tunnel(data)
        self.payload = data[4:]


def parse_tunnel(data: bytes) -> int:
    """Return Next Header; Reserved is ignored. WireError message_truncated or not_tunnel_data."""
    if len(data) < 4:
        raise WireError("message_truncated")
    if data[0] != TUNNEL_DATA:
        raise WireError("not_tunnel_data")
    return data[1]
