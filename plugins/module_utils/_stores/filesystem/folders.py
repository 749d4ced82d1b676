# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders below a root, walked by file descriptor: no symbolic link leads out of it, not even one made meanwhile."""

from __future__ import annotations

import os
import re
import stat
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Callable, Generator, Iterator, List, Optional, Sequence, Tuple, TypeVar

from ..keys import PARTIAL, check_key, is_key
from .locks import LOCK, await_replaced
from .roots import Root

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# What an NFS client, or FUSE, makes of a file that is removed while somebody has it open; gone when it is closed.
_REMOVED = re.compile(r"\.nfs[0-9a-f]{24}|\.fuse_hidden[0-9a-f]{16}")
_LOOKS = 2  # for a name whose file is being replaced, before the last
_RACES = 8  # times to start again when another process removes the folder that was just made
Entry = Tuple[str, os.stat_result]
Denied = Callable[[Sequence[str], OSError], object]  # is told the names of a folder, and why it is not read
Found = TypeVar("Found")


@dataclass(frozen=True)
class Access:
    """Whose the files are, and who may use them. Folders may be searched by whoever may read the files."""

    mode: int = 0o600
    uid: int = -1  # -1: stays as the kernel made it
    gid: int = -1

    @property
    def folder_mode(self) -> int:
        return self.mode | (self.mode & 0o444) >> 2

    def apply(self, descriptor: int, mode: int) -> None:
        os.fchmod(descriptor, mode)  # mkdir and open subtract the umask
        if (self.uid, self.gid) != (-1, -1):
            os.fchown(descriptor, self.uid, self.gid)


class Folders:
    def __init__(self, root: Root, access: Access) -> None:
        self.root, self.access = root, access

    @contextmanager
    def folder(self, names: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """A descriptor of the folder at these names below the root."""
        descriptor = self._open(names, create)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def create_file(self, names: Sequence[str], name: str) -> Tuple[int, int]:
        """Descriptors of the folder, made where needed, and of a new file in it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        for attempt in range(_RACES):
            folder = -1
            try:
                folder = self._open(names, create=True)
                return folder, os.open(name, flags, 0o600, dir_fd=folder)
            except OSError as error:
                if folder >= 0:
                    os.close(folder)
                raced = isinstance(error, FileNotFoundError) and self.root.path.parent.is_dir()
                if not raced or attempt == _RACES - 1:
                    self.remove_empty(names)
                    raise
        raise AssertionError("the loop returns or raises")

    def open_folder(self, names: Sequence[str]) -> int:
        """A descriptor, to be closed."""
        return self._open(names, create=False)

    def open_partial(self, folder: int, name: str) -> int:
        """A descriptor to go on writing by; FileNotFoundError also for what is not a regular file."""
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(f"{name} is not a regular file")
        return descriptor

    def _open(self, names: Sequence[str], create: bool) -> int:
        descriptor = self._open_root(create)
        for name in names:
            above = descriptor
            try:
                descriptor = self._open_below(above, name, create)
            finally:
                os.close(above)
        return descriptor

    def _open_root(self, create: bool) -> int:
        # The root itself may be a symbolic link: whoever names it has chosen it.
        if create and not self.root.is_folder():
            self.root.make(lambda made: self.access.apply(made, self.access.folder_mode))
        return self.root.open()

    def _open_below(self, above: int, name: str, create: bool) -> int:
        made = False
        if create:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=above)
                made = True
        descriptor = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
        if made:
            try:
                self.access.apply(descriptor, self.access.folder_mode)
                os.fsync(above)
            except OSError:
                os.close(descriptor)
                raise
        return descriptor

    def open_file(self, key: str) -> int:
        """A descriptor to read the object from; FileNotFoundError also for what is not a regular file."""
        names, name = split_key(key)
        with self.folder(names) as folder:
            descriptor = self._opened(folder, name)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(f"{key} is not a regular file")
        return descriptor

    def _opened(self, folder: int, name: str) -> int:
        # O_NONBLOCK: a named pipe somebody put there must not hang the open
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return self._looked_for(folder, lambda: os.open(name, flags, dir_fd=folder))

    def _looked_for(self, folder: int, look: Callable[[], Found]) -> Found:
        """Again where a name that is missing may be getting its next file."""
        for _attempt in range(_LOOKS):
            with suppress(FileNotFoundError):
                return look()
            if not await_replaced(folder, self.root.mount):
                break
        return look()

    def remove_empty(self, names: Sequence[str], *, root: bool = False) -> None:
        """Remove the folder at `names` and those above it, as far up as they are empty: objects make folders."""
        for depth in range(len(names), 0, -1):
            try:
                with self.folder(names[: depth - 1]) as above:
                    os.rmdir(names[depth - 1], dir_fd=above)
            except FileNotFoundError:
                continue
            except OSError:  # not empty, or not ours to remove: an empty folder harms nobody
                return
        if root:
            with suppress(OSError):
                self.root.path.rmdir()

    def walk(
        self, prefix: str, *, partial: bool = False, denied: Optional[Denied] = None
    ) -> Generator[Entry, None, None]:
        """Keys below `prefix` in key order, each with its status; or instead the files that are still being written.

        A folder that may not be read ends it, or with `denied` is left out from there on.
        """
        names, start = split_prefix(prefix)
        try:
            descriptor = self._open(names, create=False)
        except FileNotFoundError:
            return
        yield from self._walk_folder(descriptor, names, start, partial, denied)

    def names(self, prefix: str) -> Iterator[str]:
        """The folders that `prefix` itself holds, without those that hold no object."""
        folders, start = split_prefix(prefix)
        try:
            descriptor = self._open(folders, create=False)
        except FileNotFoundError:
            return
        try:
            found = [name for name, is_folder in self._listed(descriptor) if is_folder and name.startswith(start)]
        finally:
            os.close(descriptor)
        for name in found:
            with closing(self.walk("/".join([*folders, name, ""]))) as objects:
                if next(objects, None) is not None:
                    yield name

    def _walk_folder(
        self, descriptor: int, names: List[str], start: str, partial: bool, denied: Optional[Denied]
    ) -> Iterator[Entry]:
        try:
            for name, is_folder in self._listed(descriptor):
                if not name.startswith(start):
                    continue
                if is_folder:
                    try:
                        below = _open_if_there(name, descriptor)
                        if below is not None:
                            yield from self._walk_folder(below, [*names, name], "", partial, denied)
                    except PermissionError as error:
                        if denied is None:
                            raise
                        denied([*names, name], error)
                    continue
                key = "/".join([*names, name])
                if partial is not bool(PARTIAL.search(name)) or not (partial or is_key(key)):
                    continue
                with suppress(FileNotFoundError):  # removed since the folder was read
                    yield key, self._status(descriptor, name)
        finally:
            os.close(descriptor)

    def _listed(self, descriptor: int) -> List[Tuple[str, bool]]:
        found = _sorted_names(descriptor)
        if (LOCK, False) in found and await_replaced(descriptor, self.root.mount):
            return _sorted_names(descriptor)
        return found

    def _status(self, folder: int, name: str) -> os.stat_result:
        return self._looked_for(folder, lambda: os.stat(name, dir_fd=folder, follow_symlinks=False))


def split_key(key: str) -> Tuple[List[str], str]:
    *names, name = check_key(key).split("/")
    return names, name


def split_prefix(prefix: str) -> Tuple[List[str], str]:
    *names, start = prefix.split("/")
    return names, start


def _sorted_names(descriptor: int) -> List[Tuple[str, bool]]:
    """Regular files and folders, in the order of the keys they stand for: a folder sorts as its name and a slash."""
    with os.scandir(descriptor) as entries:
        found = [
            (entry.name, entry.is_dir(follow_symlinks=False))
            for entry in entries
            if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
            if not _REMOVED.fullmatch(entry.name)
        ]
    return sorted(found, key=lambda entry: os.fsencode(entry[0] + "/" if entry[1] else entry[0]))


def _open_if_there(name: str, above: int) -> Optional[int]:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except (FileNotFoundError, NotADirectoryError):
        return None
