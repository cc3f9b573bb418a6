"""Imports run one way: shell -> core -> wire, and neither core nor wire does any I/O."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.meta.repository import FIRMWARE, HOST_TOOLS, ROOT, imports, module_name, python_files

# I/O, clocks and randomness come in as arguments (with u: MicroPython's old aliases).
FORBIDDEN = {
    *(
        "socket",
        "ssl",
        "network",
        "select",
        "asyncio",
        "selectors",
        "subprocess",
        "threading",
        "_thread",
    ),
    *("time", "datetime", "os", "io", "machine", "random", "secrets", "sqlite3", "signal"),
    *("usocket", "uselect", "uasyncio", "utime", "uos", "umachine", "urandom"),
}

# What a module may import of this repository: the longest matching prefix of its own name counts.
ALLOWED = {
    "haaro": ("haaro",),
    "haaro.compat": (),
    "haaro.wire": ("haaro.wire", "haaro.compat"),
    "haaro.core": ("haaro.core", "haaro.wire", "haaro.compat"),
    "haaro_host.home_agent.core": (
        "haaro_host.home_agent",
        "haaro.wire",
        "haaro.core",
        "haaro.compat",
    ),
}
SANS_IO = ("haaro.wire", "haaro.core", "haaro_host.home_agent.core")


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def violations(module: str, is_package: bool, tree: ast.Module) -> Iterator[str]:
    """Yield one line for each import that breaks the rules above."""
    sans_io = any(within(module, package) for package in SANS_IO)
    rule = max((name for name in ALLOWED if within(module, name)), key=len, default=None)
    for line, name in imports(tree, module, is_package):
        top = name.split(".")[0]
        if sans_io and (top in FORBIDDEN or name == "<computed>"):
            yield f"{module}:{line} imports {name}: I/O, time and randomness are arguments here"
        ours = top in ("haaro", "haaro_host") and name != "haaro"
        if rule and ours and not any(within(name, package) for package in ALLOWED[rule]):
            yield f"{module}:{line} imports {name}: against shell -> core -> wire"


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
        ("haaro_host.home_agent.core", "from haaro_host.lab import plan"),
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
