"""An advertisement of 1000 networks on the router: 64 KB beyond the imports, one list of them.

# heapsize: 512k
"""

import gc

from haaro.core.ro_cache import Cache
from haaro.core.settings import Settings
from haaro.wire import auth, extensions, message, registration
from haaro.wire.prefixes import build_advertisement

KEY = bytes(range(16))
HOA = b"\x0a\x63\xff\1"
ROUTERS = 125
NETWORKS = 8  # of each router
ALLOWED = 64 * 1024


class Queues:
    def routes(self):
        pass


class Counters:
    def bump(self, name):
        pass


class Context:
    def __init__(self, capacity):
        self.settings = Settings()
        self.settings.home_address = HOA
        self.settings.cache_capacity = capacity
        self.settings.cache_prefixes = 1000
        self.counters = Counters()
        self.queues = Queues()


class Watched:
    """The routers of an advertisement; `.peak` is the most heap in use between two of them."""

    count = 0

    def __init__(self, advertisement):
        self._advertisement = advertisement
        self.peak = 0
        Watched.count += 1
        self.digest = bytes([Watched.count])  # never that of the one before: it is read

    def owners(self):
        return self._advertisement.owners()

    def __iter__(self):
        for router in self._advertisement:
            self.peak = max(self.peak, in_use())
            yield router


def plan():
    """Yield 125 routers of 20 organisations, each with a /16, 8 networks a router."""
    for i in range(ROUTERS):
        org, site = i % 20, i // 20
        networks = []
        for j in range(NETWORKS):
            plen = 22 + (i + j) % 7
            value = 10 << 24 | org << 16 | site << 13 | j << 10
            value = value >> (32 - plen) << (32 - plen)
            networks.append((value.to_bytes(4, "big"), plen, "site%d.org%d.example" % (site, org)))
        yield bytes([10, 99, i >> 8, i & 0xFF]), i % 3 == 0, networks


def datagram():
    m = registration.build_reply(0, 300, HOA, b"\xc0\0\2\1", b"\xe8\xd4\xa5\x10\0\0\0\1")
    data, complete = build_advertisement(plan())
    assert complete == ROUTERS
    extensions.append_prefix_advertisement(m, data)
    auth.append_mobile_home(m, 256, auth.HMAC_SHA256, KEY)
    return bytes(m)


def in_use():
    gc.collect()
    return gc.mem_alloc()


def leave_free(octets):
    """Return what has to be held so that `octets` of the heap stay free."""
    ballast: tuple = ()  # a chain, because a list that grows takes more at once than is left over
    for size in (4096, 512, 64):
        while in_use() + octets + 2 * size < gc.mem_alloc() + gc.mem_free():
            try:
                ballast = (ballast, bytearray(size))
            except MemoryError:  # no hole of that size is left: smaller pieces fill the rest
                break
    gc.collect()
    # Where the holes lie depends on all that was imported; less than asked for is only stricter.
    assert octets - 1024 < gc.mem_free() <= octets + 512, (octets, gc.mem_free())
    return ballast


def test_1000_networks_are_decoded_in_64_kb():
    """R3.1.1-5, R7-i1: datagram, parsed message and every router's list in turn."""
    octets = datagram()
    ballast = leave_free(ALLOWED - len(octets))
    m = message.parse(octets)
    assert m.bad == [] and auth.verify_mobile_home(m, auth.HMAC_SHA256, KEY)
    expected = plan()
    count = 0
    for router in m.find(extensions.PrefixAdvertisement):
        assert router == next(expected)
        count += len(router[2])
    assert count == 1000
    assert ballast


def test_decoding_holds_one_router_at_a_time():
    """R3.1.1-5: the heap does not grow along the list."""
    m = message.parse(datagram())
    before = in_use()
    watched = Watched(m.find(extensions.PrefixAdvertisement))
    for _ in watched:
        pass
    assert watched.peak - before < 6 * 1024


def update(cache, m):
    """Return the most heap in use while the cache takes the advertisement."""
    watched = Watched(m.find(extensions.PrefixAdvertisement))
    cache.update(watched, None)
    assert sum([len(record.prefixes) for record in cache.all()]) == ROUTERS + 1000
    return watched.peak


def test_the_cache_takes_1000_networks_without_a_second_list():
    """R3.1.1-4, R3.1.1-5, R3.1.1-7: the only list of them is the cache's own."""
    m = message.parse(datagram())
    cache = Cache(Context(ROUTERS), lambda hoa: False, lambda record: None)
    peaks = [update(cache, m), update(cache, m)]
    settled = in_use()
    # The set of named home addresses and one router; a list of all takes over 100 KB.
    assert max(peaks) - settled < 20 * 1024
