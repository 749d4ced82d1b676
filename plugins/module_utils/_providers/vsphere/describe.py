# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs of vSphere described: what is asked for in one round trip, and what is made of the answer."""

from __future__ import annotations

from typing import Any, Mapping, Sequence
from urllib.parse import unquote

from ..import_mark import WHOLE, mark_in
from ..spec import Firmware, PowerState, VmSpec
from .devices import Devices, Layout, leaf
from .places import PATHS, STEPS, Places
from .properties import Row, Rows, every, of_view, retrieve
from .session import Session
from .snapshot_tree import listed

_STATES: Mapping[str, PowerState] = {
    "poweredOn": "powered_on",
    "poweredOff": "powered_off",
    "suspended": "suspended",
}
_FIRMWARE: Mapping[str, Firmware] = {"bios": "bios", "efi": "uefi"}
_VM = (
    "config.annotation",
    "config.bootOptions",
    "config.changeTrackingEnabled",
    "config.files.vmPathName",
    "config.firmware",
    "config.guestFullName",
    "config.guestId",
    "config.hardware",
    "config.instanceUuid",
    "config.keyId",
    "config.template",
    "config.uuid",
    "config.version",
    "guest.guestFullName",
    "guest.toolsRunningStatus",
    "guest.toolsVersionStatus2",
    "layoutEx.disk",
    "layoutEx.file",
    "name",
    "parent",
    "parentVApp",
    "resourcePool",
    "runtime.connectionState",
    "runtime.consolidationNeeded",
    "runtime.host",
    "runtime.powerState",
    "snapshot",
)


def describe_all(session: Session) -> list[VmSpec]:
    """One call makes a view of all VMs, one reads a page of them with all that they refer to, one ends the view."""

    def work(content: Any) -> Rows:
        with every(content, "VirtualMachine") as view:
            return retrieve(content, [view], of_view(STEPS), {"VirtualMachine": _VM, **PATHS})

    return described(session.read("Listing the VMs", work))


def describe_these(session: Session, morefs: Sequence[str], doing: str) -> list[VmSpec]:
    """In one call for a page of them, in the order asked for. Raises `not_found` where one is gone."""
    vms = [session.managed("VirtualMachine", moref) for moref in dict.fromkeys(morefs)]
    rows = session.read(doing, lambda content: retrieve(content, vms, STEPS, {"VirtualMachine": _VM, **PATHS}))
    found = {vm.details["moref"]: vm for vm in described(rows)}
    return [found[moref] for moref in morefs]


def described(rows: Rows) -> list[VmSpec]:
    places = Places(rows)
    return [_spec(row, places) for row in rows.values() if row.kind == "VirtualMachine"]


def _spec(row: Row, places: Places) -> VmSpec:
    hardware = row.get("config.hardware")
    boot = row.get("config.bootOptions")
    tracking = bool(row.get("config.changeTrackingEnabled"))
    devices = Devices(
        devices=(hardware.device if hardware is not None else None) or (),
        boot_order=(boot.bootOrder if boot is not None else None) or (),
        layout=Layout(row.get("layoutEx.disk", ()), row.get("layoutEx.file", ())),
        storage_kinds=places.storage_kinds,
        networks=places.networks,
        tracking=tracking,
    )
    reachable = row.get("runtime.connectionState", "connected") == "connected"
    return VmSpec(
        provider="vsphere",
        id=row.get("config.instanceUuid") or row.get("config.uuid") or row.moref,
        name=unquote(row.get("name", "")),
        path=places.path_of(row),
        power_state=_STATES.get(row.get("runtime.powerState", ""), "unknown") if reachable else "unknown",
        cpu=hardware.numCPU if hardware is not None else 0,
        memory_mb=hardware.memoryMB if hardware is not None else 0,
        firmware=_FIRMWARE.get(row.get("config.firmware", ""), "unknown"),
        disks=devices.disks(),
        nics=devices.nics(),
        snapshots=listed(row.get("snapshot")),
        secure_boot=bool(boot is not None and getattr(boot, "efiSecureBootEnabled", None)),
        tpm=devices.has("VirtualTPM"),
        machine=row.get("config.version", ""),
        guest_os=row.get("guest.guestFullName") or row.get("config.guestFullName") or "",
        guest_agent=row.get("guest.toolsRunningStatus") == "guestToolsRunning",
        host=places.name_of(row.get("runtime.host")),
        details=_details(row, places, devices, tracking),
    )


def _imported_from(notes: str) -> dict[str, str]:
    """The export, and the VM that was exported; empty for a VM that no import of ours made, or has not made yet."""
    mark = mark_in(notes)
    return mark.imported_from if mark is not None and mark.state == WHOLE else {}


def _details(row: Row, places: Places, devices: Devices, tracking: bool) -> dict[str, Any]:
    hardware = row.get("config.hardware")
    return {
        "moref": row.moref,
        "instance_uuid": row.get("config.instanceUuid", ""),
        "bios_uuid": row.get("config.uuid", ""),
        "folder": places.path_of(row).rpartition("/")[0],
        "datacenter": places.datacenter_of(row),
        "cluster": places.cluster_of(row),
        "resource_pool": places.name_of(row.get("resourcePool")),
        "vapp": places.name_of(row.get("parentVApp")),
        "connection_state": row.get("runtime.connectionState", ""),
        "template": bool(row.get("config.template")),
        "description": row.get("config.annotation", ""),
        "file": row.get("config.files.vmPathName", ""),
        "hardware_version": row.get("config.version", ""),
        "guest_id": row.get("config.guestId", ""),
        "cores_per_socket": (hardware.numCoresPerSocket if hardware is not None else None) or 1,
        "tools": {
            "running": row.get("guest.toolsRunningStatus", ""),
            "version": row.get("guest.toolsVersionStatus2", ""),
        },
        "encrypted": row.get("config.keyId") is not None,
        "change_tracking": tracking,
        "consolidation_needed": bool(row.get("runtime.consolidationNeeded")),
        "cdroms": devices.drives("VirtualCdrom"),
        "floppies": devices.drives("VirtualFloppy"),
        "imported_from": _imported_from(row.get("config.annotation") or ""),
        "passthrough": [one.deviceInfo.label for one in devices.devices if leaf(one) == "VirtualPCIPassthrough"],
    }
