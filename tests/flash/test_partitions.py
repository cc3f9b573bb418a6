"""Partition tables: the documented binary form, and faults named before anything is written."""

import pytest

from haaro_host.flash import boards, partitions
from haaro_host.flash.errors import BadInputError
from haaro_host.flash.partitions import Partition

MEGABYTE = 1 << 20


def _published() -> bytes:
    rows = (
        b"\xaa\x50\x00\x00\x00\x00\x01\x00\x00\x00\x10\x00" + b"factory".ljust(16, b"\0"),
        b"\xaa\x50\x01\x20\x00\x00\x11\x00\x00\x02\x00\x00" + b"data".ljust(16, b"\0"),
        b"\xaa\x50\x10\x00\x00\x00\x15\x00\x00\x10\x00\x00" + b"second".ljust(16, b"\0"),
    )
    return b"".join(row + bytes(4) for row in rows)


def read(tmp_path, text, octets=16 * MEGABYTE):
    path = tmp_path / "partitions.csv"
    path.write_text(text)
    return partitions.read_csv(path, octets)


def test_the_binary_is_that_of_esp_idfs_own_test(tmp_path):
    """components/partition_table/test_gen_esp32part_host: LONGER_BINARY_TABLE with its MD5."""
    digest = bytes.fromhex("f9bd061b45686f86571a2cd52a1da65b")
    rows = [
        Partition("factory", 0, 0, 0x10000, MEGABYTE),
        Partition("data", 1, 0x20, 0x110000, 0x200),
        Partition("second", 0x10, 0, 0x150000, 0x1000),
    ]
    made = partitions.Table("x", tuple(rows)).binary()
    assert made[:96] == _published()
    assert made[96:112] == b"\xeb\xeb" + b"\xff" * 14
    assert made[112:128] == digest
    assert len(made) == 0xC00
    assert set(made[128:]) == {0xFF}
    assert partitions.read_binary("x", made) == rows


def test_a_table_goes_to_binary_and_back():
    for name in ("ESP32_S3_W5500", "ESP32_W5500"):
        board = boards.load(name)
        assert partitions.read_binary("x", board.table.binary()) == list(board.table.rows)


def test_offsets_left_out_follow_each_other_and_applications_are_aligned(tmp_path):
    table = read(tmp_path, "nvs,data,nvs,,24K\nfactory,app,factory,,1M,\nvfs,data,fat,,0x10000,\n")
    assert [(row.label, row.offset) for row in table.rows] == [
        ("nvs", 0x9000), ("factory", 0x10000), ("vfs", 0x110000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,data,nvs,0x9000,0x2000\nb,data,fat,0xA000,0x1000\n", "inside a, which ends at 0xb000"),
        ("a,data,nvs,0x8000,0x1000\n", "inside partition table"),
        ("a,app,ota_0,0x11000,0x10000\n", "multiples of 0x10000"),
        ("a,data,fat,0x10000,0x1800\n", "multiples of 0x1000"),
        ("a,data,fat,0x10000,16M\n", "make it smaller"),
        ("a,data,nvs,0x9000,0x1000\na,data,fat,0xA000,0x1000\n", "two partitions are called a"),
        ("a,data,ota_0,0x9000,0x1000\n", "partitions.csv:1: subtype 'ota_0'"),
        ("a,program,ota_0,0x9000,0x1000\n", "partitions.csv:1: type 'program'"),
        ("a,data,nvs,here,0x1000\n", "offset 'here'"),
        ("a,data,nvs,0x9000,\n", "size ''"),
        ("a,data,nvs,0x9000,0x1000,secret\n", "flags 'secret'"),
        ("a,data\n", "2 cells"),
        ("a_very_long_label,data,nvs,,0x1000\n", "1 to 15"),
        ("# nothing\n", "0 partitions"),
    ],
)
def test_a_wrong_table_is_refused_by_its_fault(tmp_path, text, said):
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert caught.value.code == 2


def test_a_binary_with_a_wrong_md5_or_no_table_is_refused():
    made = bytearray(boards.load("ESP32_W5500").table.binary())
    made[5] ^= 1
    with pytest.raises(BadInputError, match="MD5"):
        partitions.read_binary("x.bin", bytes(made))
    with pytest.raises(BadInputError, match="no partition table"):
        partitions.read_binary("x.bin", b"\xff" * 0xC00)


def test_a_board_boots_where_micropythons_own_firmware_does():
    """Same offset of table and first slot, so any firmware for the chip boots with it."""
    for name in ("ESP32_S3_W5500", "ESP32_W5500"):
        table = boards.load(name).table
        assert table.find("ota_0").offset == 0x10000
        assert table.find("ota_0").size == table.find("ota_1").size
        assert (table.find("otadata").size, table.find("otadata").subtype) == (0x2000, 0)
        assert table.rows[-1].end == boards.load(name).flash_octets
    with pytest.raises(BadInputError, match="it has nvs, otadata"):
        table.find("spiffs")
