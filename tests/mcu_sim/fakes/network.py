"""The module `network` of a simulated board, for MicroPython's unix port.

What is around it stands in the file named by MCU_SIM, JSON: {"port": "esp32" | "rp2",
"access_points": [...], "cable": {...} | null}; the file may change at any time. Whose station has
joined gets the address, and the default route, at the namespace's interface.
"""

import json
import os
import time

import radio


class _Namespace(radio.World):
    JOIN = 100

    def __init__(self, path):
        self._path = path
        self._read_at = None
        self._text = ""
        self.interface = ""
        with open(path) as file:
            super().__init__(time.ticks_ms, json.load(file)["port"])
        self.look()

    def look(self):
        now = time.ticks_ms()
        if self._read_at is not None and time.ticks_diff(now, self._read_at) < 100:
            return
        self._read_at = now
        with open(self._path) as file:
            text = file.read()
        if text == self._text:
            return
        self._text = text
        world = json.loads(text)
        # One that is as it was stays the same object: who has joined it stays joined.
        before = self.access_points
        self.access_points = []
        for ap in world["access_points"]:
            ap["bssid"] = bytes.fromhex(ap["bssid"])
            for old in before:
                if old == ap:
                    ap = old
            self.access_points.append(ap)
        if world["cable"] != self.cable:
            self.cable = world["cable"]

    def link(self, configuration, up):
        self.calls = []
        if up:
            self.interface = configuration["interface"]
            words = "ip addr replace {address}/{mask} dev {interface} && "
            words += "ip route replace default via {gateway} dev {interface}"
        else:
            words = "ip addr flush dev {interface}"
        os.system(words.format(**configuration))


_world = _Namespace(os.getenv("MCU_SIM"))
radio.fill(globals(), _world)


def device():
    """Return the namespace's interface that lwIP's only one stands for; for fakes/socket.py."""
    return _world.interface
