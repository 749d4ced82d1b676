# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inspection of a file of this machine, which stays open for whoever reads it next."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ..._errors import Kind, VmferryError
from .image import inspect_image
from .words import Description, Limits

_KINDS: dict[type[OSError], Kind] = {FileNotFoundError: "not_found", PermissionError: "permission_denied"}


@dataclass(frozen=True)
class InspectedFile:
    """An open file, and what was seen in it."""

    path: Path
    descriptor: int
    is_block_device: bool
    description: Description


@contextmanager
def inspected_file(
    path: Path, format: str = "", limits: Limits | None = None, *, header_only: bool = False
) -> Iterator[InspectedFile]:
    """`format`: what it is said to be, one of `inspect.FORMATS`; empty where nobody said so.

    Raises `not_found`, `permission_denied`, or `invalid_config` for what is neither a file nor a block device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would make us wait
    except OSError as error:
        kind = _KINDS.get(type(error), "invalid_config")
        raise VmferryError(kind, f"{path} cannot be opened: {error.strerror}.") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise VmferryError("invalid_config", f"{path} is no image: it is neither a file nor a block device.")
        size = os.lseek(descriptor, 0, os.SEEK_END)

        def read_at(offset: int, buffer: memoryview) -> None:
            _read(path, descriptor, offset, buffer)

        found = inspect_image(read_at, size, expected=format, limits=limits or Limits(), header_only=header_only)
        yield InspectedFile(path, descriptor, stat.S_ISBLK(mode), found)
    finally:
        os.close(descriptor)


def _read(path: Path, descriptor: int, offset: int, buffer: memoryview) -> None:
    while buffer:
        try:
            done = os.preadv(descriptor, [buffer], offset)
        except OSError as error:
            raise VmferryError("internal", f"{path} cannot be read: {error.strerror}.") from error
        if not done:
            raise VmferryError("invalid_config", f"{path} became shorter while it was read.")
        offset, buffer = offset + done, buffer[done:]
