#!/bin/sh
# Check that the system tools which the lab and its tests call are there.
# As root on a Debian-like system install the missing ones; otherwise say which they are and exit 1.
set -u

missing=""
need() { # command, Debian package
    command -v "$1" >/dev/null 2>&1 && return
    case " $missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac
}
need ip iproute2
need tc iproute2
need nft nftables
need iperf3 iperf3
need tcpdump tcpdump
need ethtool ethtool
need ping iputils-ping
need unshare util-linux
missing=${missing# }
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "haaro: missing on this system: $missing" >&2
    echo "haaro: as root on Debian or Ubuntu: apt-get install $missing" >&2
    exit 1
fi
echo "haaro: installing Debian packages: $missing"
log=$(mktemp)
# shellcheck disable=SC2086  # one word per package
if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
    >"$log" 2>&1 </dev/null; then
    rm -f "$log"
else
    cat "$log" >&2
    rm -f "$log"
    echo "haaro: apt-get could not install: $missing" >&2
    exit 1
fi
