"""An ESP32-S3 in download mode: octets in, octets out. No line, no clock, no thread.

Written from Espressif's "Serial Protocol" (documentation of esptool) and the ESP32-S3 technical
reference manual (eFuse and SPI1 registers). Knows the ROM loader and, once it has been uploaded
whole and started, the stub. The stub's machine code is not run: its documented commands are
answered.

    RESET --IO0 low--> ROM --MEM_END at an uploaded address--> STUB --FLASH_END(0)--> ROM
    RESET --IO0 high-> APPLICATION (`started` is called; the loader says nothing any more)
"""

import hashlib
import mmap
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 0x1000
_END, _ESC, _ESC_END, _ESC_ESC = 0xC0, 0xDB, 0xDC, 0xDD
_MAX_PACKET = 0x10000

# Commands.
(FLASH_BEGIN, FLASH_DATA, FLASH_END, MEM_BEGIN, MEM_END, MEM_DATA, SYNC, WRITE_REG, READ_REG,
 SPI_SET_PARAMS) = range(0x02, 0x0C)  # fmt: skip
SPI_ATTACH, READ_FLASH_SLOW, CHANGE_BAUDRATE = 0x0D, 0x0E, 0x0F
FLASH_DEFL_BEGIN, FLASH_DEFL_DATA, FLASH_DEFL_END, SPI_FLASH_MD5 = 0x10, 0x11, 0x12, 0x13
GET_SECURITY_INFO = 0x14
ERASE_FLASH, ERASE_REGION, READ_FLASH, RUN_USER_CODE = 0xD0, 0xD1, 0xD2, 0xD3
NAMES = {
    value: name for name, value in list(globals().items()) if name.isupper() and name[0] != "_"
    and isinstance(value, int) and value != SECTOR
}  # fmt: skip

# Errors of the ROM loader.
INVALID_MESSAGE, FAILED_TO_ACT, INVALID_CRC, DEFLATE_ERROR = 0x05, 0x06, 0x07, 0x0B

_SYNC_DATA = b"\x07\x07\x12\x20" + b"\x55" * 32
_SYNC_VALUE = 0x20120707  # what a ROM answers; a stub answers 0
_EFUSE_BLOCK1 = 0x60007044
_SPI1 = 0x60002000
_SPI_CMD, _SPI_USR2, _SPI_MISO_DLEN, _SPI_W0 = _SPI1, _SPI1 + 0x20, _SPI1 + 0x28, _SPI1 + 0x58
_SPI_USR = 1 << 18
_JEDEC_MAKER_AND_TYPE = 0x40EF
_FLASH_TOP = 1 << 24


def slip(packet: bytes) -> bytes:
    """Return `packet` framed."""
    inner = packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
    return b"\xc0" + inner + b"\xc0"


def checksum(data: bytes) -> int:
    """Return the XOR of `data`, seed 0xEF."""
    even = int.from_bytes(data, "little")
    width = 1 << max(0, (len(data) - 1).bit_length())
    while width > 1:
        width //= 2
        even = (even >> (8 * width)) ^ (even & ((1 << (8 * width)) - 1))
    return even ^ 0xEF


@dataclass
class Faults:
    """What goes wrong. Counts are used up; -1 is for ever."""

    bad_checksums: int = 0  # data packets that are taken for damaged
    stuck_bits: tuple[int, ...] = ()  # flash octets that stay 0x00 whatever is written
    dead_sync: bool = False  # nothing is ever answered


@dataclass
class Chip:
    """One chip, its flash a file. `send` takes what it says, `started` that it runs what it has."""

    path: Path
    send: Callable[[bytes], None] = lambda data: None
    started: Callable[[], None] = lambda: None
    flash_octets: int = 16 << 20
    chip_id: int = 9
    mac: bytes = bytes.fromhex("7cdfa1000001")
    faults: Faults = field(default_factory=Faults)
    log: list[str] = field(default_factory=list)
    mode: str = "rom"
    baudrate: int = 115200

    def __post_init__(self) -> None:
        """Open the flash file, or make it, erased."""
        if not self.path.exists():
            with self.path.open("wb") as sink:
                for _ in range(self.flash_octets >> 16):
                    sink.write(b"\xff" * (1 << 16))
        self._file = self.path.open("r+b")
        self.flash = mmap.mmap(self._file.fileno(), self.flash_octets)
        self.reset(download=True)

    def close(self) -> None:
        """Give the flash back to its file."""
        self.flash.flush()
        self.flash.close()
        self._file.close()

    def reset(self, download: bool) -> None:
        """Come out of reset with IO0 low (`download`) or high."""
        self._packet: bytearray | None = None
        self._escaped = False
        self._attached = False
        self._registers = {
            _EFUSE_BLOCK1: int.from_bytes(self.mac[2:], "big"),
            _EFUSE_BLOCK1 + 4: int.from_bytes(self.mac[:2], "big"),
        }
        self._ram: list[tuple[int, int]] = []  # segments that are there in full: start, end
        self._loading: tuple[int, int, int] | None = None  # start, size, octets so far
        self._write: tuple[int, int, int, int] | None = None  # offset, size, block size, written
        self._inflate: Any = None
        self._dump: list[int] | None = None  # offset, size, packet, window, sent, acknowledged
        self.mode = "rom" if download else "application"
        if not download:
            self.flash.flush()
            self.started()

    # --- the line ---------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take octets from the host."""
        for octet in data:
            if octet == _END:
                packet, self._packet, self._escaped = self._packet, bytearray(), False
                if packet:
                    self._packet = None
                    if self.mode != "application" and not self.faults.dead_sync:
                        self._handle(bytes(packet))
            elif self._packet is None:
                continue
            elif self._escaped:
                self._escaped = False
                if octet not in (_ESC_END, _ESC_ESC):
                    self._packet = None  # not SLIP: the ROM waits for the next frame
                else:
                    self._packet.append(_END if octet == _ESC_END else _ESC)
            elif octet == _ESC:
                self._escaped = True
            elif len(self._packet) < _MAX_PACKET:
                self._packet.append(octet)

    def _answer(self, command: int, value: int = 0, data: bytes = b"", error: int = 0) -> None:
        status = bytes((1 if error else 0, error))
        body = data + (status if self.mode == "stub" else status + b"\0\0")
        self.send(slip(struct.pack("<BBHI", 1, command, len(body), value) + body))

    def _handle(self, packet: bytes) -> None:
        if self._dump is not None:
            self._acknowledged(packet)
            return
        if len(packet) < 8 or packet[0] != 0:
            return
        _, command, size, check = struct.unpack_from("<BBHI", packet)
        data = packet[8:]
        self.log.append(NAMES.get(command, hex(command)))
        handler = _COMMANDS.get(command)
        stub_only = command >= ERASE_FLASH
        if handler is None or (stub_only and self.mode != "stub"):
            self._answer(command, error=0xFF if self.mode == "stub" else INVALID_MESSAGE)
        elif size != len(data):
            self._answer(command, error=INVALID_MESSAGE)
        elif command in (FLASH_DATA, FLASH_DEFL_DATA, MEM_DATA) and self._damaged(data, check):
            self._answer(command, error=INVALID_CRC)
        else:
            try:
                handler(self, command, data)
            except struct.error:
                self._answer(command, error=INVALID_MESSAGE)

    def _damaged(self, data: bytes, check: int) -> bool:
        if self.faults.bad_checksums:
            self.faults.bad_checksums -= 1
            return True
        length = int.from_bytes(data[:4], "little")
        return length != len(data) - 16 or checksum(data[16:]) != check

    # --- commands ---------------------------------------------------------------------------------

    def _sync(self, command: int, data: bytes) -> None:
        if data == _SYNC_DATA:
            for _ in range(8):
                self._answer(command, 0 if self.mode == "stub" else _SYNC_VALUE)

    def _security_info(self, command: int, data: bytes) -> None:
        # Flags, SPI_BOOT_CRYPT_CNT, key purposes, chip id, API version.
        self._answer(command, data=struct.pack("<IB7sII", 0, 0, bytes(7), self.chip_id, 0))

    def _read_register(self, command: int, data: bytes) -> None:
        (address,) = struct.unpack("<I", data)
        self._answer(command, self._registers.get(address, 0))

    def _write_register(self, command: int, data: bytes) -> None:
        for address, value, mask, _ in struct.iter_unpack("<IIII", data):
            old = self._registers.get(address, 0)
            self._registers[address] = (old & ~mask) | (value & mask)
            if address == _SPI_CMD and value & _SPI_USR:
                self._spi_user_command()
        self._answer(command)

    def _spi_user_command(self) -> None:
        """Run the command in SPI_USER2 on the flash: read id and status registers."""
        command = self._registers.get(_SPI_USR2, 0) & 0xFF
        bits = self._registers.get(_SPI_MISO_DLEN, 0) + 1
        size = self.flash_octets.bit_length() - 1
        answers = {0x9F: size << 16 | _JEDEC_MAKER_AND_TYPE}
        self._registers[_SPI_W0] = answers.get(command, 0) & ((1 << bits) - 1)
        self._registers[_SPI_CMD] = 0  # done

    def _attach(self, command: int, data: bytes) -> None:
        if len(data) != (4 if self.mode == "stub" else 8):
            self._answer(command, error=INVALID_MESSAGE)
            return
        self._attached = True
        self._answer(command)

    def _set_params(self, command: int, data: bytes) -> None:
        struct.unpack("<6I", data)
        self._answer(command)

    def _change_baudrate(self, command: int, data: bytes) -> None:
        new, _ = struct.unpack("<II", data)
        self._answer(command)
        self.baudrate = new

    def _memory_begin(self, command: int, data: bytes) -> None:
        size, _, _, start = struct.unpack("<IIII", data)
        self._loading = (start, size, 0)
        self._answer(command)

    def _memory_data(self, command: int, data: bytes) -> None:
        if self._loading is None:
            self._answer(command, error=FAILED_TO_ACT)
            return
        start, size, done = self._loading
        done += len(data) - 16
        self._loading = (start, size, done)
        if done >= size:
            self._ram.append((start, start + size))
            self._loading = None
        self._answer(command)

    def _memory_end(self, command: int, data: bytes) -> None:
        stay, entry = struct.unpack("<II", data)
        self._answer(command)
        if not stay and any(start <= entry < end for start, end in self._ram):
            self.mode = "stub"
            self._attached = True  # the stub attaches the flash before it greets
            self.send(slip(b"OHAI"))

    def _flash_begin(self, command: int, data: bytes) -> None:
        size, blocks, block, offset = struct.unpack_from("<IIII", data)
        if size and not self._attached:
            self._answer(command, error=FAILED_TO_ACT)
            return
        if offset + size > min(self.flash_octets, _FLASH_TOP):
            self._answer(command, error=FAILED_TO_ACT)
            return
        self._write = (offset, size if command == FLASH_DEFL_BEGIN else blocks * block, block, 0)
        self._inflate = zlib.decompressobj() if command == FLASH_DEFL_BEGIN else None
        self._erase(offset, size)
        self._answer(command)

    def _flash_data(self, command: int, data: bytes) -> None:
        if self._write is None or (self._inflate is None) != (command == FLASH_DATA):
            self._answer(command, error=FAILED_TO_ACT)
            return
        plain = data[16:]
        if self._inflate is not None:
            try:
                plain = self._inflate.decompress(plain)
            except zlib.error:
                self._answer(command, error=DEFLATE_ERROR)
                return
        offset, size, block, done = self._write
        # A plain block has its place by its number: one that is sent again is written again.
        at = done if self._inflate is not None else int.from_bytes(data[4:8], "little") * block
        if at + len(plain) > size:
            self._answer(command, error=FAILED_TO_ACT)
            return
        self._program(offset + at, plain)
        self._write = (offset, size, block, at + len(plain))
        self._answer(command)

    def _flash_end(self, command: int, data: bytes) -> None:
        (stay,) = struct.unpack("<I", data)
        self._write = None
        self._answer(command)
        if command != FLASH_END:
            return
        if not stay:
            # A restart by software reads no pins again: out of the stub it leads to the ROM loader.
            self.reset(download=self.mode == "stub")

    def _md5(self, command: int, data: bytes) -> None:
        offset, size = struct.unpack_from("<II", data)
        digest = hashlib.md5(self.flash[offset : offset + size])
        stub = self.mode == "stub"
        self._answer(command, data=digest.digest() if stub else digest.hexdigest().encode())

    def _read_slow(self, command: int, data: bytes) -> None:
        offset, size = struct.unpack("<II", data)
        self._answer(command, data=self.flash[offset : offset + min(size, 64)].ljust(64, b"\0"))

    def _erase_flash(self, command: int, data: bytes) -> None:
        self._erase(0, self.flash_octets)
        self._answer(command)

    def _erase_region(self, command: int, data: bytes) -> None:
        offset, size = struct.unpack("<II", data)
        bad = offset % SECTOR or size % SECTOR or offset + size > self.flash_octets
        if not bad:
            self._erase(offset, size)
        self._answer(command, error=0xC3 if bad else 0)

    def _read_flash(self, command: int, data: bytes) -> None:
        offset, size, packet, window = struct.unpack("<IIII", data)
        self._answer(command)
        self._dump = [offset, size, packet, window, 0, 0]
        self._pump()

    def _pump(self) -> None:
        assert self._dump is not None
        offset, size, packet, window, sent, acknowledged = self._dump
        while sent < size and sent - acknowledged < packet * window:
            part = self.flash[offset + sent : offset + min(sent + packet, size)]
            self.send(slip(part))
            sent += len(part)
        self._dump[4] = sent

    def _acknowledged(self, packet: bytes) -> None:
        assert self._dump is not None
        offset, size = self._dump[:2]
        self._dump[5] = int.from_bytes(packet[:4], "little")
        if self._dump[5] < size:
            self._pump()
        else:
            self.send(slip(hashlib.md5(self.flash[offset : offset + size]).digest()))
            self._dump = None

    def _run_user_code(self, command: int, data: bytes) -> None:
        self.reset(download=False)

    # --- NOR flash --------------------------------------------------------------------------------

    def _erase(self, offset: int, size: int) -> None:
        start = offset // SECTOR * SECTOR
        end = -(-(offset + size) // SECTOR) * SECTOR
        self.flash[start:end] = b"\xff" * (end - start)
        self._stick()

    def _program(self, offset: int, data: bytes) -> None:
        """Clear bits, as NOR flash does; only erasing sets them."""
        end = offset + len(data)
        both = int.from_bytes(self.flash[offset:end], "little") & int.from_bytes(data, "little")
        self.flash[offset:end] = both.to_bytes(len(data), "little")
        self._stick()

    def _stick(self) -> None:
        for address in self.faults.stuck_bits:
            self.flash[address] = 0


_COMMANDS: dict[int, Callable[[Chip, int, bytes], None]] = {
    FLASH_BEGIN: Chip._flash_begin,
    FLASH_DATA: Chip._flash_data,
    FLASH_END: Chip._flash_end,
    MEM_BEGIN: Chip._memory_begin,
    MEM_END: Chip._memory_end,
    MEM_DATA: Chip._memory_data,
    SYNC: Chip._sync,
    WRITE_REG: Chip._write_register,
    READ_REG: Chip._read_register,
    SPI_SET_PARAMS: Chip._set_params,
    SPI_ATTACH: Chip._attach,
    READ_FLASH_SLOW: Chip._read_slow,
    CHANGE_BAUDRATE: Chip._change_baudrate,
    FLASH_DEFL_BEGIN: Chip._flash_begin,
    FLASH_DEFL_DATA: Chip._flash_data,
    FLASH_DEFL_END: Chip._flash_end,
    SPI_FLASH_MD5: Chip._md5,
    GET_SECURITY_INFO: Chip._security_info,
    ERASE_FLASH: Chip._erase_flash,
    ERASE_REGION: Chip._erase_region,
    READ_FLASH: Chip._read_flash,
    RUN_USER_CODE: Chip._run_user_code,
}
