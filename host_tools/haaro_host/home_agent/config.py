"""The home agent's configuration: ha.toml and its secrets file, validated as a whole.

Owns: the file format, every rule about it, and the wording of what is wrong. Never opens a socket
or the state database. Called by the shell (start, reload), by `haaro ha check`, and by tests
through `build`.
"""

import json
import stat
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

SECRET_MIN_OCTETS = 16  # RFC 5944 5.1: 128 bits; shorter keys are refused, not stretched
ALGORITHMS = ("hmac-md5", "hmac-sha1", "hmac-sha256")
# RFC 1918 and RFC 6598. Not `is_private`: that one also counts the documentation networks.
_PRIVATE = tuple(
    IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
DEFAULT_SOCKET = "/run/haaro/ha.sock"
_DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")

Prefix = tuple[bytes, int]


@dataclass(frozen=True)
class Problem:
    """One fault: which file, which key, the value found and what would have been allowed."""

    file: str
    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        """Return the one line shown to the operator."""
        where = f"{self.file}: {self.key}" if self.key else self.file
        return f"{where}: {self.value} is refused; allowed: {self.allowed}"


class ConfigError(Exception):
    """The configuration is refused; `.problems` lists every fault found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep `problems` and print them one a line."""
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class Secret(bytes):
    """Key octets that never show themselves: repr and str are "<secret>"."""

    def __repr__(self) -> str:
        """Hide the octets."""
        return "<secret>"

    __str__ = __repr__


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
    forward_outside: bool
    advertisement_octets: int
    lifetime_max: int
    udp_lifetime_max: int
    keepalive: int
    mtu: int
    replay_window: int
    reply_authentication_failed: bool
    rate: int
    burst: int
    routers: dict[bytes, RouterConfig]
    warnings: tuple[str, ...] = field(default=())


# --- reading one value -------------------------------------------------------------------------


def _refuse() -> PydanticCustomError:
    return PydanticCustomError("value", "not allowed")


def _address(value: Any) -> IPv4Address:
    if not isinstance(value, str):
        raise _refuse()
    try:
        return IPv4Address(value)
    except AddressValueError:
        raise _refuse() from None


def _network(value: Any) -> IPv4Network:
    if not isinstance(value, str) or "/" not in value:
        raise _refuse()
    try:
        return IPv4Network(value)
    except ValueError:
        raise _refuse() from None


def _realm(value: Any) -> str:
    # RFC 6521 4.2: labels of 1..127 octets; [A22] caps the whole realm at 253.
    if not isinstance(value, str) or len(value) > 253 or not value.isascii():
        raise _refuse()
    if value and not all(0 < len(label) < 128 for label in value.split(".")):
        raise _refuse()
    if not value.isprintable() or " " in value:
        raise _refuse()
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64 or not value.isprintable():
        raise _refuse()
    return value


def _key(value: Any) -> Secret:
    if not isinstance(value, str):
        raise _refuse()
    try:
        octets = bytes.fromhex(value)
    except ValueError:
        raise _refuse() from None
    if len(octets) < SECRET_MIN_OCTETS or len(octets) > 64:
        raise _refuse()
    return Secret(octets)


def _algorithm(value: Any) -> str:
    if value not in ALGORITHMS:
        raise _refuse()
    return str(value)


def _interface(value: Any) -> str:
    # IFNAMSIZ is 16 with the closing zero.
    if not isinstance(value, str) or not 0 < len(value) < 16 or "/" in value or " " in value:
        raise _refuse()
    return value


def _socket_path(value: Any) -> str:
    # sun_path holds 108 octets with the closing zero.
    if not isinstance(value, str) or not 0 < len(value.encode()) < 100:
        raise _refuse()
    return value


_A_ADDRESS = 'an IPv4 address in quotes, such as "192.0.2.1"'
_A_PREFIX = 'IPv4 prefixes without host bits, such as "10.1.0.0/24"'

AddressField = Annotated[IPv4Address, BeforeValidator(_address)]
NetworkField = Annotated[IPv4Network, BeforeValidator(_network)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class _HomeAgentTable(_Table):
    address: AddressField = Field(description=_A_ADDRESS)
    state: str = Field(min_length=1, description="the path of the SQLite state file, in quotes")
    secrets: str = Field(min_length=1, description="the path of the secrets file, in quotes")
    socket: Annotated[str, BeforeValidator(_socket_path)] = Field(
        "/run/haaro/ha.sock",
        description="the path of the control socket, 1 to 99 octets, in quotes",
    )
    interface: Annotated[str, BeforeValidator(_interface)] = Field(
        "haaro-ha0", description="a network interface name of 1 to 15 characters"
    )
    home_addresses: list[NetworkField] = Field(min_length=1, description=f"a list of {_A_PREFIX}")
    home_networks: list[NetworkField] = Field([], description=f"a list of {_A_PREFIX}")
    forward_outside: bool = Field(False, description="true or false")
    advertisement_octets: int = Field(
        1200, ge=128, le=65000, description="a whole number of octets from 128 to 65000"
    )
    lifetime_max: int = Field(1800, ge=10, le=65534, description="whole seconds from 10 to 65534")
    udp_lifetime_max: int = Field(
        300, ge=10, le=65534, description="whole seconds from 10 to 65534"
    )
    keepalive: int = Field(
        25, ge=10, le=65535, description="whole seconds from 10 (RFC 3519 4.10) to 65535"
    )
    mtu: int = Field(1500, ge=608, le=65535, description="octets from 608 to 65535")
    replay_window: int = Field(
        7, ge=4, le=600, description="whole seconds from 4 (RFC 5944 5.7.1: more than 3) to 600"
    )
    reply_authentication_failed: bool = Field(False, description="true or false")
    rate: int = Field(2, ge=1, le=1000, description="accepted requests a second, 1 to 1000")
    burst: int = Field(10, ge=1, le=1000, description="accepted requests in a burst, 1 to 1000")


class _RouterTable(_Table):
    name: Annotated[str, BeforeValidator(_name)] = Field(
        description="a name of 1 to 64 printable characters"
    )
    home_address: AddressField = Field(description=_A_ADDRESS)
    prefixes: list[NetworkField] = Field([], description=f"a list of {_A_PREFIX}")
    realm: Annotated[str, BeforeValidator(_realm)] = Field(
        "", description="at most 253 printable ASCII characters, labels of 1 to 127 between dots"
    )
    priority: int = Field(
        100, ge=0, le=65535, description="a whole number from 0 (listed first) to 65535"
    )
    implicit: bool = Field(False, description="true or false")


class _Document(_Table):
    home_agent: _HomeAgentTable = Field(description="a table [home_agent]")
    router: list[_RouterTable] = Field([], description="tables [[router]]")


class _SecretTable(_Table):
    name: str | None = Field(None, description="the name of a [[router]] of the main file")
    home_address: AddressField | None = Field(
        None, description="the home_address of a [[router]] of the main file"
    )
    spi: int = Field(ge=256, le=0xFFFFFFFF, description="a whole number from 256 to 4294967295")
    algorithm: Annotated[str, BeforeValidator(_algorithm)] = Field(
        "hmac-md5", description=", ".join(ALGORITHMS)
    )
    key: Annotated[Secret, BeforeValidator(_key)] = Field(
        description=f"{SECRET_MIN_OCTETS} to 64 random octets in hexadecimal"
    )


class _SecretsDocument(_Table):
    router: list[_SecretTable] = Field([], description="tables [[router]]")


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
    main = _validate(_Document, document, file, problems)
    keys = None
    if secrets is not None:
        keys = _validate(_SecretsDocument, secrets, secrets_file, problems)
    if main is None or (secrets is not None and keys is None):
        raise ConfigError(problems)
    _check_routers(main, file, problems)
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


# --- wording -----------------------------------------------------------------------------------

_T = TypeVar("_T", bound=BaseModel)


def _validate(
    model: type[_T], document: dict[str, Any], file: str, problems: list[Problem]
) -> _T | None:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False):
            problems.append(_problem(model, fault, file))
        return None


def _problem(model: type[BaseModel], fault: Any, file: str) -> Problem:
    location = fault["loc"]
    key = _key_name(location)
    if fault["type"] == "extra_forbidden":
        table = _table_at(model, location[:-1])
        known = ", ".join(sorted(table.model_fields)) if table else ""
        return Problem(file, key, "this unknown key", f"only {known}")
    allowed = _description(model, location)
    if fault["type"] == "missing":
        return Problem(file, key, "this missing key", allowed)
    if model is _SecretsDocument:
        return Problem(file, key, _guarded(fault["input"], location), allowed)
    return Problem(file, key, _shown(fault["input"]), allowed)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list) and value:
        return f"this {'table' if isinstance(value, dict) else 'list'}"
    return json.dumps(value, default=str)


def _guarded(value: Any, location: Iterable[str | int]) -> str:
    # A key may also stand in the wrong place of the secrets file. Its length is what the operator
    # needs; the text is never repeated.
    if isinstance(value, str) and ("key" in location or len(value) > 24):
        return f"<secret, {len(value)} characters>"
    return "<secret>" if "key" in location else _shown(value)


def _key_name(location: Iterable[str | int]) -> str:
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{part}" if name else part
    return name


def _table_at(model: type[BaseModel], location: Iterable[str | int]) -> type[BaseModel] | None:
    table: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, str):
            table = _SecretTable if model is _SecretsDocument else _TABLES.get(part)
    return table


def _description(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    names = [part for part in location if isinstance(part, str)]
    table = _table_at(model, names[:-1])
    found = table.model_fields.get(names[-1]) if table and names else None
    return (found.description if found else None) or "a value of another type"


_TABLES: dict[str, type[BaseModel]] = {"home_agent": _HomeAgentTable, "router": _RouterTable}


# --- rules between values ----------------------------------------------------------------------


def _check_routers(main: _Document, file: str, problems: list[Problem]) -> None:
    agent = main.home_agent
    names: dict[str, int] = {}
    addresses: dict[IPv4Address, int] = {}
    taken: list[tuple[IPv4Network, str]] = []
    for index, net in enumerate(agent.home_addresses):
        taken.append((net, f"home_agent.home_addresses[{index}]"))
    for index, net in enumerate(agent.home_networks):
        key = f"home_agent.home_networks[{index}]"
        _check_overlap(net, key, taken, file, problems)
    ranges = ", ".join(str(net) for net in agent.home_addresses)
    for index, router in enumerate(main.router):
        at = f"router[{index}]"
        if router.name in names:
            other = f"a name not used by router[{names[router.name]}]"
            problems.append(Problem(file, f"{at}.name", _shown(router.name), other))
        names.setdefault(router.name, index)
        hoa, shown = router.home_address, _shown(str(router.home_address))
        if not any(hoa in net for net in agent.home_addresses):
            text = f"an address inside home_agent.home_addresses ({ranges})"
            problems.append(Problem(file, f"{at}.home_address", shown, text))
        elif hoa == agent.address:
            text = "an address other than home_agent.address"
            problems.append(Problem(file, f"{at}.home_address", shown, text))
        elif hoa in addresses:
            text = f"an address not used by router[{addresses[hoa]}]"
            problems.append(Problem(file, f"{at}.home_address", shown, text))
        addresses.setdefault(hoa, index)
        for number, net in enumerate(router.prefixes):
            key = f"{at}.prefixes[{number}]"
            if net == _DEFAULT_ROUTE and not router.implicit:
                # RFC 5177 6.6: a request for length 0 MUST be answered with an error.
                text = "0.0.0.0/0 only with implicit = true"
                problems.append(Problem(file, key, _shown(str(net)), text))
            elif agent.address in net and net != _DEFAULT_ROUTE:
                text = f"a prefix that does not contain home_agent.address {agent.address}"
                problems.append(Problem(file, key, _shown(str(net)), text))
            _check_overlap(net, key, taken, file, problems)


def _check_overlap(
    net: IPv4Network,
    key: str,
    taken: list[tuple[IPv4Network, str]],
    file: str,
    problems: list[Problem],
) -> None:
    for other, other_key in taken:
        # The default route is a gateway's (RFC 6521 3.1.1): everything lies inside it by nature.
        if (net == _DEFAULT_ROUTE) == (other == _DEFAULT_ROUTE) and net.overlaps(other):
            text = f"a prefix that does not overlap {other_key} {other}"
            problems.append(Problem(file, key, _shown(str(net)), text))
            break
    taken.append((net, key))


def _associations(
    main: _Document, keys: _SecretsDocument | None, file: str, problems: list[Problem]
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
            text = f"{found}, the home_address of router {_guarded(entry.name, ())}"
            shown = _shown(str(entry.home_address))
            problems.append(Problem(file, f"{at}.home_address", shown, text))
            continue
        if found is None or found not in result:
            problems.append(Problem(file, f"{at}.{key}", _guarded(value, ()), known))
        elif entry.spi in result[found]:
            text = "an spi used once for each router"
            problems.append(Problem(file, f"{at}.spi", str(entry.spi), text))
        else:
            association = SecurityAssociation(entry.spi, entry.algorithm, entry.key)
            result[found][entry.spi] = association
    for name, hoa in by_name.items():
        if not result[hoa]:
            text = f"a [[router]] table with spi and key for router {_shown(name)}"
            problems.append(Problem(file, "router", "this missing entry", text))
    return result


def _config(
    main: _Document,
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
        forward_outside=agent.forward_outside,
        advertisement_octets=agent.advertisement_octets,
        lifetime_max=agent.lifetime_max,
        udp_lifetime_max=agent.udp_lifetime_max,
        keepalive=agent.keepalive,
        mtu=agent.mtu,
        replay_window=agent.replay_window,
        reply_authentication_failed=agent.reply_authentication_failed,
        rate=agent.rate,
        burst=agent.burst,
        routers=routers,
        warnings=_warnings(agent),
    )


def _prefixes(networks: Iterable[IPv4Network]) -> tuple[Prefix, ...]:
    return tuple((net.network_address.packed, net.prefixlen) for net in networks)


def _warnings(agent: _HomeAgentTable) -> tuple[str, ...]:
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
