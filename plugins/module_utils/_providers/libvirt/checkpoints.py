# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints: moments that libvirt knows by name, each with a dirty bitmap of that name in every disk it covers.

https://libvirt.org/formatcheckpoint.html. Measured with libvirt 9.0 and QEMU 7.2: the bitmap of every checkpoint goes
on recording until the checkpoint is deleted, however many there are. So the bitmap of one checkpoint tells by itself
all that changed since, other checkpoints may come and go, and two chains of exports do not disturb each other. Over
external snapshots a bitmap goes on in the new image under its name, and an active commit merges it back; what has to
be united is therefore the bitmaps of one name along the images (qemuBlockGetBitmapMergeActions in libvirt's
src/qemu/qemu_block.c), never those of several names in one image. A crash of QEMU breaks them all.
"""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING, Collection, FrozenSet, Mapping, Sequence, Tuple

from ..._errors import VmferryError
from ..spec import VmSpec
from . import domain_xml
from .bitmaps import remove_bitmaps
from .connection import Connection
from .describe import describe
from .errors import CHECKPOINT_BROKEN, INTERNAL_ERROR, NO_CHECKPOINT, NO_DOMAIN, code_of

if TYPE_CHECKING:
    import libvirt

TOKEN = re.compile(r"vmferry-[0-9a-f]{8}-[0-9a-f]{8}")
Source = Tuple[str, str]  # a pool, or nothing, and a path or volume in it


@dataclass(frozen=True)
class Checkpoint:
    name: str
    tracked: FrozenSet[str]  # targets
    newest: Mapping[str, Source]  # each disk's newest image when it was made, by target


def checkpoint_xml(name: str, tracked: Collection[str], targets: Sequence[str]) -> str:
    """`targets`: of all disks; of those, `tracked` get a bitmap."""
    return ET.tostring(_checkpoint(name, tracked, targets), "unicode")


def tokens(connection: Connection, uuid: str) -> list[str]:
    """Ours, the oldest first."""

    def work(domain: libvirt.virDomain) -> list[str]:
        import libvirt

        flags = libvirt.VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL
        return [checkpoint.getName() for checkpoint in domain.listAllCheckpoints(flags)]

    found = connection.domain(uuid, "Listing the checkpoints", work)
    return [name for name in found if TOKEN.fullmatch(name)]


def look_up(connection: Connection, uuid: str, name: str) -> Checkpoint | None:
    def work(domain: libvirt.virDomain) -> str:
        return str(domain.checkpointLookupByName(name).getXMLDesc())

    try:
        root = domain_xml.parse(connection.domain(uuid, f"Looking for checkpoint {name}", work))
    except VmferryError as error:
        if code_of(error) == NO_CHECKPOINT:
            return None
        raise
    domain = root.find("domain")
    disks = [] if domain is None else domain_xml.disks(domain)
    return Checkpoint(name, frozenset(_tracked(root)), {disk.target: (disk.pool, disk.source) for disk in disks})


def is_whole(connection: Connection, uuid: str, name: str) -> bool:
    """Of a VM that runs: whether QEMU has every bitmap of it, and none is broken."""

    def work(domain: libvirt.virDomain) -> None:
        import libvirt

        flags = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
        flags |= libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
        # with secrets, for what is defined anew is all that libvirt keeps
        text = domain.checkpointLookupByName(name).getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_SECURE)
        domain.checkpointCreateXML(text, flags)

    try:
        connection.domain(uuid, f"Checking checkpoint {name}", work)
    except VmferryError as error:
        if code_of(error) == CHECKPOINT_BROKEN:
            return False
        raise
    return True


def bytes_changed(connection: Connection, uuid: str, name: str) -> dict[str, int]:
    """Of a VM that runs, since then, by target."""

    def work(domain: libvirt.virDomain) -> str:
        import libvirt

        sizes = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE | libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
        return str(domain.checkpointLookupByName(name).getXMLDesc(sizes))

    root = domain_xml.parse(connection.domain(uuid, f"Measuring what changed since checkpoint {name}", work))
    return {disk.get("name", ""): int(disk.get("size", 0)) for disk in root.iterfind("disks/disk[@size]")}


def define(connection: Connection, uuid: str, name: str, tracked: Collection[str]) -> None:
    """Tell libvirt of a checkpoint whose bitmaps it did not make; it adopts them when the VM starts."""

    def work(domain: libvirt.virDomain) -> None:
        import libvirt

        described = domain_xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE))
        targets = [disk.target for disk in domain_xml.disks(described)]
        root = _checkpoint(name, tracked, targets, bitmap=name)
        ET.SubElement(root, "creationTime").text = str(int(time.time()))
        leaves = domain.listAllCheckpoints(libvirt.VIR_DOMAIN_CHECKPOINT_LIST_LEAVES)
        if leaves:  # one line of descent, or libvirt will not say which is the current one
            ET.SubElement(ET.SubElement(root, "parent"), "name").text = max(leaves, key=_created).getName()
        root.append(described)
        domain.checkpointCreateXML(ET.tostring(root, "unicode"), libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE)

    connection.domain(uuid, f"Defining checkpoint {name}", work)


def remove(connection: Connection, vm_id: str, name: str, patience: float = 0.0) -> bool:
    """With its bitmaps, on or off, whole or broken; whether there was anything of it."""
    if connection.domain(vm_id, "Looking at the VM", _is_active, patience):
        return _remove_live(connection, vm_id, name)
    try:
        removed = remove_bitmaps(describe(connection, vm_id), name)
    except VmferryError as error:
        if error.kind == "busy" and connection.domain(vm_id, "Looking at the VM", _is_active):
            return _remove_live(connection, vm_id, name)  # it was started just now
        raise
    return connection.domain(vm_id, f"Removing checkpoint {name}", lambda domain: _forget(domain, name)) or removed


def forget(connection: Connection, vm: VmSpec, names: Sequence[str]) -> list[str]:
    """A sentence for each that was there. Checkpoints that are not ours are refused (`invalid_config`)."""
    foreign = [name for name in names if not TOKEN.fullmatch(name)]
    if foreign:
        raise VmferryError("invalid_config", f"{', '.join(foreign)} of {vm.name} is no token of an export of ours.")
    try:
        removed = [name for name in names if remove(connection, vm.id, name)]
    except VmferryError as error:
        if code_of(error) == NO_DOMAIN:
            return []
        raise
    return [f"Dropped checkpoint {name} of {vm.name}." for name in removed]


def remove_broken(connection: Connection, vm: VmSpec, chain: str) -> None:
    """Of a VM that runs, the checkpoints of one chain that are of no use any more."""
    for name in tokens(connection, vm.id):
        if name.startswith(chain) and not is_whole(connection, vm.id, name):
            remove(connection, vm.id, name)


def _remove_live(connection: Connection, uuid: str, name: str) -> bool:
    def work(domain: libvirt.virDomain) -> bool:
        import libvirt

        checkpoint = _find(domain, name)
        if checkpoint is None:
            return False
        try:
            checkpoint.delete()
        except libvirt.libvirtError as error:
            if error.get_error_code() == NO_CHECKPOINT:
                return False  # a watchdog was faster
            if error.get_error_code() != INTERNAL_ERROR:  # "bitmap not found in backing chain"
                raise
            _delete_disk_by_disk(domain, checkpoint)
            return _forget(domain, name)
        return True

    return connection.domain(uuid, f"Removing checkpoint {name}", work)


def _delete_disk_by_disk(domain: libvirt.virDomain, checkpoint: libvirt.virDomainCheckpoint) -> None:
    """libvirt deletes all bitmaps of a checkpoint or none. It is told that it covers one disk, then another."""
    import libvirt

    text = checkpoint.getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_SECURE)
    for target in _tracked(domain_xml.parse(text)):
        root = domain_xml.parse(text)
        for disk in root.iterfind("disks/disk"):
            if disk.get("name") != target:
                disk.attrib.pop("bitmap", None)
                disk.set("checkpoint", "no")
        try:
            domain.checkpointCreateXML(
                ET.tostring(root, "unicode"), libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
            ).delete()
        except libvirt.libvirtError as error:
            if error.get_error_code() != INTERNAL_ERROR:
                raise


def _forget(domain: libvirt.virDomain, name: str) -> bool:
    import libvirt

    checkpoint = _find(domain, name)
    if checkpoint is None:
        return False
    checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    return True


def _find(domain: libvirt.virDomain, name: str) -> libvirt.virDomainCheckpoint | None:
    import libvirt

    try:
        return domain.checkpointLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != NO_CHECKPOINT:
            raise
        return None


def _checkpoint(name: str, tracked: Collection[str], targets: Sequence[str], bitmap: str = "") -> ET.Element:
    root = ET.Element("domaincheckpoint")
    ET.SubElement(root, "name").text = name
    disks = ET.SubElement(root, "disks")
    for target in targets:
        disk = ET.SubElement(disks, "disk", name=target, checkpoint="bitmap" if target in tracked else "no")
        if bitmap and target in tracked:
            disk.set("bitmap", bitmap)
    return root


def _tracked(root: ET.Element) -> list[str]:
    return [disk.get("name", "") for disk in root.iterfind("disks/disk[@checkpoint='bitmap']")]


def _created(checkpoint: libvirt.virDomainCheckpoint) -> int:
    return int(domain_xml.text_of(domain_xml.parse(checkpoint.getXMLDesc()), "creationTime", "0"))


def _is_active(domain: libvirt.virDomain) -> bool:
    return bool(domain.isActive())
