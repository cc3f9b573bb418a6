"""Draws the exchange as a Mermaid sequence diagram.

Every message is an arrow, dotted if it is inside a tunnel, with a cross if it was lost. User
traffic and keepalives are drawn when they change their way, not each time.
"""

from haaro_host.simulate.datagram import Datagram
from haaro_host.simulate.world import World

_MAX_LINES = 2000
_LABELS = {"hoti": "HoTI", "coti": "CoTI", "hot": "HoT", "cot": "CoT", "user": "user traffic"}


class Diagram:
    """Watches a world from its making on; `text()` draws what happened."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._drawn: list[tuple[Datagram, str]] = []  # and toward whom it was sent
        self._way: dict[tuple[str, str, bytes], str] = {}
        self.left_out = 0
        world.network.observers.append(self._sent)
        for node in world.routers.values():
            node.on_log = lambda router, text: world.note(router.name, text)

    def _sent(self, datagram: Datagram) -> None:
        kind = datagram.kind
        toward = self._toward(datagram)
        if kind in ("user", "keepalive"):
            key = (datagram.sender, kind, datagram.payload[20:24])  # the inner destination
            way = f"{toward} {datagram.dropped}"
            if self._way.get(key) == way:
                return
            self._way[key] = way
        if len(self._drawn) >= _MAX_LINES:
            self.left_out += 1
        else:
            self._drawn.append((datagram, toward))

    def _toward(self, datagram: Datagram) -> str:
        end = self._world.network.owners.get(datagram.dst)
        if end is not None and end.node is not None:
            return end.node.name
        for node in self._world.routers.values():
            for link in node.uplinks.values():
                address = link.address if link.nat is None else link.nat.address
                if address == datagram.dst:
                    return node.name
        return "nobody"

    def text(self) -> str:
        """Return the diagram so far."""
        entries = [(d.time, 1, self._arrow(d, toward)) for d, toward in self._drawn]
        entries += [
            (time, 0, f"Note over {who}: {_stamp(time)} {text.replace(';', ',')}")
            for time, who, text in self._world.notes
        ]
        entries.sort(key=lambda entry: entry[:2])
        seen = {name for d, toward in self._drawn for name in (d.sender, toward)}
        seen |= {who for _, who, _ in self._world.notes}
        names = [name for name in (*self._world.routers, "HA", "nobody") if name in seen]
        lines = ["sequenceDiagram", *(f"participant {name}" for name in names)]
        lines += [line for _, _, line in entries]
        if self.left_out:
            lines.append(f"Note over HA: {self.left_out} more messages are not drawn")
        return "\n    ".join(lines) + "\n"

    def _arrow(self, datagram: Datagram, toward: str) -> str:
        line = "-" if datagram.inner is None else "--"
        head = "x" if datagram.dropped else ">>"
        why = f" ({datagram.dropped})" if datagram.dropped else ""
        to = datagram.receiver or toward
        return f"{datagram.sender}{line}{head}{to}: {_stamp(datagram.time)} {_label(datagram)}{why}"


def _stamp(ms: int) -> str:
    return f"{ms / 1000:.3f}"


def _label(datagram: Datagram) -> str:
    kind = datagram.kind
    message = datagram.control or b""
    if kind == "request" and message[2:4] == b"\0\0":
        return "deregistration"
    if kind == "reply" and len(message) > 1 and message[1]:
        return f"reply, code {message[1]}"
    return _LABELS.get(kind, kind)
