# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A full export and the increments on it: what a restore reads, and what the next increment stands on."""

from __future__ import annotations

from typing import Callable, Optional, Tuple

from .._errors import VmferryError
from .catalog import CatalogEntry

LONGEST_CHAIN = 1000  # exports; what is longer goes in circles, or nobody could restore it in a lifetime
Find = Callable[[str], Optional[CatalogEntry]]  # an export of the same VM, by its id


def chain_of(entry: CatalogEntry, find: Find) -> Tuple[CatalogEntry, ...]:
    """The full export first, `entry` last, each the parent of the next and of the same disks.

    Raises `not_found` for a layer that is missing, `conflict` for one that is another than the child was taken against.
    """
    chain = [entry]
    while chain[-1].manifest.mode == "incremental":
        child = chain[-1]
        parent = find(child.manifest.parent) if len(chain) < LONGEST_CHAIN else None
        if parent is None:
            raise VmferryError(
                "not_found",
                f"{entry.manifest.export_id} cannot be read: {child.manifest.export_id} stands on "
                f"{child.manifest.parent}, which is not there.",
                "Use the URL of the folder that has all exports of the VM, or an export of another chain.",
            )
        insist_on_parent(child, parent)
        chain.append(parent)
    return tuple(reversed(chain))


def insist_on_parent(child: CatalogEntry, parent: CatalogEntry) -> None:
    """What lies at the parent's place is what the child was taken against, disk by disk, by its digests."""
    below = {disk.id: disk for disk in parent.manifest.disks}
    for disk in child.manifest.disks:
        base = below.get(disk.id)
        if base is None or base.size != disk.size or base.digest_root != disk.parent_root:
            raise VmferryError(
                "conflict",
                f"{disk.id} of {child.manifest.export_id} was not taken against what {parent.manifest.export_id} "
                "holds now.",
                "The parent was replaced. Use an export of another chain, or another copy of this one.",
            )
