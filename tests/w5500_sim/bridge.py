"""The simulated chip between an interface and whoever holds the other end of its SPI bus.

    python -m tests.w5500_sim.bridge --interface c0 --socket /run/x/spi --control /run/x/control

SPI is a stream on a unix socket. A request is one octet, for some a length of two, and data:
  S level | P level   the pins CSn and RSTn; no answer
  W length data       MOSI; no answer
  R length            MISO is the answer, MOSI is 0
  X length data       both
  I                   the pin INTn: one octet, 0 or 1
The control socket takes JSON lines: {"cable": false}, {"powered": false}, {"stuck": true},
{"garbage": n}, {"brown_out": true}, {} and answers each with the counters.
"""

import argparse
import contextlib
import json
import os
import selectors
import socket
import struct
from pathlib import Path

from tests.w5500_sim.chip import W5500

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_AUXDATA = 8
_PACKET_MR_PROMISC = 1
_PACKET_OUTGOING = 4
_TAG_THERE = 0x10  # TP_STATUS_VLAN_VALID


class Wire:
    """Frames of one interface, tags included (the kernel hands them over beside the frame)."""

    def __init__(self, interface: str) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self.socket.bind((interface, _ETH_P_ALL))
        self.socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        request = struct.pack("IHH8x", socket.if_nametoindex(interface), _PACKET_MR_PROMISC, 0)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)
        self.socket.setblocking(False)

    def read(self) -> bytes | None:
        """The next frame that came in; None: no more."""
        while True:
            try:
                frame, ancillary, _, source = self.socket.recvmsg(2048, 256)
            except BlockingIOError:
                return None
            if source[2] == _PACKET_OUTGOING:
                continue
            for level, kind, data in ancillary:
                if level == _SOL_PACKET and kind == _PACKET_AUXDATA:
                    status, _, _, _, _, tag, protocol = struct.unpack("IIIHHHH", data[:20])
                    if status & _TAG_THERE:
                        frame = (
                            frame[:12] + struct.pack(">HH", protocol or 0x8100, tag) + frame[12:]
                        )
            return frame

    def write(self, frame: bytes) -> None:
        """Send a frame; one that the interface refuses is lost."""
        with contextlib.suppress(OSError):
            self.socket.send(frame)


class Bus:
    """The SPI requests of one client."""

    def __init__(self, chip: W5500, client: socket.socket) -> None:
        self._chip = chip
        self._client = client
        self._waiting = b""

    def take(self) -> bool:
        """Handle what has come; False: the client is gone."""
        try:
            data = self._client.recv(65536)
        except ConnectionResetError:
            return False
        if not data:
            return False
        self._waiting += data
        at = 0
        answers = []
        while True:
            used, answer = self._one(at)
            if not used:
                break
            at += used
            answers.append(answer)
        self._waiting = self._waiting[at:]
        if any(answers):
            try:
                self._client.sendall(b"".join(answers))
            except OSError:
                return False  # a board that was killed while it asked
        return True

    def _one(self, at: int) -> tuple[int, bytes]:
        data = self._waiting
        if len(data) - at < 1:
            return 0, b""
        word = data[at : at + 1]
        if word == b"I":
            return 1, bytes([self._chip.interrupt()])
        if word in b"SP":
            if len(data) - at < 2:
                return 0, b""
            (self._chip.select if word == b"S" else self._chip.reset_pin)(data[at + 1])
            return 2, b""
        if len(data) - at < 3:
            return 0, b""
        length = data[at + 1] << 8 | data[at + 2]
        if word == b"R":
            return 3, self._chip.transfer(bytes(length))
        if len(data) - at < 3 + length:
            return 0, b""
        miso = self._chip.transfer(data[at + 3 : at + 3 + length])
        return 3 + length, miso if word == b"X" else b""


def control(chip: W5500, order: dict[str, object]) -> dict[str, object]:
    """Carry out one line of the control socket."""
    for name, value in order.items():
        if name == "cable":
            chip.plug(bool(value))
        elif name == "brown_out":
            chip.brown_out()
        elif name in ("powered", "stuck", "garbage"):
            setattr(chip, name, value)
        else:
            return {"error": f"unknown: {name}"}
    names = ("dropped_full", "dropped_filter", "runts", "sent", "resets", "short_resets")
    return {name: getattr(chip, name) for name in names} | {"link": chip.link}


def listening(path: str) -> socket.socket:
    """A unix socket that accepts clients at `path`."""
    made = socket.socket(socket.AF_UNIX)
    Path(path).unlink(missing_ok=True)
    made.bind(path)
    made.listen()
    return made


def main() -> None:
    """Serve until killed, or until the parent is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--interface", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--control", required=True)
    parser.add_argument("--link-s", type=float, default=0.0)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    wire = Wire(options.interface)
    chip = W5500(wire.write, link_s=options.link_s, first=options.first)
    watched = selectors.DefaultSelector()
    watched.register(wire.socket, selectors.EVENT_READ, wire)
    for path in (options.socket, options.control):
        watched.register(listening(path), selectors.EVENT_READ, path)
    parent = os.getppid()
    print("ready", flush=True)
    while os.getppid() == parent:
        for key, _ in watched.select(1.0):
            if key.data is wire:
                frame = wire.read()
                while frame is not None:
                    chip.frame_in(frame)
                    frame = wire.read()
            elif isinstance(key.data, str):
                client, _ = key.fileobj.accept()  # type: ignore[union-attr]
                taker = Bus(chip, client) if key.data == options.socket else chip
                watched.register(client, selectors.EVENT_READ, taker)
            elif isinstance(key.data, Bus):
                if not key.data.take():
                    watched.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
            else:
                line = key.fileobj.recv(4096)  # type: ignore[union-attr]
                if not line:
                    watched.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
                    continue
                answer = json.dumps(control(chip, json.loads(line))) + "\n"
                key.fileobj.sendall(answer.encode())  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
