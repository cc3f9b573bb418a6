"""Waits until a flashed box has registered, as the home agent sees it."""

import time

from haaro_host.flash.errors import FlashError
from haaro_host.fleet import ask
from haaro_host.fleet.files import FleetError
from haaro_host.fleet.inventory import Fleet, Site

_STEP_S = 1.0


def wait(fleet: Fleet, site: Site, since: float, patience_s: float) -> str:
    """Return the care-of address that `site` registered with after `since` (time.monotonic).

    Raises FlashError when that did not happen within `patience_s`, or nobody can be asked.
    """
    said = "the home agent has not seen it"
    give_up = since + patience_s
    while True:
        try:
            found = _care_of_address(fleet, site, time.monotonic() - since)
        except FleetError as error:
            found, said = "", str(error)
        if found:
            return found
        if time.monotonic() >= give_up:
            raise FlashError(
                f"{site.name} is flashed, but was not seen to register within {patience_s:g} s:"
                f" {said}. Look at its uplink's cable, at what it prints (115200 baud), and at"
                " `haaro ha status`; it goes on trying"
            )
        time.sleep(_STEP_S)


def _care_of_address(fleet: Fleet, site: Site, elapsed_s: float) -> str:
    status = ask.status(fleet)
    for router in status["routers"]:
        if router["home_address"] != site.home_address:
            continue
        # A binding of the box's earlier life may still stand: a key must have been used since.
        # last_used_s is rounded down.
        used = [key["last_used_s"] for key in router["keys"] if key["last_used_s"] is not None]
        if router["binding"] and any(seconds <= elapsed_s - 1 for seconds in used):
            return str(router["binding"]["care_of_address"])
        return ""
    raise FlashError(
        f"the home agent does not know {site.home_address}: give it its files"
        " (haaro fleet export ha)"
    )
