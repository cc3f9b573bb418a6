"""Chooses the data plane of a Linux box, and takes back what another choice left in the kernel.

Owns the words for why. The kernel plane's modules are imported here and only when they are wanted:
they are heap. Called by platform/linux.py.
"""

import gc
import os

from haaro.dataplane.userspace import UserspacePlane
from haaro.platform import linux_sockets


def make_plane(settings, options: dict, pools: tuple) -> tuple:
    """Return (plane, kind, why, octets) by options["dataplane"]: "auto", "kernel" or "userspace".

    kind: "kernel" or "userspace". why: one line for the status. octets: heap of modules that were
    imported for it.
    """
    wanted = options.get("dataplane", "userspace")
    arguments = (pools, linux_sockets, settings.home_address, settings.networks)
    if wanted == "userspace":
        if _left_behind(options.get("socket")):
            from haaro.platform.linux_bpf import KernelDoor

            KernelDoor(options["socket"]).unload()
        return UserspacePlane(*arguments), "userspace", "configured", 0
    began = _heap()
    from haaro.platform.linux_bpf import KernelDoor

    door = KernelDoor(options["socket"])
    refused = door.load(repr((settings.home_address, settings.networks, options)))
    if refused:
        refused = "the kernel plane is refused: " + refused
        return UserspacePlane(*arguments), "userspace", refused, _heap() - began
    from haaro.dataplane.kernel import KernelPlane
    from haaro.dataplane.kernel_lans import FastLans
    from haaro.platform import linux_bystanders
    from haaro.platform.linux_paths import LinuxPaths

    octets = _heap() - began
    paths = LinuxPaths()
    taken = [uplink["interface"] for uplink in options["uplinks"]]
    taken.extend(pair_names(options["tunnel_interface"]))
    lans = FastLans(options.get("fast_lan"), settings.networks, taken, paths, linux_bystanders)
    plane = KernelPlane(*arguments, door, paths, lans)
    return plane, "kernel", "configured" if wanted == "kernel" else "the kernel takes it", octets


def _heap():
    gc.collect()
    return gc.mem_alloc()  # type: ignore[attr-defined]


def _left_behind(socket):
    for path in (".bpf", ".err"):
        try:
            os.stat(socket + path)
            return True
        except (OSError, TypeError):
            pass
    return False


def pair_names(kernel_end: str) -> tuple:
    """Return the names of the kernel's and of our end of the veth pair."""
    other = kernel_end[:-1] + "1" if kernel_end[-1] == "0" else kernel_end + "p"
    return kernel_end, other
