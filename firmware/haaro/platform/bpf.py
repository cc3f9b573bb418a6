"""Classic BPF programs that sort what arrives, and their attachment to a socket.

Owns what "a well-formed tunnel packet" is: IPv4 without options, UDP to port 434, type 4, next
header 4 (RFC 3519 3.3), and one whole IPv4 packet inside that is as long as the datagram says.
Only such packets reach the data plane's ports, so a batch of them frames itself; everything else on
port 434 is signalling. So is what a tunnel carries for ourselves, echoes and signalling to the home
address: in a queue of its own no flood of data drops it or delays it. A load past the packet's end
ends a program with 0: drop.
"""

import struct

from haaro.compat import const

_SOL_SOCKET = const(1)
_SO_ATTACH_FILTER = const(26)

_LD_B = const(0x30)
_LD_H = const(0x28)
_LD_H_X = const(0x48)
_LD_B_X = const(0x50)
_LD_W = const(0x20)
_LD_MEMORY = const(0x60)
_ST = const(0x02)
_LD_LENGTH = const(0x80)
_LDX_HEADER = const(0xB1)  # X = 4 * (octet & 15)
_ADD = const(0x04)
_AND = const(0x54)
_MOD = const(0x94)
_TAX = const(0x07)
_TXA = const(0x87)
_JEQ = const(0x15)
_JEQ_X = const(0x1D)
_JGE = const(0x35)
_JGE_X = const(0x3D)
_JGT = const(0x25)
_JSET = const(0x45)
_RET = const(0x06)
_RET_A = const(0x16)
_CPU = const(0xFFFFF024)  # ancillary: number of the CPU that handles the packet
_ALL = const(0xFFFF)

DROP_ALL = ((_RET, 0, 0, 0),)


def attach(socket, program) -> None:
    """Filter `socket` by `program`, a sequence of (code, jt, jf, k); raises OSError."""
    import uctypes  # type: ignore[import-not-found]

    code = bytearray(8 * len(program))
    for i, instruction in enumerate(program):
        struct.pack_into("<HBBI", code, 8 * i, *instruction)
    # struct sock_fprog; the kernel copies the program before setsockopt returns.
    socket.setsockopt(
        _SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("@HP", len(program), uctypes.addressof(code)),
    )


def lan(snap: int, largest: int, cpu: int, cpus: int) -> list:
    """Frames with one IPv4 packet of at most `largest` octets, without padding.

    snap: octets to keep, 0 = all. cpu, cpus: only packets that CPU handles, modulo cpus.
    """
    body = _only_cpu(cpu, cpus) + [
        (_LD_B, 0, 0, 14),
        (_AND, 0, 0, 0xF0),
        (_JEQ, 0, "no", 0x40),
        (_LD_H, 0, 0, 16),
        (_JGE, 0, "no", 20),
        (_JGT, "no", 0, largest),
        (_ADD, 0, 0, 14),
        (_TAX, 0, 0, 0),
        (_LD_LENGTH, 0, 0, 0),
        (_JGE_X, 0, "no", 0),
    ]
    body += [(_RET, 0, 0, snap)] if snap else [(_TXA, 0, 0, 0), (_RET_A, 0, 0, 0)]
    return _link(body, {"no": 0})


def tunnel(snap: int, largest: int, cpu: int, cpus: int, home_address: bytes) -> list:
    """Well-formed tunnel packets but control, seen from their outer IPv4 header; see `lan`."""
    body = _only_cpu(cpu, cpus)
    body += [(_LD_B, 0, 0, 0), (_JEQ, 0, "no", 0x45), (_LD_H, 0, 0, 22), (_JEQ, 0, "no", 434)]
    body += _well_formed(largest)
    body += _control(home_address)
    return _link(body, {"no": 0, "control": 0, "data": snap or _ALL})


def raw(snap: int, least: int, largest: int, cpu: int, cpus: int) -> list:
    """IPv4 packets without IP options, as long as their header says; see `lan`."""
    body = _only_cpu(cpu, cpus) + [
        (_LD_B, 0, 0, 0),
        (_JEQ, 0, "no", 0x45),
        (_LD_H, 0, 0, 2),
        (_JGE, 0, "no", least),
        (_JGT, "no", 0, largest),
        (_TAX, 0, 0, 0),
        (_LD_LENGTH, 0, 0, 0),
        (_JEQ_X, 0, "no", 0),
    ]
    return _link(body + [(_RET, 0, 0, snap or _ALL)], {"no": 0})


def signalling(largest: int, home_address: bytes) -> list:
    """Everything else to port 434: the complement of `tunnel`."""
    body = [
        (_LDX_HEADER, 0, 0, 0),
        (_LD_H_X, 0, 0, 2),
        (_JEQ, 0, "drop", 434),
        (_LD_B, 0, 0, 0),
        (_JEQ, 0, "no", 0x45),
        (_LD_LENGTH, 0, 0, 0),
        (_JGE, 0, "no", 52),
    ]
    body += _well_formed(largest)
    body += _control(home_address)
    return _link(body, {"no": _ALL, "drop": 0, "control": _ALL, "data": 0})


def too_big(octets: int) -> list:
    """ICMP "fragmentation needed" about a UDP packet from port 434, or one of another
    encapsulation: its first `octets` octets.
    """
    body = [
        # Two headers without options, or what is compared is not where it should be.
        (_LD_H, 0, 0, 20),
        (_JEQ, 0, "no", 0x0304),
        (_LD_B, 0, 0, 37),
        (_JEQ, 5, 0, 4),
        (_JEQ, 4, 0, 47),
        (_JEQ, 3, 0, 55),
        (_JEQ, 0, "no", 17),
        (_LD_H, 0, 0, 48),
        (_JEQ, 0, "no", 434),
        (_LD_LENGTH, 0, 0, 0),
        (_JGE, 0, "no", octets),
        (_RET, 0, 0, octets),
    ]
    return _link(body, {"no": 0})


def marked(tos: int, others: bool) -> list:
    """Frames whose IPv4 packet has the DSCP of `tos`, or all the others."""
    body = [(_LD_B, 0, 0, 15), (_AND, 0, 0, 0xFC), (_JEQ, "yes", "no", tos)]
    return _link(body, {"yes": 0 if others else _ALL, "no": _ALL if others else 0})


def _well_formed(largest):
    return [
        (_LD_H, 0, 0, 28),
        (_JEQ, 0, "no", 0x0404),
        # Once: what lies behind the UDP header is slow to load, where the sender's kernel cut it.
        (_LD_W, 0, 0, 32),
        (_ST, 0, 0, 0),
        (_AND, 0, 0, 0xF0000000),
        (_JEQ, 0, "no", 0x40000000),
        (_LD_MEMORY, 0, 0, 0),
        (_AND, 0, 0, _ALL),
        (_JGE, 0, "no", 20),
        (_JGT, "no", 0, largest),
        (_ADD, 0, 0, 12),
        (_TAX, 0, 0, 0),
        (_LD_H, 0, 0, 24),
        (_JEQ_X, 0, "no", 0),
        (_ADD, 0, 0, 20),
        (_TAX, 0, 0, 0),
        (_LD_LENGTH, 0, 0, 0),
        (_JEQ_X, 0, "no", 0),
        (_LD_H, 0, 0, 2),
        (_JEQ_X, 0, "no", 0),
    ]


def _control(home_address):
    """An inner packet for ourselves is control, as `leaves.control` has it; all else is data."""
    return [
        (_LD_W, 0, 0, 48),
        (_JEQ, 0, "data", int.from_bytes(home_address, "big")),
        (_LD_H, 0, 0, 38),
        (_JSET, "data", 0, 0x1FFF),
        (_LDX_HEADER, 0, 0, 32),
        (_LD_B, 0, 0, 41),
        (_JEQ, 0, 3, 1),
        (_LD_B_X, 0, 0, 32),
        (_JEQ, "control", 0, 0),
        (_JEQ, "control", "data", 8),
        (_JEQ, 0, "data", 17),
        (_LD_H_X, 0, 0, 34),
        (_JEQ, "control", "data", 434),
    ]


def _only_cpu(cpu, cpus):
    if cpus < 2:
        return []
    # First: most packets of other CPUs' sockets end here.
    return [(_LD_W, 0, 0, _CPU), (_MOD, 0, 0, cpus), (_JEQ, 0, "no", cpu)]


def _link(body, ends):
    """Resolve jumps to named ends, each a `ret` behind the body."""
    names = list(ends)
    program = []
    for i, (code, jt, jf, k) in enumerate(body):
        jt, jf = [
            len(body) + names.index(jump) - i - 1 if isinstance(jump, str) else jump
            for jump in (jt, jf)
        ]
        program.append((code, jt, jf, k))
    return program + [(_RET, 0, 0, ends[name]) for name in names]
