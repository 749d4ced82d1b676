# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What images of disks do not say of their VM, and a hypervisor has to know."""

from __future__ import annotations

from dataclasses import replace
from typing import Sequence

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._images.partition_table import boots_by
from ..._providers.spec import VmSpec
from ..stored.image_nics import NETWORKS, nics_of_image


def with_hardware(vm: VmSpec, networks: Sequence[str] | None) -> VmSpec:
    """With network cards, where nobody knows which it had. Raises `invalid_config` where that is known."""
    if vm.details.get(vm.provider, {}).get("assumed"):
        names = NETWORKS if networks is None else networks
        return replace(vm, nics=nics_of_image(names, [disk.format for disk in vm.disks]))
    if networks is None:
        return vm
    raise VmferryError(
        "invalid_config",
        f"hardware.networks is about VMs that are disk images; it is known what network cards {vm.name} has.",
        "Leave it out, and say with network_map where they go.",
    )


def with_firmware(vm: VmSpec, system: BlockSource) -> VmSpec:
    """`system`: the disk that it boots from, which tells by which firmware."""
    return replace(vm, firmware=boots_by(system) or "bios")
