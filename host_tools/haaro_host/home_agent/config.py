"""The home agent's configuration: ha.toml and its secrets file, validated as a whole.

Owns: reading the files and the rules between values; the rules of single values are config_file's.
Never opens a socket or the state database. Called by the shell (start, reload), by
`haaro ha check`, and by tests through `build`.
"""

import stat
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from haaro_host.home_agent.config_file import (
    DEFAULT_SOCKET,
    Document,
    HomeAgentTable,
    Problem,
    Secret,
    SecretsDocument,
    guarded,
    shown,
    validate,
)

# RFC 1918 and RFC 6598. Not `is_private`: that one also counts the documentation networks.
_PRIVATE = tuple(
    IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
_DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")

Prefix = tuple[bytes, int]
_Taken = tuple[IPv4Network, str, str | None]  # key, routing domain; None: common to all


class ConfigError(Exception):
    """The configuration is refused; `.problems` lists every fault found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep `problems` and print them one a line."""
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class SecurityAssociation:
    """One Mobility Security Association of a router (RFC 5944 1.6)."""

    spi: int
    algorithm: str
    key: Secret


@dataclass(frozen=True)
class RouterConfig:
    """One mobile router that is served. Addresses are 4 octets, prefixes (4 octets, length)."""

    name: str
    home_address: bytes
    prefixes: tuple[Prefix, ...]
    realm: str
    priority: int
    implicit: bool
    associations: dict[int, SecurityAssociation]


@dataclass(frozen=True)
class Config:
    """A configuration that passed every check. `routers` is keyed by home address (4 octets)."""

    address: bytes
    state: str
    socket: str
    interface: str
    home_addresses: tuple[Prefix, ...]
    home_networks: tuple[Prefix, ...]
    separate: bool
    home_realm: str
    forward_outside: bool
    advertisement_octets: int
    lifetime_max: int
    udp_lifetime_max: int
    keepalive: int
    mtu: int
    dataplane: str
    encapsulations: frozenset[str]
    replay_window: int
    reply_authentication_failed: bool
    rate: int
    burst: int
    routers: dict[bytes, RouterConfig]
    warnings: tuple[str, ...] = field(default=())

    def domain(self, home_address: bytes) -> str:
        """Return the routing domain of a router; one for all unless realms are separate."""
        return domain_of(self.routers[home_address].realm) if self.separate else ""

    @property
    def home_domain(self) -> str:
        """The routing domain of the home networks and of the outside."""
        return domain_of(self.home_realm) if self.separate else ""


def domain_of(realm: str) -> str:
    """Return the routing domain that `realm` names: upper and lower case are the same [A29]."""
    return realm.lower()


# --- reading files -----------------------------------------------------------------------------


def load(path: str | Path) -> Config:
    """Read ha.toml at `path` and the secrets file it names. Raises ConfigError; changes nothing.

    Relative paths in the file are taken from the directory that holds it.
    """
    file = Path(path)
    document = _parse_toml(file, _read(file))
    base = file.resolve().parent
    secrets: dict[str, Any] | None = None
    secrets_name = ""
    table = document.get("home_agent")
    named = table.get("secrets") if isinstance(table, dict) else None
    if isinstance(named, str) and named:
        secrets_file = base / named
        secrets_name = str(secrets_file)
        _check_mode(secrets_file)
        secrets = _parse_toml(secrets_file, _read(secrets_file), secret=True)
    return build(document, secrets, str(file), secrets_name, base)


def load_public(path: str | Path) -> Document:
    """Read and check ha.toml at `path` alone, without the secrets. Raises ConfigError."""
    file = Path(path)
    problems: list[Problem] = []
    main = validate(Document, _parse_toml(file, _read(file)), str(file), problems)
    if main is not None:
        _check_routers(main, str(file), problems)
    if main is None or problems:
        raise ConfigError(problems)
    return main


def socket_of(path: str | Path) -> str:
    """Return the socket that ha.toml at `path` names, whatever else is right or wrong in it.

    So that a running home agent can be asked while its file is being edited. Raises ConfigError
    when the file cannot be read at all.
    """
    file = Path(path)
    table = _parse_toml(file, _read(file)).get("home_agent")
    named = table.get("socket") if isinstance(table, dict) else None
    return str(file.resolve().parent / (named if isinstance(named, str) else DEFAULT_SOCKET))


def build(
    document: dict[str, Any],
    secrets: dict[str, Any] | None,
    file: str = "ha.toml",
    secrets_file: str = "ha.secrets.toml",
    base: Path | None = None,
) -> Config:
    """Check parsed TOML `document` and `secrets`; raise ConfigError that lists every fault."""
    problems: list[Problem] = []
    main = validate(Document, document, file, problems)
    keys = None
    if secrets is not None:
        keys = validate(SecretsDocument, secrets, secrets_file, problems)
    if main is None or (secrets is not None and keys is None):
        raise ConfigError(problems)
    _check_routers(main, file, problems)
    if problems:
        raise ConfigError(problems)
    associations = _associations(main, keys, secrets_file, problems)
    if problems:
        raise ConfigError(problems)
    return _config(main, associations, base)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        problem = Problem(str(file), "", f"the file ({error.strerror})", "a readable TOML file")
        raise ConfigError([problem]) from None


def _check_mode(file: Path) -> None:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return  # _read says it better
    if mode & 0o077:
        raise ConfigError([Problem(str(file), "file mode", f"{mode:04o}", "0600 (or 0400)")])


def _parse_toml(file: Path, data: bytes, secret: bool = False) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # The parser's message may quote the text around the fault: never for secrets.
        value = "the file" if secret else f"the file ({error})"
        raise ConfigError([Problem(str(file), "", value, "valid TOML")]) from None


# --- rules between values ----------------------------------------------------------------------


def _check_routers(main: Document, file: str, problems: list[Problem]) -> None:
    agent = main.home_agent
    names: dict[str, int] = {}
    addresses: dict[IPv4Address, int] = {}
    taken: list[_Taken] = []
    for index, net in enumerate(agent.home_addresses):
        taken.append((net, f"home_agent.home_addresses[{index}]", None))
    for index, net in enumerate(agent.home_networks):
        key = f"home_agent.home_networks[{index}]"
        _check_overlap(net, key, None, taken, file, problems)
    ranges = ", ".join(str(net) for net in agent.home_addresses)
    for index, router in enumerate(main.router):
        at = f"router[{index}]"
        if router.name in names:
            other = f"a name not used by router[{names[router.name]}]"
            problems.append(Problem(file, f"{at}.name", shown(router.name), other))
        names.setdefault(router.name, index)
        hoa, value = router.home_address, shown(str(router.home_address))
        if not any(hoa in net for net in agent.home_addresses):
            text = f"an address inside home_agent.home_addresses ({ranges})"
            problems.append(Problem(file, f"{at}.home_address", value, text))
        elif hoa == agent.address:
            text = "an address other than home_agent.address"
            problems.append(Problem(file, f"{at}.home_address", value, text))
        elif hoa in addresses:
            text = f"an address not used by router[{addresses[hoa]}]"
            problems.append(Problem(file, f"{at}.home_address", value, text))
        addresses.setdefault(hoa, index)
        for number, net in enumerate(router.prefixes):
            key = f"{at}.prefixes[{number}]"
            if net == _DEFAULT_ROUTE and not router.implicit:
                # RFC 5177 6.6: a request for length 0 MUST be answered with an error.
                text = "0.0.0.0/0 only with implicit = true"
                problems.append(Problem(file, key, shown(str(net)), text))
            elif agent.address in net and net != _DEFAULT_ROUTE:
                text = f"a prefix that does not contain home_agent.address {agent.address}"
                problems.append(Problem(file, key, shown(str(net)), text))
            domain = domain_of(router.realm) if agent.overlap == "separate" else ""
            _check_overlap(net, key, domain, taken, file, problems)


def _check_overlap(
    net: IPv4Network,
    key: str,
    domain: str | None,
    taken: list[_Taken],
    file: str,
    problems: list[Problem],
) -> None:
    for other, other_key, other_domain in taken:
        if domain is not None and other_domain is not None and domain != other_domain:
            continue
        # The default route is a gateway's (RFC 6521 3.1.1): everything lies inside it by nature.
        if (net == _DEFAULT_ROUTE) == (other == _DEFAULT_ROUTE) and net.overlaps(other):
            text = f"a prefix that does not overlap {other_key} {other}"
            problems.append(Problem(file, key, shown(str(net)), text))
            break
    taken.append((net, key, domain))


def _associations(
    main: Document, keys: SecretsDocument | None, file: str, problems: list[Problem]
) -> dict[IPv4Address, dict[int, SecurityAssociation]]:
    by_name = {router.name: router.home_address for router in main.router}
    result: dict[IPv4Address, dict[int, SecurityAssociation]] = {}
    for hoa in by_name.values():
        result[hoa] = {}
    for index, entry in enumerate(keys.router if keys else []):
        at = f"router[{index}]"
        known = "the name or home_address of a [[router]] of the main file"
        if entry.name is None and entry.home_address is None:
            text = "a name or a home_address"
            problems.append(Problem(file, at, "this table without either", text))
            continue
        key, value, found = "home_address", str(entry.home_address), entry.home_address
        if entry.name is not None:
            key, value, found = "name", entry.name, by_name.get(entry.name)
        if found is not None and entry.home_address not in (None, found):
            text = f"{found}, the home_address of router {guarded(entry.name, ())}"
            value = shown(str(entry.home_address))
            problems.append(Problem(file, f"{at}.home_address", value, text))
            continue
        if found is None or found not in result:
            problems.append(Problem(file, f"{at}.{key}", guarded(value, ()), known))
        elif entry.spi in result[found]:
            text = "an spi used once for each router"
            problems.append(Problem(file, f"{at}.spi", str(entry.spi), text))
        else:
            association = SecurityAssociation(entry.spi, entry.algorithm, entry.key)
            result[found][entry.spi] = association
    for name, hoa in by_name.items():
        if not result[hoa] and not problems:
            text = f"a [[router]] table with spi and key for router {shown(name)}"
            problems.append(Problem(file, "router", "this missing entry", text))
    return result


def _config(
    main: Document,
    associations: dict[IPv4Address, dict[int, SecurityAssociation]],
    base: Path | None,
) -> Config:
    agent = main.home_agent
    routers = {
        router.home_address.packed: RouterConfig(
            name=router.name,
            home_address=router.home_address.packed,
            prefixes=_prefixes(router.prefixes),
            realm=router.realm,
            priority=router.priority,
            implicit=router.implicit,
            associations=associations[router.home_address],
        )
        for router in main.router
    }
    state = agent.state if agent.state == ":memory:" else str((base or Path()) / agent.state)
    return Config(
        address=agent.address.packed,
        state=state,
        socket=str((base or Path()) / agent.socket),
        interface=agent.interface,
        home_addresses=_prefixes(agent.home_addresses),
        home_networks=_prefixes(agent.home_networks),
        separate=agent.overlap == "separate",
        home_realm=agent.home_realm,
        forward_outside=agent.forward_outside,
        advertisement_octets=agent.advertisement_octets,
        lifetime_max=agent.lifetime_max,
        udp_lifetime_max=agent.udp_lifetime_max,
        keepalive=agent.keepalive,
        mtu=agent.mtu,
        dataplane=agent.dataplane,
        encapsulations=frozenset(agent.encapsulations),
        replay_window=agent.replay_window,
        reply_authentication_failed=agent.reply_authentication_failed,
        rate=agent.rate,
        burst=agent.burst,
        routers=routers,
        warnings=_warnings(agent),
    )


def _prefixes(networks: Iterable[IPv4Network]) -> tuple[Prefix, ...]:
    return tuple((net.network_address.packed, net.prefixlen) for net in networks)


def _warnings(agent: HomeAgentTable) -> tuple[str, ...]:
    if _private(IPv4Network(agent.address)):
        return ()
    return tuple(
        f"home_agent.home_addresses[{index}] {net} is private while home_agent.address"
        f" {agent.address} is not: care-of addresses outside cannot reach these home addresses,"
        " so no direct path can be set up and all traffic stays on the home agent"
        for index, net in enumerate(agent.home_addresses)
        if _private(net)
    )


def _private(net: IPv4Network) -> bool:
    return any(net.subnet_of(private) for private in _PRIVATE)
