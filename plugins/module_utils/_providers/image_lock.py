# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's own image locks, held by us: no QEMU can open these files for writing while we read them. Of a block device
they hold for those alone that have the same node of it (see `image_stamp`). Why these locks are ours: see `qemu_lock`.
"""

from __future__ import annotations

import os
from typing import Sequence

from .._errors import VmferryError
from .qemu_lock import lock


class ImageLock:
    """Held until `close`. Raises `busy` where somebody writes to one of the files already."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._files: list[int] = []
        try:
            for path in paths:
                self._lock(path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []

    def _lock(self, path: str) -> None:
        try:
            self._files.append(lock(path))
        except BlockingIOError as error:
            raise _in_use(path) from error
        except OSError as error:
            kind = "not_found" if isinstance(error, FileNotFoundError) else "permission_denied"
            raise VmferryError(kind, f"{path} cannot be opened: {error.strerror}.") from error  # type: ignore[arg-type]


def _in_use(path: str) -> VmferryError:
    return VmferryError("busy", f"{path} is in use: another process writes to it.", "Is another VM using this disk?")
