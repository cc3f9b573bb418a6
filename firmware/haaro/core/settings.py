"""What the operator chose; made by the shell from the validated configuration, read-only
afterwards.
"""


class Settings:
    """Settings of one router, with defaults. Times are in ms where the name says so, else in
    seconds.
    """

    def __init__(self) -> None:
        self.name = "router"
        self.home_address = b"\x00\x00\x00\x00"
        self.home_agent = b"\x00\x00\x00\x00"
        self.networks: list[tuple[bytes, int]] = []
        # What goes to the home agent if no route is more exact: everything, or what is private.
        self.home_prefixes: list[tuple[bytes, int]] = [(b"\x00\x00\x00\x00", 0)]
        self.explicit = True  # send Mobile Network Requests (RFC 5177 explicit mode)
        self.lifetime = 300
        self.spi = 256
        self.algorithm = "hmac-md5"
        self.key = b""
        # While a key is rotated: (spi, algorithm, key) that the home agent may know instead.
        self.other_association: tuple[int, str, bytes] | None = None
        self.encapsulation = "udp"  # or "ipip", "gre", "minimal": where no NAT is in the way
        self.route_optimization = True
        self.advertise = True
        self.outbound_only = False
        self.mutual_registration = (
            True  # register with a peer that registered with us, RFC 6521 6.5
        )
        self.cache_capacity = 64
        self.cache_prefixes = 256  # of all of them: what a heap of 448 KB has room for
        self.peer_lifetime = 420  # asked for; an RR binding is never granted more [A30]
        self.static_lifetime = 3600  # cap of a binding made with a static KRm [A58]
        self.static_krm: dict[bytes, list[bytes]] = {}
        # Known without the home agent, never evicted: {home address: [(prefix, plen, realm)]}.
        self.static_peers: dict[bytes, list[tuple[bytes, int, str]]] = {}
        self.realm = ""  # ours; with separate_realms no prefix of another one becomes a route
        self.separate_realms = False
        self.ha_keepalive_ms = 25000
        self.direct_keepalive_ms = 1000
        self.keepalive_misses = 3
        self.peer_idle_ms = (
            600000  # a direct tunnel without user traffic is given up after this long; 0 = never
        )
        self.uplinks: list[dict] = []  # as in router.json: name, priority, cost, metered, budget
        self.peer_uplinks: dict[bytes, int] = {}  # by home address: which uplink reaches it
        self.return_ms = 30000  # a better uplink must be without trouble for so long
        self.hold_down_ms = 10000  # after a failure; doubles with each
        self.loss_percent = 60  # of what goes to the home agent and back
        self.latency_ms = 1500

    def association(self, spi: int) -> tuple[int, str, bytes] | None:
        """Return (spi, algorithm, key) of the home agent's association `spi`, None if unknown."""
        if spi == self.spi:
            return spi, self.algorithm, self.key
        other = self.other_association
        return other if other is not None and spi == other[0] else None

    def take_keys(self, associations: list, static_krm: dict) -> None:
        """Replace every key: [(spi, algorithm, key), ...], the one in use first, and
        {home address: [KRm, ...]}.
        """
        self.spi, self.algorithm, self.key = associations[0]
        self.other_association = associations[1] if len(associations) > 1 else None
        self.static_krm = static_krm
