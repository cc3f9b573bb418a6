"""The boot part: which program starts, whatever the flash holds; and that a hang ends."""

import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from haaro.ota.slots import Slots
from haaro_host.lab import processes, system
from tests.ota.conftest import BOOT, Box, bundle, program


def write_boot(box, text):
    (box.folder / "slots" / "boot").write_text(text)


def test_a_trial_has_three_starts_and_then_the_old_program_is_back(box):
    box.install(bundle(program("new")))
    assert [box.boot() for _ in range(5)] == [("b", True)] * 3 + [("a", False)] * 2
    slots = box.slots("a")
    assert slots.state() == "returned"
    assert slots.words("tried")[1:] == ["1", "0.2.0-r1"]


def test_a_question_beside_the_running_program_is_no_start(box):
    box.install(bundle(program("new")))
    for _ in range(10):
        assert BOOT.choose(box.base, False) == ("b", True)
    assert box.boot() == ("b", True)


def test_what_is_kept_is_started_for_ever(box):
    box.install(bundle(program("new")))
    box.boot()
    assert box.slots("b").state() == "trial"
    box.slots("b").commit()
    assert [box.boot() for _ in range(5)] == [("b", False)] * 5
    assert box.slots("b").state() == "running"


def test_a_program_gives_itself_back(box):
    box.install(bundle(program("new")))
    box.boot()
    box.slots("b").give_back()
    assert box.boot() == ("a", False)
    assert box.slots("a").state() == "returned"


@pytest.mark.parametrize(
    "text", ["", "\n", "c", "b", "x y z", "b 3", "b many a", "b -1 a", "a 3 b", "\x00\xff" * 40]
)
def test_whatever_the_boot_file_says_a_whole_program_starts(box, text):
    """Slot B is empty: nothing may lead there."""
    write_boot(box, text)
    slot, _ = box.boot()
    assert box.version(slot if slot in ("a", "b") else "none") == "0.1.0-r1"


def test_with_a_full_flash_a_trial_is_over_and_not_endless(box, monkeypatch):
    """P6: a start that cannot be counted is none of the new program's."""
    box.install(bundle(program("new")))

    def full(*arguments):
        raise OSError(28, "no space")

    monkeypatch.setattr(BOOT.os, "rename", full)
    assert box.boot() == ("a", False)


def test_a_slot_whose_manifest_is_gone_is_passed_over(box):
    box.install(bundle(program("new")))
    box.boot()
    box.slots("b").commit()
    (box.folder / "slots" / "b" / "manifest").unlink()
    assert box.boot() == ("a", False)


# --- in MicroPython -----------------------------------------------------------------------------


def run(folder, *arguments, seconds=30):
    """Start a box as its service does; (exit status, output)."""
    done = subprocess.run(
        [system.micropython(), str(folder / "main.py"), *arguments],
        capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def talking(mark, body="return 0"):
    """A program that says who it is."""
    return {"haaro_router.py": f"def main(words):\n print({mark!r}, words)\n {body}\n".encode()}


@pytest.fixture
def runner(tmp_path):
    return Box(tmp_path / "runner", talking("old"))


def test_the_boot_part_starts_the_slot_with_the_words_it_was_given(runner):
    assert run(runner.folder, "--config", "x") == (0, "old ['--config', 'x']\n")
    runner.install(bundle(talking("new")))
    assert run(runner.folder, "--config", "x") == (0, "new ['--config', 'x']\n")
    shutil.rmtree(runner.folder / "slots" / "b")
    assert run(runner.folder, "run")[1] == "old ['run']\n"


@pytest.mark.parametrize(
    "body", ["raise ValueError('x')", "return 2", "import nothing", "return 1"]
)
def test_a_trial_that_ends_badly_is_started_again_and_then_given_up(runner, body):
    """Exit status 2 would mean: do not start me again; a trial has no say in that."""
    runner.install(bundle(talking("new", body)))
    found = [run(runner.folder, "run") for _ in range(4)]
    assert [status for status, _ in found] == [1, 1, 1, 0]
    assert [said.split()[0] for _, said in found] == ["new"] * 3 + ["old"]


def test_without_a_trial_a_bad_configuration_stays_exit_status_2(tmp_path):
    box = Box(tmp_path / "box", talking("old", "return 2"))
    assert run(box.folder, "run")[0] == 2


def test_a_program_that_hangs_is_ended_and_given_up(runner, tmp_path):
    """Its own judge does not run; the boot part's watch does, here after 2 s for 300 s."""
    boot = (runner.folder / "main.py").read_text()
    quick = boot.replace("_TRIAL_S = 300", "_TRIAL_S = 2").replace("_STEP_S = 5", "_STEP_S = 1")
    assert quick != boot
    (runner.folder / "main.py").write_text(quick)
    runner.install(bundle(talking("new", "while True: pass")))
    status, _ = run(runner.folder, "run")
    assert status < 0, "killed"
    assert runner.slots("a").state() == "returned"
    assert run(runner.folder, "run")[1] == "old ['run']\n"


def test_the_watch_leaves_a_program_alone_that_was_kept(runner):
    """It ends with the trial."""
    boot = (runner.folder / "main.py").read_text().replace("_STEP_S = 5", "_STEP_S = 1")
    (runner.folder / "main.py").write_text(boot)
    body = f"import time\n while time.time() < {time.time() + 60}: pass\n return 0"
    runner.install(bundle(talking("new", body)))
    box = subprocess.Popen(
        [system.micropython(), str(runner.folder / "main.py"), "run"], stdout=subprocess.DEVNULL
    )
    try:
        assert processes.wait_until(lambda: watches(runner.folder), 20), "no watch"
        Slots(runner.base, "b").commit()
        assert processes.wait_until(lambda: not watches(runner.folder), 20), "it watches on"
        assert box.poll() is None
    finally:
        box.kill()
        box.wait(10)


def watches(folder):
    """Shells that watch the box in `folder`."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read().decode(errors="replace")
        except OSError:
            continue
        if "slots/boot" in line and str(folder) in line and "sleep" in line:
            found.add(pid)
    return found


# --- on a microcontroller: stand-ins for `machine`, and no os.system ------------------------------


class Machine:
    """machine.Timer of an ESP32, which has hardware timers 0 to 3 alone, and machine.reset."""

    ONE_SHOT = 0

    def __init__(self, monkeypatch, soft=False):
        self.timers = []
        self.resets = 0
        outer = self

        class Timer:
            ONE_SHOT = Machine.ONE_SHOT

            def __init__(self, number):
                if number < 0 and not soft:
                    raise ValueError("invalid Timer number")
                outer.timers.append(self)

            def init(self, **settings):
                self.settings = settings

        def reset():
            self.resets += 1

        monkeypatch.setitem(sys.modules, "machine", SimpleNamespace(Timer=Timer, reset=reset))
        kept = {name: getattr(os, name) for name in ("stat", "rename")}
        monkeypatch.setattr(BOOT, "os", SimpleNamespace(**kept))
        monkeypatch.setattr(BOOT.sys, "path", list(sys.path))
        monkeypatch.setattr(BOOT.sys, "print_exception", print, raising=False)

    def fire(self):
        (timer,) = self.timers
        timer.settings["callback"](timer)


def forget(monkeypatch):
    for name in ("haaro_router", "haaro_device"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("soft", [False, True])
def test_a_timer_ends_a_trial_that_hangs_on_a_board(box, monkeypatch, soft):
    box.install(bundle({"haaro_device.py": b"status = 0\n"}))
    board = Machine(monkeypatch, soft)
    forget(monkeypatch)
    assert BOOT.start(box.base, []) == 0
    (timer,) = board.timers
    assert (timer.settings["period"], timer.settings["mode"]) == (300000, 0)
    board.fire()
    assert board.resets == 1 and BOOT.choose(box.base) == ("a", False)


def test_the_timer_does_nothing_to_a_program_that_was_kept(box, monkeypatch):
    box.install(bundle({"haaro_device.py": b"status = 0\n"}))
    board = Machine(monkeypatch)
    forget(monkeypatch)
    BOOT.start(box.base, [])
    box.slots("b").commit()
    board.fire()
    assert board.resets == 0 and BOOT.choose(box.base) == ("b", False)


@pytest.mark.parametrize(
    ("body", "resets"),
    [(b"status = 3\n", 1), (b"raise ValueError\n", 1), (b"status = 2\n", 1), (b"status = 0\n", 0)],
)
def test_a_board_is_reset_where_a_service_would_start_anew(box, monkeypatch, body, resets):
    box.install(bundle({"haaro_device.py": body}))
    board = Machine(monkeypatch)
    forget(monkeypatch)
    BOOT.start(box.base, [])
    assert board.resets == resets


def test_a_board_that_has_nothing_on_trial_is_left_at_its_prompt(tmp_path, monkeypatch):
    box = Box(tmp_path / "plain", {"haaro_device.py": b"raise ValueError\n"})
    board = Machine(monkeypatch)
    forget(monkeypatch)
    assert BOOT.start(box.base, []) == 1
    assert board.resets == 0 and board.timers == []
