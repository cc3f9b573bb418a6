"""Runs in MicroPython: a modem's interface whose line is slow, and a keepalive behind much data.

    micropython priority_node.py FIRMWARE

Sends 20 packets of data and then one of the control socket's; prints the order in which they are
read, one JSON list of their marks.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])
from haaro.platform import linux_sockets
from haaro.platform.linux_point_to_point import PointToPoint
from haaro.platform.linux_routing import LinuxRouting

OURS, FAR = b"\x0a\x00\x02\x0f", b"\xcb\x00\x71\x09"


def main():
    """Print it."""
    routing = LinuxRouting()
    link = PointToPoint(routing, "modem0", 0, 65536)
    link.up(OURS, 1500)
    routing.set_uplink(0, "modem0", OURS, None)
    data = linux_sockets.tunnel("modem0", OURS, FAR, 434)
    control = linux_sockets.control("modem0", OURS)
    for _ in range(20):
        data.write(bytes(400), 0, 400)
    control.sendto(b"keepalive", linux_sockets.inet(FAR, 434))
    marks = []
    packet = link.read()
    while packet:
        if packet[9] == 17:
            marks.append(packet[1])
        packet = link.read()
    print(json.dumps(marks))
    link.close()


main()
