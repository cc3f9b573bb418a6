"""Registration with the home agent: authentication, replay, codes, lifetimes, prefixes, tunnels."""

import pytest

from haaro.wire import auth, extensions, registration
from haaro.wire.ipv4 import address
from haaro_host.home_agent.clock import stamp
from haaro_host.home_agent.store import Store, StoreError
from tests.host.home_agent_helpers import (
    COA_A,
    COA_B,
    HA,
    HOA_A,
    HOA_B,
    HOA_C,
    KEY,
    World,
    build_request,
    parse_reply,
)

D, T = registration.FLAG_D, registration.FLAG_T


def identification(world, seconds=0.0):
    """Return the 8 octets of the world's time plus `seconds`."""
    return stamp(world.now + int(seconds * 1000)).to_bytes(8, "big")


def refused_silently(world, data, counter, **where):
    """The datagram gets no answer, no binding, and bumps `counter` alone."""
    before = dict(world.ha.bindings)
    assert world.send(data, **where) == []
    assert world.ha.counters == {counter: 1}
    assert world.ha.bindings == before


# --- authentication -----------------------------------------------------------------------------


def test_a_signed_request_is_accepted_and_the_reply_goes_to_its_source():
    """RFC 5944 3.8.3: reply to source address and port, Identification copied, signed."""
    world = World()
    sent = world.send(world.request(), COA_A, 5001)
    assert [(t.dst, t.dport) for t in sent] == [(COA_A, 5001)]
    reply = parse_reply(sent[0].payload)
    assert (reply.code, reply.home_address, reply.home_agent) == (0, HOA_A, HA)
    assert reply.identification == identification(world)


def test_without_authenticator_it_is_silently_discarded():
    """RFC 5944 3.8.2.1 a; R3.1.1-i2."""
    world = World()
    refused_silently(world, world.request(spi=None), "no_authenticator")


def test_two_authenticators_are_silently_discarded():
    """RFC 5944 3.8.2.1 a, exactly one [A07]."""
    world = World()
    data = world.request()
    auth.append_mobile_home(data, 256, "hmac-sha256", KEY)
    refused_silently(world, data, "several_authenticators")


def test_a_request_for_a_peer_is_not_for_the_home_agent():
    """R5.3-i1: the Mobile-Correspondent extension marks a request as meant for a router."""
    world = World()
    data = world.request(spi=None)
    auth.append_mobile_correspondent(data, bytes(20), 1, 2)
    refused_silently(world, data, "mobile_correspondent_request")


def test_unknown_spi_and_unknown_home_address_are_silently_discarded():
    """RFC 5944 3.8.2.1 a: no security association, no answer."""
    world = World()
    refused_silently(world, world.request(spi=257), "unknown_spi")
    world = World()
    refused_silently(world, world.request(hoa=address("192.0.2.200")), "unknown_home_address")


@pytest.mark.parametrize("algorithm", ["hmac-md5", "hmac-sha1"])
def test_another_algorithm_than_the_spi_names_is_refused(algorithm):
    """RFC 5944 3.5.1; threats R13: no downgrade."""
    world = World()
    refused_silently(world, world.request(algorithm=algorithm), "bad_authenticator")


def test_every_octet_of_the_request_is_protected():
    """RFC 5944 3.5.1: no change of any covered octet or of the authenticator is accepted."""
    world = World()
    good = bytes(world.request(networks=["10.1.0.0/24"], capability={}))
    for at in range(len(good)):
        for bit in (1, 128):
            changed = bytearray(good)
            changed[at] ^= bit
            for sent in world.send(changed):
                pytest.fail(f"octet {at} changed, answered {sent.payload.hex()}")
    assert world.ha.bindings == {}
    assert parse_reply(world.send(good)[0].payload).code == 0


def test_a_wrong_authenticator_is_answered_with_131_only_by_policy():
    """RFC 5944 3.8.2.1 a: MAY reply 131, signed; off by default."""
    world = World(lambda d: d["home_agent"].update(reply_authentication_failed=True))
    sent = world.send(world.request(key=bytes(32)))
    assert parse_reply(sent[0].payload).code == registration.FAILED_AUTHENTICATION
    assert len(sent[0].payload) <= len(world.request())
    assert world.ha.counters["bad_authenticator"] == 1
    assert world.ha.bindings == {}
    answers = sum(len(world.send(world.request(key=bytes(32)))) for _ in range(100))
    assert answers < 10
    assert world.register().code == 0


def test_extensions_after_the_authenticator_are_not_acted_upon():
    """RFC 5944 3.5.2, threats R10 [A06]."""
    world = World()
    appended = bytearray()
    extensions.append_mobile_network_request(appended, address("10.1.0.0"), 24)
    reply = world.register(after=appended)
    assert reply.code == 0
    assert reply.all(extensions.MobileNetworkAck) == []
    assert world.ha.bindings[HOA_A].prefixes == []


def test_malformed_and_unexpected_datagrams_have_named_counters():
    """Issue, Bad input: dropped, counted by name, nothing raised, nothing kept."""
    world = World()
    for data, counter in (
        (b"", "malformed_empty"),
        (b"\x63abc", "malformed_unknown_type"),
        (bytes(world.request())[:20], "malformed_message_truncated"),
        (b"\x18\0" + bytes(8), "unexpected_type_24"),
        (b"\x03" + bytes(19), "unexpected_type_3"),
        (world.request(extra=b"\x64\x01\0"), "malformed_unknown_nonskippable"),
        (world.request(extra=b"\x64\xff\0"), "malformed_ext_overrun"),
        (b"\x04\x04\0\0E", "unknown_tunnel_end"),
    ):
        world.ha.counters.clear()
        refused_silently(world, data, counter)


# --- replay -------------------------------------------------------------------------------------


def test_the_same_datagram_twice_is_133_and_changes_nothing():
    """RFC 5944 5.7.1: greater than all accepted before."""
    world = World()
    data = world.request()
    world.send(data)
    before = dict(world.ha.bindings)
    reply = parse_reply(world.send(data, src=COA_B)[0].payload)
    assert reply.code == registration.IDENTIFICATION_MISMATCH
    assert world.ha.bindings == before and world.ha.bindings[HOA_A].source == COA_A
    assert world.ha.counters["identification_mismatch"] == 1


@pytest.mark.parametrize(("seconds", "code"), [(-7.1, 133), (-6.9, 0), (6.9, 0), (7.1, 133)])
def test_the_time_window_is_seven_seconds_both_ways(seconds, code):
    """RFC 5944 5.7.1: close enough to the home agent's clock, 7 s by default."""
    world = World()
    assert world.register(identification=identification(world, seconds)).code == code
    assert (HOA_A in world.ha.bindings) == (code == 0)


def test_133_carries_our_high_and_the_requests_low_32_bits():
    """RFC 5944 5.7.1: resynchronisation; the next request by that clock is accepted."""
    world = World()
    sent = b"\x12\x34\x56\x78\x9a\xbc\xde\xf0"
    reply = world.register(identification=sent)
    assert reply.code == registration.IDENTIFICATION_MISMATCH
    assert reply.identification[4:] == sent[4:]
    assert reply.identification[:4] == identification(world)[:4]
    world.now += 1000
    assert world.register(identification=identification(world)).code == 0


def test_a_router_that_went_back_in_time_resynchronises_at_once():
    """RFC 5944 5.7.1; threats R4: within two exchanges, though it was ahead before."""
    world = World()
    assert world.register(identification=identification(world, 6)).code == 0
    reply = world.register(identification=identification(world, -3))
    assert reply.code == registration.IDENTIFICATION_MISMATCH
    assert world.register(identification=reply.identification).code == 0


def test_identifications_are_compared_across_the_era_end():
    """RFC 5944 5.7.1 with [A46]: 2036-02-07 06:28:16 wraps the NTP seconds."""
    world = World()
    world.now = (1 << 32) * 1000 - 1500
    before = identification(world)
    assert world.register(identification=before).code == 0
    world.now += 3000
    assert identification(world) < before
    assert world.register().code == 0
    assert world.register(identification=before).code == 133


def test_a_valid_router_is_limited_and_the_others_are_not_affected():
    """Threats R16: token bucket a router, after authentication."""
    world = World()
    step = 1 << 20
    accepted = 0
    for n in range(100):
        data = world.request(identification=(stamp(world.now) + n * step).to_bytes(8, "big"))
        accepted += bool(world.send(data))
    assert accepted == world.ha.config.burst
    assert world.ha.counters["rate_limited"] == 100 - accepted
    assert world.register(hoa=HOA_B, coa=COA_B).code == 0
    world.advance(1)
    assert world.register().code == 0


def test_a_replay_flood_does_not_starve_the_router():
    """Threats R16, R7: 133 answers have a bucket of their own."""
    world = World()
    data = world.request()
    world.send(data)
    answers = sum(len(world.send(data)) for _ in range(100))
    assert 0 < answers <= 10
    assert world.ha.counters["answer_limited"] == 100 - answers
    world.now += 10
    assert world.register().code == 0


# --- content ------------------------------------------------------------------------------------


def test_another_home_agent_in_the_request_is_136_with_ours():
    """RFC 5944 3.8.3.2."""
    world = World()
    reply = world.register(ha=address("192.0.2.9"))
    assert (reply.code, reply.home_agent) == (registration.UNKNOWN_HOME_AGENT, HA)
    assert (
        parse_reply(
            world.send(world.request(identification=identification(world, 1)), dst=COA_B)[0].payload
        ).code
        == 136
    )
    assert world.ha.bindings == {}


def test_reserved_flag_bits_are_ignored():
    """RFC 5944 3.3: r and x ignored on reception [A11]."""
    assert World().register(flags=D | T | 0x05).code == 0


def test_simultaneous_bindings_are_answered_with_code_1():
    """RFC 5944 3.8.2.2: accepted, but without simultaneous bindings; one binding is kept."""
    world = World()
    world.register()
    world.now += 1000
    assert world.register(coa=COA_B, flags=D | T | registration.FLAG_S).code == 1
    assert world.ha.bindings[HOA_A].care_of_address == COA_B
    world.advance(10)  # packets on their way are taken that long, see forwarding
    assert world.ha.binding_by_tunnel_end(COA_A, 434) is None


@pytest.mark.parametrize(
    ("coa", "code", "counter"),
    [
        (HA, 134, "care_of_address_not_usable"),
        (HOA_A, 134, "care_of_address_is_home_address"),
        (bytes(4), 134, "care_of_address_not_usable"),
        (b"\x7f\0\0\1", 134, "care_of_address_not_usable"),
        (b"\xe0\0\0\1", 134, "care_of_address_not_usable"),
        (b"\xff\xff\xff\xff", 134, "care_of_address_not_usable"),
        (HOA_B, 129, "care_of_address_is_mobile"),
        (address("10.2.0.7"), 129, "care_of_address_is_mobile"),
    ],
)
def test_a_care_of_address_no_tunnel_may_end_at_is_refused(coa, code, counter):
    """RFC 5944 3.8.2.3, RFC 2003 3.2: no tunnel to ourselves, to itself, or inside another."""
    world = World()
    assert world.register(coa=coa, src=COA_A).code == code
    assert world.ha.counters[counter] == 1
    assert world.register(src=coa, identification=identification(world, 1)).code == code
    assert world.ha.bindings == {}


@pytest.mark.parametrize(
    ("asked", "udp", "granted"),
    [(60, True, 60), (300, True, 300), (301, True, 300), (65535, True, 300), (65535, False, 1800)],
)
def test_the_lifetime_is_reduced_never_raised(asked, udp, granted):
    """RFC 5944 3.8.2.2; RFC 3519 5.2, 6: short when UDP-tunnelled, 300 s by default."""
    world = World()
    assert world.register(lifetime=asked, udp=(True, 4, False) if udp else None).lifetime == granted
    world.advance(granted - 1)
    assert HOA_A in world.ha.bindings
    assert world.ha.next_deadline() == world.now + 1000
    world.advance(1)
    assert world.ha.bindings == {} and world.ha.next_deadline() is None
    assert world.ha.counters["binding_expired"] == 1
    assert world.store.bindings() == []


def test_deregistration_removes_the_binding():
    """RFC 5944 3.8.2.2, RFC 5177 6.7: network extensions ignored, reply code 0, lifetime 0."""
    world = World()
    world.register(networks=["10.1.0.0/24"])
    world.now += 1000
    reply = world.register(lifetime=0, networks=["10.9.0.0/24"])
    assert (reply.code, reply.lifetime, reply.extensions) == (0, 0, [])
    assert world.ha.bindings == {} and world.store.bindings() == []
    assert world.ha.binding_by_tunnel_end(COA_A, 434) is None


def test_deregistration_of_another_care_of_address_leaves_the_binding():
    """RFC 5944 3.8.2.2: only the entry that contains the care-of address."""
    world = World()
    world.register()
    world.now += 1000
    late = world.request(lifetime=0, coa=COA_B)
    assert parse_reply(world.send(late)[0].payload).code == 0
    assert world.ha.bindings[HOA_A].care_of_address == COA_A
    assert parse_reply(world.send(late)[0].payload).code == 133


def test_deregistration_without_a_binding_is_a_success():
    """RFC 5944 3.8.2.2: nothing to delete; the Identification counts all the same."""
    world = World()
    data = world.request(lifetime=0)
    assert parse_reply(world.send(data)[0].payload).code == 0
    assert parse_reply(world.send(data)[0].payload).code == 133
    assert world.store.identifications() == {HOA_A: identification(world)}


def test_deregistration_at_home_removes_all():
    """RFC 5944 3.8.2.2: lifetime 0 with the home address as care-of address."""
    world = World()
    world.register()
    world.now += 1000
    assert world.register(lifetime=0, coa=HOA_A, src=HOA_A).code == 0
    assert world.ha.bindings == {}


def test_a_bad_known_extension_is_134():
    """RFC 5944 3.8.2.3; [A09]: S without a home address in the capability extension."""
    for extra in (b"\x99\x02\x01\xe0", b"\x99\x06\x01\xc0\xc0\0\2\3", b"\x90\x02\0\0"):
        world = World()
        assert world.register(extra=extra, udp=None).code == registration.POORLY_FORMED
        assert world.ha.bindings == {}


def test_a_store_that_fails_is_130_and_keeps_the_old_state():
    """RFC 5944 3.8.2.3: 130 insufficient resources; nothing is promised that is not on disk."""
    world = World()
    world.register()
    world.now += 1000

    def fail(*args):
        raise StoreError("disk full")

    world.store.accept = fail
    assert world.register(coa=COA_B).code == registration.INSUFFICIENT_RESOURCES
    assert world.ha.bindings[HOA_A].care_of_address == COA_A
    assert world.ha.counters["store_failed"] == 1


def test_the_state_is_on_disk_before_the_reply_leaves():
    """Threats R3; issue: the last Identification is persisted before the reply."""
    queued = []

    class Watched(Store):
        def accept(self, *args):
            queued.append(world.ha.poll_transmit())
            super().accept(*args)
            queued.append(world.ha.poll_transmit())

    world = World(store=Watched(":memory:"))
    assert world.register().code == 0
    assert queued == [None, None]
    assert world.store.identifications() == {HOA_A: identification(world)}


def test_a_legacy_router_without_route_optimisation_is_served():
    """R3-i3, R5.1-i1: RFC 5944 and 5177 alone, no RFC 6521 extension in the reply."""
    reply = World().register(networks=["10.1.0.0/24"], udp=None)
    assert reply.code == 0
    assert [type(e).__name__ for e in reply.extensions] == ["MobileNetworkAck"]


def test_a_renewal_changes_the_lifetime_and_flags_but_no_table():
    """RFC 5944 3.8.2.2: the binding lives on; whatever was cached for its tunnel stays valid."""
    world = World()
    world.register(networks=["10.1.0.0/24"])
    generation, binding = world.ha.generation, world.ha.bindings[HOA_A]
    world.advance(200)
    world.register(networks=["10.1.0.0/24"], lifetime=60, capability={"outbound_only": True})
    assert world.ha.generation == generation
    assert world.ha.bindings[HOA_A] is binding
    assert (binding.lifetime, binding.outbound_only, binding.advertise) == (60, True, True)
    assert world.store.bindings() == [binding]
    world.advance(61)
    assert world.ha.bindings == {}
    assert world.ha.generation > generation


# --- mobile networks, RFC 5177 --------------------------------------------------------------------


def acks(reply):
    """Return [(prefix octets, length, code, implicit)]."""
    return [(a.prefix, a.plen, a.code, a.implicit) for a in reply.all(extensions.MobileNetworkAck)]


def test_explicit_prefixes_are_acknowledged_and_bound():
    """RFC 5177 6.1, 6.3: explicit mode, one acknowledgement a request."""
    world = World()
    reply = world.register(networks=["10.1.0.0/24", "10.1.1.0/24"])
    first, second = address("10.1.0.0"), address("10.1.1.0")
    assert acks(reply) == [(first, 24, 0, False), (second, 24, 0, False)]
    assert world.ha.bindings[HOA_A].prefixes == [(first, 24), (second, 24)]


def test_a_prefix_with_host_bits_is_masked_and_given_twice_is_bound_once():
    """RFC 5177 4.1 [A49]."""
    world = World()
    net = address("10.1.0.0")
    reply = world.register(networks=[(address("10.1.0.9"), 24), (net, 24)])
    assert acks(reply) == [(net, 24, 0, False)] * 2
    assert world.ha.bindings[HOA_A].prefixes == [(net, 24)]


@pytest.mark.parametrize(
    ("network", "code"),
    [
        (("10.2.0.0", 24), 2),  # another router's
        (("10.1.0.0", 16), 2),  # wider than configured
        (("10.1.0.0", 25), 2),  # a part
        (("192.0.2.128", 25), 2),
        (("0.0.0.0", 0), 1),
        (("10.1.0.0", 33), 1),
        (("10.1.0.0", 255), 1),
    ],
)
def test_a_prefix_that_is_not_configured_for_the_router_is_refused(network, code):
    """RFC 5177 6.3, 6.6, 10; threats R12: code 147 if none is left, no forwarding."""
    world = World()
    net = (address(network[0]), network[1])
    reply = world.register(networks=[net])
    assert reply.code == registration.MOBNET_ERROR
    assert [(plen, c) for _, plen, c, _ in acks(reply)] == [(net[1], code)]
    assert world.ha.bindings == {}
    reply = world.register(networks=[net, "10.1.0.0/24"], identification=identification(world, 1))
    assert reply.code == 0
    assert sorted(c for _, _, c, _ in acks(reply)) == [0, code]
    assert world.ha.bindings[HOA_A].prefixes == [(address("10.1.0.0"), 24)]


def test_prefixes_missing_from_a_later_request_are_deleted():
    """RFC 5177 6.3: MUST delete them and disable forwarding."""
    world = World()
    world.register(networks=["10.1.0.0/24", "10.1.1.0/24"])
    world.now += 1000
    world.register(networks=["10.1.1.0/24"])
    assert world.ha.bindings[HOA_A].prefixes == [(address("10.1.1.0"), 24)]
    assert world.store.bindings()[0].prefixes == [(address("10.1.1.0"), 24)]


def test_implicit_prefixes_come_from_the_configuration():
    """RFC 5177 6.3, 4.2: implicit mode, acknowledged with subtype 2."""
    world = World()
    reply = world.register(hoa=HOA_C)
    assert acks(reply) == [(address("10.3.0.0"), 24, 0, True)]
    assert world.ha.bindings[HOA_C].prefixes == [(address("10.3.0.0"), 24)]


def test_without_request_and_without_implicit_only_the_home_address_is_bound():
    """R6.6-i1: host-only use; RFC 5177 6.3."""
    world = World()
    reply = world.register()
    assert (reply.code, acks(reply)) == (0, [])
    assert world.ha.bindings[HOA_A].prefixes == []


def test_a_node_that_may_have_no_networks_gets_148():
    """RFC 5177 6.1: HA_MOBNET_DISALLOWED."""
    world = World(lambda d: d["router"][0].update(prefixes=[]))
    assert world.register(networks=["10.1.0.0/24"]).code == registration.MOBNET_DISALLOWED
    assert world.ha.bindings == {}


# --- tunnels, RFC 3519 ----------------------------------------------------------------------------


def tunnel_reply(reply):
    """Return (code, forced, keepalive) or None."""
    found = reply.find(extensions.UdpTunnelReply)
    return found and (found.code, found.forced, found.keepalive)


def test_forced_udp_tunnel_without_nat():
    """RFC 3519 3.1.1, 3.2: F is answered with assent and F."""
    world = World()
    assert tunnel_reply(world.register()) == (0, True, 25)
    assert world.ha.bindings[HOA_A].encapsulation == "udp"


def test_behind_a_nat_the_source_is_the_tunnel_end():
    """RFC 3519 4.6: MUST use the source address of the request; F not echoed unless asked."""
    world = World()
    nat = address("203.0.113.99")
    reply = world.register(udp=(False, 0, False), src=nat, sport=61000)
    assert tunnel_reply(reply) == (0, False, 25)
    binding = world.ha.bindings[HOA_A]
    assert (binding.source, binding.source_port, binding.nat) == (nat, 61000, True)
    assert world.ha.binding_by_tunnel_end(nat, 61000) is binding
    assert world.ha.binding_by_tunnel_end(nat, 61001) is None
    assert world.ha.binding_by_tunnel_end(COA_A, 61000) is None


def test_without_nat_and_without_force_udp_is_declined():
    """RFC 3519 4.6: SHOULD decline with a UDP Tunnel Reply; the tunnel is IP in IP."""
    world = World()
    assert tunnel_reply(world.register(udp=(False, 4, False))) == (64, False, 25)
    assert world.ha.bindings[HOA_A].encapsulation == "ipip"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"flags": T}, 134),  # UDP tunnel request, D not set
        ({"flags": T, "udp": None}, 129),  # a foreign agent's care-of address
        ({"flags": D}, 138),  # RFC 3024: reverse tunnel is mandatory
        ({"udp": (True, 4, True)}, 129),  # through a foreign agent
        ({"udp": (True, 47, False)}, 142),
        ({"udp": (True, 55, False)}, 142),
        ({"udp": (True, 0, False), "flags": D | T | registration.FLAG_G}, 142),
        ({"udp": (True, 0, False), "flags": D | T | registration.FLAG_M}, 142),
        ({"udp": None, "flags": D | T | registration.FLAG_G | registration.FLAG_M}, 139),
        ({"udp": None, "src": COA_B}, 129),  # NAT, but no UDP tunnel asked
        ({"udp": (False, 47, False), "src": COA_B}, 142),
    ],
)
def test_tunnels_that_cannot_be_have_their_code(changes, code):
    """RFC 3519 3.1.4, 4.6.1; RFC 3024 3.3; no foreign agents."""
    world = World()
    assert world.register(**changes).code == code
    assert world.ha.bindings == {}


def test_encapsulation_field_4_wins_over_the_flags():
    """RFC 3519 3.1.4: non-zero means that encapsulation whatever M and G say."""
    assert World().register(flags=D | T | registration.FLAG_G).code == 0


def test_a_udp_tunnel_request_with_reserved_3_set_counts_as_not_understood():
    """RFC 3519 3.1.3: MUST be skipped."""
    reply = World().register(udp=None, extra=b"\x90\x06\0\0\x80\x04\0\1")
    assert (reply.code, tunnel_reply(reply)) == (0, None)


# --- restart --------------------------------------------------------------------------------------


def test_a_restart_keeps_bindings_and_accepts_no_replay(tmp_path):
    """Threats R3; issue: a restart loses nothing and accepts no replay."""
    path = str(tmp_path / "state.sqlite")
    world = World(store=Store(path))
    reply = world.register(identification=bytes(8))  # a fresh file: learn the clock
    assert reply.code == 133
    first = accepted_after(world, reply, networks=["10.1.0.0/24"], capability={})
    world.store.close()

    again = World(store=Store(path))
    again.now = world.now + 100
    again.ha.handle_timer(again.now)
    binding = again.ha.binding_by_tunnel_end(COA_A, 434)
    assert binding == world.ha.bindings[HOA_A]
    assert binding.prefixes == [(address("10.1.0.0"), 24)] and binding.advertise
    assert parse_reply(again.send(first)[0].payload).code == 133
    assert again.ha.bindings[HOA_A] == binding
    again.now += 1000
    later = (int.from_bytes(first[16:24], "big") + (1 << 32)).to_bytes(8, "big")
    assert again.register(identification=later).code == 0


def test_expired_bindings_are_not_restored(tmp_path):
    """RFC 5944 3.8.2.2: MUST delete after expiration, also when it expired while we were down."""
    path = str(tmp_path / "state.sqlite")
    world = World(store=Store(path))
    accepted_after(world, world.register(identification=bytes(8)))
    world.store.close()
    again = World(store=Store(path))
    again.now = world.now + 400_000
    again.ha.handle_timer(again.now)
    assert again.ha.bindings == {}


def test_an_empty_state_file_refuses_what_an_earlier_life_may_have_accepted(tmp_path):
    """Threats R3, F8: disk lost; what was captured before is refused, then two exchanges do."""
    world = World(store=Store(str(tmp_path / "state.sqlite")))
    world.ha.handle_timer(world.now)
    for seconds in (-6.9, 0, 6.9):
        captured = world.request(identification=identification(world, seconds))
        assert parse_reply(world.send(captured)[0].payload).code == 133
    assert world.ha.bindings == {}
    accepted_after(world, world.register(identification=identification(world)))


def accepted_after(world, reply, **values):
    """A router takes the second after the one of the 133, asks again 1.1 s later: return that."""
    learnt = (int.from_bytes(reply.identification[:4], "big") + 1) << 32
    world.now += 1100
    request = build_request((learnt + (11 << 32) // 10).to_bytes(8, "big"), **values)
    assert parse_reply(world.send(request)[0].payload).code == 0
    return request


@pytest.mark.parametrize("fraction_ms", [0, 1, 499, 999])
def test_a_disk_lost_twice_at_once_gives_no_replay_either(tmp_path, fraction_ms):
    """Threats R3, F8: nor does a life that began without a disk accept stamps further ahead."""
    world = World(store=Store(str(tmp_path / "first.sqlite")))
    world.now += fraction_ms
    captured = accepted_after(world, world.register(identification=identification(world)))
    again = World(store=Store(str(tmp_path / "second.sqlite")))
    again.now = world.now
    for _ in range(20):
        again.now += 400
        assert parse_reply(again.send(captured)[0].payload).code == 133


def test_the_status_says_since_when_a_router_is_registered_through_renewals_and_moves():
    world = World()
    assert world.register(coa=COA_A).code == 0
    world.advance(100)
    assert world.register(coa=COA_A).code == 0
    world.advance(50)
    assert world.register(coa=COA_B).code == 0, "a move"

    def registered_s():
        (router,) = [r for r in world.ha.status(world.now)["routers"] if r["binding"]]
        return router["binding"]["registered_s"]

    assert registered_s() == 150
    world.advance(5)
    assert world.register(coa=COA_B, lifetime=0).code == 0
    world.advance(10)
    assert world.register(coa=COA_A).code == 0
    assert registered_s() == 0, "after a deregistration it is a new one"


def test_a_registration_of_an_earlier_start_has_no_known_age():
    store = Store(":memory:")
    World(store=store).register()
    again = World(store=store)
    (router,) = [r for r in again.ha.status(again.now)["routers"] if r["binding"]]
    assert router["binding"]["registered_s"] is None
