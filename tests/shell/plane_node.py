"""Runs in MicroPython: one machine with a data plane and fixed tunnels, driven by lines on stdin.

    micropython plane_node.py '{"home_address": ..., "networks": [...], "uplinks": [...],
                               "tunnels": [[id, uplink, local, remote, port, mtu, peer, also], ...],
                               "routes": [[prefix, tunnel, hint], ...], "sources": [...]}'

Prints one JSON line when it is ready and one per word on stdin: `status`, `stop`, and `echo`, which
sends one through tunnel 0 as the control plane does. With
"pause": "connect" it also prints one, and waits for a line, between bind and connect of a tunnel.
"""

import gc
import json
import select
import sys

from haaro.dataplane.pools import make_pools

pools = make_pools()

from haaro.platform import linux_sockets  # noqa: E402
from haaro.platform.linux import LinuxMachine  # noqa: E402
from haaro.wire.ipv4 import address, build_icmp_echo, prefix, text  # noqa: E402


class Settings:
    pass


def pausing_tunnel(interface, local, remote, port):
    sender = linux_sockets.datagram(interface, local)
    print(json.dumps({"ready": True}))
    sys.stdin.readline()
    sender.connect(linux_sockets.inet(remote, port))
    return sender


_received = [0]


def received(sender):
    """Return how many datagrams a sending socket has received up to now."""
    try:
        while sender and sender.recv(2048):
            _received[0] += 1
    except OSError:
        pass
    return _received[0]


def tunnel(machine, row):
    ident, uplink, local, remote, port, mtu, peer = row[:7]
    also = None
    if len(row) > 7:
        also = (row[7][0], address(row[7][1]), row[7][2])
    return machine.plane.set_tunnel(
        ident, uplink, address(local), address(remote), port, mtu, address(peer), also
    )


def tables(machine, config):
    routes = []
    for net, tunnel_id, hint in config["routes"]:
        routes.append(prefix(net) + (tunnel_id, hint))
    sources = []
    for net, tunnel_id in config["sources"]:
        sources.append(prefix(net) + (tunnel_id,))
    machine.plane.swap(routes, sources)


def status(machine, control, stray, signalling):
    plane = machine.plane
    return {
        "counters": plane.counters(),
        "own_loss": plane.own_loss(),
        "mtu": [plane.mtu(i) for i in range(4)],
        "rx": [plane.user_rx(i) for i in range(4)],
        "tx": [plane.user_tx(i) for i in range(4)],
        "control": control,
        "stray": stray,
        "signalling": signalling,
        "warnings": machine.warnings,
        "heap": gc.mem_alloc(),
        "tunnel_socket_had": received(plane._send[0]),
        "wanted": [i for i, wanted in enumerate(plane.wanted) if wanted],
        "plane": machine.plane_kind,
        "why": machine.plane_why,
        "calls": plane.door.status() if machine.plane_kind == "kernel" else None,
        "fast_lan": [plane.lans.names, plane.lans.why] if machine.plane_kind == "kernel" else None,
    }


def main():
    # Not an argument: MicroPython takes none of more than 255 octets.
    config = json.loads(sys.stdin.readline())
    settings = Settings()
    settings.home_address = address(config["home_address"])
    settings.networks = [prefix(net) for net in config["networks"]]
    settings.home_prefixes = [prefix(net) for net in config.get("home_prefixes", ["0.0.0.0/0"])]
    settings.home_agent = address(config.get("home_agent", "192.0.2.1"))
    options = {
        "internet": config.get("internet", "ha"),
        "lan_ipv6": config.get("lan_ipv6", "block"),
        "tunnel_interface": config.get("tunnel_interface", "haaro0"),
        "uplinks": [{"interface": name} for name in config["uplinks"]],
        "dataplane": config.get("dataplane", "userspace"),
        "fast_lan": config.get("fast_lan"),
        "mss_clamp": config.get("mss_clamp", True),
        "socket": config.get("socket"),
    }
    if config.get("cpus"):
        linux_sockets.cpus = lambda: config["cpus"]
    if config.get("vnet") is False:
        linux_sockets.takes_vnet = lambda: False
    if config.get("pause") == "connect":
        linux_sockets.tunnel = pausing_tunnel
    machine = LinuxMachine(settings, options, pools)
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    machine.start(poll)
    waiting = len(config["uplinks"])
    control, stray, signalling = [], [], []
    while True:
        change = machine.next_uplink_change()
        while change:
            waiting -= 1
            for row in config["tunnels"]:
                if row[1] == change[0] and change[1]:
                    tunnel(machine, row)
            change = machine.next_uplink_change()
        if waiting == 0:
            waiting = -1000
            tables(machine, config)
            machine.plane.commit()
            gc.collect()
            ready = {"ready": True, "warnings": machine.warnings}
            ready.update({"plane": machine.plane_kind, "why": machine.plane_why})
            print(json.dumps(ready))
        for obj, event in poll.ipoll(1000):
            if obj is sys.stdin:
                word = sys.stdin.readline().strip()
                if word in ("", "stop", "fail"):
                    machine.stop(word == "fail")
                    print(json.dumps({"stopped": True}))
                    return
                if word[0] == "{":
                    # Other tunnels and tables, all of them.
                    config.update(json.loads(word))
                    for row in config["tunnels"]:
                        tunnel(machine, row)
                    tables(machine, config)
                    machine.plane.commit()
                    print(json.dumps({"done": True}))
                    continue
                if word == "echo":
                    peer = address(config["tunnels"][0][6])
                    packet = build_icmp_echo(settings.home_address, peer, False, 1, 2, b"", 0xC0)
                    print(json.dumps({"sent": machine.plane.send(0, packet)}))
                    continue
                print(json.dumps(status(machine, control, stray, signalling)))
                control, stray, signalling = [], [], []
            elif machine.plane.handle(obj, event):
                pass
            elif not machine.uplink_event(obj):
                got = machine.signalling.receive(obj)
                while got is not None:
                    if got and len(signalling) < 32:
                        row = [got[0], text(got[1]), got[2], text(got[3]), got[5].hex()]
                        signalling.append(row)
                    got = machine.signalling.receive(obj)
        machine.check()
        plane = machine.plane
        plane.commit()
        item = plane.next_control()
        while item:
            control.append([item[0], text(item[2]), item[3], len(item[1])])
            item = plane.next_control()
        item = plane.next_stray()
        while item:
            stray.append([item[0], text(item[1]), item[2], text(item[3]), len(item[4])])
            item = plane.next_stray()


main()
