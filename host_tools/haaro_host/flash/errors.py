"""How flashing ends when it does not end well."""

from haaro_host.fleet.files import FleetError


class FlashError(FleetError):
    """It cannot be done; the text says what is wrong and what to do."""


class BadInputError(FlashError):
    """A file or a word of the operator's is wrong; trying again does not help."""

    code = 2
