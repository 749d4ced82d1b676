# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that must stay as they are while they are read: locked where that can be done, and compared in the end."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
from typing import Mapping, Sequence, Tuple

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..._providers.image_lock import ImageLock
from ..._stores.base import Store
from ..._stores.filesystem.mounts import mount_of

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


def has_writer(path: str) -> bool | None:
    """Whether any process of this host has the file open for writing; None where the kernel does not tell.

    It grants a read lease on a file without writers only (fcntl(2), F_SETLEASE), to its owner and to root. NFS and SMB
    also refuse one where the server gave the client no delegation or oplock, whoever writes.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None  # whoever reads it says why
    try:
        mount = mount_of(file)
        if mount is None or mount.is_shared:
            return None
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # a writer that comes right now would end us by SIGIO
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(file)
    return False


class HeldFiles:
    """`stamps` tell whether a file was written to or replaced. Until `close`, no QEMU opens local ones to write."""

    def __init__(self, store: Store, files: Sequence[ObjectInfo], *, is_path: bool) -> None:
        """Raises `busy` for a file that somebody writes to."""
        self._store, self._keys = store, [info.key for info in files]
        self._paths = [store.location(info.key) for info in files] if is_path else []
        self.warnings: list[str] = []
        self._lock = self._locked()
        try:
            self._insist_on_no_writer()
            self.stamps = self._stamps()
        except BaseException:
            self.close()
            raise

    def confirm(self) -> None:
        """After the last read. Raises `conflict`."""
        self._insist_on_no_writer()
        for key, stamp in self._stamps().items():
            if stamp != self.stamps[key]:
                where = self._store.object_url(key)
                hint = "Export it again, once nobody writes there."
                raise VmferryError("conflict", f"{where} was changed while it was exported.", hint, retryable=True)

    def told(self) -> str:
        """All stamps, for another run to compare with."""
        return json.dumps(sorted(self.stamps.items()))

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _locked(self) -> ImageLock | None:
        try:
            return ImageLock(self._paths)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self.warnings.append(f"{self._store.url} has no locks: nothing keeps QEMU from writing there meanwhile.")
            return None

    def _insist_on_no_writer(self) -> None:
        for path in self._paths:
            if has_writer(path):
                hint = "Wait until it is closed: detach it, or shut down the VM that has it."
                raise VmferryError("busy", f"{path} is open for writing by another process.", hint, retryable=True)

    def _stamps(self) -> Mapping[str, Tuple[int, str, int]]:
        found = {}
        for key in self._keys:
            info = self._store.stat(key)
            if info is None:
                raise VmferryError("conflict", f"{self._store.object_url(key)} is gone.", "Export what is there now.")
            found[key] = (info.size, info.etag or str(info.modified), info.changed)
        return found
