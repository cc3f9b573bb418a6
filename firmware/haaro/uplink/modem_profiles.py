"""What differs between modems: commands and times, as data. Used by uplink/cellular.py.

Sources: SIM7500/SIM7600 AT Command Manual and Hardware Design, Quectel EC2x, BG9x and BG77 AT and
hardware manuals, u-blox SARA-R4 AT manual and data sheet, 3GPP TS 27.007 for the rest. None of it
was tried on a real modem. A profile is GENERIC with changes; keys:

  setup      commands after start, each may be refused
  queries    (command, prefix) of the registration, in the order in which they are asked
  auth       command that tells user and password, "" where PPP alone carries them
  dial       starts the data call
  mux        multiplexes the line (27.010, basic option, frames of 127 octets), "" if it cannot
  off_ms     how long the power key is held to switch off; on_ms: to switch on
  reset_ms   how long the reset line is held
  rest_ms    between off and on
  boot_ms    from on or reset until it answers, at most
"""

_4G = (("AT+CEREG?", "+CEREG:"), ("AT+CGREG?", "+CGREG:"), ("AT+CREG?", "+CREG:"))

_MUX = "AT+CMUX=0,0,5,127"

GENERIC = {
    "setup": ("AT+CREG=1", "AT+CGREG=1", "AT+CEREG=1"),
    "queries": _4G,
    "auth": "",
    "dial": "ATD*99***1#",
    "mux": "",
    "off_ms": 1500,
    "on_ms": 1000,
    "reset_ms": 500,
    "rest_ms": 3000,
    "boot_ms": 20000,
}

_CHANGES = {
    "sim7600": {
        "mux": _MUX,
        "auth": 'AT+CGAUTH=1,3,"{password}","{user}"',
        "off_ms": 2600,
        "on_ms": 500,
        "reset_ms": 300,
        "rest_ms": 28000,
    },
    "ec25": {
        "mux": _MUX,
        "auth": 'AT+QICSGP=1,1,"{apn}","{user}","{password}",3',
        "off_ms": 700,
        "on_ms": 600,
        "reset_ms": 300,
        "rest_ms": 30000,
    },
    # LTE-M and NB-IoT: registration is EPS only, and slow.
    "bg96": {
        "mux": _MUX,
        "setup": ("AT+CEREG=1",),
        "queries": _4G[:1],
        "auth": 'AT+QICSGP=1,1,"{apn}","{user}","{password}",3',
        "off_ms": 700,
        "on_ms": 600,
        "reset_ms": 300,
    },
    "sara-r4": {
        "mux": _MUX,
        "setup": ("AT+CEREG=1",),
        "queries": _4G[:1],
        "auth": 'AT+UAUTHREQ=1,2,"{user}","{password}"',
        "off_ms": 2000,
        "on_ms": 1000,
        "reset_ms": 11000,
        "rest_ms": 5000,
    },
}
_CHANGES["bg770"] = _CHANGES["bg96"]


def profile(name: str) -> dict:
    """Return the whole profile of a modem or "generic"; raises KeyError."""
    whole = dict(GENERIC)
    if name != "generic":
        whole.update(_CHANGES[name])
    return whole
