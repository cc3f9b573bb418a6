"""Sends and receives numbered datagrams at a steady rate; runs in a LAN host of the lab.

    python probe.py --bind ADDRESS --peer ADDRESS --rate PER_SECOND --out FILE [--at TIME]

Imports the standard library only and needs no package, so it starts at once. Every datagram sent
and received is one record in FILE (see `RECORD`), written at once. Listens at once and sends from
TIME (seconds since 1970) on. Ends on SIGTERM, after a last moment of listening.
"""

import argparse
import io
import select
import signal
import socket
import struct
import sys
import time

PORT = 9000
RECORD = struct.Struct("<BId d")  # b"s"/b"r", sequence number, time sent, time received (s, 1970)
SENT, RECEIVED = 0x73, 0x72
_DATAGRAM = struct.Struct("!4sId")
_MAGIC = b"hprb"
_OCTETS = 100
_LINGER_S = 0.5


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bind", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--at", type=float, default=0.0)
    options = parser.parse_args()
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    link.bind((options.bind, PORT))
    link.setblocking(False)
    stopping: list[float] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(time.time()))
    with open(options.out, "wb", buffering=0) as out:
        run(link, (options.peer, PORT), 1 / options.rate, options.at, out, stopping)


def run(
    link: socket.socket,
    peer: tuple[str, int],
    gap: float,
    at: float,
    out: io.RawIOBase,
    stopping: list[float],
) -> None:
    """Send one datagram each `gap` seconds, record what comes, until `stopping` holds a time."""
    sequence = 0
    due = max(at, time.time())
    padding = bytes(_OCTETS - _DATAGRAM.size)
    while True:
        now = time.time()
        if stopping and now > stopping[0] + _LINGER_S:
            return
        if not stopping and now >= due:
            due += gap
            try:
                link.sendto(_DATAGRAM.pack(_MAGIC, sequence, now) + padding, peer)
            except OSError as error:  # counted as lost: the sequence number is used up
                print(f"send {sequence}: {error}", file=sys.stderr)
            out.write(RECORD.pack(SENT, sequence, now, 0.0))
            sequence += 1
        wait = _LINGER_S / 5 if stopping else min(1.0, max(0.0, due - time.time()))
        if select.select([link], [], [], wait)[0]:
            _receive(link, out)


def _receive(link: socket.socket, out: io.RawIOBase) -> None:
    while True:
        try:
            data = link.recv(2048)
        except BlockingIOError:
            return
        except OSError:  # an ICMP error for something sent earlier
            continue
        if len(data) == _OCTETS and data[:4] == _MAGIC:
            _, sequence, sent = _DATAGRAM.unpack_from(data)
            out.write(RECORD.pack(RECEIVED, sequence, sent, time.time()))


if __name__ == "__main__":
    main()
