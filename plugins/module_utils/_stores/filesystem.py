# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports in a folder: plain files that qemu-img and cp can use, each there whole or not at all."""

from __future__ import annotations

import grp
import os
import pwd
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Any, Callable, Iterator, Mapping, Optional
from urllib.parse import unquote, urlsplit

from .._blocks import ObjectInfo, PartWriter
from .._errors import VmferryError
from .base import Store, StoreCapabilities
from .filesystem_errors import translated
from .filesystem_parts import FilesystemParts, etag_of, info_of, locked
from .folders import Access, Folders, split_key
from .keys import PARTIAL, check_key, check_prefix

MAX_FILE = (1 << 63) - 1  # bytes: off_t
MAX_PARTS = 1 << 31  # a file has none; large enough that no part size follows from it


def open_filesystem(url: str, settings: Mapping[str, Any]) -> FilesystemStore:
    """`file:///absolute/path` or a bare absolute path, with the settings `mode`, `owner` and `group`."""
    path = url
    if not url.startswith("/"):
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise VmferryError(
                "invalid_config",
                f"The storage URL {url} names a host; a path of this machine has three slashes.",
                f"Did you mean file:///{parts.netloc}{parts.path}?",
            )
        path = unquote(parts.path)
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise VmferryError("invalid_config", f"The storage URL {url!r} is not an absolute path without '..'.")
    return FilesystemStore(Path(path), _access(settings))


class FilesystemStore(Store):
    """The root, or at least the folder above it, must exist. Metadata is not kept: a file has no place for it."""

    def __init__(self, root: Path, access: Optional[Access] = None) -> None:
        self.url = root.as_uri()
        self._folders = Folders(root, access or Access())

    def probe(self, key: str) -> StoreCapabilities:
        names, _unused = split_key(key)
        made_root = not self._exists()
        try:
            self.put(key, b"vmferry", if_absent=True)
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
            verifies_checksums=True,  # a write that returned and was flushed is what was written; there is no wire
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
        root = self._folders.root
        with translated(f"Opening {self.url}"):
            try:
                is_folder = S_ISDIR(root.stat().st_mode)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise VmferryError(
                    "not_found",
                    f"{self.url} does not exist.",
                    "Correct the storage URL, or mount the file system that belongs there.",
                ) from error
        if not is_folder:
            raise VmferryError("not_found", f"{self.url} is not a folder.", "Name the folder that holds the exports.")

    def stat(self, key: str) -> ObjectInfo | None:
        check_key(key)
        with translated(f"Reading {self.object_url(key)}"):
            if not self._exists():
                return None
            try:
                descriptor = self._folders.open_file(key)
            except FileNotFoundError:
                return None
            try:
                return info_of(key, os.fstat(descriptor))
            finally:
                os.close(descriptor)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        with translated(f"Reading {self.object_url(key)}"):
            descriptor = self._folders.open_file(key)
            try:
                wanted = buffer
                while wanted:
                    done = os.preadv(descriptor, [wanted], offset)
                    if not done:
                        raise _too_short(self.object_url(key), os.fstat(descriptor).st_size, offset + len(wanted))
                    offset, wanted = offset + done, wanted[done:]
            finally:
                os.close(descriptor)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with translated(f"Listing {self.object_url(prefix)}"):
            if self._exists():
                for key, status in self._folders.walk(prefix):
                    yield info_of(key, status)

    def list_folders(self, prefix: str) -> Iterator[str]:
        check_prefix(prefix)
        with translated(f"Listing {self.object_url(prefix)}"):
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
        parts = self._open(key)
        try:
            parts.write_at(0, memoryview(data))
            return parts.finish(len(data), if_absent=if_absent, if_match=if_match)
        except BaseException:
            parts.abort()
            raise

    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        return self._open(key)

    def _open(self, key: str) -> FilesystemParts:
        self._exists()
        return FilesystemParts(self._folders, check_key(key), self.object_url(key))

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        names, name = split_key(key)
        with translated(f"Deleting {self.object_url(key)}"):
            if not self._exists():
                return
            with suppress(FileNotFoundError), self._folders.folder(names) as folder:
                if if_match is None:
                    os.unlink(name, dir_fd=folder)
                else:
                    self._delete_matching(folder, name, self.object_url(key), if_match)
                os.fsync(folder)
        self._folders.remove_empty(names)

    def _delete_matching(self, folder: int, name: str, url: str, if_match: str) -> None:
        with locked(folder, url):
            if etag_of(os.stat(name, dir_fd=folder, follow_symlinks=False)) != if_match:
                raise VmferryError("conflict", f"{url} has changed since it was read.")
            os.unlink(name, dir_fd=folder)

    def abort_uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool] | None = None) -> int:
        check_prefix(prefix)
        removed = 0
        with translated(f"Removing unfinished files below {self.object_url(prefix)}"):
            if not self._exists():
                return 0
            for path, status in list(self._folders.walk(prefix, partial=True)):
                if chosen is not None and not chosen(info_of(PARTIAL.sub("", path), status)):
                    continue
                *names, name = path.split("/")
                with suppress(FileNotFoundError), self._folders.folder(names) as folder:
                    os.unlink(name, dir_fd=folder)
                    removed += 1
                self._folders.remove_empty(names)
        return removed

    def free_space(self) -> int | None:
        with translated(f"Looking at {self.url}"):
            root = self._folders.root
            status = os.statvfs(root if self._exists() else root.parent)
            return status.f_bavail * status.f_frsize

    def drop_cache(self, key: str) -> None:
        """Clean pages only: what `complete` has flushed is read from the medium again afterwards."""
        with translated(f"Reading {self.object_url(key)}"):
            descriptor = self._folders.open_file(key)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

    def _exists(self) -> bool:
        try:
            return self._folders.exists()
        except FileNotFoundError as error:
            raise VmferryError(
                "not_found",
                f"{self.url} does not exist, and neither does the folder above it.",
                "Create the folder above it, or mount the file system that belongs there.",
            ) from error


def _too_short(url: str, size: int, end: int) -> VmferryError:
    return VmferryError("checksum_mismatch", f"{url} has {size} bytes; at least {end} were expected.")


def _access(settings: Mapping[str, Any]) -> Access:
    return Access(
        _mode(settings.get("mode")),
        _account(settings.get("owner"), "owner", lambda name: pwd.getpwnam(name).pw_uid),
        _account(settings.get("group"), "group", lambda name: grp.getgrnam(name).gr_gid),
    )


def _mode(value: object) -> int:
    if value is None:
        return 0o600
    try:
        mode = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        mode = -1
    if not 0o600 <= mode <= 0o777 or mode & 0o600 != 0o600:
        raise VmferryError(
            "invalid_config",
            f"The storage option mode is {value!r}; an octal mode that lets the owner read and write was expected.",
            "Write it as a string, for example '0640'.",
        )
    return mode


def _account(value: object, option: str, by_name: Callable[[str], int]) -> int:
    if value is None:
        return -1
    text = str(value)
    if text.isdigit():
        return int(text)
    try:
        return by_name(text)
    except KeyError as error:
        raise VmferryError(
            "invalid_config", f"The storage option {option} names {text!r}, who does not exist."
        ) from error
