"""Improv Wi-Fi on the console's line: the network's name and password of a Wi-Fi uplink.

    IMPROV | 1 | type | length | data | sum of all octets before, modulo 256
    data of a command (type 3):  command | length | strings, each behind its length

(improv-wifi.com/serial, version 1.) Each packet of ours begins a line, since clients look for it
there. What is sent is staged and tried like any change of the configuration: kept when the box
registers with it, taken back by itself otherwise. Loaded when the first packet comes.
"""

import json
import sys

from haaro.compat import const
from haaro.shell import staging

_HEADER = b"IMPROV\x01"
_STATE, _ERROR, _COMMAND, _RESULT = const(1), const(2), const(3), const(4)
_READY, _PROVISIONING, _PROVISIONED = const(2), const(3), const(4)
_NONE, _INVALID, _UNKNOWN = const(0), const(1), const(2)
_NOT_CONNECTED, _OTHER = const(3), const(255)
_SETTINGS, _GET_STATE, _INFO, _SCAN = const(1), const(2), const(3), const(4)
# Of a packet, at the slowest speed of a line; what is not whole by then is none.
_PATIENCE_MS = const(2000)


class Improv:
    """The packet that comes in, and the credentials on trial. `console` is the Console."""

    def __init__(self, console) -> None:
        self._console = console
        self._trying = False
        self.taking = False

    def begin(self, now: int) -> None:
        """The seven octets of a header were seen."""
        self._packet = bytearray(_HEADER)
        self._until = now + _PATIENCE_MS
        self.taking = True

    def octet(self, now: int, octet: int) -> bool:
        """Take the next octet; False: it comes too late to belong to the packet."""
        if now >= self._until:
            self.taking = False
            return False
        packet = self._packet
        packet.append(octet)
        if len(packet) >= 9 and len(packet) == 10 + packet[8]:
            self.taking = False
            self._packet = bytearray()
            if sum(packet[:-1]) & 255 != packet[-1] or packet[7] != _COMMAND:
                self._send(_ERROR, bytes((_INVALID,)))
            else:
                self._command(bytes(packet[9:-1]))
        return True

    def ended(self, kept: bool) -> None:
        """The trial of a configuration is over."""
        if self._trying:
            self._trying = False
            if kept:
                self._say_state()
                self._result(_SETTINGS, ())
            else:
                self._fail(_NOT_CONNECTED)
                self._say_state()

    # --- commands

    def _command(self, data):
        if len(data) < 2 or data[1] != len(data) - 2:
            self._fail(_INVALID)
            return
        command, rest = data[0], data[2:]
        self._fail(_NONE)
        if not self._console.improv_allowed:
            # There is no state for it: who may is asked for in the console's own words.
            self._fail(_OTHER)
            self._console.finish("error: locked; first: login")
        elif command == _SETTINGS:
            self._settings(rest)
        elif command == _GET_STATE:
            self._say_state()
            if self._state() == _PROVISIONED:
                self._result(_GET_STATE, ())
        elif command == _INFO:
            self._result(_INFO, self._about())
        elif command == _SCAN:
            # An empty one is the last; a scan would take the radio off a channel in use.
            self._result(_SCAN, ())
        else:
            self._fail(_UNKNOWN)

    def _settings(self, rest):
        try:
            end = 1 + rest[0]
            ssid, password = rest[1:end].decode(), rest[end + 1 :].decode()
            if rest[end] != len(rest) - end - 1:
                raise ValueError
        except (IndexError, ValueError):
            self._fail(_INVALID)
            return
        console = self._console
        try:
            if console.trial_until is not None or console.staging.pending():
                raise ValueError("a configuration is staged or on trial")
            stage(console, ssid, password)
            console.apply()
        except (ValueError, OSError, MemoryError) as error:
            if console.trial_until is None:
                console.staging.drop()
            console.log("warning", "improv: not taken: %s" % error)
            self._fail(_OTHER)
            return
        console.log("info", "improv: Wi-Fi credentials are tried")
        self._trying = True
        self._say_state()

    def _about(self):
        settings = getattr(self._console.box, "settings", None)
        chip = getattr(sys.implementation, "_build", "") or sys.platform
        return "haaro", sys.version.split(";")[-1].strip(), chip, settings.name if settings else ""

    # --- packets out

    def _state(self):
        if self._trying:
            return _PROVISIONING
        return _PROVISIONED if self._console.box.registered else _READY

    def _say_state(self):
        self._send(_STATE, bytes((self._state(),)))

    def _fail(self, code):
        self._send(_ERROR, bytes((code,)))

    def _result(self, command, strings):
        data = b""
        for text in strings:
            octets = text.encode()[:60]
            data += bytes((len(octets),)) + octets
        self._send(_RESULT, bytes((command, len(data))) + data)

    def _send(self, kind, data):
        packet = _HEADER + bytes((kind, len(data))) + data
        self._console.say_octets(b"\r\n" + packet + bytes((sum(packet) & 255,)) + b"\r\n")


def stage(console, ssid: str, password: str) -> None:
    """Stage both files with this network as the first of the Wi-Fi uplink ("" password: open).

    Raises ValueError when there is no such uplink, or the loader refuses what would come out.
    """
    held = console.staging
    if not staging.exists(held.config):
        raise ValueError("not provisioned")
    with open(held.config) as file:
        document = json.load(file)
    uplinks = [one for one in document["uplinks"] if one.get("driver") == "wifi"]
    if not uplinks:
        raise ValueError("no uplink has driver wifi")
    network = {"ssid": ssid}
    if not password:
        network["open"] = True
    old = [one for one in uplinks[0].get("networks", ()) if one.get("ssid") != ssid]
    uplinks[0]["networks"] = [network] + old[:7]
    # A network that was dropped there needs no password any more.
    used = [one["ssid"] for one in uplinks[0]["networks"]]
    held.put(staging.CONFIG, json.dumps(document))
    document = old = None
    with open(held.files[staging.SECRETS]) as file:
        secrets = json.load(file)
    rows = [row for row in secrets.get("wifi", ()) if row["ssid"] != ssid and row["ssid"] in used]
    if password:
        rows.append({"ssid": ssid, "password": password})
    secrets["wifi"] = rows
    held.put(staging.SECRETS, json.dumps(secrets))
