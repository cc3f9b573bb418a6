"""The binding with the home agent: one router alone, the home agent's replies made by the test."""

import itertools

import pytest

from haaro.core.settings import Settings
from haaro.wire import auth, extensions, ipv4, message, prefixes, registration
from tests.core.helpers import (
    COA_A,
    COA_C2,
    HOA_A,
    HOA_B,
    HOA_C,
    KEY,
    LAN_A,
    LAN_C,
    Lone,
    Triangle,
    snapshot,
)
from tests.core.network import HOME_AGENT, NTP_2026_MS

NTP_1970_MS = 2_208_988_800_000
YEAR_MS = 31_557_600_000


def test_request_asks_for_reverse_udp_tunnel_networks_and_route_optimisation():
    """R3.1-1 R3.1-2 R5.1-1 R5.1-i2"""
    lone = Lone(outbound_only=True)
    (item,) = lone.up()
    assert (item.tunnel, item.uplink, item.dst, item.dport) == (-1, 0, HOME_AGENT, 434)
    request = message.parse(item.payload)
    assert request.flags == registration.FLAG_D | registration.FLAG_T
    assert (request.home_address, request.care_of_address) == (HOA_A, COA_A)
    assert auth.verify_mobile_home(request, "hmac-sha256", KEY)
    networks = request.all(extensions.MobileNetworkRequest)
    assert [(n.prefix, n.plen) for n in networks] == [LAN_A]
    tunnel = request.find(extensions.UdpTunnelRequest)
    assert (tunnel.force, tunnel.encapsulation) == (True, 4)
    capability = request.find(extensions.RouteOptimizationCapability)
    assert (capability.advertise, capability.request) == (True, True)
    assert (capability.solicit, capability.outbound_only) == (False, True)
    assert capability.home_address is None


def test_without_route_optimisation_no_capability_is_sent():
    """R3.1.1-i1"""
    (item,) = Lone(route_optimization=False).up()
    assert message.parse(item.payload).find(extensions.RouteOptimizationCapability) is None


def test_implicit_mode_sends_no_network_and_takes_those_acknowledged():
    lone = Lone(explicit=False, networks=[])
    (item,) = lone.up()
    request = message.parse(item.payload)
    assert request.all(extensions.MobileNetworkRequest) == []

    def append(reply):
        extensions.append_mobile_network_ack(reply, 0, *LAN_A, True)
        extensions.append_udp_tunnel_reply(reply, 0, True, 0)

    lone.outside(HOME_AGENT, lone.home_reply(request, append=append))
    assert lone.router.registration.networks == [LAN_A]


def test_first_retransmission_waits_a_second_and_each_next_doubles_to_a_ceiling():
    lone = Lone()
    lone.up()
    times = [lone.sent[0][0]]
    lone.run(400_000)
    times = [when for when, _ in lone.sent]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    for number, gap in enumerate(gaps):
        base = min(1000 << number, 32_000)
        assert base <= gap <= base * 1.25 + 1
    assert len(set(gaps[5:])) > 1  # jitter
    numbers = [message.parse(i.payload).identification for _, i in lone.sent]
    assert numbers == sorted(set(numbers))


def test_accepted_reply_gives_tunnel_routes_and_timely_renewal():
    """R3.3.2-2"""
    lone = Lone()
    (request,) = lone.requests(lone.up())
    assert lone.router.forwarding_table() == ([(*LAN_A, -1, -1)], [])
    lone.outside(HOME_AGENT, lone.home_reply(request, lifetime=100))
    tunnel = lone.router.tunnels.get(0)
    assert (tunnel.up, tunnel.local, tunnel.remote, tunnel.remote_port) == (
        True,
        COA_A,
        HOME_AGENT,
        434,
    )
    assert tunnel.mtu == 1468
    assert lone.events[0] == ("tunnel", 0)
    assert ("routes",) in lone.events
    assert (bytes(4), 0, 0, -1) in lone.router.forwarding_table()[0]
    assert lone.router.status(lone.now)["registration"]["left_s"] == 100
    lone.run(74_000)
    assert len(lone.requests([i for _, i in lone.sent])) == 1
    lone.run(1_500)
    assert len(lone.requests([i for _, i in lone.sent])) == 2


def test_granted_lifetime_over_the_asked_one_is_not_believed():
    lone = Lone(lifetime=100)
    (request,) = lone.requests(lone.up())
    lone.outside(HOME_AGENT, lone.home_reply(request, lifetime=60_000))
    assert lone.router.status(lone.now)["registration"]["left_s"] == 100


def test_registration_that_is_not_renewed_ends_with_tunnel_and_default_route():
    lone = Lone().registered()
    lone.run(300_000)
    assert not lone.router.registration.registered
    assert lone.router.tunnels.get(0) is None
    assert lone.router.forwarding_table() == ([(*LAN_A, -1, -1)], [])
    assert lone.requests([i for _, i in lone.sent[-3:]])  # and goes on trying


@pytest.mark.parametrize(
    "ntp_ms",
    [
        0,
        NTP_1970_MS,
        NTP_1970_MS + 30 * YEAR_MS,
        NTP_2026_MS - 10 * YEAR_MS,
        NTP_2026_MS + 10 * YEAR_MS,
        (1 << 32) * 1000 - 1500,
        (1 << 32) * 1000 + 500,
    ],
)
def test_wrong_clock_is_registered_within_two_exchanges(ntp_ms):
    """RFC 5944 5.7.1; boot at 0, 1970, 2000, +-10 years, both sides of the era's end."""
    world = Triangle(register=False, ntp_ms=ntp_ms)
    start = world.net.now
    world.a.attach(0, COA_A)
    took = world.net.run_until(lambda: world.a.router.registration.registered)
    assert took < 2500
    exchange = world.net.since(start, "request", "reply")
    assert [d.kind for d in exchange] == ["request", "reply"] * 2
    assert [d.signalling.code for d in exchange[1::2]] == [133, 0]
    clock = world.a.router.status(world.net.now)["clock"]
    assert clock["synchronised"]
    if ntp_ms < (1 << 32) * 1000:
        want = world.net.ntp_ms(world.net.now) - (ntp_ms + world.net.now - start)
        assert abs(clock["offset_ms"] - want) < 3000


def test_clock_across_the_end_of_an_era_goes_on_registering():
    """A46: Identification is compared modulo 2^64."""
    base = (1 << 32) * 1000 - 120_000
    world = Triangle(register=False, ntp_ms=base)
    world.net.ntp_ms = lambda now: base + now
    for node in (world.a, world.c):
        node.attach(0, world.coas[node])
    world.net.run(600_000)
    assert world.a.router.registration.registered
    world.make_direct(world.c, world.a)


def test_only_an_authentic_133_for_the_pending_request_moves_the_clock():
    """R4 R5 of the threats: code 133 counts if authentic and the low 32 bits match."""
    lone = Lone()
    (request,) = lone.requests(lone.up())
    moved = (lone.ntp(3_600_000) >> 32).to_bytes(4, "big")
    low = request.identification[4:]
    for counter, reply in (
        (
            "reply_bad_authenticator",
            lone.home_reply(request, code=133, identification=moved + low, key=bytes(32)),
        ),
        (
            "reply_identification",
            lone.home_reply(request, code=133, identification=moved + bytes(4)),
        ),
    ):
        assert lone.outside(HOME_AGENT, reply) == []
        assert lone.counter(counter) == 1
        assert lone.router.status(lone.now)["clock"] == {"offset_ms": 0, "synchronised": False}
    lone.outside(
        HOME_AGENT, lone.home_reply(request, code=133, identification=moved + low, lifetime=0)
    )
    assert abs(lone.router.status(lone.now)["clock"]["offset_ms"] - 3_600_000) <= 1000
    (request,) = lone.requests(lone.run(1000))
    assert request.identification[:4] >= moved
    assert not lone.router.registration.registered


def test_endless_133_backs_off():
    lone = Lone()
    items = lone.up()
    for _ in range(400):
        for request in lone.requests(items):
            moved = (lone.ntp(7_200_000 * (1 + len(lone.sent) % 2)) >> 32).to_bytes(4, "big")
            reply = lone.home_reply(
                request, code=133, identification=moved + request.identification[4:]
            )
            lone.outside(HOME_AGENT, reply)
        items = lone.run(500)
    assert len(lone.sent) < 15


def test_a_133_after_an_hour_of_silence_is_followed_up_within_two_seconds():
    """F13 of the threats: waits that grew to half a minute are for a home agent that is silent."""
    lone = Lone()
    requests = lone.requests(lone.up())
    while lone.now < 3_600_000:
        requests = lone.requests(lone.run(500)) or requests
    requests = []
    while not requests:
        requests = lone.requests(lone.run(500))
    (request,) = requests
    moved = (lone.ntp(-8000) >> 32).to_bytes(4, "big")
    reply = lone.home_reply(request, code=133, identification=moved + request.identification[4:])
    lone.outside(HOME_AGENT, reply)
    assert len(lone.requests(lone.run(2000))) == 1


REFUSALS = {
    "reply_bad_authenticator": {"key": bytes(32)},
    "reply_unknown_spi": {"spi": 257},
    "reply_identification": {"identification": bytes(8)},
    "reply_other_addresses": {"home_address": HOA_B},
}


@pytest.mark.parametrize("counter", REFUSALS)
def test_forged_reply_changes_nothing(counter):
    """R3.1.1-i2: authentication comes before anything else."""
    lone = Lone()
    (request,) = lone.requests(lone.up())
    before = snapshot(lone.router, lone.now)
    reply = lone.home_reply(request, [(HOA_C, False, [(*LAN_C, "")])], **REFUSALS[counter])
    assert lone.outside(HOME_AGENT, reply) == []
    assert lone.router.counters.as_dict() == {counter: 1}
    assert snapshot(lone.router, lone.now) == before


def test_reply_from_another_address_or_port_or_without_request_changes_nothing():
    lone = Lone()
    (request,) = lone.requests(lone.up())
    good = lone.home_reply(request)
    before = snapshot(lone.router, lone.now)
    lone.outside(HOA_B, good)
    lone.outside(HOME_AGENT, good, sport=435)
    lone.outside(HOME_AGENT, good, dst=COA_C2)
    lone.outside(HOME_AGENT, good, uplink=3)
    assert lone.router.counters.as_dict() == {
        "reply_unknown_source": 1,
        "reply_source_port": 1,
        "not_our_care_of_address": 2,
    }
    assert snapshot(lone.router, lone.now) == before
    lone.outside(HOME_AGENT, good)
    before = snapshot(lone.router, lone.now)
    lone.outside(HOME_AGENT, good)  # a replay
    assert lone.counter("reply_not_awaited") == 1
    assert snapshot(lone.router, lone.now) == before


def test_two_authenticators_are_refused():
    """A07: exactly one authenticator in a reply."""
    lone = Lone()
    (request,) = lone.requests(lone.up())
    reply = bytearray(lone.home_reply(request))
    auth.append_mobile_home(reply, 256, "hmac-sha256", KEY)
    lone.outside(HOME_AGENT, reply)
    assert lone.counter("reply_authenticators") == 1
    assert not lone.router.registration.registered


def test_what_follows_the_authenticator_is_not_acted_upon():
    lone = Lone()
    (request,) = lone.requests(lone.up())
    reply = bytearray(lone.home_reply(request))
    data, _ = prefixes.build_advertisement([(HOA_C, False, [(*LAN_C, "")])])
    extensions.append_prefix_advertisement(reply, data)
    lone.outside(HOME_AGENT, reply)
    assert lone.router.registration.registered
    assert lone.router.status(lone.now)["peers"] == []


@pytest.mark.parametrize("twice", [False, True])
def test_bad_advertisement_leaves_the_registration_standing(twice):
    """R3-i3: connectivity by the home agent is kept [A52]; nothing of the list is used."""
    lone = Lone().registered()
    before = lone.router.status(lone.now)["peers"]
    assert before
    lone.router.registration.refresh(lone.now)

    def append(reply):
        extensions.append_udp_tunnel_reply(reply, 0, True, 0)
        extensions.append_route_optimization_reply(reply, False, False, False)
        data, _ = prefixes.build_advertisement([(HOA_B, False, [])])
        extensions.append_prefix_advertisement(reply, data if twice else data + b"\x18\x0a")
        if twice:
            extensions.append_prefix_advertisement(reply, data)

    lone.answer_home(lone.run(0), (), append=append)
    assert lone.router.registration.registered
    assert lone.router.status(lone.now)["registration"]["left_s"] == 300
    assert lone.router.status(lone.now)["peers"] == before
    assert lone.counter("advertisement_bad") == 1
    assert [e for e in lone.events if e[0] == "log" and e[1] == "warning"]


def test_home_agent_without_route_optimisation_still_gives_reachability():
    """R3-i3 R5.1-i1 R5.2-i2"""
    for append_reply in (None, 16):
        lone = Lone()
        (request,) = lone.requests(lone.up())

        def append(reply, code=append_reply):
            extensions.append_mobile_network_ack(reply, 0, *LAN_A)
            extensions.append_udp_tunnel_reply(reply, 0, True, 0)
            data, _ = prefixes.build_advertisement([(HOA_C, False, [(*LAN_C, "")])])
            if code is not None:
                extensions.append_route_optimization_reply(reply, False, False, False, code)
                extensions.append_prefix_advertisement(reply, data)

        lone.outside(HOME_AGENT, lone.home_reply(request, append=append))
        assert lone.router.registration.registered
        assert not lone.router.registration.route_optimization
        assert lone.router.status(lone.now)["peers"] == []
        assert (bytes(4), 0, 0, -1) in lone.router.forwarding_table()[0]


def test_refused_network_is_told_and_not_claimed_from_peers():
    lone = Lone(networks=[LAN_A, ipv4.prefix("10.9.0.0/24")])
    (request,) = lone.requests(lone.up())

    def append(reply):
        extensions.append_mobile_network_ack(reply, 0, *LAN_A)
        extensions.append_mobile_network_ack(reply, 2, *ipv4.prefix("10.9.0.0/24"))
        extensions.append_udp_tunnel_reply(reply, 0, True, 0)

    lone.outside(HOME_AGENT, lone.home_reply(request, append=append))
    status = lone.router.status(lone.now)["registration"]
    assert status["networks"] == ["10.1.0.0/24"]
    assert status["refused"] == [{"prefix": "10.9.0.0/24", "code": 2}]
    assert ("log", "warning", "home agent refused 10.9.0.0/24: code 2") in lone.events


@pytest.mark.parametrize("code", [128, 129, 131, 134, 136, 147])
def test_denied_registration_is_told_and_retried_with_backoff(code):
    lone = Lone()
    (request,) = lone.requests(lone.up())
    lone.outside(HOME_AGENT, lone.home_reply(request, code=code))
    status = lone.router.status(lone.now)["registration"]
    assert (status["registered"], status["last_code"]) == (False, code)
    assert lone.counter("registration_denied") == 1
    assert [e for e in lone.events if e[:2] == ("log", "warning")]
    assert len(lone.requests(lone.run(1300))) == 1


def test_reply_without_udp_tunnel_is_not_usable():
    lone = Lone()
    (request,) = lone.requests(lone.up())
    lone.outside(HOME_AGENT, lone.home_reply(request, append=lambda reply: None))
    assert lone.counter("registration_unusable") == 1
    assert lone.router.tunnels.get(0) is None


@pytest.mark.parametrize(("told", "interval"), [(0, 25_000), (1, 10_000), (60, 60_000)])
def test_home_agent_keepalive_interval_is_never_under_ten_seconds(told, interval):
    """RFC 3519 3.2, 4.10 [A38]"""
    lone = Lone(lifetime=3000)
    (request,) = lone.requests(lone.up())

    def append(reply):
        extensions.append_udp_tunnel_reply(reply, 0, True, told)

    lone.outside(HOME_AGENT, lone.home_reply(request, append=append))
    assert lone.run(interval - 1) == []
    (item,) = lone.run(1)
    ip = ipv4.parse_ipv4(item.payload)
    assert (item.tunnel, ip.src, ip.dst, ip.protocol) == (0, HOA_A, HOME_AGENT, 1)


def test_silent_home_agent_makes_the_router_register_again():
    """RFC 3519 4.9; an unanswered keepalive within 45 s leads to a new registration."""
    lone = Lone().registered()
    start = lone.now
    lone.home_agent_answers = False
    items = lone.run(40_000)
    assert lone.requests(items)
    assert lone.sent[-1][0] - start < 40_000
    assert lone.counter("home_agent_silent") == 1
    assert lone.router.registration.registered


def test_answered_keepalives_keep_quiet():
    world = Triangle()
    start = world.net.now
    world.net.run(200_000)
    assert not world.a.router.counters.as_dict()
    assert len([d for d in world.net.since(start, "keepalive") if d.src == COA_A]) == 8


def test_never_two_requests_within_a_second():
    """RFC 5944 3.6.3"""
    lone = Lone()
    for _ in range(50):
        lone.router.uplink_changed(lone.now, 0, False)
        lone.up()
        lone.router.registration.refresh(lone.now)
        lone.run(130)
    times = [when for when, _ in lone.sent]
    assert min(b - a for a, b in itertools.pairwise(times)) >= 1000


def test_change_of_address_registers_the_new_one():
    lone = Lone().registered()
    (request,) = lone.requests(lone.up(COA_C2))
    assert request.care_of_address == COA_C2
    assert not lone.router.tunnels.get(0).up
    lone.outside(HOME_AGENT, lone.home_reply(request), dst=COA_C2)
    assert (lone.router.tunnels.get(0).up, lone.router.tunnels.get(0).local) == (True, COA_C2)


def test_second_uplink_takes_over_and_gives_back():
    """R3.3-2"""
    lone = Lone().registered()
    assert lone.up(COA_C2, index=1) == []
    lone.router.uplink_changed(lone.now, 0, False)
    (request,) = lone.requests(lone.run(0))
    assert request.care_of_address == COA_C2
    lone.outside(HOME_AGENT, lone.home_reply(request), dst=COA_C2, uplink=1)
    assert lone.router.tunnels.get(0).uplink == 1
    lone.run(1000)
    assert lone.requests(lone.up()) == []  # preferred, but it must last first
    assert lone.requests(lone.run(29_000)) == []
    (request,) = lone.requests(lone.run(1000))
    assert request.care_of_address == COA_A
    assert lone.router.tunnels.get(0).uplink == 1  # nothing moves before the reply


def test_stop_deregisters_with_lifetime_zero():
    """R3.3.6-1 A47"""
    lone = Lone().registered()
    lone.router.stop(lone.now)
    (request,) = lone.requests(lone.drain())
    assert request.lifetime == 0
    assert request.all(extensions.MobileNetworkRequest) == []
    assert not lone.router.stopped
    lone.outside(HOME_AGENT, lone.home_reply(request))
    assert lone.router.stopped
    assert lone.router.tunnels.get(0) is None
    assert not lone.router.status(lone.now)["registration"]["registered"]
    assert lone.run(600_000) == []


def test_stop_ends_without_an_answer_too():
    lone = Lone().registered()
    lone.router.stop(lone.now)
    lone.run(20_000)
    assert lone.router.stopped
    idle = Lone()
    idle.router.stop(idle.now)
    assert idle.router.stopped


def test_defaults_are_complete():
    assert Settings().lifetime <= 300  # R8 of the threats: short lifetimes through NATs
