# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files an import writes: one archive, or a folder with a descriptor, the images of the disks, and checksums."""

from __future__ import annotations

from typing import Sequence, Tuple

from ..._appliances.machine import FORMAT_URIS, WRITTEN_AS
from ..._errors import VmferryError
from ..._exports.packed import ARCHIVES, PACKED, image_format_of
from ..._images.formats import FORMATS
from ..._images.image_format import ImageFormat, too_large
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..stored.appliance_files import ApplianceNames
from .inventory import APPLIANCES, IMAGES

DEFAULT = "qcow2"
_OF_DISKS = {**{name: name for name in FORMATS}, **PACKED}
# Those that a descriptor has a name for.
DISK_FORMATS = tuple(name for name, inside in _OF_DISKS.items() if WRITTEN_AS.get(inside, inside) in FORMAT_URIS)


class FileLayout:
    """Of a VM as it is to be. Raises `invalid_config` for a name that no file can have, `unsupported` for a format that
    no descriptor has a name for or that is too small for a disk."""

    def __init__(self, vm: VmSpec, disk_format: str) -> None:
        """`disk_format`: as the task has it; empty: the default."""
        self.disk_format = disk_format or DEFAULT
        self.names = ApplianceNames(vm.name)
        self.name = vm.name
        if not is_file_name(vm.name):
            raise VmferryError(
                "invalid_config",
                f"The files of a VM cannot be called {vm.name}.",
                "Give it a name of at most 60 letters, digits, dots, dashes and underscores, without dots or dashes at "
                "its ends.",
            )
        if self.disk_format not in DISK_FORMATS:
            raise VmferryError(
                "unsupported",
                f"A VM that is files cannot be written in the format {self.disk_format}.",
                f"Set placement.disk_format to one of {', '.join(DISK_FORMATS)}.",
            )
        self.kind: ImageFormat = image_format_of(self.disk_format)
        if not vm.disks:
            raise VmferryError("unsupported", f"{vm.name} has no disk, and would be no file but a descriptor.")
        for disk in vm.disks:
            if disk.size > self.kind.largest_disk:
                raise too_large(self.kind, disk.size)
        self.images: Tuple[str, ...] = tuple(
            self.names.disk(number, self.kind.extension) for number in range(len(vm.disks))
        )

    @property
    def is_archive(self) -> bool:
        return self.disk_format in ARCHIVES

    @property
    def path(self) -> str:
        """As `FileVm` has it: the key that appears last, and with which the VM is there."""
        return self.names.archive(self.disk_format) if self.is_archive else self.key(self.names.descriptor)

    def key(self, file: str) -> str:
        """Of a file in the folder."""
        return f"{self.name}/{file}"

    @property
    def keys(self) -> Sequence[str]:
        """All that is written, the one that appears last before the others."""
        if self.is_archive:
            return [self.path]
        return [self.path, self.key(self.names.checksums), *(self.key(file) for file in self.images)]


def is_file_name(name: str) -> bool:
    """Whether the files of a VM of this name are called by it, all of it, and are nobody else's."""
    return ApplianceNames(name).descriptor == f"{name}.ovf"


def paths_of(name: str) -> Sequence[str]:
    """Where an import of ours writes a VM of that name."""
    return [f"{name}.ova", f"{name}.ova.gz", f"{name}/{name}.ovf"] if is_file_name(name) else []


def taken_by(store: Store, name: str) -> str:
    """The key of a file that a VM of this name has already, or is in the folder that it would have; or ''."""
    for ending in (*APPLIANCES, *IMAGES):
        if store.stat(f"{name}{ending}") is not None:
            return f"{name}{ending}"
    for info in store.list(f"{name}/"):
        return info.key
    return ""
