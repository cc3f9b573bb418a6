"""What the shell needs of the uplinks of a platform.

  socket                   readable when something may have changed, None if there is none to poll
  scan()                   looks at the world and queues what changed since the last look
  next_change() -> (index, up, address, gateway, mtu) | None
  close()

address and gateway are 4 octets; gateway is None on a point-to-point link. Never blocks.
"""
