# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a VM's QEMU may serve its disks at all.

A disk with an I/O thread of its own is served in that thread. Old NBD servers of QEMU were not made for it: several
threads change what they count. Where the fix for CVE-2024-7409 was brought into such a version, QEMU ends as soon as a
client goes, and the guest with it (measured with 7.2.22: `nbd_blockdev_client_closed: Assertion`). From 9.0 on, the
main thread closes clients.
"""

from __future__ import annotations

from typing import Sequence, Tuple

from ..._errors import VmferryError
from ..spec import DiskSpec, VmSpec
from .keeper import Keeper

SAFE = (9, 0)
_ON = ("1", "on", "yes", "true")


def insist_on_safe_serving(keeper: Keeper, vm: VmSpec, disks: Sequence[DiskSpec]) -> None:
    """Asks QEMU itself: it is not always the one that is installed."""
    threaded = [disk.name for disk in disks if str(disk.details["options"].get("iothread", "")) in _ON]
    if not threaded:
        return
    (told,) = keeper.qmp(vm.id, ("query-version", {}))
    version: Tuple[int, ...] = tuple(int(told["qemu"][part]) for part in ("major", "minor", "micro"))
    if version[:2] >= SAFE:
        return
    raise VmferryError(
        "unsupported",
        f"{vm.name} runs with QEMU {'.'.join(map(str, version))}, which may crash when disks with an I/O thread of "
        f"their own are read while it runs: {', '.join(threaded)}.",
        "Upgrade pve-qemu-kvm to 9.0 or later, and restart the VM or migrate it. Or shut it down first.",
    )
