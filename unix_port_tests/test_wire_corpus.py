"""What fuzzing found worth keeping, inside MicroPython: messages, lists and packets."""

import support

from haaro.wire import encapsulation, extensions, ipv4, message
from haaro.wire.errors import WireError

CORPUS = support.ROOT + "/tests/fuzz/corpus/"


def refused(name, read):
    """Return (inputs, how many raised WireError); anything else that is raised fails."""
    count = total = 0
    with open(CORPUS + name + ".hex") as lines:
        for line in lines:
            total += 1
            try:
                read(bytes.fromhex(line.strip()))
            except WireError:
                count += 1
    return total, count


def read_message(data):
    m = message.parse(data)
    for extension in getattr(m, "extensions", ()):
        if isinstance(extension, extensions.PrefixAdvertisement):
            for _ in extension.routers():
                pass


def read_list(data):
    for _ in extensions.PrefixAdvertisement(data, 0, len(data)).routers():
        pass


def read_packet(data):
    ip = ipv4.parse_ipv4(data)
    ipv4.parse_icmp_echo(data, ip)
    ipv4.parse_udp(data, ip)


def test_the_corpus_raises_only_wire_error():
    for name, read in (
        ("parse_message", read_message),
        ("advertisement", read_list),
        ("packet", read_packet),
        ("tunnel", encapsulation.decapsulate),
    ):
        total, count = refused(name, read)
        assert 0 < count <= total, name
