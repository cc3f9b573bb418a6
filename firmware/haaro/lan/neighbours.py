"""Who is at which Ethernet address (ARP, RFC 826), and whether our own address is ours alone.

Owns the table, the requests and the packets that wait for an answer. Sends by the port. Per packet
to a known neighbour it allocates nothing. Times are seconds of the port's clock.
"""

from haaro.compat import const

# A slot: IP address, Ethernet address, state, requests sent, second of the last change (2), used.
_SLOT = const(16)
_SLOTS = const(128)
_WAYS = const(4)
# From one of the places that an address may have to the next: neighbours have numbers in a row.
_STRIDE = const(37)
_FREE, _ASKED, _KNOWN = 0, 1, 2
# Not heard of for so long: asked again, directly (RFC 1122 2.3.2.1), still used meanwhile.
_FRESH_S = const(60)
_TRIES = const(3)
# Packets that wait for an answer, one for each neighbour; requests in one second.
_WAITING = const(8)
_REQUESTS = const(32)
# RFC 5227 1.1, in seconds after the link came up: three probes, two announcements.
_PROBES = (0, 1, 2)
_ANNOUNCEMENTS = (4, 6)
_DEFEND_S = const(10)
# After so long without another one the conflict is over.
_CONFLICT_S = const(120)

_NOBODY = b"\x00\x00\x00\x00\x00\x00"
EVERYBODY = b"\xff\xff\xff\xff\xff\xff"
_ARP_OCTETS = const(28)


class Neighbours:
    """The ARP of one port. send(destination, ethertype, payload) -> bool sends a frame."""

    def __init__(self, address: bytes, prefix_len: int, mac: bytes, send) -> None:
        self.address = address
        self._mac = mac
        self._send = send
        self._value = int.from_bytes(address, "big")
        self._host_bits = (1 << (32 - prefix_len)) - 1
        self.table = bytearray(_SLOTS * _SLOT)
        self._waiting: dict = {}  # address: a frame's payload, for `flush`
        self._now = 0
        self._budget = _REQUESTS
        self._up_at: int | None = None
        self._steps = 0
        self._defended = -_DEFEND_S
        self.conflict_mac: bytes | None = None
        self._conflict_at = 0
        self.deliver = None  # deliver(address, payload): a packet that has waited may go
        self.heard = None  # heard(address, mac): somebody says so, by a request or an answer
        self.unresolved = self.overflows = self.conflicts = self.bad = 0

    def find(self, buffer, at: int) -> int:
        """Return the offset in `table` of the Ethernet address of the IP address at `at`, or -1."""
        table = self.table
        last = buffer[at + 3]
        slot = last & (_SLOTS - 1)
        for _ in range(_WAYS):
            row = slot * _SLOT
            if (
                table[row + 3] == last
                and table[row + 10] == _KNOWN
                and table[row + 2] == buffer[at + 2]
                and table[row + 1] == buffer[at + 1]
                and table[row] == buffer[at]
            ):
                table[row + 14] = 1
                return row + 4
            slot = (slot + _STRIDE) & (_SLOTS - 1)
        return -1

    def on_link(self, address: bytes) -> bool:
        """Return whether a host of the LAN can have this address; ours is none."""
        value = int.from_bytes(address, "big")
        host = value & self._host_bits
        if value == self._value or (value ^ self._value) > self._host_bits:
            return False
        return self._host_bits < 3 or 0 < host < self._host_bits

    def wait(self, address: bytes, payload: bytes) -> bool:
        """Keep a packet until its neighbour is known, in place of the one that waited before."""
        if not self.on_link(address):
            self.unresolved += 1
            return False
        if address not in self._waiting and len(self._waiting) >= _WAITING:
            self.overflows += 1
            return False
        row = self._row(address)
        table = self.table
        if table[row + 10] != _ASKED or table[row : row + 4] != address:
            self._fill(row, address, _NOBODY, _ASKED)
            self._ask(row)
        if table[row + 10] == _ASKED:
            self._waiting[address] = payload
        return True

    def probe(self, address: bytes) -> None:
        """Ask who has `address`, of the DHCP server before it is offered (RFC 2131 3.1)."""
        self._packet(EVERYBODY, 1, self.address, _NOBODY, address)

    def receive(self, frame, at: int, octets: int) -> None:
        """Take the ARP packet at `at`; `octets` are there."""
        if octets < _ARP_OCTETS or bytes(frame[at : at + 6]) != b"\x00\x01\x08\x00\x06\x04":
            self.bad += 1
            return
        operation = frame[at + 6] << 8 | frame[at + 7]
        mac = bytes(frame[at + 8 : at + 14])
        sender = bytes(frame[at + 14 : at + 18])
        target = bytes(frame[at + 24 : at + 28])
        if mac == self._mac or mac[0] & 1 or operation not in (1, 2):
            self.bad += 1
            return
        if sender == self.address:
            self._conflict(mac)
            return
        if operation == 1 and target == self.address:
            # A probe (RFC 5227) too: nobody else is to take our address.
            self._packet(mac, 2, self.address, mac, sender)
        if self.on_link(sender):
            self._learn(sender, mac, target == self.address)
            if self.heard:
                self.heard(sender, mac)

    def link_up(self, at: int) -> None:
        """Make sure of our address from `at` on, then tell it.

        Deviates from RFC 5227 2.1.1: it is used at once, the office waits for its gateway.
        """
        self._up_at = at
        self._steps = 0

    def tick(self, now: int) -> None:
        """About once a second: ask again, forget."""
        if now == self._now:
            return
        self._now = now
        self._budget = _REQUESTS
        if self._up_at is not None:
            self._checks()
        if self.conflict_mac and now - self._conflict_at > _CONFLICT_S:
            self.conflict_mac = None
        table = self.table
        for row in range(0, _SLOTS * _SLOT, _SLOT):
            state = table[row + 10]
            if state == _FREE:
                continue
            age = (now - (table[row + 12] << 8 | table[row + 13])) & 0xFFFF
            if state == _KNOWN and (age < _FRESH_S or (not table[row + 14] and age < 2 * _FRESH_S)):
                continue
            if table[row + 11] >= _TRIES or (state == _KNOWN and not table[row + 14]):
                self._forget(row)
            else:
                self._ask(row)

    def status(self) -> dict:
        """Return counters and what is wrong."""
        known = 0
        for row in range(0, _SLOTS * _SLOT, _SLOT):
            known += self.table[row + 10] == _KNOWN
        return {
            "neighbours": known,
            "unresolved": self.unresolved,
            "waiting_overflows": self.overflows,
            "arp_bad": self.bad,
            "conflicts": self.conflicts,
        }

    def _row(self, address):
        """Return the offset of the slot of an address, or of the one to give up for it."""
        table = self.table
        best = -1
        worth = 1 << 30
        for i in range(_WAYS):
            row = ((address[3] + i * _STRIDE) & (_SLOTS - 1)) * _SLOT
            state = table[row + 10]
            if state != _FREE and table[row : row + 4] == address:
                return row
            age = (self._now - (table[row + 12] << 8 | table[row + 13])) & 0xFFFF
            value = (state << 16) + 0xFFFF - age if state != _FREE else 0
            if value < worth:
                best = row
                worth = value
        if table[best + 10] != _FREE:
            self._forget(best)
        return best

    def _fill(self, row, address, mac, state):
        table = self.table
        table[row : row + 4] = address
        table[row + 4 : row + 10] = mac
        table[row + 10] = state
        table[row + 11] = 0
        table[row + 12] = self._now >> 8 & 255
        table[row + 13] = self._now & 255
        table[row + 14] = 1

    def _forget(self, row):
        if self.table[row + 10] == _ASKED:
            self.unresolved += 1
        self._waiting.pop(bytes(self.table[row : row + 4]), None)
        self.table[row + 10] = _FREE

    def _learn(self, address, mac, create):
        row = self._row(address) if create else self._known_row(address)
        if row < 0:
            return
        self._fill(row, address, mac, _KNOWN)
        # Nobody has used it since.
        self.table[row + 14] = 0
        waited = self._waiting.pop(address, None)
        if waited and self.deliver:
            self.deliver(address, waited)

    def _known_row(self, address):
        for i in range(_WAYS):
            row = ((address[3] + i * _STRIDE) & (_SLOTS - 1)) * _SLOT
            if self.table[row + 10] != _FREE and self.table[row : row + 4] == address:
                return row
        return -1

    def _ask(self, row):
        table = self.table
        if self._budget <= 0:
            return
        self._budget -= 1
        table[row + 11] += 1
        to = bytes(table[row + 4 : row + 10]) if table[row + 10] == _KNOWN else EVERYBODY
        self._packet(to, 1, self.address, _NOBODY, bytes(table[row : row + 4]))

    def _checks(self):
        """Send the probes and announcements that are due."""
        since = self._now - self._up_at
        steps = _PROBES + _ANNOUNCEMENTS
        while self._steps < len(steps) and steps[self._steps] <= since:
            probe = self._steps < len(_PROBES)
            self._steps += 1
            if probe:
                self._packet(EVERYBODY, 1, b"\x00\x00\x00\x00", _NOBODY, self.address)
            elif not self.conflict_mac:
                self._announce()

    def _announce(self):
        self._packet(EVERYBODY, 1, self.address, _NOBODY, self.address)

    def _conflict(self, mac):
        """Somebody else uses our address: say so, and defend it (RFC 5227 2.4 c)."""
        self.conflicts += 1
        self.conflict_mac = mac
        self._conflict_at = self._now
        if self._now - self._defended >= _DEFEND_S:
            self._defended = self._now
            self._announce()

    def _packet(self, to, operation, sender, target_mac, target):
        self._send(
            to,
            0x0806,
            b"\x00\x01\x08\x00\x06\x04\x00"
            + bytes((operation,))
            + self._mac
            + sender
            + target_mac
            + target,
        )
