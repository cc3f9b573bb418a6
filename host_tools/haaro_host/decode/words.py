"""The RFCs' words for types, flags and codes, and a sentence for each reason of a refusal."""

MESSAGES = {
    1: "Registration Request",
    3: "Registration Reply",
    4: "MIP Tunnel Data",
    7: "Registration Revocation",
    15: "Registration Revocation Acknowledgment",
    24: "Home Test Init",
    25: "Care-of Test Init",
    26: "Home Test",
    27: "Care-of Test",
}

# Type and subtype; None where the type has none.
EXTENSIONS: dict[tuple[int, int | None], str] = {
    (32, None): "Mobile-Home Authentication",
    (44, 0): "UDP Tunnel Reply",
    (49, 1): "Route Optimization Reply",
    (49, 2): "Mobile-Correspondent Authentication",
    (49, 3): "Care-of Address",
    (50, 1): "Route Optimization Prefix Advertisement",
    (131, None): "Mobile Node NAI",
    (137, None): "Revocation Support",
    (144, 0): "UDP Tunnel Request",
    (148, 0): "Mobile Network Request",
    (148, 1): "Explicit Mode Mobile Network Acknowledgement",
    (148, 2): "Implicit Mode Mobile Network Acknowledgement",
    (153, 1): "Mobile Router Route Optimization Capability",
}

FLAGS = {
    "S": "Simultaneous bindings",
    "B": "Broadcast datagrams",
    "D": "Decapsulation by mobile node",
    "M": "Minimal encapsulation",
    "G": "GRE encapsulation",
    "T": "Reverse Tunneling",
}

ENCAPSULATIONS = {
    0: "as the M and G flags say",
    4: "IP in IP",
    47: "GRE",
    55: "Minimal IP",
}

PROTOCOLS = {1: "ICMP", 4: "IP in IP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 55: "Minimal IP"}

MOBILE_NETWORK_CODES = {
    0: "Success",
    1: "Invalid prefix (MOBNET_INVALID_PREFIX_LEN)",
    2: "Mobile Router is not authorized for prefix (MOBNET_UNAUTHORIZED)",
    3: "Forwarding setup failed (MOBNET_FWDING_SETUP_FAILED)",
}

ROUTE_OPTIMIZATION_CODES = {
    0: "Will do route optimization",
    16: "Route optimization declined; reason unspecified",
}

# Reasons: what is wrong, and where the rule stands. Those below "discard" have the whole datagram
# dropped without an answer; the others spoil one extension or the authentication.
#
# A bad Prefix Advertisement is not used at all, but the registration that it came with stands.
REASONS = {
    # discard
    "empty": "the datagram is empty",
    "unknown_type": "this is no message type of Mobile IPv4 that is known here",
    "message_truncated": "the datagram ends within the fixed part of the message",
    "ext_overrun": "the extension's Length runs past the end of the datagram (RFC 5944 1.8)",
    "unknown_nonskippable": "an unknown extension of type 0 to 127: the whole message must be"
    " silently discarded (RFC 5944 1.8)",
    "too_many_extensions": "more extensions than a receiver here walks",
    "auth_ext_length": "the authentication extension is too short for its own fields",
    "not_tunnel_data": "not an MIP Tunnel Data message (RFC 3519 3.3)",
    # input
    "not_hex": "this is not a hexadecimal digit",
    "odd_hex": "an odd number of hexadecimal digits: half an octet is missing",
    "too_long": "more octets than an IPv4 datagram can have",
    "captured_short": "the capture holds only the beginning of this datagram",
    "udp_length": "the UDP Length does not fit the IP packet",
    # auth_fail
    "no_auth_ext": "no authentication extension: silently discarded (RFC 5944 3.7.2.1, 3.8.2.1)",
    "several_authenticators": "more than one authentication extension; exactly one is allowed",
    "bad_authenticator": "the authenticator is not the one that the given keys make",
    # bad_ext
    "duplicate_extension": "the second extension of a kind that may appear once",
    "advertisement_not_in_reply": "prefix advertisements come in Replies only (RFC 6521 3.1.1)",
    "mobnet_length": "wrong Length of a mobile network extension (RFC 5177 4)",
    "mobnet_plen": "Prefix Length over 32: a home agent acknowledges it with code 1 (RFC 5177 4.2)",
    "udp_tunnel_length": "wrong Length of a UDP tunnel extension (RFC 3519 3.1, 3.2)",
    "reserved_3": "Reserved 3 is not zero: handled as not understood (RFC 3519 3.1.3)",
    "ro_cap_hoa_iff_s": "a home address is there if and only if S is set (RFC 6521 5.1);"
    " a home agent answers with code 134",
    "ro_reply_length": "wrong Length of the Route Optimization Reply (RFC 6521 5.2)",
    "coa_ext_length": "not one or more whole addresses (RFC 6521 5.4)",
    "revocation_length": "wrong Length of the Revocation Support extension (RFC 3543 3.2)",
    "nai_length": "an empty NAI (RFC 2794 2)",
    "advertisement_empty": "an advertisement without a single structure (RFC 6521 5.5)",
    "advertisement_truncated": "the advertisement ends within a structure (RFC 6521 5.5)",
    "first_not_hoa": "the first structure must be a Mobile Router HoA (RFC 6521 5.5)",
    "info_2_63": "the Info field of a HoA must be 0 or 1 (RFC 6521 5.5)",
    "plen_33_63": "a Prefix Length over 32 (RFC 6521 5.5)",
    "delta_without_master": "a delta prefix before any full prefix (RFC 6521 5.5)",
    "delta_plen_below_8": "a delta prefix shorter than 8 bits has two meanings (RFC 6521 4.1)",
    "realm_truncated": "the advertisement ends within a realm (RFC 6521 4.2)",
    "realm_index_unset": "a realm names a dictionary entry that was never made (RFC 6521 4.2.1)",
    "realm_label": "a realm label with a dot or a zero octet in it",
    "realm_too_long": "a realm over 253 octets (RFC 4282 2.2)",
}  # fmt: skip

OF_TEXT = ("not_hex", "odd_hex")  # their place is a character of the text

NOT_PROTECTED = "not protected by an authenticator: never acted upon (RFC 5944 3.5.2)"
SKIPPED = "unknown or not understood: skipped (RFC 5944 1.8)"
NONCE_HINT = (
    "a Reply with code 201 to 203 has no key to be authenticated with; the mobile router takes it"
    " as a hint to begin return routability anew (RFC 6521 3.3.3)"
)


def message_name(kind: int | None) -> str:
    """Return the RFC's name of a message type, or "message of type n"."""
    if kind is None:
        return "no message"
    return MESSAGES.get(kind) or f"message of type {kind}"


def extension_name(kind: int, subtype: int | None) -> str:
    """Return "Name (type/subtype)"."""
    number = f"({kind})" if subtype is None else f"({kind}/{subtype})"
    return f"{EXTENSIONS.get((kind, subtype), 'extension')} {number}"


def reason_text(reason: str) -> str:
    """Return the sentence for `reason`, or the word itself when there is none."""
    return REASONS.get(reason) or reason.replace("_", " ")
