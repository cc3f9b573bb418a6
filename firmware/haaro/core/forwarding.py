"""The route table, computed whole from the cache, the tunnels and the registrations (RFC 6521
3.3.2, 3.3.3).

Pure functions; the shell swaps the result in when told ("routes",).
"""


def direct_networks(record, tunnel, home_up: bool) -> list[tuple[bytes, int]]:
    """Return the confirmed prefixes of a CR that go by the direct tunnel now.

    As correspondent router: what the peer registered with us. As mobile router: all of its
    prefixes, once its own registration is there or the time given for it is over. A tunnel that
    is dormant, or just awake, has traffic only while there is no way by the home agent.
    """
    if tunnel is None or record.unanswered:
        return []
    if not tunnel.up and (home_up or not tunnel.resting()):
        return []
    registration = record.registration
    if registration is not None and registration.registered and registration.routes_allowed:
        return [(p.prefix, p.plen) for p in record.prefixes if p.prefix_valid]
    if record.binding is not None:
        networks = [n for n in record.binding.networks if record.valid_prefix(*n)]
        return [(record.cr_hoa, 32)] + networks
    return []


def forwarding_table(ctx, cache, tunnels, home) -> tuple[list, list]:
    """Return (routes, sources): (prefix, plen, tunnel id or -1 = drop, hint or -1) and (prefix,
    plen, tunnel id).

    Of one prefix under two routers the first listed wins [A51]. `sources` names what may arrive
    by a direct tunnel.
    """
    routes: list[tuple[bytes, int, int, int]] = []
    sources: list[tuple[bytes, int, int]] = []
    taken: set[tuple[bytes, int]] = set()
    for prefix, plen in set(ctx.settings.networks + home.networks):
        # What belongs to the LAN never goes into a tunnel, not even while the LAN has no route
        # for it.
        taken.add((prefix, plen))
        routes.append((prefix, plen, -1, -1))
    home_tunnel = tunnels.get(0)
    home_up = home_tunnel is not None and home_tunnel.up and home.registered
    optimise = home.route_optimization and ctx.settings.route_optimization
    for record in cache.all():
        tunnel = tunnels.of_peer(record.cr_hoa)
        direct = direct_networks(record, tunnel, home_up)
        by_home = (0, record.hint if optimise else -1)
        for item in record.prefixes:
            if not item.prefix_valid:
                continue
            key = (item.prefix, item.plen)
            if tunnel is not None:
                sources.append((item.prefix, item.plen, tunnel.id))
            if key in taken:
                continue
            if key in direct:
                taken.add(key)
                routes.append((item.prefix, item.plen, tunnel.id, -1 if tunnel.up else record.hint))
            elif home_up:
                taken.add(key)
                routes.append(key + by_home)
    for prefix, plen in ctx.settings.home_prefixes:
        if home_up and (prefix, plen) not in taken:
            routes.append((prefix, plen, 0, -1))
    return routes, sources
