# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An external snapshot of a VM that is off, made by us.

libvirt can make one too, but its new images know nothing of the bitmaps of those below, so that all that is written
from then on would go unnoticed. What libvirt is told is what it would have noted itself.
"""

from __future__ import annotations

import os
import shutil
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any, Mapping

from ..._errors import VmferryError
from ..._images.local_clusters import Layer
from ..._nbd.qemu_img import qemu_img
from ..._transfer.failpoints import failpoint
from ..spec import DiskSpec, VmSpec
from . import domain_xml
from .bitmaps import RECORDS, add_bitmap, bitmaps_of
from .connection import Connection
from .snapshot_merge import define_images
from .snapshot_xml import UNFINISHED, create_root, forget_metadata, mark_unfinished

if TYPE_CHECKING:
    import libvirt


def create_off(
    connection: Connection, vm: VmSpec, name: str, mark: Mapping[str, Any], overlays: Mapping[str, str]
) -> None:
    """`overlays`: the path of each, by target. Raises `busy` where the VM was started meanwhile."""
    for disk in vm.disks:
        if disk.name in overlays:
            create_overlay(Layer(disk.source, disk.format), disk.size, overlays[disk.name])
            _carry_bitmaps(disk, overlays[disk.name])
    failpoint("overlays_created")
    unfinished = {**mark, UNFINISHED: True}
    _tell_libvirt(connection, vm, create_root(name, unfinished, False, overlays, dict.fromkeys(overlays, True)))
    failpoint("snapshot_told")
    try:
        define_images(connection, vm, {target: file_disk(path) for target, path in overlays.items()})
    except VmferryError:
        forget_metadata(connection, vm.id, name)
        raise
    failpoint("images_defined")
    mark_unfinished(connection, vm.id, name, False)


def create_overlay(base: Layer, size: int, path: str) -> None:
    """QEMU's in the same way as the image that it stands on."""
    qemu_img("create", "-q", "-f", "qcow2", "-b", base.path, "-F", base.format, path, str(size))
    like = os.stat(base.path)  # noqa: PTH116
    if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(path, like.st_uid, like.st_gid)
    shutil.copymode(base.path, path)


def file_disk(path: str) -> ET.Element:
    disk = ET.Element("disk", type="file")
    ET.SubElement(disk, "driver", type="qcow2")
    ET.SubElement(disk, "source", file=path)
    return disk


def _carry_bitmaps(disk: DiskSpec, overlay: str) -> None:
    """As libvirt does while a VM runs: what is written from now on goes into a bitmap of the same name."""
    if disk.format == "qcow2":
        for name, flags in bitmaps_of(Layer(disk.source, disk.format)).items():
            if flags == frozenset({RECORDS}):
                add_bitmap(overlay, name)


def _tell_libvirt(connection: Connection, vm: VmSpec, root: ET.Element) -> None:
    ET.SubElement(root, "state").text = "shutoff"
    ET.SubElement(root, "creationTime").text = str(int(time.time()))

    def work(opened: libvirt.virConnect) -> None:
        import libvirt

        domain = opened.lookupByUUIDString(vm.id)
        for disk in domain_xml.disks(domain_xml.parse(domain.XMLDesc())):
            if root.find(f"disks/disk[@name='{disk.target}']") is None:
                ET.SubElement(root.find("disks") or root, "disk", name=disk.target, snapshot="no")
        if domain.hasCurrentSnapshot():
            ET.SubElement(ET.SubElement(root, "parent"), "name").text = domain.snapshotCurrent().getName()
        root.append(domain_xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE)))
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT
        domain.snapshotCreateXML(ET.tostring(root, "unicode"), flags)

    connection.once(f"Making a snapshot of {vm.name}", work)
