"""The router's one loop: poll, hand over, send what is queued, sleep until the next deadline.

Owns the order of things, nothing else: the core decides, the plane forwards, the platform changes
links and routes. Called by main.py. After any door of the core it does the same: send what is
queued, hand on the events, take the new deadline.
"""

import gc
import select
import socket
import sys

from haaro.compat import const
from haaro.core.router import Router
from haaro.shell import unload
from haaro.shell.clock import Clock, ntp_ms
from haaro.shell.status import build_status
from haaro.wire.ipv4 import text

# A microcontroller has no local sockets, and is asked by its console.
ControlSocket = None
if hasattr(socket, "AF_UNIX"):
    try:
        from haaro.shell.control import ControlSocket
    except ImportError:  # a small board's program in a test
        pass

_MAX_WAIT_MS = const(1000)
_SLOW_TURN_MS = const(1000)
# Datagrams of the signalling socket in one turn: a flood of them must not keep data waiting.
_DATAGRAMS = const(32)
# Deregistration is sent twice at most while the answers are waited for.
_STOP_MS = const(1500)


class Loop:
    """One running router. `machine` is the platform's attachment: links, sockets, plane."""

    def __init__(self, settings, options: dict, machine, random, heap: dict, console=None) -> None:
        self.options = options
        self.settings = settings
        self.machine = machine
        self.plane = machine.plane
        # The modules of the plane that the machine has chosen are no state.
        heap["imports"] += machine.plane_octets
        self.heap = heap
        self.console = console
        self.restarting = False
        self.clock = console.clock if console else Clock()
        self.poll = select.poll()
        self.router = Router(settings, random, self.clock.now(), ntp_ms())
        self.control = None
        if ControlSocket:
            self.control = ControlSocket(options["socket"], self.answer, self.poll)
        self._log_info = options["log"] == "info"
        self._warned = 0
        self.exit_status = 0
        self.updater = _updater(self, random)
        self._stop_at: int | None = None
        self._deadline = 0
        # When the timers are looked at in any case: not put off by whoever asks often.
        self._wake_at = 0
        self._slow_at = 0

    def run(self, profile: str = "") -> None:
        """Serve until `stop` was asked for and deregistration is answered or given up. `profile`
        is the console's.
        """
        now = self.clock.now()
        self.machine.start(self.poll)
        if self.console:
            self.console.attach(self, self.poll, profile, now)
        self._uplinks(now)
        self._settle(now)
        gc.collect()
        poll = self.poll
        plane = self.plane
        while self._stop_at is None or (now < self._stop_at and not self.router.stopped):
            wait = self._deadline - now
            if self.console and self.console.busy:
                wait = 0
                self.console.tick(now)
            if self.updater and self.updater.busy:
                wait = 0
                self.updater.tick(now)
            for obj, event in poll.ipoll(wait if wait > 0 else 0):
                if not plane.handle(obj, event):
                    self._control_event(obj)
            now = self.clock.now()
            if plane.attention or now >= self._deadline:
                self._turn(now)

    def close(self, failed: bool = False) -> None:
        """Give back sockets, links, rules and routes; failed: but for what guards the LAN."""
        if self.console:
            self.console.detach()
        if self.control:
            self.control.close()
        # What the core held is room for what the kernel says of its links and routes.
        self.router = None
        gc.collect()
        self.machine.stop(failed)

    @property
    def registered(self) -> bool:
        """Whether the home agent has accepted us."""
        return self.router.registration.registered

    def restart(self) -> None:
        """End `run` in order, to be made anew."""
        self.restarting = True
        self.answer("stop")

    def leave(self, status: int) -> None:
        """End `run` in order, and the program with this exit status."""
        self.exit_status = status
        self.answer("stop")

    def _control_event(self, obj) -> None:
        """A socket of the control plane is readable: its datagrams go to the core, all of them."""
        now = self.clock.now()
        if any(
            each.handle(obj, now) for each in (self.control, self.console, self.updater) if each
        ):
            pass
        elif self.machine.uplink_event(obj, now):
            self._uplinks(now)
        else:
            receive = self.machine.signalling.receive
            for _ in range(_DATAGRAMS):
                datagram = receive(obj)
                if datagram is None:
                    break
                if datagram:
                    if self.console and self.console.tracing:
                        self.console.trace("from", text(datagram[1]), datagram[2], datagram[5])
                    self.router.receive_datagram(now, *datagram)
                else:
                    self._set_aside(now)
                self._settle(now)
        self._settle(now)

    def _set_aside(self, now: int) -> None:
        """Give the core what the plane has set aside for it."""
        plane = self.plane
        item = plane.next_control()
        while item is not None:
            ping = self.console and self.console.ping
            if not ping or not ping.take(now, item[1]):
                self.router.receive_tunnelled(now, *item)
            item = plane.next_control()
        item = plane.next_stray()
        while item is not None:
            self.router.receive_stray(now, *item)
            item = plane.next_stray()

    def _turn(self, now: int) -> None:
        """The control plane's turn: what the plane set aside, hints of traffic, timers."""
        plane = self.plane
        router = self.router
        self._set_aside(now)
        if plane.wanted_any:
            plane.wanted_any = False
            for hint, wanted in enumerate(plane.wanted):
                if wanted:
                    plane.wanted[hint] = 0
                    router.traffic_wanted(now, hint)
        if now >= self._deadline:
            self._wake_at = now + _MAX_WAIT_MS
            for tunnel in router.tunnels.all():
                ident = tunnel.id
                router.tunnel_traffic(now, ident, plane.user_rx(ident), plane.user_tx(ident))
            router.handle_timer(now)
            if self.machine.tick(now):
                self._uplinks(now)
            if self.control:
                self.control.expire(now)
            if self.console:
                self.console.tick(now)
            if self.updater:
                self.updater.tick(now)
        self._settle(now)
        if now >= self._slow_at:
            self._slow_at = now + _SLOW_TURN_MS
            gc.collect()
            self.machine.check()
            self._uplinks(now)
            self._warn()

    def _uplinks(self, now: int) -> None:
        change = self.machine.next_uplink_change()
        while change is not None:
            index, up, address, gateway, mtu = change
            self.router.uplink_changed(now, index, up, address, gateway, mtu)
            self._settle(now)
            change = self.machine.next_uplink_change()

    def _settle(self, now: int) -> None:
        """Hand on the core's events, then send its datagrams (a tunnel exists before its first)."""
        router = self.router
        event = router.next_event()
        while event is not None:
            self._event(event)
            event = router.next_event()
        self.plane.commit()
        transmit = router.poll_transmit()
        while transmit is not None:
            if self.console and self.console.tracing:
                self.console.trace_out(transmit)
            if transmit.tunnel >= 0:
                self.plane.send(transmit.tunnel, transmit.payload)
            else:
                self.machine.signalling.send(
                    transmit.uplink, transmit.dst, transmit.dport, transmit.payload
                )
            transmit = router.poll_transmit()
        deadline = router.next_deadline()
        limit = self._wake_at
        if deadline is None or deadline > limit:
            deadline = limit
        self._deadline = self.machine.soonest(deadline)

    def _event(self, event: tuple) -> None:
        kind = event[0]
        if kind == "tunnel":
            tunnel = self.router.tunnels.get(event[1])
            if tunnel is None:
                self.plane.delete_tunnel(event[1])
            else:
                other = tunnel.other
                self.plane.set_tunnel(
                    tunnel.id,
                    tunnel.uplink,
                    tunnel.local,
                    tunnel.remote,
                    tunnel.remote_port,
                    tunnel.mtu,
                    tunnel.peer,
                    other and (other[0], other[2], other[3]),
                )
        elif kind == "routes":
            routes, sources = self.router.forwarding_table()
            self.machine.learn(routes)
            self.plane.swap(routes, sources)
        else:
            self.log(event[1], event[2])

    def _warn(self) -> None:
        for line in self.machine.warnings[self._warned :]:
            self.log("warning", line)
        self._warned = len(self.machine.warnings)

    def log(self, level: str, line: str) -> None:
        """Keep a line for the console and say it on stderr."""
        if self.console:
            self.console.log(level, line)
            if self.console.on_stream:
                return  # stderr is the same line
        if self._log_info or level != "info":
            print("%s: %s" % (level, line), file=sys.stderr)

    def answer(self, word: str) -> dict:
        """Return the answer to one word of the local socket or the console."""
        now = self.clock.now()
        if word == "status":
            return build_status(self, now)
        if word == "stop":
            if self._stop_at is None:
                self._stop_at = now + _STOP_MS
                self.router.stop(now)
                self._settle(now)
            return {"stopping": True}
        if word == "reload":
            return self._reload()
        verb, _, name = word.partition(" ")
        if verb in ("drain", "undrain"):
            return self._drain(now, name, verb == "undrain")
        return {
            "error": "unknown word",
            "allowed": ["drain", "reload", "status", "stop", "undrain"],
        }

    def _drain(self, now: int, name: str, undo: bool) -> dict:
        """Leave the uplink called `name` without loss, or take it back."""
        names = [uplink["name"] for uplink in self.options["uplinks"]]
        if name not in names:
            return {"error": "no uplink %s" % name, "allowed": names}
        self.router.drain(now, names.index(name), undo)
        self._settle(now)
        return {"uplink": name, "drained": not undo}

    def _reload(self) -> dict:
        """Take the keys of the changed file; the binding, tunnels and all other settings stay."""
        gc.collect()
        try:
            # The small half of the configuration's readers: the heap is full of the router.
            from haaro.shell import secrets

            associations, static_krm = secrets.load(self.options["secrets"])
        except (ValueError, MemoryError) as error:
            return {"reloaded": False, "error": str(error)}
        finally:
            unload()
        self.settings.take_keys(associations, static_krm)
        now = self.clock.now()
        self.router.keys_changed(now)
        self._settle(now)
        return {"reloaded": True}


def _updater(loop, random):
    """Return what keeps the program of this box up to date, None where it has no slots, or one."""
    if sys.path[0][-7:-1] != "slots/":
        return None
    try:
        from haaro.ota.slots import Slots, running
        from haaro.ota.updater import Updater
    except ImportError:  # no room for a second slot: the program was made without
        return None

    source = getattr(loop.machine, "own_address", "")
    return Updater(loop, Slots(*running()), loop.options.get("update"), source, random)
