"""The twins of MD5 and SHA-1 give what the built-in ones give, and stand in where one lacks."""

import builtins
import hashlib
import importlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haaro.wire import auth, pure_hash


@pytest.mark.parametrize("name", ["md5", "sha1"])
@pytest.mark.parametrize("size", [*range(130), 191, 192, 1000])
def test_every_length_around_a_block(name, size):
    data = bytes(i * 7 & 0xFF for i in range(size))
    assert getattr(pure_hash, name)(data).digest() == getattr(hashlib, name)(data).digest()


@given(st.lists(st.binary(max_size=150), max_size=5))
def test_updates_add_up(parts):
    for name in ("md5", "sha1"):
        twin = getattr(pure_hash, name)()
        for part in parts:
            twin.update(memoryview(part))
        assert twin.digest() == getattr(hashlib, name)(b"".join(parts)).digest()


def test_objects_do_not_share_state():
    first, second = pure_hash.md5(b"a"), pure_hash.md5(b"b")
    first.update(bytes(200))
    assert second.digest() == hashlib.md5(b"b").digest()
    assert first.digest() == hashlib.md5(b"a" + bytes(200)).digest()


@pytest.mark.parametrize(
    ("missing", "twins"), [((), []), (("md5",), ["md5"]), (("md5", "sha1"), ["md5", "sha1"])]
)
def test_the_twin_is_chosen_at_start_where_the_port_lacks_one(monkeypatch, missing, twins):
    """And the authenticators are the same; without need it is not even imported."""
    real_import = builtins.__import__

    class Lacking:
        def __getattr__(self, name):
            if name in missing:
                raise AttributeError(name)
            return getattr(hashlib, name)

    def port_import(name, *arguments):
        return Lacking() if name == "hashlib" else real_import(name, *arguments)

    expected = [auth.hmac(algorithm, b"key", b"text") for algorithm in auth.ALGORITHMS]
    monkeypatch.delitem(sys.modules, "haaro.wire.auth")
    monkeypatch.delitem(sys.modules, "haaro.wire.pure_hash")
    monkeypatch.setattr(builtins, "__import__", port_import)
    other = importlib.import_module("haaro.wire.auth")
    monkeypatch.undo()
    assert [n for n in ("md5", "sha1") if "pure_hash" in getattr(other, n).__module__] == twins
    assert [other.hmac(algorithm, b"key", b"text") for algorithm in other.ALGORITHMS] == expected
