# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How exactly a limit is kept over ten seconds by one process, and by four that share it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Figure
from rigs.throttled import Asking, begin

MIB = 1 << 20
SECONDS, RATE = 10.0, 16 * MIB
TARGET = 0.05


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    """From the very first byte, so that the burst is in it."""
    for count in (1, 4):
        missed = [deviation(folder / f"{count}-{turn}", count) for turn in range(runs)]
        name = f"throttle: largest deviation from the limit, {count} process{'es' if count > 1 else ''} for 10 s"
        yield Figure(name, max(missed), TARGET, "lower", "the limit", missed)


def deviation(state_dir: Path, count: int) -> float:
    """A part of the limit, up or down."""
    asking = [Asking(state_dir, f"{RATE // MIB}MiB/s", "normal", SECONDS + 1) for _unused in range(count)]
    begin(asking)
    allowed = [one.end() for one in asking]
    ends = min(one.moments[0][0] for one in allowed) + SECONDS
    return abs(sum(one.until(ends) for one in allowed) / (RATE * SECONDS) - 1)
