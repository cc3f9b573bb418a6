"""Sends captured Registration Requests again, from the address and port they came from.

As a script it runs in the namespace of a router that is gone, which still has the address:

    python replay.py --bind ADDRESS --to ADDRESS < datagrams, one a line in hex
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haaro_host.lab.faults.bench import Bench
    from haaro_host.lab.pcap import Packet

_PORT = 434


def send_again(bench: Bench, packets: list[Packet]) -> int:
    """Send each packet's message to the home agent once more; how many. Raises LabError."""
    from haaro_host.lab.faults.layouts import A, C
    from haaro_host.lab.plan import HOME_AGENT
    from haaro_host.lab.system import run

    sent = 0
    for office in (A, C):
        mine = [p.message().hex() for p in packets if p.flow.source == office.care_of_address]
        command = [sys.executable, "-S", "-E", str(Path(__file__)),
                   "--bind", office.care_of_address, "--to", HOME_AGENT]  # fmt: skip
        run(bench.lab.inside(office.node, command), "\n".join(mine) + "\n")
        sent += len(mine)
    return sent


def main() -> None:
    """Send what standard input holds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bind", required=True)
    parser.add_argument("--to", required=True)
    options = parser.parse_args()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind((options.bind, _PORT))
        for line in sys.stdin:
            if line.strip():
                link.sendto(bytes.fromhex(line), (options.to, _PORT))


if __name__ == "__main__":
    main()
