"""What the data plane needs of a LAN attachment.

pairs      [(lengths, packets)]: receive sockets as dataplane/userspace.py describes
ethernet   14 octets, the header of a frame toward the LAN
ttl_step   what forwarding a packet lowers its TTL by (0: the kernel already did)
write(buffer, offset, octets) -> int | None   sends one frame without allocating; None = queue full
close()
"""
