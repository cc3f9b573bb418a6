"""What of a modem outlives a restart: that its PIN was refused, and the octets of this month.

Two small files beside the secrets file; neither holds a secret. Called by uplink/linux_modem.py.
"""

import json
import os
import time

from haaro.compat import const

_SAVE_MS = const(3600000)
_MB = const(1000000)
_THIS_CENTURY = const(2025)  # a year before it is a clock that is not set


class PinMark:
    """The file that says that the PIN was tried and not accepted."""

    def __init__(self, path: str) -> None:
        self._path = path

    @property
    def failed(self) -> bool:
        """Whether it is there."""
        try:
            os.stat(self._path)
            return True
        except OSError:
            return False

    def set(self) -> bool:
        """Make it; False if that cannot be."""
        try:
            with open(self._path, "w") as file:
                file.write("the SIM's PIN was tried and not accepted; see docs/cellular.md\n")
            return True
        except OSError:
            return False

    def clear(self) -> None:
        """Remove it."""
        try:
            os.remove(self._path)
        except OSError:
            pass


class Meter:
    """Octets of this month, both ways; written down once an hour, where there is a cap."""

    def __init__(self, path: str, cap_mb: int) -> None:
        self._path = path
        self._cap = cap_mb * _MB
        self.octets = 0
        self._month = 0
        self._saved = 0
        self.save_at = 0
        if cap_mb:
            try:
                with open(path) as file:
                    known = json.load(file)
                self._month, self.octets = int(known["month"]), int(known["octets"])
                self._saved = self.octets
            except (OSError, ValueError, KeyError, TypeError):
                pass

    def count(self, octets: int) -> None:
        """One more packet."""
        self.octets += octets

    def check(self, now: int) -> bool:
        """Begin a new month, write down what is due; return whether the cap is reached."""
        year, month = time.gmtime()[:2]
        if year >= _THIS_CENTURY and year * 100 + month > self._month:
            if self._month:
                self.octets = 0
            self._month = year * 100 + month
        if now >= self.save_at:
            self.save(now)
        return 0 < self._cap <= self.octets

    def save(self, now: int) -> None:
        """Write it down, if it has changed."""
        self.save_at = now + _SAVE_MS
        if self._cap and self.octets != self._saved:
            try:
                with open(self._path + ".new", "w") as file:
                    json.dump({"month": self._month, "octets": self.octets}, file)
                os.rename(self._path + ".new", self._path)
                self._saved = self.octets
            except OSError:
                pass
