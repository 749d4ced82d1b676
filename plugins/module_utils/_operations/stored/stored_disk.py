# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk in a store, through all the layers it is made of."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from heapq import merge
from hmac import compare_digest
from itertools import groupby
from typing import Callable, Dict, Iterator, Optional, Sequence, Tuple

from ..._blocks import BlockSource, Extent, Kind, Piece
from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.encryption import DiskKeys
from ..._exports.manifest import DiskRecord, Manifest
from ..._stores.base import Store
from ..._transfer.digest_file import DigestReader, merged_leaves
from ..._transfer.digests import DigestTree, LeafHash, plain_hash
from ..._transfer.object_stream import SequentialReader
from .image_formats import image_reader

Key = Callable[[str], str]  # of a file beside the manifest
MergedLeaves = Iterator[Tuple[int, Dict[int, bytes]]]
MergedHolders = Iterator[Tuple[int, Dict[int, int]]]


@dataclass(frozen=True)
class StoredDisk:
    """One layer. A disk is a sequence of them, the full one first."""

    record: DiskRecord
    key: Key
    keys: Optional[DiskKeys] = field(default=None, compare=False, repr=False)  # of an encrypted one

    @classmethod
    def of(cls, made: Manifest, disk: DiskRecord, key: Key) -> StoredDisk:
        keys = made.keys.of_disk(made.export_id, disk.id, disk.key_nonce) if made.keys and disk.key_nonce else None
        return cls(disk, key, keys)

    @property
    def leaf_hash(self) -> LeafHash:
        return self.keys.leaf_hash if self.keys is not None else plain_hash

    def source(self, store: Store, below: Optional[BlockSource]) -> BlockSource:
        """Raises `invalid_config` without the keys of an encrypted image."""
        where = self.key(self.record.file)
        if self.record.key_nonce and self.keys is None:
            raise Locked(store.object_url(where))
        return image_reader(store, where, self.record, below, self.keys.image if self.keys is not None else None)


class Locked(VmferryError):
    """What is at `where` cannot be read for want of its passphrase."""

    def __init__(self, where: str) -> None:
        super().__init__(
            "invalid_config",
            f"{where} is encrypted, and the task has no passphrase for it.",
            "Set encryption.passphrase, encryption.passphrase_file or encryption.passphrase_command.",
        )


def insist_on_keys(store: Store, chain: Sequence[CatalogEntry]) -> None:
    """Raises `Locked`."""
    for entry in chain:
        for made in (entry.manifest, *([entry.folded] if entry.folded is not None else [])):
            if made.encryption is not None and made.keys is None:
                raise Locked(store.object_url(entry.folder))


def layers_of(chain: Sequence[CatalogEntry], disk_id: str) -> Tuple[StoredDisk, ...]:
    """`chain` as `chain_of` gives it, so that every export in it has the disk. Where its image was replaced already, in
    an export that others are being merged into, those are left out.
    """
    found: list[Tuple[str, StoredDisk]] = []
    for entry in chain:
        made = entry.manifest
        if disk_id in entry.replaced and entry.folded is not None:
            made = entry.folded
            while found and found[-1][0] != made.parent:
                found.pop()
        found += [(made.export_id, StoredDisk.of(made, disk, entry.key)) for disk in made.disks if disk.id == disk_id]
    return tuple(layer for _unused, layer in found)


def disk_source(store: Store, layers: Sequence[StoredDisk], below: BlockSource | None = None) -> BlockSource:
    """`below`: what the first layer stands on, if it is none."""
    source = below
    with ExitStack() as on_error:
        for layer in layers:
            source = layer.source(store, source)
            on_error.callback(source.close)
        on_error.pop_all()
    if source is None:
        raise VmferryError("internal", "A disk without layers cannot be read.")
    return source


class Blank:
    """Plays BlockSource: a disk of zeros, or of nothing that anybody asks for, for a layer to stand on."""

    def __init__(self, size: int, kind: Kind = "zero") -> None:
        self.size, self._kind = size, kind

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, self._kind)

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for _unused, buffer in pieces:
            buffer[:] = bytes(len(buffer))

    def close(self) -> None:
        """Nothing is held."""


def walk_tables(store: Store, layer: StoredDisk, *, layered: bool) -> None:
    """Of one image alone, from its header to the last place that it has data in. Raises `invalid_config`."""
    below = Blank(layer.record.size) if layered else None
    image = layer.source(store, below)
    try:
        for _unused in image.extents():
            pass
    finally:
        image.close()


def insist_on_slot(store: Store, layer: StoredDisk) -> None:
    """The passphrase opens an encrypted image for other tools, too, which derive no key. Raises `checksum_mismatch`,
    and `invalid_config` for a header that is none of ours."""
    if layer.keys is None:
        return
    from ..._images.qcow2.decrypted import open_with_passphrase

    key = layer.key(layer.record.file)
    try:
        found = open_with_passphrase(
            lambda offset, buffer: store.read_into(key, offset, buffer),
            layer.record.bytes_stored,
            layer.keys.passphrase,
        )
    except VmferryError as error:
        if error.kind != "unauthenticated":
            raise
        found = b""
    if not compare_digest(found, layer.keys.image):
        raise VmferryError(
            "checksum_mismatch",
            f"{store.object_url(key)} is not opened by its passphrase with qemu-img: its LUKS header was damaged.",
            "Here it can still be restored. Use another copy of it, or run vm_export with mode: full.",
        )


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
    reader = DigestReader(stream.read, where, disk.digest_algorithm)
    if reader.header.size != disk.size or reader.header.layered != layered:
        kind = "an increment" if reader.header.layered else "a full export"
        found = f"the digests of {kind} of a disk of {reader.header.size} bytes, not of {disk.size}"
        raise VmferryError(
            "checksum_mismatch",
            f"{where} has {found}.",
            "The store did not keep what it was given. Look at its health, and use another copy of the export.",
        )
    return reader
