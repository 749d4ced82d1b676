# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which exports of a VM take the place of which, by the disks that they hold."""

from __future__ import annotations

from typing import Collection, Iterable, Iterator, Sequence

from .retention_rules import Candidate


def by_vm(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for one in candidates:
        found.setdefault(one.vm_id, []).append(one)
    return list(found.values())


def by_disks(
    newest_first: Sequence[Candidate], damaged: Collection[str], too_old: Collection[str]
) -> Iterator[tuple[list[Candidate], frozenset[str]]]:
    """For each choice of a VM's disks: all exports with these disks and more, and the keys of those counted among them.

    An export of one disk takes no place of one of the whole VM. What is `too_old` is counted by those of its disks that
    the VM still has: or its last exports with a disk that was removed would never be displaced.
    """
    for mine in by_vm(newest_first):
        has = _disks_of_vm(mine, damaged)
        alike: dict[frozenset[str], list[str]] = {}
        for one in mine:
            alike.setdefault(one.disks & has if has and one.key in too_old else one.disks, []).append(one.key)
        for disks, keys in alike.items():
            yield [one for one in mine if one.disks >= disks], frozenset(keys)


def _disks_of_vm(newest_first: Iterable[Candidate], damaged: Collection[str]) -> frozenset[str]:
    """As the newest sound export of the whole VM tells, and all that are newer. Empty where there is none."""
    disks: frozenset[str] = frozenset()
    for one in newest_first:
        disks |= one.disks
        if one.whole and one.key not in damaged:
            return disks
    return frozenset()
