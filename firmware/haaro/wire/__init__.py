"""Bytes <-> fields of Mobile IPv4 (RFC 5944, 5177, 3519, 3543, 6521); no I/O, no time."""
