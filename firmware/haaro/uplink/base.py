"""The uplink contract, and when a reading of an uplink's state is believed.

What the shell needs of the watcher of a platform's uplinks (`linux_netdev`):

  socket                   readable when something may have changed, None if there is none to poll
  scan()                   looks at the world and queues what changed since the last look
  next_change() -> (index, up, address, gateway, mtu) | None
  close()

What a link that we bring up ourselves offers (`cellular`; sans-IO, `now` in milliseconds):

  start(now), stop(now)    asks for the link, or ends it from whatever state it is in
  handle_timer(now), next_deadline() -> int | None
  state                    DOWN, CONNECTING, UP or FAILED, by `Settled`
  reason                   why it is not up, for the operator; "" when it is
  address, gateway, mtu    while UP: 4 octets, 4 octets or None (point to point), octets
  interface                the name that sockets of this link are bound to; None where the port can
                           not bind (rp2): only the default route can be used then

Nothing here ever blocks. An uplink that FAILED goes on trying unless its reason says otherwise.
"""

DOWN = "down"
CONNECTING = "connecting"
UP = "up"
FAILED = "failed"


class Settled:
    """Believes a reading of the state when it has held for long enough.

    Drivers pass through odd states: ESP32's Wi-Fi reads idle between connecting and connected, and
    "wrong password" after an outage; a modem's link ends in the moment it came up. times: {state:
    milliseconds}; a state that is not named is believed at once.
    """

    def __init__(self, times: dict) -> None:
        self._times = times
        self.state = DOWN
        self.deadline: int | None = None  # when `read` must be called with the same reading
        self._candidate = DOWN

    def read(self, now: int, state: str) -> bool:
        """Take a reading; return whether `state` of this object has changed."""
        if state != self._candidate:
            self._candidate = state
            self.deadline = now + self._times.get(state, 0)
        if state == self.state:
            self.deadline = None
        if self.deadline is None or now < self.deadline:
            return False
        self.deadline = None
        self.state = state
        return True
