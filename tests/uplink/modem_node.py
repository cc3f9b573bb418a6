"""Runs in MicroPython: uplink/linux_modem.py on a real tty, without the interface that needs root.

    micropython modem_node.py FIRMWARE PORT DIRECTORY CAP_MB WITHIN_MS STATE [STATE ...]

Prints each state with its reason, and ends when the states named were seen in that order.
"""

import select
import sys
import time

sys.path.insert(0, sys.argv[1])
from haaro.uplink import linux_modem, modem_profiles


class Link:
    """In place of the veth pair."""

    socket = None
    urgent = None
    lost = 0

    def __init__(self, *arguments):
        self.address = None

    def up(self, address, mtu):
        """Take the address."""
        self.socket = select.poll()

    def down(self):
        """Give it back."""
        self.socket = None

    def read(self):
        """Return nothing: nobody sends."""
        return

    def write(self, buffer, start, end):
        """Take a packet."""

    def close(self):
        """Nothing to do."""


class Poll:
    """A poll that is told of the link's socket, which is none."""

    def __init__(self):
        self._poll = select.poll()

    def register(self, obj, events):
        """Watch a file."""
        if hasattr(obj, "read"):
            self._poll.register(obj, events)

    def unregister(self, obj):
        """Watch it no longer."""
        if hasattr(obj, "read"):
            self._poll.unregister(obj)

    def modify(self, obj, events):
        """Watch it for something else."""
        if hasattr(obj, "read"):
            self._poll.modify(obj, events)

    def ipoll(self, wait):
        """Wait."""
        return self._poll.ipoll(wait)


def main():
    """Run one modem."""
    port, directory, cap, within = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    wanted = sys.argv[6:]
    profile = wanted.pop(0)
    linux_modem.PointToPoint = Link
    modem_profiles.GENERIC["boot_ms"] = 1000
    modem_profiles.GENERIC["rest_ms"] = 200
    uplink = {
        "name": "lte", "port": port, "baud": 115200, "apn": "internet", "user": "",
        "profile": profile, "roaming": False, "mux": True, "data": "ppp", "data_cap_mb": cap,
        "interface": "modem0",
        "power_key": directory + "/power_key", "reset": directory + "/reset",
    }  # fmt: skip
    own = {"password": "", "pin": ""}
    modem = linux_modem.LinuxModem(0, uplink, own, directory + "/lte", None, print)
    poll = Poll()
    modem.register(poll)
    began = time.ticks_ms()
    seen = None
    now = 0
    while wanted and now < within:
        wait = modem.next_deadline() - now
        for obj, _ in poll.ipoll(max(0, min(wait, 100))):
            modem.handle(obj, time.ticks_ms() - began)
        now = time.ticks_ms() - began
        if now >= modem.next_deadline():
            modem.tick(now)
        status = modem.status()
        said = (status["state"], status["why"])
        if said != seen:
            seen = said
            print(said[0] + ": " + said[1])
            if wanted and said[0] == wanted[0]:
                wanted.pop(0)
    modem.close()
    return 1 if wanted else 0


sys.exit(main())
