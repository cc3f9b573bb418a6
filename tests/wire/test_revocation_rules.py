"""Revocation (RFC 3543): what was agreed, replays, reflections, and which ack counts."""

import pytest

from haaro.wire import extensions, message, revocation
from haaro.wire import revocation_rules as rules
from tests.wire.strategies import mobile_home, request

HOA, HOME, FOREIGN = b"\x0a\x63\0\1", b"\xc0\0\2\1", b"\xc6\x33\x64\7"


def support(i):
    append = lambda m: extensions.append_revocation_support(m, i, 1000)  # noqa: E731
    return message.parse(mobile_home(request(append))).find(extensions.RevocationSupport)


def revoke(a=True, i=False, ident=1001, hoa=HOA):
    return message.parse(bytes(revocation.build_revocation(a, i, hoa, HOME, FOREIGN, ident)))


def ack(i=False, ident=1001, hoa=HOA):
    return message.parse(bytes(revocation.build_revocation_ack(i, hoa, ident)))


def test_both_sides_must_offer_it():
    """RFC 3543 4.2.1; 3.2 for I."""
    assert rules.negotiated(None, support(True)) == (False, False)
    assert rules.negotiated(support(True), None) == (False, False)
    assert rules.negotiated(support(True), support(True)) == (True, True)
    assert rules.negotiated(support(False), support(True)) == (True, False)
    assert rules.negotiated(support(True), support(False)) == (True, False)


def test_home_agent_does_not_set_i_that_was_not_offered():
    """RFC 3543 3.2"""
    for offered in (False, True):
        for wanted in (False, True):
            assert rules.answer_inform(support(offered), wanted) is (offered and wanted)


@pytest.mark.parametrize(
    ("identifier", "last", "newer"),
    [
        (1001, 1000, True),
        (1000, 1000, False),
        (999, 1000, False),
        (0, 0xFFFFFFFF, True),
        (0xFFFFFFFF, 0, False),
        (0x7FFFFFFF, 0, True),
        (0x80000000, 0, False),
    ],
)
def test_newer_across_the_wrap(identifier, last, newer):
    assert rules.is_newer(identifier, last) is newer


def test_replay_and_reflection_are_refused():
    """RFC 3543 3.5: A tells who sent it; the identifier must be newer."""
    assert rules.accepts(revoke(), True, 1000)
    assert not rules.accepts(revoke(), True, 1001)
    assert not rules.accepts(revoke(a=False), True, 1000)
    assert not rules.accepts(revoke(), False, 1000)
    assert rules.accepts(revoke(a=False), False, 1000)


def test_ack_answers_what_was_sent():
    """RFC 3543 3.4, 3.5: home address and identifier; I counts only if it was asked."""
    assert rules.acknowledges(ack(), revoke())
    assert not rules.acknowledges(ack(ident=1002), revoke())
    assert not rules.acknowledges(ack(hoa=HOME), revoke())
    assert [rules.informs(ack(i), revoke(i=asked)) for i in (0, 1) for asked in (0, 1)] == [
        False,
        False,
        False,
        True,
    ]
