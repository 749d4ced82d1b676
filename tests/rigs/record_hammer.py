# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's record through all phases of an export, written as fast as it goes, while other processes read it as fast as
they can."""

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
PHASES = ("validating", "snapshotting", "exporting", "verifying", "finishing")  # after `pending`, before `ready`
WEIGHTS = {"exporting": 1.0, "verifying": 0.5}
DISKS = 3
DISK = 1 << 30  # bytes
READER = """
import json, sys
from pathlib import Path
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import read_job
state, job, number = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
order = json.loads(sys.argv[4])
reads = torn = backward = 0
last, seen = (), set()
while True:
    stopping = (state / "stop").exists()
    try:
        found = read_job(state, job)
        phase = order.index(found["phase"])
        ended = found["finished"] is not None
        whole = ended == (found["phase"] == "ready") == (found["result"] is not None)
        fields = [found[name] for name in ("disk_number", "phase_percent")] if found["disk_count"] else [99, 100.0]
        now = (phase, *fields), found["bytes_read"], found["bytes_sent"], found["percent"], found["heartbeat"]
    except Exception:
        torn += 1
        continue
    reads += 1
    torn += not whole
    backward += last != () and any(new < old for new, old in zip(now, last))
    last = now
    seen.add(phase)
    if reads == 1:
        (state / f"reading-{number}").touch()
    if stopping:
        break
print(json.dumps([reads, torn, backward, len(seen), int(ended and found["percent"] == 100)]))
"""


@dataclass(frozen=True)
class Seen:
    """Of all readers together."""

    writes: int
    reads: int
    torn: int  # reads that were no record, or half an end
    backward: int  # reads that told of less than the one before: an earlier phase or disk, fewer bytes
    phases: int  # that each of them saw
    ended: int  # readers that saw the end at last


def hammer(state_dir: Path, seconds: float, readers: int = 2) -> Seen:
    job, order = "h" * 32, json.dumps(["pending", *PHASES, "ready"])
    progress = Progress(WEIGHTS)
    record = JobRecord.create(state_dir, job, "export")
    record.update(progress.snapshot(), now=True)
    environment = {**os.environ, "PYTHONPATH": PATH}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(state_dir), job, str(number), order],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(readers)
    ]
    while len(list(state_dir.glob("reading-*"))) < readers:
        assert all(reader.poll() is None for reader in started), "a reader ended"
        time.sleep(0.01)
    writes = _export(progress, record, seconds)
    (state_dir / "stop").touch()
    told = [json.loads(reader.communicate(timeout=30)[0]) for reader in started]
    return Seen(writes, *(sum(column) for column in zip(*told)))


def _export(progress: Progress, record: JobRecord, seconds: float) -> int:
    """The number of writes."""
    writes, steps = 0, 2 * DISKS + len(PHASES) - len(WEIGHTS)
    for phase in PHASES:
        moves = phase in WEIGHTS
        progress.enter(phase, [progress.new_disk(f"disk-{number}", DISK) for number in range(DISKS if moves else 0)])
        for number in range(DISKS if moves else 1):
            disk = progress.disk(number) if moves else None
            begun = time.monotonic()
            done = 0.0
            while done < 1:
                done = min(1.0, (time.monotonic() - begun) * steps / seconds)
                if disk is not None:
                    disk.read(int(done * DISK) - disk.bytes_read)
                    disk.settled(disk.bytes_read - disk.bytes_settled)
                    disk.sent(disk.bytes_read - disk.bytes_sent)
                record.update(progress.snapshot(), now=True)
                writes += 1
    progress.enter("ready")
    record.finish("ready", progress.snapshot(), result={"export": "20261121T063000Z-1a2b3c4d"})
    return writes + 1
