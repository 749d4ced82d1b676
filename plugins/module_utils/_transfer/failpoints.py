# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Named places where a test may have the process die, as by a power cut."""

from __future__ import annotations

import os
import signal
from collections import Counter
from threading import Lock

VARIABLE = "VMFERRY_FAILPOINT"  # name, or name:n for the n-th pass
_passes: Counter[str] = Counter()  # of the process, as the variable is the process's
_counting = Lock()


def failpoint(name: str) -> None:
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    chosen, _unused, pass_number = wanted.partition(":")
    if chosen != name:
        return
    with _counting:
        _passes[name] += 1
        if _passes[name] == int(pass_number or 1):
            os.kill(os.getpid(), signal.SIGKILL)
