"""A microcontroller under the router: UDP sockets of its stack, uplinks we bring up, a LAN chip.

Owns the order in which they come up and go, and says plainly what such a port lacks. The same
attributes as platform/linux.LinuxMachine, for shell/loop.py.
"""

import gc
import os
import sys

from haaro.compat import const
from haaro.dataplane.udp import UdpPlane
from haaro.platform import lwip_sockets
from haaro.platform.board import Board
from haaro.uplink import base

# After so much was made, collect: a datagram of full size takes 1.6 KB in one piece.
_LEAST_THRESHOLD = const(8192)


class Signalling:
    """Mobile IP messages by the sockets of the plane; see shell/signalling.py."""

    def __init__(self, plane, sockets) -> None:
        self._plane = plane
        self._sockets = sockets
        self.open: dict = {}  # uplink: (interface, address)

    @property
    def send_errors(self) -> int:
        """Datagrams that could not be sent."""
        return self._sockets.send_errors

    def send(self, uplink: int, dst: bytes, dport: int, payload: bytes) -> bool:
        """Send a datagram from port 434 of the uplink's address; False and counted on failure."""
        return self._sockets.send(self.open.get(uplink), dst, dport, payload)

    def receive(self, obj) -> tuple | None:
        """Return (uplink, src, sport, dst, dport, data) of the next datagram; None: no more."""
        signals = self._plane.signals
        return signals.pop(0) if signals else None


class LwipMachine:
    """Attachment of one router; `options` is the dict of shell/config.py, `board` for tests.

    Raises ValueError for what this port cannot do.
    """

    plane_kind = "userspace"
    plane_why = "plain UDP sockets: this port has nothing else"
    plane_octets = 0

    def __init__(self, settings, options: dict, pools: tuple, board=None) -> None:
        _refuse(options)
        if settings.encapsulation != "udp":
            given = settings.encapsulation
            raise ValueError('encapsulation: "%s": a board has UDP sockets only; use "udp"' % given)
        config_dir = options["secrets"].rpartition("/")[0]
        self._board = board or Board(config_dir + "/pins.csv" if config_dir else "pins.csv")
        self.warnings: list = []
        self.modems: dict = {}
        sockets = lwip_sockets.LwipSockets()
        self.plane = UdpPlane(pools, sockets, settings.home_address, settings.networks)
        self.plane.clamp_mss(options.get("mss_clamp", True))
        self.signalling = Signalling(self.plane, sockets)
        self.plane.control = self.signalling.send
        wifi_too = any(uplink["driver"] == "wifi" for uplink in options["uplinks"])
        self.links: list = []
        for i, uplink in enumerate(options["uplinks"]):
            try:
                link = self._board.uplink(uplink, options["secrets"], wifi_too)
            except ValueError as error:
                raise ValueError("uplinks[%d].%s" % (i, error)) from None
            self.links.append(link)
            if uplink["driver"] == "cellular":
                self.modems[i] = link
                sockets.own[link.interface] = link
        self._told: list = [None] * len(self.links)  # (interface, address, gateway) of what is up
        # The status has each, and why it is not up, also before it was up for the first time.
        self._changes = [(i, False, None, None, 0) for i in range(len(self.links))]
        self._failed: list = []
        self._started = False
        self.lan = None
        if options.get("lan"):
            self.lan = self._board.lan(options["lan"], 0, os.urandom)

    def start(self, poll) -> None:
        """Have our sockets watched; the first `tick` begins with the links."""
        self.plane.register(poll)
        for modem in self.modems.values():
            poll.register(modem.event, 1)
        if self.lan:
            self.plane.attach_lan(self.lan)
        try:
            gc.threshold(max(gc.mem_free() // 4, _LEAST_THRESHOLD))  # type: ignore[attr-defined]
        except AttributeError:
            pass

    def stop(self, failed: bool = False) -> None:
        """Close everything. failed: nothing else to guard, no packet passes a dead router here."""
        for link in self.links:
            link.stop(0)
        self.plane.close()

    def tick(self, now: int) -> bool:
        """Do what is due at links and port; return whether an uplink has changed."""
        if not self._started:
            self._started = True
            for link in self.links:
                link.start(now)
        if self.lan:
            self.lan.tick(now)
            if self.lan.warnings:
                self._warn_all(self.lan.warnings)
        for i, link in enumerate(self.links):
            link.handle_timer(now)
            self._compare(i, link)
        return bool(self._changes)

    def _compare(self, i, link):
        up = None
        if link.state == base.UP:
            up = (link.interface, link.address, link.gateway)
        if up == self._told[i]:
            return
        if self._told[i] and up and up[1] != self._told[i][1]:
            # Another address: what went by the old one ends first.
            self._changes.append((i, False, None, None, 0))
        self._told[i] = up
        if up:
            self._changes.append((i, True, link.address, link.gateway, link.mtu))
        else:
            self._changes.append((i, False, None, None, 0))

    def soonest(self, deadline: int) -> int:
        """Return when `tick` must be called, `deadline` at the latest."""
        if not self._started:
            return 0
        for link in self.links:
            due = link.next_deadline()
            if due is not None and due < deadline:
                deadline = due
        if self.lan:
            due = self.lan.next_deadline()
            if due is not None and due < deadline:
                deadline = due
        return deadline

    def uplink_event(self, obj, now: int = 0) -> bool:
        """Look at a modem if `obj` is its event; False if it is not: no other link tells itself."""
        for i, modem in self.modems.items():
            if modem.event is obj:
                modem.handle(now)
                self._compare(i, modem)
                return True
        return False

    def next_uplink_change(self) -> tuple | None:
        """Return the next (index, up, address, gateway, mtu); its socket is ready."""
        while self._changes:
            change = self._changes.pop(0)
            self._failed = [other for other in self._failed if other[0] != change[0]]
            if self._apply(change):
                return change
        return None

    def _apply(self, change):
        index, up, address, _, mtu = change
        try:
            if up:
                interface = self.links[index].interface
                self.plane.open_uplink(index, interface, address, mtu)
                self.signalling.open[index] = (interface, address)
            else:
                self.signalling.open.pop(index, None)
                self.plane.close_uplink(index)
        except OSError as error:
            self._warn_all(["uplink %d: no socket: %s" % (index, error)])
            self._failed.append(change)
            return False
        return True

    def learn(self, routes: list) -> None:
        """The core's routes changed: nothing but the plane forwards here."""

    def check(self) -> None:
        """Queue again what could not be opened; called about once a second."""
        self._changes.extend(self._failed)
        self._failed = []
        self.plane.check()

    def describe(self, answer: dict) -> None:
        """Add what links and port say to the status."""
        for uplink in answer["uplinks"]:
            link = self.links[uplink["index"]]
            if uplink["index"] in self.modems:
                uplink["link"] = {"state": link.state, "why": link.reason}
            else:
                uplink["link"] = link.status()
            uplink["link"]["bound_to"] = link.interface or "the default route only"
        answer["lan"] = self.lan.status() if self.lan else None
        answer["port"] = {"name": sys.platform, "lacks": list(LACKS)}

    def _warn_all(self, lines):
        while lines:
            line = lines.pop(0)
            if line not in self.warnings:
                self.warnings.append(line)


LACKS = (
    "marks on control packets (TOS)",
    "the path's MTU",
    "congestion marks of the path",
    "local internet access (NAT)",
)


def _refuse(options):
    """Say what is configured and cannot be had. Raises ValueError."""
    if options.get("internet") == "local":
        raise ValueError('internet: "local": a board has no NAT; use "ha" or "block"')
    if options.get("dataplane") == "kernel":
        raise ValueError('dataplane: "kernel": a board has no eBPF; use "auto" or "userspace"')
    if options.get("fast_lan"):
        raise ValueError("fast_lan: a board has no such interfaces; take it away")
    if options.get("lan") and options["lan"].get("driver") == "linux_vlan":
        raise ValueError('lan.driver: linux_vlan: is for Linux; a board has "w5500"')
    modems = sum([uplink["driver"] == "cellular" for uplink in options["uplinks"]])
    if modems > 1:
        raise ValueError("uplinks: %d modems: a board has pins for one; configure one" % modems)
    # A modem's link is not lwIP's.
    known = sum([uplink["driver"] != "cellular" for uplink in options["uplinks"]])
    if known > 1 and not lwip_sockets.CAN_BIND:
        raise ValueError(
            "uplinks: %d: this port uses its default route only; configure one uplink, and a modem"
            % known
        )
    for i, uplink in enumerate(options["uplinks"]):
        if uplink["driver"] not in ("wifi", "ethernet", "cellular"):
            raise ValueError(
                'uplinks[%d].driver: %s: a board has "wifi", "ethernet" and "cellular"'
                % (i, uplink["driver"])
            )
