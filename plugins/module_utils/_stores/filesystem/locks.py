# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time in a folder, among those who ask."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import Iterator, Optional

from ..._errors import VmferryError
from .mounts import Mount

LOCK = ".lock.0000000000000000.part"  # to a store an unfinished file, which is not listed and which cleanup removes
_RACES = 256  # times that others may be quicker
_PATIENCE = 2.0  # seconds for a name to get its next file: whoever holds the lock longer does not hold it for that
_NONE = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def locked(folder: int, url: str, mount: Optional[Mount]) -> Iterator[None]:
    """By a lock on the folder itself, which is this host's alone; on a file system of several hosts by one on a file in
    it, which its server keeps for all. Raises `unsupported` where the lock may hold nobody off."""
    if mount is None or not mount.is_shared:
        with _lock(folder, url):
            yield
        return
    if not mount.locks_reach_other_hosts:
        raise _unsupported(url)
    file = _lock_file(folder, url)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(LOCK, dir_fd=folder)
        with suppress(OSError):  # it holds no data that could be lost, and is let go of whatever the server says
            os.close(file)


@contextmanager
def locked_if_seen_between(folder: int, url: str, mount: Optional[Mount]) -> Iterator[None]:
    """For a file that takes the name of another, whatever was there. On a file system of this host that is one step;
    an NFS client first moves away what somebody has open (nfs_rename in Linux), and FUSE does, so that for a moment
    nothing has the name: who looks then waits for this lock (`await_replaced`), and nobody else takes the name."""
    with ExitStack() as stack:
        if mount is not None and mount.locks_reach_other_hosts:
            try:
                stack.enter_context(locked(folder, url, mount))
            except VmferryError as error:
                if error.kind != "unsupported":  # a server without locks is written to all the same
                    raise
                with suppress(OSError):
                    os.unlink(LOCK, dir_fd=folder)
        yield


def await_replaced(folder: int, mount: Optional[Mount]) -> bool:
    """Whether somebody may have been giving a missing name its next file, and is done: look again then."""
    if mount is None or not mount.locks_reach_other_hosts:
        return False
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if not _is_held(folder):
            return True
        time.sleep(0.005)
    return False


def _is_held(folder: int) -> bool:
    try:
        file = os.open(LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        if error.errno in (errno.EACCES, errno.EPERM):
            return True  # another's, and so is the answer
        raise
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    finally:
        os.close(file)
    return False


def _lock_file(folder: int, url: str) -> int:
    """Locked, and still the file of that name: whoever had it before removes it, maybe while we opened or locked it."""
    for attempt in range(_RACES):
        file = -1
        try:
            file = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
            _take(file, url)
            # Asked of the server, as nothing that a client remembers of a file outlives a lock on it.
            mine, there = os.fstat(file), os.stat(LOCK, dir_fd=folder, follow_symlinks=False)
            if mine.st_nlink and os.path.samestat(mine, there):
                return file
            os.close(file)
        except BaseException as error:
            if file >= 0:
                os.close(file)
            was_removed = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ESTALE)
            if not was_removed or attempt == _RACES - 1:
                raise
    raise VmferryError("busy", f"The lock of {url} is always another's.", "Run the task again.")


def remove_left_lock(folder: int) -> None:
    """What a killed process left; one that somebody holds stays."""
    file = os.open(LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(LOCK, dir_fd=folder)
    except OSError as error:
        if error.errno not in (*_NONE, errno.EWOULDBLOCK):
            raise
    finally:
        os.close(file)


@contextmanager
def _lock(descriptor: int, url: str) -> Iterator[None]:
    _take(descriptor, url)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _take(descriptor: int, url: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NONE:
            raise
        raise _unsupported(url) from error


def _unsupported(url: str) -> VmferryError:
    return VmferryError(
        "unsupported",
        f"The file system of {url} has no locks that surely reach other hosts, so nothing is replaced on a condition.",
        "Mount it with locks (NFS 4.1 has them, version 3 without nolock), or let one host alone write there.",
    )
