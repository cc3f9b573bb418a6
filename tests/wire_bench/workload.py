"""What `make wire-bench` measures; runs on CPython and MicroPython.

workload.py rates                a line "name<TAB>times a second" for each piece of work
workload.py worst                "name<TAB>ms to frame and refuse<TAB>ms to read when authentic"
workload.py heap NAME read|hold  exit status 0 when it fits the heap
"""

import gc
import hashlib
import sys
import time

HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
sys.path.insert(0, HERE + "/../../firmware")

from haaro.wire import auth, extensions, ipv4, message, pure_hash, registration  # noqa: E402
from haaro.wire import return_routability as rr  # noqa: E402
from haaro.wire.errors import WireError  # noqa: E402
from haaro.wire.prefixes import build_advertisement  # noqa: E402

KEY = bytes(range(16))
HOA, HA, COA = b"\x0a\x63\0\1", b"\xc0\0\2\1", b"\xc6\x33\x64\7"
IDENT = b"\xe8\xd4\xa5\x10\x12\x34\x56\x78"
SECONDS = 0.3
MASTER = b"\x40\x0a\x63\0\3"
SIGN = b"\x20\x14" + bytes(20)
REPLY = bytes([3, 0]) + bytes(18)


def now() -> float:
    """Return seconds."""
    if hasattr(time, "perf_counter"):
        return time.perf_counter()
    return time.ticks_us() / 1e6


def request() -> bytes:
    m = registration.build_request(0x22, 300, HOA, HA, COA, IDENT)
    extensions.append_mobile_network_request(m, b"\x0a\1\0\0", 16)
    extensions.append_udp_tunnel_request(m, True)
    extensions.append_route_optimization_capability(m, True, True)
    auth.append_mobile_home(m, 256, auth.HMAC_SHA256, KEY)
    return bytes(m)


def routers(n: int) -> list:
    return [
        (bytes([10, 99, 0, i]), False, [(bytes([10, 1, i, 0]), 24, "branch.example.com")])
        for i in range(1, n + 1)
    ]


def reply(data: bytes) -> bytes:
    m = registration.build_reply(0, 300, HOA, HA, IDENT)
    extensions.append_mobile_network_ack(m, 0, b"\x0a\1\0\0", 16)
    extensions.append_prefix_advertisement(m, data)
    auth.append_mobile_home(m, 256, auth.HMAC_SHA256, KEY)
    return bytes(m)


def read_all(data: bytes) -> int:
    """Parse, verify and read a Reply to its last router; return how many there are."""
    m = message.parse(data)
    auth.verify_mobile_home(m, auth.HMAC_SHA256, KEY)
    count = 0
    for _ in m.find(extensions.PrefixAdvertisement).routers():
        count += 1
    return count


def works() -> list:
    """Return [(name, call)]."""
    wanted = routers(119)
    listed, _ = build_advertisement(wanted)
    big, small = reply(listed), request()
    again = registration.RegistrationRequest(small)
    hot = rr.build_test(message.HOT, 7, b"12345678", b"abcdefgh")
    udp = ipv4.build_udp(HOA, HA, 434, 434, small)
    block = bytes(55)
    return [
        ("build Request, 3 extensions, HMAC-SHA256", request),
        ("parse it", lambda: message.parse(small)),
        ("parse it into the same object", lambda: again.__init__(small)),
        ("parse, verify and read it", lambda: verified(small)),
        ("build HoT", lambda: rr.build_test(message.HOT, 7, b"12345678", b"abcdefgh")),
        ("parse HoT", lambda: message.parse(hot)),
        ("make a keygen token", lambda: rr.home_keygen_token(KEY, HOA, b"12345678")),
        ("build the list of 119 routers", lambda: build_advertisement(wanted)),
        ("parse and verify the Reply with it", lambda: verify(big)),
        ("parse, verify and read it, router by router", lambda: read_all(big)),
        ("build an IPv4 + UDP packet of 110 octets", lambda: build_packet(small)),
        ("parse it with checksums", lambda: ipv4.parse_udp(udp, ipv4.parse_ipv4(udp))),
        ("MD5 of one block, built in", lambda: hashlib.md5(block).digest()),
        ("MD5 of one block, our twin", lambda: pure_hash.md5(block).digest()),
        ("SHA-1 of one block, built in", lambda: hashlib.sha1(block).digest()),
        ("SHA-1 of one block, our twin", lambda: pure_hash.sha1(block).digest()),
    ]


def build_packet(payload: bytes) -> bytes:
    return ipv4.build_udp(HOA, HA, 434, 434, payload)


def verify(data: bytes):
    m = message.parse(data)
    assert auth.verify_mobile_home(m, auth.HMAC_SHA256, KEY)
    return m


def verified(data: bytes) -> list:
    return verify(data).extensions


def rate(call) -> float:
    """Return calls a second, the best of three goes."""
    best = 0.0
    for _ in range(3):
        gc.collect()
        n = 0
        start = now()
        while now() - start < SECONDS / 3:
            call()
            call()
            n += 2
        best = max(best, n / (now() - start))
    return best


def long_list(unit: bytes) -> bytes:
    body = MASTER + unit * ((65000 - len(MASTER)) // len(unit))
    return REPLY + b"\x32\x01" + len(body).to_bytes(2, "big") + body + SIGN


def inputs() -> list:
    """Return [(name, datagram of about 64 KB)]."""
    return [
        ("padding only", REPLY + bytes(65000)),
        ("two octet extensions", REPLY + b"\xc8\0" * 32000),
        ("realms of one-octet labels", long_list(b"\0" + b"\x01a" * 127 + b"\0")),
        ("the longest labels", long_list(b"\0\x7f" + b"a" * 127 + b"\x7d" + b"b" * 125 + b"\0")),
        ("home addresses only", long_list(MASTER)),
        ("prefixes with two labels", long_list(b"\x08\x0a\x01a\x01b\0")),
        ("default routes without a realm", long_list(b"\0\0")),
    ]


def worst() -> None:
    for name, data in inputs():
        refused = read = None
        for _ in range(5):
            gc.collect()
            start = now()
            try:
                m = message.parse(data)
                auth.verify_mobile_home(m, auth.HMAC_SHA256, KEY)
                middle = now()
                assert m.bad == []
                read = least(read, now() - middle)
            except WireError:
                middle = now()
            refused = least(refused, middle - start)
        print(f"{name}\t{refused * 1000:.2f}\t{(read or 0) * 1000:.2f}")


def least(a, b):
    return b if a is None or b < a else a


def heap_input(name: str) -> bytes:
    """Return one of the largest legal messages."""
    if name == "list":
        unit = MASTER + b"\x08\x0a\x03abc\0"
        return reply(unit * (65400 // len(unit)))
    m = registration.build_request(0x22, 300, HOA, HA, COA, IDENT)
    for i in range(extensions.MAX_EXTENSIONS - 1):
        extensions.append_mobile_network_request(m, bytes([10, 1, i, 0]), 24)
    auth.append_mobile_home(m, 256, auth.HMAC_SHA256, KEY)
    return bytes(m)


def heap(path: str, how: str) -> None:
    with open(path, "rb") as file:
        file.seek(0, 2)
        size = file.tell()
        file.seek(0)
        data = bytearray(size)
        file.readinto(data)  # read() would take the heap twice
    gc.collect()
    if how == "hold":
        return
    if data[0] == message.REGISTRATION_REPLY:
        assert read_all(data) > 5000
    else:
        assert len(verified(data)) == extensions.MAX_EXTENSIONS - 1


if __name__ == "__main__":
    if sys.argv[1] == "rates":
        for title, call in works():
            print(f"{title}\t{rate(call):.0f}")
    elif sys.argv[1] == "worst":
        worst()
    else:
        heap(sys.argv[2], sys.argv[3])
