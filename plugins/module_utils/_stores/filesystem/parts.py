# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file being written: beside its name until it is whole and durable, then moved into place in one step."""

from __future__ import annotations

import errno
import os
import re
import secrets
from contextlib import suppress
from hashlib import sha256
from typing import Callable, ContextManager, Optional, Sequence

from ..._blocks import LEAF, ObjectInfo, Part, PartReceipt
from ..._errors import VmferryError
from .errors import translated
from .folders import Folders, split_key
from .locks import locked, locked_if_seen_between
from .mounts import Mount
from .partial_file import PartialFile


def etag_of(status: os.stat_result) -> str:
    """Changes whenever an object is replaced, since each is a new inode."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def current_etag(folder: int, name: str) -> str:
    """Opened, since an NFS client asks its server anew then; '' where there is none."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return ""
    try:
        return etag_of(os.fstat(file))
    finally:
        os.close(file)


def info_of(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, etag_of(status), status.st_mtime, changed=status.st_ctime_ns)


def delete_matching(folder: int, name: str, url: str, etag: str, mount: Optional[Mount]) -> None:
    with locked(folder, url, mount):
        if current_etag(folder, name) not in ("", etag):
            raise VmferryError("conflict", f"{url} has changed since it was read.")
        os.unlink(name, dir_fd=folder)


TOKEN = re.compile(r"([0-9a-f]{16})-([0-9a-f]{1,16})")  # a word of the upload alone, and its file's inode


def partial_name(name: str, token: str) -> str:
    """Of the file in which `name` is written until it is whole."""
    return f"{name}.{token.partition('-')[0]}.part"


class FilesystemParts:
    """Bytes go straight to their place; what is never written stays a hole."""

    any_offset = True

    def __init__(self, folders: Folders, key: str, url: str, buffer_size: int, token: str = "", known: int = 0) -> None:
        """With `token`: what another process wrote, but for all behind its first `known` bytes; or `not_found`.
        `buffer_size`: bytes that may be written before they are flushed."""
        self._folders, self._key, self._url = folders, key, url
        self._names, self._name = split_key(key)
        self._mark, _dash, inode = (token or secrets.token_hex(8)).partition("-")
        self._partial = partial_name(self._name, self._mark)
        self._file = PartialFile(folders, self._names, self._partial, url, buffer_size)
        self._whole: Optional[ObjectInfo] = None  # and durable, but under its unfinished name
        self._placed: Optional[ObjectInfo] = None  # under its name, maybe not durably
        self._done: Optional[ObjectInfo] = None
        with self._translated("Writing"):
            try:
                if not token:
                    self._create()
                elif self._file.resume(self._name, int(inode, 16), known):
                    self._whole = self._placed = info_of(self._key, self._file.status())
            except BaseException:
                self._file.close()
                raise

    def _create(self) -> None:
        self._file.create()
        try:
            self._folders.access.apply(self._file.file, self._folders.access.mode)
        except OSError:
            self.abort()
            raise

    @property
    def token(self) -> str:
        return f"{self._mark}-{self._file.inode:x}"

    def write_at(self, offset: int, data: memoryview) -> None:
        if self._placed is not None:
            raise VmferryError("conflict", f"{self._url} is complete: nothing can be added.")
        with self._translated("Writing"):
            self._file.write(offset, data)

    def receive(self, copy: Callable[[int], bool]) -> bool:
        """All of it, by the file system. False where it cannot do that."""
        with self._translated("Writing"):
            return self._file.receive(copy)

    def write_part(self, part: Part, data: memoryview) -> str:
        self.write_at(part.offset, data)
        return ""

    def confirms(self, receipt: PartReceipt) -> bool:
        proof, block = sha256(), memoryview(bytearray(LEAF))
        for at in range(0, receipt.part.size, LEAF):
            leaf = block[: min(LEAF, receipt.part.size - at)]
            self.read_back(receipt.part.offset + at, leaf)
            proof.update(sha256(leaf).digest())
        return proof.digest() == receipt.proof

    def read_back(self, offset: int, buffer: memoryview) -> None:
        """What lies behind the file's end is a hole."""
        with self._translated("Reading"):
            done = self._file.read(offset, buffer)
        buffer[done:] = bytes(len(buffer) - done)

    def complete(self, receipts: Sequence[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        return self.finish(size, if_absent=if_absent)

    def finish(
        self, size: int, *, if_absent: bool = False, if_match: Optional[str] = None, durable: bool = True
    ) -> ObjectInfo:
        """As `complete`, if the condition holds; else `conflict`. Called again after success: the same answer.

        Called again after a failure it goes on where it failed: in place is not yet durable.
        """
        if self._done is not None:
            return self._done
        with self._translated("Writing"):
            if self._whole is None:
                self._whole = self._made_whole(size, durable)
            with self._file.in_folder() as folder:
                if self._placed is None:
                    self._place(folder, if_absent, if_match)
                    self._placed = self._whole
                with suppress(FileNotFoundError):  # a link leaves the old name beside the new one
                    os.unlink(self._partial, dir_fd=folder)
                if durable:
                    os.fsync(folder)
        self._file.close()
        self._done = self._placed
        return self._done

    def _made_whole(self, size: int, durable: bool) -> ObjectInfo:
        self._file.cut(size)
        if durable:
            self._file.flush()
        info = info_of(self._key, self._file.status())
        if durable:
            self._file.close_file()
        else:
            self._file.close_unflushed()
        return info

    def _place(self, folder: int, if_absent: bool, if_match: Optional[str]) -> None:
        mount = self._folders.root.mount
        if if_match is not None:
            with locked(folder, self._url, mount):
                self._require(folder, if_match)
                self._rename(folder)
            return
        with locked_if_seen_between(folder, self._url, mount):
            if not if_absent:
                self._rename(folder)
                return
            if self._link(folder):
                return
        with locked(folder, self._url, mount):
            if current_etag(folder, self._name):
                raise VmferryError("conflict", f"{self._url} exists already.")
            self._rename(folder)

    def _rename(self, folder: int) -> None:
        try:
            os.rename(self._partial, self._name, src_dir_fd=folder, dst_dir_fd=folder)
        except FileNotFoundError:
            if not self._file.is_named(self._name):  # an earlier call did it, and only its answer was lost
                raise

    def _link(self, folder: int) -> bool:
        """Into place unless something is there: a link never replaces. False on a file system that has no links."""
        try:
            os.link(self._partial, self._name, src_dir_fd=folder, dst_dir_fd=folder)
        except (FileExistsError, FileNotFoundError) as error:
            if self._file.is_named(self._name):
                return True
            if isinstance(error, FileNotFoundError):
                raise
            raise VmferryError("conflict", f"{self._url} exists already.") from error
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            return False
        return True

    def _require(self, folder: int, etag: str) -> None:
        if current_etag(folder, self._name) != etag and not self._file.is_named(self._name):
            raise VmferryError("conflict", f"{self._url} has changed since it was read.")

    def leave(self) -> None:
        self._file.close()

    def abort(self) -> None:
        if self._file.folder < 0:
            return
        if self._placed is not None:  # maybe by another process: it is whole, and has its name
            self._file.close()
            return
        self._file.close_file()
        with self._translated("Removing the unfinished"), suppress(FileNotFoundError), self._file.in_folder() as folder:
            os.unlink(self._partial, dir_fd=folder)
        self._file.close()
        self._folders.remove_empty(self._names)

    def _translated(self, doing: str) -> ContextManager[None]:
        return translated(f"{doing} {self._url}", self._folders.root)
