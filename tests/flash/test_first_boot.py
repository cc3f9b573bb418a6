"""Waiting for the registration: what counts as up, and what is said when nothing comes."""

import sys
import time

import pytest

from haaro_host.flash import first_boot
from haaro_host.flash.errors import FlashError
from haaro_host.fleet import inventory

_ANSWER = """import json, time
print(json.dumps({"schema": "haaro.ha.status/1", "routers": [{"home_address": "192.0.2.129",
 "keys": [{"last_used_s": %s}], "binding": %s}]}))
"""


@pytest.fixture
def asked(shop):
    """Have the home agent answer by a program: last use of the site's key, its binding."""

    def given(last_used_s="None", binding='{"care_of_address": "198.51.100.7"}', text=None):
        program = shop.directory / "ask.py"
        program.write_text(text or _ANSWER % (last_used_s, binding))
        if "ask.py" not in shop.file.read_text():
            shop.change('ask_home_agent = ""', f'ask_home_agent = "{sys.executable} {program}"')
        fleet = inventory.load(shop.file)
        return fleet, fleet.site("office-a")

    return given


def test_a_registration_after_the_start_is_up(asked):
    fleet, site = asked(last_used_s="0")
    assert first_boot.wait(fleet, site, time.monotonic() - 5, 0) == "198.51.100.7"


@pytest.mark.parametrize(
    ("last_used_s", "binding"),
    [("9", '{"care_of_address": "198.51.100.7"}'), ("None", "None"), ("0", "None")],
    ids=["of an earlier life", "never", "ended again"],
)
def test_a_binding_of_the_boxs_earlier_life_is_not_up(asked, last_used_s, binding):
    fleet, site = asked(last_used_s, binding)
    with pytest.raises(FlashError, match="was not seen to register within 3 s") as caught:
        first_boot.wait(fleet, site, time.monotonic() - 5, 3)
    assert "it goes on trying" in str(caught.value)


def test_a_home_agent_that_does_not_know_the_site_is_named(asked):
    text = 'print(\'{"schema": "haaro.ha.status/1", "routers": []}\')\n'
    fleet, site = asked(text=text)
    with pytest.raises(FlashError, match=r"does not know 192\.0\.2\.129.*haaro fleet export ha"):
        first_boot.wait(fleet, site, time.monotonic() - 5, 0)


def test_nobody_to_ask_is_said(shop):
    fleet = inventory.load(shop.file)
    with pytest.raises(FlashError, match="ask_home_agent"):
        first_boot.wait(fleet, fleet.site("office-a"), time.monotonic(), 0)


def test_it_waits_until_the_box_comes(asked, shop):
    """The first answer has no binding, the second one has."""
    mark = shop.directory / "asked"
    text = f"""import json, pathlib
mark = pathlib.Path({str(mark)!r})
there = mark.exists()
mark.touch()
binding = {{"care_of_address": "203.0.113.9"}} if there else None
print(json.dumps({{"schema": "haaro.ha.status/1", "routers": [{{"home_address": "192.0.2.129",
    "keys": [{{"last_used_s": 0 if there else None}}], "binding": binding}}]}}))
"""
    fleet, site = asked(text=text)
    assert first_boot.wait(fleet, site, time.monotonic() - 2, 30) == "203.0.113.9"
