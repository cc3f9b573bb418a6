"""Measure the wire layer on CPython and MicroPython, write docs/wire.md: `make wire-bench`."""

import platform
import subprocess
import sys
from pathlib import Path

from tests.meta.repository import ROOT, micropython

DOCUMENT = ROOT / "docs" / "wire.md"
_WORKLOAD = ROOT / "tests" / "wire_bench" / "workload.py"
_HEAPS = range(40, 4096, 4)  # KB

_HEAD = """\
# The wire layer in figures

Written by `make wire-bench`; do not edit. Measured on {cpu}, CPython {python} and the unix port of
{port}, 64 bits each, on a machine that others used too: the best of some goes.

Extensions are framed by `message.parse` and read when first asked for. A router asks after it
verified the authenticator, so what a stranger can make it do is the column "frame and refuse".

`message.parse` reads into an object of the caller's if given one, and the builders build in a
buffer of the caller's. It gains little, since what costs is reading and not making the one
object: the router and the home agent take a new one each time, and nobody holds stale fields.
"""


def output(interpreter: list[str], *arguments: str) -> list[list[str]]:
    command = [*interpreter, str(_WORKLOAD), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return [line.split("\t") for line in result.stdout.splitlines()]


def fits(heap: int, *arguments: str | Path) -> bool:
    command = [
        micropython(),
        "-X",
        f"heapsize={heap}k",
        str(_WORKLOAD),
        "heap",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, timeout=600).returncode == 0


def least_heap(*arguments: str | Path) -> int:
    """Return the smallest heap in KB, in steps of 4, in which the work succeeds."""
    low, high = 0, len(_HEAPS) - 1
    while low < high:
        middle = (low + high) // 2
        if fits(_HEAPS[middle], *arguments):
            high = middle
        else:
            low = middle + 1
    return _HEAPS[low]


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> int:
    ours, theirs = [sys.executable], [micropython(), "-X", "heapsize=2m"]
    version = [micropython(), "-c", "import sys; print(sys.version.split('; ')[1])"]
    port = subprocess.run(version, capture_output=True, text=True, check=True).stdout.strip()
    lines = [_HEAD.format(cpu=cpu(), python=platform.python_version(), port=port)]
    lines += ["## Times a second", "", "| Work | CPython | MicroPython |", "|---|---|---|"]
    pairs = zip(output(ours, "rates"), output(theirs, "rates"), strict=True)
    lines += [f"| {a[0]} | {int(a[1]):,} | {int(b[1]):,} |" for a, b in pairs]
    lines += [
        "",
        "## The worst of 64 KB, in ms",
        "",
        "| Reply full of | frame and refuse: CPython | MicroPython | read: CPython | MicroPython |",
        "|---|---|---|---|---|",
    ]
    pairs = zip(output(ours, "worst"), output(theirs, "worst"), strict=True)
    lines += [f"| {a[0]} | {a[1]} | {b[1]} | {a[2]} | {b[2]} |" for a, b in pairs]
    lines += [
        "",
        "## Heap for the largest legal messages, in KB",
        "",
        "The smallest heap of the unix port (64 bits: about twice that of a 32-bit board), in",
        "steps of 4 KB, for imports and datagram, and for these and all the work: parse, verify,",
        "read to the end. The first includes what compiling took; a test holds the peak while a",
        "list of 64 KB is checked under 4 KB (`unix_port_tests/test_wire_bounds.py`).",
        "",
        "| Message | octets | imports and datagram | and all the work | the work |",
        "|---|---|---|---|---|",
    ]
    from tests.wire_bench.workload import heap_input

    for name, title in (
        ("list", "Reply with a Prefix Advertisement of 64 KB"),
        ("networks", "Request with 127 Mobile Network extensions"),
    ):
        data = heap_input(name)
        path = ROOT / "build" / f"wire-bench-{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        hold, read = least_heap(path, "hold"), least_heap(path, "read")
        lines.append(f"| {title} | {len(data)} | {hold} | {read} | {read - hold} |")
    DOCUMENT.write_text("\n".join(lines) + "\n")
    print(DOCUMENT.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
