# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process of low priority yields to others, with all it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PATH = str(Path(__file__).resolve().parents[3] / ".build")
YIELDING = """
import os, subprocess, sys
from threading import Thread
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.priority import io_priority, yield_to_others
yield_to_others(sys.argv[1])
def tell():
    print(os.nice(0), io_priority(), flush=True)
    subprocess.run(["nice"], check=True)
    subprocess.run(["ionice"], check=True)
thread = Thread(target=tell)
thread.start()
thread.join()
"""


def yielded(priority: str, *under: str) -> list[str]:
    """nice and ioprio of a thread, then those of a child."""
    command = [*under, sys.executable, "-c", YIELDING, priority]
    said = subprocess.run(command, env={**os.environ, "PYTHONPATH": PATH}, check=True, capture_output=True, text=True)
    return said.stdout.splitlines()


def test_low_yields_processor_and_disk_also_in_threads_and_children() -> None:
    own = os.nice(0)
    assert yielded("low") == [f"{max(own, 10)} {2 << 13 | 7}", str(max(own, 10)), "best-effort: prio 7"]
    for priority in ("normal", "high"):
        assert yielded(priority)[1] == str(own)
        assert yielded(priority)[2] != "best-effort: prio 7"


def test_low_lifts_nobody_who_yields_more_already() -> None:
    assert yielded("low", "nice", "-n", "19", "ionice", "-c", "3")[1:] == ["19", "idle"]
