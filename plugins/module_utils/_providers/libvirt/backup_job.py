# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pull backup: QEMU freezes its disks at one point in time and serves them by NBD while the guest goes on writing.

https://libvirt.org/formatbackup.html. A VM has at most one such job at a time; it belongs to no connection and lives
until it is aborted, which is how a pull backup ends in success too.
"""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Mapping, Sequence

from ..._errors import VmferryError
from . import domain_xml
from .connection import Connection

if TYPE_CHECKING:
    import libvirt

END_TIMEOUT = 30.0  # seconds until a job that was aborted is gone
EXPORT_BITMAP = "changes"
BACKUP_OPERATION = 9  # VIR_DOMAIN_JOB_OPERATION_BACKUP


@dataclass(frozen=True)
class BackupJob:
    """A job that libvirt knows of. `folder` is where its scratch files are."""

    socket: str
    folder: Path | None
    description: str


def backup_xml(
    socket: str, scratch: Mapping[str, Path], others: Sequence[str], since: Mapping[str, str] | None = None
) -> str:
    """`scratch`: the chosen disks' files, by target; `others`: the targets of the rest.

    `since`: checkpoints by target. Those disks are served with `EXPORT_BITMAP`, of what has changed.
    """
    root = ET.Element("domainbackup", mode="pull")
    ET.SubElement(root, "server", transport="unix", socket=socket)
    disks = ET.SubElement(root, "disks")
    for target, path in scratch.items():
        disk = ET.SubElement(disks, "disk", name=target, backup="yes", type="file", exportname=target)
        if since and target in since:
            disk.attrib.update(backupmode="incremental", incremental=since[target], exportbitmap=EXPORT_BITMAP)
        ET.SubElement(disk, "driver", type="qcow2")
        ET.SubElement(disk, "scratch", file=str(path))
    for target in others:
        ET.SubElement(disks, "disk", name=target, backup="no")
    return ET.tostring(root, "unicode")


def begin(connection: Connection, uuid: str, vm_name: str, xml: str, checkpoint: str | None = None) -> None:
    """`checkpoint`: the XML of one to be made at the same moment."""
    connection.once(
        f"Beginning the backup job of {vm_name}",
        lambda opened: opened.lookupByUUIDString(uuid).backupBegin(xml, checkpoint),
    )


def current_job(connection: Connection, uuid: str, patience: float = 0.0) -> BackupJob | None:
    def work(opened: libvirt.virConnect) -> BackupJob | None:
        import libvirt

        try:
            domain = opened.lookupByUUIDString(uuid)
            if not domain.isActive():
                return None
            root = domain_xml.parse(domain.backupGetXMLDesc())
        except libvirt.libvirtError as error:
            gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID)
            if error.get_error_code() in gone:
                return None
            raise
        return _job(root)

    return connection.call("Looking for a backup job", work, patience=patience)


def other_job(connection: Connection, uuid: str) -> str:
    """What else keeps the VM busy (a migration, a block copy that libvirt counts as a job …), or ''."""

    def work(domain: libvirt.virDomain) -> str:
        import libvirt

        if not domain.isActive():
            return ""
        try:
            statistics = domain.jobStats()
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
                return ""
            raise
        if not statistics.get("type") or statistics.get("operation") == BACKUP_OPERATION:
            return ""
        return f"a job of kind {statistics.get('operation', 'unknown')}"

    return connection.domain(uuid, "Looking for jobs", work)


def end(connection: Connection, uuid: str, socket: str, patience: float) -> None:
    """The job that listens at `socket` is gone when this returns; no other job is touched."""
    deadline = time.monotonic() + END_TIMEOUT
    asked = False
    while True:
        job = current_job(connection, uuid, patience)
        if job is None or job.socket != socket:
            return
        if not asked:
            connection.domain(uuid, "Ending the backup job", _abort, patience)
            asked = True
        elif time.monotonic() > deadline:
            raise VmferryError("timeout", f"The backup job at {socket} does not end.")
        time.sleep(0.05)


def _abort(domain: libvirt.virDomain) -> None:
    import libvirt

    try:
        domain.abortJob()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it ended by itself
            raise


def _job(root: ET.Element) -> BackupJob:
    socket = domain_xml.attribute(root, "server", "socket")
    scratch = domain_xml.attribute(root, "disks/disk/scratch", "file")
    server = root.find("server")
    where = socket or ("" if server is None else f"{server.get('name', '')}:{server.get('port', '')}")
    return BackupJob(
        socket=socket,
        folder=Path(scratch).parent.parent if scratch else None,
        description=f"a {root.get('mode', '')} backup{f' at {where}' if where else ''}"
        + (f" with its scratch file at {scratch}" if scratch else ""),
    )
