"""The simulated chip against what WIZnet publishes: octets of the datasheet and order of ioLibrary.

No driver of ours is used here.
"""

import pytest

from tests.w5500_sim.chip import W5500

MAC = bytes.fromhex("0008dc010203")  # the MAC that WIZnet's examples set
BROADCAST = b"\xff" * 6


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def wire():
    return []


@pytest.fixture
def chip(clock, wire):
    made = W5500(wire.append, clock)
    clock.now += 0.01
    return made


def spi(chip, octets: str, reads: int = 0) -> bytes:
    """One SPI frame: what is clocked out, then how many octets are read."""
    chip.select(0)
    chip.transfer(bytes.fromhex(octets))
    read = chip.transfer(bytes(reads))
    chip.select(1)
    return read


def open_macraw(chip, mode: str = "04") -> None:
    """The order of ioLibrary's socket(): Sn_MR, Sn_CR = OPEN, wait for 0, wait for Sn_SR."""
    spi(chip, "0009 04" + MAC.hex())
    spi(chip, "0000 0c" + mode)
    spi(chip, "0001 0c 01")
    assert spi(chip, "0001 08", 1) == b"\x00"
    assert spi(chip, "0003 08", 1) == b"\x42"


def frame(destination: bytes, octets: int = 60, kind: bytes = b"\x08\x00") -> bytes:
    return destination + bytes.fromhex("020000000001") + kind + bytes(octets - 14)


def test_the_version_is_read_by_00_39_00(chip):
    assert spi(chip, "0039 00", 1) == b"\x04"


def test_the_registers_after_reset_are_those_of_chapter_4(chip):
    assert spi(chip, "0019 00", 3) == bytes.fromhex("07d008")
    assert spi(chip, "002e 00", 1)[0] & 0xF8 == 0xB8
    assert spi(chip, "001e 08", 4) == bytes.fromhex("02020800")
    assert spi(chip, "0016 08", 1) == b"\x80"
    assert spi(chip, "002c 08", 3) == bytes.fromhex("ff4000")


def test_octets_that_follow_go_to_the_next_address_until_cs_is_high(chip):
    spi(chip, "000f 04 c0a80102")
    assert spi(chip, "000f 00", 4) == bytes.fromhex("c0a80102")
    # The second octet of the address, as WIZnet's forum explains the frame.
    assert spi(chip, "0010 00", 1) == b"\xa8"


def test_fixed_length_frames_need_no_chip_select(chip):
    """2.4: with one, two or four octets the next octet after them is an address again."""
    chip.select(0)
    chip.transfer(bytes.fromhex("000f 06 c0a8  0011 06 0102"))
    assert chip.transfer(bytes.fromhex("000f 03 00000000"))[3:] == bytes.fromhex("c0a80102")


def test_each_socket_has_its_own_block(chip):
    for number in range(8):
        control = number << 5 | 0x0C
        spi(chip, f"0004 {control:02x} 1f9{number}")
    for number in range(8):
        control = number << 5 | 0x08
        assert spi(chip, f"0004 {control:02x}", 2) == bytes((0x1F, 0x90 | number))


def test_read_only_registers_keep_their_value(chip):
    spi(chip, "0039 04 55")
    assert spi(chip, "0039 00", 1) == b"\x04"
    spi(chip, "0003 0c 42")
    assert spi(chip, "0003 08", 1) == b"\x00"


def test_macraw_opens_on_socket_0_only(chip):
    open_macraw(chip)
    spi(chip, "0000 2c 04")
    spi(chip, "0001 2c 01")
    assert spi(chip, "0003 28", 1) == b"\x00"


def test_a_received_frame_lies_behind_its_length_which_counts_itself(chip):
    open_macraw(chip)
    sent = frame(MAC, 64)
    chip.frame_in(sent)
    assert spi(chip, "0026 08", 2) == (66).to_bytes(2, "big")
    assert spi(chip, "0028 08", 2) == b"\x00\x00"
    assert spi(chip, "0000 18", 66) == (66).to_bytes(2, "big") + sent
    spi(chip, "0028 0c 0042")
    # Nothing changes before RECV is ordered.
    assert spi(chip, "0026 08", 2) == (66).to_bytes(2, "big")
    spi(chip, "0001 0c 40")
    assert spi(chip, "0026 08", 2) == b"\x00\x00"


def test_the_ring_begins_again_at_its_size_and_pointers_at_16_bits(chip, clock, wire):
    chip = W5500(wire.append, clock, first=0xFFC0)
    clock.now += 0.01
    open_macraw(chip)
    sent = frame(MAC, 100)
    chip.frame_in(sent)
    assert spi(chip, "0028 08", 2) == b"\xff\xc0"
    assert spi(chip, "ffc0 18", 102)[2:] == sent
    assert spi(chip, "002a 08", 2) == bytes.fromhex("0026")
    spi(chip, "ffc0 14" + sent.hex())
    spi(chip, "0024 0c 0024")
    spi(chip, "0001 0c 20")
    assert wire == [sent]


def test_send_sends_from_tx_rd_to_tx_wr_and_sets_sendok(chip, wire):
    open_macraw(chip)
    sent = frame(BROADCAST, 60)
    assert spi(chip, "0020 08", 2) == bytes.fromhex("0800")
    spi(chip, "0000 14" + sent.hex())
    spi(chip, "0024 0c 003c")
    assert spi(chip, "0020 08", 2) == (2048 - 60).to_bytes(2, "big")
    spi(chip, "0001 0c 20")
    assert wire == [sent]
    assert spi(chip, "0002 08", 1) == b"\x10"
    assert spi(chip, "0022 08", 2) == bytes.fromhex("003c")
    spi(chip, "0002 0c 10")
    assert spi(chip, "0002 08", 1) == b"\x00"


@pytest.mark.parametrize(
    ("mode", "destination", "kind", "passes"),
    [
        ("04", bytes.fromhex("0008dc010204"), b"\x08\x00", True),
        ("84", bytes.fromhex("0008dc010204"), b"\x08\x00", False),
        ("84", MAC, b"\x08\x00", True),
        ("84", BROADCAST, b"\x08\x00", True),
        ("c4", BROADCAST, b"\x08\x00", False),
        ("84", bytes.fromhex("01005e000001"), b"\x08\x00", True),
        ("a4", bytes.fromhex("01005e000001"), b"\x08\x00", False),
        ("14", MAC, b"\x86\xdd", False),
        ("04", MAC, b"\x86\xdd", True),
    ],
)
def test_the_filters_of_macraw(chip, mode, destination, kind, passes):
    open_macraw(chip, mode)
    chip.frame_in(frame(destination, 60, kind))
    assert (spi(chip, "0026 08", 2) != b"\x00\x00") is passes


def test_a_frame_without_room_is_dropped_whole(chip):
    open_macraw(chip)
    for _ in range(3):
        chip.frame_in(frame(MAC, 1000))
    assert spi(chip, "0026 08", 2) == (2004).to_bytes(2, "big")
    assert chip.dropped_full == 1


def test_int_is_low_while_an_unmasked_interrupt_stands(chip):
    open_macraw(chip)
    chip.frame_in(frame(MAC))
    assert chip.interrupt() == 1  # SIMR is 0 after reset
    spi(chip, "0018 04 01")
    assert chip.interrupt() == 0
    assert spi(chip, "0017 00", 1) == b"\x01"
    spi(chip, "0002 0c 04")
    assert chip.interrupt() == 1
    chip.frame_in(frame(MAC))
    spi(chip, "002c 0c 00")
    assert chip.interrupt() == 1


def test_reset_by_mr_and_by_rst(chip, clock):
    open_macraw(chip)
    spi(chip, "0000 04 80")
    clock.now += 0.002
    assert spi(chip, "0003 08", 1) == b"\x00"
    assert spi(chip, "0009 00", 6) == bytes(6)
    open_macraw(chip)
    chip.reset_pin(0)
    clock.now += 0.0004
    chip.reset_pin(1)
    assert chip.short_resets == 1
    assert spi(chip, "0003 08", 1) == b"\x42"
    chip.reset_pin(0)
    clock.now += 0.0006
    chip.reset_pin(1)
    # The PLL is not locked yet.
    assert spi(chip, "0039 00", 1) == b"\x00"
    clock.now += 0.0011
    assert spi(chip, "0039 00", 1) == b"\x04"
    assert spi(chip, "0003 08", 1) == b"\x00"


def test_phycfgr_tells_the_link(chip, clock):
    assert spi(chip, "002e 00", 1)[0] & 1 == 1
    chip.plug(False)
    assert spi(chip, "002e 00", 1)[0] & 1 == 0
    open_macraw(chip)
    spi(chip, "0000 14" + frame(MAC).hex())
    spi(chip, "0024 0c 003c")
    spi(chip, "0001 0c 20")
    assert spi(chip, "0002 08", 1) == b"\x00"


def test_the_received_size_may_change_between_its_two_octets(chip):
    """The note at Sn_RX_RSR: that is why it is read until two readings agree."""
    open_macraw(chip)
    spi(chip, "001e 0c 10")
    chip.frame_in(frame(MAC, 254))
    assert spi(chip, "0026 08", 2) == (256).to_bytes(2, "big")
    chip.between = lambda: (
        chip.frame_in(frame(MAC, 254)) if chip.sockets[0].received < 512 else None
    )
    assert spi(chip, "0026 08", 2) == bytes.fromhex("0100")
    chip.between = None
    assert spi(chip, "0026 08", 2) == (512).to_bytes(2, "big")
