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

import socket
import struct
import time

from haaro.compat import const
from haaro.dataplane import base, kernel_maps
from haaro.dataplane.base import MAX_TUNNELS
from haaro.dataplane.userspace import UserspacePlane

# For how long what comes by the ends of an earlier process is accepted, and its routes are kept
# while there are none of this one.
_HOLD_MS = const(15000)
_ADOPT_MS = const(30000)

_ETHERTYPE = const(0x88B5)
_AF_PACKET = const(17)
_HINT_MARK = const(2)
_REQUEST = const(16)  # Ethernet header, block, zero
_BLOCK = const(32)
_REPORT = const(16 + 32 * 8)
_GLOBALS = const(32)
_REPORT_EVERY_MS = const(200)


class KernelPlane(UserspacePlane):
    """`door` is a platform.linux_bpf.KernelDoor that has loaded, `paths` a linux_paths.LinuxPaths.

    lans: interfaces whose packets pass by the kernel's forwarding, in and out.
    """

    def __init__(
        self, pools, sockets, home_address: bytes, networks: list, door, paths, lans
    ) -> None:
        self.door = door
        self._paths = paths
        self._lans = lans
        self._lan_links: list = []  # (index, mtu) of each
        self._local: list = []
        self._connected: list = []
        self._pair = (0, 0)
        self._interfaces: dict = {}  # uplink: index of its interface, 0 = not for the programs
        self._via = [b""] * MAX_TUNNELS
        self._dirty = bytearray(MAX_TUNNELS)
        self._changed = True
        self._rows = b""  # of the routes and sources, as kernel_maps.Rows has them
        self._routed = False
        self._in_force: tuple | None = None  # (bank, generation), as the pins are named
        self._generation = 0
        for pin in door.pinned():
            kind, bank, generation = pin.split("_")
            self._generation = max(self._generation, int(generation))
            if kind == "now":
                self._in_force = (int(bank), int(generation))
        self._bank = 1 - self._in_force[0] if self._in_force else 0
        self._held: tuple | None = None
        now = time.ticks_ms()  # type: ignore[attr-defined]
        self._until = time.ticks_add(now, _ADOPT_MS)  # type: ignore[attr-defined]
        self._adopting = door.adopted and self._in_force is not None
        self._blocks: dict = {}
        self._before: dict = {}  # what a block held when this process began
        self._asked_at = now
        self._reports: socket.socket | None = None
        super().__init__(pools, sockets, home_address, networks)

    def register(self, poll) -> None:
        """Have all receive sockets, now and later, watched by `poll`."""
        super().register(poll)
        if self._reports:
            poll.register(self._reports, 1)

    def attach_pair(self, names: tuple, indexes: tuple) -> str:
        """Have the programs on the veth pair; return "" or why the kernel refuses.

        names, indexes: of the kernel's and of our end. After a refusal this is a userspace plane.
        """
        door = self.door
        reports = socket.socket(_AF_PACKET, socket.SOCK_RAW, 0)
        protocol = struct.unpack("@H", struct.pack(">H", _ETHERTYPE))[0]
        reports.bind(struct.pack("@HHiHBB8s", _AF_PACKET, protocol, indexes[1], 0, 0, 0, b""))
        reports.setblocking(False)
        self._reports = reports
        self.look_around()
        programs = [
            (names[0], "ingress", "report"),
            (names[1], "ingress", "from_pair"),
            (names[0], "egress", "to_tunnel"),
        ]
        programs += [(interface, "ingress", "lan_to_tunnel") for interface in self._lans]
        for interface, direction, program in programs:
            if not door.attach(interface, direction, program):
                refused = "tc on %s: %s" % (interface, door.last_error)
                door.unload()
                return refused
        self._pair = indexes
        if self._adopting:
            # What stays in force for now must find the pair as it is now.
            self._write_settings(door.begin())
            door.run()
        first = _GLOBALS + 2 * self._slot(0)
        # What they hold now is not this process's.
        self._ask(range(first // _BLOCK, (first + 2 * MAX_TUNNELS) // _BLOCK + 1))
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

    def set_tunnel(self, tunnel: int, *ends, **more) -> bool:
        """As UserspacePlane."""
        done = super().set_tunnel(tunnel, *ends, **more)
        self._dirty[tunnel] = 1
        self._changed = True
        return done

    def delete_tunnel(self, tunnel: int) -> None:
        """As UserspacePlane."""
        super().delete_tunnel(tunnel)
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
        if not self._lans:
            return
        links = [self._paths.ethernet(interface) for interface in self._lans]
        connected = [self._paths.connected(link[0]) if link[0] else [] for link in links]
        local = self._paths.local_prefixes()
        if (links, connected, local) != (self._lan_links, self._connected, self._local):
            self._lan_links, self._connected, self._local = links, connected, local
            self._changed = True

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
            self._held = self._in_force
            self._until = time.ticks_add(now, _HOLD_MS)  # type: ignore[attr-defined]
            self._write(self._held)
        elif self._changed and not self._adopting:
            self._write(None)
        if self._held and not self._adopting and late and self._in_force != self._held:
            self._release()
        if time.ticks_diff(now, self._asked_at) >= _REPORT_EVERY_MS:  # type: ignore[attr-defined]
            self._asked_at = now
            self._ask(self._in_use())

    def _write(self, hold):
        maps = self.door.maps
        file = self.door.begin()
        if hold:
            for kind in ("table", "ends"):
                kernel_maps.point(
                    file, maps, kind, 1, "%s/%s_%d_%d" % ((self.door.tables, kind) + hold)
                )
        self._generation += 1
        new = (self._bank, self._generation)
        table = "%s/table_%d_%d" % ((self.door.tables,) + new)
        ends = "%s/ends_%d_%d" % ((self.door.tables,) + new)
        file.write("map create %s type lpm_trie key 8 value 8 entries 16384 name table " % table)
        file.write("flags 1\nmap create %s type hash key 16 value 4 entries 260 name ends\n" % ends)
        self._write_settings(file)
        for tunnel in range(MAX_TUNNELS):
            if self._dirty[tunnel]:
                value = self._tunnel(tunnel)
                slot = struct.pack("@I", self._slot(tunnel))
                kernel_maps.update(file, maps + "/tunnels", slot, value)
        self._all_rows().write(file, table, self._slot(0))
        self._write_ends(file, ends)
        # Ends before routes: an answer must not come before its tunnel is known.
        kernel_maps.point(file, maps, "ends", 0, ends)
        kernel_maps.point(file, maps, "table", 0, table)
        if self.door.run():
            self._in_force = new
            self.door.mark("now_%d_%d" % new)
            self._dirty[:] = bytes(MAX_TUNNELS)
            self._changed = False
        # If not: once more at the next turn, under new names.
        self._unpin()

    def _write_settings(self, file):
        ethernet = self._state[base.STATE_ETHERNET : base.STATE_ETHERNET + 14]
        kernel_maps.settings(file, self.door.maps, self._pair, ethernet, self._lan_links)

    def _all_rows(self):
        rows = kernel_maps.Rows(self._aside.data, self._rows)
        # Everywhere else is in the table too: what is there is known not to be ours.
        rows.flag(bytes(4), 0, 0)
        for prefix, length in self._networks:
            rows.flag(prefix, length, kernel_maps.OWN)
        rows.flag(self._home_address, 32, kernel_maps.HOME)
        for end in self._ends():
            rows.flag(end, 32, kernel_maps.END)
        for prefix, length in self._local:
            rows.flag(prefix, length, kernel_maps.LOCAL)
        for i, addresses in enumerate(self._connected):
            for address, length in addresses:
                rows.lan(self._networks, address, length, i + 1)
        return rows

    def _release(self):
        maps = self.door.maps
        file = self.door.begin()
        for kind in ("table", "ends"):
            kernel_maps.point(file, maps, kind, 1, "%s/no_%s" % (maps, kind))
        if self.door.run():
            self._held = None
            self._unpin()

    def _unpin(self):
        """Forget all tables but those in force and held."""
        kept = []
        for names in (self._in_force, self._held):
            if names:
                kept.append("%d_%d" % names)
        for pin in self.door.pinned():
            if pin[pin.find("_") + 1 :] not in kept or (pin[0] == "n" and pin[4:] != kept[0]):
                self.door.unpin(pin)

    def _slot(self, tunnel):
        return self._bank * MAX_TUNNELS + tunnel

    def _next_hop(self, key):
        link = self._interfaces.get(key[0], 0)
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
        return kernel_maps.tunnel(key[1], key[2], key[3], link, via, mtu, tunnel > 0)

    def _write_ends(self, file, path):
        for tunnel in range(MAX_TUNNELS):
            key = self._keys[tunnel]
            if not key:
                continue
            self._write_end(file, path, tunnel, key[0], key[2], key[3])
            other = self._others.get(tunnel)
            if other:
                self._write_end(file, path, tunnel, *other)

    def _write_end(self, file, path, tunnel, uplink, remote, port):
        link = self._interfaces.get(uplink, 0)
        if link:
            end = remote + self._uplinks[uplink][1] + struct.pack("@I", link)
            end += struct.pack(">HH", port, 0)
            kernel_maps.update(file, path, end, struct.pack("@I", self._slot(tunnel)))

    def handle(self, obj, event: int) -> bool:
        """As UserspacePlane; also takes hints and counters that the programs send."""
        if obj is not self._reports:
            return super().handle(obj, event)
        try:
            while True:
                report = self._reports.recv(_REPORT)
                if report[6] == _HINT_MARK:
                    hint = report[7] << 8 | report[8]
                    # Before that the numbers are those of the process before.
                    if not self._adopting and hint < base.MAX_HINTS:
                        self.wanted[hint] = 1
                        self.wanted_any = True
                elif len(report) == _REPORT:
                    block = report[14]
                    if block not in self._blocks:
                        self._before[block] = report if self.door.adopted else bytes(_REPORT)
                    self._blocks[block] = report
        except OSError:
            pass
        return True

    def _in_use(self):
        """Return the blocks of counters of the tunnels there are."""
        first = _GLOBALS + 2 * self._slot(0)
        blocks = set()
        for tunnel in range(MAX_TUNNELS):
            if self._keys[tunnel]:
                blocks.add((first + 2 * tunnel) // _BLOCK)
                blocks.add((first + 2 * tunnel + 1) // _BLOCK)
        return blocks

    def _ask(self, blocks):
        """Send a request for each block of counters, and for the first one."""
        request = bytearray(_REPORT)
        request[12] = _ETHERTYPE >> 8
        request[13] = _ETHERTYPE & 255
        for block in {0}.union(blocks):
            request[14] = block
            try:
                self._lan_write(request, 0, _REPORT)
            except OSError:
                self._send_errors += 1

    def _count(self, index):
        """Return what the programs have counted since this process began, as last reported."""
        block = self._blocks.get(index // _BLOCK)
        if not block:
            return 0
        at = _REQUEST + index % _BLOCK * 8
        before = self._before[index // _BLOCK]
        return struct.unpack_from("@Q", block, at)[0] - struct.unpack_from("@Q", before, at)[0]

    def user_rx(self, tunnel: int) -> int:
        """As UserspacePlane; the programs' share is up to 0.2 s old."""
        return super().user_rx(tunnel) + self._count(_GLOBALS + 2 * self._slot(tunnel))

    def user_tx(self, tunnel: int) -> int:
        """As UserspacePlane; the programs' share is up to 0.2 s old."""
        return super().user_tx(tunnel) + self._count(_GLOBALS + 2 * self._slot(tunnel) + 1)

    def counters(self) -> dict:
        """As UserspacePlane, with what the programs forwarded and refused."""
        result = super().counters()
        for i, name in enumerate(kernel_maps.COUNTERS):
            result[name] = result.get(name, 0) + self._count(i)
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
                self._poll.unregister(self._reports)
            self._reports.close()
            self._reports = None
        self.door.unload()
        self._paths.close()
