# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a VM: its definition, and of its disks those files that nothing else has."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

from ..._errors import VmferryError
from ..spec import DiskSpec, VmSpec
from . import domain_xml
from .connection import LONG_CALL_LIMIT, Connection
from .image_chain import read_chain
from .power_off import OFF
from .saved_memory import has_saved_memory, how_to_end

if TYPE_CHECKING:
    import libvirt

FILES = ("file", "volume")  # kinds of disks


def remove_vm(connection: Connection, vm: VmSpec, disks: bool) -> list[str]:
    """A sentence for each disk that stays although it was to go."""
    if vm.power_state not in OFF:
        raise VmferryError("conflict", f"{vm.name} is {vm.power_state}, not powered_off.", "Shut it down first.")
    if has_saved_memory(connection, vm):
        raise VmferryError("conflict", f"{vm.name} was not shut down, its memory was saved.", how_to_end(vm))
    going, said = _own_files(connection, vm) if disks else ([], [])
    connection.once(f"Removing {vm.name}", lambda opened: _undefine(opened, vm), limit=LONG_CALL_LIMIT)
    for path in going:
        try:
            connection.call(f"Removing {path}", partial(_remove, path=path), limit=LONG_CALL_LIMIT)
        except VmferryError as error:
            said.append(f"{path} of {vm.name} stays: {error.message}")
    return said


def _undefine(opened: libvirt.virConnect, vm: VmSpec) -> None:
    """Of one that is started in this moment libvirt forgets the definition only; it must keep its disks then.

    libvirt refuses to forget one whose memory was saved in this moment.
    """
    import libvirt

    domain = opened.lookupByUUIDString(vm.id)
    definition = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    domain.undefineFlags(
        libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )
    if vm.id in [one.UUIDString() for one in opened.listAllDomains()]:
        opened.defineXML(definition)
        raise VmferryError("conflict", f"{vm.name} was started meanwhile, and is not removed.", "Shut it down first.")


def _own_files(connection: Connection, vm: VmSpec) -> tuple[list[str], list[str]]:
    """The paths that go, and a sentence for each disk that stays."""
    others = connection.call(f"Looking who has the disks of {vm.name}", lambda opened: _used_by_others(opened, vm.id))
    going, said = [], []
    for disk in vm.disks:
        reason = _reason_to_stay(vm, disk, others)
        if reason:
            said.append(f"{disk.id} ({disk.source}) of {vm.name} stays: {reason}.")
        else:
            going.append(disk.source)
    return going, said


def _reason_to_stay(vm: VmSpec, disk: DiskSpec, others: dict[str, str]) -> str:
    if vm.details.get("disk_types", {}).get(disk.name) not in FILES:
        return "it is no file"
    if disk.read_only or disk.name in vm.details.get("shareable", ()):
        return "it is read only, or shared"
    owner = others.get(os.path.realpath(disk.source))
    return f"{owner} has it, too" if owner else ""


def _used_by_others(opened: libvirt.virConnect, uuid: str) -> dict[str, str]:
    """The real path of every file that another VM names or stands on, and that VM's name."""
    used: dict[str, str] = {}
    for domain in opened.listAllDomains():
        if domain.UUIDString() == uuid:
            continue
        root = domain_xml.parse(domain.XMLDesc())
        named = {value for element in root.iter() for value in (*element.attrib.values(), element.text or "")}
        for path in [*(value for value in named if value.startswith("/")), *_images(opened, root)]:
            used[os.path.realpath(path)] = domain.name()
    return used


def _images(opened: libvirt.virConnect, root: ET.Element) -> Iterator[str]:
    """Of each disk its whole chain. Raises where one is there and cannot be looked at: who knows what it stands on."""
    for disk in domain_xml.disks(root):
        path = disk.source
        if disk.kind == "volume":
            path = _volume_path(opened, disk)
        if disk.kind in FILES and disk.format == "qcow2" and path and Path(path).exists():
            yield from (layer.path for layer in read_chain(path, disk.format).layers)


def _volume_path(opened: libvirt.virConnect, disk: domain_xml.Disk) -> str:
    import libvirt

    try:
        path: str = opened.storagePoolLookupByName(disk.pool).storageVolLookupByName(disk.source).path()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_NO_STORAGE_VOL):
            raise
        return ""
    return path


def _remove(opened: libvirt.virConnect, path: str) -> None:
    """By the pool that knows it, which may do what the module's user may not."""
    import libvirt

    try:
        opened.storageVolLookupByPath(path).delete()
        return
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
            raise
    try:
        Path(path).unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise VmferryError("permission_denied", f"it cannot be removed: {error.strerror}.") from error
