"""A report as lines for people, in the RFCs' words; whatever a peer chose is escaped."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from haaro_host.decode import words
from haaro_host.decode.report import Report
from haaro_host.reply_codes import describe

_WIDTH = 23
_INDENT = "  "
_INFINITY = 0xFFFF
_HEX_SHOWN = 32  # octets of a payload
_REFUSED = {"discard": "Discarded", "auth_fail": "Not authentic", "bad_ext": "Bad extension"}
_NTP_EPOCHS = (datetime(1900, 1, 1, tzinfo=UTC), datetime(2036, 2, 7, 6, 28, 16, tzinfo=UTC))


def escaped(text: str) -> str:
    """Return `text` with all but printable ASCII, and the backslash, as \\xNN or \\uNNNN."""
    return "".join(
        c if " " <= c <= "~" and c != "\\" else f"\\x{ord(c):02x}" if c <= "\xff"
        else f"\\u{ord(c):04x}"
        for c in text
    )  # fmt: skip


def lines(found: Report) -> Iterator[str]:
    """Yield the lines of one report: what and whence, the fields, the verdict."""
    yield _headline(found)
    yield from (_INDENT + line for line in _body(found))


def moment(time: str) -> str:
    """Return an ISO time as it is shown: with a space, without the zone's letter."""
    return time.replace("T", " ").rstrip("Z")


def _headline(found: Report) -> str:
    source = found.datagram.source or {}
    parts = []
    if "line" in source:
        parts.append(f"line {source['line']}")
    if "frame" in source:
        parts.append(f"#{source['frame']}")
    if source.get("time"):
        parts.append(moment(source["time"]))
    if "src" in source:
        parts.append(f"{source['src']}:{source['sport']} > {source['dst']}:{source['dport']}")
    name = words.message_name(found.type)
    kind = "" if found.type is None else f" ({found.type})"
    parts.append(f"{name}{kind}, {found.datagram.octets} octets: {found.verdict}")
    return " ".join(parts)


def _body(found: Report) -> Iterator[str]:
    yield from _fields(found)
    for start, what, index in found.layout:
        yield from _extension(found, start, what, index)
    for note in found.notes:
        yield _row("Note", note)
    if found.reason is not None:
        yield _row(_REFUSED[found.verdict], f"{found.reason} at {_place(found)}")
        yield _row("", words.reason_text(found.reason))
    if found.inner is not None:
        yield from lines(found.inner)


def _place(found: Report) -> str:
    """Return where it stopped, and the octets that are there when parsing could not go on."""
    if found.reason in words.OF_TEXT:
        return f"character {found.offset}"
    there = found.datagram.data[found.offset or 0 :][:8] if found.verdict == "discard" else b""
    return f"octet {found.offset}" + (f": {there.hex(' ')}" if there else "")


def _row(name: str, value: object) -> str:
    return f"{name:<{_WIDTH}} {value}".rstrip()


def _fields(found: Report) -> Iterator[str]:
    values = found.fields
    home_test = found.type in (24, 26)
    for key, value in values.items():
        if key == "inner":
            shown = value[: 2 * _HEX_SHOWN] + ("..." if len(value) > 2 * _HEX_SHOWN else "")
            yield _row("Tunnelled packet", found.tunnelled or shown or "empty")
        elif key == "cookie":
            yield _row("Home Init Cookie" if home_test else "Care-of Init Cookie", value)
        elif key == "token":
            yield _row("Home Keygen Token" if home_test else "Care-of Keygen Token", value)
        elif key == "nonce_index":
            yield _row("Nonce Index" if home_test else "Care-of Nonce Index", value)
        elif key in ("a", "i"):
            yield _row("A bit: home agent sends" if key == "a" else "I bit: Inform", _yes(value))
        else:
            name, show = _FIELDS[key]
            yield _row(name, show(value))


def _flags(value: str) -> str:
    return f"{value or '-'}  ({', '.join(words.FLAGS[c] for c in value)})" if value else "none"


def _lifetime(value: int) -> str:
    special = {0: "deregistration", _INFINITY: "infinity"}.get(value)
    return f"{value} s ({special})" if special else f"{value} s"


def _identification(value: int) -> str:
    seconds, fraction = value >> 32, value & 0xFFFFFFFF
    # RFC 5905 6: a timestamp whose first bit is clear is of the era that begins in 2036.
    epoch = _NTP_EPOCHS[not seconds >> 31]
    time = epoch + timedelta(seconds=seconds, microseconds=fraction * 1_000_000 >> 32)
    return f"{value:016x} (as a timestamp {time:%Y-%m-%d %H:%M:%S.%f} UTC)"


def _code(table: dict[int, str], value: int) -> str:
    return f"{value} ({table.get(value, 'not assigned')})"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


_FIELDS: dict[str, tuple[str, Any]] = {
    "flags": ("Flags", _flags),
    "code": ("Code", lambda value: f"{value} ({describe(value)})"),
    "lifetime": ("Lifetime", _lifetime),
    "hoa": ("Home Address", str),
    "ha": ("Home Agent", str),
    "coa": ("Care-of Address", str),
    "ident": ("Identification", _identification),
    "home_domain": ("Home Domain Address", str),
    "foreign_domain": ("Foreign Domain Address", str),
    "rev_id": ("Revocation Identifier", str),
    "next_header": ("Next Header", lambda value: _code(words.PROTOCOLS, value)),
}


def _extension(found: Report, start: int, what: str, index: int) -> Iterator[str]:
    if what == "authentication" and found.authentication:
        yield from _authentication(found.authentication)
    elif what == "extensions":
        one = found.extensions[index]
        yield f"{words.extension_name(one['type'], one['subtype'])} at octet {start}"
        yield from (_INDENT + _row(name, value) for name, value in _EXTENSIONS[one["type"]](one))
    elif what == "bad":
        bad = found.bad[index]
        name = words.extension_name(bad["type"], bad["subtype"])
        yield f"{name} at octet {start}: bad, {bad['reason']}"
        yield _INDENT + words.reason_text(bad["reason"])
    else:
        kind, subtype = getattr(found, what)[index]
        why = words.SKIPPED if what == "ignored" else words.NOT_PROTECTED
        yield f"{words.extension_name(kind, subtype)} at octet {start}: {why}"


_Rows = Iterator[tuple[str, object]]


def _mobile_network(one: dict[str, Any]) -> _Rows:
    if "code" in one:
        yield "Code", _code(words.MOBILE_NETWORK_CODES, one["code"])
    yield "Prefix", f"{one['prefix']}/{one['plen']}"


def _udp_tunnel_request(one: dict[str, Any]) -> _Rows:
    yield "F: Force", _yes(one["force"])
    yield "R: Register with FA", _yes(one["through_fa"])
    yield "Encapsulation", _code(words.ENCAPSULATIONS, one["encap"])


def _udp_tunnel_reply(one: dict[str, Any]) -> _Rows:
    meaning = "will do UDP tunnelling" if one["will_tunnel"] else "UDP tunnelling declined"
    yield "Code", f"{one['code']} ({meaning})"
    yield "F: Forced", _yes(one["forced"])
    yield "Keepalive Interval", f"{one['keepalive']} s"


def _capability(one: dict[str, Any]) -> _Rows:
    yield "A: Advertise", _yes(one["a"])
    yield "R: Request", _yes(one["r"])
    yield "S: Solicit", _yes(one["s"])
    yield "O: Outbound only", _yes(one["o"])
    if one["hoa"]:
        yield "Solicited router's HoA", one["hoa"]


def _route_optimization(one: dict[str, Any]) -> _Rows:
    if one["subtype"] == 3:
        yield from (("Care-of Address", each) for each in one["coas"])
        return
    yield "O: Outbound only", _yes(one["o"])
    yield "N: NAT was detected", _yes(one["n"])
    yield "S: Solicited", _yes(one["s"])
    yield "Code", _code(words.ROUTE_OPTIMIZATION_CODES, one["code"])


def _advertisement(one: dict[str, Any]) -> _Rows:
    for router in one["routers"]:
        outbound = " (outbound connections only)" if router["outbound_only"] else ""
        yield "Mobile Router HoA", router["hoa"] + outbound
        for prefix, plen, realm in router["prefixes"]:
            named = f" realm {escaped(realm)}" if realm else ""
            yield "  Prefix", f"{prefix}/{plen}{named}"


def _revocation_support(one: dict[str, Any]) -> _Rows:
    yield "I bit: Inform", _yes(one["i"])
    yield "Timestamp", one["timestamp"]


def _nai(one: dict[str, Any]) -> _Rows:
    yield "NAI", escaped(one["nai"])


_EXTENSIONS: dict[int, Any] = {
    44: _udp_tunnel_reply,
    49: _route_optimization,
    50: _advertisement,
    131: _nai,
    137: _revocation_support,
    144: _udp_tunnel_request,
    148: _mobile_network,
    153: _capability,
}

_RESULTS = {
    "right": "right",
    "wrong": "wrong with each key given",
    "not_checked": "not checked: no key for it was given",
    "several": "not checked: there is more than one",
}


def _authentication(one: dict[str, Any]) -> Iterator[str]:
    yield f"{words.extension_name(*one['extension'])} at octet {one['offset']}"
    if one["spi"] is not None:
        yield _INDENT + _row("SPI", one["spi"])
    else:
        yield _INDENT + _row("Home Nonce Index", one["home_nonce_index"])
        yield _INDENT + _row("Care-of Nonce Index", one["care_of_nonce_index"])
    yield _INDENT + _row("Authenticator", one["authenticator"])
    result = _RESULTS[one["result"]]
    if one["result"] == "right":
        result += f", by {one['algorithm']} with key {one['key']} (a fingerprint)"
    yield _INDENT + _row("Result", result)
