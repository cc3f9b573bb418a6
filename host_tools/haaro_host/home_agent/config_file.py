"""The two files of the home agent as tables: each key, its type, its range, its wording.

Owns what one value may be and how a wrong one is reported. Called by config only.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from haaro.wire.auth import ALGORITHMS

SECRET_MIN_OCTETS = 16  # RFC 5944 5.1: 128 bits; shorter keys are refused, not stretched
_SECRET_MAX_OCTETS = 64
DEFAULT_SOCKET = "/run/haaro/ha.sock"
ENCAPSULATIONS = ("udp", "ipip", "gre", "minimal")


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


class Secret(bytes):
    """Key octets that never show themselves: repr and str are "<secret>"."""

    def __repr__(self) -> str:
        """Hide the octets."""
        return "<secret>"

    __str__ = __repr__


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


def _overlap(value: Any) -> str:
    if value not in ("error", "separate"):
        raise _refuse()
    return str(value)


def _dataplane(value: Any) -> str:
    if value not in ("auto", "kernel", "userspace"):
        raise _refuse()
    return str(value)


def _encapsulation(value: Any) -> str:
    if value not in ENCAPSULATIONS:
        raise _refuse()
    return str(value)


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
    if len(octets) < SECRET_MIN_OCTETS or len(octets) > _SECRET_MAX_OCTETS:
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
RealmField = Annotated[str, BeforeValidator(_realm)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class HomeAgentTable(_Table):
    """[home_agent] of ha.toml."""

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
    overlap: Annotated[str, BeforeValidator(_overlap)] = Field(
        "error", description='"error" or "separate" (realms are routing domains)'
    )
    home_realm: Annotated[str, BeforeValidator(_realm)] = Field(
        "", description="the realm that the home networks reach, as [[router]] realm"
    )
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
    dataplane: Annotated[str, BeforeValidator(_dataplane)] = Field(
        "userspace", description='"auto", "kernel" or "userspace"'
    )
    encapsulations: list[Annotated[str, BeforeValidator(_encapsulation)]] = Field(
        list(ENCAPSULATIONS), description='a list of "udp", "ipip", "gre" and "minimal"'
    )
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
    realm: RealmField = Field(
        "", description="at most 253 printable ASCII characters, labels of 1 to 127 between dots"
    )
    priority: int = Field(
        100, ge=0, le=65535, description="a whole number from 0 (listed first) to 65535"
    )
    implicit: bool = Field(False, description="true or false")


class Document(_Table):
    """ha.toml."""

    home_agent: HomeAgentTable = Field(description="a table [home_agent]")
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
        description=f"{SECRET_MIN_OCTETS} to {_SECRET_MAX_OCTETS} random octets in hexadecimal"
    )


class SecretsDocument(_Table):
    """The secrets file."""

    router: list[_SecretTable] = Field([], description="tables [[router]]")


# --- wording -----------------------------------------------------------------------------------

_T = TypeVar("_T", bound=BaseModel)


def validate(
    model: type[_T], document: dict[str, Any], file: str, problems: list[Problem]
) -> _T | None:
    """Return `document` as a `model`, or None and every fault in `problems`."""
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
    if model is SecretsDocument:
        return Problem(file, key, guarded(fault["input"], location), allowed)
    return Problem(file, key, shown(fault["input"]), allowed)


def shown(value: Any) -> str:
    """Return `value` as it stands in the file."""
    if isinstance(value, dict | list) and value:
        return f"this {'table' if isinstance(value, dict) else 'list'}"
    return json.dumps(value, default=str)


def guarded(value: Any, location: Iterable[str | int]) -> str:
    """Return a value of the secrets file, unless it could be a secret."""
    # A key may also stand in the wrong place of the secrets file. Its length is what the operator
    # needs; the text is never repeated.
    if isinstance(value, str) and ("key" in location or len(value) > 24):
        return f"<secret, {len(value)} characters>"
    return "<secret>" if "key" in location else shown(value)


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
            table = _SecretTable if model is SecretsDocument else _TABLES.get(part)
    return table


def _description(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    names = [part for part in location if isinstance(part, str)]
    table = _table_at(model, names[:-1])
    found = table.model_fields.get(names[-1]) if table and names else None
    return (found.description if found else None) or "a value of another type"


_TABLES: dict[str, type[BaseModel]] = {"home_agent": HomeAgentTable, "router": _RouterTable}
