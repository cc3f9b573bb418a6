"""The registry of reply codes: complete for the RFCs here, and of one mind with the router."""

import pytest

from haaro.wire import registration
from haaro_host.reply_codes import REPLY_CODES, describe


def test_the_router_names_codes_as_the_registry_does():
    for code in range(256):
        name = registration.code_name(code)
        assert name == f"code_{code}" or REPLY_CODES[code].name == name


def test_names_are_unique_and_every_code_of_the_rfcs_is_there():
    """RFC 5944 3.4, RFC 2794 5, RFC 3519 3.5, RFC 5177 9, RFC 6521 10."""
    names = [entry.name for entry in REPLY_CODES.values()]
    assert len(names) == len(set(names))
    by_rfc = {
        5944: [0, 1, *range(64, 74), 77, 78, 80, 81, 82, 88, *range(128, 137)],
        2794: [96, 97, 98, 99],
        3519: [142],
        5177: [147, 148],
        6521: [2, 201, 202, 203],
    }
    for rfc, codes in by_rfc.items():
        assert [code for code, entry in REPLY_CODES.items() if entry.rfc == rfc] == codes


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (2, "concurrent_registration: concurrent registration (pre-accept) (RFC 6521)"),
        (63, "unassigned, accepted"),
        (95, "unassigned, denied by the foreign agent"),
        (200, "unassigned, denied by the home agent"),
        (201, "expired_home_nonce: expired home nonce index (RFC 6521)"),
        (210, "unassigned, denied by the correspondent node"),
        (211, "unassigned, denied by the home agent"),
        (255, "unassigned, denied by the home agent"),
    ],
)
def test_unassigned_codes_tell_who_sends_them(code, text):
    assert describe(code) == text
