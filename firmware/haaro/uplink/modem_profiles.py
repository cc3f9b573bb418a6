"""What differs between modems: commands and times, as data. Used by uplink/cellular.py.

Sources: SIM7500/SIM7600 AT Command Manual and Hardware Design, Quectel EC2x, BG9x and BG77 AT and
hardware manuals, u-blox SARA-R4 AT manual and data sheet, 3GPP TS 27.007 for the rest. None of it
was tried on a real modem. A profile is GENERIC with changes; keys:

  setup      commands after start, each may be refused
  queries    (command, prefix) of the registration, in the order in which they are asked
  auth       command that tells user and password, "" where PPP alone carries them
  dial       starts the data call
  sockets    the modem's own UDP (modem_sockets.py), None if it has none or nobody wrote it down:
             open   (command, ms, line, good) in order; line: None: may be refused, "": OK is
                    enough, else what must come, and good follow in it; good "": our address
             close, send (octets, address, port), read: commands
             sent, unsent: lines that end a send; data: begins the line before a payload
             came: there is something to read; over: ((line, why the socket is gone), ...)
             most: octets in one datagram
  mux        multiplexes the line (27.010, basic option, frames of 127 octets), "" if it cannot
  off_ms     how long the power key is held to switch off; on_ms: to switch on
  reset_ms   how long the reset line is held
  rest_ms    between off and on
  boot_ms    from on or reset until it answers, at most
"""

_4G = (("AT+CEREG?", "+CEREG:"), ("AT+CGREG?", "+CGREG:"), ("AT+CREG?", "+CREG:"))

_MUX = "AT+CMUX=0,0,5,127"

# Quectel's TCP/IP application notes: BG96 chapter 2; BG95, BG77 and BG600L 2.3 (commands) and 2.4
# (what is said unasked); of the EC2x the AT commands manual. QIDEACT takes 40 s, QIACT and QIOPEN
# 150 s at most. "UDP SERVICE" in buffer mode (0): data come when asked for, one datagram a QIRD,
# and the next "recv" is not said before nothing is left. 1460 octets in one QISEND. QISDE=0: the
# echo of a payload would look like answers.
_QUECTEL = {
    "open": (
        ("AT+QIDEACT=1", 40000, None, ""),
        ('AT+QICSGP=1,1,"{apn}","{user}","{password}",{auth}', 3000, "", ""),
        ("AT+QISDE=0", 3000, "", ""),
        ("AT+QIACT=1", 150000, "", ""),
        ("AT+QIACT?", 3000, "+QIACT: 1,1,", ""),
        ('AT+QIOPEN=1,0,"UDP SERVICE","127.0.0.1",0,434,0', 150000, "+QIOPEN: 0,", "0"),
    ),
    "close": "AT+QIDEACT=1",
    "send": 'AT+QISEND=0,{},"{}",{}',
    "sent": "SEND OK",
    "unsent": "SEND FAIL",
    "read": "AT+QIRD=0",
    "data": "+QIRD:",
    "came": '+QIURC: "recv",0',
    "over": (
        ('+QIURC: "closed",0', "the modem has closed its socket"),
        ('+QIURC: "pdpdeact",1', "the network has ended the context"),
    ),
    "most": 1460,
}

GENERIC = {
    "setup": ("AT+CREG=1", "AT+CGREG=1", "AT+CEREG=1"),
    "queries": _4G,
    "auth": "",
    "dial": "ATD*99***1#",
    "mux": "",
    "sockets": None,
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
        "sockets": _QUECTEL,
        "auth": 'AT+QICSGP=1,1,"{apn}","{user}","{password}",3',
        "off_ms": 700,
        "on_ms": 600,
        "reset_ms": 300,
        "rest_ms": 30000,
    },
    # LTE-M and NB-IoT: registration is EPS only, and slow.
    "bg96": {
        "mux": _MUX,
        "sockets": _QUECTEL,
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
