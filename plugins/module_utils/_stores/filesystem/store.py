# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports in a folder: plain files that qemu-img and cp can use, each there whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Callable, ContextManager, Iterator, Mapping, Sequence

from ..._blocks import Extent, ObjectInfo, PartWriter
from ..._errors import VmferryError
from ..base import Store, StoreCapabilities
from ..keys import PARTIAL, check_key, check_prefix
from ..server_copy import CopyOrder
from .access import access_of
from .copy import FileCopy
from .errors import too_short, translate, translated
from .folders import Access, Folders, split_key
from .holes import extents_of
from .locks import LOCK, remove_left_lock
from .parts import TOKEN, FilesystemParts, delete_matching, info_of
from .paths import nfs_root, path_root
from .roots import Root

BUFFER_SIZE = 32 * 1024 * 1024  # bytes
MAX_FILE = (1 << 63) - 1  # bytes: off_t
MAX_PARTS = 1 << 31  # a file has none; large enough that no part size follows from it


def open_filesystem(url: str, settings: Mapping[str, Any]) -> FilesystemStore:
    """`file:///absolute/path` or a bare absolute path, with the settings `mode`, `owner`, `group`, `mount` and
    `buffer_size` (bytes)."""
    return _store_at(path_root(url, settings), settings)


def open_nfs(url: str, settings: Mapping[str, Any]) -> FilesystemStore:
    """`nfs:///absolute/path`, or `nfs://relative/path` with the setting `mount`; the other settings as of a path."""
    return _store_at(nfs_root(url, settings), settings)


def _store_at(root: Root, settings: Mapping[str, Any]) -> FilesystemStore:
    return FilesystemStore(root, access_of(settings), settings.get("buffer_size") or BUFFER_SIZE)


class FilesystemStore(Store):
    """The root, or at least the folder above it, must exist. Metadata is not kept: a file has no place for it."""

    def __init__(self, root: Root, access: Access, buffer_size: int) -> None:
        """`buffer_size`: bytes of a file that may be written before they are flushed."""
        self.url, self._buffer_size = root.url, buffer_size
        self._folders = Folders(root, access)
        self._take: Callable[[int], object] = lambda count: None

    def probe(self, key: str) -> StoreCapabilities:
        names, _unused = split_key(key)
        made_root = not self._exists()
        try:
            self.put(key, b"vmferry")
            absent = self._refuses(lambda: self.put(key, b"vmferry", if_absent=True))
            replace = self._refuses(lambda: self.put(key, b"vmferry", if_match="0"))
        finally:
            self.delete(key)
            self._folders.remove_empty(names, root=made_root)
        return StoreCapabilities(
            max_parts=MAX_PARTS,
            min_part=1,
            max_part=MAX_FILE,
            max_object=MAX_FILE,
            conditional_put=absent,
            verifies_checksums=True,  # what was flushed is what was written; TCP alone watches over the way to a server
            conditional_replace=replace,
        )

    @staticmethod
    def _refuses(put: Callable[[], ObjectInfo]) -> bool:
        try:
            put()
        except VmferryError as error:
            if error.kind == "unsupported":
                return False
            if error.kind == "conflict":
                return True
            raise
        return False

    def require_root(self) -> None:
        with self._translated(f"Opening {self.url}"):
            try:
                is_folder = self._folders.root.is_folder()
            except (FileNotFoundError, NotADirectoryError):
                is_folder = None
        if is_folder is None:
            raise VmferryError(
                "not_found",
                f"{self.url} does not exist.",
                "Correct the storage URL, or mount the file system that belongs there.",
            )
        if not is_folder:
            raise self._no_folder()

    def stat(self, key: str) -> ObjectInfo | None:
        check_key(key)
        with self._translated(f"Reading {self.object_url(key)}"):
            descriptor = self._opened(key)
            if descriptor is None:
                return None
            try:
                return info_of(key, os.fstat(descriptor))
            finally:
                os.close(descriptor)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        with self._translated(f"Reading {self.object_url(key)}"):
            descriptor = self._folders.open_file(key)
            try:
                wanted = buffer
                while wanted:
                    done = os.preadv(descriptor, [wanted], offset)
                    if not done:
                        raise too_short(self.object_url(key), os.fstat(descriptor).st_size, offset + len(wanted))
                    offset, wanted = offset + done, wanted[done:]
            finally:
                os.close(descriptor)

    def extents(self, key: str, size: int) -> Iterator[Extent]:
        with self._translated(f"Reading {self.object_url(key)}"):
            descriptor = self._folders.open_file(key)
            try:
                yield from extents_of(descriptor, size)
            finally:
                os.close(descriptor)

    def read_whole(self, key: str, limit: int) -> bytes | None:
        check_key(key)
        with self._translated(f"Reading {self.object_url(key)}"):
            descriptor = self._opened(key)
            if descriptor is None:
                return None
            with os.fdopen(descriptor, "rb") as file:
                return file.read(limit)

    def _opened(self, key: str) -> int | None:
        """None where there is no such file."""
        if not self._exists():
            return None
        try:
            return self._folders.open_file(key)
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._translated(f"Listing {self.object_url(prefix)}"):
            if self._exists():
                for key, status in self._folders.walk(prefix):
                    yield info_of(key, status)

    def list_readable(self, prefix: str, skip: Callable[[str, VmferryError], object]) -> Iterator[ObjectInfo]:
        check_prefix(prefix)

        def denied(names: Sequence[str], error: OSError) -> None:
            below = "/".join([*names, ""])
            skip(below, translate(error, f"Listing {self.object_url(below)}"))

        with self._translated(f"Listing {self.object_url(prefix)}"):
            if self._exists():
                for key, status in self._folders.walk(prefix, denied=denied):
                    yield info_of(key, status)

    def list_folders(self, prefix: str) -> Iterator[str]:
        check_prefix(prefix)
        with self._translated(f"Listing {self.object_url(prefix)}"):
            if self._exists():
                yield from self._folders.names(prefix)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        return self._put(key, data, if_absent=if_absent, if_match=if_match)

    def _put(self, key: str, data: bytes, **how: Any) -> ObjectInfo:
        parts = self._open(key)
        try:
            parts.write_at(0, memoryview(data))
            return parts.finish(len(data), **how)
        except BaseException:
            parts.abort()
            raise

    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        return self._open(key)

    def _open(self, key: str) -> FilesystemParts:
        self._exists()
        return FilesystemParts(self._folders, check_key(key), self.object_url(key), self._buffer_size)

    def resume_parts(
        self, key: str, token: str, known: int, *, metadata: Mapping[str, str] | None = None
    ) -> PartWriter | None:
        check_key(key)
        if not TOKEN.fullmatch(token) or not self._exists():
            return None
        try:
            return FilesystemParts(self._folders, key, self.object_url(key), self._buffer_size, token, known)
        except VmferryError as error:
            if error.kind == "not_found":
                return None
            raise

    def copy_within(self, source: Store, order: CopyOrder) -> ObjectInfo | None:
        """Where both are of one file system, and that shares blocks or has a server that copies."""
        if not isinstance(source, FilesystemStore):
            return None
        with self._translated(f"Copying {source.object_url(order.info.key)}"):
            descriptor = source._folders.open_file(order.info.key)
            try:
                return FileCopy(descriptor, self._folders.root, self._take).run(order, lambda: self._open(order.key))
            finally:
                os.close(descriptor)

    def limit_own_bytes(self, take: Callable[[int], object]) -> None:
        self._take = take

    def put_volatile(self, key: str, data: bytes) -> None:
        self._put(key, data, durable=False)

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        names, name = split_key(key)
        with self._translated(f"Deleting {self.object_url(key)}"):
            if not self._exists():
                return
            with suppress(FileNotFoundError), self._folders.folder(names) as folder:
                if if_match is None:
                    os.unlink(name, dir_fd=folder)
                else:
                    delete_matching(folder, name, self.object_url(key), if_match, self._folders.root.mount)
                os.fsync(folder)
        self._folders.remove_empty(names)

    def abort_uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool] | None = None) -> int:
        check_prefix(prefix)
        removed = 0
        with self._translated(f"Removing unfinished files below {self.object_url(prefix)}"):
            if not self._exists():
                return 0
            for path, status in list(self._folders.walk(prefix, partial=True)):
                *names, name = path.split("/")
                if name != LOCK and chosen is not None and not chosen(info_of(PARTIAL.sub("", path), status)):
                    continue
                with suppress(FileNotFoundError), self._folders.folder(names) as folder:
                    if name == LOCK:
                        remove_left_lock(folder)
                    else:
                        os.unlink(name, dir_fd=folder)
                        removed += 1
                self._folders.remove_empty(names)
        return removed

    def free_space(self) -> int | None:
        with self._translated(f"Looking at {self.url}"):
            self._exists()
            return self._folders.root.free_space()

    def location(self, key: str) -> str:
        return str(self._folders.root.path / key)

    def drop_cache(self, key: str) -> None:
        """Clean pages only: what `complete` has flushed is read from the medium again afterwards."""
        with self._translated(f"Reading {self.object_url(key)}"):
            descriptor = self._folders.open_file(key)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

    def _translated(self, doing: str) -> ContextManager[None]:
        return translated(doing, self._folders.root)

    def _no_folder(self) -> VmferryError:
        return VmferryError("not_found", f"{self.url} is not a folder.", "Name the folder for the exports.")

    def _exists(self) -> bool:
        with self._translated(f"Looking at {self.url}"):
            try:
                is_folder = self._folders.root.is_folder()
            except FileNotFoundError as error:
                raise VmferryError(
                    "not_found",
                    f"{self.url} does not exist, and neither does the folder above it.",
                    "Create the folder above it, or mount the file system that belongs there.",
                ) from error
        if is_folder is False:
            raise self._no_folder()
        return is_folder is not None
