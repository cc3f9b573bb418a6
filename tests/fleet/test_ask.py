"""The home agent is asked before a step that could lose a registration; here or by a command."""

import json
import socket
import stat
import threading

import pytest

from haaro_host.fleet import inventory, keys


class Agent:
    """Stands in for `haaro ha` behind `fleet.ask_home_agent`: a script that answers from files."""

    def __init__(self, shop):
        self.directory = shop.directory
        self.script = shop.directory / "ask"
        self.write(
            f'case "$1" in status) cat {self.directory}/status.json;; '
            f'*) echo "$@" >> {self.directory}/told; echo "router $2 is revoked";; esac'
        )
        shop.change('ask_home_agent = ""', f'ask_home_agent = "{self.script} "')
        self.says({})

    def write(self, program):
        self.script.write_text(f"#!/bin/sh\n{program}\n")
        self.script.chmod(stat.S_IRWXU)

    def says(self, known):
        """Its status: {site number: [(spi, fingerprint, last use), ...]}."""
        routers = [
            {
                "home_address": f"192.0.2.{number}",
                "keys": [
                    {"spi": spi, "fingerprint": mark, "last_used_s": used}
                    for spi, mark, used in rows
                ],
            }
            for number, rows in known.items()
        ]
        (self.directory / "status.json").write_text(json.dumps({"routers": routers}))

    @property
    def told(self):
        return (self.directory / "told").read_text().splitlines()


@pytest.fixture
def agent(shop):
    made = Agent(shop)
    shop.run("keys", "new")
    return made


def marks(shop, site="office-a"):
    shown = shop.json("keys", "show", site)["sites"][site]
    return {record["spi"]: record["fingerprint"] for record in shown}


def test_a_key_that_the_home_agent_does_not_have_is_not_activated(shop, agent):
    shop.run("keys", "stage", "office-a")
    mark = marks(shop)
    agent.says({129: [(256, mark[256], 3)]})
    assert "does not have SPI 257 yet" in shop.run("keys", "activate", "office-a", status=1)
    agent.says({129: [(256, mark[256], 3), (257, "00000000", None)]})
    assert "does not have SPI 257 yet" in shop.run("keys", "rotate", "office-a", status=1)
    agent.says({129: [(256, mark[256], 3), (257, mark[257], None)]})
    assert "SPI 257 is active" in shop.run("keys", "rotate", "office-a")


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [(3, None, True), (3, 9, True), (9, 3, False), (None, 3, False), (None, None, True)],
)
def test_a_key_is_not_retired_before_its_successor_was_used_last(shop, agent, old, new, refused):
    shop.run("keys", "stage", "office-a")
    shop.run("keys", "activate", "office-a", "--force")
    mark = marks(shop)
    agent.says({129: [(256, mark[256], old), (257, mark[257], new)]})
    said = shop.run("keys", "retire", "office-a", status=int(refused))
    assert ("has not registered with SPI 257" in said) is refused


def test_all_or_none_of_the_sites_take_a_step(shop, agent):
    shop.run("keys", "stage", "--all")
    mark = {number: marks(shop, site) for number, site in
            ((129, "office-a"), (130, "office-b"), (131, "office-c"))}  # fmt: skip
    agent.says({n: [(257, mark[n][257], None)] for n in (129, 130)})
    before = (shop.directory / "fleet.keys").read_bytes()
    assert "office-c: the home agent" in shop.run("keys", "activate", "--all", status=1)
    assert (shop.directory / "fleet.keys").read_bytes() == before


def test_show_tells_the_last_use(shop, agent):
    agent.says({129: [(256, marks(shop)[256], 7200)], 130: [(256, "ffffffff", 4)]})
    shown = shop.json("keys", "show")
    assert shown["home_agent"] == "asked"
    (a,), (b,) = shown["sites"]["office-a"], shown["sites"]["office-b"]
    assert (a["at_home_agent"], a["last_used_s"]) == (True, 7200)
    assert (b["at_home_agent"], b["last_used_s"]) == (False, None)
    text = shop.run("keys", "show")
    assert "2 h ago" in text
    assert "not at the home agent" in text


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("echo '{'", "is not a home agent's"),
        ("echo '[]'", "is not a home agent's"),
        ("echo no route to host >&2; exit 255", "status 255: no route to host"),
    ],
)
def test_an_answer_that_is_none_is_said_and_can_be_overruled(shop, agent, program, says):
    shop.run("keys", "stage", "office-a")
    agent.write(program)
    said = shop.run("keys", "activate", "office-a", status=1)
    assert says in said
    assert "--force goes on without asking" in said
    shop.run("keys", "activate", "office-a", "--force")


def test_a_command_that_is_not_there_is_an_error(shop, agent):
    shop.run("keys", "stage", "office-a")
    agent.script.unlink()
    said = shop.run("keys", "activate", "office-a", status=1)
    assert "fleet.ask_home_agent" in said


def test_revoke_tells_the_home_agent_first_and_finishes_the_rest(shop, agent):
    """P1: the box is barred before anybody types a passphrase."""
    said = shop.run("keys", "revoke", "office-b", "--reason", "stolen", status=1,
                    HAARO_PASSPHRASE="")  # fmt: skip
    assert agent.told == ["revoke office-b"]
    assert "then: haaro keys revoke office-b" in said
    assert inventory.load(shop.file).sites["office-b"].revoked
    shop.run("keys", "revoke", "office-b")
    assert agent.told == ["revoke office-b"] * 2
    shown = shop.json("keys", "show", "office-b")["sites"]["office-b"]
    assert [record["state"] for record in shown] == ["retired"]
    assert inventory.load(shop.file).sites["office-b"].table.revoked.endswith(" stolen")


def test_a_home_agent_that_is_out_of_reach_keeps_nothing_from_being_done(shop, agent):
    agent.write("exit 1")
    said = shop.run("keys", "revoke", "office-b", status=1)
    assert "on its machine: haaro ha revoke office-b" in said
    shop.run("keys", "new", status=0)
    shown = shop.json("keys", "show", "office-b")["sites"]["office-b"]
    assert [record["state"] for record in shown] == ["retired"]
    shop.run("fleet", "export", "ha")
    assert "office-b" not in (shop.directory / "ha" / "ha.toml").read_text()


def test_a_replacement_is_back_in_service_with_another_key(shop, agent):
    before = marks(shop)
    assert "is in service" in shop.run("keys", "new", "office-a", "--replacement", status=1)
    shop.change('realm = "office-a', 'unique_id = "a1b2c3d4"\nrealm = "office-a')
    shop.run("keys", "revoke", "office-a")
    assert "--replacement" in shop.run("keys", "new", "office-a", status=1)
    done = shop.json("keys", "new", "office-a", "--replacement")
    assert any("haaro ha allow office-a" in step for step in done["next"])
    fleet = inventory.load(shop.file)
    assert not fleet.sites["office-a"].revoked
    assert fleet.sites["office-a"].table.unique_id == ""
    after = shop.json("keys", "show", "office-a")["sites"]["office-a"]
    assert [(r["spi"], r["state"]) for r in after] == [(256, "retired"), (257, "active")]
    assert after[1]["fingerprint"] != before[256]


def test_the_local_home_agent_is_asked_by_its_socket(shop):
    """The words of its control socket, one line each."""
    heard = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(shop.directory / "ha.sock"))
    listener.listen()

    def serve():
        for answer in ({"router": "office-a", "registered": True}, {"error": "no router x"}):
            connection, _ = listener.accept()
            heard.append(connection.recv(1000))
            connection.sendall(json.dumps(answer).encode())
            connection.close()

    server = threading.Thread(target=serve)
    server.start()
    shop.run("keys", "new")
    said = shop.run("keys", "revoke", "office-a")
    assert "registered True" in said
    assert "refuses: no router x" in shop.run("keys", "revoke", "office-b", status=1)
    server.join(10)
    listener.close()
    assert heard == [b"revoke office-a\n", b"revoke office-b\n"]


def test_the_fingerprint_is_the_home_agents():
    from haaro_host.home_agent.status import fingerprint

    assert keys.fingerprint(bytes(32)) == fingerprint(bytes(32))


def test_the_command_is_not_told_the_passphrase(shop, agent):
    agent.write(f"env > {agent.directory}/environment; exit 1")
    shop.run("keys", "stage", "office-a")
    shop.run("keys", "activate", "office-a", status=1)
    environment = (agent.directory / "environment").read_text()
    assert "PATH=" in environment
    assert "HAARO_PASSPHRASE" not in environment
