"""The mobility binding (RFC 5944 3.8.1, RFC 5177 6.2.1): what the home agent knows of one router.

Owns the record only. Made by core, kept by store, read by forwarding and the shell.
"""

from dataclasses import dataclass, field

UDP = "udp"  # RFC 3519: IP in UDP, port 434
IPIP = "ipip"  # RFC 2003: IP in IP, for routers that asked for nothing else
GRE = "gre"  # RFC 2784
MINIMAL = "minimal"  # RFC 2004

# Outer IPv4 (20), UDP (8) and tunnel data header (4); outer IPv4 alone for RFC 2003, with 4 octets
# of GRE for RFC 2784. RFC 2004 takes 12, but a fragment goes as IP in IP.
OVERHEAD = {UDP: 32, IPIP: 20, GRE: 24, MINIMAL: 20}
# How long the tunnel end before a move is still received from: as long as RFC 6521 3.3.6 gives the
# routers among themselves, so that what was on its way is not lost.
GRACE_MS = 10_000

End = tuple[str, bytes, int]  # encapsulation, address, UDP port


@dataclass(frozen=True)
class Terms:
    """Revocation of one router (RFC 3543): what was agreed, and whether the operator revoked it."""

    stamp: int = 0  # the latest timestamp it was sent: NTP seconds modulo 2^32
    agreed: bool = False  # by both Revocation Support extensions of the last registration
    inform: bool = False  # and the I bit too
    revoked: bool = False  # no registration until it is allowed again


@dataclass
class Binding:
    """One registered router. Addresses are 4 octets; `expires` is NTP ms on the HA's clock."""

    home_address: bytes
    care_of_address: bytes
    source: bytes  # the tunnel's far end: source address of the request (RFC 3519 4.6)
    source_port: int
    encapsulation: str
    lifetime: int
    expires: int
    nat: bool = False
    advertise: bool = False
    outbound_only: bool = False
    implicit: bool = False
    prefixes: list[tuple[bytes, int]] = field(default_factory=list)
    # The end before the last move and when it is forgotten (NTP ms); not stored.
    previous: End | None = field(default=None, compare=False)
    previous_until: int = field(default=0, compare=False)
    # When it first registered (NTP ms); 0: before this start of the home agent. Not stored.
    since: int = field(default=0, compare=False)
    # Counted by the forwarding plane, not stored.
    rx_packets: int = field(default=0, compare=False)
    tx_packets: int = field(default=0, compare=False)

    def end(self) -> End:
        """Return the tunnel's far end."""
        return self.encapsulation, self.source, self.source_port

    def follow(self, old: "Binding", now: int) -> None:
        """Take the place of `old`: its counters and, after a move, for a while its tunnel end."""
        self.since = old.since
        self.rx_packets, self.tx_packets = old.rx_packets, old.tx_packets
        self.previous, self.previous_until = old.previous, old.previous_until
        if old.end() != self.end():
            self.previous, self.previous_until = old.end(), now + GRACE_MS

    def same_tunnel(self, other: "Binding") -> bool:
        """Tell whether `other` is forwarded in exactly the same way."""
        return (
            self.care_of_address == other.care_of_address
            and self.source == other.source
            and self.source_port == other.source_port
            and self.encapsulation == other.encapsulation
            and self.prefixes == other.prefixes
        )

    def renew(self, other: "Binding") -> bool:
        """Take over what a renewal may change without changing the tunnel.

        Returns whether others are told of this router in another way now.
        """
        told = (self.advertise, self.outbound_only)
        self.lifetime = other.lifetime
        self.expires = other.expires
        self.nat = other.nat
        self.advertise = other.advertise
        self.outbound_only = other.outbound_only
        self.implicit = other.implicit
        return told != (self.advertise, self.outbound_only)
