"""A flood of HoTI and CoTI at one router inside MicroPython; what it keeps on the heap.

Run as `micropython -X heapsize=384k micropython_flood.py FIRMWARE`; prints octets kept, answers.
"""

import gc
import os
import sys

sys.path.insert(0, sys.argv[1])

from haaro.core.router import Router
from haaro.core.settings import Settings
from haaro.wire import auth, extensions, ipv4, message, registration, return_routability

HOME = ipv4.address("192.0.2.1")
COA = ipv4.address("198.51.100.1")
A_SECOND = 1000


def started():
    s = Settings()
    s.home_address = ipv4.address("192.0.2.129")
    s.home_agent = HOME
    s.networks = [ipv4.prefix("10.1.0.0/24")]
    s.algorithm = "hmac-sha256"
    s.key = b"k" * 32
    router = Router(s, os.urandom, 0, 3976000000000)
    router.uplink_changed(0, 0, True, COA)
    router.handle_timer(0)
    request = message.parse(router.poll_transmit().payload)
    reply = registration.build_reply(0, 300, s.home_address, HOME, request.identification)
    extensions.append_udp_tunnel_reply(reply, 0, True, 110)
    extensions.append_route_optimization_reply(reply, False, False, False)
    auth.append_mobile_home(reply, 256, "hmac-sha256", s.key)
    router.receive_datagram(0, 0, HOME, 434, COA, 434, bytes(reply))
    return router


def flood(router, hoa, start_s, seconds, source):
    answers = 0
    for now in range(1000 * start_s, 1000 * (start_s + seconds), 100):
        for n in range(A_SECOND // 10):
            source += 1
            number = source % 100000
            src = bytes((198, 18 + (number >> 16), number >> 8 & 255, number & 255))
            data = return_routability.build_init(24 + n % 2, b"cookie!!")
            packet = ipv4.build_udp(src, hoa, 434, 434, bytes(data))
            router.receive_tunnelled(now, 0, packet, HOME, 434, 0)
        while router.poll_transmit() is not None:
            answers += 1
    return answers, source


def main():
    router = started()
    hoa = ipv4.address("192.0.2.129")
    # The nonces of 4 minutes are state by design: all 8 are there before it is measured.
    for second in range(0, 270, 30):
        flood(router, hoa, second, 1, 0)
    while router.next_event() is not None:
        pass
    gc.collect()
    before = gc.mem_alloc()
    answers, _ = flood(router, hoa, 270, 4, 0)
    gc.collect()
    gc.collect()
    print(
        "kept", gc.mem_alloc() - before, "answers", answers, "registered", len(router.tunnels.all())
    )


main()
