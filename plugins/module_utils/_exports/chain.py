# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A full export and the increments on it: what a restore reads, and what the next increment stands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Optional, Tuple

from .._errors import Kind, VmferryError
from .catalog import CatalogEntry
from .signing import Untrusted

LONGEST_CHAIN = 1000  # exports; what is longer goes in circles, or nobody could restore it in a lifetime
_LOOKS = 3
# What `chain_of` raises about a chain. All else is about a store that does not answer or refuses, and may pass.
BROKEN: Tuple[Kind, ...] = ("not_found", "conflict", "invalid_config", "unsupported", "checksum_mismatch")
Find = Callable[[str], Optional[CatalogEntry]]  # an export of the same VM, by its id


@dataclass(frozen=True)
class ChainFault:
    """`export` is missing, cannot be read, or is another than the one above it was taken against."""

    export: str
    disk: str  # '' where it is about all of them
    error: VmferryError


def chain_of(entry: CatalogEntry, find: Find) -> Tuple[CatalogEntry, ...]:
    """The full export first, `entry` last, each the parent of the next and of the same disks.

    Raises `not_found` for a layer that is missing, `conflict` for one that is another than the child was taken against.
    """
    chain, faults = followed(entry, find)
    for fault in faults:
        raise fault.error
    return chain


def followed(entry: CatalogEntry, find: Find) -> Tuple[Tuple[CatalogEntry, ...], Tuple[ChainFault, ...]]:
    """As `chain_of`, as far down as it can be followed, and all that is wrong with it.

    A cleanup merges parents into their child and then deletes them. Whoever read the child's manifest before finds the
    parent missing; so what seems to be wrong is looked at again.
    """
    chain, faults = _follow(entry, find)
    for _unused in range(_LOOKS if faults else 0):
        try:
            fresh = find(entry.manifest.export_id)
        except VmferryError:  # what is wrong now is not what is to be told
            break
        if fresh is None:
            break
        again, faults_again = _follow(fresh, find)
        if not faults_again or again == chain:
            return again, faults_again
        chain, faults = again, faults_again
    return chain, faults


def _follow(entry: CatalogEntry, find: Find) -> Tuple[Tuple[CatalogEntry, ...], Tuple[ChainFault, ...]]:
    chain = [entry]
    faults: list[ChainFault] = []
    while chain[-1].manifest.mode == "incremental":
        child = chain[-1]
        wanted = child.manifest.parent
        try:
            parent = find(wanted) if len(chain) < LONGEST_CHAIN else None
        except VmferryError as error:
            if not blames_manifest(error):
                raise
            faults.append(ChainFault(wanted, "", error))
            break
        if parent is None:
            faults.append(ChainFault(wanted, "", _missing(entry, child)))
            break
        faults += _swapped(child, parent)
        chain.append(parent)
    return tuple(reversed(chain)), tuple(faults)


def blames_manifest(error: VmferryError) -> bool:
    """Whether it is about a manifest that cannot be trusted, and not about a store or a newer version."""
    return error.kind == "invalid_config" or isinstance(error, Untrusted)


def _swapped(child: CatalogEntry, parent: CatalogEntry) -> Iterator[ChainFault]:
    """What lies at the parent's place must be what the child was taken against, disk by disk, by its digests."""
    below = {disk.id: disk for disk in parent.manifest.disks}
    for disk in child.manifest.disks:
        base = below.get(disk.id)
        if base is None or base.size != disk.size or base.digest_root != disk.parent_root:
            yield ChainFault(parent.manifest.export_id, disk.id, _replaced(disk.id, child, parent))


def _missing(entry: CatalogEntry, child: CatalogEntry) -> VmferryError:
    return VmferryError(
        "not_found",
        f"{entry.manifest.export_id} cannot be read: {child.manifest.export_id} stands on "
        f"{child.manifest.parent}, which is not there.",
        "Use the URL of the folder that has all exports of the VM, or an export of another chain.",
    )


def _replaced(disk: str, child: CatalogEntry, parent: CatalogEntry) -> VmferryError:
    return VmferryError(
        "conflict",
        f"{disk} of {child.manifest.export_id} was not taken against what {parent.manifest.export_id} holds now.",
        "The parent was replaced. Use an export of another chain, or another copy of this one.",
    )
