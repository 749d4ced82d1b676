# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that ask a shared limit for bytes as fast as it lets them, and move none: what they were allowed, and when.

`python -m rigs.throttled STATE_DIR RATE PRIORITY SECONDS` is one of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".build"))

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limiter import Limiter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.priority import WEIGHTS, Priority
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.shared_bucket import SharedBucket
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.timetable import parse_timetable

STEP = 4096  # bytes


@dataclass(frozen=True)
class Allowed:
    """`moments`: (monotonic time, bytes so far), of each time that something was let through."""

    moments: Sequence[tuple[float, int]]

    def between(self, start: float, end: float) -> int:
        return self.until(end) - self.until(start)

    def until(self, end: float) -> int:
        return max((allowed for moment, allowed in self.moments if moment <= end), default=0)


class Asking:
    """One process. `end` gives what it was allowed, unless it was killed."""

    def __init__(self, state_dir: Path, rate: str, priority: Priority, seconds: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rigs.throttled", str(state_dir), rate, priority, str(seconds)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> Allowed:
        assert self.process.stdout is not None
        with self.process.stdout as said:
            allowed = Allowed([(float(moment), int(count)) for moment, count in json.loads(said.read())])
        assert self.process.wait() == 0
        return allowed


def begin(asking: Sequence[Asking]) -> None:
    """Together, once all are ready."""
    for one in asking:
        assert one.process.stdout is not None
        assert one.process.stdout.readline() == "ready\n"
    for one in asking:
        assert one.process.stdin is not None
        one.process.stdin.close()


def main(state_dir: str, rate: str, priority: Priority, seconds: str) -> None:
    timetable = parse_timetable(rate)
    bucket = SharedBucket(Path(state_dir), repr(timetable))
    print("ready", flush=True)
    sys.stdin.read()
    limiter = Limiter(timetable, bucket=bucket, weight=WEIGHTS[priority])
    moments: list[tuple[float, int]] = []
    allowed, end = 0, time.monotonic() + float(seconds)
    while time.monotonic() < end:
        limiter.take(STEP)
        allowed += STEP
        moments.append((time.monotonic(), allowed))
    print(json.dumps(moments))


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
