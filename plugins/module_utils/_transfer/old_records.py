# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that are over go after a while, so that a state directory does not grow for ever."""

from __future__ import annotations

import json
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

from .record import JOB_ID, is_alive

KEPT = 30 * 86400.0  # seconds from a job's last sign of life
LOOKS = 64  # folders that one start of a job looks at


def remove_old_jobs(state_dir: Path) -> None:
    """Those that ended, or died, longer than `KEPT` ago.

    Every job adds one folder and looks at `LOOKS`, chosen by chance: that bounds both its work and what is old.
    """
    folder, limit = state_dir / "jobs", time.time() - KEPT
    with suppress(OSError):
        jobs = [path for path in folder.iterdir() if JOB_ID.fullmatch(path.name)]
        for job in random.sample(jobs, min(LOOKS, len(jobs))):
            if _is_old(job, limit):
                shutil.rmtree(job, ignore_errors=True)


def _is_old(folder: Path, limit: float) -> bool:
    record = folder / "record.json"
    try:
        if record.stat().st_mtime >= limit:
            return False
        found = json.loads(record.read_bytes())
        return is_alive(found) is False and float(found["heartbeat"]) < limit
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False
