"""The keys of fleet.toml: type, range and wording of each value by itself.

Rules between values are inventory's. What a router's own file may hold (`router` tables) is not
repeated here: the device's loader judges it.
"""

import re
from datetime import date
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from haaro_host.home_agent.config_file import (
    AddressField,
    HomeAgentTable,
    NetworkField,
    Problem,
    RealmField,
    shown,
)

_SITE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
_A_SITE_NAME = "letters, digits and inner hyphens, 1 to 32 (it also names a directory)"
_A_PREFIX = 'IPv4 prefixes without host bits, such as "10.1.0.0/24"'


def _refuse() -> PydanticCustomError:
    return PydanticCustomError("value", "not allowed")


def is_site_name(value: object) -> bool:
    """Return whether `value` may name a site."""
    return isinstance(value, str) and _SITE_NAME.fullmatch(value) is not None


def _site_name(value: Any) -> str:
    if not is_site_name(value):
        raise _refuse()
    return str(value)


def _file_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", value):
        raise _refuse()
    return value


def _board(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", value):
        raise _refuse()
    return value


def _unique_id(value: Any) -> str:
    # machine.unique_id() in hexadecimal: 6 octets on ESP32, 8 on rp2, up to 16 elsewhere.
    if value != "" and (
        not isinstance(value, str) or not re.fullmatch(r"([0-9a-f]{2}){4,16}", value)
    ):
        raise _refuse()
    return str(value)


def _peers(value: Any) -> str | list[str]:
    if value in ("all", "none"):
        return str(value)
    if not isinstance(value, list) or not all(is_site_name(item) for item in value):
        raise _refuse()
    return list(value)


def _revoked(value: Any) -> str:
    # TOML has dates of its own; both are the same to us.
    if isinstance(value, date):
        return value.isoformat()
    if not isinstance(value, str) or not value.isprintable():
        raise _refuse()
    return value


SiteName = Annotated[str, BeforeValidator(_site_name)]
_BOARD_TEXT = 'a folder of boards/, such as "UNIX"'
_PEERS_TEXT = '"all", "none" or a list of site names'
_ROUTER_TEXT = "a table of keys of router.json"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class FleetTable(_Table):
    """[fleet]: whose it is."""

    name: SiteName = Field(description=_A_SITE_NAME)
    organisation: str = Field("", max_length=200, description="a text of at most 200 characters")
    domain: Annotated[str, BeforeValidator(lambda value: _domain(value))] = Field(
        "", description='a domain such as "acme.example": realm of a new SITE is SITE.acme.example'
    )
    ask_home_agent: str = Field(
        "",
        description="a command that reaches `haaro ha` on its machine, such as"
        ' "ssh root@ha haaro ha"; "" for one on this machine',
    )
    ask_router: str = Field(
        "",
        description="a command that prints a router's status as JSON, {site} and {home_address}"
        ' filled in, such as "ssh root@{home_address} haaro-router status"; "": they are not asked',
    )


def _domain(value: Any) -> str:
    if value == "":
        return ""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", value):
        raise _refuse()
    return value


class FleetHomeAgentTable(HomeAgentTable):
    """[home_agent]: the keys of ha.toml's table, with defaults for the paths."""

    state: str = Field(
        "/var/lib/haaro/ha.sqlite",
        min_length=1,
        description="the path of the SQLite state file, in quotes",
    )
    secrets: str = Field(
        "ha.secrets.toml", min_length=1, description="the path of the secrets file, in quotes"
    )


class PlanTable(_Table):
    """[plan]: where the networks of sites come from."""

    prefixes: list[NetworkField] = Field([], description=f"a list of {_A_PREFIX}")
    site_prefix_length: int = Field(24, ge=8, le=30, description="a whole number from 8 to 30")


class KeysTable(_Table):
    """[keys]: how keys are kept."""

    store: Annotated[str, BeforeValidator(_file_name)] = Field(
        "fleet.keys", description="the name of a file beside fleet.toml, without a directory"
    )
    algorithm: Annotated[str, BeforeValidator(lambda value: _one_algorithm(value))] = Field(
        "hmac-sha256", description='"hmac-sha256", "hmac-sha1" or "hmac-md5"'
    )


def _one_algorithm(value: Any) -> str:
    if value not in ("hmac-sha256", "hmac-sha1", "hmac-md5"):
        raise _refuse()
    return str(value)


class DefaultsTable(_Table):
    """[defaults]: what holds for every site that does not say otherwise."""

    board: Annotated[str, BeforeValidator(_board)] = Field("UNIX", description=_BOARD_TEXT)
    peers: Annotated[str | list[str], BeforeValidator(_peers)] = Field(
        "none", description=_PEERS_TEXT
    )
    router: dict[str, Any] = Field({}, description=_ROUTER_TEXT)


class SiteTable(_Table):
    """[site.NAME]: one mobile router and its networks."""

    home_address: AddressField = Field(
        description='an IPv4 address in quotes, such as "192.0.2.129"'
    )
    prefixes: list[NetworkField] = Field(description=f"a list of {_A_PREFIX}")
    realm: RealmField = Field(
        "", description="at most 253 printable ASCII characters, labels of 1 to 127 between dots"
    )
    priority: int = Field(
        100, ge=0, le=65535, description="a whole number from 0 (listed first) to 65535"
    )
    implicit: bool = Field(False, description="true or false")
    board: Annotated[str, BeforeValidator(_board)] | None = Field(None, description=_BOARD_TEXT)
    unique_id: Annotated[str, BeforeValidator(_unique_id)] = Field(
        "", description='the board\'s unique id, 8 to 32 digits of 0-9 a-f, or ""'
    )
    peers: Annotated[str | list[str], BeforeValidator(_peers)] | None = Field(
        None, description=_PEERS_TEXT
    )
    revoked: Annotated[str, BeforeValidator(_revoked)] = Field(
        "", description='"" for a site in service, else when and why it was revoked'
    )
    note: str = Field("", description="a text")
    router: dict[str, Any] = Field({}, description=_ROUTER_TEXT)


class FleetDocument(_Table):
    """fleet.toml."""

    version: int = Field(ge=1, le=1, description="1")
    fleet: FleetTable = Field(description="a table [fleet]")
    home_agent: FleetHomeAgentTable = Field(description="a table [home_agent]")
    plan: PlanTable = Field(PlanTable.model_validate({}), description="a table [plan]")
    keys: KeysTable = Field(KeysTable.model_validate({}), description="a table [keys]")
    defaults: DefaultsTable = Field(
        DefaultsTable.model_validate({}), description="a table [defaults]"
    )
    site: dict[SiteName, SiteTable] = Field({}, description=f"tables [site.NAME]: {_A_SITE_NAME}")


_TABLES: dict[str, type[BaseModel]] = {
    "fleet": FleetTable,
    "home_agent": FleetHomeAgentTable,
    "plan": PlanTable,
    "keys": KeysTable,
    "defaults": DefaultsTable,
}


def parse(document: dict[str, Any], file: str, problems: list[Problem]) -> FleetDocument | None:
    """Return `document` as tables, or None and every fault in `problems`."""
    try:
        return FleetDocument.model_validate(document)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False):
            problems.append(_problem(fault, file))
        return None


def _problem(fault: Any, file: str) -> Problem:
    location = [part for part in fault["loc"] if part != "[key]"]
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")
    names = [part for part in location if isinstance(part, str)]
    table: type[BaseModel] | None = FleetDocument
    if names[0] == "site" and len(names) > 2:
        table, names = SiteTable, names[2:]
    elif names[0] != "site" and len(names) > 1:
        table, names = _TABLES.get(names[0]), names[1:]
    if fault["type"] == "extra_forbidden":
        known = ", ".join(sorted(table.model_fields)) if table else ""
        return Problem(file, key, "this unknown key", f"only {known}")
    field = table.model_fields.get(names[0]) if table else None
    allowed = (field.description if field else None) or "a value of another type"
    if fault["type"] == "missing":
        return Problem(file, key, "this missing key", allowed)
    return Problem(file, key, shown(fault["input"]), allowed)
