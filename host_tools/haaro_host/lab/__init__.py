"""The lab: a home agent, three offices and the internet between them, in network namespaces.

Every process it starts is the shipped program. `cli.py` is the door, `lab.py` the noun.
"""
