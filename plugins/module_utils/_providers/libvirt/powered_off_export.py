# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM that is off: its images are read where they lie, and stay locked and watched as long as they are read."""

from __future__ import annotations

import contextlib
import json
import stat
import time
from pathlib import Path
from typing import Sequence

from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..._images.local_clusters import Layer, LocalClusters
from ..._nbd.qemu_nbd import serve
from ..._nbd.source import NbdSource
from ..base import Consistency, ExportDisk, ExportSession
from ..spec import DiskSpec, VmSpec
from .connection import LibvirtConnection
from .describe import describe
from .errors import translated
from .native import native_files
from .qemu_img import qemu_img
from .work_folder import DEFAULT_PARENT

SOCKETS = Path(DEFAULT_PARENT)


class PoweredOffExport(ExportSession):
    consistency: Consistency = "powered_off"
    warnings: Sequence[str] = ()

    def __init__(self, connection: LibvirtConnection, vm: VmSpec, disks: Sequence[DiskSpec]) -> None:
        self._connection, self.vm, self._chosen = connection, vm, disks
        self._cleanup = contextlib.ExitStack()
        self._marks: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> PoweredOffExport:
        try:
            domain = self._connection.domain(self.vm.id)
            with translated(f"Describing {self.vm.name}"):
                self.vm, self.native = describe(domain), native_files(domain)
            self.disks = [self._open_disk(disk) for disk in self._chosen]
            self.taken_at = time.time()
            self._require_off()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def confirm(self) -> None:
        """QEMU's lock keeps a qcow2 image from being opened for writing; a raw one is only seen to have changed."""
        self._require_off()
        for path, mark in self._marks.items():
            if _mark(path) != mark:
                raise _started(self.vm.name, f"{path} changed")

    def _require_off(self) -> None:
        with translated(f"Looking at {self.vm.name}"):
            if self._connection.domain(self.vm.id).isActive():
                raise _started(self.vm.name, "it runs")

    def _open_disk(self, disk: DiskSpec) -> ExportDisk:
        # Also where its socket is not read from: this process holds the lock of every image of the chain.
        address = self._cleanup.enter_context(serve(Path(disk.source), disk.format, read_only=True, socket_dir=SOCKETS))
        layers = chain(disk.source, disk.format)
        for layer in layers:
            self._marks[layer.path] = _mark(layer.path)
        served = NbdSource(address.address)
        self._cleanup.callback(served.close)
        source: BlockSource = served
        try:
            source = local_clusters(disk.source, disk.format, layers)
            self._cleanup.callback(source.close)
        except VmferryError as error:
            if error.kind != "unsupported":  # compressed or encrypted clusters: qemu-nbd reads them
                raise
        return ExportDisk(disk, source)


def local_clusters(image: str, format: str, layers: Sequence[Layer] = ()) -> LocalClusters:
    """`layers` where they are known already. Raises `unsupported` where clusters have no plain place in a file."""
    size = json.loads(qemu_img("info", "-U", "--output=json", "-f", format, image))["virtual-size"]
    entries = json.loads(qemu_img("map", "-U", "--output=json", "-f", format, image))
    return LocalClusters(size, layers or chain(image, format), iter(entries))


def chain(image: str, format: str) -> list[Layer]:
    """Newest first. Each layer's format is spelled out, by libvirt or by the layer above it, never guessed."""
    found = json.loads(qemu_img("info", "-U", "--backing-chain", "--output=json", "-f", format, image))
    layers, expected = [], format
    for info in found:
        if info["format"] != expected:
            raise VmferryError(
                "invalid_config", f"{info['filename']} is {info['format']} where {expected} was expected."
            )
        if info.get("format-specific", {}).get("data", {}).get("data-file"):
            raise VmferryError("unsupported", f"{info['filename']} keeps its data in another file.")
        layers.append(Layer(info["filename"], info["format"]))
        if info.get("backing-filename") and not info.get("backing-filename-format"):
            hint = f"Say it: qemu-img rebase -u -b BACKING -F FORMAT {info['filename']}"
            raise VmferryError("invalid_config", f"{info['filename']} does not say its backing file's format.", hint)
        expected = info.get("backing-filename-format", "")
    return layers


def _is_block_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except OSError:
        return False


def _mark(path: str) -> tuple[int, int]:
    """What changes with every write, but for a block device, which has no such thing."""
    status = Path(path).stat()
    return (0, 0) if stat.S_ISBLK(status.st_mode) else (status.st_mtime_ns, status.st_size)


def _started(vm: str, how: str) -> VmferryError:
    return VmferryError(
        "conflict",
        f"{vm} was started while it was being exported ({how}).",
        "Export it again: a VM that runs is exported too.",
        retryable=True,
    )
