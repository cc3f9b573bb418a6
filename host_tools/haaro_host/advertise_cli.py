"""`haaro advertise plan`: what the home agent will advertise, before it does.

Exit status: 0 done, also when something is cut; 2 bad usage or bad configuration.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from haaro.wire import auth, extensions, registration
from haaro.wire.ipv4 import text
from haaro.wire.prefixes import build_advertisement
from haaro_host.home_agent import config as configuration
from haaro_host.home_agent.advertisement import plan as plans
from haaro_host.home_agent.advertisement.order import Router
from haaro_host.home_agent.config_file import Document

app = typer.Typer(help="Prefix Advertisements (RFC 6521 5.5): what they cost.")

SCHEMA = "haaro.advertise.plan/1"
_HEADER = 4
_NOBODY = bytes(4)
_NO_LIMIT = 1 << 30


@app.callback()
def _group() -> None:
    """Keep `plan` a command of its own."""


@app.command()
def plan(
    file: Path = typer.Argument(..., metavar="FILE", help="ha.toml; its secrets are not read"),
    octets: int | None = typer.Option(
        None,
        min=0,
        max=65507,
        help="UDP payload of a reply; advertisement_octets of FILE if not given",
    ),
    as_json: bool = typer.Option(False, "--json", help=f"print JSON ({SCHEMA})"),
) -> None:
    """Show the advertisement with every router of FILE registered: octets, what fits, what is cut.

    A reply leaves out the router that asks. Priorities are kept; within one, the order is chosen.
    """
    try:
        document = configuration.load_public(file)
    except configuration.ConfigError as error:
        typer.echo(f"A fatal error occurred: {error}", err=True)
        raise typer.Exit(2) from None
    result = examine(document, octets)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        for line in _lines(result):
            typer.echo(line)


def examine(document: Document, octets: int | None = None) -> dict[str, Any]:
    """Return the plan of all routers of `document`, JSON-able.

    `octets`: UDP payload of a reply. `around`: what the reply needs beside the data, at most.
    `data`, `whole`, `as_given`: octets of data sent, if nothing were cut, and if the home agent
    kept to the order of home addresses.
    """
    names = {router.home_address.packed: router for router in document.router}
    classes: list[list[Router]] = [
        [
            (
                router.home_address.packed,
                False,
                [
                    (net.network_address.packed, net.prefixlen, router.realm)
                    for net in sorted(router.prefixes)
                ],
            )
            for router in group
        ]
        for _, group in groupby(
            sorted(document.router, key=lambda r: (r.priority, r.home_address)),
            key=lambda r: r.priority,
        )
    ]
    wanted = document.home_agent.advertisement_octets if octets is None else octets
    around = _around(max((len(r.prefixes) for r in document.router), default=0))
    limit = max(0, wanted - around)
    order = plans.arrange(classes, limit)
    sent = plans.encode(order, limit)
    # The rest of it, as if there were no cut; and the shortest that holds everything.
    rest = plans.encode(order, _NO_LIMIT)
    whole = plans.encode(plans.arrange(classes, _NO_LIMIT), _NO_LIMIT)
    given, _ = build_advertisement([router for group in classes for router in group], _NO_LIMIT)
    routers: list[dict[str, Any]] = []
    structures = [*sent.structures, *rest.structures[len(sent.structures) :]]
    for number, structure in enumerate(structures):
        is_sent = number < len(sent.structures)
        if structure.network is None:
            router = names[structure.router[0]]
            routers.append(
                {
                    "name": router.name,
                    "home_address": str(router.home_address),
                    "priority": router.priority,
                    "octets": len(structure.octets),
                    "sent": is_sent,
                    "networks": [],
                }
            )
            continue
        prefix, plen, realm = structure.network
        routers[-1]["networks"].append(
            {
                "prefix": f"{text(prefix)}/{plen}",
                "realm": realm,
                "master": not structure.delta,
                "octets": len(structure.octets),
                "sent": is_sent,
            }
        )
    return {
        "schema": SCHEMA,
        "octets": wanted,
        "around": around,
        "data": len(sent.data),
        "whole": len(whole.data),
        "as_given": len(given),
        "networks": whole.networks,
        "networks_sent": sent.networks,
        "routers_sent": sent.complete,
        "routers": routers,
    }


def _around(networks: int) -> int:
    """Return the octets of a reply to a router of so many networks, without the data."""
    reply = registration.build_reply(0, 0, _NOBODY, _NOBODY, bytes(8))
    for _ in range(networks):
        extensions.append_mobile_network_ack(reply, 0, _NOBODY, 24)
    extensions.append_udp_tunnel_reply(reply, 0, False, 0)
    extensions.append_route_optimization_reply(reply, False, False, False)
    auth.append_mobile_home(reply, 256, auth.HMAC_SHA256, bytes(16))
    return len(reply) + _HEADER


def _lines(result: dict[str, Any]) -> Iterator[str]:
    rows = [("ROUTER", "HOME ADDRESS", "PRIORITY", "NETWORK", "REALM", "FORM", "OCTETS", "TOTAL")]
    total = 0
    for router in result["routers"]:
        total += router["octets"]
        where = str(total) if router["sent"] else "cut"
        rows.append(
            (router["name"], router["home_address"], str(router["priority"]), "", "", "")
            + (str(router["octets"]), where)
        )
        for network in router["networks"]:
            total += network["octets"]
            where = str(total) if network["sent"] else "cut"
            form = "master" if network["master"] else "delta"
            rows.append(
                ("", "", "", network["prefix"], network["realm"], form)
                + (str(network["octets"]), where)
            )
    yield from _table(rows)
    networks, whole = result["networks"], result["whole"]
    each = f", {whole / networks:.2f} a network" if networks else ""
    yield ""
    yield (
        f"{len(result['routers'])} routers, {networks} networks: {whole} octets of data{each};"
        f" {result['as_given']} in the order of home addresses"
    )
    used = result["around"] + result["data"]
    yield f"with up to {result['around']} octets of reply around them: {used} of {result['octets']}"
    yield from _verdict(result)


def _verdict(result: dict[str, Any]) -> Iterator[str]:
    left_out = [router for router in result["routers"] if not router["sent"]]
    cut = result["networks"] - result["networks_sent"]
    if not cut and not left_out:
        yield "everything fits"
        return
    yield f"WARNING: {result['networks_sent']} of {result['networks']} networks fit"
    names = _some(left_out) or "none"
    yield f"cut: {cut} networks; routers that are not named at all: {names}"
    yield "what is cut is reached by way of the home agent"


def _some(routers: list[dict[str, Any]]) -> str:
    names = [router["name"] for router in routers[:10]]
    return ", ".join(names) + (", ..." if len(routers) > len(names) else "")


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if rows[0][column] in ("OCTETS", "TOTAL") else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
