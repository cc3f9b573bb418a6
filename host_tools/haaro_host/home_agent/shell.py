"""The home agent as a process: sockets, the TUN device, signals, the clock and the local socket.

Owns all I/O. Decides nothing: core does. Called by `haaro ha`.
"""

import asyncio
import errno
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from haaro.wire.ipv4 import address, text
from haaro.wire.message import MIP_PORT
from haaro_host.home_agent import config as configuration
from haaro_host.home_agent import control, kernel_plane, tun
from haaro_host.home_agent.bindings import OVERHEAD, UDP
from haaro_host.home_agent.config import Config, ConfigError, Problem
from haaro_host.home_agent.core import RAW_PORT, HomeAgent
from haaro_host.home_agent.plane import Plane
from haaro_host.home_agent.priority import PrioritySocket, only_data
from haaro_host.home_agent.raw_sockets import RawSockets
from haaro_host.home_agent.store import Store, StoreError

log = logging.getLogger("haaro.ha")

_NTP_UNIX_MS = 2_208_988_800_000
_TICK_S = 1.0
_SO_RCVBUFFORCE = 33
_SO_SNDBUFFORCE = 32
_SO_MEMINFO = 55
_MEMINFO_DROPS = 8
_RECEIVE_BUFFER = 32 << 20
_SEND_BUFFER = 8 << 20
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_DONT = 0
_CATCH_UP = 64
_FIXED = (
    "address",
    "interface",
    "state",
    "socket",
    "mtu",
    "dataplane",
)  # what a running process cannot change


class StartError(Exception):
    """The home agent cannot start; the text says what is missing."""


class Shell:
    """One running home agent; `run` returns when it was asked to stop."""

    def __init__(self, path: str | Path) -> None:
        """Read the configuration at `path`. Raises ConfigError."""
        self._path = path
        self._config = configuration.load(path)
        self._stop = asyncio.Event()
        self._control_received = 0
        self._began = time.monotonic()
        self._boot = _boot_id()

    async def run(self) -> None:
        """Open everything, serve until stopped, close everything. Raises StartError."""
        config = self._config
        try:
            self._store = Store(config.state)
        except StoreError as error:
            raise StartError(str(error)) from None
        try:
            self._agent = HomeAgent(config, self._store, os.urandom)
            self._udp = _udp_socket(config)
            self._priority = _priority_socket(config)
            self._raw = _raw_sockets(config)
            self._tun = tun.Tun(config.interface, config.address, config.mtu - OVERHEAD[UDP])
            self._tun.add_routes(tun.routes_of(config))
            server = await control.serve(
                config.socket,
                {"status": self.status, "reload": self.reload, "stop": self.stop},
                {"revoke": self.revoke, "allow": self.allow},
            )
        except (tun.TunError, control.ControlError) as error:
            raise StartError(str(error)) from None
        self._plane = Plane(
            self._agent, self._udp, self._tun.fileno, self._on_datagram, self._on_packet
        )
        self._kernel, self._why = kernel_plane.start(
            self._agent, config, lambda line: log.warning("%s", line)
        )
        self._report(config)
        loop = asyncio.get_running_loop()
        self._agent.handle_timer(self._now())
        self._flush()
        loop.add_reader(self._udp, self._plane.on_udp)
        loop.add_reader(self._priority, self._on_control)
        for receiver in self._raw.receivers:
            loop.add_reader(receiver, self._on_raw, receiver)
        loop.add_reader(self._tun.fileno, self._plane.on_tun)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        try:
            while not self._stop.is_set():
                self._tick()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _TICK_S)
        finally:
            server.close()
            for descriptor in (self._udp, self._priority, self._tun.fileno):
                loop.remove_reader(descriptor)
            for receiver in self._raw.receivers:
                loop.remove_reader(receiver)
            with suppress(OSError):
                os.unlink(config.socket)
            if self._kernel:
                self._kernel.close()
            self._tun.close()
            self._udp.close()
            self._priority.close()
            self._raw.close()
            self._store.close()
            log.info("stopped")

    # --- local socket and signals --------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Answer `status`."""
        kernel = self._kernel
        if kernel:
            kernel.collect()
        result = self._agent.status(self._now())
        result["uptime_s"] = int(time.monotonic() - self._began)
        result["pid"] = os.getpid()
        result["counters"]["socket_drops"] = self._socket_drops()
        result["data_plane"] = {"plane": "userspace", "why": self._why}
        if kernel:
            for reason, drops in kernel.reasons().items():
                result["counters"][reason] = result["counters"].get(reason, 0) + drops
            result["data_plane"].update(kernel.status())
            result["data_plane"]["plane"] = "userspace" if kernel.given_up else "kernel"
            result["data_plane"]["why"] = kernel.given_up or self._why
        return result

    def stop(self) -> dict[str, Any]:
        """Answer `stop`."""
        self._stop.set()
        return {"stopping": True}

    def revoke(self, router: str) -> dict[str, Any]:
        """Answer `revoke ROUTER`: its registration ends now, and none is taken until `allow`."""
        return self._change(router, "registered", self._agent.revoke)

    def allow(self, router: str) -> dict[str, Any]:
        """Answer `allow ROUTER`."""
        return self._change(router, "was_revoked", self._agent.allow)

    def _change(
        self, router: str, key: str, change: Callable[[int, bytes], bool]
    ) -> dict[str, Any]:
        for found in self._config.routers.values():
            if router in (found.name, text(found.home_address)):
                break
        else:
            known = ", ".join(found.name for found in self._config.routers.values())
            return {"error": f"{router}: no such router; known: {known}"}
        try:
            result = change(self._now(), found.home_address)
        except StoreError as error:
            return {"error": str(error)}
        self._flush()
        return {"router": found.name, key: result}

    def reload(self) -> dict[str, Any]:
        """Put the file's configuration in force as a whole, or keep the old one and say why."""
        try:
            config = configuration.load(self._path)
            self._refuse_fixed(config)
            self._tun.add_routes(tun.routes_of(config))
            try:
                self._agent.reconfigure(self._now(), config)
            except StoreError:
                self._tun.keep_routes(tun.routes_of(self._config))
                raise
        except (ConfigError, StoreError, tun.TunError) as error:
            log.error("reload refused, the old configuration stays:\n%s", error)
            return {"reloaded": False, "error": str(error)}
        self._config = config
        self._tun.keep_routes(tun.routes_of(config))
        self._flush()
        for warning in config.warnings:
            log.warning("%s", warning)
        log.info("reloaded: %d routers", len(config.routers))
        return {"reloaded": True, "warnings": list(config.warnings)}

    def _refuse_fixed(self, config: Config) -> None:
        problems = []
        for key in _FIXED:
            old, new = getattr(self._config, key), getattr(config, key)
            if old != new:
                shown = [text(v) if isinstance(v, bytes) else str(v) for v in (new, old)]
                wanted = f"{shown[1]} until the next restart"
                problems.append(Problem(str(self._path), f"home_agent.{key}", shown[0], wanted))
        if problems:
            raise ConfigError(problems)

    # --- I/O -----------------------------------------------------------------------------------

    def _on_datagram(self, source: tuple[str, int], data: bytes) -> None:
        config = self._config
        self._agent.receive_datagram(
            self._now(), address(source[0]), source[1], config.address, MIP_PORT, data
        )
        self._flush()

    def _on_control(self) -> int:
        """Take a batch of control datagrams; return how many there were."""
        count = 0
        for count, datagram in enumerate(self._priority.receive(), 1):  # noqa: B007
            self._on_datagram((text(datagram.src), datagram.sport), datagram.data)
        self._control_received += count
        return count

    def _socket_drops(self) -> int:
        """Return the datagrams that found a receive buffer full."""
        drops = _drops(self._udp)
        # What its filter left to the other socket counts as dropped by the kernel.
        for _ in range(_CATCH_UP):
            if not self._on_control():
                break
        return max(0, drops - self._control_received)

    def _on_packet(self, packet: bytes) -> None:
        self._agent.receive_packet(self._now(), packet)
        self._flush()

    def _on_raw(self, receiver: socket.socket) -> None:
        now = self._now()
        for packet in self._raw.receive(receiver):
            self._agent.receive_encapsulated(now, packet)
        self._flush()

    def _flush(self) -> None:
        agent = self._agent
        if self._kernel and self._kernel.behind:
            # Before anybody is told: who is registered no more is not forwarded either.
            self._kernel.commit(self._now())
        while (transmit := agent.poll_transmit()) is not None:
            try:
                if transmit.urgent:
                    self._priority.send(transmit.dst, transmit.dport, transmit.payload)
                elif transmit.dport == RAW_PORT:
                    self._raw.send(transmit.payload)
                else:
                    self._udp.sendto(transmit.payload, (text(transmit.dst), transmit.dport))
            except OSError:
                agent.counters["send_error"] += 1
        while (packet := agent.poll_outside()) is not None:
            try:
                os.write(self._tun.fileno, packet)
            except OSError:
                agent.counters["send_error"] += 1
        while (event := agent.next_event()) is not None:
            log.log(logging.WARNING if event[1] == "warning" else logging.INFO, "%s", event[2])
        self._plane.refresh()

    def _tick(self) -> None:
        now = self._now()
        deadline = self._agent.next_deadline()
        if deadline is not None and deadline <= now:
            self._agent.handle_timer(now)
        if self._kernel:
            self._kernel.commit(now, True)
            self._kernel.look_around()
        self._flush()

    def _now(self) -> int:
        """Return NTP milliseconds; tell the core when the system clock was set."""
        wall = time.time_ns() // 1_000_000
        skew = wall - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
        now = wall + _NTP_UNIX_MS
        self._agent.machine_clock(now, self._boot, skew)
        return now

    def _report(self, config: Config) -> None:
        for warning in config.warnings:
            log.warning("%s", warning)
        problem = tun.enable_forwarding()
        if problem:
            log.warning("%s", problem)
        log.info("home agent %s ready: %d routers", text(config.address), len(config.routers))


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.urandom(8).hex()  # equal to no other: nothing is known of the time before


def _udp_socket(config: Config) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    _set_buffer(udp, _SO_RCVBUFFORCE, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    _set_buffer(udp, _SO_SNDBUFFORCE, socket.SO_SNDBUF, _SEND_BUFFER)
    # What fits the configured MTU is sent whole; a smaller link on the way may fragment it.
    udp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
    only_data(udp, config.address)
    try:
        udp.bind((text(config.address), MIP_PORT))
    except OSError as error:
        udp.close()
        raise StartError(_bind_reason(text(config.address), error)) from None
    return udp


def _priority_socket(config: Config) -> PrioritySocket:
    try:
        return PrioritySocket(config.address)
    except PermissionError:
        raise StartError("raw sockets: not permitted; run as root or with CAP_NET_RAW") from None


def _raw_sockets(config: Config) -> RawSockets:
    try:
        return RawSockets(config.address)
    except PermissionError:
        raise StartError("raw sockets: not permitted; run as root or with CAP_NET_RAW") from None


def _set_buffer(sock: socket.socket, force: int, ordinary: int, size: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, ordinary, size)


def _bind_reason(where: str, error: OSError) -> str:
    known = {
        errno.EADDRNOTAVAIL: "this host does not have that address",
        errno.EADDRINUSE: "another program has that port",
        errno.EACCES: "not permitted; run as root or with CAP_NET_BIND_SERVICE",
    }
    return f"UDP {where} port {MIP_PORT}: {known.get(error.errno or 0, error.strerror)}"


def _drops(sock: socket.socket) -> int:
    """Return the datagrams that found the receive buffer full, or did not pass the filter."""
    data = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
    drops: int = struct.unpack_from("=I", data, 4 * _MEMINFO_DROPS)[0]
    return drops
