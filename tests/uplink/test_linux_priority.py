"""A keepalive does not wait behind the data that a modem's slow line has not taken yet."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.meta.repository import FIRMWARE, micropython

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not micropython(),
    reason="needs root, unshare and MicroPython",
)
_NODE = Path(__file__).with_name("priority_node.py")


def test_a_control_packet_is_read_before_the_data_that_came_earlier():
    words = ["unshare", "--net", micropython(), str(_NODE), str(FIRMWARE)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout) == [0xC0] + [0] * 20
