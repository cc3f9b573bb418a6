"""The inputs kept for a target: tests/fuzz/corpus/TARGET.hex, one a line, shortest first."""

from pathlib import Path

from tests.meta.repository import ROOT

FOLDER = ROOT / "tests" / "fuzz" / "corpus"


def load(name: str) -> list[bytes]:
    """Return the inputs of target `name`, none when there is no file."""
    path = FOLDER / f"{name}.hex"
    return [bytes.fromhex(line) for line in path.read_text().splitlines()] if path.exists() else []


def store(name: str, inputs: list[bytes], folder: Path = FOLDER) -> None:
    """Write the inputs of target `name`."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(set(inputs), key=lambda data: (len(data), data))
    (folder / f"{name}.hex").write_text("".join(data.hex() + "\n" for data in ordered))
