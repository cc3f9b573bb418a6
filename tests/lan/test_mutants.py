"""Deliberate deviations of driver, ARP, tags and server: the tests of this folder must catch each.

A mutant is one place of the source changed; the test named with it has to fail then.
"""

import importlib
import sys
import types
from pathlib import Path

import pytest

import haaro.lan
from tests.lan import conftest, test_dhcp, test_neighbours, test_w5500

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware"

# module, what is replaced, by what, the test that sees it, its arguments
MUTANTS = [
    (
        "w5500_chip",
        "            if again == octets:\n                break\n            octets = again\n",
        "            octets = again\n            break\n",
        test_w5500.test_the_size_in_the_ring_is_believed_when_two_readings_agree,
        {},
    ),
    (
        "w5500_chip",
        "self._read_at = (self._read_at + length) & 0xFFFF",
        "self._read_at = (self._read_at + length) & 0x3FFF",
        test_w5500.test_hundreds_of_frames_pass_both_ways_in_order_around_the_ring,
        {"pins": True},
    ),
    (
        "w5500_chip",
        "if not self._order(_RECV):",
        "if False:",
        test_w5500.test_hundreds_of_frames_pass_both_ways_in_order_around_the_ring,
        {"pins": True},
    ),
    (
        "w5500_chip",
        "while octets < 60:",
        "while octets < 14:",
        test_w5500.test_a_packet_leaves_to_the_address_that_arp_found,
        {"octets": 1},
    ),
    (
        "w5500_chip",
        "length < _SHORTEST or length > _LONGEST or length > left",
        "length > _LONGEST",
        test_w5500.test_a_length_that_cannot_be_opens_the_socket_anew,
        {"length": 0},
    ),
    (
        "w5500_chip",
        "if self._sending and not self._sent(_STUCK_US):",
        "if False:",
        test_w5500.test_a_send_that_never_ends_is_given_up,
        {},
    ),
    (
        "w5500_chip",
        "self._get(_SN_SR, _SOCKET) != _SR_MACRAW:\n            # It has",
        "False:\n            # It has",
        test_w5500.test_a_chip_that_was_reset_by_its_supply_is_opened_again,
        {"pins": True},
    ),
    (
        "w5500",
        "!= (self._vlan or 0)",
        "== 5000",
        test_w5500.test_a_port_with_a_vlan_sends_tagged_frames_and_takes_only_its_own,
        {},
    ),
    (
        "w5500",
        "tx[14] = tos & 0xE0 |",
        "tx[14] =",
        test_w5500.test_the_priority_of_a_tag_is_the_class_of_the_packet,
        {"tos": 0xC0, "priority": 6},
    ),
    (
        "neighbours",
        "if self._now - self._defended >= _DEFEND_S:",
        "if True:",
        test_neighbours.test_a_conflict_is_said_and_our_address_defended_but_not_in_a_loop,
        {},
    ),
    (
        "neighbours",
        "len(self._waiting) >= _WAITING",
        "False",
        test_neighbours.test_waiting_packets_and_requests_have_a_bound,
        {},
    ),
    (
        "dhcp",
        "self._neighbours.probe(address)",
        "pass",
        test_dhcp.test_no_address_is_offered_before_arp_was_asked_for_it,
        {},
    ),
    (
        "dhcp",
        "return address == self._address or",
        "return",
        test_dhcp.test_our_address_and_reserved_ones_are_given_to_nobody_else,
        {},
    ),
    (
        "dhcp",
        "port = _SERVER_PORT",
        "pass",
        test_dhcp.test_a_relay_of_our_subnet_gets_the_answer_with_its_option,
        {},
    ),
    (
        "leases",
        "changed = lasting and (",
        "changed = lasting or (",
        test_dhcp.test_flash_is_written_rarely_and_never_for_renewals,
        {},
    ),
]


@pytest.fixture
def mutate(monkeypatch):
    """Return a function after which the rigs of this test have a port with one place changed."""

    def change(name: str, old: str, new: str) -> None:
        full = f"haaro.lan.{name}"
        source = (FIRMWARE / "haaro" / "lan" / f"{name}.py").read_text()
        assert source.count(old) == 1, f"{full}: {old!r} occurs {source.count(old)} times"
        kept = [each for each in sys.modules if each.startswith("haaro.lan.")]
        for each in kept:
            # Put back at the end.
            monkeypatch.setitem(sys.modules, each, sys.modules[each])
            del sys.modules[each]
        mutant = types.ModuleType(full)
        monkeypatch.setitem(sys.modules, full, mutant)
        monkeypatch.setattr(haaro.lan, name, mutant, raising=False)
        exec(compile(source.replace(old, new), full, "exec"), mutant.__dict__)
        port = importlib.import_module("haaro.lan.w5500")
        monkeypatch.setattr(conftest, "W5500Lan", port.W5500Lan)

    return change


@pytest.mark.parametrize(
    ("module", "old", "new", "test", "arguments"),
    MUTANTS,
    ids=[f"{each[0]}-{i}" for i, each in enumerate(MUTANTS)],
)
def test_a_deviation_is_caught(mutate, rig, tmp_path, module, old, new, test, arguments):
    needs = test.__code__.co_varnames[: test.__code__.co_argcount]
    fixtures = {"rig": rig, "office": test_dhcp.office_of(rig, tmp_path), "tmp_path": tmp_path}
    arguments = {**arguments, **{name: fixtures[name] for name in needs if name in fixtures}}
    mutate(module, old, new)
    with pytest.raises((AssertionError, IndexError, ValueError)):
        test(**arguments)
