# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much a job yields to others: its share of a limit, and what the kernel is told of its processor and disk time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from typing import Literal

Priority = Literal["low", "normal", "high"]
WEIGHTS: dict[Priority, int] = {"low": 1, "normal": 2, "high": 4}

LOW_NICE = 10
LOW_IO = 2 << 13 | 7  # best effort, of which 7 is the lowest; what yields less has lower numbers, and idle a higher
_WHO_PROCESS = 1
# The number of the system call on 64-bit Linux; that of ioprio_get is the next one. The C library has neither.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}


def yield_to_others(priority: Priority) -> None:
    """For this thread, and the threads and processes it starts from now on; only ever downwards.

    `high` is `normal` here: what it takes would be taken from the guests.
    """
    if priority != "low":
        return
    with contextlib.suppress(OSError):
        os.nice(max(0, LOW_NICE - os.nice(0)))
    with contextlib.suppress(OSError):
        if io_priority() < LOW_IO:
            _system_call(0, LOW_IO)


def io_priority() -> int:
    """Of this thread: class and level as in ioprio_get(2), 0 if it was never set. Raises OSError."""
    return _system_call(1)


def _system_call(offset: int, *value: int) -> int:
    number = _IOPRIO_SET.get(platform.machine())
    if number is None or sys.platform != "linux" or sys.maxsize < 2**32:
        raise OSError("This system has no ioprio_set that is known here.")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    arguments = [ctypes.c_long(one) for one in (number + offset, _WHO_PROCESS, 0, *value)]
    answer = int(libc.syscall(*arguments))
    if answer < 0:
        raise OSError(ctypes.get_errno(), "ioprio")
    return answer
