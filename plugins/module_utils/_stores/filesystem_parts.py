# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file being written: beside its name until it is whole and durable, then moved into place in one step."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from contextlib import contextmanager, suppress
from typing import Iterator, Optional, Sequence

from .._blocks import ObjectInfo, Part, PartReceipt
from .._errors import VmferryError
from .filesystem_errors import translated
from .folders import Folders, split_key


def etag_of(status: os.stat_result) -> str:
    """Changes whenever an object is replaced, since each is a new inode."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def info_of(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, etag_of(status), status.st_mtime)


@contextmanager
def locked(folder: int, url: str) -> Iterator[None]:
    """Alone in this folder among those who ask: on this host, and on others where the mount carries locks."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        raise VmferryError(
            "unsupported", f"The file system of {url} has no folder locks, so nothing can be replaced on a condition."
        ) from error
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


class FilesystemParts:
    """Bytes go straight to their place; what is never written stays a hole."""

    any_offset = True

    def __init__(self, folders: Folders, key: str, url: str) -> None:
        self._folders, self._key, self._url = folders, key, url
        self._names, self._name = split_key(key)
        self._partial = f"{self._name}.{secrets.token_hex(8)}.part"
        self._placed: Optional[ObjectInfo] = None  # under its name, maybe not durably
        self._done: Optional[ObjectInfo] = None
        self._broken = False
        with translated(f"Writing {url}"):
            self._folder, self._file = folders.create_file(self._names, self._partial)
            try:
                folders.access.apply(self._file, folders.access.mode)
            except OSError:
                self.abort()
                raise

    def write_at(self, offset: int, data: memoryview) -> None:
        with translated(f"Writing {self._url}"):
            while data:
                done = os.pwrite(self._file, data, offset)
                # Has the kernel start to write now. Left to the fsync at the end, all of it would be waited for there.
                os.posix_fadvise(self._file, offset, done, os.POSIX_FADV_DONTNEED)
                offset, data = offset + done, data[done:]

    def write_part(self, part: Part, data: memoryview) -> str:
        self.write_at(part.offset, data)
        return ""

    def complete(self, receipts: Sequence[PartReceipt], size: int) -> ObjectInfo:
        return self.finish(size)

    def finish(self, size: int, *, if_absent: bool = False, if_match: Optional[str] = None) -> ObjectInfo:
        """As `complete`, if the condition holds; else `conflict`. Called again after success: the same answer.

        Called again after a failure it goes on where it failed: in place is not yet durable.
        """
        if self._done is not None:
            return self._done
        with translated(f"Writing {self._url}"):
            if self._placed is None:
                os.ftruncate(self._file, size)
                self._sync()
                placed = info_of(self._key, os.fstat(self._file))
                self._place(if_absent, if_match)
                self._placed = placed
            with suppress(FileNotFoundError):  # a link leaves the old name beside the new one
                os.unlink(self._partial, dir_fd=self._folder)
            os.fsync(self._folder)
        self._close()
        self._done = self._placed
        return self._done

    def _place(self, if_absent: bool, if_match: Optional[str]) -> None:
        if if_absent:
            self._link()
        elif if_match is not None:
            with locked(self._folder, self._url):
                self._require(if_match)
                self._rename()
        else:
            self._rename()

    def _sync(self) -> None:
        # After a failed fsync the kernel forgets the lost pages and the next fsync succeeds: never believe that one.
        if self._broken:
            raise VmferryError("internal", f"Writing {self._url} failed: an earlier flush to the medium failed.")
        try:
            os.fsync(self._file)
        except OSError:
            self._broken = True
            raise

    def _rename(self) -> None:
        os.rename(self._partial, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _link(self) -> None:
        """Into place unless something is there: a link never replaces, on any file system that has links."""
        try:
            os.link(self._partial, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except FileExistsError as error:
            raise VmferryError("conflict", f"{self._url} exists already.") from error
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            self._rename_locked()

    def _rename_locked(self) -> None:
        with locked(self._folder, self._url):
            try:
                os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
            except FileNotFoundError:
                self._rename()
                return
            raise VmferryError("conflict", f"{self._url} exists already.")

    def _require(self, etag: str) -> None:
        try:
            current = etag_of(os.stat(self._name, dir_fd=self._folder, follow_symlinks=False))
        except FileNotFoundError:
            current = ""
        if current != etag:
            raise VmferryError("conflict", f"{self._url} has changed since it was read.")

    def abort(self) -> None:
        if self._folder < 0:
            return
        with translated(f"Removing the unfinished {self._url}"), suppress(FileNotFoundError):
            os.unlink(self._partial, dir_fd=self._folder)
        self._close()
        if self._done is None:
            self._folders.remove_empty(self._names)

    def _close(self) -> None:
        for descriptor in (self._file, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._folder = -1
