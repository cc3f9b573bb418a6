"""The home agent's kernel plane: BPF programs forward what the addresses of a packet decide.

Owns the maps of firmware/kernel_plane/home_agent.bpf.c, and keeps them equal to the bindings and
the configuration. What the programs do not take goes on to the sockets as if they were not there,
and plane.py and the core judge it by the same tables; so an entry that is missing here costs speed
only. Programs and maps are pinned: they forward on while no home agent runs, each binding until its
lifetime is over. Called by the shell.
"""

import ctypes
import os
import platform
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from haaro.dataplane import kernel_maps
from haaro.platform.linux_bpf import KernelDoor
from haaro.platform.linux_paths import LinuxPaths
from haaro_host.home_agent.bindings import OVERHEAD, UDP, Binding
from haaro_host.home_agent.config import Config, Prefix
from haaro_host.home_agent.core import HomeAgent

# What home_agent.bpf.c has too.
SLOTS = 1024
PREFIXES = 65536
NONE = 0xFFFF
ELSE, NETWORK, HOME_ADDRESS, HOME_NETWORK = range(4)
COUNTERS = ("relayed", "to_home", "from_home", "inner_source", "hairpin", "congestion_unmarked")
_REASONS = COUNTERS[3:]
_LANES = 16
_GLOBALS = 32
_COUNTERS = -(-(_GLOBALS + 2 * SLOTS) // 32) * 32

_KEY_OCTETS = {"settings": 4, "bindings": 4, "ends": 8, "prefixes": 12, "lanes": 4}
_VALUE_OCTETS = {
    "settings": 16,
    "bindings": kernel_maps.TUNNEL + 16,
    "ends": 16,
    "prefixes": 4,
    "lanes": 8 * _COUNTERS,
}
_SYSCALL = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "armv7l": 386,
    "armv6l": 386,
    "i686": 357,
    "ppc64le": 361,
    "s390x": 351,
}
_LOOKUP, _UPDATE, _DELETE, _NEXT, _OPEN_PIN = 1, 2, 3, 4, 7
_SAME_NS = 100_000_000  # ends of a lifetime that differ by less are the same one, calculated anew
_ROUTES = Path("/proc/net/route")

Table = dict[bytes, bytes]


class Refused(Exception):
    """There is no kernel plane; the text says why."""


class Map:
    """One pinned map, by bpf(2): a call a value, no process. Raises OSError."""

    def __init__(self, path: str, name: str) -> None:
        """Open the map `name`, pinned below the directory `path`."""
        self._number = _SYSCALL.get(platform.machine(), 0)
        if not self._number:
            raise OSError(f"bpf(2) has no number here for {platform.machine()}")
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._key = ctypes.create_string_buffer(_KEY_OCTETS[name])
        self._value = ctypes.create_string_buffer(_VALUE_OCTETS[name])
        self._next = ctypes.create_string_buffer(_KEY_OCTETS[name])
        pin = ctypes.create_string_buffer(f"{path}/{name}".encode())
        self.fd = self._bpf(_OPEN_PIN, struct.pack("@QII", ctypes.addressof(pin), 0, 0))

    def set(self, key: bytes, value: bytes) -> None:
        """Write one entry."""
        self._key.raw, self._value.raw = key, value
        self._entry(_UPDATE, self._value)

    def get(self, key: bytes) -> bytes:
        """Return the value at `key`."""
        self._key.raw = key
        self._entry(_LOOKUP, self._value)
        return self._value.raw

    def delete(self, key: bytes) -> None:
        """Forget an entry, if there is one."""
        self._key.raw = key
        with suppress(FileNotFoundError):
            self._entry(_DELETE, None)

    def keys(self) -> Iterator[bytes]:
        """Yield all keys; nothing may change meanwhile."""
        first = True
        while True:
            try:
                self._entry(_NEXT, self._next, None if first else self._key)
            except FileNotFoundError:
                return
            first = False
            self._key.raw = self._next.raw
            yield self._next.raw

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def _entry(self, command: int, value: Any, key: Any = ...) -> None:
        key = self._key if key is ... else key
        at = [0 if buffer is None else ctypes.addressof(buffer) for buffer in (key, value)]
        self._bpf(command, struct.pack("@IIQQQ", self.fd, 0, *at, 0))

    def _bpf(self, command: int, attributes: bytes) -> int:
        done: int = self._call(self._number, command, attributes, len(attributes))
        if done < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return done


class Door(KernelDoor):
    """Loads and attaches the programs, as the routers' does."""

    PROGRAMS = "home_agent_"
    MAP = "prefixes"

    def _run(self, command: str, counts: bool = True) -> bool:
        began = time.perf_counter_ns()
        environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, env=environment, check=False
        )
        self.account((time.perf_counter_ns() - began) // 1000)
        if done.returncode and counts:
            self.failures += 1
            lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
            said = [line for line in lines if line and not line.startswith("Warning")] or [""]
            denied = [line for line in said if "not permitted" in line or "denied" in line]
            self.last_error = (denied or said[-1:])[0][:200]
        return done.returncode == 0

    def account(self, microseconds: int) -> None:
        """Count one call that kept the loop waiting."""
        self.calls += 1
        self.blocked_us += microseconds
        self.longest_us = max(self.longest_us, microseconds)


def domain_number(domain: str) -> int:
    """Return the number of a routing domain: the same in each process."""
    return int.from_bytes(sha256(domain.lower().encode()).digest()[:4], "big")


def prefix_key(domain: int, prefix: Prefix) -> bytes:
    """Return struct prefix."""
    return struct.pack("@II", 32 + prefix[1], domain) + prefix[0]


def end_key(address: bytes, port: int) -> bytes:
    """Return struct end."""
    return address + struct.pack(">HH", port, 0)


def prefixes(config: Config, bindings: dict[bytes, Binding], slots: dict[bytes, int]) -> Table:
    """Return map `prefixes`: what forwarding.py decides by, as far as addresses decide it.

    slots: home address -> slot, of those whose tunnels the programs serve.
    """
    domains = {config.domain(router.home_address) for router in config.routers.values()}
    table: Table = {}
    for domain in sorted(domains | {config.home_domain}):
        entries = dict.fromkeys(config.home_networks, (NONE, HOME_NETWORK))
        entries.update(dict.fromkeys(config.home_addresses, (NONE, ELSE)))
        for router in config.routers.values():
            home_address = router.home_address
            entries[home_address, 32] = (slots.get(home_address, NONE), HOME_ADDRESS)
            if config.domain(home_address) != domain:
                continue
            entries.update(dict.fromkeys(router.prefixes, (NONE, ELSE)))
            binding = bindings.get(home_address)
            for prefix in binding.prefixes if binding and home_address in slots else ():
                entries[prefix] = (slots[home_address], NETWORK)
        # Ours, wherever it lies. The default is a gateway's: not for the programs.
        entries[config.address, 32] = (NONE, ELSE)
        entries.pop((bytes(4), 0), None)
        number = domain_number(domain)
        for prefix, value in entries.items():
            table[prefix_key(number, prefix)] = struct.pack("@HH", *value)
    return table


class KernelPlane:
    """The programs of one home agent. Without one (Refused) plane.py does it all."""

    def __init__(
        self, agent: HomeAgent, config: Config, tun: str, log: Callable[[str], None]
    ) -> None:
        """Load, or take over what runs, and attach; raises Refused, and leaves nothing then."""
        self._agent = agent
        self._log = log
        self._tun = tun
        self._address = config.address
        self._generation = -1
        self._lifetimes: list[tuple[int, int]] = []
        self._slots: dict[bytes, int] = {}
        self._attached: dict[str, int] = {}
        self._maps: dict[str, Map] = {}
        self._known: dict[str, Table] = {"bindings": {}, "ends": {}, "prefixes": {}}
        self.door = Door(config.socket)
        self._paths = LinuxPaths()
        self.failures = 0
        self.given_up = ""
        try:
            refused = self.door.load(f"home agent {config.address.hex()}")
            if refused:
                raise Refused(refused)
            self._open()
            self._totals = self._before = self._read_counters()
            self._attach()
        except (OSError, Refused) as error:
            self.close()
            raise Refused(str(error)) from None

    @property
    def behind(self) -> bool:
        """Tell whether `commit` has something to do."""
        return self._generation != self._agent.generation

    @property
    def interfaces(self) -> list[str]:
        """The interfaces by which routers are heard."""
        return sorted(self._attached)

    def commit(self, now: int, ends_too: bool = False) -> None:
        """Put the agent's bindings in force; at once if nothing changed.

        ends_too: look whether a renewal moved the end of a lifetime, too. What must not be
        forwarded any more goes first.
        """
        anew = self.behind
        if not self._maps or not (anew or ends_too):
            return
        lifetimes = [(b.expires, b.previous_until) for b in self._agent.bindings.values()]
        if not anew and lifetimes == self._lifetimes:
            return
        self._lifetimes = lifetimes
        began = time.perf_counter_ns()
        self._generation = self._agent.generation
        try:
            self._write(now, anew)
        except OSError as error:
            self.given_up = f"the kernel plane is given up: {error}"
            self._log(self.given_up)
            self.close()
        self.door.account((time.perf_counter_ns() - began) // 1000)

    def look_around(self) -> None:
        """Have the programs on interfaces that came or were made anew."""
        if not self._maps:
            return
        for name, index in self._attached.items():
            if _index(name) != index:
                try:
                    self._attach()
                except Refused as error:
                    self.door.last_error = str(error)
                return

    def collect(self) -> None:
        """Add what the programs counted since the last time to the bindings."""
        if not self._maps:
            return
        totals = self._read_counters()
        for home_address, slot in self._slots.items():
            binding = self._agent.bindings.get(home_address)
            at = _GLOBALS + 2 * slot
            if binding:
                binding.rx_packets += totals[at] - self._totals[at]
                binding.tx_packets += totals[at + 1] - self._totals[at + 1]
        self._totals = totals

    def counters(self) -> dict[str, int]:
        """Return what the programs did since this process began; `collect` brings it up to date."""
        return {name: self._totals[i] - self._before[i] for i, name in enumerate(COUNTERS)}

    def reasons(self) -> dict[str, int]:
        """Return the drops by the names that the core has for them, zeros left out."""
        found = self.counters()
        return {name: found[name] for name in _REASONS if found[name]}

    def status(self) -> dict[str, Any]:
        """Return what the operator may see."""
        return {
            "interfaces": self.interfaces,
            "counters": self.counters(),
            "entries": {name: len(table) for name, table in self._known.items()},
            "omitted": self.failures,
            "calls": self.door.status(),
        }

    def close(self) -> None:
        """Take programs, maps and filters back."""
        for opened in self._maps.values():
            opened.close()
        self._maps = {}
        self.door.unload()
        self._attached = {}
        if self._paths is not None:
            self._paths.close()
            self._paths = None  # type: ignore[assignment]

    # --- the kernel's side ---------------------------------------------------------------------

    def _open(self) -> None:
        for name in _KEY_OCTETS:
            self._maps[name] = Map(self.door.maps, name)
        if not self.door.adopted:
            return
        # What another process left is taken as it is; `commit` writes what differs.
        for name in ("ends", "prefixes"):
            opened = self._maps[name]
            self._known[name] = {key: opened.get(key) for key in list(opened.keys())}
        unused = bytes(_VALUE_OCTETS["bindings"])
        for slot in range(SLOTS):
            key = struct.pack("@I", slot)
            value = self._maps["bindings"].get(key)
            if value != unused:
                self._known["bindings"][key] = value
        for key, value in self._known["prefixes"].items():
            slot, kind = struct.unpack("@HH", value)
            if kind == HOME_ADDRESS and slot != NONE:
                self._slots[key[8:12]] = slot

    def _attach(self) -> None:
        self._set_home()
        found = {}
        for name in self._uplinks():
            index, _, veth = self._paths.ethernet(name)
            if not index:
                continue
            if not self.door.attach(name, "ingress", "from_tunnel"):
                raise Refused(f"tc on {name}: {self.door.last_error}")
            if veth:
                self.door.finish(name)
            found[name] = index
        if not found:
            raise Refused("no Ethernet interface has the address or the default route")
        if not self.door.attach(self._tun, "egress", "to_tunnel"):
            raise Refused(f"tc on {self._tun}: {self.door.last_error}")
        self._attached = found

    def _set_home(self) -> None:
        domain = domain_number(self._agent.config.home_domain)
        value = struct.pack("@II", _index(self._tun), domain) + self._address + bytes(4)
        self._maps["settings"].set(bytes(4), value)

    def _uplinks(self) -> list[str]:
        """Return the interfaces that have our address or a default route."""
        names = set()
        for line in _ROUTES.read_text().splitlines()[1:]:
            name, destination = line.split()[:2]
            if destination == "00000000" and line.split()[7] == "00000000":
                names.add(name)
        for index, name in socket.if_nameindex():
            if self._address in (address for address, _ in self._paths.connected(index)):
                names.add(name)
        return sorted(names - {self._tun})

    def _read_counters(self) -> tuple[int, ...]:
        sums = [0] * _COUNTERS
        for lane in range(min(_LANES, os.cpu_count() or _LANES)):
            values = struct.unpack(
                f"@{_COUNTERS}Q", self._maps["lanes"].get(struct.pack("@I", lane))
            )
            sums = [a + b for a, b in zip(sums, values, strict=True)]
        return tuple(sums)

    def _write(self, now: int, anew: bool) -> None:
        if anew:
            self._set_home()
            self._assign()
        wanted = {"bindings": self._bindings(now), "ends": self._ends(now)}
        wanted["prefixes"] = (
            prefixes(self._agent.config, self._agent.bindings, self._slots)
            if anew
            else self._known["prefixes"]
        )
        # No packet may be taken for another router's, nor go where nobody is, on the way there.
        for name in ("ends", "prefixes", "bindings"):
            for key in self._known[name].keys() - wanted[name].keys():
                self._forget(name, key)
        for name in ("bindings", "prefixes", "ends"):
            known = self._known[name]
            for key, value in wanted[name].items():
                if known.get(key) != value:
                    self._set(name, key, value)

    def _assign(self) -> None:
        """Give slots to who needs one; one that was another's only after it was taken from it."""
        agent = self._agent
        served = [b.home_address for b in agent.bindings.values() if b.encapsulation == UDP]
        left = [home_address for home_address in self._slots if home_address not in served]
        new = [home_address for home_address in served if home_address not in self._slots]
        if new or left:
            self.collect()
        taken = set(self._slots.values())
        for home_address in left:
            del self._slots[home_address]
        free = iter(sorted(set(range(SLOTS)) - taken))
        for home_address, slot in zip(new, free, strict=False):
            self._slots[home_address] = slot

    def _until(self, now: int, end: int, before: bytes | None, at: int) -> int:
        """Return the boot time in ns of `end` (NTP ms), as in force if that is the same."""
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        until = boot + (end - self._agent.time(now)) * 1_000_000
        if before is not None:
            known: int = struct.unpack_from("@Q", before, at)[0]
            if abs(known - until) < _SAME_NS:
                return known
        return max(0, until)

    def _bindings(self, now: int) -> Table:
        config = self._agent.config
        at = kernel_maps.TUNNEL + 8
        table: Table = {}
        for home_address, slot in self._slots.items():
            binding = self._agent.bindings[home_address]
            key = struct.pack("@I", slot)
            until = self._until(now, binding.expires, self._known["bindings"].get(key), at)
            mtu = config.mtu - OVERHEAD[UDP]
            gateway = (bytes(4), 0) in binding.prefixes
            table[key] = kernel_maps.tunnel(
                config.address, binding.source, binding.source_port, 0, b"", mtu, 1, False
            ) + struct.pack("@IIQ", domain_number(config.domain(home_address)), gateway, until)
        return table

    def _ends(self, now: int) -> Table:
        """Return map `ends`: who may send from where. Of several at one end each packet tells."""
        agent = self._agent
        table: Table = {}
        for home_address, slot in self._slots.items():
            binding = agent.bindings[home_address]
            ends = [(binding.end(), binding.expires)]
            if binding.previous:
                ends.append((binding.previous, min(binding.expires, binding.previous_until)))
            for (encapsulation, address, port), end in ends:
                if encapsulation != UDP or agent.is_shared_end(address, port):
                    continue
                key = end_key(address, port)
                until = self._until(now, end, self._known["ends"].get(key), 8)
                table[key] = struct.pack("@IIQ", slot, 0, until)
        return table

    def _set(self, name: str, key: bytes, value: bytes) -> None:
        try:
            self._maps[name].set(key, value)
        except OSError as error:
            # No room: the process forwards it. What was there must not stay.
            self.failures += 1
            self.door.last_error = f"map {name}: {error.strerror}"
            self._forget(name, key)
        else:
            self._known[name][key] = value

    def _forget(self, name: str, key: bytes) -> None:
        if name == "bindings":
            self._maps[name].set(key, bytes(_VALUE_OCTETS[name]))
        else:
            self._maps[name].delete(key)
        self._known[name].pop(key, None)


def start(
    agent: HomeAgent, config: Config, log: Callable[[str], None]
) -> tuple[KernelPlane | None, str]:
    """Return the kernel plane that `config` asks for, or None, and why; one line for the status."""
    if config.dataplane == "userspace":
        Door(config.socket).unload()  # what a killed home agent left
        return None, "configured"
    try:
        plane = KernelPlane(agent, config, config.interface, log)
    except Refused as error:
        why = f"the kernel plane is refused: {error}"
        log(why)
        return None, why
    return plane, "configured" if config.dataplane == "kernel" else "the kernel takes it"


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
