"""The status report: plain data for JSON, one reason for each peer, and never a secret. Reads
only.
"""

from haaro.core import encapsulation, ro_cache
from haaro.core.forwarding import direct_networks
from haaro.core.return_routability import UNREACHED_FROM_UPLINK
from haaro.core.uplink_policy import why
from haaro.wire.ipv4 import text


def _network(prefix: bytes, plen: int) -> str:
    return f"{text(prefix)}/{plen}"


def _left_s(when: int | None, now: int) -> int | None:
    return None if when is None else max(0, (when - now) // 1000)


def reason(home, record, tunnel, now: int) -> str:
    """Return one plain sentence why the path to this peer is or is not direct."""
    state = record.registration
    run = record.return_routability
    if tunnel is not None and tunnel.up and direct_networks(record, tunnel, home.registered):
        return "keepalives through the direct tunnel are answered"
    if record.unanswered:
        return record.obstacle
    if tunnel is not None and tunnel.dormant:
        return "the direct tunnel carried nothing for a minute; traffic or the peer wakes it"
    if tunnel is not None and tunnel.silent_since is not None:
        seconds = (now - tunnel.silent_since) // 1000
        return f"the direct path has been silent for {seconds} s; it is being probed"
    if run is not None and run.tries > 1 and run.home_cookie is None:
        return UNREACHED_FROM_UPLINK
    if run is not None:
        return "return routability is in progress"
    if state is not None and state.pending is not None:
        return "the peer has not answered our Registration Request yet"
    if state is not None and (state.pre_accepted or (tunnel is not None and tunnel.up)):
        return "the peer's own registration is awaited"
    if tunnel is not None and home.nat and tunnel.nat:
        return "two NATs let no keepalive through; traffic stays with the home agent"
    if tunnel is not None:
        return "no keepalive came back through the direct tunnel yet"
    if record.obstacle:
        return record.obstacle
    if not home.registered:
        return "not registered with the home agent"
    return "no traffic asked for a direct path yet"


def _tunnel(tunnel) -> dict:
    return {
        "id": tunnel.id,
        "up": tunnel.up,
        "local": text(tunnel.local),
        "remote": text(tunnel.remote),
        "remote_port": tunnel.remote_port & 0xFFFF,
        "encapsulation": encapsulation.name(tunnel.remote_port),
        "dormant": tunnel.dormant,
        "mtu": tunnel.mtu,
        "rtt_ms": tunnel.rtt_ms,
    }


def _uplink(ctx, uplink, current, now: int) -> dict:
    slowdown = uplink.slowdown(now)
    return {
        "index": uplink.index,
        "name": uplink.name,
        "up": uplink.up,
        "care_of_address": text(uplink.address) if uplink.address else None,
        "mtu": uplink.mtu,
        "in_use": uplink is current,
        "why": why(now, ctx.settings, uplink, current),
        "priority": uplink.priority,
        "cost": uplink.cost,
        "drained": uplink.drained,
        "loss_percent": uplink.loss // 10,
        "rtt_ms": uplink.rtt_ms,
        "metered": uplink.metered,
        "budget_left_kb": uplink.left // 1000 if uplink.metered else None,
        "keepalive_slowdown": slowdown,
    }


def _uplink_of(ctx, record) -> tuple:
    """Return (name of the uplink toward this peer, one sentence why)."""
    uplink = ctx.uplink(record)
    if uplink is None:
        return None, "no uplink is up"
    if uplink.index == record.uplink:
        return uplink.name, "found to work where the usual one gave no direct path"
    if uplink.index == ctx.settings.peer_uplinks.get(record.cr_hoa):
        return uplink.name, "configured for this peer"
    return uplink.name, "that of the home agent"


def _peer(ctx, home, record, tunnel, now: int) -> dict:
    state = record.registration
    uplink, uplink_why = _uplink_of(ctx, record)
    networks = [
        {
            "prefix": _network(p.prefix, p.plen),
            "realm": p.realm,
            "prefix_valid": p.prefix_valid,
            "obstacle": p.obstacle or None,
        }
        for p in record.prefixes
    ]
    return {
        "cr_hoa": text(record.cr_hoa),
        "cr_coas": [text(coa) for coa in record.cr_coas],
        "mr_coa": text(record.mr_coa) if record.mr_coa else None,
        "rrstate": record.rr_state(record.mr_coa),
        "static": record.static,
        "static_krm": bool(record.krms),
        "outbound_only": record.outbound_only,
        "networks": networks,
        "path": "direct" if direct_networks(record, tunnel, home.registered) else "ha",
        "reason": reason(home, record, tunnel, now),
        "uplink": uplink,
        "uplink_why": uplink_why,
        "tunnel": _tunnel(tunnel) if tunnel is not None else None,
        "registered": state is not None and state.registered,
        "registration_left_s": _left_s(state.expires_at, now)
        if state and state.registered
        else None,
        "registered_with_us": record.binding is not None,
        "binding_left_s": _left_s(record.binding.expires_at, now) if record.binding else None,
        "home_token_left_s": record.home_token_left(now) // 1000,
        "care_of_token_left_s": record.care_of_token_left(now, record.mr_coa) // 1000,
        "last_code": state.code if state is not None else None,
        "clock_offset_ms": state.offset_ms if state is not None else 0,
    }


def report(ctx, cache, tunnels, home, now: int) -> dict:
    """Return the status of the router as JSON-able data."""
    settings = ctx.settings
    home_tunnel = tunnels.get(0)
    return {
        "name": settings.name,
        "home_address": text(settings.home_address),
        "home_agent": text(settings.home_agent),
        "user_traffic_encrypted": False,
        "uplinks": [
            _uplink(ctx, u, ctx.uplinks.get(ctx.current), now)
            for u in sorted(ctx.uplinks.values(), key=lambda u: u.index)
        ],
        "registration": {
            "registered": home.registered,
            "care_of_address": text(home.coa) if home.coa else None,
            "left_s": _left_s(home.expires_at, now) if home.registered else None,
            "last_code": home.code,
            "nat": home.nat,
            "udp_because": home.udp_because or None,
            "route_optimization": home.route_optimization,
            "networks": [_network(*n) for n in home.networks],
            "refused": [{"prefix": _network(p, n), "code": code} for p, n, code in home.refused],
            "tunnel": _tunnel(home_tunnel) if home_tunnel is not None else None,
        },
        "clock": {"offset_ms": ctx.clock.offset_ms, "synchronised": ctx.clock.synchronised},
        "peers": [_peer(ctx, home, r, tunnels.of_peer(r.cr_hoa), now) for r in cache.all()],
        "active_peers": len([r for r in cache.all() if r.rr_state(r.mr_coa) == ro_cache.ACTIVE]),
        "counters": ctx.counters.as_dict(),
    }
