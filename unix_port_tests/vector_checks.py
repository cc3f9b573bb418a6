"""Judge the entries of tests/data/vectors.json by the wire layer, on CPython and MicroPython alike.

`differences(vector, keys)` parses (or calculates) and returns what is not as the vector says, one
text each; it also builds the datagram again, where a sender of ours could have made it.
"""

from haaro.wire import auth, extensions, ipv4, message, prefixes, realms
from haaro.wire import registration as reg
from haaro.wire import return_routability as rr
from haaro.wire import revocation as rev
from haaro.wire.errors import WireError

FLAGS = "SBDMGrTx"

# No sender of ours makes: unknown extensions, octets after the authenticator, Reserved set.
ONLY_RECEIVED = ("rrq-unknown-skippable", "ext-after-auth", "coti-reserved-set")


def load(path):
    """Return (keys as octets, vectors) of the file."""
    import json

    with open(path) as file:
        content = json.load(file)
    keys = content["keys"]
    for name in keys:
        if name != "spi":
            keys[name] = bytes.fromhex(keys[name])
    return keys, content["vectors"]


def differences(vector, keys):
    """Return a list of texts, empty when the wire layer agrees with the vector both ways."""
    expect = vector["expect"]
    if vector["kind"] == "calc":
        return compare("out", calculate(vector["fn"], vector["args"]), expect["out"])
    data = bytes.fromhex(vector["hex"])
    key = keys[vector.get("key", "krm")]
    try:
        parsed = message.parse(data)
    except WireError as e:
        return compare("verdict", "discard", expect["verdict"]) + compare(
            "reason", e.reason, expect.get("reason")
        )
    verdict, reason = judge(parsed, keys, key)
    found = compare("verdict", verdict, expect["verdict"])
    if "reason" in expect:
        found += compare("reason", reason, expect["reason"])
    if expect["verdict"] != "ok":
        return found
    found += compare("type", parsed.type, expect["type"])
    found += compare("fields", fields(parsed), expect["fields"])
    found += compare(
        "exts", [ext_fields(e) for e in getattr(parsed, "extensions", [])], expect["exts"]
    )
    for name in ("unauthenticated", "ignored"):
        found += compare(name, [list(pair) for pair in getattr(parsed, name, [])], expect[name])
    if vector["id"] not in ONLY_RECEIVED:
        found += compare("built", bytes(build(parsed, keys, key)).hex(), vector["hex"])
    return found


def compare(what, got, expected):
    """Return [] or one text."""
    return [] if got == expected else ["%s: got %r, expected %r" % (what, got, expected)]


def judge(parsed, keys, krm):
    """Return (verdict, reason) of a parsed message."""
    if not isinstance(parsed, reg.ExtendedMessage):
        return "ok", None
    if parsed.authenticator is None:
        return "auth_fail", "no_auth_ext"
    if isinstance(parsed.authenticator, reg.MobileHomeAuthentication):
        known = parsed.authenticator.spi == keys["spi"]
        right = known and auth.verify_mobile_home(parsed, auth.HMAC_MD5, keys["mobile_home"])
    else:
        right = auth.verify_mobile_correspondent(parsed, krm)
    if not right:
        return "auth_fail", "bad_authenticator"
    if parsed.bad:
        return "bad_ext", parsed.bad[0][2]
    return "ok", None


def fields(m):
    """Return the fixed fields as the vectors name them."""
    out = {}
    if isinstance(m, reg.RegistrationRequest):
        out["flags"] = "".join([FLAGS[i] for i in range(8) if m.flags << i & 0x80])
        out["coa"] = ipv4.text(m.care_of_address)
    if isinstance(m, reg.RegistrationReply):
        out["code"] = m.code
    if isinstance(m, (reg.RegistrationRequest, reg.RegistrationReply)):
        out["lifetime"] = m.lifetime
        out["ha"] = ipv4.text(m.home_agent)
        out["ident"] = int.from_bytes(m.identification, "big")
    if hasattr(m, "home_address"):
        out["hoa"] = ipv4.text(m.home_address)
    if isinstance(m, rr.TestMessage):
        out["cookie"] = m.cookie.hex()
        if m.token is not None:
            out["token"] = m.token.hex()
            out["nonce_index"] = m.nonce_index
    if isinstance(m, (rev.Revocation, rev.RevocationAck)):
        out["i"] = m.i
        out["rev_id"] = m.identifier
    if isinstance(m, rev.Revocation):
        out["a"] = m.a
        out["home_domain"] = ipv4.text(m.home_domain)
        out["foreign_domain"] = ipv4.text(m.foreign_domain)
    if m.type == message.TUNNEL_DATA:
        out["next_header"] = m.next_header
        out["inner"] = m.payload.hex()
    return out


def ext_fields(e):
    """Return one extension as the vectors write it."""
    if isinstance(e, extensions.MobileNetworkRequest):
        return {"type": 148, "subtype": 0, "plen": e.plen, "prefix": ipv4.text(e.prefix)}
    if isinstance(e, extensions.MobileNetworkAck):
        return {
            "type": 148,
            "subtype": 2 if e.implicit else 1,
            "code": e.code,
            "plen": e.plen,
            "prefix": ipv4.text(e.prefix),
            "implicit": e.implicit,
        }
    if isinstance(e, extensions.UdpTunnelRequest):
        return {
            "type": 144,
            "subtype": 0,
            "force": e.force,
            "through_fa": e.through_fa,
            "encap": e.encapsulation,
        }
    if isinstance(e, extensions.UdpTunnelReply):
        return {
            "type": 44,
            "subtype": 0,
            "code": e.code,
            "will_tunnel": e.will_tunnel,
            "forced": e.forced,
            "keepalive": e.keepalive,
        }
    if isinstance(e, extensions.RouteOptimizationCapability):
        return {
            "type": 153,
            "subtype": 1,
            "a": e.advertise,
            "r": e.request,
            "s": e.solicit,
            "o": e.outbound_only,
            "hoa": ipv4.text(e.home_address) if e.home_address else None,
        }
    if isinstance(e, extensions.RouteOptimizationReply):
        return {
            "type": 49,
            "subtype": 1,
            "o": e.outbound_only,
            "n": e.nat,
            "s": e.solicited,
            "code": e.code,
            "accepted": e.accepted,
        }
    if isinstance(e, extensions.CareOfAddresses):
        return {"type": 49, "subtype": 3, "coas": [ipv4.text(a) for a in e.addresses]}
    if isinstance(e, extensions.RevocationSupport):
        return {"type": 137, "subtype": None, "i": e.i, "timestamp": e.timestamp}
    if isinstance(e, extensions.PrefixAdvertisement):
        routers = [
            {
                "hoa": ipv4.text(hoa),
                "outbound_only": outbound_only,
                "prefixes": [[ipv4.text(p), plen, realm] for p, plen, realm in networks],
            }
            for hoa, outbound_only, networks in e.routers()
        ]
        return {"type": 50, "subtype": 1, "routers": routers}
    return {"unexpected": repr(e)}


def build(m, keys, krm):
    """Return the datagram built again from what was parsed."""
    if isinstance(m, rr.TestMessage):
        if m.token is None:
            return rr.build_init(m.type, m.cookie)
        return rr.build_test(m.type, m.nonce_index, m.cookie, m.token)
    if m.type == message.TUNNEL_DATA:
        return b"\x04" + bytes([m.next_header]) + b"\x00\x00" + m.payload
    if isinstance(m, reg.RegistrationRequest):
        out = reg.build_request(
            m.flags, m.lifetime, m.home_address, m.home_agent, m.care_of_address, m.identification
        )
    elif isinstance(m, reg.RegistrationReply):
        out = reg.build_reply(m.code, m.lifetime, m.home_address, m.home_agent, m.identification)
    elif isinstance(m, rev.Revocation):
        out = rev.build_revocation(
            m.a, m.i, m.home_address, m.home_domain, m.foreign_domain, m.identifier
        )
    else:
        out = rev.build_revocation_ack(m.i, m.home_address, m.identifier)
    for e in m.extensions:
        append(out, e)
    a = m.authenticator
    if isinstance(a, reg.MobileHomeAuthentication):
        auth.append_mobile_home(out, a.spi, auth.HMAC_MD5, keys["mobile_home"])
    else:
        auth.append_mobile_correspondent(out, krm, a.home_nonce_index, a.care_of_nonce_index)
    return out


def append(out, e):
    """Append extension `e` again to the bytearray `out`."""
    if isinstance(e, extensions.MobileNetworkRequest):
        extensions.append_mobile_network_request(out, e.prefix, e.plen)
    elif isinstance(e, extensions.MobileNetworkAck):
        extensions.append_mobile_network_ack(out, e.code, e.prefix, e.plen, e.implicit)
    elif isinstance(e, extensions.UdpTunnelRequest):
        extensions.append_udp_tunnel_request(out, e.force, e.encapsulation, e.through_fa)
    elif isinstance(e, extensions.UdpTunnelReply):
        extensions.append_udp_tunnel_reply(out, e.code, e.forced, e.keepalive)
    elif isinstance(e, extensions.RouteOptimizationCapability):
        extensions.append_route_optimization_capability(
            out, e.advertise, e.request, e.outbound_only, e.home_address
        )
    elif isinstance(e, extensions.RouteOptimizationReply):
        extensions.append_route_optimization_reply(out, e.outbound_only, e.nat, e.solicited, e.code)
    elif isinstance(e, extensions.CareOfAddresses):
        extensions.append_care_of_addresses(out, e.addresses)
    elif isinstance(e, extensions.RevocationSupport):
        extensions.append_revocation_support(out, e.i, e.timestamp)
    elif isinstance(e, extensions.Nai):
        extensions.append_nai(out, e.value)
    elif isinstance(e, extensions.PrefixAdvertisement):
        data, _ = prefixes.build_advertisement(list(e.routers()))
        extensions.append_prefix_advertisement(out, data)


def calculate(name, args):
    """Return the output of a "calc" vector in its own notation."""
    if name == "home_token" or name == "careof_token":
        kcr, addr, nonce = args
        token = rr.home_keygen_token if name == "home_token" else rr.care_of_keygen_token
        return token(bytes.fromhex(kcr), ipv4.address(addr), bytes.fromhex(nonce)).hex()
    if name == "krm":
        tokens = [bytes.fromhex(a) for a in args]
        return (
            rr.krm(tokens[0], tokens[1]) if tokens[1:] else rr.krm_deregistration(tokens[0])
        ).hex()
    if name == "realm_encode":
        encoder = realms.RealmEncoder()
        return [encoder.encode(realm).hex() for realm in args[0]]
    if name == "prefix_encode":
        deltas = prefixes.PrefixEncoder()
        out = []
        for addr, plen in args[0]:
            delta, octets = deltas.encode(ipv4.address(addr), plen)
            out.append([delta, octets.hex()])
        return out
    return "unknown calculation " + name
