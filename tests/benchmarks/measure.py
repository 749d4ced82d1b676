# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two ways to do one job, run in turn in the same minutes on the same data, and what each cost as whole processes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Literal, Sequence

Command = Sequence[str]
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}  # once, by the run that does not count


@dataclass(frozen=True)
class Cost:
    """Of one command and all its children: seconds, and the largest single process in bytes."""

    wall: float
    cpu: float
    peak_rss: int
    output: str = ""


@dataclass(frozen=True)
class Figure:
    """One promise and what was measured. `better` says on which side of the target the value belongs."""

    figure: str
    value: float
    target: float | None
    better: Literal["lower", "higher"]
    peer: str
    runs: list[float]

    @property
    def holds(self) -> bool:
        if self.target is None:
            return True
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def line(self) -> str:
        spread = f"{min(self.runs):.3g}–{max(self.runs):.3g} in {len(self.runs)} runs"
        goal = "" if self.target is None else f", target {'≤' if self.better == 'lower' else '≥'} {self.target:g}"
        verdict = "" if self.target is None else ("  ok" if self.holds else "  MISSED")
        return f"{self.figure}: {self.value:.3g} ({spread}{goal}; against {self.peer or 'nothing'}){verdict}"


def run(command: Command, environment: dict[str, str] | None = None) -> Cost:
    """Raises SystemExit with the command's output when it fails: a figure of a failed run would be a lie."""
    started = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **COMPILED, **(environment or {})}
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _unused, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - started
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with {process.returncode}:\n{said.decode(errors='replace')}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, said.decode(errors="replace"))


def cpu_seconds(pid: int) -> float:
    """That a running process has taken until now, with its children that ended."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(word) for word in words[11:15]) / os.sysconf("SC_CLK_TCK")


def in_turn(
    ours: Callable[[], Cost], peers: Sequence[Callable[[], Cost]], runs: int
) -> tuple[list[Cost], list[list[Cost]]]:
    """A B A B …, after one run of each that does not count."""
    everyone = [ours, *peers]
    costs: list[list[Cost]] = [[] for _unused in everyone]
    for turn in range(runs + 1):
        for who, one in enumerate(everyone):
            cost = one()
            if turn:
                costs[who].append(cost)
    return costs[0], costs[1:]


def ratio(
    figure: str,
    ours: Sequence[Cost],
    theirs: Sequence[Cost],
    of: Callable[[Cost], float],
    target: float | None,
    peer: str,
) -> Figure:
    """The median of the ratios pair by pair: what drifts over minutes drifts for both."""
    pairs = [of(mine) / of(other) for mine, other in zip(ours, theirs)]
    return Figure(figure, statistics.median(pairs), target, "lower", peer, pairs)
