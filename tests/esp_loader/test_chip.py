"""The loader simulator, octet by octet: frames as documented and as published traces have them."""

import hashlib
import re
import struct
import zlib
from pathlib import Path

import pytest

from tests.esp_loader import chip as protocol
from tests.esp_loader.chip import Chip, checksum, slip

FOLDER = Path(__file__).parent
# A SYNC as traces of esptool have it: header, 07 07 12 20, 32 times 55.
SYNC_FRAME = bytes.fromhex("c0000824000000000007071220" + "55" * 32 + "c0")


class Talk:
    """The other end of the line."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.heard = bytearray()
        chip.send = self.heard.extend

    def frames(self) -> list[bytes]:
        """Everything heard since the last call, unframed."""
        parts = [part for part in bytes(self.heard).split(b"\xc0") if part]
        self.heard.clear()
        return [p.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb") for p in parts]

    def ask(self, command: int, data: bytes = b"", check: int = 0) -> tuple[int, bytes, int, int]:
        """(value, data, status, error) of the one answer to a command."""
        self.chip.feed(slip(struct.pack("<BBHI", 0, command, len(data), check) + data))
        frame = self.frames()[0]
        direction, answered, size, value = struct.unpack_from("<BBHI", frame)
        assert (direction, answered, size) == (1, command, len(frame) - 8)
        tail = 2 if self.chip.mode == "stub" else 4
        return value, frame[8:-tail], frame[-tail], frame[-tail + 1]

    def block(self, command: int, data: bytes, number: int = 0) -> tuple[int, int]:
        """(status, error) of a data packet."""
        body = struct.pack("<IIII", len(data), number, 0, 0) + data
        return self.ask(command, body, checksum(data))[2:]

    def load_stub(self) -> None:
        """Upload something and start it, as the documentation tells to."""
        assert self.ask(protocol.MEM_BEGIN, struct.pack("<IIII", 8, 1, 0x1800, 0x40378000))[2] == 0
        assert self.block(protocol.MEM_DATA, b"12345678") == (0, 0)
        entry = struct.pack("<II", 0, 0x40378000)
        self.chip.feed(slip(struct.pack("<BBHI", 0, protocol.MEM_END, 8, 0) + entry))
        assert self.frames()[-1] == b"OHAI"


@pytest.fixture
def talk(chip):
    return Talk(chip)


def test_a_published_sync_frame_is_answered_eight_times_by_the_rom(chip, talk):
    chip.feed(SYNC_FRAME)
    # Direction 1, command 8, 4 octets of status, a value that is not 0.
    assert talk.frames() == [bytes.fromhex("01080400" + "07071220" + "00000000")] * 8


def test_a_sync_with_other_data_is_not_answered(chip, talk):
    chip.feed(SYNC_FRAME.replace(b"\x07\x07\x12\x20", b"\x07\x07\x12\x21"))
    assert talk.frames() == []


def test_noise_before_a_frame_and_a_frame_in_pieces_do_no_harm(chip, talk):
    chip.feed(b"ets Jun  8 2016\r\n\xdb")
    for octet in SYNC_FRAME:
        chip.feed(bytes((octet,)))
    assert len(talk.frames()) == 8


def test_frame_signs_inside_a_packet_are_escaped_both_ways(chip, talk):
    talk.load_stub()
    data = b"\xc0\xdb\xdc\xdd" * 4
    assert slip(b"\xc0\xdb") == bytes.fromhex("c0dbdcdbddc0")
    assert talk.ask(protocol.FLASH_BEGIN, struct.pack("<IIIII", 16, 1, 16, 0x1000, 0))[2] == 0
    assert talk.block(protocol.FLASH_DATA, data) == (0, 0)
    assert chip.flash[0x1000:0x1010] == data
    read = struct.pack("<IIII", 0x1000, 16, 0x1000, 64)
    chip.feed(slip(struct.pack("<BBHI", 0, protocol.READ_FLASH, 16, 0) + read))
    assert talk.frames()[1] == data


def test_the_checksum_is_the_documented_one():
    """Seed 0xEF, XOR of each octet."""
    for data in (b"", b"\x00", b"\x01\x02\x04", bytes(range(256)) * 3 + b"\x5a"):
        expected = 0xEF
        for octet in data:
            expected ^= octet
        assert checksum(data) == expected


def test_a_data_packet_with_a_wrong_checksum_is_refused_and_not_written(chip, talk):
    talk.load_stub()
    talk.ask(protocol.FLASH_BEGIN, struct.pack("<IIIII", 4, 1, 4, 0, 0))
    body = struct.pack("<IIII", 4, 0, 0, 0) + b"abcd"
    assert talk.ask(protocol.FLASH_DATA, body, 0x55)[2:] == (1, 0x07)
    assert chip.flash[:4] == b"\xff" * 4


def test_the_rom_answers_four_octets_of_status_and_hexadecimal_md5_the_stub_two_and_raw(chip, talk):
    digest = hashlib.md5(b"\xff" * 4096)
    where = struct.pack("<IIII", 0, 4096, 0, 0)
    assert talk.ask(protocol.SPI_FLASH_MD5, where)[1] == digest.hexdigest().encode()
    talk.load_stub()
    assert talk.ask(protocol.SPI_FLASH_MD5, where)[1] == digest.digest()


def test_the_stub_starts_only_where_something_was_uploaded_in_full(chip, talk):
    talk.ask(protocol.MEM_BEGIN, struct.pack("<IIII", 16, 2, 8, 0x40378000))
    assert talk.block(protocol.MEM_DATA, b"12345678") == (0, 0)
    assert talk.ask(protocol.MEM_END, struct.pack("<II", 0, 0x40378000))[2] == 0
    assert chip.mode == "rom", "half of it is missing"
    talk.load_stub()
    assert chip.mode == "stub"


def test_commands_of_the_stub_are_refused_by_the_rom(chip, talk):
    assert talk.ask(protocol.ERASE_FLASH)[2:] == (1, protocol.INVALID_MESSAGE)
    assert talk.ask(0x77)[2:] == (1, protocol.INVALID_MESSAGE)


def test_the_rom_wants_the_flash_attached_first(chip, talk):
    begin = struct.pack("<IIIII", 16, 1, 16, 0, 0)
    assert talk.ask(protocol.FLASH_BEGIN, begin)[2:] == (1, protocol.FAILED_TO_ACT)
    talk.ask(protocol.SPI_ATTACH, bytes(8))
    assert talk.ask(protocol.FLASH_BEGIN, begin)[2:] == (0, 0)


def test_programming_clears_bits_and_only_erasing_sets_them(chip, talk):
    talk.load_stub()
    chip.flash[0x2000] = 0xF0
    chip._program(0x2000, b"\x3c")
    assert chip.flash[0x2000] == 0x30
    assert talk.ask(protocol.ERASE_REGION, struct.pack("<II", 0x2000, 0x1000))[2] == 0
    assert chip.flash[0x2000] == 0xFF
    assert talk.ask(protocol.ERASE_REGION, struct.pack("<II", 0x2001, 0x1000))[2] == 1


def test_deflated_data_is_inflated_and_bad_data_is_refused(chip, talk):
    talk.load_stub()
    data = bytes(5000)
    packed = zlib.compress(data, 9)
    begin = struct.pack("<IIIII", len(data), 1, 0x4000, 0x3000, 0)
    talk.ask(protocol.FLASH_DEFL_BEGIN, begin)
    assert talk.block(protocol.FLASH_DEFL_DATA, packed) == (0, 0)
    assert chip.flash[0x3000 : 0x3000 + 5000] == data
    talk.ask(protocol.FLASH_DEFL_BEGIN, begin)
    assert talk.block(protocol.FLASH_DEFL_DATA, b"not deflated") == (1, protocol.DEFLATE_ERROR)
    talk.ask(protocol.FLASH_DEFL_BEGIN, struct.pack("<IIIII", 100, 1, 0x4000, 0x3000, 0))
    assert talk.block(protocol.FLASH_DEFL_DATA, packed) == (1, protocol.FAILED_TO_ACT), "too much"


def test_nothing_is_written_behind_the_flash(chip, talk):
    talk.load_stub()
    begin = struct.pack("<IIIII", 0x2000, 1, 0x2000, (16 << 20) - 0x1000, 0)
    assert talk.ask(protocol.FLASH_BEGIN, begin)[2:] == (1, protocol.FAILED_TO_ACT)


def test_the_flash_stays_in_its_file(chip, talk, tmp_path):
    talk.load_stub()
    talk.ask(protocol.FLASH_BEGIN, struct.pack("<IIIII", 4, 1, 4, 0x5000, 0))
    talk.block(protocol.FLASH_DATA, b"kept")
    again = Chip(tmp_path / "flash.bin")
    assert again.flash[0x5000:0x5004] == b"kept"
    again.close()


def test_an_application_answers_no_loader_commands(chip, talk):
    started = []
    chip.started = lambda: started.append(True)
    chip.reset(download=False)
    chip.feed(SYNC_FRAME)
    assert (started, talk.frames()) == ([True], [])


def test_the_simulator_shares_no_code_with_what_is_tested():
    for path in FOLDER.glob("*.py"):
        assert not re.search(r"^(from|import) haaro", path.read_text(), re.M), path
