"""A NAT box: mappings, filtering, timeouts, reboots (words of RFC 4787).

    kind                   a mapping serves        and lets in
    endpoint-independent   any destination         anybody
    address-dependent      one address             that address
    symmetric              one address and port    that address and port

A mapping is kept alive by what goes out, not by what comes in.
"""

import random
from collections.abc import Callable

from haaro_host.simulate.datagram import Datagram

KINDS = ("endpoint-independent", "address-dependent", "symmetric")
_FIRST_PORT, _LAST_PORT = 1024, 65535

Remote = tuple[bytes, int]


class _Mapping:
    def __init__(self, inside: Remote, port: int, scope: bytes) -> None:
        self.inside = inside
        self.port = port
        self.scope = scope
        self.used_at = 0


class Nat:
    """A NAT with one public `address`. `inside` maps private addresses to receiving ends."""

    def __init__(
        self, name: str, address: bytes, kind: str, timeout_ms: int, rng: random.Random
    ) -> None:
        self.name = name
        self.address = address
        self.kind = kind
        self.timeout_ms = timeout_ms
        self.inside: dict[bytes, Callable[[Datagram], None]] = {}
        self._rng = rng
        self._by_key: dict[tuple[bytes, int, bytes], _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}

    def _scope(self, address: bytes, port: int) -> bytes:
        if self.kind == "endpoint-independent":
            return b""
        return address if self.kind == "address-dependent" else address + port.to_bytes(2, "big")

    def outbound(self, now: int, datagram: Datagram) -> None:
        """Rewrite the source of a datagram that leaves; a mapping is made when there is none."""
        inside = (datagram.src, datagram.sport)
        scope = self._scope(datagram.dst, datagram.dport)
        key = (*inside, scope)
        mapping = self._by_key.get(key)
        if mapping is None or now - mapping.used_at >= self.timeout_ms:
            if mapping is not None:
                del self._by_port[mapping.port]
            mapping = self._by_key[key] = _Mapping(inside, self._free_port(now), scope)
            self._by_port[mapping.port] = mapping
        mapping.used_at = now
        datagram.src, datagram.sport = self.address, mapping.port

    def _free_port(self, now: int) -> int:
        while True:
            port = self._rng.randint(_FIRST_PORT, _LAST_PORT)
            other = self._by_port.get(port)
            if other is None:
                return port
            if now - other.used_at >= self.timeout_ms:
                del self._by_port[port]
                del self._by_key[(*other.inside, other.scope)]
                return port

    def inbound(self, now: int, datagram: Datagram) -> Callable[[Datagram], None] | None:
        """Rewrite the destination of what arrives; None, and why in `.dropped`, if none may."""
        mapping = self._by_port.get(datagram.dport)
        if mapping is None or now - mapping.used_at >= self.timeout_ms:
            datagram.dropped = "no mapping"
            return None
        if mapping.scope != self._scope(datagram.src, datagram.sport):
            datagram.dropped = "NAT filter"
            return None
        datagram.dst, datagram.dport = mapping.inside
        receive = self.inside.get(datagram.dst)
        if receive is None:
            datagram.dropped = "nobody inside"
        return receive

    def deliver(self, datagram: Datagram) -> None:
        """Hand over, untouched, what one inside address sent to another."""
        receive = self.inside.get(datagram.dst)
        if receive is None:
            datagram.dropped = "nobody inside"
        else:
            receive(datagram)

    def reboot(self) -> None:
        """Forget every mapping; new ones get new ports."""
        self._by_key.clear()
        self._by_port.clear()
