"""The real `haaro ha` process: kill -9 at every write point, reload, local socket, fast path."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from haaro.wire import extensions, ipv4
from haaro.wire.ipv4 import address
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent.clock import difference, stamp
from tests.host.home_agent_helpers import (
    COA_B,
    COA_C,
    HA,
    HOA_A,
    HOA_B,
    KEY,
    build_request,
    parse_reply,
)
from tests.host.home_agent_process import (
    CONFIG,
    DEADLINE_S,
    NTP_UNIX_MS,
    Namespace,
    Process,
    write_config,
)

END_B = "198.51.100.74"
CS6 = 0xC0


@pytest.fixture
def namespace():
    """A network namespace with the home agent's and the routers' addresses."""
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def running(namespace, tmp_path):
    """A running home agent; ended by SIGTERM, with nothing of the keys in its output."""
    write_config(tmp_path)
    process = Process(namespace, tmp_path)
    process.wait_ready()
    yield process
    if process.popen.poll() is None:
        assert process.terminate() == 0, process.text()


class Router:
    """A router that keeps its Identification right across home agent restarts."""

    def __init__(self, namespace, src="198.51.100.10", **values):
        self.namespace = namespace
        self.src = src
        self.values = {"networks": ["10.1.0.0/24"], "capability": {}, **values}
        self.last = None
        self.ahead = 0

    def request(self):
        """Return a request with the next Identification."""
        now = stamp(time.time_ns() // 1_000_000 + NTP_UNIX_MS) + self.ahead
        if self.last is not None and difference(now, self.last) <= 0:
            now = self.last + 1
        self.last = now % (1 << 64)
        return bytes(build_request(self.last.to_bytes(8, "big"), **self.values))

    def send(self, data, **more):
        """Return the parsed reply or None."""
        answers = self.namespace.exchange(data, self.src, **more)
        return parse_reply(answers[0]) if answers else None

    def register(self):
        """Register within two exchanges and return (accepted datagram, reply)."""
        for _ in range(2):
            data = self.request()
            reply = self.send(data)
            if reply is not None and reply.code == 0:
                return data, reply
            assert reply is not None and reply.code == 133
            ours = int.from_bytes(reply.identification, "big") + (1 << 32)
            self.ahead += difference(ours, self.last)
        raise AssertionError("not registered within two exchanges")

    def tunnel(self, packet, **more):
        """Send an inner packet through the tunnel."""
        return self.namespace.exchange(TUNNEL_HEADER + packet, self.src, **more)


def router_b(namespace):
    """Return router B."""
    coa = {"hoa": HOA_B, "coa": COA_B, "networks": ["10.2.0.0/24"]}
    return Router(namespace, END_B, **coa)


def until(condition):
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


# Where the process dies: the real program, with one statement in front of or behind a write.
KILL_POINTS = {
    "before the transaction": ("Store.accept", "before"),
    "inside the transaction": ("Store._put", "before"),
    "after the last statement, before the commit": ("Store._put", "after"),
    "after the commit, before the reply": ("Store.accept", "after"),
}
KILL = """
import os, signal
from pathlib import Path
from haaro_host.home_agent import store
original = store.{name}
armed = Path({flag!r})
def wrapped(*args):
    if {before} and armed.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*args)
    if not {before} and armed.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return result
store.{name} = {wrap}
"""


@pytest.mark.parametrize("point", KILL_POINTS)
def test_kill_9_at_a_write_point_loses_nothing_and_accepts_no_replay(namespace, tmp_path, point):
    """Threats R3, F7; RFC 5944 5.7.1: what was answered is kept, what was captured is refused."""
    write_config(tmp_path)
    name, when = KILL_POINTS[point]
    flag = tmp_path / "armed"
    wrap = "staticmethod(wrapped)" if name.endswith("_put") else "wrapped"
    preamble = KILL.format(name=name, flag=str(flag), before=when == "before", wrap=wrap)
    process = Process(namespace, tmp_path, preamble)
    process.wait_ready()
    router = Router(namespace)
    answered, _ = router.register()
    flag.touch()
    router.values["networks"] = []
    unanswered = router.request()
    assert router.send(unanswered, wait_s=0.5) is None
    assert process.wait() == -9
    flag.unlink()

    again = Process(namespace, tmp_path)
    again.wait_ready()
    binding = again.ask("status")["routers"][0]["binding"]
    committed = point.startswith("after the commit")
    assert binding["tunnel_end"] == "198.51.100.10"
    assert binding["prefixes"] == ([] if committed else ["10.1.0.0/24"])
    assert router.send(answered).code == 133
    late = router.send(unanswered)
    assert late.code == (133 if committed else 0)
    assert router.send(unanswered).code == 133
    router.register()
    assert again.terminate() == 0


def test_kill_9_at_any_time_under_load_keeps_every_answered_registration(namespace, tmp_path):
    """Threats R3: the last answered Identification is on disk, wherever the kill falls."""
    text = CONFIG.replace(
        'address = "192.0.2.1"', 'address = "192.0.2.1"\nrate = 1000\nburst = 1000'
    )
    write_config(tmp_path, text)
    router = Router(namespace)
    for round_ in range(4):
        process = Process(namespace, tmp_path)
        process.wait_ready()
        answered, _ = router.register()
        for _ in range(3 * round_):
            data = router.request()
            if router.send(data).code == 0:
                answered = data
        # From another port: its reply, if it still comes, is not taken for that to the replay.
        router.send(router.request(), sport=5434, wait_s=0, expect=0)
        assert process.kill() == -9
        again = Process(namespace, tmp_path)
        assert again.wait_ready()["registered"] == 1
        assert router.send(answered, wait_s=DEADLINE_S).code == 133
        assert again.kill() == -9


CLOCK = """
import time as real
from types import SimpleNamespace
from pathlib import Path
from haaro_host.home_agent import shell
def time_ns():
    return real.time_ns() + int(Path({file!r}).read_text()) * 10**9
shell.time = SimpleNamespace(**{{**vars(real), "time_ns": time_ns}})
"""


@pytest.mark.parametrize("seconds", [-3600, 3600, -315_360_000, 315_360_000])
def test_a_step_of_the_system_clock_keeps_bindings_and_costs_two_exchanges(
    namespace, tmp_path, seconds
):
    """Threats R6, F9: the shell notices the step against the boot clock."""
    write_config(tmp_path)
    file = tmp_path / "offset"
    file.write_text("0")
    process = Process(namespace, tmp_path, CLOCK.format(file=str(file)))
    process.wait_ready()
    router, other = Router(namespace), router_b(namespace)
    router.register()
    file.write_text(str(seconds))
    status = process.ask("status")
    assert 290 <= status["routers"][0]["binding"]["expires_in_s"] <= 300
    router.register()
    other.register()
    assert process.ask("status")["registered"] == 2
    assert "clock was set by" in process.text()
    process.terminate()


def test_a_clock_set_while_we_were_down_keeps_bindings(namespace, tmp_path):
    """Threats R6, F9: the shell tells the boot and the time since."""
    write_config(tmp_path)
    file = tmp_path / "offset"
    file.write_text("0")
    process = Process(namespace, tmp_path, CLOCK.format(file=str(file)))
    process.wait_ready()
    Router(namespace).register()
    process.kill()
    file.write_text("3600")
    again = Process(namespace, tmp_path, CLOCK.format(file=str(file)))
    status = again.wait_ready()
    assert 270 <= status["routers"][0]["binding"]["expires_in_s"] <= 300
    again.terminate()


def test_a_restart_keeps_the_tunnel_without_a_new_registration(namespace, tmp_path):
    """Threats F7; issue: a kill -9 and restart loses nothing."""
    write_config(tmp_path)
    process = Process(namespace, tmp_path)
    process.wait_ready()
    router = Router(namespace)
    router.register()
    echo = ipv4.build_icmp_echo(HOA_A, HA, False, 1, 2, b"keep")
    answer = [TUNNEL_HEADER + ipv4.build_icmp_echo(HA, HOA_A, True, 1, 2, b"keep", CS6)]
    assert router.tunnel(echo) == answer
    process.kill()
    again = Process(namespace, tmp_path)
    again.wait_ready()
    assert router.tunnel(echo) == answer
    again.terminate()


def test_a_killed_home_agent_lets_nothing_to_the_routers_out_in_clear(namespace, tmp_path):
    """Its host drops what goes to mobile networks until a home agent runs again or one was stopped;
    networks that are no longer configured are not held."""

    def dropped():
        command = namespace.command(["ip", "route", "show", "type", "blackhole"])
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return {line.split()[1] for line in shown.splitlines()}

    write_config(tmp_path)
    process = Process(namespace, tmp_path)
    process.wait_ready()
    process.kill()
    assert dropped() == {"192.0.2.128/25", "10.1.0.0/24", "10.2.0.0/24"}
    write_config(tmp_path, CONFIG.replace('prefixes = ["10.2.0.0/24"]', "prefixes = []"))
    again = Process(namespace, tmp_path)
    again.wait_ready()
    again.kill()
    assert dropped() == {"192.0.2.128/25", "10.1.0.0/24"}
    last = Process(namespace, tmp_path)
    last.wait_ready()
    last.terminate()
    assert dropped() == set()


def test_traffic_between_tunnels_by_the_fast_path(namespace, running):
    """RFC 5177 6.5, 7, 10: the cached way of a flow obeys the same rules as the first packet."""
    a, b = Router(namespace), router_b(namespace)
    a.register()
    b.register()
    src, dst = address("10.1.0.10"), address("10.2.0.10")

    def through(packet):
        # B's socket receives; its own datagram (a counted drop) only makes the helper listen.
        a.tunnel(packet, wait_s=0, expect=0)
        return namespace.exchange(b"\xff", END_B)

    for n in range(5):
        expected = TUNNEL_HEADER + ipv4.build_udp(src, dst, 1, 2, bytes([n]), 63)
        assert through(ipv4.build_udp(src, dst, 1, 2, bytes([n]), 64)) == [expected]
    for packet in (
        ipv4.build_udp(src, dst, 1, 2, b"", 1),
        ipv4.build_udp(src, dst, 1, 2, b"x") + b"x",
        ipv4.build_udp(address("10.2.0.11"), dst, 1, 2, b""),
    ):
        a.tunnel(packet, wait_s=0, expect=0)
    counters = {}

    def counted():
        counters.update(running.ask("status")["counters"])
        return {"ttl_expired", "inner_length", "inner_source"} <= set(counters)

    until(counted)
    status = running.ask("status")
    rows = [(r["binding"]["rx_packets"], r["binding"]["tx_packets"]) for r in status["routers"]]
    assert rows == [(5, 1), (0, 5)]  # A was sent one ICMP error
    assert counters["socket_drops"] == 0

    b.values["lifetime"] = 0
    b.register()
    assert namespace.exchange(b"\xff", END_B, wait_s=0, expect=1) == []
    a.tunnel(ipv4.build_udp(src, dst, 1, 2, b"late"), wait_s=0, expect=0)
    until(lambda: running.ask("status")["counters"].get("no_binding") == 1)
    assert namespace.exchange(b"\xff", END_B, wait_s=0) == []


def test_the_fast_path_takes_what_was_on_its_way_when_the_router_moved(namespace, running):
    """Packets of a known flow from the end before the move, and from the new one."""
    a, b = Router(namespace), router_b(namespace)
    a.register()
    b.register()
    packet = ipv4.build_udp(address("10.1.0.10"), address("10.2.0.10"), 1, 2, b"x")

    def through(router):
        router.tunnel(packet, wait_s=0, expect=0)
        return len(namespace.exchange(b"\xff", END_B))

    assert [through(a) for _ in range(3)] == [1] * 3
    moved = Router(namespace, "203.0.113.10", coa=COA_C)
    moved.last, moved.ahead = a.last, a.ahead
    moved.register()
    assert [through(router) for router in (a, moved) * 3] == [1] * 6
    row = running.ask("status")["routers"][0]["binding"]
    assert row["rx_packets"] == 9 and row["tunnel_end"] == "203.0.113.10", row


def test_own_messages_are_marked_and_heard_over_any_flood_of_data(namespace, running):
    """F15 of the threats: the queue of data is full, and keepalive and Request are answered."""
    a, b = Router(namespace), router_b(namespace)
    a.register()
    assert namespace.marks == [CS6]
    b.register()
    data = ipv4.build_udp(address("10.9.0.10"), address("10.1.0.10"), 1, 2, bytes(1400))
    hoti = (HOA_A, HOA_B, 434, 434, b"\x18" + bytes(9))
    running.popen.send_signal(signal.SIGSTOP)
    try:
        b.tunnel(data, wait_s=0, expect=0, times=40000)
        a.tunnel(ipv4.build_udp(*hoti), wait_s=0, expect=0)
        a.tunnel(ipv4.build_icmp_echo(HOA_A, HA, False, 1, 2, b"keep"), wait_s=0, expect=0)
    finally:
        running.popen.send_signal(signal.SIGCONT)
    keepalive = TUNNEL_HEADER + ipv4.build_icmp_echo(HA, HOA_A, True, 1, 2, b"keep", CS6)
    first, second = namespace.exchange(a.request(), expect=2)
    assert first == keepalive and parse_reply(second).code == 0
    assert namespace.marks == [CS6, CS6]
    # A's message reached B, marked; what users send is not.
    assert namespace.exchange(b"\xff", END_B) == [TUNNEL_HEADER + ipv4.build_udp(*hoti, 63)]
    assert namespace.marks == [CS6]

    def gone():
        counters = running.ask("status")["counters"]
        assert counters["socket_drops"] > 0
        return counters["socket_drops"] + counters.get("inner_source", 0) == 40000

    until(gone)
    user = (address("10.1.0.10"), address("10.2.0.10"), 1, 2, b"x")
    a.tunnel(ipv4.build_udp(*user), wait_s=0, expect=0)
    assert namespace.exchange(b"\xff", END_B) == [TUNNEL_HEADER + ipv4.build_udp(*user, 63)]
    assert namespace.marks == [0]


def test_the_fast_path_reports_and_fragments_what_does_not_fit(namespace, running):
    """RFC 1191 4, RFC 3519 4.8: also for packets of a flow already known."""
    a, b = Router(namespace), router_b(namespace)
    a.register()
    b.register()
    src, dst = address("10.1.0.10"), address("10.2.0.10")
    a.tunnel(ipv4.build_udp(src, dst, 1, 2, b"first"), wait_s=0, expect=0)
    assert len(namespace.exchange(b"\xff", END_B)) == 1
    big = bytearray(1600)
    ipv4.build_ipv4_into(big, 0, 17, src, dst, 1580, df=True)
    (report,) = a.tunnel(bytes(big))
    assert report[4 + 20 : 4 + 22] == b"\x03\x04" and report[4 + 26 : 4 + 28] == b"\x05\xbc"
    ipv4.build_ipv4_into(big, 0, 17, src, dst, 1580)
    a.tunnel(bytes(big), wait_s=0, expect=0)
    pieces = namespace.exchange(b"\xff", END_B, expect=2)
    assert [len(piece) for piece in pieces] == [1472, 1600 - 1468 + 20 + 4]


def test_the_kernel_routes_home_addresses_and_networks_to_us(namespace, running):
    """Issue: forwards to and from its own host and home network through the TUN device."""
    routes = subprocess.run(
        namespace.command(["ip", "route"]), capture_output=True, text=True, check=True
    ).stdout
    for prefix in ("192.0.2.128/25", "10.1.0.0/24", "10.2.0.0/24"):
        assert f"{prefix} dev haaro-ha0" in routes
    forward = namespace.command(["cat", "/proc/sys/net/ipv4/ip_forward"])
    assert subprocess.run(forward, capture_output=True).stdout == b"1\n"
    router = Router(namespace)
    router.register()
    ping = subprocess.Popen(
        namespace.command(["ping", "-c", "1", "-W", "10", "192.0.2.129"]), stdout=subprocess.DEVNULL
    )
    # The router answers the ping that comes through its tunnel.
    (request,) = namespace.exchange(b"\xff", wait_s=DEADLINE_S)
    assert request[:4] == TUNNEL_HEADER
    packet = request[4:]
    ip = ipv4.parse_ipv4(packet)
    assert (ip.src, ip.dst) == (HA, HOA_A)
    ping.terminate()
    ping.wait(DEADLINE_S)


def test_reload_is_atomic_and_keeps_bindings(namespace, running, tmp_path):
    """Issue: reload is validated as a whole, atomic, bindings kept; on error the old one stays."""
    router = Router(namespace)
    router.register()
    pid = running.ask("status")["pid"]

    write_config(tmp_path, CONFIG.replace('"10.2.0.0/24"', '"10.1.0.0/25"'))
    answer = running.ask("reload")
    assert answer["reloaded"] is False and 'router[1].prefixes[0]: "10.1.0.0/25"' in answer["error"]
    assert running.ask("status")["routers"][1]["configured_prefixes"] == ["10.2.0.0/24"]

    write_config(tmp_path, CONFIG.replace('192.0.2.1"', '192.0.2.2"'))
    answer = running.ask("reload")
    assert answer["reloaded"] is False
    assert "home_agent.address: 192.0.2.2" in answer["error"] and "restart" in answer["error"]

    write_config(tmp_path, CONFIG.replace('"10.2.0.0/24"', '"10.2.0.0/24", "10.4.0.0/24"'))
    assert running.ask("reload") == {"reloaded": True, "warnings": []}
    status = running.ask("status")
    assert status["pid"] == pid
    assert status["routers"][0]["binding"]["prefixes"] == ["10.1.0.0/24"]
    b = router_b(namespace)
    b.values["networks"] = ["10.4.0.0/24"]
    b.register()

    # A prefix and a router taken away: forwarding ends at once, and stays so after a restart.
    text = CONFIG.replace('prefixes = ["10.1.0.0/24"]', "")
    write_config(tmp_path, text[: text.index('[[router]]\nname = "B"')])
    assert running.ask("reload")["reloaded"] is True
    status = running.ask("status")
    assert [r["name"] for r in status["routers"]] == ["A"]
    assert status["routers"][0]["binding"]["prefixes"] == []
    routes = subprocess.run(namespace.command(["ip", "route"]), capture_output=True, text=True)
    assert "10.2.0.0" not in routes.stdout and "192.0.2.128/25" in routes.stdout
    running.kill()
    again = Process(namespace, tmp_path)
    assert again.wait_ready()["routers"][0]["binding"]["prefixes"] == []
    again.terminate()


def test_sighup_reloads_and_a_bad_file_is_reported_in_the_log(namespace, running, tmp_path):
    """Issue: reload; on error the old configuration stays and the error is printed."""
    write_config(tmp_path, CONFIG + "nonsense = 1\n")
    running.popen.send_signal(1)
    until(lambda: "nonsense" in running.text())
    assert "the old configuration stays" in running.text()
    write_config(tmp_path, CONFIG.replace('"10.1.0.0/24"', '"10.7.0.0/24"'))
    running.popen.send_signal(1)
    until(lambda: running.ask("status")["routers"][0]["configured_prefixes"] == ["10.7.0.0/24"])


def haaro(*arguments):
    """Run the command line; return (exit status, output, errors)."""
    code = "from haaro_host.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "ha", *map(str, arguments)], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_status_by_the_command_line(namespace, running, tmp_path):
    """Issue: `haaro ha status [--json]`, versioned schema, keys only as fingerprints."""
    Router(namespace).register()
    config = tmp_path / "ha.toml"
    code, out, _ = haaro("status", "--json", "--config", config)
    status = json.loads(out)
    assert (code, status["schema"]) == (0, "haaro.ha.status/1")
    assert status["user_traffic_encrypted"] is False
    assert status["routers"][0]["binding"]["care_of_address"] == "198.51.100.10"
    key = status["routers"][0]["keys"][0]
    assert key["spi"] == 256 and len(key["fingerprint"]) == 8
    assert key["fingerprint"] not in KEY.hex()
    code, text, _ = haaro("status", "--socket", tmp_path / "ha.sock")
    assert code == 0 and "198.51.100.10" in text and "not registered" in text
    assert "not encrypted" in text
    # Also while the file is being edited.
    config.write_text(config.read_text() + "half = 1\n")
    assert haaro("status", "--config", config)[0] == 0
    code, _, err = haaro("check", "--config", config)
    assert code == 2 and "router[1].half" in err and "allowed: only" in err
    code, _, err = haaro("reload", "--config", config)
    assert code == 1 and "router[1].half" in err and "old configuration stays" in err
    write_config(tmp_path)
    assert haaro("check", "--config", config)[:2] == (0, f"{config}: good, 2 routers\n")
    assert haaro("reload", "--config", config)[:2] == (0, "reloaded\n")
    assert stat.S_IMODE(os.stat(tmp_path / "ha.sock").st_mode) == 0o600
    assert haaro("stop", "--config", config)[:2] == (0, "stopping\n")
    assert running.wait() == 0
    code, _, err = haaro("status", "--config", config)
    assert code == 1 and "no home agent answers" in err


def test_start_errors_say_what_is_missing(namespace, running, tmp_path):
    """Issue, Bad input: a second home agent, a foreign address, a bad configuration."""
    cases = [
        (CONFIG, 1, "state.sqlite: in use by another home agent"),
        (CONFIG.replace("state.sqlite", "other.sqlite"), 1, "another program has that port"),
        (
            CONFIG.replace("state.sqlite", "other.sqlite").replace('"192.0.2.1"', '"192.0.2.77"'),
            1,
            "this host does not have that address",
        ),
        (CONFIG.replace("home_networks", "home_network"), 2, "home_agent.home_network"),
    ]
    for number, (text, code, words) in enumerate(cases):
        directory = tmp_path / str(number)
        directory.mkdir()
        write_config(directory, text.replace('"state.sqlite"', f'"{tmp_path}/state.sqlite"'))
        process = Process(namespace, directory)
        assert process.wait() == code, process.text()
        assert words in process.text() and "Traceback" not in process.text()
    assert running.popen.poll() is None


def test_no_secret_in_any_output(namespace, tmp_path):
    """Threats P3: a canary key appears in no log, status, state file or socket answer."""
    canary = bytes.fromhex("badc0ffee0ddf00d" * 4)
    write_config(tmp_path, key=canary)
    process = Process(namespace, tmp_path)
    process.wait_ready()
    wrong = build_request(bytes(8), key=bytes(32), networks=["10.1.0.0/24"])
    namespace.exchange(bytes(wrong), wait_s=0, expect=0)
    right = build_request(bytes(8), key=canary)
    parse_reply(namespace.exchange(bytes(right))[0], canary)
    (tmp_path / "ha.secrets.toml").chmod(0o644)
    outputs = [json.dumps(process.ask(word)) for word in ("status", "reload", "nonsense")]
    (tmp_path / "ha.secrets.toml").chmod(0o600)
    outputs += [str(haaro("status", "--config", tmp_path / "ha.toml"))]
    process.terminate()
    outputs.append(process.text())
    assert "bad authenticator" in process.text()
    outputs += [
        file.read_bytes().hex()
        for file in tmp_path.iterdir()
        if file.is_file() and file.name != "ha.secrets.toml"
    ]
    needles = (canary.hex()[:16], canary.hex()[:16].encode().hex(), repr(canary)[2:12])
    assert not [n for n in needles for text in outputs if n in text]


def test_a_reply_in_the_process_is_complete(namespace, running):
    """R3.1.1-1, R3.1.1-2: the shipped program answers as the core does."""
    Router(namespace).register()
    _, reply = router_b(namespace).register()
    assert reply.find(extensions.RouteOptimizationReply).accepted
    listed = list(reply.find(extensions.PrefixAdvertisement).routers())
    assert listed == [(HOA_A, False, [(address("10.1.0.0"), 24, "")])]
