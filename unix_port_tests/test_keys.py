"""The secrets file inside MicroPython: read, refused without showing a key, and let go of."""

import gc
import json
import os
import sys

from haaro.core.settings import Settings
from haaro.shell import unload

PATH = "/tmp/haaro-keys-%s.json" % os.urandom(6).hex()
KEY = "c0ffee00" * 4
KRM = "5a" * 20


def write(mode="600", **changes):
    whole = {
        "version": 1,
        "mobile_home": [
            {"spi": 257, "algorithm": "hmac-sha256", "key": KEY},
            {"spi": 256, "algorithm": "hmac-md5", "key": "11" * 16},
        ],
        "peers": [{"home_address": "192.0.2.131", "krm": [KRM, "6b" * 20]}],
    }
    whole.update(changes)
    with open(PATH, "w") as file:
        json.dump(whole, file)
    os.system("chmod %s %s" % (mode, PATH))


def load():
    from haaro.shell import secrets

    try:
        return secrets.load(PATH)
    finally:
        os.remove(PATH)
        unload()


def test_two_associations_and_two_krms_are_read():
    write()
    associations, static_krm = load()
    settings = Settings()
    settings.take_keys(associations, static_krm)
    assert (settings.spi, settings.algorithm) == (257, "hmac-sha256")
    assert settings.key == bytes.fromhex(KEY)
    assert settings.association(256) == (256, "hmac-md5", b"\x11" * 16)
    assert settings.static_krm == {b"\xc0\x00\x02\x83": [b"\x5a" * 20, b"\x6b" * 20]}


def test_a_refusal_names_the_place_and_never_the_key():
    row = {"spi": 256, "algorithm": "hmac-md5", "key": KEY + "zz"}
    for changes, word in (
        ({"mobile_home": [row]}, "mobile_home[0].key"),
        ({"mobile_home": KEY}, "mobile_home"),
        ({"mobile_home": []}, "1 to 2 entries"),
        ({"peers": [{"home_address": KEY, "krm": [KRM]}]}, "peers[0].home_address"),
        ({"mode": "644"}, "chmod 600"),
    ):
        write(**changes)
        text = ""
        try:
            load()
        except ValueError as error:
            text = str(error)
        assert word in text, (word, text)
        assert KEY not in text and KRM not in text


def test_reading_keys_again_and_again_leaves_the_heap_as_it_was():
    write()
    load()
    gc.collect()
    before = gc.mem_alloc()
    for _ in range(5):
        write()
        load()
    gc.collect()
    assert gc.mem_alloc() - before < 512, gc.mem_alloc() - before
    assert "haaro.shell.secrets" not in sys.modules
