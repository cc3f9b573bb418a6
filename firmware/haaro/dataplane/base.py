"""What every data plane offers, the names of its drop reasons, and the pools main.py makes.

A data plane moves user packets between the LAN attachment and the tunnels. Per packet it
allocates nothing, raises nothing and logs nothing; each refusal has a counter. It never decides
protocol: it forwards by the table it was given and hands control packets to the core. The shell
loop is its only caller. This module is small on purpose: main.py reads `POOL_SIZES` from it
before anything that could fragment the heap is imported.

A plane has:
  attach_lan(port), open_uplink(index, interface, address, mtu), close_uplink(index)
  set_tunnel(id, uplink, local, remote, remote_port, mtu, peer, also), delete_tunnel(id)
  swap(routes, sources)       tables of forwarding, replaced as a whole
  commit()                    what was set, deleted and swapped is in force; at the latest then
  look_around()               the box's links or routes may have changed
  check()                     about once a second: what is only believed for a while ends
  send(id, packet) -> bool    one inner packet of the control plane into a tunnel, by `control`
  take(uplink, packet)        one tunnel packet that came by the signalling socket
  register(poll), handle(obj, event) -> bool   one bounded batch; False: obj is not ours
  next_control() -> (id, packet, src, sport, uplink) | None   inner packets diverted to the core
  next_stray() -> (uplink, src, sport, dst, data) | None   keepalives from no known tunnel end
  wanted, wanted_any          route hints seen since the shell last cleared them
  user_rx(id), user_tx(id)    user packets taken from and sent into a tunnel: what the core sends
                              or is given is none
  counters() -> dict, own_loss() -> dict, mtu(id) -> int, close()
  clamp_mss(on)               whether TCP SYNs are made to fit the tunnel's MTU; at first not
"""

MAX_TUNNELS = 65
MAX_HINTS = 256
# Largest inner packet taken from a tunnel or from the LAN, octets.
MAX_PACKET = 1500
# IPv4 + UDP + tunnel data header (RFC 3519 3.3).
OVERHEAD = 32
# Packets of one batch: that many of full size fit into the batch pool, so that a batch is
# always read to its end and no record waits for a second turn of the loop.
BATCH = 32
# vnet header and frame that Linux hands on at most, while nobody raises its gso_max_size.
LARGEST_FRAME = 10 + 65536
# Record lengths of the length oracle: header up to the identification of the inner packet.
LAN_RECORD = 20
UPLINK_RECORD = 38

# Entries of a forwarding table, 10 octets each: 64 peers with two prefixes and a home address
# make about 520.
TABLE_ENTRIES = 1000

# Octets of each pool, in the order UserspacePlane takes them: batch, records, two tables. One
# batch is read, forwarded and sent before the next is read, so both directions and all uplinks
# share the first two.
POOL_SIZES = (
    LARGEST_FRAME,
    BATCH * UPLINK_RECORD,
    TABLE_ENTRIES * 10,
    TABLE_ENTRIES * 10,
)

# The same for a board: one packet with room for what is put ahead, and entries for 64 peers.
BOARD_POOL_SIZES = (1600, 0, 6000, 6000)

# Layout of the state buffer that the leaves read: one slot per tunnel, then what belongs to
# the LAN attachment.
SLOT = 24
SLOT_REMOTE = 0  # 4 octets
SLOT_PORT = 4  # 2
SLOT_UPLINK = 6
SLOT_UP = 7  # 0 no such tunnel
SLOT_MTU = 8  # 2, of the inner packet
SLOT_PEER = 10  # 4, inner address that keepalives come from
SLOT_OTHER = 16  # 8, another end that is received from, laid out as the first 8
STATE_ETHERNET = SLOT * MAX_TUNNELS  # 14 octets, header toward the LAN
STATE_TTL_STEP = STATE_ETHERNET + 14
STATE_OTHERS = STATE_TTL_STEP + 1  # 1 if any tunnel has another end
STATE_CLAMP = STATE_OTHERS + 1  # 1 if TCP is told of the tunnel's MTU
STATE_SIZE = STATE_CLAMP + 1

# Drop reasons; a leaf returns the negative index.
REASONS = (
    "",
    "out_bad_header",
    "out_bad_checksum",
    "out_foreign_source",
    "out_not_unicast",
    "out_own_destination",
    "out_tunnel_end_destination",
    "out_no_route",
    "out_tunnel_down",
    "out_ttl_exceeded",
    "out_too_big",
    "in_unknown_tunnel_end",
    "in_home_agent_port",
    "in_bad_header",
    "in_bad_checksum",
    "in_ttl_exceeded",
    "in_not_unicast",
    "in_own_source",
    "in_tunnel_end_source",
    "in_unconfirmed_source",
    "in_tunnel_end_destination",
    "in_foreign_destination",
    "in_control_overflow",
    "in_stray_overflow",
    "in_congestion_unmarked",
)
OUT_TTL_EXCEEDED = 9
OUT_TOO_BIG = 10
IN_UNKNOWN_TUNNEL_END = 11
IN_CONTROL_OVERFLOW = 22
IN_STRAY_OVERFLOW = 23
