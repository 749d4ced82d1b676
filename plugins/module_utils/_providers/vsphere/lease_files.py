# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file of a lease is which disk of the VM. A disk that were taken for another would be restored as the other, so
what cannot be told for certain is refused.
"""

from __future__ import annotations

import re
from typing import Mapping, Optional, Sequence

from ..._errors import VmferryError
from ..spec import DiskSpec, VmSpec
from .devices import CONTROLLERS
from .lease import LeaseFile

_DEVICE = re.compile(r"([A-Za-z]+?)(\d+):(\d+)")
NVRAM = ".nvram"


def files_of_disks(files: Sequence[LeaseFile], vm: VmSpec, disks: Sequence[DiskSpec]) -> Mapping[str, LeaseFile]:
    """By the name of a disk. Raises `conflict` where the lease has none for it."""
    offered = [file for file in files if file.is_disk]
    found = {name: file for file in offered for name in [disk_name(file.key)] if name}
    if len(found) != len(offered) and len(offered) == len(vm.disks) == 1:
        found = {vm.disks[0].name: offered[0]}  # whatever it is called
    missing = [disk.name for disk in disks if disk.name not in found]
    if not missing:
        return found
    keys = ", ".join(file.key for file in offered) or "none"
    raise VmferryError(
        "conflict",
        f"vSphere does not export {', '.join(missing)} of {vm.name}; it offers {keys}.",
        "Look whether the disk was added or removed just now, and export it again.",
        retryable=True,
    )


def disk_name(key: str) -> str:
    """`/vm-42/ParaVirtualSCSIController0:1` is scsi0:1; empty for what is no disk's."""
    found = _DEVICE.fullmatch(key.rpartition("/")[2])
    bus = CONTROLLERS.get(found[1], ("", ""))[0] if found is not None else ""
    return f"{bus}{int(found[2])}:{int(found[3])}" if bus and found is not None else ""


def nvram_file(files: Sequence[LeaseFile]) -> Optional[LeaseFile]:
    """The variables of the VM's firmware."""
    others = (file for file in files if not file.is_disk)
    return next((file for file in others if file.key.endswith("/nvram") or file.target_id.endswith(NVRAM)), None)
