"""Keys made in a test run bear a mark; where it is found outside of secrets the run fails.

`site/sitecustomize.py` marks what haaro's own commands make, `scan.py` looks for it, `plugin.py`
does both for pytest. Keys that tests write by hand end in the same mark where it matters.
"""
