"""Bytes <-> fields of Mobile IPv4 (RFC 5944, 5177, 3519, 3543, 6521). No I/O, no time, no randomness."""
