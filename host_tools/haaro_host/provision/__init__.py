"""A box at the end of a serial cable: its console, and how it gets its files."""
