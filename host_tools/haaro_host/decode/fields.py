"""Message and extension objects of the wire layer as JSON-able dicts: the schema's stable names."""

from collections.abc import Callable
from typing import Any

from haaro.wire import extensions as ext
from haaro.wire import registration as reg
from haaro.wire.ipv4 import text
from haaro.wire.return_routability import TestMessage
from haaro.wire.revocation import Revocation, RevocationAck
from haaro.wire.udp_tunnel import TunnelData

_FLAGS = "SBDMGrTx"


def message_fields(parsed: Any) -> dict[str, Any]:
    """Return the fixed part of a message, addresses dotted, octet strings in hex."""
    if isinstance(parsed, TestMessage):
        out: dict[str, Any] = {"cookie": parsed.cookie.hex()}
        if parsed.token is not None:
            out = {"nonce_index": parsed.nonce_index, **out, "token": parsed.token.hex()}
        return out
    if isinstance(parsed, TunnelData):
        return {"next_header": parsed.next_header, "inner": parsed.payload.hex()}
    if isinstance(parsed, Revocation):
        return {
            "a": parsed.a,
            "i": parsed.i,
            "hoa": text(parsed.home_address),
            "home_domain": text(parsed.home_domain),
            "foreign_domain": text(parsed.foreign_domain),
            "rev_id": parsed.identifier,
        }
    if isinstance(parsed, RevocationAck):
        return {"i": parsed.i, "hoa": text(parsed.home_address), "rev_id": parsed.identifier}
    out = {}
    if isinstance(parsed, reg.RegistrationRequest):
        out["flags"] = "".join(c for i, c in enumerate(_FLAGS) if parsed.flags << i & 0x80)
    else:
        out["code"] = parsed.code
    out["lifetime"] = parsed.lifetime
    out["hoa"] = text(parsed.home_address)
    out["ha"] = text(parsed.home_agent)
    if isinstance(parsed, reg.RegistrationRequest):
        out["coa"] = text(parsed.care_of_address)
    out["ident"] = int.from_bytes(parsed.identification, "big")
    return out


def extension_fields(one: Any) -> dict[str, Any]:
    """Return one extension: type, subtype, then its own names."""
    for cls, convert in _EXTENSIONS.items():
        if isinstance(one, cls):
            return convert(one)
    raise TypeError(type(one).__name__)


def _mobile_network_request(one: Any) -> dict[str, Any]:
    return {"type": 148, "subtype": 0, "plen": one.plen, "prefix": text(one.prefix)}


def _mobile_network_ack(one: Any) -> dict[str, Any]:
    return {
        "type": 148,
        "subtype": 2 if one.implicit else 1,
        "code": one.code,
        "plen": one.plen,
        "prefix": text(one.prefix),
        "implicit": one.implicit,
    }


def _udp_tunnel_request(one: Any) -> dict[str, Any]:
    return {
        "type": 144,
        "subtype": 0,
        "force": one.force,
        "through_fa": one.through_fa,
        "encap": one.encapsulation,
    }


def _udp_tunnel_reply(one: Any) -> dict[str, Any]:
    return {
        "type": 44,
        "subtype": 0,
        "code": one.code,
        "will_tunnel": one.will_tunnel,
        "forced": one.forced,
        "keepalive": one.keepalive,
    }


def _capability(one: Any) -> dict[str, Any]:
    return {
        "type": 153,
        "subtype": 1,
        "a": one.advertise,
        "r": one.request,
        "s": one.solicit,
        "o": one.outbound_only,
        "hoa": text(one.home_address) if one.home_address else None,
    }


def _route_optimization_reply(one: Any) -> dict[str, Any]:
    return {
        "type": 49,
        "subtype": 1,
        "o": one.outbound_only,
        "n": one.nat,
        "s": one.solicited,
        "code": one.code,
        "accepted": one.accepted,
    }


def _care_of_addresses(one: Any) -> dict[str, Any]:
    return {"type": 49, "subtype": 3, "coas": [text(each) for each in one.addresses]}


def _advertisement(one: Any) -> dict[str, Any]:
    routers = [
        {
            "hoa": text(home_address),
            "outbound_only": outbound_only,
            "prefixes": [[text(prefix), plen, realm] for prefix, plen, realm in networks],
        }
        for home_address, outbound_only, networks in one.routers()
    ]
    return {"type": 50, "subtype": 1, "routers": routers}


def _revocation_support(one: Any) -> dict[str, Any]:
    return {"type": 137, "subtype": None, "i": one.i, "timestamp": one.timestamp}


def _nai(one: Any) -> dict[str, Any]:
    # One character an octet, as in realms.
    return {"type": 131, "subtype": None, "nai": bytes(one.value).decode("latin-1")}


_EXTENSIONS: dict[type, Callable[[Any], dict[str, Any]]] = {
    ext.MobileNetworkRequest: _mobile_network_request,
    ext.MobileNetworkAck: _mobile_network_ack,
    ext.UdpTunnelRequest: _udp_tunnel_request,
    ext.UdpTunnelReply: _udp_tunnel_reply,
    ext.RouteOptimizationCapability: _capability,
    ext.RouteOptimizationReply: _route_optimization_reply,
    ext.CareOfAddresses: _care_of_addresses,
    ext.PrefixAdvertisement: _advertisement,
    ext.RevocationSupport: _revocation_support,
    ext.Nai: _nai,
}
