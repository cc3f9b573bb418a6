"""The RP2350's boot ROM as a host sees it (datasheet 5.5): a drive that takes UF2 blocks.

Written from the datasheet, sharing nothing with haaro_host. Each sector of 512 octets that the host
writes is looked at by itself, wherever on the drive it lands:

    no UF2 block, no family, not 256 octets, not for main flash     ignored
    a family that this chip does not accept                         ignored
    another family or number of blocks than before                  a new transfer begins
    an address that is no multiple of 256 or outside of flash       the transfer is given up
    a block that was there already                                  ignored
    else: its 4 KB are erased if this transfer has not done it yet, and 256 octets are written
    as many blocks as the transfer has                              restart

Flash wraps: a chip of 2 MB sees an address in the 16 MB of the window modulo its size.
"""

import random
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ARM, RISCV, ABSOLUTE, DATA = 0xE48BFF59, 0xE48BFF5A, 0xE48BFF57, 0xE48BFF58
_ACCEPTED = (ABSOLUTE, DATA, ARM, RISCV)
_FLASH, _FLASH_END = 0x10000000, 0x12000000
_SECTOR, _PAGE, _ERASE = 512, 256, 4096
_STEP_S = 0.02
INFO = "UF2 Bootloader v1.0\nModel: Raspberry Pi RP2350\nBoard-ID: RP2350\n"


class Rom:
    """The chip in its boot ROM; `flash` is all of its flash, `restarted` whether it left."""

    def __init__(self, octets: int = 2 << 20) -> None:
        self.flash = bytearray(b"\xff" * octets)
        self.restarted = False
        self.erased = 0
        self._transfer: tuple[int, int] | None = None
        self._blocks: set[int] = set()
        self._sectors: set[int] = set()

    def write_sector(self, data: bytes) -> None:
        """Take one sector of the drive; whoever has restarted is no drive any more."""
        if self.restarted:
            return
        start0, start1, flags, address, size, number, total, family = struct.unpack_from(
            "<8I", data
        )
        end = struct.unpack_from("<I", data, _SECTOR - 4)[0]
        if (start0, start1, end) != (0x0A324655, 0x9E5D5157, 0x0AB16F30):
            return
        if not flags & 0x2000 or flags & 1 or size != _PAGE or family not in _ACCEPTED:
            return
        if self._transfer != (family, total):
            self._transfer = (family, total)
            self._blocks, self._sectors = set(), set()
        if address % _PAGE or not _FLASH <= address < _FLASH_END or number >= total:
            self._transfer = None
            return
        if number in self._blocks:
            return
        at = (address - _FLASH) % len(self.flash)
        first = at - at % _ERASE
        if first not in self._sectors:
            self._sectors.add(first)
            self.flash[first : first + _ERASE] = b"\xff" * _ERASE
            self.erased += 1
        # Flash only clears bits.
        old = int.from_bytes(self.flash[at : at + _PAGE], "little")
        new = old & int.from_bytes(data[32 : 32 + _PAGE], "little")
        self.flash[at : at + _PAGE] = new.to_bytes(_PAGE, "little")
        self._blocks.add(number)
        if len(self._blocks) == total:
            self._transfer = None
            self.restarted = True


class Drive:
    """The drive as a directory. What is written to files in it reaches the ROM by sectors, in the
    order of some host's cache (`seed`); when the ROM restarts the drive is gone.

    lose: sectors that never arrive. pull_after: the cable is pulled after so many.
    """

    def __init__(
        self, place: Path, rom: Rom, started: Callable[[], None] = lambda: None, seed: int = 1,
        lose: frozenset[int] = frozenset(), pull_after: int | None = None,
    ) -> None:  # fmt: skip
        self.place = place
        self.sectors = 0
        self._rom = rom
        self._started = started
        self._order = random.Random(seed)
        self._lose = lose
        self._pull_after = pull_after
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Drive":
        self.place.mkdir(parents=True)
        (self.place / "INFO_UF2.TXT").write_text(INFO)
        (self.place / "INDEX.HTM").write_text("<html></html>")
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        seen: dict[Path, int] = {}
        while not self._stop.wait(_STEP_S):
            sectors = []
            for path in sorted(self.place.iterdir()):
                data = path.read_bytes()
                whole = len(data) - len(data) % _SECTOR
                for at in range(seen.get(path, 0), whole, _SECTOR):
                    sectors.append(data[at : at + _SECTOR])
                seen[path] = max(whole, seen.get(path, 0))
            # A cache writes what it has in an order of its own, some of it twice.
            self._order.shuffle(sectors)
            for sector in sectors + sectors[:3]:
                self.sectors += 1
                if self.sectors not in self._lose:
                    self._rom.write_sector(sector)
                if self._rom.restarted or self.sectors == self._pull_after:
                    self._gone()
                    # A process that dies with its parent dies with the thread that started it.
                    self._stop.wait()
                    return

    def _gone(self) -> None:
        for path in self.place.iterdir():
            path.unlink()
        with suppress(OSError):
            self.place.rmdir()
        if self._rom.restarted:
            self._started()
