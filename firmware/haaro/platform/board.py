"""Pins, buses and chips of a board, as its pins.csv names them.

Owns which object of `machine` and `network` is made of which pin; the names: platform/pins.py.
"""

import os
import sys

from haaro.compat import const
from haaro.platform.pins import read_pins

_BAUD = const(20000000)
# locally administered, so that no manufacturer has it.
_LOCAL = b"\x02\x68"


class Board:
    """The board whose pins are in the file at `path`. Raises ValueError that names a pin."""

    def __init__(self, path: str) -> None:
        import machine

        try:
            import network
        except ImportError:
            raise ValueError("this firmware has no module network: take a build that has") from None
        self._machine = machine
        self.network = network
        self._path = path
        self._pins = read_pins(path)

    def pin(self, name: str, out: bool = False, needed: bool = True):
        """Return the Pin `name`, None if it is not needed and not there."""
        if name not in self._pins:
            if not needed:
                return None
            raise ValueError(
                "%s: %s: missing, add a line such as %s,GPIO10" % (self._path, name, name)
            )
        pin = self._machine.Pin
        return pin(self._pins[name], pin.OUT if out else pin.IN)

    def spi(self, prefix: str, ident: int):
        """Return the SPI bus whose pins are named by `prefix`."""
        pins = [self.pin(prefix + name) for name in ("_SCK", "_MOSI", "_MISO")]
        if sys.platform == "rp2":
            # RP2040 datasheet 1.4.3: pins 0 to 7 and 16 to 23 are SPI0's.
            ident = self._pins[prefix + "_SCK"] >> 3 & 1
        return self._machine.SPI(
            ident, baudrate=_BAUD, polarity=0, phase=0, sck=pins[0], mosi=pins[1], miso=pins[2]
        )

    def mac(self) -> bytes:
        """Return the MAC of the LAN port, always the same on one board."""
        return _LOCAL + self._machine.unique_id()[-4:]

    def lan(self, lan: dict, now: int, random):
        """Return the LAN port that `lan` of the configuration describes."""
        from haaro.lan.w5500 import W5500Lan

        address, plen = lan["address"]
        return W5500Lan(
            self.spi("W5500", 1),
            self.pin("W5500_CS", True),
            address,
            plen,
            self.mac(),
            now,
            random,
            reset=self.pin("W5500_RST", True, False),
            interrupt=self.pin("W5500_INT", False, False),
            vlan=lan.get("vlan"),
            dhcp=lan.get("dhcp"),
        )

    def uplink(self, uplink: dict, secrets: str, wifi_too: bool):
        """Return the driver of one uplink. secrets: the path of the secrets file."""
        network = self.network
        if uplink["driver"] == "wifi":
            return self._wifi(uplink, secrets)
        if uplink["driver"] == "cellular":
            return self._modem(uplink, secrets)
        from haaro.uplink import ethernet

        if hasattr(network, "WIZNET5K"):
            if uplink["chip"] != "w5500":
                raise ValueError('chip: %s: this firmware has "w5500" only' % uplink["chip"])
            if "UPLINK_CS" not in self._pins:
                return ethernet.Wiznet(network.WIZNET5K(), uplink)
            cs, reset = self.pin("UPLINK_CS", True), self.pin("UPLINK_RST", True)
            return ethernet.Wiznet(network.WIZNET5K(self.spi("UPLINK", 0), cs, reset), uplink)
        if not hasattr(network, "LAN"):
            raise ValueError("driver: ethernet: this firmware has neither LAN nor WIZNET5K")
        nic = self._lan_class(uplink)
        # Fixed since 1.29 (platform oddity: uplink/ethernet.py).
        doubted = wifi_too and sys.implementation.version[:2] < (1, 29)
        return ethernet.Lan(network, nic, uplink, doubted)

    def _lan_class(self, uplink):
        network = self.network
        phy = getattr(network, "PHY_" + uplink["chip"].upper(), None)
        if phy is None:
            raise ValueError("chip: %s: this firmware has no driver for it" % uplink["chip"])
        if uplink["chip"] == "w5500":
            return network.LAN(
                0,
                spi=self.spi("UPLINK", 2),
                cs=self.pin("UPLINK_CS", True),
                int=self.pin("UPLINK_INT"),
                reset=self.pin("UPLINK_RST", True, False),
                phy_type=phy,
                phy_addr=uplink["phy_address"],
            )
        return network.LAN(
            0,
            mdc=self.pin("ETH_MDC"),
            mdio=self.pin("ETH_MDIO"),
            power=self.pin("ETH_POWER", True, False),
            phy_type=phy,
            phy_addr=uplink["phy_address"],
        )

    def _modem(self, uplink, secrets):
        from haaro.shell import secrets as reader
        from haaro.shell import unload
        from haaro.uplink import uart_modem

        port = uplink["port"].lower()
        if port[:4] != "uart" or not port[4:].isdigit():
            raise ValueError('port: %s: a board has UARTs, such as "uart1"' % uplink["port"])
        words = {"tx": self.pin("MODEM_TX"), "rx": self.pin("MODEM_RX")}
        uart = self._machine.UART
        flow = 0
        for name, needed in (("rts", uart.RTS), ("cts", uart.CTS)):
            pin = self.pin("MODEM_" + name.upper(), False, False)
            if pin:
                words[name] = pin
                flow |= needed
        if flow:
            words["flow"] = flow
        doors = {}
        for door in ("power_key", "reset"):
            if uplink[door]:
                doors[door] = self.pin(uplink[door], True)
        own = reader.modem(secrets, uplink["name"])
        unload()
        try:
            line = uart(
                int(port[4:]),
                baudrate=uplink["baud"],
                txbuf=uart_modem.TX_OCTETS,
                rxbuf=uart_modem.RX_OCTETS,
                timeout=0,
                **words,
            )
        except ValueError as error:
            raise ValueError("port: %s: %s" % (uplink["port"], error)) from None
        path = secrets + "." + uplink["name"]
        return uart_modem.UartModem(line, doors, uplink, own, path, os.urandom)

    def _wifi(self, uplink, secrets):
        if not hasattr(self.network, "WLAN"):
            raise ValueError("driver: wifi: this firmware has no Wi-Fi")
        from haaro.shell import secrets as reader
        from haaro.shell import unload
        from haaro.uplink.wlan import Wlan

        passwords = reader.wifi(secrets)
        unload()
        return Wlan(self.network, uplink, passwords, _scanner(self.network))


def _scanner(network):
    """Return what scans without keeping us, None where that cannot be had.

    esp32 scans for two seconds in the call, so another thread calls. rp2's second core must not
    call its Wi-Fi driver.
    """
    if sys.platform != "esp32":
        return None
    try:
        import _thread
    except ImportError:
        return None

    def scan():
        found: list = []

        def run():
            try:
                found.append(network.WLAN(network.WLAN.IF_STA).scan())
            except OSError:
                found.append([])

        _thread.start_new_thread(run, ())
        return lambda: found[0] if found else None

    return scan
