"""boards/UNIX: what its page tells an operator to copy is accepted by the program."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from haaro.shell import config

ROOT = Path(__file__).parents[2]
BOARD = ROOT / "boards" / "UNIX"
MICROPYTHON = os.environ.get("MICROPYTHON", str(ROOT / ".venv" / "bin" / "micropython"))


def secrets_of_the_page() -> dict:
    shown = re.search(r'\{"version": 1, "mobile_home".*\}', (BOARD / "board.md").read_text())
    assert shown is not None
    return json.loads(shown.group().replace("<64 hexadecimal digits>", "5a" * 32))


def test_the_example_passes_check_inside_micropython(tmp_path):
    shutil.copy(BOARD / "router.json", tmp_path)
    secrets = tmp_path / "router.secrets.json"
    secrets.write_text(json.dumps(secrets_of_the_page()))
    secrets.chmod(0o600)
    done = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=384k", ROOT / "firmware" / "main.py"]
        + ["--config", tmp_path / "router.json", "check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/router.json: ok\n", "")


def test_the_example_shows_every_key_with_its_default(tmp_path):
    full = json.loads((BOARD / "router.json").read_text())
    (tmp_path / "router.secrets.json").write_text(json.dumps(secrets_of_the_page()))
    (tmp_path / "router.secrets.json").chmod(0o600)
    needed = ("version", "name", "home_address", "home_agent", "networks", "uplinks")
    least = {key: full[key] for key in needed}
    loaded = []
    for name, content in (("full.json", full), ("least.json", least)):
        (tmp_path / name).write_text(json.dumps(content))
        settings, options = config.load(str(tmp_path / name))
        loaded.append((vars(settings), {**options, "socket": ""}))
    assert loaded[0] == loaded[1]
    assert set(full) == set(config._ROUTER)
