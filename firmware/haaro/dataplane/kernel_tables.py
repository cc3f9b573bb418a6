"""The kernel plane's tables of prefixes and of tunnel ends: made, changed, held and forgotten.

Owns their pins and what was last written. A few prefixes that differ are changed in place: a table
that is made anew has the kernel wait until no packet looks at the old one, tens of milliseconds.
Called by dataplane/kernel.py.
"""

from haaro.compat import const
from haaro.dataplane import kernel_maps

# Rows that are kept to compare with, 10 octets each in one piece of the heap.
_MOST = const(512)


class Tables:
    """(bank, generation of the table, of the ends), as the pins are named, say which ones.

    in_force: those at [0], of this process or an earlier one. held: those at [1]. The tunnels of
    two processes have different slots, by their bank.
    """

    def __init__(self, door) -> None:
        self._door = door
        self.in_force: tuple | None = None
        self.held: tuple | None = None
        self._generation = 0
        for pin in door.pinned():
            kind, *numbers = pin.split("_")
            numbers = [int(number) for number in numbers]
            self._generation = max(self._generation, numbers[1])
            if kind == "now":
                self.in_force = tuple(numbers)
        self.bank = 1 - self.in_force[0] if self.in_force else 0
        self._rows: bytes | None = None
        self._ends = b""
        self._next: tuple | None = None

    def write(self, file, rows, ends: bytes, first_slot: int) -> bool:
        """Write what differs; False if nothing does. rows: a kernel_maps.Rows, handed down.

        Ends before routes: an answer must not come before its tunnel is known. Prefixes that go do
        so last: what they held finds the new word of the shorter one, never an old one.
        """
        if self._rows is None or not self.in_force or self.in_force[0] != self.bank:
            self._make(file, rows, ends, first_slot)
            return True
        self._next = self.in_force
        (_, table), (_, path) = self._names(self.in_force)
        changed = ends != self._ends
        if changed:
            kernel_maps.added_ends(file, path, self._ends, ends)
        changed = rows.write_changes(file, table, first_slot, self._rows) or changed
        if changed:
            kernel_maps.gone_ends(file, path, self._ends, ends)
        return changed

    def _make(self, file, rows, ends, first_slot):
        maps = self._door.maps
        if self.held and self.held == self.in_force:
            for kind, name in self._names(self.held):
                kernel_maps.point(file, maps, kind, 1, name)
        self._generation += 1
        now = self.in_force
        kept = now[2] if now and now[0] == self.bank and ends == self._ends else 0
        self._next = (self.bank, self._generation, kept or self._generation)
        (_, table), (_, path) = self._names(self._next)
        if not kept:
            kernel_maps.ends(file, path, ends)
            kernel_maps.point(file, maps, "ends", 0, path)
        kernel_maps.table(file, table)
        rows.write(file, table, first_slot)
        kernel_maps.point(file, maps, "table", 0, table)

    def done(self, rows, ends: bytes) -> None:
        """What was written is in force."""
        if self._next and self.in_force != self._next:
            self.in_force = self._next
            self._door.mark("now_%d_%d_%d" % self._next)
            self.forget()
        self._ends = ends
        self._rows = rows.copy() if rows.count <= _MOST else None

    def failed(self) -> None:
        """What was written is in force in part at most: make all anew the next time."""
        self._rows = None
        self._ends = b""
        self.forget()

    def release(self, file) -> None:
        """Write that nothing is held any more."""
        maps = self._door.maps
        for kind in ("table", "ends"):
            kernel_maps.point(file, maps, kind, 1, "%s/no_%s" % (maps, kind))

    def _names(self, tables):
        """Return (kind, path of the pin) of the two tables."""
        bank, table, ends = tables
        return (
            ("table", "%s/table_%d_%d" % (self._door.tables, bank, table)),
            ("ends", "%s/ends_%d_%d" % (self._door.tables, bank, ends)),
        )

    def forget(self) -> None:
        """Unpin all tables but those in force and held."""
        kept = []
        for tables in (self.in_force, self.held):
            if tables:
                kept.extend([name[name.rfind("/") + 1 :] for _, name in self._names(tables)])
        if self.in_force:
            kept.append("now_%d_%d_%d" % self.in_force)
        for pin in self._door.pinned():
            if pin not in kept:
                self._door.unpin(pin)
