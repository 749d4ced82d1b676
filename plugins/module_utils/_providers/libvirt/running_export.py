# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running VM's point in time: a pull backup of all chosen disks at once, served by QEMU over NBD.

https://libvirt.org/formatbackup.html
"""

from __future__ import annotations

import contextlib
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from ..._errors import VmferryError
from ..._nbd.source import NbdSource
from ..._nbd.transport import Address
from ..base import Consistency, ExportDisk, ExportSession, Job
from ..spec import DiskSpec, VmSpec
from .connection import LibvirtConnection
from .describe import agent_connected, describe, parse
from .errors import translated
from .guard import Guard
from .native import native_files
from .work_folder import WorkFolder

if TYPE_CHECKING:
    import libvirt

AGENT_TIMEOUT = 10  # seconds
ABORT_TIMEOUT = 30.0  # seconds for a daemon that is being restarted
FROZEN = "frozen"  # a file in the work folder: the watchdog thaws if it is there


class RunningExport(ExportSession):
    def __init__(
        self,
        connection: LibvirtConnection,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        owner: Mapping[str, Any],
        scratch_dir: str,
    ) -> None:
        self._connection, self._wanted, self._job = connection, consistency, job
        self._chosen, self._owner, self._scratch_dir = disks, owner, scratch_dir
        self._vm_id, self.vm = vm.id, vm
        self.warnings: list[str] = []
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> RunningExport:
        try:
            self._freeze_view()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def confirm(self) -> None:
        """Every byte came out of the frozen view, or reading it would have failed."""

    def _freeze_view(self) -> None:
        domain = self._connection.domain(self._vm_id)
        with translated(f"Describing {self.vm.name}"):
            self.vm, live = describe(domain), domain.XMLDesc()
            self.native = native_files(domain)
        folder = WorkFolder.create(self._scratch_dir, self._job, self._owner, qemu_account(live))
        self._cleanup.callback(folder.remove)
        guard = Guard(self._connection.uri, self._vm_id, folder.path)
        self._cleanup.callback(guard.release)
        self._cleanup.callback(self._end_backup, folder)
        self.consistency = self._begin(domain, live, folder)
        by_name = {disk.name: disk for disk in self.vm.disks}
        self.disks = [self._open_disk(folder, by_name.get(disk.name, disk)) for disk in self._chosen]

    def _begin(self, domain: libvirt.virDomain, live: str, folder: WorkFolder) -> Consistency:
        request = backup_xml(parse(live), [disk.name for disk in self._chosen], folder)
        reached: Consistency = "crash_consistent"
        try:
            if self._frozen(domain, live, folder):
                reached = "quiesced"
            with translated(f"Beginning a backup of {self.vm.name}"):
                domain.backupBegin(request, None, 0)
            self.taken_at = time.time()
        finally:
            if (folder.path / FROZEN).exists():
                self._thaw(domain)
                (folder.path / FROZEN).unlink()
        return reached

    def _frozen(self, domain: libvirt.virDomain, live: str, folder: WorkFolder) -> bool:
        import libvirt

        if self._wanted == "crash_consistent":
            return False
        reason = "has no guest agent connected"
        if agent_connected(parse(live)):
            (folder.path / FROZEN).touch()
            try:
                domain.agentSetResponseTimeout(AGENT_TIMEOUT, 0)
                domain.fsFreeze()
                return True
            except libvirt.libvirtError as error:
                reason = f"could not be frozen: {' '.join(error.get_error_message().split()).rstrip('.')}"
        if self._wanted == "quiesced":
            hint = "Install and start qemu-guest-agent in the guest, or accept crash_consistent."
            raise VmferryError("unsupported", f"{self.vm.name} {reason}.", hint)
        self.warnings.append(f"{self.vm.name} {reason}: the export is crash-consistent.")
        return False

    def _thaw(self, domain: libvirt.virDomain) -> None:
        import libvirt

        try:
            domain.fsThaw()
        except libvirt.libvirtError as error:
            self.warnings.append(f"{self.vm.name} did not confirm that it thawed: {error.get_error_message()}.")

    def _open_disk(self, folder: WorkFolder, disk: DiskSpec) -> ExportDisk:
        source = NbdSource(Address.unix(folder.socket), disk.name, retries=2)
        self._cleanup.callback(source.close)
        return ExportDisk(disk, _Explained(source, self.vm.name, self._is_off))

    def _is_off(self) -> bool:
        try:
            with translated("Looking at the VM"):
                return not self._connection.domain(self._vm_id).isActive()
        except VmferryError:
            return False

    def _end_backup(self, folder: WorkFolder) -> None:
        """The daemon may be restarting just now; the watchdog would end the backup too, but later."""
        deadline = time.monotonic() + ABORT_TIMEOUT
        while True:
            try:
                with translated(f"Ending the backup of {self.vm.name}"):
                    domain = self._connection.domain(self._vm_id)
                    if domain.isActive() and is_backup_of(domain, folder):
                        domain.abortJob()
                return
            except VmferryError as error:
                if error.kind == "not_found":
                    return
                if error.kind != "network" or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)


class _Explained:
    """A disk whose broken connection is told by its cause: the guest was powered off."""

    def __init__(self, source: NbdSource, vm: str, is_off: Any) -> None:
        self._source, self._vm, self._is_off = source, vm, is_off
        self.size = source.size
        self.extents, self.close = source.extents, source.close

    def read_into(self, pieces: Any) -> None:
        try:
            self._source.read_into(pieces)
        except VmferryError as error:
            if error.kind == "network" and self._is_off():
                raise VmferryError(
                    "conflict",
                    f"{self._vm} was powered off while it was being exported, and its frozen view went with it.",
                    "Export it again: a VM that is off is exported too.",
                    retryable=True,
                ) from error
            raise


def backup_xml(live: ET.Element, chosen: Sequence[str], folder: WorkFolder) -> str:
    root = ET.Element("domainbackup", mode="pull")
    ET.SubElement(root, "server", transport="unix", socket=str(folder.socket))
    disks = ET.SubElement(root, "disks")
    for target in live.findall("devices/disk/target"):
        name = target.get("dev", "")
        if name in chosen:
            disk = ET.SubElement(disks, "disk", name=name, backup="yes", type="file", exportname=name)
            ET.SubElement(disk, "driver", type="qcow2")
            ET.SubElement(disk, "scratch", file=str(folder.scratch(name)))
        else:
            ET.SubElement(disks, "disk", name=name, backup="no")
    return ET.tostring(root, "unicode")


def current_backup(domain: libvirt.virDomain) -> str:
    """The XML of the backup that is under way, or an empty text."""
    import libvirt

    try:
        found: str = domain.backupGetXMLDesc()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_BACKUP:
            return ""
        raise
    return found


def is_backup_of(domain: libvirt.virDomain, folder: WorkFolder) -> bool:
    return str(folder.path) in current_backup(domain)


def qemu_account(live: str) -> tuple[int, int]:
    """The user and group that this QEMU runs as; (-1, -1) changes nothing: it is our own."""
    for label in parse(live).findall("seclabel[@model='dac']/label"):
        user, _, group = (label.text or "").lstrip("+").partition(":")
        if user.isdigit() and group.lstrip("+").isdigit():
            return int(user), int(group.lstrip("+"))
    return -1, -1
