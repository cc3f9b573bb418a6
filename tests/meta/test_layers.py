"""Imports run one way: shell -> core -> wire, and neither core nor wire does any I/O."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.meta.repository import FIRMWARE, HOST_TOOLS, ROOT, imports, module_name, python_files

# I/O, clocks and randomness come in as arguments.
# fmt: off
FORBIDDEN = {
    "socket", "ssl", "network", "select", "selectors", "asyncio", "subprocess", "threading",
    "_thread", "signal", "sqlite3", "io", "os", "time", "datetime", "machine", "random", "secrets",
    "usocket", "ussl", "uselect", "uasyncio", "uio", "uos", "utime", "umachine", "urandom",
}
# fmt: on
NO_IO = ("wire", "core", "home agent")

# Who belongs where: the longest prefix counts. Host programs may import all.
LAYERS = {
    "haaro.compat": "compat",
    "haaro.wire": "wire",
    "haaro.core": "core",
    "haaro": "shell",
    "haaro_host.home_agent": "home agent",
    "haaro_host.home_agent.config": "store",
    "haaro_host.home_agent.config_file": "store",
    "haaro_host.home_agent.store": "store",
    "haaro_host.home_agent.cli": "host",
    "haaro_host.home_agent.control": "host",
    "haaro_host.home_agent.kernel_plane": "host",
    "haaro_host.home_agent.plane": "host",
    "haaro_host.home_agent.priority": "host",
    "haaro_host.home_agent.raw_sockets": "host",
    "haaro_host.home_agent.shell": "host",
    "haaro_host.home_agent.tun": "host",
    "haaro_host": "host",
}
MAY_IMPORT = {
    "compat": (),
    "wire": ("wire", "compat"),
    "core": ("core", "wire", "compat"),
    "shell": ("shell", "core", "wire", "compat"),
    "home agent": ("home agent", "store", "wire", "compat"),
    "store": ("home agent", "store", "wire", "compat"),
    "host": ("host", "home agent", "store", "shell", "core", "wire", "compat"),
}


def layer(module: str) -> str | None:
    """Return the layer of a dotted name, None for what is not of this repository."""
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((LAYERS[prefix] for prefix in prefixes if prefix in LAYERS), None)


def violations(module: str, is_package: bool, tree: ast.Module) -> Iterator[str]:
    """Yield one line for each import that breaks the rules above."""
    own = layer(module)
    for line, name in imports(tree, module, is_package):
        if own in NO_IO and (name.split(".")[0] in FORBIDDEN or name == "<computed>"):
            yield f"{module}:{line} imports {name}: I/O, time and randomness are arguments here"
        other = layer(name)
        namespace = name in ("haaro", "haaro_host")
        if own and other and not namespace and other not in MAY_IMPORT[own]:
            yield f"{module}:{line} imports {name}: {own} may not import {other}"


def all_violations(files: Iterable[tuple[Path, ast.Module]], root: Path) -> list[str]:
    return [
        text
        for path, tree in files
        for text in violations(module_name(path, root), path.name == "__init__.py", tree)
    ]


@pytest.mark.parametrize("root", [FIRMWARE, HOST_TOOLS], ids=lambda root: root.name)
def test_imports_run_from_shell_to_core_to_wire(root):
    files = list(python_files(root))
    assert files, f"no Python files under {root.relative_to(ROOT)}"
    assert all_violations(files, root) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("haaro.wire.message", "import socket"),
        ("haaro.wire.message", "from haaro.core import router"),
        ("haaro.wire.message", "from ..core.router import Router"),
        ("haaro.core.router", "def f():\n    import time"),
        ("haaro.core.router", "try:\n    import utime\nexcept ImportError:\n    pass"),
        ("haaro.core.router", "from os import urandom"),
        ("haaro.core.router", "clock = __import__('time')"),
        ("haaro.core.router", "clock = __import__('ti' + 'me')"),
        ("haaro.core.router", "from haaro.shell import loop"),
        ("haaro.core.router", "from haaro import shell"),
        ("haaro.core.router", "from .. import dataplane"),
        ("haaro.compat", "from haaro.wire import ipv4"),
        ("haaro.shell.loop", "from haaro_host import cli"),
        ("haaro_host.home_agent.core", "import asyncio"),
        ("haaro_host.home_agent.forwarding", "from time import monotonic"),
        ("haaro_host.home_agent.core", "from haaro_host.lab import plan"),
        ("haaro_host.home_agent.core", "from haaro_host.home_agent import tun"),
        ("haaro_host.home_agent.core", "from haaro.shell import loop"),
    ],
)
def test_the_check_sees_a_planted_violation(module, source):
    assert list(violations(module, False, ast.parse(source)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("haaro.wire.message", "import struct\nfrom haaro.compat import const\nfrom . import ipv4"),
        (
            "haaro.core.router",
            "from haaro.wire import ipv4\nfrom haaro.core.tunnels import Tunnels",
        ),
        ("haaro.core.router", "from haaro import compat"),
        ("haaro.shell.loop", "import socket, time\nfrom haaro.core.router import Router"),
    ],
)
def test_the_check_lets_the_allowed_direction_pass(module, source):
    assert list(violations(module, False, ast.parse(source))) == []
