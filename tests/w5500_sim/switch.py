"""A switch with VLANs: access ports without tags, and one port where each frame has its tag.

    python -m tests.w5500_sim.switch --trunk p-c0 p-h1=10 p-h2=10 p-h3=11

For kernels that have neither 802.1Q nor VLANs on bridges. It floods, and learns nothing.
"""

import argparse
import os
import selectors

from tests.w5500_sim.bridge import Wire


def main() -> None:
    """Serve until killed, or until the parent is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trunk", required=True)
    parser.add_argument("access", nargs="+")
    options = parser.parse_args()
    trunk = Wire(options.trunk)
    members = []
    watched = selectors.DefaultSelector()
    watched.register(trunk.socket, selectors.EVENT_READ, (trunk, 0))
    for name, _, vlan in (each.partition("=") for each in options.access):
        wire = Wire(name)
        members.append((wire, int(vlan)))
        watched.register(wire.socket, selectors.EVENT_READ, members[-1])
    parent = os.getppid()
    print("ready", flush=True)
    while os.getppid() == parent:
        for key, _ in watched.select(1.0):
            source, vlan = key.data
            while (frame := source.read()) is not None:
                tag = vlan
                if source is trunk:
                    if frame[12:14] != b"\x81\x00":
                        continue
                    tag = int.from_bytes(frame[14:16], "big") & 0xFFF
                    frame = frame[:12] + frame[16:]
                else:
                    trunk.write(frame[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + frame[12:])
                for wire, member in members:
                    if member == tag and wire is not source:
                        wire.write(frame)


if __name__ == "__main__":
    main()
