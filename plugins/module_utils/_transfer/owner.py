# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs a job, so that another process can tell whether it is still alive.

One rule for records, intents and whoever watches: a process that can be looked at lives or does not, however long it
has been silent; of one that cannot be looked at, only signs of life tell, and after SILENCE without any it is dead.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

SILENCE = 300.0  # seconds without a sign of life; a slow store or a short pause must not look like a death
_PROC = Path("/proc")
_START_TIME = 19  # of the fields behind the process's name, see proc_pid_stat(5)


def current_owner() -> Dict[str, Any]:
    """Empty or None where this system does not tell."""
    return {**_here(), "pid": os.getpid(), "pid_started": _started(os.getpid())}


def is_owner_alive(owner: Mapping[str, Any]) -> Optional[bool]:
    """None where this process cannot know: a pid says nothing on another host or in another container."""
    pid = owner.get("pid")
    return is_process_alive(owner, _here(), _started(pid) if isinstance(pid, int) else None)


def is_process_alive(owner: Mapping[str, Any], here: Mapping[str, Any], started: Optional[int]) -> Optional[bool]:
    """`here`: where was looked, as in the owner; `started`: of the process of that pid there, None if there is none.

    None also for another boot: it is an earlier one of this host, or another host of the same name.
    """
    if not owner.get("boot_id") or not isinstance(owner.get("pid"), int):
        return None
    if any(owner.get(name) != here.get(name) for name in ("hostname", "boot_id", "pid_namespace")):
        return None
    return started is not None and started == owner.get("pid_started")


def is_of_earlier_boot(owner: Mapping[str, Any]) -> bool:
    """Of what lies on a disk that only this host has, so that its name is no other host's."""
    boot = owner.get("boot_id")
    return bool(boot) and owner.get("hostname") == platform.node() and boot != _boot_id()


def started_of(stat: str) -> Optional[int]:
    """Clock ticks from boot to the process's start: pids are used again, this pair is not. None: it has ended.

    `stat` as in proc_pid_stat(5). Raises ValueError or IndexError for anything else.
    """
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[_START_TIME])


def _here() -> Dict[str, Any]:
    return {"hostname": platform.node(), "boot_id": _boot_id(), "pid_namespace": _pid_namespace()}


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
    try:
        return started_of((_PROC / str(pid) / "stat").read_text())
    except OSError:
        return None
