"""One fault put into each driver on purpose: its own test must find it."""

import types
from pathlib import Path

import pytest

from tests.uplink import test_ethernet, test_wlan

_UPLINK = Path(__file__).resolve().parents[2] / "firmware" / "haaro" / "uplink"
MUTANTS = [
    ("wlan", "and self._refusals[at] >= _REFUSALS", "and True",
     test_wlan.test_a_right_password_that_is_refused_at_first_is_not_called_wrong, ()),
    ("wlan", "if not self._worked[at] and", "if",
     test_wlan.test_refusals_after_an_outage_are_not_called_a_wrong_password, ()),
    ("wlan", '("reconnects", 1)', '("reconnects", 0)',
     test_wlan.test_the_ports_own_reconnecting_is_off, ()),
    ("wlan", "(self.signal_dbm or 0) + _STRONGER_DB", "(self.signal_dbm or 0)",
     test_wlan.test_a_station_stays_where_it_is, (-75, -80, {})),
    ("ethernet", "self._doubted and status != self._disconnected", "False",
     test_ethernet.test_events_of_wifi_do_not_end_the_uplink, (1,)),
    ("ethernet", "got = self._addresses() if self._nic.isconnected() else None",
     "got = self._addresses()", test_ethernet.test_up_down_and_up_again_with_the_cable, ("rp2",)),
    ("ethernet", "self._nic.ifconfig((address, mask, gateway, gateway))",
     "super()._set_address(address, mask, plen, gateway)",
     test_ethernet.test_a_static_address_is_in_force, ("rp2",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "search", "replace", "test", "arguments"),
    MUTANTS,
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_fault_in_the_driver_turns_its_test_red(
    monkeypatch, name, search, replace, test, arguments
):
    text = (_UPLINK / f"{name}.py").read_text()
    assert text.count(search) == 1
    faulty = types.ModuleType(f"haaro.uplink.{name}")
    exec(compile(text.replace(search, replace), f"faulty {name}.py", "exec"), faulty.__dict__)
    test(*arguments)
    monkeypatch.setattr({"wlan": test_wlan, "ethernet": test_ethernet}[name], name, faulty)
    with pytest.raises(AssertionError):
        test(*arguments)
