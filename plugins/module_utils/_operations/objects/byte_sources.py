# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the bytes of a transfer come from: a file of this host, or an object."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ContextManager, Iterator

from ..._blocks import FileWriter, ObjectInfo
from ..._errors import VmferryError
from ..._stores.base import Store
from ..._stores.filesystem.errors import translated


class _ThisHost:
    over_network = False


def looking(doing: str) -> ContextManager[None]:
    """Inside, what the system refuses of a file of this host is told as `doing`."""
    return translated(doing, _ThisHost())


class LocalFile:
    """Read by its descriptor: whoever replaces the file meanwhile does not change what is read."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        self._begun = _version(os.fstat(descriptor))
        self.size = os.fstat(descriptor).st_size

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[LocalFile]:
        with looking(f"Reading {path}"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang the open
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise VmferryError("invalid_config", f"{path} is not a regular file.", "Name files and folders.")
            yield cls(path, descriptor)
        finally:
            os.close(descriptor)

    @property
    def version(self) -> str:
        return self._begun

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with looking(f"Reading {self.path}"):
            while buffer:
                done = os.preadv(self._descriptor, [buffer], offset)
                if not done:
                    raise self.changed()
                offset, buffer = offset + done, buffer[done:]

    def insist_on_version(self) -> None:
        if _version(os.fstat(self._descriptor)) != self._begun:
            raise self.changed()

    def is_at_its_path(self) -> bool:
        try:
            return _version(self.path.stat()) == self._begun
        except OSError:
            return False

    def changed(self) -> VmferryError:
        return VmferryError(
            "conflict",
            f"{self.path} was changed while it was read.",
            "Run the task again when nobody writes to the file.",
            retryable=True,
        )


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"


def without_change_time(version: str) -> str:
    return version.rpartition("-")[0]


class StoredObject:
    """As it was when it was looked at first."""

    def __init__(self, store: Store, info: ObjectInfo) -> None:
        self._store, self._info = store, info
        self.size = info.size

    @property
    def version(self) -> str:
        info = self._info
        if not info.modified and (not info.etag or info.etag.startswith("W/")):
            return ""
        return f"{info.etag or info.modified}:{info.size}"

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._store.read_into(self._info.key, offset, buffer)

    def insist_on_version(self) -> None:
        """What was read before and after it was replaced would fit nothing."""
        now = self._store.stat(self._info.key)
        if now is None or not is_same(now, self._info):
            raise VmferryError(
                "conflict",
                f"{self._store.object_url(self._info.key)} was replaced or removed while it was read.",
                "Run the task again.",
                retryable=True,
            )


def is_same(now: ObjectInfo, then: ObjectInfo) -> bool:
    """A listing may tell a weaker tag than a look at the object does, or none."""
    if now.size != then.size:
        return False
    if all(info.etag and not info.etag.startswith("W/") for info in (now, then)):
        return now.etag == then.etag
    return now.modified == then.modified


@dataclass(frozen=True)
class WrittenBytes:
    """What a writer of a file has written so far."""

    writer: FileWriter
    size: int

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.writer.read_back(offset, buffer)
