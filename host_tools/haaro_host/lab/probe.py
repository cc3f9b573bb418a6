"""Sends and receives numbered datagrams at a steady rate; runs in a LAN host of the lab.

    python probe.py --bind ADDRESS --peer ADDRESS --rate PER_SECOND --out FILE [--at TIME]

Imports the standard library only and needs no package, so it starts at once. Every datagram sent
and received is one record in FILE (see `RECORD`), written at once. Listens at once and sends from
TIME (seconds since 1970) on. Ends on SIGTERM, after a last moment of listening.
"""

import argparse
import binascii
import io
import select
import signal
import socket
import struct
import sys
import time

PORT = 9000
RECORD = struct.Struct("<BId d")  # b"s"/b"r"/b"w", sequence, time sent, time received (s, 1970)
# Wrong: it came to the probe's port and is not, octet for octet and by its sender, what was sent.
SENT, RECEIVED, WRONG = 0x73, 0x72, 0x77
_DATAGRAM = struct.Struct("!4sId")
_CHECK = struct.Struct("!I")
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
    while True:
        now = time.time()
        if stopping and now > stopping[0] + _LINGER_S:
            return
        if not stopping and now >= due:
            due += gap
            try:
                link.sendto(datagram(sequence, now), peer)
            except OSError as error:  # counted as lost: the sequence number is used up
                print(f"send {sequence}: {error}", file=sys.stderr)
            out.write(RECORD.pack(SENT, sequence, now, 0.0))
            sequence += 1
        wait = _LINGER_S / 5 if stopping else min(1.0, max(0.0, due - time.time()))
        if select.select([link], [], [], wait)[0]:
            _receive(link, peer, out)


def datagram(sequence: int, now: float) -> bytes:
    """What is sent: numbered, timed, and with a checksum of its own over all of it."""
    head = _DATAGRAM.pack(_MAGIC, sequence, now)
    return head + _CHECK.pack(binascii.crc32(head)) + bytes(_OCTETS - len(head) - _CHECK.size)


def _receive(link: socket.socket, peer: tuple[str, int], out: io.RawIOBase) -> None:
    while True:
        try:
            data, source = link.recvfrom(2048)
        except BlockingIOError:
            return
        except OSError:  # an ICMP error for something sent earlier
            continue
        kind, sequence, sent = WRONG, 0, 0.0
        if len(data) == _OCTETS and source == peer:
            _, sequence, sent = _DATAGRAM.unpack_from(data)
            kind = RECEIVED if data == datagram(sequence, sent) else WRONG
        out.write(RECORD.pack(kind, sequence, sent, time.time()))


if __name__ == "__main__":
    main()
