"""One fuzz target for each parser of the wire layer; the first line of each is its invariant.

A target takes any octets and returns nothing; it fails by raising.
"""

import contextlib

from haaro.wire import auth, encapsulation, extensions, ipv4, message, realms, udp_tunnel
from haaro.wire import revocation_rules as rules
from haaro.wire.errors import WireError
from haaro.wire.prefixes import PrefixDecoder, build_advertisement
from haaro.wire.registration import ExtendedMessage
from haaro.wire.revocation import Revocation, RevocationAck
from tests.wire import model

KEY = b"only the target has this"
OTHER_KEY = b"and this nobody uses"


def parse_message(data: bytes) -> None:
    """Any datagram is a message or a WireError with a reason, and reading it all raises nothing."""
    try:
        m = message.parse(data)
    except WireError as e:
        assert e.reason
        return
    assert m.type == data[0]
    if not isinstance(m, ExtendedMessage):
        return
    seen = [m.extensions, m.ignored, m.bad, m.invalid_networks, m.unauthenticated]
    assert sum(len(found) for found in seen[:4]) <= extensions.MAX_EXTENSIONS * 2
    assert bool(m.authenticators) == (m.authenticator is not None)
    for extension in m.extensions:
        if isinstance(extension, extensions.PrefixAdvertisement):
            assert build_advertisement(list(extension.routers()))[1] > 0
    assert not auth.verify_mobile_correspondent(m, OTHER_KEY)
    if isinstance(m, Revocation):
        rules.accepts(m, True, 0)
    if isinstance(m, RevocationAck):
        rules.informs(m, m)


def signed_message(data: bytes) -> None:
    """What is signed verifies with its key alone, and not after any one octet of it changed."""
    if len(data) < 3:
        return
    at, change, body = data[0], data[1] or 1, bytearray(data[2:])
    try:
        m = message.parse(bytes(body))
        if not isinstance(m, ExtendedMessage) or m.authenticators:
            return
        auth.append_mobile_home(body, 256, auth.HMAC_SHA256, KEY)
        m = message.parse(bytes(body))
    except WireError:
        return
    assert auth.verify_mobile_home(m, auth.HMAC_SHA256, KEY)
    assert not auth.verify_mobile_home(m, auth.HMAC_SHA256, OTHER_KEY)
    body[at % len(body)] ^= change
    try:
        changed = message.parse(bytes(body))
    except WireError:
        return
    if isinstance(changed, ExtendedMessage):  # not when its type was what changed
        assert not auth.verify_mobile_home(changed, auth.HMAC_SHA256, KEY)


def advertisement(data: bytes) -> None:
    """A list of prefixes is taken or refused, and decoded, as the plain model says."""
    expected = model.decode_advertisement(data)
    try:
        found = extensions.PrefixAdvertisement(data, 0, len(data))
    except WireError:
        assert expected is None
        return
    got = [
        (hoa, outbound, [(prefix, plen, realm.encode("latin-1")) for prefix, plen, realm in nets])
        for hoa, outbound, nets in found.routers()
    ]
    assert got == expected


def realm(data: bytes) -> None:
    """A realm decodes as the model says, and what was decoded comes back from the encoder."""
    decoder, encoder, back = realms.RealmDecoder(), realms.RealmEncoder(), realms.RealmDecoder()
    dictionary = model.Dictionary()
    rest, off = data, 0
    while rest:
        expected = model.decode_realm(dictionary, rest)
        try:
            text, off = decoder.decode(data, off)
        except WireError:
            assert expected is None
            return
        assert expected is not None and text.encode("latin-1") == expected[0]
        rest = expected[1]
    octets = b""
    if data:
        octets = encoder.encode(text)
        assert back.decode(octets, 0) == (text, len(octets))


def prefix(data: bytes) -> None:
    """A prefix field decodes as the model says, whatever came before it."""
    decoder, master, off = PrefixDecoder(), None, 0
    while off < len(data):
        head, off = data[off], off + 1
        delta, plen = head & 0x80, head & 0x3F
        expected = model.decode_prefix(master, delta, plen, data[off:])
        try:
            addr, after = decoder.decode(delta, plen, data, off, len(data))
        except WireError:
            assert expected is None
            return
        assert expected is not None and after == len(data) - len(expected[1])
        assert int.from_bytes(addr, "big") == int(expected[0], 2)
        master, off = expected[0] if not delta else master, after


def packet(data: bytes) -> None:
    """An IPv4 packet is parsed or refused by name, and its payload lies within Total Length."""
    data = _with_checksum(data)
    try:
        ip = ipv4.parse_ipv4(data)
    except WireError as e:
        assert e.reason.startswith("ipv4_")
        return
    assert 20 <= ip.header_length <= ip.total_length <= len(data)
    for parse in (ipv4.parse_udp, ipv4.parse_icmp_echo):
        try:
            parsed = parse(data, ip)
        except WireError as e:
            assert e.reason
            continue
        assert parsed is None or len(parsed[-1]) <= ip.total_length - ip.header_length - 8


def tunnel(data: bytes) -> None:
    """What comes out of a tunnel is a whole IPv4 packet, or there is a WireError."""
    try:
        assert udp_tunnel.parse_tunnel(data) == data[1]
    except WireError:
        assert data[:1] != b"\x04" or len(data) < 4
    for octets in (data, _with_checksum(data)):
        try:
            inner = encapsulation.decapsulate(octets)
        except WireError as e:
            assert e.reason
            continue
        assert ipv4.parse_ipv4(inner).total_length == len(inner)


def address(data: bytes) -> None:
    """Text is an address or prefix that prints as the same text, or a ValueError."""
    text = data.decode("latin-1")
    with contextlib.suppress(ValueError):
        assert ipv4.text(ipv4.address(text)) == text
    try:
        addr, plen = ipv4.prefix(text)
    except ValueError:
        return
    assert f"{ipv4.text(addr)}/{plen}" == text and ipv4.mask(addr, plen) == addr


TARGETS = {
    function.__name__: function
    for function in (
        parse_message,
        signed_message,
        advertisement,
        realm,
        prefix,
        packet,
        tunnel,
        address,
    )
}


def _with_checksum(data: bytes) -> bytes:
    """Return `data` with the header checksum that it should have: fuzzers do not guess it."""
    size = (data[0] & 15) * 4 if data else 0
    if size < 20 or len(data) < size:
        return data
    header = data[:10] + b"\0\0" + data[12:size]
    return data[:10] + ipv4.checksum(header, 0, size).to_bytes(2, "big") + data[12:]
