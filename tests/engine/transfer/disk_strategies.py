# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random disks, and truthful extents of them, for property tests."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent

SECTOR = 512


def random_disk(seed: int, size: int) -> bytes:
    """Islands of data and of zeros that keep to no boundary but the sector's."""
    pick = random.Random(seed)
    disk = bytearray(size)
    for _unused in range(pick.randint(0, 12)):
        at = pick.randrange(size) // SECTOR * SECTOR
        length = min(size - at, pick.choice([1, SECTOR, LEAF, 3 * LEAF + SECTOR, 40 * LEAF]))
        disk[at : at + length] = pick.randbytes(length) if pick.random() < 0.8 else bytes(length)
    return bytes(disk)


def random_extents(seed: int, disk: bytes) -> list[Extent]:
    """Cut anywhere; `zero` only where it is true, so some zeros are told and some are left to be found."""
    pick = random.Random(seed)
    found, at = [], 0
    while at < len(disk):
        end = min(len(disk), at + pick.choice([1, SECTOR, 7 * SECTOR, LEAF, 2 * LEAF, 5 * LEAF + SECTOR, 70 * LEAF]))
        zero = not any(disk[at:end]) and pick.random() < 0.7
        found.append(Extent(at, end - at, "zero" if zero else "data"))
        at = end
    return found


SIZES = st.sampled_from([1, SECTOR, LEAF - 1, LEAF, LEAF + SECTOR, 64 * LEAF, 65 * LEAF + 1, 131 * LEAF + SECTOR])
SEEDS = st.integers(0, 2**32)
