"""The fleet: one commented TOML for all sites, their keys sealed beside it, the files made of both.

`inventory.py` is the noun of `haaro fleet`, `keys.py` of `haaro keys`; `export.py` writes what the
home agent and the routers read.
"""
