"""Wi-Fi as uplink: the right network, the right reason, nothing that blocks; oddities of ports.

The sequences are those of the issues named in the tests (micropython/micropython where no other
repository is named).
"""

import types

import pytest

from haaro.uplink import base, wlan
from tests.mcu_sim import radio

PASSWORD = "canary-word"
AP = {"ssid": "Office", "key": PASSWORD, "bssid": b"\x02\0\0\0\0\1", "rssi": -60,
      "address": "198.51.100.7", "mask": "255.255.255.0", "gateway": "198.51.100.1"}  # fmt: skip
GUEST = {**AP, "ssid": "Guest", "key": "", "bssid": b"\x02\0\0\0\0\2", "address": "203.0.113.9",
         "gateway": "203.0.113.1"}  # fmt: skip


class Bench:
    """A driver on a simulated board; `run` lets time pass and notes each change of state."""

    def __init__(self, port="esp32", scan=None, **uplink):
        self.now = 0
        self.world = radio.World(lambda: self.now, port)
        self.world.access_points = [dict(AP)]
        self.module = types.SimpleNamespace(**radio.fill({}, self.world))
        networks = uplink.pop("networks", [{"ssid": "Office"}, {"ssid": "Guest", "open": True}])
        networks = [{"bssid": None, "open": False, **network} for network in networks]
        uplink = {"networks": networks, "address": None, "gateway": None, "roam_dbm": -75,
                  "country": "", **uplink}  # fmt: skip
        self.scanned = None
        passwords = {"Office": PASSWORD, "Second": PASSWORD}
        self.driver = wlan.Wlan(
            self.module, uplink, passwords, (lambda: self._scan) if scan else None
        )
        self.nic = self.module.WLAN()
        self.changes = []

    def _scan(self):
        rows, self.scanned = self.scanned, None
        return rows

    def run(self, milliseconds, until=None):
        end = self.now + milliseconds
        while self.now < end:
            deadline = self.driver.next_deadline()
            assert deadline is not None and deadline > self.now - 1000
            self.now = max(self.now + 1, min(deadline, end))
            before = (self.driver.state, self.driver.address)
            self.driver.handle_timer(self.now)
            after = (self.driver.state, self.driver.address)
            if after != before:
                self.changes.append((self.now, *after))
            if until and self.driver.state == until:
                return
        assert until is None, (self.driver.state, self.driver.reason)

    def up(self):
        self.driver.start(self.now)
        self.run(30000, base.UP)
        return self

    def joins(self):
        return [call[1] for call in self.world.calls if call[0] == "connect"]


@pytest.mark.parametrize("port", ["esp32", "rp2"])
def test_joins_and_tells_address_gateway_and_mtu(port):
    bench = Bench(port).up()
    driver = bench.driver
    assert (driver.address, driver.gateway) == (bytes([198, 51, 100, 7]), bytes([198, 51, 100, 1]))
    assert driver.mtu == 1500 and driver.reason == ""
    assert driver.interface == ("st1" if port == "esp32" else None)
    assert driver.status()["ssid"] == "Office" and driver.status()["signal_dbm"] == -60
    assert bench.nic.settings["pm"] == 0, "power saving delays packets by a beacon or more"


def test_the_ports_own_reconnecting_is_off():
    """Issue 12315: with reconnects 0 it never ends, and hides why."""
    bench = Bench().up()
    assert bench.nic.settings["reconnects"] == 1


def test_networks_are_tried_in_order_and_the_absent_one_is_passed():
    bench = Bench()
    bench.world.access_points = [dict(GUEST)]
    bench.up()
    assert bench.joins() == ["Office", "Guest"]
    assert bench.driver.address == bytes([203, 0, 113, 9])


def test_a_wrong_password_is_told_from_absence_and_is_seldom_tried_again():
    bench = Bench(networks=[{"ssid": "Office"}])
    bench.world.access_points[0]["key"] = "another-word"
    bench.driver.start(0)
    bench.run(30000, base.FAILED)
    assert bench.driver.reason == "wrong password for 'Office'"
    tries = len(bench.joins())
    assert tries == 3
    bench.run(240000)
    assert len(bench.joins()) == tries, "access points lock out who guesses"
    assert bench.driver.state == base.FAILED
    bench.world.access_points[0]["key"] = PASSWORD
    bench.run(90000, base.UP)


def test_an_absent_network_is_no_wrong_password():
    bench = Bench(networks=[{"ssid": "Office"}])
    bench.world.access_points = []
    bench.driver.start(0)
    bench.run(120000)
    assert bench.driver.state == base.CONNECTING
    assert bench.driver.reason == "no access point of 'Office'"
    assert not [change for change in bench.changes if change[1] != base.CONNECTING]
    bench.world.access_points = [dict(AP)]
    bench.run(40000, base.UP)


@pytest.mark.parametrize(
    "reasons",
    [
        pytest.param(
            [2, 201] * 6, id="espressif/esp-idf 3246, 3537: auth expire, then no AP found"
        ),
        pytest.param([15, 205] * 6, id="11625: 4-way handshake timeout, then connection fail"),
        pytest.param([204] * 9, id="handshake timeout"),
    ],
)
def test_other_codes_of_a_wrong_password_are_understood(reasons):
    bench = Bench(networks=[{"ssid": "Office"}])
    bench.world.scripts["Office"] = list(reasons)
    bench.driver.start(0)
    bench.run(60000, base.FAILED)
    assert bench.driver.reason == "wrong password for 'Office'"


def test_a_right_password_that_is_refused_at_first_is_not_called_wrong():
    """Pull request 4842: 202, then 201, then joined, with the right password."""
    bench = Bench()
    bench.world.scripts["Office"] = [202, 201]
    bench.up()
    assert bench.driver.status()["ssid"] == "Office"
    assert base.FAILED not in [state for _, state, _ in bench.changes]


def test_refusals_after_an_outage_are_not_called_a_wrong_password():
    """An access point that starts anew refuses for a while: 202 with the password that worked."""
    bench = Bench(networks=[{"ssid": "Office"}]).up()
    bench.world.scripts["Office"] = [202] * 8
    bench.world.access_points.clear()
    bench.run(3000)
    assert bench.driver.state == base.CONNECTING
    bench.world.access_points.append(dict(AP))
    bench.run(120000, base.UP)
    assert base.FAILED not in [state for _, state, _ in bench.changes]


def test_a_stale_reason_of_the_attempt_before_is_not_believed():
    """esp32 shows the reason of the last attempt until the next one has begun to fail."""
    bench = Bench(networks=[{"ssid": "Office"}])
    bench.driver.start(0)
    real = bench.nic.status
    bench.nic.status = lambda *name: 202 if not name and bench.now < 450 else real(*name)
    bench.run(5000, base.UP)
    assert len(bench.joins()) == 1


def test_idle_between_connecting_and_connected_ends_nothing():
    bench = Bench(networks=[{"ssid": "Office"}])
    bench.driver.start(0)
    real = bench.nic.status
    bench.nic.status = lambda *name: 1000 if not name and 400 < bench.now < 4000 else real(*name)
    bench.run(6000, base.UP)
    assert len(bench.joins()) == 1


def test_connected_without_an_address_is_not_up():
    """micropython/micropython-lib 305: 1010 with 0.0.0.0, after the access point was off."""
    bench = Bench().up()
    bench.nic.now = {**AP, "address": "0.0.0.0"}
    bench.world.access_points = [bench.nic.now]
    bench.run(1800)
    assert bench.driver.state == base.CONNECTING
    assert bench.driver.reason.startswith(("joining", "the access point is lost"))


def test_a_busy_driver_is_switched_off_and_on():
    """Issue 17661: connect() during an attempt raises "Wifi Internal Error", again and again."""
    bench = Bench(networks=[{"ssid": "Office"}])
    bench.driver.start(0)
    real, refusals = bench.nic.connect, [0]

    def connect(*words, **keywords):
        if ("active", False) not in bench.world.calls:
            refusals[0] += 1
            raise OSError("Wifi Internal Error")
        real(*words, **keywords)

    bench.nic.connect = connect
    bench.run(10000, base.UP)
    assert refusals[0] == 1 and bench.driver.status()["driver_errors"] == 1


def test_an_attempt_that_hangs_is_given_up_and_the_radio_restarted():
    """Issue 14382: nothing is found any more until the interface was off."""
    bench = Bench(networks=[{"ssid": "Office"}])
    bench.driver.start(0)
    real = bench.nic.status
    hung = lambda: ("active", False) not in bench.world.calls  # noqa: E731
    bench.nic.status = lambda *name: 1001 if not name and hung() else real(*name)
    bench.run(40000, base.UP)
    assert bench.changes[-1][0] > 20000


def test_joined_without_an_address_on_rp2_is_not_a_failure():
    """CYW43 reads 2 (joined, no address) until DHCP has answered."""
    bench = Bench("rp2", networks=[{"ssid": "Office"}])
    bench.driver.start(0)
    real = bench.nic.status
    bench.nic.status = lambda *name: 2 if not name and 300 < bench.now < 9000 else real(*name)
    bench.run(12000, base.UP)
    assert len(bench.joins()) == 1


def test_a_signal_of_nothing_means_that_the_access_point_is_gone():
    """earlephilhower/arduino-pico 762: CYW43 goes on to say "up", with an RSSI of 0."""
    bench = Bench("rp2", networks=[{"ssid": "Office"}]).up()
    bench.world.access_points = []
    bench.nic.status = lambda *name: 0 if name else 3
    joins = len(bench.joins())
    bench.run(2000)
    assert len(bench.joins()) == joins, "one reading of 0 is none"
    bench.run(2500)
    assert len(bench.joins()) > joins
    del bench.nic.status
    bench.run(6000, base.CONNECTING)


def test_a_port_without_rssi_is_left_alone():
    """Issue 11181: status("rssi") is a ValueError on rp2 of older firmware."""
    bench = Bench("rp2")
    real = bench.nic.status

    def status(*name):
        if name:
            raise ValueError("unknown status param")
        return real()

    bench.nic.status = status
    bench.up()
    bench.run(20000)
    assert bench.driver.state == base.UP and bench.driver.signal_dbm is None


def test_a_short_loss_is_not_told_and_a_long_one_is():
    bench = Bench(networks=[{"ssid": "Office"}]).up()
    bench.world.access_points = [dict(AP)]  # the same network again: a moment's loss
    bench.run(900)
    assert [state for _, state, _ in bench.changes][-1] == base.UP
    bench.run(10000)
    assert bench.driver.state == base.UP
    assert [state for _, state, _ in bench.changes].count(base.UP) == 1
    bench.world.access_points = []
    bench.run(3000, base.CONNECTING)
    bench.world.access_points = [dict(AP)]
    bench.run(40000, base.UP)


def test_another_address_is_another_link():
    bench = Bench().up()
    bench.nic.now["address"] = "198.51.100.8"
    bench.run(1000)
    assert bench.driver.state == base.UP
    assert bench.driver.address == bytes([198, 51, 100, 8])


def test_the_next_network_takes_over_when_the_first_is_gone():
    bench = Bench().up()
    bench.world.access_points = [dict(GUEST)]
    bench.run(10000)
    assert (bench.driver.state, bench.driver.status()["ssid"]) == (base.UP, "Guest")
    assert [address for _, state, address in bench.changes if state == base.UP] == [
        bytes([198, 51, 100, 7]), bytes([203, 0, 113, 9]),
    ]  # fmt: skip


def roaming(other, own=-80, **uplink):
    """A driver that hears its access point at `own` dBm and another one at `other`."""
    bench = Bench(scan=True, networks=[{"ssid": "Office"}], **uplink)
    far = {**AP, "bssid": b"\x02\0\0\0\0\3", "rssi": -90}
    bench.world.access_points.append(far)
    bench.up()
    bench.nic.now["rssi"] = own
    far["rssi"] = other
    for _ in range(4):
        bench.scanned = bench.nic.scan()
        bench.run(61000)
    return bench, far


def test_a_weak_station_roams_to_a_stronger_access_point_without_a_new_address():
    bench, far = roaming(-60)
    assert bench.driver.roams == 1
    assert bench.nic.now is far and ("connect", "Office", far["bssid"]) in bench.world.calls
    assert [state for _, state, _ in bench.changes].count(base.UP) == 1, "nobody is told"


@pytest.mark.parametrize(
    ("other", "own", "uplink"),
    [
        pytest.param(-75, -80, {}, id="not strong enough to be worth it"),
        pytest.param(-50, -70, {}, id="not weak"),
        pytest.param(-60, -80, {"roam_dbm": -85}, id="not weak by the configuration"),
    ],
)
def test_a_station_stays_where_it_is(other, own, uplink):
    bench, _ = roaming(other, own, **uplink)
    assert bench.driver.roams == 0 and len(bench.joins()) == 1


def test_an_access_point_that_does_not_take_us_ends_the_roaming_not_the_uplink():
    bench = Bench(scan=True, networks=[{"ssid": "Office"}]).up()
    bench.nic.now["rssi"] = -80
    bench.scanned = [(b"Office", b"\x02\0\0\0\0\4", 1, -40, 3, False)]  # heard, and gone
    bench.run(62000)
    bench.run(10000)
    assert bench.driver.roams == 1
    assert bench.driver.state == base.UP and bench.nic.now["bssid"] == AP["bssid"]


def test_a_configured_access_point_is_the_only_one():
    other = {**AP, "bssid": b"\x02\0\0\0\0\5", "rssi": -30}
    bench = Bench(networks=[{"ssid": "Office", "bssid": AP["bssid"]}])
    bench.world.access_points.insert(0, other)
    bench.up()
    assert bench.nic.now["bssid"] == AP["bssid"]


@pytest.mark.parametrize("old", [False, True], ids=["ipconfig", "ifconfig only"])
def test_a_static_address_is_set_and_set_again_when_the_radio_was_off(old, monkeypatch):
    if old:
        monkeypatch.delattr(radio.Interface, "ipconfig")
    static = {"address": (bytes([192, 0, 2, 5]), 24), "gateway": bytes([192, 0, 2, 254])}
    bench = Bench(**static).up()
    assert bench.nic.ifconfig()[:3] == ("192.0.2.5", "255.255.255.0", "192.0.2.254")
    assert bench.driver.address == static["address"][0]
    assert bench.driver.gateway == static["gateway"]
    bench.world.access_points = []
    bench.run(5000, base.CONNECTING)


def test_stop_ends_it_from_any_state_and_nothing_is_done_after():
    for wait in (0, 100, 700, 5000):
        bench = Bench()
        bench.driver.start(0)
        bench.run(wait or 1)
        bench.driver.stop(bench.now)
        assert not bench.nic.on and bench.driver.state == base.DOWN
        assert bench.driver.next_deadline() is None
        calls = len(bench.world.calls)
        bench.driver.handle_timer(bench.now + 10000)
        assert len(bench.world.calls) == calls


def test_the_country_is_set_and_no_password_is_ever_told():
    bench = Bench(country="AT")
    bench.world.access_points[0]["key"] = "another-word"
    bench.driver.start(0)
    bench.run(30000)
    assert ("country", "AT") in bench.world.calls
    assert PASSWORD not in repr(bench.driver.status()) + bench.driver.reason
