# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in a store after an export."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def newest_export(store: Path, mode: str) -> Path:
    """Its folder. Raises SystemExit where it is of another mode: the figure would be about something else."""
    made = max(store.glob("bench-*/*/manifest.json"), key=lambda file: file.parent.name).parent
    found = json.loads((made / "manifest.json").read_text())["x_vmferry"]
    if found["mode"] != mode:
        sys.exit(f"{made} is {found['mode']}, not {mode}: {found['statistics']['reason']}")
    return made
