"""The driver against the simulated modem: SIM, network, call, and every hang, on a fake clock."""

from itertools import pairwise

import pytest

from haaro.uplink import base
from haaro.uplink.modem_profiles import profile
from tests.modem_sim.modem import Behaviour
from tests.uplink.bench import Bench, Memory

PROFILES = ("generic", "sim7600", "ec25", "bg96", "bg770", "sara-r4")
# What the vendors ask for: (least on, least off, least reset), milliseconds.
LINES = {
    "generic": (500, 1000, 250),
    "sim7600": (100, 2500, 250),
    "ec25": (500, 650, 150),
    "bg96": (500, 650, 150),
    "bg770": (500, 650, 100),
    "sara-r4": (150, 1500, 10000),
}
# docs/cellular.md, "Hangs": until a hang is found out, and what each rung takes.
COMMAND_HANG_MS = 6600
CALL_HANG_MS = 20000
ESCAPE_MS = 6500
BRING_UP_MS = 1000


def calls(bench: Bench) -> int:
    return bench.sim.commands.count("ATD*99***1#")


# --- the way up


def test_cold_start_takes_us_less_than_a_second_over_the_modem(online):
    made = online(Behaviour(register_ms=4000, latency_ms=30, boot_ms=3000))
    made.start()
    took = made.until_up(30000)
    theirs = 3000 + 4000 + made.sim.answered_ms
    assert took - theirs < 1000
    assert made.driver.operator == "Testnet"
    assert made.driver.signal_dbm == -79
    assert made.driver.address == bytes((10, 0, 2, 15))
    assert made.driver.mtu == 1500


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_comes_up(online, name):
    made = online(Behaviour(), profile=name, user="me", password="secret")
    made.start()
    made.until_up(5000)
    auth = [each for each in made.sim.commands if "secret" in each]
    assert len(auth) == (0 if name == "generic" else 1)


def test_states_are_reported_in_order(online):
    made = online(Behaviour(register_ms=3000))
    assert made.driver.state == base.DOWN
    made.start()
    made.until_up(10000)
    states = [state for state, _ in made.seen]
    assert states == [base.CONNECTING] * (len(states) - 1) + [base.UP]
    made.driver.stop(made.now)
    made.until(lambda: made.driver.stage == "off", 3000)
    assert made.driver.state == base.DOWN


@pytest.mark.parametrize("stage", ["setup", "sim", "register", "dial", "ppp", "up"])
def test_it_can_be_stopped_and_started_in_every_stage(online, stage):
    made = online(Behaviour(register_ms=2000, latency_ms=50))
    network, made.make_peer = made.make_peer, None if stage == "ppp" else made.make_peer
    made.start()
    made.until(lambda: made.driver.stage == stage, 10000)
    made.make_peer = network
    made.driver.stop(made.now)
    assert made.driver.state == base.DOWN
    made.run(3000)
    assert (made.driver.stage, made.driver.next_deadline()) == ("off", None)
    made.start()
    made.until_up(20000)


@pytest.mark.parametrize(
    "odd",
    [
        {"echo": False},
        {"noise": b"\xff\x00\x9d~~\x11"},
        {"chatter": "+CREG: 2"},
        {"chatter": '+CEREG: 5,"00A1","01B2C3D4",7'},
        {"noise": b"\r\nRDY\r\n", "chatter": "RING"},
        {"truncates": 3},
        {"announces": False, "register_ms": 5000},
        {"latency_ms": 900},
    ],
    ids=str,
)
def test_it_comes_up_by_a_line_that_is_odd(online, odd):
    """An interleaved "+CEREG: 5" must not be taken for the network's answer when roaming is off."""
    made = online(Behaviour(**odd), roaming="5" in str(odd.get("chatter")))
    made.start()
    made.until_up(40000)


def test_a_modem_that_answers_late_is_not_misunderstood(online):
    """An answer after the timeout is garbage: it is not taken for that of what is asked next."""
    made = online(Behaviour(latency_ms=2))
    made.start()
    made.until(lambda: "AT+CREG=1" in made.sim.commands, 5000)
    made.sim.behaviour.latency_ms = 3100
    made.until(lambda: "AT+CGREG=1" in made.sim.commands, 5000)
    made.sim.behaviour.latency_ms = 2
    made.until_up(30000)
    assert made.driver.recoveries == 0


# --- SIM


def test_the_pin_is_given_once_and_the_mark_is_taken_away(online):
    made = online(Behaviour(sim="pin", sim_busy_ms=3000, register_ms=1000), pin="4711")
    made.start()
    made.until_up(20000)
    assert made.sim.pin_attempts == ["4711"]
    assert not made.memory.failed


@pytest.mark.parametrize("counts", [True, False])
def test_a_wrong_pin_is_never_tried_twice(bench, counts):
    made = bench(Behaviour(sim="pin", counts_tries=counts), pin="0000")
    made.start()
    made.until_failed("refused the PIN", 10000)
    made.run(600000)
    assert made.sim.pin_attempts == ["0000"]
    made.restart()
    made.run(600000)
    made.driver.stop(made.now)
    made.start()
    made.run(600000)
    assert made.sim.pin_attempts == ["0000"]
    assert made.driver.state == base.FAILED
    assert made.sim.behaviour.tries == 2


def test_a_pin_whose_fate_is_unknown_is_not_tried_again(bench):
    """The router is killed between sending the PIN and its answer."""
    made = bench(Behaviour(sim="pin", latency_ms=300), pin="0000")
    made.start()
    made.until(lambda: made.sim.pin_attempts, 20000)
    made.restart()
    made.run(600000)
    assert made.sim.pin_attempts == ["0000"]
    assert "docs/cellular.md" in made.driver.reason


def test_a_pin_is_not_tried_when_that_cannot_be_remembered(bench):
    memory = Memory()
    memory.works = False
    made = bench(Behaviour(sim="pin"), memory=memory, pin="4711")
    made.start()
    made.until_failed("could not be kept", 10000)
    assert made.sim.pin_attempts == []


def test_the_last_try_before_the_puk_is_left_to_people(bench):
    made = bench(Behaviour(sim="pin", tries=1), pin="4711")
    made.start()
    made.until_failed("one try left", 10000)
    assert made.sim.pin_attempts == []


@pytest.mark.parametrize(
    ("sim", "words"), [("pin", "none is configured"), ("puk", "PUK"), ("absent", "no SIM")]
)
def test_a_sim_that_cannot_be_used_is_named(bench, sim, words):
    made = bench(Behaviour(sim=sim))
    made.start()
    made.until_failed(words, 10000)


def test_a_sim_that_is_put_in_later_is_used(online):
    made = online(Behaviour(sim="absent"))
    made.start()
    made.until_failed("no SIM", 10000)
    made.sim.behaviour.sim = "ready"
    made.sim._unlocked = True
    made.until_up(10000)


# --- network


def check_roaming_is_refused(made: Bench) -> None:
    made.start()
    made.until_failed("roaming (Testnet) is not allowed", 10000)
    made.run(120000)
    assert not made.sim.data_mode


def test_roaming_is_refused_unless_allowed(bench, online):
    check_roaming_is_refused(bench(Behaviour(stat=5)))
    allowed = online(Behaviour(stat=5), roaming=True)
    allowed.start()
    allowed.until_up(10000)
    assert allowed.driver.roaming


def test_a_simulator_that_deviates_from_27_007_is_found_out(bench):
    """The deliberate deviation, "+CREG: stat,n": the check above must not pass with it."""
    with pytest.raises(AssertionError, match="not within"):
        check_roaming_is_refused(bench(Behaviour(stat=5, deviation="swapped")))


def test_a_network_that_refuses_the_sim_is_named_and_asked_again(online):
    made = online(Behaviour(stat=3))
    made.start()
    made.until_failed("refuses this SIM", 10000)
    made.sim.behaviour.stat = 1
    made.until_up(10000)


def test_without_a_network_the_radio_is_switched_off_and_on(bench):
    made = bench(Behaviour(register_ms=10**9))
    made.start()
    made.until(lambda: "AT+CFUN=4" in made.sim.commands, 190000)
    made.until(lambda: "AT+CFUN=1" in made.sim.commands, 1000)
    assert (made.driver.state, made.driver.reason) == (base.FAILED, "no network")


def test_a_refused_call_is_tried_again_ever_more_rarely(bench):
    made = bench(Behaviour(refuses="BUSY"))
    made.start()
    at = []
    for count in range(1, 6):
        made.until(lambda so_far=count: calls(made) == so_far, 400000)
        at.append(made.now)
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert all(5000 << i <= gap < (5000 << i) + 1000 for i, gap in enumerate(gaps))
    assert (base.FAILED, "the network refuses the call (BUSY)") in made.seen


def test_the_wrong_apn_is_refused_by_the_network_and_the_right_one_works(bench, online):
    wrong = bench(Behaviour(apn="iot.example"), apn="internet")
    wrong.start()
    wrong.until_failed("NO CARRIER", 10000)
    right = online(Behaviour(apn="iot.example"), apn="iot.example")
    right.start()
    right.until_up(10000)


def test_a_lost_network_ends_the_call_and_it_is_made_anew(online):
    made = online(Behaviour(register_ms=2000))
    made.start()
    made.until_up(10000)
    made.run(61000)
    made.sim.lose_network(True, made.now)
    made.until(lambda: made.driver.state != base.UP, 1000)
    made.run(20000)
    made.sim.lose_network(False, made.now)
    made.until_up(2000 + 2000 + BRING_UP_MS)


# --- hangs


def windows(name: str, cure: str) -> int:
    """What docs/cellular.md says that the ladder takes until this rung has worked, but for boot."""
    data = profile(name)
    total = ESCAPE_MS
    if cure in ("power_key", "reset"):
        total += data["off_ms"] + data["rest_ms"] + data["on_ms"]
    if cure == "reset":
        total += data["boot_ms"] + 1000 + data["reset_ms"]
    return total


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("cure", ["escape", "power_key", "reset"])
@pytest.mark.parametrize("in_call", [True, False])
def test_every_hang_is_recovered_within_its_time(online, name, cure, in_call):
    on, off, reset = LINES[name]
    how = Behaviour(on_ms=on, off_ms=off, reset_ms=reset)
    how.register_ms = 0 if in_call else 10**6
    made = online(how, profile=name)
    made.start()
    if in_call:
        made.until_up(5000)
    else:
        made.until(lambda: made.driver.stage == "register", 5000)
    made.run(2000)
    how.boot_ms, how.register_ms = 9000, 1000
    made.sim.hang(cure)
    made.until(
        lambda: made.driver.recoveries == 1,
        CALL_HANG_MS if in_call else COMMAND_HANG_MS + 2000,
    )
    booted = 0 if cure == "escape" else how.boot_ms
    made.until_up(windows(name, cure) + booted + how.register_ms + BRING_UP_MS)
    assert not made.sim.deaf
    assert made.driver.recoveries == 1 + ("escape", "power_key", "reset").index(cure)


@pytest.mark.parametrize("name", PROFILES)
def test_a_modem_that_is_off_is_switched_on(online, name):
    on, off, reset = LINES[name]
    made = online(
        Behaviour(powered=False, boot_ms=9000, on_ms=on, off_ms=off, reset_ms=reset), profile=name
    )
    made.start()
    made.until_up(60000 + 9000)


def test_a_call_that_an_earlier_run_left_is_hung_up(online):
    """The router was killed: the modem is in data mode and takes AT for data."""
    made = online()
    made.start()
    made.until_up(5000)
    made.restart()
    made.until_up(2500 + ESCAPE_MS + BRING_UP_MS)
    assert made.driver.recoveries == 1


def test_without_lines_the_ladder_begins_anew_and_says_so(bench):
    made = bench(doors=())
    made.start()
    made.until(lambda: made.driver.stage == "register" or made.sim.data_mode, 5000)
    made.sim.hang("reset")
    made.until_failed("does not answer", 60000)
    before = made.driver.recoveries
    made.until(lambda: made.driver.recoveries > before + 1, 120000)
    made.sim.deaf = ""
    made.until(lambda: made.sim.data_mode, 60000)


def test_the_escape_is_alone_on_the_line(online):
    """V.250: a second of silence before and after "+++"."""
    made = online()
    made.start()
    made.until_up(5000)
    made.restart()
    wrote = []
    receive = made.sim.receive
    made.sim.receive = lambda now, octets: (wrote.append((now, octets)), receive(now, octets))
    made.until(lambda: any(octets == b"+++" for _, octets in wrote), 10000)
    made.run(1500)
    at = [octets for _, octets in wrote].index(b"+++")
    assert wrote[at][0] - wrote[at - 1][0] >= 1000
    assert wrote[at + 1][0] - wrote[at][0] >= 1000


def test_no_secret_is_said(bench):
    made = bench(Behaviour(sim="pin"), pin="4710", user="canary-user", password="canary-secret")
    made.start()
    made.run(60000)
    said = " ".join(reason for _, reason in made.seen)
    assert "4710" not in said and "canary-secret" not in said
