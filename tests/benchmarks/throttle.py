# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How exactly a limit is kept over ten seconds, by one process and by several that share it, and what a priority is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limiter import Limiter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.priority import LOW_IO, LOW_NICE, WEIGHTS
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.timetable import parse_timetable
from benchmarks.measure import Figure
from rigs.throttled import Asking, begin

MIB = 1 << 20
SECONDS, RATE = 10.0, 16 * MIB
LIMIT = f"{RATE // MIB}MiB/s"
TARGET = 0.05
BURST, REQUEST = MIB, 32 * MIB
BEST_EFFORT = 2 << 13  # ioprio_get(2); the level is below, and classes that yield more have larger numbers
LOW = """
import json, os
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.priority import io_priority, yield_to_others
yield_to_others("low")
print(json.dumps([os.nice(0), io_priority()]))
"""


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    for count in (1, 4):
        missed = [deviation(folder / f"{count}-{turn}", count) for turn in range(runs)]
        name = f"throttle: largest deviation from the limit, {count} process{'es' if count > 1 else ''} for 10 s"
        yield Figure(name, max(missed), TARGET, "lower", "the limit", missed)
    late = [larger_than_the_burst() for _unused in range(runs)]
    name = f"throttle: time of one request, {REQUEST // BURST} times the burst"
    yield Figure(name, max(late), 1 + TARGET, "lower", "what the limit makes of it", late)
    missed = [deviation_of_shares(folder / f"shares-{turn}") for turn in range(max(2, runs // 2))]
    name = "priority: largest deviation of low, normal and high from 1, 2 and 4 parts of a limit for 10 s"
    yield Figure(name, max(missed), TARGET, "lower", "the limit", missed)
    yield from of_low()


def deviation(state_dir: Path, count: int) -> float:
    """A part of the limit, up or down. From the very first byte, so that the burst is in it."""
    asking = [Asking(state_dir, LIMIT, "normal", SECONDS + 1) for _unused in range(count)]
    begin(asking)
    allowed = [one.end() for one in asking]
    ends = min(one.moments[0][0] for one in allowed) + SECONDS
    return abs(sum(one.until(ends) for one in allowed) / (RATE * SECONDS) - 1)


def deviation_of_shares(state_dir: Path) -> float:
    """A part of the limit, of the one that is furthest from its share."""
    asking = [Asking(state_dir, LIMIT, priority, SECONDS + 1) for priority in WEIGHTS]
    begin(asking)
    allowed = [one.end() for one in asking]
    begins = max(one.moments[0][0] for one in allowed)  # from when on all of them ask
    found = [one.between(begins, begins + SECONDS) / (RATE * SECONDS) for one in allowed]
    due = [weight / sum(WEIGHTS.values()) for weight in WEIGHTS.values()]
    return max(abs(one - other) for one, other in zip(found, due, strict=True))


def larger_than_the_burst() -> float:
    limiter, started = Limiter(parse_timetable(LIMIT), burst=BURST), time.monotonic()
    limiter.take(REQUEST)
    return (time.monotonic() - started) / (REQUEST / RATE)


def of_low() -> Iterator[Figure]:
    """As the kernel tells it, of which a larger number yields more."""
    said = subprocess.run(
        [sys.executable, "-c", LOW], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True
    )
    nice, io = json.loads(said.stdout)
    level = io - BEST_EFFORT if io >= BEST_EFFORT else -1
    yield Figure("priority low: nice", nice, LOW_NICE, "higher", "", [nice])
    yield Figure("priority low: level of the best effort for I/O", level, LOW_IO - BEST_EFFORT, "higher", "", [level])
