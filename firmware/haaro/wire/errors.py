"""The one exception of the wire layer: a peer sent something that cannot be used."""


class WireError(Exception):
    """A peer's fault: drop the datagram, keep no state. `reason` is one short snake_case word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
