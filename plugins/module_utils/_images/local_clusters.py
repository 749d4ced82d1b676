# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A powered-off VM's image chain, read where its clusters lie instead of through a socket."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from threading import Lock
from typing import Any, Iterator, Mapping, Sequence

from .._blocks import Extent, Piece
from .._errors import VmferryError

NOWHERE = (1 << 64) - 1  # a place: reads as zeros


@dataclass(frozen=True)
class Layer:
    """One image of a chain: its file or block device, and its format."""

    path: str
    format: str


class LocalClusters:
    """Plays BlockSource. The caller holds the images' lock: these files must not change while they are read."""

    def __init__(self, size: int, layers: Sequence[Layer], entries: Iterator[Mapping[str, Any]]) -> None:
        """`layers` newest first; `entries` as `qemu-img map --output=json` gives them. `unsupported` for compressed
        or encrypted clusters, which have no plain place in a file.
        """
        self.size = size
        self._starts, self._places, self._depths = array("Q"), array("Q"), bytearray()
        for entry in entries:
            if not entry["zero"] and "offset" not in entry:
                raise VmferryError("unsupported", f"{layers[0].path} has compressed or encrypted clusters.")
            if entry["start"] >= size:
                break
            self._starts.append(entry["start"])
            self._places.append(NOWHERE if entry["zero"] else entry["offset"])
            self._depths.append(0 if entry["zero"] else entry["depth"])
        self._starts.append(size)
        self._files: list[int] = []
        self._closing = Lock()  # a descriptor that is closed twice may be somebody else's by then
        try:
            for layer in layers:
                self._files.append(os.open(layer.path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            self.close()
            raise VmferryError("permission_denied", f"{error.filename} cannot be read: {error.strerror}.") from error

    def extents(self) -> Iterator[Extent]:
        for index, place in enumerate(self._places):
            start, end = self._starts[index], min(self._starts[index + 1], self.size)
            yield Extent(start, end - start, "zero" if place == NOWHERE else "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for offset, buffer in pieces:
            if offset < 0 or offset + len(buffer) > self.size:
                raise VmferryError("internal", "An image chain was asked for bytes beyond its disk.")
            index = bisect_right(self._starts, offset) - 1
            while buffer:
                here = buffer[: self._starts[index + 1] - offset]
                self._read(index, offset, here)
                offset, buffer, index = offset + len(here), buffer[len(here) :], index + 1

    def close(self) -> None:
        with self._closing:
            files, self._files = self._files, []
        for descriptor in files:
            os.close(descriptor)

    def _read(self, index: int, offset: int, buffer: memoryview) -> None:
        place = self._places[index]
        if place == NOWHERE:
            buffer[:] = bytes(len(buffer))
            return
        at, file = place + offset - self._starts[index], self._files[self._depths[index]]
        while buffer:
            done = os.preadv(file, [buffer], at)
            if not done:  # a file may end inside its last cluster: what is not there reads as zeros
                buffer[:] = bytes(len(buffer))
                return
            at, buffer = at + done, buffer[done:]
