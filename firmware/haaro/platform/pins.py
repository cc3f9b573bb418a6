"""Reads pins.csv, the board's own file (boards/*/pins.csv), put beside the configuration.

`NAME,GPIO10` a line. Names: W5500_* is the LAN port's chip, UPLINK_* that of an Ethernet uplink,
ETH_MDC, ETH_MDIO and ETH_POWER a PHY's, MODEM_TX, MODEM_RX, MODEM_RTS and MODEM_CTS the UART's of a
modem.
"""


def read_pins(path: str) -> dict:
    """Return {name: GPIO} of the pins.csv at `path`, {} if there is none. Raises ValueError."""
    pins: dict = {}
    try:
        with open(path) as file:
            for line in file:
                name, _, pin = line.strip().partition(",")
                if pin:
                    pins[name] = int(pin.replace("GPIO", ""))
    except OSError:
        pass  # a board that needs none; who does says so
    except ValueError:
        raise ValueError("%s: %s: must be like W5500_CS,GPIO10" % (path, line.strip())) from None
    return pins
