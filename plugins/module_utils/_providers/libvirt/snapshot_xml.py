# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots as libvirt describes them (https://libvirt.org/formatsnapshot.html), and our mark in their description.

The mark is one line, `vmferry {…}`: of a snapshot of ours it says which VM it is of, whose job made it, how consistent
its disks are, and whether it is to go once the process that made it is dead. Of any snapshot it says while it is not
whole: its removal has begun, so that its image is no longer the disk as it was, or it is being made.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from ..._transfer.owner import current_owner
from ..job import Job
from ..snapshots import Snapshot, SnapshotDisk
from ..spec import PowerState
from . import domain_xml
from .connection import Connection
from .errors import is_disconnect

if TYPE_CHECKING:
    import libvirt

MARK = "vmferry "
UNFINISHED = "unfinished"
TEMPORARY = "temporary"  # with the process whose it is
OVERLAY = re.compile(r"\.vmferry-[0-9a-f]{8}$")
STATES: Mapping[str, PowerState] = {
    "running": "powered_on",
    "blocked": "powered_on",
    "disk-snapshot": "powered_on",
    "paused": "paused",
    "pmsuspended": "suspended",
    "shutoff": "powered_off",
    "crashed": "crashed",
}


def mark_of(vm_id: str, job: Job, consistency: str, temporary: bool) -> dict[str, Any]:
    mark = {"vm": vm_id, "job": job.job_id, "attempt": job.attempt, "consistency": consistency}
    return {**mark, TEMPORARY: current_owner()} if temporary else mark


def overlay_beside(image: str, job: Job) -> str:
    """The path of a new one. Names do not grow with the number of snapshots."""
    path = Path(image)
    return str(path.with_name(f"{OVERLAY.sub('', path.name)}.vmferry-{job.attempt}"))


def create_root(
    name: str, mark: Mapping[str, Any], memory: bool, overlays: Mapping[str, str] | None, disks: Mapping[str, bool]
) -> ET.Element:
    """`overlays`: by target, of an external snapshot; None: an internal one. `disks`: whether each takes part."""
    root = ET.Element("domainsnapshot")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "description").text = MARK + json.dumps(mark)
    ET.SubElement(root, "memory", snapshot="internal" if memory else "no")
    listed = ET.SubElement(root, "disks")
    for target, takes_part in disks.items():
        if not takes_part or overlays is None:
            ET.SubElement(listed, "disk", name=target, snapshot="internal" if takes_part else "no")
            continue
        disk = ET.SubElement(listed, "disk", name=target, snapshot="external", type="file")
        ET.SubElement(disk, "driver", type="qcow2")
        ET.SubElement(disk, "source", file=overlays[target])
    return root


def read_all(connection: Connection, vm_id: str) -> list[Snapshot]:
    """The oldest first; of the same second, parents before their children."""

    def work(domain: libvirt.virDomain) -> list[Snapshot]:
        import libvirt

        found = domain.listAllSnapshots(libvirt.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL)
        roots = [(domain_xml.parse(snapshot.getXMLDesc()), bool(snapshot.isCurrent())) for snapshot in found]
        children: dict[str, list[str]] = {}
        for root, _unused in roots:
            children.setdefault(domain_xml.text_of(root, "parent/name"), []).append(domain_xml.text_of(root, "name"))
        return [_snapshot(domain.connect(), root, current, vm_id, children) for root, current in roots]

    found = connection.domain(vm_id, "Listing the snapshots", work)
    return sorted(found, key=lambda snapshot: snapshot.created)


def _snapshot(
    opened: libvirt.virConnect, root: ET.Element, current: bool, vm_id: str, children: Mapping[str, Sequence[str]]
) -> Snapshot:
    name = domain_xml.text_of(root, "name")
    text, mark = split_description(domain_xml.text_of(root, "description"))
    seconds = int(domain_xml.text_of(root, "creationTime", "0"))
    methods = {disk.get("snapshot", "no") for disk in root.iterfind("disks/disk")}
    method = next((one for one in ("external", "internal") if one in methods), "")
    ours = bool(mark.get("job")) and mark.get("vm") == vm_id
    return Snapshot(
        name=name,
        created=datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        description=text,
        current=current,
        parent=domain_xml.text_of(root, "parent/name"),
        children=tuple(children.get(name, ())),
        power_state=STATES.get(domain_xml.text_of(root, "state"), "unknown"),
        memory=domain_xml.attribute(root, "memory", "snapshot", "no") != "no",
        method=method,
        disks=_disks(opened, root),
        ours=ours,
        job=str(mark["job"]) if ours else "",
        consistency=str(mark.get("consistency", "")) if ours else "",
        whole=not mark.get(UNFINISHED),
    )


def _disks(opened: libvirt.virConnect, root: ET.Element) -> tuple[SnapshotDisk, ...]:
    domain = root.find("domain")
    then = {} if domain is None else {disk.target: image_of(opened, disk) for disk in domain_xml.disks(domain)}
    return tuple(
        SnapshotDisk(
            name=disk.get("name", ""),
            image=then.get(disk.get("name", ""), ""),
            overlay=domain_xml.attribute(disk, "source", "file") or domain_xml.attribute(disk, "source", "dev"),
        )
        for disk in root.iterfind("disks/disk")
        if disk.get("snapshot", "no") != "no"
    )


def image_of(opened: libvirt.virConnect, disk: domain_xml.Disk) -> str:
    return volume_path(opened, disk.pool, disk.source) if disk.kind == "volume" else disk.source


def volume_path(opened: libvirt.virConnect, pool: str, volume: str) -> str:
    """Of a volume that is gone, its name."""
    import libvirt

    try:
        return str(opened.storagePoolLookupByName(pool).storageVolLookupByName(volume).path())
    except libvirt.libvirtError as error:
        if is_disconnect(error):
            raise
        return volume


def split_description(description: str) -> tuple[str, dict[str, Any]]:
    """The user's words, and our mark."""
    words, mark = [], {}
    for line in description.splitlines():
        said: Any = None
        if line.startswith(MARK):
            try:
                said = json.loads(line[len(MARK) :])
            except ValueError:
                said = None
        if isinstance(said, dict):
            mark = said
        else:
            words.append(line)
    return "\n".join(words), mark


def mark_unfinished(connection: Connection, vm_id: str, name: str, unfinished: bool = True) -> None:
    """Durable when it returns. From now on nothing may be reverted to it; or from now on it may."""

    def change(root: ET.Element) -> None:
        element = root.find("description")
        if element is None:
            element = ET.SubElement(root, "description")
        words, mark = split_description(element.text or "")
        lines = [words] if words else []
        element.text = "\n".join([*lines, MARK + json.dumps({**mark, UNFINISHED: unfinished})])

    redefine(connection, vm_id, name, change)


def redefine(connection: Connection, vm_id: str, name: str, change: Callable[[ET.Element], None]) -> None:
    def work(domain: libvirt.virDomain) -> None:
        import libvirt

        snapshot = domain.snapshotLookupByName(name)
        # with secrets, for what is defined anew is all that libvirt keeps
        root = domain_xml.parse(snapshot.getXMLDesc(libvirt.VIR_DOMAIN_SNAPSHOT_XML_SECURE))
        change(root)
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
        if snapshot.isCurrent():
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT
        domain.snapshotCreateXML(ET.tostring(root, "unicode"), flags)

    connection.domain(vm_id, f"Describing the snapshot {name} anew", work)


def described(connection: Connection, vm_id: str, name: str) -> ET.Element:
    def work(domain: libvirt.virDomain) -> str:
        return str(domain.snapshotLookupByName(name).getXMLDesc())

    return domain_xml.parse(connection.domain(vm_id, f"Reading the snapshot {name}", work))


def forget_metadata(connection: Connection, vm_id: str, name: str) -> None:
    def work(domain: libvirt.virDomain) -> None:
        import libvirt

        try:
            snapshot = domain.snapshotLookupByName(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT:
                return
            raise
        snapshot.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)

    connection.domain(vm_id, f"Forgetting the snapshot {name}", work)
