"""The user's MicroPython binary is judged before a port is touched; a fetched one by its hash."""

import hashlib
import http.server
import threading

import pytest

from haaro_host.flash import boards, micropython
from haaro_host.flash.errors import BadInputError, FlashError
from tests.esp_loader.micropython_binary import binary, image
from tests.flash.conftest import PLAIN, S3


@pytest.fixture
def board():
    return boards.load(S3)


def test_bootloader_and_application_come_out_as_they_went_in(board, tmp_path):
    data = binary("esp32s3", tmp_path)
    (boot_at, boot), (app_at, app) = micropython.split(board, data, "mp.bin")
    assert (boot_at, app_at) == (0, 0x10000)
    assert data.startswith(boot)
    assert data[0x10000:].startswith(app.rstrip(b"\xff"))
    (boot_at, boot), _ = micropython.split(boards.load(PLAIN), binary("esp32", tmp_path), "mp.bin")
    assert (boot_at, boot[0]) == (0x1000, 0xE9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: binary("esp32", folder), "the file is for ESP32, board ESP32_S3_W5500"),
        (lambda folder: b"UF2\n" + bytes(600), "does not begin like an ESP image"),
        (lambda folder: b"", "does not begin like an ESP image"),
        (lambda folder: image("esp32s3", 200_000, folder), "no partition table"),
        (lambda folder: binary("esp32s3", folder)[:0x9000], "its application does not begin"),
        (lambda folder: binary("esp32s3", folder, slot=0x20000), "begins at 0x20000"),
        (
            lambda folder: (
                binary("esp32s3", folder)[:0x8005] + b"x" + binary("esp32s3", folder)[0x8006:]
            ),
            "MD5",
        ),
    ],
)
def test_a_binary_that_would_not_boot_is_refused(board, tmp_path, change, said):
    with pytest.raises(BadInputError, match=said):
        micropython.split(board, change(tmp_path), "mp.bin")


def test_an_application_that_is_too_big_is_refused_with_both_sizes(tmp_path):
    data = binary("esp32", tmp_path, octets=0x190000)
    with pytest.raises(BadInputError, match=r"octets, partition ota_0 of .* has 1638400"):
        micropython.split(boards.load(PLAIN), data, "mp.bin")


# --- fetching -------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch, tmp_path):
    """(base URL, {path: octets} to serve, [paths asked for])."""
    content: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            found = content.get(self.path)
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_):
            pass

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}", content, asked
        made.shutdown()
        thread.join()


def test_a_binary_is_fetched_once_and_known_by_its_hash(server):
    base, content, asked = server
    content["/mp.bin"] = b"a binary"
    digest = hashlib.sha256(b"a binary").hexdigest()
    for _ in range(2):
        assert micropython.obtain(None, base + "/mp.bin", digest) == ("mp.bin", b"a binary")
    assert asked == ["/mp.bin"]


def test_a_damaged_copy_is_fetched_anew(server, tmp_path):
    base, content, asked = server
    content["/mp.bin"] = b"a binary"
    digest = hashlib.sha256(b"a binary").hexdigest()
    micropython.obtain(None, base + "/mp.bin", digest)
    (tmp_path / "cache" / "haaro" / "micropython" / digest).write_bytes(b"rotten")
    assert micropython.obtain(None, base + "/mp.bin", digest)[1] == b"a binary"
    assert len(asked) == 2


def test_what_has_another_hash_is_not_used_and_not_kept(server, tmp_path):
    base, content, _ = server
    content["/mp.bin"] = b"another"
    with pytest.raises(BadInputError, match="it is not used"):
        micropython.obtain(None, base + "/mp.bin", "0" * 64)
    assert not (tmp_path / "cache").exists()
    file = tmp_path / "mp.bin"
    file.write_bytes(b"local")
    with pytest.raises(BadInputError, match="it is not used"):
        micropython.obtain(file, "", "0" * 64)


def test_what_cannot_be_fetched_says_so(server):
    base, _, _ = server
    with pytest.raises(FlashError, match="404"):
        micropython.obtain(None, base + "/gone.bin", "0" * 64)
    for url, sha256 in ((base + "/mp.bin", ""), ("", "0" * 64), ("file:///etc/passwd", "0" * 64)):
        with pytest.raises(BadInputError):
            micropython.obtain(None, url, sha256)
