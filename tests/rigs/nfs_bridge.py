# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An NFS export as a real path, without the kernel's NFS client:

    python -m rigs.nfs_bridge nfs://server/export 4.1 /folder-of-the-export server:/export mount-point

Every operation goes to the server. Locks of the mount are this host's alone. Renames replace, links do not.
"""

from __future__ import annotations

import errno
import stat
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import mfusepy
import nfs_rs

from .fuse_mount import options

Result = TypeVar("Result")
PATIENCE = 1.0  # seconds that a server may be silent: the mount is a soft one
_KINDS = {nfs_rs.FileType.DIRECTORY: stat.S_IFDIR, nfs_rs.FileType.SYMLINK: stat.S_IFLNK}


def told(function: Callable[..., Result]) -> Callable[..., Result]:
    """What the server refused, as the error number it stands for."""

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Result:
        try:
            return function(*arguments, **named)
        except nfs_rs.NfsError as error:
            number = _number(error)
            if number == errno.EIO:
                print(function.__name__, repr(error), file=sys.stderr, flush=True)
            raise mfusepy.FuseOSError(number) from error

    return call


def _number(error: nfs_rs.NfsError) -> int:
    kinds: dict[type[Exception], int] = {
        FileNotFoundError: errno.ENOENT,
        FileExistsError: errno.EEXIST,
        IsADirectoryError: errno.EISDIR,
        NotADirectoryError: errno.ENOTDIR,
        PermissionError: errno.EACCES,
    }
    by_kind = next((number for kind, number in kinds.items() if isinstance(error, kind)), errno.EIO)
    return error.errno or _BY_NAME.get((error.code_name or "").upper().removeprefix("NFS4ERR_"), by_kind)


_BY_NAME = {
    "NOTEMPTY": errno.ENOTEMPTY,
    "STALE": errno.ESTALE,
    "NOSPC": errno.ENOSPC,
    "DQUOT": errno.EDQUOT,
    "ROFS": errno.EROFS,
    "FBIG": errno.EFBIG,
    "NAMETOOLONG": errno.ENAMETOOLONG,
    "XDEV": errno.EXDEV,
    "INVAL": errno.EINVAL,
}


class NfsBridge(mfusepy.Operations):
    use_ns = True

    def __init__(self, client: nfs_rs.Client, below: str) -> None:
        """`below`: the folder of the export that becomes the root, since nfs-rs cannot name the export itself."""
        self._client, self._below = client, below
        self._files: dict[int, nfs_rs.File] = {}  # by inode number
        self._users: Counter[int] = Counter()
        self._lock = threading.Lock()

    def _at(self, path: str) -> str:
        return (self._below + path).rstrip("/")

    @told
    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        found = self._client.stat(self._at(path))
        return {
            "st_mode": _KINDS.get(found.type, stat.S_IFREG) | (found.mode & 0o7777),
            "st_ino": found.fileid,
            "st_nlink": found.nlink,
            "st_size": found.size,
            "st_blocks": found.used // 512,
            "st_uid": found.uid,
            "st_gid": found.gid,
            "st_atime": found.atime,
            "st_mtime": found.mtime,
            "st_ctime": found.ctime,
        }

    @told
    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        found = [(each.name, each.info.type, each.info.fileid) for each in self._client.scandir(self._at(path))]
        here = [(name, nfs_rs.FileType.DIRECTORY, 1) for name in (".", "..")]
        return [
            (name, {"st_mode": _KINDS.get(kind, stat.S_IFREG), "st_ino": number}, 0)
            for name, kind, number in [*here, *found]
        ]

    @told
    def open(self, path: str, flags: int) -> int:
        return self._opened(path)

    @told
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._client.touch(self._at(path))
        self._client.chmod(self._at(path), mode & 0o7777)
        return self._opened(path)

    def _opened(self, path: str) -> int:
        """One open for all who use a file: nfs-rs loses the state of the first when it opens the file again."""
        with self._lock:
            number = self._client.stat(self._at(path)).fileid
            if not self._users[number]:
                try:
                    self._files[number] = self._client.open(self._at(path), "r+b")
                except (nfs_rs.NfsPermissionError, nfs_rs.NfsOSError):  # an export to be read only
                    self._files[number] = self._client.open(self._at(path), "rb")
            self._users[number] += 1
        return number

    @told
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._files[fh].read_at(offset + len(data), size - len(data))
            if not more:
                break
            data += more
        return data

    @told
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        done = 0
        while done < len(data):
            done += self._files[fh].write_at(data[done:], offset + done)
        return done

    @told
    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        self._client.truncate(self._at(path), length)

    @told
    def flush(self, path: str, fh: int) -> None:
        file = self._files[fh]
        if file.writable():
            file.flush()

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        self.flush(path, fh)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
        """An NFS server has made a folder durable when it answers."""

    @told
    def release(self, path: str, fh: int) -> None:
        with self._lock:
            self._users[fh] -= 1
            if not self._users[fh]:
                self._files.pop(fh).close()

    @told
    def unlink(self, path: str) -> None:
        self._client.unlink(self._at(path))

    @told
    def link(self, target: str, source: str) -> None:
        self._client.link(self._at(source), self._at(target))

    @told
    def symlink(self, target: str, source: str) -> None:
        self._client.symlink(source, self._at(target))

    @told
    def readlink(self, path: str) -> str:
        return self._client.readlink(self._at(path))

    @told
    def mkdir(self, path: str, mode: int) -> None:
        self._client.mkdir(self._at(path), mode & 0o7777)

    @told
    def rmdir(self, path: str) -> None:
        self._client.rmdir(self._at(path))

    @told
    def rename(self, old: str, new: str) -> None:
        self._client.rename(self._at(old), self._at(new))

    @told
    def chmod(self, path: str, mode: int) -> None:
        self._client.chmod(self._at(path), mode & 0o7777)

    @told
    def chown(self, path: str, uid: int, gid: int) -> None:
        found = self._client.stat(self._at(path))
        unchanged = (1 << 32) - 1
        self._client.chown(
            self._at(path), found.uid if uid in (-1, unchanged) else uid, found.gid if gid in (-1, unchanged) else gid
        )

    @told
    def statfs(self, path: str) -> dict[str, int]:
        found, block = self._client.fs_stat(), 4096
        return {
            "f_bsize": block,
            "f_frsize": block,
            "f_blocks": found.total_bytes // block,
            "f_bfree": found.free_bytes // block,
            "f_bavail": found.available_bytes // block,
            "f_namemax": 255,
        }


def main(url: str, version: str, below: str, source: str, point: str) -> None:
    client = nfs_rs.Client.connect(url, versions=[version], noresvport=True, operation_timeout=PATIENCE)
    mfusepy.FUSE(NfsBridge(client, below), point, **options(source, "nfs"))


if __name__ == "__main__":
    main(*sys.argv[1:])
