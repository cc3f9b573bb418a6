"""The front door of the wire layer: a UDP payload of port 434 becomes one message object."""

from haaro.compat import const
from haaro.wire.errors import WireError
from haaro.wire.registration import REGISTRATION_REPLY as REGISTRATION_REPLY
from haaro.wire.registration import REGISTRATION_REQUEST as REGISTRATION_REQUEST
from haaro.wire.registration import RegistrationReply, RegistrationRequest
from haaro.wire.return_routability import COT as COT
from haaro.wire.return_routability import COTI as COTI
from haaro.wire.return_routability import HOT as HOT
from haaro.wire.return_routability import HOTI as HOTI
from haaro.wire.return_routability import TestMessage
from haaro.wire.revocation import REVOCATION as REVOCATION
from haaro.wire.revocation import REVOCATION_ACK as REVOCATION_ACK
from haaro.wire.revocation import Revocation, RevocationAck
from haaro.wire.udp_tunnel import TUNNEL_DATA as TUNNEL_DATA
from haaro.wire.udp_tunnel import TunnelData

MIP_PORT = const(434)

_CLASSES = {
    REGISTRATION_REQUEST: RegistrationRequest,
    REGISTRATION_REPLY: RegistrationReply,
    TUNNEL_DATA: TunnelData,
    REVOCATION: Revocation,
    HOTI: TestMessage,
    COTI: TestMessage,
    HOT: TestMessage,
    COT: TestMessage,
    REVOCATION_ACK: RevocationAck,
}


def parse(data: bytes, message=None):
    """Return the message object for `data`, which it keeps; nothing is authenticated yet.

    `message`: an object that an earlier call returned and nobody needs any more. It is read anew
    and returned if it is of the right class; after a WireError it must not be used.

    Raises WireError, and nothing else, when the datagram must be dropped without an answer: empty,
    unknown_type, message_truncated, ext_overrun, unknown_nonskippable, too_many_extensions or
    auth_ext_length.
    """
    if not data:
        raise WireError("empty")
    cls = _CLASSES.get(data[0])
    if cls is None:
        raise WireError("unknown_type")
    if type(message) is cls:
        message.__init__(data)  # type: ignore[misc]  # its class is exactly cls
        return message
    return cls(data)
