"""`make size`: octets of the firmware and of its heap beside their limits.

    python -m tests.size.run

Prints the .mpy files of each board, the heap of imports and of the state with 16, 64 and 256 peers
on MicroPython's unix port (objects of 64 bits) and on its WebAssembly port (32 bits, by node and a
pinned npm package, installed into build/). Limits: tests/data/size_limits.toml. Exit status: 0 all
kept, 1 one is crossed.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from haaro_host.flash import boards, build
from haaro_host.lab import system
from tests.meta.repository import ROOT, micropython

LIMITS = tomllib.loads((ROOT / "tests" / "data" / "size_limits.toml").read_text())
PACKAGE, VERSION = "@micropython/micropython-webassembly-pyscript", "1.27.0"
NODE = ROOT / "build" / "node"
LIBRARY = NODE / "node_modules" / PACKAGE / "micropython.mjs"
PEERS = (16, 64, 256)
_HERE = Path(__file__).parent
_TIMEOUT_S = 600
# One figure: (what, octets, limit).
Row = tuple[str, int, int]


def mpy(board: str) -> dict[str, int]:
    """Octets of each .mpy file of a board's program."""
    files = build.firmware_files(boards.load(board))
    return {name: len(data) for name, data in sorted(files.items()) if name.endswith(".mpy")}


def lean_firmware(folder: Path) -> None:
    """Put wire and core into `folder` as the small boards have them."""
    root = system.firmware().parent
    package = root / "haaro"
    paths = [*package.glob("*.py"), *package.glob("wire/*.py"), *package.glob("core/*.py")]
    sources = {path.relative_to(root).with_suffix(".mpy").as_posix(): path for path in paths}
    for name, data in build.compiled(sources, "", lean=True).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def heap(command: list[str], port: str, peers: tuple[int, ...]) -> list[Row]:
    """Run the script and return its figures beside the limits of `port`."""
    words = [*command, *map(str, peers)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    (imports,) = re.findall(r"^imports (\d+)$", done.stdout, re.M)
    rows = [(f"{port} imports of wire and core", int(imports), LIMITS[port]["imports"])]
    form = r"^peers (\d+) known (\d+)(?: state (\d+) direct (\d+))?$"
    found = re.findall(form, done.stdout, re.M)
    if [int(count) for count, *_ in found] != list(peers):
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    for count, known, state, direct in found:
        if direct not in ("", count):
            raise RuntimeError(f"only {direct} of {count} peers have a direct path")
        limits = LIMITS[port]
        rows.append((f"{port} state, {count} peers known", int(known), limits["known"][count]))
        if state:
            rows.append((f"{port} state, {count} direct", int(state), limits["direct"][count]))
    return rows


def unix64(firmware: Path, peers: tuple[int, ...]) -> list[Row]:
    """Figures of the unix port."""
    command = [micropython(), "-X", "heapsize=16m", str(_HERE / "peers.py"), str(firmware)]
    return heap(command, "unix64", peers)


def wasm32(firmware: Path, peers: tuple[int, ...]) -> list[Row]:
    """Figures of the WebAssembly port, which has to be installed."""
    script = str(_HERE / "peers.py")
    command = ["node", str(_HERE / "peers.mjs"), str(LIBRARY), str(firmware), script]
    return heap(command, "wasm32", peers)


def why_no_wasm() -> str:
    """Why the 32-bit figures cannot be had here, "" if they can."""
    if not shutil.which("node"):
        return "node is not installed (Debian package nodejs)"
    return "" if LIBRARY.exists() else f"{PACKAGE} is not in build/node: make size installs it"


def install() -> None:
    """Install the npm package into build/node, if npm is there."""
    if LIBRARY.exists() or not shutil.which("npm"):
        return
    NODE.mkdir(parents=True, exist_ok=True)
    words = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(NODE)]
    subprocess.run([*words, f"{PACKAGE}@{VERSION}"], check=False)


def main() -> int:
    """Print everything; the exit status."""
    rows: list[Row] = []
    for board, limit in LIMITS["mpy"].items():
        files = mpy(board)
        for name, octets in files.items():
            print(f"{board:<18} {name:<46} {octets:>7}")
        rows.append((f"{board} .mpy, {len(files)} files", sum(files.values()), limit))
    install()
    with tempfile.TemporaryDirectory(prefix="haaro-size-") as folder:
        lean_firmware(Path(folder))
        rows += unix64(Path(folder), PEERS)
        missing = why_no_wasm()
        if not missing:
            rows += wasm32(Path(folder), PEERS)
    print(f"\n{'':<40} {'octets':>9} {'limit':>9}")
    for what, octets, limit in rows:
        print(f"{what:<40} {octets:>9} {limit:>9}{'' if octets <= limit else '  CROSSED'}")
    if missing:
        print(f"no 32-bit figures: {missing}")
    return int(any(octets > limit for _, octets, limit in rows))


if __name__ == "__main__":
    sys.exit(main())
