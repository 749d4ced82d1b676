# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file copied by its file system: sharing its blocks (ioctl_ficlone(2)), or by the server (copy_file_range(2)).

What a local file system without shared blocks would do, the caller does as well, and takes a digest on the way.
"""

from __future__ import annotations

import errno
import fcntl
import os
from functools import partial
from typing import Callable, Optional

from ..._blocks import ObjectInfo
from ..server_copy import CopyOrder, changed
from .holes import extents_of
from .mounts import Mount
from .parts import FilesystemParts, etag_of
from .roots import Root

_FICLONE = 0x40049409  # of linux/fs.h
_STEP = 64 * 1024**2  # bytes of one call, which a server may take its time for
_CANNOT = (
    *(errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.ETXTBSY, errno.EPERM),
    *(errno.ENOTSUP, errno.EBADF),
)


class FileCopy:
    def __init__(self, source: int, root: Root, take: Callable[[int], object]) -> None:
        """`source`: a descriptor of the file to copy. `root`: of the store that gets it. `take`: before bytes move, of
        which some file systems do not say whether they pass this host."""
        self._source, self._root, self._take = source, root, take

    def run(self, order: CopyOrder, begin: Callable[[], FilesystemParts]) -> Optional[ObjectInfo]:
        """None where the file system does not copy."""
        info, retry = order.info, order.retry
        self._insist_on(info)
        writer = retry.call(begin)
        try:
            if not retry.call(writer.receive, partial(self._copies, size=info.size)):
                writer.abort()
                return None
            self._insist_on(info)
            order.moved(info.size)
            return retry.call(partial(writer.finish, info.size, if_absent=order.if_absent))
        except BaseException:
            writer.abort()
            raise

    def _copies(self, target: int, size: int) -> bool:
        if shares_blocks(self._source, target):
            return True
        return copies_by_itself(self._root.mount) and copies_ranges(self._source, target, size, self._take)

    def _insist_on(self, info: ObjectInfo) -> None:
        if etag_of(os.fstat(self._source)) != info.etag:
            raise changed(info.key)


def copies_by_itself(mount: Optional[Mount]) -> bool:
    """Whether the bytes of copy_file_range(2) stay on a server: NFS from 4.2 on, SMB 3 and CephFS."""
    if mount is None:
        return False
    if mount.is_nfs:
        return "vers=4.2" in mount.options
    return mount.fstype in ("cifs", "smb3", "ceph")


def shares_blocks(source: int, target: int) -> bool:
    """All of the file, in one step, with its holes. False where the file system does not."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def copies_ranges(source: int, target: int, size: int, take: Callable[[int], object]) -> bool:
    """The data only. False where it does not do it, or ends early. `take`: before so many bytes."""
    for extent in extents_of(source, size):
        if extent.kind != "data":
            continue
        at = extent.offset
        while at < extent.end:
            step = min(_STEP, extent.end - at)
            take(step)
            try:
                done = os.copy_file_range(source, target, step, at, at)
            except OSError as error:
                if error.errno in _CANNOT:
                    return False
                raise
            if not done:
                return False
            at += done
    return True
