"""Named counters: every refusal has a name. Owned by the router, bumped by every part of the
core.
"""


class Counters:
    """Counts by name; a name exists once it was bumped."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def bump(self, name: str) -> None:
        """Add one to `name`."""
        self._counts[name] = self._counts.get(name, 0) + 1

    def get(self, name: str) -> int:
        """Return the count of `name`, 0 if it never happened."""
        return self._counts.get(name, 0)

    def as_dict(self) -> dict[str, int]:
        """Return a copy for the status report."""
        return dict(self._counts)
