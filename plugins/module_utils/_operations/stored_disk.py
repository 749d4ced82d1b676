# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk in a store, through all the layers it is made of."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from typing import Callable, Dict, Iterator, Sequence, Tuple

from .._blocks import BlockSource, Extent, Piece
from .._errors import VmferryError
from .._exports.catalog import CatalogEntry
from .._exports.manifest import DiskRecord
from .._stores.base import Store
from .._transfer.digest_file import DigestReader, merged_leaves
from .._transfer.digests import DigestTree
from .._transfer.object_stream import SequentialReader
from .image_formats import image_reader

Key = Callable[[str], str]  # of a file beside the manifest
MergedLeaves = Iterator[Tuple[int, Dict[int, bytes]]]
MergedHolders = Iterator[Tuple[int, Dict[int, int]]]


@dataclass(frozen=True)
class StoredDisk:
    """One layer. A disk is a sequence of them, the full one first."""

    record: DiskRecord
    key: Key


def layers_of(chain: Sequence[CatalogEntry], disk_id: str) -> Tuple[StoredDisk, ...]:
    """`chain` as `chain_of` gives it, so that every export in it has the disk."""
    return tuple(StoredDisk(disk, entry.key) for entry in chain for disk in entry.manifest.disks if disk.id == disk_id)


def disk_source(store: Store, layers: Sequence[StoredDisk]) -> BlockSource:
    source: BlockSource | None = None
    with ExitStack() as on_error:
        for layer in layers:
            source = image_reader(store, layer.key(layer.record.file), layer.record, source)
            on_error.callback(source.close)
        on_error.pop_all()
    if source is None:
        raise VmferryError("internal", "A disk without layers cannot be read.")
    return source


class _Blank:
    """Plays BlockSource: a disk of zeros, for a layer to stand on."""

    def __init__(self, size: int) -> None:
        self.size = size

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, "zero")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for _unused, buffer in pieces:
            buffer[:] = bytes(len(buffer))

    def close(self) -> None:
        """Nothing is held."""


def walk_tables(store: Store, layer: StoredDisk, *, layered: bool) -> None:
    """Of one image alone, from its header to the last place that it has data in. Raises `invalid_config`."""
    below = _Blank(layer.record.size) if layered else None
    image = image_reader(store, layer.key(layer.record.file), layer.record, below)
    try:
        for _unused in image.extents():
            pass
    finally:
        image.close()


def disk_leaves(store: Store, layers: Sequence[StoredDisk]) -> MergedLeaves:
    """What the digest files say of the whole disk. Whoever reads it to its end compares the root."""
    return merged_leaves([_digests(store, layer, number > 0) for number, layer in enumerate(layers)])


def proved_leaves(store: Store, layers: Sequence[StoredDisk]) -> MergedLeaves:
    """As `disk_leaves`; read to its end it raises `checksum_mismatch` where they are not what the manifest names."""
    disk = layers[-1].record
    tree = DigestTree(disk.size)
    for chunk, leaves in disk_leaves(store, layers):
        tree.add(chunk, leaves)
        yield chunk, leaves
    if tree.root() != disk.digest_root:
        where = store.object_url(layers[-1].key(disk.digests.path))
        raise VmferryError("checksum_mismatch", f"{where}, or one it stands on, is not what its manifest names.")


def holders(store: Store, layers: Sequence[StoredDisk]) -> MergedHolders:
    """In chunk order, which layer each leaf that any of them has is read from, by its number."""

    def tagged(number: int) -> Iterator[Tuple[int, int, Dict[int, bytes]]]:
        for record in _digests(store, layers[number], number > 0):
            yield record.chunk, number, record.leaves

    records = merge(*map(tagged, range(len(layers))), key=lambda one: one[:2])
    for chunk, found in groupby(records, key=lambda one: one[0]):
        yield chunk, {position: number for _unused, number, leaves in found for position in leaves}


def _digests(store: Store, layer: StoredDisk, layered: bool) -> DigestReader:
    disk, key = layer.record, layer.key(layer.record.digests.path)
    stream = SequentialReader(lambda offset, buffer: store.read_into(key, offset, buffer), disk.digests.size)
    where = store.object_url(key)
    reader = DigestReader(stream.read, where)
    if reader.header.size != disk.size or reader.header.layered != layered:
        kind = "an increment" if reader.header.layered else "a full export"
        found = f"the digests of {kind} of a disk of {reader.header.size} bytes, not of {disk.size}"
        raise VmferryError(
            "checksum_mismatch",
            f"{where} has {found}.",
            "The store did not keep what it was given. Look at its health, and use another copy of the export.",
        )
    return reader
