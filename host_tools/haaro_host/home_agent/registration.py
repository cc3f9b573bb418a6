"""What a Registration Request asks for and what it gets: the rules after authentication.

Owns: the choice of reply code, tunnel, lifetime and prefixes, and the octets of the reply. Keeps no
state and sends nothing. Called by core, in this order, only with authentic and fresh requests.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from haaro.wire import auth, extensions, registration
from haaro.wire.ipv4 import PROTOCOL_IPIP
from haaro_host.home_agent.advertiser import Advertiser
from haaro_host.home_agent.bindings import GRE, IPIP, MINIMAL, UDP, Binding
from haaro_host.home_agent.config import Config, RouterConfig, SecurityAssociation

# RFC 3024 3.3; the wire layer names the codes of the RFCs that haaro's own requests can meet.
REVERSE_TUNNEL_MANDATORY = 138

_UDP_TUNNEL_DECLINED = 64  # RFC 3519 3.2.1
_ADVERTISEMENT_HEADER = 4


class Refused(Exception):
    """The request gets the reply `code`; `reason` names the counter."""

    def __init__(self, code: int, reason: str, acks: "list[Ack] | None" = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.acks = acks or []


@dataclass(frozen=True)
class Ack:
    """One Mobile Network Acknowledgement (RFC 5177 4.2)."""

    code: int
    prefix: bytes
    plen: int
    implicit: bool = False


@dataclass
class Grant:
    """What an accepted request gets, beside its lifetime."""

    encapsulation: str = UDP
    tunnel_reply: tuple[int, bool] | None = None  # code, forced
    acks: list[Ack] = field(default_factory=list)
    prefixes: list[tuple[bytes, int]] = field(default_factory=list)
    implicit: bool = False


def check_form(request: registration.RegistrationRequest, dst: bytes, config: Config) -> None:
    """Raise Refused when the request is not for this home agent or badly formed."""
    if dst != config.address or request.home_agent != config.address:
        # RFC 5944 3.8.3.2
        raise Refused(registration.UNKNOWN_HOME_AGENT, "other_home_agent")
    for kind, _, reason in request.bad:
        # A prefix length over 32 is for the acknowledgement to refuse (RFC 5177 6.6).
        if reason != "mobnet_plen":
            raise Refused(registration.POORLY_FORMED, f"bad_extension_{kind}")


def check_care_of_address(
    request: registration.RegistrationRequest,
    source: bytes,
    config: Config,
    is_mobile: Callable[[bytes], bool],
) -> None:
    """Raise Refused when no tunnel may end at the care-of address or at the request's source."""
    for address in (request.care_of_address, source):
        if address[0] in (0, 127) or address[0] >= 224 or address == config.address:
            raise Refused(registration.POORLY_FORMED, "care_of_address_not_usable")
        if address == request.home_address:
            raise Refused(registration.POORLY_FORMED, "care_of_address_is_home_address")
        if is_mobile(address):
            # The tunnel would run inside itself or inside another router's.
            raise Refused(registration.ADMINISTRATIVELY_PROHIBITED, "care_of_address_is_mobile")


def choose_tunnel(
    request: registration.RegistrationRequest, nat: bool, grant: Grant, allowed: Collection[str]
) -> None:
    """Fill in the tunnel of `grant` (RFC 3519 4.6, RFC 5944 3.3, RFC 3024 3.3) or raise Refused.

    allowed: the encapsulations of the configuration.
    """
    flags = request.flags
    wanted = request.find(extensions.UdpTunnelRequest)
    minimal_or_gre = flags & (registration.FLAG_M | registration.FLAG_G)
    if not flags & registration.FLAG_D:
        if wanted:
            raise Refused(registration.POORLY_FORMED, "udp_tunnel_without_d")
        # Foreign agents are out of scope (RFC 6521 6.3): only co-located care-of addresses.
        raise Refused(registration.ADMINISTRATIVELY_PROHIBITED, "foreign_agent_care_of_address")
    if not flags & registration.FLAG_T:
        raise Refused(REVERSE_TUNNEL_MANDATORY, "no_reverse_tunnel")
    if wanted and wanted.through_fa:
        raise Refused(
            registration.ADMINISTRATIVELY_PROHIBITED, "registration_through_foreign_agent"
        )
    if wanted and (nat or wanted.force):
        if wanted.encapsulation not in (0, PROTOCOL_IPIP) or (
            wanted.encapsulation == 0 and minimal_or_gre
        ):
            raise Refused(
                registration.UDP_ENCAPSULATION_UNAVAILABLE, "udp_encapsulation_unavailable"
            )
        if UDP not in allowed:
            raise Refused(registration.ADMINISTRATIVELY_PROHIBITED, "udp_tunnel_not_allowed")
        grant.encapsulation = UDP
        grant.tunnel_reply = (0, wanted.force)
        return
    if nat:
        # RFC 3519 4.6.1: traffic could never come back through the translator.
        raise Refused(registration.ADMINISTRATIVELY_PROHIBITED, "nat_without_udp_tunnel")
    kind = GRE if flags & registration.FLAG_G else MINIMAL if minimal_or_gre else IPIP
    both = registration.FLAG_M | registration.FLAG_G
    if kind not in allowed or minimal_or_gre == both:
        raise Refused(registration.ENCAPSULATION_UNAVAILABLE, "encapsulation_unavailable")
    grant.encapsulation = kind
    if wanted:
        grant.tunnel_reply = (_UDP_TUNNEL_DECLINED, False)


def choose_networks(
    request: registration.RegistrationRequest, router: RouterConfig, grant: Grant
) -> None:
    """Fill in acknowledgements and prefixes of `grant` (RFC 5177 6.3, 6.6) or raise Refused."""
    requested = request.all(extensions.MobileNetworkRequest)
    if not requested and not request.invalid_networks:
        grant.implicit = router.implicit
        if router.implicit:
            grant.prefixes = list(router.prefixes)
            grant.acks = [Ack(0, prefix, plen, True) for prefix, plen in router.prefixes]
        return
    if not router.prefixes:
        raise Refused(registration.MOBNET_DISALLOWED, "mobnet_disallowed")
    for entry in requested:
        code = 0
        if entry.plen == 0:
            code = extensions.MOBNET_INVALID_PREFIX_LEN
        elif (entry.prefix, entry.plen) not in router.prefixes:
            code = extensions.MOBNET_UNAUTHORIZED
        elif (entry.prefix, entry.plen) not in grant.prefixes:
            grant.prefixes.append((entry.prefix, entry.plen))
        grant.acks.append(Ack(code, entry.prefix, entry.plen))
    for entry in request.invalid_networks:
        grant.acks.append(Ack(extensions.MOBNET_INVALID_PREFIX_LEN, entry.prefix, entry.plen))
    if not grant.prefixes:
        raise Refused(registration.MOBNET_ERROR, "mobnet_error", grant.acks)


def granted_lifetime(requested: int, encapsulation: str, config: Config) -> int:
    """Return seconds: never more than asked (RFC 5944 3.8.2.2); 0xffff is infinity."""
    most = config.lifetime_max
    if encapsulation == UDP:
        # RFC 3519 6: nobody authenticates the address a translator wrote, so not for long.
        most = min(most, config.udp_lifetime_max)
    return min(requested, most)


def build_reply(
    request: registration.RegistrationRequest,
    code: int,
    lifetime: int,
    identification: bytes,
    config: Config,
) -> bytearray:
    """Return the fixed part of the reply (RFC 5944 3.8.3.2)."""
    return registration.build_reply(
        code, lifetime, request.home_address, config.address, identification
    )


def append_acks(reply: bytearray, acks: Iterable[Ack]) -> None:
    """Append Mobile Network Acknowledgements in the order of the requests."""
    for ack in acks:
        extensions.append_mobile_network_ack(reply, ack.code, ack.prefix, ack.plen, ack.implicit)


def append_advertisement(
    reply: bytearray,
    capability: extensions.RouteOptimizationCapability,
    requester: bytes,
    version: int,
    bindings: Iterable[Binding],
    config: Config,
    association: SecurityAssociation,
    advertiser: Advertiser,
) -> None:
    """Append the Prefix Advertisement (RFC 6521 3.1.1, 5.5), cut to the configured reply size.

    None is appended when no router is eligible.
    """
    signature = bytearray()
    auth.append_mobile_home(signature, association.spi, association.algorithm, association.key)
    used = len(reply) + _ADVERTISEMENT_HEADER + len(signature)
    limit = max(0, config.advertisement_octets - used)
    solicited = capability.home_address  # None unless S is set
    data = advertiser.data(config, version, bindings, requester, solicited, limit)
    if data:
        extensions.append_prefix_advertisement(reply, data)
