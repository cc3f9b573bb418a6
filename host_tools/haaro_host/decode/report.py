"""One datagram becomes one report: what it says, whether it is authentic, why it would be refused.

The verdict is that of haaro's own wire layer. What this module adds is the place of each thing in
the datagram, which a receiver has no use for and a person has.
"""

from dataclasses import dataclass, field
from typing import Any

from haaro.wire import message
from haaro.wire import registration as reg
from haaro.wire.errors import WireError
from haaro.wire.extensions import MOBILE_NETWORK, Authenticator, walk
from haaro.wire.return_routability import TestMessage
from haaro_host.decode import words
from haaro_host.decode.fields import extension_fields, message_fields
from haaro_host.decode.keys import Keys
from haaro_host.decode.packets import Datagram, tunnelled

SCHEMA = "haaro.decode/1"
MAX_OCTETS = 65535
MAX_DEPTH = 4  # of messages within tunnel data within tunnel data

_FIXED = {1: 24, 3: 20, 4: 4, 7: 20, 15: 12, 24: 10, 25: 10, 26: 20, 27: 20}
_NONCE_HINTS = (reg.EXPIRED_HOME_NONCE, reg.EXPIRED_CARE_OF_NONCE, reg.EXPIRED_NONCES)


@dataclass
class Report:
    """What one datagram says. `layout` and `tunnelled` are for people, the rest is in `as_json`.

    `layout`: (first octet, what, index) in the datagram's order, where `what` names the list that
    has the entry ("extensions", "bad", "ignored", "unauthenticated"), or is "authentication".
    """

    datagram: Datagram
    verdict: str = "ok"
    reason: str | None = None
    offset: int | None = None
    type: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    extensions: list[dict[str, Any]] = field(default_factory=list)
    unauthenticated: list[list[int | None]] = field(default_factory=list)
    ignored: list[list[int | None]] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)
    authentication: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    inner: "Report | None" = None
    layout: list[tuple[int, str, int]] = field(default_factory=list)
    tunnelled: str = ""

    @property
    def accepted(self) -> bool:
        """True when neither this nor a message inside it would be refused."""
        return self.verdict == "ok" and (self.inner is None or self.inner.accepted)

    def as_json(self) -> dict[str, Any]:
        """Return the object of schema haaro.decode/1."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "reason": self.reason,
            "offset": self.offset,
            "type": self.type,
            "fields": self.fields,
            "extensions": self.extensions,
            "unauthenticated": self.unauthenticated,
            "ignored": self.ignored,
            "bad": self.bad,
            "authentication": self.authentication,
            "notes": self.notes,
            "octets": self.datagram.octets,
            "source": self.datagram.source,
            "inner": None if self.inner is None else self.inner.as_json(),
        }


def report(datagram: Datagram, keys: Keys, depth: int = 1) -> Report:
    """Decode `datagram`. Never raises, whatever it holds."""
    found = Report(datagram)
    data = datagram.data
    found.type = data[0] if data else None
    if datagram.fault is not None:
        found.verdict, found.reason, found.offset = "discard", datagram.fault, datagram.fault_at
        if datagram.fault == "captured_short" and found.type == message.TUNNEL_DATA and data[3:]:
            found.verdict, found.reason, found.offset = "ok", None, None
            found.notes.append(f"{len(data)} of {datagram.octets} octets were captured")
        else:
            _beginning(found, len(data))
            return found
    try:
        parsed = message.parse(data)
    except WireError as error:
        found.verdict, found.reason = "discard", error.reason
        found.offset = stopped_at(data, error.reason)
        _beginning(found, found.offset)
        return found
    found.fields = message_fields(parsed)
    if isinstance(parsed, reg.ExtendedMessage):
        _extensions(found, parsed)
        _judge(found, parsed, keys)
    elif isinstance(parsed, TestMessage):
        _unprotected(found, data)
    elif depth < MAX_DEPTH:
        found.tunnelled, inside = tunnelled(datagram, parsed.next_header)
        if inside is not None:
            found.inner = report(inside, keys, depth + 1)
    return found


def stopped_at(data: bytes, reason: str) -> int:
    """Return the offset of the octet or extension that made parsing end with `reason`."""
    fixed = _FIXED.get(data[0], 0) if data else 0
    if not fixed:
        return 0
    if len(data) < fixed:
        return len(data)
    at = fixed
    try:
        for cls, _, _, start, _, end in walk(data, fixed):
            if cls is Authenticator and reason == "auth_ext_length":
                return start
            at = end
    except WireError:
        pass
    while at < len(data) and data[at] == 0:
        at += 1
    return at


def _beginning(found: Report, end: int) -> None:
    """Show what stands before octet `end`, where the rest could not be read."""
    data = found.datagram.data
    for size in (end, _FIXED.get(data[0], 0) if data else 0):
        if not 0 < size <= len(data):
            continue
        try:
            parsed = message.parse(data[:size])
        except WireError:
            continue
        found.fields = message_fields(parsed)
        if isinstance(parsed, reg.ExtendedMessage):
            found.authentication = _authentication(parsed)
            _extensions(found, parsed)
        elif isinstance(parsed, TestMessage):
            _unprotected(found, data[:size])
        return


def _judge(found: Report, parsed: reg.ExtendedMessage, keys: Keys) -> None:
    """Set the authentication and the verdict; authentication goes first, as at a receiver."""
    shown = found.authentication = _authentication(parsed)
    if parsed.authenticators == 1:
        shown["result"], shown["algorithm"], shown["key"] = keys.check(parsed)
    if parsed.authenticator is None:
        _refuse(found, "auth_fail", "no_auth_ext", len(parsed.raw))
        if isinstance(parsed, reg.RegistrationReply) and parsed.code in _NONCE_HINTS:
            found.notes.append(words.NONCE_HINT)
    elif parsed.authenticators > 1:
        _refuse(found, "auth_fail", "several_authenticators", _second_authenticator(parsed))
    elif shown["result"] == "wrong":
        _refuse(found, "auth_fail", "bad_authenticator", shown["offset"])
    elif found.bad:
        _refuse(found, "bad_ext", found.bad[0]["reason"], found.bad[0]["offset"])


def _refuse(found: Report, verdict: str, reason: str, offset: int) -> None:
    found.verdict, found.reason, found.offset = verdict, reason, offset


def _second_authenticator(parsed: reg.ExtendedMessage) -> int:
    places = [each[3] for each in walk(parsed.raw, _FIXED[parsed.type]) if each[0] is Authenticator]
    return int(places[1])


def _authentication(parsed: reg.ExtendedMessage) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "extension": None,
        "offset": None,
        "spi": None,
        "home_nonce_index": None,
        "care_of_nonce_index": None,
        "authenticator": None,
        "result": "absent",
        "algorithm": None,
        "key": None,
    }
    one = parsed.authenticator
    if one is None:
        return shown
    shown.update(offset=one.offset, authenticator=one.value.hex())
    shown["result"] = "several" if parsed.authenticators > 1 else "not_checked"
    if isinstance(one, reg.MobileHomeAuthentication):
        shown.update(extension=[32, None], spi=one.spi)
    else:
        shown.update(extension=[49, 2], home_nonce_index=one.home_nonce_index)
        shown.update(care_of_nonce_index=one.care_of_nonce_index)
    return shown


def _extensions(found: Report, parsed: reg.ExtendedMessage) -> None:
    """Fill the lists of extensions, and say where in the datagram each of their entries is."""
    found.extensions = [extension_fields(each) for each in parsed.extensions]
    found.unauthenticated = [list(each) for each in parsed.unauthenticated]
    found.ignored = [list(each) for each in parsed.ignored]
    at = {"extensions": 0, "bad": 0, "ignored": 0, "unauthenticated": 0}
    taken: set[tuple[int, int | None]] = set()
    after = False
    for cls, kind, subtype, start, _, end in walk(parsed.raw, _FIXED[parsed.type]):
        if cls is Authenticator and not after:
            after = True
            found.layout.append((start, "authentication", 0))
            continue
        if after or parsed.authenticator is None:
            what = "unauthenticated"
        elif cls is None:
            what = "ignored"
        elif (kind, subtype) in taken and kind != MOBILE_NETWORK:
            what = "bad"
        else:
            what = _alone(parsed, start, end)
        if what == "bad":
            reason = parsed.bad[at["bad"]][2]
            found.bad.append({"type": kind, "subtype": subtype, "reason": reason, "offset": start})
        elif what == "extensions":
            taken.add((kind, subtype))
        found.layout.append((start, what, at[what]))
        at[what] += 1


def _alone(parsed: reg.ExtendedMessage, start: int, end: int) -> str:
    """Return the list in which the wire layer puts the protected extension at raw[start:end].

    Its lists have no offsets: the same message with nothing but this extension tells.
    """
    if not parsed.bad and not parsed.ignored:
        return "extensions"
    raw = parsed.raw
    assert parsed.authenticator is not None
    off = parsed.authenticator.offset
    authenticator = raw[off : off + 2 + raw[off + 1]]
    alone = message.parse(raw[: _FIXED[parsed.type]] + raw[start:end] + authenticator)
    return "bad" if alone.bad else "ignored" if alone.ignored else "extensions"


def _unprotected(found: Report, data: bytes) -> None:
    """List what follows the fixed part of HoTI, CoTI, HoT and CoT: walked, never acted upon."""
    for _, kind, subtype, start, _, _ in walk(data, _FIXED[data[0]]):
        found.layout.append((start, "unauthenticated", len(found.unauthenticated)))
        found.unauthenticated.append([kind, subtype])
