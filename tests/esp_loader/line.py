"""What a chip hangs on: a pty, or a port of RFC 2217 with DTR and RTS; and what goes wrong there.

A pty has no DTR and RTS, so the chip stands in download mode, as with its boot button held. By RFC
2217 the two lines work its EN and IO0 as on a development board (Espressif, "Boot Mode Selection"):

    DTR RTS | EN IO0        EN low is reset. When it goes high the chip looks at IO0: low is
     0   0  | 1  1          download mode. RFC 2217 moves one line at a time, 50 ms and more apart,
     1   1  | 1  1          which a board's capacitor does not bridge and Espressif's own server
     1   0  | 1  0          makes up for; so does this one: the chip starts when the line is used
     0   1  | 0  1          or has been still for `_SETTLES_S`, and any IO0 low until then counts.
"""

import contextlib
import os
import pty
import select
import socket
import tempfile
import threading
import time
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import serial
from serial.rfc2217 import PortManager

from tests.esp_loader.chip import Chip

_SETTLES_S = 0.4
_TICK_S = 0.01
_CHUNK = 4096


@dataclass
class Trouble:
    """Faults of the cable. Positions count octets from the host."""

    lose: frozenset[int] = frozenset()  # these octets never arrive
    unplug_after: int = 0  # the cable is pulled behind so many; 0 never
    octets_per_s: float = 0.0  # a slow port; 0 as fast as it goes


class Line(ABC):
    """Carries octets between a file descriptor or socket and the chip, in a thread of its own."""

    def __init__(self, chip: Chip, trouble: Trouble | None = None) -> None:
        """Hang `chip` on the line."""
        self.chip = chip
        self.trouble = trouble or Trouble()
        self.received = 0
        self.unplugged = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    url = ""

    def __enter__(self) -> "Line":
        """Start carrying."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and close what was opened."""
        self._over.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    @abstractmethod
    def _run(self) -> None:
        """Carry octets until it is over."""

    def _take(self, data: bytes) -> bool:
        """Give `data` to the chip as the cable lets it; False when the cable is pulled."""
        trouble = self.trouble
        first = self.received
        self.received += len(data)
        if trouble.octets_per_s:
            self._over.wait(len(data) / trouble.octets_per_s)
        pulled = 0 < trouble.unplug_after <= self.received
        if pulled:
            data = data[: trouble.unplug_after - first]
        if trouble.lose:
            data = bytes(v for i, v in enumerate(data, first) if i not in trouble.lose)
        self.chip.feed(data)
        if pulled:
            self.unplugged.set()
        return not pulled


class Pty(Line):
    """A serial device; `url` is its path."""

    def __init__(self, chip: Chip, trouble: Trouble | None = None) -> None:
        """Open the pair."""
        super().__init__(chip, trouble)
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        # A name of our own: the kernel gives the pty's to the next one as soon as it is free, and
        # who looks for a pulled cable there would find somebody else's chip.
        self._directory = tempfile.TemporaryDirectory()
        self.url = f"{self._directory.name}/tty"
        os.symlink(os.ttyname(self._slave), self.url)
        chip.send = self._send

    def _send(self, data: bytes) -> None:
        while data and not self._over.is_set():
            _, ready, _ = select.select([], [self._master], [], _TICK_S)
            if ready:
                data = data[os.write(self._master, data[:_CHUNK]) :]

    def _run(self) -> None:
        while not self._over.is_set():
            ready, _, _ = select.select([self._master], [], [], _TICK_S)
            if ready and not self._take(os.read(self._master, _CHUNK)):
                break
        if not self.unplugged.is_set():
            self._over.wait()
        # Name and both ends go, as the device of a USB bridge does.
        self._directory.cleanup()
        os.close(self._slave)
        os.close(self._master)


class _Wires:
    """What pyserial's server of RFC 2217 works on in place of a serial.Serial."""

    cts = dsr = cd = True
    ri = False
    name = "simulated"

    def __init__(self, moved: Callable[[bool, bool], None]) -> None:
        self._moved = moved
        self._dtr = self._rts = False
        self.baudrate = 115200
        self.bytesize, self.parity, self.stopbits = 8, serial.PARITY_NONE, 1
        self.xonxoff = self.rtscts = self.break_condition = False

    @property
    def dtr(self) -> bool:
        return self._dtr

    @dtr.setter
    def dtr(self, value: bool) -> None:
        self._dtr = value
        self._moved(self._dtr, self._rts)

    @property
    def rts(self) -> bool:
        return self._rts

    @rts.setter
    def rts(self, value: bool) -> None:
        self._rts = value
        self._moved(self._dtr, self._rts)

    def reset_input_buffer(self) -> None: ...

    def reset_output_buffer(self) -> None: ...


class Rfc2217(Line):
    """A port on the loopback, one client at a time; `url` begins with rfc2217://."""

    def __init__(self, chip: Chip, trouble: Trouble | None = None) -> None:
        """Listen."""
        super().__init__(chip, trouble)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_TICK_S)
        self.url = f"rfc2217://127.0.0.1:{self._listener.getsockname()[1]}"
        self._client: socket.socket | None = None
        self._manager: PortManager | None = None
        self._wires = _Wires(self._moved)
        self._in_reset = self._io0_low = False
        self._released: float | None = None
        self._write_lock = threading.Lock()
        chip.send = self._send

    # pyserial's PortManager writes its answers to its connection by this name.
    def write(self, data: bytes) -> None:
        """Send to the client, as it is."""
        with self._write_lock, contextlib.suppress(OSError):
            if self._client is not None:
                self._client.sendall(data)

    def _send(self, data: bytes) -> None:
        if self._manager is not None:
            self.write(b"".join(self._manager.escape(data)))

    def _moved(self, dtr: bool, rts: bool) -> None:
        in_reset = rts and not dtr
        if in_reset:
            self._released, self._io0_low = None, False
        elif self._in_reset or self._released is not None:
            self._released = time.monotonic()
            self._io0_low |= dtr and not rts
        self._in_reset = in_reset

    def _come_out_of_reset(self, at_once: bool) -> None:
        if self._released is None:
            return
        if at_once or time.monotonic() - self._released > _SETTLES_S:
            self._released = None
            self.chip.reset(download=self._io0_low)

    def _run(self) -> None:
        with self._listener:
            while not self._over.is_set() and not self.unplugged.is_set():
                try:
                    client, _ = self._listener.accept()
                except TimeoutError:
                    self._come_out_of_reset(False)
                    continue
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with client:
                    self._client = client
                    self._manager = PortManager(self._wires, self)
                    self._serve(client)
                    self._client = self._manager = None

    def _serve(self, client: socket.socket) -> None:
        assert self._manager is not None
        while not self._over.is_set():
            ready, _, _ = select.select([client], [], [], _TICK_S)
            self._come_out_of_reset(False)
            if not ready:
                continue
            try:
                data = client.recv(_CHUNK)
            except OSError:
                return
            if not data:
                return
            plain = b"".join(self._manager.filter(data))
            if plain:
                self._come_out_of_reset(True)
                if not self._take(plain):
                    return
