"""What one datagram of 64 KB can cost inside MicroPython, before anything of it is authentic.

# heapsize: 384k
"""

import gc

from haaro.wire import extensions, message, registration
from haaro.wire.errors import WireError
from haaro.wire.prefixes import check_advertisement

FIXED = bytes([3, 0]) + bytes(18)
HOA = b"\x40\x0a\x63\0\3"
SIGN = b"\x20\x14" + bytes(20)
NETWORK = b"\x94\x06\0\x10\x0a\x01\0\0"


class Watched:
    """Octets that note, while read, how much heap is alive beyond that at the first read."""

    def __init__(self, octets):
        self.octets = octets
        self.reads = 0
        self.peak = 0
        self.base = 0

    def __len__(self):
        return len(self.octets)

    def __getitem__(self, index):
        self.reads += 1
        if self.reads == 1:
            gc.collect()
            self.base = gc.mem_alloc()
        if self.reads % 1024 == 0:
            gc.collect()
            self.peak = max(self.peak, gc.mem_alloc() - self.base)
        return self.octets[index]


def test_checking_an_advertisement_takes_a_fixed_amount_of_heap():
    """R4.2.1-3: 64 KB are checked in 4 KB of heap and a fixed number of looks at each octet."""
    for unit in (
        b"\0" + b"\x01a" * 127 + b"\0",
        b"\x08\x0a" + b"\x03abc\x01b\0",
        HOA,
        b"\x08\x0a\0",
    ):
        data = Watched(HOA + unit * (60000 // len(unit)))
        check_advertisement(data, 0, len(data))
        assert data.reads < 6 * len(data), (unit, data.reads)
        assert 0 < data.peak < 4096, (unit, data.peak)


def test_64_kilobytes_make_few_objects_and_leave_none():
    """Padding, unknown and repeated extensions, authenticators, in 40 KB."""
    most = extensions.MAX_EXTENSIONS
    for unit, times, discarded in (
        (b"\0", 65000, False),
        (b"\xc8\0", 30000, True),
        (NETWORK, 7000, True),
        (SIGN, 2500, True),
        (NETWORK, most - 1, False),
    ):
        data = Watched(FIXED + unit * times + SIGN)
        reason = parsed = None
        try:
            parsed = message.parse(data)
        except WireError as e:
            reason = e.reason
        assert reason == ("too_many_extensions" if discarded else None), unit
        gc.collect()
        kept = gc.mem_alloc() - data.base
        assert max(data.peak, kept) < 40 * 1024, (unit, data.peak, kept)
        del parsed
        gc.collect()
        assert gc.mem_alloc() - data.base < 1024, unit


def test_reader_pays_for_what_it_takes_of_a_long_list():
    """R3.1.1-6: stop anywhere in a list of 64 KB; no list of it exists before or after."""
    body = (HOA + b"\x08\x0a" + b"\x03abc\0") * 5000
    data = Watched(FIXED + b"\x32\x01" + len(body).to_bytes(2, "big") + body + SIGN)
    body = None
    parsed = message.parse(data)
    assert data.reads < 100, "framing only, until somebody asks"
    routers = parsed.find(extensions.PrefixAdvertisement).routers()
    taken = [next(routers) for _ in range(10)]
    assert taken[9] == (HOA[1:], False, [(b"\x0a\0\0\0", 8, "abc")])
    assert data.peak < 8192, data.peak


def heap_taken(work, times=200):
    """Return the octets of heap that one call of `work` takes, garbage included."""
    work()
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    for _ in range(times):
        work()
    taken = gc.mem_alloc() - before
    gc.enable()
    gc.collect()
    return taken // times


def test_reuse_saves_the_object_and_the_buffer():
    """What is read into an object, or built in a buffer, that exists takes less heap."""
    octets = FIXED + SIGN
    old = message.parse(octets)
    new = heap_taken(lambda: message.parse(octets))
    assert heap_taken(lambda: message.parse(octets, old)) <= new - 128, new
    buffer = bytearray(200)
    new = heap_taken(lambda: registration.build_reply(0, 300, HOA[1:], HOA[1:], bytes(8)))
    reused = heap_taken(
        lambda: registration.build_reply(0, 300, HOA[1:], HOA[1:], bytes(8), buffer)
    )
    assert reused < new, (reused, new)
