# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a VM's QEMU may serve its disks: see `qemu_serving`."""

from __future__ import annotations

from typing import Sequence

from ..qemu_serving import insist_on_safe_version
from ..spec import DiskSpec, VmSpec
from .keeper import Keeper

HINT = "Upgrade pve-qemu-kvm to 9.0 or later, and restart the VM or migrate it. Or shut it down first."
_ON = ("1", "on", "yes", "true")


def insist_on_safe_serving(keeper: Keeper, vm: VmSpec, disks: Sequence[DiskSpec]) -> None:
    """Asks QEMU itself: it is not always the one that is installed."""
    threaded = [disk.name for disk in disks if str(disk.details["options"].get("iothread", "")) in _ON]
    if not threaded:
        return
    (told,) = keeper.qmp(vm.id, ("query-version", {}))
    insist_on_safe_version(told, vm.name, threaded, HINT)
