# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive of Proxmox VE, written into a store in one pass: its header, then one disk behind the other."""

from __future__ import annotations

import time
from secrets import token_bytes
from typing import Sequence

from ..._appliances.qm_words import CONFIG, device_of
from ..._appliances.qm_writer import drives_of, write_config
from ..._errors import VmferryError
from ..._images.vma.writer import packed_header
from ..._images.vma_header import VmaDevice, VmaHeader
from ..._providers.spec import VmSpec
from ..stored.appliance_files import ApplianceDisks
from ..stored.appliance_machine import machine_of
from ..stored.write_appliance import ApplianceDisk, Writing, WrittenAppliance

_SECTOR = 512


def write_vma(how: Writing, key: str, vm: VmSpec, disks: Sequence[ApplianceDisk]) -> WrittenAppliance:
    """The object appears, whole, in the end; raising leaves nothing. `unsupported` before the first byte for a VM that
    has no room in one.
    """
    uuid = token_bytes(16)
    writer = ApplianceDisks("vma", how.level, how.limits, how.flow)
    header = _header(vm, disks, uuid)
    extents = [writer.extents(disk.source) for disk in disks]
    written = []
    with how.opened(key, len(header) + sum(writer.bound(one) for one in extents)) as whole:
        whole.write(header)
        for number, disk in enumerate(disks):
            disk.begin()
            place = uuid, number + 1
            made = writer.write(whole, disk.source, key, extents[number], disk.digests, disk.progress, place)
            whole.send(whole.take_ready())
            written.append(made)
        archive = how.finished(whole, disks[-1].progress)
    return WrittenAppliance(tuple(written), (archive,), {})


def _header(vm: VmSpec, disks: Sequence[ApplianceDisk], uuid: bytes) -> bytes:
    for spec, disk in zip(vm.disks, disks):
        if not disk.source.size:
            raise VmferryError("unsupported", f"{spec.id} of {vm.name} is an empty disk of 0 bytes.", "Leave it out.")
    machine = machine_of(vm, [disk.id for disk in vm.disks], "raw")
    devices = [
        VmaDevice(number, device_of(drive), -(-disk.source.size // _SECTOR) * _SECTOR)
        for number, (drive, disk) in enumerate(zip(drives_of(machine), disks), 1)
    ]
    return packed_header(VmaHeader(uuid, int(time.time()), {CONFIG: write_config(machine)}, tuple(devices)))
