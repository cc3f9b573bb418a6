"""`make firmware`, `make image`: what is built fits, is the same twice, runs on MicroPython."""

import json
import shutil
import subprocess
import threading

import pytest

from haaro_host.flash import boards, build, filesystem, merge
from haaro_host.flash.errors import BadInputError
from haaro_host.lab import system
from tests.flash.conftest import PICO, PLAIN, S3, micropython, mount_command
from tests.fleet.test_export import MICROPYTHON

BOTH = pytest.mark.parametrize("name", [S3, PLAIN])


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_the_same_tree_makes_the_same_octets(firmware, tmp_path):
    name = PLAIN
    again = build.build(boards.load(name), tmp_path / "again")
    assert again == manifest(firmware[name])
    for part in ("vfs.bin", "partitions.bin"):
        assert (tmp_path / "again" / part).read_bytes() == (firmware[name] / part).read_bytes()


@BOTH
def test_the_manifest_says_what_is_there_and_where_it_goes(firmware, name):
    board, folder = boards.load(name), firmware[name]
    said = manifest(folder)
    assert (said["board"], said["mpy"]["arch"]) == (name, "xtensawin")
    assert [row["offset"] for row in said["parts"]] == [0x8000, board.table.find("vfs").offset]
    for row in said["parts"]:
        assert build.described((folder / row["path"]).read_bytes()).items() <= row.items()
    for row in said["files"]:
        data = (folder / "files" / row["path"]).read_bytes()
        assert build.described(data).items() <= row.items()
        # Octet 2 of a .mpy: its processor, 0 any, 10 xtensawin. Only the viper leaves have one.
        if row["path"].endswith(".mpy"):
            arch = 10 if "_viper" in row["path"] else 0
            assert (data[:1], data[2] >> 2) == (b"M", arch), row["path"]
    assert (
        said["filesystem"]["used"]
        < said["filesystem"]["octets"]
        == (folder / "vfs.bin").stat().st_size
    )


@BOTH
def test_the_image_is_born_with_a_whole_program_in_slot_a(firmware, name):
    """What an update has to find: the board, the .mpy form, every file with its hash."""
    slot = firmware[name] / "files" / "slots" / "a"
    entries = {}
    about = {}
    for line in (slot / "manifest").read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "file":
            size, _, digest, path = rest.split()
            entries[path] = {"size": int(size), "sha256": digest}
        else:
            about[kind] = rest
    files = [path for path in slot.rglob("*") if path.is_file() and path.name != "manifest"]
    assert entries == {
        path.relative_to(slot).as_posix(): build.described(path.read_bytes()) for path in files
    }
    assert {"haaro_router.mpy", "haaro_device.mpy"} <= set(entries)
    assert (about["board"], about["mpy"].split()[1]) == (name, "xtensawin")
    boot = (firmware[name] / "files" / "main.py").read_bytes()
    assert boot == (system.firmware().parent / "boot.py").read_bytes()


@BOTH
def test_no_path_of_the_machine_is_in_the_image(source, firmware, name):
    image = (firmware[name] / "vfs.bin").read_bytes()
    for path in (source, firmware[name].parent, system.repository()):
        assert str(path).encode() not in image


@BOTH
def test_micropython_mounts_the_image_and_finds_every_file(firmware, name):
    place = boards.load(name).table.find("vfs")
    status, lines = micropython(firmware[name] / "vfs.bin", 0, place.size, "list")
    assert status == 0, lines
    expected = {f"{row['path']} {row['size']}" for row in manifest(firmware[name])["files"]}
    assert set(lines) == expected


@BOTH
def test_micropython_imports_every_module_of_the_image(firmware, name):
    """What a module imports is in the image; machine code for another processor is refused."""
    place = boards.load(name).table.find("vfs")
    status, lines = micropython(firmware[name] / "vfs.bin", 0, place.size, "import")
    assert status == 0, lines
    slot = firmware[name] / "files" / "slots" / "a"
    native = [path for path in slot.rglob("*.mpy") if path.read_bytes()[2] >> 2]
    expected = [f"refused {p.relative_to(slot).with_suffix('')}".replace("/", ".") for p in native]
    assert sorted(lines) == sorted(expected) != []


def test_a_board_without_psram_is_not_given_what_its_port_cannot_have(firmware):
    """Nor what needs a radio, a second slot or a hash of ours where its board has no use for it."""
    names = {n: {p.stem for p in (firmware[n] / "files").rglob("*.mpy")} for n in (S3, PLAIN, PICO)}
    for name in (PLAIN, PICO):
        assert names[name] < names[S3]
        foreign = ("linux", "kernel", "netlink", "control")
        assert not [each for each in names[name] if each.startswith(foreign)]
        assert {"lwip", "w5500", "leaves_viper", "uart_modem"} <= names[name]
    some = {"wlan", "improv", "updater", "ed25519", "pure_hash"}
    assert names[PLAIN] & some == {"wlan", "improv"}
    assert names[PICO] & some == {"updater", "ed25519", "pure_hash"}
    assert names[S3] > some | {"linux", "lwip", "control"}


def test_an_image_without_a_sites_files_boots_into_the_console(firmware):
    place = boards.load(S3).table.find("vfs")
    command = mount_command(firmware[S3] / "vfs.bin", 0, place.size, "boot")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as box:
        overdue = threading.Timer(30, box.kill)
        overdue.start()
        try:
            box.stdin.write("status\n")
            box.stdin.flush()
            said = []
            for line in box.stdout:
                said.append(line.strip())
                if said[-1] == "ok":
                    break
        finally:
            overdue.cancel()
            box.kill()
    assert "state: not provisioned" in said, said


def test_on_another_platform_main_says_what_it_lacks_and_ends(source):
    program = (source / "firmware" / "device_main.py").read_text()
    done = subprocess.run(
        [MICROPYTHON, "-c", program.replace("sys.platform", repr("esp32"))],
        capture_output=True, text=True, timeout=30,
        env={"MICROPYPATH": str(source / "firmware")},
    )  # fmt: skip
    assert done.returncode == 0
    assert "'esp32' has no buses or sockets" in done.stdout


def test_micropython_goes_on_writing_to_the_filesystem(firmware, tmp_path):
    place = boards.load(PLAIN).table.find("vfs")
    image = tmp_path / "vfs.bin"
    image.write_bytes((firmware[PLAIN] / "vfs.bin").read_bytes())
    assert micropython(image, 0, place.size, "write")[0] == 0
    assert "written.txt 14" in micropython(image, 0, place.size, "list")[1]


@pytest.mark.parametrize("unit", [32, 256], ids=["esp32", "rp2"])
def test_an_empty_filesystem_is_what_micropython_formats_itself(tmp_path, unit):
    """The superblock holds the parameters; MicroPython's mkfs writes the same octets."""
    octets = 64 * filesystem.BLOCK
    blank = tmp_path / "blank.bin"
    blank.write_bytes(b"\xff" * octets)
    assert micropython(blank, 0, octets, "format", unit) == (0, [])
    assert blank.read_bytes() == filesystem.image({}, octets, "it", unit)


def test_runs_are_all_that_is_not_blank():
    data = bytearray(b"\xff" * (10 * filesystem.BLOCK))
    data[filesystem.BLOCK + 5] = 1
    data[2 * filesystem.BLOCK] = 2
    data[-1] = 3
    found = list(filesystem.runs(bytes(data)))
    assert [(offset, len(part)) for offset, part in found] == [
        (filesystem.BLOCK, 2 * filesystem.BLOCK), (9 * filesystem.BLOCK, filesystem.BLOCK),
    ]  # fmt: skip
    rebuilt = bytearray(b"\xff" * len(data))
    for offset, part in found:
        rebuilt[offset : offset + len(part)] = part
    assert rebuilt == data


def test_what_does_not_fit_is_said_with_both_sizes():
    with pytest.raises(
        BadInputError, match=r"1 files of 70000 octets do not fit into vfs of 65536"
    ):
        filesystem.image({"a": bytes(70_000)}, 65536, "vfs")


def test_a_changed_file_or_another_board_is_refused(firmware, tmp_path):
    board = boards.load(PLAIN)
    shutil.copytree(firmware[PLAIN], tmp_path / "b")
    with pytest.raises(BadInputError, match="make firmware BOARD=ESP32_S3_W5500"):
        build.load(boards.load(S3), tmp_path / "b")
    target = tmp_path / "b" / "files" / "slots" / "a" / "haaro" / "core" / "router.mpy"
    target.write_bytes(target.read_bytes() + b"x")
    with pytest.raises(BadInputError, match=r"router\.mpy: is not what manifest\.json says"):
        build.load(board, tmp_path / "b")
    with pytest.raises(BadInputError, match="make firmware"):
        build.load(board, tmp_path / "nothing")


def test_the_command_names_what_it_made_and_what_is_wrong(capsys, tmp_path):
    assert build.main([PLAIN, str(tmp_path / "b")]) == 0
    assert "octets of .mpy (xtensawin)" in capsys.readouterr().out
    for words in ([], [""], ["NO_SUCH_BOARD"], ["../x"], ["UNIX"]):
        assert build.main(words) == 2
        assert "A fatal error occurred: " in capsys.readouterr().err


# --- make image -----------------------------------------------------------------------------------


@BOTH
def test_a_merged_image_has_micropython_our_table_and_our_files(
    firmware, micropython_bin, tmp_path, name
):
    board = boards.load(name)
    whole = merge.merged(board, micropython_bin[name], firmware[name])
    place = board.table.find("vfs")
    start = board.chip.bootloader_offset
    theirs = micropython_bin[name].read_bytes()
    assert len(whole) == board.flash_octets
    assert whole[0x8000:0x8C00] == board.table.binary()
    assert whole[0x10000 : 0x10000 + 4096] == theirs[0x10000 - start :][:4096]
    # esptool notes the flash's size in the bootloader's header: 4 MB is 2, 16 MB is 4.
    assert whole[start] == 0xE9
    assert whole[start + 3] >> 4 == {4 << 20: 2, 16 << 20: 4}[board.flash_octets]
    assert whole[place.offset : place.end] == (firmware[name] / "vfs.bin").read_bytes()
    # And MicroPython finds its files in it.
    merged = tmp_path / "merged.bin"
    merged.write_bytes(whole)
    status, lines = micropython(merged, place.offset, place.size, "list")
    assert (status, len(lines)) == (0, len(manifest(firmware[name])["files"]))


def test_the_merging_command_ends_as_it_should(firmware, micropython_bin, capsys, tmp_path):
    good = [PLAIN, str(micropython_bin[PLAIN]), str(firmware[PLAIN])]
    assert merge.main(good) == 0
    assert "esptool --chip esp32 write-flash 0 " in capsys.readouterr().out
    assert (firmware[PLAIN] / f"{PLAIN}.bin").exists()
    for words in ([PLAIN], [PLAIN, ""], [PLAIN, str(micropython_bin[S3]), str(firmware[PLAIN])]):
        assert merge.main(words) == 2
        assert "A fatal error occurred: " in capsys.readouterr().err
