"""The LAN port of a board: a W5500 with our own ARP, DHCP and echo in front of the data plane.

Owns frames and tags; registers are w5500_chip.py's, who is who is office.py's. `lan/base.py` says
what a port without sockets offers.
"""

from haaro.compat import const
from haaro.lan.copying import copy
from haaro.lan.office import Office
from haaro.lan.w5500_chip import CLOSED, FRAME, NO_CHIP, NO_LINK, READY_MS, UP, Chip
from haaro.wire.ipv4 import text

_ETHERNET = const(14)
_TAGGED = const(18)
_LARGEST = const(1500)
# Frames for ourselves, or for nobody, that one `read` passes over: a flood of them keeps nobody.
_FRAMES = const(16)
# How often the chip is looked at: what went wrong is repaired within this and READY_MS.
_CHECK_MS = const(500)
_WIRING = (
    "the W5500 does not answer (VERSIONR is 0x%02x, not 0x04): check its supply, and SCK, MOSI, "
    "MISO, CS and RST against pins.csv"
)
_TEXTS = {
    NO_LINK: "no link: cable or switch",
    CLOSED: "the chip is being opened",
}


class W5500Lan:
    """spi: as machine.SPI, mode 0; cs, reset, interrupt: as machine.Pin, or None for the latter.

    address4 with prefix_len: ours in the LAN. mac: 6 octets. now: ms of the loop's clock. random:
    as os.urandom. vlan: 1 to 4094, or None: no tags. dhcp: options (lan/dhcp.py) or None.
    """

    ttl_step = 1
    event = None

    def __init__(
        self,
        spi,
        cs,
        address4: bytes,
        prefix_len: int,
        mac: bytes,
        now: int,
        random,
        *,
        reset=None,
        interrupt=None,
        vlan: int | None = None,
        dhcp: dict | None = None,
    ) -> None:
        self.pairs: list = []
        self.ethernet = mac + mac + b"\x08\x00"
        self.warnings: list = []
        self.spi_errors = self.no_memory = self.foreign_tags = self.restarts = self.malformed = 0
        server = None
        if dhcp is not None:
            from haaro.lan.dhcp import Server

            server = Server(address4, prefix_len, dhcp, now)
        self.office = Office(address4, prefix_len, mac, self._send, server)
        self._mac = mac
        self._vlan = vlan
        self._header = _ETHERNET if vlan is None else _TAGGED
        self._chip = Chip(spi, cs, mac, reset, interrupt)
        self._rx = self._chip.rx
        self._tx = self._chip.tx
        # Views, made once: to compare and to move without making anything.
        self._macs = memoryview(self._rx)[2:14]
        self._aside = bytearray(12)
        self._to = memoryview(self._aside)[:6]
        self._random = random
        self._state = -1
        self._open_at: int | None = None
        self._next = now
        self._restart(now)

    def pending(self) -> bool:
        """Return whether `read` may have something."""
        if self.office.answers:
            return True
        try:
            return self._chip.pending()
        except OSError:
            return self._broken()

    def read(self, buffer, at: int) -> int:
        """Write the next frame that is to be forwarded to buffer[at:]; return its octets or 0.

        The buffer has room for 1514 octets there; what the link padded is left out.
        """
        if self.office.answers:
            packet = self.office.answers.pop(0)
            buffer[at : at + _ETHERNET] = self.ethernet
            buffer[at + _ETHERNET : at + _ETHERNET + len(packet)] = packet
            return _ETHERNET + len(packet)
        try:
            for _ in range(_FRAMES):
                octets = self._chip.receive()
                if not octets:
                    return 0
                octets = self._take(octets, buffer, at)
                if octets:
                    return octets
        except OSError:
            self._broken()
        except MemoryError:
            # What we would have answered; its sender asks again.
            self.no_memory += 1
        return 0

    def write(self, buffer, at: int, octets: int) -> int | None:
        """Send the frame at `at`, its destination replaced by the next hop's; None: not sent."""
        if octets > _ETHERNET + _LARGEST:
            return None
        neighbours = self.office.neighbours
        row = neighbours.find(buffer, at + 30)
        if row < 0:
            if self._chip.state != UP:
                return None
            try:
                sent = self.office.send_unknown(buffer, at + _ETHERNET, octets - _ETHERNET)
            except MemoryError:
                sent = False
                self.no_memory += 1
            return octets if sent else None
        tx = self._tx
        copy(tx, 0, neighbours.table, row, 6)
        header = self._header
        self._head(0x0800, buffer[at + 15])
        copy(tx, header, buffer, at + _ETHERNET, octets - _ETHERNET)
        try:
            return octets if self._chip.send(octets - _ETHERNET + header) else None
        except OSError:
            self._broken()
            return None

    def tick(self, now: int) -> None:
        """Look after the chip, ARP and leases."""
        if now >= self._next:
            self._next = now + _CHECK_MS
            try:
                self._look(now)
            except OSError:
                self._broken()
            self.office.neighbours.tick(now // 1000)
        if self.office.dhcp:
            try:
                self.office.dhcp.tick(now)
            except MemoryError:
                self.no_memory += 1

    def next_deadline(self) -> int:
        """Return when `tick` is to be called at the latest, in ms."""
        due = self.office.dhcp and self.office.dhcp.next_deadline()
        return self._next if due is None or due > self._next else due

    def status(self) -> dict:
        """Return {"link", "why", "address", counters}."""
        answer = {
            "link": self._state == UP,
            "why": self._why(),
            "address": text(self.office.address),
            "vlan": self._vlan,
            "chip": self._chip.counters(),
            "spi_errors": self.spi_errors,
            "no_memory": self.no_memory,
            "restarts": self.restarts,
            "foreign_tags": self.foreign_tags,
            "malformed": self.malformed,
        }
        answer.update(self.office.status())
        return answer

    def close(self) -> None:
        """Stop sending and receiving; leases are saved."""
        if self.office.dhcp:
            self.office.dhcp.close()
        try:
            self._chip.reset()
        except OSError:
            pass

    # The chip's life.

    def _restart(self, now):
        """Reset the chip; `_look` opens it when it is ready."""
        self._open_at = now + READY_MS
        self._next = min(self._next, self._open_at)
        try:
            self._chip.reset()
        except OSError:
            self._broken()

    def _look(self, now):
        chip = self._chip
        if self._open_at is not None:
            if now < self._open_at:
                self._next = self._open_at
                return
            self._open_at = None
            chip.open()
        state = chip.check()
        if state in (CLOSED, NO_CHIP):
            self.restarts += 1
            # Opening anew is enough for most faults and keeps the link.
            if state == NO_CHIP or not chip.open():
                self._note(chip.state)
                self._restart(now)
                return
            state = chip.check()
        if state == UP and self._state != UP:
            # RFC 5227 2.1.1: boxes that get their power together do not all ask at once.
            self.office.neighbours.link_up(now // 1000 + (self._random(1)[0] & 1))
        self._note(state)

    def _note(self, state):
        if state == self._state:
            return
        self._state = state
        if state == NO_CHIP:
            self.warnings.append(self._why())
        elif state != CLOSED:
            self.warnings.append("LAN port: link " + ("up" if state == UP else "down"))

    def _why(self):
        if self._state == NO_CHIP:
            return _WIRING % self._chip.version_seen
        mac = self.office.neighbours.conflict_mac
        if mac:
            seen = ":".join("%02x" % octet for octet in mac)
            return "%s is used by %s too: give one of them another address" % (
                text(self.office.address),
                seen,
            )
        return _TEXTS.get(self._state, "")

    def _broken(self):
        self.spi_errors += 1
        self._chip.fail()
        return False

    # Frames.

    def _head(self, kind, tos):
        """Write what follows the destination in the header of the frame in tx."""
        tx = self._tx
        copy(tx, 6, self._mac, 0, 6)
        at = 12
        if self._vlan is not None:
            tx[12] = 0x81
            tx[13] = 0
            # The priority is the IP precedence, the upper bits of DSCP.
            tx[14] = tos & 0xE0 | self._vlan >> 8
            tx[15] = self._vlan & 255
            at = 16
        tx[at] = kind >> 8
        tx[at + 1] = kind & 255

    def _send(self, to, kind, payload):
        """Send a frame of our own; True: sent."""
        header = self._header
        if header + len(payload) > FRAME:
            return False
        self._tx[:6] = to
        self._head(kind, payload[1] if kind == 0x0800 else 0xC0)
        self._tx[header : header + len(payload)] = payload
        try:
            return self._chip.send(header + len(payload))
        except OSError:
            return self._broken()

    def _take(self, octets, buffer, at):
        """Handle the frame at rx[2:]; return its octets if it is to be forwarded, written."""
        rx = self._rx
        start = 2
        self._aside[:] = self._macs
        if rx[14] == 0x81 and not rx[15]:
            # A tag of VLAN 0 says a priority and no VLAN (802.1Q).
            if (rx[16] & 15) << 8 | rx[17] != (self._vlan or 0) or octets < _TAGGED:
                self.foreign_tags += 1
                return 0
            rx[6:18] = self._aside
            start = 6
            octets -= 4
        elif self._vlan is not None:
            self.foreign_tags += 1
            return 0
        if self._to != self._mac:
            # To all, or to a group: never forwarded (RFC 1812 5.3.4).
            if rx[start] & 1:
                self.office.receive(rx, start, octets)
            return 0
        ip = start + _ETHERNET
        if rx[ip - 2] != 8 or rx[ip - 1] or octets < _ETHERNET + 20 or self._is_ours(rx, ip + 16):
            self.office.receive(rx, start, octets)
            return 0
        length = _ETHERNET + (rx[ip + 2] << 8 | rx[ip + 3])
        if length > octets or length < _ETHERNET + 20:
            self.malformed += 1
            return 0
        copy(buffer, at, rx, start, length)
        return length

    def _is_ours(self, frame, at):
        ours = self.office.address
        return (
            frame[at + 3] == ours[3]
            and frame[at + 2] == ours[2]
            and frame[at + 1] == ours[1]
            and frame[at] == ours[0]
        )
