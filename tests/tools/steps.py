# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the steps of a check against a deadline: in turn in front of the user's eyes, or side by side into logs."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

# Time to put things away, after Ctrl-C's signal and after a plain request to end.
_GRACE_SECONDS = (20, 5)


@dataclass(frozen=True)
class Step:
    """One command of a check; `environment` is laid over ours, `refuted_by` in its log means that success was none."""

    name: str
    command: Sequence[str | Path]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    refuted_by: str | None = None


class Steps:
    """The steps of one check. What went wrong is collected, so that one failure does not hide the next."""

    def __init__(self, group: str, budget: float, logs: Path, strict: bool) -> None:
        self.group = group
        self.deadline = time.monotonic() + budget
        self.failures: list[str] = []
        self.notes: list[str] = []
        self._logs = logs / group
        self._strict = strict
        self._print = threading.Lock()

    def missing(self, what: str) -> None:
        """Something this machine does not have: a failure where everything must be there, elsewhere a loud note."""
        print(f"MISSING: {what}", flush=True)
        (self.failures if self._strict else self.notes).append(f"missing: {what}")

    def run(self, step: Step) -> bool:
        """One step, its output straight to ours."""
        print(f"--- {self.group}: {step.name}", flush=True)
        return self._settle(step, self._execute(step, None))

    def run_together(self, steps: Sequence[Step], width: int | None = None) -> None:
        """Several steps at once, each one's output printed in one piece when it is done."""
        with ThreadPoolExecutor(max_workers=width or os.cpu_count() or 1) as pool:
            list(pool.map(self._run_logged, steps))

    def _run_logged(self, step: Step) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{step.name.replace(' ', '-').replace('/', '-')}.log"
        started = time.monotonic()
        with log.open("wb") as output:
            code = self._execute(step, output.fileno())
        with self._print:
            print(f"--- {self.group}: {step.name} ({time.monotonic() - started:.0f} s)", flush=True)
            said = log.read_text(errors="replace")
            sys.stdout.write(said)
            if self._settle(step, code) and step.refuted_by and step.refuted_by in said:
                self.failures.append(f"{step.name} did nothing: {step.refuted_by}")

    def _settle(self, step: Step, code: int | None) -> bool:
        if code == 0:
            return True
        reason = "ran out of the group's time" if code is None else f"ended with {code}"
        self.failures.append(f"{step.name} {reason}")
        print(f"FAILED: {step.name} {reason}: {shlex.join(map(str, step.command))}", flush=True)
        return False

    def _execute(self, step: Step, output: int | None) -> int | None:
        """The exit status, or None when time ran out."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            return None
        with subprocess.Popen(
            step.command,
            cwd=step.folder,
            env={**os.environ, "NO_COLOR": "1", **step.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                return process.wait(left)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the step's process group: first as Ctrl-C would, so that servers are stopped by those who started them."""
    for number, grace in zip((signal.SIGINT, signal.SIGTERM), _GRACE_SECONDS):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
