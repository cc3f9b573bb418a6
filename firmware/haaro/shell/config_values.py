"""What single values of router.json and its secrets file may be, and how a wrong one is reported.

Owns reading and checking by a table of keys. Called by config and secrets, and leaves the heap with
them.
"""

import json

from haaro.wire import ipv4

REQUIRED = object()
_MIN_KEY_OCTETS = 16
_KRM_OCTETS = 20


class ConfigError(ValueError):
    """A file of the configuration cannot be used; the text is meant for the operator."""

    def __init__(self, path: str, key: str, value: object, allowed: str) -> None:
        super().__init__("%s: %s: %s: %s" % (path, key, value, allowed))


def shown_value(value: object) -> str:
    return repr(value)[:60]


def hidden(value: object) -> str:
    """Stand in for a value of the secrets file: a key in the wrong place must not be printed."""
    if isinstance(value, int):
        return str(value)
    return "<not shown, %d characters>" % len(str(value))


def read(path: str) -> object:
    try:
        with open(path) as file:
            return json.load(file)
    except OSError as error:
        raise ConfigError(path, "(file)", error, "cannot be read") from None
    except ValueError:
        raise ConfigError(path, "(file)", "syntax", "is not valid JSON") from None


def beside(path: str, name: str) -> str:
    if name.startswith("/") or "/" not in path:
        return name
    return path[: path.rfind("/") + 1] + name


def take(path: str, where: str, table: object, spec: dict, shown: object = shown_value) -> dict:
    """Return every key of `spec` from `table`, checked; a default fills what may be absent."""
    if not isinstance(table, dict):
        name = where[:-1] or "(top level)"
        raise ConfigError(path, name, shown(table), "must be an object { ... }")  # type: ignore[operator]
    allowed = "allowed here: " + ", ".join(sorted(spec))
    for key in table:
        if key not in spec:
            raise ConfigError(path, where + key, "unknown key", allowed)
    taken = {}
    for key, (rule, default) in spec.items():
        if key in table:
            taken[key] = check(path, where + key, table[key], rule, shown)
        elif default is REQUIRED:
            raise ConfigError(path, where + key, "missing", "this key is required")
        else:
            taken[key] = default
    return taken


def check(path: str, where: str, value: object, rule: object, shown: object) -> object:
    try:
        return rule(value)  # type: ignore[operator]
    except ValueError as error:
        raise ConfigError(path, where, shown(value), str(error)) from None  # type: ignore[operator]


def number(low: int, high: int) -> object:
    def rule(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError("must be a whole number from %d to %d" % (low, high))
        return value

    return rule


def choice(*allowed: object) -> object:
    def rule(value: object) -> object:
        # 1 == True in Python: a number where true or false belongs is a mistake, not a synonym.
        if not any(value == item and isinstance(value, type(item)) for item in allowed):
            raise ValueError("must be one of: " + ", ".join(json.dumps(item) for item in allowed))
        return value

    return rule


def list_of(rule: object, least: int, most: int) -> object:
    def check_list(value: object) -> list:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise ValueError("must be a list of %d to %d entries" % (least, most))
        checked = []
        for i, item in enumerate(value):
            try:
                checked.append(rule(item))  # type: ignore[operator]
            except ValueError as error:
                raise ValueError("entry %d %s" % (i, error)) from None
        return checked

    return check_list


def lan_interfaces(value: object) -> list | None:
    """Names of interfaces; "auto" is None."""
    if value == "auto":
        return None
    try:
        return list_of(text_of(15), 0, 8)(value)  # type: ignore[operator]
    except ValueError:
        raise ValueError('must be "auto" or a list of 0 to 8 names of interfaces') from None


def text_of(limit: int) -> object:
    def rule(value: object) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= limit:
            raise ValueError("must be a text of 1 to %d characters" % limit)
        return value

    return rule


def quotable(value: object) -> str:
    """What goes between the quotes of an AT command."""
    if not isinstance(value, str) or len(value) > 64:
        raise ValueError("must be a text of at most 64 characters")
    if not all(" " <= letter <= "~" and letter not in '"\\' for letter in value):
        raise ValueError("must be ASCII without quotes and backslashes")
    return value


def realm(value: object) -> str:
    # RFC 6521 4.2: labels of 1 to 127 octets between dots; [A22] 253 in all.
    if not isinstance(value, str) or len(value) > 253:
        raise ValueError("must be a text of at most 253 characters")
    if value and not all(0 < len(label) < 128 for label in value.split(".")):
        raise ValueError("must have 1 to 127 characters between its dots")
    return value


def anything(value: object) -> object:
    return value


def an_address(value: object) -> bytes:
    try:
        return _unicast(ipv4.address(value))  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        raise ValueError("must be an IPv4 unicast address such as 192.0.2.1") from None


def _unicast(address: bytes) -> bytes:
    if address[0] in (0, 127) or address[0] >= 224:
        raise ValueError("not unicast")
    return address


def a_network(value: object) -> tuple:
    try:
        net, plen = ipv4.prefix(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError("must be an IPv4 prefix such as 10.1.0.0/24 (%s)" % error) from None
    if not plen:
        raise ValueError("0.0.0.0/0 cannot be a mobile network; length must be 1 to 32")
    return net, plen


def _hex(value: object, least: int, most: int, what: str) -> bytes:
    try:
        octets = bytes.fromhex(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise ValueError("%s must be hexadecimal digits" % what) from None
    if not least <= len(octets) <= most:
        raise ValueError(
            "%s must be %d to %d octets, this is %d" % (what, least, most, len(octets))
        )
    return octets


def key_octets(value: object) -> bytes:
    return _hex(value, _MIN_KEY_OCTETS, 64, "key")


def krm_octets(value: object) -> bytes:
    return _hex(value, _KRM_OCTETS, _KRM_OCTETS, "krm")


def public_key(value: object) -> bytes:
    return _hex(value, 32, 32, "an Ed25519 key")


def update_url(value: object) -> str:
    """Empty, or where `haaro ota serve` listens: a box asks no name server."""
    try:
        if value:
            kind, _, rest = value.partition("://")  # type: ignore[attr-defined]
            host, _, port = rest.partition("/")[0].partition(":")
            ipv4.address(host)
            if kind != "http" or not 0 < int(port or 80) < 65536 or len(rest) > 80:
                raise ValueError
        elif value != "":
            raise ValueError
    except (ValueError, TypeError, AttributeError):
        raise ValueError('must be like "http://192.0.2.1:8434", or ""') from None
    return value  # type: ignore[return-value]


def console_hash(value: object) -> object:
    """PBKDF2-HMAC-SHA256 of the console's password: {"salt": HEX, "rounds": N, "hash": HEX}."""
    try:
        _hex(value["salt"], 8, 64, "salt")  # type: ignore[index]
        _hex(value["hash"], 32, 32, "hash")  # type: ignore[index]
        number(1, 100000)(value["rounds"])  # type: ignore[index, operator]
    except (KeyError, TypeError):
        raise ValueError("must have salt, rounds and hash") from None
    return value
