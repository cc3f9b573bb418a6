"""`haaro router status`, `drain` and `stop`: ask a running router over its local socket."""

import json
import socket
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# The answer is one document anyhow; the option is there so that scripts need not know.
_ALWAYS_JSON = typer.Option(True, "--json", help="the output is JSON in any case")
DEFAULT_SOCKET = Path("/run/haaro/router.sock")
EXIT_BY_STATE = {"up": 0, "degraded": 1, "down": 2}
_TIMEOUT_S = 5.0


def request(path: Path, word: str) -> dict[str, Any]:
    """Return the router's JSON answer to `word`.

    Raises OSError when no router listens at `path`, ValueError when the answer is not JSON.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(str(path))
        connection.sendall(word.encode() + b"\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    result: dict[str, Any] = json.loads(answer)
    return result


def socket_of(config: Path | None, path: Path | None) -> Path:
    """Return the socket to ask: `path` itself, else the one that the router.json `config` names."""
    if path is not None:
        return path
    if config is None:
        return DEFAULT_SOCKET
    try:
        return Path(json.loads(config.read_text())["socket"])
    except KeyError:
        return DEFAULT_SOCKET
    except (OSError, ValueError, TypeError) as error:
        raise _fail(f"{config}: {error}; give a readable router.json or --socket PATH") from None


app = typer.Typer(
    no_args_is_help=True, help="A running router: status, reload its keys, drain an uplink, stop."
)


@app.command()
def status(
    config: Path | None = typer.Option(None, help="router.json of the router to ask"),
    path: Path | None = typer.Option(None, "--socket", help="its local socket"),
    as_json: bool = typer.Option(False, "--json", help="print the answer as it came"),
) -> None:
    """Show a running router: uplinks, home agent binding, peers and why each is direct or not.

    Exit status: 0 up, 1 degraded, 2 down or not running.
    """
    answer = _ask(socket_of(config, path), "status")
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        show(answer, Console())
    raise typer.Exit(EXIT_BY_STATE.get(answer.get("state", "down"), 2))


@app.command()
def stop(
    config: Path | None = typer.Option(None, help="router.json of the router to stop"),
    path: Path | None = typer.Option(None, "--socket", help="its local socket"),
    as_json: bool = _ALWAYS_JSON,
) -> None:
    """Stop a running router: it deregisters, takes its routes away and ends."""
    answer = _ask(socket_of(config, path), "stop")
    typer.echo(json.dumps({"schema": "haaro.router.stop/1", **answer}))


@app.command()
def reload(
    config: Path | None = typer.Option(None, help="router.json of the router"),
    path: Path | None = typer.Option(None, "--socket", help="its local socket"),
    as_json: bool = typer.Option(False, "--json", help="print JSON; its `schema` names the form"),
) -> None:
    """Take the keys of the changed secrets file; binding and tunnels stay, other keys of
    router.json need a restart.

    Exit status: 0 reloaded, 1 the file is refused and the old keys stay, 2 not running.
    """
    answer = _ask(socket_of(config, path), "reload")
    if as_json:
        typer.echo(json.dumps({"schema": "haaro.router.reload/1", **answer}))
        raise typer.Exit(0 if answer.get("reloaded") else 1)
    if not answer.get("reloaded"):
        typer.echo(f"A fatal error occurred: {answer.get('error')}", err=True)
        raise typer.Exit(1)
    typer.echo("reloaded")


@app.command()
def drain(
    uplink: str = typer.Argument(help="its name in router.json"),
    undo: bool = typer.Option(False, "--undo", help="use it again"),
    config: Path | None = typer.Option(None, help="router.json of the router"),
    path: Path | None = typer.Option(None, "--socket", help="its local socket"),
    as_json: bool = _ALWAYS_JSON,
) -> None:
    """Leave an uplink without loss, before its cable is pulled. It is then the last choice.

    It has been left when the status no longer says that it is in use. Forgotten at a restart.
    """
    answer = _ask(socket_of(config, path), f"{'undrain' if undo else 'drain'} {uplink}")
    if "error" in answer:
        raise _fail(f"{answer['error']}; its uplinks: {', '.join(answer['allowed'])}")
    typer.echo(json.dumps({"schema": "haaro.router.drain/1", **answer}))


def _fail(text: str) -> typer.Exit:
    typer.echo(f"A fatal error occurred: {text}", err=True)
    return typer.Exit(2)


def _ask(path: Path, word: str) -> dict[str, Any]:
    try:
        return request(path, word)
    except (OSError, ValueError) as error:
        raise _fail(f"no router answers at {path} ({error}); is it running?") from None


def _why(uplink: dict[str, Any]) -> str:
    """Why the uplink is as it is; with a modem, what that says too."""
    modem = uplink.get("modem")
    if not modem:
        return str(uplink["why"])
    said = modem["why"]
    if modem["state"] == "up":
        said = modem["operator"] + (", roaming" if modem["roaming"] else "")
        if modem["signal_dbm"] is not None:
            said += f", {modem['signal_dbm']} dBm"
    return escape(f"{uplink['why']}; modem {modem['state']}: {said}")


def _lan(lan: dict[str, Any]) -> str:
    """What the port of a board says of itself (docs/lan.md)."""
    said = "link up" if lan["link"] else "no link"
    if lan["vlan"]:
        said += f", VLAN {lan['vlan']}"
    said += f", {lan['neighbours']} neighbours"
    if "dhcp" in lan:
        said += f", {lan['dhcp']['leased']} leases, {lan['dhcp']['free']} addresses free"
    return said + (f"; {lan['why']}" if lan["why"] else "")


def show(answer: dict[str, Any], console: Console) -> None:
    """Print the parts of a status answer that an operator asks for first."""
    registered = answer["registration"]["registered"]
    console.print(
        f"[bold]{answer['name']}[/] {answer['home_address']}: {answer['state']}; home agent"
        f" {answer['home_agent']} {'registered' if registered else 'not registered'}"
    )
    uplinks = Table("uplink", "interface", "state", "care-of address", "why", title="Uplinks")
    for uplink in answer["uplinks"]:
        uplinks.add_row(
            uplink["name"],
            uplink["interface"],
            "up" if uplink["up"] else "down",
            uplink["care_of_address"] or "-",
            _why(uplink),
        )
    console.print(uplinks)
    peers = Table("peer", "path", "uplink", "RRSTATE", "networks", "why", title="Peers")
    for peer in answer["peers"]:
        peers.add_row(
            peer["cr_hoa"],
            peer["path"],
            f"{peer['uplink']}: {peer['uplink_why']}",
            str(peer["rrstate"]),
            ", ".join(network["prefix"] for network in peer["networks"]),
            peer["reason"],
        )
    console.print(peers)
    for peer in answer["peers"]:
        for network in peer["networks"]:
            if network["obstacle"]:
                console.print(f"{network['prefix']} of {peer['cr_hoa']}: {network['obstacle']}")
    data_plane = answer["data_plane"]
    console.print(f"packets go by the {data_plane['plane']} plane: {data_plane['why']}")
    fast = data_plane.get("fast_lan")
    if fast:
        names = ", ".join(fast["interfaces"]) or "no interface"
        console.print(f"past the kernel's forwarding goes {names}: {fast['why']}")
    lan = answer.get("lan")
    if lan:
        console.print(f"LAN port {lan['address']}:", _lan(lan), markup=False)
    counters = {**answer["counters"], **data_plane["counters"]}
    seen = ", ".join(f"{name} {count}" for name, count in counters.items() if count)
    console.print("counters:", seen or "all 0")
    for warning in answer["warnings"]:
        console.print("warning:", warning)
    console.print(answer["notice"])
