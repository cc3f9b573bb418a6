"""The shell's clock: wrapping ticks in, milliseconds that never wrap out."""

import pytest

from haaro.shell import clock

PERIOD = 1 << 30  # what a 32-bit MCU's ticks_ms wraps at


class McuTime:
    """`time` of a 32-bit MicroPython port: ticks modulo 2^30, an epoch, a settable wall clock."""

    def __init__(self, ticks: int = 0, epoch: int = 1970, wall_s: int = 0) -> None:
        self.ticks = ticks
        self.epoch = epoch
        self.wall_s = wall_s

    def ticks_ms(self) -> int:
        return self.ticks % PERIOD

    def ticks_diff(self, a: int, b: int) -> int:
        return (a - b + PERIOD // 2) % PERIOD - PERIOD // 2

    def gmtime(self, seconds: int) -> tuple:
        assert seconds == 0
        return (self.epoch, 1, 1, 0, 0, 0, 3, 1)

    def time_ns(self) -> int:
        return self.wall_s * 10**9


def test_now_goes_on_across_many_wraps_of_the_ticks(monkeypatch):
    port = McuTime(ticks=PERIOD - 5000)
    monkeypatch.setattr(clock, "time", port)
    made = clock.Clock()
    day = 24 * 3600 * 1000
    for days in range(1, 61):
        port.ticks += day
        assert made.now() == days * day


@pytest.mark.parametrize(
    ("epoch", "wall_s"),
    [(1970, 1_800_000_000), (2000, 1_800_000_000 - 946_684_800)],
)
def test_ntp_time_is_the_same_whatever_the_epoch_of_the_port(monkeypatch, epoch, wall_s):
    """RFC 5944 5.7.1: Identification is NTP time; MicroPython ports count from 1970 or 2000."""
    monkeypatch.setattr(clock, "time", McuTime(epoch=epoch, wall_s=wall_s))
    assert clock.ntp_ms() == (1_800_000_000 + 2_208_988_800) * 1000


@pytest.mark.parametrize("epoch", [1970, 2000])
def test_a_clock_that_was_never_set_is_said_to_be_unknown(monkeypatch, epoch):
    monkeypatch.setattr(clock, "time", McuTime(epoch=epoch, wall_s=3600))
    assert clock.ntp_ms() == 0
