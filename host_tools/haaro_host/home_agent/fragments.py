"""IPv4 fragmentation before encapsulation (RFC 791 3.2, RFC 3519 4.8) and the TTL.

Owns no state. Called by core for the rare packet that does not fit the tunnel.
"""

from haaro.wire.ipv4 import checksum

_MORE = 0x2000
_OFFSET = 0x1FFF
_COPIED = 0x80
_END_OF_OPTIONS = 0
_NO_OPERATION = 1


def fragment(packet: bytes, mtu: int) -> list[bytes]:
    """Cut `packet` (copied) into packets of at most `mtu` octets; `mtu` is at least 68."""
    header_length = (packet[0] & 15) * 4
    field = packet[6] << 8 | packet[7]
    first_offset = field & _OFFSET
    last_more = field & _MORE
    payload = packet[header_length:]
    header = packet[:header_length]
    result = []
    position = 0
    while position < len(payload):
        room = (mtu - len(header)) // 8 * 8
        piece = payload[position : position + room]
        more = _MORE if position + len(piece) < len(payload) else last_more
        offset = (first_offset + position // 8) | more | (field & 0x4000)
        result.append(_with_header(header, piece, offset))
        position += len(piece)
        header = packet[:20] + _copied_options(packet[20:header_length])
    return result


def _with_header(header: bytes, piece: bytes, field: int) -> bytes:
    out = bytearray(header)
    total = len(header) + len(piece)
    out[0] = 0x40 | len(header) // 4
    out[2:4] = total.to_bytes(2, "big")
    out[6:8] = field.to_bytes(2, "big")
    out[10:12] = b"\0\0"
    out[10:12] = checksum(out, 0, len(out)).to_bytes(2, "big")
    return bytes(out) + piece


def _copied_options(options: bytes) -> bytes:
    """Return those options that go into every fragment, padded to a multiple of 4."""
    out = bytearray()
    at = 0
    while at < len(options) and options[at] != _END_OF_OPTIONS:
        if options[at] == _NO_OPERATION:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            break
        if options[at] & _COPIED:
            out += options[at : at + size]
        at += size
    return bytes(out) + bytes(-len(out) % 4)


def decrement_ttl(packet: bytearray) -> None:
    """Take one from the TTL, which is at least 1, and correct the checksum (RFC 1141) in place."""
    packet[8] -= 1
    value = (packet[10] << 8 | packet[11]) + 0x100
    value = (value & 0xFFFF) + (value >> 16)
    packet[10] = value >> 8
    packet[11] = value & 0xFF
