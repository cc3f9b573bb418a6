"""Records what passes the internet router's links as *.pcap files; runs in its namespace.

    python recorder.py --out DIRECTORY --bulk-port N --home-agent ADDRESS --ring-mb N
        LINK=INTERFACE ...

Standard library only. Used in place of tcpdump because that gives up its rights by changing user,
which a user namespace with one user doesn't have, and because one classic BPF filter can decide
how much of each packet is kept:

- Mobile IP signalling, inside a tunnel or outside: whole;
- everything else: the first `_SNAP` octets (both IP headers and the first inner octets);
- bulk (inner port N, the throughput measurement) that does not touch the home agent: one packet in
  `_THIN`, because recording all of it would take the time that is being measured.

Reads PACKET_MMAP rings (TPACKET_V3). Prints `recording` when all links are open. On SIGTERM it
prints one JSON object, {link: {"packets": n, "dropped": n}}, where dropped packets passed the
filter and found the ring full.
"""

import argparse
import ctypes
import json
import mmap
import select
import signal
import socket
import struct
from pathlib import Path

_SNAP = 112
_WHOLE = 0xFFFF
_THIN = 32
_MIP_PORT = 434

_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_TPACKET_V3 = 2
_SO_ATTACH_FILTER = 26
_ETH_P_ALL = 3
_BLOCK = 1 << 18
_BLOCKS_A_MB = 4
_FRAME = 1 << 11
_RETIRE_MS = 20
_FROM_USER, _FROM_KERNEL = 0, 1
_STATUS_AT, _COUNT_AT, _FIRST_AT = 8, 12, 16
_PACKET = struct.Struct("=IIIIIIHH")  # next, seconds, ns, octets kept, octets, status, mac, net
_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _WHOLE, 1)
_RECORD = struct.Struct("<IIII")

_LD_RANDOM = 0x20, 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
_Instruction = tuple[int, int] | tuple[int, int, str, str]


def keep_filter(bulk_port: int, home_agent: bytes) -> bytes:
    """The program described above, as struct sock_filter[]; for Ethernet frames."""
    agent = int.from_bytes(home_agent, "big")
    ldh, ldb, ldw = 0x28, 0x30, 0x20
    ldh_x, ldb_x, ldx_header = 0x48, 0x50, 0xB1
    jeq, jset, logical_and, ret = 0x15, 0x45, 0x54, 0x06
    # Offsets: 14 Ethernet, then x octets of IPv4 header, 8 UDP, 4 tunnel header, 20 inner IPv4.
    program: list[tuple[str, _Instruction]] = [
        ("", (ldh, 12)),
        ("", (jeq, 0x0800, "", "drop")),
        ("", (ldb, 23)),
        ("", (jeq, 17, "", "snap")),
        ("", (ldh, 20)),
        ("", (jset, 0x1FFF, "snap", "")),
        ("", (ldx_header, 14)),
        ("", (ldh_x, 16)),
        ("", (jeq, _MIP_PORT, "mip", "")),
        ("", (ldh_x, 14)),
        ("", (jeq, _MIP_PORT, "mip", "snap")),
        ("mip", (ldb_x, 22)),
        ("", (jeq, 4, "", "whole")),
        ("", (ldb_x, 35)),
        ("", (jeq, 6, "ports", "")),
        ("", (jeq, 17, "", "snap")),
        ("ports", (ldh_x, 46)),
        ("", (jeq, _MIP_PORT, "whole", "")),
        ("", (jeq, bulk_port, "bulk", "")),
        ("", (ldh_x, 48)),
        ("", (jeq, _MIP_PORT, "whole", "")),
        ("", (jeq, bulk_port, "", "snap")),
        ("bulk", (ldw, 26)),
        ("", (jeq, agent, "snap", "")),
        ("", (ldw, 30)),
        ("", (jeq, agent, "snap", "")),
        ("", _LD_RANDOM),
        ("", (logical_and, _THIN - 1)),
        ("", (jeq, 0, "snap", "drop")),
        ("snap", (ret, _SNAP)),
        ("whole", (ret, _WHOLE)),
        ("drop", (ret, 0)),
    ]
    labels = {label: at for at, (label, _) in enumerate(program) if label}
    out = bytearray()
    for at, (_, (code, value, *jumps)) in enumerate(program):
        yes, no = ((labels[j] - at - 1 if j else 0) for j in jumps) if jumps else (0, 0)
        out += struct.pack("=HBBI", code, yes, no, value)
    return bytes(out)


class Recorder:
    """One link: a ring, and the file it goes to."""

    def __init__(self, interface: str, path: Path, program: bytes, ring_mb: int) -> None:
        self.packets = 0
        self.dropped = 0
        self._file = path.open("wb", buffering=0)
        self._file.write(_FILE_HEADER)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._attach(program)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        self._blocks = ring_mb * _BLOCKS_A_MB
        frames = _BLOCK * self._blocks // _FRAME
        ring = struct.pack("=7I", _BLOCK, self._blocks, _FRAME, frames, _RETIRE_MS, 0, 0)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, ring)
        self._ring = mmap.mmap(self.socket.fileno(), _BLOCK * self._blocks)
        self._block = 0
        # Only ETH_P_ALL also hears what this side sends.
        self.socket.bind((interface, _ETH_P_ALL))

    def drain(self) -> bool:
        """Write every block that the kernel has handed over; True if there was one."""
        ring, found = self._ring, False
        while True:
            base = self._block * _BLOCK
            status, count, first = struct.unpack_from("=III", ring, base + _STATUS_AT)
            if not status & _FROM_KERNEL:
                return found
            self._write(base + first, count)
            struct.pack_into("=I", ring, base + _STATUS_AT, _FROM_USER)
            self._block = (self._block + 1) % self._blocks
            found = True

    def close(self) -> dict[str, int]:
        """Write what is left; what was recorded and dropped."""
        self.drain()
        got = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        self.dropped = struct.unpack("=III", got)[1]
        self.socket.close()
        self._file.close()
        return {"packets": self.packets, "dropped": self.dropped}

    def _write(self, at: int, count: int) -> None:
        ring, unpack, pack = self._ring, _PACKET.unpack_from, _RECORD.pack
        parts = []
        for _ in range(count):
            step, seconds, nanoseconds, kept, octets, _, mac, _ = unpack(ring, at)
            parts.append(pack(seconds, nanoseconds, kept, octets))
            parts.append(ring[at + mac : at + mac + kept])
            at += step
        self._file.write(b"".join(parts))
        self.packets += count

    def _attach(self, program: bytes) -> None:
        held = ctypes.create_string_buffer(program, len(program))
        count = len(program) // 8
        argument = struct.pack("@HP", count, ctypes.addressof(held))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)


def main() -> None:
    """Record until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--bulk-port", required=True, type=int)
    parser.add_argument("--home-agent", required=True)
    parser.add_argument("--ring-mb", type=int, required=True)
    parser.add_argument("links", nargs="+")
    options = parser.parse_args()
    stopping: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    program = keep_filter(options.bulk_port, socket.inet_aton(options.home_agent))
    pairs = [link.split("=") for link in options.links]
    recorders = {
        name: Recorder(interface, options.out / f"{name}.pcap", program, options.ring_mb)
        for name, interface in pairs
    }
    print("recording", flush=True)
    poll = select.poll()
    for recorder in recorders.values():
        poll.register(recorder.socket, select.POLLIN)
    while not stopping:
        poll.poll(2 * _RETIRE_MS)
        for recorder in recorders.values():
            recorder.drain()
    # A block is handed over at the latest _RETIRE_MS after its first packet.
    for _ in range(3):
        select.select([], [], [], 2 * _RETIRE_MS / 1000)
        for recorder in recorders.values():
            recorder.drain()
    print(json.dumps({name: recorder.close() for name, recorder in recorders.items()}))


if __name__ == "__main__":
    main()
