"""ha.toml and its secrets: every error names the file, the key, the value and what is allowed."""

import os

import pytest

from haaro_host.home_agent import config
from haaro_host.home_agent.config import ConfigError, Secret
from tests.host.home_agent_helpers import HA, HOA_A, KEY, build_config

CANARY = "c0ffee" * 3  # 9 octets: too short, so that it is refused


def agent(**values):
    """Return a change of the [home_agent] table; None removes the key."""

    def change(document):
        for key, value in values.items():
            if value is None:
                del document["home_agent"][key]
            else:
                document["home_agent"][key] = value

    return change


def router(index=0, **values):
    """Return a change of one [[router]] table."""
    return lambda document: document["router"][index].update(values)


def problem(change=None, change_secrets=None):
    """Return the one Problem that the change makes."""
    with pytest.raises(ConfigError) as caught:
        build_config(change, change_secrets)
    assert len(caught.value.problems) == 1, str(caught.value)
    found = caught.value.problems[0]
    for part in (found.file, found.key, found.value, found.allowed):
        assert part in str(caught.value)
    return found


@pytest.mark.parametrize(
    ("change", "key", "value", "allowed"),
    [
        (agent(colour="blue"), "home_agent.colour", "unknown key", "only address,"),
        (lambda d: d.update(routers=[]), "routers", "unknown key", "only home_agent, router"),
        (router(prefix="10.9.0.0/24"), "router[0].prefix", "unknown key", "only home_address,"),
        (agent(address=None), "home_agent.address", "missing key", "an IPv4 address"),
        (agent(state=None), "home_agent.state", "missing key", "SQLite"),
        (lambda d: d.pop("home_agent"), "home_agent", "missing key", "a table [home_agent]"),
        (lambda d: d["router"][1].pop("name"), "router[1].name", "missing key", "a name"),
        (agent(address="192.0.2.300"), "home_agent.address", '"192.0.2.300"', "an IPv4 address"),
        (agent(address=3221225985), "home_agent.address", "3221225985", "an IPv4 address"),
        (agent(home_addresses=[]), "home_agent.home_addresses", "[]", "a list of IPv4 prefixes"),
        (
            agent(home_networks=["10.0.0.1/24"]),
            "home_agent.home_networks[0]",
            '"10.0.0.1/24"',
            "without host bits",
        ),
        (agent(home_networks="10.0.0.0/24"), "home_agent.home_networks", '"10.0.0.0/24"', "a list"),
        (agent(forward_outside="yes"), "home_agent.forward_outside", '"yes"', "true or false"),
        (agent(keepalive=9), "home_agent.keepalive", "9", "from 10"),
        (agent(replay_window=3), "home_agent.replay_window", "3", "from 4"),
        (agent(lifetime_max=65535), "home_agent.lifetime_max", "65535", "10 to 65534"),
        (agent(advertisement_octets=20), "home_agent.advertisement_octets", "20", "128 to 65000"),
        (agent(interface="a" * 16), "home_agent.interface", '"aaaa', "1 to 15"),
        (agent(socket="s" * 100), "home_agent.socket", '"sss', "1 to 99"),
        (agent(encapsulations=["udp", "vxlan"]), "home_agent.encapsulations[1]", '"vxlan"', "gre"),
        (agent(mtu=True), "home_agent.mtu", "true", "608 to 65535"),
        (
            router(home_address="192.0.2.5"),
            "router[0].home_address",
            '"192.0.2.5"',
            "inside home_agent.home_addresses (192.0.2.128/25)",
        ),
        (
            router(home_address="192.0.2.130"),
            "router[1].home_address",
            '"192.0.2.130"',
            "not used by router[0]",
        ),
        (router(name="B"), "router[1].name", '"B"', "not used by router[0]"),
        (router(prefixes=["10.1.0.0"]), "router[0].prefixes[0]", '"10.1.0.0"', "IPv4 prefixes"),
        (
            router(prefixes=["10.2.0.128/25"]),
            "router[1].prefixes[0]",
            '"10.2.0.0/24"',
            "not overlap router[0].prefixes[0] 10.2.0.128/25",
        ),
        (
            router(prefixes=["10.0.0.0/16"]),
            "router[0].prefixes[0]",
            '"10.0.0.0/16"',
            "not overlap home_agent.home_networks[0]",
        ),
        (
            router(prefixes=["192.0.2.128/26"]),
            "router[0].prefixes[0]",
            '"192.0.2.128/26"',
            "not overlap home_agent.home_addresses[0]",
        ),
        (
            router(prefixes=["192.0.2.0/28"]),
            "router[0].prefixes[0]",
            '"192.0.2.0/28"',
            "not contain home_agent.address 192.0.2.1",
        ),
        (router(prefixes=["0.0.0.0/0"]), "router[0].prefixes[0]", '"0.0.0.0/0"', "implicit = true"),
        (router(realm="a..b"), "router[0].realm", '"a..b"', "253 printable"),
        (router(realm="x" * 254), "router[0].realm", '"xxx', "253 printable"),
        (router(priority=-1), "router[0].priority", "-1", "from 0"),
        (router(implicit=1), "router[0].implicit", "1", "true or false"),
    ],
)
def test_a_wrong_value_names_file_key_value_and_what_is_allowed(change, key, value, allowed):
    """Issue, Bad input: unknown, missing, overlapping, out of range; R3.3.2-5."""
    found = problem(change)
    assert (found.file, found.key) == ("ha.toml", key)
    assert value in found.value
    assert allowed in found.allowed


@pytest.mark.parametrize(
    ("values", "key", "value", "allowed"),
    [
        ({"key": CANARY}, "router[0].key", "<secret, 18 characters>", "16 to 64"),
        ({"key": "zz" * 16}, "router[0].key", "<secret, 32 characters>", "hexadecimal"),
        ({"key": 5}, "router[0].key", "<secret>", "16 to 64"),
        ({"spi": 255}, "router[0].spi", "255", "from 256"),
        ({"spi": 1 << 32}, "router[0].spi", "4294967296", "to 4294967295"),
        ({"algorithm": "md5"}, "router[0].algorithm", '"md5"', "hmac-md5, hmac-sha1, hmac-sha256"),
        ({"algorithm": CANARY * 3}, "router[0].algorithm", "<secret, 54", "hmac-sha256"),
        ({"secret": CANARY}, "router[0].secret", "unknown key", "only algorithm, home_address"),
        ({"name": "Z"}, "router[0].name", '"Z"', "name or home_address of a [[router]]"),
        ({"home_address": "192.0.2.130"}, "router[0].home_address", "192.0.2.130", "192.0.2.129"),
    ],
)
def test_a_wrong_secret_is_refused_and_never_shown(values, key, value, allowed):
    """Issue: a short secret is refused; threats R13, P3: no key in any output."""
    found = problem(change_secrets=lambda s: s["router"][0].update(values))
    assert (found.file, found.key) == ("ha.secrets.toml", key)
    assert value in found.value and allowed in found.allowed
    assert CANARY not in str(found) and "zz" not in str(found)


def test_a_router_without_a_secret_and_a_spi_given_twice_are_refused():
    """Issue, Bad input."""
    found = problem(change_secrets=lambda s: s["router"].pop(1))
    assert 'router "B"' in found.allowed
    found = problem(change_secrets=lambda s: s["router"].append(s["router"][0]))
    assert (found.key, found.value) == ("router[3].spi", "256")
    found = problem(change_secrets=lambda s: s["router"][0].pop("name"))
    assert (found.key, found.allowed) == ("router[0]", "a name or a home_address")


def test_a_secret_may_be_given_by_home_address():
    """Contract of the secrets file: name or home_address, or both if they agree."""

    def by_address(address, **more):
        def change(secrets):
            del secrets["router"][0]["name"]
            secrets["router"][0].update(home_address=address, **more)

        return change

    assert build_config(change_secrets=by_address("192.0.2.129")).routers[HOA_A].associations
    both = by_address("192.0.2.129", name="A")
    assert build_config(change_secrets=both).routers[HOA_A].associations
    found = problem(change_secrets=by_address("192.0.2.200"))
    assert (found.key, found.value) == ("router[0].home_address", '"192.0.2.200"')


def test_all_faults_are_reported_at_once():
    """An operator fixes the file once."""

    def change(document):
        agent(keepalive=1, colour="x")(document)
        router(name="")(document)

    with pytest.raises(ConfigError) as caught:
        build_config(change)
    assert {p.key for p in caught.value.problems} == {
        "home_agent.keepalive",
        "home_agent.colour",
        "router[0].name",
    }


def test_two_keys_of_one_router_may_live_together():
    """Key rotation: both SPIs are accepted."""
    extra = {"name": "A", "spi": 300, "algorithm": "hmac-sha1", "key": "ab" * 20}
    found = build_config(change_secrets=lambda s: s["router"].append(extra))
    assert set(found.routers[HOA_A].associations) == {256, 300}
    assert found.routers[HOA_A].associations[256].key == KEY


def test_private_home_addresses_behind_a_public_home_agent_are_warned_about():
    """Issue: a warning when home addresses are private and the outside is not."""
    private = "10.99.0.0/24"

    def change(document):
        document["home_agent"]["home_addresses"].append(private)

    warnings = build_config(change).warnings
    assert len(warnings) == 1 and private in warnings[0] and "no direct path" in warnings[0]
    assert build_config().warnings == ()

    def both(document):
        change(document)
        document["home_agent"]["address"] = "172.16.0.1"

    assert build_config(both).warnings == ()


def test_a_secret_never_shows_itself():
    """Threats P3: repr and str of the whole configuration are clean."""
    found = build_config()
    for text in (repr(found), str(found), f"{found.routers[HOA_A].associations[256].key}"):
        assert KEY.hex() not in text and repr(KEY) not in text and "<secret>" in text
    assert Secret(KEY) == KEY


# --- files ----------------------------------------------------------------------------------------

MAIN = """
[home_agent]
address = "192.0.2.1"
state = "state.sqlite"
secrets = "ha.secrets.toml"
home_addresses = ["192.0.2.128/25"]
[[router]]
name = "A"
home_address = "192.0.2.129"
"""
SECRETS = f'[[router]]\nname = "A"\nspi = 256\nkey = "{KEY.hex()}"\n'


@pytest.fixture
def files(tmp_path):
    """A good pair of files."""
    (tmp_path / "ha.toml").write_text(MAIN)
    (tmp_path / "ha.secrets.toml").write_text(SECRETS)
    (tmp_path / "ha.secrets.toml").chmod(0o600)
    return tmp_path


def file_error(directory):
    """Return the text of the error of loading `directory`/ha.toml."""
    with pytest.raises(ConfigError) as caught:
        config.load(directory / "ha.toml")
    return str(caught.value)


def test_relative_paths_are_taken_from_the_files_directory(files):
    """Where one starts `haaro ha` does not matter."""
    found = config.load(files / "ha.toml")
    assert found.address == HA
    assert found.state == str(files / "state.sqlite")
    assert found.socket == "/run/haaro/ha.sock" == config.socket_of(files / "ha.toml")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_secrets_file_others_may_read_is_refused(files, mode):
    """Issue: mode other than 0600 is refused, with the mode found."""
    (files / "ha.secrets.toml").chmod(mode)
    text = file_error(files)
    assert str(files / "ha.secrets.toml") in text and f"{mode:04o}" in text and "0600" in text


def test_missing_and_broken_files_are_named(files):
    """Issue, Bad input; a broken secrets file is not quoted."""
    (files / "ha.secrets.toml").write_text(f'[[router]]\nkey = "{CANARY}\n')
    text = file_error(files)
    assert "ha.secrets.toml" in text and "valid TOML" in text and CANARY not in text
    os.unlink(files / "ha.secrets.toml")
    assert "No such file" in file_error(files)
    (files / "ha.toml").write_text("[home_agent\n")
    assert "ha.toml" in file_error(files) and "line 1" in file_error(files)
    os.unlink(files / "ha.toml")
    assert "No such file" in file_error(files)


@pytest.mark.parametrize("value", ['""', "5", "[]"])
def test_a_wrong_name_of_the_secrets_file_is_reported_not_opened(files, value):
    """Issue, Bad input."""
    text = MAIN.replace('"ha.secrets.toml"', value)
    (files / "ha.toml").write_text(text)
    assert f"home_agent.secrets: {value} is refused" in file_error(files)


def test_the_socket_can_be_asked_for_whatever_else_is_wrong(files):
    """A running home agent can be asked while its file is being edited."""
    for text, socket in (
        ("home_agent = 5", config.DEFAULT_SOCKET),
        ("[home_agent]\nsocket = 5", config.DEFAULT_SOCKET),
        ('[home_agent]\nsocket = "x.sock"\nnonsense = 1', str(files / "x.sock")),
    ):
        (files / "ha.toml").write_text(text)
        assert config.socket_of(files / "ha.toml") == socket


def test_a_default_route_is_taken_from_an_implicit_router_beside_all_other_prefixes():
    """R3.1.1-i4: an Internet gateway; it overlaps everything by nature, but only once."""
    gateway = {"prefixes": ["0.0.0.0/0", "10.3.0.0/24"], "implicit": True}
    found = build_config(router(2, **gateway))
    assert (bytes(4), 0) in [p for r in found.routers.values() for p in r.prefixes]

    def twice(document):
        for index in (1, 2):
            document["router"][index].update(prefixes=["0.0.0.0/0"], implicit=True)

    assert "not overlap router[1].prefixes[0]" in problem(twice).allowed


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (router(realm=""), router(realm=5)),
        (router(realm="a" * 127 + "." + "b" * 125), router(realm="a" * 127 + "." + "b" * 126)),
        (router(realm="a" * 127), router(realm="a" * 128)),
        (router(realm="a.b"), router(realm=".a")),
        (router(realm="a-b"), router(realm="a b")),
        (router(realm="a_b"), router(realm="a\tb")),
        (router(realm="e"), router(realm="\u00e9")),
        (router(name="n" * 64), router(name="n" * 65)),
        (router(name="n o"), router(name="n\no")),
        (router(name="5"), router(name=5)),
        (agent(interface="i" * 15), agent(interface="a/b")),
        (agent(interface="i"), agent(interface="")),
        (agent(interface="i0"), agent(interface="i 0")),
        (agent(interface="i1"), agent(interface=1)),
        (agent(socket="s" * 99), agent(socket="")),
        (agent(socket="s"), agent(socket=1)),
        (agent(keepalive=10), agent(keepalive=65536)),
        (agent(lifetime_max=65534), agent(lifetime_max=9)),
        (agent(mtu=608), agent(mtu=607)),
        (agent(replay_window=4), agent(replay_window=601)),
        (agent(rate=1, burst=1), agent(rate=0)),
        (agent(home_networks=[]), agent(home_networks=["10.0.0.0"])),
    ],
)
def test_the_bounds_of_a_value_are_where_they_are_said_to_be(good, bad):
    """Issue, Bad input: what is allowed is allowed, one step further is not."""
    assert build_config(good, _by_address)
    problem(bad)


def _by_address(secrets):
    for entry, number in zip(secrets["router"], (129, 130, 131), strict=True):
        del entry["name"]
        entry["home_address"] = f"192.0.2.{number}"


@pytest.mark.parametrize(("octets", "good"), [(15, False), (16, True), (64, True), (65, False)])
def test_the_length_of_a_key_is_bounded(octets, good):
    """RFC 5944 5.1, threats R13: at least 128 bits."""

    def change(secrets):
        secrets["router"][0]["key"] = "5a" * octets

    if good:
        assert build_config(change_secrets=change).routers[HOA_A].associations[256].key == (
            b"Z" * octets
        )
    else:
        assert problem(change_secrets=change).key == "router[0].key"
