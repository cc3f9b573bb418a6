"""The three states a cache record may hold about one peer; plain data, owned by the record.

They are made and changed by return_routability.py, peer_registration.py and correspondent.py.
"""

_LONG_AGO_MS = -1000


class Procedure:
    """One return routability run: for which care-of address, and the cookies still open."""

    def __init__(self, uplink: int, mr_coa: bytes, now: int) -> None:
        self.uplink = uplink
        self.mr_coa = mr_coa
        self.sent_at = now
        self.tries = 0
        self.home_cookie: bytes | None = None
        self.care_of_cookie: bytes | None = None


class PeerRegistration:
    """Our registration with one CR (MR role)."""

    def __init__(self) -> None:
        self.pending: int | None = None  # Identification of the request that waits for its reply
        self.krm = b""
        self.lifetime = 0
        self.keepalive_s = 0  # what the CR asks for (RFC 3519 3.2)
        self.coa = b""
        self.port = 434  # of the tunnel: asked for, then granted (core/encapsulation.py)
        self.last: int | None = None
        self.sent_at = _LONG_AGO_MS
        self.attempts = 0
        self.failures = 0
        self.mismatches = 0  # replies with code 133 in a row
        self.retry_at = 0
        self.offset_ms = 0  # of this CR's clock to the home agent's [A45]
        self.code: int | None = None
        self.registered = False
        self.pre_accepted = False
        self.routes_allowed = False
        self.expires_at = 0


class Binding:
    """A peer's registration with us (CR role)."""

    def __init__(self, care_of_address: bytes, source: bytes, expires_at: int) -> None:
        self.care_of_address = care_of_address
        self.source = source
        self.expires_at = expires_at
        self.networks: list[tuple[bytes, int]] = []
