"""What the operator may see of the home agent, as a JSON-able dict with a versioned schema.

Keys appear as fingerprints only. Called by core.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from haaro.wire import ipv4
from haaro_host.home_agent.bindings import Binding
from haaro_host.home_agent.config import RouterConfig
from haaro_host.home_agent.state import State

SCHEMA = "haaro.ha.status/1"


def status(state: State, time: int, awaited: Callable[[bytes], bool]) -> dict[str, Any]:
    """Return what the operator may see, JSON-able; keys only as fingerprints.

    `awaited`: whether the acknowledgment of a router's revocation is.
    """
    return {
        "schema": SCHEMA,
        "address": ipv4.text(state.config.address),
        "user_traffic_encrypted": False,
        "clock_offset_ms": state.clock.offset,
        "registered": len(state.bindings),
        "warnings": list(state.config.warnings),
        "routers": [_router_status(state, time, r, awaited) for r in state.config.routers.values()],
        "counters": dict(sorted(state.counters.items())),
    }


def _router_status(
    state: State, time: int, router: RouterConfig, awaited: Callable[[bytes], bool]
) -> dict[str, Any]:
    binding = state.bindings.get(router.home_address)
    return {
        "name": router.name,
        "home_address": ipv4.text(router.home_address),
        "realm": router.realm,
        "priority": router.priority,
        "configured_prefixes": [_prefix_text(prefix) for prefix in router.prefixes],
        "keys": [
            {
                "spi": a.spi,
                "algorithm": a.algorithm,
                "fingerprint": fingerprint(a.key),
                "last_used_s": _seconds_since(time, state.router(router.home_address).used, a.spi),
            }
            for a in router.associations.values()
        ],
        "revoked": state.router(router.home_address).terms.revoked,
        "revocation_unacknowledged": awaited(router.home_address),
        "binding": None if binding is None else _binding_status(time, binding),
    }


def fingerprint(key: bytes) -> str:
    """Return the 8 hexadecimal digits that name a key without telling it."""
    return hashlib.sha256(key).hexdigest()[:8]


def _seconds_since(time: int, used: dict[int, int], spi: int) -> int | None:
    """Return how long ago since this start; None: not once."""
    return max(0, time - used[spi]) // 1000 if spi in used else None


def _prefix_text(prefix: tuple[bytes, int]) -> str:
    return f"{ipv4.text(prefix[0])}/{prefix[1]}"


def _binding_status(time: int, binding: Binding) -> dict[str, Any]:
    return {
        "care_of_address": ipv4.text(binding.care_of_address),
        "tunnel_end": ipv4.text(binding.source),
        "tunnel_port": binding.source_port,
        "encapsulation": binding.encapsulation,
        "nat": binding.nat,
        "outbound_only": binding.outbound_only,
        "advertise": binding.advertise,
        "prefixes": [_prefix_text(prefix) for prefix in binding.prefixes],
        "registered_s": max(0, time - binding.since) // 1000 if binding.since else None,
        "lifetime_s": binding.lifetime,
        "expires_in_s": max(0, binding.expires - time) // 1000,
        "rx_packets": binding.rx_packets,
        "tx_packets": binding.tx_packets,
    }
