"""`haaro advertise plan`: what it shows is what the home agent sends."""

import json

import pytest
from typer.testing import CliRunner

from haaro.wire.extensions import PrefixAdvertisement
from haaro.wire.ipv4 import address
from haaro_host import advertise_cli
from tests.host.home_agent_helpers import COA_A, KEY, World, build_config, parse_reply

HEAD = """
[home_agent]
address = "192.0.2.1"
state = "ha.sqlite"
secrets = "not-there.toml"
home_addresses = ["172.16.0.0/16"]
advertisement_octets = 1200
"""


def routers(count):
    """Return [[router]] tables: two networks each, priorities in tens."""
    return [
        {
            "name": f"R{n}",
            "home_address": f"172.16.{n // 256}.{n % 256}",
            "prefixes": [f"10.{n % 3}.{n}.0/25", f"10.{n % 3}.{n}.128/26"],
            "realm": f"site{n}.org{n % 3}.example",
            "priority": n // 40,
            "implicit": True,
        }
        for n in range(count)
    ]


@pytest.fixture
def file(tmp_path):
    """Return a function that writes ha.toml with so many routers."""

    def write(count):
        path = tmp_path / "ha.toml"
        lines = [HEAD]
        for router in routers(count):
            lines.append("[[router]]")
            for name, value in router.items():
                lines.append(f"{name} = {json.dumps(value)}")
        path.write_text("\n".join(lines))
        return str(path)

    return write


def run(*arguments):
    return CliRunner().invoke(advertise_cli.app, ["plan", *arguments])


def result(*arguments):
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_the_octets_of_every_structure_add_up(file):
    """R4.1-i4, R5.5-i1: nothing is cut when it fits, priorities are kept."""
    found = result(file(20))
    assert found["schema"] == "haaro.advertise.plan/1"
    octets = [r["octets"] + sum(n["octets"] for n in r["networks"]) for r in found["routers"]]
    assert sum(octets) == found["data"] == found["whole"] <= found["as_given"]
    assert (found["networks"], found["networks_sent"], found["routers_sent"]) == (40, 40, 20)
    assert all(n["sent"] for r in found["routers"] for n in r["networks"])
    priorities = [r["priority"] for r in found["routers"]]
    assert priorities == sorted(priorities)
    assert found["routers"][0]["networks"][0]["master"]


@pytest.mark.parametrize("octets", [150, 400, 1200])
def test_what_is_cut_is_told(file, octets):
    """R7-i2, R3.1.1-3 [A53]."""
    found = result(file(120), "--octets", str(octets))
    sent = [n for r in found["routers"] for n in r["networks"] if n["sent"]]
    cut = [n for r in found["routers"] for n in r["networks"] if not n["sent"]]
    assert len(sent) == found["networks_sent"] and len(sent) + len(cut) == 240
    used = sum(n["octets"] for n in sent) + 5 * sum(r["sent"] for r in found["routers"])
    assert used == found["data"] and found["data"] + found["around"] <= octets
    priorities = [r["priority"] for r in found["routers"]]
    assert priorities == sorted(priorities)
    assert found["whole"] <= found["as_given"]
    shown = run(file(120), "--octets", str(octets)).output
    assert f"WARNING: {len(sent)} of 240 networks fit" in shown
    assert sum(line.endswith("  cut") for line in shown.splitlines()) >= len(cut)


def test_the_table_has_a_line_for_each_structure(file):
    shown = run(file(3)).output
    lines = shown.splitlines()
    assert lines[0].split() == [
        *("ROUTER", "HOME", "ADDRESS", "PRIORITY", "NETWORK", "REALM", "FORM", "OCTETS", "TOTAL")
    ]
    assert len(lines) == 1 + 3 + 6 + 1 + 3
    assert lines[-1] == "everything fits"


def test_the_home_agent_sends_what_the_plan_shows(file):
    """R3.1.1-2, R3.1.1-3: with all others registered, for one that is not listed itself."""
    planned = result(file(30), "--octets", "1200")
    tables = routers(30) + [{"name": "asks", "home_address": "172.16.9.9"}]

    def change(document):
        document["home_agent"].update(home_addresses=["172.16.0.0/16"], home_networks=[])
        document["router"] = tables

    def change_secrets(secrets):
        key = {"spi": 256, "algorithm": "hmac-sha256", "key": KEY.hex()}
        secrets["router"] = [{"name": table["name"], **key} for table in tables]

    world = World(config=build_config(change, change_secrets))
    for n in range(30):
        hoa, coa = address(f"172.16.0.{n}"), address(f"198.51.100.{n + 1}")
        assert world.register(hoa=hoa, coa=coa, capability={"request": False}).code == 0
    data = world.request(hoa=address("172.16.9.9"), coa=COA_A, capability={})
    reply = parse_reply(world.send(data)[0].payload)
    extension = reply.find(PrefixAdvertisement)
    assert len(extension.data) == planned["data"]
    assert [r[0] for r in extension.routers()] == [
        address(r["home_address"]) for r in planned["routers"]
    ]


def test_a_wrong_file_is_refused_with_its_faults(tmp_path):
    path = tmp_path / "ha.toml"
    path.write_text(HEAD + '[[router]]\nname = "A"\nhome_address = "198.51.100.1"\n')
    done = run(str(path))
    assert done.exit_code == 2 and "router[0].home_address" in done.output
    done = run(str(tmp_path / "none.toml"))
    assert done.exit_code == 2 and "none.toml" in done.output


def test_no_routers_are_no_advertisement(file):
    found = result(file(0))
    assert (found["data"], found["networks"], found["routers"]) == (0, 0, [])
    assert run(file(0)).output.splitlines()[-1] == "everything fits"
