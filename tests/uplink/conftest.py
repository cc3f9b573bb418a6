"""Benches that are closed at the end of their test."""

import pytest

from tests.modem_sim import peer
from tests.uplink.bench import Bench


@pytest.fixture
def bench():
    """Make benches whose network refuses to speak PPP."""
    made = []

    def make(*arguments, **keywords):
        made.append(Bench(*arguments, **keywords))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def online(bench):
    """Make benches whose network is slirp."""
    reason = peer.why_not_here()
    if reason:
        pytest.skip(reason)
    return lambda *arguments, **keywords: bench(*arguments, peer=peer.Peer, **keywords)
