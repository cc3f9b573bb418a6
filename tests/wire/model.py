"""A plain second implementation of RFC 6521 4 and 5.5, written from the text to test the lean one.

Strings are real strings, nothing is clever, every rule is one statement. `None` stands for refused.
"""


class Dictionary:
    def __init__(self):
        self.slots = [None] * 128
        self.count = 0

    def insert(self, string):
        self.slots[self.count % 128] = string
        self.count += 1

    def insert_suffixes(self, run):
        for start in range(len(run) - 1):
            self.insert(b".".join(run[start:]))


def encode_realm(dictionary, realm):
    """Return the octets of one realm by the search of section 4.2.2, literally."""
    remaining = realm.split(b".") if realm else []
    run = []
    out = b""
    while remaining:
        for n in range(len(remaining), 0, -1):
            candidate = b".".join(remaining[:n])
            if candidate in dictionary.slots:
                out += bytes([0x80 | dictionary.slots.index(candidate)])
                run = []
                remaining = remaining[n:]
                break
        else:
            label = remaining.pop(0)
            out += bytes([len(label)]) + label
            dictionary.insert(label)
            run.append(label)
    dictionary.insert_suffixes(run)
    return out + b"\0"


def decode_realm(dictionary, octets):
    """Return (realm, octets after it) or None."""
    parts, run = [], []
    while True:
        if not octets:
            return None
        tag, octets = octets[0], octets[1:]
        if tag == 0:
            break
        if tag & 0x80:
            string = dictionary.slots[tag & 0x7F]
            if string is None:
                return None
            run = []
        else:
            string, octets = octets[:tag], octets[tag:]
            if len(string) < tag or b"." in string or b"\0" in string:
                return None
            dictionary.insert(string)
            run.append(string)
        parts.append(string)
        if len(b".".join(parts)) > 253:
            return None
    dictionary.insert_suffixes(run)
    return b".".join(parts), octets


def decode_prefix(master, delta, plen, octets):
    """Return (prefix as 32 bits of text, octets after it) or None; `master` is such a text."""
    if plen > 32:
        return None
    size = 1 if delta else -(-plen // 8)
    if len(octets) < size:
        return None
    bits = "".join(format(octet, "08b") for octet in octets[:size])
    if delta:
        if master is None or plen < 8:
            return None
        bits = master[: plen - 8] + bits
    return bits[:plen].ljust(32, "0"), octets[size:]


def decode_advertisement(octets):
    """Return [(home address, outbound only, [(prefix, plen, realm octets)])] or None."""
    routers = []
    master = None
    dictionary = Dictionary()
    while octets:
        d, m, info = octets[0] & 0x80, octets[0] & 0x40, octets[0] & 0x3F
        octets = octets[1:]
        if m:
            if info > 1 or len(octets) < 4:
                return None
            routers.append((octets[:4], info == 1, []))
            octets = octets[4:]
            continue
        if not routers:
            return None
        decoded = decode_prefix(master, d, info, octets)
        if decoded is None:
            return None
        bits, octets = decoded
        if not d:
            master = bits
        decoded = decode_realm(dictionary, octets)
        if decoded is None:
            return None
        realm, octets = decoded
        routers[-1][2].append((int(bits, 2).to_bytes(4, "big"), info, realm))
    return routers or None
