"""What the home agent knows at one moment, and the queues to and from its shell.

Owns: bindings, last Identifications, clock, tables, counters, queues. Decides nothing about
requests or packets: registrar and delivery do, on this state; core is the door to all three.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from haaro.wire import ipv4
from haaro_host.home_agent.bindings import Binding, Terms
from haaro_host.home_agent.bucket import TokenBucket
from haaro_host.home_agent.clock import Clock, difference, stamp, unstamp
from haaro_host.home_agent.config import Config
from haaro_host.home_agent.forwarding import Forwarding
from haaro_host.home_agent.store import Store

# Bounds. Full: the newest is dropped and counted.
MAX_QUEUED = 4096
MAX_EVENTS = 256
_ANSWERS_A_SECOND = 5  # replies 131 and 133, one bucket a router, so that a replay cannot starve it
_ANSWERS_BURST = 10

RAW_PORT = 0


class Transmit(NamedTuple):
    """One datagram to send from the home agent's address.

    UDP from port 434 to `dst`:`dport`; `dport` 0 (RAW_PORT): a whole packet, of a tunnel in no UDP.
    control: tunnel data that carries a keepalive or signalling; a message of ours is so anyway.
    """

    dst: bytes
    dport: int
    payload: bytes
    control: bool = False

    @property
    def urgent(self) -> bool:
        """Tell whether it goes marked, and ahead of user traffic."""
        return self.control or (self.dport != RAW_PORT and self.payload[:1] != b"\x04")


class RouterState:
    """What is kept for a router, registered or not; bounded by the configuration."""

    def __init__(self, config: Config) -> None:
        self.identification: int | None = None
        self.terms = Terms()
        self.spi: int | None = None  # of the last accepted request
        self.answered_at: int | None = None  # the last fresh request
        self.used: dict[int, int] = {}  # SPI: the last fresh request that it authenticated
        self.requests = TokenBucket(config.rate, config.burst)
        self.answers = TokenBucket(_ANSWERS_A_SECOND, _ANSWERS_BURST)


class State:
    """Everything that changes; see the module."""

    def __init__(self, config: Config, store: Store, random: Callable[[int], bytes]) -> None:
        """Load bindings and Identifications from `store`.

        `random` is kept for replay protection by nonces (RFC 5944 5.7.2); timestamps need none.
        """
        self.config = config
        self.store = store
        self.random = random
        self.clock = Clock()
        self.counters: Counter[str] = Counter()
        self.generation = 0
        self.advertisable = 0  # changes whenever an advertisement may change
        self.floor: int | None = None
        self.transmits: deque[Transmit] = deque()
        self.outside: deque[bytes] = deque()
        self.events: deque[tuple[Any, ...]] = deque()
        self._started = False
        self.machine = self.machine_stored = store.machine()
        self._routers: dict[bytes, RouterState] = {}
        for home_address, identification in store.identifications().items():
            self.router(home_address).identification = int.from_bytes(identification, "big")
        for home_address, terms in store.terms().items():
            self.router(home_address).terms = terms
        self.bindings: dict[bytes, Binding] = {b.home_address: b for b in store.bindings()}
        self.forwarding = Forwarding(config)

    def time(self, now: int) -> int:
        """Return our time for the caller's `now`; the first call sets the clock and the tables."""
        if not self._started:
            self._start(now)
        return self.clock.now(now)

    def _start(self, now: int) -> None:
        self._started = True
        seen = [s.identification for s in self._routers.values() if s.identification is not None]
        if seen:
            newest = seen[0]
            for value in seen:
                newest = value if difference(value, newest) > 0 else newest
            ahead = unstamp(newest, now) - now
            # Up to a window ahead is a router's own clock; more is ours, wiped or wrong, and all
            # routers would be refused.
            if ahead > self.config.replay_window * 1000:
                self.clock.not_before(now, now + ahead)
                self.log(
                    "warning",
                    f"the system clock is {ahead / 1000:.0f} s behind the last registration;"
                    " continuing from that registration's time",
                )
        elif self.store.fresh:
            # Nothing is known of an earlier life, but what it accepted was stamped at most one
            # window ahead: refuse all that could be that. Our clock stays true, so that the same
            # holds for the life after this one.
            self.floor = stamp(now + self.config.replay_window * 1000)
        time = self.clock.now(now)
        allowed = {}
        for home_address, binding in self.bindings.items():
            router = self.config.routers.get(home_address)
            if router is None or binding.expires <= time:
                continue
            binding.prefixes = [p for p in binding.prefixes if p in router.prefixes]
            allowed[home_address] = binding
        self.bindings = allowed
        self.rebuild()

    def rebuild(self) -> None:
        """Make the forwarding tables anew after bindings or configuration changed."""
        self.forwarding.rebuild(self.config, self.bindings.values())
        self.generation += 1
        self.advertisable += 1

    def renew_limits(self) -> None:
        """Give every router the request rate of the current configuration."""
        for router in self._routers.values():
            router.requests = TokenBucket(self.config.rate, self.config.burst)

    def router(self, home_address: bytes) -> RouterState:
        """Return what is kept for `home_address`."""
        state = self._routers.get(home_address)
        if state is None:
            state = self._routers[home_address] = RouterState(self.config)
        return state

    def name(self, home_address: bytes) -> str:
        """Return the configured name, or the address."""
        router = self.config.routers.get(home_address)
        return router.name if router else ipv4.text(home_address)

    def drop(self, reason: str) -> None:
        """Count a refusal under its name."""
        self.counters[reason] += 1

    def queue(self, transmit: Transmit) -> None:
        """Queue a datagram; bounded by MAX_QUEUED."""
        if len(self.transmits) >= MAX_QUEUED:
            self.drop("transmit_queue_full")
            return
        self.transmits.append(transmit)

    def queue_outside(self, packet: bytes) -> None:
        """Queue an inner packet for the kernel's routing; bounded by MAX_QUEUED."""
        if len(self.outside) >= MAX_QUEUED:
            self.drop("outside_queue_full")
            return
        self.outside.append(packet)

    def log(self, level: str, text: str) -> None:
        """Queue one line for the operator; bounded by MAX_EVENTS."""
        if len(self.events) >= MAX_EVENTS:
            self.drop("log_dropped")
            return
        self.events.append(("log", level, text))
