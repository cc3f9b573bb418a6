"""What the meta tests look at: the files of this repository and their syntax trees."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRMWARE = ROOT / "firmware"
HOST_TOOLS = ROOT / "host_tools"
DATA = ROOT / "tests" / "data"

_NOT_OURS = {".git", ".venv", "build", "__pycache__", ".hypothesis"}


def committed_files() -> list[Path]:
    """Return the files that git tracks, or, in a tree without git, all that are not generated."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode == 0:
        files = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        files = [path for path in ROOT.rglob("*") if not _NOT_OURS & set(path.parts)]
    return sorted(path for path in files if path.is_file())


def python_files(*folders: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Yield (path, tree) of each Python file under `folders`, in a fixed order."""
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            if not _NOT_OURS & set(path.relative_to(folder).parts):
                yield path, ast.parse(path.read_bytes(), filename=str(path))


def module_name(path: Path, root: Path) -> str:
    """Return the dotted name of the module at `path` as imported from `root`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of all that a module imports, wherever in the file.

    `from a import b` yields both `a` and `a.b`, since `b` may be a module. A relative import is
    resolved against `module`. `__import__("a")` and `import_module("a")` count too.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, base]) if base else ".".join(package)
            yield node.lineno, base
            for alias in node.names:
                yield node.lineno, base + "." + alias.name
        elif isinstance(node, ast.Call):
            function = node.func
            name = (
                function.attr
                if isinstance(function, ast.Attribute)
                else getattr(function, "id", "")
            )
            if name in ("__import__", "import_module") and node.args:
                target = node.args[0]
                literal = isinstance(target, ast.Constant)
                yield node.lineno, str(target.value) if literal else "<computed>"


def micropython() -> str:
    """Return the MicroPython unix port to run: $MICROPYTHON, or the one beside this interpreter."""
    return os.environ.get("MICROPYTHON") or str(Path(sys.executable).parent / "micropython")
