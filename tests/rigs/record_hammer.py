# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's record, written as fast as it goes, while other processes read it as fast as they can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import Progress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import JobRecord

PATH = str(Path(__file__).resolve().parents[2] / ".build")
READER = """
import json, sys
from pathlib import Path
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import read_job
state, job, stop = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
reads = torn = backward = last = 0
while not stop.exists():
    try:
        found = read_job(state, job)
        now = (found["bytes_read"], found["percent"], found["heartbeat"])
    except Exception:
        torn += 1
        continue
    reads += 1
    backward += last != 0 and any(new < old for new, old in zip(now, last))
    last = now
print(json.dumps([reads, torn, backward]))
"""


@dataclass(frozen=True)
class Seen:
    writes: int
    reads: int
    torn: int  # reads that were no record
    backward: int  # reads that told of less than the one before


def hammer(state_dir: Path, seconds: float, readers: int = 2) -> Seen:
    job, stop = "h" * 32, state_dir / "stop"
    progress = Progress()
    record = JobRecord.create(state_dir, job, "export")
    progress.enter("exporting", [progress.new_disk("disk-0", 1 << 40)])
    disk = progress.disk(0)
    record.update(progress.snapshot(), now=True)
    command = [sys.executable, "-c", READER, str(state_dir), job, str(stop)]
    environment = {**os.environ, "PYTHONPATH": PATH}
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _unused in range(readers)
    ]
    writes, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        disk.read(1 << 20)
        disk.settled(1 << 20)
        record.update(progress.snapshot(), now=True)
        writes += 1
    stop.touch()
    told = [json.loads(reader.communicate(timeout=30)[0]) for reader in started]
    return Seen(writes, *(sum(column) for column in zip(*told)))
