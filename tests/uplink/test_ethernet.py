"""Ethernet as uplink on esp32 (`network.LAN`) and rp2 (`network.WIZNET5K`): who is believed."""

import types

import pytest

from haaro.uplink import base, ethernet
from tests.mcu_sim import radio

CABLE = {"address": "198.51.100.7", "mask": "255.255.255.0", "gateway": "198.51.100.1"}
STATIC = {"address": (bytes([192, 0, 2, 5]), 24), "gateway": bytes([192, 0, 2, 254])}


class Bench:
    def __init__(self, port="esp32", doubted=False, **uplink):
        self.now = 0
        self.world = radio.World(lambda: self.now, port)
        self.world.cable = dict(CABLE)
        module = types.SimpleNamespace(**radio.fill({}, self.world))
        uplink = {"address": None, "gateway": None, **uplink}
        if port == "esp32":
            self.nic = module.LAN(0)
            self.driver = ethernet.Lan(module, self.nic, uplink, doubted)
        else:
            self.nic = module.WIZNET5K()
            self.driver = ethernet.Wiznet(self.nic, uplink)
        self.states = []

    def run(self, milliseconds, until=None):
        end = self.now + milliseconds
        while self.now < end:
            self.now += 50
            self.driver.handle_timer(self.now)
            if not self.states or self.states[-1] != self.driver.state:
                self.states.append(self.driver.state)
            if until and self.driver.state == until:
                return
        assert until is None, (self.driver.state, self.driver.reason)

    def up(self):
        self.driver.start(self.now)
        self.run(5000, base.UP)
        return self


@pytest.mark.parametrize("port", ["esp32", "rp2"])
def test_up_down_and_up_again_with_the_cable(port):
    bench = Bench(port).up()
    assert bench.driver.address == bytes([198, 51, 100, 7])
    assert bench.driver.gateway == bytes([198, 51, 100, 1])
    assert bench.driver.interface == ("eth0" if port == "esp32" else None)
    bench.world.cable = None
    bench.run(3000, base.CONNECTING)
    assert "cable" in bench.driver.reason
    bench.world.cable = dict(CABLE)
    bench.run(3000, base.UP)


def test_without_a_cable_it_is_not_up_whatever_isconnected_says():
    """micropython/micropython issue 12741: isconnected() is True without a cable."""
    bench = Bench()
    bench.world.cable = None
    bench.driver.start(0)
    bench.run(10000)
    assert bench.nic.isconnected()
    assert base.UP not in bench.states


@pytest.mark.parametrize("lie", [1, 2, 3], ids=["started", "stopped", "connected"])
def test_events_of_wifi_do_not_end_the_uplink(lie):
    """micropython/micropython issue 19123: Wi-Fi's events overwrite the state of Ethernet."""
    bench = Bench(doubted=True).up()
    bench.nic.lie = lie
    bench.run(130000)
    assert bench.states[-1] == base.UP and bench.driver.checks == 0


def test_where_firmware_tells_the_truth_it_is_believed():
    """Pull request 19126: since 1.29 the events are told apart."""
    bench = Bench(doubted=False).up()
    bench.nic.lie = 2
    bench.run(3000, base.CONNECTING)


def test_a_disconnection_that_wifi_may_have_caused_is_checked():
    """IPv6 of the station collides with DISCONNECTED: the interface is made to say it again."""
    bench = Bench(doubted=True).up()
    bench.nic.lie = 4
    bench.run(3000, base.CONNECTING)
    bench.run(12000, base.UP)
    assert bench.driver.checks == 1
    bench.world.cable = None
    bench.run(3000, base.CONNECTING)
    bench.run(65000)
    assert bench.driver.checks <= 3, "a pulled cable is no reason to restart it again and again"
    assert bench.states[-1] == base.CONNECTING


@pytest.mark.parametrize("port", ["esp32", "rp2"])
def test_a_static_address_is_in_force(port):
    """micropython/micropython issue 17127: WIZNET5K's ipconfig changes nothing, ifconfig does."""
    bench = Bench(port, **STATIC).up()
    assert bench.nic.ifconfig()[:3] == ("192.0.2.5", "255.255.255.0", "192.0.2.254")
    assert (bench.driver.address, bench.driver.gateway) == (STATIC["address"][0], STATIC["gateway"])


def test_a_static_address_without_a_cable_is_not_up():
    bench = Bench(**STATIC)
    bench.world.cable = None
    bench.driver.start(0)
    bench.run(10000)
    assert base.UP not in bench.states


def test_a_driver_that_raises_is_reported_and_asked_again():
    bench = Bench().up()
    real = bench.nic.status
    bench.nic.status = lambda: (_ for _ in ()).throw(OSError("bus"))
    bench.run(3000, base.CONNECTING)
    assert "bus" in bench.driver.reason and bench.driver.status()["driver_errors"] > 0
    bench.nic.status = real
    bench.run(3000, base.UP)


def test_stop_ends_it():
    bench = Bench().up()
    bench.driver.stop(bench.now)
    assert not bench.nic.on and bench.driver.state == base.DOWN
    assert bench.driver.next_deadline() is None
