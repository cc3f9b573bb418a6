"""Hypothesis strategies and message makers shared by the tests of the wire layer."""

from hypothesis import strategies as st

from haaro.wire import auth, extensions, ipv4, registration

KEY = bytes(range(16))
KRM = bytes(range(20))

octets4 = st.binary(min_size=4, max_size=4)
octets8 = st.binary(min_size=8, max_size=8)
uint16 = st.integers(0, 0xFFFF)
uint32 = st.integers(0, 0xFFFFFFFF)

# Few labels, so that the dictionary has something to find.
labels = st.one_of(
    st.sampled_from(["a", "b", "example", "com", "office-1"]),
    st.text(
        st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="."),
        min_size=1,
        max_size=127,
    ),
)
realm = st.lists(labels, max_size=9).map(".".join).filter(lambda text: len(text) <= 253)


@st.composite
def prefix(draw):
    """A masked (4 octets, length), often near others."""
    plen = draw(st.integers(0, 32))
    base = draw(st.sampled_from([b"\x0a\x01\x02\x03", b"\xc0\x00\x02\x80"]))
    addr = draw(st.one_of(octets4, st.binary(min_size=1, max_size=1).map(lambda b: base[:3] + b)))
    return ipv4.mask(addr, plen), plen


network = st.builds(lambda p, r: (p[0], p[1], r), prefix(), realm)
router = st.tuples(octets4, st.booleans(), st.lists(network, max_size=5))
routers = st.lists(router, min_size=1, max_size=6)


def request(*appended, lifetime=300, flags=0x22):
    """A Request with extensions added by calls `f(message)`, no authenticator."""
    message = registration.build_request(
        flags,
        lifetime,
        b"\x0a\x63\0\1",
        b"\xc0\0\2\1",
        b"\xc6\x33\x64\7",
        b"\xe8\xd4\xa5\x10\x12\x34\x56\x78",
    )
    for append in appended:
        append(message)
    return message


def reply(*appended, code=0, lifetime=300):
    """A Reply with extensions added by calls `f(message)`, no authenticator."""
    message = registration.build_reply(
        code, lifetime, b"\x0a\x63\0\1", b"\xc0\0\2\1", b"\xe8\xd4\xa5\x10\x12\x34\x56\x78"
    )
    for append in appended:
        append(message)
    return message


def raw(kind, body, subtype=None):
    """Return a call that appends one extension as raw octets, in the format of its type."""
    if kind == 50:
        return lambda m: m.extend(bytes([50, subtype]) + len(body).to_bytes(2, "big") + body)
    head = b"" if subtype is None else bytes([subtype])
    return lambda m: m.extend(bytes([kind, len(head + body)]) + head + body)


def mobile_home(message, algorithm=auth.HMAC_MD5, key=KEY):
    """Return the octets of `message` with a Mobile-Home authenticator."""
    auth.append_mobile_home(message, 256, algorithm, key)
    return bytes(message)


def mobile_correspondent(message, krm=KRM):
    """Return the octets of `message` with a Mobile-Correspondent authenticator."""
    auth.append_mobile_correspondent(message, krm, 3, 4)
    return bytes(message)


def advertisement(data):
    """Return a call that appends a Prefix Advertisement."""
    return lambda m: extensions.append_prefix_advertisement(m, data)
