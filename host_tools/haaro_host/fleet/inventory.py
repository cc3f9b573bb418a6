"""The noun of `haaro fleet`: fleet.toml read, judged as a whole, changed with its comments kept.

Owns the rules between sites and the edits. Never reads a key. The tables of single values are
schema's; the home agent's and the router's own rules are asked of their own loaders.
"""

import json
import re
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import tomlkit

from haaro.shell import config as router_config
from haaro_host.flash import boards
from haaro_host.fleet.files import PUBLIC, FleetError, FleetFileError, write_whole
from haaro_host.fleet.schema import FleetDocument, SiteTable, is_site_name, parse
from haaro_host.fleet.template import TEMPLATE
from haaro_host.home_agent import config as home_agent_config
from haaro_host.home_agent.config_file import Problem, shown

# What fleet.toml says elsewhere, once.
_DERIVED = (
    "version", "name", "home_address", "home_agent", "networks", "realm", "explicit", "secrets",
)  # fmt: skip
_OWN_ROUTER_KEYS = "keys of router.json that the site's own table does not give already"
MAX_PEERS = 64  # rows of router.secrets.json


class InventoryError(FleetFileError):
    """fleet.toml is refused; `.problems` lists every fault, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep `problems` and print them one a line."""
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class Site:
    """One site with the defaults laid under it. Its `router` is what router.json gets beside the
    derived keys.
    """

    name: str
    table: SiteTable
    board: str
    peers: str | list[str]
    router: dict[str, Any]

    @property
    def home_address(self) -> str:
        """The home address as text."""
        return str(self.table.home_address)

    @property
    def revoked(self) -> bool:
        """Whether the site is out of service."""
        return bool(self.table.revoked)

    def wants(self, other: str) -> bool:
        """Return whether this site would share a key with site `other`."""
        return self.peers == "all" or (self.peers != "none" and other in self.peers)


@dataclass(frozen=True)
class Fleet:
    """A fleet.toml that passed every check. `sites` is in the order of the names."""

    path: Path
    document: FleetDocument
    sites: dict[str, Site]
    warnings: tuple[str, ...] = field(default=())

    @property
    def directory(self) -> Path:
        """Where fleet.toml and the key store are."""
        return self.path.resolve().parent

    @property
    def store_path(self) -> Path:
        """The key store's file."""
        return self.directory / self.document.keys.store

    @property
    def in_service(self) -> list[Site]:
        """The sites that are not revoked."""
        return [site for site in self.sites.values() if not site.revoked]

    def site(self, name: str) -> Site:
        """Return the site `name`; raise FleetError that names those there are."""
        if name not in self.sites:
            known = ", ".join(self.sites) or "none yet; `haaro fleet add NAME` makes one"
            raise FleetError(f"{self.path}: no site {shown(name)}; sites: {known}")
        return self.sites[name]

    def pairs_of(self, site: Site) -> list[Site]:
        """Return the sites in service that `site` shares a key with: both must want it."""
        return [
            other
            for other in self.in_service
            if other.name != site.name and site.wants(other.name) and other.wants(site.name)
        ]


# --- reading ------------------------------------------------------------------------------------


def load(path: Path) -> Fleet:
    """Read and judge fleet.toml at `path` as a whole. Raises FleetFileError."""
    return judge(path, read(path))


def read(path: Path) -> str:
    """Return the text of fleet.toml. Raises FleetFileError."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise FleetFileError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise FleetFileError(
            f"{path}: {error.strerror}; name the fleet with --fleet or HAARO_FLEET, or make one"
            " with `haaro fleet init`"
        ) from None


def judge(path: Path, text: str) -> Fleet:
    """Return the Fleet that `text` describes, or raise InventoryError with every fault."""
    name = str(path)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InventoryError([_syntax(name, str(error))]) from None
    problems: list[Problem] = []
    document = parse(raw, name, problems)
    if document is None:
        raise InventoryError(problems)
    sites = {}
    for site in sorted(document.site, key=natural):
        table = document.site[site]
        sites[site] = Site(
            site,
            table,
            table.board or document.defaults.board,
            document.defaults.peers if table.peers is None else table.peers,
            _laid_over(document.defaults.router, table.router),
        )
    fleet = Fleet(path, document, sites)
    problems += _between_sites(fleet, name)
    problems += _home_agent_problems(fleet, name)
    if not problems:
        problems += _router_problems(fleet, name)
    if problems:
        raise InventoryError(problems)
    return Fleet(path, document, sites, tuple(_warnings(fleet)))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return the key that sorts office-2 before office-10, and never compares digits with text."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts]


def _syntax(file: str, error: str) -> Problem:
    twice = re.search(r"Cannot declare \('site', '([^']*)'\) twice(.*)", error)
    if twice:
        return Problem(
            file, f"site.{twice[1]}", f"this second table{twice[2]}", "each site once: rename one"
        )
    return Problem(file, "", f"the file ({error})", "valid TOML")


def _laid_over(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `over` with what only `under` has, tables key by key, everything else as a whole."""
    result = dict(under)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = _laid_over(old, value) if both else value  # type: ignore[arg-type]
    return result


# --- rules between values -----------------------------------------------------------------------


def _between_sites(fleet: Fleet, file: str) -> Iterator[Problem]:
    plan = fleet.document.plan.prefixes
    folded: dict[str, str] = {}
    boards: dict[str, str] = {}
    addresses: dict[IPv4Address, str] = {}
    for name, site in fleet.sites.items():
        at = f"site.{name}"
        other = folded.setdefault(name.lower(), name)
        if other != name:
            text = f"a name that differs from site {other} in more than capitals"
            yield Problem(file, at, shown(name), text)
        # The home agent's rules see the sites in service only; a revoked one keeps its address.
        table = site.table
        first = addresses.setdefault(table.home_address, name)
        if first != name and (site.revoked or fleet.sites[first].revoked):
            text = f"an address not used by site.{first}"
            yield Problem(file, f"{at}.home_address", shown(site.home_address), text)
        unique_id = table.unique_id
        if unique_id and boards.setdefault(unique_id, name) != name:
            text = f"an id other than that of site.{boards[unique_id]}: one board is one site"
            yield Problem(file, f"{at}.unique_id", shown(unique_id), text)
        for number, net in enumerate(table.prefixes):
            if plan and not any(net.subnet_of(whole) for whole in plan):
                text = f"a prefix inside plan.prefixes ({', '.join(map(str, plan))})"
                yield Problem(file, f"{at}.prefixes[{number}]", shown(str(net)), text)
        for peer in site.peers if isinstance(site.peers, list) else []:
            if peer not in fleet.sites or peer == name:
                text = "names of other sites of this file"
                yield Problem(file, f"{at}.peers", shown(peer), text)
        if not site.revoked and len(fleet.pairs_of(site)) > MAX_PEERS:
            value = f"{len(fleet.pairs_of(site))} sites"
            text = f'at most {MAX_PEERS}: a list of names, or "none"'
            yield Problem(file, f"{at}.peers", value, text)
        for where, given in (("defaults.router", fleet.document.defaults.router),
                             (f"{at}.router", table.router)):  # fmt: skip
            for key in _DERIVED:
                if key in given:
                    yield Problem(file, f"{where}.{key}", shown(given[key]), _OWN_ROUTER_KEYS)


def _home_agent_problems(fleet: Fleet, file: str) -> Iterator[Problem]:
    agent = fleet.document.home_agent
    if not agent.socket.startswith("/"):
        yield Problem(file, "home_agent.socket", shown(agent.socket), "a path that begins with /")
    document = home_agent_document(fleet)
    keys = [
        {"name": site.name, "spi": 256, "algorithm": "hmac-sha256", "key": "00" * 32}
        for site in fleet.in_service
    ]
    try:
        home_agent_config.build(document, {"router": keys})
    except home_agent_config.ConfigError as error:
        names = [site.name for site in fleet.in_service]

        def named(text: str) -> str:
            return re.sub(r"router\[(\d+)\]", lambda m: f"site.{names[int(m[1])]}", text)

        for one in error.problems:
            yield Problem(file, named(one.key), one.value, named(one.allowed))


def _router_problems(fleet: Fleet, file: str) -> Iterator[Problem]:
    with tempfile.TemporaryDirectory(prefix="haaro-check-") as folder:
        path = Path(folder) / "router.json"
        secrets = Path(folder) / "router.secrets.json"
        secrets.touch(0o600)
        pins = Path(folder) / "pins.csv"
        association = {"spi": 256, "algorithm": "hmac-sha256", "key": "00" * 32}
        for site in fleet.in_service:
            # Whether the store has the passwords is export's question.
            wifi = [{"ssid": ssid, "password": "0" * 64} for ssid in sorted(_secured(site))]
            document = {"version": 1, "mobile_home": [association], "wifi": wifi}
            secrets.write_text(json.dumps(document))
            router = router_document(fleet, site)
            if isinstance(router.get("update"), dict):
                # The store's; export puts them there.
                router["update"] = {"keys": ["00" * 32], **router["update"]}
            path.write_text(json.dumps(router, default=str))
            # As on the box: which chips there are.
            pins.write_bytes(boards.pins(site.board))
            try:
                router_config.load(str(path))
            except router_config.ConfigError as error:
                key, _, rest = str(error).removeprefix(f"{path}: ").partition(": ")
                value, _, allowed = rest.partition(": ")
                allowed = allowed.removeprefix("allowed here: ")
                yield Problem(file, f"site.{site.name}.router.{key}", value, allowed)


def _secured(site: Site) -> set[str]:
    """Return the Wi-Fi networks of the site that have a password, if well written."""
    found = set()
    uplinks = site.router.get("uplinks")
    for uplink in uplinks if isinstance(uplinks, list) else []:
        networks = uplink.get("networks") if isinstance(uplink, dict) else None
        for row in networks if isinstance(networks, list) else []:
            ssid = row.get("ssid") if isinstance(row, dict) and not row.get("open") else None
            if isinstance(ssid, str) and 0 < len(ssid) <= 32:
                found.add(ssid)
    return found


def _warnings(fleet: Fleet) -> Iterator[str]:
    keys = [{"name": s.name, "spi": 256, "key": "00" * 32} for s in fleet.in_service]
    yield from home_agent_config.build(home_agent_document(fleet), {"router": keys}).warnings
    for site in fleet.in_service:
        if not site.table.prefixes:
            yield f"site.{site.name}.prefixes is empty: it has no networks to reach"


# --- what the daemons get -----------------------------------------------------------------------


def home_agent_document(fleet: Fleet) -> dict[str, Any]:
    """Return the document of ha.toml: the sites in service, in the order of their names."""
    agent = fleet.document.home_agent.model_dump(exclude_unset=True)
    for key in ("state", "secrets", "socket"):
        agent[key] = getattr(fleet.document.home_agent, key)
    routers = []
    for site in fleet.in_service:
        table = site.table
        routers.append(
            {
                "name": site.name,
                "home_address": str(table.home_address),
                "prefixes": [str(net) for net in table.prefixes],
                "realm": table.realm,
                "priority": table.priority,
                "implicit": table.implicit,
            }
        )
    return {"home_agent": {key: _plain(value) for key, value in agent.items()}, "router": routers}


def router_document(fleet: Fleet, site: Site) -> dict[str, Any]:
    """Return the document of the site's router.json.

    With `internet = "local"` all networks of the plan are inside, private or not, unless the site
    says otherwise.
    """
    inside = {}
    if site.router.get("internet") == "local":
        agent = fleet.document.home_agent
        networks = [*fleet.document.plan.prefixes, *agent.home_addresses, *agent.home_networks]
        inside["organisation"] = [str(net) for net in networks]
    return {
        "version": 1,
        "name": site.name,
        "home_address": site.home_address,
        "home_agent": str(fleet.document.home_agent.address),
        "networks": [str(net) for net in site.table.prefixes],
        "realm": site.table.realm,
        "explicit": not site.table.implicit,
        "secrets": "router.secrets.json",
        **inside,
        **site.router,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int) else str(value)


# --- changing -----------------------------------------------------------------------------------


def new_text(
    name: str, organisation: str, domain: str, address: str, home_addresses: str, plan: str
) -> str:
    """Return the text of a first fleet.toml. Values are judged by `judge`, as from an editor."""
    return TEMPLATE.format(
        name=json.dumps(name),
        organisation=json.dumps(organisation, ensure_ascii=False),
        domain=json.dumps(domain),
        address=json.dumps(address),
        home_addresses=json.dumps([home_addresses]),
        plan=json.dumps([plan]),
    )


def with_site(fleet: Fleet, text: str, name: str, values: dict[str, Any]) -> str:
    """Return `text` with a table [site.NAME] where its name belongs; nothing else is touched."""
    if not is_site_name(name):
        raise FleetError(f"{shown(name)}: not a name for a site; letters, digits, inner hyphens")
    if name in fleet.sites:
        raise FleetError(f"{fleet.path}: site {shown(name)} is there already; choose another name")
    table = tomlkit.table()
    for key, value in values.items():
        table.add(key, value)
    block = f"[site.{name}]\n{tomlkit.dumps(table)}".rstrip("\n") + "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    at = len(lines)
    for number, line in enumerate(lines):
        header = re.match(r"\s*\[\s*site\s*\.\s*[\"']?([A-Za-z0-9-]+)", line)
        if header and natural(header[1]) > natural(name):
            at = number
            # The comment over a table belongs to it.
            while at and lines[at - 1].lstrip().startswith("#"):
                at -= 1
            break
    before, after = "".join(lines[:at]).rstrip("\n"), "".join(lines[at:])
    result = f"{before}\n\n{block}" + (f"\n{after}" if after else "")
    expected = tomllib.loads(text)
    expected.setdefault("site", {})[name] = values
    if tomllib.loads(result) != expected:
        raise FleetError(f"{fleet.path}: the sites are not written as [site.NAME] tables; add"
                         f" this by hand:\n\n{block}")  # fmt: skip
    return result


def with_value(fleet: Fleet, text: str, site: str, key: str, value: Any) -> str:
    """Return `text` with `key` of [site.SITE] set to `value`; None removes it."""
    document = tomlkit.parse(text)
    table: Any = document["site"][fleet.site(site).name]
    if value is None:
        table.pop(key, None)
    elif key in table:
        table[key] = value
    else:
        # Before a sub-table: a key after [site.X.router] would belong to that.
        sub = [k for k, v in table.items() if isinstance(v, dict)]
        nested = {k: table.pop(k) for k in sub}
        table[key] = value
        for name, inner in nested.items():
            table[name] = inner
    return tomlkit.dumps(document)


def write(path: Path, text: str) -> None:
    """Judge `text` and make it the fleet file. Raises InventoryError, and then nothing changed."""
    judge(path, text)
    file = path.resolve()  # a link stays one
    mode = file.stat().st_mode & 0o777 if file.exists() else PUBLIC
    write_whole(file, text.encode(), mode)


def next_home_address(fleet: Fleet) -> str:
    """Return the first free address of home_agent.home_addresses. Raises FleetError."""
    taken = {site.table.home_address for site in fleet.sites.values()}
    taken.add(fleet.document.home_agent.address)
    for net in fleet.document.home_agent.home_addresses:
        for address in net.hosts():
            if address not in taken:
                return str(address)
    raise FleetError(
        f"{fleet.path}: home_agent.home_addresses has no free address left; add a range there"
    )


def next_prefix(fleet: Fleet) -> str:
    """Return the first free network of the plan. Raises FleetError."""
    plan = fleet.document.plan
    agent = fleet.document.home_agent
    taken = [*agent.home_addresses, *agent.home_networks, IPv4Network(agent.address)]
    for site in fleet.sites.values():
        taken += [net for net in site.table.prefixes if net.prefixlen]
    for whole in plan.prefixes:
        if whole.prefixlen > plan.site_prefix_length:
            continue
        at = int(whole.network_address)
        while at <= int(whole.broadcast_address):
            net = IPv4Network((at, plan.site_prefix_length))
            hit = [other for other in taken if other.overlaps(net)]
            if not hit:
                return str(net)
            # Past the largest that is in the way, not one by one through a /8.
            at = max(int(other.broadcast_address) for other in [*hit, net]) + 1
    raise FleetError(
        f"{fleet.path}: plan.prefixes has no free /{plan.site_prefix_length} left;"
        " add a range there or give --prefix"
    )
