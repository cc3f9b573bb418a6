"""Ethernet as uplink: `network.LAN` (esp32; W5500 or a PHY) and `network.WIZNET5K` (rp2).

Owns what their states mean. Contract: uplink/base.py.

esp32's LAN object takes Wi-Fi's events for its own before 1.29 (micropython issue 19123): a station
that gets or loses its address makes the status STARTED or STOPPED, one with IPv6 DISCONNECTED. So
where `doubted`, only DISCONNECTED counts against an interface that has an address, and that is
checked by switching it off and on, which makes the driver say it again.
"""

from haaro.compat import const
from haaro.uplink import base
from haaro.uplink.nic import Nic

_CHECK_MS = const(10000)
_CHECK_AGAIN_MS = const(60000)


class Lan(Nic):
    """`network.LAN`. doubted: Wi-Fi is used as well, on firmware that mixes their events up."""

    def __init__(self, network, nic, uplink: dict, doubted: bool) -> None:
        super().__init__(nic, uplink)
        self._doubted = doubted
        self._got_ip = getattr(network, "ETH_GOT_IP", 5)
        self._disconnected = getattr(network, "ETH_DISCONNECTED", 4)
        self._check_at: int | None = None
        self.checks = 0

    def status(self) -> dict:
        """Facts for the status report."""
        answer = super().status()
        answer["checks"] = self.checks
        return answer

    def _bring_up(self, now):
        self._nic.active(True)
        self._identify()
        self._configure()

    def _look(self, now):
        status = self._nic.status()
        got = self._addresses()
        # isconnected() is True without a cable on older firmware (micropython issue 12741).
        if got and (status == self._got_ip or (self._doubted and status != self._disconnected)):
            self._check_at = None
            self._came_up(now, got)
            return
        why = "no cable, or no switch" if status == self._disconnected else "no address yet"
        self._say(now, base.CONNECTING, why)
        if self._doubted and got:
            self._check(now)

    def _check(self, now):
        if self._check_at is None:
            self._check_at = now + _CHECK_MS
        elif now >= self._check_at:
            self._check_at = now + _CHECK_AGAIN_MS
            self.checks += 1
            self._nic.active(False)
            self._nic.active(True)
            self._configure()


class Wiznet(Nic):
    """`network.WIZNET5K`: the chip in MACRAW mode under the port's own stack."""

    def _bring_up(self, now):
        self._nic.active(True)
        self._identify()
        self._configure()

    def _set_address(self, address, mask, plen, gateway):
        # Its ipconfig leaves DHCP running, which then wins (micropython issue 17127).
        self._nic.ifconfig((address, mask, gateway, gateway))

    def _look(self, now):
        got = self._addresses() if self._nic.isconnected() else None
        if got:
            self._came_up(now, got)
        else:
            self._say(now, base.CONNECTING, "no cable, no switch or no address")
