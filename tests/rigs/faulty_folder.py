# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder, mounted elsewhere as an NFS client mounts one, that fails as it is told.

    with faulty_folder(home) as folder:
        folder.fail("fsync", errno.EDQUOT)                    # every call, until heal()
        folder.fail("rename", errno.EIO, times=1, done=True)  # carried out, but the answer is lost
        folder.fail("write", errno.ESTALE, lost=True)         # and so is the file handle: it stays stale
        folder.calls("fsync")                                 # how many there were

Names of operations are those of FUSE: `flush` is what close(2) waits for.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from . import fuse_mount

Result = TypeVar("Result")


@dataclass(frozen=True)
class Fault:
    number: int
    operation: str
    code: int
    times: int
    done: bool
    lost: bool


class FaultyFolder:
    def __init__(self, home: Path) -> None:
        self.point, self.behind = home / "mounted", home / "behind"
        self.told, self.seen = home / "faults", home / "calls"
        self.source = f"faulty:{home.name}"
        for folder in (self.point, self.behind):
            folder.mkdir(parents=True)
        self._faults: list[Fault] = []
        self._tell()

    def fail(self, operation: str, code: int, *, times: int = 1 << 30, done: bool = False, lost: bool = False) -> None:
        self._faults.append(Fault(len(self._faults), operation, code, times, done, lost))
        self._tell()

    def heal(self) -> None:
        self._faults.append(Fault(len(self._faults), "", 0, 0, False, False))
        self._faults = [Fault(each.number, "", 0, 0, False, False) for each in self._faults]
        self._tell()

    def calls(self, operation: str) -> int:
        return self.seen.read_text().splitlines().count(operation)

    def _tell(self) -> None:
        new = self.told.with_suffix(".new")
        new.write_text(json.dumps([asdict(fault) for fault in self._faults]))
        new.replace(self.told)


@contextmanager
def faulty_folder(home: Path, subtype: str = "nfs") -> Iterator[FaultyFolder]:
    folder = FaultyFolder(home)
    arguments = [str(folder.behind), str(folder.told), str(folder.seen), folder.source, subtype]
    with fuse_mount.mounted("rigs.faulty_folder", arguments, folder.point, home / "log"):
        yield folder


class Faults:
    """What goes wrong, on the side of the file system."""

    def __init__(self, told: Path, seen: Path) -> None:
        self._told, self._lock = told, threading.Lock()
        self._seen = seen.open("a", buffering=1)
        self._used: Counter[int] = Counter()
        self.stale: set[int] = set()

    def around(self, operation: str, handle: int | None, function: Callable[[], Result]) -> Result:
        with self._lock:
            self._seen.write(f"{operation}\n")
            if handle is not None and handle in self.stale:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            fault = self._next(operation)
            if fault is not None and fault.lost and handle is not None:
                self.stale.add(handle)
        if fault is None:
            return function()
        if fault.done:
            function()
        raise OSError(fault.code, os.strerror(fault.code))

    def _next(self, operation: str) -> Fault | None:
        for each in json.loads(self._told.read_text()):
            fault = Fault(**each)
            if fault.operation == operation and self._used[fault.number] < fault.times:
                self._used[fault.number] += 1
                return fault
        return None


def main(behind: str, told: str, seen: str, source: str, subtype: str, point: str) -> None:
    import mfusepy

    faults = Faults(Path(told), Path(seen))

    class PassThrough(mfusepy.Operations):
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            status = faults.around("getattr", fh, lambda: os.lstat(behind + path) if fh is None else os.fstat(fh))
            names = ("mode", "ino", "nlink", "size", "blocks", "uid", "gid")
            times = {f"st_{name}": getattr(status, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
            return {**{f"st_{name}": getattr(status, f"st_{name}") for name in names}, **times}

        def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
            with os.scandir(behind + path) as entries:
                found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
            here = [(name, os.lstat(behind + path)) for name in (".", "..")]
            return [(name, {"st_mode": told.st_mode, "st_ino": told.st_ino}, 0) for name, told in [*here, *found]]

        def open(self, path: str, flags: int) -> int:
            return faults.around("open", None, lambda: os.open(behind + path, flags))

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            return faults.around("create", None, lambda: os.open(behind + path, flags, mode))

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return faults.around("read", fh, lambda: os.pread(fh, size, offset))

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            return faults.around("write", fh, lambda: os.pwrite(fh, data, offset))

        def truncate(self, path: str, length: int, fh: int | None = None) -> None:
            faults.around("truncate", fh, lambda: os.truncate(behind + path, length))

        def flush(self, path: str, fh: int) -> None:
            faults.around("flush", fh, lambda: None)

        def fsync(self, path: str, datasync: int, fh: int) -> None:
            faults.around("fdatasync" if datasync else "fsync", fh, lambda: os.fsync(fh))

        def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
            faults.around("fsyncdir", None, lambda: None)

        def release(self, path: str, fh: int) -> None:
            faults.stale.discard(fh)
            os.close(fh)

        def unlink(self, path: str) -> None:
            faults.around("unlink", None, Path(behind + path).unlink)

        def link(self, target: str, source: str) -> None:
            faults.around("link", None, lambda: os.link(behind + source, behind + target))

        def rename(self, old: str, new: str) -> None:
            faults.around("rename", None, lambda: Path(behind + old).replace(behind + new))

        def mkdir(self, path: str, mode: int) -> None:
            Path(behind + path).mkdir(mode)

        def rmdir(self, path: str) -> None:
            Path(behind + path).rmdir()

        def chmod(self, path: str, mode: int) -> None:
            Path(behind + path).chmod(mode)

        def chown(self, path: str, uid: int, gid: int) -> None:
            os.chown(behind + path, uid, gid)

        def statfs(self, path: str) -> dict[str, int]:
            found = os.statvfs(behind)
            return {name: getattr(found, name) for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail")}

    mfusepy.FUSE(PassThrough(), point, **fuse_mount.options(source, subtype))


if __name__ == "__main__":
    main(*sys.argv[1:])
