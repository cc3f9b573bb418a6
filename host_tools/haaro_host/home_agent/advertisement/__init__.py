"""Prefix Advertisements as short as RFC 6521 4 and 5.5 allow: order, masters, octets, cut.

plan.arrange chooses the order, plan.encode makes the octets; masters and realms know what an order
costs, order searches. No state but what the caller keeps, no I/O.
"""
