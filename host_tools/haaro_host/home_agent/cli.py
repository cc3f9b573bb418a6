"""`haaro ha`: run the home agent, or ask the one that runs.

Exit status: 0 done, 1 refused or not running, 2 bad usage or bad configuration.
"""

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer

from haaro_host.home_agent import config as configuration
from haaro_host.home_agent import control

app = typer.Typer(help="The home agent: run it, ask it, reload it.", no_args_is_help=False)

_CONFIG = Path("/etc/haaro/ha.toml")
_CONFIG_HELP = f"ha.toml; {_CONFIG} if not given"
_SOCKET_HELP = "its local socket; the one named in ha.toml if not given"
_JSON = typer.Option(False, "--json", help="print JSON; its `schema` names the form")


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    config: Path | None = typer.Option(None, help=_CONFIG_HELP),
) -> None:
    """Run the home agent in the foreground until SIGTERM, SIGINT or `stop`; SIGHUP reloads."""
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    # Imported late: status and check need no privileges and no netlink.
    from haaro_host.home_agent.shell import Shell, StartError

    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        asyncio.run(_serve(Shell, config or _CONFIG))
    except configuration.ConfigError as error:
        _fail(error, 2)
    except StartError as error:
        _fail(error, 1)


async def _serve(shell: Any, config: Path) -> None:
    await shell(config).run()


@app.command()
def status(
    context: typer.Context,
    config: Path | None = typer.Option(None, help=_CONFIG_HELP),
    path: Path | None = typer.Option(None, "--socket", help=_SOCKET_HELP),
    as_json: bool = typer.Option(False, "--json", help="print JSON (haaro.ha.status/1)"),
) -> None:
    """Show routers, bindings, prefixes and counters of the running home agent."""
    answer = _ask(context, config, path, "status")
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        _show(answer)


@app.command()
def reload(
    context: typer.Context,
    config: Path | None = typer.Option(None, help=_CONFIG_HELP),
    path: Path | None = typer.Option(None, "--socket", help=_SOCKET_HELP),
    as_json: bool = _JSON,
) -> None:
    """Put the changed ha.toml in force, as a whole or not at all; bindings stay."""
    answer = _ask(context, config, path, "reload")
    if as_json:
        _document("reload", answer)
        raise typer.Exit(0 if answer.get("reloaded") else 1)
    if not answer.get("reloaded"):
        typer.echo("reload refused, the old configuration stays in force:", err=True)
        _fail(answer.get("error"), 1)
    for warning in answer.get("warnings", []):
        typer.echo(f"WARNING: {warning}", err=True)
    typer.echo("reloaded")


@app.command()
def revoke(
    context: typer.Context,
    router: str = typer.Argument(help="its name or home address in ha.toml"),
    config: Path | None = typer.Option(None, help=_CONFIG_HELP),
    path: Path | None = typer.Option(None, "--socket", help=_SOCKET_HELP),
    as_json: bool = _JSON,
) -> None:
    """End a router's registration at once, a stolen one's say; it stays barred until `allow`."""
    answer = _named(context, config, path, "revoke", router)
    if as_json:
        _document("revoke", answer)
        return
    was = "its registration is over" if answer["registered"] else "it was not registered"
    typer.echo(f"router {answer['router']} is revoked; {was}")


@app.command()
def allow(
    context: typer.Context,
    router: str = typer.Argument(help="its name or home address in ha.toml"),
    config: Path | None = typer.Option(None, help=_CONFIG_HELP),
    path: Path | None = typer.Option(None, "--socket", help=_SOCKET_HELP),
    as_json: bool = _JSON,
) -> None:
    """Let a revoked router register again."""
    answer = _named(context, config, path, "allow", router)
    if as_json:
        _document("allow", answer)
        return
    was = "" if answer["was_revoked"] else "; it was not revoked"
    typer.echo(f"router {answer['router']} may register{was}")


@app.command()
def stop(
    context: typer.Context,
    config: Path | None = typer.Option(None, help=_CONFIG_HELP),
    path: Path | None = typer.Option(None, "--socket", help=_SOCKET_HELP),
    as_json: bool = _JSON,
) -> None:
    """Stop the running home agent; bindings stay on disk."""
    answer = _ask(context, config, path, "stop")
    if as_json:
        _document("stop", answer)
    else:
        typer.echo("stopping")


@app.command()
def check(
    context: typer.Context,
    config: Path | None = typer.Option(None, help=_CONFIG_HELP),
    as_json: bool = _JSON,
) -> None:
    """Check ha.toml and its secrets file without touching the running home agent."""
    file = config or context.obj or _CONFIG
    try:
        checked = configuration.load(file)
    except configuration.ConfigError as error:
        if as_json:
            problems = [
                {"file": p.file, "key": p.key, "value": p.value, "allowed": p.allowed}
                for p in error.problems
            ]
            _document("check", {"good": False, "problems": problems, "warnings": []})
            raise typer.Exit(2) from None
        _fail(error, 2)
    if as_json:
        warnings = list(checked.warnings)
        _document("check", {"good": True, "problems": [], "warnings": warnings})
        return
    for warning in checked.warnings:
        typer.echo(f"WARNING: {warning}", err=True)
    typer.echo(f"{file}: good, {len(checked.routers)} routers")


def _document(verb: str, answer: dict[str, Any]) -> None:
    typer.echo(json.dumps({"schema": f"haaro.ha.{verb}/1", **answer}, indent=2))


def _ask(
    context: typer.Context, config: Path | None, path: Path | None, word: str
) -> dict[str, Any]:
    try:
        where = str(path) if path else configuration.socket_of(config or context.obj or _CONFIG)
        return control.ask(where, word)
    except configuration.ConfigError as error:
        _fail(error, 2)
    except control.ControlError as error:
        _fail(error, 1)


def _named(
    context: typer.Context, config: Path | None, path: Path | None, verb: str, router: str
) -> dict[str, Any]:
    answer = _ask(context, config, path, f"{verb} {router}")
    if "error" in answer:
        _fail(answer["error"], 1)
    return answer


def _fail(error: object, code: int) -> NoReturn:
    typer.echo(f"A fatal error occurred: {error}", err=True)
    raise typer.Exit(code)


def _show(answer: dict[str, Any]) -> None:
    typer.echo(
        f"home agent {answer['address']}, up {answer['uptime_s']} s,"
        f" {answer['registered']} of {len(answer['routers'])} routers registered"
    )
    typer.echo("user traffic is not encrypted")
    data_plane = answer["data_plane"]
    typer.echo(f"packets go by the {data_plane['plane']} plane: {data_plane['why']}")
    for warning in answer["warnings"]:
        typer.echo(f"WARNING: {warning}")
    rows = [("ROUTER", "HOME ADDRESS", "CARE-OF ADDRESS", "TUNNEL", "LEFT", "IN/OUT", "PREFIXES")]
    for router in answer["routers"]:
        binding = router["binding"]
        if binding is None:
            state = "revoked" if router["revoked"] else "not registered"
            rows.append((router["name"], router["home_address"], state, *[""] * 4))
            continue
        rows.append(
            (
                router["name"],
                router["home_address"],
                binding["care_of_address"] + (" (NAT)" if binding["nat"] else ""),
                f"{binding['encapsulation']} {binding['tunnel_end']}:{binding['tunnel_port']}",
                f"{binding['expires_in_s']} s",
                f"{binding['rx_packets']}/{binding['tx_packets']}",
                " ".join(binding["prefixes"]),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    for name, count in answer["counters"].items():
        typer.echo(f"{name}: {count}")
