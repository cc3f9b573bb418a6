"""Looks for the mark of a key in files and texts: `python -m tests.canary.scan PATH...`.

Read as it may be written: octets, hexadecimal, base64 at each alignment; archives are opened.
Files that exist to hold keys are left out by name, and nothing else is.
"""

import base64
import bz2
import gzip
import lzma
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.canary.site.sitecustomize import MARK

# The box's and the home agent's secrets, also while they are replaced or staged; the files that
# `haaro flash` and tests put into a simulated flash; a box's saved password.
SECRET = re.compile(
    r"(\.secrets\.(json|toml)(\.new|\.part|\.bak)?|flash\.bin|\.flash|fleet\.keys|\.password)$"
)
_PIECE = 1 << 24


def forms() -> list[bytes]:
    """Return every way in which the mark can stand in a file."""
    found = [MARK, MARK.hex().encode(), MARK.hex().upper().encode()]
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + MARK)
        # What depends on the neighbours is cut off at both ends.
        found.append(text[(8 * shift + 5) // 6 : (8 * (shift + len(MARK))) // 6])
    return found


_FORMS = forms()


def in_octets(data: bytes) -> bool:
    """Return whether the mark stands in `data`."""
    return any(form in data for form in _FORMS)


def in_text(text: str) -> bool:
    """Return whether the mark stands in `text`."""
    return in_octets(text.encode(errors="surrogateescape"))


def in_file(path: Path) -> bool:
    """Return whether the mark stands in a file, or in a file of an archive."""
    try:
        with path.open("rb") as source:
            head = source.read(6)
            source.seek(0)
            opened = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}.get(head[:2])
            before = b""
            stream = opened(source) if opened else source
            while piece := stream.read(_PIECE):
                if in_octets(before + piece):
                    return not opened or not _only_secrets(path)
                before = piece[-32:]
    except (OSError, EOFError, lzma.LZMAError):
        pass  # gone meanwhile, or no archive after all: it was read as far as it goes
    return False


def _only_secrets(path: Path) -> bool:
    """Return whether in an archive the mark stands in files alone that may hold it."""
    try:
        with tarfile.open(path) as archive:
            others = [one for one in archive if one.isfile() and not SECRET.search(one.name)]
            return not any(in_octets(archive.extractfile(one).read()) for one in others)
    except tarfile.TarError:
        return False


def files(place: Path) -> Iterator[Path]:
    """Yield the files below `place` that have no business with a key."""
    if place.is_file():
        yield place
        return
    for path in sorted(place.rglob("*")):
        if path.is_file() and not path.is_symlink() and not SECRET.search(path.name):
            yield path


def hits(*places: Path) -> list[str]:
    """Return the files below `places` in which the mark stands."""
    return [str(path) for place in places for path in files(Path(place)) if in_file(path)]


def main() -> int:
    """Look at the paths given; 1 when the mark was found."""
    found = hits(*(Path(name) for name in sys.argv[1:]))
    for path in found:
        print(f"a key stands in {path}", file=sys.stderr)
    print(f"canary: {len(found)} hits in {', '.join(sys.argv[1:])}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
