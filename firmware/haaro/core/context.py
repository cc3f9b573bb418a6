"""What every part of the core shares, and the two ways a message leaves. Owned by the router."""

from haaro.core.clock import Clock
from haaro.core.counters import Counters
from haaro.core.deadlines import Deadlines
from haaro.core.events import Queues, Transmit
from haaro.core.settings import Settings
from haaro.core.uplink_policy import Uplink
from haaro.wire import ipv4
from haaro.wire.message import MIP_PORT


class Arrival:
    """How a datagram came: `path` (PATH_*), uplink or tunnel, and its addresses and ports."""

    def __init__(self, path, uplink, tunnel, src, sport, dst, dport) -> None:
        self.path = path
        self.uplink = uplink
        self.tunnel = tunnel
        self.src = src
        self.sport = sport
        self.dst = dst
        self.dport = dport


PATH_OUTSIDE = 1  # to our care-of address, outside every tunnel
PATH_HOME = 2  # to our home address, inside the tunnel with the home agent
PATH_DIRECT = 4  # to our home address, inside a direct tunnel


class Context:
    """Settings, randomness, clock, timers, queues and uplinks of one router."""

    def __init__(self, settings: Settings, random, now: int, ntp_ms: int) -> None:
        self.settings = settings
        self.random = random
        self.clock = Clock(now, ntp_ms)
        self.counters = Counters()
        self.deadlines = Deadlines()
        self.queues = Queues(self.counters)
        self.uplinks: dict[int, Uplink] = {}
        self.current = -1  # index of the uplink that the home agent accepted last
        self.chosen = -1  # and of the one that the policy wants
        self.stopping = False

    def uplink(self, record=None) -> Uplink | None:
        """Return the uplink in use with the home agent, or toward one CR; None when all are down.

        RFC 6521 3.3: a CR may have a care-of address of its own: what was found to work, else what
        the operator says of it, else that of the home agent.
        """
        if record is not None:
            static = self.settings.peer_uplinks.get(record.cr_hoa, -1)
            for index in (record.uplink, static):
                link = self.uplinks.get(index)
                if link is not None and link.up and not link.drained:
                    return link
        for index in (self.current, self.chosen):
            link = self.uplinks.get(index)
            if link is not None and link.up:
                return link
        return None

    def uplink_of(self, care_of_address: bytes) -> Uplink | None:
        """Return the uplink that is up with this care-of address, None if there is none."""
        for link in self.uplinks.values():
            if link.up and link.address == care_of_address:
                return link
        return None

    def send_outside(self, uplink: int, dst: bytes, dport: int, payload: bytes) -> None:
        """Send a message from the care-of address of `uplink`, outside every tunnel."""
        self.queues.transmit(Transmit(-1, uplink, dst, dport, bytes(payload)))

    def send_home(self, dst: bytes, dport: int, payload: bytes) -> None:
        """Send a message from our home address; always by the tunnel with the home agent [A56]."""
        source, tos = self.settings.home_address, ipv4.TOS_NETWORK_CONTROL
        packet = ipv4.build_udp(source, dst, MIP_PORT, dport, bytes(payload), 64, tos)
        self.queues.transmit(Transmit(0, -1, dst, dport, packet))

    def log(self, text: str) -> None:
        """Queue a line of level info."""
        self.queues.log("info", text)

    def warn(self, text: str) -> None:
        """Queue a line of level warning."""
        self.queues.log("warning", text)
