"""The driver and the simulated modem at one cable, on a fake clock; the network is a real PPP peer.

The clock stands still while the peer computes: it answers within milliseconds, or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from haaro.uplink import base
from haaro.uplink.cellular import Cellular
from tests.modem_sim.modem import Behaviour, Modem
from tests.modem_sim.peer import Peer

SETTINGS = {
    "apn": "internet",
    "user": "",
    "password": "",
    "pin": "",
    "profile": "generic",
    "roaming": False,
    "mux": True,
}
_PEER_WAIT_S = 0.1
_TURNS = 200000


class Memory:
    """The mark of a PIN, as a file keeps it."""

    def __init__(self) -> None:
        self.failed = False
        self.works = True

    def set(self) -> bool:
        self.failed = self.works
        return self.works

    def clear(self) -> None:
        self.failed = False


class Bench:
    """One driver, one modem, one clock in milliseconds."""

    kind = Cellular

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        doors: tuple[str, ...] = ("power_key", "reset"),
        memory: Memory | None = None,
        peer: Callable[[], Peer] | None = None,
        **settings: object,
    ) -> None:
        self.now = 0
        self.sim = Modem(behaviour or Behaviour())
        self.memory = memory or Memory()
        self.doors = doors
        self.settings = {**SETTINGS, **settings}
        self.driver = self._driver()
        self.packets: list[bytes] = []
        self.written = bytearray()
        self.seen: list[tuple[str, str]] = []
        self.make_peer = peer
        self._peer: Peer | None = None

    def _driver(self) -> Cellular:
        return self.kind(self.settings, self.doors, self.memory, os.urandom)

    def restart(self) -> None:
        """The router is killed and started anew; the modem notices nothing."""
        self.driver = self._driver()
        self.driver.start(self.now)

    def close(self) -> None:
        if self._peer:
            self._peer.close()
            self._peer = None

    def start(self) -> None:
        self.driver.start(self.now)

    def until(self, condition: Callable[[], object], within_ms: int) -> int:
        """Let time pass until `condition` holds; how long it took. Fails after `within_ms`."""
        began = self.now
        for _ in range(_TURNS):
            self._exchange()
            if condition():
                return self.now - began
            following = self._following(began + within_ms)
            if following > began + within_ms:
                break
            self.now = following
            self.driver.handle_timer(self.now)
        said = (self.driver.state, self.driver.stage, self.driver.reason, self.sim.commands[-5:])
        raise AssertionError(f"not within {within_ms} ms: {said}")

    def until_up(self, within_ms: int) -> int:
        return self.until(lambda: self.driver.state == base.UP, within_ms)

    def until_failed(self, words: str, within_ms: int) -> int:
        return self.until(
            lambda: self.driver.state == base.FAILED and words in self.driver.reason, within_ms
        )

    def run(self, ms: int) -> None:
        """Let `ms` pass."""
        end = self.now + ms
        self._exchange()
        while True:
            following = self._following(end)
            self.now = min(following, end)
            self.driver.handle_timer(self.now)
            self._exchange()
            if following >= end:
                return

    def _following(self, otherwise: int) -> int:
        deadlines = [self.driver.next_deadline(), self.sim.next_event(self.now), otherwise + 1]
        return max(self.now, min(each for each in deadlines if each is not None))

    def _exchange(self) -> None:
        """Everything that can be said without time passing."""
        driver, sim = self.driver, self.sim
        for _ in range(1000):
            busy = False
            action = driver.next_action()
            while action:
                busy = True
                sim.set_line(self.now, *action)
                action = driver.next_action()
            out = driver.poll_transmit()
            if out:
                busy = True
                self.written += out
                sim.receive(self.now, out)
            came = sim.poll(self.now)
            if came:
                busy = True
                driver.receive(self.now, came)
            busy |= self._network()
            packet = driver.next_packet()
            while packet:
                self.packets.append(packet)
                packet = driver.next_packet()
            now_seen = (driver.state, driver.reason)
            if not self.seen or self.seen[-1] != now_seen:
                self.seen.append(now_seen)
            if not busy:
                return
        raise AssertionError("they talk without end")

    def _network(self) -> bool:
        """Move octets between the modem and the peer; the peer lives as long as the call."""
        sim = self.sim
        if not sim.data_mode or sim.stuck or self.make_peer is None:
            if self._peer and not sim.data_mode:
                self.close()
            sim.to_network.clear()
            return False
        if self._peer is None:
            self._peer = self.make_peer()
        sent = bytes(sim.to_network)
        sim.to_network.clear()
        if sent:
            self._peer.write(sent)
        came = self._peer.read(_PEER_WAIT_S if sent else 0.0)
        if came:
            sim.from_network(self.now, came)
        elif self._peer.ended:
            sim.call_ended(self.now)
        return bool(sent or came)
