"""UDP of the modem's own stack, sans-IO: commands and payloads in, answers and datagrams out.

Written from Quectel's documents: BG96 TCP/IP AT Commands Manual and Application Note, chapters 1 to
4, and BG95&BG77&BG600L Series TCP/IP Application Note 2.3 and 2.4. Service "UDP SERVICE" in buffer
access mode. Shares no code with the firmware. The context's address is private, as an operator's
is: whoever owns this object is the NAT.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

# 2.3.6: most octets of one AT+QISEND. Chapter 4: result codes.
MOST = 1460
_INVALID, _IN_USE, _CONTEXT_DOWN = 552, 562, 569


@dataclass
class Faults:
    """What goes wrong from now on; numbers count down."""

    lost_prompts: int = 0  # the modem waits, the ">" is lost on the line
    lost_octets: int = 0  # of payloads from the host
    dead_prompts: int = 0  # it hangs in the middle of the payload
    full: int = 0  # sends that find the modem's buffer full
    errors: int = 0  # sends that are refused
    lost_urcs: int = 0  # "recv" that is not said
    cut_reads: int = 0  # answers to AT+QIRD of which the second half is lost
    bad_lengths: int = 0  # answers to AT+QIRD whose length is none
    between: str = ""  # said unasked before each prompt, before SEND OK and before +QIRD
    open_result: int = 0  # of AT+QIOPEN


@dataclass
class Stack:
    """`say(text)`: a line unasked; `answer(octets)`: to who asked; `hang()`: the modem hangs."""

    address: str
    say: Callable[[int, str], None]
    answer: Callable[[int, bytes], None]
    hang: Callable[[], None]
    buffer: int = 16384  # octets that wait for AT+QIRD
    faults: Faults = field(default_factory=Faults)
    # Datagrams to the network: (octets, address, port).
    sent: list[tuple[bytes, str, int]] = field(default_factory=list)
    dropped: int = 0  # from the network, for want of room
    active: bool = False
    apn: str = ""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """As after power was lost."""
        self.active = False
        self.port: int | None = None  # of the open socket
        self.wanted = 0  # octets of a payload that is waited for
        self._echo = True
        self._payload = bytearray()
        self._to = ("", 0)
        self._came: list[tuple[bytes, str, int]] = []
        self._told = False

    # --- the network

    def arrive(self, now: int, octets: bytes, address: str, port: int) -> None:
        """A datagram for the open socket."""
        waiting = sum(len(each[0]) for each in self._came)
        if self.port is None or waiting + len(octets) > self.buffer:
            self.dropped += 1
            return
        self._came.append((octets, address, port))
        # "if the buffer is not empty ... it will not report a new URC".
        if not self._told:
            self._told = True
            if self.faults.lost_urcs:
                self.faults.lost_urcs -= 1
            else:
                self.say(now, '+QIURC: "recv",0')

    def deactivate(self, now: int) -> None:
        """The network ends the context."""
        if self.active:
            self._close()
            self.active = False
            self.say(now, '+QIURC: "pdpdeact",1')

    def close_socket(self, now: int) -> None:
        """The stack closes the socket "due to network error"."""
        if self.port is not None:
            self._close()
            self.say(now, '+QIURC: "closed",0')

    def _close(self) -> None:
        self.port = None
        self._came.clear()
        self._told = False

    # --- the host

    def payload(self, now: int, octet: int) -> None:
        """One octet of the payload that is waited for; its last one sends it."""
        if self.faults.lost_octets:
            self.faults.lost_octets -= 1
            return
        if self.faults.dead_prompts:
            self.faults.dead_prompts -= 1
            self.hang()
        self._payload.append(octet)
        if len(self._payload) < self.wanted:
            return
        self.wanted = 0
        octets = bytes(self._payload)
        if self._echo:
            self.answer(now, octets)
        self._between(now)
        if self.port is None:
            self.answer(now, b"\r\nERROR\r\n")
        elif self.faults.full:
            self.faults.full -= 1
            self.answer(now, b"\r\nSEND FAIL\r\n")
        else:
            self.sent.append((octets, *self._to))
            self.answer(now, b"\r\nSEND OK\r\n")

    def command(self, now: int, text: str, registered: bool, apn: str | None) -> bool:
        """Take a command; False if it is none of ours. apn: the only one that works, if any."""
        found = re.fullmatch(r'AT\+QICSGP=1,1,"([^"]*)","([^"]*)","([^"]*)",([0-3])', text)
        if found:
            self.apn = found[1]
            self._final(now, not self.active)
        elif re.fullmatch(r"AT\+QISDE=[01]", text):
            self._echo = text.endswith("1")
            self._final(now, True)
        elif text == "AT+QIACT=1":
            good = registered and not self.active and apn in (None, self.apn)
            self.active = self.active or good
            self._final(now, good)
        elif text == "AT+QIACT?":
            if self.active:
                self.answer(now, f'\r\n+QIACT: 1,1,1,"{self.address}"\r\n'.encode())
            self._final(now, True)
        elif text == "AT+QIDEACT=1":
            self._close()
            self.active = False
            self._final(now, True)
        elif text.startswith("AT+QIOPEN="):
            self._open(now, text)
        elif text == "AT+QICLOSE=0":
            self._close()
            self._final(now, True)
        elif text.startswith("AT+QISEND="):
            self._send(now, text)
        elif text == "AT+QIRD=0":
            self._read(now)
        else:
            return False
        return True

    def _final(self, now: int, good: bool) -> None:
        self.answer(now, b"\r\nOK\r\n" if good else b"\r\nERROR\r\n")

    def _between(self, now: int) -> None:
        if self.faults.between:
            self.answer(now, f"\r\n{self.faults.between}\r\n".encode())

    def _open(self, now: int, text: str) -> None:
        pattern = r'AT\+QIOPEN=1,0,"UDP SERVICE","127\.0\.0\.1",0,(\d+),0'
        found = re.fullmatch(pattern, text)
        result = self.faults.open_result
        if not found or not 0 < int(found[1]) < 65536:
            result = _INVALID
        elif not self.active:
            result = _CONTEXT_DOWN
        elif self.port is not None:
            result = _IN_USE
        # The result comes after OK.
        self._final(now, True)
        if not result and found:
            self.port = int(found[1])
        self.answer(now, f"\r\n+QIOPEN: 0,{result}\r\n".encode())

    def _send(self, now: int, text: str) -> None:
        found = re.fullmatch(r'AT\+QISEND=0,(\d+),"([0-9.]+)",(\d+)', text)
        refused = self.faults.errors > 0
        self.faults.errors -= refused
        if refused or self.port is None or not found or not 0 < int(found[1]) <= MOST:
            self._final(now, False)
            return
        self.wanted = int(found[1])
        self._to = (found[2], int(found[3]))
        self._payload.clear()
        self._between(now)
        if self.faults.lost_prompts:
            self.faults.lost_prompts -= 1
        else:
            self.answer(now, b"\r\n> ")

    def _read(self, now: int) -> None:
        if self.port is None:
            self._final(now, False)
            return
        self._between(now)
        if not self._came:
            self.answer(now, b"\r\n+QIRD: 0\r\n\r\nOK\r\n")
            return
        octets, address, port = self._came.pop(0)
        self._told = bool(self._came)
        length: object = len(octets)
        if self.faults.bad_lengths:
            self.faults.bad_lengths -= 1
            length = "?"
        whole = f'\r\n+QIRD: {length},"{address}",{port}\r\n'.encode()
        whole += octets + b"\r\n\r\nOK\r\n"
        if self.faults.cut_reads:
            self.faults.cut_reads -= 1
            whole = whole[: len(whole) // 2]
        self.answer(now, whole)
