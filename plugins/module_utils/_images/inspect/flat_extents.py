# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VMDK whose data lie in flat files beside its descriptor, read without QEMU, which would open whatever is named."""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Iterator, List, Sequence, Tuple

from ..._blocks import Extent, Piece
from .vmdk_descriptor import is_beside
from .words import Description, ExtentFile, refusal

_READ = ("FLAT", "VMFS")


class FlatExtents:
    """Plays BlockSource. Every file is a plain one in the descriptor's own folder; no link is followed."""

    def __init__(self, descriptor: Path, found: Description) -> None:
        """Raises `invalid_config` for extents of other kinds, in other places, or that use a file's bytes twice."""
        self.size = found.size
        self._where = str(descriptor)
        self._extents = found.extents
        self._starts = list(accumulate((one.length for one in found.extents), initial=0))
        self._files: List[int] = []
        self._closing = Lock()  # a descriptor that is closed twice may be somebody else's by then
        found.approve(self._where, despite=frozenset({"extents"}))
        self._insist_on_own_bytes()
        try:
            folder = os.open(descriptor.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for one in found.extents:
                    self._files.append(self._open(folder, one))
            finally:
                os.close(folder)
        except BaseException:
            self.close()
            raise

    def extents(self) -> Iterator[Extent]:
        for start, one in zip(self._starts, self._extents):
            if one.length:
                yield Extent(start, one.length, "zero" if one.kind == "ZERO" else "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for offset, buffer in pieces:
            if offset < 0 or offset + len(buffer) > self.size:
                raise refusal("truncated", "was asked for bytes beyond its disk", self._where)
            index = bisect_right(self._starts, offset) - 1
            while buffer:
                here = buffer[: self._starts[index + 1] - offset]
                self._read(index, offset - self._starts[index], here)
                offset, buffer, index = offset + len(here), buffer[len(here) :], index + 1

    def close(self) -> None:
        with self._closing:
            files, self._files = self._files, []
        for descriptor in files:
            if descriptor >= 0:
                os.close(descriptor)

    def _insist_on_own_bytes(self) -> None:
        runs: List[Tuple[str, int, int]] = []
        for one in self._extents:
            if one.kind not in (*_READ, "ZERO"):
                raise refusal("extents", f"has an extent of the kind {one.kind}", self._where)
            if one.kind in _READ:
                runs.append((one.name, one.offset, one.offset + one.length))
        runs.sort()
        for before, after in zip(runs, runs[1:]):
            if before[0] == after[0] and after[1] < before[2]:
                raise refusal("overlap", f"uses bytes of {after[0]!r} twice", self._where)

    def _open(self, folder: int, one: ExtentFile) -> int:
        """-1 for zeros."""
        if one.kind == "ZERO":
            return -1
        if not is_beside(one.name):
            raise refusal("outside", f"has an extent in {one.name!r}", self._where)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(one.name, flags, dir_fd=folder)
        except OSError as error:
            text = f"has an extent in {one.name!r}, which cannot be opened ({error.strerror})"
            raise refusal("extents", text, self._where) from error
        told = os.fstat(descriptor)
        if not stat.S_ISREG(told.st_mode) or one.offset + one.length > told.st_size:
            os.close(descriptor)
            raise refusal("extents", f"has an extent in {one.name!r}, which is no file of that length", self._where)
        return descriptor

    def _read(self, index: int, at: int, buffer: memoryview) -> None:
        one = self._extents[index]
        if one.kind == "ZERO":
            buffer[:] = bytes(len(buffer))
            return
        at += one.offset
        while buffer:
            done = os.preadv(self._files[index], [buffer], at)
            if not done:
                raise refusal("truncated", f"has an extent in {one.name!r}, which became shorter", self._where)
            at, buffer = at + done, buffer[done:]
