"""A cellular modem as uplink, sans-IO: from power to an IP address.

Owns the order of AT commands (3GPP TS 27.007) and what each answer means. Octets, packets and `now`
(milliseconds) in; octets, packets, levels of the power and reset lines, and one deadline out.
Contract: uplink/base.py. Called by linux_modem.py.

    probe -> setup -> SIM (PIN) -> register -> operator, signal -> APN -> dial -> PPP -> up
      ^                                                                            |
      +------------------------- recover (modem.py) <------------------------------+

What is refused (SIM, network, APN, password) is asked again, ever more rarely. What is unanswered
is a hang, and modem.py's. With the modem's own socket in place of PPP: socket_modem.py.
"""

from haaro.compat import const
from haaro.uplink import base
from haaro.uplink.modem import Modem

_COMMAND_MS = const(3000)
_PIN_MS = const(10000)
_RADIO_MS = const(15000)
_DIAL_MS = const(30000)
_PPP_MS = const(30000)
_SIM_BUSY_MS = const(500)
_SIM_AGAIN_MS = const(5000)
_SEARCH_MS = const(2000)
_ROAMING_MS = const(30000)
# Without a network for so long, the radio is switched off and on.
_REGISTER_MS = const(180000)
_LISTEN_MS = const(60000)
_LEAST_TRIES = const(2)  # a PIN is not tried unless another try is left after it
_HOME = const(1)
_DENIED = const(3)
_ROAMING = const(5)
_STALE = ("the peer does not answer", "no PPP peer", "the line echoes", "the modem hangs")


class Cellular(Modem):
    """One modem.

    settings: {"apn", "user", "password", "pin", "profile", "roaming", "mux"}. doors: which of
    "power_key" and "reset" are wired. memory: `failed`, `set()` -> bool and `clear()` of the mark
    that the PIN was tried and not accepted; it outlives a restart. random(n) -> n octets.
    """

    def __init__(self, settings: dict, doors: tuple, memory, random) -> None:
        super().__init__(settings, doors, random)
        self._memory = memory
        self.operator = ""
        self.signal_dbm: int | None = None
        self.roaming = False
        self._search_since = 0
        self._query = 0
        self._stat = 0
        self._hurry = False
        self._pin_tried = False

    def _carrier(self, random):
        """Return what carries packets."""
        from haaro.uplink.ppp import Ppp

        return Ppp(self._settings["user"].encode(), self._settings["password"].encode(), random)

    def _ready(self, now):
        self._search_since = now
        self._sim(now)

    def _unasked(self, now, line):
        if self.stage == "register" and "REG:" in line:
            # The network has been found, or lost: look now, or once more.
            self._hurry = True
            if self._timer is not None:
                self._later(now, 0, self._look)

    # --- SIM

    def _sim(self, now):
        self.stage = "sim"
        self._ask(now, "AT+CPIN?", self._sim_says, _COMMAND_MS, "+CPIN:")

    def _sim_says(self, now, final, lines):
        said = lines[-1] if lines else final
        if said == "READY":
            if self._pin_tried:
                self._memory.clear()
                self._pin_tried = False
            self._say(now, base.CONNECTING, "looking for a network")
            self._look(now)
        elif said == "SIM PIN" or said == "+CME ERROR: 11":
            self._pin(now)
        elif said == "SIM PUK" or said == "+CME ERROR: 12":
            self._sim_failed(now, "the SIM asks for its PUK: unlock it in a telephone")
        elif said == "+CME ERROR: 14" or said == "OK":
            self._later(now, _SIM_BUSY_MS, self._sim)
        elif said == "+CME ERROR: 10":
            self._sim_failed(now, "no SIM")
        else:
            self._sim_failed(now, "the SIM cannot be used: " + said)

    def _sim_failed(self, now, why):
        self._say(now, base.FAILED, why)
        self._later(now, _SIM_AGAIN_MS, self._sim)

    def _pin(self, now):
        if not self._settings["pin"]:
            self._sim_failed(now, "the SIM asks for a PIN and none is configured")
        elif self._memory.failed:
            self._sim_failed(
                now, "the PIN was refused before, or not accepted; see docs/cellular.md"
            )
        else:
            self._ask(now, 'AT+CPINR="SIM PIN"', self._pin_counted, _COMMAND_MS, "+CPINR:")

    def _pin_counted(self, now, final, lines):
        left = _LEAST_TRIES  # where the modem does not say
        if lines:
            left = _number(lines[-1].split(",")[1:2])
            if left is None:
                left = _LEAST_TRIES
        if left < _LEAST_TRIES:
            self._sim_failed(now, "the PIN has one try left: unlock the SIM in a telephone")
        elif not self._memory.set():
            self._sim_failed(now, "the PIN is not tried: that it was could not be kept")
        else:
            # From here on the mark stands; only READY takes it away.
            self._pin_tried = True
            self.stage = "pin"
            command = 'AT+CPIN="%s"' % self._settings["pin"]
            self._ask(now, command, self._pin_done, _PIN_MS, "", False)

    def _pin_done(self, now, final, lines):
        if final != "OK" and final != "TIMEOUT":
            self._pin_tried = False
            self._sim_failed(now, "the SIM refused the PIN (%s)" % final)
        else:
            self._sim(now)

    # --- network

    def _look(self, now):
        self.stage = "register"
        self._query = 0
        self._stat = 0
        self._hurry = False
        self._ask_registration(now)

    def _ask_registration(self, now):
        command, prefix = self.profile["queries"][self._query]
        self._ask(now, command, self._registration_says, _COMMAND_MS, prefix)

    def _registration_says(self, now, final, lines):
        self._registered(lines)
        if self._stat in (_HOME, _ROAMING):
            self.roaming = self._stat == _ROAMING
            self._ask(now, "AT+COPS?", self._operator_says, _COMMAND_MS, "+COPS:")
        elif self._query < len(self.profile["queries"]):
            self._ask_registration(now)
        elif now - self._search_since >= _REGISTER_MS:
            self._search_since = now
            why = "the network refuses this SIM" if self._stat == _DENIED else "no network"
            self._say(now, base.FAILED, why)
            self._ask(now, "AT+CFUN=4", self._radio_off, _RADIO_MS)
        else:
            if self._stat == _DENIED:
                self._say(now, base.FAILED, "the network refuses this SIM")
            self._later(now, 0 if self._hurry else _SEARCH_MS, self._look)

    def _registered(self, lines):
        for line in lines:
            # n,stat,... is the answer; stat alone was said unasked, and is as good.
            fields = line.split(",")
            stat = _number(fields[1:2] or fields)
            if stat is not None and self._stat not in (_HOME, _ROAMING):
                self._stat = stat
        self._query += 1

    def _radio_off(self, now, final, lines):
        self._ask(now, "AT+CFUN=1", self._radio_on, _RADIO_MS)

    def _radio_on(self, now, final, lines):
        self._sim(now)

    def _operator_says(self, now, final, lines):
        self._operator_is(lines)
        self._ask(now, "AT+CSQ", self._signal_says, _COMMAND_MS, "+CSQ:")

    def _operator_is(self, lines):
        for line in lines:
            name = line.split('"')
            self.operator = name[1] if len(name) > 2 else ""

    def _signal_is(self, lines):
        for line in lines:
            level = _number(line.split(","))
            # 27.007 8.5: 0 to 31 in steps of 2 dB from -113 dBm, 99 unknown.
            self.signal_dbm = None if level is None or level > 31 else 2 * level - 113

    def _signal_says(self, now, final, lines):
        self._signal_is(lines)
        if self.roaming and not self._settings["roaming"]:
            self._say(now, base.FAILED, "roaming (%s) is not allowed" % self.operator)
            self._later(now, _ROAMING_MS, self._look)
        else:
            self._begin(now)

    def _begin(self, now):
        """Begin the call."""
        self.stage = "dial"
        self._todo = []
        if self._settings["apn"]:
            self._todo.append('AT+CGDCONT=1,"IP","%s"' % self._settings["apn"])
        if self._settings["user"] and self.profile["auth"]:
            self._todo.append(self.profile["auth"].format(**self._settings))
        self._define(now, "OK", [])

    # --- the call

    def _define(self, now, final, lines):
        if final != "OK":
            self._again(now, "the modem refuses the APN, or user and password (%s)" % final)
        elif self._todo:
            self._ask(now, self._todo.pop(0), self._define)
        else:
            self._say(now, base.CONNECTING, "dialling")
            self._call(now, self.profile["dial"], self._dialled, _DIAL_MS)

    def _dialled(self, now, final, lines):
        if not final.startswith("CONNECT"):
            self._again(now, "the network refuses the call (%s)" % final)
            return
        self.stage = "ppp"
        rest = (self._dial or self._at).take_rest()
        self.ppp.start(now)
        self._later(now, _PPP_MS, self._too_long)
        self.ppp.receive(now, rest)

    def _too_long(self, now):
        self.ppp.fail("no PPP peer: too long")

    def _watch(self, now):
        """Follow the call."""
        if self.ppp.state == "dead":
            if self.stage == "stop":
                self.stage = "off"
                return
            why = self.ppp.reason
            self._timer = None
            if why.startswith(_STALE):
                self._recover(now, why)
            elif self.stage == "up":
                self._went_down(now, why)
            else:
                self._again(now, why)
        elif self.ppp.state == "up" and self.stage == "ppp":
            self.stage = "up"
            self._came_up(now)
            if self.mux:
                self._later(now, _LISTEN_MS, self._listen)

    # --- the radio while the call is up; only where the line is multiplexed

    def _listen(self, now):
        self._later(now, _LISTEN_MS, self._listen)
        if not self._at.busy:
            self.signal_dbm = None
            self._query = 0
            self._stat = 0
            self._ask_again(now)

    def _ask_again(self, now):
        command, prefix = self.profile["queries"][self._query]
        self._ask(now, command, self._heard, _COMMAND_MS, prefix, False)

    def _heard(self, now, final, lines):
        if self.stage != "up":
            return
        self._registered(lines)
        if self._stat in (_HOME, _ROAMING):
            self.roaming = self._stat == _ROAMING
            if self.roaming and not self._settings["roaming"]:
                self.ppp.fail("roaming is not allowed")
                return
        elif self._query < len(self.profile["queries"]):
            self._ask_again(now)
            return
        self._ask(now, "AT+COPS?", self._heard_operator, _COMMAND_MS, "+COPS:", False)

    def _heard_operator(self, now, final, lines):
        self._operator_is(lines)
        self._ask(now, "AT+CSQ", self._heard_signal, _COMMAND_MS, "+CSQ:", False)

    def _heard_signal(self, now, final, lines):
        self._signal_is(lines)


def _number(words):
    """Return the number that the first of `words` is, None if it is none."""
    try:
        return int(words[0])
    except (ValueError, IndexError):
        return None
