"""The compressor of realms of the wire layer (RFC 6521 4.2), for realms that come again and again.

It must give the same octets, or their number alone (a test compares), but takes realms apart once
and answers some ten times faster: what a search over orders needs, and many advertisements.
"""

from haaro.wire.realms import DICTIONARY_STRINGS, RealmEncoder

# For each label: the strings that may stand for it and what follows, longest first, and their ends.
_Candidates = list[list[tuple[str, int]]]


class RealmForms:
    """Realms taken apart once, for all searches over the same routers."""

    def __init__(self) -> None:
        self._forms: dict[str, tuple[list[str], _Candidates, list[str]]] = {}
        self._literals: dict[str, list[bytes]] = {}

    def get(self, realm: str) -> tuple[list[str], _Candidates, list[str]]:
        """Return (labels, candidates by first label, suffixes by first label)."""
        form = self._forms.get(realm)
        if form is None:
            labels = realm.split(".") if realm else []
            count = len(labels)
            candidates = [
                [(".".join(labels[start:end]), end) for end in range(count, start, -1)]
                for start in range(count)
            ]
            suffixes = [".".join(labels[start:]) for start in range(count)]
            form = self._forms[realm] = (labels, candidates, suffixes)
        return form

    def literals(self, realm: str) -> list[bytes]:
        """Return the tag of each label that is sent whole; ValueError when it cannot be a realm."""
        found = self._literals.get(realm)
        if found is None:
            RealmEncoder().encode(realm)
            found = [bytes([len(s)]) + s.encode("latin-1") for s in self.get(realm)[0]]
            self._literals[realm] = found
        return found


class RealmCost:
    """The dictionary of one advertisement while it is being counted, or made."""

    def __init__(self, forms: RealmForms) -> None:
        self._forms = forms
        self._slots = [""] * DICTIONARY_STRINGS
        self._known: dict[str, int] = {}
        self._inserted = 0

    def copy(self) -> "RealmCost":
        """Return an independent dictionary in the same state."""
        other = RealmCost(self._forms)
        other._slots = self._slots[:]
        other._known = self._known.copy()
        other._inserted = self._inserted
        return other

    def add(self, realm: str, count: int = 1) -> int:
        """Return the octets of `count` equal realms, end marks included."""
        octets = 0
        while count:
            before = self._inserted
            one = self._add(realm)
            count -= 1
            octets += one
            if self._inserted == before:
                return octets + one * count
        return octets

    def _add(self, realm: str) -> int:
        labels, candidates, suffixes = self._forms.get(realm)
        known = self._known
        octets = 1
        count = len(labels)
        i = run = 0
        while i < count:
            for string, end in candidates[i]:
                if string in known:
                    octets += 1
                    i = run = end
                    break
            else:
                octets += 1 + len(labels[i])
                self._insert(labels[i])
                i += 1
        while run < count - 1:
            self._insert(suffixes[run])
            run += 1
        return octets

    def encode(self, realm: str) -> bytes:
        """Return the tags of one realm and the end mark; ValueError when it cannot be a realm."""
        labels, candidates, suffixes = self._forms.get(realm)
        literals = self._forms.literals(realm)
        known = self._known
        out = bytearray()
        count = len(labels)
        i = run = 0
        while i < count:
            for string, end in candidates[i]:
                if string in known:
                    out.append(0x80 | known[string])
                    i = run = end
                    break
            else:
                out += literals[i]
                self._insert(labels[i])
                i += 1
        while run < count - 1:
            self._insert(suffixes[run])
            run += 1
        out.append(0)
        return bytes(out)

    def _insert(self, string: str) -> None:
        slot = self._inserted % DICTIONARY_STRINGS
        old = self._slots[slot]
        if self._known.get(old) == slot:
            del self._known[old]
        self._slots[slot] = string
        self._known[string] = slot
        self._inserted += 1
