"""The modem's own socket at a board's UART: octets as the UART sends them, on a fake clock."""

import types

import pytest

from haaro.platform.lwip_sockets import LwipSockets
from haaro.uplink import base, uart_modem
from tests.mcu.test_uart_modem import FAR, SOURCE, Rig
from tests.modem_sim.modem import Behaviour

OURS = bytes([10, 64, 0, 2])
FAR_TEXT = "203.0.113.9"


class SocketRig(Rig):
    """The link and its cable; what the modem's stack sends is in `sent`."""

    def __init__(self, path, module=uart_modem, mux=False, **change):
        how = Behaviour(stack="10.64.0.2", mux="yes" if mux else "", off_ms=650)
        words = {"profile": "ec25", "data": "sockets", "mux": mux, "apn": "internet", **change}
        super().__init__(path, module, how, **words)

    def _network(self):
        pass

    @property
    def sent(self):
        return self.sim.stack.sent

    def until_up(self, within_ms=30000):
        self.link.start(self.now)
        self.until(lambda: self.link.state == base.UP, within_ms)
        assert self.link.address == OURS
        return self.link.open(OURS)


@pytest.fixture
def rig(tmp_path):
    return lambda *arguments, **change: SocketRig(tmp_path, *arguments, **change)


def _urgent_passes_data(one):
    """On 9600 baud a datagram of 900 takes a second; three wait when a control datagram comes."""
    udp = one.until_up()
    for i in range(3):
        udp.sendto(bytes([i]) * 900, (FAR, 434))
    one.until(lambda: one.sim.stack.wanted, 2000)
    udp.urgent(b"keepalive", (FAR, 4340))
    one.until(lambda: len(one.sent) >= 4, 10000)
    order = [octets[:2] for octets, _, _ in one.sent]
    assert order == [b"\0\0", b"ke", b"\1\1", b"\2\2"], "behind one datagram, the one on the line"


@pytest.mark.parametrize("mux", [False, True], ids=["plain", "mux"])
def test_a_control_datagram_waits_for_one_datagram_at_most_on_a_slow_line(rig, mux):
    _urgent_passes_data(rig(mux=mux))


def test_a_fault_in_the_driver_turns_its_test_red(rig):
    text = SOURCE.read_text()
    search = "self._urgent.pop(0) if self._urgent else self._take_data()"
    assert text.count(search) == 1
    faulty = types.ModuleType("haaro.uplink.uart_modem")
    code = text.replace(search, "self._take_data() if self._data else self._urgent.pop(0)")
    exec(compile(code, "faulty uart_modem.py", "exec"), faulty.__dict__)
    with pytest.raises(AssertionError):
        _urgent_passes_data(rig(faulty))


def test_data_that_finds_the_queue_full_is_refused_and_control_is_not(rig):
    one = rig()
    udp = one.until_up()
    for _ in range(4):
        udp.sendto(bytes(900), (FAR, 434))
    with pytest.raises(OSError, match="12"):
        udp.sendto(bytes(900), (FAR, 434))
    assert udp.urgent(b"keepalive", (FAR, 434)) == 9
    one.until(lambda: len(one.sent) >= 5, 20000)
    assert udp.sendto(bytes(900), (FAR, 434)) == 900, "there is room again"


def test_what_does_not_fit_one_send_is_refused(rig):
    udp = rig().until_up()
    with pytest.raises(OSError, match="90"):
        udp.sendto(bytes(1461), (FAR, 434))


@pytest.mark.parametrize("mux", [False, True], ids=["plain", "mux"])
def test_a_tunnel_and_signalling_over_the_socket(rig, mux):
    """What the plane does with lwIP's sockets goes by the modem's, both ways."""
    one = rig(mux=mux, baud=115200)
    one.until_up()
    sockets = LwipSockets()
    sockets.own["modem0"] = one.link
    sockets.view = memoryview(b"....\x04\x04\0\0inner packet....")
    receiver = sockets.open("modem0", OURS)
    sender = sockets.tunnel("modem0", OURS, FAR, 4340)
    assert sender.write(None, 4, 16) == 16
    assert sockets.send(("modem0", OURS), FAR, 434, b"request")
    one.until(lambda: len(one.sent) >= 2, 2000)
    assert one.sent == [(b"\4\4\0\0inner packet", FAR_TEXT, 4340), (b"request", FAR_TEXT, 434)]
    one.sim.stack.arrive(one.now, b"\r\nOK\r\n\4\4", FAR_TEXT, 4340)
    one.until(lambda: receiver.ioctl(3, 1), 2000)
    assert receiver.recvfrom(1536) == (b"\r\nOK\r\n\4\4", (FAR_TEXT, 4340))
    status = one.link.status()
    assert status["octets"] == 28 + 16 + 28 + 7 + 28 + 8, "as packets of IPv4"
    assert (status["stage"], status["lost"], status["ip"]["malformed"]) == ("up", 0, 0)


def test_a_hang_in_the_middle_of_a_payload_is_recovered_by_the_pin_and_counted(rig):
    """What the escape fills up is never more than the UART takes at once."""
    one = rig(baud=115200)
    udp = one.until_up()
    one.sim.stack.faults.dead_prompts = 1
    udp.sendto(bytes(1000), (FAR, 434))
    one.until(lambda: one.link.status()["recoveries"], 30000)
    with pytest.raises(OSError, match="128"):
        udp.sendto(b"data", (FAR, 434))
    one.until(lambda: one.link.state == base.UP, 120_000)
    assert one.link.status()["lost"] == 1
    one.link.open(OURS).sendto(b"alive", (FAR, 434))
    one.until(lambda: one.sent[-1:] == [(b"alive", FAR_TEXT, 434)], 5000)
