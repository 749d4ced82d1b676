# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a job: `<state_dir>/jobs/<id>/record.json`, always whole, and `log.jsonl` beside it."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any, Iterator, Mapping

from .._errors import VmferryError
from .owner import is_alive, this_process

JOB_ID = re.compile(r"[0-9a-f]{8,64}")
FINISHED = frozenset({"ready", "failed", "cancelled"})
INTERVAL = 1.0  # seconds between two writings at the least


def default_state_dir() -> str:
    """`VMFERRY_STATE_DIR`, else `/var/lib/vmferry` for root, else below the user's state folder (XDG)."""
    said = os.environ.get("VMFERRY_STATE_DIR")
    if said:
        return said
    if os.geteuid() == 0:
        return "/var/lib/vmferry"
    return str(Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "vmferry")


class JobRecord:
    """Written by the job alone; read by anybody who may."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.path = folder / "record.json"
        self._log_path = folder / "log.jsonl"
        self._facts: dict[str, Any] = dict(facts)
        self._written = 0.0

    @classmethod
    def create(cls, state_dir: str, job_id: str, *, kind: str, vm: str, url: str) -> JobRecord:
        folder = _job_folder(state_dir, job_id)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(mode=0o700)
        except FileExistsError as error:
            raise VmferryError("conflict", f"A job {job_id} exists already.", "Give each job an id of its own.") from error
        except OSError as error:
            raise VmferryError(
                "permission_denied",
                f"The job's record cannot be kept in {folder}: {error.strerror}.",
                "Set state_dir to a folder that this user may write.",
            ) from error
        now = time.time()
        record = cls(
            folder,
            {"job": job_id, "kind": kind, "vm": vm, "url": url, "owner": this_process(), "started": now, "error": None},
        )
        record.update({"phase": "pending"}, at_once=True)
        return record

    def update(self, snapshot: Mapping[str, Any], *, at_once: bool = False) -> None:
        """At most once a second, so that watching costs nothing."""
        now = time.monotonic()
        self._facts.update(snapshot)
        if at_once or now - self._written >= INTERVAL:
            self._written = now
            self._write()

    def finish(self, snapshot: Mapping[str, Any], phase: str, error: Mapping[str, Any] | None) -> None:
        self._facts.update(snapshot)
        self._facts.update(phase=phase, error=error, ended=time.time(), eta=None)
        self._write()

    def log(self, level: str, message: str) -> None:
        line = json.dumps({"time": round(time.time(), 3), "level": level, "message": message})
        descriptor = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a") as log:
            log.write(line + "\n")

    def _write(self) -> None:
        self._facts["heartbeat"] = time.time()
        partial = self.path.with_suffix(".part")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._facts, file)
        partial.replace(self.path)


def read_job(state_dir: str, job_id: str, log_lines: int) -> dict[str, Any] | None:
    """The record, with `finished`, `alive` (None where that cannot be told from here) and the last lines of the log."""
    folder = _job_folder(state_dir, job_id)
    try:
        record = json.loads((folder / "record.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise VmferryError("internal", f"The record of the job {job_id} in {folder} cannot be read: {error}.") from error
    record["finished"] = record["phase"] in FINISHED
    record["alive"] = False if record["finished"] else is_alive(record["owner"])
    record["log"] = _last_lines(folder / "log.jsonl", log_lines)
    return record


def job_ids(state_dir: str) -> Iterator[str]:
    jobs = Path(state_dir) / "jobs"
    if jobs.is_dir():
        yield from sorted(folder.name for folder in jobs.iterdir() if JOB_ID.fullmatch(folder.name))


def _job_folder(state_dir: str, job_id: str) -> Path:
    if not JOB_ID.fullmatch(job_id):
        raise VmferryError("invalid_config", f"{job_id!r} is not a job's id.", "It is 8 to 64 hexadecimal digits, lower case.")
    return Path(state_dir) / "jobs" / job_id


def _last_lines(path: Path, count: int) -> list[dict[str, Any]]:
    if count <= 0:
        return []
    try:
        lines = path.read_text().splitlines()[-count:]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
