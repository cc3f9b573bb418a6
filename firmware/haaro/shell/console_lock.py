"""Who may use a locked console: a password against its salted hash, few attempts.

The secrets file has `"console": {"salt": HEX, "rounds": N, "hash": HEX}`, the hash being
PBKDF2-HMAC-SHA256 (RFC 8018 5.2) with one block of 32 octets. The rounds are done a few at a time,
so that the router's loop goes on meanwhile.
"""

import json
import sys

from haaro.compat import const
from haaro.wire.auth import HMAC_SHA256, equal, hmac

_ROUNDS_A_TURN = const(16)
_FIRST_WAIT_MS = const(1000)
_LONGEST_WAIT_MS = const(300000)

# What the firmware of the maker lets a person with the cable or the box in hand do all the same.
NOT_LOCKED = {
    "linux": (
        "root of this box reads the keys and stops the router",
        "its boot loader's console and its disk are not ours to lock",
    ),
    "esp32": (
        "for a moment after reset Ctrl-C gives a REPL, before main.py runs",
        "with GPIO0 held low the ROM loader reads the flash, unless it is encrypted",
    ),
    "rp2": (
        "for a moment after reset Ctrl-C gives a REPL, before main.py runs",
        "with BOOTSEL held the flash is read by USB",
    ),
}


def not_locked() -> tuple:
    """Return one line for each thing that stock firmware of this platform cannot lock."""
    return NOT_LOCKED.get(sys.platform, ("this platform was not looked at",))


def derive(password: bytes, salt: bytes, rounds: int):
    """Yield None while at work, at last the 32 octets."""
    last = hmac(HMAC_SHA256, password, salt, b"\x00\x00\x00\x01")
    total = int.from_bytes(last, "big")
    for i in range(1, rounds):
        if i % _ROUNDS_A_TURN == 0:
            yield None
        last = hmac(HMAC_SHA256, password, last)
        total ^= int.from_bytes(last, "big")
    yield total.to_bytes(32, "big")


class Lock:
    """Attempts against the hash in the secrets file; each failure doubles the wait."""

    def __init__(self) -> None:
        self.wait_until = 0
        self._failures = 0
        self._work = None
        self._hash = b""

    @property
    def busy(self) -> bool:
        """Whether `step` has work to do."""
        return self._work is not None

    def attempt(self, password: bytes, secrets: str) -> bool:
        """Begin to check `password`; False if the file at `secrets` has none to check against."""
        try:
            with open(secrets) as file:
                stored = json.load(file)["console"]
            self._hash = bytes.fromhex(stored["hash"])
            self._work = derive(password, bytes.fromhex(stored["salt"]), stored["rounds"])
            return True
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def step(self, now: int) -> bool | None:
        """Go on; None while at work, then whether the password was right."""
        found = next(self._work)  # type: ignore[call-overload]
        if found is None:
            return None
        self._work = None
        if equal(found, self._hash):
            self._failures = 0
            return True
        self.wait_until = now + min(_FIRST_WAIT_MS << min(self._failures, 9), _LONGEST_WAIT_MS)
        self._failures += 1
        return False

    def forget(self) -> None:
        """Drop a password that is being checked."""
        self._work = None
