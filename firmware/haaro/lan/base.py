"""What the data plane needs of a LAN attachment.

pairs      [(lengths, packets)]: receive sockets as dataplane/userspace.py describes
ethernet   14 octets, the header of a frame toward the LAN
ttl_step   what forwarding a packet lowers its TTL by (0: the kernel already did)
write(buffer, offset, octets) -> int | None   sends one frame without allocating; None = not sent
close()

One that takes superframes (dataplane/superframes.py), both ways, has besides:

ahead      24 octets in front of each IP header: a vnet header, then `ethernet`; otherwise 14
joins_udp  whether UDP datagrams may be joined, too

A port without sockets (w5500.py; `pairs` is empty) has besides:

event      what `poll` can watch, or None: then `pending` is asked each turn of the loop
pending() -> bool          there may be something to read
read(buffer, at) -> int    octets of the next frame that is to be forwarded, written to buffer[at:],
                           its Ethernet header (14 octets) first; 0: no more now. What is for the
                           port itself is handled inside and not given
tick(now), next_deadline() -> int | None   its timers, in ms of the loop's clock; call tick with the
                           loop's other timers, at the latest at the deadline
status() -> dict           {"link": bool, "why": "" or what is wrong and what to do, ...}
warnings   lines for the log; read and cleared by the caller
`write` puts the next hop's address in place of that in the header; where it is not known yet, one
packet for each neighbour waits and the call says that it was sent.
"""
