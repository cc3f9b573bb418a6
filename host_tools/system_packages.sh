#!/bin/sh
# Check for what the project needs of the system, beyond Python packages:
#
#     system_packages.sh           the tools that the lab and the demo call
#     system_packages.sh --tests   what only tests call; without it they are skipped
#     system_packages.sh --bpf     what builds and loads the kernel plane; without it there is the
#                                  userspace plane
#     system_packages.sh --bench   what `make bench` compares with; without it rows are left out
#     system_packages.sh PYTHON    that this interpreter can make virtual environments
#
# As root on a Debian-like system install what is missing; otherwise say what it is and exit 1 (with
# --tests, --bpf and --bench: 0).
set -u

python=${1:-}

need() { # command, Debian package
    command -v "$1" >/dev/null 2>&1 && return
    case " $missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac
}

check() {
    missing=""
    if [ "$python" = --tests ]; then
        need tshark tshark
        need slirp-fullbolt slirp
        need chat ppp
        need dhclient isc-dhcp-client
        need busybox busybox-static
        need dropbear dropbear-bin
        need ssh openssh-client
        missing=${missing# }
        return
    elif [ "$python" = --bpf ]; then
        need clang clang
        need llvm-strip llvm
        need bpftool bpftool
        need tc iproute2
        [ -e /usr/include/bpf/bpf_helpers.h ] || missing="$missing libbpf-dev"
        missing=${missing# }
        return
    elif [ "$python" = --bench ]; then
        need gcc gcc
        [ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
        need tincd tinc
        need openvpn openvpn
        need nebula nebula
        need wireguard-go wireguard-go
        need wg wireguard-tools
        missing=${missing# }
        return
    elif [ -n "$python" ]; then
        "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="python3-venv"
        return
    fi
    need ip iproute2
    need nft nftables
    need iperf3 iperf3
    need ethtool ethtool
    need ping iputils-ping
    need sysctl procps
    need unshare util-linux
    missing=${missing# }
}

check
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "haaro: missing on this system: $missing" >&2
    echo "haaro: as root on Debian or Ubuntu: apt-get install $missing" >&2
    case "$python" in
    --tests) echo "haaro: the tests that call it are skipped" >&2 ;;
    --bpf) echo "haaro: without it packets go by the userspace plane" >&2 ;;
    --bench) echo "haaro: the rows of the bench that need it are left out" >&2 ;;
    *) exit 1 ;;
    esac
    exit 0
fi

echo "haaro: installing Debian packages: $missing"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # one word per package
{ apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null
check
if [ -n "$missing" ]; then
    cat "$log" >&2
    echo "haaro: still missing after apt-get install: $missing" >&2
fi
rm -f "$log"
[ -z "$missing" ]
