"""Registration Request and Reply (RFC 5944 3.3, 3.4) and what every message with extensions has.

    Request: Type 1 | Flags | Lifetime (2) | Home Address | Home Agent | Care-of Address | Ident (8)
    Reply:   Type 3 | Code  | Lifetime (2) | Home Address | Home Agent | Ident (8)

Lifetimes in seconds, 0xffff is infinity. Parsing says what is protected by which authenticator;
whether that is right is asked of `auth`.
"""

import struct

from haaro.compat import const
from haaro.wire.errors import WireError
from haaro.wire.extensions import (
    MOBILE_HOME_AUTHENTICATION,
    Authenticator,
    MobileNetworkAck,
    MobileNetworkRequest,
    PrefixAdvertisement,
    walk,
)

REGISTRATION_REQUEST = const(1)
REGISTRATION_REPLY = const(3)

FLAG_S = const(0x80)
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
IDENTIFICATION_MISMATCH = const(133)
POORLY_FORMED = const(134)
TOO_MANY_BINDINGS = const(135)
UNKNOWN_HOME_AGENT = const(136)
ENCAPSULATION_UNAVAILABLE = const(139)
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
    IDENTIFICATION_MISMATCH: "identification_mismatch",
    POORLY_FORMED: "poorly_formed",
    TOO_MANY_BINDINGS: "too_many_bindings",
    UNKNOWN_HOME_AGENT: "unknown_home_agent",
    ENCAPSULATION_UNAVAILABLE: "encapsulation_unavailable",
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
    """RFC 5944 3.5.2. `.offset` of the extension in the message, `.value` as it was sent."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        if end - off < 6:
            raise WireError("auth_ext_length")
        self.offset = off
        self.spi = int.from_bytes(buf[off + 2 : off + 6], "big")
        self.value = buf[off + 6 : end]


class MobileCorrespondentAuthentication:
    """RFC 6521 5.3. Nonce indexes instead of an SPI; Reserved is ignored."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        if end - off < 8:
            raise WireError("auth_ext_length")
        self.offset = off
        self.home_nonce_index = buf[off + 4] << 8 | buf[off + 5]
        self.care_of_nonce_index = buf[off + 6] << 8 | buf[off + 7]
        self.value = buf[off + 8 : end]


class ExtendedMessage:
    """A message whose fixed part is followed by extensions; base of all that can be authenticated.

    .raw               the datagram, kept
    .authenticator     the first authorization-enabling one, or None; .authenticators counts all
    .extensions        in order, only those before the authenticator: nothing else may be acted upon
    .unauthenticated   (type, subtype) of what follows it, or of all when there is none [A06]
    .ignored           (type, subtype) of unknown skippable ones
    .bad               (type, subtype, reason) of known ones that are malformed or given twice
    .invalid_networks  MobileNetworkRequests with .plen over 32, also in .bad: for ack code 1

    Extensions are framed at once and read when first asked for: ask after verifying, and a forged
    datagram of 64 KB costs a walk and a hash, not the decoding of its prefixes.
    """

    type = 0

    def __init__(self, data: bytes, fixed: int) -> None:
        if len(data) < fixed:
            raise WireError("message_truncated")
        self.raw = data
        self.authenticator: MobileHomeAuthentication | MobileCorrespondentAuthentication | None
        self.authenticator = None
        self.authenticators = 0
        self.unauthenticated: list[tuple[int, int | None]] = []
        self._framed: list = []
        self._read: tuple[list, list, list, list] | None = None
        for extension in walk(data, fixed):
            cls, kind, subtype, start, _, end = extension
            if cls is Authenticator:
                self.authenticators += 1
                if self.authenticators == 1:
                    if kind == MOBILE_HOME_AUTHENTICATION:
                        self.authenticator = MobileHomeAuthentication(data, start, end)
                    else:
                        self.authenticator = MobileCorrespondentAuthentication(data, start, end)
                    continue
            if self.authenticators:
                self.unauthenticated.append((kind, subtype))
            else:
                self._framed.append(extension)
        if self.authenticator is None:
            self.unauthenticated = [extension[1:3] for extension in self._framed]
            self._framed = []

    @property
    def extensions(self) -> list:
        return self._lists()[0]

    @property
    def ignored(self) -> list[tuple[int, int | None]]:
        return self._lists()[1]

    @property
    def bad(self) -> list[tuple[int, int | None, str]]:
        return self._lists()[2]

    @property
    def invalid_networks(self) -> list[MobileNetworkRequest]:
        return self._lists()[3]

    def _lists(self) -> tuple[list, list, list, list]:
        if self._read is None:
            self._read = [], [], [], []
            for extension in self._framed:
                self._read_one(extension, *self._read)
            self._framed = []
        return self._read

    def _read_one(self, framed, extensions, ignored, bad, invalid_networks) -> None:
        cls, kind, subtype, _, off, end = framed
        if cls is None:
            ignored.append((kind, subtype))
            return
        try:
            # In a Request nobody asked for an advertisement.
            if cls is PrefixAdvertisement and self.type != REGISTRATION_REPLY:
                raise WireError("advertisement_not_in_reply")
            # A17 for the advertisement; of the others two would contradict each other.
            if cls not in (MobileNetworkRequest, MobileNetworkAck) and self.find(cls):
                raise WireError("duplicate_extension")
            extension = cls(self.raw, off, end)
            if cls is MobileNetworkRequest and extension.plen > 32:
                invalid_networks.append(extension)
                raise WireError("mobnet_plen")
            extensions.append(extension)
        except WireError as e:
            if e.reason == "reserved_3":  # RFC 3519 3.1.3: handled as not understood
                ignored.append((kind, subtype))
            else:
                bad.append((kind, subtype, e.reason))

    def find(self, cls):
        """Return the first protected extension of class `cls`, or None."""
        for extension in self.extensions:
            if isinstance(extension, cls):
                return extension
        return None

    def all(self, cls) -> list:
        """Return the protected extensions of class `cls` in order."""
        return [e for e in self.extensions if isinstance(e, cls)]


class RegistrationRequest(ExtendedMessage):
    """RFC 5944 3.3; `.flags` without r and x, which are ignored on reception [A11]."""

    type = REGISTRATION_REQUEST

    def __init__(self, data: bytes) -> None:
        ExtendedMessage.__init__(self, data, 24)
        self.flags = data[1] & ~(FLAG_r | FLAG_x)
        self.lifetime = data[2] << 8 | data[3]
        self.home_address = data[4:8]
        self.home_agent = data[8:12]
        self.care_of_address = data[12:16]
        self.identification = data[16:24]


class RegistrationReply(ExtendedMessage):
    """RFC 5944 3.4."""

    type = REGISTRATION_REPLY

    def __init__(self, data: bytes) -> None:
        ExtendedMessage.__init__(self, data, 20)
        self.code = data[1]
        self.lifetime = data[2] << 8 | data[3]
        self.home_address = data[4:8]
        self.home_agent = data[8:12]
        self.identification = data[12:20]


def build_request(
    flags: int,
    lifetime: int,
    home_address: bytes,
    home_agent: bytes,
    care_of_address: bytes,
    identification: bytes,
    message: bytearray | None = None,
) -> bytearray:
    """Return the fixed part; extensions and last the authenticator are appended by the caller.

    `message`: a buffer of the caller's to build in, whatever it held; it is what is returned.
    """
    head = struct.pack(">BBH", REGISTRATION_REQUEST, flags, lifetime)
    octets = head + home_address + home_agent + care_of_address + identification
    return start_message(octets, message)


def build_reply(
    code: int,
    lifetime: int,
    home_address: bytes,
    home_agent: bytes,
    identification: bytes,
    message: bytearray | None = None,
) -> bytearray:
    """Return the fixed part, in `message` if given, as `build_request` does."""
    head = struct.pack(">BBH", REGISTRATION_REPLY, code, lifetime)
    return start_message(head + home_address + home_agent + identification, message)


def start_message(octets: bytes, message: bytearray | None) -> bytearray:
    """Return `message` holding just `octets`, or a new buffer when it is None."""
    if message is None:
        return bytearray(octets)
    message[:] = octets
    return message
