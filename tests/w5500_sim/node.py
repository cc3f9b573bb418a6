"""Runs in MicroPython: a W5500 port on a simulated chip, and a wire behind it in place of a plane.

    micropython node.py

The first line of stdin is {"spi": path, "vlan": n or null, "dhcp": {...} or null,
"far": interface, "far_mac": hex}. What the port reads leaves by the interface `far`, what comes
there is written to the port. Prints one JSON line when it is ready, and one for each word on
stdin: `status`, `stop`.
"""

import gc
import json
import os
import select
import sys

import bus

from haaro.lan.w5500 import W5500Lan
from haaro.platform import linux_sockets
from haaro.shell.clock import Clock
from haaro.wire.ipv4 import address

_TURNS = 32


def octets(text):
    return bytes(int(text[i : i + 2], 16) for i in range(0, len(text), 2))


def dhcp_options(options):
    if options is None:
        return None
    made = dict(options)
    for key in ("first", "last"):
        made[key] = address(options[key])
    made["dns"] = [address(each) for each in options["dns"]]
    made["reservations"] = {octets(mac): address(ip) for mac, ip in options["reservations"].items()}
    return made


def leave(sender, buffer, length):
    try:
        sender.write(buffer, 0, length)
    except OSError:
        return  # a full queue


def interface_index(name):
    with open("/sys/class/net/" + name + "/ifindex") as file:
        return int(file.read())


def main(config):
    stream = bus.connect(config["spi"])
    clock = Clock()
    port = W5500Lan(
        bus.Spi(stream),
        bus.Pin(stream, b"S"),
        address("10.1.0.1"),
        24,
        octets("026861617201"),
        clock.now(),
        os.urandom,
        reset=bus.Pin(stream, b"P"),
        interrupt=bus.Pin(stream, b"I"),
        vlan=config["vlan"],
        dhcp=dhcp_options(config["dhcp"]),
    )
    index = interface_index(config["far"])
    far = linux_sockets.packets(index, 1 << 18)
    sender = linux_sockets.lan_sender(index)
    header = octets(config["far_mac"]) + b"\x02\x00\x00\x00\x02\x01\x08\x00"
    buffer = bytearray(4096)
    poll = select.poll()
    poll.register(far, 1)
    poll.register(sys.stdin, 1)
    print(json.dumps({"ready": True}))
    while True:
        busy = False
        for _ in range(_TURNS):
            if not port.pending():
                break
            length = port.read(buffer, 0)
            if length:
                buffer[:14] = header
                leave(sender, buffer, length)
                busy = True
        for obj, _ in poll.ipoll(0 if busy else 2):
            if obj is sys.stdin:
                word = sys.stdin.readline().strip()
                if word in ("", "stop"):
                    port.close()
                    return
                gc.collect()
                answer = port.status()
                answer["warnings"] = port.warnings
                answer["heap"] = gc.mem_alloc()
                print(json.dumps(answer))
                continue
            for _ in range(_TURNS):
                try:
                    frame = far.recv(1600)
                except OSError:
                    break
                if not frame:
                    break
                port.write(frame, 0, len(frame))
        now = clock.now()
        if now >= port.next_deadline():
            port.tick(now)
            gc.collect()


main(json.loads(sys.stdin.readline()))
