"""Sends a stream of random octets over TCP, or receives one; both ends hash what passes.

    python transfer.py --listen ADDRESS
    python transfer.py --connect ADDRESS [--octets N] [--mbit PACE] [--at TIME]

Standard library only. Prints one JSON object: sha256, octets, seconds. Without --octets the sender
goes on until SIGTERM and then closes the stream properly. It connects at TIME (seconds since 1970).
"""

import argparse
import hashlib
import json
import os
import signal
import socket
import time

PORT = 9001
_BLOCK = 64 * 1024
_POOL_BLOCKS = 16
_CONNECT_DEADLINE_S = 10.0
_SO_MAX_PACING_RATE = 47


def main() -> None:
    """Run one end of a transfer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen")
    parser.add_argument("--connect")
    parser.add_argument("--octets", type=int)
    parser.add_argument("--mbit", type=float)
    parser.add_argument("--at", type=float, default=0.0)
    options = parser.parse_args()
    result = receive(options.listen) if options.listen else send(options)
    print(json.dumps(result))


def receive(address: str) -> dict[str, object]:
    """Accept one connection and hash it to its end."""
    with socket.create_server((address, PORT)) as server:
        link, _ = server.accept()
    digest, octets = hashlib.sha256(), 0
    began = time.monotonic()
    with link:
        while block := link.recv(_BLOCK):
            digest.update(block)
            octets += len(block)
    return _result(digest.hexdigest(), octets, began)


def send(options: argparse.Namespace) -> dict[str, object]:
    """Send until --octets or SIGTERM."""
    stopping: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    pool = [os.urandom(_BLOCK) for _ in range(_POOL_BLOCKS)]
    time.sleep(max(0.0, options.at - time.time()))
    link = _connect(options.connect)
    if options.mbit:
        # The kernel spreads the segments evenly, so that queues stay short beside the probe.
        rate = int(options.mbit * 1e6 / 8)
        link.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, rate)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _BLOCK)
    digest, octets, number = hashlib.sha256(), 0, 0
    began = time.monotonic()
    with link:
        while not stopping and (options.octets is None or octets < options.octets):
            block = number.to_bytes(8, "big") + pool[number % _POOL_BLOCKS][8:]
            if options.octets is not None:
                block = block[: options.octets - octets]
            link.sendall(block)
            digest.update(block)
            octets += len(block)
            number += 1
        link.shutdown(socket.SHUT_WR)
        link.recv(1)  # the receiver closes when it has all
    return _result(digest.hexdigest(), octets, began)


def _connect(address: str) -> socket.socket:
    end = time.monotonic() + _CONNECT_DEADLINE_S
    while True:
        try:
            return socket.create_connection((address, PORT), timeout=None)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _result(sha256: str, octets: int, began: float) -> dict[str, object]:
    seconds = round(time.monotonic() - began, 3)
    return {"sha256": sha256, "octets": octets, "seconds": seconds}


if __name__ == "__main__":
    main()
