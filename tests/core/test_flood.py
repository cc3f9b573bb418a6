"""Floods of HoTI, CoTI and Registration Requests: what is answered, and what is kept."""

import os
import pathlib
import re
import subprocess
import sys

from haaro.core.nonces import Limiter
from haaro.wire import return_routability
from tests.core.helpers import COA_C, HOA_C, Lone, ScriptedPeer, snapshot

ROOT = pathlib.Path(__file__).parents[2]
MICROPYTHON = os.environ.get(
    "MICROPYTHON", str(pathlib.Path(sys.executable).with_name("micropython"))
)


def strangers(count, start=0):
    for n in range(start, start + count):
        yield bytes((198, 18 + (n >> 16), n >> 8 & 255, n & 255))


def test_limiter_counts_exactly_whatever_the_sources():
    """C1 of the threats: against a dictionary, with sources that share a slot."""
    limiter = Limiter(3, 100)
    exact = {}
    # 11 * 128 is a multiple of the table's size: these collide.
    sources = [bytes((10, 0, n % 2 * 128, n % 50)) for n in range(400)]
    for second in range(3):
        exact.clear()
        for source in sources:
            allowed = sum(exact.values()) < 100 and exact.get(source, 0) < 3
            assert limiter.allow(second * 1000 + 5, source) is allowed
            if allowed:
                exact[source] = exact.get(source, 0) + 1


def test_flood_from_many_sources_changes_nothing_and_is_answered_100_times_a_second():
    """C1 of the threats, G6: 10 000 HoTI and CoTI in 10 s, each from another source."""
    lone = Lone().registered()
    before = snapshot(lone.router, lone.now)
    answers = 0
    for n, source in enumerate(strangers(10_000)):
        data = return_routability.build_init(24 + n % 2, bytes(8))
        answers += len(lone.tunnelled(source, data))
        if n % 1000 == 999:
            lone.now += 1000
    assert answers == 1000
    assert lone.counter("test_init_rate_limited") == 9000
    lone.now -= 10_000
    assert snapshot(lone.router, lone.now) == before


def test_flood_does_not_starve_whom_we_know():
    """C1 of the threats: a router of the list, and the end of a tunnel, have a budget of theirs."""
    lone = Lone().registered()
    peer = ScriptedPeer(lone).test()
    peer.register()
    lone.now += 1000
    for source in strangers(1000):
        lone.tunnelled(source, return_routability.build_init(24, bytes(8)))
    assert lone.counter("test_init_rate_limited") == 900
    assert len(lone.tunnelled(HOA_C, return_routability.build_init(24, bytes(8)))) == 1
    assert len(lone.tunnelled(COA_C, return_routability.build_init(25, bytes(8)))) == 1
    for source in strangers(1000):
        lone.tunnelled(source, peer.request())
    assert lone.counter("peer_request_rate_limited") == 900
    assert peer.reply_in(peer.register())[1].code == 0


def test_flood_of_messages_from_outside_the_tunnel_is_dropped_unread():
    """R3.2-i2: HoTI and CoTI belong into the home agent's tunnel."""
    lone = Lone().registered()
    for source in strangers(500):
        assert not lone.outside(source, return_routability.build_init(25, bytes(8)))
    assert lone.counter("coti_on_wrong_path") == 500


def test_flood_inside_micropython_keeps_no_octet():
    """C1 of the threats, G6: 4000 in 4 s from 4000 sources."""
    done = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=384k", str(ROOT / "tests/core/micropython_flood.py")]
        + [str(ROOT / "firmware")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    found = re.fullmatch(r"kept (-?\d+) answers (\d+) registered 1", done.stdout.strip())
    assert found, done.stdout + done.stderr
    assert int(found.group(1)) <= 0
    assert int(found.group(2)) == 400
