# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's record: what it is, how far it is, how it ended. Written by the job, read by whoever asks.

`<state_dir>/jobs/<job_id>/record.json` is replaced whole, `log.jsonl` grows by a line at a time. Both are for their
owner alone (0600 in 0700), and neither holds a secret: what is put in must have none.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from pathlib import Path
from threading import Lock
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence
from urllib.parse import urlsplit, urlunsplit

from .._errors import VmferryError
from .owner import SILENCE, current_owner, is_owner_alive

VERSION = 1
WATCHER = "VMFERRY_WATCHER"  # the environment variable by which a task tells its job whom it belongs to
MIN_INTERVAL = 1.0  # seconds between two writes of the record
JOB_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{7,63}")
_LOG_TAIL = 256 * 1024  # bytes of the log that are looked at for its last lines
_FINISHED = frozenset({"ready", "failed", "cancelled"})


def default_state_dir() -> Path:
    """`VMFERRY_STATE_DIR`, else `/var/lib/vmferry` for root, else below `$XDG_STATE_HOME` or `~/.local/state`."""
    chosen = os.environ.get("VMFERRY_STATE_DIR")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/vmferry")
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local" / "state") / "vmferry"


def job_dir(state_dir: Path, job_id: str) -> Path:
    """Raises `invalid_config` for what is no job's id: it becomes part of a path."""
    if not JOB_ID.fullmatch(job_id):
        raise VmferryError(
            "invalid_config",
            f"{job_id!r} is not a job's id.",
            "It is 8 to 64 letters, digits and dashes, as a UUID is.",
        )
    return state_dir / "jobs" / job_id


class JobRecord:
    """Thread-safe. A record that cannot be written does not stop the job: the next second tries again."""

    def __init__(self, folder: Path, fields: Dict[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self._fields, self._clock = folder, fields, clock
        self._lock = Lock()
        self._written_at = clock()
        self.write_error: OSError | None = None  # of the last write, None when it went through

    @classmethod
    def create(
        cls,
        state_dir: Path,
        job_id: str,
        kind: str,
        *,
        vm: str = "",
        url: str = "",
        watcher: str = "",
        details: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> JobRecord:
        """A job of that id must not exist yet: `conflict`. `kind` is the module's verb, such as `export`.

        Whoever watches the job knows it by `watcher`, as an id may be that of an earlier one.
        """
        folder = job_dir(state_dir, job_id)
        _make_job_dir(state_dir, folder)
        now = time.time()
        fields: Dict[str, Any] = {
            **(details or {}),
            "version": VERSION,
            "id": job_id,
            "kind": kind,
            "vm": vm,
            "url": without_secrets(url),
            "phase": "pending",
            "started": now,
            "heartbeat": now,
            "finished": None,
            "result": None,
            "error": None,
            "undone": None,
            "owner": current_owner(),
            "watcher": watcher,
        }
        record = cls(folder, fields, clock)
        try:
            record._write()
        except OSError as error:
            raise unwritable(state_dir, error) from error
        return record

    @property
    def fields(self) -> Dict[str, Any]:
        with self._lock:
            return dict(self._fields)

    def update(self, snapshot: Mapping[str, Any], *, now: bool = False) -> None:
        """Written at most once a second; a new phase, or `now`, is written at once."""
        with self._lock:
            if self._fields["finished"] is not None:
                return
            changed = "phase" in snapshot and snapshot["phase"] != self._fields["phase"]
            self._fields.update(snapshot)
            if now or changed or self._clock() - self._written_at >= MIN_INTERVAL:
                self._try_write()

    def finish(
        self,
        phase: str,
        snapshot: Mapping[str, Any] | None = None,
        *,
        result: Mapping[str, Any] | None = None,
        error: VmferryError | None = None,
        undone: bool | None = None,
    ) -> None:
        """`ready`, `failed` or `cancelled`; what comes later is ignored. One write, so nobody sees half an end.

        `undone`: False where something that the job made and had to remove may still be there.
        """
        if phase not in _FINISHED:
            raise VmferryError("internal", f"A job cannot end in phase {phase!r}.")
        with self._lock:
            if self._fields["finished"] is not None:
                return
            now = time.time()
            self._fields.update(snapshot or {})
            self._fields.update(phase=phase, finished=now, heartbeat=now, rate=0, eta=None, undone=undone)
            self._fields["result"] = None if result is None else dict(result)
            self._fields["error"] = None if error is None else {**error.as_result(), "message": error.message}
            self._try_write()

    def note_undone(self, left_at: Sequence[str] = ()) -> None:
        """Of a job that ended and left something behind, which somebody has removed now, but for what is `left_at`."""
        with self._lock:
            self._fields.update(undone=not left_at, kept=None, left_at=list(left_at))
            self._try_write()

    def log(self, level: str, message: str) -> None:
        line = json.dumps({"time": round(time.time(), 3), "level": level, "message": message}) + "\n"
        with self._lock:
            try:
                descriptor = os.open(self.folder / "log.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                try:
                    os.write(descriptor, line.encode())
                finally:
                    os.close(descriptor)
            except OSError as error:
                self.write_error = error

    def _try_write(self) -> None:
        try:
            self._write()
            self.write_error = None
        except OSError as error:
            self.write_error = error

    def _write(self) -> None:
        """Readers see the old record or the new one. Not flushed to the disk: a heartbeat is worth nothing later."""
        self._written_at = self._clock()
        new = self.folder / ".record.json"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(self._fields, file)
        new.replace(self.folder / "record.json")


def read_job(state_dir: Path, job_id: str) -> Dict[str, Any]:
    """The record's fields and `alive` (None: cannot be told from here). Raises `not_found`."""
    folder = job_dir(state_dir, job_id)
    found = _read_record(folder)
    if found is None:
        raise VmferryError("not_found", f"There is no job {job_id} in {state_dir}.", "List the jobs with job_info.")
    return found


def reopen_record(folder: Path) -> Optional[JobRecord]:
    """Of a job that is dead, for whoever ends it in its place."""
    found = _read_record(folder)
    if found is None:
        return None
    del found["alive"]
    return JobRecord(folder, found)


def list_jobs(state_dir: Path) -> List[Dict[str, Any]]:
    """As `read_job`, the newest first. Folders without a readable record are left out: a job may be starting."""
    try:
        folders = sorted((state_dir / "jobs").iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise VmferryError(
            "permission_denied", f"The state directory {state_dir} cannot be read: {error.strerror}."
        ) from error
    found = [_read_record(folder) for folder in folders if JOB_ID.fullmatch(folder.name)]
    return sorted((job for job in found if job is not None), key=lambda job: -float(job.get("started") or 0))


def read_log(state_dir: Path, job_id: str, lines: int) -> List[Dict[str, Any]]:
    """The last lines, the oldest of them first: `{time, level, message}`."""
    try:
        with (job_dir(state_dir, job_id) / "log.jsonl").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LOG_TAIL))
            tail = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    if size > _LOG_TAIL:
        del tail[0]  # the rest of a line
    found = []
    for line in tail:
        with contextlib.suppress(ValueError):  # a line that is being written
            found.append(json.loads(line))
    return found[len(found) - min(lines, len(found)) :]


def is_alive(record: Mapping[str, Any]) -> Optional[bool]:
    """Whether the job's process runs; None where that cannot be told from here, and its record was written lately."""
    if record.get("finished") is not None:
        return False
    seen = is_owner_alive(record.get("owner") or {})
    if seen is None and time.time() - float(record.get("heartbeat") or 0) > SILENCE:
        return False
    return seen


def _read_record(folder: Path) -> Optional[Dict[str, Any]]:
    try:
        found = json.loads((folder / "record.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return {**found, "alive": is_alive(found)} if isinstance(found, dict) else None


def _make_job_dir(state_dir: Path, folder: Path) -> None:
    try:
        make_private(state_dir)
        make_private(folder.parent)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError as error:
            raise VmferryError("conflict", f"A job {folder.name} exists already.", "Leave the job's id out.") from error
    except OSError as error:
        raise unwritable(state_dir, error) from error


def unwritable(state_dir: Path, error: OSError) -> VmferryError:
    return VmferryError(
        "no_space" if error.errno == errno.ENOSPC else "permission_denied",
        f"The state directory {state_dir} cannot be written: {error.strerror}.",
        "Set state_dir to a directory that this user may write.",
    )


def make_private(folder: Path) -> None:
    """Folders that exist are left as they are: they may belong to somebody."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)


def without_secrets(url: str) -> str:
    """A presigned query or a password in a URL has no place in a record."""
    parts = urlsplit(url)
    if not parts.query and "@" not in parts.netloc:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
