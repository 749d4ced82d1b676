# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export in a process of its own, which is killed at a failpoint."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ExportRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.failpoints import VARIABLE

TESTS = Path(__file__).resolve().parents[2]
PATIENCE = 180.0  # seconds; a busy machine takes three times as long as a quiet one


def die_at(failpoint: str, request: ExportRequest) -> None:
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent / ".build")])
    environment = {**os.environ, VARIABLE: failpoint, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "engine.aws.dying"]
    ended = subprocess.run(
        command, input=pickle.dumps(request), env=environment, timeout=PATIENCE, check=False, capture_output=True
    )
    assert ended.returncode == -signal.SIGKILL, f"it never came to {failpoint}: {ended.stderr.decode()}"


if __name__ == "__main__":
    export_vm(pickle.load(sys.stdin.buffer), False)
