"""A scenario's TOML file: its tables, what each key may be, and how a wrong one is reported."""

from __future__ import annotations

import tomllib
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from haaro.core.settings import Settings

EVENTS = {
    "down": "the link of an uplink goes down, the router sees it",
    "up": "it comes up again, with another address if one is given",
    "move": "an uplink has another address from one moment to the next, the router sees it",
    "dead": "what goes to or from an uplink's address is lost, the router does not see it",
    "alive": "no longer",
    "cut": "what goes between two routers' uplinks is lost; with one_way only that way",
    "mend": "no longer, for every cut",
    "crash": "a router, or HA, loses power",
    "boot": "it starts; a router's clock may be clock_s wrong, HA may have lost its disk",
    "stop": "a router deregisters",
    "drain": "the operator wants a router to leave an uplink",
    "undrain": "no longer",
    "nat_reboot": "a NAT forgets its mappings, with another public address if one is given",
    "clock": "HA's system clock is set by clock_s",
}
_SETTINGS = {name for name in vars(Settings()) if name not in ("key", "algorithm", "spi")}


class ScenarioError(Exception):
    """The file cannot be used; the text names the file, the key and what is allowed."""


def _address(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return IPv4Address(value).packed
        except AddressValueError:
            pass
    raise ValueError("must be an IPv4 address in quotes")


def _network(value: Any) -> tuple[bytes, int]:
    if isinstance(value, str) and "/" in value:
        try:
            found = IPv4Network(value)
        except ValueError:
            pass
        else:
            return found.network_address.packed, found.prefixlen
    raise ValueError("must be an IPv4 prefix without host bits in quotes")


def _settings(value: Any) -> Any:
    for key in value if isinstance(value, dict) else ():
        if key not in _SETTINGS:
            raise ValueError(f"unknown setting {key}; known: {', '.join(sorted(_SETTINGS))}")
    return value


Address = Annotated[bytes, BeforeValidator(_address)]
Network = Annotated[tuple[bytes, int], BeforeValidator(_network)]
Options = Annotated[dict[str, Any], BeforeValidator(_settings)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LinkTable(_Table):
    """What a link does to a datagram, each way."""

    delay_ms: int = Field(default=0, ge=0, le=60_000)
    jitter_ms: int = Field(default=0, ge=0, le=60_000)
    loss: Probability = 0
    duplicate: Probability = 0
    corrupt: Probability = 0


class UplinkTable(LinkTable):
    """An uplink of a router: where it is plugged in, and its own link."""

    address: Address | None = None
    nat: str | None = None
    up: bool = True


class RouterTable(_Table):
    """A router, or `count` of them with a number after the name."""

    name: str = Field(min_length=1, max_length=32)
    count: int = Field(default=1, ge=1, le=20_000)
    home_address: Address | None = None
    networks: list[Network] = []
    uplinks: list[UplinkTable] = []
    start_s: float = Field(default=0, ge=0)
    spread_s: float = Field(
        default=0, ge=0
    )  # the start of each of `count` is drawn from so many seconds
    clock_s: float = 0  # how wrong its clock is at the start
    without_clock: bool = False
    settings: Options = {}


class NatTable(_Table):
    """A NAT box."""

    name: str
    address: Address
    kind: Literal["endpoint-independent", "address-dependent", "symmetric"]
    timeout_s: float = Field(default=120, gt=0)
    link: LinkTable = LinkTable()


class TrafficTable(_Table):
    """Probes from a host to another: of routers, of `home`, or of drawn peers."""

    source: str = Field(alias="from")
    to: str | None = None
    peers: int = Field(default=0, ge=0)  # with from = "*": each router sends to so many others
    among: int | None = Field(default=None, ge=2)  # of the first so many
    start_s: float = Field(default=0, ge=0)
    stop_s: float | None = None
    on_s: float | None = None  # sends for so long ...
    each_s: float | None = None  # ... in so long, at a drawn time
    every_ms: int = Field(default=100, ge=1)
    both: bool = True


class EventTable(_Table):
    """Something that happens."""

    at_s: float = Field(ge=0)
    do: str
    router: str | None = None
    other: str | None = None
    nat: str | None = None
    uplink: int = 0
    address: Address | None = None
    one_way: bool = False
    lost_disk: bool = False
    clock_s: float = 0


class ExpectTable(_Table):
    """What must hold; else the command ends with status 1."""

    direct: list[tuple[str, str]] = []  # pairs that are direct both ways at the end
    by_home_agent: list[tuple[str, str]] = []  # and pairs that are not
    registered: bool = True
    outage_s: float | None = None  # the longest, of all traffic
    direct_within_s: float | None = None  # from the first packet to the direct path, all pairs
    off_home_agent: float | None = None  # least share of traffic


class Scenario(_Table):
    """The file."""

    about: str
    seconds: float = Field(gt=0)
    internet: LinkTable = LinkTable(delay_ms=20)
    home_agent: dict[str, Any] = {}
    disk: bool = False
    settings: Options = {}
    router: list[RouterTable] = Field(min_length=1)
    nat: list[NatTable] = []
    traffic: list[TrafficTable] = []
    event: list[EventTable] = []
    expect: ExpectTable = ExpectTable()


def load(path: Path) -> Scenario:
    """Read and check a scenario. Raises ScenarioError with every fault found, one a line."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: is not valid TOML: {error}") from None
    try:
        scenario = Scenario.model_validate(document)
    except ValidationError as error:
        raise ScenarioError("\n".join(_faults(path, error))) from None
    problems = list(_names(scenario))
    if problems:
        raise ScenarioError("\n".join(f"{path}: {problem}" for problem in problems))
    return scenario


def _faults(path: Path, error: ValidationError) -> list[str]:
    return [
        f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        for fault in error.errors(include_url=False)
    ]


def router_names(scenario: Scenario) -> list[str]:
    """Return the names of all routers, those of `count` with their numbers."""
    names = []
    for table in scenario.router:
        if table.count == 1:
            names.append(table.name)
        else:
            names += [f"{table.name}{number}" for number in range(1, table.count + 1)]
    return names


def _names(scenario: Scenario) -> list[str]:
    """Find what is named and not there, and what does not go together."""
    names = router_names(scenario)
    nats = {nat.name for nat in scenario.nat}
    hosts = {*names, "home"}
    problems = []
    if len(names) != len(set(names)) or "HA" in names or "home" in names:
        problems.append("router: names must differ, and not be HA or home")
    for table in scenario.router:
        if table.count > 1 and (table.home_address or table.networks or table.uplinks):
            problems.append(f"router {table.name}: with count, addresses are given by number")
        problems += [
            f"router {table.name}: no nat {uplink.nat}"
            for uplink in table.uplinks
            if uplink.nat is not None and uplink.nat not in nats
        ]
        problems += [
            f"router {table.name}: the link of an uplink behind a NAT is given at that nat"
            for uplink in table.uplinks
            if uplink.nat is not None and set(LinkTable.model_fields) & uplink.model_fields_set
        ]
    for traffic in scenario.traffic:
        if traffic.source == "*":
            if traffic.to is not None or not traffic.peers:
                problems.append('traffic: from = "*" goes with peers, and not with to')
        elif traffic.source not in hosts or traffic.to not in hosts:
            problems.append(f"traffic: from {traffic.source} to {traffic.to}: no such router")
    for event in scenario.event:
        if event.do not in EVENTS:
            problems.append(f"event: do = {event.do!r}; known: {', '.join(EVENTS)}")
        for name, known in ((event.router, {*names, "HA"}), (event.other, set(names))):
            if name is not None and name not in known:
                problems.append(f"event at {event.at_s:g} s: no router {name}")
        if event.nat is not None and event.nat not in nats:
            problems.append(f"event at {event.at_s:g} s: no nat {event.nat}")
        wanted = {"nat_reboot": ("nat",), "cut": ("router", "other"), "mend": (), "clock": ()}
        problems += [
            f"event at {event.at_s:g} s: {event.do} needs {key}"
            for key in wanted.get(event.do, ("router",))
            if getattr(event, key) is None
        ]
    for one, other in scenario.expect.direct + scenario.expect.by_home_agent:
        if one not in names or other not in names:
            problems.append(f"expect: no such routers {one}, {other}")
    return problems
