# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An import under way: fresh disks served by qemu-nbd, and a VM that is defined last."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Mapping, Optional, Sequence

from ..._blocks import BlockSink
from ..._errors import VmferryError
from ..._nbd.qemu_nbd import serve
from ..._nbd.sink import NbdSink
from ..base import ImportSession, Job, Placement
from ..spec import VmSpec
from .capabilities import domain_type
from .connection import LibvirtConnection
from .describe import describe
from .domain_xml import NewDisk, import_definition
from .errors import translated
from .native import DOMAIN_XML, NVRAM
from .targets import Target
from .work_folder import DEFAULT_PARENT

if TYPE_CHECKING:
    import libvirt


class LibvirtImport(ImportSession):
    def __init__(
        self,
        connection: LibvirtConnection,
        vm: VmSpec,
        native: Mapping[str, bytes],
        placement: Placement,
        folders: Sequence[Path],
        export_id: str,
        job: Job,
    ) -> None:
        """`folders`: where each disk goes, in the VM's order."""
        self._connection, self._vm, self._native = connection, vm, native
        self._placement, self._folders, self._export_id, self._job = placement, folders, export_id, job
        self.warnings: Sequence[str] = ()
        self._servers = contextlib.ExitStack()
        self._targets: list[Target] = []
        self._committed: list[Target] = []
        self._domain: Optional[libvirt.virDomain] = None
        self._done = False

    def __enter__(self) -> LibvirtImport:
        try:
            self.sinks: Sequence[BlockSink] = [self._open_sink(number) for number in range(len(self._vm.disks))]
        except BaseException:
            self._undo()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self._done:
            self._undo()

    def commit(self) -> VmSpec:
        for sink in self.sinks:
            sink.flush()
        self._servers.close()  # qemu-nbd lets go of the images, and has written all it held
        for target in self._targets:
            target.commit()
            self._committed.append(target)
        self._define()
        domain = self._domain
        assert domain is not None
        if self._placement.power_on:
            with translated(f"Starting {self._placement.name}"):
                domain.create()
        with translated(f"Describing {self._placement.name}"):
            made = describe(domain)
        self._done = True
        return made

    def _open_sink(self, number: int) -> BlockSink:
        disk, placement = self._vm.disks[number], self._placement
        format = placement.disk_format or (disk.format if disk.format in ("qcow2", "raw") else "qcow2")
        name = f"{placement.name}-disk-{number}"
        target = Target.create(self._folders[number], name, format, disk.size, f"{self._export_id}.{self._job.attempt}")
        self._targets.append(target)
        address = self._servers.enter_context(
            serve(target.partial, format, read_only=False, socket_dir=Path(DEFAULT_PARENT))
        )
        sink = NbdSink(address.address, reads_zero=True)
        self._servers.callback(sink.close)
        return sink

    def _define(self) -> None:
        nvram = self._nvram()
        disks = [NewDisk(str(target.path), target.format) for target in self._targets]
        connection = self._connection.open()
        with translated(f"Defining {self._placement.name}"):
            try:
                definition = import_definition(
                    self._vm,
                    self._native.get(DOMAIN_XML) if self._vm.provider == "libvirt" else None,
                    disks,
                    self._placement,
                    domain_type(connection),
                    str(nvram.path) if nvram else "",
                    {"export": self._export_id, "job": self._job.job_id},
                )
            except (ValueError, SyntaxError) as error:  # ElementTree's ParseError is a SyntaxError
                raise VmferryError("invalid_config", "The exported domain XML cannot be read.") from error
            self._domain = connection.defineXML(definition)

    def _nvram(self) -> Optional[Target]:
        """The firmware's variables, beside the first disk: they hold the boot entries."""
        wanted = self._placement.firmware or self._vm.firmware
        data = self._native.get(NVRAM)
        if data is None or wanted != "uefi":
            return None
        path = self._folders[0] / f"{self._placement.name}-nvram.fd"
        target = Target(path, path.with_name(f".{path.name}.{self._job.attempt}.part"), "raw")
        target.partial.touch(mode=0o600, exist_ok=False)
        target.partial.write_bytes(data)
        self._targets.append(target)
        target.commit()
        self._committed.append(target)
        return target

    def _undo(self) -> None:
        self._servers.close()
        if self._domain is not None:
            import libvirt

            with contextlib.suppress(libvirt.libvirtError):
                if self._domain.isActive():
                    self._domain.destroy()
            with translated(f"Removing the unfinished {self._placement.name}"):
                self._domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
        for target in self._targets:
            target.remove()
        for target in self._committed:
            target.uncommit()
