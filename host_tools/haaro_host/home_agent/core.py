"""The home agent, sans-IO: datagrams, packets and time in; datagrams, packets and events out.

The doors only: registrar judges requests, delivery moves packets, both on one state. Never opens a
socket, never reads a clock. Called by the asyncio shell and, in one process with routers on a fake
clock, by tests.

`now` is NTP milliseconds (since 1900) everywhere. After any door the caller sends what
`poll_transmit` and `poll_outside` give, hands on `next_event`, and sleeps until `next_deadline`.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from haaro.wire import message, registration, revocation
from haaro.wire.errors import WireError
from haaro_host.home_agent import encapsulations
from haaro_host.home_agent.bindings import Binding
from haaro_host.home_agent.config import Config
from haaro_host.home_agent.delivery import Delivery
from haaro_host.home_agent.forwarding import Decision
from haaro_host.home_agent.registrar import Registrar
from haaro_host.home_agent.revocation import Revoker
from haaro_host.home_agent.state import RAW_PORT as RAW_PORT
from haaro_host.home_agent.state import State, Transmit
from haaro_host.home_agent.status import status
from haaro_host.home_agent.store import Store, StoreError

_CLOCK_STEP_MS = 500  # a jump of the system clock against the boot clock larger than this is a step


class HomeAgent:
    """One home agent (RFC 5944, RFC 5177, RFC 3519, RFC 6521). See the module for its doors."""

    def __init__(self, config: Config, store: Store, random: Callable[[int], bytes]) -> None:
        """Load bindings and Identifications from `store`; `random(n)` gives n octets."""
        self._state = State(config, store, random)
        self._registrar = Registrar(self._state)
        self._revoker = Revoker(self._state)
        self._delivery = Delivery(self._state)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._state.config

    @property
    def counters(self) -> "Counter[str]":
        """Every accepted and refused thing by name."""
        return self._state.counters

    @property
    def bindings(self) -> dict[bytes, Binding]:
        """The current bindings by home address."""
        return self._state.bindings

    @property
    def generation(self) -> int:
        """A number that changes whenever a forwarding decision may change."""
        return self._state.generation

    # --- doors: in -----------------------------------------------------------------------------

    def receive_datagram(
        self, now: int, src: bytes, sport: int, dst: bytes, dport: int, data: bytes
    ) -> None:
        """Take a UDP datagram that arrived at port 434 of `dst` from `src`:`sport`."""
        time = self._state.time(now)
        if data[:1] == b"\x04":
            self._delivery.tunnel_data(now, src, sport, data)
            return
        try:
            request = message.parse(data)
        except WireError as error:
            self._state.drop(f"malformed_{error.reason}")
            return
        if isinstance(request, revocation.RevocationAck):
            self._revoker.receive_ack(request)
            return
        if not isinstance(request, registration.RegistrationRequest):
            # A Revocation too: routers deregister (RFC 3543 4.2.4), and ours may come back to us.
            self._state.drop(f"unexpected_type_{request.type}")
            return
        self._registrar.receive(time, src, sport, dst, request)

    def receive_encapsulated(self, now: int, packet: bytes) -> None:
        """Take a packet to our address in IP in IP, GRE or minimal encapsulation, whole."""
        self._state.time(now)
        # Who it is from first: what a stranger sends must not cost a checksum.
        kind, source = encapsulations.outside(packet)
        binding = self._state.forwarding.by_care_of_address(kind, source)
        if binding is None:
            self._state.drop("unknown_tunnel_end")
            return
        try:
            inner = encapsulations.unwrap(packet)
        except WireError as error:
            self._state.drop(error.reason)
            return
        self._delivery.deliver(now, inner, binding)

    def receive_packet(self, now: int, packet: bytes) -> None:
        """Take a packet for a home address or mobile network that the kernel routed to us."""
        self._state.time(now)
        self._delivery.deliver(now, packet, None)

    def handle_timer(self, now: int) -> None:
        """Remove the bindings whose lifetime is over (RFC 5944 3.8.2.2), and ends left behind."""
        time = self._state.time(now)
        self._revoker.handle_timer(time)
        left = [b for b in self._state.bindings.values() if b.previous and b.previous_until <= time]
        for binding in left:
            binding.previous = None
        expired = [b for b in self._state.bindings.values() if b.expires <= time]
        if not expired:
            if left:
                self._state.rebuild()
            return
        for binding in expired:
            del self._state.bindings[binding.home_address]
            self._state.counters["binding_expired"] += 1
            self._state.log(
                "info", f"router {self._state.name(binding.home_address)}: binding expired"
            )
        self._state.rebuild()
        try:
            self._state.store.remove(b.home_address for b in expired)
        except StoreError as error:
            # Not on disk: the next start reads them, finds them expired and drops them again.
            self._state.drop("store_failed")
            self._state.log("warning", str(error))

    def machine_clock(self, now: int, boot: str, skew: int) -> None:
        """The shell's clock reads `now`: `skew` ms more than the time since boot `boot`.

        Notices when the clock was set, also while no home agent ran: then the bindings keep what
        is left of their lifetime. After a reboot how long that took is known by `now` only.
        """
        state = self._state
        known, state.machine = state.machine, (boot, skew)
        step = skew - known[1] if known is not None and known[0] == boot else 0
        stored = state.machine_stored
        if stored is None or stored[0] != boot or abs(skew - stored[1]) > _CLOCK_STEP_MS:
            # Before the bindings: a kill in between may end them early, but never prolong them.
            state.machine_stored = state.machine
            try:
                state.store.put_machine(boot, skew)
            except StoreError as error:
                state.drop("store_failed")
                state.log("warning", str(error))
        if abs(step) > _CLOCK_STEP_MS:
            # A start is one at the time that the clock would show had it not been set.
            state.time(now - step)
            self.clock_stepped(now, step)

    def clock_stepped(self, now: int, delta: int) -> None:
        """The shell's clock was set by `delta` ms and now reads `now`: no binding shall notice."""
        jump = self._state.clock.stepped(delta)
        self._state.log("warning", f"the system clock was set by {delta / 1000:.1f} s")
        for binding in self._state.bindings.values():
            binding.expires += jump
            binding.previous_until += jump
        self._state.time(now)
        try:
            self._state.store.replace(self._state.bindings.values())
        except StoreError as error:
            self._state.drop("store_failed")
            self._state.log("warning", str(error))

    def reconfigure(self, now: int, config: Config) -> None:
        """Put `config` in force; bindings stay as far as it allows them.

        Raises StoreError, and then nothing was changed.
        """
        self._state.time(now)
        kept = {}
        for home_address, binding in self._state.bindings.items():
            router = config.routers.get(home_address)
            if router is None:
                continue
            allowed = list(router.prefixes)
            if not binding.implicit:
                allowed = [prefix for prefix in binding.prefixes if prefix in allowed]
            kept[home_address] = (binding, allowed)
        before = {b.home_address: b.prefixes for b in self._state.bindings.values()}
        for binding, allowed in kept.values():
            binding.prefixes = allowed
        try:
            self._state.store.replace(binding for binding, _ in kept.values())
        except StoreError:
            for home_address, prefixes in before.items():
                self._state.bindings[home_address].prefixes = prefixes
            raise
        self._state.config = config
        self._state.bindings = {
            home_address: binding for home_address, (binding, _) in kept.items()
        }
        self._state.renew_limits()
        self._state.rebuild()

    def revoke(self, now: int, home_address: bytes) -> bool:
        """End a router's registration at once and take none until `allow` (RFC 3543).

        Returns whether it was registered. Raises StoreError, and then nothing was changed.
        """
        return self._revoker.revoke(self._state.time(now), home_address)

    def allow(self, now: int, home_address: bytes) -> bool:
        """Let a revoked router register again; False: it was not revoked. Raises StoreError."""
        self._state.time(now)
        return self._revoker.allow(home_address)

    # --- doors: out ----------------------------------------------------------------------------

    def poll_transmit(self) -> Transmit | None:
        """Return the next datagram to send, or None."""
        return self._state.transmits.popleft() if self._state.transmits else None

    def poll_outside(self) -> bytes | None:
        """Return the next inner packet to hand to the kernel's routing, or None."""
        return self._state.outside.popleft() if self._state.outside else None

    def next_event(self) -> tuple[Any, ...] | None:
        """Return ("log", level, text), or None."""
        return self._state.events.popleft() if self._state.events else None

    def next_deadline(self) -> int | None:
        """Return when `handle_timer` has work, on the clock that `now` is read from, or None."""
        bindings = self._state.bindings.values()
        due = [b.expires for b in bindings] + [b.previous_until for b in bindings if b.previous]
        due += self._revoker.deadlines()
        return min(due) - self._state.clock.offset if due else None

    # --- look-ups ------------------------------------------------------------------------------

    def time(self, now: int) -> int:
        """Return our time for the caller's `now`: what the ends of bindings are in (NTP ms)."""
        return self._state.time(now)

    def binding_by_tunnel_end(self, src: bytes, sport: int) -> Binding | None:
        """Return the binding whose UDP tunnel ends exactly at `src`:`sport` (RFC 3519 4.3)."""
        return self._state.forwarding.by_tunnel_end(src, sport)

    def is_shared_end(self, src: bytes, sport: int) -> bool:
        """Tell whether several bindings have their tunnel end there; each packet then decides."""
        return self._state.forwarding.is_shared_end(src, sport)

    def forward(self, now: int, packet: bytes, binding: Binding | None) -> Decision:
        """Decide on an inner packet from the tunnel of `binding`, or from outside (None).

        Returns ("tunnel", binding), ("outside",), ("local",) for our own address, or
        ("drop", reason). Changes and counts nothing.
        """
        self._state.time(now)
        return self._state.forwarding.forward(packet, binding)

    def flow(self, packet: bytes | memoryview, binding: Binding | None) -> Decision:
        """As `forward`, but ("each",) unless the addresses alone decide; see `Forwarding.flow`."""
        return self._state.forwarding.flow(packet, binding)

    def tunnel_mtu(self, binding: Binding) -> int:
        """Return the largest inner packet that fits the tunnel of `binding` whole, in octets."""
        return self._delivery.tunnel_mtu(binding)

    def status(self, now: int) -> dict[str, Any]:
        """Return what the operator may see, JSON-able; keys only as fingerprints."""
        return status(self._state, self._state.time(now), self._revoker.awaited)
