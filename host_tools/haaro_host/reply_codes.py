"""Every Code of a Registration Reply that IANA's Mobile IPv4 registry is known to hold, with names.

The router keeps names only of the codes it meets (haaro.wire.registration); for those both agree.
"""

from typing import NamedTuple


class ReplyCode(NamedTuple):
    """One code: a snake_case `name`, the sentence `meaning`, and the RFC that assigned it."""

    name: str
    meaning: str
    rfc: int


# fmt: off
REPLY_CODES: dict[int, ReplyCode] = {
    0: ReplyCode("accepted", "registration accepted", 5944),
    1: ReplyCode("accepted_no_simultaneous", "accepted, but no simultaneous bindings", 5944),
    2: ReplyCode("concurrent_registration", "concurrent registration (pre-accept)", 6521),
    64: ReplyCode("fa_reason_unspecified", "reason unspecified", 5944),
    65: ReplyCode("fa_administratively_prohibited", "administratively prohibited", 5944),
    66: ReplyCode("fa_insufficient_resources", "insufficient resources", 5944),
    67: ReplyCode("fa_mobile_node_failed_authentication", "mobile node not authentic", 5944),
    68: ReplyCode("fa_home_agent_failed_authentication", "home agent not authentic", 5944),
    69: ReplyCode("fa_lifetime_too_long", "requested Lifetime too long", 5944),
    70: ReplyCode("fa_poorly_formed_request", "poorly formed Request", 5944),
    71: ReplyCode("fa_poorly_formed_reply", "poorly formed Reply", 5944),
    72: ReplyCode("fa_encapsulation_unavailable", "requested encapsulation unavailable", 5944),
    73: ReplyCode("fa_reserved_73", "reserved and unavailable", 5944),
    74: ReplyCode("fa_reverse_tunnel_unavailable", "requested reverse tunnel unavailable", 3024),
    75: ReplyCode("fa_reverse_tunnel_mandatory", "reverse tunnel is mandatory, T not set", 3024),
    76: ReplyCode("fa_mobile_node_too_distant", "mobile node too distant", 3024),
    77: ReplyCode("fa_invalid_care_of_address", "invalid care-of address", 5944),
    78: ReplyCode("fa_registration_timeout", "registration timeout", 5944),
    79: ReplyCode("fa_delivery_style_unsupported", "delivery style not supported", 3024),
    80: ReplyCode("fa_home_network_unreachable", "home network unreachable", 5944),
    81: ReplyCode("fa_home_agent_host_unreachable", "home agent host unreachable", 5944),
    82: ReplyCode("fa_home_agent_port_unreachable", "home agent port unreachable", 5944),
    88: ReplyCode("fa_home_agent_unreachable", "home agent unreachable (other ICMP error)", 5944),
    89: ReplyCode("fa_vendor_specific", "vendor-specific reason", 3115),
    90: ReplyCode("fa_nonzero_home_agent_required", "non-zero home agent address required", 4857),
    96: ReplyCode("fa_nonzero_home_address_required", "non-zero home address required", 2794),
    97: ReplyCode("fa_missing_nai", "the NAI is missing", 2794),
    98: ReplyCode("fa_missing_home_agent", "the home agent is missing", 2794),
    99: ReplyCode("fa_missing_home_address", "the home address is missing", 2794),
    100: ReplyCode("fa_cvse_of_mobile_node", "vendor extension of the mobile node unknown", 3115),
    101: ReplyCode("fa_cvse_of_home_agent", "vendor extension of the home agent unknown", 3115),
    104: ReplyCode("fa_unknown_challenge", "unknown challenge", 4721),
    105: ReplyCode("fa_missing_challenge", "missing challenge", 4721),
    106: ReplyCode("fa_stale_challenge", "stale challenge", 4721),
    107: ReplyCode("fa_missing_key_nonce", "no MN-FA key generation nonce reply", 3957),
    108: ReplyCode("fa_aaa_authentication_failed", "mobile node failed AAA authentication", 4721),
    109: ReplyCode("fa_wrong_challenge_in_reply", "the home agent sent a wrong challenge", 4721),
    127: ReplyCode("fa_experimental", "experimental use", 4064),
    128: ReplyCode("reason_unspecified", "reason unspecified", 5944),
    129: ReplyCode("administratively_prohibited", "administratively prohibited", 5944),
    130: ReplyCode("insufficient_resources", "insufficient resources", 5944),
    131: ReplyCode("failed_authentication", "mobile node not authentic", 5944),
    132: ReplyCode("foreign_agent_failed_authentication", "foreign agent not authentic", 5944),
    133: ReplyCode("identification_mismatch", "registration Identification mismatch", 5944),
    134: ReplyCode("poorly_formed", "poorly formed Request", 5944),
    135: ReplyCode("too_many_bindings", "too many simultaneous mobility bindings", 5944),
    136: ReplyCode("unknown_home_agent", "unknown home agent address", 5944),
    137: ReplyCode("reverse_tunnel_unavailable", "requested reverse tunnel unavailable", 3024),
    138: ReplyCode("reverse_tunnel_mandatory", "reverse tunnel is mandatory, T not set", 3024),
    139: ReplyCode("encapsulation_unavailable", "requested encapsulation unavailable", 3024),
    140: ReplyCode("cvse_of_mobile_node", "vendor extension of the mobile node unknown", 3115),
    141: ReplyCode("cvse_of_foreign_agent", "vendor extension of the foreign agent unknown", 3115),
    142: ReplyCode("udp_encapsulation_unavailable", "requested UDP tunnel unavailable", 3519),
    143: ReplyCode("redirected_home_agent", "register with the redirected home agent", 4433),
    144: ReplyCode("aaa_authentication_failed", "mobile node failed AAA authentication", 4721),
    147: ReplyCode("mobnet_error", "mobile network prefix operation error", 5177),
    148: ReplyCode("mobnet_disallowed", "mobile router operation is not permitted", 5177),
    149: ReplyCode("pmip_unsupported", "proxy registration not supported", 5563),
    150: ReplyCode("pmip_disallowed", "proxy registration not permitted", 5563),
    192: ReplyCode("experimental", "experimental use", 4064),
    201: ReplyCode("expired_home_nonce", "expired home nonce index", 6521),
    202: ReplyCode("expired_care_of_nonce", "expired care-of nonce index", 6521),
    203: ReplyCode("expired_nonces", "expired nonces", 6521),
}
# fmt: on


def describe(code: int) -> str:
    """Return "name: meaning (RFC n)", or who sends codes of that range (RFC 5944 3.4, 6521 10)."""
    known = REPLY_CODES.get(code)
    if known:
        return f"{known.name}: {known.meaning} (RFC {known.rfc})"
    if code < 64:
        return "unassigned, accepted"
    if code < 128:
        return "unassigned, denied by the foreign agent"
    if 201 <= code <= 210:
        return "unassigned, denied by the correspondent node"
    return "unassigned, denied by the home agent"
