# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Named steps at which a test may kill the process, as a power cut would: `VMFERRY_FAILPOINT=name[:n]`."""

from __future__ import annotations

import os
import signal
from typing import Dict

VARIABLE = "VMFERRY_FAILPOINT"
_passes: Dict[str, int] = {}


def failpoint(name: str) -> None:
    """SIGKILL at the n-th pass (from 1) of the step of that name."""
    wanted = os.environ.get(VARIABLE)
    if not wanted or wanted.partition(":")[0] != name:
        return
    _passes[name] = _passes.get(name, 0) + 1
    if _passes[name] == int(wanted.partition(":")[2] or 1):
        os.kill(os.getpid(), signal.SIGKILL)
