"""The kernel data plane: BPF programs take the packets of the common case, this the rest.

Owns the maps of firmware/kernel_plane/haaro.bpf.c, whose layouts it writes, and the counters read
from there. The userspace plane underneath stays complete: what the programs do not take goes on to
its sockets, so the reasons, the ICMP errors, fragments, keepalives and signalling are its own.
Called by the shell's loop and platform/linux.py.

Tables are made anew for each change, filled and put in force in one `bpftool batch`: `commit`. A
restarted control plane leaves those of its predecessor in force until it has routes of its own, and
accepts what comes by the old tunnel ends for a while longer: no packet has to wait for it. The
tunnels of two processes have different slots (banks).
"""

import struct
import time

from haaro.compat import const
from haaro.dataplane import base, kernel_maps
from haaro.dataplane.base import MAX_TUNNELS
from haaro.dataplane.kernel_reports import GLOBALS, Reports
from haaro.dataplane.kernel_tables import Tables
from haaro.dataplane.userspace import UserspacePlane

# For how long what comes by the ends of an earlier process is accepted, and its routes are kept
# while there are none of this one.
_HOLD_MS = const(15000)
_ADOPT_MS = const(30000)
_RETRY_MS = const(1000)

_REPORT_EVERY_MS = const(200)


class KernelPlane(UserspacePlane):
    """`door` is a platform.linux_bpf.KernelDoor that has loaded, `paths` a linux_paths.LinuxPaths.

    lans: a kernel_lans.FastLans.
    """

    def __init__(
        self, pools, sockets, home_address: bytes, networks: list, door, paths, lans
    ) -> None:
        self.door = door
        self._paths = paths
        self.lans = lans
        self._pair = (0, 0)
        self._interfaces: dict = {}  # uplink: index of its interface, 0 = not for the programs
        self._via = [b""] * MAX_TUNNELS
        self._dirty = bytearray(MAX_TUNNELS)
        self._changed = True
        self._rows = b""  # of the routes and sources, as kernel_maps.Rows has them
        self._routed = False
        self._tables = Tables(door)
        self._bank = self._tables.bank
        self._links = b""
        self._failed_at: int | None = None
        self._omitted = 0
        now = time.ticks_ms()  # type: ignore[attr-defined]
        self._until = time.ticks_add(now, _ADOPT_MS)  # type: ignore[attr-defined]
        self._adopting = door.adopted and self._tables.in_force is not None
        self._asked_at = now
        self._reports: Reports | None = None
        super().__init__(pools, sockets, home_address, networks)

    def register(self, poll) -> None:
        """Have all receive sockets, now and later, watched by `poll`."""
        super().register(poll)
        if self._reports:
            poll.register(self._reports.socket, 1)

    def attach_pair(self, names: tuple, indexes: tuple) -> str:
        """Have the programs on the veth pair; return "" or why the kernel refuses.

        names, indexes: of the kernel's and of our end. After a refusal this is a userspace plane.
        """
        door = self.door
        self._reports = Reports(indexes[1], not door.adopted)
        self.look_around()
        programs = [
            (names[0], "ingress", "report"),
            (names[1], "ingress", "from_pair"),
            (names[0], "egress", "to_tunnel"),
        ]
        done = True
        for program in programs:
            done = done and door.attach(*program)
        if not done or not self.lans.attach(door):
            refused = "tc: " + door.last_error
            door.unload()
            return refused
        self._pair = indexes
        # Too few packets come here to be worth a change of the link.
        self._use_runs = False
        if self._adopting:
            # What stays in force for now must find the pair as it is now.
            kernel_maps.settings(door.begin(), door.maps, self._link_values())
            door.run()
        # What the counters hold now is not this process's.
        self._ask(MAX_TUNNELS)
        return ""

    def open_uplink(self, index: int, interface: str, address: bytes, mtu: int = 1500) -> None:
        """As UserspacePlane; the programs serve Ethernet only, another link is left to it alone."""
        super().open_uplink(index, interface, address, mtu)
        link, _, veth = self._paths.ethernet(interface) if self._pair[0] else (0, 0, False)
        if link and not self.door.attach(interface, "ingress", "from_tunnel"):
            link = 0
        if link and veth:
            self.door.finish(interface)
        self._interfaces[index] = link
        self._changed = True

    def close_uplink(self, index: int) -> None:
        """As UserspacePlane."""
        opened = self._uplinks.get(index)
        super().close_uplink(index)
        if opened:
            if self._interfaces.pop(index, 0):
                self.door.detach(opened[0], "ingress")
            self._changed = True

    def delete_tunnel(self, tunnel: int) -> None:
        """As UserspacePlane."""
        super().delete_tunnel(tunnel)
        self._dirty[tunnel] = 1
        self._changed = True

    def _set_mtu(self, tunnel):
        super()._set_mtu(tunnel)
        self._dirty[tunnel] = 1
        self._changed = True

    def swap(self, routes: list, sources: list) -> None:
        """As UserspacePlane."""
        super().swap(routes, sources)
        rows = kernel_maps.Rows(self._aside.data, b"")
        self._routed = False
        for prefix, length, tunnel, hint in routes:
            rows.route(prefix, length, tunnel, hint)
            self._routed = self._routed or tunnel >= 0
        for prefix, length, tunnel in sources:
            rows.source(prefix, length, tunnel)
        self._rows = rows.copy()
        self._changed = True

    def look_around(self) -> None:
        """Links, addresses or routes of the box have changed: learn what the programs must know."""
        for tunnel in range(MAX_TUNNELS):
            key = self._keys[tunnel]
            if key and self._next_hop(key) != self._via[tunnel]:
                self._dirty[tunnel] = 1
                self._changed = True
        if self.lans.look():
            self._changed = True
            if self._pair[0]:
                self.lans.attach(self.door)

    def check(self) -> None:
        """As UserspacePlane."""
        super().check()
        if self.lans.due():
            self.look_around()

    def commit(self) -> None:
        """Put in force what was asked for since the last time, and ask for the counters.

        One batch, in which the kernel copies each value whole and replaces each table at once.
        """
        now = time.ticks_ms()  # type: ignore[attr-defined]
        late = time.ticks_diff(now, self._until) >= 0  # type: ignore[attr-defined]
        if not self._pair[0]:
            return
        if self._adopting and (late or self._routed):
            # From here on the tables are ours; those of the process before are held.
            self._adopting = False
            self._tables.held = self._tables.in_force
            self._until = time.ticks_add(now, _HOLD_MS)  # type: ignore[attr-defined]
            late = False
            self._changed = True
        waits = self._failed_at is not None
        if waits:
            waits = time.ticks_diff(now, self._failed_at) < _RETRY_MS  # type: ignore[attr-defined]
        if self._changed and not self._adopting and not waits:
            self._failed_at = None if self._write() else now
        held = self._tables.held
        if held and not self._adopting and late and self._tables.in_force != held:
            self._release()
        if time.ticks_diff(now, self._asked_at) >= _REPORT_EVERY_MS:  # type: ignore[attr-defined]
            self._asked_at = now
            self._ask(self._last_tunnel())

    def _write(self):
        tables = self._tables
        file = self.door.begin()
        rows = self._all_rows()
        rows.hand_down()
        ends = self._all_ends()
        links = self._link_values()
        changed = self._write_tunnels(file, True)
        changed = tables.write(file, rows, ends, self._slot(0)) or changed
        # After the routes that led there.
        changed = self._write_tunnels(file, False) or changed
        if changed or links != self._links:
            kernel_maps.settings(file, self.door.maps, links)
            if not self.door.run():
                # Once more later.
                tables.failed()
                return False
            tables.done(rows, ends)
        else:
            file.close()
        self._links = links
        self._dirty[:] = bytes(MAX_TUNNELS)
        self._changed = False
        return True

    def _write_tunnels(self, file, up):
        """Write the tunnels that have changed and are up, or are not; False if there is none."""
        any_one = False
        for tunnel in range(MAX_TUNNELS):
            if self._dirty[tunnel] and up == bool(self._state[tunnel * base.SLOT + base.SLOT_UP]):
                slot = struct.pack("@I", self._slot(tunnel))
                kernel_maps.update(file, self.door.maps + "/tunnels", slot, self._tunnel(tunnel))
                any_one = True
        return any_one

    def _link_values(self):
        ethernet = self._state[base.STATE_ETHERNET : base.STATE_ETHERNET + 14]
        return kernel_maps.links(self._pair, ethernet, self.lans.links)

    def _all_rows(self):
        rows = kernel_maps.Rows(self._aside.data, self._rows)
        rows.own(self._networks, self._home_address, self._ends())
        rows.kernels(self._networks, self.lans.local, self.lans.connected)
        self._omitted = rows.omitted
        return rows

    def _release(self):
        file = self.door.begin()
        self._tables.release(file)
        kernel_maps.settings(file, self.door.maps, self._link_values())
        if self.door.run():
            self._tables.held = None
            self._tables.forget()

    def _slot(self, tunnel):
        return self._bank * MAX_TUNNELS + tunnel

    def _next_hop(self, key):
        # Without a next hop the programs leave a tunnel alone: one in no UDP is not theirs.
        link = self._interfaces.get(key[0], 0) if key[3] <= 0xFFFF else 0
        return self._paths.next_hop(link, key[1], key[2]) if link else b""

    def _tunnel(self, tunnel):
        """Return struct tunnel of the maps."""
        key = self._keys[tunnel]
        at = tunnel * base.SLOT
        state = self._state
        if key is None or not state[at + base.SLOT_UP]:
            self._via[tunnel] = b""
            return bytes(kernel_maps.TUNNEL)
        via = self._via[tunnel] = self._next_hop(key)
        mtu = state[at + base.SLOT_MTU] << 8 | state[at + base.SLOT_MTU + 1]
        link = self._interfaces.get(key[0], 0)
        up = 1 + state[base.STATE_CLAMP]
        port = key[3] & 0xFFFF
        return kernel_maps.tunnel(key[1], key[2], port, link, via, mtu, up, tunnel > 0)

    def _all_ends(self):
        """Return all ends that packets may come from, as kernel_maps.ends takes them."""
        ends = bytearray()
        for tunnel in range(MAX_TUNNELS):
            key = self._keys[tunnel]
            if key:
                ends.extend(self._end(tunnel, key[0], key[2], key[3]))
                if tunnel in self._others:
                    ends.extend(self._end(tunnel, *self._others[tunnel]))
        return bytes(ends)

    def _end(self, tunnel, uplink, remote, port):
        link = self._interfaces.get(uplink, 0)
        if not link or port > 0xFFFF:
            return b""
        local = self._uplinks[uplink][1]
        slot = struct.pack("@I", self._slot(tunnel))
        return remote + local + struct.pack("@I", link) + struct.pack(">HH", port, 0) + slot

    def handle(self, obj, event: int) -> bool:
        """As UserspacePlane; also takes hints and counters that the programs send."""
        if not self._reports or obj is not self._reports.socket:
            return super().handle(obj, event)
        for hint in self._reports.receive():
            # Before that the numbers are those of the process before.
            if not self._adopting and hint < base.MAX_HINTS:
                self.wanted[hint] = 1
                self.wanted_any = True
        return True

    def _last_tunnel(self):
        """Return how many tunnels up to the last one there is."""
        count = MAX_TUNNELS
        while count and self._keys[count - 1] is None:
            count -= 1
        return count

    def _ask(self, tunnels):
        try:
            self._reports.ask(self._lan_write, 0, GLOBALS)
            if tunnels:
                self._reports.ask(self._lan_write, GLOBALS + 2 * self._slot(0), 2 * tunnels)
        except OSError:
            self._send_errors += 1

    def _count(self, index):
        return self._reports.count(index) if self._reports else 0

    def user_rx(self, tunnel: int) -> int:
        """As UserspacePlane; the programs' share is up to 0.2 s old."""
        return super().user_rx(tunnel) + self._count(GLOBALS + 2 * self._slot(tunnel))

    def user_tx(self, tunnel: int) -> int:
        """As UserspacePlane; the programs' share is up to 0.2 s old."""
        return super().user_tx(tunnel) + self._count(GLOBALS + 2 * self._slot(tunnel) + 1)

    def counters(self) -> dict:
        """As UserspacePlane, with what the programs forwarded and refused."""
        result = super().counters()
        for i, name in enumerate(kernel_maps.COUNTERS):
            result[name] = result.get(name, 0) + self._count(i)
        result["table_omitted"] = max(result["table_omitted"], self._omitted)
        return result

    def own_loss(self) -> dict:
        """As UserspacePlane; the programs handle what they receive."""
        result = super().own_loss()
        total = 0
        for i in range(len(kernel_maps.COUNTERS)):
            total += self._count(i)
        result["received"] += total
        result["handled"] += total
        return result

    def close(self) -> None:
        """Take programs, maps and filters back, and close all sockets."""
        super().close()
        if self._reports:
            if self._poll:
                self._poll.unregister(self._reports.socket)
            self._reports.socket.close()
            self._reports = None
        self.door.unload()
        self._paths.close()
