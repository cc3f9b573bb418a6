"""Asks the running home agent: here by its socket, elsewhere by the command in fleet.toml."""

import json
import os
import shlex
import subprocess
from typing import Any

from haaro_host.fleet.files import FleetError
from haaro_host.fleet.inventory import Fleet
from haaro_host.fleet.passphrase import VARIABLE
from haaro_host.home_agent import control

_COMMAND_S = 15


def status(fleet: Fleet) -> dict[str, Any]:
    """Return the home agent's status (haaro.ha.status/1). Raises FleetError."""
    if fleet.document.fleet.ask_home_agent:
        text = _run(fleet, ["status", "--json"])
        try:
            result: dict[str, Any] = json.loads(text)
        except ValueError:
            raise _unclear(fleet) from None
    else:
        result = _local(fleet, "status")
    if not isinstance(result, dict) or "routers" not in result:
        raise _unclear(fleet)
    return result


def tell(fleet: Fleet, verb: str, router: str) -> str:
    """Carry out `verb` (revoke, allow) for `router`; return the answer as a line. FleetError."""
    if fleet.document.fleet.ask_home_agent:
        return _run(fleet, [verb, router]).strip()
    answer = _local(fleet, f"{verb} {router}")
    if "error" in answer:
        raise FleetError(f"the home agent refuses: {answer['error']}")
    facts = ", ".join(f"{key} {value}" for key, value in answer.items() if key != "schema")
    return f"{verb}: {facts}"


def _local(fleet: Fleet, line: str) -> dict[str, Any]:
    try:
        return control.ask(fleet.document.home_agent.socket, line)
    except control.ControlError as error:
        raise FleetError(
            f"{error} If it runs on another machine, set fleet.ask_home_agent in {fleet.path}"
        ) from None


def _run(fleet: Fleet, arguments: list[str]) -> str:
    command = fleet.document.fleet.ask_home_agent
    try:
        done = subprocess.run(
            [*shlex.split(command), *arguments],
            stdin=subprocess.DEVNULL,
            # What the command is must not be told what opens the store.
            env={key: value for key, value in os.environ.items() if key != VARIABLE},
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        reason = f"no answer in {_COMMAND_S} s" if late else str(error)
        raise FleetError(f"fleet.ask_home_agent {command!r}: {reason}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["(no message)"]
        raise FleetError(
            f"fleet.ask_home_agent {command!r} ended with status {done.returncode}: {lines[-1]}"
        )
    return done.stdout


def _unclear(fleet: Fleet) -> FleetError:
    return FleetError(
        f"fleet.ask_home_agent {fleet.document.fleet.ask_home_agent!r}: the answer to"
        " `status --json` is not a home agent's"
    )


def key_in(status: dict[str, Any], home_address: str, spi: int) -> dict[str, Any] | None:
    """Return what the home agent says of one key of a router, None when it does not know it."""
    for router in status["routers"]:
        if router["home_address"] == home_address:
            for key in router["keys"]:
                if key["spi"] == spi:
                    return dict(key)
    return None
