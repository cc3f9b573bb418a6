"""The lab as one object: up, status, down, and the parts a demo or a test needs in between.

Owns the run directory /run/haaro-lab/NAME. Calls topology, configuration and processes; draws
nothing and judges nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from haaro_host.lab import configuration, plan, processes, system, topology
from haaro_host.lab.plan import DEFAULT_LAYOUT, Layout
from haaro_host.lab.processes import Process, State
from haaro_host.lab.system import LabError

RUN = Path("/run/haaro-lab")
ROUTERS = tuple(office.node for office in plan.OFFICES)
HEAP = "448k"
# Its modules are 30 KB, and a change of routes needs room for a moment: with the other plane's heap
# there is room for 32 peers with two prefixes each, with this for 64 with three.
KERNEL_PLANE_HEAP = "576k"
# A modem's modules and buffers are 57 KB.
MODEM_HEAP = "512k"
REGISTRATION_DEADLINE_S = 15.0
_STOP_DEADLINE_S = 4.0
_ANSWER_DEADLINE_S = 2.0
_ANSWER_LIMIT = 1 << 20

Progress = Callable[[str], None]


class Lab:
    """One lab by name. Making the object touches nothing."""

    def __init__(
        self,
        name: str = plan.DEFAULT_NAME,
        logs: Path | None = None,
        die_with_parent: bool = False,
        layout: Layout = DEFAULT_LAYOUT,
    ) -> None:
        self.name = plan.check_name(name)
        self.layout = layout
        # More for the environment of a node's program; read when it is started.
        self.environment: dict[str, dict[str, str]] = {}
        self.run = RUN / name
        self.logs = logs or self.run / "logs"
        self.files = configuration.Files(self.run)
        self.state = State(self.run / "state.json")
        self.haaro_command = system.haaro_command()
        self._lock_path = RUN / f"{name}.lock"
        self._die_with_parent = die_with_parent
        self._exclusive = False

    # --- the whole lab

    def up(self, say: Progress = lambda line: None) -> dict[str, float]:
        """Build everything, start the home agent, then A, B, C, each after the one before has
        registered, so that A knows nobody and C knows both (RFC 6521 8.1).

        Returns seconds from start to registration by router name. Raises LabError.
        """
        with self.exclusively():
            self.build(say)
            return self.start_all(say)

    def build(self, say: Progress = lambda line: None) -> None:
        """Namespaces, links, filter and configuration, no process yet. Raises LabError, also when
        this lab runs already; what an interrupted run left is removed first.
        """
        self._refuse_if_running()
        self._remove_leftovers(say)
        self.state.stage = "building"
        self.state.save()
        configuration.write(self.files, self.layout)
        if {self.layout.dataplane, self.layout.ha_dataplane} != {"userspace"}:
            system.mount_bpf(self.run / "bpf")
        topology.build(self.name, self.layout)
        self.state.stage = "built"
        self.state.save()

    def start_all(self, say: Progress = lambda line: None) -> dict[str, float]:
        """Start the programs in the order of RFC 6521 8.1; seconds to register by router."""
        self.start_home_agent()
        say("home agent answers")
        registered = {}
        for office in self.layout.offices:
            began = time.monotonic()
            self.start_router(office.node)
            self.wait_registered(office.node)
            registered[office.name] = round(time.monotonic() - began, 3)
            say(f"{office.name} registered after {registered[office.name]:.2f} s")
        self.state.stage = "up"
        self.state.save()
        return registered

    def down(self, say: Progress = lambda line: None) -> list[str]:
        """Stop and remove everything; idempotent. What was done, line by line."""
        with self.exclusively():
            done = self._take_down(say)
            self._lock_path.unlink(missing_ok=True)
            return done

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep every other command off this lab inside `with`; may be nested. Raises LabError."""
        if self._exclusive:
            yield
            return
        system.require(system.TOOLS_FOR_UP)
        system.prepare_run()
        RUN.mkdir(parents=True, exist_ok=True)
        with self._lock_path.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # `down` removes the file: a lock on one that is gone locks nobody out.
                if not os.path.samestat(os.fstat(handle.fileno()), self._lock_path.stat()):
                    raise OSError("the lock file was replaced")
            except OSError as error:
                raise LabError(
                    f"another command is working on the lab {self.name!r} right now"
                ) from error
            self._exclusive = True
            try:
                yield
            finally:
                self._exclusive = False

    def status(self) -> dict[str, Any]:
        """Facts of the lab: processes, namespaces, filter counters, each program's status."""
        self.state.load()
        spaces = topology.existing(self.name, self.layout)
        alive = self.state.alive()
        whole = len(alive) == len(self.state.processes) or self.state.stage == "absent"
        return {
            "schema": "haaro.lab.status/1",
            "version": 1,
            "name": self.name,
            "stage": self.state.stage if whole else "interrupted",
            "namespaces": spaces,
            "processes": {
                key: {"pid": each.pid, "running": key in alive, "log": each.log}
                for key, each in self.state.processes.items()
            },
            "filter": topology.counters(self.name)
            if plan.namespace(self.name, "inet") in spaces
            else {},
            "nodes": {
                node: self.node_status(node)
                for node in ("ha", *self.layout.routers)
                if node in alive
            },
        }

    # --- its programs

    def start_home_agent(self) -> None:
        """Start `haaro ha` and wait until it answers. Raises LabError."""
        self.start("ha", [*self.haaro_command, "ha", "--config", str(self.files.ha_config)])
        self._wait_answer("ha")

    def start_router(self, node: str) -> None:
        """Start a router in MicroPython; doesn't wait. Raises LabError."""
        program = system.firmware()
        if not program.exists():
            raise LabError(f"{program} is missing: this isn't a whole checkout of haaro")
        heap = HEAP if self.layout.dataplane == "userspace" else KERNEL_PLANE_HEAP
        if any(each["driver"] == "cellular" for each in self.layout.uplinks.get(node, [])):
            heap = MODEM_HEAP
        command = [system.micropython(), "-X", f"heapsize={heap}", str(program)]
        config = str(self.files.router_config(node))
        self.start(node, [*command, "--config", config, "run"])

    def start(self, node: str, command: Sequence[str]) -> Process:
        """Start `command` in the namespace of `node` as its program."""
        log = self.logs / f"{node}.log"
        made = processes.start(
            topology.inside(self.name, node, command),
            log,
            self._die_with_parent,
            self.environment.get(node),
        )
        self.state.processes[node] = made
        self.state.save()
        return made

    def wait_registered(self, node: str, deadline_s: float = REGISTRATION_DEADLINE_S) -> None:
        """Wait until a router says it is registered. Raises LabError with the log's end."""

        def condition() -> bool:
            return registered(self.node_status(node)) or self._ended(node)

        done = processes.wait_until(condition, deadline_s, every_s=0.05)
        if not done or self._ended(node):
            raise LabError(
                f"router {node.upper()} did not register within {deadline_s:.0f} s"
                + self._log_end(node)
            )

    def node_status(self, node: str) -> dict[str, Any] | None:
        """Status JSON of the home agent or a router; None when it doesn't answer."""
        try:
            found = ask(self.files.socket(node), "status")
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def stop_node(self, node: str) -> str:
        """End one program the way it wants to be ended; how it went. KILL after a deadline."""
        process = self.state.processes.get(node)
        if process is None or not process.alive():
            return f"{node}: not running"

        def by_command() -> None:
            # MicroPython has no signals: a router is stopped over its local socket.
            with suppress(ValueError):
                ask(self.files.socket(node), "stop")

        by_itself = processes.stop(
            process,
            _STOP_DEADLINE_S,
            by_command if node in self.layout.routers else lambda: process.send(signal.SIGTERM),
        )
        return f"{node}: stopped" if by_itself else f"{node}: had to be killed"

    def kill(self, node: str) -> None:
        """SIGKILL one program, as a crash does; waits until it is gone."""
        process = self.state.processes[node]
        process.send(signal.SIGKILL)
        processes.wait_until(lambda: processes.gone(process), _STOP_DEADLINE_S)

    # --- its network

    def inside(self, node: str, command: Sequence[str]) -> list[str]:
        """`command` as run in the namespace of `node`. Raises LabError for an unknown node."""
        if node not in [each.name for each in self.layout.nodes]:
            known = ", ".join(each.name for each in self.layout.nodes)
            raise LabError(f"no node {node!r} in the lab: there are {known}")
        return topology.inside(self.name, node, command)

    def counters(self) -> dict[str, int]:
        """Counters of the internet router's filter."""
        return topology.counters(self.name)

    def cut(self, one: str, other: str) -> None:
        """Cut the direct path between two offices in the internet."""
        topology.cut(self.name, *_care_of(one, other))

    def heal(self, one: str, other: str) -> None:
        """Take back `cut`."""
        topology.heal(self.name, *_care_of(one, other))

    # --- helpers

    def _refuse_if_running(self) -> None:
        self.state.load()
        alive = self.state.alive()
        if alive:
            runs = ", ".join(f"{key} (pid {value.pid})" for key, value in alive.items())
            raise LabError(
                f"the lab {self.name!r} is up already: {runs}\n"
                f"See `haaro lab status`, end it with `haaro lab down`, or use --name."
            )

    def _remove_leftovers(self, say: Progress) -> None:
        if self.state.stage != "absent" or topology.existing(self.name, self.layout):
            say("removing what an interrupted run left")
            self._take_down(lambda line: None)

    def _take_down(self, say: Progress) -> list[str]:
        self.state.load()
        done = []

        def note(line: str) -> None:
            done.append(line)
            say(line)

        # Routers first: they take their leave of the home agent.
        order = [*self.layout.routers, "ha"]
        others = [key for key in self.state.processes if key not in order]
        for node in (*order, *others):
            if node in self.state.alive():
                note(self.stop_node(node))
        for space in topology.existing(self.name, self.layout):
            for pid in topology.processes(space):
                note(f"{space}: process {pid} was still there, killed")
                _kill_pid(pid)
        for space in topology.remove(self.name, self.layout):
            note(f"{space}: removed")
        system.unmount(self.run / "bpf")
        if self.run.exists():
            shutil.rmtree(self.run)
        self.state.load()
        return done

    def _wait_answer(self, node: str) -> None:
        def condition() -> bool:
            return self.node_status(node) is not None or self._ended(node)

        answered = processes.wait_until(condition, REGISTRATION_DEADLINE_S, every_s=0.05)
        if not answered or self._ended(node):
            raise LabError(f"{node} does not answer on its socket" + self._log_end(node))

    def _ended(self, node: str) -> bool:
        return processes.gone(self.state.processes[node])

    def _log_end(self, node: str, lines: int = 15) -> str:
        path = Path(self.state.processes[node].log)
        try:
            text = path.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            text = []
        return f"\nlast lines of {path}:\n  " + "\n  ".join(text or ["(empty)"])


def ask(path: Path, command: str) -> Any:
    """Send one command line to a local socket and read the JSON answer.

    Raises OSError when nobody answers, ValueError when the answer isn't JSON.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(_ANSWER_DEADLINE_S)
        link.connect(str(path))
        link.sendall(command.encode() + b"\n")
        answer = bytearray()
        while len(answer) < _ANSWER_LIMIT:
            part = link.recv(65536)
            if not part:
                break
            answer += part
    return json.loads(answer)


def registered(status: dict[str, Any] | None) -> bool:
    """True when a router's status says that its home agent has accepted it."""
    return bool(status and status["registration"]["registered"])


def _care_of(one: str, other: str) -> tuple[str, str]:
    return plan.office(one).care_of_address, plan.office(other).care_of_address


def _kill_pid(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
