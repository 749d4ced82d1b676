# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory a transfer may take, and how it is divided."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Sequence

from .._blocks import LEAF
from .part_sizes import MAX_RECEIPTS, PartRules

MIB = 1024 * 1024
PATH_BUDGET = 32 * MIB  # the whole process stays below 100 MB
STORE_BUDGET = 40 * MIB  # below 150 MB, of which boto3 and Ansible take 70, and TLS or HTTP buffers some
_WINDOW = 2 * MIB  # more is no faster, and costs memory for each worker
_MIN_WINDOW = 4 * LEAF
_PART = 8 * MIB
_PER_DISK = 2  # workers of each of several disks, at least: one reads while another one sends
_SMALL_PART = MIB  # many requests, but disks that wait for each other cost more
_OVER = 6 * MIB  # so that the least parts of S3 leave room for four disks; measured, it stays below 150 MB
_PART_BUFFERS = 3  # at least: part 1, one being filled, one being sent


@dataclass(frozen=True)
class Limits:
    """Workers hold a window each; parts under way share `part_budget`; part 1, held back for the head, is in it."""

    workers: int
    window: int  # bytes, a multiple of a leaf
    part: int  # bytes wished for; a store's limits may ask for more
    part_budget: int  # bytes of all part buffers
    asked: bool = False  # somebody chose the size of parts: another one is refused, not taken instead

    @classmethod
    def of_transfer(cls, any_offset: bool, workers: int | None) -> Limits:
        """`any_offset`: of the writers of the store. `workers`: None leaves the number to us."""
        return cls.within(PATH_BUDGET if any_offset else STORE_BUDGET, any_offset=any_offset, workers=workers)

    def allow(self, window: int, part: int) -> bool:
        """Whether an export that was begun with these can go on within this memory."""
        sound = 0 < window <= _WINDOW and 0 < part <= max(_PART, self.part) and not window % LEAF and not part % LEAF
        return sound and window <= self.workers * self.window

    def like(self, window: int, part: int) -> Limits:
        """With the sizes of one that was begun earlier; with fewer workers where its windows are larger."""
        workers = max(1, min(self.workers, self.workers * self.window // window))
        return replace(self, workers=workers, window=window, part=part, asked=False)

    def cut_in(self, part: int) -> Limits:
        """With parts of so many bytes, as somebody asks for, in whole leaves and with the memory that they take."""
        part = -(-part // LEAF) * LEAF
        budget = max(self.part_budget, _PART_BUFFERS * part) if self.part_budget else 0
        return replace(self, part=part, part_budget=budget, asked=True)

    def for_compression(self) -> Limits:
        """A window waits for its turn twice then, so that twice as many workers keep the cores busy."""
        return replace(self, workers=2 * self.workers)

    def disks_at_once(self, sizes: Sequence[int], rules: PartRules) -> int:
        """How many disks of so many bytes may be under way together. The parts of one take two buffers, at least: for
        part 1, which waits for the image's head, and for the one that is being filled. The last disk may take some more
        than is left, of parts that are as small as they can be."""
        if not self.part_budget:
            return len(sizes)
        least = max(rules.min_part, self.part if self.asked else _SMALL_PART)
        spread = max(1, min(rules.max_parts, MAX_RECEIPTS) - 1)
        parts = (max(least, 0 if rules.joins_pieces else -(-size // spread)) for size in sorted(sizes, reverse=True))
        room = self.part_budget + (0 if self.asked else _OVER)
        return max(1, sum(taken <= room for taken in accumulate(2 * part for part in parts)))

    def beside(self, count: int) -> Limits:
        """For each of `count` disks that are under way together: all of them take no more than one would."""
        workers = max(_PER_DISK, self.workers // count)
        window = self.workers * self.window // (count * workers) // LEAF * LEAF
        budget = self.part_budget // count
        part = self.part if self.asked or not budget else min(self.part, budget // _PART_BUFFERS // LEAF * LEAF)
        return replace(self, workers=workers, window=max(_MIN_WINDOW, window), part=part, part_budget=budget)

    @classmethod
    def within(cls, budget: int, *, any_offset: bool, workers: int | None = None) -> Limits:
        """Divide `budget` bytes. Where many workers are wanted, each takes smaller windows, down to 256 KiB.

        A store that is sent parts gets a worker more than there are cores: one of them waits for the network.
        """
        wanted = workers or _cores() + (0 if any_offset else 1)
        for_windows = budget if any_offset else budget // 3
        window = max(_MIN_WINDOW, min(_WINDOW, for_windows // wanted // LEAF * LEAF))
        fitting = max(1, min(wanted, for_windows // window))
        if any_offset:
            return cls(fitting, window, _PART, 0)
        for_parts = budget - fitting * window
        return cls(fitting, window, min(_PART, for_parts // _PART_BUFFERS // LEAF * LEAF), for_parts)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
