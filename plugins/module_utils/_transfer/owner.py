# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs a job, so that another process can tell whether it is still alive."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

_PROC = Path("/proc")
_START_TIME = 19  # of the fields behind the process's name, see proc_pid_stat(5)


def current_owner() -> Dict[str, Any]:
    """Empty or None where this system does not tell."""
    return {
        "hostname": platform.node(),
        "boot_id": _boot_id(),
        "pid_namespace": _pid_namespace(),
        "pid": os.getpid(),
        "pid_started": _started(os.getpid()),
    }


def is_owner_alive(owner: Mapping[str, Any]) -> Optional[bool]:
    """None where this process cannot know: a pid says nothing on another host or in another container."""
    if not owner.get("boot_id") or owner.get("hostname") != platform.node():
        return None
    if owner["boot_id"] != _boot_id():
        return False  # this host was started again since
    if owner.get("pid_namespace") != _pid_namespace() or not isinstance(owner.get("pid"), int):
        return None
    started = _started(owner["pid"])
    return started is not None and started == owner.get("pid_started")


def clock_domain() -> str:
    """Processes of which this is equal see the same time on the monotonic clock."""
    return f"{_boot_id() or platform.node()} {_namespace('time')}"


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> Optional[int]:
    return _namespace("pid")


def _namespace(kind: str) -> Optional[int]:
    try:
        return (_PROC / "self/ns" / kind).stat().st_ino
    except OSError:
        return None


def _started(pid: int) -> Optional[int]:
    """Clock ticks from boot to the process's start: pids are used again, this pair is not. None: no such process."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[_START_TIME])
