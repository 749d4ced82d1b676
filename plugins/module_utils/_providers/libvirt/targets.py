# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fresh disks for an import: files beside their names until the import commits, or new volumes of a pool."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..._errors import VmferryError
from .qemu_img import qemu_img

SUFFIXES = {"qcow2": "qcow2", "raw": "img"}


@dataclass(frozen=True)
class Target:
    """`partial` is written; `path` is what the VM gets once the import commits."""

    path: Path
    partial: Path
    format: str

    @classmethod
    def create(cls, folder: Path, name: str, format: str, size: int, mark: str) -> Target:
        """Never touches what is there: an existing file of that name is `conflict`."""
        path = folder / f"{name}.{SUFFIXES[format]}"
        target = cls(path, folder / f".{path.name}.{mark}.part", format)
        if os.path.lexists(path):
            hint = "Choose another name or another storage, or remove the file if nothing needs it."
            raise VmferryError("conflict", f"{path} exists and is not this import's own.", hint)
        try:
            descriptor = os.open(target.partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.close(descriptor)
            qemu_img("create", "-q", "-f", format, str(target.partial), str(-(-size // 512) * 512))
        except OSError as error:
            raise VmferryError(
                "no_space" if error.errno == 28 else "permission_denied",
                f"{target.partial} cannot be made: {error.strerror}.",
                "Choose a storage that this user may write.",
            ) from error
        except BaseException:
            target.remove()
            raise
        return target

    def commit(self) -> None:
        descriptor = os.open(self.partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(self.partial, self.path)  # refuses to replace what came there in the meantime
        except FileExistsError as error:
            raise VmferryError("conflict", f"{self.path} exists and is not this import's own.") from error
        os.unlink(self.partial)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self.partial.unlink()

    def uncommit(self) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()


def leftovers(folder: Path, name: str) -> list[Path]:
    """Partial files of imports of this VM, dead or alive."""
    return sorted(path for path in folder.glob(f".{name}-disk-*.part") if path.is_file())
