# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process a job is, and whether that process still lives. A pid alone says nothing: it may be of another host,
another container, or a later process.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Mapping


def this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot_id": _boot_id(),
        "pid_namespace": _pid_namespace(),
        "started": _start_time(os.getpid()),
    }


def is_alive(owner: Mapping[str, Any]) -> bool | None:
    """None where this process cannot tell: the owner runs, or ran, on another host or in another container."""
    if owner.get("boot_id") != _boot_id() or owner.get("pid_namespace") != _pid_namespace() or not _boot_id():
        return None
    pid = owner.get("pid")
    return isinstance(pid, int) and _start_time(pid) == owner.get("started") and owner.get("started") is not None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _start_time(pid: int) -> int | None:
    """In clock ticks since boot (proc(5), field 22); None for no such process, or a dead one nobody has waited for."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in ("Z", "X") else int(after_name[19])
