# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder a store begins at, on the mount that belongs there: a mount point without its mount is an empty folder of
another file system, which looks like an empty store and fills the wrong disk."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Optional, Tuple

from ..._errors import VmferryError
from .mounts import Mount, mount_of

_LOOK = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)  # O_DIRECTORY wakes an automount
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NewFolder = Callable[[int], object]  # is told the descriptor of a folder that was made


@dataclass(frozen=True)
class MountRule:
    """What has to be mounted. Folders that are missing are made only where one of the two is proved."""

    point: Optional[Path] = None  # this is a mount point
    nfs: bool = False  # the root is on NFS

    @property
    def proves(self) -> bool:
        return self.nfs or self.point is not None


@dataclass(frozen=True)
class _Seen:
    mount: Optional[Mount]
    device: int
    inode: int


class Root:
    def __init__(self, path: Path, url: str, rule: MountRule) -> None:
        self.path, self.url, self._rule = path, url, rule
        self._seen: Optional[_Seen] = None

    @property
    def mount(self) -> Optional[Mount]:
        """Where the root was seen first; None before, and where the system does not tell."""
        return None if self._seen is None else self._seen.mount

    @property
    def over_network(self) -> bool:
        return self._rule.nfs or (self.mount is not None and self.mount.over_network)

    def is_folder(self) -> Optional[bool]:
        """None when it has not been made yet. FileNotFoundError when it cannot be made, as a folder above is missing.

        One look, since others may make the root between two. Raises where the mount is not the one that belongs here.
        """
        nearest, missing = self._nearest()
        try:
            self._check(nearest)
        finally:
            os.close(nearest)
        if not missing:
            return True
        with suppress(FileNotFoundError, NotADirectoryError):
            return stat.S_ISDIR(self.path.stat().st_mode)
        if missing > 1 and not self._rule.proves:
            self.path.parent.stat()
        return None

    def free_space(self) -> int:
        """Bytes, where it is or will be."""
        nearest, _unused = self._nearest()
        try:
            status = os.statvfs(nearest)
        finally:
            os.close(nearest)
        return status.f_bavail * status.f_frsize

    def open(self) -> int:
        """A descriptor, to be closed. FileNotFoundError where it has not been made."""
        try:
            descriptor = os.open(self.path, _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            self.is_folder()  # says so if what is missing is the mount
            raise
        try:
            self._check(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def make(self, made: NewFolder) -> None:
        """The root and, where its mount is proved, what is missing above it; else only the root, since a missing
        folder above it may be a file system that is not mounted."""
        nearest, missing = self._nearest()
        try:
            self._check(nearest)
            if missing > 1 and not self._rule.proves:
                self.path.parent.stat()
            for name in self.path.parts[len(self.path.parts) - missing :]:
                above, nearest = nearest, _made_below(nearest, name, made)
                os.close(above)
        finally:
            os.close(nearest)

    def _nearest(self) -> Tuple[int, int]:
        """A descriptor of the root or of the nearest folder above it, and how many names lie between the two."""
        for missing, path in enumerate((self.path, *self.path.parents)):
            with suppress(FileNotFoundError, NotADirectoryError):
                return os.open(path, _LOOK), missing
        raise FileNotFoundError(str(self.path))

    def _check(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        seen = self._seen
        if seen is not None and (seen.device, seen.inode) == (status.st_dev, status.st_ino):
            return
        now = _Seen(mount_of(descriptor), status.st_dev, status.st_ino)
        if seen is None:
            self._require(now.mount)
        elif not _same(seen, now):
            raise self._gone(seen)
        self._seen = now if seen is None else replace(now, mount=seen.mount)

    def _require(self, mount: Optional[Mount]) -> None:
        if not self._rule.proves:
            return
        if mount is None:
            raise VmferryError("unsupported", f"This system does not tell on which mount {self.url} lies.")
        if self._rule.point is not None and not _is_mounted(self._rule.point):
            raise VmferryError(
                "not_found",
                f"Nothing is mounted at {self._rule.point}, where {self.url} was to lie.",
                "Mount the file system, or correct the storage option mount.",
            )
        if self._rule.nfs and not mount.is_nfs:
            raise VmferryError(
                "not_found",
                f"{self.url} is not on an NFS mount: at {mount.point} there is a file system of the type "
                f"{mount.fstype}.",
                f"Mount the export (mount -t nfs -o vers=4.1,hard server:/export {self._rule.point or self.path}), or "
                f"write {self.path.as_uri()} where any file system will do.",
            )

    def _gone(self, seen: _Seen) -> VmferryError:
        was = f"{seen.mount.source} at {seen.mount.point}" if seen.mount else "it began on"
        return VmferryError(
            "network",
            f"{self.url} is no longer on the file system {was}: that was unmounted.",
            "Mount it again, look at its server, and run the task again.",
        )


def _same(seen: _Seen, now: _Seen) -> bool:
    if seen.mount is None or now.mount is None:
        return seen.device == now.device
    return now.mount.is_the_same_as(seen.mount)


def _is_mounted(point: Path) -> bool:
    try:
        descriptor = os.open(point, _LOOK)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        mount = mount_of(descriptor)
        return mount is not None and mount.point == os.path.realpath(point)
    finally:
        os.close(descriptor)


def _made_below(above: int, name: str, made: NewFolder) -> int:
    is_new = False
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=above)
        is_new = True
    descriptor = os.open(name, _FOLDER, dir_fd=above)
    if is_new:
        try:
            made(descriptor)
            _flush(above)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor


def _flush(folder: int) -> None:
    with suppress(PermissionError):  # who may make folders in a folder need not be allowed to list it
        descriptor = os.open(".", _FOLDER, dir_fd=folder)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
