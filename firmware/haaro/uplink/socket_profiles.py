"""What differs between the UDP sockets of modems' own stacks, as data. Used by socket_modem.py.

None of it was tried on a real modem. Keys:

  open    (command, ms, line, good) in order; line: None: may be refused, "": OK is enough, else
          what must come, and good follow in it; good "": our address does
  close, send (octets, address, port), read: commands
  sent, unsent: lines that end a send; data: begins the line before a payload
  came    there is something to read
  over    ((line, why the socket is gone), ...)
  most    octets in one datagram
"""

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

_WORDS = {"ec25": _QUECTEL, "bg96": _QUECTEL, "bg770": _QUECTEL}


def words(profile: str) -> dict:
    """Return what the sockets of a profile of modem_profiles.py are asked by; raises KeyError."""
    return _WORDS[profile]
