"""Two keys of one router live at once at the home agent, and what its status tells of each."""

from tests.host.home_agent_helpers import COA_A, World, build_config, parse_reply

NEW = bytes(range(0x60, 0x80))


def both(secrets):
    secrets["router"].insert(
        0, {"name": "A", "spi": 257, "algorithm": "hmac-sha1", "key": NEW.hex()}
    )


def register_with_new_key(world):
    (sent,) = world.send(world.request(spi=257, algorithm="hmac-sha1", key=NEW))
    return parse_reply(sent.payload, NEW, "hmac-sha1")


def keys(world):
    (router,) = [r for r in world.ha.status(world.now)["routers"] if r["name"] == "A"]
    return {key["spi"]: key["last_used_s"] for key in router["keys"]}


def test_requests_under_either_live_key_are_accepted_and_answered_under_the_same():
    """Rotation: RFC 5944 1.6, an association is picked by its SPI."""
    world = World(config=build_config(None, both))
    old = world.register(capability={})
    world.advance(2)
    new = register_with_new_key(world)
    assert (old.code, new.code) == (0, 0)
    assert (old.authenticator.spi, new.authenticator.spi) == (256, 257)


def test_status_tells_when_each_key_was_last_used():
    world = World(config=build_config(None, both))
    assert keys(world) == {257: None, 256: None}
    world.register()
    world.advance(40)
    assert keys(world) == {257: None, 256: 40}
    register_with_new_key(world)
    assert keys(world) == {257: 0, 256: 40}


def test_a_forged_or_replayed_request_is_no_use_of_the_key():
    world = World(config=build_config(None, both))
    assert world.send(world.request(spi=257, algorithm="hmac-sha1", key=bytes(32))) == []
    request = world.request()
    world.send(request)
    world.advance(30)
    world.send(request)
    assert keys(world) == {257: None, 256: 30}


def test_keys_come_and_go_by_reload_while_the_binding_stays():
    world = World()
    world.register()
    binding = world.ha.binding_by_tunnel_end(COA_A, 434)
    assert binding is not None
    world.ha.reconfigure(world.now, build_config(None, both))
    world.advance(1)
    assert register_with_new_key(world).code == 0

    def new_only(secrets):
        both(secrets)
        secrets["router"] = [s for s in secrets["router"] if (s["name"], s["spi"]) != ("A", 256)]

    world.ha.reconfigure(world.now, build_config(None, new_only))
    assert world.ha.binding_by_tunnel_end(COA_A, 434) is binding
    assert world.send(world.request()) == []
    assert world.ha.counters["unknown_spi"] == 1
    assert keys(world) == {257: 0}
