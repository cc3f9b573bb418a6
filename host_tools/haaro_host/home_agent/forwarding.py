"""Where an inner packet goes: the forwarding rules (RFC 5177 6.5, 7, 10; RFC 2003 3.2).

Owns the lookup tables, rebuilt as a whole when a binding or the configuration changes. Never sends,
never changes a packet. Called by core for every packet and by the shell's fast path once a flow.
"""

from collections.abc import Iterable
from typing import Any

from haaro.wire.ipv4 import PROTOCOL_UDP
from haaro.wire.message import MIP_PORT, TUNNEL_DATA
from haaro_host.home_agent.bindings import IPIP, MINIMAL, UDP, Binding, End
from haaro_host.home_agent.config import Config, Prefix

Decision = tuple[Any, ...]  # ("tunnel", Binding) | ("outside",) | ("local",) | ("drop", reason)

OUTSIDE: Decision = ("outside",)
LOCAL: Decision = ("local",)
_UNBOUND = None
_MISS = object()


class _Prefixes:
    """A set of prefixes with a value each; longest match. Built once, then only read."""

    def __init__(self, entries: Iterable[tuple[Prefix, Binding | None]]) -> None:
        tables: dict[int, dict[int, Binding | None]] = {}
        for (prefix, plen), value in entries:
            shift = 32 - plen
            tables.setdefault(shift, {})[int.from_bytes(prefix, "big") >> shift] = value
        self._tables = sorted(tables.items())

    def get(self, address: int) -> object:
        """Return the value of the longest match or _MISS."""
        for shift, table in self._tables:
            value = table.get(address >> shift, _MISS)
            if value is not _MISS:
                return value
        return _MISS


class _Domain:
    """What one routing domain reaches: longest match, and its gateway."""

    def __init__(self, default: Binding | None, mobile: dict[Prefix, Binding | None]) -> None:
        self.default = default
        self.mobile = _Prefixes(mobile.items())


class Forwarding:
    """The tables of one moment. `rebuild` makes them anew; `forward` and the look-ups only read."""

    def __init__(self, config: Config) -> None:
        self.rebuild(config, [])

    def rebuild(self, config: Config, bindings: Iterable[Binding]) -> None:
        """Make all tables from `config` and the current `bindings`, in order of registration."""
        bindings = list(bindings)
        self._address = config.address
        self._forward_outside = config.forward_outside
        self._home = _Prefixes((net, None) for net in config.home_networks)
        self._home_addresses = _Prefixes((net, None) for net in config.home_addresses)
        # Prefixes that are configured but not registered are known, so that they never leak out.
        # Home addresses are common to all routing domains, networks are one domain's.
        common: dict[Prefix, Binding | None] = {}
        mobile: dict[str, dict[Prefix, Binding | None]] = {config.home_domain: {}}
        for router in config.routers.values():
            common[router.home_address, 32] = _UNBOUND
            networks = mobile.setdefault(config.domain(router.home_address), {})
            for prefix in router.prefixes:
                networks[prefix] = _UNBOUND
        self._hosts: dict[bytes, Binding] = {}
        self._ends: dict[tuple[bytes, int], list[Binding]] = {}
        self._raw_ends: dict[tuple[str, bytes], Binding] = {}
        self._end_addresses: set[bytes] = set()
        self._sources: dict[bytes, _Prefixes] = {}
        for binding in bindings:
            self._hosts[binding.home_address] = binding
            common[binding.home_address, 32] = binding
            for prefix in binding.prefixes:
                mobile[config.domain(binding.home_address)][prefix] = binding
            own: list[Prefix] = [(binding.home_address, 32), *binding.prefixes]
            self._sources[binding.home_address] = _Prefixes(
                (net, None) for net in own if net[1] > 0
            )
            self._end_addresses.update((binding.source, binding.care_of_address))
        # Ends before a move first, so that who has the end now comes before who had it.
        for binding in bindings:
            if binding.previous:
                self._add_end(binding, binding.previous)
        for binding in bindings:
            self._add_end(binding, binding.end())
        self._domains = {
            domain: _Domain(networks.pop((bytes(4), 0), None), {**networks, **common})
            for domain, networks in mobile.items()
        }
        self._outside = self._domains[config.home_domain]
        self._domain_of = {
            binding.home_address: self._domains[config.domain(binding.home_address)]
            for binding in bindings
        }

    def _add_end(self, binding: Binding, end: End) -> None:
        encapsulation, source, port = end
        if encapsulation == UDP:
            self._ends.setdefault((source, port), []).append(binding)
        else:
            self._raw_ends[encapsulation, source] = binding
        self._end_addresses.add(source)

    def by_tunnel_end(self, source: bytes, port: int, inner_source: bytes = b"") -> Binding | None:
        """Return the binding whose UDP tunnel ends exactly there, or did before its move, a moment
        ago (RFC 3519 4.3; RFC 6521 3.3.6).

        Where a router took over an end before the other's binding was over, it is the one that
        `inner_source` (4 octets) belongs to, else the newest: nobody can push another one out.
        """
        bindings = self._ends.get((source, port))
        if not bindings:
            return None
        if len(bindings) > 1 and inner_source:
            for binding in bindings:
                if self._may_send(binding, inner_source):
                    return binding
        return bindings[-1]

    def is_shared_end(self, source: bytes, port: int) -> bool:
        """Tell whether several bindings have their tunnel end there."""
        return len(self._ends.get((source, port), ())) > 1

    def by_care_of_address(self, encapsulation: str, source: bytes) -> Binding | None:
        """Return the binding whose tunnel of this encapsulation, no UDP, ends at `source`
        (RFC 5177 7). One with minimal encapsulation takes IP in IP too (RFC 2004 3).
        """
        binding = self._raw_ends.get((encapsulation, source))
        if binding is None and encapsulation == IPIP:
            binding = self._raw_ends.get((MINIMAL, source))
        return binding

    def is_mobile(self, address: bytes) -> bool:
        """Tell whether `address` is a home address or lies in a mobile network, 0.0.0.0/0 aside."""
        value = int.from_bytes(address, "big")
        return self._is_known(value) or self._home_addresses.get(value) is not _MISS

    def _is_known(self, address: int) -> bool:
        domains = self._domains.values()
        return any(domain.mobile.get(address) is not _MISS for domain in domains)

    def forward(self, packet: bytes | bytearray | memoryview, binding: Binding | None) -> Decision:
        """Decide on an inner packet from the tunnel of `binding`, or from outside (None).

        Returns ("tunnel", binding), ("outside",), ("local",) or ("drop", reason).
        """
        fault = _malformed(packet)
        if fault:
            return ("drop", fault)
        destination = bytes(packet[16:20])
        if binding is None:
            return self._from_outside(packet, bytes(packet[12:16]), destination)
        return self._from_tunnel(packet, bytes(packet[12:16]), destination, binding)

    def flow(self, packet: bytes | bytearray | memoryview, binding: Binding | None) -> Decision:
        """Return the decision if it holds for every packet with these addresses, else ("each",).

        "tunnel" and "outside" only; for the shell's cache, which keeps it until the next `rebuild`.
        Length, TTL and options of each packet are still to be checked.
        """
        decision = self.forward(packet, binding)
        destination = int.from_bytes(bytes(packet[16:20]), "big")
        domain = self._domain(binding)
        if decision[0] == "tunnel" and domain.mobile.get(destination) is decision[1]:
            # To a home address there may be signalling, which is marked.
            if self._hosts.get(bytes(packet[16:20])) is None:
                return decision
        elif decision[0] == "outside" and self._home.get(destination) is not _MISS:
            return decision
        return ("each",)

    def _from_tunnel(
        self, packet: bytes | bytearray | memoryview, src: bytes, dst: bytes, binding: Binding
    ) -> Decision:
        if not self._may_send(binding, src):
            return ("drop", "inner_source")
        if dst == self._address:
            return LOCAL
        if packet[8] <= 1:
            return ("drop", "ttl_expired")
        if not_unicast(dst):
            return ("drop", "inner_destination")
        address = int.from_bytes(dst, "big")
        domain = self._domain(binding)
        target = domain.mobile.get(address)
        if isinstance(target, Binding):
            return ("drop", "hairpin") if target is binding else ("tunnel", target)
        if target is _UNBOUND or self._home_addresses.get(address) is not _MISS:
            return ("drop", "no_binding")
        if self._home.get(address) is not _MISS:
            return OUTSIDE
        if src == binding.home_address and is_signalling(packet):
            # CoT and the reply to a peer leave for the peer's care-of address, which is the outer
            # end of its own tunnel: the one case where an inner packet may go to a tunnel end.
            return ("drop", "nested_tunnel") if _is_tunnel_data(packet) else OUTSIDE
        if dst in self._end_addresses:
            return ("drop", "tunnel_end")
        if self._is_known(address):
            return ("drop", "other_realm")
        if domain.default is not None and domain.default is not binding:
            return ("tunnel", domain.default)
        return OUTSIDE if self._forward_outside else ("drop", "outside_not_allowed")

    def _domain(self, binding: Binding | None) -> "_Domain":
        return self._outside if binding is None else self._domain_of[binding.home_address]

    def _may_send(self, binding: Binding, src: bytes) -> bool:
        """RFC 5177 10: its home address, its networks; a gateway also what is nobody's."""
        source = int.from_bytes(src, "big")
        if self._sources[binding.home_address].get(source) is not _MISS:
            return True
        return (
            binding is self._domain(binding).default
            and src != self._address
            and not not_unicast(src)
            and not self.is_mobile(src)
            and self._home.get(source) is _MISS
        )

    def _from_outside(
        self, packet: bytes | bytearray | memoryview, src: bytes, dst: bytes
    ) -> Decision:
        source = int.from_bytes(src, "big")
        if self._is_known(source):
            return ("drop", "outside_source")
        if packet[8] == 0:
            return ("drop", "ttl_expired")
        if not_unicast(dst):
            return ("drop", "inner_destination")
        address = int.from_bytes(dst, "big")
        target = self._outside.mobile.get(address)
        if target is _UNBOUND or (
            target is _MISS and self._home_addresses.get(address) is not _MISS
        ):
            return ("drop", "no_binding")
        if not isinstance(target, Binding):
            return ("drop", "not_mobile")
        if self._home.get(source) is not _MISS or src == self._address or self._forward_outside:
            return ("tunnel", target)
        if dst == target.home_address and is_signalling(packet):
            return ("drop", "nested_tunnel") if _is_tunnel_data(packet) else ("tunnel", target)
        return ("drop", "outside_not_allowed")


def _malformed(packet: bytes | bytearray | memoryview) -> str:
    size = len(packet)
    if size < 20 or packet[0] >> 4 != 4:
        return "inner_malformed"
    header = (packet[0] & 15) * 4
    if header < 20 or header > size:
        return "inner_malformed"
    return "" if packet[2] << 8 | packet[3] == size else "inner_length"


def not_unicast(address: bytes) -> bool:
    """Tell whether no host can have `address`."""
    # 0/8, loopback, multicast and class E with the limited broadcast.
    return address[0] in (0, 127) or address[0] >= 224


def is_signalling(packet: bytes | bytearray | memoryview) -> bool:
    """Tell whether `packet` is whole UDP with source or destination port 434 [A56]."""
    header = (packet[0] & 15) * 4
    if packet[9] != PROTOCOL_UDP or packet[6] & 0x3F or packet[7] or len(packet) < header + 8:
        return False
    source = packet[header] << 8 | packet[header + 1]
    destination = packet[header + 2] << 8 | packet[header + 3]
    return MIP_PORT in (source, destination)


def _is_tunnel_data(packet: bytes | bytearray | memoryview) -> bool:
    header = (packet[0] & 15) * 4
    return len(packet) > header + 8 and packet[header + 8] == TUNNEL_DATA
