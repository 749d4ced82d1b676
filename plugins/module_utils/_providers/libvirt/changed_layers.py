# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed on a disk of a VM that is off: all that the bitmaps of its images say, over the disk as it is."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Iterator, Mapping, Sequence

from ..._blocks import BlockSource, Extent, Kind, Piece
from ..._images.local_clusters import Layer
from ..._nbd.classification import DIRTY, dirty_bitmap
from ..._nbd.extents import Runs, joined, overlaid
from ..._nbd.qemu_nbd import serve
from ..._nbd.source import NbdSource


class ChangedLayers:
    """Plays BlockSource: `whole`, of which is `unchanged` what no map calls `data`."""

    def __init__(self, whole: BlockSource, maps: Sequence[BlockSource]) -> None:
        self._whole, self._maps = whole, tuple(maps)
        self.size = whole.size

    def extents(self) -> Iterator[Extent]:
        contexts = (_flags(self._whole, "zero", 0), *(_flags(one, "data", self.size) for one in self._maps))
        return joined((length, _kind(flags)) for length, flags in overlaid(contexts))

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._whole.read_into(pieces)

    def close(self) -> None:
        for source in (self._whole, *self._maps):
            source.close()


def open_changes(
    stack: ExitStack, folder: Path, whole: BlockSource, layers: Sequence[Layer], bitmap: str
) -> BlockSource:
    """`layers`: those that have this bitmap. Served from `folder` until the stack is left."""
    return ChangedLayers(whole, _open_maps(stack, folder, layers, bitmap))


def bytes_changed(folder: Path, layers: Sequence[Layer], bitmap: str) -> int:
    """At most: what changed in two layers is counted twice. `folder`: where a socket may lie meanwhile."""
    with ExitStack() as stack:
        maps = _open_maps(stack, folder, layers, bitmap)
        return sum(extent.length for one in maps for extent in one.extents() if extent.kind == "data")


def _open_maps(stack: ExitStack, folder: Path, layers: Sequence[Layer], bitmap: str) -> list[BlockSource]:
    """Of each layer; what is written down in its bitmap is `data`."""
    context = dirty_bitmap(bitmap)

    def classify(flags: Mapping[str, int]) -> Kind:
        return "data" if flags[context] & DIRTY else "unchanged"

    maps: list[BlockSource] = []
    for layer in layers:
        served = stack.enter_context(
            serve(Path(layer.path), layer.format, read_only=True, socket_dir=folder, bitmap=bitmap, backing=())
        )
        maps.append(NbdSource(served.address, contexts=(context,), classify=classify))
        stack.callback(maps[-1].close)
    return maps


def _flags(source: BlockSource, kind: Kind, size: int) -> Runs:
    """1 where it is of this kind, up to `size` at least: a disk may have grown since its lower images were made."""
    end = 0
    for extent in source.extents():
        end = extent.end
        yield extent.length, int(extent.kind == kind)
    if end < size:
        yield size - end, 0


def _kind(flags: tuple[int, ...]) -> Kind:
    if not any(flags[1:]):
        return "unchanged"
    return "zero" if flags[0] else "data"
