# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The VM that an import writes: as it was read, with what the task wants otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Iterator, Mapping

from ..._appliances.ovf_writer import BUSES
from ..._providers.base import Placement
from ..._providers.finding import Finding
from ..._providers.network_names import mapped_network, unknown_networks
from ..._providers.placement_options import unknown_options
from ..._providers.spec import DiskSpec, Firmware, VmSpec

_NO_HYPERVISOR = "Files have no hypervisor: import the VM to one, or leave this out."
_CARRIED = "appliance"  # in a VM's details
_FILES = ("image", "appliance")  # of which no firmware keeps any variables


def landed(vm: VmSpec, placement: Placement) -> VmSpec:
    networks = {nic.network: mapped_network(nic, placement) or nic.network for nic in vm.nics}
    firmware: Firmware = placement.firmware or vm.firmware  # type: ignore[assignment]
    return replace(
        vm,
        name=placement.name,
        cpu=placement.cpu or vm.cpu,
        memory_mb=placement.memory_mb or vm.memory_mb,
        firmware=firmware,
        secure_boot=vm.secure_boot and firmware == "uefi",
        disks=tuple(_attached(disk, placement.disk_bus) for disk in vm.disks),
        nics=tuple(
            replace(
                nic,
                network=mapped_network(nic, placement) or nic.network,
                mac=nic.mac if placement.keep_mac else "",
            )
            for nic in vm.nics
        ),
        details=_details(vm.details, networks),
    )


def _attached(disk: DiskSpec, bus: str) -> DiskSpec:
    """The model of a controller goes with its bus."""
    return replace(disk, bus=bus, details={}) if bus else disk


def _details(details: Mapping[str, Any], networks: Mapping[str, str]) -> dict[str, Any]:
    """What a descriptor said of networks is of these under their new names."""
    carried = dict(details.get(_CARRIED, {}))
    told = carried.get("networks", {})
    if told:
        carried["networks"] = {networks.get(name, name): text for name, text in told.items()}
    return {**details, _CARRIED: carried} if carried else dict(details)


def refused_options(placement: Placement) -> Iterator[Finding]:
    """What means nothing here is said, and not passed over."""
    yield from unknown_options(placement, "image")
    if placement.power_on:
        yield Finding("error", "A VM that is files cannot be started.", _NO_HYPERVISOR, "unsupported")
    if placement.storage or placement.storage_map:
        what = "placement.storage" if placement.storage else "storage_map"
        text = f"{what} says where a hypervisor keeps disks; files are written below image.url."
        yield Finding("error", text, f"Leave out {what}, and set image.url to where they are to be.", "invalid_config")
    if placement.disk_bus and placement.disk_bus not in BUSES:
        text = f"{placement.disk_bus} is no disk bus that a descriptor has words for."
        yield Finding("error", text, f"Use one of {', '.join(BUSES)}.", "invalid_config")


def left_behind(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    """What a descriptor has no words for, and what may not work as before."""
    yield from unknown_networks(vm, placement)
    if placement.firmware and placement.firmware != vm.firmware:
        text = f"{vm.name} was installed for {vm.firmware}; with {placement.firmware} it may not boot."
        yield Finding("warning", text, "Leave firmware out to keep it.")
    if vm.tpm:
        yield Finding("warning", f"The TPM of {vm.name}, and what it keeps, is left behind.")
    if vm.firmware == "uefi" and vm.provider not in _FILES:
        yield Finding("warning", f"The variables that the firmware of {vm.name} keeps are left behind.")
