"""What a modem is on any port: the driver of its settings, its count of octets, its status.

Subclassed by linux_modem.py (a tty) and uart_modem.py (a board's UART).
"""

from haaro.uplink import base
from haaro.uplink.cellular import Cellular
from haaro.uplink.modem_files import Meter, PinMark
from haaro.wire.ipv4 import text


class ModemLink:
    """The modem of one uplink. secrets: {"password", "pin"}; path: how its files' names begin;
    doors: {"power_key" and "reset" that are wired: how it is reached}.
    """

    def __init__(self, uplink: dict, secrets: dict, path: str, doors: dict, random) -> None:
        self._uplink = uplink
        self._doors = doors
        settings = {key: uplink[key] for key in ("apn", "user", "profile", "roaming", "mux")}
        settings.update(secrets)
        driver = Cellular
        if uplink["data"] == "sockets":
            from haaro.uplink.socket_modem import SocketModem

            driver = SocketModem
        self._modem = driver(settings, tuple(doors), PinMark(path + ".pin"), random)
        self._meter = Meter(path + ".octets", uplink["data_cap_mb"])
        self._capped = False

    def next_deadline(self) -> int:
        """Return when the timers must be looked at."""
        deadline = self._modem.next_deadline()
        return self._meter.save_at if deadline is None else deadline

    def _check_cap(self, now):
        if self._meter.check(now) != self._capped:
            self._capped = not self._capped
            if self._capped:
                cap = self._uplink["data_cap_mb"]
                self._modem.stop(now, "the data cap of %d MB is used up" % cap)
            else:
                self._modem.start(now)

    def status(self) -> dict:
        """Facts for the status report."""
        modem = self._modem
        return {
            "state": modem.state,
            "why": modem.reason,
            "stage": modem.stage,
            "operator": modem.operator,
            "signal_dbm": modem.signal_dbm,
            "roaming": modem.roaming,
            "recoveries": modem.recoveries,
            "address": text(modem.address) if modem.state == base.UP else None,
            "octets": self._meter.octets,
            "bad_frames": modem.ppp.line.bad_frames,
        }
