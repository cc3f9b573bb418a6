"""Local break-out: what the office sends to the internet leaves by the uplink, translated.

Owns the nftables table `haaro_local` and which prefixes never leave that way: private ranges, what
the operator lists, and all that was ever learnt from the home agent while this box is up. Imported
only where `internet` is "local". Called by platform/linux.py.
"""

import os

from haaro.compat import const
from haaro.wire.ipv4 import text

_MOST = const(1000)
_NAMES = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-@:"
_TABLE = """table ip haaro_local {
 set inside { type ipv4_addr; flags interval; auto-merge; elements = { %s } }
 chain inside_only { type filter hook forward priority 0; policy accept;
  oifname { %s } ip saddr { %s } ip daddr @inside drop
 }
 chain translate { type nat hook postrouting priority 100; policy accept;
  oifname { %s } ip saddr { %s } masquerade
 }
}
"""
_REMOVE = "table ip haaro_local {}\ndelete table ip haaro_local\n"


class Breakout:
    """`inside`, `networks`: lists of (prefix4, length); interfaces: the uplinks'."""

    def __init__(self, routing, inside: list, networks: list, interfaces: list) -> None:
        self._routing = routing
        self._inside = inside
        self._networks = networks
        self._interfaces = interfaces
        self._kept: set = set()
        self._index = 0

    def start(self, index: int, kept: list) -> None:
        """Put everything in force but the uplinks' rules; raises OSError.

        index: of the pair's kernel end. kept: what an earlier run had learnt.
        """
        self._index = index
        for interface in self._interfaces:
            if interface.strip(_NAMES):
                raise OSError(22, "internet = local: %s is no name of an interface" % interface)
        uplinks = ", ".join(['"%s"' % interface for interface in self._interfaces])
        networks = _prefixes(self._networks)
        words = (_prefixes(self._inside), uplinks, networks, uplinks, networks)
        if not nft(_REMOVE + _TABLE % words):
            raise OSError(38, "internet = local needs nft (package nftables) and NAT in the kernel")
        self.learn(self._inside + kept)

    def learn(self, prefixes: list) -> bool:
        """Keep these inside too, for as long as this box is up; False if there is no room."""
        for prefix in prefixes:
            if prefix not in self._kept:
                if len(self._kept) >= _MOST:
                    return False
                self._routing.keep_inside(self._index, prefix[0], prefix[1])
                self._kept.add(prefix)
        return True


def remove() -> None:
    """Take the table away, if there is one and `nft` to do it."""
    nft(_REMOVE)


def nft(script: str) -> bool:
    """Give a script to `nft`; return whether it took it."""
    command = "PATH=$PATH:/usr/sbin:/sbin nft -f - 2>/dev/null <<'END'\n%sEND\n"
    return os.system(command % script) == 0


def _prefixes(rows):
    return ", ".join(["%s/%d" % (text(prefix), plen) for prefix, plen in rows])
