"""Packets of a live interface, in this or another network namespace (Linux, AF_PACKET)."""

import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from haaro.wire.message import MIP_PORT

_ETH_P_ALL, _ETH_P_IP = 3, 0x0800
_SO_ATTACH_FILTER = 26
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_PACKET_OUTGOING = 4
_LOOPBACK_HARDWARE = 772
_CLONE_NEWNET = 0x40000000
_NAMED = Path("/run/netns")
_MAX_PACKET = 65535
_TICK_S = 0.2


class LiveError(Exception):
    """The interface or the namespace cannot be used; the text says why."""


class Listener:
    """A packet socket on one interface. Keep it short: drops are counted, not prevented."""

    def __init__(self, interface: str, namespace: str | None = None) -> None:
        """Raises LiveError: no such interface or namespace, or no permission."""
        if namespace is not None:
            _enter(namespace)
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            # Before it is bound: no packet passes without the filter.
            self._attach()
            self._socket.bind((interface, _ETH_P_ALL))
        except PermissionError:
            raise LiveError(f"{interface}: listening needs root, or CAP_NET_RAW") from None
        except OSError as error:
            raise LiveError(f"{interface}: {error.strerror}") from None

    def packets(self, seconds: float | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield (nanoseconds since 1970, IPv4 packet), for `seconds` or without end."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            wait = _TICK_S if end is None else max(0.0, min(_TICK_S, end - time.monotonic()))
            if not select.select([self._socket], [], [], wait)[0]:
                continue
            try:
                data, address = self._socket.recvfrom(_MAX_PACKET)
            except OSError as error:  # the interface went down or away
                raise LiveError(str(error.strerror)) from None
            _, protocol, direction, hardware, _ = address
            # Loopback shows each packet twice.
            twice = hardware == _LOOPBACK_HARDWARE and direction == _PACKET_OUTGOING
            if protocol == _ETH_P_IP and not twice:
                yield time.time_ns(), data

    def dropped(self) -> int:
        """Return how many packets the kernel dropped because this program was too slow."""
        counts = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("=II", counts)[1])

    def _attach(self) -> None:
        program = b"".join(struct.pack("=HBBI", *each) for each in _program())
        held = ctypes.create_string_buffer(program, len(program))
        argument = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)


def _program() -> list[tuple[int, int, int, int]]:
    """Return classic BPF, [code, jump if true, jump if false, value], for IPv4 packets.

    The socket has taken the link header away. Kept are UDP packets to or from port 434, and all
    fragments but the first, which have no ports.
    """
    keep = 0x06, 0, 0, 0x40000
    drop = 0x06, 0, 0, 0
    return [
        (0x30, 0, 0, 0),  # version and header length
        (0x54, 0, 0, 0xF0),
        (0x15, 0, 10, 0x40),
        (0x30, 0, 0, 9),
        (0x15, 0, 8, socket.IPPROTO_UDP),
        (0x28, 0, 0, 6),
        (0x45, 5, 0, 0x1FFF),
        (0xB1, 0, 0, 0),
        (0x48, 0, 0, 0),
        (0x15, 2, 0, MIP_PORT),
        (0x48, 0, 0, 2),
        (0x15, 0, 1, MIP_PORT),
        keep,
        drop,
    ]


def _enter(namespace: str) -> None:
    """Move this process into a network namespace: a name of `ip netns`, or a path."""
    path = Path(namespace) if "/" in namespace else _NAMED / namespace
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise LiveError(f"namespace {namespace}: {error.strerror}") from None
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise LiveError(f"namespace {namespace}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)
