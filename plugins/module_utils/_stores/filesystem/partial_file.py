# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that is not whole yet: its descriptors, how much of it is not flushed, and whether it can be believed."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from threading import Condition, Lock
from typing import Callable, Iterator, Optional, Sequence

from ..._errors import VmferryError
from .errors import translate
from .folders import Folders


class PartialFile:
    """Thread-safe until `flush`; what comes then is for one thread.

    A handle that the file server has lost (ESTALE) is replaced by the next call. What was written by the old one and
    not flushed may be lost with it, so the file is given up then: whoever goes on with it later reads it first.
    """

    def __init__(self, folders: Folders, names: Sequence[str], name: str, url: str, buffer_size: int) -> None:
        self._folders, self._names, self._name, self._url = folders, names, name, url
        self._buffer_size = buffer_size
        self._turn, self._flushing = Condition(), Lock()
        self._writing = 0  # calls under way
        self._unflushed = 0  # bytes that no flush has covered yet
        self._since = 0  # of them, those that no flush that has begun covers
        self._stale = False
        self._failure: Optional[VmferryError] = None
        self._inode = 0
        self.folder = self.file = -1

    def create(self) -> None:
        self.folder, self.file = self._folders.create_file(self._names, self._name)
        self._inode = os.fstat(self.file).st_ino

    @property
    def inode(self) -> int:
        return self._inode

    def resume(self, placed: str, inode: int, known: int) -> bool:
        """Whether another process had moved it into place already: then it has the name `placed`, and is this very
        `inode`, with the `known` bytes. Raises FileNotFoundError where it is nowhere."""
        self.folder = self._folders.open_folder(self._names)
        with suppress(FileNotFoundError):
            self.file = self._folders.open_partial(self.folder, self._name)
        is_placed = self.file < 0
        if is_placed:
            self.file = self._folders.open_partial(self.folder, placed)
        status = os.fstat(self.file)
        self._inode = status.st_ino
        if is_placed and (status.st_ino != inode or status.st_size != known):
            raise FileNotFoundError(errno.ENOENT, "another file has its name", placed)
        if status.st_size > known:
            os.ftruncate(self.file, known)
        # What could not be written to the medium may still be read from this host's memory.
        os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_DONTNEED)
        return is_placed

    def write(self, offset: int, data: memoryview) -> None:
        written = 0
        with self._call():
            try:
                while written < len(data):
                    done = os.pwrite(self.file, data[written:], offset + written)
                    # Has the kernel start to write now. Left to the fsync at the end, all of it would be waited for.
                    os.posix_fadvise(self.file, offset + written, done, os.POSIX_FADV_DONTNEED)
                    written += done
            finally:
                with self._turn:
                    self._unflushed += written
                    self._since += written
        if self._since >= self._buffer_size:
            self._flush_some()

    def receive(self, copy: Callable[[int], bool]) -> bool:
        """What `copy` brings into the file by its descriptor, without any byte passing this process."""
        with self._call():
            with self._turn:
                self._unflushed += 1  # how much it is, nobody tells
            return copy(self.file)

    def read(self, offset: int, buffer: memoryview) -> int:
        """Bytes read: fewer than asked for only at the file's end."""
        done = 0
        with self._call():
            while done < len(buffer):
                count = os.preadv(self.file, [buffer[done:]], offset + done)
                if not count:
                    break
                done += count
        return done

    def cut(self, size: int) -> None:
        with self._call():
            os.ftruncate(self.file, size)

    def flush(self) -> None:
        with self._call():
            self._sync(os.fsync)
            self._unflushed = 0

    def close_unflushed(self) -> None:
        """Waits for no medium. Some file systems say only now that there was no space."""
        file, self.file = self.file, -1
        self._note_failure(lambda: os.close(file))

    def status(self) -> os.stat_result:
        with self._call():
            return os.fstat(self.file)

    def is_named(self, name: str) -> bool:
        """Whether this very file has the name: an answer may be lost, and its call be made again by whoever sent it."""
        try:
            return os.stat(name, dir_fd=self.folder, follow_symlinks=False).st_ino == self._inode
        except FileNotFoundError:
            return False

    @contextmanager
    def in_folder(self) -> Iterator[int]:
        """The folder's descriptor, for what needs no handle of the file."""
        if self._stale:
            self._renew(whole=True)
        with self._noting_stale():
            yield self.folder

    def close_file(self) -> None:
        """Before its name is removed, or an NFS client would rename it instead. What matters was flushed, and what was
        not is not relied on: errors say nothing new."""
        if self.file >= 0:
            with suppress(OSError):
                os.close(self.file)
        self.file = -1

    def close(self) -> None:
        self.close_file()
        if self.folder >= 0:
            with suppress(OSError):
                os.close(self.folder)
        self.folder = -1

    @contextmanager
    def _call(self) -> Iterator[None]:
        with self._turn:
            if self._stale:
                self._turn.wait_for(lambda: not self._writing)
                self._renew(whole=False)
            if self._failure is not None:
                raise self._failure
            self._writing += 1
        try:
            with self._noting_stale():
                yield
        finally:
            with self._turn:
                self._writing -= 1
                self._turn.notify_all()

    @contextmanager
    def _noting_stale(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._stale = self._stale or error.errno == errno.ESTALE
            raise

    def _renew(self, whole: bool) -> None:
        """New handles. `whole`: that of the file is not needed any more."""
        if not self._stale or (self._failure is not None and not whole):
            return
        if self._unflushed and not whole:
            self._failure = VmferryError(
                "network",
                f"Writing {self._url} failed: the file server lost the file handle, and with it maybe the last "
                f"{self._unflushed} bytes.",
                "Look at the file server and run the task again: what is there already is read and gone on with.",
                retryable=False,
            )
            return
        folder = self._folders.open_folder(self._names)
        try:
            if not whole:
                self._replace_file(folder)
            os.dup2(folder, self.folder, inheritable=False)
        finally:
            os.close(folder)
        self._stale = False

    def _replace_file(self, folder: int) -> None:
        file = self._folders.open_partial(folder, self._name)
        try:
            if os.fstat(file).st_ino != self._inode:
                raise FileNotFoundError(errno.ENOENT, "another file has its name", self._name)
            os.dup2(file, self.file, inheritable=False)
        finally:
            os.close(file)

    def _flush_some(self) -> None:
        """Others go on meanwhile, and wait where they have written as much again: no more is ever unflushed than twice
        the buffer."""
        with self._flushing:
            if self._since < self._buffer_size:
                return
            with self._call():
                with self._turn:
                    before, self._since = self._unflushed, 0
                self._sync(os.fdatasync)
                with self._turn:
                    self._unflushed -= before

    def _sync(self, flush: Callable[[int], None]) -> None:
        self._note_failure(lambda: flush(self.file))

    def _note_failure(self, function: Callable[[], None]) -> None:
        # After a failed flush the kernel forgets the lost pages and the next one succeeds: never believe that one.
        try:
            function()
        except OSError as error:
            doing = f"Writing {self._url} to its medium"
            told = translate(error, doing, over_network=self._folders.root.over_network)
            self._failure = VmferryError(told.kind, f"{told.message} That was earlier.", told.hint, retryable=False)
            raise
