"""Runs in MicroPython with a small heap: installs a bundle into a folder.

micropython install_heap.py FIRMWARE BUNDLE PUBLIC FOLDER
"""

import os
import sys

sys.path.insert(0, sys.argv[1])

from haaro.ota.bundle import Bundle
from haaro.ota.install import installing
from haaro.ota.slots import Slots, manifest

base = sys.argv[4] + "/"
os.mkdir(base + "slots")
os.mkdir(base + "slots/a")
with open(base + "slots/a/manifest", "wb") as file:
    file.write(b"version 0.1.0-r1\nboard UNIX\nmpy none\npack stored\n")
slots = Slots(base, "a")
for _ in installing(slots, Bundle(sys.argv[2]), [bytes.fromhex(sys.argv[3])], "d" * 64, 1):
    pass
print(manifest(base + "slots/b/manifest")["version"], "in", " ".join(slots.words("boot")))
