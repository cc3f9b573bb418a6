"""The maps of the home agent's kernel plane say what forwarding.py says, as the C file reads it."""

import re
import struct
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haaro.wire import ipv4
from haaro.wire.ipv4 import address
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent import kernel_plane
from haaro_host.home_agent.bindings import UDP, Binding
from haaro_host.home_agent.clock import stamp
from haaro_host.home_agent.config import ConfigError
from haaro_host.home_agent.forwarding import Forwarding
from haaro_host.home_agent.kernel_plane import ELSE, HOME_ADDRESS, HOME_NETWORK, NETWORK, NONE
from tests.host import home_agent_process
from tests.host.home_agent_helpers import (
    COA_A,
    COA_B,
    COA_C,
    HA,
    HOA_A,
    HOA_B,
    HOA_C,
    build_config,
    build_request,
    parse_reply,
)
from tests.meta.repository import ROOT

_PROGRAMS = ROOT / "firmware" / "kernel_plane"
SOURCE = "".join((_PROGRAMS / name).read_text() for name in ("tunnel.h", "home_agent.bpf.c"))


def number(name: str) -> int:
    return int(re.search(rf"^#define {name} (\w+)", SOURCE, re.M)[1], 0)


def test_the_programs_have_the_same_numbers():
    body = re.search(r"enum counter \{(.*?)\};", SOURCE, re.S)[1]
    names = tuple(name.strip().lower() for name in body.split(",") if name.strip())
    assert names == kernel_plane.COUNTERS
    assert number("TUNNELS") == kernel_plane.SLOTS
    assert number("PREFIXES") == kernel_plane.PREFIXES
    assert number("NONE") == NONE
    kinds = [number(name) for name in ("NETWORK", "HOME_ADDRESS", "HOME_NETWORK")]
    assert kinds == [NETWORK, HOME_ADDRESS, HOME_NETWORK]


@pytest.mark.parametrize("order", ["little", "big"])
def test_both_byte_orders_are_compiled(order):
    path = _PROGRAMS / f"home_agent_{order}.o"
    if not path.exists():
        pytest.skip("not built: make bpf")
    data = path.read_bytes()
    assert data[:4] == b"\x7fELF"
    assert data[5] == {"little": 1, "big": 2}[order]
    for program in re.findall(r'^SEC\("(tc/\w+)"\)', SOURCE, re.M):
        assert program.encode() + b"\0" in data


@pytest.mark.parametrize("value", ["fast", "", 1])
def test_another_data_plane_is_refused_with_what_is_allowed(value):
    def change(document):
        document["home_agent"]["dataplane"] = value

    with pytest.raises(ConfigError) as caught:
        build_config(change)
    assert "home_agent.dataplane" in str(caught.value)
    assert '"auto", "kernel" or "userspace"' in str(caught.value)


def world(separate, gateway):
    """Return (config, bindings, slots): A and C bound in tunnels, B not for the programs."""

    def change(document):
        document["home_agent"]["overlap"] = "separate" if separate else "error"
        document["home_agent"]["home_realm"] = "a.example" if separate else ""
        for router, realm in zip(document["router"], ("a.example", "A.example", "c"), strict=True):
            router["realm"] = realm
        if separate:
            document["router"][2]["prefixes"] = ["10.1.0.0/24", "10.1.4.0/22"]
        if gateway:
            document["router"][0].update(implicit=True)
            document["router"][0]["prefixes"].append("0.0.0.0/0")

    config = build_config(change)
    bindings = {}
    for home_address, end in ((HOA_A, COA_A), (HOA_B, COA_B), (HOA_C, COA_C)):
        prefixes = list(config.routers[home_address].prefixes)
        # Of the two networks of A one is not registered.
        prefixes = [p for p in prefixes if p != (address("10.1.1.0"), 24)]
        bindings[home_address] = Binding(
            home_address, end, end, 434, UDP, 300, 0, prefixes=prefixes
        )
    return config, bindings, {HOA_A: 3, HOA_C: 1}


def decide(table, config, slots, source, target, origin):
    """As from_tunnel and to_tunnel of home_agent.bpf.c do, of a packet with a TTL of 64."""

    def find(domain, value):
        for length in range(32, -1, -1):
            prefix = (ipv4.mask(value, length), length)
            entry = table.get(kernel_plane.prefix_key(domain, prefix))
            if entry is not None:
                return struct.unpack("@HH", entry)
        return None

    if origin is None:
        domain = kernel_plane.domain_number(config.home_domain)
        found = find(domain, source)
        if found is None or found[1] != HOME_NETWORK:
            return ("each",)
    else:
        domain = kernel_plane.domain_number(config.domain(origin.home_address))
        found = find(domain, source)
        if found is None or found[0] != slots[origin.home_address]:
            if (bytes(4), 0) in origin.prefixes:
                return ("each",)
            return ("drop", "inner_source")
    found = find(domain, target)
    if found is None or not 0 < target[0] < 224 or target[0] == 127:
        return ("each",)
    if origin and found == (slots[origin.home_address], NETWORK):
        return ("drop", "hairpin")
    if found[1] == NETWORK:
        return ("tunnel", found[0])
    return ("outside",) if origin and found[1] == HOME_NETWORK else ("each",)


ADDRESSES = st.one_of(
    st.sampled_from(
        [HOA_A, HOA_B, HOA_C, COA_A, COA_B]
        + [address(a) for a in ("10.0.0.5", "192.0.2.1", "192.0.2.200", "8.8.8.8", "0.0.0.0")]
    ),
    st.tuples(st.integers(0, 7), st.integers(0, 7), st.sampled_from([0, 1, 255])).map(
        lambda p: bytes((10, *p))
    ),
)


@settings(max_examples=400)
@given(st.booleans(), st.booleans(), ADDRESSES, ADDRESSES, st.sampled_from([HOA_A, HOA_C, None]))
def test_what_the_programs_decide_the_tables_decide_too(separate, gateway, source, target, who):
    config, bindings, slots = world(separate, gateway)
    tables = Forwarding(config)
    tables.rebuild(config, bindings.values())
    table = kernel_plane.prefixes(config, bindings, slots)
    origin = bindings[who] if who else None
    mine = decide(table, config, slots, source, target, origin)
    packet = ipv4.build_udp(source, target, 5000, 5001, b"x")
    theirs = tables.forward(packet, origin)
    if mine[0] == "tunnel":
        assert theirs[0] == "tunnel" and slots[theirs[1].home_address] == mine[1]
    elif mine[0] != "each":
        assert theirs == mine


def test_the_common_case_is_for_the_programs():
    """Networks of routers with a tunnel, both ways, and home networks; nothing unregistered."""
    config, bindings, slots = world(False, False)
    table = kernel_plane.prefixes(config, bindings, slots)
    a1, a2, c1, hq = (address(a) for a in ("10.1.0.9", "10.1.1.9", "10.3.0.9", "10.0.0.9"))
    for source, target, who, decision in (
        (a1, c1, HOA_A, ("tunnel", 1)),
        (c1, a1, HOA_C, ("tunnel", 3)),
        (HOA_A, c1, HOA_A, ("tunnel", 1)),
        (a1, hq, HOA_A, ("outside",)),
        (hq, a1, None, ("tunnel", 3)),
        (a1, HOA_C, HOA_A, ("each",)),
        (a1, address("10.2.0.9"), HOA_A, ("each",)),
        (c1, a2, HOA_C, ("each",)),
        (a2, c1, HOA_A, ("drop", "inner_source")),
    ):
        origin = bindings[who] if who else None
        assert decide(table, config, slots, source, target, origin) == decision
    kinds = {struct.unpack("@HH", value)[1] for value in table.values()}
    assert kinds == {ELSE, NETWORK, HOME_ADDRESS, HOME_NETWORK}


def test_where_the_kernel_refuses_the_process_forwards_and_says_why(tmp_path, monkeypatch):
    """In a user namespace, as without CAP_BPF; nothing is left of the attempt."""
    user = ["-U", "-r", "-n"]
    if subprocess.run(["unshare", *user, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    monkeypatch.setattr(home_agent_process, "unshare_flags", lambda: user)
    namespace = home_agent_process.Namespace()
    try:
        text = home_agent_process.CONFIG
        text = text.replace("[home_agent]", '[home_agent]\ndataplane = "auto"')
        home_agent_process.write_config(tmp_path, text)
        process = home_agent_process.Process(namespace, tmp_path)
        status = process.wait_ready()
        assert status["data_plane"]["plane"] == "userspace"
        assert status["data_plane"]["why"].startswith("the kernel plane is refused: ")
        assert status["data_plane"]["why"] in process.text()
        identification = stamp(time.time_ns() // 10**6 + home_agent_process.NTP_UNIX_MS)
        request = build_request(
            identification.to_bytes(8, "big"), networks=["10.1.0.0/24"], capability={}
        )
        (reply,) = namespace.exchange(bytes(request))
        assert parse_reply(reply).code == 0
        inner = ipv4.build_icmp_echo(HOA_A, HA, False, 1, 1, b"")
        (answer,) = namespace.exchange(TUNNEL_HEADER + inner)
        assert answer[16:24] == HA + HOA_A
        assert process.terminate() == 0, process.text()
        assert not [path for path in tmp_path.rglob("*") if "haaro" in path.name]
    finally:
        namespace.close()
