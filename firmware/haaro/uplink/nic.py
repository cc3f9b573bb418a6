"""What the uplinks of MicroPython's `network` module share: addresses, settling, and polling.

Owns reading and setting a network interface object's IPv4 configuration, by `ipconfig` or, on older
firmware, `ifconfig`. Subclassed by wlan.py and ethernet.py. Contract: uplink/base.py; sans-IO but
for the calls of that object, none of which waits.
"""

from haaro.compat import const
from haaro.uplink import base
from haaro.wire import ipv4

_POLL_MS = const(250)
_MTU = const(1500)
# A drop that is over by then is not told: the addresses are the same, the tunnels live on.
_SETTLE_DOWN_MS = const(1000)
# Drivers say "connected" in the moment before they say "no".
_SETTLE_UP_MS = const(300)


class Nic:
    """One interface. nic: an object as `network.WLAN`; uplink: its entry of router.json.

    While UP, `address` and `gateway` may change.
    """

    mtu = _MTU

    def __init__(self, nic, uplink: dict) -> None:
        self._nic = nic
        self._static = uplink["address"] and (uplink["address"], uplink["gateway"])
        self._settled = base.Settled(
            {base.UP: _SETTLE_UP_MS, base.CONNECTING: _SETTLE_DOWN_MS, base.DOWN: _SETTLE_DOWN_MS}
        )
        self.reason = ""
        self.address = b""
        self.gateway: bytes | None = None
        self.interface = None
        self.errors = 0
        self._on = False
        self._poll_at = 0

    @property
    def state(self) -> str:
        """DOWN, CONNECTING, UP or FAILED, as it has settled."""
        return self._settled.state

    def start(self, now: int) -> None:
        """Ask for the link."""
        self._on = True
        self._poll_at = now
        self._say(now, base.CONNECTING, "starting")
        try:
            self._bring_up(now)
        except OSError as error:
            self._trouble(now, error)

    def stop(self, now: int) -> None:
        """End the link, from whatever state it is in."""
        self._on = False
        try:
            self._nic.active(False)
        except OSError:
            self.errors += 1
        self._settled = base.Settled({})
        self.reason = "stopped"

    def next_deadline(self) -> int | None:
        """Return when `handle_timer` must be called: a `network` object tells nothing by itself."""
        return self._poll_at if self._on else None

    def handle_timer(self, now: int) -> None:
        """Look at the link, and do what is due."""
        if not self._on or now < self._poll_at:
            return
        self._poll_at = now + _POLL_MS
        try:
            self._look(now)
        except OSError as error:
            self._trouble(now, error)

    def status(self) -> dict:
        """Facts for the status report."""
        return {"state": self.state, "why": self.reason, "driver_errors": self.errors}

    def _say(self, now, state, why):
        """Take a reading of the state; `why` is believed with it."""
        self._settled.read(now, state)
        if self._settled.state == state:
            self.reason = why

    def _trouble(self, now, error):
        self.errors += 1
        self._say(now, base.CONNECTING, "the driver refuses: %s" % error)

    def _came_up(self, now, got):
        """The link says that it is up with `got` (address, gateway)."""
        self._say(now, base.UP, "")
        # Another lease or network is told at once: what went by the old one is lost anyway.
        self.address, self.gateway = got

    def _identify(self):
        """Learn the name that a socket can be bound to; rp2's interfaces have none."""
        try:
            self.interface = self._nic.config("ifname")
        except (ValueError, OSError, AttributeError):
            self.interface = None

    def _configure(self):
        """Set the static address, where there is one; without it the port asks by DHCP itself."""
        if not self._static:
            return
        (address, plen), gateway = self._static
        mask = ipv4.text(ipv4.mask(b"\xff\xff\xff\xff", plen))
        self._set_address(ipv4.text(address), mask, plen, ipv4.text(gateway))

    def _set_address(self, address, mask, plen, gateway):
        try:
            ipconfig = self._nic.ipconfig
        except AttributeError:
            self._nic.ifconfig((address, mask, gateway, gateway))
            return
        ipconfig(addr4="%s/%d" % (address, plen))
        ipconfig(gw4=gateway)

    def _addresses(self):
        """Return (address, gateway), None while there is no address."""
        try:
            ipconfig = self._nic.ipconfig
            address = ipconfig("addr4")[0]
            gateway = ipconfig("gw4")
        except (AttributeError, ValueError):
            address, _, gateway, _ = self._nic.ifconfig()
        if not address or address == "0.0.0.0":
            return None
        gateway = None if not gateway or gateway == "0.0.0.0" else ipv4.address(gateway)
        return ipv4.address(address), gateway
