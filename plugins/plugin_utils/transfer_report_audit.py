# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log: one JSON object a line, for its owner alone, only ever added to."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .transfer_report import Transfer


@dataclass(frozen=True)
class Circumstances:
    """Who ran what, and where."""

    user: str
    controller: str
    playbook: str
    play: str
    task: str


def audit_entry(transfer: Transfer, circumstances: Circumstances) -> dict[str, Any]:
    return {
        "time": _iso(transfer.time, "milliseconds"),
        "user": circumstances.user,
        "controller": circumstances.controller,
        "playbook": circumstances.playbook,
        "play": circumstances.play,
        "task": circumstances.task,
        "check": transfer.check,
        "host": transfer.host,
        "vm": transfer.vm,
        "kind": transfer.kind,
        "url": transfer.url,
        "job": transfer.job,
        "export": transfer.export,
        "mode": transfer.mode,
        "checked_at": "" if transfer.checked_at is None else _iso(transfer.checked_at, "seconds"),
        "outcome": transfer.outcome,
        "bytes_read": transfer.bytes_read,
        "bytes_stored": transfer.bytes_stored,
        "duration": transfer.duration,
        "error": None if not transfer.message else {"kind": transfer.error_kind, "message": transfer.message},
    }


def _iso(moment: float, precision: str) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec=precision)


class AuditLog:
    """Made with its first line. Raises OSError; after that, lines may still be added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def add(self, entry: Mapping[str, Any]) -> None:
        """In one write, so that lines of plays that run at the same time do not mix."""
        line = json.dumps(entry).encode("ascii") + b"\n"
        if self._descriptor is None:
            self._descriptor = self._open()
        if _is_torn(self._descriptor):
            line = b"\n" + line
        if os.write(self._descriptor, line) < len(line):
            raise OSError(f"{self._path} took only a part of a line")

    def close(self) -> None:
        """Once the lines are on the disk."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        # A FIFO would be waited for without O_NONBLOCK.
        how = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path, how, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{self._path} is not a regular file")
        return descriptor


def _is_torn(descriptor: int) -> bool:
    """The disk was full, or the host went down, in the middle of a line."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
