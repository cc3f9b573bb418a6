"""The LAN interfaces whose packets pass by the kernel's forwarding, in and out of the tunnels.

Owns which ones they are, why there are none, and the program on each. Left to choose, it takes
those with an address in our networks while nobody else has a say in what is forwarded, and looks
again every two seconds. Called by dataplane/kernel.py.
"""

import time

from haaro.compat import const

_LOOK_EVERY_MS = const(2000)
_PROGRAM = "lan_to_tunnel"


class FastLans:
    """wanted: names of interfaces, None = by `bystanders`, which is platform/linux_bystanders.py.

    taken: names of interfaces that are something else. paths: a linux_paths.LinuxPaths.
    """

    def __init__(self, wanted: list | None, networks: list, taken: list, paths, bystanders) -> None:
        self._wanted = wanted
        self._networks = networks
        self._taken = taken
        self._paths = paths
        self._bystanders = bystanders
        self._looked_at = time.ticks_ms()  # type: ignore[attr-defined]
        self._programs: dict = {}  # interface: index of the link that has the program
        self.names: list = []
        self.why = "configured"
        self.links: list = []  # (index, mtu ...) of each
        self.connected: list = []  # (address4, length) of each
        self.local: list = []  # what the box itself routes elsewhere

    def due(self) -> bool:
        """Return whether a firewall, for which there is no event, may have come or gone."""
        now = time.ticks_ms()  # type: ignore[attr-defined]
        if self._wanted is not None:
            return False
        return time.ticks_diff(now, self._looked_at) >= _LOOK_EVERY_MS  # type: ignore[attr-defined]

    def look(self) -> bool:
        """Ask the kernel; return whether anything is different."""
        names = self._wanted
        if names is None:
            self._looked_at = time.ticks_ms()  # type: ignore[attr-defined]
            names = self._bystanders.lans(self._networks, self._taken)
            who = self._bystanders.whose_say(names)
            self.why = who or "nobody else has a say in what is forwarded"
            if who:
                names = []
        links = [self._paths.ethernet(name) for name in names]
        connected = [self._paths.connected(link[0]) if link[0] else [] for link in links]
        local = self._paths.local_prefixes() if names else []
        same = (names, links, connected, local) == (
            self.names,
            self.links,
            self.connected,
            self.local,
        )
        self.names, self.links, self.connected, self.local = names, links, connected, local
        return not same

    def attach(self, door) -> bool:
        """Have the program on each of them and on no other; False if the kernel refused one."""
        if door.adopted and not self._programs:
            for name, direction in door.attached():
                if direction == "ingress" and name not in self._taken:
                    self._programs[name] = 0
        for name in list(self._programs):
            if name not in self.names:
                door.detach(name, "ingress")
                del self._programs[name]
        for name, link in zip(self.names, self.links):
            # Made anew, a bridge for instance: the program is gone with the old one.
            if link[0] and self._programs.get(name) != link[0]:
                if not door.attach(name, "ingress", _PROGRAM):
                    return False
                self._programs[name] = link[0]
        return True
