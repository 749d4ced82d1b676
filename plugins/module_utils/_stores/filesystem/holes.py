# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a file holds nothing: lseek(2), SEEK_DATA and SEEK_HOLE."""

from __future__ import annotations

import errno
import os
from typing import Iterator

from ..._blocks import LEAF, Extent

_UNTOLD = (errno.EINVAL, errno.ENOTSUP)


def extents_of(descriptor: int, size: int) -> Iterator[Extent]:
    """Of the file's first `size` bytes, in whole leaves. What lies behind its end is called data, since reading it is
    an error; so is all of it where the file system does not tell (NFS before 4.2)."""
    length = os.fstat(descriptor).st_size
    end = size if length >= size else length // LEAF * LEAF
    at = 0
    while at < end:
        found = min(_data_from(descriptor, at, end), end)
        start = end if found == end else found // LEAF * LEAF
        if start > at:
            yield Extent(at, start - at, "zero")
        at = start
        if at < end:
            stop = min(-(-os.lseek(descriptor, found, os.SEEK_HOLE) // LEAF) * LEAF, end)
            yield Extent(at, stop - at, "data")
            at = stop
    if at < size:
        yield Extent(at, size - at, "data")


def _data_from(descriptor: int, at: int, end: int) -> int:
    """The end where nothing follows but a hole."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        if error.errno in _UNTOLD:
            return at
        raise
