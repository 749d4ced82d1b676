# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A chain as its images lie in the store right now, also while a cleanup merges some of it, or was killed over that."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import Iterator, Sequence, Tuple

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.chain import Find, chain_of
from ..._exports.folding import FOLDING, backing_of, folding_in, manifest_to_be
from ..._exports.manifest import MANIFEST, MANIFEST_LIMIT, Manifest, read_manifest
from ..._images.qcow2.format import CLUSTER, backing_name_in
from ..._stores.base import Store
from ..jobs.running_job import RunningJob

OF_WHAT_IS_THERE = ("checksum_mismatch", "invalid_config", "not_found")  # kinds of errors that blame the export


def readable_chain(store: Store, entry: CatalogEntry, find: Find) -> Tuple[CatalogEntry, ...]:
    return as_stored(store, chain_of(entry, find))


def as_stored(store: Store, chain: Sequence[CatalogEntry]) -> Tuple[CatalogEntry, ...]:
    return tuple(_as_stored(store, entry) for entry in chain)


def settled(chain: Sequence[CatalogEntry]) -> Tuple[CatalogEntry, ...]:
    """With the manifests that the images are of. Raises `conflict` where some of an export's are of either."""
    found: list[CatalogEntry] = []
    for entry in chain:
        folded = entry.folded
        if folded is None:
            found.append(entry)
            continue
        if entry.replaced != {disk.id for disk in folded.disks}:
            raise _half_merged(entry)
        while found and found[-1].manifest.export_id != folded.parent:
            found.pop()
        found.append(replace(entry, manifest=folded, folded=None, replaced=frozenset()))
    return tuple(found)


@contextmanager
def held_still(job: RunningJob, store: Store, chain: Sequence[CatalogEntry]) -> Iterator[None]:
    """What is found to be wrong inside is no damage where the chain was changed meanwhile: raises `conflict` then."""
    try:
        yield
    except VmferryError as error:
        if error.kind in OF_WHAT_IS_THERE:
            with job.flow.shielded():
                insist_on(store, chain, error)
        raise


def insist_on(store: Store, chain: Sequence[CatalogEntry], cause: BaseException | None = None) -> None:
    """Raises `conflict` where anything of this chain, as `as_stored` gave it, is no longer as it was."""
    for entry in reversed(chain):  # what was merged into was rewritten before its parents were deleted
        try:
            text = store.get(entry.key(MANIFEST), MANIFEST_LIMIT)
            made = read_manifest(text, store.object_url(entry.key(MANIFEST)), entry.trust)
            fresh = _as_stored(store, replace(entry, manifest=made, folded=None, replaced=frozenset()))
        except VmferryError as error:
            if error.kind != "not_found":
                raise
            raise _changed(entry, "deleted") from cause
        if fresh != entry:
            raise _changed(entry, "rewritten") from cause


def manifest_text(store: Store, entry: CatalogEntry) -> bytes:
    """As it lies there, with what this version may not know, and its signatures. Raises `conflict` where it changed."""
    text = store.get(entry.key(MANIFEST), MANIFEST_LIMIT)
    if read_manifest(text, store.object_url(entry.key(MANIFEST)), entry.trust) != entry.manifest:
        raise _changed(entry, "rewritten")
    return text


def _as_stored(store: Store, entry: CatalogEntry) -> CatalogEntry:
    folding = folding_in(store, entry.folder)
    where = store.object_url(entry.key(FOLDING))
    folded = manifest_to_be(folding, entry.manifest, where, entry.trust) if folding is not None else None
    replaced = replaced_disks(store, entry, folded) if folded is not None else frozenset()
    return replace(entry, folded=folded, replaced=replaced) if replaced else entry


def replaced_disks(store: Store, entry: CatalogEntry, folded: Manifest) -> frozenset[str]:
    """The disks whose images are what `folded` says already."""
    return frozenset(
        disk.id for disk in folded.disks if _backing_name(store, entry.key(disk.file)) == backing_of(folded, disk)
    )


def _backing_name(store: Store, key: str) -> str:
    info = store.stat(key)
    head = bytearray(min(CLUSTER, info.size) if info is not None else 0)
    store.read_into(key, 0, memoryview(head))
    return backing_name_in(bytes(head))


def _changed(entry: CatalogEntry, how: str) -> VmferryError:
    return VmferryError(
        "conflict",
        f"{entry.manifest.export_id} was {how} by a cleanup while it was read.",
        "Nothing is damaged. Run the task again.",
        retryable=True,
    )


def _half_merged(entry: CatalogEntry) -> VmferryError:
    return VmferryError(
        "conflict",
        f"A cleanup is merging other exports into {entry.manifest.export_id}, or was killed over that.",
        "Nothing is damaged. Run export_cleanup, which finishes it, and then the task again.",
        retryable=True,
    )
