"""Registration Request and Reply (RFC 5944 3.3, 3.4) and what every message with extensions has.

    Request: Type 1 | Flags | Lifetime (2) | Home Address | Home Agent | Care-of Address | Identification (8)
    Reply:   Type 3 | Code  | Lifetime (2) | Home Address | Home Agent | Identification (8)

Lifetimes in seconds, 0xffff is infinity. Parsing says what is protected by which authenticator; whether the
authenticator is right is asked of `auth`.
"""

import struct

from haaro.compat import const
from haaro.wire.errors import WireError
from haaro.wire.extensions import (
    MOBILE_HOME_AUTHENTICATION,
    ROUTE_OPTIMIZATION,
    ROUTE_OPTIMIZATION_DATA,
    MobileNetworkRequest,
    reader,
    walk,
)

REGISTRATION_REQUEST = const(1)
REGISTRATION_REPLY = const(3)

FLAG_S = const(0x80)
FLAG_B = const(0x40)
FLAG_D = const(0x20)
FLAG_M = const(0x10)
FLAG_G = const(0x08)
FLAG_r = const(0x04)
FLAG_T = const(0x02)
FLAG_x = const(0x01)

ACCEPTED = const(0)
ACCEPTED_NO_SIMULTANEOUS = const(1)
CONCURRENT = const(2)
REASON_UNSPECIFIED = const(128)
ADMINISTRATIVELY_PROHIBITED = const(129)
INSUFFICIENT_RESOURCES = const(130)
FAILED_AUTHENTICATION = const(131)
FOREIGN_AGENT_FAILED_AUTHENTICATION = const(132)
IDENTIFICATION_MISMATCH = const(133)
POORLY_FORMED = const(134)
TOO_MANY_BINDINGS = const(135)
UNKNOWN_HOME_AGENT = const(136)
UDP_ENCAPSULATION_UNAVAILABLE = const(142)
MOBNET_ERROR = const(147)
MOBNET_DISALLOWED = const(148)
EXPIRED_HOME_NONCE = const(201)
EXPIRED_CARE_OF_NONCE = const(202)
EXPIRED_NONCES = const(203)

_CODE_NAMES = {
    ACCEPTED: "accepted",
    ACCEPTED_NO_SIMULTANEOUS: "accepted_no_simultaneous",
    CONCURRENT: "concurrent_registration",
    REASON_UNSPECIFIED: "reason_unspecified",
    ADMINISTRATIVELY_PROHIBITED: "administratively_prohibited",
    INSUFFICIENT_RESOURCES: "insufficient_resources",
    FAILED_AUTHENTICATION: "failed_authentication",
    FOREIGN_AGENT_FAILED_AUTHENTICATION: "foreign_agent_failed_authentication",
    IDENTIFICATION_MISMATCH: "identification_mismatch",
    POORLY_FORMED: "poorly_formed",
    TOO_MANY_BINDINGS: "too_many_bindings",
    UNKNOWN_HOME_AGENT: "unknown_home_agent",
    UDP_ENCAPSULATION_UNAVAILABLE: "udp_encapsulation_unavailable",
    MOBNET_ERROR: "mobnet_error",
    MOBNET_DISALLOWED: "mobnet_disallowed",
    EXPIRED_HOME_NONCE: "expired_home_nonce",
    EXPIRED_CARE_OF_NONCE: "expired_care_of_nonce",
    EXPIRED_NONCES: "expired_nonces",
}


def code_name(code: int) -> str:
    """Return the snake_case name of a Reply code, or "code_n"."""
    return _CODE_NAMES.get(code) or "code_%d" % code


class MobileHomeAuthentication:
    """RFC 5944 3.5.2. `.offset` of the extension in the message, `.value` the authenticator as sent."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        if end - off < 6:
            raise WireError("auth_ext_length")
        self.offset = off
        self.spi: int = struct.unpack_from(">I", buf, off + 2)[0]
        self.value = bytes(buf[off + 6 : end])


class MobileCorrespondentAuthentication:
    """RFC 6521 5.3. Nonce indexes instead of an SPI; Reserved is ignored."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        if end - off < 8:
            raise WireError("auth_ext_length")
        self.offset = off
        self.home_nonce_index: int
        self.care_of_nonce_index: int
        self.home_nonce_index, self.care_of_nonce_index = struct.unpack_from(">HH", buf, off + 4)
        self.value = bytes(buf[off + 8 : end])


class ExtendedMessage:
    """A message whose fixed part is followed by extensions; base of all that can be authenticated.

    .raw                 the datagram, borrowed for the life of the object
    .authenticator       the first authorization-enabling extension, or None; .authenticators counts them all
    .extensions          objects in order, only those before the authenticator: nothing else may be acted upon
    .unauthenticated     (type, subtype) of what follows it, or of everything when there is none [A06]
    .ignored             (type, subtype) of unknown skippable ones
    .bad                 (type, subtype, reason) of known ones that are malformed or given twice
    .invalid_networks    MobileNetworkRequest with a prefix length over 32, also in .bad: to be acknowledged with
                         code 1 (RFC 5177 4.2)
    """

    type = 0

    def __init__(self, data: bytes, fixed: int) -> None:
        if len(data) < fixed:
            raise WireError("message_truncated")
        self.raw = data
        self.authenticator: MobileHomeAuthentication | MobileCorrespondentAuthentication | None = None
        self.authenticators = 0
        self.extensions: list = []
        self.unauthenticated: list[tuple[int, int | None]] = []
        self.ignored: list[tuple[int, int | None]] = []
        self.bad: list[tuple[int, int | None, str]] = []
        self.invalid_networks: list[MobileNetworkRequest] = []
        pending = []
        for kind, subtype, start, off, end in walk(data, fixed):
            if kind == MOBILE_HOME_AUTHENTICATION or (kind, subtype) == (ROUTE_OPTIMIZATION, 2):
                self.authenticators += 1
                if self.authenticator is None:
                    mobile_home = kind == MOBILE_HOME_AUTHENTICATION
                    cls = MobileHomeAuthentication if mobile_home else MobileCorrespondentAuthentication
                    self.authenticator = cls(data, start, end)
                    continue
            if self.authenticator is None:
                pending.append((kind, subtype, off, end))
            else:
                self.unauthenticated.append((kind, subtype))
        for kind, subtype, off, end in pending:
            if self.authenticator is None:
                self.unauthenticated.append((kind, subtype))
            else:
                self._read(kind, subtype, off, end)

    def _read(self, kind: int, subtype: int | None, off: int, end: int) -> None:
        cls = reader(kind, subtype)
        if cls is None:
            if subtype is None and kind < 128:
                self.bad.append((kind, subtype, "ext_length"))
            else:
                self.ignored.append((kind, subtype))
            return
        try:
            if kind == ROUTE_OPTIMIZATION_DATA and self.type != REGISTRATION_REPLY:
                raise WireError("advertisement_not_in_reply")
            if cls.single and self.find(cls):
                raise WireError("duplicate_extension")
            extension = cls.read(self.raw, off, end)
        except WireError as e:
            self.bad.append((kind, subtype, e.reason))
            if e.reason == "mobnet_plen" and cls is MobileNetworkRequest:
                self.invalid_networks.append(
                    MobileNetworkRequest(self.raw[off], bytes(self.raw[off + 1 : end]))
                )
            return
        if extension is None:
            self.ignored.append((kind, subtype))
        else:
            self.extensions.append(extension)

    def find(self, cls):  # type: ignore[no-untyped-def]
        """Return the first protected extension of class `cls`, or None."""
        for extension in self.extensions:
            if isinstance(extension, cls):
                return extension
        return None

    def all(self, cls: type) -> list:
        """Return the protected extensions of class `cls` in order."""
        return [e for e in self.extensions if isinstance(e, cls)]


class RegistrationRequest(ExtendedMessage):
    """RFC 5944 3.3; `.flags` without r and x, which are ignored on reception [A11]."""

    type = REGISTRATION_REQUEST

    def __init__(self, data: bytes) -> None:
        ExtendedMessage.__init__(self, data, 24)
        self.flags: int = data[1] & ~(FLAG_r | FLAG_x)
        self.lifetime: int = data[2] << 8 | data[3]
        self.home_address = bytes(data[4:8])
        self.home_agent = bytes(data[8:12])
        self.care_of_address = bytes(data[12:16])
        self.identification = bytes(data[16:24])


class RegistrationReply(ExtendedMessage):
    """RFC 5944 3.4."""

    type = REGISTRATION_REPLY

    def __init__(self, data: bytes) -> None:
        ExtendedMessage.__init__(self, data, 20)
        self.code: int = data[1]
        self.lifetime: int = data[2] << 8 | data[3]
        self.home_address = bytes(data[4:8])
        self.home_agent = bytes(data[8:12])
        self.identification = bytes(data[12:20])


def build_request(
    flags: int,
    lifetime: int,
    home_address: bytes,
    home_agent: bytes,
    care_of_address: bytes,
    identification: bytes,
) -> bytearray:
    """Return the fixed part; extensions and last the authenticator are appended by the caller."""
    head = struct.pack(">BBH4s4s4s", REGISTRATION_REQUEST, flags, lifetime, home_address, home_agent, care_of_address)
    return bytearray(head + identification)


def build_reply(
    code: int, lifetime: int, home_address: bytes, home_agent: bytes, identification: bytes
) -> bytearray:
    """Return the fixed part; extensions and last the authenticator are appended by the caller."""
    head = struct.pack(">BBH4s4s", REGISTRATION_REPLY, code, lifetime, home_address, home_agent)
    return bytearray(head + identification)
