"""The other daemons, set up as their manuals say: tinc, OpenVPN, Nebula, wireguard-go.

Each function starts both ends in a `Net` and routes the LANs through them. The MTU of each tunnel
is such that its packets on the wire are at most 1500 octets; keys are made once and kept under
build/bench/keys: they guard nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from bench.topology import CARE_OF, LANS, OTHER, Net
from haaro_host.lab import processes, system
from haaro_host.lab.processes import Process
from haaro_host.lab.system import LabError

ROUTERS = ("r1", "r2")
_INSIDE = {"r1": "172.31.0.1", "r2": "172.31.0.2"}
_PORT = "5555"
# IPv4 20 + UDP 8 + number 4 + Ethernet header 14, and encrypted: up to 16 of padding, 4 of digest.
_TINC_OVERHEAD = {"none": 46, "encrypted": 66}
_TUN_OVERHEAD = 28
_ENCRYPTED_MTU = 1440  # wireguard: 20 + 8 + 32; nebula: 20 + 8 + 16 + 16


def c_forwarder(net: Net, build: Path) -> list[Process]:
    """bench/tun_forwarder.c."""
    made = []
    for node in ROUTERS:
        ends = ["tun0", CARE_OF[node], CARE_OF[OTHER[node]], _PORT]
        made.append(net.start(node, [str(build / "tun_forwarder"), *ends], f"tun-{node}"))
        _use(net, node, "tun0", 1500 - _TUN_OVERHEAD)
    return made


def tinc_none(net: Net, build: Path) -> list[Process]:
    """tinc with `Cipher = none` and `Digest = none`."""
    return _tinc(net, build, "none")


def tinc_encrypted(net: Net, build: Path) -> list[Process]:
    """tinc with the ciphers it uses by itself."""
    return _tinc(net, build, "encrypted")


def openvpn_none(net: Net, build: Path) -> list[Process]:
    """OpenVPN point to point, no keys, `--cipher none --auth none`."""
    made = []
    for node in ROUTERS:
        other = OTHER[node]
        command = [
            "openvpn", "--dev", "tun0", "--dev-type", "tun", "--proto", "udp", "--port", _PORT,
            "--local", CARE_OF[node], "--remote", CARE_OF[other],
            "--ifconfig", _INSIDE[node], _INSIDE[other], "--cipher", "none", "--auth", "none",
            "--tun-mtu", str(1500 - _TUN_OVERHEAD), "--mssfix", "0", "--txqueuelen", "1000",
            "--sndbuf", "1048576", "--rcvbuf", "1048576",
        ]  # fmt: skip
        made.append(net.start(node, command, f"openvpn-{node}"))
        _use(net, node, "tun0", None)
    return made


def nebula(net: Net, build: Path) -> list[Process]:
    """Nebula, a certificate for each router with its LAN as a subnet."""
    keys = _nebula_keys(build / "keys" / "nebula")
    made = []
    for node in ROUTERS:
        config = {
            "pki": {
                "ca": f"{keys}/ca.crt", "cert": f"{keys}/{node}.crt", "key": f"{keys}/{node}.key",
            },
            "static_host_map": {_INSIDE["r1"]: [f"{CARE_OF['r1']}:{_PORT}"]},
            "lighthouse": {
                "am_lighthouse": node == "r1",
                "hosts": [] if node == "r1" else [_INSIDE["r1"]],
            },
            "listen": {
                "host": "0.0.0.0", "port": int(_PORT),
                "read_buffer": 10485760, "write_buffer": 10485760,
            },
            "tun": {
                "dev": "tun0", "mtu": _ENCRYPTED_MTU, "tx_queue": 1000,
                "unsafe_routes": [{"route": LANS[OTHER[node]], "via": _INSIDE[OTHER[node]]}],
            },
            "logging": {"level": "info"},
            "firewall": {
                "outbound": [{"port": "any", "proto": "any", "host": "any"}],
                "inbound": [{"port": "any", "proto": "any", "host": "any"}],
            },
        }  # fmt: skip
        path = net.run / f"nebula-{node}.yml"
        path.write_text(json.dumps(config))  # every JSON document is YAML
        made.append(net.start(node, ["nebula", "-config", str(path)], f"nebula-{node}"))
    for node in ROUTERS:
        net.wait_link(node, "tun0")
    return made


def wireguard_go(net: Net, build: Path) -> list[Process]:
    """wireguard-go; its control sockets are one directory for all namespaces, so names differ."""
    secrets = {node: system.run(["wg", "genkey"]).strip() for node in ROUTERS}
    public = {node: system.run(["wg", "pubkey"], secrets[node] + "\n").strip() for node in ROUTERS}
    made = []
    for node in ROUTERS:
        link = f"wgb{os.getpid() % 100000}{node[1]}"
        command = ["wireguard-go", "-f", link]
        made.append(net.start(node, command, f"wireguard-{node}", {"LOG_LEVEL": "error"}))
        net.wait_link(node, link)
        key = net.run / f"wg-{node}"
        key.touch(0o600)
        key.write_text(secrets[node])
        net.run_in(
            node,
            ["wg", "set", link, "listen-port", _PORT, "private-key", str(key),
             "peer", public[OTHER[node]], "allowed-ips", "0.0.0.0/0",
             "endpoint", f"{CARE_OF[OTHER[node]]}:{_PORT}"],
            5,
        )  # fmt: skip
        _use(net, node, link, _ENCRYPTED_MTU)
    return made


def versions() -> dict[str, str]:
    """{Debian package: version} of what is compared."""
    names = ["tinc", "openvpn", "nebula", "wireguard-go", "wireguard-tools", "iperf3", "gcc"]
    found = system.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *names], check=False)
    return dict(line.split() for line in found.splitlines() if len(line.split()) == 2)


def missing(programs: tuple[str, ...]) -> list[str]:
    """Those that are not installed."""
    return [program for program in programs if not shutil.which(program)]


def _use(net: Net, node: str, link: str, mtu: int | None) -> None:
    net.wait_link(node, link)
    size = f"mtu {mtu} " if mtu else ""
    net.ip(node, f"link set {link} {size}txqueuelen 1000 up")

    def routed() -> bool:
        words = ["ip", "route", "replace", LANS[OTHER[node]], "dev", link]
        return subprocess.run(net.inside(node, words), capture_output=True).returncode == 0

    # A daemon may set the link up again by itself a moment later.
    if not processes.wait_until(routed, 5.0, 0.05):
        raise LabError(f"{node}: no route by {link}")


def _tinc(net: Net, build: Path, kind: str) -> list[Process]:
    keys = build / "keys" / "tinc"
    made = []
    for node in ROUTERS:
        _tinc_key(keys / node)
    for node in ROUTERS:
        other = OTHER[node]
        home = net.run / f"tinc-{node}"
        (home / "hosts").mkdir(parents=True)
        shutil.copy(keys / node / "rsa_key.priv", home / "rsa_key.priv")
        (home / "rsa_key.priv").chmod(0o600)
        lines = [
            f"Name = {node}", "Device = /dev/net/tun", "Interface = tun0", "Mode = router",
            "AddressFamily = ipv4", "UDPRcvBuf = 1048576", "UDPSndBuf = 1048576",
        ]  # fmt: skip
        if node == "r2":
            lines.append("ConnectTo = r1")
        (home / "tinc.conf").write_text("\n".join(lines) + "\n")
        for each in ROUTERS:
            host = [
                f"Address = {CARE_OF[each]}", f"Port = {_PORT}", f"Subnet = {LANS[each]}",
                # Without it what is long goes over TCP until its search has ended, seconds later.
                "PMTUDiscovery = no",
            ]  # fmt: skip
            if kind == "none":
                host += ["Cipher = none", "Digest = none"]
            text = "\n".join(host) + "\n" + (keys / each / "public").read_text()
            (home / "hosts" / each).write_text(text)
        command = ["tincd", "-c", str(home), "-D", "--pidfile", str(net.run / f"tinc-{node}.pid")]
        made.append(net.start(node, command, f"tinc-{node}"))
        _use(net, node, "tun0", 1500 - _TINC_OVERHEAD[kind])
        if other == "r2":
            net.wait_link(node, "tun0")
    return made


def _tinc_key(home: Path) -> None:
    if (home / "public").exists():
        return
    shutil.rmtree(home, ignore_errors=True)
    (home / "hosts").mkdir(parents=True)
    (home / "tinc.conf").write_text(f"Name = {home.name}\n")
    system.run(["tincd", "-c", str(home), "-K", "2048"])
    (home / "public").write_text((home / "hosts" / home.name).read_text())


def _nebula_keys(home: Path) -> Path:
    if (home / "r2.crt").exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    authority = ["-ca-crt", f"{home}/ca.crt", "-ca-key", f"{home}/ca.key"]
    system.run(["nebula-cert", "ca", "-name", "bench", "-out-crt", f"{home}/ca.crt",
                "-out-key", f"{home}/ca.key"])  # fmt: skip
    for node in ROUTERS:
        own = ["-out-crt", f"{home}/{node}.crt", "-out-key", f"{home}/{node}.key"]
        whose = ["-name", node, "-ip", f"{_INSIDE[node]}/24", "-subnets", LANS[node]]
        system.run(["nebula-cert", "sign", *authority, *whose, *own])
    return home
