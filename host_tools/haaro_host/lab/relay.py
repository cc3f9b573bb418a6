"""Stands in the middle of links and spoils them; runs in a namespace of the lab that bridges them.

    python relay.py --seed N --control PATH NAME=NEAR:FAR ...

Standard library only; the kernels this runs on need no netem. What comes in at one interface of a
link goes out at the other, from Ethernet header to end. `up` is the way from NEAR (the router's
side) to FAR (the internet). A line of JSON to the Unix socket PATH, such as

    {"a": {"up": {"loss": 0.2, "delay_ms": 20}, "down": {"loss": 1}}}

sets what these ways do from then on (what is not named is 0 again); the answer is the count of
everything by link and way. An empty object only asks. Keys: `loss`, `duplicate`, `corrupt`
(probabilities), `delay_ms`, `jitter_ms` (a random time up to it comes on top, so packets overtake
each other). Only IPv4 is spoilt: ARP has no place on the path that is meant. Everything random
comes from the seed, by link and way.

A corrupt packet has one octet behind the UDP header changed. In every second one the UDP checksum
is taken out (0, "none"), so that no kernel catches it and the program meets it.
"""

import argparse
import contextlib
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import time
from dataclasses import dataclass, field

KEYS = ("loss", "duplicate", "corrupt", "delay_ms", "jitter_ms")
_ETH_P_ALL = 3
_OUTGOING = 4  # PACKET_OUTGOING: what this side sent itself
_IPV4 = b"\x08\x00"
_ETHERNET = 14
_UDP = 17
_UDP_HEADER = 8
_CHECKSUM_AT = 6
_BUFFER = 4 << 20
_BATCH = 64
_LONGEST = 65536
_LINE = 65536


@dataclass
class Way:
    """One direction of a link."""

    out: socket.socket
    random: random.Random
    spoil: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("passed", "lost", "duplicated", "corrupted", "unseen", "refused"), 0
        )
    )

    def take(self, frame: bytes, now: float) -> list[tuple[float, bytes]]:
        """When to send what for a frame that came in."""
        spoil, draw = self.spoil, self.random.random
        if not spoil or frame[12:14] != _IPV4:
            return [(now, frame)]
        if draw() < spoil["loss"]:
            self.counts["lost"] += 1
            return []
        copies = 1
        if draw() < spoil["duplicate"]:
            copies = 2
            self.counts["duplicated"] += 1
        if draw() < spoil["corrupt"]:
            frame = self._corrupt(frame)
        delay, jitter = spoil["delay_ms"] / 1000, spoil["jitter_ms"] / 1000
        return [(now + delay + draw() * jitter, frame) for _ in range(copies)]

    def send(self, frame: bytes) -> None:
        """Hand a frame to the far interface."""
        try:
            self.out.send(frame)
            self.counts["passed"] += 1
        except OSError:  # its link is down, or its queue full
            self.counts["refused"] += 1

    def _corrupt(self, frame: bytes) -> bytes:
        header = (frame[_ETHERNET] & 15) * 4
        payload = _ETHERNET + header + _UDP_HEADER
        first_fragment = not frame[20] & 0x3F and not frame[21]
        if frame[23] != _UDP or not first_fragment or len(frame) <= payload:
            return frame
        changed = bytearray(frame)
        # The frame may be padded behind the packet: that is nobody's octet.
        end = _ETHERNET + struct.unpack_from("!H", frame, 16)[0]
        changed[self.random.randrange(payload, max(end, payload + 1))] ^= self.random.randrange(
            1, 256
        )
        if self.random.random() < 0.5:
            at = _ETHERNET + header + _CHECKSUM_AT
            changed[at : at + 2] = b"\0\0"
            self.counts["unseen"] += 1
        self.counts["corrupted"] += 1
        return bytes(changed)


class Relay:
    """All links of one relay and the socket it is told by."""

    def __init__(self, links: dict[str, tuple[str, str]], seed: int, control: str) -> None:
        self._poll = select.epoll()
        self._from: dict[int, tuple[socket.socket, Way]] = {}
        self.ways: dict[str, dict[str, Way]] = {}
        self._waiting: list[tuple[float, int, bytes, Way]] = []
        self._order = 0
        for name, (near, far) in links.items():
            one, other = _packet_socket(near), _packet_socket(far)
            ways = {"up": (one, other), "down": (other, one)}
            self.ways[name] = {
                key: Way(out, random.Random(f"{seed}/{name}/{key}"))
                for key, (_, out) in ways.items()
            }
            for key, (into, _) in ways.items():
                self._from[into.fileno()] = into, self.ways[name][key]
                self._poll.register(into, select.EPOLLIN)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(control)
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control.bind(control)
        self._control.listen(4)
        self._poll.register(self._control, select.EPOLLIN)

    def turn(self) -> None:
        """Wait for the next thing and do it."""
        wait = 1.0
        if self._waiting:
            wait = max(0.0, self._waiting[0][0] - time.monotonic())
        for descriptor, _ in self._poll.poll(wait):
            known = self._from.get(descriptor)
            if known is None:
                self._told()
            else:
                self._drain(*known)
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, frame, way = heapq.heappop(self._waiting)
            way.send(frame)

    def _drain(self, into: socket.socket, way: Way) -> None:
        for _ in range(_BATCH):
            try:
                frame, address = into.recvfrom(_LONGEST)
            except OSError:  # empty, or the interface went down
                return
            if address[2] == _OUTGOING:
                continue
            now = time.monotonic()
            for due, each in way.take(frame, now):
                if due <= now:
                    way.send(each)
                else:
                    self._order += 1
                    heapq.heappush(self._waiting, (due, self._order, each, way))

    def _told(self) -> None:
        link, _ = self._control.accept()
        with link:
            link.settimeout(1.0)
            try:
                line = link.makefile().readline(_LINE)
                answer = self.apply(json.loads(line))
            except (OSError, ValueError, KeyError, TypeError) as error:
                answer = {"error": repr(error)}
            with contextlib.suppress(OSError):
                link.sendall(json.dumps(answer).encode() + b"\n")

    def apply(self, wanted: dict[str, dict[str, dict[str, float]]]) -> dict[str, object]:
        """Set what `wanted` names; the counts. Raises KeyError or ValueError, nothing changed."""
        for name, ways in wanted.items():
            for key, spoil in ways.items():
                unknown = set(spoil) - set(KEYS)
                if unknown or key not in self.ways[name]:
                    raise ValueError(f"{name}.{key}: {sorted(unknown)}; allowed: {KEYS}")
        for name, ways in wanted.items():
            for key, spoil in ways.items():
                given = {each: float(spoil.get(each, 0)) for each in KEYS}
                self.ways[name][key].spoil = given if any(given.values()) else {}
        return {
            name: {key: dict(way.counts) for key, way in ways.items()}
            for name, ways in self.ways.items()
        }


def _packet_socket(interface: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    made.bind((interface, _ETH_P_ALL))
    made.setblocking(False)
    return made


def main() -> None:
    """Relay until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--control", required=True)
    parser.add_argument("links", nargs="+")
    options = parser.parse_args()
    stopping: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    links: dict[str, tuple[str, str]] = {}
    for word in options.links:
        name, _, interfaces = word.partition("=")
        near, _, far = interfaces.partition(":")
        links[name] = near, far
    relay = Relay(links, options.seed, options.control)
    print("relaying", flush=True)
    while not stopping:
        relay.turn()
    print(json.dumps(relay.apply({})))


if __name__ == "__main__":
    main()
