"""Wi-Fi as uplink, by `network.WLAN`: which network is joined, why not, and when to roam.

Owns what the driver's status codes mean. They differ by port and lie at times: the tests have the
sequences. Contract: uplink/base.py.

    join network 0 -> join network 1 -> ... -> rest, ever longer -> join network 0
         |
         up -> (weak) scan -> join the stronger access point, without one the same network

The port's own reconnecting is off (`reconnects`): it would hide the reason and fight this.
"""

from haaro.compat import const
from haaro.uplink import base
from haaro.uplink.nic import Nic

_JOIN_MS = const(20000)  # an access point that answers, and DHCP
# The status of the attempt before is still shown by then.
_STALE_MS = const(500)
_REST_MS = const(1000)
_LONGEST_REST_MS = const(10000)
# So many refusals of a network that was never joined: the password is wrong.
_REFUSALS = const(3)
# A wrong password is tried again so seldom: access points lock out who guesses.
_SUSPECT_MS = const(300000)
_ROAM_MS = const(60000)
# A scan takes the radio off the channel: not sooner than so long after one that found nothing.
_NOTHING_BETTER_MS = const(300000)
_STRONGER_DB = const(8)
_SILENT_READINGS = const(12)

# Without a constant in the module: esp32's reasons 2 auth expire, 15 4-way handshake timeout, 205
# connection fail, 210 to 212 no access point that fits.
_REFUSED = (2, 15, 205)
_ABSENT = (210, 211, 212)


class Wlan(Nic):
    """The station. network: the module; passwords: {ssid: password}; scan() starts a scan that does
    not block and returns a function that gives its rows when it is done, None: this port has none.
    """

    def __init__(self, network, uplink: dict, passwords: dict, scan=None) -> None:
        super().__init__(network.WLAN(getattr(network.WLAN, "IF_STA", 0)), uplink)
        self._network = network
        self._networks = uplink["networks"]
        self._passwords = passwords
        self._roam_dbm = uplink["roam_dbm"]
        self._country = uplink["country"]
        self._scan = scan
        self._scanned = None
        self._now_at = 0  # index of the network
        self._phase = "rest"
        self._since = 0
        self._wait = 0
        self._rest = _REST_MS
        self._roam_at = 0
        self._silent = 0
        self._roamed = False
        self._worked = [False] * len(self._networks)
        self._refusals = [0] * len(self._networks)
        self._suspect_until = [0] * len(self._networks)
        self.signal_dbm: int | None = None
        self.roams = 0
        stat = {}
        for name in ("IDLE", "CONNECTING", "GOT_IP", "NO_AP_FOUND", "WRONG_PASSWORD",
                     "CONNECT_FAIL", "HANDSHAKE_TIMEOUT"):  # fmt: skip
            stat[name] = getattr(network, "STAT_" + name, None)
        self._stat = stat

    def status(self) -> dict:
        """Facts for the status report; never a password."""
        answer = super().status()
        answer["ssid"] = self._networks[self._now_at]["ssid"]
        answer["signal_dbm"] = self.signal_dbm
        answer["roams"] = self.roams
        answer["roaming"] = "by signal" if self._scan else "not on this port"
        return answer

    def _bring_up(self, now):
        if self._country:
            self._network.country(self._country)
        self._nic.active(True)
        for name, value in (("reconnects", 1), ("pm", self._pm_none())):
            try:
                self._nic.config(**{name: value})
            except (ValueError, OSError, TypeError):
                pass  # rp2 has no reconnects, old firmware no pm
        self._identify()
        self._configure()
        self._phase = "rest"
        self._since = now
        self._now_at = -1
        self._wait = 0
        self._rest = _REST_MS

    def _pm_none(self):
        return getattr(self._network.WLAN, "PM_NONE", 0)

    # --- joining

    def _look(self, now):
        if self._phase == "rest":
            hopeless = all(now < until for until in self._suspect_until)
            self._say(now, base.FAILED if hopeless else base.CONNECTING, self.reason)
            if now - self._since >= self._wait:
                self._next(now)
        elif self._phase == "join":
            self._joining(now)
        else:
            self._watch(now)

    def _next(self, now):
        """Join the next network in order; at the end of the list rest, ever longer."""
        count = len(self._networks)
        self._now_at += 1
        while self._now_at < count and now < self._suspect_until[self._now_at]:
            self._now_at += 1
        if self._now_at < count:
            self._join(now)
            return
        self._now_at = -1
        self._phase = "rest"
        self._since = now
        self._wait = self._rest
        self._rest = min(self._rest * 2, _LONGEST_REST_MS)
        if all(now < until for until in self._suspect_until):
            self._wait = min(self._suspect_until) - now

    def _join(self, now, roam_to=None):
        network = self._networks[self._now_at]
        bssid = roam_to or network["bssid"]
        self._phase = "join"
        self._since = now
        self._roamed = roam_to is not None
        words = [network["ssid"]]
        if not network["open"]:
            words.append(self._passwords[network["ssid"]])
        try:
            # Also when nothing is joined: it ends an attempt that is under way.
            self._nic.disconnect()
        except OSError:
            pass
        try:
            if bssid:
                self._nic.connect(*words, bssid=bssid)
            else:
                self._nic.connect(*words)
        except OSError as error:
            # "Wifi Internal Error": it is still busy with another attempt. Switched off, it is not.
            self._power_cycle()
            self._failed(now, "the driver refuses: %s" % error)
            self.errors += 1

    def _power_cycle(self):
        self._nic.active(False)
        self._nic.active(True)
        self._configure()

    def _joining(self, now):
        stat = self._stat
        status = self._nic.status()
        waited = now - self._since
        ssid = self._networks[self._now_at]["ssid"]
        if waited >= _STALE_MS:
            got = self._addresses() if status == stat["GOT_IP"] else None
            if got:
                self._joined(now, got)
                return
            if self._is_error(status):
                self._judge(now, status)
                return
        if waited >= _JOIN_MS:
            # esp32 may not find a network again until it was off.
            self._power_cycle()
            self._failed(now, "no address from %r in %d s" % (ssid, _JOIN_MS // 1000))
        else:
            self._say(now, base.CONNECTING, "joining %r" % ssid)

    def _is_error(self, status):
        stat = self._stat
        return status not in (stat["IDLE"], stat["CONNECTING"], stat["GOT_IP"]) and not (
            # rp2: joined, and no address yet.
            status == 2 and stat["GOT_IP"] == 3
        )

    def _judge(self, now, status):
        """An attempt has ended with `status`."""
        stat = self._stat
        at = self._now_at
        ssid = self._networks[at]["ssid"]
        if status == stat["NO_AP_FOUND"] or status in _ABSENT:
            self._failed(now, "no access point of %r" % ssid)
            return
        refused = status in (stat["WRONG_PASSWORD"], stat["HANDSHAKE_TIMEOUT"])
        if refused or status in _REFUSED:
            self._refusals[at] += 1
            # One that has worked is right: access points refuse, too, while they start.
            if not self._worked[at] and self._refusals[at] >= _REFUSALS:
                self._suspect_until[at] = now + _SUSPECT_MS
                self._say(now, base.FAILED, "wrong password for %r" % ssid)
                self._failed(now, "wrong password for %r" % ssid)
                return
            self._failed(now, "%r refuses us (%d)" % (ssid, status), not self._worked[at])
            return
        self._failed(now, "%r cannot be joined (%d)" % (ssid, status))

    def _failed(self, now, why, again=False):
        """This attempt is over. again: the same network once more, to know why."""
        if self._settled.state != base.UP:
            self.reason = why
        self._phase = "rest"
        self._since = now
        # A stronger access point that does not take us: the network as such, before another.
        if again or self._roamed:
            self._now_at -= 1
        self._wait = _REST_MS

    # --- joined

    def _joined(self, now, got):
        at = self._now_at
        self._phase = "up"
        self._rest = _REST_MS
        self._worked[at] = True
        self._refusals[at] = 0
        self._suspect_until[at] = 0
        self._silent = 0
        self._roam_at = now + _ROAM_MS
        self._scanned = None
        self._came_up(now, got)

    def _watch(self, now):
        got = None
        if self._nic.status() == self._stat["GOT_IP"]:
            # After an outage esp32 says so with the address 0.0.0.0.
            got = self._addresses()
        self._measure()
        if got is None or self._silent >= _SILENT_READINGS:
            self.signal_dbm = None
            self._say(now, base.CONNECTING, "the access point is lost")
            self._silent = 0
            self._join(now)
            return
        self._came_up(now, got)
        if self._scan and not self._networks[self._now_at]["bssid"]:
            self._roam(now)

    def _measure(self):
        try:
            signal = self._nic.status("rssi")
        except (ValueError, OSError):
            return  # a port that does not tell
        # rp2 never says that the access point is gone, but its signal is 0.
        self._silent = self._silent + 1 if signal == 0 else 0
        self.signal_dbm = signal or None

    # --- roaming

    def _roam(self, now):
        if self._scanned:
            rows = self._scanned()
            if rows is None:
                return
            self._scanned = None
            self._roam_at = now + _NOTHING_BETTER_MS
            best = self._strongest(rows)
            if best and best[3] >= (self.signal_dbm or 0) + _STRONGER_DB:
                self.roams += 1
                self._join(now, bytes(best[1]))
        elif now >= self._roam_at and (self.signal_dbm or 0) < self._roam_dbm:
            self._roam_at = now + _ROAM_MS
            self._scanned = self._scan()

    def _strongest(self, rows):
        """Return the row (ssid, bssid, channel, RSSI, ...) of this network that is heard best."""
        ssid = self._networks[self._now_at]["ssid"].encode()
        best = None
        for row in rows:
            if bytes(row[0]) == ssid and (best is None or row[3] > best[3]):
                best = row
        return best
