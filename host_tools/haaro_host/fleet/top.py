"""What `haaro top` shows: the fleet file, the home agent's status and, where they can be asked, the
routers' own, as one JSON-able document. Draws nothing.
"""

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from haaro_host.fleet import ask, store
from haaro_host.fleet.files import FleetError
from haaro_host.fleet.inventory import Fleet, Site
from haaro_host.fleet.passphrase import VARIABLE
from haaro_host.provision.line import plain

SCHEMA = "haaro.top/1"
_ROUTER_S = 10
_SIDE_BY_SIDE = 16
_YEAR_S = 365 * 86400
_WEEK_S = 7 * 86400
_AWAY = ("not registered", "unknown")

Answer = dict[str, Any]


def look(fleet: Fleet, routers: Callable[[Site], Answer | None]) -> Answer:
    """Return the document. `routers(site)` is the last status of a router, None: not known."""
    home_agent, known = _home_agent(fleet)
    index = store.index(fleet)["sites"]
    sites = [
        _site(site, known, index.get(site.name, []), routers(site)) for site in fleet.sites.values()
    ]
    return {
        "schema": SCHEMA,
        "fleet": fleet.document.fleet.name,
        "time": datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z"),
        "home_agent": home_agent,
        "registered": sum(site["state"] == "up" for site in sites),
        "in_service": len(fleet.in_service),
        "sites": sites,
        "warnings": [*home_agent["warnings"], *fleet.warnings],
    }


def _home_agent(fleet: Fleet) -> tuple[Answer, dict[str, Answer] | None]:
    """Return (what is shown of it, its routers by home address, None when it cannot be asked)."""
    address = str(fleet.document.home_agent.address)
    try:
        status = ask.status(fleet)
    except FleetError as error:
        shown = {"address": address, "answers": False, "uptime_s": None, "plane": None}
        return {**shown, "warnings": [str(error)]}, None
    plane = status.get("data_plane") or {}
    shown = {
        "address": address,
        "answers": True,
        "uptime_s": status.get("uptime_s"),
        "plane": plane.get("plane"),
    }
    known = {router["home_address"]: router for router in status["routers"]}
    return {**shown, "warnings": list(status.get("warnings", []))}, known


def _site(
    site: Site, known: dict[str, Answer] | None, keys: list[Answer], router: Answer | None
) -> Answer:
    entry = (known or {}).get(site.home_address)
    binding = entry["binding"] if entry else None
    return {
        "name": site.name,
        "home_address": site.home_address,
        "state": _state(site, known, entry),
        "care_of_address": binding["care_of_address"] if binding else None,
        "nat": binding["nat"] if binding else None,
        "registered_s": binding.get("registered_s") if binding else None,
        "expires_in_s": binding["expires_in_s"] if binding else None,
        **_paths(router),
        "keys": [_key(key, entry) for key in keys if key["state"] != "retired"],
        "warnings": _warnings(site, known, entry, keys, router),
    }


def _state(site: Site, known: dict[str, Answer] | None, entry: Answer | None) -> str:
    if site.revoked:
        return "revoked"
    if known is None:
        return "unknown"
    return "up" if entry and entry["binding"] else "not registered"


def _paths(router: Answer | None) -> Answer:
    """What only the router itself knows. `off_home_agent_percent`: of its packets, either way."""
    if router is None:
        return {"uplink": None, "peers": None, "direct": None, "off_home_agent_percent": None}
    used = [uplink["name"] for uplink in router["uplinks"] if uplink["in_use"]]
    peers = router["peers"]
    counts = {t["id"]: t["rx_packets"] + t["tx_packets"] for t in router["data_plane"]["tunnels"]}
    total = sum(counts.values())
    return {
        "uplink": plain(used[0]) if used else None,
        "peers": len(peers),
        "direct": sum(peer["path"] == "direct" for peer in peers),
        "off_home_agent_percent": 100 * (total - counts.get(0, 0)) // total if total else None,
    }


def _key(key: Answer, entry: Answer | None) -> Answer:
    used = None
    for one in entry["keys"] if entry else []:
        if one["spi"] == key["spi"] and one["fingerprint"] == key["fingerprint"]:
            used = one["last_used_s"]
    shown = {name: key[name] for name in ("spi", "state", "fingerprint")}
    return {**shown, "age_s": age_s(key["created"]), "last_used_s": used}


def age_s(created: str) -> int:
    """Return the seconds since `created`, an ISO 8601 text; 0 for the future."""
    then = datetime.fromisoformat(created).timestamp()
    return max(0, int(datetime.now(UTC).timestamp() - then))


def span(seconds: int | None) -> str:
    """Return a duration for people: the largest unit of which there are two."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _warnings(
    site: Site,
    known: dict[str, Answer] | None,
    entry: Answer | None,
    keys: list[Answer],
    router: Answer | None,
) -> list[str]:
    found = []
    if site.revoked:
        if entry and not entry["revoked"]:
            found.append("revoked here, but not at the home agent: haaro ha reload")
        return found
    if known is not None and entry is None:
        found.append("the home agent does not know it: haaro fleet export ha")
    if entry and entry["revoked"]:
        found.append("barred at the home agent: haaro ha allow")
    live = [key for key in keys if key["state"] != "retired"]
    if not live:
        found.append("has no key: haaro keys new")
    for key in live:
        found += _key_warnings(site, key, entry)
    if entry and not entry["binding"] and not entry["revoked"]:
        used = [key["last_used_s"] for key in entry["keys"] if key["last_used_s"] is not None]
        seen = f"last heard {span(min(used))} ago" if used else "never heard since its start"
        found.append(f"not registered, {seen}")
    if router:
        found += [f"router: {plain(line)}" for line in router.get("warnings", [])]
        if router["state"] == "degraded":
            found.append("router: a direct path is out, its traffic goes by the home agent")
    return found


def _key_warnings(site: Site, key: Answer, entry: Answer | None) -> list[str]:
    age = age_s(key["created"])
    at_agent = [one["fingerprint"] for one in entry["keys"]] if entry else []
    found = []
    if entry and key["fingerprint"] not in at_agent:
        found.append(f"SPI {key['spi']} is not at the home agent: haaro fleet export ha")
    if key["state"] == "active" and age > _YEAR_S:
        found.append(f"key is {span(age)} old: haaro keys rotate {site.name}")
    if key["state"] != "active" and age > _WEEK_S:
        found.append(f"rotation under way for {span(age)}: haaro keys rotate {site.name}")
    return found


# --- the routers' own words ---------------------------------------------------------------------


def ask_router(fleet: Fleet, site: Site) -> Answer | None:
    """Return the status of a site's router by fleet.ask_router; None when it does not answer."""
    template = fleet.document.fleet.ask_router
    if not template or site.revoked:
        return None
    filled = template.replace("{site}", site.name).replace("{home_address}", site.home_address)
    try:
        # Its exit status is the router's state; only the answer counts here.
        done = subprocess.run(
            shlex.split(filled),
            stdin=subprocess.DEVNULL,
            env={key: value for key, value in os.environ.items() if key != VARIABLE},
            capture_output=True,
            timeout=_ROUTER_S,
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return answer if _is_status(answer) else None


def _is_status(answer: Any) -> bool:
    named = isinstance(answer, dict) and answer.get("schema") == "haaro.router.status/1"
    return named and {"uplinks", "peers", "data_plane", "state"} <= set(answer)


def ask_routers(fleet: Fleet) -> dict[str, Answer | None]:
    """Ask the routers of all sites in service side by side; {site: status or None}."""
    if not fleet.document.fleet.ask_router:
        return {}
    sites = fleet.in_service
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        answers = pool.map(lambda site: ask_router(fleet, site), sites)
        return {site.name: answer for site, answer in zip(sites, answers, strict=True)}


def troubled(site: Answer) -> bool:
    """Return whether somebody should look at this site."""
    return site["state"] in _AWAY or bool(site["warnings"])
