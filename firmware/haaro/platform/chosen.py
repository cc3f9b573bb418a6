"""Which machine is under the router: told by what the port has, not by its name."""


def is_board() -> bool:
    """Return whether this is a microcontroller: its module `machine` has buses."""
    try:
        import machine
    except ImportError:
        return False
    return hasattr(machine, "SPI")


def machine_class():
    """Return the class of the attachment: LwipMachine or LinuxMachine."""
    if is_board():
        from haaro.platform.lwip import LwipMachine

        return LwipMachine
    from haaro.platform.linux import LinuxMachine

    return LinuxMachine
