"""The TUN device by which the kernel hands us packets for home addresses and mobile networks.

Owns: the device, its routes, and IPv4 forwarding of the host. The device is gone when the process
ends, however it ends, because it is not persistent. What it took is then dropped by routes behind
its own, marked by their protocol: without them the home network's packets to a mobile network would
follow the host's default route, in clear, until a home agent runs again. An orderly end removes
these too. Called by the shell.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from haaro_host.home_agent.config import Config, Prefix

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_QUEUE_PACKETS = 4096
_PROTOCOL = 44  # marks our routes, see `ip route show table all proto 44`
_LAST_METRIC = 0xFFFFFFFE


class TunError(Exception):
    """The device cannot be made; the text says what is missing."""


class Tun:
    """An open TUN device with routes. `fileno` is non-blocking; one read or write is one packet."""

    def __init__(self, name: str, address: bytes, mtu: int) -> None:
        """Make device `name` with `mtu` octets; `address` is the source of our own packets."""
        self._address = str(IPv4Address(address))
        self._routes: set[Prefix] = set()
        # pyroute2 runs an event loop of its own, which cannot be inside the shell's: one thread.
        self._worker = ThreadPoolExecutor(max_workers=1)
        try:
            self.fileno = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise TunError(f"{_DEVICE}: {error.strerror}: is the tun module loaded?") from None
        try:
            request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(self.fileno, _TUNSETIFF, request)
            with suppress(OSError):  # only IPv4 comes this way; no router solicitations please
                Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1\n")
            self._netlink = self._call(IPRoute)
            self._index = self._call(self._netlink.link_lookup, ifname=name)[0]
            self._call(
                self._netlink.link,
                "set",
                index=self._index,
                mtu=mtu,
                state="up",
                txqlen=_QUEUE_PACKETS,
            )
        except OSError as error:
            os.close(self.fileno)
            raise TunError(_reason(name, error.errno, error.strerror)) from None
        except NetlinkError as error:
            os.close(self.fileno)
            raise TunError(_reason(name, error.code, str(error))) from None

    def add_routes(self, wanted: set[Prefix]) -> None:
        """Add the routes of `wanted` that are missing, all or none. Raises TunError."""
        added: list[Prefix] = []
        for prefix in sorted(wanted - self._routes):
            try:
                self._change("add", prefix)
            except NetlinkError as error:
                for done in added:
                    self._change("del", done)
                    self._routes.discard(done)
                raise TunError(
                    f"route {_text(prefix)}: {os.strerror(error.code)};"
                    " is it routed elsewhere on this host?"
                ) from None
            self._routes.add(prefix)
            added.append(prefix)
        self._guard(wanted)

    def keep_routes(self, wanted: set[Prefix]) -> None:
        """Delete the routes that are not in `wanted`."""
        for prefix in self._routes - wanted:
            self._change("del", prefix)
        self._routes &= wanted
        self._guard(wanted)

    def close(self) -> None:
        """Take the device and its routes away."""
        self._guard(set())
        self._call(self._netlink.close)
        self._worker.shutdown()
        os.close(self.fileno)

    def _change(self, command: str, prefix: Prefix) -> None:
        self._call(
            self._netlink.route,
            command,
            dst=_text(prefix),
            oif=self._index,
            scope="link",
            prefsrc=self._address,
        )

    def _guard(self, wanted: set[Prefix]) -> None:
        """Drop what goes to `wanted` and no longer to others whenever the device is not there."""
        nets = {_text(prefix) for prefix in wanted}
        found = self._call(lambda: list(self._netlink.get_routes(proto=_PROTOCOL)))
        there = {f"{route.get_attr('RTA_DST')}/{route['dst_len']}" for route in found}
        for command, changed in (("add", nets - there), ("del", there - nets)):
            for net in sorted(changed):
                self._call(
                    self._netlink.route,
                    command,
                    dst=net,
                    type="blackhole",
                    priority=_LAST_METRIC,
                    proto=_PROTOCOL,
                )

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._worker.submit(function, *args, **kwargs).result()


def routes_of(config: Config) -> set[Prefix]:
    """Return what the kernel shall route to us: home addresses and mobile networks.

    Not 0.0.0.0/0: a gateway's default is for the other routers, not for this host.
    """
    nets: Iterable[Prefix] = [
        *config.home_addresses,
        *(prefix for router in config.routers.values() for prefix in router.prefixes),
    ]
    return {prefix for prefix in nets if prefix[1] > 0}


def enable_forwarding() -> str | None:
    """Make the kernel forward between the TUN device and the outside; return what went wrong."""
    try:
        if _IP_FORWARD.read_text().strip() != "1":
            _IP_FORWARD.write_text("1\n")
    except OSError as error:
        return (
            f"{_IP_FORWARD}: {error.strerror}; without IPv4 forwarding nothing passes between"
            " the outside and the routers"
        )
    return None


def _text(prefix: Prefix) -> str:
    return f"{IPv4Address(prefix[0])}/{prefix[1]}"


def _reason(name: str, number: int | None, text: str | None) -> str:
    if number == errno.EPERM:
        return f"device {name}: not permitted; run as root or with CAP_NET_ADMIN"
    if number == errno.EBUSY:
        return f"device {name}: in use; does another home agent run with this interface?"
    return f"device {name}: {text}"
