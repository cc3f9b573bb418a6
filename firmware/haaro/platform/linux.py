"""The Linux machine under the router: veth pair, kernel routing, uplinks, sockets, data plane.

Owns the order in which they come up and go; decides nothing. Called by main.py and shell/loop.py.
MicroPython gets no signals, so a killed router cleans up nothing: `start` begins with that.
"""

from haaro.compat import const
from haaro.lan.linux_packet import LinuxPacketPort, prepare_pair
from haaro.platform import linux_sockets
from haaro.platform.linux_routing import LinuxRouting
from haaro.platform.planes import make_plane, pair_names
from haaro.shell.signalling import Signalling
from haaro.uplink.linux_netdev import LinuxNetdev
from haaro.wire.ipv4 import text

_IPV4 = "/proc/sys/net/ipv4/"
_MTU = const(1500)
_RPS_CPUS = const(32)


class LinuxMachine:
    """Attachment of one router; `options` is the dict of shell/config.py."""

    def __init__(self, settings, options: dict, pools: tuple) -> None:
        self._settings = settings
        self._interface = options["tunnel_interface"]
        self._interfaces = [uplink["interface"] for uplink in options["uplinks"]]
        self._routing = LinuxRouting()
        self._uplinks = LinuxNetdev(self._interfaces, self._routing)
        self._block_ipv6 = options.get("lan_ipv6") != "local"
        self._breakout = None
        # By index, what we bring up ourselves (uplink/linux_modem.py).
        self.modems: dict = {}
        self._waiting: list = []
        self._failed: list = []
        self.warnings: list = []
        home_address = settings.home_address
        # Where this box asks others from: what comes from there goes by a tunnel.
        self.own_address = text(home_address)
        plane, self.plane_kind, self.plane_why, self.plane_octets = make_plane(
            settings, options, pools
        )
        self.plane = plane
        plane.clamp_mss(options.get("mss_clamp", True))
        self.signalling = Signalling(linux_sockets, home_address, plane.take)
        plane.control = self.signalling.send
        # After the plane, whose modules need the larger holes of the heap.
        for i, uplink in enumerate(options["uplinks"]):
            if uplink.get("driver") in ("wifi", "ethernet"):
                raise ValueError(
                    "uplinks[%d].driver: %s: is for microcontrollers; here the system brings the"
                    " link up: give its interface, and no driver" % (i, uplink["driver"])
                )
            if uplink.get("driver") == "cellular":
                self._add_modem(i, uplink, options["secrets"])
        self._lan = None
        if options.get("lan"):
            self._lan = self._make_lan(options["lan"])
        if options.get("internet") == "local":
            from haaro.platform.linux_breakout import Breakout

            order = []
            for i, uplink in enumerate(options["uplinks"]):
                priority = uplink.get("priority")
                order.append((i if priority is None else priority, i))
            self._routing.ranks = [sorted(order).index(place) for place in order]
            inside = settings.home_prefixes + [(settings.home_agent, 32)]
            self._breakout = Breakout(self._routing, inside, settings.networks, self._interfaces)

    def _make_lan(self, lan):
        if lan["driver"] != "linux_vlan":
            raise ValueError(
                "lan.driver: %s: is for microcontrollers; here the system has the LAN: take the"
                ' section away, or "linux_vlan" for one with a tag' % lan["driver"]
            )
        from haaro.platform.linux_vlan import LinuxVlan

        return LinuxVlan(self._routing, lan)

    def _add_modem(self, index, uplink, secrets_path):
        if uplink["data"] == "sockets":
            raise ValueError(
                'uplinks[%d].data: sockets: is for microcontrollers; here it is "ppp"' % index
            )
        from haaro.shell import secrets, unload
        from haaro.uplink.linux_modem import LinuxModem

        own = secrets.modem(secrets_path, uplink["name"])
        unload()
        path = secrets_path + "." + uplink["name"]
        self.modems[index] = LinuxModem(index, uplink, own, path, self._routing, self._warn)
        # The status has it, and why, also before it is up for the first time.
        self._waiting.append((index, False, None, None, 0))

    def start(self, poll) -> None:
        """Bring up our side of the box, whatever an earlier run left there. Raises OSError."""
        self._attach()
        for modem in self.modems.values():
            modem.register(poll)
        self.plane.register(poll)
        self.signalling.register(poll)
        poll.register(self._uplinks.socket, 1)
        self._uplinks.scan()

    def stop(self, failed: bool = False) -> None:
        """Close all sockets and take our links, rules and routes back.

        failed: we did not want to end and are started again. What guards the LAN stays, as after a
        kill, or its packets would leave by the uplink in the clear meanwhile.
        """
        for modem in self.modems.values():
            modem.close()
        self.plane.close()
        self.signalling.close_all()
        self._uplinks.close()
        if failed:
            self._clear()
        else:
            self._routing.clear(self._interface)
            if self._breakout:
                self._end_breakout()
            if self._lan:
                self._lan.close()
        self._routing.close()

    def _end_breakout(self):
        from haaro.platform.linux_breakout import remove

        remove()

    def learn(self, routes: list) -> None:
        """The core's routes changed: where they go must not leave by the uplink any more."""
        if self._breakout:
            prefixes = [(prefix, plen) for prefix, plen, tunnel, _ in routes if tunnel >= 0]
            try:
                if not self._breakout.learn(prefixes):
                    self._warn("internet: too many prefixes, the last may leave by the uplink")
            except OSError as error:
                self._warn("internet: a prefix cannot be kept inside: %s" % error)

    def check(self) -> None:
        """Queue again what could not be opened; called about once a second."""
        self._waiting.extend(self._failed)
        self._failed = []
        self.plane.check()

    def tick(self, now: int) -> None:
        """Do what is due at the modems."""
        for modem in self.modems.values():
            modem.tick(now)

    def soonest(self, deadline: int) -> int:
        """Return when `tick` must be called, `deadline` at the latest."""
        for modem in self.modems.values():
            deadline = min(deadline, modem.next_deadline())
        return deadline

    def uplink_event(self, obj, now: int = 0) -> bool:
        """Look at the uplinks if `obj` is their event socket or a modem's; False if it is not."""
        if obj is not self._uplinks.socket:
            return any(modem.handle(obj, now) for modem in self.modems.values())
        self._uplinks.handle()
        self.plane.look_around()
        return True

    def echo(self, index: int, local: bytes, remote: bytes) -> tuple:
        """Return (socket for ICMP out of the uplink `index`, `remote` as it takes it)."""
        sockets = linux_sockets
        return sockets.echo(self._interfaces[index], local), sockets.inet(remote, 0)

    def next_uplink_change(self) -> tuple | None:
        """Return the next (index, up, address, gateway, mtu); its sockets and routes are ready."""
        while True:
            change = self._uplinks.next_change()
            if change:
                # What waits for the same uplink is out of date.
                self._waiting = [other for other in self._waiting if other[0] != change[0]]
                self._failed = [other for other in self._failed if other[0] != change[0]]
            elif self._waiting:
                change = self._waiting.pop(0)
            else:
                return None
            if self._apply(change):
                return change

    def _apply(self, change):
        index, up, address, gateway, mtu = change
        interface = self._interfaces[index]
        try:
            if up:
                self._routing.set_uplink(index, interface, address, gateway)
                self.signalling.open(index, interface, address)
                self.plane.open_uplink(index, interface, address, mtu)
            else:
                self.plane.close_uplink(index)
                self.signalling.close(index)
                self._routing.drop_uplink(index)
        except OSError as error:
            self._warn("uplink %s: %s" % (interface, error))
            self._failed.append(change)
            return False
        return True

    def _attach(self):
        settings = self._settings
        routing = self._routing
        kernel_end, our_end = pair_names(self._interface)
        macs = (b"\x02\x68" + settings.home_address, b"\x02\x69" + settings.home_address)
        indexes = None
        kept: list = []
        if self.plane_kind == "kernel" and self.plane.door.adopted and not self._breakout:
            # Traffic goes on through the pair of the process before.
            indexes = routing.find_pair(kernel_end, our_end)
        if indexes is None:
            kept = self._clear()
            indexes = routing.make_pair(kernel_end, our_end, macs, _MTU)
        ahead = prepare_pair(indexes, self.plane_kind == "kernel")
        for end in (kernel_end, our_end):
            # There may be no IPv6 at all.
            self._write("/proc/sys/net/ipv6/conf/%s/disable_ipv6" % end, "1", True)
        self._write(_IPV4 + "conf/%s/accept_local" % kernel_end, "1")
        self._write(_IPV4 + "conf/%s/rp_filter" % kernel_end, "0")
        self._write(_IPV4 + "ip_forward", "1")
        # Each flow on one CPU keeps its order: there is a pair of sockets for each CPU. Not
        # allowed in a user namespace; then TCP meets some reordering.
        mask = "%x" % ((1 << min(linux_sockets.cpus(), _RPS_CPUS)) - 1)
        self._write("/sys/class/net/%s/queues/rx-0/rps_cpus" % our_end, mask, True)
        for index in indexes:
            routing.up(index)
        # On a link that is up, or the kernel would reorder the sockets as it comes up; and before
        # there is an address, so that nothing is in a queue when the filters change.
        self.plane.attach_lan(LinuxPacketPort(indexes[1], macs[1], macs[0], ahead))
        if self.plane_kind == "kernel":
            refused = self.plane.attach_pair((kernel_end, our_end), indexes)
            if refused:
                self.plane_kind = "userspace"
                self.plane_why = "the kernel plane is refused: " + refused
                self._warn(self.plane_why)
        routing.mark_uplinks(self._interfaces)
        if self._breakout:
            self._breakout.start(indexes[0], kept)
        elif kept:
            self._end_breakout()
        local = self._breakout is not None
        routing.add_home(indexes[0], settings.home_address, settings.networks, local)

    def _clear(self):
        own = [(self._settings.home_address, 32)] + self._settings.networks
        local = self._breakout is not None
        return self._routing.clear(self._interface, own, self._block_ipv6, local)

    def _write(self, path, value, optional=False):
        try:
            with open(path, "w") as file:
                file.write(value)
        except OSError as error:
            if not optional:
                self._warn("%s = %s: %s" % (path, value, error))

    def _warn(self, text):
        if text not in self.warnings:
            self.warnings.append(text)
