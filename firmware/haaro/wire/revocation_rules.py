"""Who may revoke a registration, and when it counts (RFC 3543 3.2 to 3.5, 4.2.1): pure rules.

Nothing here authenticates: every message must have a right authenticator before it is judged.
"""

from haaro.wire.extensions import RevocationSupport
from haaro.wire.revocation import Revocation, RevocationAck


def negotiated(
    offered: RevocationSupport | None, answered: RevocationSupport | None
) -> tuple[bool, bool]:
    """Return (revocation, inform bit) for a binding, from the extensions of Request and Reply.

    Both are agreed only when both sides say so (4.2.1, 3.2).
    """
    if offered is None or answered is None:
        return False, False
    return True, offered.i and answered.i


def answer_inform(offered: RevocationSupport, wanted: bool) -> bool:
    """Return I for the Reply: a home agent does not set it when the Request had it 0 (3.2)."""
    return wanted and offered.i


def is_newer(identifier: int, last: int) -> bool:
    """Tell whether a 32 bit timestamp is later than `last`, across its wrap in 2036."""
    return 0 < (identifier - last) & 0xFFFFFFFF < 0x80000000


def accepts(message: Revocation, from_home_agent: bool, last: int) -> bool:
    """Tell whether `message` is neither a replay nor our own sent back (3.5).

    `from_home_agent`: the sender must be the home agent, so A is set; `last`: the latest timestamp
    of that sender, from its Revocation Support or an earlier Revocation.
    """
    return message.a == from_home_agent and is_newer(message.identifier, last)


def acknowledges(ack: RevocationAck, sent: Revocation) -> bool:
    """Tell whether `ack` answers the Revocation `sent` (3.5)."""
    return ack.home_address == sent.home_address and ack.identifier == sent.identifier


def informs(ack: RevocationAck, sent: Revocation) -> bool:
    """Return the I that counts: in an ack it is ignored unless the Revocation had it (3.4)."""
    return ack.i and sent.i
