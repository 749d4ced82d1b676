# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between two states of a disk, in large units."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent, Kind, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.changed_units import ChangedUnits

UNIT = 8 * LEAF


@dataclass
class Layer:
    """Plays BlockSource, of leaves of these kinds; the last one may be short."""

    kinds: Sequence[Kind]
    size: int
    closed: bool = False

    def extents(self) -> Iterator[Extent]:
        for number, kind in enumerate(self.kinds):
            yield Extent(number * LEAF, min(LEAF, self.size - number * LEAF), kind)

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for _offset, buffer in pieces:
            buffer[:] = b"x" * len(buffer)

    def close(self) -> None:
        self.closed = True


def kinds_of(source: ChangedUnits) -> list[Kind]:
    """Of each leaf. What has gaps or overlaps is no disk."""
    found: list[Kind] = []
    at = 0
    for extent in source.extents():
        assert (extent.offset, extent.length > 0) == (at, True)
        found += [extent.kind] * -(-extent.length // LEAF)
        at = extent.end
    assert at == source.size
    return found


def test_units_that_differ_are_whole_and_all_others_unchanged() -> None:
    chance = random.Random(5)
    for leaves in (64, 61, 8, 3, 1):
        for size in (leaves * LEAF, leaves * LEAF - 4096):
            whole: list[Kind] = [chance.choice(("data", "zero")) for _unused in range(leaves)]
            differ = chance.sample(range(leaves), leaves // 12)
            changes: list[Kind] = [whole[leaf] if leaf in differ else "unchanged" for leaf in range(leaves)]
            units = {leaf * LEAF // UNIT for leaf in differ}
            if size % UNIT:
                units.add(size // UNIT)
            expected = [kind if leaf * LEAF // UNIT in units else "unchanged" for leaf, kind in enumerate(whole)]
            assert kinds_of(ChangedUnits(Layer(whole, size), Layer(changes, size), UNIT)) == expected


def test_it_reads_the_whole_disk_and_closes_both() -> None:
    whole, changes = Layer(["data"] * 8, UNIT), Layer(["unchanged"] * 8, UNIT)
    source = ChangedUnits(whole, changes, UNIT)
    buffer = bytearray(4)
    source.read_into([(0, memoryview(buffer))])
    source.close()
    assert (bytes(buffer), whole.closed, changes.closed) == (b"xxxx", True, True)
